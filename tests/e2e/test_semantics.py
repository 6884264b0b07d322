"""What RFC 9110 and 9112 ask of an intermediary: heads, bodies, interim and early answers, old clients."""

from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime

import pytest

from tests.e2e.backends import Backend, Behaviour, Call, raw, steps
from tests.e2e.harness import Gateway
from tests.e2e.wire import Client, ask, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HTTP10 = b"GET %b HTTP/1.0\r\nHost: gateway.test\r\n%b\r\n"


def closing(data: bytes) -> Behaviour:
    """Return a behaviour: read the request, send these bytes, end the connection."""
    return steps(raw(data), Call.close)


# --- Date (RFC 9110 6.6.1) ---

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"
SHAPES = {
    "whole": b"Content-Length: 2\r\n%b\r\nok",
    "chunked": b"Transfer-Encoding: chunked\r\n%b\r\n2\r\nok\r\n0\r\n\r\n",
    "candidate": b"X-Candidate: b\r\nContent-Length: 2\r\n%b\r\nok",
    "in the body": b"Content-Length: 9\r\n%b\r\n\r\nDate: x",
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["Date", "date", "DATE"])
def test_a_date_passes_as_the_backend_sent_it(gateway: Gateway, backend: Backend, shape: str, name: str) -> None:
    line = f"{name}: {DATE}\r\n".encode()
    spot = backend.spot(raw(b"HTTP/1.1 200 OK\r\n" + SHAPES[shape] % line))
    assert ask(gateway.port, request("GET", spot.path())).all("date") == [DATE]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_without_a_date_gets_one(gateway: Gateway, backend: Backend, shape: str, method: str) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + SHAPES[shape] % b""
    spot = backend.spot(raw(data if method == "GET" else data[: data.index(b"\r\n\r\n") + 4]))
    answer = ask(gateway.port, request(method, spot.path()))
    (date,) = answer.all("date")
    assert abs(parsedate_to_datetime(date).timestamp() - time.time()) < 60


# --- answers without a body ---


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 1234\r\n", b"Transfer-Encoding: chunked\r\n", b""],
    ids=["length", "chunked", "neither"],
)
def test_a_head_request_has_the_length_but_no_body_and_the_connection_goes_on(
    gateway: Gateway, backend: Backend, head: bytes
) -> None:
    spot = backend.spot(raw(b"HTTP/1.1 200 OK\r\n" + head + b"X-Mine: 1\r\n\r\n"))
    other = backend.spot(raw(OK))
    with Client(gateway.port) as client:
        for _ in range(2):
            answer = client.ask(request("HEAD", spot.path()))
            assert (answer.status, answer.body, answer.get("x-mine")) == (200, b"", "1")
            if head.startswith(b"Content-Length"):
                assert answer.get("content-length") == "1234"
        assert client.ask(request("GET", other.path())).body == b"ok"


