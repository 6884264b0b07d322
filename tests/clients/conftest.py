"""Two gateways over one Redis and one echoing backend: tokens that live long, and tokens that live briefly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.backend import EchoBackend, echo_backend
from tests.e2e.harness import Gateway, Site, route
from tests.redis_server import RedisServer

BRIEF = 6.0  # seconds


@pytest.fixture(scope="session")
def clients_site(shared_redis: RedisServer) -> Iterator[Site]:
    with Site(shared_redis.url) as made:
        yield made


@pytest.fixture(scope="session")
def echo() -> Iterator[EchoBackend]:
    with echo_backend() as made:
        yield made


@pytest.fixture(scope="session")
def gateway(clients_site: Site, echo: EchoBackend) -> Iterator[Gateway]:
    with clients_site.serve(routes=[route("/api/", echo.url)]) as made:
        yield made


@pytest.fixture(scope="session")
def brief(clients_site: Site, echo: EchoBackend) -> Iterator[Gateway]:
    tokens = {"access_ttl": f"{BRIEF:.0f}s", "leeway": "0s"}
    with clients_site.serve(routes=[route("/api/", echo.url)], tokens=tokens) as made:
        yield made
