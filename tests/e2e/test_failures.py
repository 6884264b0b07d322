"""Backends and clients that break off, answer nonsense or take too long."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend, Call, raw, steps, until_gone
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import Client, WireError, ask, request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


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
    spot = backend.spot(raw(OK + evil))
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
    spot = backend.spot(steps(Call.body, Call.close))
    reset = backend.spot(steps(Call.body, lambda call: call.connection.reset()))
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
        answer = client.head()
        assert answer.status == 200
        head_read.set()
        with pytest.raises((WireError, ConnectionError)):
            for _ in client.body(answer):
                pass


def test_an_answer_with_a_malformed_chunk_never_looks_whole(gateway: Gateway, backend: Backend) -> None:
    head_read = threading.Event()

    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n")
        head_read.wait(10)
        call.send(b"zz\r\n")
        call.gone()

    spot = backend.spot(behaviour)
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        answer = client.head()
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
    spot = backend.spot(until_gone(ended))
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
    spot = backend.spot(until_gone(ended))
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
