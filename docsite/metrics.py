"""The table of metrics, from telemetry/series.py: wherever a page of docs/ has a place for it."""

from __future__ import annotations

from docsite.marks import table
from gateway.telemetry import series
from gateway.telemetry.series import COUNTERS, GAUGES, HISTOGRAMS, Family
from gateway.tokens.rotation import Outcome

PLACE = "metrics"
VALUES = {  # the closed sets among the labels
    (series.REQUESTS, "code"): "a status; 499 = the client left before the answer; other = beyond a route's first 64",
    (series.REFRESHES, "outcome"): ", ".join(Outcome),
    (series.SESSIONS, "event"): "created, ended, login_failed",
    (series.CONNECTIONS, "side"): "client, upstream",
    (series.ISSUER_FETCHES, "outcome"): "succeeded, failed",
    (series.SPANS, "outcome"): "exported, dropped, failed",
    (series.AUDIT_DROPPED, "reason"): "full, flood, store",
}


def metrics() -> str:
    """Return a row for each metric, under the name that Prometheus shows."""
    rows = [_row(name, "counter", family) for name, family in COUNTERS.items()]
    rows += [_row(name, "histogram", family) for name, family in HISTOGRAMS.items()]
    rows += [_row(name, "gauge", family) for name, family in GAUGES.items()]
    return table(("metric", "type", "labels", "what it counts"), sorted(rows))


def _row(name: str, kind: str, family: Family) -> tuple[str, ...]:
    labels = (
        f"`{label}`" + (f" ({VALUES[name, label]})" if (name, label) in VALUES else "") for label in family.labels
    )
    shown = f"{name}_total" if kind == "counter" else name
    return f"`{shown}`", kind, ", ".join(labels), family.text
