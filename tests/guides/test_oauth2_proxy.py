"""docs/migrate/oauth2-proxy.md: both side by side, and a session that moves without a sign-in."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
import requests

from tests.e2e.harness import until
from tests.guides.browser import HERE, Browser, move
from tests.guides.provider import Provider, provider
from tests.guides.sites import KINDS, oauth2_proxy_site
from tests.guides.terminal import Terminal

pytestmark = pytest.mark.timeout(240)  # pages start several servers, on a machine that may be busy

PAGE = "docs/migrate/oauth2-proxy.md"


@pytest.fixture(scope="module")
def idp() -> Iterator[Provider]:
    with provider() as made:
        yield made


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest, idp: Provider) -> Iterator[Terminal]:
    """Everything that the page has, with oauth2-proxy itself where the machine has it."""
    with oauth2_proxy_site(idp, request.param) as running:
        yield running


@pytest.fixture
def browser(site: Terminal) -> Browser:
    """A browser that has signed in at oauth2-proxy."""
    made = Browser(site.here("http://127.0.0.1:8000"))
    answer = made.open("/oauth2/start?rd=/api/hello")
    assert answer.status_code == 200, (answer.url, answer.text, answer.history, site.run("cat *.log"))
    assert answer.json()["path"] == "/api/hello"
    return made


def test_a_session_moves_without_a_sign_in_and_the_backend_sees_the_same_user(browser: Browser) -> None:
    names = ("x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username")
    before = browser.open("/api/hello").json()
    moved = move(browser)
    assert not {"access_token", "refresh_token"} & moved.json().keys()
    assert {"__Host-access", "__Host-refresh"} <= set(browser.cookies.keys())
    after = browser.open("/api/hello").json()
    assert after["via"] == "1.1 tokengate"
    assert "via" not in before
    assert [after[name] for name in names] == [before[name] for name in names]
    assert after["x-forwarded-user"] == "u-1"


def test_no_answer_has_the_providers_token_in_a_place_that_a_script_can_read(browser: Browser) -> None:
    """With `pass_access_token` oauth2-proxy says it in every answer that it passes on, beside that of /oauth2/auth."""
    before = browser.open("/api/hello")
    assert before.status_code == 200
    for answer in (before, browser.open("/oauth2/auth"), browser.open("/oauth2/none"), move(browser)):
        assert [name.lower() for name, value in answer.headers.items() if "eyJ" in value] in ([], ["set-cookie"])


def test_a_sign_out_holds_at_once_for_a_copy_of_the_cookies_too(browser: Browser) -> None:
    move(browser)
    thief = browser.copy()
    assert thief.open("/api/hello").status_code == 200
    assert browser.open("/auth/logout", "POST", **HERE).status_code == 204
    refused = thief.open("/api/hello")
    assert (refused.status_code, refused.headers["X-Gateway-Error"]) == (401, "revoked_token")


def test_a_session_whose_provider_token_has_expired_moves_with_a_fresh_one(
    site: Terminal, idp: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idp, "stale", True)
    browser = Browser(site.here("http://127.0.0.1:8000"))
    begun = time.monotonic()
    assert browser.open("/oauth2/start?rd=/api/hello").status_code == 200
    until(lambda: time.monotonic() - begun > 2, "the session of oauth2-proxy is older than its cookie_refresh")
    move(browser)
    assert browser.open("/api/hello").json()["via"] == "1.1 tokengate"


def test_a_session_that_ended_here_comes_back_by_the_old_one_until_that_is_ended_too(browser: Browser) -> None:
    move(browser)
    assert browser.open("/auth/logout", "POST", **HERE).status_code == 204
    move(browser)
    old = browser.copy()
    browser.open("/oauth2/sign_out")
    for each in (browser, old):
        assert each.open("/session/move", "POST", **HERE).status_code == 401


def test_rolled_back_the_session_of_before_goes_on(browser: Browser) -> None:
    move(browser)
    for name in ("__Host-access", "__Host-refresh"):
        del browser.cookies[name]
    answer = browser.open("/api/hello")
    assert (answer.status_code, "via" in answer.json()) == (200, False)


def test_nobody_without_a_session_and_no_other_site_moves_one(site: Terminal, browser: Browser) -> None:
    stranger = Browser(browser.origin)
    assert stranger.open("/session/move", "POST", **HERE).status_code == 401
    refused = browser.open("/session/move", "POST", **{"Sec-Fetch-Site": "cross-site"})
    assert (refused.status_code, refused.json()["error"]) == (403, "csrf_rejected")
    assert browser.open("/session/move").status_code == 403
    assert browser.open("/oauth2/auth").status_code == 404
    assert "__Host-access" not in browser.cookies


def test_what_needed_no_session_needs_none(site: Terminal) -> None:
    stranger = requests.get(site.here("http://127.0.0.1:8080/api/public/x"), timeout=10)
    assert (stranger.status_code, stranger.json()["path"]) == (200, "/api/public/x")


def test_an_operator_ends_every_session_of_a_user_of_the_provider(site: Terminal, browser: Browser) -> None:
    move(browser)
    (session,) = (each for each in browser.open("/auth/sessions").json()["sessions"] if each["current"])
    config = (site.directory / "gateway.toml").read_text()
    name = re.findall(r'subject_prefix = "(.*)"', config)[0] + "u-1"
    said = site.run(f"tokengate sessions list '{name}' --config gateway.toml")
    assert session["id"] in said
    site.run(f"tokengate sessions revoke --subject '{name}' --config gateway.toml")
    assert browser.open("/api/hello").status_code == 401
