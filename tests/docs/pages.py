"""The commands in the documentation, for the tests that run them.

    for block in commands("docs/quickstart.md"):
        shell.run(block)

A block that no test can run says why, in a comment on the line before it, which no reader sees:

    <!-- not run: it needs a cluster -->
    <!-- run by tests/k8s/test_dev_overlay.py::secrets: up to the first kubectl, which needs a cluster -->

`tests/docs/test_commands.py` holds that every block is given out to a test or has such a comment. It looks for calls of
`commands` in the text of the tests, so what is passed must be written out there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
SHELL = ("sh", "bash", "shell", "console")
_COMMENT = re.compile(r"<!-- (?P<kind>not run|run by (?P<by>\S+)): (?P<why>\S.*) -->\s*", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Commands of a page, where they stand, and what the page says that they print: None where it says nothing.

    `why` is the reason why no test takes them from here, `by` the test that runs them in another way.
    """

    page: str
    line: int
    heading: str
    commands: str
    printed: str | None = None
    why: str = ""
    by: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.heading})"


@dataclass(frozen=True)
class Use:
    """A call of `commands` in a test: `heading` is None where all of the page is asked for."""

    test: str
    page: str
    heading: str | None


def every_page() -> list[str]:
    """Return the pages whose commands are for readers to paste."""
    found = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    found += [*(ROOT / "clients").glob("*/README.md"), *(ROOT / "examples").rglob("README.md")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def commands(page: str, heading: str | None = None) -> list[Block]:
    """Return the blocks of a page, or of what stands under a heading of it, that a test must run."""
    found = [each for each in blocks(page) if heading in (None, each.heading) and not each.why]
    assert found, f"{page} has no commands under {heading!r}"
    return found


@cache
def blocks(page: str) -> list[Block]:
    """Return every block of commands of a page."""
    found: list[Block] = []
    heading, comment = "", None
    for before, token in _pairs(tokens(page)):
        if before is not None and before.type == "heading_open":
            heading = token.content
        if token.type == "fence" and token.info in SHELL:
            found.append(_block(page, heading, token, comment))
        elif token.type == "fence" and token.info == "text" and found and found[-1].heading == heading:
            found[-1] = replace(found[-1], printed=found[-1].printed or token.content)
        comment = token if token.type == "html_block" else None
    return found


def tokens(page: str) -> list[Token]:
    """Return what CommonMark finds in a page."""
    return MarkdownIt().enable("table").parse((ROOT / page).read_text())


def _pairs(found: list[Token]) -> Iterator[tuple[Token | None, Token]]:
    yield from zip([None, *found], found, strict=False)


def _block(page: str, heading: str, token: Token, comment: Token | None) -> Block:
    assert token.map is not None
    said = _COMMENT.fullmatch(comment.content) if comment is not None else None
    beside = said is not None and comment is not None and comment.map is not None and comment.map[1] == token.map[0]
    why, by = (said["why"], said["by"] or "") if said is not None and beside else ("", "")
    return Block(page, token.map[0] + 1, heading, token.content, why=why, by=by)


@cache
def uses() -> list[Use]:
    """Return every call of `commands` in the tests."""
    return [use for path in sorted((ROOT / "tests").rglob("*.py")) for use in _uses(path)]


def _uses(path: Path) -> Iterator[Use]:
    text = path.read_text()
    for function in ast.walk(ast.parse(text)) if "commands(" in text else ():
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "commands":
                words = [word.value for word in call.args if isinstance(word, ast.Constant)]
                if not words:
                    continue
                name = f"{path.relative_to(ROOT)}::{function.name}"
                yield Use(name, str(words[0]), str(words[1]) if len(words) > 1 else None)
