"""A client over a blocking socket: it sends what it is told, byte for byte, and reads answers strictly.

What an answer may look like is RFC 9112 6 and 7; anything else is a `WireError`, so that a gateway that
frames an answer badly fails the test that asked for it.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

TIMEOUT = 10.0  # seconds; far more than anything here takes
_STATUS = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([\t -~]*)\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\Z")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,16}\Z")


class WireError(Exception):
    """The answer is not HTTP, or ended too early."""


@dataclass(slots=True)
class Answer:
    """A whole answer. Header names are lower case; `interim` are the 1xx that came before it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    interim: list[Answer] = field(default_factory=list)
    until_close: bool = False

    def get(self, name: str, default: str = "") -> str:
        """Return the one value of a header; a header that came twice is an error."""
        values = self.all(name)
        if len(values) > 1:
            raise WireError(f"{name} came {len(values)} times")
        return values[0] if values else default

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header == name]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Return (status, code) of an answer in the contract's one shape; the header and the body must agree."""
        said = self.json()
        if set(said) != {"error", "error_description"} or said["error"] != self.get("x-gateway-error"):
            raise WireError(f"not an error of the gateway: {self!r}")
        if self.get("content-type") != "application/json" or self.get("cache-control") != "no-store":
            raise WireError(f"not the headers of an error: {self!r}")
        return self.status, said["error"]


class Client:
    """One connection to 127.0.0.1:`port`."""

    def __init__(self, port: int, timeout: float = TIMEOUT, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(timeout)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, data: bytes, method: str = "") -> Answer:
        """Send a whole request and read its answer."""
        self.send(data)
        return self.answer(method or data.split(b" ", 1)[0].decode("latin-1"))

    def answer(self, method: str = "GET") -> Answer:
        """Read the next final answer, which is one to a request of this method."""
        interim: list[Answer] = []
        while True:
            answer = self.head()
            if answer.status >= 200:
                break
            interim.append(answer)
        answer.interim = interim
        answer.body = b"".join(self.body(answer, method))
        return answer

    def head(self) -> Answer:
        """Read the next head: an interim answer, or a final one whose body is still to come."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        raw, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = raw.split(b"\r\n")
        match = _STATUS.match(first)
        if match is None:
            raise WireError(f"status line {first!r}")
        return Answer(int(match[1]), [_field(line) for line in lines])

    def body(self, answer: Answer, method: str = "GET") -> Iterator[bytes]:
        """Yield the pieces of the body of an answer whose head has been read (RFC 9112 6.3)."""
        coding, length = answer.get("transfer-encoding"), answer.get("content-length")
        if coding and length:
            raise WireError("both Content-Length and Transfer-Encoding")
        if method == "HEAD" or answer.status in (204, 304):
            return
        if coding:
            if coding != "chunked":
                raise WireError(f"transfer coding {coding!r}")
            yield from self._chunks()
        elif length:
            yield from self._exactly(int(length))
        else:
            answer.until_close = True
            yield self.rest()

    def rest(self) -> bytes:
        """Return everything until the gateway ends its side."""
        pieces = [self._buffer]
        self._buffer = b""
        while piece := self.socket.recv(1 << 18):
            pieces.append(piece)
        return b"".join(pieces)

    def ended(self) -> bool:
        """True where nothing more comes and the gateway has ended the connection, cleanly or by a reset."""
        try:
            return self.rest() == b""
        except ConnectionResetError:
            return True

    def finish(self) -> None:
        """Say that nothing more is sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = self._line()
            if not _SIZE.match(size):
                raise WireError(f"chunk size {size!r}")
            if int(size, 16) == 0:
                break
            yield from self._exactly(int(size, 16))
            if self._line():
                raise WireError("a chunk is longer than it says")
        if self._line():
            raise WireError("trailers")

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer:
                self._more()
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece

    def _more(self) -> None:
        piece = self.socket.recv(1 << 18)
        if not piece:
            raise WireError(f"the connection ended after {self._buffer!r}")
        self._buffer += piece


def request(
    method: str,
    target: str,
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    body: bytes | None = None,
    token: str = "",
) -> bytes:
    """Return an ordinary HTTP/1.1 request as bytes; Content-Length is set where there is a body."""
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers or [])
    lines = [f"{method} {target} HTTP/1.1"]
    if not any(name.lower() == "host" for name, _ in pairs):
        lines.append("Host: gateway.test")
    if token:
        lines.append(f"Authorization: Bearer {token}")
    lines += [f"{name}: {value}" for name, value in pairs]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def json_request(method: str, target: str, content: Any, token: str = "") -> bytes:
    return request(method, target, {"Content-Type": "application/json"}, json.dumps(content).encode(), token)


def ask(port: int, data: bytes) -> Answer:
    """Send one whole request on a connection of its own and read its answer."""
    with Client(port) as client:
        return client.ask(data)


def _field(line: bytes) -> tuple[str, str]:
    match = _FIELD.match(line)
    if match is None:
        raise WireError(f"header line {line!r}")
    return match[1].decode().lower(), match[2].decode("latin-1")
