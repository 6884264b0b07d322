"""An exchange whose access token has expired gets a new one and goes on (contract 3, on_expired = "refresh").

One whose token another issuer signed with a key that is not known yet waits for that issuer's keys instead.

Twice it may come to a refresh: the gate says that the token has expired, or the backend does. Either way the
request must bring the refresh cookie of the same session, and the answer carries the new tokens, unless newer
ones were handed out while it took its time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

from gateway import errors
from gateway.errors import GatewayError
from gateway.gate import ALIVE, KeyMissing
from gateway.proxy.answer_head import EXPIRED, says_expired
from gateway.proxy.outgoing import request_name
from gateway.proxy.renewal import NO_STORE, Renewed
from gateway.telemetry.spans import under

if TYPE_CHECKING:
    from gateway.proxy.connection import UpstreamConnection
    from gateway.proxy.exchange import Exchange
    from gateway.tokens.claims import Claims

SUSPECT_BODY = 8192  # bytes of a 401's JSON that are read to see what it says


def not_verified(exchange: Exchange, error: GatewayError) -> None:
    """Go on where the token can be renewed, or the key that it lacks may come; else refuse."""
    if isinstance(error, errors.ExpiredToken):
        _expired(exchange, error)
    elif isinstance(error, errors.UnknownKey | errors.IssuerUnavailable):
        _wait_for_keys(exchange, error)
    else:
        exchange.refuse(error)


def _wait_for_keys(exchange: Exchange, error: KeyMissing) -> None:
    try:
        coming = exchange.plane.gate.wait_for_keys(error)
    except GatewayError as final:
        exchange.refuse(final)
    else:
        _start(exchange, _verify_again(exchange, coming))


async def _verify_again(exchange: Exchange, coming: Awaitable[Claims]) -> None:
    try:
        claims = await coming
    except GatewayError as error:  # an expired token too: what another issuer signed is not renewed here
        _refuse(exchange, error)
    else:
        _go_on_as(exchange, claims)


def _expired(exchange: Exchange, error: errors.ExpiredToken) -> None:
    """Refresh in place where the route or the cookie asks for it and the request brings what it takes."""
    credential = None
    if exchange.route.refreshes or exchange.by_cookie:
        credential = _credential(exchange, error.claims)
    if credential is None:
        exchange.refuse(error)
    else:
        _start(exchange, _renew(exchange, credential))


def cleared(connection: UpstreamConnection, exchange: Exchange) -> bool:
    """Tell whether a 401 under suspicion is to be passed on; one that says expired_token is met with a second try."""
    if not connection.ended and connection.suspect != EXPIRED:
        if connection.left > SUSPECT_BODY or len(connection.said) > SUSPECT_BODY:
            connection.suspect = b""
        return not connection.suspect
    if connection.suspect == EXPIRED or says_expired(connection.said):
        connection.exchange = None
        connection.unusable = True
        connection.transport.close()
        _replay(exchange)
        return False
    connection.suspect = b""
    return True


def can_replay(exchange: Exchange) -> bool:
    """True where a backend's own 401 expired_token can be met with a refresh and a second try."""
    if not exchange.whole or exchange.kept is None or exchange.replayed or exchange.claims is None:
        return False
    return _credential(exchange, exchange.claims) is not None


def _replay(exchange: Exchange) -> None:
    """The backend says that the token expired: refresh, and send the request once more (contract 6.7)."""
    credential = None if exchange.claims is None else _credential(exchange, exchange.claims)
    exchange.again()
    exchange.replayed, exchange.answered, exchange.sent, exchange.upstream = True, False, False, None
    exchange.held, exchange.kept = exchange.kept or [], None
    exchange.protocol.deadline = 0.0
    if credential is not None:
        _start(exchange, _renew(exchange, credential))


def confirm(exchange: Exchange, upstream: UpstreamConnection, data: bytes) -> None:
    """Before an answer with new tokens goes out: see that they still are the newest; then let it be read on."""
    upstream.pause_reading()
    _start(exchange, _confirm(exchange, upstream, data))


def told(exchange: Exchange, error: GatewayError) -> bytes:
    """Return the header lines of a refresh in a refusal: no tokens of a session that has ended since (contract 6.3)."""
    renewer = exchange.plane.renewer
    if renewer is not None and exchange.override and isinstance(error, errors.RevokedToken):
        return renewer.clear()
    return exchange.extra.replace(NO_STORE, b"")  # a refusal says so itself


async def _renew(exchange: Exchange, credential: bytes) -> None:
    renewer = exchange.plane.renewer
    if renewer is None:
        return
    ip = exchange.protocol.source(exchange.head.fields).address
    exchange.request_id = name = exchange.request_id or request_name(exchange)  # the audit trail's, and the backend's
    try:
        with under(exchange.span):
            renewed = await renewer.renew(credential, ip, name.decode("ascii"))
    except errors.InvalidGrant:
        exchange.extra = renewer.clear()
        _refuse(exchange, errors.RevokedToken("refresh refused"))
    except GatewayError as error:
        _refuse(exchange, error)
    else:
        _go_on(exchange, renewed)


def _go_on(exchange: Exchange, renewed: Renewed) -> None:
    if exchange.done:
        return
    exchange.renewed, exchange.extra, exchange.token, exchange.override = renewed, renewed.headers, renewed.token, True
    try:
        claims = exchange.plane.gate.verify(renewed.token)
    except GatewayError as error:
        exchange.refuse(error)
    else:
        _go_on_as(exchange, claims)


def _go_on_as(exchange: Exchange, claims: Claims) -> None:
    if exchange.done:
        return
    exchange.claims = claims
    if exchange.route.rule.live:
        exchange.plane.gate.ask(claims, exchange.settled)
        exchange.asking()
    else:
        exchange.settled(ALIVE)


def _refuse(exchange: Exchange, error: GatewayError) -> None:
    if not exchange.done:
        exchange.refuse(error)


async def _confirm(exchange: Exchange, upstream: UpstreamConnection, data: bytes) -> None:
    renewed, exchange.renewed = exchange.renewed, None
    renewer = exchange.plane.renewer
    if renewed is not None and renewer is not None and not await renewer.current(renewed):
        exchange.extra = b""
    if upstream.exchange is exchange:
        upstream.resume_reading()
        upstream.data_received(data)


def _credential(exchange: Exchange, claims: Claims) -> bytes | None:
    renewer = exchange.plane.renewer
    return None if renewer is None else renewer.credential(claims, exchange.head.fields.cookies)


def _start(exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
    tasks = exchange.protocol.server_state.tasks  # what a drain waits for, and cancels at its end
    task = exchange.protocol.loop.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
