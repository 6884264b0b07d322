"""One request and its answer, in flight.

Laws:
- A request reaches a backend only through `settled`: found, verified, alive, allowed (the gate).
- It is sent again only where no byte of it had gone out, or where a kept connection broke before any
  answer and the method is safe (contract 6.7; RFC 9110 9.2.1, RFC 9112 9.3.1).
- Bodies flow both ways as they come; whoever is slower pauses the other side.

States:  checking -> connecting -> sending -> answering -> done.  `refuse` leads to done from each of them
before the answer's head is out; after that there is only `abort`.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from gateway import errors
from gateway.errors import GatewayError
from gateway.gate import ALIVE
from gateway.proxy import ending, refreshing, tunnel
from gateway.proxy.head import Head
from gateway.proxy.outgoing import head_bytes, request_name, schemes
from gateway.proxy.refusal import render
from gateway.proxy.renewal import Renewed
from gateway.proxy.tunnel import Tunnel
from gateway.tokens.claims import Claims

if TYPE_CHECKING:
    from gateway.proxy.cors import Grant
    from gateway.proxy.protocol import GatewayProtocol
    from gateway.telemetry.spans import Span

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})  # RFC 9110 9.2.1
HELD_BODY = 65536  # request body held while the gate or the pool decides


class Exchange:
    """One proxied request. `upstream` is its connection to the backend while it has one."""

    # Not slots: class attributes as defaults save two dozen assignments a request (0.5 us).
    whole = done = answered = retried = sent = False
    held_bytes = received = discarded = status = 0
    claims: Claims | None = None
    upstream: Any = None
    token: bytes | None = None  # presented elsewhere than in Authorization, or new
    by_cookie = by_subprotocol = replayed = override = False
    extra = b""  # header lines of ours in the answer
    request_id = b""
    renewed: Renewed | None = None
    kept: list[bytes] | None = None  # the request's body, for a second try
    tunnel: Tunnel | None = None
    place = -1  # among the streams
    span: Span | None = None  # of a recorded request (observed.py)
    head_bytes = head_bytes
    grant: Grant | None = None  # what answers say to pages of other origins (cross_origin.py)

    def __init__(self, protocol: GatewayProtocol, head: Head) -> None:
        self.protocol = protocol
        self.plane = protocol.plane
        self.head = head
        self.route = head.route
        self.left = head.fields.length if head.fields.length > 0 else 0
        self.keep_alive = head.keep_alive
        self.held: list[bytes] = []
        self.started = perf_counter()  # the loop's own clock goes by milliseconds

    def __repr__(self) -> str:
        return f"<Exchange {self.head.method.decode()} {self.route.name} status={self.status}>"

    # --- the gate ---

    def start(self) -> None:
        if self.plane.pace.admits(self):
            self.begin()

    def begin(self) -> None:
        self.protocol.deadline = 0.0  # the live check and the pool have time limits of their own
        fields, plane, rule = self.head.fields, self.plane, self.route.rule
        try:
            if plane.max_body_bytes and fields.length > plane.max_body_bytes:
                raise errors.BodyTooLarge("content-length")
            if fields.upgrade:
                tunnel.ask(self)
            if self.route.refreshes and fields.cookies:
                self.kept = []
            tokens = fields.authorizations
            if len(tokens) > 1:
                raise errors.InvalidToken("several Authorization headers")
            if rule.auth == "none":
                if self.tunnel is not None and not self.route.forward_authorization:
                    tunnel.subprotocol_token(self)
                self.route.upstream.acquire(self)
                return
            if plane.gate.access_cookie or self.tunnel is not None:
                claims = self._find_claims()
            else:
                claims = plane.gate.identify(tokens[0]) if tokens else None
        except GatewayError as error:
            refreshing.not_verified(self, error)
            return
        self.claims = claims
        if claims is not None and rule.live:
            plane.gate.ask(claims, self.settled)
        else:
            self.settled(ALIVE)

    def _find_claims(self) -> Claims | None:
        """Find the token wherever it may stand. Raises GatewayError."""
        fields, gate, method = self.head.fields, self.plane.gate, self.head.method
        token, self.by_cookie = gate.find(fields.authorizations, fields.cookies)
        if self.tunnel is not None:
            offered = tunnel.subprotocol_token(self)
            if offered is not None and token is not None:
                raise errors.InvalidToken("several access tokens")
            token = token or offered
        if self.by_cookie and (method not in SAFE or self.tunnel is not None):
            gate.check_origin(fields.headers, fields.host.decode("latin-1"), schemes(self))
        if self.by_cookie or self.by_subprotocol:
            self.token = token
        return gate.verify(token) if token is not None else None

    def settled(self, verdict: int) -> None:
        """The live check has been answered, or is not due: let the request go on to a backend, or refuse it."""
        if self.done:
            return
        try:
            self.plane.gate.settle(self.claims, self.route.rule, verdict, mark=not self.override)
        except GatewayError as error:
            self.refuse(error)
        else:
            self.route.upstream.acquire(self)

    # What only observed exchanges take note of (observed.py); not called on the hot path.

    def asking(self) -> None:
        """The live check has been asked for, later than in `begin`."""

    def again(self) -> None:
        """The backend's answer is not passed on: the request is sent once more."""

    # --- a tunnel ---

    def tunnel_open(self) -> None:
        """The backend has switched protocols (called by the connection)."""
        self.answered = True
        self.status = 101
        self.count(101)
        self.watch()
        self.protocol.wait_for(self.route.idle_timeout)

    def tunnel_closed(self) -> None:
        """One side has closed: close the other when it has what was sent."""
        self.release()
        self.done = True
        self.protocol.tunnel = None
        self.protocol.active = None
        self.protocol.close_gracefully()

    # --- a stream ---

    @property
    def live(self) -> bool:
        return self.route.rule.live

    @property
    def keeps(self) -> bool:
        return self.route.keeps_streams

    def watch(self) -> None:
        """Be ended with the session and the token from here on."""
        if self.place < 0 and self.claims is not None:
            self.place = self.plane.streams.add(self)

    def unwatch(self) -> None:
        if self.place >= 0:
            self.plane.streams.discard(self, self.place)
            self.place = -1

    def end_stream(self, reason: str) -> None:
        """The session or the token has ended, or the drain has (called by the watch)."""
        if not self.done:
            ending.end_stream(self, reason)

    # --- to the backend ---

    def connected(self, upstream: Any) -> None:
        """A connection is ours: send what there is (called by the pool)."""
        self.upstream = upstream
        self.sent = True
        upstream.transport.write(self.head_bytes())
        if self.held:
            for piece in self.held:
                self._send(piece)
            self.held.clear()
            self.protocol.resume_reading()
        if not self.whole:
            self.watch()
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
        if self.kept is not None:
            if self.received <= self.route.replay_buffer:
                self.kept.append(data)
            else:
                self.kept = None
        if self.done:
            self._discard(len(data))
        elif 0 < self.plane.max_body_bytes < self.received:
            if self.protocol.active is not self:  # behind another request: refused in its turn (protocol.py)
                raise errors.BodyTooLarge("body")
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
        if self.discarded > ending.DISCARD:
            self.protocol.close_gracefully()

    def retriable(self) -> bool:
        """True while sending the request again could have no second effect."""
        return self.whole and self.head.method in SAFE and not self.received and not self.answered

    # --- from the backend (called by the upstream connection) ---

    def responding(self, status: int) -> bool:
        """The answer's head is here; return whether the client's connection stays open after it."""
        self.answered = True
        self.status = status
        if not self.whole or self.tunnel is not None:  # an early answer, or no upgrade: what comes is not waited for
            self.keep_alive = False
        self.keep_alive = self.keep_alive and not self.plane.draining
        return self.keep_alive

    def progressed(self) -> None:
        """Something came: the next piece has its full time again."""
        self.protocol.wait_for(self.route.idle_timeout)

    def responded(self) -> None:
        """The answer has been passed on to its end."""
        self.upstream = None
        self.done = True
        if self.place >= 0:
            self.unwatch()
        protocol = self.protocol
        self.route.meter.done(self.status, perf_counter() - self.started)
        if self.whole:
            protocol.finished(self.keep_alive, protocol.loop.time())
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
        self.release()
        if self.tunnel is not None:
            self.tunnel = self.protocol.tunnel = None
            self.keep_alive = False
        self.done = True
        self.plane.meters.rejected(self.route.name, error.code)
        self.count(error.status)
        keep, protocol = ending.stays_open(self), self.protocol
        if protocol.closed:
            return
        granted = b"" if self.grant is None else self.grant.lines
        lines = protocol.date() + granted + refreshing.told(self, error)
        more = b"%bx-request-id: %b\r\n" % (lines, self.request_id or request_name(self))
        head_only = self.head.method == b"HEAD"
        protocol.transport.write(render(error, self.plane.realm, keep_alive=keep, head_only=head_only, more=more))
        ending.read_on(self)

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
        self.release()
        if not self.done:
            self.done = True
            if self.tunnel is None or not self.tunnel.opened:  # else it was counted when it opened
                self.count(self.status)
        if not self.head.http11:  # to HTTP/1.0 an orderly end is the end of the answer; a reset is not
            ending.reset_on_close(self.protocol.transport)
        self.protocol.transport.abort()

    def client_gone(self) -> None:
        self.release()
        if not self.done:
            self.done = True
            if self.tunnel is not None and self.tunnel.opened:
                return
            self.count(499)  # nginx's word for a client that closed before the answer

    def client_slow(self) -> None:
        if self.upstream is not None:
            self.upstream.pause_reading()

    def client_ready(self) -> None:
        if self.upstream is not None:
            self.upstream.resume_reading()
            if self.answered:  # before that the time for the answer's head runs
                self.protocol.wait_for(self.route.idle_timeout)

    def on_deadline(self) -> None:
        if self.done:  # the rest of a refused request did not come
            self.protocol.close_gracefully()
        elif self.answered:
            if not self.protocol.write_paused:  # else it is the client that does not go on
                self.plane.meters.upstream_error(self.route.name, "upstream_timeout")
            self.abort()
        elif not self.whole and not self.protocol.read_paused:
            self.keep_alive = False
            self.refuse(errors.RequestTimeout("body"))
        else:
            self.plane.meters.upstream_error(self.route.name, "upstream_timeout")
            self.refuse(errors.UpstreamTimeout("response head"))

    def release(self) -> None:
        """Want no more of the backend, and be watched no more."""
        if self.place >= 0:
            self.unwatch()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()

    def count(self, status: int) -> None:
        self.route.meter.done(status, perf_counter() - self.started)
