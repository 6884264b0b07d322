"""Every test that takes `url` runs on each Redis as it is run: one contract for all.

The servers are started once a run and shared: a test keeps to a prefix of its own.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator

import pytest

from gateway.sessions.connect import Endpoint, parse_url
from tests.redis_server import RedisServer, redis_has_tls, redis_server
from tests.redis_topologies import Cluster, Guarded, Watched, cluster, guarded_redis, sentinels
from tests.sessions.world import LOOKED_INTO

DEPLOYMENTS = ["fakeredis", "redis", "valkey", "tls", "sentinel", "cluster"]


@pytest.fixture(params=DEPLOYMENTS)
def url(request: pytest.FixtureRequest) -> Endpoint:
    match request.param:
        case "fakeredis":
            return parse_url(f"memory://{secrets.token_hex(4)}")
        case "redis":
            server: RedisServer = request.getfixturevalue("shared_redis")
            return parse_url(server.unix_url)
        case "valkey":
            other: RedisServer = request.getfixturevalue("shared_valkey")
            return parse_url(other.url)
        case "tls":
            guarded: Guarded = request.getfixturevalue("shared_guarded")
            endpoint = guarded.endpoint()
            LOOKED_INTO[endpoint] = guarded.server.unix_url
            return endpoint
        case "sentinel":
            watched: Watched = request.getfixturevalue("shared_sentinels")
            return parse_url(watched.url)
    nodes: Cluster = request.getfixturevalue("shared_cluster")
    return parse_url(nodes.url)


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[RedisServer]:
    program = shutil.which("valkey-server")
    if program is None:
        pytest.skip("needs valkey-server on PATH")
    with redis_server(program=program) as server:
        yield server


@pytest.fixture(scope="session")
def shared_guarded() -> Iterator[Guarded]:
    if not redis_has_tls():
        pytest.skip("needs a redis-server with TLS")
    with guarded_redis() as server:
        yield server


@pytest.fixture(scope="session")
def shared_sentinels() -> Iterator[Watched]:
    with sentinels(1) as watched:
        yield watched


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    with cluster() as nodes:
        yield nodes


@pytest.fixture
def prefix() -> str:
    """A prefix of the test's own, so that tests can share a Redis."""
    return f"t{secrets.token_hex(4)}"
