"""Counting, cheap enough to be done for every request.

A count is an addition to a plain int. Nothing is formatted, and no other worker's number is read, before
Prometheus asks. With several workers each leaves a snapshot once a second (`flush`), and any of them
answers for all (`render`), its own numbers fresh and the others' at most that second old.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST

from gateway.telemetry import series
from gateway.telemetry.process import Process
from gateway.telemetry.series import Histogram, Snapshot
from gateway.telemetry.slots import Slot

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
OPENMETRICS: Final = CONTENT_TYPE_LATEST

# Shown as 0 from the start, so that a rate over them has a first value (Prometheus' advice).
OUTCOMES: Final = ("rotated", "replayed", "reuse", "expired", "unknown")
SIDES: Final = ("client", "upstream")
STATES: Final = ("ready", "unready", "draining")
DROPS: Final = ("full", "flood", "store")

MAX_CODES: Final = 64  # statuses of one route that have a series each: its backend may make up 900

_BOUNDS = series.SECONDS

log = logging.getLogger("gateway.telemetry")


class Meter:
    """One route's requests. Made once a route; `done` is called once a request."""

    __slots__ = ("_buckets", "_codes", "_seconds", "route")

    def __init__(self, route: str, seconds: Histogram) -> None:
        self.route = route
        self._codes: defaultdict[int, int] = defaultdict(int)
        self._seconds = seconds
        self._buckets = seconds.buckets

    def __repr__(self) -> str:
        return f"Meter({self.route!r})"

    def done(self, code: int, seconds: float) -> None:
        """Count one answered request: its status and how long it took."""
        # Written out rather than calling Histogram.observe: a call more is a fifth of the whole cost.
        self._codes[code] += 1
        self._buckets[bisect_left(_BOUNDS, seconds)] += 1
        self._seconds.total += seconds

    def see(self, seconds: float, trace_id: str) -> None:
        """Note the trace of a request that is counted."""
        self._seconds.see(seconds, trace_id, time.time())

    def codes(self) -> list[tuple[str, int]]:
        """Return (status, requests) for the statuses seen first, and "other" for the rest together."""
        seen = [(str(code), number) for code, number in self._codes.items()]
        rest = sum(number for _, number in seen[MAX_CODES:])
        return [*seen[:MAX_CODES], (series.OTHER, rest)] if rest else seen


