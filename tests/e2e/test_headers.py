"""Which headers reach the backend, and which the client (contract 6.6)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import Answer, Client, ask, request

IDENTITY = {"x-auth-request-user": "u-alice", "x-auth-request-groups": "user,admin"}


def seen(gateway: Gateway, backend: Backend, headers: list[tuple[str, str]], prefix: str = "/guarded") -> Call:
    """Return what the backend gets of a request of alice with these headers."""
    spot = backend.spot()
    answer = ask(gateway.port, request("GET", spot.path(prefix), headers, token=gateway.token))
    assert answer.status == 200, answer
    return spot.call()


def answered(gateway: Gateway, backend: Backend, headers: bytes) -> Answer:
    """Return what the client gets of an answer with these header lines."""
    spot = backend.spot(lambda call: call.reply(b"ok", headers=headers))
    return ask(gateway.port, request("GET", spot.path()))


# --- identity ---


def test_the_backend_is_told_who_is_calling(gateway: Gateway, backend: Backend) -> None:
    call = seen(gateway, backend, [])
    assert {name: call.get(name) for name in IDENTITY} == IDENTITY
    assert len(call.get("x-auth-request-session")) == 23
    assert call.all("x-auth-request-email") == []  # alice has none


SPOOFED = [
    "X-Auth-Request-User",
    "x-auth-request-user",
    "X-AUTH-REQUEST-USER",
    "X_Auth_Request_User",
    "x-auth_request-User",
    "X-Auth-Request-Email",
    "X_AUTH_REQUEST_EMAIL",
    "X-Auth-Request-Groups",
    "x-auth-request_groups",
    "X-Auth-Request-Session",
]


@pytest.mark.parametrize("name", SPOOFED)
@pytest.mark.parametrize("prefix", ["/guarded", "/optional", "/raw", "/private", "/unlive"])
def test_identity_headers_of_a_client_are_dropped_in_every_spelling(
    gateway: Gateway, backend: Backend, name: str, prefix: str
) -> None:
    call = seen(gateway, backend, [(name, "root"), (name, "root2")], prefix)
    assert b"root" not in call.head


def test_an_anonymous_request_carries_no_identity(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for prefix in ("/raw", "/optional"):
        assert ask(gateway.port, request("GET", spot.path(prefix), {"X-Auth-Request-User": "root"})).status == 200
    for call in spot.calls(2):
        assert not [name for name in call.names() if name.replace("_", "-").startswith("x-auth-request")]


def test_claims_that_cannot_stand_in_a_header_are_encoded(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    token = gateway.login("odd")["access_token"]
    assert ask(gateway.port, request("GET", spot.path("/guarded"), token=token)).status == 200
    call = spot.call()
    assert call.get("x-auth-request-email") == "a%0D%0AX-Auth-Request-Groups: admin"
    assert call.get("x-auth-request-groups") == "plain,with%2Ccomma,caf%C3%A9"
    assert call.get("x-auth-request-name") == "J%C3%BCrgen, 100%25"
    assert call.get("x-auth-request-edge") == "%20spaced%20"


# --- hop by hop ---

HOP = ["Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Trailer", "Upgrade"]


@pytest.mark.parametrize("name", HOP)
def test_hop_by_hop_headers_are_for_the_gateway_alone(gateway: Gateway, backend: Backend, name: str) -> None:
    call = seen(gateway, backend, [(name, "trailers")])
    assert name.lower() not in call.names()
    assert call.all("connection") in ([], ["keep-alive"])


def test_headers_that_connection_nominates_are_dropped(gateway: Gateway, backend: Backend) -> None:
    headers = [("Connection", "X-Mine, x-other"), ("X-Mine", "1"), ("X-OTHER", "2"), ("X-Kept", "3")]
    call = seen(gateway, backend, headers)
    assert call.names().isdisjoint({"x-mine", "x-other"})
    assert call.get("x-kept") == "3"


@pytest.mark.parametrize(
    "victim",
    ["X-Auth-Request-User", "X-Forwarded-For", "X-Request-Id", "Host", "Authorization", "Content-Length", "Cookie"],
)
def test_connection_cannot_take_away_what_the_backend_relies_on(
    gateway: Gateway, backend: Backend, victim: str
) -> None:
    spot = backend.spot()
    headers = [("Connection", f"close, {victim}"), ("Cookie", "a=b")]
    answer = ask(gateway.port, request("POST", spot.path("/guarded"), headers, b"body", gateway.token))
    assert answer.status == 200
    call = spot.call()
    assert call.get("x-auth-request-user") == "u-alice"
    assert call.get("x-forwarded-for") == "127.0.0.1"
    assert call.get("host") == "gateway.test"
    assert call.get("authorization") == f"Bearer {gateway.token}"
    assert call.get("cookie") == "a=b"
    assert call.raw_body == b"body"


def test_hop_by_hop_headers_of_an_answer_stay_behind(gateway: Gateway, backend: Backend) -> None:
    lines = (
        b"Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nX-Kept: 3\r\n"
    )
    answer = answered(gateway, backend, lines)
    names = {name for name, _ in answer.headers}
    assert names.isdisjoint({"keep-alive", "proxy-connection", "x-mine"})
    assert answer.get("x-kept") == "3"


# --- who forwarded ---

FORWARDED = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("X-Forwarded-Proto", "evil"),
    ("X-Forwarded-Host", "evil.test"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Prefix", "/evil"),
    ("Forwarded", "for=6.6.6.6;host=evil.test"),
    ("X-Real-IP", "6.6.6.6"),
    ("X-Original-URL", "/evil"),
    ("True-Client-IP", "6.6.6.6"),
]


def test_what_an_untrusted_client_says_of_forwarding_is_replaced(gateway: Gateway, backend: Backend) -> None:
    call = seen(gateway, backend, FORWARDED)
    assert call.get("x-forwarded-for") == "127.0.0.1"
    assert call.get("x-forwarded-proto") == "http"
    assert call.get("x-forwarded-host") == "gateway.test"
    assert b"evil" not in call.head
    assert b"6.6.6.6" not in call.head


@pytest.fixture(scope="module")
def behind(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A gateway that believes proxies on this machine, and 10.0.0.0/8."""
    server = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}
    with site.serve(server=server, routes=[route("/guarded/", backend.url)], log={"level": "info"}) as made:
        yield made


