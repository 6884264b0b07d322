"""/auth/sessions and /auth/me."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.api.support import bearer, code, stack


def test_the_list_shows_the_callers_sessions_and_marks_the_current_one() -> None:
    async def run() -> None:
        async with stack() as s:
            phone, laptop = await s.login(device="phone"), await s.login(device="laptop")
            await s.login("bob", "builder")
            sessions = (await s.client.get("/auth/sessions", headers=bearer(laptop["access_token"]))).json()["sessions"]
            assert {(x["id"], x["device"], x["current"]) for x in sessions} == {
                (phone["session_id"], "phone", False),
                (laptop["session_id"], "laptop", True),
            }
            assert set(sessions[0]) == {
                "id",
                "device",
                "user_agent",
                "ip",
                "created_at",
                "last_used_at",
                "expires_at",
                "current",
            }

    asyncio.run(run())


def test_a_session_of_another_user_is_as_absent_as_one_that_never_was() -> None:
    async def run() -> None:
        async with stack() as s:
            alice, bob = await s.login(), await s.login("bob", "builder")
            headers = bearer(alice["access_token"])
            theirs = await s.client.delete(f"/auth/sessions/{bob['session_id']}", headers=headers)
            never = await s.client.delete(f"/auth/sessions/{'0' * 23}", headers=headers)
            odd = await s.client.delete("/auth/sessions/%7B0%7D:alive:x", headers=headers)
            assert code(theirs) == code(never) == code(odd) == (404, "not_found")
            assert theirs.content == never.content
            assert (await s.me(bob["access_token"])).status_code == 200

    asyncio.run(run())


def test_one_of_the_callers_sessions_can_be_ended() -> None:
    async def run() -> None:
        async with stack() as s:
            phone, laptop = await s.login(device="phone"), await s.login(device="laptop")
            response = await s.client.delete(
                f"/auth/sessions/{phone['session_id']}", headers=bearer(laptop["access_token"])
            )
            assert response.status_code == 204
            assert code(await s.me(phone["access_token"])) == (401, "revoked_token")
            assert (await s.me(laptop["access_token"])).status_code == 200

    asyncio.run(run())


def test_signing_out_everywhere_may_keep_the_current_session() -> None:
    async def run() -> None:
        async with stack() as s:
            phone, laptop = await s.login(device="phone"), await s.login(device="laptop")
            headers = bearer(laptop["access_token"])
            assert (await s.client.delete("/auth/sessions?except=current", headers=headers)).status_code == 204
            assert code(await s.me(phone["access_token"])) == (401, "revoked_token")
            assert (await s.client.delete("/auth/sessions", headers=headers)).status_code == 204
            assert code(await s.me(laptop["access_token"])) == (401, "revoked_token")

    asyncio.run(run())


@pytest.mark.parametrize("query", ["except=", "except=all", "expect=current", "except=current&except=current"])
def test_a_query_that_may_have_meant_to_keep_a_session_ends_none(query: str) -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            response = await s.client.delete(f"/auth/sessions?{query}", headers=bearer(body["access_token"]))
            assert code(response) == (400, "invalid_request")
            assert (await s.me(body["access_token"])).status_code == 200

    asyncio.run(run())


GUARDED = [
    ("GET", "/auth/me"),
    ("GET", "/auth/sessions"),
    ("DELETE", "/auth/sessions"),
    ("DELETE", f"/auth/sessions/{'0' * 23}"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_every_guarded_call_tells_the_four_failures_of_a_token_apart(method: str, path: str) -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            token = body["access_token"]

            async def call(headers: object) -> httpx.Response:
                return await s.client.request(method, path, headers=headers)  # type: ignore[arg-type]

            missing = await call({})
            assert code(missing) == (401, "missing_token")
            assert missing.headers["www-authenticate"] == 'Bearer realm="api"'
            assert code(await call(bearer(token + "x"))) == (401, "invalid_token")
            twice = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
            assert code(await call(twice)) == (401, "invalid_token")
            assert code(await call({"authorization": token})) == (401, "invalid_token")
            assert code(await call({"authorization": "Basic YTpi"})) == (401, "missing_token")
            assert code(await call({"cookie": f"access_token={token}"})) == (401, "missing_token")
            s.clock.ahead = 601
            expired = await call(bearer(token))
            assert code(expired) == (401, "expired_token")
            assert (
                'error="invalid_token", error_description="The access token expired"'
                in expired.headers["www-authenticate"]
            )
            s.clock.ahead = 0
            await s.store.end(body["session_id"])
            assert code(await call(bearer(token))) == (401, "revoked_token")

    asyncio.run(run())


def test_a_token_in_the_query_is_no_token() -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            assert code(await s.client.get(f"/auth/me?access_token={token}")) == (401, "missing_token")

    asyncio.run(run())
