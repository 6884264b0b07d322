"""What clients were answered, and what of it no client may ever be answered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.client import Reply

UNAVAILABLE = "503 store_unavailable"
REVOKED = "401 revoked_token"

# What a client does, and the answer that it is to get while all is well.
OPEN, LIVE, ENDED = "route without a live check", "live token", "ended token"
REFRESH, RENEW, LOGIN, LOGOUT = "refresh", "refresh inside the gateway", "login", "logout"
GOOD = {OPEN: "200", LIVE: "200", ENDED: REVOKED, REFRESH: "200", RENEW: "200", LOGIN: "200", LOGOUT: "204"}
NEEDS_REDIS = frozenset(GOOD) - {OPEN}

# Answers that mean: this session is over.
SIGNED_OUT = {
    LIVE: {REVOKED},
    REFRESH: {"400 invalid_grant"},
    RENEW: {REVOKED, "401 expired_token"},
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer; times are of time.monotonic."""

    replica: int
    role: str
    kind: str
    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    @property
    def is_good(self) -> bool:
        return self.kind == GOOD[self.role]


@dataclass(slots=True)
class Ledger:
    """The answers of one fault. `lossy` from the moment on at which the fault took sessions away."""

    entries: list[Entry] = field(default_factory=list)
    pings: list[tuple[float, float]] = field(default_factory=list)  # when Redis itself was asked, and for how long
    broken: Counter[str] = field(default_factory=Counter)
    lossy: bool = False
    gone_since: float = math.inf  # when the sessions that were begun before the fault had gone
    accepted: int = 0  # answers that let an ended session or a revoked token in
    signed_out: int = 0  # answers that told the client of a session that is alive to sign in again
    cleared: int = 0  # cookies taken away from such a client

    def note(self, replica: int, role: str, reply: Reply) -> None:
        """Count an answer, and hold it to what is true whatever happens to Redis."""
        entry = Entry(replica, role, reply.kind, reply.begun, reply.ended)
        self.entries.append(entry)
        if role == ENDED and reply.status == 200:
            self.accepted += 1
            self.broken["an ended token was let in"] += 1
        if role in SIGNED_OUT and entry.is_good and reply.begun > self.gone_since:
            self.broken[f"{role}: let in after Redis has lost the session"] += 1
        over = reply.kind in SIGNED_OUT.get(role, ())
        if over and not self.lossy:
            self.signed_out += 1
            self.broken[f"{role}: {reply.kind} though the session is alive"] += 1
        if reply.clears_a_cookie() and not (over and self.lossy):
            self.cleared += 1
            self.broken[f"{role}: {reply.kind} with a cookie cleared"] += 1
        if reply.kind == UNAVAILABLE:
            self._note_unavailable(role, reply)
        elif not (entry.is_good or over):
            self.broken[f"{role}: {reply.kind} {reply.body[:80]!r}"] += 1

    def _note_unavailable(self, role: str, reply: Reply) -> None:
        if role == OPEN:
            self.broken["a route without a live check was refused"] += 1
        if not reply.get("retry-after").isdigit() or int(reply.get("retry-after")) < 1:
            self.broken["503 without Retry-After"] += 1
        if reply.all("www-authenticate"):
            self.broken["503 with a challenge"] += 1

    def of(self, *, replica: int | None = None, roles: Iterable[str] = GOOD, since: float = 0.0) -> list[Entry]:
        """Return the answers to requests that began at `since` or later."""
        wanted = frozenset(roles)
        return [
            entry
            for entry in list(self.entries)
            if entry.role in wanted and entry.begun >= since and replica in (None, entry.replica)
        ]

    def back_after(self, replica: int, role: str, moment: float) -> float | None:
        """Return how many seconds after `moment` the first answer came that was not 503; None = none yet."""
        later = (
            entry.ended
            for entry in self.of(replica=replica, roles=[role])
            if entry.ended >= moment and entry.kind != UNAVAILABLE
        )
        first = min(later, default=None)
        return None if first is None else first - moment

    def longest_window(self, replica: int) -> float:
        """Return the longest time without a good answer to a live token in which there was another one."""
        longest, failing, last = 0.0, False, None
        for entry in sorted(self.of(replica=replica, roles=[LIVE]), key=lambda each: each.ended):
            if entry.kind == UNAVAILABLE:
                failing = True
                continue
            if failing and last is not None:
                longest = max(longest, entry.ended - last)
            failing, last = False, entry.ended
        return longest

    def slowest(self, replica: int, role: str) -> float:
        return max((entry.seconds for entry in self.of(replica=replica, roles=[role])), default=0.0)
