"""One shell that is given a page's blocks one after the other, in a folder of its own.

    with shell({"8080": "8080"}) as made:
        made.run(block)          runs it, and holds what it prints against what the page says; "..." is anything

The programs are this checkout's, installed as far as the page can tell: `.venv/bin` has `tokengate`, `python`, `pip`
and `uvicorn`. Ports are others, so that no two tests meet; the folder stands for `/tmp/tokengate` and the checkout.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.docs.pages import ROOT, Block
from tests.redis_server import find_redis_server, free_port

SECONDS = 50.0  # for one block
_END = "-- end of the block --"
_PROGRAMS = {
    "tokengate": [sys.executable, "-m", "gateway"],
    "python": [sys.executable],
    "python3": [sys.executable],
    "pip": [sys.executable, "-m", "pip"],
    "uvicorn": [sys.executable, "-m", "uvicorn"],
    "redis-server": [find_redis_server() or "redis-server"],
}


class Shell:
    """A bash, and what it has started. `swaps` are words of the page and what they are here."""

    def __init__(self, directory: Path, swaps: Mapping[str, str], variables: Mapping[str, str]) -> None:
        self.directory = directory
        self._swaps = {"/tmp/tokengate": str(directory / "tokengate"), **swaps}
        install(directory / ".venv")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENGATE_")}
        path = f"{directory / '.venv' / 'bin'}:{inherited['PATH']}:/usr/sbin"
        environ = {**inherited, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PATH": path, **variables}
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

    def run(self, block: Block) -> str:
        """Run a page's block; return what it prints, which is what the page says, if it says anything."""
        said = self.type(block.commands)
        if block.printed is not None:
            wanted = re.escape(self.here(block.printed)).replace(re.escape("..."), ".*")
            assert re.fullmatch(wanted, said, re.DOTALL), f"{block} printed\n{said}\nand not\n{block.printed}"
        return said

    def type(self, commands: str) -> str:
        """Run commands; return what they print."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.here(commands)}\necho '{_END}'\n".encode())
        self.process.stdin.flush()
        return self._read()

    def here(self, text: str) -> str:
        """Return a text of the page as it is here."""
        either = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(self._swaps, key=len, reverse=True))
        return re.sub(either, lambda found: self._swaps[found[0]], text)

    def stop(self) -> None:
        """End the shell and what it has started, daemons that left it a `.pid` file included."""
        for file in self.directory.rglob("*.pid"):
            with suppress(OSError, ValueError):
                pid = int(file.read_text())
                if Path(f"/proc/{pid}/cwd").resolve().is_relative_to(self.directory.resolve()):
                    os.kill(pid, signal.SIGTERM)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)  # its own group: what it has started, and nothing else
        self.process.communicate(timeout=20)

    def _read(self) -> str:
        assert self.process.stdout is not None
        said, deadline = b"", time.monotonic() + SECONDS
        while not said.endswith(f"{_END}\n".encode()):
            ready, _, _ = select.select([self.process.stdout], [], [], 0.2)
            piece = self.process.stdout.read() if ready else None
            assert piece != b"", f"bash ended: {said.decode()}"
            assert time.monotonic() < deadline, f"the commands do not end: {said.decode()}"
            said += piece or b""
        return said.decode().removesuffix(f"{_END}\n")


def install(environment: Path) -> None:
    """Make an environment with the programs that an installation has, so that `make` takes it for one."""
    programs = environment / "bin"
    programs.mkdir(parents=True)
    for name, words in _PROGRAMS.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        program.chmod(0o755)


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
