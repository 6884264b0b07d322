"""Redis away at the start, going away and coming back: 503, never a 401, and healed without help."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Answer, ask, json_request, request
from tests.redis_server import RedisServer

MARGIN = 1.0  # seconds beyond redis.timeout that an answer may take


@pytest.fixture
def cold(own_redis: RedisServer, backend: Backend) -> Iterator[Gateway]:
    """A gateway that was started while nothing listened at its Redis' address."""
    own_redis.stop()
    routes = [route("/guarded/", backend.url), route("/raw/", backend.url, auth="none")]
    with Site(own_redis.url) as site, site.serve(ready=503, routes=routes) as gateway:
        yield gateway


def unavailable(gateway: Gateway, data: bytes) -> None:
    started = time.monotonic()
    answer = ask(gateway.port, data)
    assert time.monotonic() - started < 0.25 + MARGIN
    assert answer.error == (503, "store_unavailable")
    assert int(answer.get("retry-after")) >= 1
    assert answer.all("set-cookie") == []
    assert answer.all("www-authenticate") == []


def test_a_gateway_without_redis_is_up_says_so_and_heals(
    cold: Gateway, own_redis: RedisServer, backend: Backend
) -> None:
    spot = backend.spot()
    token = cold.site.signer().mint(
        subject="u-alice", session_id="0" + "A" * 22, counter=0, roles=[], scope="", claims={}, now=time.time()
    )
    assert cold.operate("GET", "/livez").status == 200
    until(lambda: cold.operate("GET", "/readyz").json().get("failing") == ["redis"], "it listens")
    assert cold.readiness() == 503
    assert cold.metric("tokengate_store_up") == 0
    unavailable(cold, request("GET", spot.path("/guarded"), token=token.token))
    unavailable(cold, json_request("POST", "/auth/login", {"username": "alice", "password": "correct horse"}))
    unavailable(cold, request("GET", "/auth/me", token=token.token))
    cookie = {"Cookie": "__Secure-refresh=x", "Content-Type": "application/x-www-form-urlencoded"}
    assert ask(cold.port, request("POST", "/auth/token", cookie, b"grant_type=refresh_token")).status == 400
    # What needs no Redis is served.
    assert ask(cold.port, request("GET", spot.path())).status == 200
    assert ask(cold.port, request("GET", spot.path("/guarded"))).error == (401, "missing_token")
    assert ask(cold.port, request("GET", "/.well-known/jwks.json")).status == 200

    own_redis.start()
    cold.wait_ready()
    good = cold.login()["access_token"]
    assert ask(cold.port, request("GET", spot.path("/guarded"), token=good)).status == 200


def test_an_outage_is_a_503_and_service_is_back_within_a_second_of_redis(
    own_redis: RedisServer, backend: Backend
) -> None:
    spot = backend.spot()
    with Site(own_redis.url) as site, site.serve(routes=[route("/guarded/", backend.url)]) as gateway:
        tokens = gateway.login()
        guarded = request("GET", spot.path("/guarded"), token=tokens["access_token"])
        assert ask(gateway.port, guarded).status == 200

        own_redis.pause()  # connections stand, nothing is answered
        unavailable(gateway, guarded)
        gone = gateway.refresh(tokens["refresh_token"])
        assert gone.error == (503, "store_unavailable")
        own_redis.resume()
        started = time.monotonic()
        until(lambda: ask(gateway.port, guarded).status == 200, "the gateway heals", 5)
        assert time.monotonic() - started < 1 + MARGIN
        assert gateway.refresh(tokens["refresh_token"]).status == 200

        own_redis.stop()  # and what it held is lost
        unavailable(gateway, guarded)
        gateway.wait_ready(503)
        own_redis.start()

        def healed() -> Answer | None:
            answer = ask(gateway.port, guarded)
            return answer if answer.status != 503 else None

        assert until(healed, "the gateway heals", 5).error == (401, "revoked_token")
        gateway.wait_ready()
        assert gateway.login()["access_token"]
