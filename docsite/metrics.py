"""The table of metrics, from telemetry/series.py: wherever a page of docs/ has a place for it."""

from __future__ import annotations

from docsite.marks import table
from gateway.telemetry.series import COUNTERS, GAUGES, HISTOGRAMS, Family

PLACE = "metrics"


def metrics() -> str:
    """Return a row for each metric, under the name that Prometheus shows."""
    rows = [_row(f"{name}_total", "counter", family) for name, family in COUNTERS.items()]
    rows += [_row(name, "histogram", family) for name, family in HISTOGRAMS.items()]
    rows += [_row(name, "gauge", family) for name, family in GAUGES.items()]
    return table(("metric", "type", "labels", "what it counts"), sorted(rows))


def _row(name: str, kind: str, family: Family) -> tuple[str, ...]:
    return f"`{name}`", kind, ", ".join(f"`{label}`" for label in family.labels), family.text
