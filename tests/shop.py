"""The shop of docs/examples.md, started as the page says: its blocks, run one after the other by one bash.

    with shop() as running:
        running.run(block), running.url

Everything is a copy in a folder of its own, on ports of its own, with the interpreter of the tests.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.redis_server import free_port

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "examples.md"
_PORTS = ("8080", "9090", "8000", "8001", "8002", "8003")
_SECONDS = 50.0  # for one block
_END = "-- end of the block --"


@dataclass(frozen=True)
class Block:
    """Commands of the page, and what it says that they print (None where it says nothing); "..." is anything."""

    commands: str
    printed: str | None


def blocks() -> list[Block]:
    """Return the page's `bash` blocks, each with the `text` block that follows it."""
    found = re.findall(r"^```bash\n(.*?)^```(?:\n\n```text\n(.*?)^```)?", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [Block(commands, printed or None) for commands, printed in found]


class Shop:
    """One bash in the copy, and what it has started."""

    def __init__(self, directory: Path) -> None:
        self._ports = {port: str(free_port()) for port in _PORTS}
        self._copy(directory)
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PWD": str(directory), "PYTHONWARNINGS": "error"}
        self.process = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environ,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['8080']}"

    def run(self, commands: str) -> str:
        """Return what the commands print."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.here(commands)}\necho '{_END}'\n".encode())
        self.process.stdin.flush()
        return self._read()

    def here(self, text: str) -> str:
        """Return a text of the page, with the ports of this shop."""
        return re.sub("|".join(rf"\b{port}\b" for port in _PORTS), lambda found: self._ports[found[0]], text)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)  # its own group: what it has started, and nothing else
        self.process.communicate(timeout=20)

    def _read(self) -> str:
        assert self.process.stdout is not None
        said, deadline = b"", time.monotonic() + _SECONDS
        while not said.endswith(f"{_END}\n".encode()):
            ready, _, _ = select.select([self.process.stdout], [], [], 0.2)
            piece = self.process.stdout.read() if ready else None
            assert piece != b"", f"bash ended: {said.decode()}"
            assert time.monotonic() < deadline, f"the commands do not end: {said.decode()}"
            said += piece or b""
        return said.decode().removesuffix(f"{_END}\n")

    def _copy(self, directory: Path) -> None:
        shutil.copytree(ROOT / "examples", directory / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "clients" / "javascript" / "src", directory / "clients" / "javascript" / "src")
        for file in (directory / "examples").rglob("*.*"):
            file.write_text(self.here(file.read_text()))
        programs = directory / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, words in (("python", ""), ("tokengate", "-m gateway"), ("uvicorn", "-m uvicorn")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
            program.chmod(0o755)


@contextmanager
def shop() -> Iterator[Shop]:
    """Run a bash for the shop until the with block ends."""
    with tempfile.TemporaryDirectory(prefix="tg-shop-", ignore_cleanup_errors=True) as directory:
        made = Shop(Path(directory))
        try:
            yield made
        finally:
            made.stop()
