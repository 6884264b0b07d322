"""One request and its answer, in flight.

Laws:
- A request reaches a backend only through `_settled`: found, verified, alive, allowed (the gate).
- It is sent again only where no byte of it had gone out, or where a kept connection broke before any
  answer and the method is safe (contract 6.7; RFC 9110 9.2.1, RFC 9112 9.3.1).
- Bodies flow both ways as they come; whoever is slower pauses the other side.

States:  checking -> connecting -> sending -> answering -> done.  `refuse` leads to done from each of them
before the answer's head is out; after that there is only `abort`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from gateway import errors
from gateway.errors import GatewayError, answer
from gateway.gate import ALIVE
from gateway.proxy.head import Head
from gateway.proxy.headers import FORWARDED, forwarded_block, nominated, without
from gateway.tokens.claims import Claims

if TYPE_CHECKING:
    from gateway.proxy.protocol import GatewayProtocol

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})  # RFC 9110 9.2.1
HELD_BODY = 65536  # request body held while the gate or the pool decides
DISCARD = 1 << 20  # rest of a refused request's body that is read to keep the connection
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


def render(error: GatewayError, realm: str, *, keep_alive: bool, head_only: bool = False) -> bytes:
    """Return an error as the bytes of a whole HTTP/1.1 answer."""
    status, headers, body = answer(error, realm)
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, REASONS.get(status, b"Error"))]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
    if not head_only:
        lines.append(body)
    return b"".join(lines)


class Refusal:
    """A request that cannot even be routed: answered in its turn, its body dropped."""

    __slots__ = ("_error", "_keep_alive", "_protocol", "left", "whole")

    def __init__(self, protocol: GatewayProtocol, error: GatewayError, *, keep_alive: bool) -> None:
        self._protocol = protocol
        self._error = error
        self._keep_alive = keep_alive
        self.left = 0
        self.whole = False

    def start(self) -> None:
        protocol = self._protocol
        protocol.plane.meters.rejected("", self._error.code)
        protocol.transport.write(render(self._error, protocol.plane.realm, keep_alive=self._keep_alive))
        protocol.finished(self._keep_alive, protocol.loop.time())

    def body(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def client_gone(self) -> None: ...
    def client_slow(self) -> None: ...
    def client_ready(self) -> None: ...
    def on_deadline(self) -> None: ...
    def broken(self, error: GatewayError) -> None: ...


class Exchange:
    """One proxied request. `upstream` is its connection to the backend while it has one."""

    # Not slots: class attributes as defaults save two dozen assignments a request (0.5 us).
    whole = done = answered = retried = sent = False
    held_bytes = received = discarded = status = 0
    claims: Claims | None = None
    upstream: Any = None

    def __init__(self, protocol: GatewayProtocol, head: Head) -> None:
        self.protocol = protocol
        self.plane = protocol.plane
        self.head = head
        self.route = head.route
        self.left = head.fields.length if head.fields.length > 0 else 0
        self.keep_alive = head.keep_alive
        self.held: list[bytes] = []
        self.started = protocol.loop.time()

    def __repr__(self) -> str:
        return f"<Exchange {self.head.method.decode()} {self.route.name} status={self.status}>"

    # --- the gate ---

    def start(self) -> None:
        self.protocol.deadline = 0.0  # the live check and the pool have time limits of their own
        fields, plane, rule = self.head.fields, self.plane, self.route.rule
        try:
            if plane.max_body_bytes and fields.length > plane.max_body_bytes:
                raise errors.BodyTooLarge("content-length")
            tokens = fields.authorizations
            if len(tokens) > 1:
                raise errors.InvalidToken("several Authorization headers")
            if rule.auth == "none":
                self.route.upstream.acquire(self)
                return
            claims = self.claims = plane.gate.identify(tokens[0]) if tokens else None
        except GatewayError as error:
            self.refuse(error)
            return
        if claims is not None and rule.live:
            plane.gate.ask(claims, self._settled)
        else:
            self._settled(ALIVE)

    def _settled(self, verdict: int) -> None:
        if self.done:
            return
        try:
            self.plane.gate.settle(self.claims, self.route.rule, verdict)
        except GatewayError as error:
            self.refuse(error)
        else:
            self.route.upstream.acquire(self)

    # --- the request head ---

    def _head_bytes(self) -> bytes:
        head, route, fields = self.head, self.route, self.head.fields
        path = route.target(head.path) if route.strip_prefix else head.path
        tail_route, tail_claims = fields.tail_of
        tail = fields.tail if tail_route is route and tail_claims is self.claims else self._tail()
        request_id = fields.request_id
        if not request_id or not self.plane.valid_request_id(request_id):
            request_id = self.plane.request_id()
        return b"".join((head.method, b" ", path, head.query, b" HTTP/1.1\r\n", tail, request_id, b"\r\n\r\n"))

    def _tail(self) -> bytes:
        """Return the head from its second line on, up to the value of X-Request-Id, and keep it."""
        fields, route, protocol, claims = self.head.fields, self.route, self.protocol, self.claims
        lines = fields.lines if not fields.hop else without(fields.lines, nominated(fields.hop) - PROTECTED)
        host = fields.host or self.upstream.authority
        tail = b"".join(
            (
                *lines,
                b"" if fields.host else b"Host: %b\r\n" % host,
                b"Authorization: %b\r\n" % fields.authorizations[0]
                if fields.authorizations and route.forward_authorization
                else b"",
                protocol.forwarded if not protocol.trusted else self._forwarded(),
                b"X-Forwarded-Host: %b\r\n" % host,
                b"" if claims is None else claims.memo.get("identity") or self._identity(claims),
                b"X-Request-Id: ",
            )
        )
        fields.tail, fields.tail_of = tail, (route, claims)
        return tail

    def _identity(self, claims: Claims) -> bytes:
        """Render the identity headers of a token, once."""
        block: bytes = self.plane.identity(claims)
        claims.memo["identity"] = block
        return block

    def _forwarded(self) -> bytes:
        """Extend what a trusted proxy in front said of the client."""
        kinds = self.plane.kinds
        said = {name.lower(): value for name, value in self.head.fields.headers if kinds[name] == FORWARDED}
        scheme = said.get(b"x-forwarded-proto", b"")
        scheme = scheme if scheme in (b"http", b"https") else self.protocol.scheme
        return forwarded_block(self.protocol.client_host.encode(), scheme, said.get(b"x-forwarded-for", b""))

    # --- to the backend ---

    def connected(self, upstream: Any) -> None:
        """A connection is ours: send what there is (called by the pool)."""
        self.upstream = upstream
        self.sent = True
        upstream.transport.write(self._head_bytes())
        if self.held:
            for piece in self.held:
                self._send(piece)
            self.held.clear()
            self.protocol.resume_reading()
        if not self.whole:
            self.protocol.wait_for(self.route.idle_timeout)
        elif self.head.fields.chunked:
            self._sent_all()
        else:
            self.protocol.wait_for(self.route.response_timeout)

    def _send(self, piece: bytes) -> None:
        transport = self.upstream.transport
        if self.head.fields.chunked:
            transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
        else:
            transport.write(piece)

    def _sent_all(self) -> None:
        if self.head.fields.chunked:
            self.upstream.transport.write(b"0\r\n\r\n")
        self.protocol.wait_for(self.route.response_timeout if not self.answered else self.route.idle_timeout)

    def body(self, data: bytes) -> None:
        """A piece of the request's body (called by the connection)."""
        self.received += len(data)
        if self.left:
            self.left -= len(data)
        if self.done:
            self._discard(len(data))
        elif 0 < self.plane.max_body_bytes < self.received:
            self.broken(errors.BodyTooLarge("body"))
        elif self.upstream is not None and self.sent:
            self._send(data)
            self.protocol.wait_for(self.route.idle_timeout)
        else:
            self.held.append(data)
            self.held_bytes += len(data)
            if self.held_bytes > HELD_BODY:
                self.protocol.pause_reading()

    def end(self) -> None:
        """The request has been read to its end (called by the connection)."""
        self.whole = True
        if self.done:
            self.protocol.finished(self.keep_alive, self.protocol.loop.time())
        elif self.upstream is not None and self.sent:
            self._sent_all()

    def _discard(self, size: int) -> None:
        self.discarded += size
        if self.discarded > DISCARD:
            self.protocol.close_gracefully()

    def retriable(self) -> bool:
        """True while sending the request again could have no second effect."""
        return self.whole and self.head.method in SAFE and not self.received and not self.answered

    # --- from the backend (called by the upstream connection) ---

    def responding(self, status: int) -> bool:
        """The answer's head is here; return whether the client's connection stays open after it."""
        self.answered = True
        self.status = status
        if not self.whole:  # an early answer: the rest of the request is not waited for
            self.keep_alive = False
        self.protocol.wait_for(self.route.idle_timeout)
        return self.keep_alive and not self.plane.draining

    def progressed(self) -> None:
        """Something came: the next piece has its full time again."""
        self.protocol.wait_for(self.route.idle_timeout)

    def responded(self) -> None:
        """The answer has been passed on to its end."""
        self.upstream = None
        self.done = True
        protocol = self.protocol
        now = protocol.loop.time()
        self.route.meter.done(self.status, now - self.started)
        if self.whole:
            protocol.finished(self.keep_alive, now)
        else:
            protocol.active = None
            protocol.close_gracefully()

    def upstream_lost(self, error: GatewayError, *, reused: bool) -> None:
        """The connection broke, or what came was not HTTP."""
        self.upstream = None
        if self.done:
            return
        if reused and not self.retried and self.retriable() and isinstance(error, errors.UpstreamUnreachable):
            self.retried = True
            self.route.upstream.acquire(self, fresh=True)
            return
        self.plane.meters.upstream_error(self.route.name, error.code)
        if self.answered:
            self.abort()
        else:
            self.refuse(error)

    # --- other ends ---

    def refuse(self, error: GatewayError) -> None:
        """Answer with an error of ours; the answer's head must not be out yet."""
        self._release()
        self.done = True
        self.plane.meters.rejected(self.route.name, error.code)
        self._count(error.status)
        # a client that waits for "100 Continue" may send the body or not: nobody can tell what comes next
        unsure = self.head.fields.expecting and not self.whole
        self.keep_alive = self.keep_alive and not unsure and self.left <= DISCARD and not self.plane.draining
        protocol = self.protocol
        if protocol.closed:
            return
        keep, head_only = self.keep_alive, self.head.method == b"HEAD"
        protocol.transport.write(render(error, self.plane.realm, keep_alive=keep, head_only=head_only))
        self.held = []
        if self.whole or not keep:
            protocol.finished(keep, protocol.loop.time())
        else:  # read the rest of the body, so that the connection can be kept
            protocol.resume_reading()
            protocol.wait_for(self.plane.header_timeout)

    def broken(self, error: GatewayError) -> None:
        """The request's body cannot be read on: malformed, or too large."""
        self.keep_alive = False
        if self.answered:
            self.abort()
        elif not self.done:
            self.refuse(error)
        else:
            self.protocol.close_gracefully()

    def abort(self) -> None:
        """End both connections: the answer cannot be completed, and the client must see that."""
        self._release()
        if not self.done:
            self.done = True
            self._count(self.status)
        self.protocol.transport.abort()

    def client_gone(self) -> None:
        self._release()
        if not self.done:
            self.done = True
            self._count(499)  # nginx's word for a client that closed before the answer

    def client_slow(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_reading()

    def client_ready(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_reading()
            self.protocol.wait_for(self.route.idle_timeout)

    def on_deadline(self) -> None:
        if self.done:  # the rest of a refused request did not come
            self.protocol.close_gracefully()
        elif self.answered:
            self.abort()
        elif not self.whole and not self.protocol.read_paused:
            self.keep_alive = False
            self.refuse(errors.RequestTimeout("body"))
        else:
            self.plane.meters.upstream_error(self.route.name, "upstream_timeout")
            self.refuse(errors.UpstreamTimeout("response head"))

    def _release(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()

    def _count(self, status: int) -> None:
        self.route.meter.done(status, self.protocol.loop.time() - self.started)


# Headers that a `Connection` value cannot make hop-by-hop here: they frame, address or guard the request.
PROTECTED = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"expect"})
