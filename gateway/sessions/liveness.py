"""The live check: is this session alive, and this token not revoked? The hot path's half of the store.

All asks of one tick of the event loop travel as one MGET, sent after the last of them was made: that
is what makes a revocation exact. One is under way at a time; what is asked meanwhile shares the next. On a
cluster there is one for each partition, and those of a master travel together (flights.py).
Callbacks only: an ask makes no task, no future and no timer.

Laws: every ask is answered exactly once, never inside `ask`, never later than the timeout (bar the
loop's own lag). ALIVE is said only of a session that Redis has just shown alive in the epoch of its partition
(epochs.py), or, with a grace, of a token that a check passed within the grace before an outage.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Protocol

from gateway.sessions.cluster_wire import ClusterWire
from gateway.sessions.endpoint import Endpoint, parse_url
from gateway.sessions.keyspace import DIGITS, Keyspace, encode
from gateway.sessions.resp import Answer, Batch, EpochKeys, Kind, LiveKeys, Verdict, unavailable
from gateway.sessions.wire import Epochs, Leave, MemoryWire, Wire

__all__ = ["Answer", "EpochKeys", "LiveKeys", "Liveness", "Verdict"]

_ANY_TIME = 1 << 62  # later than any epoch
MAX_WAITING = 16_384  # asks that may wait for Redis; what comes on top is refused at once

Observe = Callable[[int, float], None]


class AnyWire(Protocol):
    @property
    def up(self) -> bool: ...
    def start(self) -> None: ...
    def boarding(self, digit: str, leave: Leave) -> Callable[[], object]: ...
    def send(self, batch: Batch) -> None: ...
    def is_down(self, digit: str) -> bool: ...
    async def close(self) -> None: ...


class Liveness:
    """Live checks against one endpoint, for one event loop.

    `timeout` bounds each answer, in seconds. `epochs` is what the process knows of them; it asks the same Redis.
    `grace` is for how many seconds after its last passed check a token still passes while Redis cannot answer
    (0 = not at all). `lead` is by how many seconds the clock of another issuer, whose tokens are accepted, may be ahead
    of Redis'. `observe` is told the size and the seconds of each batch. Raises ValueError for a URL or prefix that is
    malformed.
    """

    def __init__(
        self,
        endpoint: str | Endpoint,
        prefix: str,
        timeout: float,
        epochs: Epochs,
        *,
        grace: float = 0.0,
        lead: float = 0.0,
        observe: Observe | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        if isinstance(endpoint, str):
            endpoint = parse_url(endpoint)
        self._names = Keyspace(prefix)
        self._timeout = timeout
        self._grace = grace
        self._lead = math.ceil(lead)
        self._observe = observe
        self._max_waiting = max_waiting
        self._waiting = 0
        self._wire = self._open(endpoint, prefix, epochs)
        self._by_partition = endpoint.kind == "cluster"
        self._lanes = [_Lane() for _ in DIGITS] if self._by_partition else [_Lane()] * len(DIGITS)
        self._loop: asyncio.AbstractEventLoop

    def _open(self, endpoint: Endpoint, prefix: str, epochs: Epochs) -> AnyWire:
        match endpoint.kind:
            case "memory":
                return MemoryWire(endpoint, self._timeout, self._finish, epochs)
            case "cluster":
                return ClusterWire(endpoint, self._timeout, self._finish, epochs)
        return Wire(endpoint, prefix, self._timeout, self._finish, epochs)

    @property
    def up(self) -> bool:
        """Whether a connection to Redis stands; on a cluster, to one of the masters at least."""
        return self._wire.up

    def is_down(self, digit: str) -> bool:
        """Whether Redis is known not to answer for a partition: the last try to connect to its server failed.

        False while nobody knows, as long as the first try lasts or the one after a loss.
        """
        return self._wire.is_down(digit)

    def start(self) -> None:
        """Begin to connect; called on the running loop, before the first ask. It keeps trying by itself."""
        self._loop = asyncio.get_running_loop()
        for digit, lane in zip(DIGITS, self._lanes, strict=True):
            lane.board = self._wire.boarding(digit, partial(self._flush, lane))
        self._wire.start()

    async def close(self) -> None:
        await self._wire.close()

    def keys(self, session_id: str, token_id: str, subject: str | None = None) -> LiveKeys:
        """Return what `ask` takes. Made once a token and kept with it, for a grace is remembered in it.

        It passes where the session is alive and of `subject`, if that is given, and the token was not revoked. Both lie
        in one partition, for a token's id begins as its session's does; else they are two asks.
        """
        names, digit, other = self._names, self._names.digit(session_id), self._names.digit(token_id)
        session, partition = names.session(session_id), int(digit, 16)
        owner = None if subject is None else encode(subject)
        if digit == other:
            return LiveKeys(partition, session, names.revoked(token_id), subject=owner)
        token = LiveKeys(int(other, 16), names.revoked(token_id), names.epoch(other), Kind.TOKEN, _ANY_TIME)
        return LiveKeys(partition, session, names.revoked(session_id), also=token, subject=owner)

    def foreign_keys(self, subject_id: str, token_id: str, issued_at: int) -> LiveKeys:
        """Return what `ask` takes for a token of another issuer: what it and its subject are called here (they begin
        with `~`), and its `iat` in Unix seconds. It passes where neither the token nor the subject was revoked."""
        subject, token = self._names.digit(subject_id), self._names.digit(token_id)
        not_before, revoked = self._names.not_before(subject_id), self._names.revoked(token_id)
        by_subject = self._in_epoch(subject, not_before, Kind.SUBJECT, issued_at)
        return self._in_epoch(token, revoked, Kind.TOKEN, issued_at, by_subject)

    def _in_epoch(self, digit: str, key: bytes, kind: Kind, issued_at: int, also: LiveKeys | None = None) -> LiveKeys:
        return LiveKeys(int(digit, 16), key, self._names.epoch(digit), kind, issued_at, also, self._lead)

    def epoch(self, partition: int) -> EpochKeys:
        """Return what `ask` takes for the epoch of a partition, which changes when anything is ended in it."""
        return EpochKeys(partition, self._names.epoch(DIGITS[partition]))

    def ask(self, keys: LiveKeys, answer: Answer) -> None:
        """Have `answer` called with a Verdict, soon, on the loop."""
        if keys.also is not None:
            answer = _worst_of(2, answer)
            self.ask(keys.also, answer)
        lane = self._lanes[keys.partition]
        if not lane.answers:
            lane.first = self._loop.time()
            if not lane.in_flight:
                lane.board()
        lane.keys.append(keys)
        lane.answers.append(answer)

    async def alive(self, session_id: str, token_id: str) -> Verdict:
        """Ask, and wait for the answer."""
        return await self.verdict(self.keys(session_id, token_id))

    async def verdict(self, keys: LiveKeys) -> Verdict:
        """Ask about keys of either kind, and wait for the answer."""
        future: asyncio.Future[Verdict] = self._loop.create_future()
        self.ask(keys, lambda verdict: _settle(future, verdict))
        return await future

    def _flush(self, lane: _Lane) -> None:
        keys, answers = lane.keys, lane.answers
        lane.keys, lane.answers = [], []
        if not answers:  # an earlier flush took them: refusals may ask again while they are told
            return
        now = lane.first
        room = self._max_waiting - self._waiting
        if len(answers) > room:
            self._refuse(Batch(keys[room:], answers[room:], now, now))
            keys, answers = keys[:room], answers[:room]
            if not answers:
                return
        self._waiting += len(answers)
        lane.in_flight += 1
        self._wire.send(Batch(keys, answers, now, now + self._timeout))

    def _refuse(self, batch: Batch) -> None:
        """Answer what finds no room. No grace: who floods the gateway must not prolong a token by it."""
        self._tell(batch.answers, unavailable(batch))

    def _finish(self, batch: Batch, verdicts: bytes) -> None:
        lane = self._lanes[batch.keys[0].partition]
        self._waiting -= len(batch.answers)
        lane.in_flight -= 1
        if lane.answers and not lane.in_flight:
            lane.board()
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


class _Lane:
    """What is asked between two batches: of all partitions, or on a cluster of one.

    `board` has what is asked flushed, soon: with the next tick, or on a cluster with the next flight to the master.
    """

    __slots__ = ("answers", "board", "first", "in_flight", "keys")

    def __init__(self) -> None:
        self.keys: list[LiveKeys] = []
        self.answers: list[Answer] = []
        self.first = 0.0
        self.in_flight = 0
        self.board: Callable[[], object]


def _worst_of(count: int, answer: Answer) -> Answer:
    """Return what collects so many verdicts and passes on the worst of them."""
    found: list[int] = []

    def collect(verdict: int) -> None:
        found.append(verdict)
        if len(found) == count:
            answer(max(found))

    return collect


def _settle(future: asyncio.Future[Verdict], verdict: int) -> None:
    if not future.done():
        future.set_result(Verdict(verdict))
