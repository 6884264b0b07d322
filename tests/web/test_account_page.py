"""The account page in a real browser: with a mouse, a keyboard, a phone, without scripts, and when things go wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Dialog, Locator, Page, Route, expect

from gateway.web.account import NOTES, PROBLEMS
from tests.clients.backend import EchoBackend, echo_backend
from tests.e2e.harness import PASSWORD, Gateway, Site, route
from tests.redis_server import RedisServer
from tests.web.blocking import without_cookies
from tests.web.browser import PHONE, overflow, violations
from tests.web.conftest import Visit

SCHEMES = ("light", "dark")
COOKIES = {"refresh": "__Secure-refresh", "access": "__Host-access"}


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[EchoBackend]:
    """Another site: 127.0.0.1 is none of localhost's."""
    with echo_backend() as made:
        yield made


@pytest.fixture(scope="module")
def cookie_site(shared_redis: RedisServer, elsewhere: EchoBackend) -> Iterator[Gateway]:
    """A gateway in cookie mode: browsers hold no token in script."""
    with (
        Site(shared_redis.url, "web-cookies") as site,
        site.serve(routes=[route("/api/", elsewhere.url)], cookies=COOKIES) as made,
    ):
        yield made


@pytest.fixture(params=["account_site", "cookie_site"], ids=["refresh cookie", "access cookie too"])
def site(request: pytest.FixtureRequest) -> Gateway:
    """Both ways to keep the tokens; nobody is signed in."""
    found: Gateway = request.getfixturevalue(request.param)
    return empty(found)


@pytest.fixture
def plain(account_site: Gateway) -> Gateway:
    return empty(account_site)


def empty(site: Gateway) -> Gateway:
    for user in ("alice", "bob"):
        site.operate("DELETE", f"/admin/users/u-{user}/sessions")
    return site


def address(site: Gateway, host: str = "localhost") -> str:
    return f"http://{host}:{site.port}/auth/account"


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def fill(page: Page, user: str, password: str) -> None:
    page.get_by_label("User name").fill(user)
    page.get_by_label("Password").fill(password)
    button(page, "Sign in").click()


def sign_in(page: Page, site: Gateway, user: str = "alice") -> Page:
    page.goto(address(site))
    fill(page, user, PASSWORD)
    expect(page.get_by_role("heading", level=1)).to_have_text("Your devices")
    return page


def devices(page: Page) -> Locator:
    return page.locator(".devices > li")


# --- with a mouse ---


def test_a_person_signs_in_and_sees_this_device_first(visitor: Visit, site: Gateway) -> None:
    site.login("alice", device="Kitchen tablet")
    page = sign_in(visitor().new_page(), site)
    expect(devices(page)).to_have_count(2)
    expect(devices(page).first).to_contain_text("This device")
    expect(devices(page).first).to_contain_text("127.0.0.1")
    expect(devices(page).first).to_contain_text("just now")
    expect(devices(page).last).to_contain_text("Kitchen tablet")
    expect(page.locator(".problem, .note")).to_have_count(0)
    assert page.evaluate("document.cookie") == "", "no script can read a token"


def test_a_wrong_password_is_told_in_words_and_the_name_stays(visitor: Visit, plain: Gateway) -> None:
    page = visitor().new_page()
    page.goto(address(plain))
    fill(page, "alice", "wrong")
    expect(page.get_by_role("alert")).to_have_text(PROBLEMS["invalid_credentials"])
    expect(page.get_by_label("User name")).to_have_value("alice")
    expect(page.get_by_label("Password")).to_be_focused()
    expect(page.get_by_label("Password")).to_have_accessible_description(PROBLEMS["invalid_credentials"])
    button(page, "Sign in").click()  # with an empty password: the browser itself asks for it
    expect(page.get_by_role("alert")).to_have_text(PROBLEMS["invalid_credentials"])


def test_one_other_device_is_signed_out_and_nothing_else(visitor: Visit, site: Gateway) -> None:
    gone = site.login("alice", device="Lost phone")
    site.login("alice", device="Desk")
    page = sign_in(visitor().new_page(), site)
    button(page, "Sign out Lost phone").click()
    expect(page.get_by_role("status")).to_have_text(NOTES["device-signed-out"])
    expect(devices(page)).to_have_count(2)
    assert site.refresh(gone["refresh_token"]).status == 400
    page.reload()
    expect(devices(page)).to_have_count(2)


