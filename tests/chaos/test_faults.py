"""Each fault of the table, as short as it can be: no law is broken before, during or after it."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import PAGE
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.run import run
from tests.chaos.world import World


@pytest.mark.parametrize("fault", [f for f in FAULTS if not f.settings], ids=lambda fault: fault.name)
def test_a_fault_breaks_no_law(plain: World, fault: Fault) -> None:
    assert run(fault, plain, hold=0.5).broken == []


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.settings], ids=lambda fault: fault.name)
def test_a_fault_breaks_no_law_where_revocations_wait_for_a_replica(waiting: World, fault: Fault) -> None:
    assert run(fault, waiting, hold=0.5).broken == []


def test_the_page_of_failures_has_each_fault_in_both_of_its_tables() -> None:
    rows = [line.split(" | ")[0].strip("| ") for line in PAGE.read_text().splitlines() if line[:1] == "|"]
    assert [rows.count(fault.name) for fault in FAULTS] == [2] * len(FAULTS)
