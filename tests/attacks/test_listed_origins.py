"""What `cors.allow_origins` must not open: a page of a listed origin is trusted, and nobody else for its sake.

The attacks of test_csrf.py are made again on a gateway with the list, with origins that look like a listed one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.attacks.support import ACCESS, REFRESH, Pairs, cookie, jar, sign_in, switch, websocket
from tests.attacks.test_csrf import FORM, HOSTILE, JSON, assert_refused, call, refresh
from tests.e2e.backends import Backend
from tests.e2e.harness import PASSWORD, Gateway, Site, route
from tests.e2e.wire import Answer, Client, ask, request

PAGE = "https://app.gateway.test"
SITES = ("same-site", "cross-site", "same-origin", "none", "a word that is none")
IMITATIONS: dict[str, Pairs] = {
    "one that begins alike": [("Origin", f"{PAGE}.evil.test")],
    "one that ends alike": [("Origin", "https://evilapp.gateway.test")],
    "a host below": [("Origin", "https://x.app.gateway.test")],
    "a host above": [("Origin", "https://gateway.test.")],
    "in capitals": [("Origin", PAGE.upper())],
    "another port": [("Origin", f"{PAGE}:8443")],
    "the port that is left out": [("Origin", f"{PAGE}:443")],
    "another scheme": [("Origin", "http://app.gateway.test")],
    "a path behind it": [("Origin", f"{PAGE}/")],
    "a name before it": [("Origin", "https://evil.test@app.gateway.test")],
    "twice": [("Origin", PAGE), ("Origin", PAGE)],
    "beside another one": [("Origin", PAGE), ("Origin", "https://evil.test")],
    "in a list": [("Origin", f"{PAGE}, https://evil.test")],
    "in another header": [("Origin", "https://evil.test"), ("Referer", f"{PAGE}/"), ("X-Forwarded-Host", PAGE)],
    "nowhere": [("Origin", "null"), ("Referer", f"{PAGE}/")],
    "a wildcard": [("Origin", "https://*.gateway.test")],
}
# As a sibling host of the site, which SameSite does not keep out; and as a browser without Sec-Fetch-Site.
KINDS = {
    **HOSTILE,
    **{f"{name}, same site": [*pairs, ("Sec-Fetch-Site", "same-site")] for name, pairs in IMITATIONS.items()},
    **IMITATIONS,
}
EACH = pytest.mark.parametrize("kind", KINDS)
LISTED = pytest.mark.parametrize("site_word", [*SITES, ""])


@pytest.fixture(scope="module")
def listing(site: Site, backend: Backend) -> Iterator[Gateway]:
    """Trusts pages of one other origin, and proxies on this machine."""
    routes = [
        route("/guarded/", backend.url),
        route("/open/", backend.url, auth="none"),
        route("/posting/", backend.url, methods=["GET", "POST"]),
    ]
    cors, cookies = {"allow_origins": [PAGE]}, {"refresh": REFRESH, "access": ACCESS}
    with site.serve(routes=routes, cors=cors, cookies=cookies, server={"trusted_proxies": ["127.0.0.0/8"]}) as made:
        yield made


def from_page(word: str) -> Pairs:
    return [("Origin", PAGE), *([("Sec-Fetch-Site", word)] if word else [])]


def unreadable(answer: Answer) -> bool:
    return not [name for name, _ in answer.headers if name.startswith("access-control-")]


# --- whom the list does not name ---


@EACH
def test_an_origin_that_is_not_listed_can_use_no_cookie(listing: Gateway, backend: Backend, kind: str) -> None:
    spot, cookies = backend.spot(switch), sign_in(listing)
    upgrade = websocket([("Cookie", f"{ACCESS}={cookies[ACCESS]}"), *KINDS[kind]])
    body = json.dumps({"username": "bob", "password": PASSWORD, "refresh_in": "cookie"}).encode()
    for answer in (
        refresh(listing, cookies, KINDS[kind]),
        call(listing, "POST", "/auth/logout", cookies, KINDS[kind]),
        call(listing, "DELETE", "/auth/sessions", cookies, KINDS[kind]),
        call(listing, "POST", spot.path("/guarded"), cookies, KINDS[kind]),
        ask(listing.port, request("GET", spot.path("/guarded"), upgrade)),
        ask(listing.port, request("POST", "/auth/login", [JSON, *KINDS[kind]], body)),
    ):
        assert_refused(answer)
    assert spot.calls() == []
    assert refresh(listing, cookies, [("Sec-Fetch-Site", "same-origin")]).status == 200  # nothing was used up


@EACH
def test_an_origin_that_is_not_listed_can_read_nothing(listing: Gateway, backend: Backend, kind: str) -> None:
    cookies = sign_in(listing)
    for target in (backend.spot().path("/guarded"), backend.spot().path("/open"), "/auth/me", "/auth/account", "/x"):
        assert unreadable(call(listing, "GET", target, cookies, KINDS[kind]))


@EACH
@pytest.mark.parametrize("target", ["/guarded/x", "/posting/x", "/auth/token", "/auth/sessions", "/auth/account"])
def test_an_origin_that_is_not_listed_is_granted_no_preflight(listing: Gateway, kind: str, target: str) -> None:
    asked = [("Access-Control-Request-Method", "POST"), *KINDS[kind]]
    answer = ask(listing.port, request("OPTIONS", target, asked))
    assert answer.status in (401, 405)
    assert unreadable(answer)


# --- what a listed page may do, whatever the browser says of its site ---


@LISTED
def test_a_listed_page_uses_the_cookies(listing: Gateway, backend: Backend, site_word: str) -> None:
    spot, cookies = backend.spot(), sign_in(listing)
    assert call(listing, "POST", spot.path("/guarded"), cookies, from_page(site_word)).status == 200
    renewed = refresh(listing, cookies, from_page(site_word))
    assert renewed.status == 200
    assert cookie(renewed, REFRESH) not in ("", cookies[REFRESH])
    fresh = {name: cookie(renewed, name) for name in (REFRESH, ACCESS)}
    assert call(listing, "POST", "/auth/logout", fresh, from_page(site_word)).status == 204


@LISTED
def test_a_listed_page_signs_in_into_the_cookie(listing: Gateway, site_word: str) -> None:
    body = json.dumps({"username": "bob", "password": PASSWORD, "refresh_in": "cookie"}).encode()
    answer = ask(listing.port, request("POST", "/auth/login", [JSON, *from_page(site_word)], body))
    assert answer.status == 200
    assert cookie(answer, REFRESH)
    assert "SameSite=Strict" in answer.all("set-cookie")[0]


@LISTED
def test_a_listed_page_opens_a_websocket(listing: Gateway, backend: Backend, site_word: str) -> None:
    spot = backend.spot(switch)
    headers = websocket([("Cookie", f"{ACCESS}={listing.token}"), *from_page(site_word)])
    with Client(listing.port) as client:
        client.send(request("GET", spot.path("/guarded"), headers))
        assert client.head().status == 101


def test_a_listed_page_without_a_credential_is_nobody(listing: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for method in ("GET", "POST", "DELETE"):
        answer = ask(listing.port, request(method, spot.path("/guarded"), from_page("same-site"), body=b""))
        assert answer.error == (401, "missing_token")
    assert spot.calls() == []


# --- what not even a listed page may do ---


@pytest.mark.parametrize("do", ["sign-in", "end", "end-others", "end-all"])
@pytest.mark.parametrize("word", ["same-site", "cross-site", "none", ""])
def test_the_forms_of_the_account_page_are_the_gateways_own(listing: Gateway, do: str, word: str) -> None:
    """Else a listed page that was taken over could sign its visitors in as the attacker, by a plain form."""
    cookies = sign_in(listing)
    body = f"do={do}&id=x&username=bob&password={PASSWORD}".encode()
    headers = [("Cookie", jar(cookies)), FORM, *from_page(word)]
    answer = ask(listing.port, request("POST", "/auth/account", headers, body))
    assert (answer.status, answer.get("x-gateway-error"), answer.all("set-cookie")) == (403, "csrf_rejected", [])
    assert call(listing, "GET", "/auth/me", cookies, []).status == 200


def test_a_listed_page_cannot_have_forward_auth_pass_a_preflight_without_a_token(listing: Gateway) -> None:
    """The backend behind the other proxy would see an OPTIONS of nobody, which not every backend tells from a POST."""
    asked = [*from_page("same-site"), ("Access-Control-Request-Method", "POST")]
    told = [("X-Forwarded-Host", "gateway.test"), ("X-Original-Method", "OPTIONS")]
    for question in (
        request("GET", "/auth/verify", [*told, ("X-Original-URI", "/guarded/x"), *asked]),
        request("GET", "/auth/verify", asked),
        request("OPTIONS", "/auth/verify", asked),
        request("OPTIONS", "/auth/verify/guarded/x", asked),
    ):
        answer = ask(listing.port, question)
        assert answer.error == (401, "missing_token")
        assert answer.get("access-control-allow-origin") == PAGE  # for proxies that pass the refusal on
    told_of_post = [*told, ("X-Original-URI", "/posting/x"), *asked]
    assert ask(listing.port, request("GET", "/auth/verify", told_of_post)).error == (405, "method_not_allowed")


@EACH
def test_forward_auth_trusts_no_other_page_for_the_list(listing: Gateway, kind: str) -> None:
    told = [("X-Original-URI", "/guarded/x"), ("X-Original-Method", "POST")]
    hostile = [header for header in KINDS[kind] if header[0] != "X-Forwarded-Host"]
    carried = ("Cookie", f"{ACCESS}={listing.token}")
    host = ("X-Forwarded-Host", "gateway.test")
    assert_refused(ask(listing.port, request("GET", "/auth/verify", [*told, host, carried, *hostile])))
    passed = ask(listing.port, request("GET", "/auth/verify", [*told, host, carried, *from_page("same-site")]))
    assert passed.status == 200


def test_no_page_becomes_listed_by_what_a_proxy_in_front_says(listing: Gateway) -> None:
    cookies = sign_in(listing)
    more = [("X-Forwarded-Host", "app.gateway.test"), ("X-Forwarded-Proto", "https"), ("Origin", "https://evil.test")]
    assert_refused(refresh(listing, cookies, more))
    assert_refused(refresh(listing, cookies, [("Forwarded", "host=app.gateway.test;proto=https"), more[-1]]))
