"""POST /auth/login."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from gateway.attempts import Limits
from tests.api.support import COOKIE, bearer, code, stack


def test_a_login_answers_with_the_token_response_of_the_contract() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login(device="phone")
            assert set(body) == {
                "access_token",
                "token_type",
                "expires_in",
                "access_token_expires_at",
                "refresh_token",
                "refresh_token_expires_at",
                "session_id",
                "scope",
            }
            assert (body["token_type"], body["scope"]) == ("Bearer", "orders:read")
            assert 599 <= body["expires_in"] <= 601
            assert abs(body["access_token_expires_at"] - s.clock() - 600) < 5
            assert abs(body["refresh_token_expires_at"] - s.clock() - 3600) < 5
            claims = (await s.me(body["access_token"])).json()
            assert (claims["sub"], claims["sid"], claims["email"]) == ("u-1", body["session_id"], "alice@example.com")

    asyncio.run(run())


def test_a_login_that_names_no_device_works_and_ends_no_other_session() -> None:
    async def run() -> None:
        async with stack() as s:
            first, second = await s.login(), await s.login(device="")
            assert first["session_id"] != second["session_id"]
            assert (await s.me(first["access_token"])).status_code == 200

    asyncio.run(run())


def test_a_login_on_a_device_ends_the_session_that_was_there() -> None:
    async def run() -> None:
        async with stack() as s:
            first = await s.login(device="phone")
            await s.login(device="phone")
            assert code(await s.me(first["access_token"])) == (401, "revoked_token")

    asyncio.run(run())


def test_an_unknown_user_is_answered_byte_for_byte_like_a_wrong_password() -> None:
    async def run() -> None:
        async with stack() as s:
            wrong = await s.client.post("/auth/login", json={"username": "alice", "password": "nope"})
            unknown = await s.client.post("/auth/login", json={"username": "mallory", "password": "nope"})
            assert code(wrong) == code(unknown) == (401, "invalid_credentials")
            assert wrong.content == unknown.content
            assert wrong.headers == unknown.headers
            assert "www-authenticate" not in wrong.headers

    asyncio.run(run())


def test_a_login_into_a_cookie_keeps_the_refresh_token_out_of_the_body() -> None:
    async def run() -> None:
        async with stack() as s:
            response = await s.client.post(
                "/auth/login", json={"username": "alice", "password": "wonderland", "refresh_in": "cookie"}
            )
            cookie = response.headers["set-cookie"]
            name, _, rest = cookie.partition("=")
            value = rest.partition(";")[0]
            assert name == COOKIE
            assert value
            assert value not in response.text
            assert "refresh_token" not in response.json()
            attributes = set(rest.split("; ")[1:])
            assert attributes >= {"HttpOnly", "Secure", "SameSite=Strict", "Path=/auth"}
            assert any(part.startswith(("Max-Age=36", "Max-Age=35")) for part in attributes)

    asyncio.run(run())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "alice"},
        {"password": "wonderland"},
        {"username": "", "password": "wonderland"},
        {"username": "alice", "password": ""},
        {"username": 1, "password": "wonderland"},
        {"username": ["alice"], "password": "wonderland"},
        {"username": "alice", "password": None},
        {"username": "alice", "password": "wonderland", "device": 3},
        {"username": "alice", "password": "wonderland", "device": "a\nb"},
        {"username": "alice", "password": "wonderland", "device": "d" * 256},
        {"username": "a\u0000lice", "password": "wonderland"},
        {"username": "a" * 256, "password": "wonderland"},
        {"username": "alice", "password": "p" * 1025},
        {"username": "alice", "password": "wonderland", "refresh_in": "header"},
    ],
)
def test_a_login_body_that_is_not_as_agreed_is_an_invalid_request(body: dict[str, Any]) -> None:
    async def run() -> None:
        async with stack() as s:
            response = await s.client.post(
                "/auth/login", content=json.dumps(body), headers={"content-type": "application/json"}
            )
            assert code(response) == (400, "invalid_request")
            assert "wonderland" not in response.text

    asyncio.run(run())


def test_a_login_by_form_is_refused_since_another_site_could_post_one() -> None:
    async def run() -> None:
        async with stack() as s:
            given = {"username": "alice", "password": "wonderland", "refresh_in": "cookie"}
            assert code(await s.client.post("/auth/login", data=given)) == (400, "invalid_request")
            text = await s.client.post("/auth/login", content=json.dumps(given), headers={"content-type": "text/plain"})
            assert code(text) == (400, "invalid_request")
            foreign = await s.client.post("/auth/login", json=given, headers={"sec-fetch-site": "cross-site"})
            assert code(foreign) == (403, "csrf_rejected")

    asyncio.run(run())


def test_logins_of_one_user_are_limited_before_the_password_is_looked_at() -> None:
    async def run() -> None:
        async with stack(limits=Limits(login_per_user=2)) as s:
            for _ in range(2):
                await s.client.post("/auth/login", json={"username": "alice", "password": "nope"})
            for spelling in ("alice", "ALICE", " alice ", "\uff41lice"):
                right = await s.client.post("/auth/login", json={"username": spelling, "password": "wonderland"})
                assert code(right) == (429, "too_many_attempts")
                assert 1 <= int(right.headers["retry-after"]) <= 60
            await s.login("bob", "builder")

    asyncio.run(run())


def test_an_address_over_its_limit_cannot_lock_a_user_out() -> None:
    async def run() -> None:
        async with stack(limits=Limits(login_per_user=3, login_per_ip=2)) as s:
            for _ in range(20):
                await s.client.post("/auth/login", json={"username": "alice", "password": "nope"})
            async with s.from_peer("192.0.2.8") as other:
                response = await other.post("/auth/login", json={"username": "alice", "password": "wonderland"})
                assert response.status_code == 200

    asyncio.run(run())


def test_the_session_remembers_a_bounded_user_agent_and_the_address() -> None:
    async def run() -> None:
        async with stack() as s:
            s.client.headers["user-agent"] = "x" * 5000
            body = await s.login()
            [session] = (await s.client.get("/auth/sessions", headers=bearer(body["access_token"]))).json()["sessions"]
            assert session["user_agent"] == "x" * 160
            assert session["ip"] == "192.0.2.7"

    asyncio.run(run())
