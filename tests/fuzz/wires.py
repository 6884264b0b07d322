"""Whole connections, simulated: arbitrary requests and arbitrary answers, in arbitrary pieces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h11

from tests.e2e.hostile_answers import ANSWERS
from tests.e2e.hostile_backend import strictly
from tests.e2e.hostile_framing import FRAMING
from tests.e2e.hostile_heads import HEADS
from tests.e2e.hostile_rows import HIDDEN
from tests.e2e.hostile_targets import TARGETS
from tests.fuzz.paths import naive_normal, readings
from tests.fuzz.target import places, target
from tests.proxy.simulation import (
    OWN_COOKIES,
    REQUEST,
    World,
    answering,
    bytewise,
    cut,
    outcome,
    same,
    summary,
)

# --- requests ---

HTTP = [
    *(b"\r\n", b"\r", b"\n", b"\r\n\r\n", b" ", b"\t", b":", b"\0", b";", b",", b"HTTP/1.1", b"HTTP/1.0", b"0\r\n\r\n"),
    *(
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
    ),
    *(
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
        b"Trailer: X-A\r\n",
        b"TE: trailers\r\n",
        b"Expect: 100-continue\r\n",
    ),
]
_HEADERS = [
    *(b"X-Auth-Request-User: x\r\n", b"x_auth_request_user: x\r\n", b"X-Forwarded-For: x\r\n", b"Forwarded: for=x\r\n"),
    *(
        b"Cookie: a=b; __Secure-refresh=x\r\n",
        b"Connection: x-a, host\r\nX-A: b\r\n",
        b"Proxy: x\r\n",
        b"Keep-Alive: 5\r\n",
    ),
    *(
        b"X-Gateway-Error: x\r\n",
        b"X-Original-URL: /guarded\r\n",
        b"Authorization: Bearer x\r\n",
        b"TE: gzip\r\n",
        b"Via: 1.0 x\r\n",
    ),
]
_METHODS = [b"GET ", b"POST ", b"HEAD ", b"CONNECT ", b"OPTIONS ", b"/open/x", b"/guarded/x", b"http://a/open/x"]
_LAX = re.compile(rb"[^a-z0-9]")
_FORGED = (b"x-forwarded", b"forwarded", b"x-real-ip", b"x-gateway-", b"x-original-", b"x-rewrite-url")
_ADDRESSES = (b"x-client-ip", b"true-client-ip")
_HOP = {b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"trailer", b"proxy"}


def _requests() -> list[bytes]:
    rows = [row.data for row in (*FRAMING, *HEADS, *TARGETS) if len(row.data) < 600 and b"/auth/" not in row.data]
    return [REQUEST, REQUEST * 2, REQUEST + HIDDEN, *rows[::3]]


@target(_requests, [*HTTP, *_HEADERS, *_METHODS])
def requests(data: bytes) -> None:
    """Whatever is sent, in whatever pieces: the same reaches the backend, nothing guarded, nothing forged."""
    whole = outcome([data])
    assert outcome(bytewise(data)) == whole
    assert outcome(cut(data, places(data))) == whole
    _check_backends(data)


def _check_backends(data: bytes) -> None:
    world = World()
    try:
        world.feed([data])
        for connection in world.pool.connections:
            written = connection.transport.written  # type: ignore[attr-defined]  # of a simulated wire
            _agree(written, world)
        for sent in world.sent():
            if sent.target:
                check_sent(sent.target, sent.headers)
    finally:
        world.end()


def _agree(written: bytes, world: World) -> None:
    """h11 and the strict grammar find the same requests in what one backend got."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    parser.receive_data(written)
    ours = [sent for sent in strictly(written) if sent.target]
    assert len(ours) <= 1  # a simulated backend gets one request a connection
    event = parser.next_event()
    if not ours:
        assert event is h11.NEED_DATA
        return
    (sent,) = ours
    assert isinstance(event, h11.Request)
    assert (event.method, event.target, [tuple(each) for each in event.headers]) == (
        sent.method,
        sent.target,
        sent.headers,
    )
    body = b""
    while isinstance(event := parser.next_event(), h11.Data):
        body += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage) == sent.whole
    assert body == sent.body or not sent.whole


