"""The access log: one JSON object a request, on the stream of all other logs.

Laws:
- No token, cookie or query string stands in a line; a path is cut and cleaned first, and what is no text is escaped.
- Nothing waits for whoever reads the log: what cannot be written now is kept within a bound, then left out; the
  next line says how many were (`left_out`).
- One write is whole lines and at most PIPE_BUF bytes, so that the lines of several workers in one pipe never mix
  (POSIX: such a write is atomic), and so that a pipe that polls as writable takes it at once.

What was refused, failed, broke off or was slow is always wanted; of the rest `sample` is the part that is. The
request's name decides, by a hash: replicas behind each other that keep the name agree, and a line in one of them
has its fellow in the other. A name that an untrusted client chose does not decide, for the client could hide by
it: there a number is drawn.
"""

from __future__ import annotations

import asyncio
import os
import random
import select
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from time import perf_counter, time
from typing import Final, Protocol
from zlib import crc32

import orjson

from gateway.telemetry.redaction import clean

PIPE_BUF: Final = 4096  # Linux's
PATH_LIMIT: Final = 512  # characters
KEPT: Final = 1 << 18  # bytes that wait for a reader
AGAIN: Final = 0.05  # seconds
_PATHS: Final = 1024  # paths remembered, of at most so many bytes each
_SHORT: Final = 256
_SPREAD: Final = 2654435761  # Knuth's multiplier: names that count up differ in few bits of their CRC

Line = dict[str, str | int | float]


class Lines:
    """Whole lines to a file descriptor, once a turn of the loop; it never blocks."""

    __slots__ = ("_fd", "_loop", "_pieces", "_poll", "_size", "_soon", "left_out")

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int = 2) -> None:
        self._loop = loop
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._soon: asyncio.Handle | None = None
        self.left_out = 0

    def add(self, line: bytes) -> bool:
        """Write a line, with its newline, soon; False where there is no room for it, and it is left out."""
        if self._size + len(line) > PIPE_BUF:
            self.flush()
        if self._size + len(line) > KEPT:
            self.left_out += 1
            return False
        self._pieces.append(line)
        self._size += len(line)
        if self._soon is None:
            self._soon = self._loop.call_soon(self._turn)
        return True

    def flush(self) -> None:
        """Write what can be written at once."""
        while self._pieces and self._poll.poll(0):
            batch = [self._pieces.popleft()]
            size = len(batch[0])
            while self._pieces and size + len(self._pieces[0]) <= PIPE_BUF:
                size += len(self._pieces[0])
                batch.append(self._pieces.popleft())
            self._size -= size
            data = b"".join(batch)
            try:
                rest = data[os.write(self._fd, data) :]
            except BlockingIOError:
                self._pieces.extendleft(reversed(batch))
                self._size += size
                return
            except OSError:  # nobody reads any more, or the disk is full: the service goes on
                self.left_out += len(batch)
                return
            if rest:  # the rest of a line first, or the next one would stand on it
                self._pieces.appendleft(rest)
                self._size += len(rest)

    def close(self) -> None:
        """Write what is left, and how many lines were left out since the last one."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self.left_out:
            last = {**_head("the log ends"), "left_out": self.left_out}
            self.add(orjson.dumps(last, option=orjson.OPT_APPEND_NEWLINE))
        self.flush()

    def _turn(self) -> None:
        self._soon = None
        self.flush()
        if self._pieces:
            self._soon = self._loop.call_later(AGAIN, self._turn)


class Out(Protocol):
    """Where lines go (Lines)."""

    left_out: int

    def add(self, line: bytes) -> bool: ...


class AccessLog:
    """`sample` is a part of 1, `slow` seconds, `per_second` lines of this worker, 0 = any number.

    `user` says whether lines name the user and the session.
    """

    __slots__ = ("_allowance", "_below", "_draw", "_filled", "_out", "_paths", "_per_second", "slow", "user")

    def __init__(
        self,
        out: Out,
        sample: float = 1.0,
        slow: float = 1.0,
        per_second: int = 0,
        *,
        user: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._out = out
        self._below = round(sample * (1 << 32))
        self._per_second = per_second
        self._allowance = float(per_second)
        self._filled = perf_counter()
        self._draw = draw
        self._paths: dict[bytes, str] = {}
        self.slow = slow
        self.user = user

    def wants(self, name: bytes, *, ours: bool, always: bool) -> bool:
        """Tell whether a request is to have a line, and take its place within the bound.

        `name` is the request's id; `ours` says that it was made here or by a trusted proxy. `always` is for what is
        not sampled.
        """
        if not always and self._below < 1 << 32 and not self._sampled(name, ours):
            return False
        if not self._per_second:
            return True
        now = perf_counter()
        self._allowance = min(self._per_second, self._allowance + (now - self._filled) * self._per_second)
        self._filled = now
        if self._allowance < 1:
            self._out.left_out += 1
            return False
        self._allowance -= 1
        return True

    def begin(self) -> Line:
        """Return what a line begins with."""
        return _head("request")

    def write(self, line: Line) -> None:
        """Write a line that `begin` began; what was added to it is clean."""
        out = self._out
        left_out = out.left_out
        if left_out:
            line["left_out"] = left_out
        data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if len(data) > PIPE_BUF:
            line["path"] = str(line.get("path", ""))[:64] + "…"
            data = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
        if out.add(data):
            out.left_out -= left_out

    def path(self, raw: bytes) -> str:
        """Return a path as it may stand in a line."""
        known = self._paths.get(raw)
        if known is not None:
            return known
        text = clean(raw[: PATH_LIMIT + 1].decode("latin-1"), PATH_LIMIT)
        if len(raw) <= _SHORT:
            if len(self._paths) >= _PATHS:
                self._paths.clear()
            self._paths[raw] = text
        return text

    def _sampled(self, name: bytes, ours: bool) -> bool:
        if not ours:
            return self._draw() * (1 << 32) < self._below
        return (crc32(name) * _SPREAD) & 0xFFFFFFFF < self._below


class _Clock:
    """RFC 3339, UTC, milliseconds; the part up to the second is rendered once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self) -> str:
        now = time()
        second = int(now)
        if self._second != second:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{int((now - second) * 1000):03d}Z"


_timestamp = _Clock()


def _head(message: str) -> Line:
    return {"ts": _timestamp(), "level": "info", "logger": "gateway.access", "message": message}
