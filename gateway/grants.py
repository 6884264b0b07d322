"""Who gets tokens, and who loses them: login, exchange, refresh, logout, revocation.

Laws:
- An attempt is counted before a password or a refresh is looked at, so that guessing costs its allowance.
- A token is minted from what the store answered, and nothing is awaited between the two: a refresh that
  lost against a revoke has nothing to hand out (contract 6.3).
- Every change leaves one audit line, and so does what ends nothing (`number` 0); a refresh also counts by its outcome.
- Users of another issuer live in a namespace of their own (its `exchange_prefix`): no local sign-in can give a
  subject in it, and to sign such a user out ends both their sessions here and the issuer's tokens.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar, Unpack

from gateway.attempts import Attempts, Limits
from gateway.errors import (
    GatewayError,
    IdentityUnavailable,
    InvalidCredentials,
    InvalidGrant,
    InvalidRequest,
    NotFound,
    TooManyAttempts,
)
from gateway.identity import fields
from gateway.identity.exchange import exchanged
from gateway.identity.provider import Identity, Provider
from gateway.sessions.record import NewIdentity, NewSession, Session
from gateway.sessions.store import Rotation, SessionStore, Unconfirmed
from gateway.telemetry import AuditEvent, Cause, Telemetry, audit
from gateway.tokens.claims import Claims
from gateway.tokens.foreign import IssuerRules, Issuers
from gateway.tokens.refresh import RefreshToken, RefreshTokens
from gateway.tokens.rotation import Outcome
from gateway.tokens.signer import AccessToken, CannotMint, Signer

Ended = TypeVar("Ended", bool, list[str])

_SERVED = frozenset({Outcome.ROTATED, Outcome.REPLAYED})


@dataclass(frozen=True, slots=True)
class TokenSet:
    """What a login or a refresh hands out. Times are Unix seconds; `refresh_expires_at` 0 = never.

    `refresh_expires_at` and `refreshed_at`, when the session was begun or last rotated, are the store's, the
    others the signer's. `outcome` is "login", "rotated" or "replayed".
    """

    access_token: str = field(repr=False)
    access_expires_at: int
    expires_in: int
    refresh_token: str = field(repr=False)
    refresh_expires_at: int
    refreshed_at: int
    session_id: str
    scope: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session begins: a device by its name, the client's address, its program."""

    device: str
    ip: str
    user_agent: str


