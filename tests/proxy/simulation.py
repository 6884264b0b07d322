"""One client connection and the backends behind it, simulated: both ends are read by the code under test itself.

What is written to a wire is kept; what is fed from it comes in the pieces that a test says. Nothing waits: a
clock that stands still never calls back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from gateway.errors import InvalidToken
from gateway.proxy.connection import UpstreamConnection
from gateway.proxy.headers import RequestKinds, ResponseKinds
from gateway.proxy.plane import Plane
from gateway.proxy.protocol import GatewayProtocol
from gateway.proxy.routes import OPEN, Route, RouteTable
from gateway.tokens.access import AccessRule, decide
from tests.e2e.hostile_backend import Ambiguous, Sent, read_answers, strictly

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
REQUEST = b"GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n"
GUARDED = AccessRule(auth="required", roles_any=frozenset(), scopes_all=frozenset(), live=False)
OWN_COOKIES = (b"__Secure-refresh", b"__Host-access")


class Still:
    """The part of an event loop that the data plane asks for: turns, and a time that stands still."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []

    def time(self) -> float:
        return 1000.0

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.soon.append(callback)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Any:
        return SimpleNamespace(cancel=lambda: None)


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

    def __init__(self, answer: bytes = ANSWER, limit: int = 32768) -> None:
        self.pool, self.answer, meters = Pool(), answer, Meters()
        self.loop = Still()
        routes = [
            Route("open", b"/open/", OPEN, self.pool, meters),
            Route("guarded", b"/guarded/", GUARDED, self.pool, meters),
            Route("inner", b"/open/vault/", GUARDED, self.pool, meters),
        ]
        self.plane = Plane(
            loop=cast("Any", self.loop),
            table=RouteTable(routes),
            gate=cast("Any", Doorkeeper()),
            realm="fuzz",
            kinds=RequestKinds([b"X-Auth-Request-User"]),
            identity=lambda claims: b"",
            meters=meters,
            own_cookies=OWN_COOKIES,
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
        if self.loop.soon:
            self.loop.soon.pop(0)()
            return True
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


def bytewise(data: bytes) -> list[bytes]:
    """Cut data at every place."""
    return [data[at : at + 1] for at in range(len(data))]


def outcome(pieces: Sequence[bytes], limit: int = 32768) -> tuple[Any, ...]:
    """Return what the client and the backends got of requests in pieces."""
    world = World(limit=limit)
    try:
        world.feed(pieces)
        client = world.client
        over = client.finished or client.closing
        return client.written, over, [(s.method, s.target, s.headers, s.body, s.whole) for s in world.sent()]
    finally:
        world.end()


def answering(pieces: Sequence[bytes], *, closes: bool, request: bytes = REQUEST) -> World:
    """Return a world in which one request was answered with these pieces. The caller ends it."""
    world = World(answer=b"")
    world.feed([request])
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
    return world


def answered(pieces: Sequence[bytes], *, closes: bool) -> tuple[Any, ...]:
    """Return what the client gets of an answer that comes in pieces (see `summary`)."""
    world = answering(pieces, closes=closes)
    try:
        return summary(world)
    finally:
        world.end()


def summary(world: World, *, head_only: bool = False) -> tuple[Any, ...]:
    """Return (answers, times a backend's connection was kept, whether the client's has ended).

    An answer that breaks may be cut at any place: of such a one only that it is not whole is told.
    """
    answers, whole = read_answers(world.client.written, head_only=head_only)
    final = [each for each in answers if each[0] >= 200]
    if world.client.aborted or not (whole and len(final) == 1):
        return ("broken",)
    return answers, world.pool.released, world.client.finished or world.client.closing


def same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Compare outcomes; a broken answer whose head was not out yet may be an error of the gateway's instead."""
    return one == other or (_failed(one) and _failed(other)) or _reused(one) == _reused(other)


def _failed(seen: tuple[Any, ...]) -> bool:
    return seen == ("broken",) or any(b"x-gateway-error" in fields for _, fields, _ in seen[0])


def _reused(seen: tuple[Any, ...]) -> object:
    """Return an outcome less whether the connection is used again, which hangs on what has come by the end."""
    return seen if seen == ("broken",) else (seen[0], seen[2])