def test_signing_out_everywhere_asks_first(visitor: Visit, site: Gateway) -> None:
    other = site.login("alice", device="Desk")
    context = visitor()
    page = sign_in(context.new_page(), site)
    asked: list[str] = []
    answers = iter([False, True])

    def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        if next(answers):
            dialog.accept()
        else:
            dialog.dismiss()

    page.on("dialog", answer)
    everywhere = button(page, "Sign out everywhere, here too")
    everywhere.click()
    expect(devices(page)).to_have_count(2)
    assert site.refresh(other["refresh_token"]).status == 200
    everywhere.click()
    expect(page.get_by_role("status")).to_have_text(NOTES["everywhere"])
    expect(button(page, "Sign in")).to_be_visible()
    assert asked == ["Sign out everywhere, here too?"] * 2
    assert context.cookies() == []


def test_the_other_devices_are_signed_out_and_this_one_stays(visitor: Visit, plain: Gateway) -> None:
    plain.login("alice", device="Desk")
    page = sign_in(visitor().new_page(), plain)
    page.on("dialog", lambda dialog: dialog.accept())
    button(page, "Sign out all other devices").click()
    expect(page.get_by_role("status")).to_have_text(NOTES["others-signed-out"])
    expect(devices(page)).to_have_count(1)
    expect(button(page, "Sign out all other devices")).to_have_count(0)


def test_a_session_that_was_ended_elsewhere_is_told_as_such(visitor: Visit, plain: Gateway) -> None:
    page = sign_in(visitor().new_page(), plain)
    empty(plain)
    page.reload()
    expect(page.get_by_role("alert")).to_have_text(PROBLEMS["session_ended"])
    expect(button(page, "Sign in")).to_be_visible()


# --- without scripts, with a keyboard, on a phone ---


def test_without_scripts_everything_works(visitor: Visit, site: Gateway) -> None:
    site.login("alice", device="Lost phone")
    site.login("alice", device="Desk")
    page = visitor(java_script_enabled=False).new_page()
    page.goto(address(site))
    fill(page, "alice", "wrong")
    expect(page.get_by_role("alert")).to_have_text(PROBLEMS["invalid_credentials"])
    fill(page, "alice", PASSWORD)
    expect(devices(page)).to_have_count(3)
    expect(devices(page).first).to_contain_text("UTC")
    button(page, "Sign out Lost phone").click()
    expect(page.get_by_role("status")).to_have_text(NOTES["device-signed-out"])
    button(page, "Sign out all other devices").click()
    expect(page.get_by_role("status")).to_have_text(NOTES["others-signed-out"])
    expect(devices(page)).to_have_count(1)
    button(page, "Sign out everywhere, here too").click()
    expect(page.get_by_role("status")).to_have_text(NOTES["everywhere"])


