"""What a proxy adds, keeps and says of itself: Via, traces, trailers, Date, and where a client comes from."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest

from tests.e2e.backends import Backend, Call, steps
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import Answer, Client, ask, json_request, request

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_MADE = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


def seen(gateway: Gateway, backend: Backend, headers: list[tuple[str, str]], prefix: str = "/raw") -> Call:
    """Return what the backend gets of a request with these headers."""
    spot = backend.spot()
    answer = ask(gateway.port, request("GET", spot.path(prefix), headers, token=gateway.token))
    assert answer.status == 200, answer
    return spot.call()


# --- Via (RFC 9110 7.6.3) ---


def test_the_backend_is_told_through_whom_a_request_came(gateway: Gateway, backend: Backend) -> None:
    assert seen(gateway, backend, []).all("via") == ["1.1 tokengate"]
    given = [("Via", "1.0 one, 1.1 two"), ("via", "1.1 three")]
    assert seen(gateway, backend, given).all("via") == ["1.0 one, 1.1 two", "1.1 three", "1.1 tokengate"]


def test_via_tells_the_version_that_the_client_spoke(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:
        client.send(b"GET %b HTTP/1.0\r\n\r\n" % spot.path().encode())
        client.rest()
    assert spot.call().all("via") == ["1.0 tokengate"]


def test_connection_cannot_take_the_gateways_own_via_away(gateway: Gateway, backend: Backend) -> None:
    call = seen(gateway, backend, [("Connection", "Via, Traceparent"), ("Via", "1.1 one")])
    assert call.all("via") == ["1.1 tokengate"]
    assert _MADE.fullmatch(call.get("traceparent"))


# --- traces (W3C Trace Context) ---


def test_a_valid_trace_goes_on_with_its_state(gateway: Gateway, backend: Backend) -> None:
    given = [("Traceparent", TRACE), ("TraceState", "a=1"), ("tracestate", "b=2")]
    call = seen(gateway, backend, given)
    assert (call.all("traceparent"), call.all("tracestate")) == ([TRACE], ["a=1", "b=2"])


@pytest.mark.parametrize(
    "given",
    [
        [],
        [("traceparent", TRACE.upper())],
        [("traceparent", TRACE + "-more")],
        [("traceparent", "00-" + "0" * 32 + "-b7ad6b7169203331-01")],
        [("traceparent", "")],
        [("traceparent", TRACE), ("Traceparent", TRACE)],
    ],
)
def test_a_trace_that_is_none_is_replaced_and_its_state_dropped(
    gateway: Gateway, backend: Backend, given: list[tuple[str, str]]
) -> None:
    call = seen(gateway, backend, [*given, ("tracestate", "a=1")])
    assert _MADE.fullmatch(call.get("traceparent"))
    assert call.all("tracestate") == []


def test_every_request_of_a_connection_has_a_trace_of_its_own(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:
        for _ in range(4):  # the same head each time, which the gateway reads by a shorter way
            client.ask(request("GET", spot.path(), {"tracestate": "a=1"}))
        client.ask(request("GET", spot.path(), {"traceparent": TRACE}))
        client.ask(request("GET", spot.path(), {"traceparent": TRACE}))
        client.ask(request("GET", spot.path()))
    traces = [call.get("traceparent") for call in spot.calls(7)]
    assert traces[4:6] == [TRACE, TRACE]
    assert len({trace[3:35] for trace in traces}) == 6
    assert len({trace[36:52] for trace in traces}) == 6
    assert [call.all("tracestate") for call in spot.calls(7)] == [[]] * 7


# --- the gateway's own answers ---


def errors_of(gateway: Gateway) -> Iterator[Answer]:
    yield ask(gateway.port, request("GET", "/guarded/x"))
    yield ask(gateway.port, request("GET", "/nowhere"))
    yield ask(gateway.port, request("GET", "/closed/x"))
    yield ask(gateway.port, b"GET / HTTP/1.1\r\n\r\n")
    yield ask(gateway.port, b"nonsense\r\n\r\n")


def test_the_gateways_own_answers_are_dated(gateway: Gateway) -> None:
    """RFC 9110 6.6.1."""
    answers = list(errors_of(gateway))
    assert [answer.status for answer in answers] == [401, 404, 502, 400, 400]
    for answer in answers:
        told = parsedate_to_datetime(answer.get("date"))
        assert abs(told.timestamp() - time.time()) < 5


def test_the_date_of_a_backend_stays_the_only_one(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.reply(headers=b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"))
    assert ask(gateway.port, request("GET", spot.path())).get("date") == "Thu, 01 Jan 1970 00:00:00 GMT"


def test_a_refused_request_is_answered_with_its_id(gateway: Gateway) -> None:
    mine = ask(gateway.port, request("GET", "/guarded/x", {"X-Request-Id": "mine-1"}))
    assert mine.get("x-request-id") == "mine-1"
    bad = ask(gateway.port, request("GET", "/guarded/x", {"X-Request-Id": "a b"})).get("x-request-id")
    made = ask(gateway.port, request("GET", "/guarded/x")).get("x-request-id")
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made)
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", bad)
    assert made != bad


def test_the_id_of_a_failed_request_is_the_one_that_the_backend_got(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.send(b"nonsense\r\n\r\n"))
    answer = ask(gateway.port, request("GET", spot.path()))
    assert answer.error == (502, "upstream_invalid")
    assert answer.get("x-request-id") == spot.call().get("x-request-id") != ""


def test_a_second_try_is_the_same_request(gateway: Gateway, backend: Backend) -> None:
    """A kept connection that breaks before the answer: the backend can see that both are one."""
    number = iter(range(9))

    def behaviour(call: Call) -> None:
        if next(number) == 1:
            call.close()
        else:
            call.reply()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        assert client.ask(request("GET", spot.path())).status == 200
        assert client.ask(request("GET", spot.path())).status == 200
    first, second, third = (call.get("x-request-id") for call in spot.calls(3))
    assert first != second == third


# --- trailers (RFC 9110 6.5, RFC 9112 7.1.2) ---

CHUNKS = b"3\r\nabc\r\n0\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"


def raw_answer(
    gateway: Gateway, backend: Backend, sent: bytes, headers: list[tuple[str, str]], *, whole: bool = True
) -> tuple[Call, bytes]:
    """Return what the backend got, and every byte of the answer that the client got; none where it may be reset."""
    spot = backend.spot(steps(Call.body, lambda call: call.send(sent)))
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path(), [*headers, ("Connection", "close")]))
        try:
            return spot.call(), client.rest()
        except ConnectionResetError:
            assert not whole
            return spot.call(), b""


def test_announced_trailers_reach_a_client_that_asks_for_them(gateway: Gateway, backend: Backend) -> None:
    sent = HEAD + b"Trailer: ETag, X-Sum\r\n\r\n" + CHUNKS + b'ETag: "1"\r\nX-Sum: 7\r\n\r\n'
    call, answer = raw_answer(gateway, backend, sent, [("TE", "trailers")])
    assert (call.all("te"), call.all("connection")) == (["trailers"], ["TE"])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nTrailer: ETag, X-Sum" in head
    assert body == CHUNKS + b'ETag: "1"\r\nX-Sum: 7\r\n\r\n'


@pytest.mark.parametrize("te", [[], [("TE", "gzip")], [("TE", "trailers;q=0")]])
def test_no_one_else_is_sent_trailers(gateway: Gateway, backend: Backend, te: list[tuple[str, str]]) -> None:
    sent = HEAD + b"Trailer: ETag\r\n\r\n" + CHUNKS + b'ETag: "1"\r\n\r\n'
    call, answer = raw_answer(gateway, backend, sent, te)
    assert call.names().isdisjoint({"te", "connection"})
    assert b"railer" not in answer
    assert answer.endswith(b"\r\n\r\n" + CHUNKS + b"\r\n")


def test_a_client_of_http_1_0_is_sent_none(gateway: Gateway, backend: Backend) -> None:
    sent = HEAD + b"Trailer: ETag\r\n\r\n" + CHUNKS + b'ETag: "1"\r\n\r\n'
    spot = backend.spot(lambda call: call.send(sent))
    with Client(gateway.port) as client:
        client.send(b"GET %b HTTP/1.0\r\nTE: trailers\r\n\r\n" % spot.path().encode())
        answer = client.rest()
    assert spot.call().names().isdisjoint({"te", "connection"})
    assert answer.endswith(b"\r\n\r\nabc")
    assert b"railer" not in answer


FORGED = (
    b"Content-Type: a/b\r\nKeep-Alive: timeout=9\r\nSet-Cookie: a=b\r\nX-Gateway-Error: expired_token\r\n"
    b"X-Access-Token: x\r\nAuthorization: x\r\nConnection: x\r\nHost: x\r\nX-Unannounced: x\r\nX-Hop: x\r\n"
)


def test_trailers_that_frame_route_authenticate_or_were_not_announced_never_pass(
    gateway: Gateway, backend: Backend
) -> None:
    names = b", ".join(line.partition(b":")[0] for line in FORGED.split(b"\r\n") if b"Unannounced" not in line)
    sent = HEAD + b"Connection: X-Hop\r\nTrailer: %bX-Sum\r\n\r\n" % names + CHUNKS + FORGED + b"X-Sum: 7\r\n\r\n"
    _, answer = raw_answer(gateway, backend, sent, [("TE", "trailers")])
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nTrailer: X-Sum\r\n" in head + b"\r\n"
    assert body == CHUNKS + b"X-Sum: 7\r\n\r\n"


@pytest.mark.parametrize("line", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Transfer-Encoding: x"])
@pytest.mark.parametrize("te", [[], [("TE", "trailers")]])
def test_trailers_that_frame_never_pass(
    gateway: Gateway, backend: Backend, line: bytes, te: list[tuple[str, str]]
) -> None:
    """RFC 9110 6.5.1: whoever merged them into the head would read another message."""
    name = line.partition(b":")[0]
    sent = HEAD + b"Trailer: %b, X-Sum\r\n\r\n" % name + CHUNKS + line + b"\r\nX-Sum: 7\r\n\r\n"
    answer = raw_answer(gateway, backend, sent, te, whole=False)[1]
    head, _, body = answer.partition(b"\r\n\r\n")
    assert line not in body
    assert name not in head.partition(b"Trailer:")[2]


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\nTrailer: ETag\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 204 No Content\r\nTrailer: ETag\r\n\r\n",
        HEAD + b"\r\n" + CHUNKS + b'ETag: "1"\r\n\r\n',
        b"HTTP/1.1 103 Early Hints\r\nTrailer: ETag\r\n\r\n" + HEAD + b"\r\n" + CHUNKS + b'ETag: "1"\r\n\r\n',
        HEAD + b"Trailer: Content-Length\r\n\r\n" + CHUNKS + b"Content-Length: 1\r\n\r\n",
    ],
)
def test_an_answer_without_trailers_announces_none(gateway: Gateway, backend: Backend, sent: bytes) -> None:
    _, answer = raw_answer(gateway, backend, sent, [("TE", "trailers")])
    assert b"railer:" not in answer
    assert b"ETag" not in answer


def test_trailers_come_in_pieces_and_the_connection_serves_on(gateway: Gateway, backend: Backend) -> None:
    whole = HEAD + b"Trailer: X-Sum\r\n\r\n" + CHUNKS + b"X-Sum: 7\r\n\r\n"

    def drip(call: Call) -> None:
        call.body()
        for at in range(len(whole)):
            call.send(whole[at : at + 1])
            if at > len(whole) - 24:
                time.sleep(0.002)  # so that the pieces are not joined on their way

    spot = backend.spot(drip)
    plain = backend.spot(lambda call: call.reply(b"ok", headers=b"X-Plain: 1\r\n"))
    with Client(gateway.port) as client:
        for _ in range(2):
            client.send(request("GET", spot.path(), {"TE": "trailers"}))
            assert client.head().get("trailer") == "X-Sum"
            _read_up_to(client, b"0\r\nX-Sum: 7\r\n\r\n")
            assert client.ask(request("GET", plain.path())).body == b"ok"


def _read_up_to(client: Client, end: bytes) -> None:
    read = b""
    while not read.endswith(end):
        read += b"".join(client._exactly(1))


def test_trailers_without_end_end_the_connection(gateway: Gateway, backend: Backend) -> None:
    def endless(call: Call) -> None:
        call.body()
        call.send(HEAD + b"Trailer: X-Sum\r\n\r\n" + CHUNKS + b"X-Sum: ")
        try:
            for _ in range(1000):
                call.send(b"x" * 4096)
        except OSError:
            return

    spot = backend.spot(endless)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path(), {"TE": "trailers"}))
        try:
            answer = client.rest()
        except ConnectionResetError:
            answer = b""
    assert b"X-Sum: x" not in answer
    assert not answer.endswith(b"0\r\n\r\n")


# --- Forwarded (contract 6.6) ---


@pytest.mark.parametrize(
    "name", ["Forwarded", "forwarded", "FORWARDED", "X-Forwarded", "x_forwarded", "X-FORWARDED-for"]
)
@pytest.mark.parametrize("prefix", ["/raw", "/guarded", "/optional", "/unlive"])
def test_forwarded_of_an_untrusted_client_never_reaches_the_backend(
    gateway: Gateway, backend: Backend, name: str, prefix: str
) -> None:
    value = 'for="6.6.6.6:1";host=evil.test;proto=https;by=_evil'
    call = seen(gateway, backend, [(name, value), (name, "for=6.6.6.7"), ("X-A", "kept")], prefix)
    assert b"6.6.6" not in call.head
    assert b"evil" not in call.head
    assert call.get("x-forwarded-for") == "127.0.0.1"
    assert call.get("x-forwarded-proto") == "http"
    assert call.get("x-a") == "kept"


def test_forwarded_of_an_untrusted_client_does_not_name_its_session(gateway: Gateway) -> None:
    data = b'{"username":"bob","password":"correct horse"}'
    headers = {"Content-Type": "application/json", "Forwarded": "for=6.6.6.6", "X-Forwarded-For": "6.6.6.6"}
    tokens = ask(gateway.port, request("POST", "/auth/login", headers, data)).json()
    listed = ask(gateway.port, request("GET", "/auth/sessions", token=tokens["access_token"])).json()["sessions"]
    assert [each["ip"] for each in listed if each["current"]] == ["127.0.0.1"]


# --- the PROXY protocol ---

SOURCE = "203.0.113.7"
LINE = b"PROXY TCP4 203.0.113.7 10.0.0.1 5123 443\r\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def version_2(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


BINARY = version_2(0x21, 0x11, bytes([203, 0, 113, 7, 10, 0, 0, 1]) + b"\x14\x03\x01\xbb" + b"\x04\x00\x02hi")
BINARY_6 = version_2(0x21, 0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + b"\x14\x03\x01\xbb")
LOCAL = version_2(0x20, 0x00, b"")


@pytest.fixture(scope="module")
def proxied(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A gateway behind a proxy on this machine that begins each connection with the PROXY protocol."""
    server = {"trusted_proxies": ["127.0.0.0/8"], "proxy_protocol": True, "header_timeout": "500ms"}
    with site.serve(server=server, routes=[route("/raw/", backend.url, auth="none")]) as made:
        yield made


