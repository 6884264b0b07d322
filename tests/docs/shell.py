"""One shell that is given a page's blocks one after the other, in a folder of its own.

    with shell({"8080": "8080"}) as made:
        made.run(block)          runs it, and holds what it prints against what the page says; "..." is anything

The programs are this checkout's, installed as far as the page can tell: `.venv/bin` has `tokengate`, `python`, `pip`
and `uvicorn`. Ports are others, so that no two tests meet; the folder stands for `/tmp/tokengate` and the checkout.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bash import Bash, assert_said, install, module, swapped
from tests.docs.pages import ROOT, Block
from tests.redis_server import find_redis_server, free_port

SECONDS = 50.0  # for one block
_PROGRAMS = {
    "tokengate": module("gateway"),
    "python": [sys.executable],
    "python3": [sys.executable],
    "pip": module("pip"),
    "uvicorn": module("uvicorn"),
    "redis-server": [find_redis_server() or "redis-server"],
}


class Shell:
    """A bash, and what it has started. `swaps` are words of the page and what they are here."""

    def __init__(self, directory: Path, swaps: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self.directory = directory
        self._swaps = {"/tmp/tokengate": str(directory / "tokengate"), **swaps}
        install(directory / ".venv" / "bin", _PROGRAMS)  # so that `make` takes it for an environment
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENGATE_")}
        path = f"{directory / '.venv' / 'bin'}:{inherited['PATH']}:/usr/sbin"
        environ = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PATH": path, **variables}
        self._bash = Bash(directory, environ, SECONDS)

    def run(self, block: Block) -> str:
        """Run a page's block; return what it prints, which is what the page says, if it says anything."""
        said = self.type(block.commands)
        if block.printed is not None:
            assert_said(said, self.here(block.printed), block)
        return said

    def type(self, commands: str) -> str:
        """Run commands; return what they print."""
        return self._bash.run(self.here(commands))

    def here(self, text: str) -> str:
        """Return a text of the page as it is here."""
        return swapped(text, self._swaps)

    def stop(self) -> None:
        """End the shell and what it has started, daemons that left it a `.pid` file included."""
        for file in self.directory.rglob("*.pid"):
            with suppress(OSError, ValueError):
                pid = int(file.read_text())
                if Path(f"/proc/{pid}/cwd").resolve().is_relative_to(self.directory.resolve()):
                    os.kill(pid, signal.SIGTERM)
        self._bash.stop()


@contextmanager
def shell(
    ports: Iterable[str] = (), swaps: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Shell]:
    """Run a shell until the with block ends. Each of these `ports` of the page is another one here."""
    with tempfile.TemporaryDirectory(prefix="tg-docs-", ignore_cleanup_errors=True) as directory:
        elsewhere = {port: str(free_port()) for port in ports}
        made = Shell(Path(directory), {**elsewhere, **(swaps or {})}, variables or {})
        try:
            yield made
        finally:
            made.stop()
