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

import asyncio
import socket
import struct
from collections.abc import Awaitable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from gateway import errors
from gateway.errors import GatewayError
from gateway.gate import ALIVE, KeyMissing
from gateway.proxy.head import Head
from gateway.proxy.headers import without
from gateway.proxy.outgoing import head_bytes, request_name, schemes
from gateway.proxy.refusal import render
from gateway.proxy.renewal import Renewed
from gateway.proxy.tunnel import GOING_AWAY, SIGNED_OUT, Tunnel, asked, bearer_subprotocol
from gateway.tokens.claims import Claims

if TYPE_CHECKING:
    from gateway.proxy.protocol import GatewayProtocol

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})  # RFC 9110 9.2.1
HELD_BODY = 65536  # request body held while the gate or the pool decides
GOODBYE_SECONDS = 0.5  # for the frame under way to end before a WebSocket's Close
ENDINGS = {"expired": "The access token expired", "revoked": "The session has ended", "drain": "The gateway restarts"}
DISCARD = 1 << 20  # rest of a refused request's body that is read to keep the connection


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
        self.protocol.deadline = 0.0  # the live check and the pool have time limits of their own
        fields, plane, rule = self.head.fields, self.plane, self.route.rule
        try:
            if plane.max_body_bytes and fields.length > plane.max_body_bytes:
                raise errors.BodyTooLarge("content-length")
            if fields.upgrade:
                self._ask_upgrade()
            if self.route.refreshes and fields.cookies:
                self.kept = []
            tokens = fields.authorizations
            if len(tokens) > 1:
                raise errors.InvalidToken("several Authorization headers")
            if rule.auth == "none":
                self.route.upstream.acquire(self)
                return
            if plane.gate.access_cookie or self.tunnel is not None:
                claims = self._find_claims()
            else:
                claims = plane.gate.identify(tokens[0]) if tokens else None
        except GatewayError as error:
            self._not_verified(error)
            return
        self.claims = claims
        if claims is not None and rule.live:
            plane.gate.ask(claims, self._settled)
        else:
            self._settled(ALIVE)

    def _not_verified(self, error: GatewayError) -> None:
        """Go on where the token can be renewed or the key that it lacks may come; else refuse."""
        if isinstance(error, errors.ExpiredToken):
            self._expired(error)
        elif isinstance(error, errors.UnknownKey | errors.IssuerUnavailable):
            self._wait_for_keys(error)
        else:
            self.refuse(error)

    def _wait_for_keys(self, error: KeyMissing) -> None:
        try:
            claims = self.plane.gate.wait_for_keys(error)
        except GatewayError as final:
            self.refuse(final)
        else:
            self._begin(self._waiting_for_keys(claims))

    async def _waiting_for_keys(self, coming: Awaitable[Claims]) -> None:
        try:
            claims = await coming
        except GatewayError as error:  # an expired token too: what another issuer minted is not renewed here
            self._not_renewed(error)
        else:
            self._go_on_as(claims)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.protocol.loop.create_task(work)
        self.protocol.server_state.tasks.add(task)
        task.add_done_callback(self.protocol.server_state.tasks.discard)

    def _go_on_as(self, claims: Claims) -> None:
        if self.done:
            return
        self.claims = claims
        if self.route.rule.live:
            self.plane.gate.ask(claims, self._settled)
        else:
            self._settled(ALIVE)

    def _find_claims(self) -> Claims | None:
        """Find the token wherever it may stand. Raises GatewayError."""
        fields, gate, method = self.head.fields, self.plane.gate, self.head.method
        token, self.by_cookie = gate.find(fields.authorizations, fields.cookies)
        if token is None and self.tunnel is not None:
            token = self._subprotocol_token()
        if self.by_cookie and (method not in SAFE or self.tunnel is not None):
            gate.check_origin(fields.headers, fields.host.decode("latin-1"), schemes(self))
        if self.by_cookie or self.by_subprotocol:
            self.token = token
        return gate.verify(token) if token is not None else None

    def _settled(self, verdict: int) -> None:
        if self.done:
            return
        try:
            self.plane.gate.settle(self.claims, self.route.rule, verdict, mark=not self.override)
        except GatewayError as error:
            self.refuse(error)
        else:
            self.route.upstream.acquire(self)

    # --- a refresh inside the gateway ---

    def _expired(self, error: errors.ExpiredToken) -> None:
        """Refresh in place where the route or the cookie asks for it and the request brings what it takes."""
        renewer = self.plane.renewer
        credential = None
        if renewer is not None and (self.route.refreshes or self.by_cookie):
            credential = renewer.credential(error.claims, self.head.fields.cookies)
        if credential is None:
            self.refuse(error)
        else:
            self._renew(credential)

    def _renew(self, credential: bytes) -> None:
        self._begin(self._renewing(credential))

    async def _renewing(self, credential: bytes) -> None:
        renewer, fields = self.plane.renewer, self.head.fields
        if renewer is None:
            return
        ip = self.protocol.client_ip(fields.headers)
        try:
            renewed = await renewer.renew(credential, ip, fields.request_id.decode("latin-1"))
        except errors.InvalidGrant:
            self.extra = renewer.clear()
            self._not_renewed(errors.RevokedToken("refresh refused"))
        except GatewayError as error:
            self._not_renewed(error)
        else:
            self._go_on_with(renewed)

    def _not_renewed(self, error: GatewayError) -> None:
        if not self.done:
            self.refuse(error)

    def _go_on_with(self, renewed: Renewed) -> None:
        if self.done:
            return
        self.renewed, self.extra, self.token, self.override = renewed, renewed.headers, renewed.token, True
        try:
            claims = self.plane.gate.verify(renewed.token)
        except GatewayError as error:
            self.refuse(error)
        else:
            self._go_on_as(claims)

    def confirm(self, upstream: Any, data: bytes) -> None:
        """Before an answer with new tokens goes out: see that they still are the newest (called by the connection)."""
        upstream.pause_reading()
        self._begin(self._confirming(upstream, data))

    async def _confirming(self, upstream: Any, data: bytes) -> None:
        renewed, self.renewed = self.renewed, None
        if renewed is not None and self.plane.renewer is not None and not await self.plane.renewer.current(renewed):
            self.extra = b""
        if upstream.exchange is self:
            upstream.resume_reading()
            upstream.data_received(data)

    def can_replay(self) -> bool:
        """True where a backend's own 401 expired_token can be met with a refresh and a second try."""
        return self.whole and self.kept is not None and not self.replayed and self._credential() is not None

    def replay(self) -> None:
        """The backend says that the token expired: refresh, and send the request once more (contract 6.7)."""
        credential = self._credential()
        self.replayed, self.answered, self.sent, self.upstream = True, False, False, None
        self.held, self.kept = self.kept or [], None
        self.protocol.deadline = 0.0
        if credential is not None:
            self._renew(credential)

    def _credential(self) -> bytes | None:
        renewer = self.plane.renewer
        if renewer is None or self.claims is None:
            return None
        return renewer.credential(self.claims, self.head.fields.cookies)

    # --- an upgrade ---

    def _ask_upgrade(self) -> None:
        fields = self.head.fields
        name = asked(self.head.method, fields.upgrade, fields.hop) if self.head.http11 else b""
        if name and fields.length <= 0:
            self.tunnel = Tunnel(self, name)

    def _subprotocol_token(self) -> bytes | None:
        """Take the token out of `Sec-WebSocket-Protocol: bearer, <token>`; the backend gets the rest."""
        fields = self.head.fields
        for name, value in fields.headers:
            if name.lower() == b"sec-websocket-protocol":
                token, rest = bearer_subprotocol(value)
                if token is None:
                    continue
                self.by_subprotocol = True
                fields.lines = without(fields.lines, frozenset({b"sec-websocket-protocol"}))
                if rest:
                    fields.lines += (name, b": ", rest, b"\r\n")
                return token
        return None

    def tunnel_open(self) -> None:
        """The backend has switched protocols (called by the connection)."""
        self.answered = True
        self.status = 101
        self._count(101)
        self.watch()
        self.protocol.wait_for(self.route.idle_timeout)

    def tunnel_closed(self) -> None:
        """One side has closed: close the other when it has what was sent."""
        self._release()
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

    def end_stream(self, reason: str) -> None:
        """The session or the token has ended, or the drain has (called by the watch)."""
        if self.done:
            return
        self.plane.meters.stream_closed(reason)
        if self.place >= 0:
            self.plane.streams.discard(self, self.place)
            self.place = -1
        if self.tunnel is not None and self.tunnel.opened:
            self.protocol.wait_for(GOODBYE_SECONDS)
            self.tunnel.end(GOING_AWAY if reason == "drain" else SIGNED_OUT, ENDINGS.get(reason, reason))
        elif not self.answered and self.claims is not None:
            self.keep_alive = False
            endings = {"expired": errors.ExpiredToken(self.claims), "drain": errors.Draining()}
            self.refuse(endings.get(reason) or errors.RevokedToken(reason))
        elif self.protocol.write_paused or not self.head.http11:
            self.abort()
        else:  # what was written still goes out; that no end of the body follows tells the client
            self._release()
            self.done = True
            self._count(self.status)
            self.protocol.active = None
            self.protocol.transport.close()

    # --- to the backend ---

    def connected(self, upstream: Any) -> None:
        """A connection is ours: send what there is (called by the pool)."""
        self.upstream = upstream
        self.sent = True
        upstream.transport.write(head_bytes(self))
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
            self.plane.streams.discard(self, self.place)
            self.place = -1
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
        self._release()
        if self.tunnel is not None:
            self.tunnel = self.protocol.tunnel = None
            self.keep_alive = False
        self.done = True
        self.plane.meters.rejected(self.route.name, error.code)
        self._count(error.status)
        # a client that waits for "100 Continue" may send the body or not: nobody can tell what comes next
        unsure = self.head.fields.expecting and not self.whole
        self.keep_alive = (
            self.keep_alive and self.head.http11 and not unsure and self.left <= DISCARD and not self.plane.draining
        )
        protocol = self.protocol
        if protocol.closed:
            return
        keep, head_only = self.keep_alive, self.head.method == b"HEAD"
        more = b"%b%bx-request-id: %b\r\n" % (protocol.date(), self.extra, self.request_id or request_name(self))
        protocol.transport.write(render(error, self.plane.realm, keep_alive=keep, head_only=head_only, more=more))
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
        if not self.head.http11:  # to HTTP/1.0 an orderly end is the end of the answer; a reset is not
            reset_on_close(self.protocol.transport)
        self.protocol.transport.abort()

    def client_gone(self) -> None:
        self._release()
        if not self.done:
            self.done = True
            if self.tunnel is not None and self.tunnel.opened:
                return
            self._count(499)  # nginx's word for a client that closed before the answer

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

    def _release(self) -> None:
        if self.place >= 0:
            self.plane.streams.discard(self, self.place)
            self.place = -1
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abandon()

    def _count(self, status: int) -> None:
        self.route.meter.done(status, perf_counter() - self.started)


def reset_on_close(transport: asyncio.Transport) -> None:
    """Have the connection end by a reset, so that what was sent is not taken for the whole."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