def through(gateway: Gateway, backend: Backend, header: bytes, *headers: tuple[str, str]) -> Call:
    spot = backend.spot()
    with Client(gateway.port) as client:
        client.send(header)
        assert client.ask(request("GET", spot.path(), list(headers))).status == 200
    return spot.call()


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (LINE, SOURCE),
        (BINARY, SOURCE),
        (BINARY_6, "2001:db8::7"),
        (b"PROXY TCP6 2001:db8::7 ::1 5123 443\r\n", "2001:db8::7"),
        (LOCAL, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ],
)
def test_the_source_that_the_proxy_names_is_the_client(
    proxied: Gateway, backend: Backend, header: bytes, address: str
) -> None:
    assert through(proxied, backend, header).get("x-forwarded-for") == address


@pytest.mark.parametrize("header", [LINE, BINARY, LOCAL])
def test_what_a_client_says_of_itself_through_the_proxy_is_not_believed(
    proxied: Gateway, backend: Backend, header: bytes
) -> None:
    spoofed = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("Forwarded", "for=6.6.6.6")]
    call = through(proxied, backend, header, *spoofed)
    assert b"6.6.6.6" not in call.head
    assert call.get("x-forwarded-proto") == "http"


def test_a_source_that_is_itself_a_trusted_proxy_is_believed(proxied: Gateway, backend: Backend) -> None:
    header = b"PROXY TCP4 127.0.0.9 127.0.0.1 5123 443\r\n"
    call = through(proxied, backend, header, ("X-Forwarded-For", SOURCE))
    assert call.get("x-forwarded-for") == f"{SOURCE}, 127.0.0.9"


