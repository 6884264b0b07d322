"""Each blow of the second table, as short as it can be: no law is broken before, during or after it."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import PAGE
from tests.chaos.blows import BLOWS, Blow
from tests.chaos.struck import run


@pytest.mark.parametrize("blow", BLOWS, ids=lambda blow: blow.name)
def test_a_blow_breaks_no_law(blow: Blow) -> None:
    assert run(blow, hold=0.5).broken == []


def test_the_page_of_failures_has_each_blow_in_both_of_its_tables() -> None:
    rows = [line.split(" | ")[0].strip("| ") for line in PAGE.read_text().splitlines() if line[:1] == "|"]
    assert [rows.count(blow.name) for blow in BLOWS] == [2] * len(BLOWS)
