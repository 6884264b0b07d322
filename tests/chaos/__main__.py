"""python -m tests.chaos: every fault in turn under load; prints two tables; 1 where a law was broken."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from tests.chaos import struck
from tests.chaos.blows import BLOWS
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.report import blows_table, table
from tests.chaos.run import Row, run
from tests.chaos.struck import Outcome
from tests.chaos.world import world

PAGE = Path("docs/operations/failures.md")
FAULTS_TABLE, BLOWS_TABLE = "table", "table of blows"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="how long a fault lasts at least (default 3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose name has this")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/operations/failures.md")
    given = parser.parse_args()
    rows = _run([fault for fault in FAULTS if given.only in fault.name], given.seconds)
    outcomes = _strike(given.only, given.seconds)
    _tell(FAULTS_TABLE, table(rows) if rows else "", given)
    _tell(BLOWS_TABLE, blows_table(outcomes) if outcomes else "", given)
    told: list[Row | Outcome] = [*rows, *outcomes]
    broken = [f"{each.name}: {law}" for each in told for law in each.broken]
    for law in broken:
        sys.stdout.write(f"broken: {law}\n")
    return int(bool(broken))


def _strike(only: str, hold: float) -> list[Outcome]:
    outcomes = []
    for blow in BLOWS:
        if only in blow.name:
            sys.stderr.write(f"{blow.name}\n")
            outcomes.append(struck.run(blow, hold))
    return outcomes


def _tell(name: str, text: str, given: argparse.Namespace) -> None:
    """Print a table, and put it in its place on the page where that is wanted."""
    sys.stdout.write(text)
    if text and given.docs:
        _write_docs(name, text, given.seconds)


def _run(faults: list[Fault], hold: float) -> list[Row]:
    """Run faults that need the same settings of the gateways against the same gateways."""
    rows = []
    for settings, group in groupby(faults, key=lambda fault: dict(fault.settings)):
        with world(settings) as made:
            for fault in group:
                sys.stderr.write(f"{fault.name}\n")
                rows.append(run(fault, made, hold))
    return rows


def _write_docs(name: str, text: str, hold: float) -> None:
    """Put a table between its marks of the page."""
    begin, end = f"<!-- {name}: begin, made by `python -m tests.chaos --docs` -->", f"<!-- {name}: end -->"
    page = PAGE.read_text()
    before, after = page[: page.index(begin)], page[page.index(end) :]
    lasted = (
        f"each fault lasted {hold:g} s at least" if name == FAULTS_TABLE else f"each was watched for {hold:g} s more"
    )
    PAGE.write_text(f"{before}{begin}\n\nA run of {datetime.now(UTC):%Y-%m-%d}; {lasted}.\n\n{text}\n{after}")


if __name__ == "__main__":
    sys.exit(main())
