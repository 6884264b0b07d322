"""How old a token is. A clock that is set, and a machine that sleeps, must not make an old token look young."""

from __future__ import annotations

import time
from typing import NamedTuple


class Moment(NamedTuple):
    """Seconds of a clock that nobody sets, and of the one on the wall."""

    steady: float
    wall: float


def moment() -> Moment:
    return Moment(time.monotonic(), time.time())


def age(since: Moment, now: Moment) -> float:
    """Return the seconds from `since` to `now` by the clock that has gone further.

    The steady clock stands still in the sleep of some systems, and the wall clock jumps when it is corrected. A
    token that is taken for older than it is costs a refresh and nothing else.
    """
    return max(now.steady - since.steady, now.wall - since.wall, 0.0)
