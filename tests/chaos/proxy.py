"""A TCP proxy before Redis that does what networks and servers do when they fail.

It runs on an event loop of its own thread; every method may be called from any thread. A connection
to Redis is opened with the first bytes that a client sends, by which it is known who it is: the live
check says its name, the store begins with a command.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
LIVE, STORE = "live check", "store"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s; closing sends a reset


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 30) -> T:
        """Run a coroutine there and wait for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    async def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to bytes on their way. Lost bytes are not gone: they arrive once the way is clear, as TCP's do."""

    delay: float = 0.0  # seconds that each piece of a reply is held back
    lose_requests: bool = False
    lose_replies: bool = False
    cut_after: int = -1  # bytes of a reply after which the connection is reset; -1 = never
    garbage: bytes = b""  # what comes in the place of a reply


CLEAR = Weather()


@dataclass(slots=True)
class Opening:
    """A connection that a gateway opened; `at` is in seconds of time.monotonic."""

    at: float
    kind: str


class Proxy:
    """The way from one gateway to Redis: 127.0.0.1:`port` -> 127.0.0.1:`target`."""

    def __init__(self, thread: LoopThread) -> None:
        self._thread = thread
        self._weather = CLEAR
        self._changed = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._place = _bound(0)  # never listens: it keeps the port while connections are refused
        self.port: int = self._place.getsockname()[1]
        self.target = 0
        self.openings: list[Opening] = []
        self.most = 0  # connections at one time
        self.accept()

    def set(self, weather: Weather) -> None:
        """From here on this happens, to connections that stand as to new ones."""
        self._thread.run(self._set(weather))

    def refuse(self) -> None:
        """Reset what is connected, and refuse what comes."""
        self._thread.run(self._refuse())

    def accept(self) -> None:
        self._thread.run(self._accept())

    def reset(self) -> None:
        """Reset every connection."""
        self._thread.run(self._reset())

    def close(self) -> None:
        self.refuse()
        self._thread.run(self._end_links())
        self._place.close()

    def opened(self, since: float, until: float, kind: str = "") -> int:
        """Return how many connections were opened in between."""
        return sum(since <= each.at < until and kind in ("", each.kind) for each in list(self.openings))

    async def _set(self, weather: Weather) -> None:
        self._weather = weather
        self._changed.set()
        self._changed = asyncio.Event()

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, sock=_bound(self.port), backlog=512)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    async def _reset(self) -> None:
        for writer in list(self._open):
            _abort(writer)

    async def _end_links(self) -> None:
        for task in list(self._links):
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        self._open.add(writer)
        self.most = max(self.most, len(self._links))
        try:
            with suppress(OSError):
                await self._link(reader, writer)
        finally:
            self._open.discard(writer)
            self._links.discard(task)
            _abort(writer)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened_at = time.monotonic()
        first = await reader.read(1 << 16)
        if not first:
            return
        self.openings.append(Opening(opened_at, LIVE if b"tokengate-live" in first else STORE))
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._open.add(up_writer)
        both = [
            asyncio.ensure_future(self._requests(first, reader, up_writer)),
            asyncio.ensure_future(self._replies(up_reader, writer)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._open.discard(up_writer)
            _abort(up_writer)

    async def _requests(self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data:
            while self._weather.lose_requests:
                await self._changed.wait()
            writer.write(data)
            await writer.drain()
            data = await reader.read(1 << 16)

    async def _replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            while self._weather.lose_replies:
                await self._changed.wait()
            weather = self._weather
            if weather.delay:
                await asyncio.sleep(weather.delay)
            if weather.cut_after >= 0:
                writer.write(data[: weather.cut_after])
                await asyncio.sleep(0.001)  # what was written goes out before the reset
                return
            writer.write(weather.garbage or data)
            await writer.drain()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.transport.is_closing():
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
