"""Each fault of the table, as short as it can be: no law is broken before, during or after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.faults import FAULTS, WAITING, Fault
from tests.chaos.run import run
from tests.chaos.world import World, world


@pytest.fixture(scope="module")
def plain() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="module")
def waiting() -> Iterator[World]:
    """Gateways whose revocations wait for a replica."""
    with world(WAITING) as made:
        yield made


@pytest.mark.parametrize("fault", [f for f in FAULTS if not f.settings], ids=lambda fault: fault.name)
def test_a_fault_breaks_no_law(plain: World, fault: Fault) -> None:
    assert run(fault, plain, hold=0.5).broken == []


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.settings], ids=lambda fault: fault.name)
def test_a_fault_breaks_no_law_where_revocations_wait_for_a_replica(waiting: World, fault: Fault) -> None:
    assert run(fault, waiting, hold=0.5).broken == []