def test_a_trusted_proxy_is_believed(behind: Gateway, backend: Backend) -> None:
    call = seen(behind, backend, [("X-Forwarded-For", "203.0.113.7, 10.0.0.5"), ("X-Forwarded-Proto", "https")])
    assert call.get("x-forwarded-for") == "203.0.113.7, 10.0.0.5, 127.0.0.1"
    assert call.get("x-forwarded-proto") == "https"
    assert call.names().isdisjoint({"x-real-ip", "forwarded"})


def test_several_forwarded_for_headers_of_a_trusted_proxy_are_one_chain(behind: Gateway, backend: Backend) -> None:
    call = seen(behind, backend, [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-For", "10.0.0.5")])
    assert call.get("x-forwarded-for") == "203.0.113.7, 10.0.0.5, 127.0.0.1"


def test_a_trusted_proxy_cannot_be_made_to_say_nonsense(behind: Gateway, backend: Backend) -> None:
    call = seen(behind, backend, [("X-Forwarded-Proto", "gopher"), ("X_Forwarded_Proto", "https")])
    assert call.get("x-forwarded-proto") == "http"


def test_a_trusted_proxy_that_speaks_rfc_7239_is_believed(behind: Gateway, backend: Backend) -> None:
    value = 'for="[2001:db8::7]:4711";proto=https;host=edge.test, for=10.0.0.5;proto=http'
    call = seen(behind, backend, [("Forwarded", value), ("X-A", "b")])
    assert call.get("x-forwarded-for") == "2001:db8::7, 10.0.0.5, 127.0.0.1"
    assert call.get("x-forwarded-proto") == "https"
    assert call.get("x-forwarded-host") == "gateway.test"
    assert "forwarded" not in call.names()


def test_forwarded_of_a_trusted_proxy_that_speaks_x_forwarded_counts_for_nothing(
    behind: Gateway, backend: Backend
) -> None:
    said = [("Forwarded", "for=6.6.6.6;proto=http"), ("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-Proto", "https")]
    call = seen(behind, backend, said)
    assert call.get("x-forwarded-for") == "203.0.113.7, 127.0.0.1"
    assert call.get("x-forwarded-proto") == "https"
    assert b"6.6.6.6" not in call.head


@pytest.mark.parametrize("path", ["/guarded/x", "/auth/sessions"])
def test_a_malformed_forwarded_of_a_trusted_proxy_is_refused(behind: Gateway, backend: Backend, path: str) -> None:
    data = request("GET", path, {"Forwarded": 'for="6.6.6.6, for=203.0.113.7'}, token=behind.token)
    assert ask(behind.port, data).error == (400, "bad_request")


def test_sessions_show_the_address_that_rfc_7239_told(behind: Gateway) -> None:
    data = b'{"username":"bob","password":"correct horse"}'
    headers = {"Content-Type": "application/json", "Forwarded": "for=6.6.6.6, for=203.0.113.11, for=10.1.1.1"}
    tokens = ask(behind.port, request("POST", "/auth/login", headers, data)).json()
    listed = ask(behind.port, request("GET", "/auth/sessions", token=tokens["access_token"])).json()["sessions"]
    assert [each["ip"] for each in listed if each["current"]] == ["203.0.113.11"]


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Forwarded", "for=203.0.113.7;proto=https", 200),
        ("X-Forwarded-Proto", "https", 200),
        ("Forwarded", "for=203.0.113.7;proto=http", 403),
        ("X-Other", "https", 403),
    ],
)
def test_the_scheme_that_a_trusted_proxy_tells_is_one_of_the_gateways_own_origins(
    behind: Gateway, name: str, value: str, status: int
) -> None:
    data = b'{"username":"bob","password":"correct horse","refresh_in":"cookie"}'
    headers = {"Content-Type": "application/json", "Host": "other.test", "Origin": "https://other.test", name: value}
    assert ask(behind.port, request("POST", "/auth/login", headers, data)).status == status


