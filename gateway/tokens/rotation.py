"""The rotation of refresh tokens, as a table (RFC 9700 section 4.14.2).

This is the specification of `sessions/lua/rotate.lua`; the tests drive both and compare them.
`n` is the counter that a refresh token carries, `c` the counter that the session has:

| n               | state of the session                      | outcome  | session after       |
|-----------------|-------------------------------------------|----------|---------------------|
| any             | none: ended, expired or never was         | unknown  | none                |
| any             | its end has passed                        | expired  | none                |
| n = c           |                                           | rotated  | c + 1, end renewed  |
| n = c - 1 >= 0  | successor unused, or within the grace     | replayed | unchanged           |
| n = c - 1 >= 0  | successor used and the grace has passed   | reuse    | none                |
| n < c - 1       |                                           | reuse    | none                |
| n > c           | the store was rolled back                 | reuse    | none                |

The successor is used when its refresh token is presented (then c moves on), or when an access token
minted with it is first seen (`mark_used`). The grace counts from that first use, so that clients who
refresh in parallel long after a lost answer are all served.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Outcome(StrEnum):
    """What a refresh came to; the values are the labels of the metric and of the audit line."""

    ROTATED = "rotated"
    REPLAYED = "replayed"
    REUSE = "reuse"
    UNKNOWN = "unknown"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class SessionState:
    """What rotation knows of a session. Times are Unix seconds.

    `used_at` is when the token of `counter` was first used, None while it has not been. `expires_at`
    is the idle end (0 = never), `ends_at` the absolute one (0 = none).
    """

    counter: int
    used_at: float | None = None
    expires_at: int = 0
    ends_at: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """`session` is the state after it; None where the session is over."""

    outcome: Outcome
    session: SessionState | None


def rotate(session: SessionState | None, presented: int, now: float, grace: float, refresh_ttl: float = 0) -> Decision:
    """Decide what presenting the refresh token of counter `presented` does at `now`.

    `grace` and `refresh_ttl` are seconds; a `refresh_ttl` of 0 sets no idle end.
    """
    if session is None:
        return Decision(Outcome.UNKNOWN, None)
    if ended(session, now):
        return Decision(Outcome.EXPIRED, None)
    if presented == session.counter:
        return Decision(Outcome.ROTATED, _successor(session, now, refresh_ttl))
    if presented == session.counter - 1 and presented >= 0 and not _grace_passed(session, now, grace):
        return Decision(Outcome.REPLAYED, session)
    return Decision(Outcome.REUSE, None)


def mark_used(session: SessionState | None, counter: int, now: float) -> SessionState | None:
    """Return the session after an access token minted with `counter` was seen at `now`."""
    if session is None or ended(session, now):
        return None
    if counter != session.counter or session.used_at is not None:
        return session
    return replace(session, used_at=now)


def ended(session: SessionState, now: float) -> bool:
    """Tell whether one of the session's ends has passed; the second it names is outside (RFC 7519 4.1.4)."""
    return 0 < session.expires_at <= now or 0 < session.ends_at <= now


def idle_end(now: float, refresh_ttl: float, ends_at: int) -> int:
    """Return the Unix second at which a session refreshed at `now` ends, 0 = never."""
    idle = int(now + refresh_ttl) if refresh_ttl else 0
    if not idle or not ends_at:
        return idle or ends_at
    return min(idle, ends_at)


def _successor(session: SessionState, now: float, refresh_ttl: float) -> SessionState:
    expires_at = idle_end(now, refresh_ttl, session.ends_at)
    return replace(session, counter=session.counter + 1, used_at=None, expires_at=expires_at)


def _grace_passed(session: SessionState, now: float, grace: float) -> bool:
    return session.used_at is not None and now > session.used_at + grace
