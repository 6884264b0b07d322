"""The same bytes mean the same in whatever pieces they come, and no bytes make an exception escape.

Both ends are read by the code under test itself, the two connections between them are simulated: what is
written to one is kept, what is fed from it is cut where Hypothesis says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidToken
from gateway.proxy.connection import UpstreamConnection
from gateway.proxy.headers import RequestKinds, ResponseKinds
from gateway.proxy.plane import Plane
from gateway.proxy.protocol import GatewayProtocol
from gateway.proxy.routes import OPEN, Route, RouteTable
from gateway.tokens.access import AccessRule, decide
from tests.e2e.hostile_answers import ANSWERS
from tests.e2e.hostile_backend import Ambiguous, Sent, read_answers, strictly
from tests.e2e.hostile_framing import FRAMING
from tests.e2e.hostile_heads import HEADS
from tests.e2e.hostile_rows import HIDDEN
from tests.e2e.hostile_targets import TARGETS

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n"
GUARDED = AccessRule(auth="required", roles_any=frozenset(), scopes_all=frozenset(), live=False)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


class Wire:
    """One simulated connection: what was written to it, and whether it has ended."""

    def __init__(self) -> None:
        self.written = b""
        self.closing = self.aborted = self.finished = self.paused = self.told = False

    def write(self, data: bytes) -> None:
        if not (self.closing or self.finished):
            self.written += data

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def write_eof(self) -> None:
        self.finished = True

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1) if name in {"peername", "sockname"} else default


class Pool:
    """Every exchange gets a connection of its own at once."""

    name, authority = "fuzz", b"upstream:80"

    def __init__(self) -> None:
        self.kinds = ResponseKinds()
        self.connections: list[UpstreamConnection] = []
        self.released = 0

    def acquire(self, exchange: Any, *, fresh: bool = False) -> None:
        connection = UpstreamConnection(cast("Any", self))
        connection.connection_made(cast("Any", Wire()))
        self.connections.append(connection)
        connection.serve(exchange)

    def release(self, connection: UpstreamConnection) -> None:
        self.released += 1

    def forget(self, connection: UpstreamConnection) -> None: ...


class Meters:
    """Counts nothing."""

    def rejected(self, route: str, error: str) -> None: ...
    def upstream_error(self, route: str, kind: str) -> None: ...
    def connection(self, side: str, change: int) -> None: ...
    def stream_closed(self, reason: str) -> None: ...
    def done(self, code: int, seconds: float) -> None: ...


class Doorkeeper:
    """A gate that knows no token."""

    access_cookie = b""

    def identify(self, token: bytes) -> None:
        raise InvalidToken("none is valid here")

    def find(self, tokens: Sequence[bytes], cookies: Sequence[bytes]) -> tuple[bytes | None, bool]:
        if len(tokens) > 1:
            raise InvalidToken("several")
        return (tokens[0] if tokens else None), False

    def verify(self, token: bytes) -> None:
        raise InvalidToken("none is valid here")

    def settle(self, claims: Any, rule: AccessRule, verdict: int, **_: object) -> None:
        decide(claims, rule)


class World:
    """One client connection, and the backends behind it, which answer each whole request with `answer`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer: bytes = ANSWER, limit: int = 32768) -> None:
        self.pool, self.answer, meters = Pool(), answer, Meters()
        routes = [
            Route("open", b"/open/", OPEN, self.pool, meters),
            Route("guarded", b"/guarded/", GUARDED, self.pool, meters),
            Route("inner", b"/open/vault/", GUARDED, self.pool, meters),
        ]
        self.plane = Plane(
            loop=loop,
            table=RouteTable(routes),
            gate=cast("Any", Doorkeeper()),
            realm="fuzz",
            kinds=RequestKinds([b"X-Auth-Request-User"]),
            identity=lambda claims: b"",
            meters=meters,
            new_trace=lambda: b"\r\n\r\n",
            max_header_bytes=limit,
        )
        state = SimpleNamespace(connections=set(), tasks=set(), default_headers=[])
        config = SimpleNamespace(loaded=True, loaded_app=None)
        self.client = Wire()
        self.protocol = GatewayProtocol(cast("Any", config), cast("Any", state), {"plane": self.plane})
        self.protocol.connection_made(cast("Any", self.client))
        self._waiting: list[bytes] = []

    def feed(self, pieces: Sequence[bytes]) -> None:
        """Send pieces as the socket would: none while reading is paused, none after the connection has ended."""
        for piece in pieces:
            self._waiting.append(piece)
            self.settle()

    def settle(self) -> None:
        """Let everything that is due happen, until nothing is left to do."""
        while self._step():
            pass

    def _step(self) -> bool:
        for connection in self.pool.connections:
            if self._answered(connection):
                return True
        if self._waiting and not self.client.paused and not self.client.closing:
            self.protocol.data_received(self._waiting.pop(0))
            return True
        return False

    def _answered(self, connection: UpstreamConnection) -> bool:
        wire = cast("Wire", connection.transport)
        if wire.closing and not wire.told:
            wire.told = True
            connection.connection_lost(None)
            return True
        if connection.lost or connection.served > 1 or connection.exchange is None:
            return False
        if not _whole(wire.written):
            return False
        connection.served = 2
        connection.data_received(self.answer)
        return True

    def sent(self) -> list[Sent]:
        """Return what reached the backends, each read by the strict grammar; X-Request-Id aside."""
        return [each for connection in self.pool.connections for each in strictly(_written(connection))]

    def end(self) -> None:
        """The client goes."""
        if not self.client.told:
            self.client.told = True
            self.protocol.connection_lost(None)
            self.settle()


