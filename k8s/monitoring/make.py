"""Make what is derived here: dashboard.json, prometheusrule.yaml, and the chart's copies (`make monitoring`).

    python k8s/monitoring/make.py            writes the files
    python k8s/monitoring/make.py --check    says which are not as they would be made, with exit status 1

The rules' one source is rules.yaml, the dashboard's is panels.py.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from panels import ROWS, Panel

HERE = Path(__file__).resolve().parent
CHART = HERE.parent / "chart" / "files"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SCHEMA_VERSION = 41  # of Grafana 12.0; older ones since 10 read it
WIDTH = 24  # columns of Grafana's grid


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append(_row(len(panels) + 1, title, y))
        y += 1
        x = 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + panel.height
            panels.append(_panel(len(panels) + 1, panel, x, y))
            x += panel.width
        y += row[-1].height
    return {
        "title": "tokengate",
        "description": "Traffic, sessions, Redis and backends of the gateway. Alerts: docs/operations/monitoring.md",
        "tags": ["tokengate"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    first: dict[str, Any] = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
    }
    first |= {"hide": 0, "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": ""}
    return [
        first,
        _variable("namespace", "Namespace", "tokengate_workers"),
        _variable("job", "Job", 'tokengate_workers{namespace=~"$namespace"}'),
        _variable("pod", "Pod", 'tokengate_workers{namespace=~"$namespace", job=~"$job"}'),
        _variable("route", "Route", 'tokengate_requests_total{namespace=~"$namespace", job=~"$job"}'),
    ]


def _variable(name: str, label: str, series: str) -> dict[str, Any]:
    """Return a choice among a label's values. All of them means any, the missing label of another set-up included."""
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"{name}-values"},
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "hide": 0,
        "options": [],
        "refresh": 2,
        "regex": "",
        "sort": 1,
    }


def _row(number: int, title: str, y: int) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": WIDTH, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    steps = [{"color": colour, "value": None if n == 0 else value} for n, (colour, value) in enumerate(panel.limits)]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if steps else "palette-classic"},
    }
    defaults["thresholds"] = {"mode": "absolute", "steps": steps or [{"color": "text", "value": None}]}
    options: dict[str, Any]
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        options = {"reduceOptions": reduce, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    else:
        stacking = {"mode": "normal" if panel.stack else "none", "group": "A"}
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if panel.stack else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": stacking,
        }
        legend = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max"]}
        options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text or f"{panel.title}, on the chosen routes.",
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [_target(n, *query) for n, query in enumerate(panel.queries)],
    }


def _target(number: int, expression: str, legend: str) -> dict[str, Any]:
    return {
        "refId": "ABC"[number],
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expression,
        "legendFormat": legend,
        "range": True,
    }


def prometheus_rule(rules: str) -> str:
    """Return the rules as the Prometheus operator takes them."""
    indented = "".join(f"  {line}\n" if line and line[0] != "#" else "" for line in rules.splitlines())
    return (
        "# Made from rules.yaml by `make monitoring`.\n"
        "apiVersion: monitoring.coreos.com/v1\n"
        "kind: PrometheusRule\n"
        "metadata:\n  name: tokengate\n  labels:\n    app.kubernetes.io/name: tokengate\n"
        f"spec:\n{indented}"
    )


def files() -> dict[Path, str]:
    """Return what is made: path -> text."""
    rules = (HERE / "rules.yaml").read_text()
    board = json.dumps(dashboard(), indent=2) + "\n"
    return {
        HERE / "dashboard.json": board,
        HERE / "prometheusrule.yaml": prometheus_rule(rules),
        CHART / "dashboard.json": board,
        CHART / "rules.yaml": rules,
    }


def main() -> int:
    wrong = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in wrong:
            sys.stderr.write(f"{path.relative_to(HERE.parents[1])} is not as `make monitoring` makes it\n")
        return 1 if wrong else 0
    for path in wrong:
        path.write_text(files()[path])
    return 0


if __name__ == "__main__":
    sys.exit(main())
