"""Long streams end with their session and their token (contract 6.5).

Whatever is not answered in one read is a stream: a WebSocket, an event stream, a long download or upload.
Each is looked at again once a second or so, two partitions of the store at a time, so that ten thousand streams
never hold up a request behind one large question. A look is cheap, because it asks what changed:

- A token expires at a time that is known. Nothing is looked at before the first one is due.
- Whatever ends a session or revokes a token is counted in the epoch of its partition (sessions/epochs.py). One
  question about the epoch stands for all streams of the partition; only where it has changed is each asked about.
- A session that comes to the end of its life is counted nowhere. When it ends at the latest stands in its
  record, so from SOON before that on its stream is asked about at every look, and so are streams of which
  nothing is known: new ones, and those with a token of another issuer.
- What none of this tells, a session that someone deleted by hand or that Redis evicted, is found within ROUND looks.

An outage ends no stream: nobody knows then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from gateway.gate import ALIVE, ENDED, Gate
from gateway.sessions.liveness import EpochKeys, LiveKeys
from gateway.tokens.claims import Claims

TURNS = 16  # the partitions
LOOKS = 8
LOOK_SECONDS = 0.1  # a stream is looked at every 0.8 s
SOON = 60.0  # seconds by which this machine's clock and that of Redis may differ
ROUND = 32  # looks in which each stream is asked about once, whatever the epoch says: 26 s


class Stream(Protocol):
    """An exchange under way. `keeps` says that it may outlive its token (on_stream_expiry = "keep")."""

    @property
    def claims(self) -> Claims | None: ...
    @property
    def live(self) -> bool: ...
    @property
    def keeps(self) -> bool: ...

    def end_stream(self, reason: str) -> None: ...


class Streams:
    """The streams of a worker. `leeway` is in seconds, as for tokens; `clock` returns Unix seconds."""

    __slots__ = ("_clock", "_gate", "_handle", "_leeway", "_loop", "_next", "_turns")

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate, leeway: float, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._gate = gate
        self._leeway = leeway
        self._clock = clock
        self._turns = [Turn() for _ in range(TURNS)]
        self._next = 0
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(turn.expiring) for turn in self._turns)

    def add(self, stream: Stream) -> int:
        """Watch a stream that has claims; return what `discard` takes."""
        claims = stream.claims
        keys = self._gate.keys(claims) if claims is not None and stream.live else None
        place = 0 if keys is None else keys.partition
        if claims is not None:
            self._turns[place].add(stream, math.inf if stream.keeps else claims.exp, keys)
        if self._handle is None:
            self._handle = self._loop.call_later(LOOK_SECONDS, self._look)
        return place

    def discard(self, stream: Stream, place: int) -> None:
        self._turns[place].discard(stream)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def end_all(self, reason: str) -> None:
        """End every stream (a drain that has taken its time)."""
        for turn in self._turns:
            for stream in list(turn.expiring):
                stream.end_stream(reason)

    def _look(self) -> None:
        self._next = first = (self._next + 1) % LOOKS
        now = self._clock()
        for place in range(first, TURNS, LOOKS):
            if self._turns[place].expiring:
                self._look_at(place, now)
        waiting = any(turn.expiring for turn in self._turns)
        self._handle = self._loop.call_later(LOOK_SECONDS, self._look) if waiting else None

    def _look_at(self, place: int, now: float) -> None:
        turn, gate = self._turns[place], self._gate
        turn.end_expired(now - self._leeway)
        if not turn.live:
            return
        if turn.epoch is None:
            turn.epoch = gate.epoch(place)
        for each in turn.due(now):
            gate.ask_keys(each.keys, each)
        gate.ask_keys(turn.epoch, lambda verdict: self._compare(turn, verdict))

    def _compare(self, turn: Turn, verdict: int) -> None:
        """Ask about every stream of a partition in which something has ended since the last time."""
        if verdict != ALIVE or turn.epoch is None or turn.epoch.value == turn.seen:
            return
        turn.seen = turn.epoch.value
        ask = self._gate.ask_keys
        for each in list(turn.live.values()):
            ask(each.keys, each)


class Turn:
    """The streams that are looked at together: those of a partition.

    `expiring` is when the token of each expires, `live` those on routes with the live check. `seen` is the epoch
    since which nothing has ended without their being asked about. No token expires before `_soonest`, and no
    session ends by itself before `_first_end` that is not asked about at every look.
    """

    __slots__ = ("_first_end", "_fresh", "_round", "_soonest", "epoch", "expiring", "live", "seen")

    def __init__(self) -> None:
        self.expiring: dict[Stream, float] = {}
        self.live: dict[Stream, Watched] = {}
        self.epoch: EpochKeys | None = None
        self.seen = b""
        self._soonest = self._first_end = math.inf
        self._fresh: list[Watched] = []
        self._round: list[Watched] = []

    def add(self, stream: Stream, expiry: float, keys: LiveKeys | None) -> None:
        self.expiring[stream] = expiry
        self._soonest = min(self._soonest, expiry)
        if keys is not None:
            watched = self.live[stream] = Watched(stream, keys)
            self._fresh.append(watched)
            self._first_end = min(self._first_end, watched.ends - SOON)

    def discard(self, stream: Stream) -> None:
        self.expiring.pop(stream, None)
        watched = self.live.pop(stream, None)
        if watched is not None:
            watched.over = True

    def end_expired(self, limit: float) -> None:
        """End the streams whose token expired at `limit` or before."""
        if self._soonest > limit:
            return
        for stream in [stream for stream, expiry in self.expiring.items() if expiry <= limit]:
            stream.end_stream("expired")
        self._soonest = min(self.expiring.values(), default=math.inf)

    def due(self, now: float) -> list[Watched]:
        """Return the streams to be asked about whatever the epoch says: new, near their end, and a part of the rest."""
        found, self._fresh = self._fresh, []
        if not self._round:
            self._round = list(self.live.values())
        at = max(0, len(self._round) - math.ceil(len(self.live) / ROUND))
        found += self._round[at:]
        del self._round[at:]
        if now >= self._first_end:
            limit = now + SOON
            ends = [watched for watched in self.live.values() if watched.ends <= limit]
            found += ends
            later = min((watched.ends for watched in self.live.values() if watched.ends > limit), default=math.inf)
            self._first_end = now if ends else later - SOON
        return [watched for watched in dict.fromkeys(found) if not watched.over]


class Watched:
    """A stream on a route with the live check; called with what the store says of its session.

    `ends` is when that ends at the latest, in Unix seconds; -inf where it is not known.
    """

    __slots__ = ("_read", "_stream", "ends", "keys", "over")

    def __init__(self, stream: Stream, keys: LiveKeys) -> None:
        self._stream = stream
        self.keys = keys
        self.ends = keys.ends()
        self.over = False
        self._read = keys.usual  # the reply that `ends` was read from

    def __call__(self, verdict: int) -> None:
        if verdict == ENDED:
            self._stream.end_stream("revoked")
        elif verdict == ALIVE and self.keys.usual is not self._read:
            self._read = self.keys.usual
            self.ends = self.keys.ends()
