"""POST /auth/token: refresh by body and by cookie."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from gateway.attempts import Limits
from gateway.errors import StoreUnavailable
from gateway.identity import Identity
from tests.api.support import COOKIE, ISSUER, POLICY, Rechecked, Stack, bearer, code, stack

GRANT = {"grant_type": "refresh_token"}


async def cookie_login(s: Stack) -> str:
    response = await s.client.post(
        "/auth/login", json={"username": "alice", "password": "wonderland", "refresh_in": "cookie"}
    )
    s.client.cookies.clear()  # the tests send the cookie by hand
    return response.headers["set-cookie"].partition("=")[2].partition(";")[0]


async def by_cookie(s: Stack, token: str, headers: dict[str, str] | None = None) -> httpx.Response:
    response = await s.client.post(
        "/auth/token", data=GRANT, headers={"cookie": f"a=b; {COOKIE}={token}", **(headers or {})}
    )
    s.client.cookies.clear()
    return response


def outcome_count(s: Stack, outcome: str) -> float:
    wanted = f'tokengate_refreshes_total{{outcome="{outcome}"}} '
    return next(
        float(line.split()[-1]) for line in s.telemetry.render().decode().splitlines() if line.startswith(wanted)
    )


@pytest.mark.parametrize("form", ["opaque", "jwt"])
def test_a_refresh_rotates_and_the_lost_answer_can_be_asked_for_again(form: str) -> None:
    async def run() -> None:
        async with stack(form=form) as s:
            first = await s.login()
            rotated, replayed = await s.refresh(first["refresh_token"]), await s.refresh(first["refresh_token"])
            assert rotated.status_code == replayed.status_code == 200
            assert rotated.json()["refresh_token"] == replayed.json()["refresh_token"] != first["refresh_token"]
            assert rotated.json()["access_token"] != replayed.json()["access_token"]
            assert (outcome_count(s, "rotated"), outcome_count(s, "replayed")) == (1, 1)

    asyncio.run(run())


def test_a_refresh_token_used_again_after_its_successor_ends_the_session() -> None:
    async def run() -> None:
        async with stack() as s:
            first = await s.login()
            second = (await s.refresh(first["refresh_token"])).json()
            third = (await s.refresh(second["refresh_token"])).json()
            assert code(await s.refresh(first["refresh_token"])) == (400, "invalid_grant")
            assert code(await s.refresh(third["refresh_token"])) == (400, "invalid_grant")
            assert code(await s.me(third["access_token"])) == (401, "revoked_token")
            assert (outcome_count(s, "reuse"), outcome_count(s, "unknown")) == (1, 1)

    asyncio.run(run())


def test_a_successor_seen_by_a_guarded_call_starts_the_grace() -> None:
    async def run() -> None:
        async with stack() as s:
            first = await s.login()
            second = (await s.refresh(first["refresh_token"])).json()
            assert (await s.me(second["access_token"])).status_code == 200
            await asyncio.gather(*s.services.gate._marking)
            s.clock.ahead = 11
            assert code(await s.refresh(first["refresh_token"])) == (400, "invalid_grant")

    asyncio.run(run())


def test_concurrent_refreshes_all_get_the_one_successor() -> None:
    async def run() -> None:
        async with stack() as s:
            first = await s.login()
            answers = await asyncio.gather(*(s.refresh(first["refresh_token"]) for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.json()["refresh_token"] for answer in answers}) == 1

    asyncio.run(run())


def test_tokens_of_one_kind_are_refused_as_the_other() -> None:
    async def run() -> None:
        for form in ("opaque", "jwt"):
            async with stack(form=form) as s:
                body = await s.login()
                assert code(await s.me(body["refresh_token"])) == (401, "invalid_token")
                assert code(await s.refresh(body["access_token"])) == (400, "invalid_grant")
                assert (await s.me(body["access_token"])).status_code == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (400, "invalid_request")),
        ({"refresh_token": "x"}, (400, "invalid_request")),
        ({"grant_type": "refresh_token"}, (400, "invalid_request")),
        ({"grant_type": "refresh_token", "refresh_token": ""}, (400, "invalid_request")),
        ({"grant_type": "password", "username": "a", "password": "b"}, (400, "unsupported_grant_type")),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, (400, "invalid_grant")),
        ({"grant_type": "refresh_token", "refresh_token": "rt1.a.b.0.c"}, (400, "invalid_grant")),
        ({"grant_type": "refresh_token", "refresh_token": "é" * 3000}, (400, "invalid_grant")),
    ],
)
def test_what_is_no_refresh_gets_the_error_of_rfc_6749(given: dict[str, str], expected: tuple[int, str]) -> None:
    async def run() -> None:
        async with stack() as s:
            assert code(await s.client.post("/auth/token", data=given)) == expected
            assert code(await s.client.post("/auth/token", json=given)) == expected

    asyncio.run(run())


def test_an_expired_session_cannot_be_refreshed() -> None:
    async def run() -> None:
        async with stack(form="jwt") as s:
            body = await s.login()
            s.clock.ahead = 3601
            assert code(await s.refresh(body["refresh_token"])) == (400, "invalid_grant")
            assert outcome_count(s, "expired") == 1

    asyncio.run(run())


@pytest.mark.parametrize("form", ["opaque", "jwt"])
def test_a_clock_that_is_ahead_refuses_no_refresh_that_the_store_grants(form: str) -> None:
    async def run() -> None:
        async with stack(form=form, store_clock=False) as s:
            body = await s.login()
            s.clock.ahead = 2 * POLICY.refresh_ttl
            answer = await s.refresh(body["refresh_token"])
            assert answer.status_code == 200
            assert (await s.refresh(answer.json()["refresh_token"])).status_code == 200
            assert (outcome_count(s, "rotated"), outcome_count(s, "expired")) == (2, 0)

    asyncio.run(run())


@pytest.mark.parametrize(("ahead", "outcome"), [(0, "unknown"), (3601, "expired")])
@pytest.mark.parametrize("recheck", [False, True])
def test_a_session_that_the_store_keeps_no_more_is_called_expired_where_its_token_is(
    ahead: int, outcome: str, recheck: bool
) -> None:
    async def run() -> None:
        async with stack(form="jwt", provider=Rechecked if recheck else None) as s:
            body = await s.login()
            await s.store.end(body["session_id"])
            s.clock.ahead = ahead
            assert code(await s.refresh(body["refresh_token"])) == (400, "invalid_grant")
            counts = {each: outcome_count(s, each) for each in ("unknown", "expired")}
            assert counts == {"unknown": 0, "expired": 0} | {outcome: 1}

    asyncio.run(run())


def test_refreshes_of_one_session_are_limited() -> None:
    async def run() -> None:
        async with stack(limits=Limits(refresh_per_session=2)) as s:
            token = (await s.login())["refresh_token"]
            assert [(await s.refresh(token)).status_code for _ in range(3)] == [200, 200, 429]

    asyncio.run(run())


def test_a_refresh_by_cookie_is_answered_by_cookie_and_never_in_the_body() -> None:
    async def run() -> None:
        async with stack() as s:
            first = await cookie_login(s)
            response = await by_cookie(s, first)
            second = response.headers["set-cookie"].partition("=")[2].partition(";")[0]
            assert response.status_code == 200
            assert "refresh_token" not in response.json()
            assert second != first
            for token in (first, second):
                assert token not in response.text
            assert (await by_cookie(s, second)).status_code == 200

    asyncio.run(run())


def test_a_body_token_wins_over_a_cookie_and_is_answered_in_the_body() -> None:
    async def run() -> None:
        async with stack() as s:
            cookie = await cookie_login(s)
            body = await s.login("bob", "builder")
            response = await s.client.post(
                "/auth/token",
                data=GRANT | {"refresh_token": body["refresh_token"]},
                headers={"cookie": f"{COOKIE}={cookie}", "sec-fetch-site": "cross-site"},
            )
            assert response.json()["session_id"] == body["session_id"]
            assert "set-cookie" not in response.headers
            assert cookie not in response.text

    asyncio.run(run())


OWN = ISSUER
CSRF = [
    # sec-fetch-site, origin, allowed
    (None, None, True),
    (None, OWN, True),
    (None, OWN.upper().replace("HTTPS", "https"), True),
    (None, "http://api.example.com", False),
    (None, "https://app.example.com", False),
    (None, "https://api.example.com.evil.example", False),
    (None, "https://api.example.com:8443", False),
    (None, "null", False),
    (None, "", False),
    ("same-origin", None, True),
    ("same-origin", OWN, True),
    ("same-origin", "https://behind.a.rewriting.proxy", True),
    ("none", None, True),
    ("same-site", None, False),
    ("same-site", OWN, False),
    ("cross-site", None, False),
    ("cross-site", OWN, False),
    ("cross-site", "null", False),
    ("", OWN, False),
    ("garbage", OWN, False),
]


@pytest.mark.parametrize(("site", "origin", "allowed"), CSRF)
@pytest.mark.parametrize("path", ["/auth/token", "/auth/logout"])
def test_a_cookie_counts_only_from_the_gateways_own_origin(
    path: str, site: str | None, origin: str | None, allowed: bool
) -> None:
    async def run() -> None:
        async with stack() as s:
            token = await cookie_login(s)
            headers = {"cookie": f"{COOKIE}={token}"}
            headers |= {"sec-fetch-site": site} if site is not None else {}
            headers |= {"origin": origin} if origin is not None else {}
            response = await s.client.post(path, data=GRANT, headers=headers)
            if allowed:
                assert response.status_code in (200, 204)
            else:
                assert code(response) == (403, "csrf_rejected")
                assert "set-cookie" not in response.headers
                assert (await by_cookie(s, token)).json()["session_id"]  # the session lives on

    asyncio.run(run())


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_token_in_the_body_needs_no_origin(site: str) -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["refresh_token"]
            headers = {"sec-fetch-site": site, "origin": "https://app.example.com"}
            given = GRANT | {"refresh_token": token}
            assert (await s.client.post("/auth/token", data=given, headers=headers)).status_code == 200

    asyncio.run(run())


def test_two_fetch_metadata_headers_must_both_allow() -> None:
    async def run() -> None:
        async with stack() as s:
            token = await cookie_login(s)
            headers = [("cookie", f"{COOKIE}={token}"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]
            assert code(await s.client.post("/auth/token", data=GRANT, headers=headers)) == (403, "csrf_rejected")

    asyncio.run(run())


def test_a_refresh_cookie_planted_beside_the_real_one_is_refused() -> None:
    async def run() -> None:
        async with stack() as s:
            token = await cookie_login(s)
            headers = [("cookie", f"{COOKIE}=planted; {COOKIE}={token}")]
            assert code(await s.client.post("/auth/token", data=GRANT, headers=headers)) == (400, "invalid_request")
            split = [("cookie", f"{COOKIE}=planted"), ("cookie", f"{COOKIE}={token}")]
            assert code(await s.client.post("/auth/token", data=GRANT, headers=split)) == (400, "invalid_request")

    asyncio.run(run())


def test_a_cookie_that_is_worth_nothing_any_more_is_cleared() -> None:
    async def run() -> None:
        async with stack() as s:
            token = await cookie_login(s)
            await s.store.end_all("u-1")
            response = await by_cookie(s, token)
            assert code(response) == (400, "invalid_grant")
            assert response.headers["set-cookie"].startswith(f"{COOKIE}=; Max-Age=0; Path=/auth;")

    asyncio.run(run())


def test_an_outage_of_the_store_is_a_503_and_never_clears_a_cookie(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with stack() as s:
            token = await cookie_login(s)

            async def down(*args: object, **named: object) -> None:
                raise StoreUnavailable("down")

            monkeypatch.setattr(type(s.store), "rotate", down)
            response = await by_cookie(s, token)
            assert code(response) == (503, "store_unavailable")
            assert response.headers["retry-after"] == "1"
            assert "set-cookie" not in response.headers
            monkeypatch.setattr(type(s.store), "end", down)
            out = await s.client.post("/auth/logout", headers={"cookie": f"{COOKIE}={token}"})
            assert code(out) == (503, "store_unavailable")
            assert "set-cookie" not in out.headers

    asyncio.run(run())


def test_a_session_that_never_ends_gets_a_cookie_of_the_longest_life() -> None:
    async def run() -> None:
        async with stack(policy=replace(POLICY, refresh_ttl=0)) as s:
            response = await s.client.post(
                "/auth/login", json={"username": "alice", "password": "wonderland", "refresh_in": "cookie"}
            )
            assert response.json()["refresh_token_expires_at"] == 0
            assert "Max-Age=34560000;" in response.headers["set-cookie"]

    asyncio.run(run())


def test_a_recheck_puts_new_roles_into_the_next_access_token() -> None:
    async def run() -> None:
        async with stack(provider=Rechecked) as s:
            first = await s.login()
            s.extra["provider"].answer = Identity("u-1", ("user", "boss"), "all", {"email": "new@example.com"}, "v1")
            second = (await s.refresh(first["refresh_token"])).json()
            claims = (await s.me(second["access_token"])).json()
            assert (claims["roles"], claims["scope"], claims["email"]) == (["user", "boss"], "all", "new@example.com")

    asyncio.run(run())


@pytest.mark.parametrize("answer", [None, Identity("u-1", ("user",), "", {}, "v2")], ids=["gone", "new password"])
def test_a_recheck_of_a_user_who_is_gone_or_changed_ends_the_session(answer: Identity | None) -> None:
    async def run() -> None:
        async with stack(provider=Rechecked) as s:
            first = await s.login()
            s.extra["provider"].answer = answer
            assert code(await s.refresh(first["refresh_token"])) == (400, "invalid_grant")
            assert code(await s.me(first["access_token"])) == (401, "revoked_token")

    asyncio.run(run())


def test_a_recheck_that_cannot_be_made_ends_nothing() -> None:
    async def run() -> None:
        async with stack(provider=Rechecked) as s:
            first = await s.login()
            s.extra["provider"].down = True
            assert code(await s.refresh(first["refresh_token"])) == (503, "identity_unavailable")
            s.extra["provider"].down = False
            s.extra["provider"].answer = Identity("u-2", (), "", {}, "v1")  # speaks of someone else
            assert code(await s.refresh(first["refresh_token"])) == (503, "identity_unavailable")
            assert (await s.client.get("/auth/me", headers=bearer(first["access_token"]))).status_code == 200

    asyncio.run(run())