def test_204_and_304_have_no_body_and_keep_the_connection(gateway: Gateway, backend: Backend) -> None:
    empty = backend.spot(raw(b"HTTP/1.1 204 No Content\r\nX-Mine: 1\r\n\r\n"))
    fresh = backend.spot(raw(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 77\r\n\r\n'))
    other = backend.spot(raw(OK))
    with Client(gateway.port) as client:
        for _ in range(2):
            answer = client.ask(request("DELETE", empty.path()))
            assert (answer.status, answer.get("content-length")) == (204, "")
            answer = client.ask(request("GET", fresh.path()))
            assert (answer.status, answer.get("content-length"), answer.get("etag")) == (304, "77", '"x"')
            assert client.ask(request("GET", other.path())).body == b"ok"
    assert len({id(call.connection) for call in (*empty.calls(2), *fresh.calls(2))}) == 1


def test_an_empty_body_is_a_body(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:
        for body in (b"", b"x", b""):
            assert client.ask(request("POST", spot.path(), body=body)).get("content-length") == "0"
    assert [call.get("content-length") for call in spot.calls(3)] == ["0", "1", "0"]


def test_a_chunked_request_without_content_arrives_as_such(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:
        for _ in range(2):
            head = request("POST", spot.path(), {"Transfer-Encoding": "chunked"})
            assert client.ask(head + b"0\r\n\r\n").status == 200
    assert [call.raw_body for call in spot.calls(2)] == [b"0\r\n\r\n"] * 2


def test_trailers_and_chunk_extensions_are_not_passed_on(gateway: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        assert call.body() == b"abc"
        call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
        call.send(b"3;a=b\r\nxyz\r\n0\r\nX-Sum: 1\r\n\r\n")

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        for _ in range(2):
            head = request("POST", spot.path(), {"Transfer-Encoding": "chunked", "Trailer": "X-Auth-Request-User"})
            answer = client.ask(head + b"3;x=y\r\nabc\r\n0\r\nX-Auth-Request-User: root\r\n\r\n")
            assert (answer.status, answer.body) == (200, b"xyz")  # the client refuses trailers
    for call in spot.calls(2):
        assert call.raw_body == b"3\r\nabc\r\n0\r\n\r\n"


def test_a_chunked_answer_arrives_piece_by_piece(gateway: Gateway, backend: Backend) -> None:
    go = threading.Event()

    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert go.wait(10)
        call.send(b"6\r\nsecond\r\n0\r\n\r\n")

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        pieces = client.body(client.head())
        assert next(pieces) == b"first"
        go.set()
        assert b"".join(pieces) == b"second"


def test_request_body_pieces_arrive_while_the_client_still_sends(gateway: Gateway, backend: Backend) -> None:
    arrived = threading.Event()

    def behaviour(call: Call) -> None:
        assert call.connection.exactly(5) == b"first"
        arrived.set()
        assert call.connection.exactly(6) == b"second"
        call.send(OK)

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("POST", spot.path(), {"Content-Length": "11"}) + b"first")
        assert arrived.wait(10)
        client.send(b"second")
        assert client.answer("POST").body == b"ok"


# --- interim answers ---


def test_expect_100_continue_is_the_backends_to_answer(gateway: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        assert call.get("expect").lower() == "100-continue"
        assert call.connection.buffer == b""
        call.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert call.body() == b"0123456789"
        call.send(OK)

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        for _ in range(2):
            client.send(request("PUT", spot.path(), {"Content-Length": "10", "Expect": "100-continue"}))
            assert client.head().status == 100
            client.send(b"0123456789")
            assert client.answer("PUT").body == b"ok"
    spot.calls(2)


def test_a_final_answer_in_place_of_100_ends_the_connection_unless_the_body_comes(
    gateway: Gateway, backend: Backend
) -> None:
    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
        call.gone()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("PUT", spot.path(), {"Content-Length": "10", "Expect": "100-continue"}))
        answer = client.answer("PUT")
        assert (answer.status, answer.get("connection")) == (417, "close")
        assert client.ended()


def test_a_refused_request_that_expects_100_is_answered_at_once_and_its_body_never_read_as_a_request(
    gateway: Gateway, backend: Backend
) -> None:
    spot = backend.spot()
    body = request("GET", spot.path())
    with Client(gateway.port) as client:
        client.send(request("PUT", spot.path("/guarded"), {"Content-Length": str(len(body)), "Expect": "100-continue"}))
        answer = client.answer("PUT")
        assert (answer.error, answer.interim) == ((401, "missing_token"), [])
        assert answer.get("connection") == "close"
        client.send(body)
        assert client.ended()
    assert spot.calls() == []


def test_early_hints_are_passed_on_before_the_answer(gateway: Gateway, backend: Backend) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: X-Odd\r\nX-Odd: 1\r\n\r\n"
    spot = backend.spot(raw(hints + hints + OK))
    with Client(gateway.port) as client:
        for _ in range(2):
            answer = client.ask(request("GET", spot.path()))
            assert (answer.status, answer.body) == (200, b"ok")
            assert [each.status for each in answer.interim] == [103, 103]
            assert [each.headers for each in answer.interim] == [[("link", "</a.css>; rel=preload")]] * 2


def test_an_http_1_0_client_gets_no_interim_answers(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(raw(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + OK))
    with Client(gateway.port) as client:
        answer = client.ask(HTTP10 % (spot.path().encode(), b""))
        assert (answer.status, answer.interim, answer.body) == (200, [], b"ok")


def test_an_endless_row_of_interim_answers_is_not_passed_on_for_ever(gateway: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        while True:
            call.send(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 100)

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path("/impatient")))
        received, piece = 0, b""
        while b"upstream_invalid" not in piece:
            piece = client.socket.recv(1 << 18)
            received += len(piece)
            assert received < 64 << 20


# --- early answers ---


def test_an_answer_before_the_body_is_sent_reaches_the_client_and_ends_both_connections(
    gateway: Gateway, backend: Backend
) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nstop")
        if call.gone():
            ended.set()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("POST", spot.path(), {"Content-Length": "1000000"}) + b"x" * 10)
        answer = client.answer("POST")
        assert (answer.status, answer.body, answer.get("connection")) == (403, b"stop", "close")
        assert client.ended()
    assert ended.wait(10)


def test_an_early_answer_reaches_a_client_that_goes_on_sending(gateway: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nstop")
        call.body()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("POST", spot.path(), {"Content-Length": "500000"}) + b"x" * 500000)
        assert client.answer("POST").body == b"stop"


# --- old clients, old backends ---


def test_an_http_1_0_client_is_answered_and_closed(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(raw(OK))
    with Client(gateway.port) as client:
        answer = client.ask(HTTP10 % (spot.path().encode(), b""))
        assert answer.body == b"ok"
        assert answer.get("connection") in ("", "close")
        assert client.ended()
    assert spot.call().version == "HTTP/1.1"


def test_an_http_1_0_client_may_ask_to_keep_the_connection(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(raw(OK))
    with Client(gateway.port) as client:
        for _ in range(3):
            answer = client.ask(HTTP10 % (spot.path().encode(), b"Connection: keep-alive\r\n"))
            assert (answer.body, answer.get("connection").lower()) == (b"ok", "keep-alive")
    assert len(spot.calls(3)) == 3


def test_a_refused_http_1_0_client_is_told_whether_the_connection_is_kept(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        answer = client.ask(HTTP10 % (b"/guarded/x", b""))
        assert answer.error == (401, "missing_token")
        assert client.ended()
    with Client(gateway.port) as client:
        answer = client.ask(HTTP10 % (b"/guarded/x", b"Connection: keep-alive\r\n"))
        if answer.get("connection").lower() != "keep-alive":
            assert client.ended()


def test_an_http_1_0_client_gets_a_chunked_answer_until_close(gateway: Gateway, backend: Backend) -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
    spot = backend.spot(raw(data))
    for more in (b"", b"Connection: keep-alive\r\n"):
        with Client(gateway.port) as client:
            answer = client.ask(HTTP10 % (spot.path().encode(), more))
            assert (answer.body, answer.until_close, answer.get("transfer-encoding")) == (b"abcdefg", True, "")
            assert answer.get("connection") == "close"


def test_an_http_1_0_client_needs_no_host_and_the_backend_gets_one(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(raw(OK))
    assert ask(gateway.port, b"GET %b HTTP/1.0\r\n\r\n" % spot.path().encode()).body == b"ok"
    assert spot.call().get("host") == f"127.0.0.1:{backend.port}"


def test_an_answer_until_close_is_chunked_for_the_client(gateway: Gateway, backend: Backend) -> None:
    for version in (b"1.0", b"1.1"):
        data = b"HTTP/%b 200 OK\r\n\r\n" % version + b"until the end"
        spot = backend.spot(closing(data))
        with Client(gateway.port) as client:
            for _ in range(2):
                answer = client.ask(request("GET", spot.path()))
                assert (answer.body, answer.get("transfer-encoding")) == (b"until the end", "chunked")
        with Client(gateway.port) as client:
            old = client.ask(HTTP10 % (spot.path().encode(), b""))
            assert (old.body, old.until_close) == (b"until the end", True)


def test_an_empty_answer_until_close_is_an_empty_body(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(closing(b"HTTP/1.1 200 OK\r\n\r\n"))
    with Client(gateway.port) as client:
        for _ in range(2):
            answer = client.ask(request("GET", spot.path()))
            assert (answer.status, answer.body) == (200, b"")


def test_an_http_1_0_backend_that_keeps_nothing_is_served_by_a_new_connection_each(
    gateway: Gateway, backend: Backend
) -> None:
    spot = backend.spot(closing(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    with Client(gateway.port) as client:
        for _ in range(5):
            answer = client.ask(request("POST", spot.path(), body=b"x"))
            assert (answer.status, answer.body) == (200, b"ok")
    assert len(spot.calls(5)) == 5


def test_a_large_answer_leaves_nothing_behind_on_a_kept_connection(gateway: Gateway, backend: Backend) -> None:
    size = 300_000
    large = backend.spot(raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"l" * size))
    small = backend.spot(raw(OK))
    chunked = backend.spot(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
    none = backend.spot(raw(b"HTTP/1.1 204 No Content\r\n\r\n"))
    with Client(gateway.port) as client:
        for following in (small, chunked, none, large, small):
            assert client.ask(request("GET", large.path())).body == b"l" * size
            answer = client.ask(request("GET", following.path()))
            assert answer.body in (b"ok", b"", b"l" * size)
            assert (answer.status == 204) == (following is none)
    connections = {id(call.connection) for spot in (large, small, chunked, none) for call in spot.calls()}
    assert len(connections) == 1


def test_large_requests_leave_nothing_behind_on_kept_connections(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    body = b"b" * 300_000
    with Client(gateway.port) as client:
        for _ in range(3):
            assert client.ask(request("POST", spot.path(), body=body)).status == 200
            assert client.ask(request("POST", spot.path(), body=b"small")).status == 200
            client.send(request("POST", spot.path(), body=body) + request("GET", spot.path()))
            assert client.answer("POST").status == 200
            assert client.answer("GET").status == 200
    calls = spot.calls(12)
    assert [call.raw_body for call in calls] == [body, b"small", body, b""] * 3
