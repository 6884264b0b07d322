"""Long streams end with their session and their token (contract 6.5).

Whatever is not answered in one read is a stream: a WebSocket, an event stream, a long download or upload.
Each is looked at again once a second or so: its token's expiry here, its session in the store, the
streams of one turn in one batch. The turns are spread over the second, so that ten thousand streams
never hold up a request behind one large question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from gateway.gate import ENDED, Gate
from gateway.tokens.claims import Claims

TURNS = 8
TURN_SECONDS = 0.1  # a stream is looked at every 0.8 s


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
        self._turns: list[dict[Stream, None]] = [{} for _ in range(TURNS)]
        self._turn = self._next = 0
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(len(turn) for turn in self._turns)

    def add(self, stream: Stream) -> int:
        """Watch a stream; return what `discard` takes."""
        self._next = place = (self._next + 1) % TURNS
        self._turns[place][stream] = None
        if self._handle is None:
            self._handle = self._loop.call_later(TURN_SECONDS, self._look)
        return place

    def discard(self, stream: Stream, place: int) -> None:
        self._turns[place].pop(stream, None)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def end_all(self, reason: str) -> None:
        """End every stream (a drain that has taken its time)."""
        for turn in self._turns:
            for stream in list(turn):
                stream.end_stream(reason)

    def _look(self) -> None:
        self._turn = (self._turn + 1) % TURNS
        limit = self._clock() - self._leeway
        for stream in list(self._turns[self._turn]):
            claims = stream.claims
            if claims is None:
                continue
            if claims.exp <= limit and not stream.keeps:
                stream.end_stream("expired")
            elif stream.live:
                self._gate.ask(claims, _Recheck(stream))
        self._handle = self._loop.call_later(TURN_SECONDS, self._look) if any(self._turns) else None


class _Recheck:
    """What the store says of a stream's session. An outage ends no stream: nobody knows then."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __call__(self, verdict: int) -> None:
        if verdict == ENDED:
            self._stream.end_stream("revoked")
