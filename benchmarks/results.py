"""A run as JSON, so that tables and chart can be made from it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks.footprint import Footprint
from benchmarks.measure import Sample
from benchmarks.streams import Watched

Rounds = dict[str, list[Sample]]  # peer -> a sample for each round, rounds in the same order for all
Footprints = dict[str, "Footprint | str"]  # peer -> what was measured, or why it was not


@dataclass(slots=True)
class Results:
    """One run. `loads` and `grants` are by the name of the load, `hash_cost` in CPU seconds.

    `scales` says that two workers had a core each; `absent` why a peer is not in the run. `slices` are the rounds of
    one worker and of two with a slice of a core each, or why there are none; `watched` what 10,000 streams cost.
    """

    machine: dict[str, str | int]
    when: str
    seconds: float
    scales: bool
    versions: dict[str, str] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    loads: dict[str, Rounds] = field(default_factory=dict)
    grants: dict[str, list[Sample]] = field(default_factory=dict)
    hash_cost: float = 0.0
    idle: Footprints = field(default_factory=dict)
    websockets: Footprints = field(default_factory=dict)
    slices: Rounds | str = "not asked for"
    watched: Watched | str = "not asked for"


def save(results: Results, path: Path) -> None:
    """Write a run."""
    path.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def load(path: Path) -> Results:
    """Read a run. Raises OSError, or ValueError or TypeError for a file that is none."""
    raw: dict[str, Any] = orjson.loads(path.read_bytes())
    raw["loads"] = {name: _rounds(rounds) for name, rounds in raw["loads"].items()}
    raw["grants"] = _rounds(raw["grants"])
    raw["idle"], raw["websockets"] = _footprints(raw["idle"]), _footprints(raw["websockets"])
    if isinstance(raw.get("slices"), dict):
        raw["slices"] = _rounds(raw["slices"])
    if isinstance(raw.get("watched"), dict):
        raw["watched"] = Watched(**raw["watched"])
    return Results(**raw)


def _rounds(raw: Mapping[str, list[dict[str, Any]]]) -> Rounds:
    return {peer: [Sample(**sample) for sample in samples] for peer, samples in raw.items()}


def _footprints(raw: Mapping[str, dict[str, int] | str]) -> Footprints:
    return {peer: each if isinstance(each, str) else Footprint(**each) for peer, each in raw.items()}
