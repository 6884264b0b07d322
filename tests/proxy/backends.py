"""Backends on loopback addresses of their own, and callers that take what a pool gives them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from gateway.errors import GatewayError
from gateway.proxy.balancer import Bounds, UpstreamGroup
from gateway.proxy.exchange import Exchange
from gateway.proxy.resolver import Resolver
from tests import redis_server

HOSTS = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
PATIENCE = 5.0  # seconds


def free_port(hosts: Sequence[str] = HOSTS) -> int:
    """Return a port that is free on all of these addresses."""
    while True:
        probes = [socket.socket() for _ in hosts]
        try:
            port = redis_server.free_port()
            for probe, host in zip(probes, hosts, strict=True):
                probe.bind((host, port))
        except OSError:
            continue
        else:
            return port
        finally:
            for probe in probes:
                probe.close()


class Listening:
    """A backend that accepts and says nothing. `open` are its connections."""

    def __init__(self) -> None:
        self.open: set[asyncio.StreamWriter] = set()
        self.accepted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        self.accepted += 1
        try:
            while await reader.read(1024):
                pass
        except OSError:
            pass
        finally:
            self.open.discard(writer)
            writer.close()


@asynccontextmanager
async def listening(host: str, port: int) -> AsyncIterator[Listening]:
    backend = Listening()
    server = await asyncio.start_server(backend.serve, host, port)
    try:
        yield backend
    finally:
        server.close()
        for writer in list(backend.open):
            writer.close()
        await server.wait_closed()
        await until(lambda: not backend.open)


class _Meters:
    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []

    def upstream_error(self, route: str, kind: str) -> None:
        self.errors.append((route, kind))


class Caller:
    """Stands for an exchange: it holds the connection that it gets until `give_back`."""

    def __init__(self) -> None:
        self.done = False
        self.connection: Any = None
        self.error: GatewayError | None = None
        self.protocol = type("Protocol", (), {"write_paused": False})()
        self.route = type("Named", (), {"name": "/api/"})()
        self.plane = type("Plane", (), {"meters": _Meters()})()
        self._settled = asyncio.Event()

    def connected(self, connection: Any) -> None:
        self.connection = connection
        self._settled.set()

    def upstream_lost(self, error: GatewayError, *, reused: bool) -> None:
        assert not reused
        self.refuse(error)

    def refuse(self, error: GatewayError) -> None:
        assert self.error is None, "told twice"
        self.error = error
        self.done = True
        self._settled.set()

    async def settled(self) -> Caller:
        async with asyncio.timeout(PATIENCE):
            await self._settled.wait()
        return self

    @property
    def waits(self) -> bool:
        return not self._settled.is_set()

    @property
    def address(self) -> str:
        """The address of the backend that it got."""
        assert self.connection is not None, self.error
        found: str = self.connection.pool.target.address
        return found

    def give_back(self) -> None:
        self.connection.exchange = None
        self.connection.pool.release(self.connection)


def ask(group: UpstreamGroup, *, fresh: bool = False) -> Caller:
    caller = Caller()
    group.acquire(cast(Exchange, caller), fresh=fresh)
    return caller


async def asked(group: UpstreamGroup, *, fresh: bool = False) -> Caller:
    return await ask(group, fresh=fresh).settled()


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


class Names:
    """A name server: `addresses` of one name that one can change; an exception there is raised."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] | Exception = addresses
        self.asked = 0
        self.hold: asyncio.Event | None = None

    async def look_up(self, host: str) -> Sequence[str]:
        self.asked += 1
        if self.hold is not None:
            await self.hold.wait()
        if isinstance(self.addresses, Exception):
            raise self.addresses
        return self.addresses


@asynccontextmanager
async def grouped(
    *origins: tuple[str, int], names: Names | None = None, interval: float = 0.02, timeout: float = 5.0, **bounds: Any
) -> AsyncIterator[UpstreamGroup]:
    """Yield a group; `bounds` are those of Bounds."""
    loop = asyncio.get_running_loop()
    lookup = (names or Names()).look_up
    resolver = Resolver(loop, interval=interval, timeout=timeout, lookup=lookup)
    group = UpstreamGroup(origins, resolver, Bounds(**bounds))
    try:
        yield group
    finally:
        group.close()
        resolver.close()
        group.waiting.clear()
        for upstream in group.upstreams:
            for connection in list(upstream._connections):  # held by a caller
                connection.exchange = None
                connection.transport.abort()
        await until(lambda: all(upstream.open == 0 for upstream in group.upstreams))
