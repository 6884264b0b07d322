"""Which requests are told of: by a line in the access log, by spans, or by both.

`Observer` stands between a connection and what answers a request, where either is on: a request that is neither
recorded nor logged is answered by a plain Exchange. Where both are off the plane makes plain ones by itself, and
nothing of this is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.proxy.control import ControlExchange
from gateway.proxy.exchange import Exchange
from gateway.proxy.head import Head
from gateway.proxy.observed import ObservedExchange, RecordedExchange
from gateway.proxy.observed_control import ObservedControl
from gateway.proxy.told import address, version
from gateway.telemetry.access import AccessLog
from gateway.telemetry.spans import Sampler, Span

if TYPE_CHECKING:
    from gateway.proxy.client import ClientConnection
    from gateway.proxy.plane import Plane
    from gateway.proxy.protocol import GatewayProtocol


class Observer:
    """Tells of requests. `sampler` is None where nothing is traced, `access` where there is no access log."""

    __slots__ = ("access", "sampler")

    def __init__(self, sampler: Sampler | None, access: AccessLog | None) -> None:
        self.sampler = sampler
        self.access = access

    def exchange(self, protocol: GatewayProtocol, head: Head) -> Exchange:
        """Return what answers a request of a route."""
        span = self._span(protocol, head)
        if span is not None:
            return RecordedExchange(protocol, head, self.access, span)
        return Exchange(protocol, head) if self.access is None else ObservedExchange(protocol, head, self.access)

    def control(self, protocol: GatewayProtocol, head: Head) -> ControlExchange:
        """Return what answers a request of the control plane."""
        span = self._span(protocol, head)
        if span is None and self.access is None:
            return ControlExchange(protocol, head)
        return ObservedControl(protocol, head, self.access, span)

    def refused(self, protocol: ClientConnection, head: Head | None, error: GatewayError) -> None:
        """A request, or what came in the place of one, got no further than a refusal."""
        access = self.access
        if access is None or not access.wants(b"", ours=True, always=True):
            return
        line = access.begin()
        if head is not None:
            path = head.target.partition(b"?")[0]
            line |= {"method": head.method.decode("latin-1"), "path": access.path(path), "protocol": version(head)}
        line |= {"status": error.status, "error": error.code, "ip": address(protocol, head)}
        access.write(line)

    def _span(self, protocol: GatewayProtocol, head: Head) -> Span | None:
        if self.sampler is None:
            return None
        fields = head.fields
        return self.sampler.begin(fields.parent() if fields.traceparents else b"", protocol.trusted)


def observe(plane: Plane, sampler: Sampler | None, access: AccessLog | None) -> None:
    """Have a plane tell of its requests."""
    observer = Observer(sampler, access)
    plane.exchange, plane.control = observer.exchange, observer.control
    plane.refused = observer.refused if access is not None else None
