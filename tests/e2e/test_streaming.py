"""Bodies of any size flow both ways, and the gateway holds none of them."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Client, request

GIB = 1 << 30
MIB = 1 << 20
PIECE = bytes(range(256)) * 4096  # 1 MiB
MOST = 20 * MIB  # how much the gateway may grow
CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
# What the kernel may hold in the socket buffers of four sockets, and some more.
IN_FLIGHT = 64 * MIB


@pytest.fixture(scope="module")
def fresh(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A gateway of its own, so that its memory tells of nothing but these streams."""
    with site.serve(routes=[route("/raw/", backend.url, auth="none"), route("/guarded/", backend.url)]) as gateway:
        with Client(gateway.port) as client:  # what is loaded at the first request is not the stream's
            for _ in range(50):
                client.ask(request("POST", backend.spot().path(), body=b"x" * 1000))
        yield gateway


@pytest.fixture
def bounded(fresh: Gateway) -> Iterator[Gateway]:
    """The gateway, whose memory must not grow in the test."""
    before = fresh.resident()
    fresh.forget_peak()
    yield fresh
    grown = fresh.peak() - before
    assert grown < MOST, f"the gateway grew by {grown / MIB:.1f} MiB"


def drain(call: Call, into: dict[str, int]) -> None:
    """Read a body of known length and count it."""
    left = int(call.get("content-length"))
    into["size"] = len(call.connection.buffer)
    buffer = bytearray(MIB)
    while into["size"] < left:
        got = call.connection.socket.recv_into(buffer)
        if not got:
            raise ConnectionError
        into["size"] += got
    call.connection.buffer = b""


def standstill(progress: dict[str, int]) -> int:
    """Wait until a count has not changed for half a second and return it."""
    seen, since = -1, time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        if progress["sent"] != seen:
            seen, since = progress["sent"], time.monotonic()
        return seen > 0 and time.monotonic() - since > 0.5

    until(still, "the sender is held back", 10)
    return seen


def pump(client: Client, pieces: Callable[[], Iterator[bytes]]) -> threading.Thread:
    def run() -> None:
        for piece in pieces():
            client.send(piece)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_gibibyte_down_is_streamed(bounded: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
        for _ in range(GIB // len(PIECE)):
            call.send(PIECE)

    spot = backend.spot(behaviour)
    with Client(bounded.port) as client:
        client.send(request("GET", spot.path("/guarded"), token=bounded.token))
        answer = client.head()
        assert (answer.status, answer.get("content-length")) == (200, str(GIB))
        assert sum(len(piece) for piece in client.body(answer)) == GIB


def test_a_gibibyte_up_is_streamed(bounded: Gateway, backend: Backend) -> None:
    counted = {"size": 0}

    def behaviour(call: Call) -> None:
        drain(call, counted)
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    spot = backend.spot(behaviour)
    with Client(bounded.port) as client:
        client.send(request("PUT", spot.path("/guarded"), {"Content-Length": str(GIB)}, token=bounded.token))
        for _ in range(GIB // len(PIECE)):
            client.send(PIECE)
        assert client.answer("PUT").status == 200
    assert counted["size"] == GIB


def test_chunked_bodies_are_streamed_both_ways_at_once(bounded: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        """Send each piece back as it comes."""
        call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection = call.connection
        while size := int(line := connection.line(), 16):
            call.send(line + connection.exactly(size) + connection.line())
        connection.line()
        call.send(b"0\r\n\r\n")

    spot = backend.spot(behaviour)
    size, sent, got = 64 * MIB, hashlib.sha256(), hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        for number in range(size // len(PIECE)):
            piece = number.to_bytes(4, "big") + PIECE[4:]
            sent.update(piece)
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
        yield b"0\r\n\r\n"

    with Client(bounded.port) as client:
        client.send(request("POST", spot.path(), {"Transfer-Encoding": "chunked"}))
        thread = pump(client, pieces)
        answer = client.head()
        assert answer.get("transfer-encoding") == "chunked"
        for piece in client.body(answer):
            got.update(piece)
        thread.join(10)
    assert got.digest() == sent.digest()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_slow_reader_makes_the_backend_wait_and_not_the_gateway_grow(
    bounded: Gateway, backend: Backend, chunked: bool
) -> None:
    size, progress = 256 * MIB, {"sent": 0}

    def behaviour(call: Call) -> None:
        call.connection.socket.settimeout(30)
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        call.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
        for _ in range(size // len(PIECE)):
            call.send(CHUNK if chunked else PIECE)
            progress["sent"] += len(PIECE)
        if chunked:
            call.send(b"0\r\n\r\n")

    spot = backend.spot(behaviour)
    with Client(bounded.port, receive_buffer=65536) as client:
        client.send(request("GET", spot.path()))
        answer = client.head()
        stalled = standstill(progress)
        assert 0 < stalled < IN_FLIGHT
        assert bounded.operate("GET", "/livez").status == 200
        assert sum(len(piece) for piece in client.body(answer)) == size
    assert progress["sent"] == size


@pytest.mark.parametrize("chunked", [False, True])
def test_a_slow_backend_makes_the_client_wait_and_not_the_gateway_grow(
    bounded: Gateway, backend: Backend, chunked: bool
) -> None:
    size, progress, go = 256 * MIB, {"sent": 0}, threading.Event()

    def behaviour(call: Call) -> None:
        go.wait(20)
        if chunked:
            total = 0
            while length := int(call.connection.line(), 16):
                total += len(call.connection.exactly(length))
                call.connection.line()
            call.connection.line()
        else:
            counted = {"size": 0}
            drain(call, counted)
            total = counted["size"]
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n%9d" % total)

    def pieces() -> Iterator[bytes]:
        for _ in range(size // len(PIECE)):
            yield CHUNK if chunked else PIECE
            progress["sent"] += len(PIECE)
        if chunked:
            yield b"0\r\n\r\n"

    spot = backend.spot(behaviour)
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(size)}
    with Client(bounded.port, timeout=30) as client:
        client.send(request("POST", spot.path(), framing))
        thread = pump(client, pieces)
        stalled = standstill(progress)
        assert 0 < stalled < IN_FLIGHT
        go.set()
        answer = client.answer("POST")
        thread.join(10)
    assert (answer.status, int(answer.body)) == (200, size)


def test_a_body_that_waits_for_a_backend_pauses_the_client(site: Site) -> None:
    """The backend's queue of connections is full: what the client sends meanwhile is bounded."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = [socket.create_connection(("127.0.0.1", port))]
        routes = [route("/raw/", f"http://127.0.0.1:{port}", auth="none", connect_timeout="1s")]
        with site.serve(routes=routes) as gateway, Client(gateway.port) as client:
            before = gateway.resident()
            client.send(request("POST", "/raw/x", {"Content-Length": str(GIB)}))
            client.socket.setblocking(False)
            sent = 0
            try:
                while sent < GIB:
                    sent += client.socket.send(PIECE)
            except BlockingIOError:
                pass
            client.socket.settimeout(10)
            assert sent < IN_FLIGHT
            assert client.head().status == 502
            assert gateway.resident() - before < MOST
        for each in waiting:
            each.close()
