"""A backend that keeps every byte it gets and reads it twice: by h11, and by a grammar stricter than any server's.

What two independent readers of RFC 9112 agree on, byte for byte, has one reading. The grammar takes no liberty:
one space where there may be any white space, no extension, no trailer, no leading zero, no folded line.
"""

from __future__ import annotations

import fcntl
import re
import select
import selectors
import socket
import struct
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import h11

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEADLESS = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-\"$-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,18}")
_ANSWER = re.compile(rb"HTTP/1\.1 ([0-9]{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_CHUNK = re.compile(rb"([1-9a-fA-F][0-9a-fA-F]{0,14})\r\n")
ONCE = (b"host", b"content-length", b"transfer-encoding", b"authorization", b"x-forwarded-for", b"x-request-id")


class Ambiguous(Exception):
    """Not HTTP by the strict grammar."""


@dataclass(slots=True)
class Sent:
    """One request as it reached the backend. Header names are lower case."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = False

    def all(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.headers if each == name]


@dataclass(slots=True)
class Received:
    """What came over one connection since it was last asked, and what h11 made of it."""

    data: bytes
    requests: list[Sent]
    error: str
    ended: bool


def strictly(data: bytes) -> list[Sent]:
    """Return the requests that `data` is; the last one may be cut short. Raises Ambiguous."""
    requests = []
    while data:
        sent, data = _strict_request(data)
        requests.append(sent)
    return requests


def _strict_request(data: bytes) -> tuple[Sent, bytes]:
    head, mark, rest = data.partition(b"\r\n\r\n")
    if not mark:
        return Sent(b"", b""), b""
    first, *lines = head.split(b"\r\n")
    match = _LINE.fullmatch(first)
    if match is None:
        raise Ambiguous(f"request line {first!r}")
    sent = Sent(match[1], match[2])
    for line in lines:
        header = _FIELD.fullmatch(line)
        if header is None:
            raise Ambiguous(f"header line {line!r}")
        sent.headers.append((header[1].lower(), header[2]))
    return _strict_body(sent, rest)


def _strict_body(sent: Sent, rest: bytes) -> tuple[Sent, bytes]:
    for name in ONCE:
        if len(sent.all(name)) > 1:
            raise Ambiguous(f"{name!r} several times")
    if not sent.all(b"host"):
        raise Ambiguous("no Host")
    length, coding = sent.all(b"content-length"), sent.all(b"transfer-encoding")
    if length and coding:
        raise Ambiguous("Content-Length and Transfer-Encoding")
    if coding:
        if coding != [b"chunked"]:
            raise Ambiguous(f"transfer coding {coding!r}")
        return _strict_chunks(sent, rest)
    size = 0
    if length:
        if not _LENGTH.fullmatch(length[0]):
            raise Ambiguous(f"Content-Length {length[0]!r}")
        size = int(length[0])
    sent.body, sent.whole = rest[:size], len(rest) >= size
    return sent, rest[size:]


def _strict_chunks(sent: Sent, rest: bytes) -> tuple[Sent, bytes]:
    while rest:
        if rest.startswith(b"0\r\n\r\n"):
            sent.whole = True
            return sent, rest[5:]
        match = _CHUNK.match(rest)
        if match is None:
            if len(rest) < 17 and b"\r\n" not in rest:
                break  # cut short
            raise Ambiguous(f"chunk {rest[:40]!r}")
        size = int(match[1], 16)
        piece, after = rest[match.end() : match.end() + size], rest[match.end() + size :]
        sent.body += piece
        if after and not after.startswith((b"\r\n", b"\r")):
            raise Ambiguous(f"a chunk that ends in {after[:2]!r}")
        rest = after[2:]
    return sent, b""


def read_answers(data: bytes, *, head_only: bool = False) -> tuple[list[tuple[int, bytes, bytes]], bool]:
    """Return (status, head less its framing, content) of the answers that a client got, and whether all are whole.

    `head_only`: they answer HEAD.
    """
    answers: list[tuple[int, bytes, bytes]] = []
    while data:
        match = _ANSWER.match(data)
        if match is None:
            return answers, False
        data, fields = data[match.end() :], match[2].lower()
        status, content = int(match[1]), b""
        if head_only:
            answers.append((status, fields, content))
            continue
        if b"\r\ntransfer-encoding: chunked\r\n" in b"\r\n" + fields:
            while not data.startswith(b"0\r\n\r\n"):
                size, mark, rest = data.partition(b"\r\n")
                if not mark or len(rest) < int(size, 16) + 2:
                    return answers, False
                content += rest[: int(size, 16)]
                data = rest[int(size, 16) + 2 :]
            data = data[5:]
        elif length := re.search(rb"(?:^|\r\n)content-length: ([0-9]+)\r\n", fields):
            content, data = data[: int(length[1])], data[int(length[1]) :]
            if len(content) < int(length[1]):
                return answers, False
        answers.append((status, fields, content))
    return answers, True


class _Connection:
    """One connection that the gateway made, read by h11."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.parser = h11.Connection(h11.SERVER)
        self.data = b""
        self.requests: list[Sent] = []
        self.error = ""
        self.ended = False

    def read(self) -> bool:
        """Read what is there and answer what is whole; False where the connection is over."""
        try:
            data = self.socket.recv(1 << 18)
        except OSError:
            data = b""
        self.data += data
        if not data:
            self.ended = True
            return False
        if not self.error:
            try:
                self.parser.receive_data(data)
                self._answer()
            except h11.RemoteProtocolError as error:
                self.error, self.ended = str(error), True
            except OSError:
                self.ended = True
        return not self.ended

    def _answer(self) -> None:
        while True:
            event = self.parser.next_event()
            if event in (h11.NEED_DATA, h11.PAUSED):
                return
            if isinstance(event, h11.Request):
                self.requests.append(Sent(event.method, event.target, list(event.headers)))
            elif isinstance(event, h11.Data):
                self.requests[-1].body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                if event.headers:
                    self.error = f"trailers {event.headers!r}"
                self.requests[-1].whole = True
                self._say()

    def _say(self) -> None:
        head_only = self.requests[-1].method == b"HEAD"
        self.parser.send(h11.Response(status_code=200, headers=[("Content-Length", "2")]))
        if not head_only:
            self.parser.send(h11.Data(data=b"ok"))
        self.parser.send(h11.EndOfMessage())
        self.socket.sendall(HEADLESS if head_only else ANSWER)
        if self.parser.our_state is h11.MUST_CLOSE:
            self.error = "a request that ends the connection"
        else:
            self.parser.start_next_cycle()

    def take(self) -> Received:
        """Return what came since this was last asked; a request that is not whole stays in it only once."""
        received = Received(self.data, self.requests, self.error, self.ended)
        self.data, self.requests = b"", []
        return received


class Recorder:
    """A server on one thread: whatever it is asked it answers 200 `ok`, and remembers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._connections: list[_Connection] = []
        self._lock = threading.Lock()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def take(self) -> list[Received]:
        """Return, for every connection that got bytes since this was last asked, what it got."""
        deadline = time.monotonic() + 5
        while self._unread() and time.monotonic() < deadline:
            time.sleep(0.001)
        with self._lock:
            found = [connection.take() for connection in self._connections if connection.data]
            self._connections = [connection for connection in self._connections if not connection.ended]
        return found

    def ended(self) -> bool:
        """True where every connection whose request is not whole has been ended by the gateway."""
        with self._lock:
            return all(
                connection.ended for connection in self._connections if connection.parser.their_state is not h11.IDLE
            )

    def close(self) -> None:
        self._wake.close()
        self._thread.join(5)
        self._selector.close()
        for each in (self._listener, self._woken, *(connection.socket for connection in self._connections)):
            each.close()

    def _unread(self) -> bool:
        """True while bytes, or a connection, stand in the kernel that have not been taken."""
        with self._lock:
            sockets = [connection.socket for connection in self._connections if not connection.ended]
            pending = bool(select.select([self._listener], [], [], 0)[0])
            return pending or any(_waiting(each) for each in sockets)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._woken:
                    return
                with self._lock:
                    self._serve(key)

    def _serve(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            accepted, _ = self._listener.accept()
            accepted.settimeout(5)
            connection = _Connection(accepted)
            self._connections.append(connection)
            self._selector.register(accepted, selectors.EVENT_READ, connection)
        elif not key.data.read():
            self._selector.unregister(key.fileobj)
            with suppress(OSError):
                key.data.socket.close()


def _waiting(each: socket.socket) -> int:
    size: int = struct.unpack("i", fcntl.ioctl(each.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0]
    return size


@contextmanager
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    try:
        yield made
    finally:
        made.close()
