"""What all connections of a worker share. Built by app.py; replaced piecewise on a reload."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gateway.errors import GatewayError
from gateway.gate import Gate
from gateway.proxy.headers import RequestKinds
from gateway.proxy.pace import Pace
from gateway.proxy.renewal import Renewer
from gateway.proxy.routes import RouteTable
from gateway.proxy.streams import Streams
from gateway.proxy.wheel import Wheel
from gateway.tokens.claims import Claims

if TYPE_CHECKING:
    from gateway.proxy.cross_origin import CrossOrigin


class Meters(Protocol):
    """What the data plane counts (telemetry.Telemetry)."""

    def rejected(self, route: str, error: str) -> None: ...
    def upstream_error(self, route: str, kind: str) -> None: ...
    def connection(self, side: str, change: int) -> None: ...
    def stream_closed(self, reason: str) -> None: ...


TRACES = 256  # that share one random half of their ids


def new_traces(*, recorded: bool = True) -> Iterator[bytes]:
    """Yield traces that begin here, each as the end of a head (W3C Trace Context 3.2).

    Half of the trace id is drawn for so many traces together, the rest once a worker, which makes one cost less
    than 0.1 us. The flags are 01, because a backend whose sampler follows its parent would record nothing at 00;
    where the gateway samples by itself, 00 says that it has not `recorded` these.
    """
    flags = "01" if recorded else "00"
    rests = [f"{secrets.token_hex(8)}-{secrets.randbits(64) | 1:016x}-{flags}\r\n\r\n".encode() for _ in range(TRACES)]
    while True:
        begin = b"\r\ntraceparent: 00-%016x" % (secrets.randbits(64) | 1)  # never all zeros
        for rest in rests:
            yield begin + rest


def _plain_exchange() -> Callable[[Any, Any], Any]:
    from gateway.proxy.exchange import Exchange  # it knows the plane

    return Exchange


def _plain_control() -> Callable[[Any, Any], Any]:
    from gateway.proxy.control import ControlExchange

    return ControlExchange


@dataclass(slots=True, eq=False)
class Plane:
    """Sizes are bytes, times seconds. `trusts(ip)` tells whether a peer's X-Forwarded-* is believed.

    `identity(claims)` renders the identity headers of a token as head bytes; it is asked once a token.
    `exchange(protocol, head)` and `control(protocol, head)` make what answers a request, and `refused(protocol,
    head, error)` is told of one that got no further than that: observed.py's, where requests are told of. `cors`
    knows what answers say to pages of other origins, None where none may call.
    """

    loop: asyncio.AbstractEventLoop
    table: RouteTable
    gate: Gate
    realm: str
    kinds: RequestKinds
    identity: Callable[[Claims], bytes]
    meters: Meters
    own_cookies: tuple[bytes, ...] = ()
    trusts: Callable[[str], bool] | None = None
    request_id: Callable[[], bytes] = lambda: b"-"
    valid_request_id: Callable[[bytes], bool] = lambda value: True
    new_trace: Callable[[], bytes] = field(default_factory=lambda: new_traces().__next__)
    max_header_bytes: int = 32768
    max_headers: int = 128
    max_body_bytes: int = 0
    max_connections: int = 20000
    overload_after: float = 0.0
    header_timeout: float = 10.0
    keepalive_timeout: float = 75.0
    proxy_protocol: bool = False
    draining: bool = False
    hosts: set[bytes] = field(default_factory=set)
    wheel: Wheel = field(init=False)
    pace: Pace = field(init=False)
    control_meter: Any = None
    renewer: Renewer | None = None
    leeway: float = 0.0
    streams: Streams = field(init=False)
    clock: Callable[[], float] = time.time
    exchange: Callable[[Any, Any], Any] = field(default_factory=_plain_exchange)
    control: Callable[[Any, Any], Any] = field(default_factory=_plain_control)
    refused: Callable[[Any, Any, GatewayError], None] | None = None
    cors: CrossOrigin | None = None

    def __post_init__(self) -> None:
        self.wheel = Wheel(self.loop)
        self.pace = Pace(self.loop, self.overload_after)
        self.streams = Streams(self.loop, self.gate, self.leeway, self.clock)