class Telemetry:
    """All metrics of one worker; built once a process, used from its event loop alone.

    `directory` is one that all workers of a server share, and None for a single worker. Raises OSError
    where it cannot be used.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._counted = Snapshot()
        self._meters: dict[str, Meter] = {}
        self._spans: dict[str, int] = {}
        self._process = Process()
        self._slot = Slot(directory) if directory is not None else None
        self._written = b""
        self._failing = False
        if self._slot is not None:
            self._counted.add_totals(_load(self._slot.read()))
        for outcome in OUTCOMES:
            self._counted.count(series.REFRESHES, (outcome,), 0)
        self._counted.count(series.STORE_ROLLBACKS, (), 0)
        for reason in DROPS:
            self._counted.count(series.AUDIT_DROPPED, (reason,), 0)
        for side in SIDES:
            self.connection(side, 0)
        self._batches = self._counted.histogram(series.CHECK_BATCH_SIZE, ())
        self._checks = self._counted.histogram(series.STORE_SECONDS, ("check",))
        self.flush()

    def route(self, name: str) -> Meter:
        """Return the meter of a route, always the same one for a name. Keep it: the look-up is not hot."""
        meter = self._meters.get(name)
        if meter is None:
            meter = Meter(name, self._counted.histogram(series.REQUEST_SECONDS, (name,)))
            self._meters[name] = meter
        return meter

    def rejected(self, route: str, error: str) -> None:
        """The gateway itself refused a request with this error code."""
        self._counted.count(series.REJECTIONS, (route, error))

    def refreshed(self, outcome: str) -> None:
        """A refresh token was presented: rotated, replayed, reuse, expired or unknown."""
        self._counted.count(series.REFRESHES, (outcome,))

    def session(self, event: str, number: int = 1) -> None:
        self._counted.count(series.SESSIONS, (event,), number)

    def store(self, operation: str, seconds: float, trace_id: str = "") -> None:
        """An operation of the store has ended; `trace_id` is that of its trace, where it has one."""
        histogram = self._counted.histogram(series.STORE_SECONDS, (operation,))
        histogram.observe(seconds)
        if trace_id:
            histogram.see(seconds, trace_id, time.time())

    def spans(self, counts: Mapping[str, int]) -> None:
        """What became of spans (exported, dropped, failed), in all since this worker started."""
        for outcome, number in counts.items():
            self._counted.count(series.SPANS, (outcome,), number - self._spans.get(outcome, 0))
            self._spans[outcome] = number

    def store_up(self, up: bool) -> None:
        self._counted.gauges[series.STORE_UP][()] = 1.0 if up else 0.0

    def clock_skew(self, seconds: float) -> None:
        """The clock of this worker was compared with Redis'; `seconds` is by how many it is ahead."""
        self._counted.gauges[series.CLOCK_SKEW][()] = seconds

    def readiness(self, failing: Collection[str]) -> None:
        """What keeps this worker from being ready, as /readyz names it; "redis" is whether the store is up."""
        self.store_up("redis" not in failing)
        state = "draining" if "draining" in failing else "unready" if failing else "ready"
        self._counted.gauges[series.WORKERS] = {(each,): float(each == state) for each in STATES}

    def audit_dropped(self, reason: str, number: int = 1) -> None:
        """Audit entries did not come into the stream: its queue was full, a flood was cut, or the store failed."""
        self._counted.count(series.AUDIT_DROPPED, (reason,), number)

    def store_rolled_back(self) -> None:
        self._counted.count(series.STORE_ROLLBACKS, ())

    def check_batch(self, size: int, seconds: float) -> None:
        """One round trip of live checks: how many shared it, and its time (the operation "check")."""
        self._batches.observe(size)
        self._checks.observe(seconds)

    def upstream_error(self, route: str, kind: str) -> None:
        self._counted.count(series.UPSTREAM_ERRORS, (route, kind))

    def connection(self, side: str, change: int) -> None:
        """A connection was opened (+1) or closed (-1); `side` is "client" or "upstream"."""
        open_ones = self._counted.gauges[series.CONNECTIONS]
        open_ones[(side,)] = open_ones.get((side,), 0) + change

    def stream_closed(self, reason: str) -> None:
        self._counted.count(series.STREAMS_CLOSED, (reason,))

    def issuer_fetched(self, issuer: str, now: float, succeeded: bool) -> None:
        """The keys of another issuer were fetched, at `now` (Unix seconds), or could not be."""
        self._counted.count(series.ISSUER_FETCHES, (issuer, "succeeded" if succeeded else "failed"))
        times = self._counted.gauges[series.ISSUER_KEYS_TIME]
        times[(issuer,)] = now if succeeded else times.get((issuer,), 0.0)

    def issuer_removed(self, issuer: str) -> None:
        """The issuer is configured no more: nobody waits for its keys."""
        self._counted.gauges[series.ISSUER_KEYS_TIME].pop((issuer,), None)

    def flush(self) -> None:
        """Leave this worker's numbers for the others; to be called once a second. Never raises."""
        if self._slot is None:
            return
        data = self._snapshot().dump()
        if data == self._written:
            return
        try:
            self._slot.write(data)
        except OSError as error:  # a full disk costs fresh metrics, not the service
            self._report(error)
        else:
            self._written, self._failing = data, False

    def render(self, *, openmetrics: bool = False) -> bytes:
        """Return the metrics of all workers, as CONTENT_TYPE, or as OPENMETRICS with the traces of requests."""
        own = self._snapshot()
        total = Snapshot()
        total.add_totals(own)
        total.add_gauges(own)
        for data, alive in self._slot.others() if self._slot is not None else ():
            other = _load(data)
            total.add_totals(other)
            if alive:
                total.add_gauges(other)
        total.gauges[series.STORE_UP].setdefault((), 0)  # not known to be up
        return series.expose(total, openmetrics=openmetrics)

    def close(self) -> None:
        """Leave the last numbers and give the place among the workers back."""
        self.flush()
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    def _snapshot(self) -> Snapshot:
        self._process.sample(self._counted)
        snapshot = Snapshot()
        snapshot.add_totals(self._counted)
        snapshot.add_gauges(self._counted)
        for meter in self._meters.values():
            for code, number in meter.codes():
                snapshot.count(series.REQUESTS, (meter.route, code), number)
        return snapshot

    def _report(self, error: OSError) -> None:
        if not self._failing:
            log.warning("the metrics of this worker cannot be written", extra={"reason": str(error)})
        self._failing = True


def wants_openmetrics(accept: str) -> bool:
    """Tell whether an `Accept` value asks for OpenMetrics (RFC 9110 12.5.1). Its version 1.0.0 is what there is.

    Prometheus asks for it, beside the plain text, by itself.
    """
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        given = dict(parameter.partition("=")[::2] for parameter in parameters)
        if kind == "application/openmetrics-text" and given.get("version", "1.0.0") in ("1.0.0", "0.0.1"):
            return given.get("q", "1").rstrip("0") not in ("", ".", "0.")
    return False


def _load(data: bytes) -> Snapshot:
    try:
        return Snapshot.load(data) if data else Snapshot()
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("a worker's metrics cannot be read")
        return Snapshot()
