"""Every command in the documentation has been run by a test, or says why not."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.docs.pages import ROOT, SHELL, Block, blocks, commands, every_page, tokens, uses

PAGES = every_page()
BLOCKS = [block for page in PAGES for block in blocks(page)]
OTHER_LANGUAGES = {"css", "go", "html", "http", "ini", "java", "js", "json", "lua", "nginx", "php", "promql", "python"}
OTHER_LANGUAGES |= {"redis", "sql", "text", "toml", "yaml"}
# Pages whose tests take their blocks in a way of their own
BY_THEMSELVES = {
    "docs/operations/keys.md": "tests/e2e/test_keys_page.py",
    "docs/operations/monitoring.md": "tests/monitoring/test_page.py",
    "docs/operations/observability.md": "tests/e2e/test_observability_page.py",
    "docs/operations/capacity.md": "tests/scale/test_page.py",
}


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.walk(ast.parse((ROOT / path).read_text()))
    return frozenset(each.name for each in tree if isinstance(each, ast.FunctionDef))


def test_there_are_commands_to_look_at() -> None:
    assert len(BLOCKS) > 30
    assert {"README.md", "docs/quickstart.md", "docs/http-api.md"} <= {block.page for block in BLOCKS}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_of_commands_is_run_by_a_test_or_says_why_not(block: Block) -> None:
    taken = [use for use in uses() if use.page == block.page and use.heading in (None, block.heading)]
    if block.page in BY_THEMSELVES:
        assert block.page.rpartition("/")[2] in (ROOT / BY_THEMSELVES[block.page]).read_text()
        return
    assert taken or block.why, "pass it to tests.docs.pages.commands in a test, or say why not in a comment before it"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.by], ids=str)
def test_the_test_that_runs_a_block_in_another_way_is_there(block: Block) -> None:
    path, _, name = block.by.partition("::")
    assert name in functions(path)


@pytest.mark.parametrize("use", uses(), ids=lambda use: f"{use.test} {use.page}")
def test_a_test_takes_blocks_that_are_there(use: object) -> None:
    page, heading = getattr(use, "page", ""), getattr(use, "heading", None)
    assert commands(page, heading)


@pytest.mark.parametrize("page", PAGES)
def test_no_command_hides_in_a_block_without_a_language(page: str) -> None:
    """An indented block has none, and one that is fenced may lack it: nobody could tell commands from output."""
    found = [token for token in tokens(page) if token.type in {"code_block", "fence"}]
    assert [token.content for token in found if token.type == "code_block"] == []
    assert {token.info for token in found} <= OTHER_LANGUAGES | set(SHELL)


def test_a_reason_is_a_sentence() -> None:
    assert [str(block) for block in BLOCKS if block.why and len(block.why.split()) < 3] == []