def test_sessions_show_the_address_that_a_trusted_proxy_told(behind: Gateway) -> None:
    data = b'{"username":"bob","password":"correct horse"}'
    headers = {"Content-Type": "application/json", "X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.1.1.1"}
    tokens = ask(behind.port, request("POST", "/auth/login", headers, data)).json()
    listed = ask(behind.port, request("GET", "/auth/sessions", token=tokens["access_token"])).json()["sessions"]
    assert [each["ip"] for each in listed if each["current"]] == ["203.0.113.9"]


# --- credentials ---


def test_the_gateways_own_cookies_never_reach_the_backend(gateway: Gateway, backend: Backend) -> None:
    cookies = [
        ("Cookie", "a=1; __Secure-refresh=secret; b=2"),
        ("COOKIE", "__Secure-refresh=secret;c=3"),
    ]
    call = seen(gateway, backend, cookies)
    assert b"secret" not in call.head
    together = "; ".join(call.all("cookie")).replace(" ", "").split(";")
    assert together == ["a=1", "b=2", "c=3"]


@pytest.mark.parametrize(
    "cookie", ["__Secure-refresh =secret", " __Secure-refresh\t= secret", ";__Secure-refresh=secret;"]
)
def test_white_space_hides_no_cookie(gateway: Gateway, backend: Backend, cookie: str) -> None:
    """Backends strip a cookie's name (RFC 6265 5.2), so ours is known by what is left."""
    assert b"secret" not in seen(gateway, backend, [("Cookie", cookie), ("X-A", "b")]).head


def test_the_authorization_header_is_forwarded_unless_the_route_says_no(gateway: Gateway, backend: Backend) -> None:
    assert seen(gateway, backend, []).get("authorization") == f"Bearer {gateway.token}"
    call = seen(gateway, backend, [], "/private")
    assert "authorization" not in call.names()
    assert gateway.token.encode() not in call.head
    assert call.get("x-auth-request-user") == "u-alice"


