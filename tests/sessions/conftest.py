"""Every test that takes `url` runs on fakeredis and on a real Redis: one contract for both."""

from __future__ import annotations

import secrets

import pytest

from tests.redis_server import RedisServer


@pytest.fixture(params=["fakeredis", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "fakeredis":
        return f"memory://{secrets.token_hex(4)}"
    server: RedisServer = request.getfixturevalue("shared_redis")
    return server.unix_url


@pytest.fixture
def prefix() -> str:
    """A prefix of the test's own, so that tests can share a Redis."""
    return f"t{secrets.token_hex(4)}"
