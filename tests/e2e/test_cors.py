"""Pages of other origins at a real gateway: what they are told byte for byte, and what no backend ever sees."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.support import websocket
from tests.e2e.backends import Backend, Behaviour, Call, raw
from tests.e2e.cors import (
    ASKS,
    OTHER,
    PAGE,
    UNLISTED,
    Pairs,
    assert_granted,
    assert_readable,
    assert_varies,
    from_page,
    options,
    said,
)
from tests.e2e.harness import Gateway, Site
from tests.e2e.wire import Client, ask, request


@pytest.fixture(scope="module")
def open_to_pages(site: Site, backend: Backend) -> Iterator[Gateway]:
    with site.serve(**options(backend), server={"max_body_bytes": "1KiB"}) as made:
        yield made


# --- preflights ---


@pytest.mark.parametrize("prefix", ["/guarded", "/raw", "/renewing", "/stripped"])
def test_a_preflight_is_granted_without_a_token_and_no_backend_sees_it(
    open_to_pages: Gateway, backend: Backend, prefix: str
) -> None:
    spot = backend.spot()
    assert_granted(ask(open_to_pages.port, from_page("OPTIONS", spot.path(prefix), more=ASKS)))
    assert ask(open_to_pages.port, from_page("GET", spot.path(prefix), token=open_to_pages.token)).status == 200
    assert [call.method for call in spot.calls()] == ["GET"]


@pytest.mark.parametrize(
    "target",
    ["/auth/login", "/auth/token", "/auth/sessions/some-id", "/auth/me", "/.well-known/jwks.json", "/auth/nothing"],
)
def test_the_gateways_own_addresses_grant_preflights_too(open_to_pages: Gateway, target: str) -> None:
    assert_granted(ask(open_to_pages.port, from_page("OPTIONS", target, more=ASKS)))


def test_a_route_that_names_its_methods_grants_these(open_to_pages: Gateway) -> None:
    answer = ask(open_to_pages.port, from_page("OPTIONS", "/reading/x", more=ASKS))
    assert_granted(answer, methods="GET, HEAD")
    refused = ask(open_to_pages.port, from_page("PUT", "/reading/x"))
    assert refused.error == (405, "method_not_allowed")
    assert_readable(refused)


def test_a_preflight_to_no_route_is_404_and_says_so_to_the_page(open_to_pages: Gateway) -> None:
    answer = ask(open_to_pages.port, from_page("OPTIONS", "/nowhere", more=ASKS))
    assert answer.error == (404, "no_route")
    assert_readable(answer)


def test_a_refused_preflight_is_still_an_answer_that_the_page_may_read(open_to_pages: Gateway) -> None:
    data = from_page("OPTIONS", "/guarded/x", more=ASKS, body=b"x" * 2000)
    answer = ask(open_to_pages.port, data)
    assert answer.error == (413, "body_too_large")
    assert_readable(answer)


@pytest.mark.parametrize("origin", [*UNLISTED, OTHER])
@pytest.mark.parametrize("target", ["/guarded/x", "/auth/token", "/reading/x"])
def test_the_preflight_of_an_unlisted_origin_goes_on_as_without_cors(
    open_to_pages: Gateway, origin: str, target: str
) -> None:
    answer = ask(open_to_pages.port, from_page("OPTIONS", target, origin, ASKS))
    assert answer.error == (401, "missing_token") if target == "/guarded/x" else (405, "method_not_allowed")
    assert said(answer) == {}
    assert_varies(answer)


def test_an_unlisted_origins_preflight_still_reaches_an_open_backend_with_a_policy_of_its_own(
    open_to_pages: Gateway, backend: Backend
) -> None:
    own = b"Access-Control-Allow-Origin: https://evil.example.com\r\nAccess-Control-Allow-Methods: PUT\r\n"
    spot = backend.spot(lambda call: call.reply(headers=own))
    answer = ask(open_to_pages.port, from_page("OPTIONS", spot.path(), OTHER, ASKS))
    assert said(answer) == {"access-control-allow-origin": OTHER, "access-control-allow-methods": "PUT"}
    assert spot.call().method == "OPTIONS"


@pytest.mark.parametrize(
    "more",
    [
        [],
        [ASKS[0], ASKS[0]],
        [("Access-Control-Request-Method", "")],
        [("Access-Control-Request-Method", "PUT, GET")],
        [("Access-Control-Request-Method", "M" * 33)],
        [ASKS[0], ("Origin", PAGE)],
        [ASKS[0], ("origin", OTHER)],
        [ASKS[0], ("Connection", "Upgrade"), ("Upgrade", "websocket")],
    ],
)
def test_options_that_are_no_preflight_need_a_token(open_to_pages: Gateway, backend: Backend, more: Pairs) -> None:
    spot = backend.spot()
    answer = ask(open_to_pages.port, from_page("OPTIONS", spot.path("/guarded"), more=more))
    assert answer.error == (401, "missing_token")
    assert "access-control-allow-methods" not in said(answer)
    assert spot.calls() == []


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "options", "TRACE"])
def test_no_other_method_is_a_preflight(open_to_pages: Gateway, backend: Backend, method: str) -> None:
    spot = backend.spot()
    answer = ask(open_to_pages.port, from_page(method, spot.path("/guarded"), more=ASKS))
    assert answer.status in (400, 401)  # llhttp knows no method in small letters
    assert spot.calls() == []


def test_a_method_in_another_header_does_not_come_in_by_a_preflight(open_to_pages: Gateway, backend: Backend) -> None:
    for prefix in ("/guarded", "/raw", "/reading"):
        spot = backend.spot()
        more = [*ASKS, ("X-HTTP-Method-Override", "DELETE")]
        assert ask(open_to_pages.port, from_page("OPTIONS", spot.path(prefix), more=more)).status == 204
        assert spot.calls() == []


# --- what stands in a preflight's headers ---


@pytest.mark.parametrize("asked", ["x-a, x b", "x-a: 1", 'x-a,"x-b"', "x-\xe9", "x" * 5000, ",".join(["x-a"] * 2000)])
def test_of_a_list_with_a_name_that_is_none_nothing_comes_back(open_to_pages: Gateway, asked: str) -> None:
    more = [ASKS[0], ("Access-Control-Request-Headers", asked)]
    answer = ask(open_to_pages.port, from_page("OPTIONS", "/guarded/x", more=more))
    assert answer.status == 204
    assert "access-control-allow-headers" not in said(answer)


@pytest.mark.parametrize("name", ["Access-Control-Request-Headers", "Access-Control-Request-Method", "Origin"])
@pytest.mark.parametrize("mark", ["\r", "\n", "\x00"])
def test_a_line_cannot_be_broken_in_two(open_to_pages: Gateway, name: str, mark: str) -> None:
    """A bare CR, LF or NUL: the request is none, or its second line is one of its own."""
    pairs = dict([("Origin", PAGE), *ASKS])
    pairs[name] += f"{mark}Set-Cookie: a=b"
    answer = ask(open_to_pages.port, request("OPTIONS", "/guarded/x", pairs))
    assert answer.status in (204, 400)
    assert answer.all("set-cookie") == []
    assert "a=b" not in " ".join(said(answer).values())


# --- a preflight on its connection ---


def test_a_preflight_and_its_request_share_a_connection_however_they_come(
    open_to_pages: Gateway, backend: Backend
) -> None:
    spot = backend.spot(lambda call: call.reply(b"yes"))
    first = from_page("OPTIONS", spot.path("/guarded"), more=ASKS)
    second = from_page("PUT", spot.path("/guarded"), body=b"new", token=open_to_pages.token)
    with Client(open_to_pages.port) as client:
        for _ in range(3):  # the head is remembered
            assert_granted(client.ask(first))
        assert client.ask(second).body == b"yes"
        client.send(first + second + first)
        assert [client.answer(method).status for method in ("OPTIONS", "PUT", "OPTIONS")] == [204, 200, 204]
        for piece in (first[:30], first[30:]):
            client.send(piece)
        assert_granted(client.answer("OPTIONS"))
    assert [call.raw_body for call in spot.calls()] == [b"new", b"new"]


@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"]
)
def test_the_body_of_a_preflight_is_never_read_as_a_request(open_to_pages: Gateway, body: bytes) -> None:
    head = from_page("OPTIONS", "/guarded/x", more=ASKS).removesuffix(b"\r\n")
    with Client(open_to_pages.port) as client:
        assert_granted(client.ask(head + body, "OPTIONS"))
        assert client.ask(from_page("GET", "/nowhere")).error == (404, "no_route")


def test_a_preflight_that_would_send_its_body_after_a_100_ends_its_connection(open_to_pages: Gateway) -> None:
    """Whether the body comes or not nobody can tell, so that nothing behind it may be read as a request."""
    more = [*ASKS, ("Expect", "100-continue"), ("Content-Length", "5")]
    with Client(open_to_pages.port) as client:
        answer = client.ask(from_page("OPTIONS", "/guarded/x", more=more))
        assert_granted(answer)
        assert answer.get("connection") == "close"
        assert client.ended()


def test_a_preflight_of_http_1_0_is_answered_and_its_connection_ended(open_to_pages: Gateway) -> None:
    with Client(open_to_pages.port) as client:
        answer = client.ask(from_page("OPTIONS", "/guarded/x", more=ASKS).replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        assert_granted(answer)
        assert client.ended()


def test_a_preflight_that_closes_its_connection_is_answered_first(open_to_pages: Gateway) -> None:
    with Client(open_to_pages.port) as client:
        answer = client.ask(from_page("OPTIONS", "/guarded/x", more=[*ASKS, ("Connection", "close")]))
        assert_granted(answer)
        assert answer.get("connection") == "close"
        assert client.ended()


# --- answers ---


def test_every_refusal_can_be_read_by_the_page(open_to_pages: Gateway) -> None:
    port, wrong = open_to_pages.port, "e.y.z"
    json_type: Pairs = [("Content-Type", "application/json")]
    refusals = {
        "missing_token": from_page("GET", "/guarded/x"),
        "invalid_token": from_page("GET", "/guarded/x", token=wrong),
        "no_route": from_page("GET", "/nowhere"),
        "method_not_allowed": from_page("POST", "/reading/x", body=b""),
        "upstream_unreachable": from_page("GET", "/closed/x"),
        "body_too_large": from_page("POST", "/raw/x", body=b"x" * 2000),
        "bad_request": from_page("GET", "/guarded/%zz/x"),
        "invalid_credentials": from_page(
            "POST", "/auth/login", more=json_type, body=b'{"username":"alice","password":"no"}'
        ),
        "invalid_request": from_page("POST", "/auth/login", more=json_type, body=b"{"),
        "invalid_grant": from_page(
            "POST", "/auth/token", more=json_type, body=b'{"grant_type":"refresh_token","refresh_token":"x"}'
        ),
    }
    for code, data in refusals.items():
        answer = ask(port, data)
        assert answer.error[1] == code
        assert_readable(answer)
        assert said(ask(port, data.replace(PAGE.encode(), OTHER.encode()))) == {}


@pytest.mark.parametrize("target", ["/auth/me", "/.well-known/jwks.json", "/auth/account", "/auth/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_answer_of_the_api_can_be_read_by_the_page_and_by_no_other(
    open_to_pages: Gateway, target: str, method: str
) -> None:
    answer = ask(open_to_pages.port, from_page(method, target, token=open_to_pages.token))
    assert_readable(answer)
    for origin in UNLISTED:
        other = ask(open_to_pages.port, from_page(method, target, origin, token=open_to_pages.token))
        assert other.status == answer.status
        assert said(other) == {}
        assert_varies(other)


@pytest.mark.parametrize(
    ("name", "behaviour"),
    {
        "plain": lambda call: call.reply(b"ok"),
        "chunked": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "until close": lambda call: (call.send(b"HTTP/1.1 200 OK\r\n\r\nok"), call.close()),
        "no content": raw(b"HTTP/1.1 204 No Content\r\n\r\n"),
        "not modified": raw(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n'),
        "its own refusal": lambda call: call.reply(b"{}", "401 Unauthorized"),
        "after a 103": raw(
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        ),
    }.items(),
)
def test_every_kind_of_a_backends_answer_can_be_read_by_the_page_alone(
    open_to_pages: Gateway, backend: Backend, name: str, behaviour: Behaviour
) -> None:
    spot = backend.spot(behaviour)
    for method in ("GET",) if name == "until close" else ("GET", "HEAD" if name == "no content" else "POST"):
        answer = ask(open_to_pages.port, from_page(method, spot.path(), body=b"" if method == "POST" else None))
        assert_readable(answer)
        assert [said(each) or each.all("vary") for each in answer.interim] == [[]] * len(answer.interim)
    for origin in UNLISTED:
        answer = ask(open_to_pages.port, from_page("GET", spot.path(), origin))
        assert said(answer) == {}
        assert_varies(answer)


def test_a_backend_cannot_let_in_whom_the_operator_did_not_nor_spoil_what_the_gateway_says(
    open_to_pages: Gateway, backend: Backend
) -> None:
    """Two Allow-Origin lines, or `*` with credentials, would have browsers refuse the answer."""
    own = b"Access-Control-Allow-Origin: *\r\naccess-control-allow-origin: %b\r\nAccess-Control-Max-Age: 9\r\n"
    for framing in (b"Content-Length: 2\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"):
        spot = backend.spot(raw(b"HTTP/1.1 200 OK\r\n" + own % OTHER.encode() + framing))
        answer = ask(open_to_pages.port, from_page("GET", spot.path()))
        assert_readable(answer)
        assert answer.body == b"ok"
        other = ask(open_to_pages.port, from_page("GET", spot.path(), OTHER))
        assert other.all("access-control-allow-origin") == ["*", OTHER]


@pytest.mark.parametrize(
    ("vary", "told"),
    [
        (b"Vary: Accept-Encoding\r\n", ["Accept-Encoding", "Origin"]),
        (b"Vary: Accept, origin\r\n", ["Accept, origin"]),
        (b"Vary: *\r\n", ["*"]),
        (b"", ["Origin"]),
    ],
)
def test_a_backends_vary_is_kept(open_to_pages: Gateway, backend: Backend, vary: bytes, told: list[str]) -> None:
    spot = backend.spot(lambda call: call.reply(b"ok", headers=vary))
    for data in (request("GET", spot.path()), from_page("GET", spot.path())):
        assert ask(open_to_pages.port, data).all("vary") == told


def test_a_body_that_cannot_be_read_on_is_refused_so_that_the_page_can_read_it(open_to_pages: Gateway) -> None:
    """By the data plane, and where the API has begun to wait for the body."""
    chunked = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")]
    for target in ("/raw/x", "/auth/login"):
        with Client(open_to_pages.port) as client:
            client.send(from_page("POST", target, more=chunked) + b"1\r\n{\r\n")
            client.send(b"zz\r\n")
            answer = client.answer()
        assert answer.error == (400, "bad_request")
        assert_readable(answer)


def test_what_was_no_request_varies_too_and_reflects_nothing(open_to_pages: Gateway) -> None:
    for data in (b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\nOrigin: " + PAGE.encode() + b"\r\n\r\n"):
        answer = ask(open_to_pages.port, data)
        assert answer.error == (400, "bad_request")
        assert said(answer) == {}
        assert_varies(answer)


def test_an_origin_that_changes_on_a_connection_is_told_its_own(open_to_pages: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(open_to_pages.port) as client:
        for origin in [PAGE, PAGE, OTHER, OTHER, "http://localhost:3000", PAGE]:
            answer = client.ask(from_page("GET", spot.path(), origin))
            assert said(answer).get("access-control-allow-origin", OTHER) == origin


def test_a_websocket_has_no_cors(open_to_pages: Gateway, backend: Backend) -> None:
    def switch(call: Call) -> None:
        own = b"Access-Control-Allow-Origin: *\r\n"
        call.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + own + b"\r\n")
        call.close()

    spot = backend.spot(switch)
    with Client(open_to_pages.port) as client:
        client.send(request("GET", spot.path(), [("Origin", PAGE), *websocket()]))
        answer = client.head()
    assert answer.status == 101
    assert said(answer) == {"access-control-allow-origin": "*"}
    assert answer.all("vary") == []