def test_a_keyboard_is_enough(visitor: Visit, plain: Gateway) -> None:
    plain.login("alice", device="Lost phone")
    page = visitor().new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(address(plain))
    expect(page.get_by_label("User name")).to_be_focused()
    for keys in ("alice", "\t", PASSWORD):
        page.keyboard.type(keys) if keys != "\t" else page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(devices(page)).to_have_count(2)
    reached = [_tab(page) for _ in range(4)]
    assert reached[0].endswith("(this device)")
    assert reached[1:] == ["Sign out Lost phone", "Sign out all other devices", "Sign out everywhere, here too"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "where the focus is can be seen"
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text(NOTES["device-signed-out"])


def _tab(page: Page) -> str:
    page.keyboard.press("Tab")
    said: str = page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent")
    return said


@pytest.mark.parametrize("name", ["W" * 64, "a quite long name of a device, " * 2])
def test_on_a_phone_nothing_is_wider_than_the_screen(visitor: Visit, plain: Gateway, name: str) -> None:
    plain.login("alice", device=name)
    page = visitor(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    page.goto(address(plain))
    assert overflow(page) == 0
    fill(page, "alice", "wrong")
    expect(page.get_by_role("alert")).to_be_visible()
    assert overflow(page) == 0
    fill(page, "alice", PASSWORD)
    expect(devices(page)).to_have_count(2)
    assert overflow(page) == 0
    for each in page.get_by_role("button").all():
        box = each.bounding_box()
        assert box is not None
        assert box["height"] >= 44, "a finger hits it"


# --- for every eye ---


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_nothing_wrong_with_any_page(visitor: Visit, plain: Gateway, scheme: str) -> None:
    plain.login("alice", device="Desk")
    page = visitor(color_scheme=scheme).new_page()
    page.goto(address(plain))
    assert violations(page) == [], "sign in"
    fill(page, "alice", "wrong")
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == [], "error"
    fill(page, "alice", PASSWORD)
    expect(devices(page)).to_have_count(2)
    assert violations(page) == [], "devices"
    button(page, "Sign out Desk").click()
    expect(page.get_by_role("status")).to_be_visible()
    assert violations(page) == [], "note"


def test_dark_is_dark_and_light_is_light(visitor: Visit, plain: Gateway) -> None:
    grounds = []
    for scheme in SCHEMES:
        page = visitor(color_scheme=scheme).new_page()
        page.goto(address(plain))
        said: str = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        grounds.append(sum(int(part) for part in said.removeprefix("rgb(").removesuffix(")").split(",")))
    assert grounds[0] > 700
    assert grounds[1] < 100


@pytest.mark.parametrize("width", [360, 480, 640, 1200])
def test_nothing_jumps_when_the_script_comes_late(visitor: Visit, plain: Gateway, width: int) -> None:
    plain.login("alice", device="Desk")
    context = visitor(viewport={"width": width, "height": 800})
    context.add_init_script(
        "window.jumps = 0; new PerformanceObserver((list) => list.getEntries().forEach((each) => jumps += each.value))"
        ".observe({type: 'layout-shift', buffered: true});"
    )
    page = sign_in(context.new_page(), plain)
    scripts: list[Route] = []
    page.route("**/account.js", lambda script: scripts.append(script))  # noqa: PLW0108  # Playwright marks what it is given
    page.goto(address(plain), wait_until="commit")
    expect(devices(page).first).to_contain_text("UTC")
    page.evaluate(_PAINTED)
    scripts[0].continue_()
    expect(devices(page).first).to_contain_text("just now")
    page.evaluate(_PAINTED)
    assert page.evaluate("jumps") == 0


_PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


# --- from elsewhere, and when something is in the way ---


@pytest.mark.parametrize("script", [True, False], ids=["script", "no script"])
def test_a_link_from_another_site_shows_the_devices(
    visitor: Visit, site: Gateway, elsewhere: EchoBackend, script: bool
) -> None:
    context = visitor()
    page = sign_in(context.new_page(), site)
    if not script:
        state = context.storage_state()
        page = visitor(storage_state=state, java_script_enabled=False).new_page()
    page.route(f"{elsewhere.url}/", lambda route: route.fulfill(body=_link(site), content_type="text/html"))
    page.goto(f"{elsewhere.url}/")
    page.get_by_role("link", name="My devices").click()
    expect(devices(page)).to_have_count(1)
    expect(devices(page)).to_contain_text("This device")


def _link(site: Gateway) -> str:
    return f'<title>Elsewhere</title><a href="{address(site)}">My devices</a>'


def test_a_link_from_another_site_shows_who_is_not_signed_in_the_form(
    visitor: Visit, plain: Gateway, elsewhere: EchoBackend
) -> None:
    page = visitor().new_page()
    page.route(f"{elsewhere.url}/", lambda route: route.fulfill(body=_link(plain), content_type="text/html"))
    page.goto(f"{elsewhere.url}/")
    page.get_by_role("link", name="My devices").click()
    expect(button(page, "Sign in")).to_be_visible()


def test_a_form_of_another_site_signs_nobody_out(visitor: Visit, plain: Gateway, elsewhere: EchoBackend) -> None:
    context = visitor()
    page = sign_in(context.new_page(), plain)
    form = (
        f'<title>x</title><form method="post" action="{address(plain)}">'
        '<input name="do" value="end-all"><button>Win</button></form>'
    )
    page.route(f"{elsewhere.url}/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto(f"{elsewhere.url}/")
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_role("alert")).to_have_text(PROBLEMS["csrf_rejected"])
    page.goto(address(plain))
    expect(devices(page)).to_have_count(1)


def test_blocked_cookies_are_named(browser: Browser, plain: Gateway) -> None:
    with without_cookies(browser) as context:
        page = context.new_page()
        page.goto(address(plain))
        fill(page, "alice", PASSWORD)
        expect(page.get_by_role("alert")).to_have_text(PROBLEMS["cookies_blocked"])
        page.goto(address(plain))
        expect(page.get_by_role("alert")).to_have_count(0)


def test_while_the_store_is_away_the_page_says_so_and_nobody_is_signed_out(
    visitor: Visit, own_redis: RedisServer, elsewhere: EchoBackend
) -> None:
    with Site(own_redis.url) as site, site.serve(routes=[route("/api/", elsewhere.url)]) as gateway:
        page = sign_in(visitor(color_scheme="light").new_page(), gateway)
        own_redis.pause()
        answer = page.reload()
        assert answer is not None
        assert answer.status == 503
        expect(page.get_by_role("alert")).to_have_text(PROBLEMS["store_unavailable"])
        assert violations(page) == []
        page.emulate_media(color_scheme="dark")
        assert violations(page) == []
        own_redis.resume()
        gateway.wait_ready()
        page.get_by_role("link", name="Try again").click()
        expect(devices(page)).to_have_count(1)
        page.close()  # before the gateway ends
