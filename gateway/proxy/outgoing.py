"""What the backend gets: the head of a request on its way out.

From the second line on a head is the same for every request of a client with the same header section, route
and token, up to the request's name and trace; so that part is made once and kept with the section.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.proxy.forwarded import forwarded_block
from gateway.proxy.head import Fields
from gateway.proxy.headers import nominated, without
from gateway.tokens.claims import Claims

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

TE_TRAILERS = b"TE: trailers\r\nConnection: TE\r\n"  # RFC 9110 10.1.4
VIA_11 = b"Via: 1.1 tokengate\r\n"  # RFC 9110 7.6.3: after what the client sent, with the version that it spoke
VIA_10 = b"Via: 1.0 tokengate\r\n"
# Headers that a `Connection` value cannot make hop-by-hop here: they frame, address or guard the request.
PROTECTED = frozenset({b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"expect"})


def head_bytes(exchange: Exchange, trace: bytes = b"") -> bytes:
    """Return the request's head as the backend gets it; it ends with `trace`, by default the client's or a new one."""
    head, route, fields = exchange.head, exchange.route, exchange.head.fields
    path = route.target(head.path) if route.strip_prefix else head.path
    tail_route, tail_claims = fields.tail_of
    tail = fields.tail if tail_route is route and tail_claims is exchange.claims else _tail(exchange)
    request_id = exchange.request_id  # of a first try, so that both are one request
    if not request_id:
        exchange.request_id = request_id = request_name(exchange) if fields.request_id else exchange.plane.request_id()
    if not trace:
        trace = (fields.trace() if fields.traceparents else b"") or exchange.plane.new_trace()
    return b"".join((head.method, b" ", path, head.query, b" HTTP/1.1\r\n", tail, request_id, trace))


def request_name(exchange: Exchange) -> bytes:
    """Name the request as the client did, where that is a name."""
    given, plane = exchange.head.fields.request_id, exchange.plane
    return given if given and plane.valid_request_id(given) else plane.request_id()


def _tail(exchange: Exchange) -> bytes:
    """Return the head from its second line on, up to the value of X-Request-Id, and keep it."""
    head, route, protocol, claims = exchange.head, exchange.route, exchange.protocol, exchange.claims
    fields, tunnel = head.fields, exchange.tunnel
    lines = fields.lines
    if fields.kinds is not exchange.plane.kinds:  # a reload has named other identity headers since
        again = Fields(fields.headers)
        again.sort(exchange.plane.kinds, exchange.plane.own_cookies)
        lines = again.lines
    if fields.hop:
        lines = without(lines, nominated(fields.hop) - PROTECTED)
    host = fields.host or exchange.upstream.pool.authority
    tail = b"".join(
        (
            *lines,
            b"" if fields.host else b"Host: %b\r\n" % host,
            _authorization(exchange),
            b""
            if exchange.tunnel is None
            else b"Connection: Upgrade\r\nUpgrade: %b\r\n" % exchange.tunnel.protocol_name,
            TE_TRAILERS if fields.trailers and head.http11 and tunnel is None else b"",
            VIA_11 if head.http11 else VIA_10,
            protocol.forwarded if not protocol.trusted else _forwarded(exchange),
            b"X-Forwarded-Host: %b\r\n" % host,
            b"" if claims is None else claims.memo.get("identity") or _identity(exchange, claims),
            b"X-Request-Id: ",
        )
    )
    fields.tail, fields.tail_of = tail, (route, claims)
    return tail


def _authorization(exchange: Exchange) -> bytes:
    """Return the token for the backend: a new one, one from a cookie, else what the client sent."""
    given = exchange.head.fields.authorizations
    if not exchange.route.forward_authorization:
        return b""
    if exchange.token is not None and (exchange.override or not given):
        return b"Authorization: Bearer %b\r\n" % exchange.token
    return b"Authorization: %b\r\n" % given[0] if given else b""


def schemes(exchange: Exchange) -> list[str]:
    """Return the schemes under which the client may know this gateway."""
    protocol = exchange.protocol
    return [protocol.scheme.decode(), protocol.source(exchange.head.fields).scheme.decode()]


def _identity(exchange: Exchange, claims: Claims) -> bytes:
    """Render the identity headers of a token, once."""
    block: bytes = exchange.plane.identity(claims)
    claims.memo["identity"] = block
    return block


def _forwarded(exchange: Exchange) -> bytes:
    """Extend what a trusted proxy in front said of the client."""
    protocol = exchange.protocol
    source = protocol.source(exchange.head.fields)
    return forwarded_block(protocol.client_host.encode(), source.scheme or protocol.scheme, source.chain)
