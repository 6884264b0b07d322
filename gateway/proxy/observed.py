"""Requests that are told of: by a line in the access log, by spans, or by both.

`Observer` stands between a connection and what answers a request, where either is on: a request that is neither
recorded nor logged is answered by a plain Exchange. Where both are off the plane makes plain ones by itself, and
nothing here is loaded.

Laws:
- An observed exchange does what a plain one does, and takes note; each override calls the one below it.
- It is told of once, when it has ended, however it ended.
- The backend hears of the span of the try that reached it, so that its own spans hang below that.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from gateway.errors import GatewayError
from gateway.proxy.control import ControlExchange, Cycle
from gateway.proxy.exchange import Exchange
from gateway.proxy.head import Head
from gateway.proxy.outgoing import head_bytes, request_name
from gateway.proxy.told import address, counted, describe, shown, verb, version
from gateway.telemetry.access import AccessLog
from gateway.telemetry.redaction import clean
from gateway.telemetry.spans import CURRENT, Sampler, Span
from gateway.traced import live_check

if TYPE_CHECKING:
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.plane import Plane
    from gateway.proxy.protocol import GatewayProtocol
    from gateway.proxy.upstream import Target

TRACE_ID = slice(18, 50)  # of "\r\ntraceparent: 00-<trace id>-..."
Fields = dict[str, Any]


class Observer:
    """Tells of requests. `sampler` is None where nothing is traced, `access` where there is no access log."""

    __slots__ = ("access", "sampler")

    def __init__(self, sampler: Sampler | None, access: AccessLog | None) -> None:
        self.sampler = sampler
        self.access = access

    def exchange(self, protocol: GatewayProtocol, head: Head) -> Exchange:
        """Return what answers a request of a route."""
        span = self._span(protocol, head)
        if span is None and self.access is None:
            return Exchange(protocol, head)
        return ObservedExchange(self, span, protocol, head)

    def control(self, protocol: GatewayProtocol, head: Head) -> ControlExchange:
        """Return what answers a request of the control plane."""
        span = self._span(protocol, head)
        if span is None and self.access is None:
            return ControlExchange(protocol, head)
        return ObservedControl(self, span, protocol, head)

    def refused(self, protocol: ClientConnection, head: Head | None, error: GatewayError) -> None:
        """A request, or what came in the place of one, got no further than a refusal."""
        access = self.access
        if access is None or not access.wants(b"", ours=True, always=True):
            return
        fields: Fields = {"status": error.status, "error": error.code, "ip": address(protocol, head)}
        if head is not None:
            path = head.target.partition(b"?")[0]
            fields |= {"method": head.method.decode("latin-1"), "path": access.path(path), "protocol": version(head)}
        access.write(fields)

    def _span(self, protocol: GatewayProtocol, head: Head) -> Span | None:
        if self.sampler is None:
            return None
        fields = head.fields
        return self.sampler.begin(fields.parent() if fields.traceparents else b"", protocol.trusted)


class ObservedExchange(Exchange):
    """An exchange that is told of. `span` is that of the whole request, `attempt` that of the try under way."""

    attempt: Span | None = None
    target: Target | None = None
    error = cut = ""
    told = refusing = False
    asked = acquired = 0.0
    trace = b""

    def __init__(self, observer: Observer, span: Span | None, protocol: GatewayProtocol, head: Head) -> None:
        super().__init__(protocol, head)
        self.observer = observer
        self.span = span
        self.before = -1  # bytes written before it, where they are counted
        if span is not None:
            span.start = self.started

    def start(self) -> None:
        if self.observer.access is not None:
            self.before = counted(self.protocol).sent
        super().start()

    def begin(self) -> None:
        if self.span is None:
            super().begin()
            return
        self.acquired = perf_counter()
        super().begin()
        if self.claims is not None and self.route.rule.live and not self.done:  # no answer comes inside `ask`
            self.asking()

    def asking(self) -> None:
        self.asked = perf_counter()

    def settled(self, verdict: int) -> None:
        if self.span is not None:
            if self.asked:
                live_check(self.span, self.asked, verdict)
                self.asked = 0.0
            self.acquired = perf_counter()
        super().settled(verdict)

    # --- tries ---

    def connected(self, upstream: Any) -> None:
        self.target = upstream.pool.target
        self.error = ""
        if self.span is not None:
            self.attempt = self._try(self.span, self.target)
        super().connected(upstream)

    def head_bytes(self, trace: bytes = b"") -> bytes:
        fields, span = self.head.fields, self.attempt
        if trace:
            self.trace = trace
        elif span is not None:
            ours = span.traceparent()
            self.trace = fields.trace(ours) or b"\r\ntraceparent: %b\r\n\r\n" % ours
        else:
            self.trace = (fields.trace() if fields.traceparents else b"") or self.plane.new_trace()
        return head_bytes(self, self.trace)

    def again(self) -> None:
        self._end_try(str(self.status))

    def upstream_lost(self, error: GatewayError, *, reused: bool) -> None:
        if not self.done:
            self.error = error.code
            if self.span is not None:
                if self.attempt is None:  # no backend was reached
                    self.attempt = self._try(self.span, None)
                self._end_try(error.code)
                self.acquired = perf_counter()
        super().upstream_lost(error, reused=reused)

    def _try(self, span: Span, target: Target | None) -> Span:
        name, method = verb(self.head.method)
        attempt = span.child(name, "client", self.acquired or None)
        attempt.attributes["http.request.method"] = method
        if self.retried or self.replayed:
            attempt.attributes["http.request.resend_count"] = int(self.retried) + int(self.replayed)
        if target is not None:
            attempt.attributes |= {"server.address": target.host, "server.port": target.port}
            if target.address != target.host:
                attempt.attributes["network.peer.address"] = target.address
        return attempt

    def _end_try(self, error: str = "") -> None:
        span, self.attempt = self.attempt, None
        if span is None:
            return
        if self.answered:
            span.attributes["http.response.status_code"] = self.status
            error = error or (str(self.status) if self.status >= 400 else "")
        span.finish(error)

    # --- ends ---

    def responded(self) -> None:
        self._tell(self.status)
        super().responded()

    def refuse(self, error: GatewayError) -> None:
        self.error = error.code
        if not self.request_id:
            self.request_id = request_name(self)
        self.refusing = True  # told of when the answer has been written
        super().refuse(error)
        self._tell(error.status)

    def abort(self) -> None:
        if not self.done:
            self.cut = "aborted"
        super().abort()
        self._tell(self.status)

    def end_stream(self, reason: str) -> None:
        if not self.done and self.answered:
            self.cut = reason
        super().end_stream(reason)

    def client_gone(self) -> None:
        super().client_gone()
        self._tell(self.status)

    def tunnel_closed(self) -> None:
        super().tunnel_closed()
        self._tell(self.status)

    def count(self, status: int) -> None:
        super().count(status)
        if self.done and not self.refusing:
            self._tell(status)

    def _tell(self, status: int) -> None:
        if self.told:
            return
        self.told = True
        seconds = perf_counter() - self.started
        if self.span is not None:
            self._end_try(self.error)
            self._end_span(self.span, status)
            if self.route.meter is not None:
                self.route.meter.see(seconds, self.span.trace_id.decode())
        access = self.observer.access
        if access is not None:
            self._log(access, status, seconds)

    def _end_span(self, span: Span, status: int) -> None:
        describe(span, self.protocol, self.head, self.route.path, self.head.path)
        span.attributes["http.response.status_code"] = status
        aborted = self.cut if self.cut == "aborted" else ""
        span.finish(self.error or (str(status) if status >= 500 else aborted))

    def _log(self, access: AccessLog, status: int, seconds: float) -> None:
        always = status >= 500 or self.cut != "" or self.error != "" or seconds >= access.slow
        name = self.request_id
        if not name:
            self.request_id = name = request_name(self)
        ours = self.protocol.trusted or name != self.head.fields.request_id
        if not access.wants(name, ours=ours, always=always):
            return
        head, claims, sent = self.head, self.claims, counted(self.protocol).sent
        fields: Fields = {
            "method": head.method.decode("latin-1"),
            "path": access.path(head.path),
            "route": self.route.name,
            "status": status,
            "seconds": round(seconds, 6),
            "bytes_in": self.received,
            "ip": address(self.protocol, head),
            "protocol": version(head) if self.tunnel is None else self.tunnel.protocol_name.decode("latin-1")[:32],
            "request_id": name.decode("latin-1"),
        }
        if self.before >= 0:
            fields["bytes_out"] = sent - self.before
        trace_id = self.trace[TRACE_ID] or (self.span.trace_id if self.span is not None else head.fields.parent()[3:35])
        if trace_id:
            fields["trace_id"] = trace_id.decode("ascii")
        if self.target is not None:
            fields["upstream"] = shown(self.target)
        if self.error:
            fields["error"] = self.error
        if self.cut:
            fields["cut"] = self.cut
        if access.user and claims is not None:
            fields["subject"] = clean(claims.sub, 255)
            if claims.sid:
                fields["session_id"] = claims.sid
        access.write(fields)


class ObservedCycle(Cycle):
    """A cycle that also remembers the error code that the application gave."""

    error = ""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            for name, value in message.get("headers", ()):
                if name == b"x-gateway-error":
                    self.error = value.decode("latin-1")
        await super().send(message)


class ObservedControl(ControlExchange):
    """A request of the control plane that is told of."""

    __slots__ = ("before", "context", "observer", "request_id", "span", "told")

    cycles = ObservedCycle

    def __init__(self, observer: Observer, span: Span | None, protocol: GatewayProtocol, head: Head) -> None:
        super().__init__(protocol, head)
        self.observer = observer
        self.span = span
        self.told = False
        self.before = -1
        self.context: Context | None = None
        self.request_id = self._name()
        if span is not None:
            span.start = self.started
            self.context = copy_context()
            self.context.run(CURRENT.set, span)

    def start(self) -> None:
        if self.observer.access is not None:
            self.before = counted(self.protocol).sent
        super().start()

    def _name(self) -> bytes:
        """As the API names a request: as a trusted proxy did, else anew."""
        given, plane = self.head.fields.request_id, self.protocol.plane
        return given if given and self.protocol.trusted and plane.valid_request_id(given) else plane.request_id()

    def _scope(self) -> Any:
        scope = super()._scope()
        scope["state"]["request_id"] = self.request_id.decode("ascii")
        return scope

    def _answered(self) -> None:
        self._tell(self.cycle.status if self.cycle is not None else 0)
        super()._answered()

    def client_gone(self) -> None:
        super().client_gone()
        self._tell(499)

    def on_deadline(self) -> None:
        super().on_deadline()
        self._tell(504)

    def broken(self, error: GatewayError) -> None:
        self._tell(error.status, error.code)
        super().broken(error)

    def _tell(self, status: int, error: str = "") -> None:
        if self.told:
            return
        self.told = True
        seconds = perf_counter() - self.started
        cycle = cast("ObservedCycle | None", self.cycle)
        error = error or (cycle.error if cycle is not None else "")
        path, route = self._places()
        if self.span is not None:
            describe(self.span, self.protocol, self.head, route, path)
            self.span.attributes["http.response.status_code"] = status
            self.span.finish(error or (str(status) if status >= 500 else ""))
            meter = self.protocol.plane.control_meter
            if meter is not None and status != 499:
                meter.see(seconds, self.span.trace_id.decode())
        access = self.observer.access
        always = status >= 500 or error != "" or (access is not None and seconds >= access.slow)
        if access is not None and access.wants(self.request_id, ours=True, always=always):
            self._log(access, status, error, seconds, path)

    def _log(self, access: AccessLog, status: int, error: str, seconds: float, path: bytes) -> None:
        fields: Fields = {
            "method": self.head.method.decode("latin-1"),
            "path": access.path(path),
            "route": self.head.route.name,
            "status": status,
            "seconds": round(seconds, 6),
            "ip": address(self.protocol, self.head),
            "protocol": version(self.head),
            "request_id": self.request_id.decode("ascii"),
        }
        if self.before >= 0:
            fields["bytes_out"] = counted(self.protocol).sent - self.before
        if self.span is not None:
            fields["trace_id"] = self.span.trace_id.decode("ascii")
        if error:
            fields["error"] = error
        access.write(fields)

    def _places(self) -> tuple[bytes, bytes]:
        """Return the path and its pattern, for what is told; a session's id is not told, it is a user's."""
        scope: Any = self.cycle.scope if self.cycle is not None else {}
        pattern = getattr(scope.get("route"), "path", "").encode() or self.head.route.path
        return (pattern if scope.get("path_params", {}).get("session_id") else self.head.path), pattern


def observe(plane: Plane, sampler: Sampler | None, access: AccessLog | None) -> None:
    """Have a plane tell of its requests."""
    observer = Observer(sampler, access)
    plane.exchange, plane.control = observer.exchange, observer.control
    plane.refused = observer.refused if access is not None else None
