"""Four times what a worker can do: what it refuses, and how long those wait that it takes.

Every request brings a token that no worker has seen, signed with ES384: verifying one costs half a millisecond,
which makes a worker's capacity small enough for one generator to offer four times of it. The requests come at
their own times, whether or not earlier ones were answered (an open loop), as those of many clients do.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.e2e.backends import nginx_backend
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import request
from tests.redis_server import redis_server
from tests.soak.client import Link

CLOSED = 32  # clients that find out the capacity
LINKS = 600  # connections of the open loop
TIMES = 4
TOKENS_A_SECOND = 2500


@dataclass
class Phase:
    """One load: what was offered a second, and the latencies (seconds) by status."""

    name: str
    offered: float
    seconds: float
    latencies: dict[int, list[float]] = field(default_factory=dict)
    behind: int = 0  # requests for which no connection was free

    @property
    def statuses(self) -> Counter[int]:
        return Counter({status: len(found) for status, found in self.latencies.items()})

    def percentile(self, status: int, share: float) -> float:
        found = sorted(self.latencies.get(status, [0.0]))
        return found[min(len(found) - 1, int(share * len(found)))]

    def note(self, status: int, latency: float) -> None:
        self.latencies.setdefault(status, []).append(latency)


def overload(seconds: float) -> list[Phase]:
    """Return three phases: the capacity, four fifths of it, and four times of it."""
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        nginx = stack.enter_context(nginx_backend())
        site = stack.enter_context(Site(redis.url, "overload", algorithm="ES384"))
        routes = [route("/app/", nginx.url)]
        gateway = stack.enter_context(site.serve(routes=routes, log={"level": "error"}))
        return asyncio.run(_phases(gateway, site, seconds))


async def _phases(gateway: Gateway, site: Site, seconds: float) -> list[Phase]:
    tokens = _tokens(gateway, site)
    full = await _closed(gateway.port, tokens, seconds)
    capacity = full.statuses[200] / full.seconds
    calm = await _open(gateway.port, tokens, "four fifths of it", 0.8 * capacity, seconds)
    storm = await _open(gateway.port, tokens, f"{TIMES} times of it", TIMES * capacity, seconds)
    return [full, calm, storm]


def _tokens(gateway: Gateway, site: Site) -> Iterator[bytes]:
    """Yield requests, each with an access token of its own for one session that lives."""
    session = gateway.login()["session_id"]
    signer = site.signer()
    while True:
        minted = signer.mint(
            subject="u-alice", session_id=session, counter=0, roles=["user"], scope="", claims={}, now=time.time()
        )
        yield request("GET", "/app/x", token=minted.token)


async def _closed(port: int, tokens: Iterator[bytes], seconds: float) -> Phase:
    ready = _minted(tokens, round(seconds * TOKENS_A_SECOND))
    phase = Phase("capacity (closed loop)", 0.0, seconds)
    begun = time.perf_counter()

    async def client() -> None:
        link = await Link.open(port)
        while ready and time.perf_counter() - begun < seconds:
            await _ask(phase, link, ready.popleft())
        await link.close()

    await asyncio.gather(*(client() for _ in range(CLOSED)))
    phase.seconds = time.perf_counter() - begun
    phase.offered = sum(phase.statuses.values()) / phase.seconds
    return phase


async def _open(port: int, tokens: Iterator[bytes], name: str, rate: float, seconds: float) -> Phase:
    ready = _minted(tokens, round(rate * seconds))
    phase = Phase(name, rate, seconds)
    links = deque([await Link.open(port) for _ in range(LINKS)])
    under_way: set[asyncio.Task[None]] = set()

    async def one(link: Link, data: bytes) -> None:
        await _ask(phase, link, data)
        links.append(link)

    begun, sent = time.perf_counter(), 0
    while ready and sent < rate * seconds:
        due = round((time.perf_counter() - begun) * rate)
        while sent < due and ready:
            sent += 1
            if not links:
                phase.behind += 1
                continue
            task = asyncio.ensure_future(one(links.popleft(), ready.popleft()))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.sleep(0.002)
    phase.seconds = time.perf_counter() - begun
    await asyncio.gather(*under_way)
    for link in links:
        await link.close()
    return phase


def _minted(tokens: Iterator[bytes], count: int) -> deque[bytes]:
    return deque(next(tokens) for _ in range(count))


async def _ask(phase: Phase, link: Link, data: bytes) -> None:
    begun = time.perf_counter()
    reply = await link.ask(data)
    phase.note(reply.status, time.perf_counter() - begun)


def table(phases: Sequence[Phase]) -> str:
    """Return the phases as a table in Markdown; latencies in ms."""
    lines = [
        "| load | offered a second | 200 a second | p50 | p99 | 503 a second | p99 of them | other answers |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for phase in phases:
        counts = phase.statuses
        other = sum(counts.values()) - counts[200] - counts[503]
        figures = [
            f"{phase.offered:.0f}",
            f"{counts[200] / phase.seconds:.0f}",
            f"{phase.percentile(200, 0.5) * 1e3:.1f}",
            f"{phase.percentile(200, 0.99) * 1e3:.1f}",
            f"{counts[503] / phase.seconds:.0f}",
            f"{phase.percentile(503, 0.99) * 1e3:.1f}",
            str(other),
        ]
        lines.append(f"| {phase.name} | " + " | ".join(figures) + " |")
    return "\n".join(lines)