class Grants:
    """Gives and takes tokens. `recheck`: ask the provider about the user at every refresh.

    `issuers` are the other issuers whose tokens are accepted.
    """

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
        issuers: Issuers | None = None,
    ) -> None:
        self._provider = provider
        self._store = store
        self._signer = signer
        self._refresh_tokens = refresh_tokens
        self._attempts = Attempts(store, limits)
        self._recheck = recheck
        self._telemetry = telemetry
        self._clock = clock
        self._issuers = issuers or Issuers([], 0.0)
        self._namespaces = self._exchanged()

    @property
    def exchanges(self) -> bool:
        """Whether the tokens of any issuer can be exchanged for a session."""
        return bool(self._namespaces)

    def take_up(self, limits: Limits, recheck: bool) -> None:
        """Go by these from here on (a reload), and by the other issuers as they are by now."""
        self._attempts.limits = limits
        self._recheck = recheck
        self._namespaces = self._exchanged()

    def _exchanged(self) -> dict[str, IssuerRules]:
        return {rules.exchange_prefix: rules for rules in self._issuers.all_rules() if rules.exchange_prefix}

    async def login(
        self, username: str, password: str, device: str, ip: str, user_agent: str, *, request_id: str = ""
    ) -> TokenSet:
        """Begin a session. Raises InvalidCredentials, TooManyAttempts, IdentityUnavailable, StoreUnavailable."""
        try:
            await self._attempts.login(username, ip)
            identity = await self._provider.authenticate(username, password, device, ip)
            if self._namespace(identity.subject) is not None:
                raise IdentityUnavailable("identity: the subject lies in the namespace of another issuer")
        except (InvalidCredentials, TooManyAttempts) as error:
            audit("login_failed", subject=username, ip=ip, reason=error.code, request_id=request_id)
            self._telemetry.session("login_failed")
            raise
        session, access = await self._begin(identity, device, ip, user_agent)
        audit("login", subject=session.subject, session_id=session.id, ip=ip, request_id=request_id)
        self._telemetry.session("created")
        return self._token_set(session, access, "login")

    async def exchange(
        self,
        claims: Claims,
        place: Place,
        still_alive: Callable[[], Awaitable[None]],
        *,
        scope: str | None = None,
        request_id: str = "",
    ) -> TokenSet:
        """Begin a session for a verified, living token of another issuer (RFC 8693): a sign-in on a device.

        `still_alive` raises where the token has been revoked in the meantime; it is asked once the session is
        there, so that whoever revokes the token ends the session or has it never handed out. `scope` narrows the
        token's own. Raises InvalidRequest, InvalidScope, TooManyAttempts, StoreUnavailable, and what
        `still_alive` raises.
        """
        rules = self._issuers.rules(claims.iss)
        if rules is None or not rules.exchange_prefix:
            raise InvalidRequest("subject_token is of an issuer whose tokens are not exchanged")
        identity = exchanged(claims, rules, scope)
        await self._attempts.login_of(identity.subject)
        session, access = await self._begin(identity, place.device, place.ip, place.user_agent)
        try:
            await still_alive()
        except GatewayError:
            await self._store.end(session.id)
            raise
        told = {"subject": session.subject, "session_id": session.id, "ip": place.ip, "request_id": request_id}
        audit("login", by="token exchange", **told)
        self._telemetry.session("created")
        return self._token_set(session, access, "login")

    async def limit_exchange(self, ip: str) -> None:
        """Count an attempt to exchange a token. Raises TooManyAttempts, StoreUnavailable."""
        await self._attempts.login_from(ip)

    async def refresh(self, refresh_token: str | bytes, ip: str, *, request_id: str = "") -> TokenSet:
        """Present a refresh token (RFC 6749 6, RFC 9700 4.14.2).

        Raises InvalidGrant (reason: reuse, unknown, expired, malformed, or credentials where a recheck ended
        the session), TooManyAttempts, IdentityUnavailable, StoreUnavailable.
        """
        presented = self._read(refresh_token)
        await self._attempts.refresh(presented.session_id)
        refreshed = await self._recheck_user(presented, ip, request_id) if self._recheck else None
        try:
            rotation = await self._store.rotate(presented.session_id, presented.counter, refreshed=refreshed)
        except Unconfirmed as error:  # asked again, it will be an unknown session: the cause is told now or never
            self._tell(presented.session_id, _with_cause(error.done, presented), ip, request_id)
            raise
        rotation = _with_cause(rotation, presented)
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

    async def logout(self, session_id: str, *, subject: str = "", **cause: Unpack[Cause]) -> None:
        """End the caller's own session; one that is over already is no error. Raises StoreUnavailable."""
        told = {"session_id": session_id, "subject": subject}
        ended = await _told("logout", told, cause, self._store.end(session_id))
        self._telemetry.session("ended", int(ended))

    async def end_session(self, session_id: str, *, owner: str | None = None, **cause: Unpack[Cause]) -> None:
        """End one session, of `owner` alone unless that is None.

        Raises NotFound where there is none, alike for another user's session. Raises StoreUnavailable.
        """
        session = await self._store.get(session_id)
        told = {"session_id": session_id, "subject": "" if session is None else session.subject}
        if session is None:
            again = self._store.end(session_id)  # it may have ended a moment ago, with too few replicas
            await (again if owner is not None else _told("session_revoked", told, cause, again))
        if session is None or (owner is not None and session.subject != owner):
            raise NotFound("session")
        ended = await _told("session_revoked", told, cause, self._store.end(session_id))
        self._telemetry.session("ended", int(ended))

    async def end_sessions(self, subject: str, *, keep: str = "", **cause: Unpack[Cause]) -> list[str]:
        """End all sessions of a user but `keep`; the ids of those that were alive. Raises StoreUnavailable.

        For a user of another issuer who is to keep none, the tokens of that issuer are void too: they would
        give the next session.
        """
        rules = self._namespace(subject)
        if rules is not None and not keep:
            await self._set_not_before(rules, subject.removeprefix(rules.exchange_prefix))
        return await self._end_all(subject, keep, "", cause)

    async def _end_all(self, subject: str, keep: str, issuer: str, cause: Cause) -> list[str]:
        told = {"subject": subject, "issuer": issuer}
        ended = await _told("sessions_revoked", told, cause, self._store.end_all(subject, keep))
        self._telemetry.session("ended", len(ended))
        return ended

    async def revoke_token(self, token_id: str, expires_at: int, *, subject: str = "", **cause: Unpack[Cause]) -> None:
        """Put one access token on the blacklist. Raises StoreUnavailable, ValueError for what is no token id."""
        told = {"token_id": token_id, "subject": subject}
        await _told("token_revoked", told, cause, self._store.revoke_token(token_id, expires_at))

    async def logout_foreign(self, claims: Claims, **cause: Unpack[Cause]) -> None:
        """Revoke the caller's own token of another issuer. Raises StoreUnavailable."""
        if claims.foreign is not None:
            token_id = claims.foreign.token_id
            told = {"token_id": token_id, "subject": claims.sub}
            await _told("logout", told, cause, self._store.revoke_token(token_id, claims.exp))

    async def void_foreign(self, issuer: str, subject: str, *, issued_at: int = 0, **cause: Unpack[Cause]) -> None:
        """Void all tokens that another issuer gave a user until now, and end the sessions they were exchanged for.

        `subject` is as the issuer names them. `issued_at` is the time of a token that must be among those, though the
        issuer's clock may be ahead. Raises StoreUnavailable, InvalidRequest.
        """
        rules = self._issuers.rules(issuer)
        if rules is None:
            raise InvalidRequest("the issuer is none of the configured ones")
        try:
            fields.name(subject)
        except ValueError:
            raise InvalidRequest("the subject is none that a token can have") from None
        await self._set_not_before(rules, subject, issued_at)  # first: what is exchanged from here on is refused
        if rules.exchange_prefix:
            await self._end_all(rules.exchange_prefix + subject, "", issuer, cause)
        else:
            audit("sessions_revoked", subject=subject, issuer=issuer, **cause)

    def knows_issuer(self, issuer: str) -> bool:
        """Tell whether this is one of the other issuers."""
        return self._issuers.rules(issuer) is not None

    def foreign_token_id(self, issuer: str, jti: str) -> str:
        """Return what a token of one of the other issuers is known by in the store."""
        rules = self._issuers.rules(issuer)
        return rules.token_id(jti) if rules is not None else jti

    async def limit_client(self, ip: str) -> None:
        """Count an attempt to authenticate as a client of the introspection. Raises TooManyAttempts."""
        await self._attempts.client(ip)

    async def _set_not_before(self, rules: IssuerRules, subject: str, issued_at: int = 0) -> None:
        moment, life = rules.voided(self._clock(), self._issuers.leeway, issued_at)
        await self._store.set_not_before(rules.subject_id(subject), moment, life)

    def _namespace(self, subject: str) -> IssuerRules | None:
        """Return the issuer whose users' sessions have subjects like this one, None for a local user's."""
        return next((rules for prefix, rules in self._namespaces.items() if subject.startswith(prefix)), None)

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
        except InvalidGrant:
            self._telemetry.refreshed(Outcome.UNKNOWN.value)
            raise

    async def _recheck_user(self, presented: RefreshToken, ip: str, request_id: str) -> NewIdentity | None:
        """Ask the provider whether the user may go on (contract 3, recheck_on_refresh).

        None for a user of another issuer, whom the provider does not know.
        """
        session = await self._store.get(presented.session_id)
        if session is None:
            await self._store.end(presented.session_id)  # it may have ended a moment ago, with too few replicas
            outcome = _with_cause(Rotation(Outcome.UNKNOWN, None), presented).outcome.value
            self._telemetry.refreshed(outcome)
            raise InvalidGrant(outcome)
        if self._namespace(session.subject) is not None:
            return None
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
            refreshed_at=session.rotated_at,
            session_id=session.id,
            scope=session.scope,
            outcome=outcome,
        )


async def _told(event: AuditEvent, told: Mapping[str, str], cause: Cause, ending: Awaitable[Ended]) -> Ended:
    """End something and leave an audit line, also where too few replicas have it. Raises StoreUnavailable."""
    try:
        done = await ending
    except Unconfirmed as error:
        audit(event, number=_number(error.done), outcome="unconfirmed", **told, **cause)
        raise
    audit(event, number=_number(done), **told, **cause)
    return done


def _number(done: bool | list[str]) -> int:
    return len(done) if isinstance(done, list) else int(done)


def _with_cause(rotation: Rotation, presented: RefreshToken) -> Rotation:
    """Say "expired" of a session that is not there and whose token has expired: past its end the store has nothing."""
    if rotation.outcome is Outcome.UNKNOWN and presented.expired:
        return Rotation(Outcome.EXPIRED, None)
    return rotation


def _changed(known: str, told: str) -> bool:
    """A version that one side does not tell is no change."""
    return bool(known and told and known != told)
