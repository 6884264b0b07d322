"""Requests of routes that are told of: by a line in the access log, by spans, or by both.

Laws:
- An observed exchange does what a plain one does, and takes note; each override calls the one below it.
- It is told of once, when it has ended, however it ended.
- The backend hears of the span of the try that reached it, so that its own spans hang below that.

What every request passes calls `Exchange` by its name: `super()` costs 0.1 us each time.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError
from gateway.proxy.exchange import Exchange
from gateway.proxy.head import Head
from gateway.proxy.outgoing import head_bytes, request_name
from gateway.proxy.told import CountedTransport, address, counted, describe, verb, version
from gateway.telemetry.access import AccessLog
from gateway.telemetry.redaction import clean
from gateway.telemetry.spans import Span
from gateway.traced import live_check

if TYPE_CHECKING:
    from gateway.proxy.protocol import GatewayProtocol
    from gateway.proxy.upstream import Target, Upstream

TRACE_ID = slice(18, 50)  # of "\r\ntraceparent: 00-<trace id>-..."


class ObservedExchange(Exchange):
    """An exchange that has a line in the access log, if that wants one."""

    pool: Upstream | None = None  # of the backend that the last try reached
    error = ""  # the code of what went wrong
    cut = ""  # why an answer or a stream has broken off
    told = refusing = False
    trace = b""  # what the backend was told
    transport: CountedTransport | None = None  # from the start on
    before = 0

    def __init__(self, protocol: GatewayProtocol, head: Head, access: AccessLog | None) -> None:
        Exchange.__init__(self, protocol, head)
        self.access = access

    def start(self) -> None:
        transport: Any = self.protocol.transport
        self.transport = counter = transport if type(transport) is CountedTransport else counted(self.protocol)
        self.before = counter.sent
        Exchange.start(self)

    def connected(self, upstream: Any) -> None:
        self.pool = upstream.pool
        self.error = ""
        Exchange.connected(self, upstream)

    def head_bytes(self, trace: bytes = b"") -> bytes:
        fields = self.head.fields
        self.trace = trace or (fields.trace() if fields.traceparents else b"") or self.plane.new_trace()
        return head_bytes(self, self.trace)

    def upstream_lost(self, error: GatewayError, *, reused: bool) -> None:
        if not self.done:
            self.error = error.code
        super().upstream_lost(error, reused=reused)

    # --- ends ---

    def responded(self) -> None:
        self._tell(self.status)
        Exchange.responded(self)

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
        """Tell of the request, unless that has been done."""
        if self.told:
            return
        self.told = True
        seconds = perf_counter() - self.started
        self.record(status, seconds)
        access = self.access
        if access is None:
            return
        name = self.request_id
        if not name:
            self.request_id = name = request_name(self)
        ours = self.protocol.trusted or name != self.head.fields.request_id
        always = status >= 500 or seconds >= access.slow or self.error != "" or self.cut != ""
        if access.wants(name, ours=ours, always=always):
            self._log(access, status, seconds)

    def record(self, status: int, seconds: float) -> None:
        """End the spans, where there are any."""

    def trace_id(self) -> bytes:
        return self.trace[TRACE_ID] or self.head.fields.parent()[3:35]

    def _log(self, access: AccessLog, status: int, seconds: float) -> None:
        head, claims, tunnel = self.head, self.claims, self.tunnel
        line = access.begin()
        line["method"] = head.method.decode("latin-1")
        line["path"] = access.path(head.path)
        line["route"] = self.route.name
        line["status"] = status
        if self.error:
            line["error"] = self.error
        if self.cut:
            line["cut"] = self.cut
        line["seconds"] = int(seconds * 1e6) / 1e6
        line["bytes_in"] = self.received
        if self.transport is not None:
            line["bytes_out"] = self.transport.sent - self.before
        line["ip"] = address(self.protocol, head)
        line["protocol"] = version(head) if tunnel is None else clean(tunnel.protocol_name.decode("latin-1"), 32)
        line["request_id"] = self.request_id.decode("latin-1")
        trace_id = self.trace_id()
        if trace_id:
            line["trace_id"] = trace_id.decode("ascii")
        if self.pool is not None:
            line["upstream"] = self.pool.place
        if access.user and claims is not None:
            line["subject"] = clean(claims.sub, 255)
            if claims.sid:
                line["session_id"] = claims.sid
        access.write(line)


class RecordedExchange(ObservedExchange):
    """An exchange with spans: `span` is that of the whole request, `attempt` that of the try under way."""

    attempt: Span | None = None
    asked = acquired = 0.0

    def __init__(self, protocol: GatewayProtocol, head: Head, access: AccessLog | None, span: Span) -> None:
        super().__init__(protocol, head, access)
        self.span = self.whole_span = span
        span.start = self.started

    def begin(self) -> None:
        self.acquired = perf_counter()
        super().begin()
        if self.claims is not None and self.route.rule.live and not self.done:  # no answer comes inside `ask`
            self.asking()

    def asking(self) -> None:
        self.asked = perf_counter()

    def settled(self, verdict: int) -> None:
        if self.asked:
            live_check(self.whole_span, self.asked, verdict)
            self.asked = 0.0
        self.acquired = perf_counter()
        super().settled(verdict)

    def connected(self, upstream: Any) -> None:
        self.attempt = self._try(upstream.pool.target)
        super().connected(upstream)

    def head_bytes(self, trace: bytes = b"") -> bytes:
        ours = self.attempt.traceparent() if self.attempt is not None else self.whole_span.traceparent()
        return super().head_bytes(self.head.fields.trace(ours) or b"\r\ntraceparent: %b\r\n\r\n" % ours)

    def again(self) -> None:
        self._end_try()

    def upstream_lost(self, error: GatewayError, *, reused: bool) -> None:
        if not self.done:
            if self.attempt is None:  # no backend was reached
                self.attempt = self._try(None)
            self._end_try(error.code)
            self.acquired = perf_counter()
        super().upstream_lost(error, reused=reused)

    def record(self, status: int, seconds: float) -> None:
        self._end_try(self.error)
        span = self.whole_span
        describe(span, self.protocol, self.head, self.route.path, self.head.path)
        span.attributes["http.response.status_code"] = status
        aborted = self.cut if self.cut == "aborted" else ""
        span.finish(self.error or (str(status) if status >= 500 else aborted))
        if self.route.meter is not None:
            self.route.meter.see(seconds, span.trace_id.decode())

    def trace_id(self) -> bytes:
        return self.whole_span.trace_id

    def _try(self, target: Target | None) -> Span:
        name, method = verb(self.head.method)
        attempt = self.whole_span.child(name, "client", self.acquired or None)
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
