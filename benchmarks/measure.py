"""A load, and what it cost: CPU seconds and memory of a process tree, requests and latencies of wrk."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Load:
    """One load: `connections` kept open, for `seconds`, against `path`; `script` is a wrk script."""

    name: str
    path: str
    connections: int
    seconds: int
    script: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round of a load came to. CPU and latencies in seconds, memory in bytes."""

    requests: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    memory: int
    errors: int

    @property
    def cpu_per_request(self) -> float:
        return self.cpu / max(1, self.requests)


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, that a process tree has used."""
    return sum(_stat(each) for each in tree(pid)) / _TICK


def memory(pid: int) -> int:
    """Return the resident memory of a process tree, in bytes (shared pages counted for each process)."""
    pages = (Path(f"/proc/{each}/statm").read_text().split()[1] for each in tree(pid))
    return sum(int(page) for page in pages) * _PAGE


def _stat(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return int(fields[11]) + int(fields[12])


def run(load: Load, url: str, pid: int, headers: Mapping[str, str], pin: Sequence[str] = ()) -> Sample:
    """Put one load on a peer and return what it cost. Raises RuntimeError where wrk's words cannot be read."""
    command = [*pin, "wrk", "-t1", f"-c{load.connections}", f"-d{load.seconds}s", "--latency"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    if load.script:
        command += ["-s", load.script]
    before = cpu_seconds(pid)
    done = subprocess.run(
        [*command, url + load.path], capture_output=True, text=True, timeout=load.seconds + 30, check=True
    )
    used = cpu_seconds(pid) - before
    return _read(done.stdout, used, memory(pid))


def _read(text: str, cpu: float, resident: int) -> Sample:
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m)", text)
    if total is None:
        raise RuntimeError(f"wrk said:\n{text}")
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", text) for n in re.findall(r"\d+", line))
    return Sample(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS[total[3]],
        cpu=cpu,
        p50=_latency(text, "50"),
        p99=_latency(text, "99"),
        memory=resident,
        errors=errors,
    )


def _latency(text: str, percentile: str) -> float:
    found = re.search(rf"^\s*{percentile}%\s+([\d.]+)(us|ms|s|m)", text, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
