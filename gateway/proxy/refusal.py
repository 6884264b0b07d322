"""Answers of the gateway's own: an error as bytes, and a request that gets no further than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.errors import GatewayError, answer

if TYPE_CHECKING:
    from gateway.proxy.head import Head
    from gateway.proxy.protocol import GatewayProtocol

REASONS = {
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    413: b"Content Too Large",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


class Answering(Protocol):
    """What a connection asks of whatever answers a request.

    `left` is the rest of the body, 0 where that is not known; `whole` says that the request has been read.
    """

    left: int
    whole: bool

    def start(self) -> None: ...
    def body(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def client_gone(self) -> None: ...
    def client_slow(self) -> None: ...
    def client_ready(self) -> None: ...
    def on_deadline(self) -> None: ...
    def broken(self, error: GatewayError) -> None: ...


def render(error: GatewayError, realm: str, *, keep_alive: bool, head_only: bool = False, more: bytes = b"") -> bytes:
    """Return an error as the bytes of a whole HTTP/1.1 answer; `more` is further header lines."""
    status, headers, body = answer(error, realm)
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"Error")), more]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    if not head_only:
        lines.append(body)
    return b"".join(lines)


class Refusal:
    """A request that cannot even be routed: answered in its turn, its body dropped."""

    __slots__ = ("_error", "_head", "_head_only", "_keep_alive", "_protocol", "left", "whole")

    def __init__(
        self,
        protocol: GatewayProtocol,
        error: GatewayError,
        *,
        keep_alive: bool,
        head_only: bool = False,
        head: Head | None = None,
    ) -> None:
        self._protocol = protocol
        self._error = error
        self._head = head
        self._keep_alive = keep_alive
        self._head_only = head_only
        self.left = 0
        self.whole = False

    def start(self) -> None:
        protocol = self._protocol
        protocol.plane.meters.rejected("", self._error.code)
        keep, realm, more = self._keep_alive, protocol.plane.realm, protocol.own_lines(self._head)
        protocol.transport.write(render(self._error, realm, keep_alive=keep, head_only=self._head_only, more=more))
        if protocol.plane.refused is not None:
            protocol.plane.refused(protocol, self._head, self._error)
        protocol.finished(self._keep_alive, protocol.loop.time())

    def body(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def client_gone(self) -> None: ...
    def client_slow(self) -> None: ...
    def client_ready(self) -> None: ...
    def on_deadline(self) -> None: ...
    def broken(self, error: GatewayError) -> None: ...
