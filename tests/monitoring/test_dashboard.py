"""The dashboard is one that Grafana takes: its shape, its variables, its panels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import common, dashboard, prometheus, stat

from tests.monitoring.sources import DASHBOARD, HERE, PANELS, ROOT, variables

UNITS = {"reqps", "ops", "s", "short", "percentunit", "bytes"}
IDS = [panel["title"] for panel in PANELS]


def every(key: str, value: Any) -> list[Any]:
    """Return what stands at a key, anywhere in it."""
    found = []
    if isinstance(value, dict):
        found += [value[key]] if key in value else []
        found += [each for inner in value.values() for each in every(key, inner)]
    elif isinstance(value, list):
        found += [each for inner in value for each in every(key, inner)]
    return found


def left_out(ours: Any, theirs: Any, place: str = "") -> Iterator[str]:
    """Yield the places of what stands in ours and not in theirs."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from left_out(value, theirs[key], f"{place}/{key}")
            else:
                yield f"{place}/{key}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from left_out(one, other, f"{place}/{number}")
    elif ours != theirs:
        yield place


def test_grafanas_own_model_takes_the_dashboard_and_loses_nothing_of_it() -> None:
    """The types are made from Grafana's schema; what it does not know, they would leave out."""
    register_default_plugins()
    read = dashboard.Dashboard.from_json(DASHBOARD)
    written = json.loads(JSONEncoder().encode(read))
    assert list(left_out(DASHBOARD, written)) == []
    panels = [panel for panel in read.panels or [] if isinstance(panel, dashboard.Panel)]
    assert len(panels) == len(PANELS)
    for panel in panels:
        assert isinstance(panel.options, stat.Options) or panel.type_val == "timeseries"
        assert panel.field_config is not None
        assert isinstance(panel.field_config.defaults.custom, common.GraphFieldConfig) or panel.type_val == "stat"
        assert all(isinstance(target, prometheus.Dataquery) for target in panel.targets or [])


def test_panels_have_ids_and_titles_of_their_own() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    assert len(IDS) == len(set(IDS))


def test_panels_are_on_the_grid_and_none_lies_on_another() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    for place in places:
        assert place["x"] >= 0
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_every_data_source_is_the_variable_and_no_uid_is_anybodys() -> None:
    wanted = {"type": "prometheus", "uid": "${datasource}"}
    sources = every("datasource", DASHBOARD)
    assert sources
    assert all(source == wanted for source in sources)
    assert set(every("uid", DASHBOARD)) == {"${datasource}"}
    assert "id" not in DASHBOARD


@pytest.mark.parametrize("panel", PANELS, ids=IDS)
def test_every_panel_has_a_unit_a_description_and_legends(panel: dict[str, Any]) -> None:
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert len(panel["description"]) > 10
    references = [target["refId"] for target in panel["targets"]]
    assert references
    assert len(references) == len(set(references))
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("panel", PANELS, ids=IDS)
def test_every_query_goes_by_the_choices_and_its_legend_by_labels_that_it_has(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        selectors = re.findall(r"\b(?:tokengate|process)_\w+\{([^}]*)\}", target["expr"])
        assert selectors
        for selector in selectors:
            assert selector.startswith('namespace=~"$namespace", job=~"$job", pod=~"$pod"')
        kept = {label for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(", ")}
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= kept


def test_the_variables_are_all_used_and_all_there() -> None:
    known = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert known == {"datasource", "namespace", "job", "pod", "route"}
    text = (HERE / "dashboard.json").read_text()
    used = set(re.findall(r"\$\{?(\w+)", text))
    assert used - {"__rate_interval", "__all"} == known
    for variable in variables():
        assert (variable["allValue"], variable["multi"], variable["includeAll"]) == (".*", True, True)


def test_the_chart_has_the_same_dashboard() -> None:
    assert (ROOT / "k8s" / "chart" / "files" / "dashboard.json").read_text() == (HERE / "dashboard.json").read_text()


def test_the_dashboard_fits_into_a_configmap() -> None:
    """Their objects may have 1 MiB, and `kubectl apply` keeps a second copy in 256 KiB."""
    assert len((HERE / "dashboard.json").read_bytes()) < 200_000
