"""POST /auth/logout, by any of the three credentials."""

from __future__ import annotations

import asyncio

import pytest

from tests.api.support import COOKIE, bearer, code, stack


@pytest.mark.parametrize("by", ["access", "form", "json", "cookie"])
def test_each_credential_ends_its_session_at_once(by: str) -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            refresh = body["refresh_token"]
            match by:
                case "access":
                    response = await s.client.post("/auth/logout", headers=bearer(body["access_token"]))
                case "form":
                    response = await s.client.post("/auth/logout", data={"refresh_token": refresh})
                case "json":
                    response = await s.client.post("/auth/logout", json={"refresh_token": refresh})
                case _:
                    response = await s.client.post("/auth/logout", headers={"cookie": f"{COOKIE}={refresh}"})
                    assert response.headers["set-cookie"].startswith(f"{COOKIE}=; Max-Age=0;")
            assert (response.status_code, response.content) == (204, b"")
            assert "content-length" not in response.headers
            assert code(await s.me(body["access_token"])) == (401, "revoked_token")
            assert code(await s.refresh(refresh)) == (400, "invalid_grant")

    asyncio.run(run())


def test_a_logout_can_be_asked_for_again() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            for _ in range(2):
                response = await s.client.post("/auth/logout", headers=bearer(body["access_token"]))
                assert response.status_code == 204

    asyncio.run(run())


def test_a_logout_ends_no_other_session_of_the_user() -> None:
    async def run() -> None:
        async with stack() as s:
            one, other = await s.login(), await s.login()
            await s.client.post("/auth/logout", headers=bearer(one["access_token"]))
            assert (await s.me(other["access_token"])).status_code == 200

    asyncio.run(run())


def test_an_expired_access_token_beside_a_good_cookie_does_not_hinder() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            s.clock.ahead = 700
            alone = await s.client.post("/auth/logout", headers=bearer(body["access_token"]))
            assert code(alone) == (401, "expired_token")
            both = bearer(body["access_token"]) | {"cookie": f"{COOKIE}={body['refresh_token']}"}
            assert (await s.client.post("/auth/logout", headers=both)).status_code == 204
            assert await s.store.get(body["session_id"]) is None

    asyncio.run(run())


def test_a_foreign_page_cannot_add_the_cookie_to_a_logout_of_its_own() -> None:
    async def run() -> None:
        async with stack() as s:
            victim, own = await s.login(), await s.login("bob", "builder")
            headers = bearer(own["access_token"])
            headers |= {"cookie": f"{COOKIE}={victim['refresh_token']}", "sec-fetch-site": "same-site"}
            assert (await s.client.post("/auth/logout", headers=headers)).status_code == 204
            assert await s.store.get(own["session_id"]) is None
            assert await s.store.get(victim["session_id"]) is not None

    asyncio.run(run())


def test_a_logout_without_a_good_credential_is_refused() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            assert code(await s.client.post("/auth/logout")) == (401, "missing_token")
            assert code(await s.client.post("/auth/logout", headers=bearer("x.y.z"))) == (401, "invalid_token")
            forged = body["refresh_token"][:-1] + ("A" if body["refresh_token"][-1] != "A" else "B")
            assert code(await s.client.post("/auth/logout", data={"refresh_token": forged})) == (400, "invalid_grant")
            cookie = await s.client.post("/auth/logout", headers={"cookie": f"{COOKIE}={forged}"})
            assert code(cookie) == (400, "invalid_grant")
            assert "Max-Age=0" in cookie.headers["set-cookie"]
            assert (await s.me(body["access_token"])).status_code == 200

    asyncio.run(run())
