"""docs/examples.md: its commands do what it says."""

from __future__ import annotations

import re

import pytest

from tests.shop import PAGE, blocks, shop


@pytest.mark.timeout(180)
def test_the_commands_of_the_page_print_what_it_says() -> None:
    told = blocks()
    assert sum(block.printed is not None for block in told) == PAGE.read_text().count("```text") >= 5
    with shop() as running:
        for block in told:
            said = running.run(block.commands)
            wanted = re.escape(running.here(block.printed or "")).replace(re.escape("..."), ".*")
            assert re.fullmatch(wanted, said), (block.commands, said)
        assert running.run("jobs -p") == ""
        assert running.run("ls build") == ""
