"""Requests that a page of another origin has a browser make with its cookies (RFC 9700 4.7, OWASP ASVS 4.2.2).

SameSite=Strict keeps other sites out; what is left are sibling hosts of the site, and browsers that know nothing
of SameSite. Every address that takes a cookie is tried, and so is a WebSocket, which no preflight protects.
"""

from __future__ import annotations

import json

import pytest

from tests.attacks.support import ACCESS, REFRESH, Pairs, cookie, jar, sign_in, switch, websocket
from tests.e2e.backends import Backend
from tests.e2e.harness import PASSWORD, Gateway
from tests.e2e.wire import Answer, Client, ask, request

JSON, FORM = ("Content-Type", "application/json"), ("Content-Type", "application/x-www-form-urlencoded")
HOSTILE: dict[str, Pairs] = {
    "another site": [("Sec-Fetch-Site", "cross-site")],
    "a sibling host": [("Sec-Fetch-Site", "same-site")],
    "a word that is none": [("Sec-Fetch-Site", "Same-Origin")],
    "two words": [("Sec-Fetch-Site", "same-origin, cross-site")],
    "two headers": [("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")],
    "another site that claims our origin": [("Sec-Fetch-Site", "cross-site"), ("Origin", "https://gateway.test")],
    "an origin": [("Origin", "https://evil.test")],
    "an opaque origin": [("Origin", "null")],
    "an empty origin": [("Origin", "")],
    "an origin that begins alike": [("Origin", "https://gateway.test.evil.test")],
    "an origin that ends alike": [("Origin", "https://evilgateway.test")],
    "a host below ours": [("Origin", "https://evil.gateway.test")],
    "another port": [("Origin", "https://gateway.test:8443")],
    "another scheme": [("Origin", "ftp://gateway.test")],
    "a path behind it": [("Origin", "https://gateway.test/")],
    "a name before it": [("Origin", "https://evil.test@gateway.test")],
    "two origins": [("Origin", "https://gateway.test"), ("Origin", "https://evil.test")],
    "a list of origins": [("Origin", "https://gateway.test https://evil.test")],
    "our origin in another header": [("Origin", "https://evil.test"), ("Referer", "https://gateway.test/")],
    "a forwarded host": [("Origin", "https://evil.test"), ("X-Forwarded-Host", "evil.test")],
}
OWN: Pairs = [("Sec-Fetch-Site", "same-origin")]
EACH = pytest.mark.parametrize("kind", HOSTILE)


def refresh(gateway: Gateway, cookies: dict[str, str], headers: Pairs) -> Answer:
    carried = [("Cookie", f"{REFRESH}={cookies[REFRESH]}"), FORM, *headers]
    return ask(gateway.port, request("POST", "/auth/token", carried, b"grant_type=refresh_token"))


def call(gateway: Gateway, method: str, target: str, cookies: dict[str, str], headers: Pairs) -> Answer:
    return ask(gateway.port, request(method, target, [("Cookie", jar(cookies)), *headers], b""))


def assert_refused(answer: Answer) -> None:
    assert answer.error == (403, "csrf_rejected")
    assert answer.all("set-cookie") == answer.all("access-control-allow-origin") == []


@EACH
def test_another_origin_cannot_sign_a_browser_in(fortress: Gateway, kind: str) -> None:
    """Login CSRF: the victim would go on in the attacker's account."""
    body = json.dumps({"username": "bob", "password": PASSWORD, "refresh_in": "cookie"}).encode()
    assert_refused(ask(fortress.port, request("POST", "/auth/login", [JSON, *HOSTILE[kind]], body)))


@EACH
def test_another_origin_cannot_refresh_with_the_cookie(fortress: Gateway, kind: str) -> None:
    cookies = sign_in(fortress)
    assert_refused(refresh(fortress, cookies, HOSTILE[kind]))
    own = refresh(fortress, cookies, OWN)
    assert own.status == 200  # and the refused one has used nothing up
    assert cookie(own, REFRESH) not in ("", cookies[REFRESH])


@EACH
def test_another_origin_cannot_sign_a_browser_out(fortress: Gateway, kind: str) -> None:
    cookies = sign_in(fortress)
    assert_refused(call(fortress, "POST", "/auth/logout", cookies, HOSTILE[kind]))
    assert call(fortress, "POST", "/auth/logout", cookies, OWN).status == 204


