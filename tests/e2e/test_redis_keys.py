"""Every key that the gateway writes carries a TTL, and nothing is left when all has expired."""

from __future__ import annotations

from typing import Any

from tests.e2e.backends import Backend
from tests.e2e.harness import Site, route, until
from tests.e2e.wire import ask, json_request, request
from tests.redis_server import RedisServer


def test_every_key_but_the_epochs_has_a_ttl_and_nothing_else_is_left_in_the_end(
    shared_redis: RedisServer, site: Site, backend: Backend
) -> None:
    spot = backend.spot()
    client = shared_redis.client()

    def keys() -> list[bytes]:
        return [key for key in client.scan_iter(match="ttl:*") if not key.endswith(b":epoch")]

    options: dict[str, Any] = {
        "redis": {"prefix": "ttl"},
        "tokens": {"access_ttl": "1s", "leeway": "0s", "refresh_ttl": "3s", "session_ttl": "10s"},
        "limits": {"login_per_user": 600, "login_per_ip": 600, "refresh_per_session": 600},
        "routes": [route("/guarded/", backend.url)],
    }
    with site.serve(**options) as gateway:
        for user in ("alice", "bob", "odd"):
            tokens = gateway.login(user, device="a")
            tokens = gateway.refresh(tokens["refresh_token"]).json()
            answer = ask(gateway.port, request("GET", spot.path("/guarded"), token=tokens["access_token"]))
            assert answer.status == 200
            gateway.login(user, device="b")
            assert gateway.operate("POST", "/admin/revoke", {"token": tokens["access_token"]}).status in (200, 204)
            ask(gateway.port, json_request("POST", "/auth/login", {"username": user, "password": "wrong"}))
        kinds = {key.split(b":")[2] for key in keys()}
        assert {b"session", b"user", b"revoked", b"attempt"} <= kinds
        for key in keys():
            assert client.pttl(key) != -1, f"{key!r} has no TTL"
            assert client.pttl(key) <= 3000, f"the TTL of {key!r} is too long"
        assert client.keys("ttl:*:epoch")
        until(lambda: not keys(), "all keys are gone", 6)
        assert client.keys("ttl:*") == client.keys("ttl:*:epoch")
    client.close()