def check_sent(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Fail for a request that must not reach the backend so."""
    sent = target.partition(b"?")[0]
    assert naive_normal(sent) == sent
    for read in readings(sent):
        assert read.startswith(b"/open")
        assert not (read + b"/").startswith((b"/guarded/", b"/open/vault/"))
    names = [name for name, _ in headers]
    forged = [(name, value) for name, value in headers if _LAX.sub(b"-", name).startswith(_FORGED + _ADDRESSES)]
    assert forged[:-1] == [(b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-proto", b"http")]
    assert forged[-1] == (b"x-forwarded-host", dict(headers)[b"host"])
    assert b"x-auth-request-user" not in {_LAX.sub(b"-", name) for name in names}
    assert _HOP.isdisjoint(names)
    said = [value for name, value in headers if name == b"connection"]
    assert said in ([], [b"TE"], [b"Upgrade"])
    assert names.count(b"te") == (said == [b"TE"])
    assert names.count(b"upgrade") == (said == [b"Upgrade"])
    assert names.count(b"x-request-id") == 1
    assert names.count(b"via") >= 1
    for name, value in headers:
        if name == b"cookie":
            assert not any(part.partition(b"=")[0].strip() in OWN_COOKIES for part in value.split(b";"))


_TRACE = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n"


@target(
    lambda: [
        b"X-A: b\r\n",
        b"".join(_HEADERS),
        _TRACE,
        _TRACE + b"Connection: tracestate, traceparent\r\n",
        b"Connection: te, x-b\r\nTE: trailers\r\nX-B: c\r\n",
        b"Cookie: a\r\nCookie: b\r\n",
    ],
    [*HTTP, *_HEADERS],
)
def request_headers(data: bytes) -> None:
    """Of any header section, what passes is neither hop-by-hop nor forged; what `Connection` names does not pass."""
    world = World()
    try:
        world.feed([b"GET /open/x HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n"])
        first = next((sent for sent in world.sent() if sent.target), None)
    finally:
        world.end()
    if first is None:
        return
    check_sent(first.target, first.headers)
    lines = (line.partition(b":") for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n"))
    given = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
    named = {each.strip(b" \t").lower() for name, value in given if name == b"connection" for each in value.split(b",")}
    ours = {b"te", b"connection", b"upgrade", b"via", b"x-request-id", b"traceparent", b"x-forwarded-for"}
    ours |= {b"x-forwarded-proto", b"x-forwarded-host"}  # which the gateway sets itself
    kept = {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"expect"}
    assert not (named - ours - kept) & {name for name, _ in first.headers}
    passed = {value for name, value in first.headers if name == b"traceparent"}
    assert not passed & {value for name, value in given if name == b"traceparent"} or b"traceparent" not in named


# --- answers ---

_CLIENTS = [
    REQUEST,
    b"HEAD /open/x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /open/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /open/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n",
    b"GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
]
_STATUS = re.compile(rb"(HTTP/1\.[01] ([0-9])[0-9]{2} )[^\r\n]*(\r\n)")
_HOP_ANSWER = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
_HOP_ANSWER |= {b"content-length", b"x-gateway-error"}


@dataclass(frozen=True, slots=True)
class Read:
    """One final answer as a reader has it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]]
    rest: bytes


def reference(data: bytes, request: bytes, *, ends: bool = True) -> Read | None:
    """Return how h11 reads an answer to `request`, None where it finds no whole one. `ends`: the connection does."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    method = request.partition(b" ")[0]
    keep = [("Connection", "close")] if b"Connection: close" in request else []
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a"), *keep]))
    client.send(h11.EndOfMessage())
    head, body = None, b""
    try:
        client.receive_data(data)
        if ends:
            client.receive_data(b"")
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                trailers = [(name, value) for name, value in event.headers]
                fields = [(name, value) for name, value in head.headers]
                return Read(head.status_code, fields, body, trailers, client.trailing_data[0])
            elif not isinstance(event, h11.InformationalResponse):
                return None
    except h11.RemoteProtocolError:
        return None


def without_reasons(data: bytes) -> bytes:
    """Return an answer without the reason phrases, which the gateway writes anew and clients ignore (RFC 9112 4)."""
    match = _STATUS.match(data)
    if match is None:
        return data
    line, rest = match[1] + match[3], data[match.end() :]
    if match[2] != b"1" or b"\r\n\r\n" not in match[3] + rest:
        return line + rest
    fields, _, after = (match[3] + rest).partition(b"\r\n\r\n")
    return match[1] + fields + b"\r\n\r\n" + without_reasons(after)


def _answers() -> list[bytes]:
    rows = [bad.data for bad in ANSWERS if len(bad.data) < 600 and bad.then != "stall"]
    return [bytes([n % len(_CLIENTS)]) + data for n, data in enumerate(rows)]


_ANSWER_WORDS = [
    *HTTP,
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 \r\n\r\n",
    b"204",
    b"304",
    b"101",
    b"1\r\na\r\n",
    b"X-A: b\r\n",
    b"5;x\r\n",
]


@target(_answers, _ANSWER_WORDS)
def answers(data: bytes) -> None:
    """What a client takes for a whole answer is what another reader takes the backend's for, whatever the pieces.

    The first byte chooses the client, the rest is what the backend sends before it closes.
    """
    request, said = _CLIENTS[(data or b"\0")[0] % len(_CLIENTS)], data[1:]
    if not said:
        return
    whole = _answered([said], request)
    assert same(_answered(bytewise(said), request), whole)
    assert same(_answered(cut(said, places(said)), request), whole)


def _answered(pieces: list[bytes], request: bytes) -> tuple[Any, ...]:
    world = answering(pieces, closes=True, request=request)
    try:
        _check_answer(world, b"".join(pieces), request)
        return summary(world, head_only=request.startswith(b"HEAD"))
    finally:
        world.end()


def _check_answer(world: World, said: bytes, request: bytes) -> None:
    client = world.client
    if client.aborted:
        return
    got = reference(client.written, request, ends=client.finished or client.closing)
    assert got is not None  # not aborted, so it must be whole
    assert got.rest == b""
    names = [name for name, _ in got.headers]
    if b"x-gateway-error" in names:
        assert (got.status, dict(got.headers)[b"x-gateway-error"][:9]) == (502, b"upstream_")
        return
    meant = reference(without_reasons(said), request)
    assert meant is not None
    assert (got.status, got.body) == (meant.status, meant.body)
    assert [each for each in got.headers if each[0] not in _HOP_ANSWER] == _end_to_end(meant)
    assert not world.pool.released or not meant.rest or world.client.written
    assert {name for name, _ in got.trailers} <= {name for name, _ in meant.trailers}
    assert not got.trailers or b"TE: trailers" in request


def _end_to_end(read: Read) -> list[tuple[bytes, bytes]]:
    hop = {
        each.strip(b" \t").lower()
        for name, value in read.headers
        if name == b"connection"
        for each in value.split(b",")
    }
    return [(name, value) for name, value in read.headers if name not in _HOP_ANSWER | hop]