@EACH
def test_another_origin_cannot_end_sessions(fortress: Gateway, kind: str) -> None:
    cookies = sign_in(fortress)
    session = call(fortress, "GET", "/auth/me", cookies, []).json()["sid"]
    for target in ("/auth/sessions?except=current", f"/auth/sessions/{session}"):
        assert_refused(call(fortress, "DELETE", target, cookies, HOSTILE[kind]))
    assert call(fortress, "DELETE", f"/auth/sessions/{session}", cookies, OWN).status == 204


@EACH
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_another_origin_cannot_change_anything_behind_a_route(
    fortress: Gateway, backend: Backend, kind: str, method: str
) -> None:
    spot, cookies = backend.spot(), {ACCESS: fortress.token}
    for prefix in ("/guarded", "/optional", "/admins"):
        assert_refused(call(fortress, method, spot.path(prefix), cookies, HOSTILE[kind]))
    assert spot.calls() == []
    assert call(fortress, method, spot.path("/guarded"), cookies, OWN).status == 200


@EACH
def test_another_origin_cannot_open_a_websocket(fortress: Gateway, backend: Backend, kind: str) -> None:
    """Cross-site WebSocket hijacking: the answer could be read, too."""
    spot = backend.spot(switch)
    headers = websocket([("Cookie", f"{ACCESS}={fortress.token}"), *HOSTILE[kind]])
    assert_refused(ask(fortress.port, request("GET", spot.path("/guarded"), headers)))
    assert spot.calls() == []
    headers = websocket([("Cookie", f"{ACCESS}={fortress.token}"), ("Origin", "https://gateway.test")])
    with Client(fortress.port) as client:
        client.send(request("GET", spot.path("/guarded"), headers))
        assert client.head().status == 101


@EACH
def test_forward_auth_refuses_what_the_gateway_itself_would_refuse(behind: Gateway, kind: str) -> None:
    """Also a WebSocket, of which a proxy may tell nothing but its Sec-WebSocket-Key; over HTTP/2 there is none."""
    told = [
        ("X-Original-URI", "/guarded/x"),
        ("X-Forwarded-Host", "gateway.test"),
        ("Cookie", f"{ACCESS}={behind.token}"),
    ]
    hostile = [header for header in HOSTILE[kind] if header[0] != "X-Forwarded-Host"]
    upgrade = [("X-Original-Method", "GET"), ("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg==")]
    over_http2 = [("X-Original-Method", "GET"), ("Sec-WebSocket-Version", "13")]  # RFC 8441 5
    told_upgrade = [("X-Original-Method", "GET"), ("Upgrade", "websocket")]
    for more in ([("X-Original-Method", "POST")], upgrade, over_http2, told_upgrade):
        assert_refused(ask(behind.port, request("GET", "/auth/verify", [*told, *more, *hostile])))
        assert ask(behind.port, request("GET", "/auth/verify", [*told, *more, *OWN])).status == 200


def test_a_plain_get_with_the_access_cookie_needs_no_origin_and_is_answered_to_no_other(
    fortress: Gateway, backend: Backend
) -> None:
    """Without CORS headers a page of another origin cannot read the answer."""
    spot = backend.spot()
    headers = [("Cookie", f"{ACCESS}={fortress.token}"), ("Origin", "https://evil.test")]
    answer = ask(fortress.port, request("GET", spot.path("/guarded"), headers))
    assert answer.status == 200
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("target", ["/auth/login", "/auth/token", "/auth/sessions", "/auth/me", "/auth/revoke"])
def test_no_preflight_is_ever_granted(fortress: Gateway, target: str) -> None:
    headers = {
        "Origin": "https://evil.test",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type, authorization",
    }
    answer = ask(fortress.port, request("OPTIONS", target, headers))
    assert answer.error == (405, "method_not_allowed")
    assert not [name for name, _ in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "text/plain; application/json",
    ],
)
def test_what_a_form_of_another_site_can_send_is_no_sign_in(fortress: Gateway, kind: str) -> None:
    """Only these need no preflight (Fetch 2.2.2)."""
    body = json.dumps({"username": "bob", "password": PASSWORD}).encode()
    answer = ask(fortress.port, request("POST", "/auth/login", {"Content-Type": kind}, body))
    assert answer.error == (400, "invalid_request")
