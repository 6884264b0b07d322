"""How an exchange ends without its backend, or before its time, so that the client can tell that it did."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from gateway import errors
from gateway.proxy.tunnel import GOING_AWAY, SIGNED_OUT

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange

DISCARD = 1 << 20  # rest of a refused request's body that is read to keep the connection
GOODBYE_SECONDS = 0.5  # for the frame under way to end before a WebSocket's Close
ENDINGS = {"expired": "The access token expired", "revoked": "The session has ended", "drain": "The gateway restarts"}


def stays_open(exchange: Exchange) -> bool:
    """Decide whether the client's connection stays open after an answer of ours."""
    # a client that waits for "100 Continue" may send the body or not: nobody can tell what comes next
    unsure = exchange.head.fields.expecting and not exchange.whole
    kept = exchange.keep_alive and exchange.head.http11 and not unsure and not exchange.plane.draining
    exchange.keep_alive = kept and exchange.left <= DISCARD
    return exchange.keep_alive


def read_on(exchange: Exchange) -> None:
    """An answer of ours has been written: go on with what comes behind this request."""
    exchange.held = []
    protocol, keep = exchange.protocol, exchange.keep_alive
    if exchange.whole or not keep:
        protocol.finished(keep, protocol.loop.time())
    else:  # read the rest of the body, so that the connection can be kept
        protocol.resume_reading()
        protocol.wait_for(exchange.plane.header_timeout)


def end_stream(exchange: Exchange, reason: str) -> None:
    """End an exchange whose session or token has ended, or that a drain has no more time for."""
    exchange.plane.meters.stream_closed(reason)
    exchange.unwatch()
    tunnel, protocol = exchange.tunnel, exchange.protocol
    if tunnel is not None and tunnel.opened:
        protocol.wait_for(GOODBYE_SECONDS)
        tunnel.end(GOING_AWAY if reason == "drain" else SIGNED_OUT, ENDINGS.get(reason, reason))
    elif not exchange.answered and exchange.claims is not None:
        exchange.keep_alive = False
        endings = {"expired": errors.ExpiredToken(exchange.claims), "drain": errors.Draining()}
        exchange.refuse(endings.get(reason) or errors.RevokedToken(reason))
    elif protocol.write_paused or not exchange.head.http11:
        exchange.abort()
    else:  # what was written still goes out; that no end of the body follows tells the client
        exchange.release()
        exchange.done = True
        exchange.count(exchange.status)
        protocol.active = None
        protocol.transport.close()


def reset_on_close(transport: asyncio.Transport) -> None:
    """Have the connection end by a reset, so that what was sent is not taken for the whole."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
