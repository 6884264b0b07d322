"""The uvicorn HTTP protocol class: one client connection.

Laws:
- It knows bytes, requests in their order, and deadlines. It does not know tokens, routes' rules or backends.
- Requests are answered in the order they came. One is active; those pipelined behind it wait, and
  while any waits nothing is read from the socket, so that memory is bounded by one read.
- A byte sequence that is not strictly HTTP/1.x (RFC 9112) is answered with 400 and the connection ends.

States of a connection:  idle -> head -> active (-> body) -> idle | lingering -> closed

A lingering connection has been answered for the last time while the client may still be sending:
what comes is dropped, within bounds, because closing at once would reset the answer away (RFC 9112 9.6).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_remote_addr, is_ssl
from uvicorn.server import ServerState

from gateway import errors
from gateway.errors import GatewayError
from gateway.proxy.control import ControlExchange
from gateway.proxy.exchange import Exchange
from gateway.proxy.head import Fields, Head, from_parser, repeated, route, section_of
from gateway.proxy.headers import client_address, forwarded_block
from gateway.proxy.plane import Plane
from gateway.proxy.proxy_protocol import Peer, Prelude
from gateway.proxy.raw_head import UNKNOWN, RawHead
from gateway.proxy.refusal import Answering, Refusal, render
from gateway.proxy.tunnel import Tunnel

RAW_BODY = 65536  # rest of a body, in bytes, from which on it bypasses the parser
OVERHEAD = 65536  # bytes of chunk extensions and trailers, beside some for each byte of the body
LINGER_BYTES = 1 << 20
LINGER_SECONDS = 2.0


class GatewayProtocol(asyncio.Protocol):
    """One client connection. uvicorn makes it and calls `shutdown` when the server drains."""

    __slots__ = (
        "active",
        "app",
        "body_bytes",
        "body_total",
        "client_host",
        "closed",
        "deadline",
        "due",
        "fields",
        "flow",
        "forwarded",
        "head",
        "headers",
        "in_head",
        "incoming",
        "lingering",
        "loop",
        "overhead",
        "parser",
        "peer",
        "plane",
        "pumping",
        "queue",
        "raw_head",
        "raw_left",
        "read_paused",
        "scheme",
        "section",
        "server_state",
        "transport",
        "trusted",
        "tunnel",
        "url",
        "write_paused",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.plane: Plane = app_state["plane"]
        self.app = config.loaded_app
        self.loop = self.plane.loop
        self.server_state = server_state
        self.parser: Any = None
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.flow: FlowControl | None = None
        self.active: Answering | None = None
        self.incoming: Answering | None = None
        self.queue: deque[Answering] | None = None
        self.url = self.section = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.head: Head | None = None
        self.fields: Fields | None = None
        self.raw_head = RawHead()
        self.overhead = self.body_total = self.body_bytes = 0
        self.in_head = self.closed = self.read_paused = self.write_paused = self.pumping = False
        self.raw_left = 0
        self.lingering = -1
        self.tunnel: Tunnel | None = None
        self.deadline = self.due = 0.0

    def __repr__(self) -> str:
        return f"<GatewayProtocol {self.client_host} active={self.active!r}>"

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        plane = self.plane
        self.transport = transport
        self.server_state.connections.add(self)  # type: ignore[arg-type]  # it only calls shutdown()
        self.parser = httptools.HttpRequestParser(self)
        self.scheme = b"https" if is_ssl(transport) else b"http"
        self._comes_from(get_remote_addr(transport))
        plane.meters.connection("client", 1)
        self.wait_for(plane.header_timeout)
        if len(self.server_state.connections) > plane.max_connections:
            self.refuse_connection(errors.Overloaded("connections"))
        elif plane.proxy_protocol:
            self._await_proxy(transport)

    def _comes_from(self, peer: Peer | None) -> None:
        plane = self.plane
        self.peer = peer
        self.client_host = peer[0] if peer else "unix"
        self.trusted = plane.trusts is not None and plane.trusts(self.client_host)
        self.forwarded = forwarded_block(self.client_host.encode(), self.scheme)

    def _await_proxy(self, transport: asyncio.Transport) -> None:
        """Let a trusted proxy say where the connection comes from; no one else may connect."""
        if self.trusted:
            transport.set_protocol(Prelude(self))
        else:
            self.not_proxied()

    def proxied(self, source: Peer | None, rest: bytes) -> None:
        """The proxy has named the source of the connection, None for itself; `rest` is what came behind that."""
        self.transport.set_protocol(self)
        if source is not None:
            self._comes_from(source)
        else:  # what it passes on without an origin is not what it says itself
            self.trusted = False
        if rest:
            self.data_received(rest)

    def not_proxied(self) -> None:
        """End a connection that does not begin as it must: without a word, for who is there is not known."""
        self.plane.meters.rejected("", errors.BadRequest.code)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.deadline = 0.0
        self.server_state.connections.discard(self)
        self.plane.meters.connection("client", -1)
        if self.flow is not None:
            self.flow.resume_writing()
        active, self.active, self.incoming, self.queue = self.active, None, None, None
        self.tunnel = None
        if active is not None:
            active.client_gone()
        self.parser = None  # a parser and its protocol hold each other
        self.headers, self.fields, self.head, self.section = [], None, None, b""

    def eof_received(self) -> bool:
        """A client that stopped sending is a client that is gone, as for nginx and Go's net/http."""
        return False

    def shutdown(self) -> None:
        """Drain: close when idle, else after the request in flight (called by uvicorn)."""
        if self.active is None and not self.in_head:
            self.transport.close()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.flow is not None:
            self.flow.pause_writing()
        if self.active is not None:
            self.active.client_slow()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.flow is not None:
            self.flow.resume_writing()
        if self.active is not None:
            self.active.client_ready()

    def pause_reading(self) -> None:
        if not self.read_paused and not self.closed:
            self.read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.read_paused and not self.closed and not self.queue:
            self.read_paused = False
            self.transport.resume_reading()

    def client_ip(self, headers: list[tuple[bytes, bytes]]) -> str:
        """Return the address of the client: what trusted proxies in front say, else the peer's."""
        trusts = self.plane.trusts
        if not self.trusted or trusts is None:
            return self.client_host
        chain = b",".join(value for name, value in headers if name.lower() == b"x-forwarded-for")
        return client_address(chain.decode("latin-1"), self.client_host, trusts)

    def date(self) -> bytes:
        """Return the `Date` line of an answer of our own (RFC 9110 6.6.1), which uvicorn renders once a second."""
        return b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)

    # --- deadlines ---

    def wait_for(self, seconds: float) -> None:
        """Be called back unless the deadline is moved within so many seconds."""
        self.wait_until(self.loop.time() + seconds)

    def wait_until(self, deadline: float) -> None:
        """The same, at a time of the loop."""
        self.deadline = deadline
        if not self.due or deadline < self.due:
            self.plane.wheel.watch(self)

    def on_deadline(self, now: float) -> None:
        if self.closed:
            return
        if self.lingering >= 0:
            self.transport.abort()
        elif self.active is not None:
            self.active.on_deadline()
        elif self.in_head:
            self.refuse_connection(errors.RequestTimeout("head"))
        else:
            self.transport.close()

    # --- bytes in ---

    def data_received(self, data: bytes) -> None:
        if self.lingering >= 0:
            self._drop(data)
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

    def _remember(self, data: bytes, head: Head) -> None:
        self.head = None
        self.section = section_of(data, head)
        self.fields = head.fields if self.section else None

    def _exchange(self, head: Head) -> Answering:
        try:
            route(head, self.plane)
        except GatewayError as error:
            malformed = isinstance(error, errors.BadRequest)
            keep = head.keep_alive and head.http11 and head.fields.bodyless and not malformed
            return Refusal(self, error, keep_alive=keep, head_only=head.method == b"HEAD")
        if head.route.upstream is None:
            return ControlExchange(self, head)
        return Exchange(self, head)

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

    # --- the end ---

    def refuse_connection(self, error: GatewayError) -> None:
        """Answer outside any request and end the connection."""
        self.plane.meters.rejected("", error.code)
        self.transport.write(render(error, self.plane.realm, keep_alive=False, more=self.date()))
        self.close_gracefully()

    def close_gracefully(self) -> None:
        """End our side after what is written, then drop what still comes, within bounds."""
        if self.closed or self.lingering >= 0 or self.transport.is_closing():
            return
        self.incoming = None
        self.queue = None
        self.raw_left = 0
        self.lingering = 0
        if not self.transport.can_write_eof():  # TLS has no half-close
            self.transport.close()
            return
        self.transport.write_eof()
        self.resume_reading()
        self.wait_for(LINGER_SECONDS)

    def _drop(self, data: bytes) -> None:
        self.lingering += len(data)
        if self.lingering > LINGER_BYTES:
            self.transport.abort()
