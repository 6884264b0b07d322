"""What is not strictly HTTP/1.x is answered with 400 and ends the connection; no backend hears of it."""

from __future__ import annotations

import threading

import pytest

from tests.e2e.backends import Backend, Call, steps
from tests.e2e.harness import Gateway
from tests.e2e.wire import Client, ask, request

GET = b"GET %b HTTP/1.1\r\nHost: a\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: a\r\n"
# %b is a path that the backend would answer.
MALFORMED = {
    "no host": b"GET %b HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: a\r\n\r\n",
    "two hosts, two spellings": GET + b"hOST: b\r\n\r\n",
    "a host with a space": b"GET %b HTTP/1.1\r\nHost: a b\r\n\r\n",
    "a host with a user": b"GET %b HTTP/1.1\r\nHost: a@b\r\n\r\n",
    "a host with a path": b"GET %b HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "a list of hosts": b"GET %b HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "length and chunked": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "the same length twice": POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": POST + b"Content-Length: 1, 1\r\n\r\na",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a signed length": POST + b"Content-Length: +1\r\n\r\na",
    "a hexadecimal length": POST + b"Content-Length: 0x1\r\n\r\na",
    "an underscored length": POST + b"Content-Length: 1_0\r\n\r\n0123456789",
    "an empty length": POST + b"Content-Length: \r\n\r\n",
    "an endless length": POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "an unknown coding": POST + b"Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    "two codings": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked in two headers": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and identity": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "not quite chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked with a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked in http 1.0": b"POST %b HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": GET + b"X-A : b\r\n\r\n",
    "a space before the coding's colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": GET + b"X-A: b\r\n c\r\n\r\n",
    "a folded first line": b"GET %b HTTP/1.1\r\n Host: a\r\n\r\n",
    "a bare lf after a header": b"GET %b HTTP/1.1\r\nHost: a\nX-A: b\r\n\r\n",
    "a bare lf after the first line": b"GET %b HTTP/1.1\nHost: a\r\n\r\n",
    "bare lf everywhere": b"GET %b HTTP/1.1\nHost: a\n\n",
    "a bare cr in a value": GET + b"X-A: b\rc\r\n\r\n",
    "a nul in a value": GET + b"X-A: b\0c\r\n\r\n",
    "a control character in a value": GET + b"X-A: b\x01c\r\n\r\n",
    "a control character in a name": GET + b"X\x01A: b\r\n\r\n",
    "an empty name": GET + b": b\r\n\r\n",
    "a line without a colon": GET + b"nonsense\r\n\r\n",
    "a name in brackets": GET + b"(X): b\r\n\r\n",
    "an unknown version": b"GET %b HTTP/1.2\r\nHost: a\r\n\r\n",
    "version 2": b"GET %b HTTP/2.0\r\nHost: a\r\n\r\n",
    "version 0.9": b"GET %b\r\n\r\n",
    "lower-case http": b"GET %b http/1.1\r\nHost: a\r\n\r\n",
    "a space after the version": b"GET %b HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a space in the target": b"GET %b x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a lower-case method": b"get %b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment": b"GET %b#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a fragment in the query": b"GET %b?a#x HTTP/1.1\r\nHost: a\r\n\r\n",
    "a raw byte in the target": b"GET %b\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "a nul in the target": b"GET %b%%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a lone percent sign": b"GET %b%% HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absolute target of another host": b"GET http://evil.test%b HTTP/1.1\r\nHost: a\r\n\r\n",
    "an absolute target of another scheme": b"GET ftp://a%b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target without a slash": b"GET x%b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n%b",
    "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%b",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%b\r\n\r\n",
    "noise": b"\x00\xff\xfe%b\r\n\r\n",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_a_400_and_nothing_of_it_or_after_it_reaches_the_backend(
    gateway: Gateway, backend: Backend, data: bytes
) -> None:
    spot, after = backend.spot(), backend.spot()
    before = backend.received
    with Client(gateway.port) as client:
        client.send(data % spot.path().encode() + request("GET", after.path()))
        answer = client.answer()
        assert answer.error == (400, "bad_request")
        assert answer.get("connection") == "close"
        assert client.ended()
    assert backend.received == before
    assert ask(gateway.port, request("GET", backend.spot().path())).status == 200
    assert (spot.calls(), after.calls()) == ([], [])


def test_a_malformed_request_behind_a_good_one_is_answered_in_its_turn(gateway: Gateway, backend: Backend) -> None:
    go = threading.Event()

    def behaviour(call: Call) -> None:
        assert go.wait(10)
        call.reply(b"good")

    spot, after = backend.spot(behaviour), backend.spot()
    with Client(gateway.port) as client:
        client.send(request("GET", spot.path()) + b"nonsense\r\n\r\n" + request("GET", after.path()))
        go.set()
        assert client.answer().body == b"good"
        assert client.answer().error == (400, "bad_request")
        assert client.ended()
    assert after.calls() == []


BAD_CHUNKS = {
    "letters": b"xyz\r\nabc\r\n",
    "a negative size": b"-1\r\nabc\r\n",
    "a prefixed size": b"0x3\r\nabc\r\n",
    "an endless size": b"fffffffffffffffff\r\nabc\r\n",
    "too much data": b"3\r\nabcd\r\n0\r\n\r\n",
    "a bare lf": b"3\nabc\r\n0\r\n\r\n",
    "a bare lf in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a bare cr": b"3\rabc\r\n0\r\n\r\n",
    "an empty size": b"\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("data", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_a_malformed_chunk_is_a_400_and_its_request_never_looks_whole(
    gateway: Gateway, backend: Backend, data: bytes
) -> None:
    whole: list[bytes] = []
    spot, after = backend.spot(steps(lambda call: whole.append(call.body()), Call.reply)), backend.spot()
    with Client(gateway.port) as client:
        client.send(request("POST", spot.path(), {"Transfer-Encoding": "chunked"}) + data)
        client.send(request("GET", after.path()))
        answer = client.answer("POST")
        assert answer.error == (400, "bad_request")
        assert client.ended()
    assert ask(gateway.port, request("GET", backend.spot().path())).status == 200
    assert (whole, after.calls()) == ([], [])
