"""The live check: is this session alive, and this token not revoked? The hot path's half of the store.

All asks of one tick of the event loop travel as one MGET, sent after the last of them was made: that
is what makes a revocation exact. One is under way at a time; what is asked meanwhile shares the next.
Callbacks only: an ask makes no task, no future and no timer.

Laws: every ask is answered exactly once, never inside `ask`, never later than the timeout (bar the
loop's own lag). ALIVE is said only of a session that Redis has just shown alive, or, with a grace, of
a token that a check passed within the grace before an outage.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from time import perf_counter

from gateway.sessions.connect import Endpoint, parse_url
from gateway.sessions.keyspace import Keyspace
from gateway.sessions.resp import Answer, Batch, LiveKeys, Verdict, unavailable
from gateway.sessions.wire import MemoryWire, Wire

__all__ = ["Answer", "LiveKeys", "Liveness", "Verdict"]

MAX_WAITING = 16_384  # asks that may wait for Redis; what comes on top is refused at once

Observe = Callable[[int, float], None]


class Liveness:
    """Live checks against one endpoint, for one event loop.

    `timeout` bounds each answer, in seconds. `grace` is for how many seconds after its last passed
    check a token still passes while Redis cannot answer (0 = not at all). `observe` is told the size
    and the seconds of each batch. Raises ValueError for a URL or prefix that is malformed.
    """

    def __init__(
        self,
        endpoint: str | Endpoint,
        prefix: str,
        timeout: float,
        *,
        grace: float = 0.0,
        observe: Observe | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        if isinstance(endpoint, str):
            endpoint = parse_url(endpoint)
        self._names = Keyspace(prefix)
        self._timeout = timeout
        self._grace = grace
        self._observe = observe
        self._max_waiting = max_waiting
        self._waiting = 0
        self._in_flight = 0
        self._first = 0.0
        self._keys: list[LiveKeys] = []
        self._answers: list[Answer] = []
        self._wire = (MemoryWire if endpoint.scheme == "memory" else Wire)(endpoint, timeout, self._finish)
        self._loop: asyncio.AbstractEventLoop

    @property
    def up(self) -> bool:
        """Whether a connection to Redis stands."""
        return self._wire.up

    def start(self) -> None:
        """Begin to connect; called on the running loop, before the first ask. It keeps trying by itself."""
        self._loop = asyncio.get_running_loop()
        self._wire.start()

    async def close(self) -> None:
        await self._wire.close()

    def keys(self, session_id: str, token_id: str) -> LiveKeys:
        """Return what `ask` takes. Made once a token and kept with it, for a grace is remembered in it."""
        return LiveKeys(self._names.session(session_id), self._names.revoked(token_id))

    def ask(self, keys: LiveKeys, answer: Answer) -> None:
        """Have `answer` called with a Verdict, soon, on the loop."""
        if not self._answers:
            self._first = self._loop.time()
            if not self._in_flight:
                self._loop.call_soon(self._flush)
        self._keys.append(keys)
        self._answers.append(answer)

    async def alive(self, session_id: str, token_id: str) -> Verdict:
        """Ask, and wait for the answer."""
        future: asyncio.Future[Verdict] = self._loop.create_future()
        self.ask(self.keys(session_id, token_id), lambda verdict: _settle(future, verdict))
        return await future

    def _flush(self) -> None:
        keys, answers = self._keys, self._answers
        self._keys, self._answers = [], []
        if not answers:  # an earlier flush took them: refusals may ask again while they are told
            return
        now = self._first
        room = self._max_waiting - self._waiting
        if len(answers) > room:
            self._refuse(Batch(keys[room:], answers[room:], now, now))
            keys, answers = keys[:room], answers[:room]
            if not answers:
                return
        self._waiting += len(answers)
        self._in_flight += 1
        self._wire.send(Batch(keys, answers, now, now + self._timeout))

    def _refuse(self, batch: Batch) -> None:
        """Answer what finds no room. No grace: who floods the gateway must not prolong a token by it."""
        self._tell(batch.answers, unavailable(batch))

    def _finish(self, batch: Batch, verdicts: bytes) -> None:
        self._waiting -= len(batch.answers)
        self._in_flight -= 1
        if self._answers and not self._in_flight:
            self._loop.call_soon(self._flush)
        if self._grace:
            verdicts = self._with_grace(batch, verdicts)
        if self._observe is not None:
            self._observe(len(batch.answers), perf_counter() - batch.begun)
        self._tell(batch.answers, verdicts)

    def _with_grace(self, batch: Batch, verdicts: bytes) -> bytes:
        """Remember who passed; let pass in an outage who passed within the grace."""
        after = bytearray(verdicts)
        for position, (keys, verdict) in enumerate(zip(batch.keys, verdicts, strict=True)):
            if verdict == Verdict.ALIVE:
                keys.passed_at = batch.asked_at
            elif verdict == Verdict.ENDED:
                keys.passed_at = -math.inf
            elif batch.asked_at - keys.passed_at <= self._grace:
                after[position] = Verdict.ALIVE
        return bytes(after)

    def _tell(self, answers: Sequence[Answer], verdicts: bytes) -> None:
        for answer, verdict in zip(answers, verdicts, strict=True):
            try:
                answer(verdict)
            except Exception as error:  # one request's failure is not that of the others in its batch
                self._loop.call_exception_handler({"message": "a live check's answer failed", "exception": error})


def _settle(future: asyncio.Future[Verdict], verdict: int) -> None:
    if not future.done():
        future.set_result(Verdict(verdict))
