"""The pool of connections to one address of a backend.

Laws:
- A connection serves one exchange at a time and goes back to its pool only after a whole request and
  a whole answer on a connection that both sides keep (RFC 9112 9.3).
- Whoever waits for a connection waits with the group (balancer.py), for whichever backend is free first.
- A pool that is retired gives nothing back: its connections end with the exchanges that they serve.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.proxy.connection import UpstreamConnection

if TYPE_CHECKING:
    from gateway.proxy.balancer import UpstreamGroup

IDLE_SECONDS = 4.0  # shorter than the keep-alive of common backends (Node and uvicorn: 5 s)


class Unreachable(Exception):
    """No connection could be made. The text says why, for the log alone."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes: `address` and `port` by TCP, `host` by name in TLS and in `Host`."""

    host: str
    address: str
    port: int


class Upstream:
    """The connections to one address. `open` counts them with those that are being made."""

    def __init__(self, group: UpstreamGroup, target: Target, tier: int = 0) -> None:
        self.group = group
        self.target = target
        self.tier = tier
        self.loop = group.loop
        self.kinds = group.kinds
        self.name = f"{target.host}:{target.port}"
        default = 443 if group.context is not None else 80
        shown = f"[{target.host}]" if ":" in target.host else target.host
        self.authority = (shown if target.port == default else f"{shown}:{target.port}").encode("ascii")
        bare = target.address
        self.place = f"[{bare}]:{target.port}" if ":" in bare else f"{bare}:{target.port}"  # for logs
        self.idle: list[UpstreamConnection] = []
        self.open = 0
        self.failures = self.ejections = 0
        self.ejected = self.retired = False
        self._connections: set[UpstreamConnection] = set()
        self._sweep: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Upstream {self.name} at {self.target.address} open={self.open} idle={len(self.idle)}>"

    async def connect(self) -> UpstreamConnection:
        """Return a connection; its place in `open` has been taken before. Raises Unreachable."""
        context: ssl.SSLContext | None = self.group.context
        try:
            async with asyncio.timeout(self.group.bounds.connect_timeout):
                _, connection = await self.loop.create_connection(
                    lambda: UpstreamConnection(self),
                    self.target.address,
                    self.target.port,
                    ssl=context,
                    server_hostname=self.target.host if context is not None else None,
                )
            if connection.lost:
                raise ConnectionResetError("closed at once")
        except (OSError, ValueError, RuntimeError) as error:  # TimeoutError and ssl.SSLError are OSErrors
            self.open -= 1
            raise Unreachable(f"{type(error).__name__} {error}".rstrip()) from None
        except BaseException:
            self.open -= 1
            raise
        self._connections.add(connection)
        self.group.count(1)
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Take back a connection that can serve again."""
        if self.retired:
            connection.transport.close()
            return
        if self.group.waiting:
            exchange = self.group.next_waiting()
            if exchange is not None:
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
            self.group.count(-1)
        if connection in self.idle:
            self.idle.remove(connection)
        if self.group.waiting:
            self.group.serve_waiting()

    def retire(self) -> None:
        """Close idle connections; busy ones end with their exchange."""
        self.retired = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for connection in self.idle:
            connection.transport.close()
        self.idle.clear()

    def _close_idle(self) -> None:
        """Close what has been idle for long; the oldest stand first, because the pool is a stack."""
        self._sweep = None
        limit = self.loop.time() - IDLE_SECONDS
        for connection in [c for c in self.idle if c.idle_since <= limit]:
            self.idle.remove(connection)
            connection.transport.close()
        if self.idle:
            self._sweep = self.loop.call_later(IDLE_SECONDS / 4, self._close_idle)
