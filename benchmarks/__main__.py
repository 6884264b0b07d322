"""python -m benchmarks [--quick]: run the loads against every peer in alternating rounds, print the tables."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from benchmarks import peers, report
from benchmarks.measure import Load, Sample, run
from benchmarks.peers import Peer

LOADS = (
    Load("GET of 1 KiB, 32 connections", "/1k", 32, 4),
    Load("GET of 1 KiB, 1 connection", "/1k", 1, 4),
    Load("GET of 1 KiB, 256 connections", "/1k", 256, 4),
    Load("GET of 1 MiB, 8 connections", "/1m", 8, 4),
)
TARGET = 2.0  # CPU a request, times that of plain nginx, for the first load with the live check on


def main() -> int:
    """Print the tables; return 1 where the target is missed."""
    arguments = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="the first load alone, three rounds")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    loads, rounds = (LOADS[:1], 3) if given.quick else (LOADS, given.rounds)
    with contextlib.ExitStack() as stack:
        started = _start(stack)
        results = {load: _measure(load, started, rounds) for load in loads}
    for load, samples in results.items():
        print(report.table(load, samples, "nginx"), end="\n\n")
    found = report.ratio(results[loads[0]], "tokengate", "nginx")
    print(f"tokengate, live check on: {found:.2f} times the CPU of plain nginx (target: at most {TARGET})")
    return 0 if found <= TARGET else 1


def _start(stack: contextlib.ExitStack) -> list[Peer]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokengate-bench-")))
    folder.chmod(0o755)  # nginx' workers read the files as another user
    target, _ = stack.enter_context(peers.backend(folder))
    store = stack.enter_context(peers.redis(folder))
    return [
        stack.enter_context(peers.nginx(folder, target)),
        stack.enter_context(peers.tokengate(folder, target, store)),
        stack.enter_context(peers.tokengate(folder, target, store, name="tokengate no live check", live=False)),
    ]


def _measure(load: Load, started: list[Peer], rounds: int) -> dict[str, list[Sample]]:
    for peer in started:  # warm up: connections, caches
        run(Load(load.name, load.path, load.connections, 1), peer.url, peer.pid, peer.headers)
    samples: dict[str, list[Sample]] = {peer.name: [] for peer in started}
    for _ in range(rounds):
        for peer in started:
            samples[peer.name].append(run(load, peer.url, peer.pid, peer.headers))
    return samples


if __name__ == "__main__":
    raise SystemExit(main())