def _written(connection: UpstreamConnection) -> bytes:
    return cast("Wire", connection.transport).written


def _whole(data: bytes) -> bool:
    try:
        requests = strictly(data)
    except Ambiguous:
        return False
    return bool(requests) and requests[-1].whole


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Cut data at places, each taken modulo its length."""
    at = sorted({place % len(data) for place in places} - {0}) if data else []
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def outcome(loop: asyncio.AbstractEventLoop, pieces: Sequence[bytes], limit: int = 32768) -> tuple[Any, ...]:
    """Return what the client and the backends got of a request in pieces."""
    world = World(loop, limit=limit)
    try:
        world.feed(pieces)
        client = world.client
        over = client.finished or client.closing
        return client.written, over, [(s.method, s.target, s.headers, s.body, s.whole) for s in world.sent()]
    finally:
        world.end()


def alike(loop: asyncio.AbstractEventLoop, data: bytes, places: Sequence[int], limit: int = 32768) -> None:
    whole = outcome(loop, [data], limit)
    assert outcome(loop, cut(data, places), limit) == whole
    assert outcome(loop, [data[at : at + 1] for at in range(len(data))], limit) == whole


SMALL = [row for row in (*FRAMING, *HEADS, *TARGETS) if len(row.data) < 2000 and b"/auth/" not in row.data]
FRAGMENTS = st.sampled_from(
    [
        REQUEST,
        HIDDEN,
        b"POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /guarded/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /open/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\nT:\r\n\r\n",
        b"HEAD /open/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /open/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /open/../guarded HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"\r\n",
        b"GET /open/x HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /open/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"nonsense\r\n\r\n",
    ]
)
SNIPPETS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b";", b"0", b"-", b"\xff", b"chunked", b"a"]
)
PLACES = st.lists(st.integers(0, 1 << 16), max_size=6)


@pytest.mark.parametrize("row", SMALL, ids=[row.name for row in SMALL])
def test_a_hostile_request_is_the_same_in_any_two_pieces(loop: asyncio.AbstractEventLoop, row: Any) -> None:
    whole = outcome(loop, [row.data])
    assert outcome(loop, [row.data[at : at + 1] for at in range(len(row.data))]) == whole
    step = max(1, len(row.data) // 12)
    for at in range(1, len(row.data), step):
        assert outcome(loop, [row.data[:at], row.data[at:]]) == whole, f"cut after {row.data[:at][-30:]!r}"


@FUZZ
@given(parts=st.lists(FRAGMENTS, min_size=1, max_size=4), places=PLACES)
def test_requests_in_a_row_are_the_same_in_any_pieces(
    loop: asyncio.AbstractEventLoop, parts: list[bytes], places: list[int]
) -> None:
    alike(loop, b"".join(parts), places)


@FUZZ
@given(part=st.sampled_from(SMALL), at=st.integers(0, 1 << 16), gone=st.integers(0, 3), put=SNIPPETS, places=PLACES)
def test_a_broken_request_is_the_same_in_any_pieces(
    loop: asyncio.AbstractEventLoop, part: Any, at: int, gone: int, put: bytes, places: list[int]
) -> None:
    place = at % len(part.data)
    alike(loop, part.data[:place] + put + part.data[place + gone :], places)


@FUZZ
@given(size=st.integers(100, 700), shape=st.sampled_from(["value", "space", "target", "name", "lines"]), places=PLACES)
def test_the_limit_of_a_head_is_the_same_in_any_pieces(
    loop: asyncio.AbstractEventLoop, size: int, shape: str, places: list[int]
) -> None:
    target, more = b"/open/x", b""
    if shape == "target":
        target = b"/open/" + b"x" * size
    else:
        more = {
            "value": b"X-A: " + b"a" * size,
            "space": b"X-A:" + b" " * size + b"a",
            "name": b"a" * size + b": b",
            "lines": b"\r\n".join([b"X-A: b"] * (size // 8 + 1)),
        }[shape] + b"\r\n"
    alike(loop, b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target, more), places, limit=400)


@FUZZ
@given(data=st.binary(max_size=200), places=PLACES)
def test_no_bytes_make_an_exception_escape(loop: asyncio.AbstractEventLoop, data: bytes, places: list[int]) -> None:
    alike(loop, data or b"\0", places)


def test_a_long_row_of_upgrades_is_read_without_recursion(loop: asyncio.AbstractEventLoop) -> None:
    for upgrade in (b"h2c", b"websocket", b"x"):
        lines = b"Host: a\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
        for path in (b"/open/x", b"/guarded/x", b"/nowhere"):
            try:
                outcome(loop, [(b"GET %b HTTP/1.1\r\n%b" % (path, lines)) * 3000])
            except Exception as error:
                pytest.fail(f"{upgrade!r} {path!r}: {error!r} from {error.__context__!r}", pytrace=False)


# --- answers ---


def answered(loop: asyncio.AbstractEventLoop, pieces: Sequence[bytes], *, closes: bool) -> tuple[Any, ...]:
    """Return what the client gets of an answer that comes in pieces, and whether its connection is used again.

    An answer that breaks may be cut at any place: of such a one only that it is not whole is compared.
    """
    world = World(loop, answer=b"")
    try:
        world.feed([REQUEST])
        (connection,) = world.pool.connections
        wire = cast("Wire", connection.transport)
        for piece in pieces:
            if wire.closing or connection.lost:
                break
            connection.data_received(piece)
        if closes and not wire.closing:
            wire.told = True
            connection.connection_lost(None)
        world.settle()
        answers, whole = read_answers(world.client.written)
        final = [each for each in answers if each[0] >= 200]
        complete = whole and len(final) == 1
        if world.client.aborted or not complete:
            return ("broken",)
        return answers, world.pool.released, world.client.finished or world.client.closing
    finally:
        world.end()


REPLIES = [bad for bad in ANSWERS if len(bad.data) < 2000 and bad.method == "GET" and bad.then != "stall"]


@pytest.mark.parametrize("bad", REPLIES, ids=[bad.name for bad in REPLIES])
def test_a_hostile_answer_is_the_same_in_any_two_pieces(loop: asyncio.AbstractEventLoop, bad: Any) -> None:
    closes = bad.then == "close"
    whole = answered(loop, [bad.data], closes=closes)
    for at in range(1, len(bad.data), max(1, len(bad.data) // 12)):
        pieces = [bad.data[:at], bad.data[at:]]
        assert _same(answered(loop, pieces, closes=closes), whole), f"cut after {bad.data[:at][-30:]!r}"


@FUZZ
@given(bad=st.sampled_from(REPLIES), at=st.integers(0, 1 << 16), gone=st.integers(0, 3), put=SNIPPETS, places=PLACES)
@example(bad=REPLIES[0], at=0, gone=0, put=b"\r\n", places=[])
def test_a_broken_answer_is_the_same_in_any_pieces(
    loop: asyncio.AbstractEventLoop, bad: Any, at: int, gone: int, put: bytes, places: list[int]
) -> None:
    place = at % len(bad.data)
    data = bad.data[:place] + put + bad.data[place + gone :]
    whole = answered(loop, [data], closes=True)
    assert _same(answered(loop, cut(data, places), closes=True), whole)
    assert _same(answered(loop, [data[n : n + 1] for n in range(len(data))], closes=True), whole)


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Compare outcomes; a broken answer whose head was not out yet may be an error of the gateway's instead."""
    return one == other or (_failed(one) and _failed(other)) or _reused(one) == _reused(other)


def _failed(seen: tuple[Any, ...]) -> bool:
    return seen == ("broken",) or any(b"x-gateway-error" in fields for _, fields, _ in seen[0])


def _reused(seen: tuple[Any, ...]) -> object:
    """Return an outcome less whether the connection is used again, which hangs on what has come by the end."""
    return seen if seen == ("broken",) else (seen[0], seen[2])
