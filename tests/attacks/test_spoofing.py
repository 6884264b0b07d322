"""Headers by which a client, or a backend, would pass for somebody else.

Contract 6.6; CVE-2025-64484, CVE-2018-14773.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from gateway.proxy.headers import RequestKinds, without_cookies
from tests.attacks.support import ACCESS, REFRESH, jar, sign_in, websocket
from tests.e2e.backends import Backend, Call, raw
from tests.e2e.harness import AUDIENCE, ISSUER, Gateway, Site, route
from tests.e2e.wire import Client, ask, request

FAMILY = ["User", "Email", "Groups", "Session", "Preferred-Username", "Access-Token", "Redirect", "Anything-Else"]
SPELLINGS: list[Callable[[str], str]] = [
    str,
    str.lower,
    str.upper,
    lambda name: name.replace("-", "_"),
    lambda name: name.replace("-", "_", 1),
    lambda name: name.replace("-", ".").lower(),
    lambda name: name.swapcase(),
]


@pytest.mark.parametrize("prefix", ["/guarded", "/optional", "/sealed"])
@pytest.mark.parametrize("word", FAMILY)
def test_no_header_of_the_identity_family_passes_in_any_spelling(
    fortress: Gateway, backend: Backend, prefix: str, word: str
) -> None:
    """Also those of it that are not configured: a backend may know more of oauth2-proxy's names than we set."""
    spot = backend.spot()
    forged = [(spell(f"X-Auth-Request-{word}"), "u-forged") for spell in SPELLINGS]
    listed = ("Connection", ", ".join(name for name, _ in forged))
    for headers in (forged, [*forged, listed], [listed, *forged]):
        assert ask(fortress.port, request("GET", spot.path(prefix), headers, token=fortress.token)).status == 200
    for call in spot.calls(3):
        assert b"u-forged" not in call.head
        assert call.get("X-Auth-Request-User") == ("" if prefix == "/sealed" else "u-alice")


def test_a_folded_line_hides_no_header(fortress: Gateway, backend: Backend) -> None:
    """RFC 9112 5.2: obs-fold is refused."""
    spot = backend.spot()
    head = f"GET {spot.path('/guarded')} HTTP/1.1\r\nHost: gateway.test\r\nAuthorization: Bearer {fortress.token}\r\n"
    for fold in ("X-A: b\r\n X-Auth-Request-User: u-forged\r\n", "X-A: b\r\n\tX-Auth-Request-User: u-forged\r\n"):
        assert ask(fortress.port, f"{head}{fold}\r\n".encode()).error == (400, "bad_request")
    assert spot.calls() == []


@pytest.mark.parametrize(
    "name",
    ["Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Real-IP", "True-Client-IP", "X-Forwarded-For", "Forwarded"],
)
def test_a_client_does_not_choose_its_address(fortress: Gateway, backend: Backend, name: str) -> None:
    spot = backend.spot()
    headers = [(spell(name), "6.6.6.6") for spell in SPELLINGS]
    assert ask(fortress.port, request("GET", spot.path("/guarded"), headers, token=fortress.token)).status == 200
    assert b"6.6.6.6" not in spot.call().head


def test_names_that_nobody_repeats_neither_fill_the_memory_nor_keep_the_usual_ones_out() -> None:
    kinds = RequestKinds([b"X-Auth-Request-User"])
    for number in range(5000):
        kinds[b"X-%d-" % number + b"x" * 30_000 * (number % 2)]
    assert sum(map(len, kinds)) < 300_000
    usual = kinds[b"Accept"]
    assert (b"Accept" in kinds, usual) == (True, 0)


# --- another method than the one that the route was asked for ---

OVERRIDES = ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x-http-method-override"]


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_method_that_a_route_does_not_take_cannot_come_in_a_header(
    fortress: Gateway, backend: Backend, name: str
) -> None:
    """Rack, Laravel, Symfony and others take this header for the method; `methods` must hold for it too."""
    spot = backend.spot()
    for value in ("DELETE", "delete", "PUT", "", "POST, DELETE"):
        answer = ask(fortress.port, request("POST", spot.path("/posting"), {name: value}, b"", fortress.token))
        assert answer.error == (405, "method_not_allowed")
        assert answer.get("allow") == "GET, POST"
    two = [(name, "POST"), (name, "DELETE")]
    assert ask(fortress.port, request("POST", spot.path("/posting"), two, b"", fortress.token)).status == 405
    assert spot.calls() == []
    assert ask(fortress.port, request("POST", spot.path("/posting"), {name: "post"}, b"", fortress.token)).status == 200
    assert spot.call().get(name) == "post"


