"""The management listener."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from gateway.api.admin import check_admin
from gateway.api.management import Management, create_management
from gateway.api.oauth import Revoker
from gateway.errors import Forbidden
from gateway.tokens.keyfile import BadKey
from tests.api.support import Stack, bearer, code, new_client, stack

TOKEN = "admin-token-0123456789abcdef"
ADMIN = bearer(TOKEN)
ADMIN_CALLS = [
    ("GET", "/admin/users/u-1/sessions"),
    ("DELETE", "/admin/users/u-1/sessions"),
    ("DELETE", "/admin/sessions/x"),
    ("POST", "/admin/revoke"),
    ("POST", "/admin/keys/reload"),
]


def admins(token: str = "", **named: str) -> dict[str, bytes]:
    """Return the digests of an admin token and of named ones."""
    known = {"admin": token} if token else {}
    known |= {f"admin:{name}": each for name, each in named.items()}
    return {by: hashlib.sha256(each.encode()).digest() for by, each in known.items()}


@asynccontextmanager
async def managed(s: Stack, **changed: Any) -> AsyncIterator[httpx.AsyncClient]:
    async def reload_keys() -> dict[str, Any]:
        return {"signing": "k-2", "keys": ["k-1", "k-2"]}

    services = s.services
    parts: dict[str, Any] = {
        "grants": services.grants,
        "store": s.store,
        "revoker": Revoker(services.grants, services.gate, services.refresh_tokens),
        "telemetry": s.telemetry,
        "failing": list,
        "reload_keys": reload_keys,
        "admins": lambda: admins(TOKEN),
        "clock": s.clock,
    }
    async with new_client(create_management(Management(**(parts | changed))), "127.0.0.1") as client:
        yield client


def test_the_process_is_alive_and_ready_or_says_what_fails() -> None:
    async def run() -> None:
        async with stack() as s:
            failing: list[str] = []
            async with managed(s, failing=lambda: failing) as m:
                assert (await m.get("/livez")).json() == {"status": "alive"}
                assert (await m.get("/readyz")).json() == {"status": "ready"}
                failing += ["redis", "draining"]
                unready = await m.get("/readyz")
                assert unready.status_code == 503
                assert unready.json() == {"status": "unready", "failing": ["draining", "redis"]}
                assert (await m.get("/livez")).status_code == 200

    asyncio.run(run())


def test_metrics_are_prometheus_text() -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            response = await m.get("/metrics")
            assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
            assert "tokengate_refreshes_total" in response.text

    asyncio.run(run())


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
def test_the_admin_api_opens_for_the_admin_token_alone(method: str, path: str) -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            user = (await s.login())["access_token"]
            for value in ("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", TOKEN, f"Basic {TOKEN}", user):
                headers = {"authorization": value} if value else {}
                assert code(await m.request(method, path, headers=headers)) == (403, "forbidden")
            assert code(await m.request(method, path, headers=bearer(user))) == (403, "forbidden")
            twice = [("authorization", f"Bearer {TOKEN}")] * 2
            assert code(await m.request(method, path, headers=twice)) == (403, "forbidden")

    asyncio.run(run())


@pytest.mark.parametrize(("method", "path"), ADMIN_CALLS)
def test_without_an_admin_token_there_is_no_admin_api(method: str, path: str) -> None:
    async def run() -> None:
        async with stack() as s, managed(s, admins=dict) as m:
            for headers in ({}, {"authorization": "Bearer "}, ADMIN):
                assert code(await m.request(method, path, headers=headers)) == (404, "no_route")

    asyncio.run(run())


def test_an_empty_admin_token_admits_no_one() -> None:
    request = Request({"type": "http", "headers": [(b"authorization", b"Bearer ")]})
    with pytest.raises(Forbidden):
        check_admin(SimpleNamespace(admins=dict), request)  # type: ignore[arg-type]


def test_an_operator_lists_and_ends_anyones_sessions() -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            one, two, bob = await s.login(), await s.login(), await s.login("bob", "builder")
            listed = (await m.get("/admin/users/u-1/sessions", headers=ADMIN)).json()["sessions"]
            assert {session["id"] for session in listed} == {one["session_id"], two["session_id"]}
            path = f"/admin/sessions/{one['session_id']}"
            assert (await m.delete(path, headers=ADMIN)).status_code == 204
            assert code(await m.delete(path, headers=ADMIN)) == (404, "not_found")
            assert code(await s.me(one["access_token"])) == (401, "revoked_token")
            assert (await m.delete("/admin/users/u-1/sessions", headers=ADMIN)).status_code == 204
            assert code(await s.me(two["access_token"])) == (401, "revoked_token")
            assert (await s.me(bob["access_token"])).status_code == 200
            assert (await m.get("/admin/users/a%2Fb%20c/sessions", headers=ADMIN)).json() == {"sessions": []}

    asyncio.run(run())


def test_an_operator_revokes_by_token_or_by_id() -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            one, two, three = await s.login(), await s.login(), await s.login()
            claims = (await s.me(two["access_token"])).json()
            for given in (
                {"token": one["access_token"]},
                {"jti": claims["jti"], "exp": claims["exp"]},
                {"token": three["refresh_token"]},
                {"token": "unknown"},
            ):
                assert (await m.post("/admin/revoke", json=given, headers=ADMIN)).status_code == 204
            for body in (one, two, three):
                assert code(await s.me(body["access_token"])) == (401, "revoked_token")

    asyncio.run(run())


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"token": ""},
        {"token": 1},
        {"token": "x", "jti": "y"},
        {"jti": "x"},
        {"jti": "x", "exp": "1"},
        {"jti": "x", "exp": True},
        {"jti": "x", "exp": 0},
        {"jti": "x", "exp": 2**60},
        {"jti": "x", "exp": 1e300},
        {"jti": "", "exp": 1},
        {"jti": "x" * 256, "exp": 1},
        {"jti": "a\nb", "exp": 1},
        {"exp": 1},
    ],
)
def test_a_revocation_that_is_not_understood_is_an_invalid_request(given: dict[str, object]) -> None:
    async def run() -> None:
        async with stack() as s, managed(s) as m:
            assert code(await m.post("/admin/revoke", json=given, headers=ADMIN)) == (400, "invalid_request")

    asyncio.run(run())


def test_a_key_reload_is_audited_and_a_bad_key_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def bad() -> dict[str, Any]:
        raise BadKey("k-3.pem", "is not a key")

    async def run() -> None:
        async with stack() as s:
            async with managed(s) as m:
                response = await m.post("/admin/keys/reload", headers=ADMIN)
                assert response.json() == {"signing": "k-2", "keys": ["k-1", "k-2"]}
            assert [r.getMessage() for r in caplog.records if r.name == "gateway.audit"] == ["keys_reloaded"]
            async with managed(s, reload_keys=bad) as m:
                refused = await m.post("/admin/keys/reload", headers=ADMIN)
                assert code(refused) == (409, "bad_keys")
                assert "k-3" not in refused.text
            assert any("k-3.pem" in str(vars(record).get("reason")) for record in caplog.records)

    caplog.set_level(logging.INFO, logger="gateway")
    asyncio.run(run())


def test_the_admin_token_is_in_no_repr() -> None:
    async def run() -> None:
        async with stack() as s:
            site = Management(
                grants=s.services.grants,
                store=s.store,
                revoker=Revoker(s.services.grants, s.services.gate, s.services.refresh_tokens),
                telemetry=s.telemetry,
                failing=list,
                reload_keys=None,  # type: ignore[arg-type]
                admins=lambda: admins(TOKEN),
            )
            assert TOKEN not in repr(site)
            assert "admins" not in repr(site)

    asyncio.run(run())
