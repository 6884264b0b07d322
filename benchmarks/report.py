"""Rounds into a table: the median of each figure, and its ratio to plain nginx of the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.measure import Load, Sample

Rounds = Mapping[str, Sequence[Sample]]


def table(load: Load, rounds: Rounds, limit: str) -> str:
    """Return a Markdown table for one load. `limit` names the peer that ratios are against."""
    base = median(sample.cpu_per_request for sample in rounds[limit])
    lines = [
        f"**{load.name}**",
        "",
        "| | CPU µs a request | ratio | requests/s | p50 ms | p99 ms | memory MiB | errors |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [_row(name, samples, base) for name, samples in rounds.items()]
    return "\n".join(lines)


def ratio(rounds: Rounds, name: str, limit: str) -> float:
    """Return the ratio of CPU a request of two peers, the median over rounds of the ratio in each."""
    pairs = zip(rounds[name], rounds[limit], strict=True)
    return median(mine.cpu_per_request / theirs.cpu_per_request for mine, theirs in pairs)


def _row(name: str, samples: Sequence[Sample], base: float) -> str:
    cpu = median(sample.cpu_per_request for sample in samples)
    rate = median(sample.requests / sample.seconds for sample in samples)
    p50, p99 = (median(getattr(sample, key) for sample in samples) * 1e3 for key in ("p50", "p99"))
    memory = median(sample.memory for sample in samples) / (1 << 20)
    errors = sum(sample.errors for sample in samples)
    return (
        f"| {name} | {cpu * 1e6:.1f} | {cpu / base:.2f} | {rate:,.0f} | {p50:.2f} | {p99:.2f} "
        f"| {memory:.0f} | {errors} |"
    )
