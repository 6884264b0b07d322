"""One timer for every deadline of a worker.

A thing with a deadline moves it by assigning `deadline` (loop time, seconds), thousands of times a
second and at no cost; the wheel looks at it again when the earliest deadline it was told of has come,
and puts it back if that has moved on. Only a deadline earlier than the one known needs a call.
Deadlines are met late by at most TICK, never early.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK = 0.1
AHEAD = 5.0  # nothing new is put further ahead, so that what is gone is not held for longer
AGAIN = 20.0  # the same for what has lasted that long: few of those go, and a look at each takes a microsecond


class Timed(Protocol):
    """`deadline` is 0 where nothing is due. `due` belongs to the wheel. `on_deadline` may move both."""

    deadline: float
    due: float

    def on_deadline(self, now: float) -> None: ...


class Wheel:
    """Calls `on_deadline(now)` of each watched thing whose deadline has passed."""

    __slots__ = ("_buckets", "_handle", "_last", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, list[Timed]] = {}
        self._last = int(loop.time() / TICK)
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, thing: Timed, ahead: float = AHEAD) -> None:
        """Look at a thing when its deadline has come; call again only for an earlier one."""
        thing.due = due = min(thing.deadline, self._loop.time() + ahead)
        slot = max(int(due / TICK) + 1, self._last + 1)
        bucket = self._buckets.get(slot)
        if bucket is None:
            self._buckets[slot] = [thing]
        else:
            bucket.append(thing)
        if self._handle is None:
            self._last = int(self._loop.time() / TICK)
            self._handle = self._loop.call_later(TICK, self._turn)

    def stop(self) -> None:
        """Forget everything."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._buckets.clear()

    def _turn(self) -> None:
        now = self._loop.time()
        slot = int(now / TICK)
        due = [self._buckets.pop(at) for at in range(self._last + 1, slot + 1) if at in self._buckets]
        self._last = slot
        self._handle = None
        for bucket in due:
            for thing in bucket:
                self._look(thing, now)
        if self._buckets and self._handle is None:
            self._handle = self._loop.call_later(TICK, self._turn)

    def _look(self, thing: Timed, now: float) -> None:
        if thing.due > now or not thing.deadline:  # in a later bucket too, or nothing is due any more
            thing.due = thing.due if thing.deadline else 0.0
            return
        thing.due = 0.0
        if thing.deadline > now:
            self.watch(thing, AGAIN)
        else:
            thing.on_deadline(now)
