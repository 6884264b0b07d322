"""Requests of the control plane that are told of: by a line in the access log, by a span, or by both."""

from __future__ import annotations

from contextvars import Context, copy_context
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

from gateway.errors import GatewayError
from gateway.proxy.control import ControlExchange, Cycle
from gateway.proxy.head import Head
from gateway.proxy.told import address, counted, describe, version
from gateway.telemetry.access import AccessLog
from gateway.telemetry.spans import CURRENT, Span

if TYPE_CHECKING:
    from gateway.proxy.protocol import GatewayProtocol


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

    __slots__ = ("access", "before", "context", "request_id", "span", "told")

    cycles = ObservedCycle

    def __init__(self, protocol: GatewayProtocol, head: Head, access: AccessLog | None, span: Span | None) -> None:
        super().__init__(protocol, head)
        self.access = access
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
        if self.access is not None:
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
        access = self.access
        always = status >= 500 or error != "" or (access is not None and seconds >= access.slow)
        if access is not None and access.wants(self.request_id, ours=True, always=always):
            self._log(access, status, error, seconds, path)

    def _log(self, access: AccessLog, status: int, error: str, seconds: float, path: bytes) -> None:
        line = access.begin()
        line |= {
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
            line["bytes_out"] = counted(self.protocol).sent - self.before
        if self.span is not None:
            line["trace_id"] = self.span.trace_id.decode("ascii")
        if error:
            line["error"] = error
        access.write(line)

    def _places(self) -> tuple[bytes, bytes]:
        """Return the path and its pattern, for what is told; a session's id is not told, it is a user's."""
        scope: Any = self.cycle.scope if self.cycle is not None else {}
        pattern = getattr(scope.get("route"), "path", "").encode() or self.head.route.path
        return (pattern if scope.get("path_params", {}).get("session_id") else self.head.path), pattern
