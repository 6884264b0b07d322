"""What a connection costs in memory: idle ones, kept open after a request each, and WebSockets.

A peer is started afresh for each count, so that what earlier loads left in its allocator hides nothing. The
figure is the growth of the process trees' PSS over the connections; the kernel's socket buffers are not in it.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks import machine
from benchmarks.measure import Peer

IDLE = 10_000
WEBSOCKETS = 5_000
PATIENCE = 10.0  # seconds for one connection
TRIES = 20
_PING = b"\x81\x82\x00\x00\x00\x00hi"  # a final text frame, masked with zeros, as a client sends it


class NotTaken(Exception):
    """The upgrade was answered with something other than 101; the message says what."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """`before` and `after` are bytes, with no connection open and with `count` of them."""

    count: int
    before: int
    after: int

    @property
    def each(self) -> float:
        return (self.after - self.before) / self.count


@contextlib.contextmanager
def websocket_backend(folder: Path) -> Iterator[int]:
    """Run what answers upgrades; yield its port."""
    port = machine.free_port()
    command = [sys.executable, "-m", "benchmarks.websocket_backend", str(port)]
    with machine.process(command, machine.listening(port), folder / "websocket.log", on=machine.cores().rest):
        yield port


def idle(peer: Peer, count: int = IDLE) -> Footprint:
    """Open connections, make a request on each and keep them. Raises OSError."""
    return _grow(peer, count, lambda stack: _get(_open(peer, stack), peer))


def websockets(peer: Peer, count: int = WEBSOCKETS) -> Footprint:
    """Open WebSockets, send a frame on each and keep them. Raises NotTaken or OSError."""
    return _grow(peer, count, lambda stack: open_websocket(peer, stack))


def open_websocket(peer: Peer, stack: contextlib.ExitStack) -> None:
    """Open a WebSocket that stands as long as the stack. Raises NotTaken or OSError.

    A proxy on a machine that is busy with something else gets it a few times.
    """
    for left in reversed(range(TRIES)):
        try:
            _upgrade(_open(peer, stack), peer)
        except NotTaken as error:
            if "503" not in str(error) or not left:
                raise
            time.sleep(0.5)
        else:
            return


def _grow(peer: Peer, count: int, open_one: Callable[[contextlib.ExitStack], None]) -> Footprint:
    with contextlib.ExitStack() as stack:
        for _ in range(10):  # what the first requests load and make
            open_one(stack)
        before = machine.memory(peer.pids)
        for at in range(count):
            try:
                open_one(stack)
            except TimeoutError as error:
                raise OSError(f"connection {at + 11:,} was not served within {PATIENCE:g} s") from error
        return Footprint(count, before, machine.memory(peer.pids))


def _open(peer: Peer, stack: contextlib.ExitStack) -> socket.socket:
    url = urlsplit(peer.url)
    connection = stack.enter_context(socket.create_connection((url.hostname or "", url.port or 80), PATIENCE))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _head(peer: Peer, path: str, more: str = "") -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in peer.headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: {urlsplit(peer.url).netloc}\r\n{headers}{more}\r\n".encode()


def _get(connection: socket.socket, peer: Peer) -> None:
    connection.sendall(_head(peer, "/1k"))
    head, body = _answer(connection)
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(f"{peer.name}: {head[:80]!r}")
    while len(body) < 1024:
        body += _some(connection)


def _upgrade(connection: socket.socket, peer: Peer) -> None:
    upgrade = (
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    connection.sendall(_head(peer, "/socket", upgrade))
    head, body = _answer(connection)
    if not head.startswith(b"HTTP/1.1 101"):
        raise NotTaken(head.partition(b"\r\n")[0].decode("latin-1"))
    connection.sendall(_PING)
    while len(body) < 4:
        body += _some(connection)


def _answer(connection: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise OSError("closed early")
    return data