@pytest.mark.parametrize("name", OVERRIDES)
def test_a_connection_that_is_kept_remembers_no_override_and_forgets_none(
    fortress: Gateway, backend: Backend, name: str
) -> None:
    """A client's header section is read once and taken again; the rule is asked every time."""
    spot = backend.spot()
    open_route, closed_route = spot.path("/guarded"), spot.path("/posting")
    with Client(fortress.port) as client:
        asked = [
            client.ask(request("GET", target, {name: "DELETE"}, token=fortress.token)).status
            for target in (open_route, closed_route, open_route, closed_route)
        ]
    assert asked == [200, 405, 200, 405]


@pytest.mark.parametrize("name", OVERRIDES)
def test_forward_auth_holds_the_routes_methods_against_an_override_too(behind: Gateway, name: str) -> None:
    told = {"X-Original-Method": "POST", "X-Original-URI": "/posting/x", "X-Forwarded-Host": "gateway.test"}
    question = request("GET", "/auth/verify", {**told, name: "DELETE"}, token=behind.token)
    assert ask(behind.port, question).error == (405, "method_not_allowed")
    assert ask(behind.port, request("GET", "/auth/verify", {**told, name: "GET"}, token=behind.token)).status == 200


@pytest.mark.parametrize("name", ["X_HTTP_Method_Override", "X-HTTP_Method", "x.method.override"])
def test_an_override_in_another_spelling_does_not_pass(fortress: Gateway, backend: Backend, name: str) -> None:
    spot = backend.spot()
    assert (
        ask(fortress.port, request("POST", spot.path("/posting"), {name: "DELETE"}, b"", fortress.token)).status == 200
    )
    assert b"DELETE" not in spot.call().head


# --- a backend that would be the gateway ---

