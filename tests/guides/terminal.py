"""The pages of docs/ that are told as steps, done as they say: files written, commands run by one bash.

    with terminal(swaps) as running:
        running.play(commands("docs/migrate/homemade-jwt.md"))

A block of code with `<!-- file: NAME -->` on the line before it is a file; a `bash` block is run, and a `text` block
right after it is what it prints ("..." is anything; without one it prints nothing). What must not be run has
`<!-- not run: ... -->` on the line before it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bash import Bash, assert_said, install, module, swapped
from tests.redis_server import find_redis_server, free_port

ROOT = Path(__file__).parents[2]
_SECONDS = 100.0  # for one block
_BLOCK = re.compile(
    r"(?:<!-- (?P<note>not run|file): (?P<said>[^\n]+) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```"
    r"(?:\n\n```text\n(?P<printed>.*?)^```)?",
    re.MULTILINE | re.DOTALL,
)
_PROGRAMS = {"python": [sys.executable], "tokengate": module("gateway")} | {
    name: module(name) for name in ("uvicorn", "flask")
}


@dataclass(frozen=True)
class Step:
    """A block of a page: a file where it has a title, else commands and what they print."""

    kind: str
    title: str
    text: str
    printed: str


def steps(page: str, section: str = "") -> list[Step]:
    """Return what there is to do on a page, or in one of its sections: what stands before the next heading."""
    text = (ROOT / page).read_text()
    if section:
        found = re.search(rf"^#+ {re.escape(section)}\n(.*?)(?=^##|\Z)", _hidden(text), re.MULTILINE | re.DOTALL)
        assert found, f"{page} has no section {section}"
        text = text[found.start(1) : found.end(1)]
    made = [_step(match) for match in _BLOCK.finditer(text) if match["note"] != "not run"]
    return [step for step in made if step.title or step.kind in {"bash", "sh"}]


def commands(page: str) -> list[Step]:
    """The same for a whole page, by the name that tests/docs looks for to see that a page is run."""
    return steps(page)


def _step(match: re.Match[str]) -> Step:
    return Step(match["kind"], match["said"] if match["note"] else "", match["text"], match["printed"] or "")


def _hidden(text: str) -> str:
    """Return a page in which no line of code looks like a heading."""
    return re.sub(r"^```.*?^```", lambda found: found[0].replace("#", "-"), text, flags=re.MULTILINE | re.DOTALL)


class Terminal:
    """One bash in a folder of its own, with the interpreter of the tests.

    `swaps` are texts of pages, and what is read for them here.
    """

    def __init__(self, directory: Path, swaps: Mapping[str, str]) -> None:
        self.directory = directory
        self._swaps = dict(swaps)
        self._install(directory)
        path = f"{directory / '.venv' / 'bin'}:{os.environ['PATH']}:/usr/sbin"
        environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PWD": str(directory)}
        self._bash = Bash(directory, environ, _SECONDS)

    def play(self, todo: Iterable[Step]) -> None:
        """Do these steps; each must print what the page says."""
        for step in todo:
            if step.title:
                self.write(step.title, step.text)
                continue
            assert_said(self.run(step.text), self.here(step.printed), step.text)

    def write(self, name: str, text: str) -> Path:
        """Write a file of a page into the present folder."""
        path = Path(self.run("pwd").strip()) / name
        path.write_text(self.here(text))
        return path

    def run(self, commands: str) -> str:
        """Return what the commands print."""
        return self._bash.run(self.here(commands))

    def here(self, text: str) -> str:
        """Return a text of a page as it is for this machine."""
        return swapped(text, self._swaps)

    def stop(self) -> None:
        self._bash.stop()

    def _install(self, directory: Path) -> None:
        """Put the examples, the JavaScript client and the programs of a page's environment into the folder."""
        shutil.copytree(
            ROOT / "examples", directory / "examples", ignore=shutil.ignore_patterns("__pycache__", "build")
        )
        for file in (directory / "examples").rglob("*.*"):
            file.write_text(self.here(file.read_text()))
        redis = find_redis_server()
        assert redis is not None
        install(directory / ".venv" / "bin", {**_PROGRAMS, "redis-server": [redis]})


def need(*programs: str) -> None:
    """Skip the test on a machine that lacks one of these; .ci/run has them, and fails where anything is skipped."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in programs if shutil.which(name, path=path) is None]
    if missing or find_redis_server() is None:
        pytest.skip(f"needs {', '.join(missing) or 'redis-server'}")


def ports(*names: str) -> dict[str, str]:
    """Return a free port for each port of a page."""
    return {name: str(free_port()) for name in names}


@contextmanager
def terminal(swaps: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a bash until the with block ends."""
    need("bash", "curl")
    with tempfile.TemporaryDirectory(prefix="tg-guide-", ignore_cleanup_errors=True) as directory:
        made = Terminal(Path(directory), swaps)
        try:
            yield made
        finally:
            made.stop()
