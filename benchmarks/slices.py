"""Do two workers do twice the work of one, where the machine has no core for each?

One worker with a slice of a core (a CPU quota of its cgroup) against two that have such a slice each, on the same
core, while wrk, backend and Redis have the others: neither the load nor the other worker takes anything from a slice.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks import machine
from benchmarks.measure import Load, Peer, Sample, run

SHARE = 0.25  # of a core
PERIOD = 10_000  # microseconds, so that a worker never stands still for longer
CONNECTIONS = 32  # to each worker: with fewer, fewer live checks travel together
ONE, TWO = "1 worker, a quarter of a core", "2 workers, a quarter of a core each"
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


class Unavailable(Exception):
    """This process may not give out slices; the message says why."""


@contextlib.contextmanager
def sliced(pids: list[int]) -> Iterator[None]:
    """Hold each process to a slice of its own for the length of a block. Raises Unavailable."""
    with contextlib.ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_slice(pid))
        yield


@contextlib.contextmanager
def _slice(pid: int) -> Iterator[None]:
    home, version = (_V1, 1) if (_V1 / "cpu.cfs_quota_us").exists() else (_V2, 2)
    group, quota = home / f"tokengate-bench-{pid}", round(SHARE * PERIOD)
    try:
        group.mkdir()
    except OSError as error:
        raise Unavailable(f"no CPU quota can be set: {error.strerror}") from None
    try:
        if version == 1:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {PERIOD}")
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        group.rmdir()
        raise Unavailable(f"no CPU quota can be set: {error.strerror}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a process that has ended has left already
            (home / "cgroup.procs").write_text(str(pid))
        _remove(group)


def _remove(group: Path) -> None:
    for _ in range(50):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.02)
        else:
            return


def workers(peer: Peer) -> list[int]:
    """Return the processes of a gateway that serve: itself, or those that it watches over."""
    (pid,) = peer.pids
    spawned = [each for each in machine.tree(pid)[1:] if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return spawned or [pid]


def measure(
    start: Callable[[int], contextlib.AbstractContextManager[Peer]], rounds: int, seconds: float, store: int
) -> dict[str, list[Sample]]:
    """Return the rounds of one worker and of two; `start(workers)` runs a gateway. Raises Unavailable."""
    loads = {ONE: Load(ONE, "/1k", CONNECTIONS), TWO: Load(TWO, "/1k", 2 * CONNECTIONS)}
    found: dict[str, list[Sample]] = {ONE: [], TWO: []}
    with start(1) as one, start(2) as two, sliced(workers(one) + workers(two)):
        peers = {ONE: replace(one, name=ONE), TWO: replace(two, name=TWO)}
        for pid in workers(two):
            os.sched_setaffinity(pid, machine.cores().one)
        for name, peer in peers.items():
            run(loads[name], peer, 1, store)
        for _ in range(rounds):
            for name, peer in peers.items():
                found[name].append(run(loads[name], peer, seconds, store))
    return found
