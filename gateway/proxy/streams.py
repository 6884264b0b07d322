"""Long streams end with their session and their token (contract 6.5).

Whatever is not answered in one read is a stream: a WebSocket, an event stream, a long download or upload.
Each is looked at again once a second or so: its token's expiry here, its session in the store, the
streams of one turn in one batch. The turns are spread over the second, so that ten thousand streams
never hold up a request behind one large question.

A look costs 0.4 us a stream: all it touches stands in one small object, made when the stream is added.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any, Protocol

from gateway.gate import ENDED, Gate
from gateway.tokens.claims import Claims

TURNS = 16
TURN_SECONDS = 0.05  # a stream is looked at every 0.8 s


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
    """The streams of a worker. `leeway` is in seconds, as for tokens."""

    __slots__ = ("_clock", "_gate", "_handle", "_leeway", "_loop", "_next", "_turn", "_turns")

    def __init__(self, loop: asyncio.AbstractEventLoop, gate: Gate, leeway: float, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._gate = gate
        self._leeway = leeway
        self._clock = clock
        self._turns = [_Turn() for _ in range(TURNS)]
        self._turn = self._next = 0
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(turn.expiring) for turn in self._turns)

    def add(self, stream: Stream) -> int:
        """Watch a stream that has claims; return what `discard` takes."""
        self._next = place = (self._next + 1) % TURNS
        self._turns[place].add(stream, self._gate)
        if self._handle is None:
            self._handle = self._loop.call_later(TURN_SECONDS, self._look)
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
        self._turn = (self._turn + 1) % TURNS
        turn = self._turns[self._turn]
        turn.end_expired(self._clock() - self._leeway)
        ask = self._gate.ask_keys
        for each in turn.live.values():
            ask(each.keys, each)
        waiting = any(turn.expiring for turn in self._turns)
        self._handle = self._loop.call_later(TURN_SECONDS, self._look) if waiting else None


class _Turn:
    """The streams that are looked at together: when each expires, and what is asked about those on live routes.

    `soonest` is no later than the first expiry.
    """

    __slots__ = ("expiring", "live", "soonest")

    def __init__(self) -> None:
        self.expiring: dict[Stream, float] = {}
        self.live: dict[Stream, _Watched] = {}
        self.soonest = math.inf

    def add(self, stream: Stream, gate: Gate) -> None:
        claims = stream.claims
        if claims is None:
            return
        expiry = self.expiring[stream] = math.inf if stream.keeps else claims.exp
        self.soonest = min(self.soonest, expiry)
        if stream.live:
            self.live[stream] = _Watched(stream, gate.keys(claims))

    def discard(self, stream: Stream) -> None:
        self.expiring.pop(stream, None)
        self.live.pop(stream, None)

    def end_expired(self, limit: float) -> None:
        if self.soonest > limit:
            return
        for stream in [stream for stream, expiry in self.expiring.items() if expiry <= limit]:
            stream.end_stream("expired")
        self.soonest = min(self.expiring.values(), default=math.inf)


class _Watched:
    """A stream and the keys of its session; called with what the store says of them.

    An outage ends no stream: nobody knows then.
    """

    __slots__ = ("_stream", "keys")

    def __init__(self, stream: Stream, keys: Any) -> None:
        self._stream = stream
        self.keys = keys

    def __call__(self, verdict: int) -> None:
        if verdict == ENDED:
            self._stream.end_stream("revoked")
