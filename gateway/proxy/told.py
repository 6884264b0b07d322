"""What is told of a request, whoever answers it: where it came from, what was sent back, the attributes of its span."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from gateway.errors import GatewayError
from gateway.proxy.head import Head
from gateway.proxy.routes import hostname
from gateway.telemetry.access import PATH_LIMIT
from gateway.telemetry.redaction import clean
from gateway.telemetry.spans import Span, Value

if TYPE_CHECKING:
    from gateway.proxy.client import ClientConnection

KNOWN = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE"})  # RFC 9110, RFC 5789


class CountedTransport:
    """A client's transport that counts what is written to it."""

    __slots__ = ("_inner", "_write", "_writelines", "sent")

    def __init__(self, inner: asyncio.Transport) -> None:
        self._inner = inner
        self._write = inner.write
        self._writelines = inner.writelines
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write(self, data: bytes) -> None:
        self.sent += len(data)
        self._write(data)

    def writelines(self, pieces: list[bytes] | tuple[bytes, ...]) -> None:
        self.sent += sum(map(len, pieces))
        self._writelines(pieces)


def counted(protocol: ClientConnection) -> CountedTransport:
    """Return the transport of a connection, counting from the first time that this is asked."""
    transport: object = protocol.transport
    if isinstance(transport, CountedTransport):
        return transport
    made = CountedTransport(protocol.transport)
    protocol.transport = cast("asyncio.Transport", made)
    return made


def verb(method: bytes) -> tuple[str, str]:
    """Return (what a span is called by, `http.request.method`) for a method: one of a closed set."""
    return (method.decode("ascii"),) * 2 if method in KNOWN else ("HTTP", "_OTHER")


def describe(span: Span, protocol: ClientConnection, head: Head, route: bytes, path: bytes) -> None:
    """Say of a server's span what the conventions want (OpenTelemetry, "Semantic conventions for HTTP spans")."""
    name, method = verb(head.method)
    pattern = route.decode("latin-1")
    span.name = f"{name} {pattern}"
    attributes: dict[str, Value] = {
        "http.request.method": method,
        "http.route": pattern,
        "url.path": clean(path[: PATH_LIMIT + 1].decode("latin-1"), PATH_LIMIT),
        "url.scheme": protocol.scheme.decode(),
        "network.protocol.version": "1.1" if head.http11 else "1.0",
    }
    if head.fields.host:
        attributes["server.address"] = hostname(head.fields.host)[:255].decode("latin-1")
    span.attributes |= attributes


def version(head: Head) -> str:
    return "HTTP/1.1" if head.http11 else "HTTP/1.0"


def address(protocol: ClientConnection, head: Head | None) -> str:
    """Return the client's address, the peer's where what proxies say of it cannot be read."""
    if head is None or not protocol.trusted:
        return protocol.client_host
    try:
        return clean(protocol.source(head.fields).address, 64)
    except GatewayError:
        return protocol.client_host
