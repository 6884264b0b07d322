"""The table, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.run import Row

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


def table(rows: Sequence[Row]) -> str:
    lines = [_line(_HEAD), _line("---" for _ in _HEAD), *(_line(_cells(row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: object) -> str:
    assert hasattr(cells, "__iter__")
    return "| " + " | ".join(cells) + " |"


def _cells(row: Row) -> list[str]:
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
        str(row.cleared),
        f"{row.slowest * 1000:.0f}",
        f"{row.noise * 1000:.0f}",
        f"{row.window:.2f}",
        f"{row.back:.2f}",
        f"{row.attempts:.1f}",
        "503" if row.unready else "200",
    ]
