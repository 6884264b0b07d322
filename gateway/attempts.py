"""How often something may be tried: sign-ins of a user and of an address, refreshes of a session.

Counted in Redis for all replicas, before a password or a refresh is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import TooManyAttempts
from gateway.identity.counted import alike, network
from gateway.sessions.store import SessionStore


@dataclass(frozen=True, slots=True)
class Limits:
    """Attempts a minute; 0 = no limit."""

    login_per_user: int = 0
    login_per_ip: int = 0
    refresh_per_session: int = 0


class Attempts:
    """Counts attempts against `limits`. Every count raises TooManyAttempts or StoreUnavailable."""

    def __init__(self, store: SessionStore, limits: Limits) -> None:
        self._store = store
        self.limits = limits

    async def login(self, username: str, ip: str) -> None:
        # The address first: one that is over its own limit must not use up a user's.
        await self.login_from(ip)
        await self.login_of(username)

    async def login_of(self, username: str) -> None:
        """Count a sign-in whose address has been counted already."""
        await self._count("login-user", alike(username), self.limits.login_per_user)

    async def login_from(self, ip: str) -> None:
        """Count a sign-in whose user is not known yet."""
        await self._count("login-ip", network(ip), self.limits.login_per_ip)

    async def client(self, ip: str) -> None:
        """Count an attempt to authenticate as a client of the introspection."""
        await self._count("client-ip", network(ip), self.limits.login_per_ip)

    async def refresh(self, session_id: str) -> None:
        await self._count("refresh", session_id, self.limits.refresh_per_session)

    async def _count(self, kind: str, who: str, per_minute: int) -> None:
        wait = await self._store.attempt(kind, who, per_minute)
        if wait > 0:
            raise TooManyAttempts(kind, retry_after=wait)
