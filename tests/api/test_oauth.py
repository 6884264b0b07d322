"""Revocation, introspection, the public keys and the metadata."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from urllib.parse import quote_plus

import pytest

from gateway.api.clients import Clients
from gateway.attempts import Limits
from gateway.errors import InvalidClient, StoreUnavailable
from gateway.gate import Gate
from gateway.sessions.store import SessionStore
from tests.api.support import ISSUER, SECRET, bearer, code, quick_hash, stack


def basic(name: str, secret: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"{name}:{secret}".encode()).decode()}


CLIENT = basic("orders", SECRET)


def test_revoking_an_access_token_ends_that_token_alone() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            response = await s.client.post("/auth/revoke", data={"token": body["access_token"]})
            assert (response.status_code, response.content) == (200, b"")
            assert code(await s.me(body["access_token"])) == (401, "revoked_token")
            fresh = (await s.refresh(body["refresh_token"])).json()
            assert (await s.me(fresh["access_token"])).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize("hint", ["refresh_token", "access_token", "nonsense"])
def test_revoking_a_refresh_token_ends_its_session_whatever_the_hint(hint: str) -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            given = {"token": body["refresh_token"], "token_type_hint": hint}
            assert (await s.client.post("/auth/revoke", data=given)).status_code == 200
            assert code(await s.me(body["access_token"])) == (401, "revoked_token")

    asyncio.run(run())


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_token_is_revoked_though_this_replicas_clock_takes_it_for_expired_or_early(seconds: float) -> None:
    async def run() -> None:
        async with stack(store_clock=False) as s:
            token = (await s.login())["access_token"]
            s.clock.ahead = seconds
            assert code(await s.me(token)) == (401, "expired_token" if seconds > 0 else "invalid_token")
            assert (await s.client.post("/auth/revoke", data={"token": token})).status_code == 200
            s.clock.ahead = 0.0
            assert code(await s.me(token)) == (401, "revoked_token")

    asyncio.run(run())


@pytest.mark.parametrize("token", ["x", "a.b.c", "rt1.k.s.0.m", "é", "\x00", "x" * 60000])
def test_revoking_an_unknown_token_is_no_error(token: str) -> None:
    async def run() -> None:
        async with stack() as s:
            assert (await s.client.post("/auth/revoke", data={"token": token})).status_code == 200

    asyncio.run(run())


def test_revoking_nothing_is_an_invalid_request_and_an_outage_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with stack() as s:
            assert code(await s.client.post("/auth/revoke", data={})) == (400, "invalid_request")
            assert code(await s.client.post("/auth/revoke", data={"token": ""})) == (400, "invalid_request")
            body = await s.login()

            async def down(*_: object) -> None:
                raise StoreUnavailable("down")

            monkeypatch.setattr(SessionStore, "revoke_token", down)
            response = await s.client.post("/auth/revoke", data={"token": body["access_token"]})
            assert code(response) == (503, "store_unavailable")

    asyncio.run(run())


def test_introspection_answers_with_the_claims_of_a_live_token() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            response = await s.client.post("/auth/introspect", data={"token": body["access_token"]}, headers=CLIENT)
            answer = response.json()
            assert answer["active"] is True
            assert answer["token_type"] == "Bearer"
            assert (answer["sub"], answer["sid"], answer["scope"]) == ("u-1", body["session_id"], "orders:read")

    asyncio.run(run())


def test_introspection_says_no_more_than_inactive_of_any_other_token() -> None:
    async def run() -> None:
        async with stack() as s:
            live, ended = await s.login(), await s.login()
            await s.store.end(ended["session_id"])
            tokens = [ended["access_token"], live["refresh_token"], live["access_token"] + "x", "é", "a b", " "]
            for token in tokens:
                response = await s.client.post("/auth/introspect", data={"token": token}, headers=CLIENT)
                assert response.json() == {"active": False}
            s.clock.ahead = 601
            response = await s.client.post("/auth/introspect", data={"token": live["access_token"]}, headers=CLIENT)
            assert response.json() == {"active": False}

    asyncio.run(run())


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic("orders", "wrong"),
        basic("orders", ""),
        basic("nobody", SECRET),
        basic("", ""),
        {"authorization": "Basic"},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic " + b64encode(b"no colon").decode()},
        {"authorization": "Basic " + b64encode(b"\xff:\xff").decode()},
        {"authorization": "Basic " + "A" * 4000},
        {"authorization": f"Bearer {SECRET}"},
    ],
)
def test_introspection_without_the_right_client_is_refused_with_a_challenge(headers: dict[str, str]) -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            response = await s.client.post("/auth/introspect", data={"token": body["access_token"]}, headers=headers)
            assert code(response) == (401, "invalid_client")
            assert response.headers["www-authenticate"].startswith("Basic realm=")

    asyncio.run(run())


def test_an_access_token_does_not_stand_in_for_a_client() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            headers = bearer(body["access_token"])
            response = await s.client.post("/auth/introspect", data={"token": body["access_token"]}, headers=headers)
            assert code(response) == (401, "invalid_client")

    asyncio.run(run())


def test_a_client_may_form_encode_its_credentials_as_rfc_6749_says() -> None:
    async def run() -> None:
        async with stack() as s:
            headers = basic(quote_plus("orders"), quote_plus(SECRET))
            response = await s.client.post("/auth/introspect", data={"token": "x"}, headers=headers)
            assert response.json() == {"active": False}

    asyncio.run(run())


def test_without_a_configured_client_no_one_introspects() -> None:
    async def run() -> None:
        async with stack(clients={}) as s:
            response = await s.client.post("/auth/introspect", data={"token": "x"}, headers=CLIENT)
            assert code(response) == (401, "invalid_client")

    asyncio.run(run())


def test_an_unknown_client_costs_the_same_checks_as_a_wrong_secret_and_a_right_one_none_the_second_time() -> None:
    asked: list[tuple[str, str]] = []

    async def check(hashed: str, secret: str) -> bool:
        asked.append((hashed, secret))
        return hashed == own and secret == "right"

    async def attempt() -> None:
        return None

    async def cost(name: str, secret: str) -> int:
        asked.clear()
        with contextlib.suppress(InvalidClient):
            await clients.authenticate(basic(name, secret)["authorization"].encode(), attempt)
        return len(asked)

    async def run() -> None:
        assert await cost("orders", "wrong") == await cost("nobody", "wrong") == 1
        assert await cost("orders", "wr+ng") == await cost("nobody", "wr+ng") == 2
        assert all(hashed != own and hashed[:7] == own[:7] for hashed, _ in asked)  # a decoy of the same cost
        assert await cost("orders", "right") == 1
        assert await cost("orders", "right") == 0
        assert await cost("orders", "wrong") == 1
        assert await cost("nobody", "right") == 1

    own = quick_hash("unused")
    clients = Clients({"orders": own}, check)
    asyncio.run(run())
    assert "unused" not in repr(clients)
    assert own not in repr(clients)


def test_an_unknown_client_is_refused_even_where_a_check_would_say_yes() -> None:
    async def yes(*_: str) -> bool:
        return True

    async def attempt() -> None:
        return None

    async def run() -> None:
        clients = Clients({"orders": quick_hash("x")}, yes)
        with pytest.raises(InvalidClient):
            await clients.authenticate(basic("nobody", "x")["authorization"].encode(), attempt)

    asyncio.run(run())


def test_guessing_a_clients_secret_is_limited_but_a_known_client_is_not() -> None:
    async def run() -> None:
        async with stack(limits=Limits(login_per_ip=3)) as s:
            for _ in range(2):
                await s.client.post("/auth/introspect", data={"token": "x"}, headers=basic("orders", "no"))
            for _ in range(5):
                response = await s.client.post("/auth/introspect", data={"token": "x"}, headers=CLIENT)
                assert response.json() == {"active": False}
            refused = await s.client.post("/auth/introspect", data={"token": "x"}, headers=basic("orders", "no"))
            assert code(refused) == (429, "too_many_attempts")

    asyncio.run(run())


def test_introspection_during_an_outage_is_no_inactive_token(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()

            async def down(*_: object) -> None:
                raise StoreUnavailable("down")

            monkeypatch.setattr(Gate, "admit", down)
            response = await s.client.post("/auth/introspect", data={"token": body["access_token"]}, headers=CLIENT)
            assert code(response) == (503, "store_unavailable")

    asyncio.run(run())


def test_the_public_keys_verify_and_hold_nothing_private() -> None:
    async def run() -> None:
        async with stack() as s:
            response = await s.client.get("/.well-known/jwks.json")
            [key] = response.json()["keys"]
            assert set(key) >= {"kty", "kid", "alg", "use", "crv", "x", "y"}
            assert not {"d", "p", "q", "k"} & set(key)
            assert response.headers["cache-control"] == "no-store"

    asyncio.run(run())


def test_the_metadata_names_endpoints_that_exist() -> None:
    async def run() -> None:
        async with stack() as s:
            answer = (await s.client.get("/.well-known/oauth-authorization-server")).json()
            assert answer["issuer"] == ISSUER
            for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
                assert code(await s.client.get(answer[name])) == (405, "method_not_allowed")
            assert (await s.client.get(answer["jwks_uri"])).status_code == 200

    asyncio.run(run())
