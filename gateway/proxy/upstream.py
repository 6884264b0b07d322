"""Pools of connections to backends: which backend, which connection, and how many.

Laws:
- A connection serves one exchange at a time and goes back to its pool only after a whole request and
  a whole answer on a connection that both sides keep (RFC 9112 9.3).
- Connections and waiting exchanges are bounded; past the bounds an exchange is refused with Overloaded.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway import errors
from gateway.proxy.connection import UpstreamConnection
from gateway.proxy.headers import ResponseKinds

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.plane import Meters

IDLE_SECONDS = 4.0  # shorter than the keep-alive of common backends (Node and uvicorn: 5 s)


class Upstream:
    """The pool of connections to one backend address, for one worker.

    `connect_timeout` is in seconds. At most `max_connections` are open and `max_waiting` exchanges wait
    for one; past that an exchange is refused with Overloaded.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        loop: asyncio.AbstractEventLoop,
        connect_timeout: float = 2.0,
        context: ssl.SSLContext | None = None,
        max_connections: int = 1024,
        max_waiting: int = 4096,
        kinds: ResponseKinds | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.loop = loop
        self.connect_timeout = connect_timeout
        self.context = context
        self.max_connections = max_connections
        self.max_waiting = max_waiting
        self.kinds = kinds if kinds is not None else ResponseKinds()
        default = 443 if context is not None else 80
        shown = f"[{host}]" if ":" in host else host
        self.authority = (shown if port == default else f"{shown}:{port}").encode("ascii")
        self.idle: list[UpstreamConnection] = []
        self.waiting: deque[Exchange] = deque()
        self.open = 0
        self._meters = meters
        self._connections: set[UpstreamConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Upstream {self.name} open={self.open} idle={len(self.idle)}>"

    @property
    def busy(self) -> int:
        """How many exchanges are with this backend, or wait for it."""
        return self.open - len(self.idle) + len(self.waiting)

    def acquire(self, exchange: Exchange, *, fresh: bool = False) -> None:
        """Give an exchange a connection: kept, new, or the next that comes free."""
        idle = self.idle
        if idle and not fresh:
            idle.pop().serve(exchange)
        elif self.open < self.max_connections:
            self.open += 1
            task = self.loop.create_task(self._connect(exchange))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(self.waiting) < self.max_waiting:
            self.waiting.append(exchange)
        else:
            exchange.refuse(errors.Overloaded("upstream connections"))

    async def _connect(self, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self.connect_timeout):
                _, connection = await self.loop.create_connection(
                    lambda: UpstreamConnection(self),
                    self.host,
                    self.port,
                    ssl=self.context,
                    server_hostname=self.host if self.context is not None else None,
                )
        except (OSError, TimeoutError, UnicodeError) as error:
            self.open -= 1
            exchange.upstream_lost(errors.UpstreamUnreachable(type(error).__name__), reused=False)
            self._serve_waiting()
            return
        self._connections.add(connection)
        if self._meters is not None:
            self._meters.connection("upstream", 1)
        self._hand_out(connection, exchange)

    def _hand_out(self, connection: UpstreamConnection, exchange: Exchange) -> None:
        if connection.lost:
            self.forget(connection)
            exchange.upstream_lost(errors.UpstreamUnreachable("closed at once"), reused=False)
        elif exchange.done:
            self.release(connection)
        else:
            connection.serve(exchange)

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can serve again."""
        while self.waiting:
            exchange = self.waiting.popleft()
            if not exchange.done:
                connection.serve(exchange)
                return
        connection.idle_since = self.loop.time()
        self.idle.append(connection)
        if self._sweep is None:
            self._sweep = self.loop.call_later(IDLE_SECONDS, self._close_idle)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is lost (called by itself)."""
        if connection in self._connections:
            self._connections.discard(connection)
            self.open -= 1
            if self._meters is not None:
                self._meters.connection("upstream", -1)
        if connection in self.idle:
            self.idle.remove(connection)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self.waiting and self.open < self.max_connections:
            exchange = self.waiting.popleft()
            if not exchange.done:
                self.acquire(exchange)

    def _close_idle(self) -> None:
        """Close what has been idle for long; the oldest stand first, because the pool is a stack."""
        self._sweep = None
        limit = self.loop.time() - IDLE_SECONDS
        for connection in [c for c in self.idle if c.idle_since <= limit]:
            self.idle.remove(connection)
            connection.transport.close()
        if self.idle:
            self._sweep = self.loop.call_later(IDLE_SECONDS / 4, self._close_idle)

    def close(self) -> None:
        """Close idle connections; busy ones end with their exchange."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()


class UpstreamGroup:
    """Several backends of one route: the one with the fewest exchanges is chosen, in turn among equals."""

    __slots__ = ("_turn", "upstreams")

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self.upstreams = list(upstreams)
        self._turn = 0

    def acquire(self, exchange: Exchange, *, fresh: bool = False) -> None:
        """Give an exchange a connection to one of the backends."""
        self._turn = turn = (self._turn + 1) % len(self.upstreams)
        order = self.upstreams[turn:] + self.upstreams[:turn]
        min(order, key=lambda upstream: upstream.busy).acquire(exchange, fresh=fresh)

    def close(self) -> None:
        for upstream in self.upstreams:
            upstream.close()
