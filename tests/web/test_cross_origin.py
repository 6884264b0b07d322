"""Pages of another origin than the gateway's, in a real browser: another port of localhost, which is the same site."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.harness import PASSWORD, Gateway, Site, route
from tests.redis_server import RedisServer
from tests.web.client_page import client_page
from tests.web.conftest import Visit
from tests.web.test_javascript_client import _MAKE, sign_in

BRIEF = 2  # seconds that tokens live
_FETCH = """
async ([path, init]) => {
  const answer = await client.fetch(path, init);
  return [answer.status, answer.headers.get("X-Gateway-Error"), await answer.text()];
}
"""
# What a page finds out by itself, without the client.
_BARE = """
async ([url, init]) => {
  try {
    const answer = await fetch(url, init);
    return [answer.status, Object.fromEntries(answer.headers)];
  } catch (error) {
    return [0, { error: error.name }];
  }
}
"""


@pytest.fixture(scope="module")
def page_url() -> Iterator[str]:
    """Where the page is: an origin of its own, that also serves as the backend."""
    with client_page() as url:
        yield url.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def other_url() -> Iterator[str]:
    with client_page() as url:
        yield url.replace("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def behind(shared_redis: RedisServer) -> Iterator[Site]:
    with Site(shared_redis.url, "web-cross") as made:
        yield made


def options(page_url: str, **more: Any) -> dict[str, Any]:
    routes = [route("/api/", page_url.replace("localhost", "127.0.0.1"))]
    return {"routes": routes, "cors": {"allow_origins": [page_url]}, **more}


@pytest.fixture(scope="module")
def brief(behind: Site, page_url: str) -> Iterator[Gateway]:
    with behind.serve(**options(page_url, tokens={"access_ttl": f"{BRIEF}s", "leeway": "0s"})) as made:
        yield made


@pytest.fixture(scope="module")
def tokenless(behind: Site, page_url: str) -> Iterator[Gateway]:
    """A gateway that keeps the access token in a cookie, too."""
    with behind.serve(**options(page_url, cookies={"access": "__Host-access"})) as made:
        yield made


def at(site: Gateway) -> str:
    return f"http://localhost:{site.port}"


def visit(page: Page, page_url: str, site: Gateway, **given: Any) -> bool:
    """Make a client in a page of another origin; return whether it took up a session."""
    page.goto(f"{page_url}/app/")
    page.wait_for_function("window.tokengate !== undefined")
    return bool(page.evaluate(_MAKE, {"baseUrl": at(site), **given}))


def fetched(page: Page, path: str, **init: Any) -> list[Any]:
    found: list[Any] = page.evaluate(_FETCH, [path, init])
    return found


@pytest.mark.parametrize("kept", [{"refreshIn": "cookie"}, {"refreshIn": "body", "kept": True}], ids=["cookie", "body"])
def test_a_page_of_another_origin_signs_in_calls_refreshes_and_signs_out(
    visitor: Visit, brief: Gateway, page_url: str, kept: dict[str, Any]
) -> None:
    page = visitor().new_page()
    assert visit(page, page_url, brief, refreshAhead=False, **kept) is False
    sign_in(page)
    assert fetched(page, "/api/x", method="PUT", body="new")[0] == 200
    page.wait_for_function("client.expiresIn === 0")
    before = page.evaluate("told.length")
    status, _, text = fetched(page, "/api/x", headers={"X-Trace": "1"})
    assert status == 200  # the page has read `expired_token`, refreshed and asked again
    assert "u-alice" in text
    assert page.evaluate("told")[before:] == ["refreshed"]
    page.reload()
    assert visit(page, page_url, brief, **kept) is True
    (session,) = [each for each in page.evaluate("client.sessions.list()") if each["current"]]
    assert page.evaluate("client.sessionId") == session["id"]
    page.evaluate("client.logout()")
    assert fetched(page, "/api/x")[:2] == [401, "missing_token"]
    assert visit(page, page_url, brief, **kept) is False


def test_a_page_of_another_origin_needs_no_token_in_its_script(
    visitor: Visit, tokenless: Gateway, page_url: str
) -> None:
    page = visitor().new_page()
    visit(page, page_url, tokenless)
    sign_in(page)
    assert page.evaluate("client.accessToken()") == ""
    for init in ({}, {"method": "POST", "body": "new"}, {"method": "DELETE"}):
        assert fetched(page, "/api/x", **init)[0] == 200
    assert fetched(page, "/api/x", credentials="omit")[:2] == [401, "missing_token"]
    asked = "(url) => client.fetch(new Request(url, { method: 'PATCH', body: 'new' })).then(({ status }) => status)"
    assert page.evaluate(asked, f"{at(tokenless)}/api/x") == 200
    page.evaluate(
        "() => { window.said = []; window.socket = client.webSocket('/api/live');"
        " socket.addEventListener('message', ({ data }) => said.push(data)); }"
    )
    page.wait_for_function("said.includes('hello u-alice')")


def test_a_page_reads_what_a_refusal_says(visitor: Visit, brief: Gateway, page_url: str) -> None:
    page = visitor().new_page()
    page.goto(f"{page_url}/app/")
    status, headers = page.evaluate(_BARE, [f"{at(brief)}/api/x", {}])
    assert status == 401
    assert {"x-gateway-error", "www-authenticate", "x-request-id"} <= headers.keys()


def test_a_page_whose_origin_is_not_listed_gets_no_answer_and_does_nothing(
    browser: Browser, tokenless: Gateway, page_url: str, other_url: str
) -> None:
    """With the cookies of somebody who is signed in, for both pages are of the same site."""
    with browser.new_context() as context:
        page = context.new_page()
        visit(page, page_url, tokenless)
        sign_in(page)
        page.goto(f"{other_url}/app/")
        nothing = [0, {"error": "TypeError"}]
        url = at(tokenless)
        for target, init in (
            ("/api/x", {"credentials": "include"}),
            ("/api/x", {"credentials": "include", "method": "DELETE"}),
            ("/auth/token", {"credentials": "include", "method": "POST", "body": "grant_type=refresh_token"}),
            ("/auth/logout", {"credentials": "include", "method": "POST"}),
            ("/auth/account", {"credentials": "include"}),
            ("/auth/me", {"credentials": "include"}),
        ):
            assert page.evaluate(_BARE, [url + target, init]) == nothing
        page.evaluate(
            "(url) => fetch(url, {method: 'POST', credentials: 'include', mode: 'no-cors'})", f"{url}/auth/logout"
        )
        assert visit(page, page_url, tokenless) is True, "nobody has been signed out"


def test_a_page_of_a_listed_origin_cannot_send_the_forms_of_the_account_page(
    browser: Browser, tokenless: Gateway, page_url: str
) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        visit(page, page_url, tokenless)
        sign_in(page)
        body: dict[str, Any] = {"method": "POST", "credentials": "include", "body": "do=end-all"}
        body["headers"] = {"Content-Type": "application/x-www-form-urlencoded"}
        status, headers = page.evaluate(_BARE, [f"{at(tokenless)}/auth/account", body])
        assert (status, headers["x-gateway-error"]) == (403, "csrf_rejected")
        assert visit(page, page_url, tokenless) is True
        form = "do=sign-in&username=bob&password=" + PASSWORD.replace(" ", "+")
        status, headers = page.evaluate(_BARE, [f"{at(tokenless)}/auth/account", {**body, "body": form}])
        assert (status, headers["x-gateway-error"]) == (403, "csrf_rejected")
