"""How far behind a worker is: what tells overload from a slow backend.

One turn of the event loop serves everything that had come when it began. The more that is, the longer the last
of it has waited before it was even read; nothing else in a worker grows with load alone. So a request that is
read late in its turn is refused at once, at a fraction of what serving it costs, and those before it keep their
latency. Counting requests in flight would punish routes whose backend is slow and whose worker is idle.
"""

from __future__ import annotations

import asyncio
import math


class Pace:
    """The present turn of one loop. `bound` is in seconds; 0 = never late."""

    __slots__ = ("_began", "_loop", "bound")

    def __init__(self, loop: asyncio.AbstractEventLoop, bound: float) -> None:
        self._loop = loop
        self._began = math.inf
        self.bound = bound or math.inf

    def late(self, now: float) -> bool:
        """Tell whether a request that is read at `now` (of time.perf_counter) comes too late in this turn."""
        began = self._began
        if began == math.inf:
            self._began = now
            self._loop.call_soon(self._turned)
            return False
        return now - began > self.bound

    def _turned(self) -> None:
        self._began = math.inf
