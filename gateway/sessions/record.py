"""What a session is, and its record in Redis.

A record is one string, because a hash costs two to three times the memory once a value passes 64
bytes, and a user agent does:

    <epoch> <counter> <created> <age> <used> <life> <sub>
    <device>
    <user agent>
    <ip>
    [["<role>"],{"<claim>":"<value>"},"<scope>","<credential version>"]    without what is empty at its end

`epoch` is that of its partition, ten digits, by which the scripts and the live check know a record that is
void (epochs.py). `created` is in Unix seconds; `age` is the seconds from it to the last rotation, `life`
the seconds from there to the end (0 = never); `used` is 1 and the milliseconds from the last rotation to
the first use of the token that it gave (0 = unused). No part holds a control character, bar those that
stand for what browsers say again and again of themselves (useragent.py). The scripts read the first line
and copy the others (lua/record.lua). A record that cannot be read is no session.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.sessions import useragent

MAX_TEXT = 255  # characters of a subject, device or user agent
MAX_IDENTITY = 65_536  # bytes of roles, scope and claims as JSON: what a webhook may answer

_NO_IDENTITY: list[Any] = [(), {}, "", ""]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEAD = re.compile(rb"\d{10} (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15}) (\d{1,15}) ([^\n]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """What a recheck of the user brought: it takes the place of what the session held."""

    roles: tuple[str, ...]
    scope: str
    claims: Mapping[str, Any]
    credential_version: str


@dataclass(frozen=True, slots=True)
class NewSession:
    """A login. `device` names the user's device, "" = unnamed (it replaces no other session)."""

    subject: str
    device: str = ""
    user_agent: str = ""
    ip: str = ""
    roles: tuple[str, ...] = ()
    scope: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)
    credential_version: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """One user on one device. Times are Unix seconds.

    `expires_at` is when the refresh token ends (0 = never), `ends_at` the absolute end (0 = none).
    `last_used_at` is the last refresh, or the first use of the access token that it gave.
    """

    id: str
    subject: str
    counter: int
    created_at: int
    rotated_at: int
    last_used_at: int
    expires_at: int
    ends_at: int
    device: str
    user_agent: str
    ip: str
    roles: tuple[str, ...]
    scope: str
    claims: Mapping[str, Any]
    credential_version: str


def check_subject(subject: str) -> None:
    """Raise ValueError for a subject that no session may have."""
    if not 0 < len(subject) <= MAX_TEXT or _CONTROL.search(subject):
        raise ValueError(f"subject must be 1 to {MAX_TEXT} characters without control characters")
    try:
        subject.encode()
    except UnicodeEncodeError as error:
        raise ValueError("subject must be Unicode text") from error


def client_part(new: NewSession) -> bytes:
    """Return the record's device, user agent and ip. Raises ValueError for a device name that is too long."""
    if len(new.device) > MAX_TEXT:
        raise ValueError(f"device must be at most {MAX_TEXT} characters")
    return b"\n".join(
        (_line(new.device), useragent.shorten(_line(new.user_agent[:MAX_TEXT])), _line(new.ip[:MAX_TEXT]))
    )


def device_start(device: str) -> bytes:
    """Return what the client part of every session of this device begins with; b"" for an unnamed one."""
    return _line(device) + b"\n" if device else b""


def identity_part(identity: NewSession | NewIdentity) -> bytes:
    """Return the record's last line. Raises ValueError where it is no JSON or too large."""
    parts = [list(identity.roles), dict(identity.claims), identity.scope, identity.credential_version]
    while parts and not parts[-1]:
        parts.pop()
    try:
        text = orjson.dumps(parts)
    except TypeError as error:
        raise ValueError("roles, scope and claims must be JSON") from error
    if len(text) > MAX_IDENTITY:
        raise ValueError(f"roles, scope and claims must be at most {MAX_IDENTITY} bytes of JSON")
    return text


def parse(session_id: str, record: bytes | None, session_ttl: float) -> Session | None:
    """Read a record; None for none, or for one that is malformed. `session_ttl` gives the absolute end."""
    if not isinstance(record, bytes):
        return None
    try:
        head, device, user_agent, ip, identity = record.split(b"\n")
        client = device.decode(), useragent.restore(user_agent).decode(), ip.decode()
        return _session(session_id, head, client, orjson.loads(identity), session_ttl)
    except (ValueError, TypeError):
        return None


def _session(
    session_id: str, head: bytes, client: tuple[str, str, str], identity: Any, session_ttl: float
) -> Session | None:
    match = _HEAD.fullmatch(head)
    if match is None:
        return None
    counter, created, age, used, life = map(int, match.groups()[:5])
    rotated = created + age
    if not isinstance(identity, list):
        return None
    roles, claims, scope, credential_version = identity + _NO_IDENTITY[len(identity) :]
    return Session(
        id=session_id,
        subject=match[6].decode(),
        counter=counter,
        created_at=created,
        rotated_at=rotated,
        last_used_at=rotated + max(0, used - 1) // 1000,
        expires_at=rotated + life if life else 0,
        ends_at=created + int(session_ttl) if session_ttl else 0,
        device=client[0],
        user_agent=client[1],
        ip=client[2],
        roles=tuple(roles),
        scope=scope,
        claims=claims,
        credential_version=credential_version,
    )


def _line(text: str) -> bytes:
    """Return the text as UTF-8, without what a line cannot hold: control characters, lone surrogates."""
    return _CONTROL.sub(" ", text).encode("utf-8", "replace")
