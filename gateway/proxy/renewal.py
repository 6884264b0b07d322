"""A refresh inside the gateway: an expired access token and the refresh cookie of the same session for new ones.

The pair is what makes it safe from cross-site requests: a page of another site can set neither the
header with the signed token nor, against SameSite=Strict, have the cookie sent.

Requests that arrive together with one refresh token share one refresh, and for a moment after it
those that come late share its result; a live check follows for each of them, so that what is shared
never outlives the session. Across replicas the store's replay makes them agree (rotation table).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway import cookies
from gateway.cookies import Cookies
from gateway.errors import GatewayError, InvalidGrant, StoreUnavailable
from gateway.grants import TokenSet
from gateway.tokens.claims import Claims
from gateway.tokens.refresh import RefreshToken

SHARED_SECONDS = 2.0
MAX_SHARED = 4096
NO_STORE = b"Cache-Control: no-store\r\n"  # whatever the backend says: tokens are in no cache (RFC 9111 5.2.2.5)


@dataclass(frozen=True, slots=True)
class Renewed:
    """New tokens. `headers` is what the answer carries of them, as head bytes."""

    token: bytes = field(repr=False)
    headers: bytes = field(repr=False)
    session_id: str
    counter: int


class Renewer:
    """Refreshes for requests in flight; one a worker.

    `refresh(token, ip, request_id)` is Grants.refresh, `read(token, now)` RefreshTokens.read and
    `counter(session_id)` the store's present counter of a session, None where it has ended.
    """

    def __init__(
        self,
        refresh: Callable[[bytes, str, str], Awaitable[TokenSet]],
        read: Callable[[bytes, float], RefreshToken],
        counter: Callable[[str], Awaitable[int | None]],
        names: Cookies,
        clock: Callable[[], float],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._refresh = refresh
        self._read = read
        self._counter = counter
        self._names = names
        self._cookie = names.refresh.encode()
        self._clock = clock
        self._loop = loop
        self._flights: dict[bytes, asyncio.Task[Renewed]] = {}

    def credential(self, claims: Claims, cookie_headers: tuple[bytes, ...]) -> bytes | None:
        """Return the refresh token that a request brings for the session of these claims, None where there is none."""
        found = cookies.values(cookie_headers, self._cookie)
        if len(found) != 1:
            return None
        try:
            presented = self._read(found[0], self._clock())
        except InvalidGrant:
            return None
        return found[0] if presented.session_id == claims.sid else None

    async def renew(self, refresh_token: bytes, ip: str, request_id: str) -> Renewed:
        """Return new tokens. Raises what Grants.refresh raises."""
        flight = self._flights.get(refresh_token)
        if flight is None:
            flight = self._loop.create_task(self._fly(refresh_token, ip, request_id))
            if len(self._flights) < MAX_SHARED:
                self._flights[refresh_token] = flight
                flight.add_done_callback(lambda _: self._loop.call_later(SHARED_SECONDS, self._land, refresh_token))
        return await asyncio.shield(flight)  # who goes away must not take the others' tokens along

    async def current(self, renewed: Renewed) -> bool:
        """Tell whether these are still the session's newest tokens, so that an answer may carry them.

        An answer that took long must not put an older cookie over a newer one. Where the store cannot say,
        the cookie goes out: without it the client might be left with one that is spent.
        """
        try:
            return await self._counter(renewed.session_id) == renewed.counter
        except StoreUnavailable:
            return True

    def clear(self) -> bytes:
        """Return the head bytes that take the cookies away."""
        return _lines(self._names.clear())

    async def _fly(self, refresh_token: bytes, ip: str, request_id: str) -> Renewed:
        tokens = await self._refresh(refresh_token, ip, request_id)
        now = self._clock()
        headers = _lines(self._names.hand_out(tokens))
        if not self._names.access:
            headers += b"X-Access-Token: %b\r\nX-Access-Token-Expires-In: %d\r\n" % (
                tokens.access_token.encode(),
                tokens.expires_in,
            )
        counter = self._read(tokens.refresh_token.encode(), now).counter
        return Renewed(tokens.access_token.encode(), headers + NO_STORE, tokens.session_id, counter)

    def _land(self, refresh_token: bytes) -> None:
        flight = self._flights.pop(refresh_token, None)
        if flight is not None and not flight.cancelled():
            flight.exception()  # seen, so that the loop does not complain of it


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def refused(error: GatewayError) -> bool:
    """Tell whether a refresh was refused for good, rather than put off by an outage or a limit."""
    return isinstance(error, InvalidGrant)
