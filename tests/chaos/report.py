"""The table, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.run import Row
from tests.chaos.struck import Outcome

_HEAD = (
    "fault",
    "requests",
    "2xx",
    "401",
    "503",
    "other",
    "ended tokens let in",
    "live sessions refused with 401",
    "sessions lost",
    "cookies cleared",
    "slowest answer, ms",
    "of it the machine, ms",
    "longest error window, s",
    "back after Redis, s",
    "tries to connect a second",
    "/readyz",
)


_BLOWS_HEAD = (
    "what happens",
    "requests",
    "2xx",
    "401",
    "503",
    "other",
    "ended tokens let in",
    "live sessions refused with 401",
    "sessions lost",
    "of the other partitions: refused / asked",
    "slowest answer, ms",
    "of it the machine, ms",
    "until Redis could serve, s",
    "longest error window, s",
    "back after Redis, s",
    "/readyz",
)


def table(rows: Sequence[Row]) -> str:
    return _table(_HEAD, [_cells(row) for row in rows])


def blows_table(outcomes: Sequence[Outcome]) -> str:
    return _table(_BLOWS_HEAD, [_blow_cells(each) for each in outcomes])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([_line(head), _line("---" for _ in head), *map(_line, rows)]) + "\n"


def _line(cells: object) -> str:
    assert hasattr(cells, "__iter__")
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row) -> list[str]:
    return [
        *_counts(row),
        str(row.cleared),
        f"{row.slowest * 1000:.0f}",
        f"{row.noise * 1000:.0f}",
        f"{row.window:.2f}",
        f"{row.back:.2f}",
        f"{row.attempts:.1f}",
        "503" if row.unready else "200",
    ]


def _blow_cells(outcome: Outcome) -> list[str]:
    asked, refused = outcome.elsewhere or (0, 0)
    return [
        *_counts(outcome),
        f"{refused} / {asked}" if asked else "none",
        f"{outcome.slowest * 1000:.0f}",
        f"{outcome.noise * 1000:.0f}",
        f"{outcome.away:.2f}",
        f"{outcome.window:.2f}",
        f"{outcome.back:.2f}",
        "503" if outcome.unready else "200",
    ]


def _counts(row: Row | Outcome) -> list[str]:
    """What both tables begin with: what was asked and answered, and how often a law was broken."""
    good = sum(number for kind, number in row.kinds.items() if kind[:1] == "2")
    known = good + row.kinds["401"] + row.kinds["503"]
    return [
        row.name,
        str(row.requests),
        str(good),
        str(row.kinds["401"]),
        str(row.kinds["503"]),
        str(row.requests - known),
        str(row.accepted),
        str(row.signed_out),
        str(row.lost),
    ]
