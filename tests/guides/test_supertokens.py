"""docs/migrate/supertokens.md: both side by side, sessions that move, users that stay in the core."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.e2e.harness import until
from tests.guides.browser import HERE, Browser, move
from tests.guides.sites import ADMIN_TOKEN, ask, passes, supertokens_site
from tests.guides.supertokens import ISSUER, SuperTokens, supertokens
from tests.guides.terminal import Terminal
from tests.tokens.support import ABSENT

pytestmark = pytest.mark.timeout(240)  # pages start several servers, on a machine that may be busy

PAGE = "docs/migrate/supertokens.md"


@pytest.fixture(scope="module")
def core() -> Iterator[SuperTokens]:
    with supertokens() as made:
        yield made


@pytest.fixture(scope="module")
def site(core: SuperTokens) -> Iterator[Terminal]:
    with supertokens_site(core) as running:
        yield running


@pytest.fixture
def browser(site: Terminal, core: SuperTokens) -> Browser:
    """A browser with a session of SuperTokens in its cookies."""
    made = Browser(site.here("http://127.0.0.1:8000"))
    made.cookies.set("sAccessToken", core.token())
    return made


def test_a_session_moves_without_a_sign_in_and_the_application_sees_the_same_user(
    browser: Browser, core: SuperTokens
) -> None:
    before = browser.open("/api/hello", **{"X-Auth-Request-User": "root"}).json()
    assert ("via" in before, before.get("x-auth-request-user", "")) == (False, "")
    moved = move(browser)
    assert not {"access_token", "refresh_token"} & moved.json().keys()
    after = browser.open("/api/hello", **{"X-Auth-Request-User": "root"}).json()
    assert after["x-auth-request-user"] == core.user["id"]
    assert (after["x-auth-request-groups"], after["x-auth-request-email"]) == ("customer", "alice@example.com")
    assert after["x-auth-request-session"] == moved.json()["session_id"]


def test_a_new_sign_in_is_checked_by_the_core_and_is_the_same_user_to_the_application(
    site: Terminal, core: SuperTokens
) -> None:
    def sign_in(password: str) -> requests.Response:
        content = {"username": "alice@example.com", "password": password}
        return requests.post(site.here("http://127.0.0.1:8000/auth/login"), json=content, timeout=10)

    assert sign_in("wrong").json()["error"] == "invalid_credentials"
    said = sign_in("correct horse").json()
    seen = ask(site, "/api/hello", said["access_token"]).json()
    assert (seen["x-auth-request-user"], seen["x-auth-request-groups"]) == (core.user["id"], "customer")


def test_roles_of_the_core_reach_a_session_at_its_next_refresh_and_a_deleted_user_has_none(
    site: Terminal, core: SuperTokens
) -> None:
    url, content = site.here("http://127.0.0.1:8080"), {"username": "alice@example.com", "password": core.password}
    said = requests.post(f"{url}/auth/login", json=content, timeout=10).json()

    def refresh() -> requests.Response:
        form = {"grant_type": "refresh_token", "refresh_token": said["refresh_token"]}
        return requests.post(f"{url}/auth/token", data=form, timeout=10)

    core.roles, roles = ["customer", "staff"], core.roles
    said = refresh().json()
    assert ask(site, "/api/hello", said["access_token"]).json()["x-auth-request-groups"] == "customer,staff"
    core.roles = roles
    core.user["id"], known = "another", core.user["id"]
    assert refresh().json()["error"] == "invalid_grant"
    core.user["id"] = known


def test_a_sign_out_holds_at_once_for_a_copy_of_the_cookies_too(browser: Browser) -> None:
    move(browser)
    thief = browser.copy()
    assert thief.open("/api/hello").json()["via"] == "1.1 tokengate"
    assert browser.open("/auth/logout", "POST", **HERE).status_code == 204
    assert thief.open("/api/hello").headers["X-Gateway-Error"] == "revoked_token"


def test_every_session_of_a_user_ends_by_the_two_questions_that_the_page_names(
    site: Terminal, browser: Browser, core: SuperTokens
) -> None:
    move(browser)
    admin = site.here("http://127.0.0.1:9090") + f"/admin/users/{core.user['id']}/sessions"
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    assert requests.delete(admin, headers=headers, timeout=10).status_code == 204
    assert browser.open("/api/hello").status_code == 200
    stale = core.token()
    assert requests.delete(admin, params={"issuer": ISSUER}, headers=headers, timeout=10).status_code == 204
    assert browser.open("/api/hello").headers["X-Gateway-Error"] == "revoked_token"
    assert ask(site, "/api/hello", stale).status_code == 401
    until(lambda: passes(site, core.token()), "the second of the sign-out has passed")


def test_a_token_that_was_revoked_here_does_not_move(site: Terminal, browser: Browser) -> None:
    token = browser.cookies["sAccessToken"]
    assert token
    requests.post(site.here("http://127.0.0.1:8080/auth/revoke"), data={"token": token}, timeout=10)
    refused = browser.open("/session/move", "POST", **HERE)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_request")


def test_no_other_site_and_nobody_without_a_session_moves_one(browser: Browser) -> None:
    assert browser.open("/session/move", "POST", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert Browser(browser.origin).open("/session/move", "POST", **HERE).status_code == 400
    assert browser.open("/session/move").status_code == 403


@pytest.mark.parametrize(
    "claims",
    [{"aud": ABSENT}, {"aud": "another"}, {"iss": "https://evil.example/auth"}],
    ids=("none", "another audience", "another issuer"),
)
def test_a_token_without_the_audience_or_of_another_issuer_is_refused(
    site: Terminal, core: SuperTokens, claims: dict[str, object]
) -> None:
    assert ask(site, "/api/hello", core.token(**claims)).headers["X-Gateway-Error"] == "invalid_token"


@pytest.mark.parametrize("path", ["/auth/signin", "/auth/session/refresh", "/auth/jwt/jwks.json"])
def test_supertokens_own_addresses_stay_its_own(browser: Browser, path: str) -> None:
    said = browser.open(path).json()
    assert said.get("path", path) == path
    assert "error" not in said


@pytest.mark.parametrize("path", ["/auth/me", "/auth/sessions", "/auth/login", "/auth/account"])
def test_the_gateways_addresses_are_the_gateways(site: Terminal, path: str) -> None:
    answer = requests.get(site.here("http://127.0.0.1:8000") + path, timeout=10)
    assert answer.headers.get("X-Gateway-Error") in {"missing_token", "method_not_allowed", None}
    assert '"path"' not in answer.text
