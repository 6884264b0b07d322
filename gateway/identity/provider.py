"""What the rest of the gateway asks of whoever knows the users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Identity:
    """One user, as the provider knows them at this moment.

    `scope` is a space-separated list (RFC 6749 3.3), "" for none. `claims` are further members of the
    access token. `credential_version` is another one once the user's password is another one, and ""
    where the provider tells none: a session ends when it differs from the one it began with.
    """

    subject: str
    roles: tuple[str, ...] = ()
    scope: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    credential_version: str = field(default="", repr=False)


class Provider(Protocol):
    """Knows the users. All of it raises IdentityUnavailable where no answer can be had."""

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        """Return who this is. Raises InvalidCredentials, whether the name or the password is wrong."""

    async def recheck(self, subject: str, session_id: str) -> Identity | None:
        """Return the user as they are by now, or None where the session must end."""

    async def close(self) -> None:
        """Let go of connections and threads."""
