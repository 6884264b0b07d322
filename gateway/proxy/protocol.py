"""The uvicorn HTTP protocol class: what is read on a client connection becomes requests, in their order.

Laws:
- It knows bytes and requests. It does not know tokens, routes' rules or backends; deadlines and the end of the
  connection are client.py's.
- Requests are answered in the order they came. One is active; those pipelined behind it wait, and
  while any waits nothing is read from the socket, so that memory is bounded by one read.
- A byte sequence that is not strictly HTTP/1.x (RFC 9112) is answered with 400 and the connection ends.

States of a connection:  idle -> head -> active (-> body) -> idle | lingering -> closed
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway import errors
from gateway.errors import GatewayError
from gateway.proxy.client import ClientConnection
from gateway.proxy.exchange import Exchange
from gateway.proxy.head import Fields, Head, from_parser, repeated, route, section_of
from gateway.proxy.raw_head import UNKNOWN, RawHead
from gateway.proxy.refusal import Answering, Refusal

RAW_BODY = 65536  # rest of a body, in bytes, from which on it bypasses the parser
OVERHEAD = 65536  # bytes of chunk extensions and trailers, beside some for each byte of the body


class GatewayProtocol(ClientConnection):
    """One client connection. uvicorn makes it and calls `shutdown` when the server drains."""

    __slots__ = (
        "body_bytes",
        "body_total",
        "fields",
        "head",
        "headers",
        "incoming",
        "overhead",
        "parser",
        "pumping",
        "raw_head",
        "raw_left",
        "section",
        "url",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser: Any = httptools.HttpRequestParser(self)
        self.incoming: Answering | None = None
        self.url = self.section = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head: Head | None = None
        self.fields: Fields | None = None
        self.raw_head = RawHead()
        self.overhead = self.body_total = self.body_bytes = self.raw_left = 0
        self.pumping = False

    def forget_request(self) -> None:
        super().forget_request()
        self.incoming = None
        self.raw_left = 0

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.parser = None  # a parser and its protocol hold each other
        self.headers, self.fields, self.head, self.section = [], None, None, b""

    # --- bytes in ---

    def data_received(self, data: bytes) -> None:
        if self.lingering >= 0:
            self.linger(data)
            return
        if self.tunnel is not None:
            self.tunnel.from_client(data)
            return
        if self.raw_left:
            data = self._raw_body(data)
            if not data:
                return
        while data and self.lingering < 0 and not self.closed:  # again only after an upgrade that was not taken
            data = self._parse(data)

    def _parse(self, data: bytes) -> bytes:
        """Read on; return what is left to be read after an upgrade that was not taken."""
        was_in_head, incoming = self.in_head, self.incoming
        fresh = self.active is None and not was_in_head
        if fresh and self.section and self._again(data):
            return b""
        if was_in_head:
            self.raw_head.read(data, UNKNOWN if self.raw_head.unknown else 0)
        else:
            self.raw_head.read(data, 0 if incoming is None else incoming.left or UNKNOWN)
        self.body_bytes = 0
        rest = b""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            rest = self._after_upgrade(data[stop.args[0] :])
        except httptools.HttpParserError as error:
            self._malformed(error)
            return b""
        if fresh and self.head is not None:
            self._remember(data, self.head)
        if self.in_head and self.lingering < 0 and not self.closed:
            self._head_pending(was_in_head)
        elif self.incoming is not None:
            self._body_pending(self.incoming, len(data))
        return rest

    def _again(self, data: bytes) -> bool:
        """Begin a request that differs from the last one in its first line alone; False where it does not."""
        fields = self.fields
        head = None if fields is None else repeated(data, self.section, fields)
        if head is None:
            return False
        exchange = self.active = self._exchange(head)
        exchange.whole = True
        exchange.start()
        return True

    def reloaded(self) -> None:
        """Go by other settings from the next request on."""
        self.section = b""  # what is remembered was sorted by the old ones
        self.judge_peer()

    def _remember(self, data: bytes, head: Head) -> None:
        self.head = None
        self.section = section_of(data, head)
        self.fields = head.fields if self.section else None

    def _exchange(self, head: Head) -> Answering:
        plane = self.plane
        try:
            route(head, plane)
            if self.trusted and head.fields.forwarded:
                self.source(head.fields)  # refused here rather than half-way to a backend
        except GatewayError as error:
            if plane.cors is None or not plane.cors.answers(head, error):
                malformed = isinstance(error, errors.BadRequest)
                keep = head.keep_alive and head.http11 and head.fields.bodyless and not malformed
                return Refusal(self, error, keep_alive=keep, head_only=head.method == b"HEAD", head=head)
        answering: Answering = (plane.exchange if head.route.upstream is not None else plane.control)(self, head)
        return answering

    def _raw_body(self, data: bytes) -> bytes:
        """Pass on body bytes of a known length without parsing; return what comes after the body."""
        incoming, left = self.incoming, self.raw_left
        rest = data[left:] if len(data) > left else b""
        body = data[:left] if rest else data
        self.raw_left = left - len(body)
        if self.raw_left == 0:  # before the callbacks, which may read on
            self.parser = httptools.HttpRequestParser(self)
            self.incoming = None
        if incoming is not None:
            incoming.body(body)
            if self.raw_left == 0:
                incoming.end()
        return rest if self.lingering < 0 and not self.closed else b""

    def _head_pending(self, was_in_head: bool) -> None:
        self.raw_head.pend()
        if not was_in_head and self.active is None:
            self.wait_for(self.plane.header_timeout)  # once a head, so that a slow one cannot extend it
        if self.raw_head.size <= self.plane.max_header_bytes:
            return
        if self.active is None:
            self.refuse_connection(errors.HeadersTooLarge("head size"))
        elif not self.queue or not isinstance(self.queue[-1], Refusal):  # in its turn
            self._queue(Refusal(self, errors.HeadersTooLarge("head size"), keep_alive=False))

    def _body_pending(self, incoming: Answering, size: int) -> None:
        """More of a body is to come: one of a known length past the parser, one in chunks within bounds.

        Chunk extensions and trailers are read and dropped; a client could send them without end.
        """
        if incoming.left:
            if incoming.left >= RAW_BODY:
                self.raw_left = incoming.left
            return
        self.body_total += self.body_bytes
        self.overhead += size - self.body_bytes
        if self.overhead > OVERHEAD + 8 * self.body_total:
            self._malformed(httptools.HttpParserError("chunk extensions or trailers"))

    def _after_upgrade(self, rest: bytes) -> bytes:
        """The parser stops after a head with `Upgrade`; an upgrade not taken is a plain request (RFC 9110 7.8).

        Returns what is to be read on.
        """
        incoming, active = self.incoming, self.active
        self.parser = httptools.HttpRequestParser(self)
        if isinstance(active, Exchange) and active.tunnel is not None:
            self.tunnel = active.tunnel
            if rest:
                self.tunnel.from_client(rest)
            return b""
        if incoming is not None and incoming.left > 0:
            self.raw_left = incoming.left
            return self._raw_body(rest) if rest else b""
        return rest

    def _malformed(self, error: httptools.HttpParserError) -> None:
        if self.closed or self.lingering >= 0:
            return
        cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
        refusal = cause if isinstance(cause, GatewayError) else errors.BadRequest(str(error))
        if cause is not None and not isinstance(cause, GatewayError):
            raise error  # a defect of ours: the loop's handler logs it and the connection ends
        if self.incoming is not None and self.incoming is self.active:
            self.active.broken(refusal)
        elif self.active is None:
            self.refuse_connection(refusal)
        else:  # answer what is in flight, then say what is wrong
            last = self.queue[-1] if self.queue else None
            if last is None or last is not self.incoming:
                self._queue(Refusal(self, refusal, keep_alive=False))
            elif self.queue and not isinstance(last, Refusal):
                self.queue[-1] = Refusal(self, refusal, keep_alive=False)  # it never was a whole request
            self.incoming = None

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.in_head = True
        self.overhead = self.body_total = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # trailers of a request are not passed on (RFC 9110 6.5.1 lets us)
            self.headers.append((name, value.rstrip(b" \t")))  # llhttp leaves white space at the end (RFC 9110 5.5)

    def on_headers_complete(self) -> None:
        self.in_head = False
        if self.lingering >= 0 or self.closed:  # what follows a refusal that ends the connection is not a request
            return
        exchange = self._read_head()
        self.incoming = exchange
        if self.active is None:
            self.active = exchange
            exchange.start()
        else:
            self._queue(exchange)

    def _read_head(self) -> Answering:
        plane = self.plane
        try:
            line = self._check_size(*self.raw_head.end())
            if self.active is not None and self.parser.should_upgrade():
                raise errors.BadRequest("an upgrade behind another request")
            self.head = head = from_parser(self.parser, self.url, self.headers, plane)
            if not head.http11 and line and not line.endswith(b" HTTP/1.0"):  # RTSP and ICE are read as this
                raise errors.BadRequest("protocol")
            self.raw_head.skip(UNKNOWN if head.fields.chunked else max(0, head.fields.length))
        except GatewayError as error:
            self.head = None
            return Refusal(self, error, keep_alive=False, head_only=self.parser.get_method() == b"HEAD")
        return self._exchange(head)

    def _check_size(self, size: int, line: bytes) -> bytes:
        """Return the first line of a head. Raises HeadersTooLarge."""
        if len(self.headers) > self.plane.max_headers:
            raise errors.HeadersTooLarge("header count")
        if size < 0:  # behind a body in chunks: what llhttp has told is all that is known
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.plane.max_header_bytes:
            raise errors.HeadersTooLarge("head size")
        return line

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if self.incoming is not None:
            self.incoming.body(body)

    def on_message_complete(self) -> None:
        incoming = self.incoming
        if incoming is None or (incoming.left and self.parser.should_upgrade()):
            return
        self.incoming = None
        incoming.end()

    # --- the order of requests ---

    def _queue(self, exchange: Answering) -> None:
        if self.queue is None:
            self.queue = deque()
        self.queue.append(exchange)
        self.pause_reading()

    def finished(self, keep_alive: bool, now: float) -> None:
        """The active request has been read and answered: begin the next one, or end the connection."""
        self.active = None
        if self.closed:
            return
        if not keep_alive:
            self.close_gracefully()
        elif self.queue:
            if not self.pumping:
                self._pump()
        else:
            if self.read_paused:
                self.resume_reading()
            plane = self.plane
            self.wait_until(now + (plane.header_timeout if self.in_head else plane.keepalive_timeout))

    def _pump(self) -> None:
        """Start queued requests one after the other, without recursion where they are answered at once."""
        self.pumping = True
        try:
            while self.active is None and self.queue and not self.closed and self.lingering < 0:
                self.active = self.queue.popleft()
                self.active.start()
        finally:
            self.pumping = False
        if self.lingering < 0:
            self.resume_reading()
