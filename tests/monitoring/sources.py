"""What k8s/monitoring has, as data; and what is asked of it in common."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HERE = ROOT / "k8s" / "monitoring"
RULES = HERE / "rules.yaml"
PAGE = ROOT / "docs" / "operations" / "monitoring.md"
DASHBOARD: dict[str, Any] = json.loads((HERE / "dashboard.json").read_text())
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]

# Names of metrics; what a query says beside them are functions, labels and keywords.
_METRIC = re.compile(r"\b((?:tokengate|process)_\w+|up)\b(?=\s*[{\[)]|\s*$)")


def metrics_in(expression: str) -> set[str]:
    """Return the metrics that an expression asks for."""
    return set(_METRIC.findall(expression))


def filled(expression: str) -> str:
    """Return an expression of the dashboard as Grafana sends it when everything is chosen."""
    for name in ("namespace", "job", "pod", "route"):
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", "5m")


def variables() -> Iterator[dict[str, Any]]:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable


def need(program: str) -> str:
    """Return the path of a program of Debian's package prometheus; skip where it is missing."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"needs {program}")
    return found
