"""Heads and bodies that are too slow or too large, and the bodies of requests that are refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Client, ask, request


@pytest.fixture(scope="module")
def strict(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A gateway with narrow bounds."""
    server = {
        "max_header_bytes": "4KiB",
        "max_body_bytes": "64KiB",
        "header_timeout": "400ms",
        "keepalive_timeout": "600ms",
    }
    routes = [route("/raw/", backend.url, auth="none"), route("/guarded/", backend.url)]
    with site.serve(server=server, routes=routes) as gateway:
        yield gateway


def test_a_head_that_comes_too_slowly_ends_the_connection(strict: Gateway) -> None:
    with Client(strict.port) as client:
        client.send(b"GET /raw/x HTTP/1.1\r\nHost: x\r\n")
        answer = client.answer()
        assert answer.error == (408, "request_timeout")
        assert client.ended()


def test_a_head_that_trickles_gets_no_more_time(strict: Gateway) -> None:
    with Client(strict.port, timeout=0.05) as client:
        client.send(b"GET /raw/x HTTP/1.1\r\nHost: x\r\n")

        def trickle() -> bytes:
            try:
                client.send(b"X-A: b\r\n")
                return client.socket.recv(65536)
            except TimeoutError:
                return b""

        assert until(trickle, "the head is given up", 3).startswith(b"HTTP/1.1 408 ")


def test_a_connection_without_a_request_is_closed(strict: Gateway) -> None:
    with Client(strict.port) as client:
        assert client.ended()
    with Client(strict.port) as client:
        assert client.ask(request("GET", "/guarded/x")).status == 401
        assert client.ended()


def test_a_request_body_that_comes_too_slowly_is_ended(gateway: Gateway, backend: Backend) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        try:
            call.body()
        except OSError:
            ended.set()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("POST", spot.path("/impatient"), {"Content-Length": "10"}) + b"abc")
        answer = client.answer("POST")
        assert answer.status in (408, 504)
        assert client.ended()
    assert ended.wait(5)


@pytest.mark.parametrize(
    "more",
    [b"X-A: " + b"a" * 5000 + b"\r\n", b"X-A: b\r\n" * 700, b"".join(b"X-%d: b\r\n" % n for n in range(400))],
    ids=["one long", "one often", "many"],
)
def test_a_head_that_is_too_large_is_a_431(strict: Gateway, backend: Backend, more: bytes) -> None:
    spot = backend.spot()
    with Client(strict.port) as client:
        answer = client.ask(b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (spot.path().encode(), more))
        assert answer.error == (431, "headers_too_large")
        assert client.ended()
    assert spot.calls() == []


def test_an_endless_head_is_a_431(strict: Gateway) -> None:
    for start in (b"GET /raw/", b"GET /raw/x HTTP/1.1\r\nX-", b"GET /raw/x HTTP/1.1\r\nX-A: "):
        with Client(strict.port) as client:
            client.send(start)
            for _ in range(10):
                client.send(b"a" * 1000)
            answer = client.answer()
            assert answer.error in ((431, "headers_too_large"), (400, "bad_request"))
            assert client.ended()


def test_a_head_in_two_pieces_is_counted_whole(strict: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(strict.port) as client:
        client.send(request("GET", spot.path()) + request("GET", spot.path(), {"X-A": "a" * 6000})[:-4])
        assert client.answer().status == 200  # so the first piece has been read
        client.send(b"\r\n\r\n")
        assert client.answer().error == (431, "headers_too_large")
    assert len(spot.calls()) == 1


def test_a_body_that_says_it_is_too_large_is_a_413_before_the_backend_hears_of_it(
    strict: Gateway, backend: Backend
) -> None:
    spot = backend.spot()
    with Client(strict.port) as client:
        client.send(request("POST", spot.path(), body=b"x" * 65537))
        assert client.answer("POST").error == (413, "body_too_large")
    assert spot.calls() == []
    assert ask(strict.port, request("POST", spot.path(), body=b"x" * 65536)).status == 200


def test_a_chunked_body_that_grows_too_large_is_a_413_and_never_looks_whole(strict: Gateway, backend: Backend) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        try:
            call.body()
        except (OSError, ValueError):
            ended.set()

    spot = backend.spot(behaviour)
    with Client(strict.port) as client:
        client.send(request("POST", spot.path(), {"Transfer-Encoding": "chunked"}))
        for _ in range(9):
            client.send(b"2000\r\n" + b"x" * 8192 + b"\r\n")
        client.send(b"0\r\n\r\n")
        answer = client.answer("POST")
        assert answer.error == (413, "body_too_large")
        assert client.ended()
    assert ended.wait(5)


# --- bodies of refused requests ---

REFUSED = {
    "no token": ("POST", "/guarded/x", 401),
    "no route": ("POST", "/nowhere/x", 404),
    "not this method": ("POST", "/reading/x", 405),
    "closed port": ("POST", "/closed/x", 502),
    "api, malformed": ("POST", "/auth/login", 400),
    "api, no such path": ("POST", "/auth/nothing", 404),
    "api, not this type": ("POST", "/auth/logout", 400),
}


@pytest.mark.parametrize(("method", "path", "status"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("size", [0, 100_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_of_a_refused_request_is_never_read_as_a_request(
    gateway: Gateway, backend: Backend, method: str, path: str, status: int, size: int, chunked: bool
) -> None:
    spot, smuggled = backend.spot(), backend.spot()
    inner = request("GET", smuggled.path()) * 3
    body = inner + b"x" * size + inner
    if chunked:
        data = request(method, path, {"Transfer-Encoding": "chunked"}) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        data = request(method, path, body=body)
    with Client(gateway.port) as client:
        client.send(data[:-5])
        client.send(data[-5:] + request("GET", spot.path()))
        answer = client.answer(method)
        assert answer.status in (status, 413)  # the API takes less than 100 kB
        if answer.get("connection") == "close":
            assert client.ended()
        else:
            assert client.answer("GET").status == 200
            spot.call()
    assert ask(gateway.port, request("GET", spot.path())).status == 200
    assert smuggled.calls() == []


def test_a_refused_request_with_a_small_body_keeps_the_connection(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    with Client(gateway.port) as client:
        for _ in range(3):
            assert client.ask(request("POST", spot.path("/guarded"), body=b"x" * 5000)).status == 401
            assert client.ask(request("POST", spot.path(), body=b"y" * 5000)).status == 200
    assert [call.raw_body for call in spot.calls()] == [b"y" * 5000] * 3


def test_a_refused_request_whose_body_is_endless_is_not_read_to_its_end(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        client.send(request("POST", "/guarded/x", {"Transfer-Encoding": "chunked"}))

        def send_without_end() -> None:
            for _ in range(2000):
                client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_without_end()
