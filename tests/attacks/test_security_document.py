"""SECURITY.md promises tests: each one that it names is there, and no attack stands without one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))
SECTIONS = re.findall(r"^### (.+?)\n(.+?)(?=^#)", TEXT, re.MULTILINE | re.DOTALL)


@cache
def collected(path: str) -> frozenset[str]:
    """Return the test functions that pytest would collect from a file."""
    tree = ast.parse((ROOT / path).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


@pytest.mark.parametrize(("path", "name"), NAMED, ids=[f"{path}::{name}" for path, name in NAMED])
def test_a_test_that_is_promised_is_there(path: str, name: str) -> None:
    assert name in collected(path)


def test_every_attack_has_a_test() -> None:
    assert [title.split(":")[0] for title, _ in SECTIONS] == [
        "RFC 6819",
        "RFC 8725",
        "Tokens of other issuers",
        "RFC 9700",
        "The proxy and what is around it",
    ]
    for title, section in SECTIONS:
        rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
        assert len(rows) > 8, title
        for row in rows:
            assert row.count(" | ") == 2, row
            assert re.search(r"`tests/[\w/]+\.py::test_\w+`", row.rpartition(" | ")[2]), row


def test_every_file_of_attacks_is_named() -> None:
    here = {str(path.relative_to(ROOT)) for path in Path(__file__).parent.glob("test_*.py")}
    assert here - {path for path, _ in NAMED} == {str(Path(__file__).relative_to(ROOT))}


def test_nothing_that_looks_like_a_test_is_written_otherwise() -> None:
    """A promise in another spelling would not be looked after."""
    assert len(re.findall(r"test_\w+", TEXT)) == sum(2 for _ in re.findall(r"`tests/[\w/]+\.py::\w+`", TEXT))
