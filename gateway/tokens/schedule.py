"""When each key signs, and until when it is needed.

A key is published, and verifies, as soon as it is read. It signs `publish_before` seconds after it was born, so
that every replica and whoever caches the JWKS has it by then. From the same files and at the same time every
replica finds the same one:

    the key that signs at `now` is the newest with born + publish_before <= now;
    where there is none, the oldest: it has been published for longest, and a first key signs at once

The newest of two that were born alike is the one with the greater kid. A key of a far future waits for its time,
and holds up no other.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.tokens.keyfile import Key


class Schedule:
    """Keys that can sign, at least one, in the order in which they do. `publish_before` is in seconds."""

    __slots__ = ("_due", "_keys")

    def __init__(self, able: Iterable[Key], publish_before: float) -> None:
        self._keys = sorted(able, key=age)
        self._due = [key.born + publish_before for key in self._keys]

    def at(self, now: float) -> Key:
        """Return the key that signs at `now` (Unix seconds)."""
        return self._keys[max(0, bisect_right(self._due, now) - 1)]

    @property
    def newest(self) -> Key:
        return self._keys[-1]

    def waiting(self, now: float) -> list[tuple[Key, float]]:
        """Return the keys that will sign and the time from which each does, the next one first."""
        first = max(1, bisect_right(self._due, now))
        return list(zip(self._keys[first:], self._due[first:], strict=True))

    def turns(self) -> Iterator[tuple[Key, float, Key | None, float]]:
        """Yield (key, from when it signs, the one after it, from when that one does), the oldest first.

        The oldest signs from its birth on. The last one has none after it, and its end is no time: infinity.
        """
        begins = [self._keys[0].born, *self._due[1:]]
        for position, key in enumerate(self._keys):
            last = position + 1 == len(self._keys)
            follower, end = (None, float("inf")) if last else (self._keys[position + 1], self._due[position + 1])
            yield key, begins[position], follower, end


def age(key: Key) -> tuple[float, str]:
    """Return what keys are sorted by, the oldest first."""
    return key.born, key.kid


@dataclass(frozen=True, slots=True)
class Lives:
    """How long tokens live, in seconds. `refresh_ttl` and `session_ttl` are 0 where nothing ends for that."""

    access_ttl: float
    leeway: float
    refresh_ttl: float
    session_ttl: float

    def after_access(self) -> float:
        """Return for how long a key of access tokens is needed once it signs no more."""
        return self.access_ttl + self.leeway

    def after_refresh(self) -> float | None:
        """Return for how long a key of refresh tokens is needed once it signs no more, None = for ever.

        Its last token may be presented `refresh_ttl` after it was made; and where the answer to that is lost, once
        more for as long again (rotation.py: replayed).
        """
        ends = [end for end in (2 * self.refresh_ttl, self.session_ttl) if end]
        return min(ends) if ends else None


Kind = Literal["access", "refresh"]
State = Literal["published", "signing", "retired", "may be removed", "verifies"]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a key is in its life. Times are Unix seconds.

    `signs_from` is None for a key that never signs: a public one, or one of another algorithm ("verifies").
    `removable_after` is None where that is not known: the key signs, or will, or is needed for ever.
    """

    key: Key
    kind: Kind
    state: State
    signs_from: float | None
    removable_after: float | None


def stages(
    kind: Kind, keys: Iterable[Key], schedule: Schedule, needed: float | None, arrived: Mapping[str, float], now: float
) -> list[Stage]:
    """Return where each of a ring's keys is at `now`, the newest first.

    `needed` is for how long a key is needed once it signs no more, None = for ever. `arrived` says when the file of a
    kid came: a key that came after its time has let the one before it sign until then.
    """
    signing, found = schedule.at(now), dict[str, Stage]()
    for key, begin, follower, end in schedule.turns():
        over = None
        if follower is not None and end <= now and needed is not None:
            over = max(end, arrived.get(follower.kid, end)) + needed
        found[key.kid] = Stage(key, kind, _state(key, signing, over, now), begin, over)
    rest = [Stage(key, kind, "verifies", None, None) for key in keys if key.kid not in found]
    return sorted([*found.values(), *rest], key=lambda stage: age(stage.key), reverse=True)


def _state(key: Key, signing: Key, over: float | None, now: float) -> State:
    if key is signing:
        return "signing"
    if age(key) > age(signing):
        return "published"
    return "may be removed" if over is not None and over <= now else "retired"
