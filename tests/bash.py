"""One bash that is given commands one after the other, and what both kinds of page tests need around it."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

_END = "-- end of the block --"


class Bash:
    """A bash in a folder; what it is given shares variables, the folder and what runs behind."""

    def __init__(self, directory: Path, environ: Mapping[str, str], seconds: float) -> None:
        """`seconds` bound each run."""
        self._seconds = seconds
        self._process = subprocess.Popen(
            ["bash"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env=environ,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, commands: str) -> str:
        """Return what the commands print."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{commands}\necho '{_END}'\n".encode())
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End it with what it has started, but for what has left its group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        self._process.communicate(timeout=20)

    def _read(self) -> str:
        assert self._process.stdout is not None
        said, deadline = b"", time.monotonic() + self._seconds
        end = f"{_END}\n".encode()
        while end not in said:  # what runs behind may have something to say at any time
            ready, _, _ = select.select([self._process.stdout], [], [], 0.2)
            piece = self._process.stdout.read() if ready else None
            assert piece != b"", f"bash ended: {said.decode()}"
            assert time.monotonic() < deadline, f"the commands do not end: {said.decode()}"
            said += piece or b""
        return said.partition(end)[0].decode()


def swapped(text: str, swaps: Mapping[str, str]) -> str:
    """Return a text with each of these words, where it stands alone, as it is here."""
    if not swaps:
        return text
    words = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in sorted(swaps, key=len, reverse=True))
    return re.sub(words, lambda found: swaps[found[0]], text)


def assert_said(said: str, wanted: str, commands: object) -> None:
    """Hold what was printed against what a page says; "..." is anything on a line; at its end, lines after it too."""
    lines = [re.escape(line).replace(re.escape("..."), ".*") for line in wanted.split("\n")]
    form = "\n".join(re.sub(r"\.\*$", "(?s:.*)", line) for line in lines)
    assert re.fullmatch(form, said), f"{commands}\nprinted\n{said}\nand not\n{wanted}"


def install(programs: Path, commands: Mapping[str, Iterable[str]]) -> None:
    """Put programs into a new folder: names, and the words that each of them stands for."""
    programs.mkdir(parents=True)
    for name, words in commands.items():
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec {" ".join(words)} "$@"\n')
        program.chmod(0o755)


def module(name: str) -> list[str]:
    """Return the words that run a module with the tests' interpreter."""
    return [sys.executable, "-m", name]
