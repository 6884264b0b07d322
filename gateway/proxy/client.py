"""One client connection: where it comes from, whose turn it is to wait, its deadlines and its end.

It knows no HTTP but the refusals that end it; what is read on it protocol.py makes of it.

States:  open -> lingering -> closed.  A lingering connection has been answered for the last time while the
client may still be sending: what comes is dropped, within bounds, because closing at once would reset the
answer away (RFC 9112 9.6).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_remote_addr, is_ssl
from uvicorn.server import ServerState

from gateway import errors
from gateway.errors import GatewayError
from gateway.proxy.forwarded import Source, forwarded_block, source
from gateway.proxy.head import Fields, Head
from gateway.proxy.plane import Plane
from gateway.proxy.proxy_protocol import Peer, Prelude
from gateway.proxy.refusal import Answering, render
from gateway.proxy.tunnel import Tunnel

LINGER_BYTES = 1 << 20
LINGER_SECONDS = 2.0


class ClientConnection(asyncio.Protocol):
    """`active` is whose request is being answered, `queue` those pipelined behind it."""

    __slots__ = (
        "active",
        "app",
        "client_host",
        "closed",
        "deadline",
        "due",
        "flow",
        "forwarded",
        "in_head",
        "lingering",
        "loop",
        "peer",
        "plane",
        "queue",
        "read_paused",
        "scheme",
        "server_state",
        "transport",
        "trusted",
        "tunnel",
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
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.flow: FlowControl | None = None
        self.active: Answering | None = None
        self.queue: deque[Answering] | None = None
        self.tunnel: Tunnel | None = None
        self.in_head = self.closed = self.read_paused = self.write_paused = False
        self.lingering = -1
        self.deadline = self.due = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client_host} active={self.active!r}>"

    def forget_request(self) -> None:
        """Nothing more is read on this connection."""
        self.queue = None

    # --- its beginning and its loss ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        plane = self.plane
        self.transport = transport
        self.server_state.connections.add(self)  # type: ignore[arg-type]  # it only calls shutdown()
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

    def judge_peer(self) -> None:
        """Believe the peer or not by the settings as they are now."""
        trusts = self.plane.trusts
        trusted = trusts is not None and trusts(self.client_host)
        # what a proxy passes on without an origin is not what it says itself (`proxied`)
        self.trusted = trusted and (self.trusted or not self.plane.proxy_protocol)

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
        active, self.active = self.active, None
        self.tunnel = None
        self.forget_request()
        if active is not None:
            active.client_gone()

    def eof_received(self) -> bool:
        """A client that stopped sending is a client that is gone, as for nginx and Go's net/http."""
        return False

    def source(self, fields: Fields) -> Source:
        """Return where a request comes from: what trusted proxies in front say, else the peer. Raises BadRequest."""
        trusts, found = self.plane.trusts, fields.source
        if not self.trusted or trusts is None:
            return Source(self.client_host, self.scheme, b"")
        if found is None:
            said = fields.forwarded_for, fields.forwarded_proto, fields.forwarded
            found = fields.source = source(*said, self.client_host, trusts)
        return found

    # --- its pace ---

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

    # --- its end ---

    def date(self) -> bytes:
        """Return the `Date` line of an answer of our own (RFC 9110 6.6.1), which uvicorn renders once a second."""
        return b"".join(b"%b: %b\r\n" % header for header in self.server_state.default_headers)

    def own_lines(self, head: Head | None) -> bytes:
        """Return what a refusal outside of any route says beside the error; `head` is None where none was read."""
        cors = self.plane.cors
        return self.date() if cors is None else self.date() + cors.grant(head).lines

    def refuse_connection(self, error: GatewayError, head: Head | None = None) -> None:
        """Answer outside any request and end the connection."""
        self.plane.meters.rejected("", error.code)
        self.transport.write(render(error, self.plane.realm, keep_alive=False, more=self.own_lines(head)))
        if self.plane.refused is not None:
            self.plane.refused(self, None, error)
        self.close_gracefully()

    def close_gracefully(self) -> None:
        """End our side after what is written, then drop what still comes, within bounds."""
        if self.closed or self.lingering >= 0 or self.transport.is_closing():
            return
        self.forget_request()
        self.lingering = 0
        if not self.transport.can_write_eof():  # TLS has no half-close
            self.transport.close()
            return
        self.transport.write_eof()
        self.resume_reading()
        self.wait_for(LINGER_SECONDS)

    def linger(self, data: bytes) -> None:
        """Drop what comes after the last answer."""
        self.lingering += len(data)
        if self.lingering > LINGER_BYTES:
            self.transport.abort()

    def shutdown(self) -> None:
        """Drain: close when idle, else after the request in flight (called by uvicorn)."""
        if self.active is None and not self.in_head:
            self.transport.close()
