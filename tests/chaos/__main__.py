"""python -m tests.chaos: every fault in turn under load; prints one table; 1 where a law was broken."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from tests.chaos.faults import FAULTS, Fault
from tests.chaos.report import table
from tests.chaos.run import Row, run
from tests.chaos.world import world

PAGE = Path("docs/operations/failures.md")
MARKS = ("<!-- table: begin, made by `python -m tests.chaos --docs` -->", "<!-- table: end -->")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="how long a fault lasts at least (default 3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name has this")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/operations/failures.md")
    given = parser.parse_args()
    rows = _run([fault for fault in FAULTS if given.only in fault.name], given.seconds)
    text = table(rows)
    sys.stdout.write(text)
    if given.docs:
        _write_docs(text, given.seconds)
    for row in rows:
        for law in row.broken:
            sys.stdout.write(f"broken: {row.name}: {law}\n")
    return int(any(row.broken for row in rows))


def _run(faults: list[Fault], hold: float) -> list[Row]:
    """Run faults that need the same settings of the gateways against the same gateways."""
    rows = []
    for settings, group in groupby(faults, key=lambda fault: dict(fault.settings)):
        with world(settings) as made:
            for fault in group:
                sys.stderr.write(f"{fault.name}\n")
                rows.append(run(fault, made, hold))
    return rows


def _write_docs(text: str, hold: float) -> None:
    """Put the table between the marks of the page."""
    page, (begin, end) = PAGE.read_text(), MARKS
    before, after = page[: page.index(begin)], page[page.index(end) :]
    about = f"A run of {datetime.now(UTC):%Y-%m-%d}; each fault lasted {hold:g} s at least."
    PAGE.write_text(f"{before}{begin}\n\n{about}\n\n{text}\n{after}")


if __name__ == "__main__":
    sys.exit(main())
