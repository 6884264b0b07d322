"""Every metric of the gateway, as a table, and the sums over several workers.

A `Snapshot` is what one worker has counted. Counters and histograms of all workers are added, those
that have died included (a sum that shrinks would look like a restart to Prometheus, and count all
again); gauges are those of the living alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any, Final, NamedTuple

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, Exemplar, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

Labels = tuple[str, ...]

# Prometheus' default buckets, with finer ones below 5 ms, where a gateway lives. In seconds.
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)

# Label values come from closed sets and the configuration; the bound holds should a caller slip.
MAX_SERIES: Final = 2000
OTHER: Final = "other"

REQUESTS: Final = "tokengate_requests"
REQUEST_SECONDS: Final = "tokengate_request_seconds"
REJECTIONS: Final = "tokengate_rejections"
REFRESHES: Final = "tokengate_refreshes"
SESSIONS: Final = "tokengate_sessions"
STORE_SECONDS: Final = "tokengate_store_seconds"
STORE_ROLLBACKS: Final = "tokengate_store_rollbacks"
STORE_UP: Final = "tokengate_store_up"
CLOCK_SKEW: Final = "tokengate_clock_skew_seconds"
CHECK_BATCH_SIZE: Final = "tokengate_check_batch_size"
UPSTREAM_ERRORS: Final = "tokengate_upstream_errors"
CONNECTIONS: Final = "tokengate_connections"
STREAMS_CLOSED: Final = "tokengate_streams_closed"
ISSUER_FETCHES: Final = "tokengate_issuer_fetches"
ISSUER_KEYS_TIME: Final = "tokengate_issuer_keys_timestamp_seconds"
SPANS: Final = "tokengate_spans"
AUDIT_DROPPED: Final = "tokengate_audit_dropped"
WORKERS: Final = "tokengate_workers"
PROCESS_CPU: Final = "process_cpu_seconds"  # the names that every exporter gives these
PROCESS_MEMORY: Final = "process_resident_memory_bytes"
PROCESS_START: Final = "process_start_time_seconds"


class Family(NamedTuple):
    text: str
    labels: Labels
    bounds: tuple[float, ...] = ()  # upper bounds of a histogram's buckets, inclusive


COUNTERS: Final = {
    REQUESTS: Family("Requests answered, by route and status code", ("route", "code")),
    REJECTIONS: Family("Requests that the gateway itself refused", ("route", "error")),
    REFRESHES: Family("Refresh tokens presented, by what became of them", ("outcome",)),
    SESSIONS: Family("Events in the life of sessions", ("event",)),
    STORE_ROLLBACKS: Family("Partitions of the store that were found rolled back, and whose sessions are void", ()),
    UPSTREAM_ERRORS: Family("Backends that could not be reached or answered badly", ("route", "kind")),
    STREAMS_CLOSED: Family("Long streams that the gateway ended", ("reason",)),
    ISSUER_FETCHES: Family("Fetches of another issuer's keys, by outcome", ("issuer", "outcome")),
    SPANS: Family("Spans of traces, by what became of them", ("outcome",)),
    AUDIT_DROPPED: Family("Audit entries that the log has and the stream in Redis lacks, by why", ("reason",)),
    PROCESS_CPU: Family("CPU time of all workers, user and system", ()),
}
HISTOGRAMS: Final = {
    REQUEST_SECONDS: Family("Time from a request's first byte to its answer's last", ("route",), SECONDS),
    STORE_SECONDS: Family("Time that the session store took to answer", ("operation",), SECONDS),
    CHECK_BATCH_SIZE: Family("Live checks that shared one round trip to the store", (), SIZES),
}
GAUGES: Final = {
    STORE_UP: Family("1 while the session store answers every worker, else 0", ()),
    CLOCK_SKEW: Family("Seconds by which a worker's clock is ahead of Redis', by the worker that is furthest off", ()),
    CONNECTIONS: Family("Open connections", ("side",)),
    ISSUER_KEYS_TIME: Family(
        "When the keys of another issuer were last fetched (Unix seconds, 0 = never), by the worker with the oldest",
        ("issuer",),
    ),
    WORKERS: Family("Workers that live, by what /readyz says of each: ready, unready or draining", ("state",)),
    PROCESS_MEMORY: Family("Resident memory of all workers", ()),
    PROCESS_START: Family("When the oldest worker that lives was started (Unix seconds)", ()),
}
SUMMED: Final = (CONNECTIONS, WORKERS, PROCESS_MEMORY)  # over the workers; of the other gauges the least counts


class Seen(NamedTuple):
    """An observation whose request was traced: the trace, what was observed, and when (Unix seconds)."""

    trace_id: str
    value: float
    time: float


class Histogram:
    """Observations of one series: a count for each bucket, the last one being the overflow.

    `seen` is the last traced observation of each bucket that has one (OpenMetrics calls it an exemplar).
    """

    __slots__ = ("bounds", "buckets", "seen", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.seen: dict[int, Seen] = {}

    def observe(self, value: float) -> None:
        self.buckets[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, buckets: Sequence[int], total: float) -> None:
        for i, number in enumerate(buckets):
            self.buckets[i] += number
        self.total += total

    def see(self, value: float, trace_id: str, now: float) -> None:
        """Note the trace of a value that has been observed."""
        self.seen[bisect_left(self.bounds, value)] = Seen(trace_id, value, now)

    def add_seen(self, seen: Iterable[tuple[int, Seen]]) -> None:
        """Take the later one for each bucket."""
        for bucket, other in seen:
            if 0 <= bucket <= len(self.bounds) and (bucket not in self.seen or self.seen[bucket].time < other.time):
                self.seen[bucket] = other

    def exemplar(self, bucket: int) -> Exemplar | None:
        seen = self.seen.get(bucket)
        return None if seen is None else Exemplar({"trace_id": seen.trace_id}, seen.value, seen.time)

    def cumulative(self) -> list[tuple[str, float]]:
        """Return (upper bound, observations at or below it), as the exposition format wants it."""
        running, pairs = 0, []
        for bound, number in zip((*self.bounds, inf), self.buckets, strict=True):
            running += number
            pairs.append(("+Inf" if bound == inf else str(bound), float(running)))
        return pairs


class Snapshot:
    """The numbers of one worker, or of several added up: metric -> label values -> number."""

    __slots__ = ("counters", "gauges", "histograms")

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, float]] = {name: {} for name in COUNTERS}
        self.histograms: dict[str, dict[Labels, Histogram]] = {name: {} for name in HISTOGRAMS}
        self.gauges: dict[str, dict[Labels, float]] = {name: {} for name in GAUGES}

    def count(self, name: str, labels: Labels, number: float = 1) -> None:
        series = self.counters[name]
        key = within_bound(series, labels)
        series[key] = series.get(key, 0) + number

    def histogram(self, name: str, labels: Labels) -> Histogram:
        """Return the series of these labels, made at the first call."""
        series = self.histograms[name]
        key = within_bound(series, labels)
        found = series.get(key)
        if found is None:
            found = series[key] = Histogram(HISTOGRAMS[name].bounds)
        return found

    def add_totals(self, other: Snapshot) -> None:
        for name, counts in other.counters.items():
            for labels, number in counts.items():
                self.count(name, labels, number)
        for name, histograms in other.histograms.items():
            for labels, histogram in histograms.items():
                mine = self.histogram(name, labels)
                mine.add(histogram.buckets, histogram.total)
                if histogram.seen:
                    mine.add_seen(histogram.seen.items())

    def add_gauges(self, other: Snapshot) -> None:
        """Add a living worker's gauges.

        The store is up only where it is up for all, keys are as old as the oldest, a clock is off by as much as the
        worst.
        """
        for name, gauges in other.gauges.items():
            mine = self.gauges[name]
            for labels, value in gauges.items():
                before = mine.get(labels)
                if before is None:
                    mine[labels] = value
                elif name in SUMMED:
                    mine[labels] = before + value
                else:
                    mine[labels] = max(before, value, key=abs) if name == CLOCK_SKEW else min(before, value)

    def dump(self) -> bytes:
        return orjson.dumps(
            {
                "counters": {n: [[k, v] for k, v in s.items()] for n, s in self.counters.items()},
                "histograms": {
                    n: [
                        [k, h.bounds, h.buckets, h.total, [(at, *seen) for at, seen in h.seen.items()]]
                        for k, h in s.items()
                    ]
                    for n, s in self.histograms.items()
                },
                "gauges": {n: [[k, v] for k, v in s.items()] for n, s in self.gauges.items()},
            }
        )

    @classmethod
    def load(cls, data: bytes) -> Snapshot:
        """Read what `dump` wrote. Series that are not of this version's table are left out.

        Raises ValueError, LookupError, TypeError or AttributeError where `dump` did not write the data.
        """
        document, snapshot = orjson.loads(data), cls()
        for name, labels, (number,) in _known(document["counters"], COUNTERS):
            snapshot.count(name, labels, number + 0)
        for name, labels, (bounds, buckets, total, seen) in _known(document["histograms"], HISTOGRAMS):
            if tuple(bounds) == HISTOGRAMS[name].bounds:
                histogram = snapshot.histogram(name, labels)
                histogram.add(buckets, float(total))
                histogram.add_seen(
                    (int(at), Seen(str(trace), float(value), float(now))) for at, trace, value, now in seen
                )
        for name, labels, (value,) in _known(document["gauges"], GAUGES):
            snapshot.gauges[name][labels] = float(value)
        return snapshot


def within_bound(series: dict[Labels, Any], labels: Labels) -> Labels:
    """Return the labels, or those of the catch-all series once a metric has too many."""
    if labels in series or len(series) < MAX_SERIES:
        return labels
    return (OTHER,) * len(labels)


def _known(document: dict[str, list[Any]], table: dict[str, Family]) -> Iterator[tuple[str, Labels, list[Any]]]:
    for name, family in table.items():
        for labels, *values in document.get(name, ()):
            if len(labels) == len(family.labels):
                yield name, tuple(labels), values


class _Collector:
    def __init__(self, snapshot: Snapshot, exemplars: bool) -> None:
        self.snapshot = snapshot
        self.exemplars = exemplars

    def collect(self) -> Iterable[Metric]:
        for name, family in COUNTERS.items():
            counter = CounterMetricFamily(name, family.text, labels=family.labels)
            for labels, number in self.snapshot.counters[name].items():
                counter.add_metric(labels, number)
            yield counter
        for name, family in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, family.text, labels=family.labels)
            for labels, h in self.snapshot.histograms[name].items():
                histogram.add_metric(labels, self._buckets(h), h.total)
            yield histogram
        for name, family in GAUGES.items():
            gauge = GaugeMetricFamily(name, family.text, labels=family.labels)
            for labels, value in self.snapshot.gauges[name].items():
                gauge.add_metric(labels, value)
            yield gauge

    def _buckets(self, histogram: Histogram) -> list[Any]:
        pairs = histogram.cumulative()
        if not self.exemplars:
            return pairs
        return [(bound, number, histogram.exemplar(at)) for at, (bound, number) in enumerate(pairs)]


def expose(snapshot: Snapshot, *, openmetrics: bool = False) -> bytes:
    """Return the text of Prometheus' exposition format, version 0.0.4, or of OpenMetrics 1.0; UTF-8.

    Exemplars are of the latter alone.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(snapshot, openmetrics))
    if not openmetrics:
        return generate_latest(registry)
    text: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    return text
