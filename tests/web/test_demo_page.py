"""The page of `tokengate demo` in a real browser: what a newcomer does with it, step by step."""

from __future__ import annotations

import re
import time
from typing import Literal

import pytest
from playwright.sync_api import Locator, Page, expect

from gateway.web.page import POLICY
from tests.e2e.harness import until
from tests.e2e.wire import ask, request
from tests.web.browser import PHONE, overflow, violations
from tests.web.conftest import Visit
from tests.web.sites import Demo, demo

CALLED = "GET /api/hello 200"
EXPIRED = "GET /api/hello 401 expired_token"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
REFRESHED = "POST /auth/token 200"
BEGUN = ("POST /auth/token 400 invalid_request", "POST /auth/login 200", "WebSocket /api/live 101")
CUT = "WebSocket /api/live 4401"


def rows(page: Page) -> list[str]:
    """Return the lines of the timeline, oldest first; equal ones in a row are one."""
    return page.locator("#timeline .call").all_inner_texts()


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def message(page: Page) -> Locator:
    return page.locator("#message")


def sign_in(page: Page, url: str) -> Page:
    """Visit the demo and sign in; the live stream is open by then."""
    page.goto(url)
    button(page, "Sign in").click()
    expect(page.locator("#live-state")).to_have_text("Open.")
    return page


def call_every_two_seconds(page: Page) -> None:
    page.get_by_role("checkbox", name="and again every 2 seconds").check()


def refreshes(page: Page) -> tuple[int, int]:
    """Return how many refreshes were made by this tab and how many by others."""
    return int(page.locator("#by-this").inner_text()), int(page.locator("#by-others").inner_text())


def metric(site: Demo, outcome: str) -> float:
    text = ask(site.management, request("GET", "/metrics", {"Connection": "close"})).body.decode()
    found = re.search(rf'^tokengate_refreshes_total{{outcome="{outcome}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


# --- sign in, call ---


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_session_is_in_a_cookie_that_survives_a_reload_and_that_no_script_can_read(
    visitor: Visit, demo_site: Demo, host: str
) -> None:
    context = visitor()
    page = sign_in(context.new_page(), f"http://{host}:{demo_site.port}")
    (cookie,) = context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
        "__Secure-refresh",
        True,
        True,
        "Strict",
    )
    assert page.evaluate("document.cookie") == ""
    page.reload()
    expect(message(page)).to_contain_text("Signed in already")
    assert rows(page)[0] == REFRESHED


def test_a_wrong_password_is_said_in_words(visitor: Visit, demo_site: Demo) -> None:
    page = visitor().new_page()
    page.goto(demo_site.url)
    page.get_by_label("Password").fill("wrong")
    button(page, "Sign in").click()
    expect(message(page)).to_have_text("The user name or the password is wrong.")
    expect(button(page, "Sign in")).to_be_visible()


def test_a_call_without_a_token_is_refused_before_the_backend_sees_it(visitor: Visit, demo_site: Demo) -> None:
    page = visitor().new_page()
    page.goto(demo_site.url)
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline li").last).to_contain_text("GET /api/hello 401 missing_token")
    expect(page.locator("#all")).to_have_text("Nothing: tokengate refused the call.")


def test_the_backend_is_told_who_calls_whatever_the_page_claims(visitor: Visit, demo_site: Demo) -> None:
    page = sign_in(visitor().new_page(), demo_site.url)
    button(page, "Call /api/hello").click()
    expect(page.locator("[data-header=x-auth-request-user]")).to_have_text("u-demo")
    expect(page.locator("[data-header=x-auth-request-email]")).to_have_text("demo@example.com")
    expect(page.locator("[data-header=x-auth-request-groups]")).to_have_text("user")
    session = page.locator("#session-id").inner_text()
    expect(page.locator("[data-header=x-auth-request-session]")).to_have_text(session)
    assert '"root"' not in (page.locator("#all").text_content() or "")
    assert rows(page)[-1] == CALLED


# --- expiry ---


