"""A client over one kept connection, fast enough to be a load: answers with Content-Length alone, in order."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

TIMEOUT = 30.0  # seconds for an answer, beyond anything that a healthy gateway needs


class Reply(NamedTuple):
    """An answer. `head` is in lower case."""

    status: int
    head: bytes
    body: bytes

    @property
    def closes(self) -> bool:
        return b"\r\nconnection: close" in self.head


class Link(asyncio.Protocol):
    """One connection. `ask` may be called again once it has answered. Raises ConnectionError when it is lost."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._data = b""
        self._gone = asyncio.Event()
        self._waiting: asyncio.Future[Reply] | None = None
        self.transport: asyncio.Transport
        self.lost = False

    @classmethod
    async def open(cls, port: int) -> Link:
        async with asyncio.timeout(TIMEOUT):
            _, link = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return link

    async def ask(self, data: bytes) -> Reply:
        if self.lost:
            raise ConnectionError("lost before the request")
        self._waiting = self._loop.create_future()
        self.transport.write(data)
        async with asyncio.timeout(TIMEOUT):
            return await self._waiting

    async def close(self) -> None:
        """Break the connection off, and wait until it is gone."""
        self.lost = True
        self.transport.abort()
        await self._gone.wait()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        _, found, rest = head.partition(b"\r\ncontent-length: ")
        length = int(rest.partition(b"\r\n")[0]) if found else 0
        body = self._data[end + 4 :]
        if len(body) < length:
            return
        waiting, self._waiting, self._data = self._waiting, None, b""
        if waiting is not None and not waiting.done():
            waiting.set_result(Reply(int(head[9:12]), head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._gone.set()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("lost before the answer"))
