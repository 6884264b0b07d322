"""Cores, processes and ports, and what machine this is. Linux alone: costs are read from /proc."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import re
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 60.0  # a machine that is busy with something else is slow to start four workers
AWAKE_SECONDS = 0.002  # for a process to have answered those who wait for it


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: the peer on one core, two workers on two, everything else on `rest`."""

    one: frozenset[int]
    two: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def of(cls, usable: Sequence[int]) -> Cores:
        """Share out the cores. With two of them, the second worker and the load share one; with one, all do."""
        ordered = sorted(usable)
        one, two = frozenset(ordered[:1]), frozenset(ordered[:2])
        rest = frozenset(ordered) - (two if len(ordered) > 3 else one)
        return cls(one, two, rest or one)

    @property
    def scales(self) -> bool:
        """True where two workers have a core each that the load does not use."""
        return len(self.two) == 2 and not self.two & self.rest

    def describe(self) -> str:
        one, two, rest = (",".join(map(str, sorted(cores))) for cores in (self.one, self.two, self.rest))
        return f"the proxy under test on core {one} (two workers: {two}); wrk, backend and Redis on core {rest}"


_USABLE = sorted(os.sched_getaffinity(0))  # before anything is pinned


def cores() -> Cores:
    """Return how the cores that this run may use are shared out."""
    return Cores.of(_USABLE)


def pin(on: frozenset[int]) -> None:
    """Keep this process, and wrk that it starts, on some cores."""
    os.sched_setaffinity(0, on)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int) -> Callable[[], bool]:
    """Return a question: does something accept connections on this port?"""

    def ask() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return True
        return False

    return ask


def where(name: str) -> str | None:
    """Return the path of a program, also of those that only root has on PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def required(name: str) -> str:
    """Return the path of a program. Raises FileNotFoundError."""
    found = where(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def version(command: Sequence[str]) -> str:
    """Return the first version number that a command prints, "" where it prints none."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"\d+\.\d+(?:\.\d+)?", done.stdout + done.stderr)
    return found[0] if found else ""


@contextlib.contextmanager
def process(
    command: Sequence[str],
    ready: Callable[[], bool],
    log: Path,
    *,
    on: frozenset[int],
    environ: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Run a command on some cores until the block ends; yield its process id once ready. Raises RuntimeError."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": os.getcwd(), **(environ or {})},
            preexec_fn=functools.partial(os.sched_setaffinity, 0, on),  # noqa: PLW1509  # one thread, no locks
        )
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.02)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


@contextlib.contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    """Hold process trees still until the block ends: no timer of theirs runs meanwhile."""
    parents_first = [each for pid in pids for each in tree(pid)]
    try:
        for pid in parents_first:  # so that none sees that its child does not answer
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(parents_first):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                time.sleep(AWAKE_SECONDS)


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time, user and system, that process trees have used."""
    return sum(_clock(each) for pid in pids for each in tree(pid))


def memory(pids: Sequence[int]) -> int:
    """Return the memory of process trees in bytes: PSS, so that a page which several share counts once."""
    return sum(_pss(each) for pid in pids for each in tree(pid))


def _clock(pid: int) -> float:
    """Read a process' CPU clock (clock_getcpuclockid(3)): nanoseconds, where /proc counts in hundredths of a second."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:  # it has ended
        return 0.0


def _pss(pid: int) -> int:
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * 1024 if found else 0


def raise_file_limit() -> int:
    """Allow this process and its children as many open files as it may have; return how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def describe() -> dict[str, str | int]:
    """Return what a reader needs to know of this machine."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(_USABLE),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "pinning": cores().describe(),
    }