def test_the_bar_counts_the_token_down(visitor: Visit, demo_site: Demo) -> None:
    page = sign_in(visitor().new_page(), demo_site.url)
    bar = page.get_by_role("meter", name="Access token")
    first = int(bar.get_attribute("aria-valuenow") or "0")
    assert 20 < first <= 30
    assert bar.get_attribute("aria-valuemax") == "30"
    until(lambda: int(bar.get_attribute("aria-valuenow") or "99") <= first - 2, "two seconds less")
    width = page.locator(".fill").evaluate("(fill) => fill.getBoundingClientRect().width / fill.offsetWidth")
    assert 0.0 < width < 1.0


def test_an_expired_token_is_refused_refreshed_and_sent_again_while_the_stream_goes_on(
    visitor: Visit, brief_demo: Demo
) -> None:
    page = sign_in(visitor().new_page(), brief_demo.url)
    page.get_by_role("radio", name="Wait until it expires").check()
    expect(page.locator("#life-text")).to_have_text("expired")
    time.sleep(1.0)  # the gateway counts in whole seconds
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline li").last).to_contain_text(CALLED)
    assert rows(page)[-3:] == [EXPIRED, REFRESHED, CALLED]
    expect(message(page)).to_have_text("Refreshed: a new access token, and nobody had to sign in again.")
    expect(page.locator("#tick")).to_have_text("Tick 6 for u-demo.")
    assert CUT not in rows(page)


def test_a_token_that_is_refreshed_ahead_is_never_refused(visitor: Visit, brief_demo: Demo) -> None:
    page = sign_in(visitor().new_page(), brief_demo.url)
    expect(page.locator("#life-hint")).to_have_text(re.compile(r"The next call (refreshes it|brings a new one)\."))
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline li").last).to_contain_text(CALLED)
    assert rows(page)[-2:] == [REFRESHED, CALLED]
    assert EXPIRED not in rows(page)


# --- tabs and devices ---


def test_two_tabs_over_several_expiries_need_one_rotation_each_time(visitor: Visit, brief_demo: Demo) -> None:
    context = visitor()
    one = sign_in(context.new_page(), brief_demo.url)
    with context.expect_page() as opened:
        one.get_by_role("link", name="Open a second tab").click()
    other = opened.value
    expect(one.locator("#by-others")).to_have_text("1")  # the new tab has taken up the session and told of it
    expect(other.locator("#live-state")).to_have_text("Open.")
    rotated, replayed, began = metric(brief_demo, "rotated"), metric(brief_demo, "replayed"), time.monotonic()
    before = refreshes(one), refreshes(other)
    for page in (one, other):
        call_every_two_seconds(page)
    until(lambda: sum(refreshes(one)) >= sum(before[0]) + 3, "three refreshes")
    for page in (one, other):
        page.get_by_role("checkbox", name="and again").uncheck()
    until(lambda: sum(refreshes(one)) - sum(before[0]) == metric(brief_demo, "rotated") - rotated, "all is told")
    made = [now - then for now, then in zip(refreshes(one), before[0], strict=True)]
    until(lambda: [refreshes(other)[0] - before[1][0], refreshes(other)[1] - before[1][1]] == made[::-1], "told both")
    assert metric(brief_demo, "replayed") == replayed
    assert sum(made) <= (time.monotonic() - began) / 2.0 + 1  # no more than there were expiries: a life is 3 s
    for page in (one, other):
        # A token lives up to a second less than it says, since `exp` is in whole ones: of 3 s that may be noticed.
        assert set(rows(page)) <= {*BEGUN, REFRESHED, CALLED, EXPIRED}
        expect(page.locator("#timeline li").last).to_contain_text(CALLED)


