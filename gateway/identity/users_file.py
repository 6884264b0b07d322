"""The users stand in a TOML file (small teams, demos, tests)."""

from __future__ import annotations

import hashlib
import hmac
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeVar

from gateway.errors import InvalidCredentials
from gateway.identity import fields, passwords
from gateway.identity.provider import Identity

T = TypeVar("T")

KEYS: Final = ("password", "sub", "roles", "scope", "claims")


@dataclass(frozen=True, slots=True)
class User:
    identity: Identity
    password: str = field(repr=False)  # the hash of it


class UsersFile:
    """The users of one file. Made by `load`; the password pool is its own."""

    def __init__(self, users: Mapping[str, User], pool: passwords.PasswordPool | None = None) -> None:
        self._users = dict(users)
        self._subjects = {user.identity.subject: user.identity for user in users.values()}
        self._decoys = _Decoys(user.password for user in users.values())
        self._pool = pool or passwords.PasswordPool()

    def __repr__(self) -> str:
        return f"UsersFile({len(self._users)} users)"

    @classmethod
    def load(cls, text: str | bytes) -> Self:
        """Read the file's text. Raises ValueError with one line that names the user and the key."""
        try:
            document = tomllib.loads(text if isinstance(text, str) else text.decode())
        except UnicodeDecodeError as error:
            raise ValueError("not UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"not TOML: {error}") from error
        except RecursionError as error:
            raise ValueError("not TOML: nested too deep") from error
        return cls(_users(document))

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        """Return the user of this name. Raises InvalidCredentials, or IdentityUnavailable when overloaded.

        A name that is not in the file costs a check like any other, so that the time tells nothing.
        """
        user = self._users.get(username)
        hashed = user.password if user is not None else self._decoys.of(username)
        right = await self._pool.verify(hashed, password)
        if user is None or not right:
            raise InvalidCredentials("unknown user" if user is None else "wrong password")
        return user.identity

    async def recheck(self, subject: str, session_id: str) -> Identity | None:
        """Return the user as the file has them, None where it has them no more."""
        return self._subjects.get(subject)

    async def close(self) -> None:
        self._pool.close()


class _Decoys:
    """Hashes that no password fits, for the names that are not in the file.

    A name always gets the same one, in every replica, from as many forms and costs as the file has: were
    it one for all, a user whose hash is of another form would stand out by time.
    """

    def __init__(self, hashes: Iterable[str]) -> None:
        known = sorted(hashes)
        self._key = hashlib.sha256("\n".join(known).encode()).digest()
        self._hashes = [passwords.decoy(hashed) for hashed in known]

    def of(self, username: str) -> str:
        mark = hmac.digest(self._key, username.encode("utf-8", "surrogatepass"), "sha256")
        return self._hashes[int.from_bytes(mark[:8]) % len(self._hashes)]


def _users(document: Mapping[str, Any]) -> dict[str, User]:
    if unknown := sorted(set(document) - {"users"}):
        raise ValueError(f"{unknown[0]}: unknown key; allowed: users")
    entries = document.get("users")
    if not isinstance(entries, dict) or not entries:
        raise ValueError("users: must be a table with at least one user, such as [users.alice]")
    users = {username: _user(username, entry) for username, entry in entries.items()}
    _refuse_shared_subjects(users)
    return users


def _user(username: str, entry: object) -> User:
    where = f"users.{username}" if username.isprintable() else f"users.{username!r}"
    _checked(where, fields.name, username)
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: must be a table")
    if unknown := sorted(set(entry) - set(KEYS)):
        raise ValueError(f"{where}.{unknown[0]}: unknown key; allowed: {', '.join(KEYS)}")
    hashed = _checked(f"{where}.password", _password, entry.get("password"))
    roles = _checked(f"{where}.roles", fields.roles, entry.get("roles"))
    scope = _checked(f"{where}.scope", fields.scope, entry.get("scope"))
    claims = _checked(f"{where}.claims", fields.claims, entry.get("claims"))
    subject = _checked(f"{where}.sub", fields.name, entry.get("sub", username))
    _checked(where, lambda _: fields.fitting(roles, scope, claims), None)
    return User(Identity(subject, roles, scope, claims, _version(hashed)), hashed)


def _checked(where: str, check: Callable[[object], T], value: object) -> T:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _password(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a password hash that begins with {passwords.FORMS}")
    passwords.check_hash(value)
    return value


def _version(hashed: str) -> str:
    """Another one for another password hash, and useless for guessing the password."""
    return hashlib.sha256(hashed.encode()).hexdigest()[:16]


def _refuse_shared_subjects(users: Mapping[str, User]) -> None:
    """Two users of one subject would be one user to everything behind the gateway."""
    owners: dict[str, str] = {}
    for username, user in users.items():
        other = owners.setdefault(user.identity.subject, username)
        if other != username:
            raise ValueError(f"users.{username}.sub: the same as that of users.{other}; must be the user's own")
