"""A steady load over kept connections, from a thread of its own, that counts every request that failed.

A client as HTTP asks for: it uses a connection until an answer says `Connection: close` and then makes a
new one (RFC 9112 9.6). Nothing is tried twice: an end without an answer, a reset, a refused connection
or a wrong status is a failure.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

OPEN_TIMEOUT = 10.0  # seconds


class Load:
    """Requests a second are about `clients / pause`. `ports` says where connections are made at the moment."""

    def __init__(self, ports: Callable[[], Sequence[int]], data: bytes, clients: int, pause: float) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self.closes = 0
        self.by_port: Counter[int] = Counter()
        self._ports = ports
        self._data = data
        self._clients = clients
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self._clients)))

    async def _client(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            ports = self._ports()
            turn += 1
            port = ports[turn % len(ports)]
            try:
                await self._connection(port)
            except (OSError, EOFError, TimeoutError, asyncio.IncompleteReadError) as error:
                self.failures.append(f"{type(error).__name__} {error} on {port} after {self.total} answers")

    async def _connection(self, port: int) -> None:
        async with asyncio.timeout(OPEN_TIMEOUT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while not self._stop.is_set():
                if not await self._request(reader, writer, port):
                    self.closes += 1
                    return
                await asyncio.sleep(self._pause)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> bool:
        """Send one request and read its answer; return whether the connection stays open."""
        writer.write(self._data)
        async with asyncio.timeout(OPEN_TIMEOUT):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        status = int(head[9:12])
        self.answers[status] += 1
        self.by_port[port] += 1
        if status != 200:
            self.failures.append(f"status {status}: {head!r}")
        return b"connection: close" not in head


@contextmanager
def load(ports: Callable[[], Sequence[int]], data: bytes, *, clients: int = 8, pause: float = 0.005) -> Iterator[Load]:
    made = Load(ports, data, clients, pause)
    made.start()
    try:
        yield made
    finally:
        made.stop()