def test_revoking_from_another_device_stops_both_tabs(visitor: Visit, demo_site: Demo) -> None:
    context = visitor()
    one = sign_in(context.new_page(), demo_site.url)
    other = context.new_page()
    other.goto(demo_site.url)
    expect(other.locator("#live-state")).to_have_text("Open.")
    for page in (one, other):
        call_every_two_seconds(page)
    button(one, "Sign out all others").click()
    for page in (one, other):
        expect(message(page)).to_contain_text("Signed out by another device. Its token had")
        expect(button(page, "Sign in")).to_be_visible()
        expect(page.locator("#timeline")).to_contain_text(CUT)
        expect(page.get_by_role("checkbox", name="and again")).not_to_be_checked()
    assert "second device DELETE /auth/sessions?except=current 204" in rows(one)
    refused = {"GET /api/hello 401 revoked_token", "POST /auth/token 400 invalid_grant"}
    assert refused & set(rows(one))
    one.goto(f"{demo_site.url}/auth/account")
    expect(one.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_page_is_signed_out_by_the_account_page(visitor: Visit, demo_site: Demo) -> None:
    context = visitor()
    page = sign_in(context.new_page(), demo_site.url)
    devices = context.new_page()
    devices.goto(demo_site.url)
    devices.get_by_role("link", name="My devices").click()
    button(devices, "(this device)").click()
    expect(message(page)).to_contain_text("Signed out: the refresh cookie is gone")
    expect(page.locator("#timeline")).to_contain_text(CUT)


# --- the live stream ---


def test_the_stream_is_cut_on_sign_out_and_comes_back_after_sign_in(visitor: Visit, demo_site: Demo) -> None:
    page = sign_in(visitor().new_page(), demo_site.url)
    expect(page.locator("#tick")).to_have_text("Tick 2 for u-demo.")
    button(page, "Sign out").first.click()
    expect(page.locator("#timeline")).to_contain_text(CUT)
    expect(page.locator("#live-state")).to_have_text("Cut with its session. Sign in and it comes back.")
    expect(message(page)).to_contain_text("is worth nothing now")
    button(page, "Sign in").click()
    expect(page.locator("#live-state")).to_have_text("Open.")
    expect(page.locator("#tick")).to_have_text("Tick 2 for u-demo.")


def test_without_websockets_the_page_says_what_is_missing(visitor: Visit) -> None:
    with demo(websockets=False) as site:
        page = visitor().new_page()
        page.goto(site.url)
        button(page, "Sign in").click()
        expect(message(page)).to_contain_text("Signed in")
        expect(page.locator("#live-state")).to_contain_text("pip install 'tokengate[demo]'")
        button(page, "Call /api/hello").click()
        expect(page.locator("#timeline li").last).to_contain_text(CALLED)


# --- for everybody ---


def test_the_keyboard_alone_can_do_it_all(visitor: Visit, demo_site: Demo) -> None:
    page = visitor().new_page()
    page.goto(demo_site.url)
    tab_to(page, button(page, "Sign in"))
    page.keyboard.press("Enter")
    expect(page.locator("#who")).to_be_focused()  # what has the focus does not vanish under the user
    tab_to(page, page.get_by_role("link", name="My devices"))
    tab_to(page, page.get_by_role("log"))
    tab_to(page, button(page, "Call /api/hello"))
    page.keyboard.press("Enter")
    expect(page.locator("#timeline li").last).to_contain_text(CALLED)
    tab_to(page, page.get_by_role("checkbox", name="and again"))
    page.keyboard.press("Space")
    expect(page.get_by_role("checkbox", name="and again")).to_be_checked()
    tab_to(page, page.get_by_role("radio", name="Refresh ahead"))
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("radio", name="Wait until it expires")).to_be_checked()
    tab_to(page, page.get_by_role("link", name="Open a second tab"))
    tab_to(page, button(page, "Sign out all others"))
    page.keyboard.press("Enter")
    expect(message(page)).to_contain_text("Signed out by another device")


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until something has the focus."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


def test_axe_finds_nothing_wrong_in_light_and_dark(visitor: Visit, demo_site: Demo) -> None:
    page = visitor(reduced_motion="reduce").new_page()
    page.goto(demo_site.url)
    expect(page.locator("#timeline li")).to_have_count(1)
    look_through(page)
    button(page, "Sign in").click()
    expect(page.locator("#live-state")).to_have_text("Open.")
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline li").last).to_contain_text(CALLED)
    page.get_by_text("All that the backend received").click()
    look_through(page)
    button(page, "Sign out all others").click()
    expect(page.locator("#timeline")).to_contain_text(CUT)
    page.set_viewport_size(PHONE)
    look_through(page)


def look_through(page: Page) -> None:
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []


