"""docs/examples.md: its commands do what it says."""

from __future__ import annotations

import pytest

from tests.docs.pages import ROOT
from tests.shop import blocks, shop


@pytest.mark.timeout(180)
def test_the_commands_of_the_page_print_what_it_says() -> None:
    told = blocks()
    printed = sum(block.printed is not None for block in told)
    assert printed == (ROOT / "docs" / "examples.md").read_text().count("```text") >= 5
    with shop() as running:
        for block in told:
            said = running.run(block)
            assert block.printed is not None or said == ""
        assert running.type("jobs -p") == ""
        assert running.type("ls build") == ""
