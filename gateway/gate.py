"""The one gate: raw credentials and a route's rule -> who is calling, or a GatewayError.

Order, always: a credential is found, verified, alive, allowed. The data plane takes the steps one by
one without a task (`identify`, `ask`, `settle`); everyone else awaits `admit`, which is the same steps.
The gate never sees a body, never writes an answer and never lets an exception of another kind out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from gateway import cookies
from gateway.errors import (
    GatewayError,
    InvalidToken,
    IssuerUnavailable,
    MissingToken,
    RevokedToken,
    StoreUnavailable,
    UnknownKey,
)
from gateway.sessions.liveness import LiveKeys, Liveness, Verdict
from gateway.tokens.access import AccessRule, decide
from gateway.tokens.claims import Claims

ALIVE = int(Verdict.ALIVE)
ENDED = int(Verdict.ENDED)
MARK_AGAIN = 1.0  # seconds
# Each tells of a WebSocket. Proxies keep `Upgrade` to themselves, and over HTTP/2 there is no key (RFC 8441 5).
WEBSOCKET = (b"upgrade", b"sec-websocket-key", b"sec-websocket-version")


# What a fetch of the issuer's keys may mend: worth one wait (`Gate.wait_for_keys`).
KeyMissing = UnknownKey | IssuerUnavailable


class Verifier(Protocol):
    def verify(self, token: bytes, now: float) -> Claims: ...


class IssuerKeys(Protocol):
    """Fetches the keys of other issuers (identity.jwks)."""

    def want(self, issuer: str) -> Awaitable[None] | None: ...


class Gate:
    """Finds, verifies and checks the credential of a request.

    `access_cookie` names the cookie that may hold the access token, "" where there is none, and `allow_same_site`
    lets pages of the same site use it; `issuer` is the gateway's public URL, whose origin counts as its own, and so do
    those that are `listed`, which a reload may replace.
    `mark_used(session_id, counter)` is called once for each token that this worker sees first and the store does not
    know to be used: it is what makes the refresh token handed out with it count as used (rotation table).
    `issuer_keys` fetches the keys of other issuers, None where there are none.
    """

    __slots__ = (
        "_allow_same_site",
        "_clock",
        "_issuer",
        "_issuer_keys",
        "_liveness",
        "_mark_used",
        "_marking",
        "_verifier",
        "access_cookie",
        "ask_keys",
        "epoch",
        "listed",
    )

    def __init__(
        self,
        verifier: Verifier,
        liveness: Liveness,
        mark_used: Callable[[str, int], Awaitable[None]],
        clock: Callable[[], float] = time.time,
        *,
        access_cookie: str = "",
        allow_same_site: bool = False,
        issuer: str = "",
        issuer_keys: IssuerKeys | None = None,
        listed: cookies.Listed = frozenset(),
    ) -> None:
        self._verifier = verifier
        self._liveness = liveness
        self.ask_keys = liveness.ask  # about keys at hand
        self.epoch = liveness.epoch
        self._mark_used = mark_used
        self._clock = clock
        self._issuer = issuer
        self._issuer_keys = issuer_keys
        self._allow_same_site = allow_same_site
        self.access_cookie = access_cookie.encode()
        self.listed = listed
        self._marking: set[asyncio.Task[None]] = set()

    def identify(self, authorization: bytes | None) -> Claims | None:
        """Return the claims of an `Authorization` value, None where it carries no bearer token.

        Raises InvalidToken or ExpiredToken. Says nothing yet about the session.
        """
        if authorization is None:
            return None
        token = authorization[7:].strip(b" ") if authorization[:7] == b"Bearer " else bearer_token(authorization)
        if token is None:
            return None
        return self._verifier.verify(token, self._clock())

    def find(self, authorizations: Sequence[bytes], cookie_headers: Sequence[bytes]) -> tuple[bytes | None, bool]:
        """Return (access token, whether it came in the cookie); None where none is presented.

        Raises InvalidToken where two are: which of them is meant nobody can tell (RFC 6750 2).
        """
        if len(authorizations) > 1:
            raise InvalidToken("several Authorization headers")
        token = bearer_token(authorizations[0]) if authorizations else None
        if not self.access_cookie:
            return token, False
        found = cookies.values(cookie_headers, self.access_cookie)
        if len(found) + (token is not None) > 1:
            raise InvalidToken("several access tokens")
        return (found[0], True) if found else (token, False)

    def check_origin(self, headers: Iterable[tuple[bytes, bytes]], host: str, schemes: Iterable[str]) -> None:
        """Raise CsrfRejected where a page of another origin may have made a request with the access cookie."""
        said: dict[bytes, list[bytes]] = {b"sec-fetch-site": [], b"origin": []}
        for name, value in headers:
            said.get(name.lower(), []).append(value)
        own = cookies.own_origins(host, schemes, self._issuer)
        sites, origins = said[b"sec-fetch-site"], said[b"origin"]
        cookies.check_origin(sites, origins, own, strict=True, same_site=self._allow_same_site, listed=self.listed)

    def verify(self, token: bytes) -> Claims:
        """Return the claims of a token. Raises InvalidToken or ExpiredToken, and KeyMissing's for another issuer's."""
        return self._verifier.verify(token, self._clock())

    async def verify_patiently(self, token: bytes) -> Claims:
        """As `verify`; waits for the keys of the token's issuer where a fetch of them could mend the error."""
        try:
            return self.verify(token)
        except (UnknownKey, IssuerUnavailable) as error:
            return await self.wait_for_keys(error)

    def wait_for_keys(self, error: KeyMissing) -> Awaitable[Claims]:
        """Return what to await for the claims of a token whose key is missing. Raises `error` where nothing is to come.

        At most two fetches are waited for: one under way may have begun before its issuer had the new key.
        """
        fetch = self._issuer_keys.want(error.issuer) if self._issuer_keys is not None else None
        if fetch is None:
            raise error
        return self._verify_after(fetch, error)

    async def _verify_after(self, fetch: Awaitable[None], error: KeyMissing) -> Claims:
        await fetch
        try:
            return self.verify(error.token)
        except (UnknownKey, IssuerUnavailable) as again:
            more = self._issuer_keys.want(again.issuer) if self._issuer_keys is not None else None
            if more is None:
                raise
        await more
        return self.verify(error.token)

    def ask(self, claims: Claims, answer: Callable[[int], None]) -> None:
        """Ask the store whether the session lives; `answer(verdict)` comes later, exactly once."""
        keys = claims.memo.get("live")
        self.ask_keys(self.keys(claims) if keys is None else keys, answer)

    def keys(self, claims: Claims) -> LiveKeys:
        """Return what is asked about a token, made once for it."""
        keys: LiveKeys | None = claims.memo.get("live")
        if keys is None:
            keys = claims.memo["live"] = self._live_keys(claims)
        return keys

    def _live_keys(self, claims: Claims) -> LiveKeys:
        other = claims.foreign
        if other is not None:
            return self._liveness.foreign_keys(other.subject_id, other.token_id, claims.iat)
        return self._liveness.keys(claims.sid, claims.jti, claims.sub)

    def settle(self, claims: Claims | None, rule: AccessRule, verdict: int, *, mark: bool = True) -> None:
        """Raise RevokedToken, StoreUnavailable, MissingToken or InsufficientScope, or let pass.

        `mark` is False where the gateway itself presents a token that the client has not been given yet.
        """
        if verdict != ALIVE:
            raise RevokedToken() if verdict == ENDED else StoreUnavailable("live check")
        if rule.auth != "none":
            decide(claims, rule)
        if claims is not None and claims.n > 0 and mark and "used" not in claims.memo:
            self._mark(claims)

    async def admit(
        self,
        headers: Sequence[tuple[bytes, bytes]],
        rule: AccessRule,
        *,
        method: bytes = b"GET",
        host: str = "",
        scheme: str = "http",
    ) -> Claims | None:
        """Take every step for a request with these (lower-case name, value) headers.

        `host` is the request's, by default what its Host header says. Returns None for an anonymous caller
        that the rule allows. Raises GatewayError.
        """
        if rule.auth == "none":
            return None
        token, by_cookie = self.find(all_of(headers, b"authorization"), all_of(headers, b"cookie"))
        if by_cookie and (method not in cookies.SAFE or _upgrades(headers)):
            own = host or b"".join(all_of(headers, b"host")[:1]).decode("latin-1")
            self.check_origin(headers, own, [scheme])
        claims = await self.verify_patiently(token) if token is not None else None
        verdict = await self.check(claims) if claims is not None and rule.live else ALIVE
        self.settle(claims, rule, verdict)
        return claims

    async def check(self, claims: Claims) -> int:
        """Return the verdict of a live check made from here on."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.ask(claims, lambda verdict: None if future.done() else future.set_result(verdict))
        return await future

    def _mark(self, claims: Claims) -> None:
        claims.memo["used"] = True
        keys: LiveKeys | None = claims.memo.get("live")
        if keys is not None and keys.is_used(claims.n):  # the live check has just read it: another worker was first
            return
        task = asyncio.get_running_loop().create_task(self._mark_now(claims))
        self._marking.add(task)  # the loop keeps only weak references to tasks
        task.add_done_callback(self._marking.discard)

    async def _mark_now(self, claims: Claims) -> None:
        try:
            await self._mark_used(claims.sid, claims.n)
        except GatewayError:  # a request with this token tries again, but not each one in an outage
            asyncio.get_running_loop().call_later(MARK_AGAIN, claims.memo.pop, "used", None)


def bearer_token(authorization: bytes) -> bytes | None:
    """Return the token of an `Authorization` value whose scheme is Bearer in any case (RFC 9110 11.1).

    None for another scheme: such a request presents no access token. Raises InvalidToken for a value
    that has no scheme at all, which can only be a token in the wrong place.
    """
    scheme, space, rest = authorization.partition(b" ")
    if not space:
        if scheme.lower() == b"bearer":
            raise InvalidToken("no token after the scheme")
        raise InvalidToken("no scheme before the token")
    return rest.strip(b" ") if scheme.lower() == b"bearer" else None


def only_authorization(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the single `Authorization` value. Raises InvalidToken where there are several."""
    values = [value for name, value in headers if name == b"authorization"]
    if len(values) > 1:
        raise InvalidToken("several Authorization headers")
    return values[0] if values else None


def _upgrades(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request asks for a WebSocket, also where the proxy that tells of it kept `Upgrade` to itself."""
    return any(name in WEBSOCKET for name, _ in headers)


def all_of(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    """Return every value under a lower-case name."""
    return [value for each, value in headers if each == name]


def require(claims: Claims | None) -> Claims:
    """Return claims that must be there. Raises MissingToken."""
    if claims is None:
        raise MissingToken
    return claims
