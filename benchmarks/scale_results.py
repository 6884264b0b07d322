"""A run of scale.py: what it measured, the constants that follow, and how far the model was from what it did not
know."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from benchmarks.plan import Constants

SAVED = Path(__file__).parents[1] / "docs" / "scale.json"


@dataclass(frozen=True, slots=True)
class Point:
    """A load on so many workers. CPU in seconds; `batches` are the packets that Redis got; `rate` 0 = all they can.

    `nginx` is what a request took that plain nginx passed on just before, in microseconds.
    """

    workers: int
    masters: int
    connections: int
    rate: int
    requests: int
    seconds: float
    cpu: float
    store_cpu: float
    batches: int
    nginx: float = 0.0

    @property
    def batch(self) -> float:
        return self.requests / max(1, self.batches)

    @property
    def request_cost(self) -> float:
        return self.cpu / self.requests * 1e6

    @property
    def check_cost(self) -> float:
        return self.store_cpu / self.requests * 1e6


@dataclass(frozen=True, slots=True)
class Check:
    """A figure that the model told beforehand, and what came of it."""

    text: str
    unit: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


@dataclass(slots=True)
class Results:
    """One run. Costs in microseconds: `batches` by size, to one server, as `cluster_batches` to a master, and as
    `crowded_batches` of several workers at the same moment, as `woken_batches` of a Redis that sleeps in between;
    `one_user` of a login by the sessions
    that the user has (without and with a device's name), `verify` of a token by algorithm, `tokens` bytes by name,
    `persistence` of Redis by how it keeps its data, `million` what a million sessions were in memory, on disk and as a
    copy. `redis_connections` are those of a worker under a load of refreshes."""

    machine: dict[str, str | int]
    when: str
    constants: Constants
    sessions: int
    points: list[Point] = field(default_factory=list)
    batches: list[tuple[int, float]] = field(default_factory=list)
    cluster_batches: list[tuple[int, float]] = field(default_factory=list)
    crowded_batches: list[tuple[int, float]] = field(default_factory=list)
    woken_batches: list[tuple[int, float]] = field(default_factory=list)
    one_user: dict[str, dict[str, float]] = field(default_factory=dict)
    verify: dict[str, float] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    persistence: dict[str, dict[str, float]] = field(default_factory=dict)
    million: dict[str, float] = field(default_factory=dict)
    redis_connections: int = 0
    checks: list[Check] = field(default_factory=list)


def save(results: Results, path: Path) -> None:
    """Write a run."""
    path.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def load(path: Path) -> Results:
    """Read a run. Raises OSError, or ValueError or TypeError for a file that is none."""
    raw: dict[str, Any] = orjson.loads(path.read_bytes())
    raw["constants"] = Constants(**raw["constants"])
    raw["points"] = [Point(**each) for each in raw["points"]]
    raw["checks"] = [Check(**each) for each in raw["checks"]]
    for name in ("batches", "cluster_batches", "crowded_batches", "woken_batches"):
        raw[name] = [(size, cost) for size, cost in raw.get(name, [])]
    return Results(**raw)
