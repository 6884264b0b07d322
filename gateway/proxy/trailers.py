"""The trailer section of a backend's answer, read beside the parser (RFC 9110 6.5, RFC 9112 7.1.2)."""

from __future__ import annotations

import contextlib
from typing import Any

import httptools

MAX_TRAILERS = 65536  # bytes after an answer's body that are read as trailers


class Trailers:
    """What a parser tells of an answer's trailer section (RFC 9112 7.1.2): the lines that were announced.

    `quiet` is how many bytes came since the last one of the body.
    """

    __slots__ = ("_names", "ended", "head_over", "lines", "quiet")

    def __init__(self, names: tuple[bytes, ...]) -> None:
        self._names = frozenset(name.lower() for name in names)
        self.lines: list[bytes] = []
        self.quiet = 0
        self.head_over = self.ended = False

    def on_headers_complete(self) -> None:
        self.head_over = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_over and not self.ended and name.lower() in self._names:
            self.lines.append(b"%b: %b\r\n" % (name, value.rstrip(b" \t")))

    def on_body(self, body: bytes) -> None:
        self.quiet = 0

    def on_message_complete(self) -> None:
        self.ended = True

    def last_chunk(self) -> bytes:
        """Return the end of a chunked body, with what was sent of them."""
        return b"0\r\n%b\r\n" % b"".join(self.lines)


class TwinParser:
    """Stands in for the parser of an answer with trailers, so that one without costs nothing for them.

    A second parser reads each piece first: what it found of the trailers is there when the first one is done.
    """

    __slots__ = ("_second", "first", "trailers")

    def __init__(self, first: Any, trailers: Trailers, begun: bytes) -> None:
        self.first = first
        self.trailers = trailers
        self._second = httptools.HttpResponseParser(trailers)
        with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):  # the first one tells
            self._second.feed_data(begun)

    def feed_data(self, data: bytes) -> None:
        """Read on. Raises HttpParserError."""
        trailers = self.trailers
        if not trailers.ended:
            trailers.quiet += len(data)
            with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
                self._second.feed_data(data)
            if trailers.quiet > MAX_TRAILERS:
                raise httptools.HttpParserError("trailer size")
        self.first.feed_data(data)
