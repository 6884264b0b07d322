"""What a trace is made of, without OpenTelemetry: spans, who decides to record, and W3C Trace Context.

Laws:
- A span holds names, numbers and codes. No token, cookie, query or user is ever put into one.
- A client that nobody vouches for cannot have its requests recorded: neither its `sampled` flag nor its trace id,
  which it chooses, decides; a number drawn here does.
- A span that ends goes to a sink that takes it at once and never waits (tracing.Exporter).
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import Final, Literal

Kind = Literal["server", "client", "internal"]
Value = str | int
Sink = Callable[["Span"], None]
Parents = Literal["trusted", "always", "never"]


class Span:
    """One step of a recorded request. Times are those of `perf_counter`; `error` is an `error.type`, "" for none."""

    __slots__ = ("attributes", "end", "error", "kind", "name", "parent_id", "sink", "span_id", "start", "trace_id")

    def __init__(
        self, sink: Sink, trace_id: bytes, parent_id: bytes, name: str, kind: Kind, start: float | None = None
    ) -> None:
        self.sink = sink
        self.trace_id = trace_id  # 32 hex digits
        self.parent_id = parent_id  # 16 hex digits, b"" for none
        self.span_id = new_id(8)
        self.name = name
        self.kind = kind
        self.start = perf_counter() if start is None else start
        self.end = 0.0
        self.error = ""
        self.attributes: dict[str, Value] = {}

    def __repr__(self) -> str:
        return f"<Span {self.name!r} {self.trace_id.decode()}/{self.span_id.decode()}>"

    def child(self, name: str, kind: Kind, start: float | None = None) -> Span:
        """Begin a step of this one."""
        return Span(self.sink, self.trace_id, self.span_id, name, kind, start)

    def finish(self, error: str = "", end: float | None = None) -> None:
        """End it, once, and pass it on."""
        self.error = error
        self.end = perf_counter() if end is None else end
        self.sink(self)

    def traceparent(self) -> bytes:
        """Return what tells the next one of this span (W3C Trace Context 3.2); it is recorded, so the flag says so."""
        return b"00-%b-%b-01" % (self.trace_id, self.span_id)


class Sampler:
    """Decides which requests are recorded.

    `ratio` is the part of requests that is drawn. `parents` says whose `sampled` flag decides in its place:
    that of trusted proxies, everyone's, or nobody's.
    """

    __slots__ = ("_always", "_draw", "_ratio", "_sink", "_trusted")

    def __init__(self, ratio: float, parents: Parents, sink: Sink, draw: Callable[[], float] = random.random) -> None:
        self._ratio = ratio
        self._always = parents == "always"
        self._trusted = parents == "trusted"
        self._sink = sink
        self._draw = draw

    def begin(self, traceparent: bytes, trusted: bool) -> Span | None:
        """Return the span of a request that is to be recorded, None for the others.

        `traceparent` is a valid one, b"" where there is none; `trusted` says whether a trusted proxy sent it.
        """
        if traceparent and (self._always or (trusted and self._trusted)):
            if not int(traceparent[53:55], 16) & 1:
                return None
        elif self._draw() >= self._ratio:
            return None
        if traceparent:
            return Span(self._sink, traceparent[3:35], traceparent[36:52], "", "server")
        return Span(self._sink, new_id(16), b"", "", "server")


def new_id(size: int) -> bytes:
    """Return a random id of so many bytes in hex, never all zeros (W3C Trace Context 3.2.2.3)."""
    return b"%0*x" % (2 * size, secrets.randbits(8 * size) or 1)


# The span that a task works for: of a request of the control plane, or of a refresh inside the data plane.
CURRENT: Final[ContextVar[Span | None]] = ContextVar("span", default=None)


@contextmanager
def under(span: Span | None) -> Iterator[None]:
    """Have what is done inside belong to this span; None is no span, whoever began the task."""
    before = CURRENT.set(span)
    try:
        yield
    finally:
        CURRENT.reset(before)


@contextmanager
def step(name: str, kind: Kind, **attributes: Value) -> Iterator[Span | None]:
    """Record what is done inside as a child of the current span; nothing where there is none.

    `__` in the name of an attribute stands for a dot. An exception ends it with its code or its type's name.
    """
    parent = CURRENT.get()
    if parent is None:
        yield None
        return
    span = parent.child(name, kind)
    span.attributes.update({key.replace("__", "."): value for key, value in attributes.items()})
    error = ""
    try:
        with under(span):
            yield span
    except BaseException as failure:
        error = str(getattr(failure, "code", "")) or type(failure).__name__
        raise
    finally:
        span.finish(error)
