"""Two gateway processes on each Redis as platform teams run it: sign in, call, refresh, sign out; and a failover."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import Answer, ask, request
from tests.redis_server import redis_has_tls
from tests.redis_topologies import TLS_FILES, USER, cluster, guarded_redis, replicate, sentinels


@contextmanager
def redis_section(kind: str) -> Iterator[dict[str, Any]]:
    """Run a Redis and yield the section of the configuration that names it."""
    if kind == "sentinel":
        with sentinels(1) as watched:
            yield {"url": watched.url}
    elif kind == "cluster":
        with cluster() as nodes:
            yield {"url": nodes.url}
    else:
        if not redis_has_tls():
            pytest.skip("needs a redis-server with TLS")
        with guarded_redis() as server:
            server.password_file.chmod(0o600)
            (server.directory / "node.key").chmod(0o600)
            files = {f"tls_{name}": f"{server.directory}/{file}" for name, file in TLS_FILES.items()}
            url = f"rediss://127.0.0.1:{server.port}/0"
            yield {"url": url, "username": USER, "password_file": str(server.password_file), **files}


def call(gateway: Gateway, backend: Backend, token: str) -> Answer:
    return ask(gateway.port, request("GET", backend.spot().path("/guarded"), token=token))


@pytest.mark.parametrize("kind", ["tls", "sentinel", "cluster"])
def test_the_main_line_holds_between_two_processes_on_a_redis_of_each_kind(kind: str, backend: Backend) -> None:
    routes = [route("/guarded/", backend.url)]
    with redis_section(kind) as redis, Site("redis://replaced") as site:
        options: dict[str, Any] = {"routes": routes, "redis": redis, "tokens": {"max_sessions_per_user": 3}}
        with site.serve(**options) as first, site.serve(**options) as second:
            for user in ("alice", "bob"):
                for _ in range(5):
                    tokens = first.login(user)
                    assert call(second, backend, tokens["access_token"]).status == 200
                    renewed = second.refresh(tokens["refresh_token"])
                    assert renewed.status == 200
                    token = renewed.json()["access_token"]
                    assert call(first, backend, token).status == 200
                    assert ask(first.port, request("POST", "/auth/logout", token=token)).status == 204
                    for old in (token, tokens["access_token"]):
                        assert call(second, backend, old).error == (401, "revoked_token")
                    assert second.refresh(renewed.json()["refresh_token"]).status == 400
        config = next(site.directory.glob("gateway-1.toml"))
        ran = subprocess.run(
            [sys.executable, "-m", "gateway", "check", "--config", str(config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_failover_is_a_503_at_worst_and_nobody_is_signed_out(backend: Backend) -> None:
    routes = [route("/guarded/", backend.url)]
    with sentinels(3) as watched, Site(watched.url) as site, site.serve(routes=routes) as gateway:
        tokens = gateway.login("alice")
        replicate(watched.primary)
        watched.primary.stop()
        named_at = 0.0
        deadline = time.monotonic() + 60
        while True:
            answer = call(gateway, backend, tokens["access_token"])
            if answer.status == 200:
                break
            assert answer.error == (503, "store_unavailable")
            assert answer.get("retry-after")
            assert time.monotonic() < deadline
            if not named_at and watched.named() == watched.replica.port:
                named_at = time.monotonic()
        assert not named_at or time.monotonic() - named_at < 1
        assert gateway.refresh(tokens["refresh_token"]).status == 200
        gateway.wait_ready()
