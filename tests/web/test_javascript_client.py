"""The JavaScript client in a real browser, behind a real gateway: tabs, WebSockets, cookies that are blocked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.harness import PASSWORD, Gateway, Site, route, until
from tests.redis_server import RedisServer
from tests.web.blocking import without_cookies
from tests.web.client_page import CLIENT, client_page
from tests.web.conftest import Visit

BRIEF = 4  # seconds that tokens live on the second gateway

# A client of a page, with what it tells.
_MAKE = """
async (options) => {
  const { createTokengate } = window.tokengate ?? (await import("/app/client/index.js"));
  const storage = options.kept && {
    get: () => localStorage.getItem("kept"),
    set: (token) => localStorage.setItem("kept", token),
    remove: () => localStorage.removeItem("kept"),
  };
  window.told = [];
  window.client = createTokengate({
    ...options,
    storage,
    onSignedOut: ({ reason }) => told.push(`out ${reason}`),
    onRefreshed: ({ byOtherTab }) => told.push(byOtherTab ? "heard" : "refreshed"),
  });
  return client.restore();
}
"""
_SOCKET = """
(path) => {
  window.said = [];
  window.times = [];
  window.socket = client.webSocket(path);
  socket.addEventListener("open", () => said.push("open") && times.push(performance.now() / 1000));
  socket.addEventListener("message", ({ data }) => said.push(data));
  socket.addEventListener("reconnecting", ({ detail }) => said.push(`lost ${detail.code}`));
  socket.addEventListener("close", ({ detail }) => said.push(`closed ${detail.code}`));
}
"""
# Ask for as long as told; the statuses that came, each once.
_ASK = """
async (seconds) => {
  const statuses = new Set();
  const end = performance.now() + seconds * 1000;
  while (performance.now() < end) {
    const answers = await Promise.all([1, 2, 3].map((n) => client.fetch(`/api/${n}`)));
    for (const { status } of answers) statuses.add(status);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return [...statuses];
}
"""


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with client_page() as url:
        yield url


@pytest.fixture(scope="module")
def behind(shared_redis: RedisServer) -> Iterator[Site]:
    with Site(shared_redis.url, "web-client") as made:
        yield made


def routes(backend: str) -> list[dict[str, Any]]:
    return [route("/api/", backend), route("/app/", backend, auth="none")]


@pytest.fixture(scope="module")
def gateway(behind: Site, backend: str) -> Iterator[Gateway]:
    with behind.serve(routes=routes(backend)) as made:
        yield made


@pytest.fixture(scope="module")
def brief(behind: Site, backend: str) -> Iterator[Gateway]:
    tokens = {"access_ttl": f"{BRIEF}s", "leeway": "0s"}
    with behind.serve(routes=routes(backend), tokens=tokens) as made:
        yield made


def visit(page: Page, site: Gateway, **options: Any) -> Page:
    """Make a client in a page; it takes up a session that there is."""
    page.goto(f"http://localhost:{site.port}/app/")
    page.wait_for_function("window.tokengate !== undefined")
    page.evaluate(_MAKE, options)
    return page


def sign_in(page: Page) -> None:
    page.evaluate("(password) => client.login({ username: 'alice', password })", PASSWORD)


def wait_for(page: Page, line: str, times: int = 1) -> None:
    page.wait_for_function("([line, times]) => said.filter((each) => each === line).length >= times", arg=[line, times])


def refreshes(site: Gateway, outcome: str) -> float:
    return site.metric("tokengate_refreshes_total", outcome=outcome)


def own(page: Page) -> int:
    found: int = page.evaluate("told.filter((each) => each === 'refreshed').length")
    return found


# --- tabs ---


@pytest.mark.parametrize("options", [{}, {"refreshIn": "body", "kept": True}], ids=["cookie", "storage"])
def test_tabs_over_several_expiries_make_one_successor_each(
    visitor: Visit, brief: Gateway, options: dict[str, Any]
) -> None:
    context = visitor()
    earlier = refreshes(brief, "rotated")
    first = visit(context.new_page(), brief, **options)
    sign_in(first)
    second = visit(context.new_page(), brief, **options)
    assert second.evaluate("client.signedIn")
    until(lambda: own(first) + own(second) == refreshes(brief, "rotated") - earlier, "no refresh is under way")
    before = {outcome: refreshes(brief, outcome) for outcome in ("rotated", "replayed", "reuse")}
    for page in (first, second):
        page.evaluate("told.length = 0")
        page.evaluate(f"(seconds) => {{ window.asked = ({_ASK})(seconds) }}", 3 * BRIEF)
    assert [page.evaluate("asked") for page in (first, second)] == [[200], [200]]
    told = [page.evaluate("told") for page in (first, second)]
    made = told[0].count("refreshed") + told[1].count("refreshed")
    assert made >= 3
    assert refreshes(brief, "rotated") - before["rotated"] == made
    assert refreshes(brief, "replayed") == before["replayed"]
    assert refreshes(brief, "reuse") == before["reuse"]
    assert len(told[0]) == len(told[1]) == made, "each tab has heard of what the other has done"


def test_a_sign_out_in_one_tab_is_one_in_all(visitor: Visit, gateway: Gateway) -> None:
    context = visitor()
    first, second = visit(context.new_page(), gateway), visit(context.new_page(), gateway)
    sign_in(first)
    second.wait_for_function("client.signedIn")
    second.evaluate("client.logout()")
    first.wait_for_function("!client.signedIn")
    assert first.evaluate("told") == ["out logout"]
    assert first.evaluate("client.fetch('/api/x').then(({ status }) => status)") == 401


def test_a_tab_that_holds_the_lock_and_does_not_move_keeps_nobody_out(visitor: Visit, gateway: Gateway) -> None:
    context = visitor()
    stuck = visit(context.new_page(), gateway)
    name = f"tokengate:http://localhost:{gateway.port}:cookie"
    stuck.evaluate("(name) => { navigator.locks.request(name, () => new Promise(() => {})) }", name)
    page = visit(context.new_page(), gateway, patience=0.5)
    sign_in(page)
    assert page.evaluate("client.refresh().then(() => client.fetch('/api/x')).then(({ status }) => status)") == 200


def test_a_listener_that_throws_costs_no_request_and_is_told_as_the_applications_own_error(
    browser: Browser, gateway: Gateway
) -> None:
    context = browser.new_context()
    page = visit(context.new_page(), gateway)
    thrown: list[str] = []
    page.on("pageerror", lambda error: thrown.append(error.message))
    sign_in(page)
    page.add_script_tag(content="client.onRefreshed(() => { throw new Error('mine') })")
    assert page.evaluate("client.refresh().then(() => client.fetch('/api/x')).then(({ status }) => status)") == 200
    until(lambda: page.evaluate("1") and thrown, "the error is told")
    context.close()
    assert thrown == ["mine"]


# --- WebSockets ---


def test_a_websocket_ends_with_its_session_and_says_so_once(visitor: Visit, gateway: Gateway) -> None:
    page = visit(visitor().new_page(), gateway)
    sign_in(page)
    page.evaluate(_SOCKET, "/api/live")
    wait_for(page, "hello u-alice")
    page.evaluate("socket.send('and back')")
    wait_for(page, "and back")
    gateway.operate("DELETE", f"/admin/sessions/{page.evaluate('client.sessionId')}")
    wait_for(page, "closed 4401")
    assert page.evaluate("said.slice(-2)")[-1] == "closed 4401"
    assert page.evaluate("said.filter((each) => each.startsWith('closed')).length") == 1
    assert page.evaluate("told") == ["out session_ended"]
    assert page.evaluate("socket.readyState") == 3


def test_a_websocket_comes_back_with_a_fresh_token_when_its_own_has_expired(visitor: Visit, brief: Gateway) -> None:
    page = visit(visitor().new_page(), brief)
    sign_in(page)
    page.evaluate(_SOCKET, "/api/live")
    wait_for(page, "hello u-alice", 3)
    assert set(page.evaluate("said")) == {"open", "hello u-alice", "lost 4401"}
    page.evaluate("socket.close()")
    assert page.evaluate("said.at(-1)") == "closed 1000"
    assert page.evaluate("told.includes('out session_ended')") is False


def test_a_sign_out_here_closes_the_websocket(visitor: Visit, gateway: Gateway) -> None:
    page = visit(visitor().new_page(), gateway)
    sign_in(page)
    page.evaluate(_SOCKET, "/api/live")
    wait_for(page, "hello u-alice")
    page.evaluate("client.logout()")
    wait_for(page, "closed 4401")
    assert page.evaluate("said.includes('lost 4401')") is False


def test_a_websocket_that_is_closed_with_4401_each_time_is_opened_with_growing_pauses(
    visitor: Visit, gateway: Gateway
) -> None:
    page = visit(visitor().new_page(), gateway)
    sign_in(page)
    page.evaluate(_SOCKET, "/api/closing")
    wait_for(page, "open", 4)
    page.evaluate("socket.close()")
    first, _, third, fourth = page.evaluate("times.slice(0, 4)")
    assert third - first >= 0.25
    assert fourth - third >= 0.5


def test_the_websocket_of_the_readme_does_what_it_says(visitor: Visit, gateway: Gateway) -> None:
    readme = (CLIENT.parent / "README.md").read_text().partition("\n## WebSockets\n")[2]
    code = readme.partition("```js\n")[2].partition("```")[0].replace("console.log", "logged")
    page = visit(visitor().new_page(), gateway)
    sign_in(page)
    logged = "window.said = []; window.logged = (...words) => said.push(words.join(' '));"
    page.add_script_tag(content=f"{logged}\n{code}")
    wait_for(page, "each time it is connected")
    page.evaluate("client.logout()")
    wait_for(page, "ended: 4401")


def test_a_websocket_of_nobody_ends_at_once(visitor: Visit, gateway: Gateway) -> None:
    page = visit(visitor().new_page(), gateway)
    page.evaluate(_SOCKET, "/api/live")
    wait_for(page, "closed 4401")
    assert page.evaluate("said") == ["closed 4401"]


@pytest.mark.parametrize("protocols", ["no spaces", "twice"])
def test_a_websocket_that_cannot_be_made_ends_without_telling_the_token(
    visitor: Visit, gateway: Gateway, protocols: str
) -> None:
    page = visit(visitor().new_page(), gateway)
    sign_in(page)
    token = page.evaluate("client.accessToken()")
    given = [token] if protocols == "twice" else [protocols]
    said = page.evaluate(
        """(protocols) => new Promise((resolve) =>
          client.webSocket("/api/live", protocols).addEventListener("close", ({ detail }) => resolve(detail)))""",
        given,
    )
    assert said["code"] == 1006
    assert token not in said["reason"]


# --- cookies ---


def test_blocked_cookies_are_an_error_with_a_text(browser: Browser, gateway: Gateway) -> None:
    with without_cookies(browser) as context:
        page = visit(context.new_page(), gateway)
        sign_in(page)
        assert page.evaluate("client.fetch('/api/x').then(({ status }) => status)") == 200
        found = page.evaluate("client.refresh().catch(({ name, message }) => [name, message])")
        assert found == ["CookiesBlocked", "Your browser blocks cookies for this site. Allow them to stay signed in."]
        assert page.evaluate("told") == ["out cookie_missing"]


def test_blocked_storage_is_an_error_with_a_text(browser: Browser, gateway: Gateway) -> None:
    with without_cookies(browser) as context:
        page = visit(context.new_page(), gateway, refreshIn="body", kept=True)
        found = page.evaluate(
            """(password) => client.login({ username: "alice", password })
              .catch((error) => [error.name, error.cause.name])""",
            PASSWORD,
        )
        assert found == ["StorageFailed", "SecurityError"]
        assert page.evaluate("client.signedIn") is False
