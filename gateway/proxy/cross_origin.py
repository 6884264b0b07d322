"""Requests of pages of other origins, where `[cors]` names some: what is told them, and their preflights.

`CrossOrigin` stands between a connection and what answers a request, as `Observer` does, and in front of it. Where no
origin is named nothing of this is loaded, and the plane makes exchanges by itself.

A preflight is a request of its route like any other, counted, logged and traced so. But it meets another rule, that
asks for no token because browsers send none, and in the place of the route's backend `Granting`, so that no backend
ever sees a request without a token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gateway.errors import GatewayError, MethodNotAllowed
from gateway.proxy.answer_head import STATUS_LINES
from gateway.proxy.cors import Grant, Origins
from gateway.proxy.ending import read_on, stays_open
from gateway.proxy.outgoing import request_name
from gateway.proxy.routes import OPEN, Route

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.head import Head
    from gateway.proxy.plane import Plane
    from gateway.proxy.protocol import GatewayProtocol


class Granting:
    """What stands in the place of a route's backend for preflights; `methods` are the route's."""

    __slots__ = ("_methods", "_origins")

    def __init__(self, origins: Origins, methods: frozenset[bytes]) -> None:
        self._origins = origins
        self._methods = methods

    def acquire(self, exchange: Exchange) -> None:
        """Answer an exchange with 204, which has no Content-Length (RFC 9110 8.6)."""
        protocol = exchange.protocol
        exchange.request_id = name = exchange.request_id or request_name(exchange)
        exchange.answered = exchange.done = True
        exchange.status = 204
        end = b"\r\n" if stays_open(exchange) else b"Connection: close\r\n\r\n"
        lines = self._origins.preflight(exchange.head.fields.headers, self._methods)
        head = STATUS_LINES[204], protocol.date(), lines, b"X-Request-Id: %b\r\n" % name, end
        protocol.transport.write(b"".join(head))
        exchange.count(204)
        read_on(exchange)


class CrossOrigin:
    """Makes what answers a request, and has it tell pages of other origins what they may do."""

    __slots__ = ("_control", "_exchange", "_granting", "_origins")

    def __init__(
        self, origins: Origins, exchange: Callable[[Any, Any], Any], control: Callable[[Any, Any], Any]
    ) -> None:
        self._origins = origins
        self._exchange = exchange
        self._control = control
        self._granting: dict[Route, Route] = {}  # a route -> the same for preflights

    def exchange(self, protocol: GatewayProtocol, head: Head) -> Exchange:
        """Return what answers a request of a route."""
        if head.method == b"OPTIONS" and self._is_preflight(head):
            head.route = self._route(head.route, head.route.meter)
        return self._made(protocol, head)

    def control(self, protocol: GatewayProtocol, head: Head) -> Any:
        """Return what answers a request of the control plane."""
        if head.method == b"OPTIONS" and self._is_preflight(head):
            head.route = self._route(head.route, protocol.plane.control_meter)
            return self._made(protocol, head)
        made = self._control(protocol, head)
        made.granted = self.grant(head).headers
        return made

    def answers(self, head: Head, error: GatewayError) -> bool:
        """Tell whether what was refused so is a preflight: routes that name their methods seldom name OPTIONS."""
        return isinstance(error, MethodNotAllowed) and head.method == b"OPTIONS" and self._is_preflight(head)

    def grant(self, head: Head | None) -> Grant:
        """Return what the answer to a request says; found once for each header section. A reload forgets these."""
        if head is None:
            return self._origins.grant(())
        fields = head.fields
        if fields.grant is None:
            fields.grant = self._origins.grant(fields.headers)
        return fields.grant

    def _made(self, protocol: GatewayProtocol, head: Head) -> Exchange:
        made: Exchange = self._exchange(protocol, head)
        made.grant = self.grant(head)
        return made

    def _is_preflight(self, head: Head) -> bool:
        """An upgrade is none, and neither is what another proxy asks about: it may be let through to its backend."""
        fields, route = head.fields, head.route
        return not (route.raw or fields.upgrade) and self._origins.preflight(fields.headers, frozenset()) != b""

    def _route(self, route: Route, meter: Any) -> Route:
        found = self._granting.get(route)
        if found is None:
            granting = Granting(self._origins, route.methods)
            found = replace(route, rule=OPEN, upstream=granting, meter=meter, methods=frozenset(), refreshes=False)
            self._granting[route] = found
        return found


def allow(plane: Plane, origins: Origins) -> None:
    """Have a plane answer pages of these origins. Whatever tells of requests is put in place before."""
    plane.cors = cors = CrossOrigin(origins, plane.exchange, plane.control)
    plane.exchange, plane.control = cors.exchange, cors.control
