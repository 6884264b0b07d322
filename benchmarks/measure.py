"""A load, and what it cost: requests and latencies from wrk, CPU seconds and memory from /proc."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks import machine

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
# Pauses of a uniform length around the mean spread the requests; wrk takes the time after the pause.
_PACED = "function delay() return math.random(0, {twice}) end\n"


@dataclass(slots=True)
class Peer:
    """A proxy that runs: its URL, the processes whose trees are charged, the headers that a request needs.

    `checks` says that it refuses a request without a valid token.
    """

    name: str
    url: str
    pids: tuple[int, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    checks: bool = False
    version: str = ""


@dataclass(frozen=True, slots=True)
class Load:
    """One load: `connections` kept open against `path`; `script` is Lua for wrk.

    `rate` is about how many requests a second are made in all, 0 = as many as are answered.
    """

    name: str
    path: str
    connections: int
    script: str = ""
    rate: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round of a load came to. CPU and latencies in seconds, memory in bytes.

    `store_cpu` is what the session store used meanwhile; it is not part of `cpu`.
    """

    requests: int
    seconds: float
    cpu: float
    store_cpu: float
    p50: float
    p99: float
    memory: int
    errors: int

    @property
    def cpu_per_request(self) -> float:
        return self.cpu / max(1, self.requests)

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def run(load: Load, peer: Peer, seconds: float, store: int) -> Sample:
    """Put one load on a peer and return what it cost; `store` is the process of Redis. Raises RuntimeError."""
    script = load.script
    if load.rate:
        script += _PACED.format(twice=max(1, round(2000 * load.connections / load.rate)))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = [
            "wrk",
            "-t1",
            f"-c{load.connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "10s",
            "--latency",
        ]
        command += [word for name, value in peer.headers.items() for word in ("-H", f"{name}: {value}")]
        command += ["-s", file.name] if script else []
        before, store_before = machine.cpu_seconds(peer.pids), machine.cpu_seconds([store])
        text = _output([*command, peer.url + load.path], seconds)
        used, store_used = machine.cpu_seconds(peer.pids) - before, machine.cpu_seconds([store]) - store_before
    return read(text, used, store_used, machine.memory(peer.pids))


def _output(command: list[str], seconds: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode:
        raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
    return done.stdout


def read(text: str, cpu: float, store_cpu: float, resident: int) -> Sample:
    """Return a sample from what wrk said and what was read beside it. Raises RuntimeError."""
    total = re.search(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h)", text)
    if total is None:
        raise RuntimeError(f"wrk said:\n{text}")
    errors = sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", text))
    errors += sum(int(n) for line in re.findall(r"Socket errors: (.*)", text) for n in re.findall(r"\d+", line))
    return Sample(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS[total[3]],
        cpu=cpu,
        store_cpu=store_cpu,
        p50=_latency(text, "50"),
        p99=_latency(text, "99"),
        memory=resident,
        errors=errors,
    )


def _latency(text: str, percentile: str) -> float:
    found = re.search(rf"^\s*{percentile}%\s+([\d.]+)(us|ms|s|m|h)", text, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
