"""python -m benchmarks.websocket_backend PORT: accepts every WebSocket (RFC 6455) and answers each frame with one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HELLO = b"\x81\x02hi"  # a final text frame, unmasked, as a server sends it


class WebSocket(asyncio.Protocol):
    """One connection; a read is taken for one frame, which holds for the small ones that footprint sends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open = False

    def data_received(self, data: bytes) -> None:
        if self._open:
            self._transport.write(HELLO)
            return
        key = re.search(rb"(?i)\r\nsec-websocket-key:[ \t]*([^\r]+)", data)
        if key is None:
            self._transport.write(b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n")
            return
        self._open = True
        accept = base64.b64encode(hashlib.sha1(key[1] + GUID, usedforsecurity=False).digest())
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )


async def main(port: int) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(WebSocket, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
