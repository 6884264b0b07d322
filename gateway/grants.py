"""Who gets tokens, and who loses them: login, refresh, logout, revocation.

Laws:
- An attempt is counted before a password or a refresh is looked at, so that guessing costs its allowance.
- A token is minted from what the store answered, and nothing is awaited between the two: a refresh that
  lost against a revoke has nothing to hand out (contract 6.3).
- Every change leaves one audit line; a refresh also counts by its outcome.
"""

from __future__ import annotations

import ipaddress
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.errors import (
    IdentityUnavailable,
    InvalidCredentials,
    InvalidGrant,
    NotFound,
    TooManyAttempts,
)
from gateway.identity.provider import Identity, Provider
from gateway.sessions.record import NewIdentity, NewSession, Session
from gateway.sessions.store import Rotation, SessionStore, Unconfirmed
from gateway.telemetry import Telemetry, audit
from gateway.tokens.refresh import RefreshToken, RefreshTokens
from gateway.tokens.rotation import Outcome
from gateway.tokens.signer import AccessToken, CannotMint, Signer

_ACCENTS = frozenset(map(chr, range(0x300, 0x370)))  # combining marks of Latin, Greek and Cyrillic
_SERVED = frozenset({Outcome.ROTATED, Outcome.REPLAYED})


@dataclass(frozen=True, slots=True)
class Limits:
    """Attempts a minute; 0 = no limit."""

    login_per_user: int = 0
    login_per_ip: int = 0
    refresh_per_session: int = 0


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a login or a refresh hands out. Times are Unix seconds; `refresh_expires_at` 0 = never.

    `outcome` is "login", "rotated" or "replayed".
    """

    access_token: str = field(repr=False)
    access_expires_at: int
    expires_in: int
    refresh_token: str = field(repr=False)
    refresh_expires_at: int
    session_id: str
    scope: str
    outcome: str


class Grants:
    """Gives and takes tokens. `recheck`: ask the provider about the user at every refresh."""

    def __init__(
        self,
        provider: Provider,
        store: SessionStore,
        signer: Signer,
        refresh_tokens: RefreshTokens,
        limits: Limits,
        recheck: bool,
        telemetry: Telemetry,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._store = store
        self._signer = signer
        self._refresh_tokens = refresh_tokens
        self._limits = limits
        self._recheck = recheck
        self._telemetry = telemetry
        self._clock = clock

    def take_up(self, limits: Limits, recheck: bool) -> None:
        """Go by these from here on (a reload)."""
        self._limits = limits
        self._recheck = recheck

    async def login(
        self, username: str, password: str, device: str, ip: str, user_agent: str, *, request_id: str = ""
    ) -> TokenSet:
        """Begin a session. Raises InvalidCredentials, TooManyAttempts, IdentityUnavailable, StoreUnavailable."""
        try:
            await self._limit_login(username, ip)
            identity = await self._provider.authenticate(username, password, device, ip)
        except (InvalidCredentials, TooManyAttempts) as error:
            audit("login_failed", subject=username, ip=ip, reason=error.code, request_id=request_id)
            self._telemetry.session("login_failed")
            raise
        session, access = await self._begin(identity, device, ip, user_agent)
        audit("login", subject=session.subject, session_id=session.id, ip=ip, request_id=request_id)
        self._telemetry.session("created")
        return self._token_set(session, access, "login")

    async def refresh(self, refresh_token: str | bytes, ip: str, *, request_id: str = "") -> TokenSet:
        """Present a refresh token (RFC 6749 6, RFC 9700 4.14.2).

        Raises InvalidGrant (reason: reuse, unknown, expired, malformed, or credentials where a recheck ended
        the session), TooManyAttempts, IdentityUnavailable, StoreUnavailable.
        """
        presented = self._read(refresh_token)
        await self._limit("refresh", presented.session_id, self._limits.refresh_per_session)
        refreshed = await self._recheck_user(presented, ip, request_id) if self._recheck else None
        try:
            rotation = await self._store.rotate(presented.session_id, presented.counter, refreshed=refreshed)
        except Unconfirmed as error:  # asked again, it will be an unknown session: the cause is told now or never
            self._tell(presented.session_id, error.done, ip, request_id)
            raise
        self._tell(presented.session_id, rotation, ip, request_id)
        if rotation.outcome not in _SERVED or rotation.session is None:
            raise InvalidGrant(rotation.outcome.value)
        return self._token_set(rotation.session, self._mint(rotation.session), rotation.outcome.value)

    def _tell(self, session_id: str, rotation: Rotation, ip: str, request_id: str) -> None:
        outcome, subject = rotation.outcome, rotation.session.subject if rotation.session else ""
        told = {"session_id": session_id, "subject": subject, "ip": ip, "request_id": request_id}
        self._telemetry.refreshed(outcome.value)
        if outcome is Outcome.REUSE:
            audit("refresh_reuse", reason="a refresh token was used again; the session has ended", **told)
            self._telemetry.session("ended")
        elif outcome in _SERVED:
            audit("refresh", outcome=outcome.value, **told)

    async def logout(self, session_id: str, *, subject: str = "", ip: str = "", request_id: str = "") -> None:
        """End the caller's own session; one that is over already is no error. Raises StoreUnavailable."""
        if await self._store.end(session_id):
            self._telemetry.session("ended")
        audit("logout", session_id=session_id, subject=subject, ip=ip, request_id=request_id)

    async def end_session(
        self, session_id: str, *, owner: str | None = None, by: str, ip: str = "", request_id: str = ""
    ) -> None:
        """End one session, of `owner` alone unless that is None.

        Raises NotFound where there is none, alike for another user's session. Raises StoreUnavailable.
        """
        session = await self._store.get(session_id)
        if session is None:
            await self._store.end(session_id)  # it may have ended a moment ago, with too few replicas
        if session is None or (owner is not None and session.subject != owner):
            raise NotFound("session")
        told = {"session_id": session_id, "subject": session.subject, "by": by, "ip": ip, "request_id": request_id}
        try:
            if await self._store.end(session_id):
                self._telemetry.session("ended")
        except Unconfirmed:
            audit("session_revoked", outcome="unconfirmed", **told)
            raise
        audit("session_revoked", **told)

    async def end_sessions(
        self, subject: str, *, keep: str = "", by: str, ip: str = "", request_id: str = ""
    ) -> list[str]:
        """End all sessions of a user but `keep`; the ids of those that were alive. Raises StoreUnavailable."""
        told = {"subject": subject, "by": by, "ip": ip, "request_id": request_id}
        try:
            ended = await self._store.end_all(subject, keep)
        except Unconfirmed as error:
            audit("sessions_revoked", number=len(error.done), outcome="unconfirmed", **told)
            raise
        self._telemetry.session("ended", len(ended))
        audit("sessions_revoked", number=len(ended), **told)
        return ended

    async def revoke_token(
        self, token_id: str, expires_at: int, *, subject: str = "", by: str, ip: str = "", request_id: str = ""
    ) -> None:
        """Put one access token on the blacklist. Raises StoreUnavailable, ValueError for what is no token id."""
        await self._store.revoke_token(token_id, expires_at)
        audit("token_revoked", token_id=token_id, subject=subject, by=by, ip=ip, request_id=request_id)

    async def limit_client(self, ip: str) -> None:
        """Count an attempt to authenticate as a client of the introspection. Raises TooManyAttempts."""
        await self._limit("client-ip", network(ip), self._limits.login_per_ip)

    async def _limit_login(self, username: str, ip: str) -> None:
        # The address first: one that is over its own limit must not use up a user's.
        await self._limit("login-ip", network(ip), self._limits.login_per_ip)
        await self._limit("login-user", alike(username), self._limits.login_per_user)

    async def _limit(self, kind: str, who: str, per_minute: int) -> None:
        wait = await self._store.attempt(kind, who, per_minute)
        if wait > 0:
            raise TooManyAttempts(kind, retry_after=wait)

    async def _begin(self, identity: Identity, device: str, ip: str, user_agent: str) -> tuple[Session, AccessToken]:
        new = NewSession(
            subject=identity.subject,
            device=device,
            user_agent=user_agent,
            ip=ip,
            roles=identity.roles,
            scope=identity.scope,
            claims=identity.claims,
            credential_version=identity.credential_version,
        )
        try:
            session = await self._store.create(new)
        except ValueError as error:  # what the provider said of the user fits no session
            raise IdentityUnavailable(f"identity: {error}") from None
        try:
            return session, self._mint(session)
        except IdentityUnavailable:
            await self._store.end(session.id)
            raise

    def _read(self, refresh_token: str | bytes) -> RefreshToken:
        try:
            return self._refresh_tokens.read(refresh_token, self._clock())
        except InvalidGrant as error:
            self._telemetry.refreshed("expired" if error.reason == "expired" else "unknown")
            raise

    async def _recheck_user(self, presented: RefreshToken, ip: str, request_id: str) -> NewIdentity:
        """Ask the provider whether the user may go on (contract 3, recheck_on_refresh)."""
        session = await self._store.get(presented.session_id)
        if session is None:
            await self._store.end(presented.session_id)  # it may have ended a moment ago, with too few replicas
            self._telemetry.refreshed(Outcome.UNKNOWN.value)
            raise InvalidGrant("unknown")
        identity = await self._provider.recheck(session.subject, session.id)
        if identity is None or _changed(session.credential_version, identity.credential_version):
            await self.end_session(session.id, by="identity recheck", ip=ip, request_id=request_id)
            self._telemetry.refreshed(Outcome.UNKNOWN.value)
            raise InvalidGrant("credentials")
        if identity.subject != session.subject:
            raise IdentityUnavailable("recheck: the answer is about another user")
        version = identity.credential_version or session.credential_version
        return NewIdentity(identity.roles, identity.scope, identity.claims, version)

    def _mint(self, session: Session) -> AccessToken:
        try:
            return self._signer.mint(
                subject=session.subject,
                session_id=session.id,
                counter=session.counter,
                roles=session.roles,
                scope=session.scope,
                claims=session.claims,
                now=self._clock(),
            )
        except CannotMint as error:
            raise IdentityUnavailable(f"identity: {error}") from None

    def _token_set(self, session: Session, access: AccessToken, outcome: str) -> TokenSet:
        refresh = self._refresh_tokens.mint(session.id, session.counter, session.rotated_at, session.expires_at)
        return TokenSet(
            access_token=access.token,
            access_expires_at=access.expires_at,
            expires_in=max(0, access.expires_at - int(self._clock())),
            refresh_token=refresh,
            refresh_expires_at=session.expires_at,
            session_id=session.id,
            scope=session.scope,
            outcome=outcome,
        )


def network(ip: str) -> str:
    """Return what a rate limit counts as one place: an IPv4 address, or the /64 of an IPv6 one.

    One IPv6 customer commands a whole /64 (RFC 6177). What is no address stands for itself.
    """
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def alike(username: str) -> str:
    """Return what a rate limit counts as one user: whatever a provider may take for one.

    That is `Alice`, `alice `, full-width letters, and what databases' collations do not tell apart: accents, and
    characters that are not seen. Two users who share a limit by this are no harm.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", username).casefold())
    return "".join(c for c in folded if c not in _ACCENTS and unicodedata.category(c) != "Cf").strip()


def _changed(known: str, told: str) -> bool:
    """A version that one side does not tell is no change."""
    return bool(known and told and known != told)
