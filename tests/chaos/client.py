"""A client's kept connection to a gateway, over asyncio; answers as HTTP/1.1 with a Content-Length."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 5.0  # seconds; an answer that takes longer has hung


@dataclass(slots=True)
class Reply:
    """An answer. `begun` and `ended` are in seconds of time.monotonic; status 0 = there was none."""

    begun: float
    ended: float
    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    @property
    def kind(self) -> str:
        """The status, and the gateway's own code where the gateway itself answered."""
        return f"{self.status} {self.get('x-gateway-error')}".strip()

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]

    def get(self, name: str) -> str:
        return ", ".join(self.all(name))

    def json(self) -> Any:
        return json.loads(self.body)

    def cookie(self, name: str) -> str:
        """Return what a cookie is set to, '' where it is not."""
        found = [value.partition(";")[0].partition("=") for value in self.all("set-cookie")]
        return next((value for each, _, value in found if each == name), "")

    def clears_a_cookie(self) -> bool:
        texts = [value.lower() for value in self.all("set-cookie")]
        return any("max-age=0" in text or text.partition(";")[0].endswith("=") for text in texts)


class Http:
    """One connection at a time; a new one where the gateway ended the last."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> Reply:
        """Send a request and return its answer; never raises, for no answer is one too (status 0)."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._ask(data, begun)
        except (OSError, EOFError, ValueError) as error:  # TimeoutError is an OSError
            self.close()
            return Reply(begun, time.monotonic(), 0, body=repr(error).encode())

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, data: bytes, begun: float) -> Reply:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        reply = Reply(begun, 0.0, int(first[9:12]), [(name.lower(), value.strip()) for name, _, value in pairs])
        reply.body = await reader.readexactly(int(reply.get("content-length") or 0))
        reply.ended = time.monotonic()
        if "close" in reply.get("connection"):
            self.close()
        return reply