def test_sessions_show_the_address_that_the_proxy_named(proxied: Gateway) -> None:
    login = json_request("POST", "/auth/login", {"username": "bob", "password": "correct horse"})
    with Client(proxied.port) as client:
        client.send(BINARY)
        token = client.ask(login).json()["access_token"]
        listed = client.ask(request("GET", "/auth/sessions", token=token)).json()["sessions"]
    assert [each["ip"] for each in listed if each["current"]] == [SOURCE]


@pytest.mark.parametrize("header", [LINE, BINARY], ids=["1", "2"])
def test_the_header_may_come_in_pieces_or_with_requests_behind_it(
    proxied: Gateway, backend: Backend, header: bytes
) -> None:
    spot = backend.spot()
    data = header + request("GET", spot.path()) + request("GET", spot.path())
    for size in (1, 7, len(header) - 1, len(data)):
        with Client(proxied.port) as client:
            for at in range(0, len(data), size):
                client.send(data[at : at + size])
            assert [client.answer().status, client.answer().status] == [200, 200]
    assert {call.get("x-forwarded-for") for call in spot.calls(8)} == {SOURCE}


@pytest.mark.parametrize(
    "data",
    [
        b"GET /raw/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 localhost 10.0.0.1 5123 443\r\nGET /raw/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        version_2(0x21, 0x12, bytes(12)),
        SIGNATURE + b"\x21\x11\xff\xff",
        b"\x16\x03\x01\x02\x00",
    ],
)
def test_a_connection_that_begins_otherwise_is_closed_without_a_word(proxied: Gateway, data: bytes) -> None:
    with Client(proxied.port) as client:
        client.send(data)
        assert client.ended()


def test_the_header_has_the_time_of_a_head(proxied: Gateway) -> None:
    for begun in (b"", LINE[:20], BINARY[:14]):
        with Client(proxied.port) as client:
            before = time.monotonic()
            client.send(begun)
            assert client.ended()
            assert 0.3 < time.monotonic() - before < 5


def test_no_one_but_a_trusted_proxy_may_connect(site: Site, backend: Backend) -> None:
    server = {"trusted_proxies": ["10.0.0.0/8"], "proxy_protocol": True}
    with (
        site.serve(server=server, routes=[route("/raw/", backend.url, auth="none")]) as gateway,
        Client(gateway.port) as client,
    ):
        assert client.ended()
        with Client(gateway.port) as second:
            refused = _sent_and_ended(second, LINE + request("GET", "/raw/x"))
        assert refused


def _sent_and_ended(client: Client, data: bytes) -> bool:
    try:
        client.send(data)
    except OSError:
        return True
    return client.ended()
