"""Clusters: several replicas of one gateway, processes of their own, over one real Redis.

All their processes are started before the first of them is waited for.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.backends import Backend, raw_backend
from tests.e2e.harness import Gateway, Site, route, running, until
from tests.redis_server import RedisServer

SCALE = max(1, int(os.environ.get("RACES_SCALE", "1")))  # how many times the examples, rounds and seconds of CI
REDIS = {"timeout": "5s"}  # a busy machine is no outage here
READY_SECONDS = 50.0  # five processes that start at once on two busy cores


@dataclass(frozen=True)
class Cluster:
    """Replicas that share keys, users and Redis. `path` is a live route, `renewing` one that refreshes too."""

    site: Site
    replicas: tuple[Gateway, ...]
    path: str
    renewing: str

    def names(self) -> Sequence[str]:
        return [chr(ord("a") + number) for number in range(len(self.replicas))]


Process = tuple[Sequence[str], Mapping[str, str], Mapping[str, Any]]  # words, environment, sections


@contextmanager
def cluster(
    site: Site, backend: Backend, processes: Sequence[Process], failing: Mapping[int, list[str]] | None = None
) -> Iterator[Cluster]:
    """Run a replica for each process. `failing` is what /readyz names at a replica, nothing by default."""
    routes = [route("/live/", backend.url), route("/renewing/", backend.url, on_expired="refresh")]
    spot = backend.spot()
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(site.serve(words, ready=0, environ=environ, routes=routes, redis=REDIS, **sections))
            for words, environ, sections in processes
        ]
        for number, replica in enumerate(replicas):
            expected = (failing or {}).get(number, [])
            said = f"/readyz names {expected}: {replica!r}\n{replica.log}"
            until(functools.partial(_settled, replica, expected), said, READY_SECONDS)
        yield Cluster(site, tuple(replicas), spot.path("/live"), spot.path("/renewing"))


def _settled(replica: Gateway, failing: list[str]) -> bool:
    if not replica.readiness():
        return False
    named: list[str] = replica.operate("GET", "/readyz").json().get("failing", [])
    return named == failing


@pytest.fixture(autouse=True)
def _no_exception_is_logged() -> Iterator[None]:
    yield
    for gateway in running():
        gateway.check_log()


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    with raw_backend() as made:
        yield made


@pytest.fixture(scope="session")
def strict(shared_redis: RedisServer, backend: Backend) -> Iterator[Cluster]:
    """No grace, access tokens that last: a refresh does not hang on the time. The last replica has two workers."""
    with Site(shared_redis.url, "strict") as site:
        sections = {"tokens": {"refresh_grace": "0s"}}
        processes: list[Process] = [((), {}, sections), ((), {}, sections), (("--workers", "2"), {}, sections)]
        with cluster(site, backend, processes) as made:
            yield made


@pytest.fixture(scope="session")
def lively(shared_redis: RedisServer, backend: Backend) -> Iterator[Cluster]:
    """Access tokens that expire every second, and the usual grace."""
    with Site(shared_redis.url, "lively") as site:
        sections = {"tokens": {"access_ttl": "1s", "leeway": "0s"}}
        with cluster(site, backend, [((), {}, sections)] * 3) as made:
            yield made
