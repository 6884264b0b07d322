"""How far behind a worker is: requests take their turn, and more than a worker can do are refused at once.

One turn of the event loop serves everything that had come when it began. The more that is, the longer everything
waits: what was read last, and the answers of Redis and of backends too, whose time limits run on meanwhile. So a
turn begins requests for `SLICE` seconds and no longer; those read later wait for the next one, in their order.

A request that would have to wait longer than `bound` is refused when it comes, at a fraction of what serving it
would cost: what is accepted keeps a bounded latency, however much is offered. Counting requests in flight would
not tell: a route whose backend is slow has many of them in a worker that is idle.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

from gateway.errors import GatewayError, Overloaded

SLICE = 0.025  # seconds
_SMOOTHING = 0.3  # share of the newest turn in the estimate of what a request costs


class Waiting(Protocol):
    """A request that may have to wait. `started` is when it was read, in the time of `perf_counter`."""

    started: float
    done: bool

    def begin(self) -> None: ...
    def refuse(self, error: GatewayError) -> None: ...


class Pace:
    """The turns of one loop. `bound` is in seconds, 0 = none. At most one request a connection waits here."""

    __slots__ = ("_began", "_bound", "_clock", "_each", "_loop", "_waiting")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, bound: float, clock: Callable[[], float] = perf_counter
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._bound = bound or math.inf
        self._waiting: deque[Waiting] = deque()
        self._began = math.inf
        self._each = 0.0  # seconds from one begun request to the next, while any waits; 0 = not known yet

    def admits(self, request: Waiting) -> bool:
        """Tell whether a request that was just read may begin; else it is begun later, or refused."""
        now = request.started
        if self._began == math.inf:
            self._began = now
            self._loop.call_soon(self._turn)
            return True
        if now - self._began <= SLICE and not self._waiting:
            return True
        if len(self._waiting) * self._each > self._bound:
            request.refuse(Overloaded("behind"))
        else:
            self._waiting.append(request)
        return False

    def _turn(self) -> None:
        """Begin those that wait, as far as the turn goes."""
        if not self._waiting:
            self._began, self._each = math.inf, 0.0
            return
        before, now = self._began, self._clock()
        self._began, count = now, 0
        while self._waiting and self._clock() - now <= SLICE:
            self._begin(self._waiting.popleft(), now)
            count += 1
        self._learn((self._clock() - before) / count)
        self._loop.call_soon(self._turn)  # also with nobody waiting: what is read next is read behind these

    def _learn(self, each: float) -> None:
        self._each = each if not self._each else self._each + _SMOOTHING * (each - self._each)

    def _begin(self, request: Waiting, now: float) -> None:
        if request.done:  # the client has gone
            return
        if now - request.started > self._bound:
            request.refuse(Overloaded("behind"))
        else:
            request.begin()