PLANTED = [
    f"Set-Cookie: {REFRESH}=planted; Path=/",
    f"set-cookie:{ACCESS}=planted",
    f"SET-COOKIE: \t{REFRESH} =planted; Domain=gateway.test",
    f"Set-Cookie: ={REFRESH}=planted",  # what some browsers send back under our name
    f"Set-Cookie: {ACCESS}",
    f"Set-Cookie: {REFRESH}=; Max-Age=0",
]
KEPT = f"Set-Cookie: a=1; Path=/\r\nSet-Cookie: x{REFRESH}=2\r\nSet-Cookie: b={REFRESH}; Secure\r\nX-B: {ACCESS}\r\n"
FRAMES = {
    "plain": "HTTP/1.1 200 OK\r\n@Content-Length: 2\r\n\r\nok",
    "in chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n@\r\n2\r\nok\r\n0\r\n\r\n",
    "a refusal": "HTTP/1.1 401 Unauthorized\r\n@Content-Length: 2\r\n\r\nno",
    "a redirect": "HTTP/1.1 302 Found\r\nLocation: /\r\n@Content-Length: 0\r\n\r\n",
    "after an early hint": "HTTP/1.1 103 Early Hints\r\n@\r\nHTTP/1.1 200 OK\r\n@Content-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("line", PLANTED)
def test_a_backend_cannot_set_the_gateways_cookies(fortress: Gateway, backend: Backend, frame: str, line: str) -> None:
    """Session fixation from behind: a backend that was taken over would sign browsers in as somebody else."""
    lines = f"{line}\r\n{KEPT}" if len(line) % 2 else f"{KEPT}{line}\r\n"
    spot = backend.spot(raw(FRAMES[frame].replace("@", lines).encode()))
    with Client(fortress.port) as client:
        for _ in range(2):
            answer = client.ask(request("GET", spot.path("/guarded"), token=fortress.token))
            for each in (answer, *answer.interim):
                assert each.all("set-cookie") == ["a=1; Path=/", f"x{REFRESH}=2", f"b={REFRESH}; Secure"]
                assert each.get("x-b") == ACCESS


def test_a_backend_cannot_set_the_gateways_cookies_while_it_switches_protocols(
    fortress: Gateway, backend: Backend
) -> None:
    lines = f"Connection: Upgrade\r\nUpgrade: websocket\r\n{PLANTED[0]}\r\nSet-Cookie: a=1\r\n"
    spot = backend.spot(lambda call: call.send(f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode()))
    with Client(fortress.port) as client:
        client.send(request("GET", spot.path("/guarded"), websocket(), token=fortress.token))
        answer = client.head()
    assert answer.status == 101
    assert answer.all("set-cookie") == ["a=1"]


def test_lines_without_our_cookies_stay_byte_for_byte() -> None:
    fields = b"Set-Cookie: a=1\r\nETag: __Secure-refresh\r\n\r\n"
    assert without_cookies(fields, (b"__Secure-refresh", b"__Host-access")) == fields
    assert without_cookies(fields, ()) == fields


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("name", ["X-Access-Token", "x-access-token", "X-ACCESS-TOKEN-EXPIRES-IN", "X-Gateway-Error"])
def test_a_backend_cannot_hand_out_tokens_or_refusals_in_the_gateways_name(
    fortress: Gateway, backend: Backend, frame: str, name: str
) -> None:
    """Clients take the token of X-Access-Token for their own from then on."""
    lines = f"Server: b\r\n{name}: planted\r\nX-Accel-Buffering: no\r\n"
    spot = backend.spot(raw(FRAMES[frame].replace("@", lines).encode()))
    answer = ask(fortress.port, request("GET", spot.path("/guarded"), token=fortress.token))
    assert "planted" not in str(answer.headers)
    assert (answer.get("server"), answer.get("x-accel-buffering")) == ("b", "no")


def test_the_answer_with_new_tokens_is_the_gateways_whatever_the_backend_adds(site: Site, backend: Backend) -> None:
    """The one answer in which X-Access-Token, the cookie and Cache-Control are the gateway's own."""
    tokens = {"issuer": ISSUER, "audience": AUDIENCE, "signing_keys": str(site.directory / "keys")}
    routes = [route("/guarded/", backend.url, on_expired="refresh")]
    lines = "X-Access-Token: planted\r\nSet-Cookie: __Secure-refresh=planted\r\nCache-Control: public, max-age=60\r\n"
    good = raw(FRAMES["plain"].replace("@", lines).encode())
    challenge = 'WWW-Authenticate: Bearer error="invalid_token", error_description="It expired"\r\n'
    expired = raw(FRAMES["a refusal"].replace("@", challenge).encode())
    turns = itertools.chain([expired], itertools.repeat(good))

    def behaviour(call: Call) -> None:
        next(turns)(call)

    spot = backend.spot(behaviour)
    log = {"level": "debug"}
    with site.serve(routes=routes, tokens=tokens, cookies={"refresh": REFRESH}, log=log) as gateway:
        mine = gateway.login()
        headers = {"Cookie": f"{REFRESH}={mine['refresh_token']}", "X-Request-Id": "forged id;"}
        answer = ask(gateway.port, request("GET", spot.path("/guarded"), headers, token=mine["access_token"]))
        assert ask(gateway.port, request("GET", "/auth/me", token=answer.get("x-access-token"))).status == 200
        told = [line["request_id"] for line in gateway.log_lines() if line.get("event") == "refresh"]
    assert told == [spot.calls(2)[1].get("X-Request-Id")]  # a name of ours, and one for the trail and the backend
    assert "forged" not in told[0]
    assert answer.status == 200
    (set_cookie,) = answer.all("set-cookie")
    assert set_cookie.startswith(f"{REFRESH}=rt1.")
    assert answer.all("cache-control") == ["public, max-age=60", "no-store"]  # the strictest holds (RFC 9111 4.2.1)


def test_the_gateways_cookies_never_reach_a_backend_whatever_stands_beside_them(
    fortress: Gateway, backend: Backend
) -> None:
    """A backend has no use for them, and one that was taken over has."""
    mine, spot = sign_in(fortress), backend.spot()
    ours = jar(mine)
    for value in (ours, f"a=1;{ours};b=2", f"{ours};{ours}", f'a="x;{ours}"', f"$Version=1; {ours}; $Path=/"):
        headers = [("Cookie", value), ("X-Kept", "1")]
        assert ask(fortress.port, request("GET", spot.path("/sealed"), headers)).status == 200
    calls = spot.calls(5)
    assert not [call for call in calls if any(secret.encode() in call.head for secret in mine.values())]
    assert [call.get("X-Kept") for call in calls] == ["1"] * 5


def seen_hosts(call: Call) -> set[str]:
    return {value for name, value in call.headers if name.lower() in ("host", "x-forwarded-host")}


def test_the_backend_is_told_one_host_and_it_is_the_one_that_was_matched(fortress: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    forged = {"X-Forwarded-Host": "evil.test", "X-Host": "gateway.test", "Forwarded": "host=evil.test"}
    assert ask(fortress.port, request("GET", spot.path("/guarded"), forged, token=fortress.token)).status == 200
    assert seen_hosts(spot.call()) == {"gateway.test"}
    for host in ("tenant.test", "TENANT.TEST", "tenant.test:80", "tenant.test."):
        headers = {"Host": host, "X-Forwarded-Host": "gateway.test"}
        answer = ask(fortress.port, request("GET", spot.path("/tenant"), headers, token=fortress.token))
        assert answer.error == (403, "insufficient_scope")
    for hosts in ("tenant.test, gateway.test", "gateway.test@tenant.test", "gateway.test/tenant.test", "a b", ""):
        answer = ask(fortress.port, request("GET", spot.path("/tenant"), {"Host": hosts}, token=fortress.token))
        assert answer.error == (400, "bad_request")
