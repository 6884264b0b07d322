"""The account page as a browser without scripts meets it: forms, cookies and redirects."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from html import unescape

import httpx
import pytest

from gateway.web.account import NOTES, PROBLEMS
from tests.api.support import COOKIE, Stack, stack

OURS = {"Sec-Fetch-Site": "same-origin"}
PAGE = "/auth/account"


def check(test: Callable[[Stack], Awaitable[None]]) -> None:
    async def run() -> None:
        async with stack() as s:
            await test(s)

    asyncio.run(run())


async def form(s: Stack, cookie: str = "", headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
    sent = {**(OURS if headers is None else headers), **({"Cookie": f"{COOKIE}={cookie}"} if cookie else {})}
    return await s.client.post(PAGE, data=fields, headers=sent)


async def show(s: Stack, cookie: str = "", query: str = "", **headers: str) -> httpx.Response:
    sent = {**headers, **({"Cookie": f"{COOKIE}={cookie}"} if cookie else {})}
    return await s.client.get(PAGE + query, headers=sent)


async def sign_in(s: Stack, username: str = "alice", password: str = "wonderland") -> str:
    answer = await form(s, do="sign-in", username=username, password=password)
    assert answer.status_code == 303
    s.client.cookies.clear()
    return cookie_of(answer)


def cookie_of(answer: httpx.Response) -> str:
    found = re.search(rf"{COOKIE}=([^;]*);", answer.headers["set-cookie"])
    assert found is not None
    return found[1]


def text(answer: httpx.Response) -> str:
    return unescape(answer.text)


def test_a_sign_in_sets_the_cookie_and_leads_back_to_the_page() -> None:
    async def run(s: Stack) -> None:
        answer = await form(s, do="sign-in", username="alice", password="wonderland")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{PAGE}?note=signed-in")
        flags = answer.headers["set-cookie"]
        assert all(flag in flags for flag in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/auth"))
        page = await show(s, cookie_of(answer))
        assert page.status_code == 200
        assert "Your devices" in page.text
        assert "This device" in page.text

    check(run)


def test_the_page_says_who_is_signed_in_and_lists_every_device_this_one_first() -> None:
    async def run(s: Stack) -> None:
        await s.login(device="<b>Tom's phone</b>")
        cookie = await sign_in(s)
        page = await show(s, cookie)
        assert "<strong>u-1</strong>" in page.text
        assert "<b>Tom" not in page.text
        assert "<b>Tom's phone</b>" in text(page)
        assert page.text.index("This device") < page.text.index("Tom")

    check(run)


@pytest.mark.parametrize(
    ("fields", "status", "problem"),
    [
        ({"username": "alice", "password": "wrong"}, 401, "invalid_credentials"),
        ({"username": "nobody", "password": "wrong"}, 401, "invalid_credentials"),
        ({"username": "alice"}, 400, "invalid_request"),
        ({"username": "alice", "password": "x" * 2000}, 401, "invalid_credentials"),
    ],
)
def test_a_sign_in_that_fails_says_why_keeps_the_name_and_sets_no_cookie(
    fields: dict[str, str], status: int, problem: str
) -> None:
    async def run(s: Stack) -> None:
        answer = await form(s, "", None, do="sign-in", **fields)
        assert answer.status_code == status
        assert PROBLEMS[problem] in text(answer)
        assert f'value="{fields["username"]}"' in answer.text
        assert "set-cookie" not in answer.headers
        assert answer.headers["x-gateway-error"] == problem

    check(run)


def test_one_device_is_signed_out_and_the_others_stay() -> None:
    async def run(s: Stack) -> None:
        other = await s.login(device="phone")
        cookie = await sign_in(s)
        answer = await form(s, cookie, do="end", id=str(other["session_id"]))
        assert answer.headers["location"] == f"{PAGE}?note=device-signed-out"
        assert (await s.me(str(other["access_token"]))).status_code == 401
        assert "Your devices" in (await show(s, cookie)).text

    check(run)


def test_signing_out_this_device_clears_the_cookie() -> None:
    async def run(s: Stack) -> None:
        cookie = await sign_in(s)
        session = s.services.refresh_tokens.read(cookie, s.clock()).session_id
        answer = await form(s, cookie, do="end", id=session)
        assert answer.headers["location"] == f"{PAGE}?note=signed-out"
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert PROBLEMS["session_ended"] in text(await show(s, cookie))

    check(run)


@pytest.mark.parametrize(("do", "stays"), [("end-others", True), ("end-all", False)])
def test_all_others_or_all_devices_are_signed_out(do: str, stays: bool) -> None:
    async def run(s: Stack) -> None:
        others = [await s.login(device=name) for name in ("phone", "tablet")]
        cookie = await sign_in(s)
        answer = await form(s, cookie, do=do)
        assert answer.status_code == 303
        assert ("set-cookie" in answer.headers) is not stays
        assert [(await s.me(str(each["access_token"]))).status_code for each in others] == [401, 401]
        assert ("Your devices" in (await show(s, cookie)).text) is stays

    check(run)


def test_a_device_of_someone_else_cannot_be_signed_out() -> None:
    async def run(s: Stack) -> None:
        victim = await s.login("bob", "builder")
        answer = await form(s, await sign_in(s), do="end", id=str(victim["session_id"]))
        assert answer.status_code == 404
        assert PROBLEMS["not_found"] in text(answer)
        assert (await s.me(str(victim["access_token"]))).status_code == 200

    check(run)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {},
    ],
    ids=str,
)
def test_a_form_of_another_origin_does_nothing(headers: dict[str, str]) -> None:
    async def run(s: Stack) -> None:
        cookie = await sign_in(s)
        for do in ("end-all", "sign-in"):
            answer = await form(s, cookie, headers, do=do, username="alice", password="wonderland")
            assert answer.status_code == 403
            assert answer.headers["x-gateway-error"] == "csrf_rejected"
            assert "set-cookie" not in answer.headers
        assert "Your devices" in (await show(s, cookie)).text

    check(run)


def test_a_replaced_refresh_token_shows_nothing() -> None:
    async def run(s: Stack) -> None:
        first = await s.login()
        second = (await s.refresh(str(first["refresh_token"]))).json()
        third = (await s.refresh(str(second["refresh_token"]))).json()
        assert "Your devices" in (await show(s, str(third["refresh_token"]))).text
        assert "Your devices" in (await show(s, str(second["refresh_token"]))).text
        assert PROBLEMS["session_ended"] in text(await show(s, str(first["refresh_token"])))

    check(run)


def test_looking_changes_nothing() -> None:
    async def run(s: Stack) -> None:
        cookie = await sign_in(s)
        session = s.services.refresh_tokens.read(cookie, s.clock()).session_id
        before = await s.store.get(session)
        await show(s, cookie)
        assert await s.store.get(session) == before

    check(run)


@pytest.mark.parametrize("value", ["x", "rt1.a.b.c.d", "", "rt1." + "A" * 3000])
def test_a_cookie_that_is_no_token_is_a_sign_in_form(value: str) -> None:
    async def run(s: Stack) -> None:
        answer = await show(s, value)
        assert answer.status_code == 200
        assert '<input id="password"' in answer.text

    check(run)


def test_blocked_cookies_are_named_after_a_sign_in() -> None:
    async def run(s: Stack) -> None:
        assert PROBLEMS["cookies_blocked"] in text(await show(s, query="?note=signed-in"))

    check(run)


def test_a_note_is_one_of_ours_and_never_what_an_address_says() -> None:
    async def run(s: Stack) -> None:
        assert NOTES["signed-out"] in text(await show(s, query="?note=signed-out"))
        page = await show(s, query="?note=<script>alert(1)</script>")
        assert "alert" not in page.text

    check(run)


def test_a_link_of_another_site_is_asked_again_by_the_page_itself() -> None:
    async def run(s: Stack) -> None:
        page = await show(s, **{"Sec-Fetch-Site": "cross-site"})
        assert f'http-equiv="refresh" content="0; url={PAGE}"' in page.text
        assert '<input id="password"' not in page.text

    check(run)


def test_every_page_forbids_what_it_does_not_need() -> None:
    async def run(s: Stack) -> None:
        cookie = await sign_in(s)
        for answer in (await show(s), await show(s, cookie), await form(s, do="sign-in", username="a", password="b")):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-frame-options"] == "DENY"
            assert not re.search(r"<script(?![^>]*\bsrc=)|\bstyle=|\son\w+=|<style", answer.text)
            assert not re.search(r'(?:src|href|action)="(?!/auth/account)', answer.text)

    check(run)


@pytest.mark.parametrize("name", ["account.css", "account.js", "icon.svg"])
def test_the_files_of_the_page_are_served_as_what_they_are(name: str) -> None:
    async def run(s: Stack) -> None:
        answer = await s.client.get(f"{PAGE}/{name}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.content) > 100

    check(run)


@pytest.mark.parametrize("name", ["account.py", "..%2Fpage.py", "%2e%2e", "nothing.css", "account.css.bak", "a.b.css"])
def test_nothing_else_is_served(name: str) -> None:
    async def run(s: Stack) -> None:
        assert (await s.client.get(f"{PAGE}/{name}")).status_code == 404

    check(run)