def test_two_authorization_headers_never_reach_an_open_backend_as_two_readings(
    gateway: Gateway, backend: Backend
) -> None:
    spot = backend.spot()
    headers = [("Authorization", "Bearer a"), ("authorization", "Bearer b")]
    answer = ask(gateway.port, request("GET", spot.path(), headers))
    assert answer.error == (401, "invalid_token") or spot.call().all("authorization") in ([], ["Bearer a", "Bearer b"])


def test_a_request_id_is_passed_on_or_made(gateway: Gateway, backend: Backend) -> None:
    assert seen(gateway, backend, [("X-Request-Id", "abc-123")]).get("x-request-id") == "abc-123"
    made = seen(gateway, backend, []).get("x-request-id")
    assert made
    assert seen(gateway, backend, [("X-Request-Id", "a b")]).get("x-request-id") not in ("a b", made)


# --- the rest of a message ---


def test_headers_that_mean_nothing_to_the_gateway_pass_as_they_came(gateway: Gateway, backend: Backend) -> None:
    given = [
        ("X-A", "1"),
        ("x-a", "2"),
        ("Accept", "a, b"),
        ("X-Bytes", "caf\u00e9"),
        ("X-Empty", ""),
        ("Via", "1.1 x"),
    ]
    call = seen(gateway, backend, given)
    assert [pair for pair in call.headers if pair in given] == given


def test_an_answers_headers_pass_as_they_came(gateway: Gateway, backend: Backend) -> None:
    lines = b"Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nServer: mine\r\nDate: x\r\nX-B: caf\xe9\r\n"
    lines += b"WWW-Authenticate: Basic\r\n"
    answer = answered(gateway, backend, lines)
    assert answer.all("set-cookie") == ["a=1; Path=/", "b=2"]
    assert (answer.get("server"), answer.get("date"), answer.get("x-b")) == ("mine", "x", "caf\u00e9")
    assert answer.get("www-authenticate") == "Basic"


@pytest.mark.parametrize("name", [b"X-Gateway-Error", b"x-gateway-error", b"X-GATEWAY-ERROR"])
def test_only_the_gateway_says_that_an_answer_is_its_own(gateway: Gateway, backend: Backend, name: bytes) -> None:
    answer = answered(gateway, backend, name + b": expired_token\r\n")
    assert (answer.status, answer.body, answer.all("x-gateway-error")) == (200, b"ok", [])


def test_the_backend_gets_the_path_that_was_matched(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for path, query in (("/raw/../raw/%73", "?a=%2e&b=//"), ("/raw/./s", ""), ("/nowhere/../raw/s", "?")):
        target = f"{path.removesuffix('s').removesuffix('%73')}{spot.name}{query}"
        with Client(gateway.port) as client:
            assert client.ask(request("GET", target)).status == 200
    assert [call.target for call in spot.calls(3)] == [f"{spot.path()}{query}" for query in ("?a=%2e&b=//", "", "?")]


SNEAKY = [
    "/raw/..%2fguarded/x",
    "/raw/..%5cguarded/x",
    "/raw/%2e%2e/guarded/x",
    "/raw/..;/guarded/x",
    "/raw//../guarded/x",
    "/raw/%2e%2e%2fguarded/x",
    "/./guarded/x",
    "//guarded/x",
    "/guarded;a=b/x",
    "/%67uarded/x",
]


@pytest.mark.parametrize("path", SNEAKY)
def test_no_spelling_of_a_guarded_path_reaches_the_backend_without_a_token(
    gateway: Gateway, backend: Backend, path: str
) -> None:
    spot = backend.spot()
    target = path.removesuffix("x") + spot.name
    answer = ask(gateway.port, request("GET", target))
    if answer.status == 200:
        assert spot.call().target.startswith("/raw/")
        assert b".." not in spot.call().head
    else:
        assert answer.error in ((401, "missing_token"), (400, "bad_request"), (404, "no_route"))


def test_an_access_cookie_never_reaches_an_open_backend_either(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    headers = {"Cookie": "a=1; __Host-access=secret; __Secure-refresh=secret"}
    assert ask(gateway.port, request("GET", spot.path("/raw"), headers)).status == 200
    assert spot.calls(1)[0].get("cookie") == "a=1"