def test_a_phone_needs_no_horizontal_scrolling(visitor: Visit, demo_site: Demo) -> None:
    page = sign_in(visitor(viewport=PHONE).new_page(), demo_site.url)
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline li").last).to_contain_text(CALLED)
    page.get_by_text("All that the backend received").click()
    button(page, "Sign out all others").click()
    expect(message(page)).to_contain_text("Signed out by another device")
    for width in (PHONE["width"], 320):
        page.set_viewport_size({"width": width, "height": PHONE["height"]})
        assert overflow(page) == 0


def test_nothing_jumps_whatever_happens(visitor: Visit, demo_site: Demo) -> None:
    page = visitor().new_page()
    page.goto(demo_site.url)
    expect(page.locator("#timeline li")).to_have_count(1)
    before = places(page)
    button(page, "Sign in").click()
    expect(page.locator("#tick")).to_contain_text("u-demo")
    assert places(page) == before
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline")).to_contain_text(CALLED)
    assert places(page) == before
    button(page, "Sign out all others").click()
    expect(page.locator("#timeline")).to_contain_text(CUT)
    assert places(page) == before


def places(page: Page) -> list[list[int]]:
    """Return where each card begins and ends, in pixels from the top, on a phone and on a desk."""
    return [_places(page, width) for width in (PHONE["width"], 1280)]


def _places(page: Page, width: int) -> list[int]:
    page.set_viewport_size({"width": width, "height": 800})
    found: list[int] = page.evaluate(
        """() => {
          scrollTo(0, 0);
          return [...document.querySelectorAll(".card")].flatMap((card) => {
            const { top, bottom } = card.getBoundingClientRect();
            return [Math.round(top), Math.round(bottom)];
          });
        }"""
    )
    return found


def test_what_the_screen_reader_is_told_in_passing_is_polite(visitor: Visit, demo_site: Demo) -> None:
    page = visitor().new_page()
    page.goto(demo_site.url)
    expect(page.get_by_role("log", name="On the wire")).to_have_attribute("aria-live", "polite")
    assert page.locator("[aria-live=assertive], [role=alert]").count() == 0
    ticks = page.locator("#tick").evaluate("(tick) => tick.closest('[aria-live], [role=status], [role=log]') === null")
    assert ticks  # once a second is too often


def test_calls_that_do_not_differ_are_one_line(visitor: Visit, demo_site: Demo) -> None:
    page = sign_in(visitor().new_page(), demo_site.url)
    for number in (1, 2, 3):
        button(page, "Call /api/hello").click()
        expect(page.locator("#timeline li").last).to_have_attribute("data-count", str(number))
    assert rows(page).count(CALLED) == 1
    expect(page.locator("#timeline li").last).to_contain_text("×3")


def test_a_network_that_is_away_is_said_in_words_and_signs_nobody_out(visitor: Visit, demo_site: Demo) -> None:
    context = visitor()
    page = sign_in(context.new_page(), demo_site.url)
    context.set_offline(True)
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline li").last).to_contain_text("GET /api/hello no answer")
    expect(message(page)).to_have_text("tokengate does not answer. Is the demo still running?")
    context.set_offline(False)
    button(page, "Call /api/hello").click()
    expect(page.locator("#timeline li").last).to_contain_text(CALLED)


# --- what is served ---


def test_the_page_may_load_nothing_but_what_the_gateway_serves(demo_site: Demo) -> None:
    answer = ask(demo_site.port, request("GET", "/", {"Connection": "close"}))
    assert answer.status == 200
    assert answer.get("content-security-policy") == POLICY
    assert answer.get("x-content-type-options") == "nosniff"
    assert not re.search(rb"\sstyle=|\son[a-z]+=|<script(?! type=\"module\" src=)|<style|https?://", answer.body)


@pytest.mark.parametrize(
    "path", ["/demo/", "/demo/none.js", "/demo/index.html", "/client/index.d.ts", "/client/demo/main.js", "/else"]
)
def test_nothing_else_is_handed_out(demo_site: Demo, path: str) -> None:
    assert ask(demo_site.port, request("GET", path, {"Connection": "close"})).status == 404


def test_the_page_is_only_read(demo_site: Demo) -> None:
    answer = ask(demo_site.port, request("POST", "/", {"Connection": "close", "Content-Length": "0"}))
    assert (answer.status, answer.get("x-gateway-error")) == (405, "method_not_allowed")
