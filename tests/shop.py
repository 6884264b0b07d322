"""The shop of docs/examples.md, started as the page says: its blocks, run one after the other by one bash.

with shop() as running:
    running.run(block), url(running)

Everything is a copy in a folder of its own, on ports of its own, with the interpreter of the tests.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.docs.pages import ROOT, Block, commands
from tests.docs.shell import Shell, shell

_PORTS = ("8080", "9090", "8000", "8001", "8002", "8003")


def blocks() -> list[Block]:
    """Return the page's blocks, each with what it says that they print."""
    return commands("docs/examples.md")


def url(running: Shell) -> str:
    return running.here("http://127.0.0.1:8080")


@contextmanager
def shop() -> Iterator[Shell]:
    """Run a bash for the shop until the with block ends."""
    with shell(_PORTS) as made:
        for folder, left_out in (("examples", "__pycache__"), ("clients/javascript/src", "")):
            ignore = shutil.ignore_patterns(left_out)
            shutil.copytree(ROOT / folder, made.directory / folder, ignore=ignore)
        for file in (made.directory / "examples").rglob("*.*"):
            file.write_text(made.here(file.read_text()))
        yield made
