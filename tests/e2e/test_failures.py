"""Backends and clients that break off, answer nonsense or take too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Client, WireError, ask, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


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


# --- kept connections that break ---


def breaking_on_reuse(call: Call) -> None:
    """Answer the first request of a connection and end it at the second, unanswered."""
    call.body()
    if call.connection.served == 1:
        call.send(OK)
    else:
        call.close()


@pytest.fixture
def own(site: Site, backend: Backend, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with site.serve(routes=[route("/raw/", backend.url, auth="none")]) as gateway:
        yield gateway


def test_a_get_on_a_kept_connection_that_breaks_is_sent_again_unseen(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(breaking_on_reuse)
    with Client(gateway.port) as client:
        for _ in range(6):
            assert client.ask(request("GET", spot.path())).body == b"ok"


@pytest.mark.parametrize("body", [b"", b"payload"])
def test_a_post_on_a_kept_connection_that_breaks_is_a_502_and_not_sent_twice(
    own: Gateway, backend: Backend, body: bytes
) -> None:
    spot = backend.spot(breaking_on_reuse)
    with Client(own.port) as client:
        assert client.ask(request("GET", spot.path())).body == b"ok"
        answer = client.ask(request("POST", spot.path(), body=body))
        assert answer.error == (502, "upstream_unreachable")
        assert [call.method for call in spot.calls()] == ["GET", "POST"]
        assert client.ask(request("GET", spot.path())).body == b"ok"


def test_a_get_that_breaks_every_connection_is_sent_twice_at_most(own: Gateway, backend: Backend) -> None:
    good = backend.spot(lambda call: call.send(OK))
    bad = backend.spot(Call.close)
    with Client(own.port) as client:
        assert client.ask(request("GET", good.path())).body == b"ok"
        assert client.ask(request("GET", bad.path())).error == (502, "upstream_unreachable")
    assert len(bad.calls()) == 2


def test_a_partial_answer_on_a_kept_connection_is_not_asked_for_again(own: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        call.close()

    good, bad = backend.spot(lambda call: call.send(OK)), backend.spot(behaviour)
    with Client(own.port) as client:
        assert client.ask(request("GET", good.path())).body == b"ok"
        assert client.ask(request("GET", bad.path())).error == (502, "upstream_invalid")
    assert len(bad.calls()) == 1


def test_a_connection_that_the_backend_ended_while_idle_is_not_used(own: Gateway, backend: Backend) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        call.reply(b"ok")
        if call.target.endswith("?last"):
            call.connection.socket.shutdown(1)
            if call.gone():
                ended.set()

    spot = backend.spot(behaviour)
    with Client(own.port) as client:
        for _ in range(3):
            ended.clear()
            assert client.ask(request("POST", spot.path() + "?last", body=b"x")).status == 200
            assert ended.wait(10)
    assert len(spot.calls()) == 3


def test_bytes_after_an_answer_are_never_part_of_the_next_one(gateway: Gateway, backend: Backend) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    spot = backend.spot(lambda call: (call.body(), call.send(OK + evil)))
    late = backend.spot(lambda call: call.reply(b"good"))
    with Client(gateway.port) as client:
        for _ in range(5):
            assert client.ask(request("GET", spot.path())).body == b"ok"
            assert client.ask(request("GET", late.path())).body == b"good"


# --- backends that do not answer ---


def test_a_closed_port_is_a_502(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        for _ in range(3):
            answer = client.ask(request("GET", "/closed/x"))
            assert answer.error == (502, "upstream_unreachable")
            assert answer.get("www-authenticate") == ""
        assert client.ask(request("POST", "/closed/x", body=b"x" * 100)).error == (502, "upstream_unreachable")
        assert client.ask(request("GET", "/closed/x")).error == (502, "upstream_unreachable")


def test_a_backend_that_hangs_up_before_it_answers_is_a_502(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: (call.body(), call.close()))
    reset = backend.spot(lambda call: (call.body(), call.connection.reset()))
    with Client(gateway.port) as client:
        for each in (spot, reset, spot):
            answer = client.ask(request("POST", each.path(), body=b"x"))
            assert answer.error == (502, "upstream_unreachable")


NONSENSE = {
    "no http": b"hello\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
    "http 2": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of letters": b"HTTP/1.1 abc OK\r\nContent-Length: 2\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "a list of lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "an endless length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\nok",
    "an unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
    "two codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in http 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 2\r\n\r\nok",
    "a space before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "a nul in a value": b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok",
    "a bare cr in a value": b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 2\r\n\r\nok",
    "a bare lf": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "a line without a colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "a huge head": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 200_000,
}


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE.keys())
def test_an_answer_that_is_not_strict_http_is_a_502(gateway: Gateway, backend: Backend, nonsense: bytes) -> None:
    def behaviour(call: Call) -> None:
        call.body()
        call.send(nonsense)
        call.connection.socket.shutdown(1)
        call.gone()

    spot, good = backend.spot(behaviour), backend.spot(lambda call: call.reply(b"good"))
    with Client(gateway.port) as client:
        answer = client.ask(request("GET", spot.path()))
        assert answer.error == (502, "upstream_invalid")
        if answer.get("connection") != "close":
            assert client.ask(request("GET", good.path())).body == b"good"


CUT = {
    "of a known length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
    "between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nonly this",
    "in the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n0\r\n",
    "by a bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\nzz\r\n",
    "large": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 300_000,
}


@pytest.mark.parametrize("data", CUT.values(), ids=CUT.keys())
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_an_answer_that_is_cut_short_never_looks_whole(
    gateway: Gateway, backend: Backend, data: bytes, how: str
) -> None:
    head_read = threading.Event()

    def behaviour(call: Call) -> None:
        call.send(data)
        head_read.wait(10)
        (call.close if how == "closed" else call.connection.reset)()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        if "bad chunk" in repr(data) or b"zz" in data:
            with pytest.raises((WireError, ConnectionError)):
                client.answer()
            head_read.set()
            return
        answer = client.head()
        assert answer.status == 200
        head_read.set()
        with pytest.raises((WireError, ConnectionError)):
            for _ in client.body(answer):
                pass


def test_an_answer_until_close_that_is_reset_never_looks_whole(gateway: Gateway, backend: Backend) -> None:
    head_read = threading.Event()

    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\n\r\nonly this")
        head_read.wait(10)
        call.connection.reset()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        answer = client.head()
        head_read.set()
        with pytest.raises((WireError, ConnectionError)):
            for _ in client.body(answer):
                pass


def test_a_backend_that_takes_too_long_is_a_504_and_its_request_is_ended(gateway: Gateway, backend: Backend) -> None:
    ended = threading.Event()
    spot = backend.spot(lambda call: call.gone() and ended.set())
    quick = backend.spot(lambda call: call.reply(b"quick"))
    with Client(gateway.port) as client:
        answer = client.ask(request("GET", spot.path("/impatient")))
        assert answer.error == (504, "upstream_timeout")
        assert ended.wait(10)
        if answer.get("connection") != "close":
            assert client.ask(request("GET", quick.path())).body == b"quick"


def test_a_body_that_stops_in_the_middle_ends_both_connections(gateway: Gateway, backend: Backend) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        if call.gone():
            ended.set()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path("/impatient")))
        answer = client.head()
        with pytest.raises((WireError, ConnectionError)):
            for _ in client.body(answer):
                pass
    assert ended.wait(10)


# --- clients that go ---


def test_a_client_that_goes_before_the_answer_ends_the_request_at_the_backend(
    gateway: Gateway, backend: Backend
) -> None:
    ended = threading.Event()
    spot = backend.spot(lambda call: call.gone() and ended.set())
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        spot.calls(1)
    assert ended.wait(5)


def test_a_client_that_goes_during_the_answer_ends_the_request_at_the_backend(
    gateway: Gateway, backend: Backend
) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        if call.gone():
            ended.set()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        next(client.body(client.head()))
    assert ended.wait(5)


@pytest.mark.parametrize("framing", [("Content-Length", "1000000"), ("Transfer-Encoding", "chunked")])
def test_a_client_that_goes_during_its_body_never_makes_it_look_whole(
    gateway: Gateway, backend: Backend, framing: tuple[str, str]
) -> None:
    ended = threading.Event()
    bodies: list[bytes] = []

    def behaviour(call: Call) -> None:
        try:
            bodies.append(call.body())
        except OSError:
            ended.set()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("POST", spot.path(), [framing]) + b"5\r\nabcde\r\n")
        spot.calls(1)
    assert ended.wait(5)
    assert bodies == []


def test_a_client_that_goes_while_its_token_is_checked_does_no_harm(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for _ in range(50):
        with Client(gateway.port) as client:
            client.send(request("GET", spot.path("/guarded"), token=gateway.token))
    assert ask(gateway.port, request("GET", spot.path("/guarded"), token=gateway.token)).status == 200


# --- bounds ---


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
        with pytest.raises(OSError):  # noqa: PT011  # reset, or broken pipe
            for _ in range(2000):
                client.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")
