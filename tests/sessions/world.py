"""What the tests of this room share: a store on some Redis, a clock that can be pushed, asks to count."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec

from gateway.sessions.connect import Endpoint, open_client, parse_url
from gateway.sessions.epochs import Epochs
from gateway.sessions.liveness import LiveKeys, Liveness
from gateway.sessions.store import NewSession, SessionPolicy, SessionStore

TIMEOUT = 1.0
POLICY = SessionPolicy(refresh_ttl=600, session_ttl=3600, grace=10, max_sessions=50, leeway=10, access_ttl=60)

P = ParamSpec("P")


def in_loop(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a test that is a coroutine function, in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        asyncio.run(main())

    return run


@dataclass
class Clock:
    """Unix seconds that pass when a test says so. It begins with real time, for Redis has its own."""

    now: float = field(default_factory=lambda: float(int(time.time())))

    def __call__(self) -> float:
        return self.now

    def push(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class World:
    """A store and what a test looks at it with. `raw` is a client of the same Redis."""

    store: SessionStore
    raw: Any
    prefix: str

    async def names(self) -> set[str]:
        """Return the names of all keys but the epochs."""
        found = await self.raw.keys(f"{self.prefix}:*")
        return {key.decode() for key in found if not key.endswith(b":epoch")}

    async def ends_at(self, name: str | bytes) -> float | None:
        """Return when a key ends in Unix seconds, None for never."""
        async with self.raw.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.pttl(name)
            (seconds, micros), left = await pipe.execute()
        return None if left == -1 else int(seconds) + int(micros) / 1e6 + left / 1000


@asynccontextmanager
async def opened(
    url: str | Endpoint,
    prefix: str,
    clock: Clock | None = None,
    *,
    timeout: float = TIMEOUT,
    wait_replicas: int = 0,
    **policy: Any,
) -> AsyncIterator[World]:
    """Open a store for the length of a block; `policy` is what differs from POLICY."""
    store = SessionStore(open_client(url, timeout), prefix, replace(POLICY, **policy), timeout, wait_replicas, clock)
    raw = open_client(url, timeout)
    try:
        yield World(store, raw, prefix)
    finally:
        await store.close()
        await raw.aclose()


@asynccontextmanager
async def checking(
    url: str | Endpoint, prefix: str, *, timeout: float = TIMEOUT, ready: bool = True, **more: Any
) -> AsyncIterator[Liveness]:
    """Run live checks for the length of a block, connected when it begins if `ready`."""
    endpoint = parse_url(url) if isinstance(url, str) else url
    client = open_client(endpoint, timeout)
    live = Liveness(endpoint, prefix, timeout, Epochs(client, prefix, timeout), **more)
    live.start()
    try:
        if ready:
            await eventually(lambda: live.up)
        yield live
    finally:
        await live.close()
        await client.aclose()


async def eventually(holds: Callable[[], bool], seconds: float = 5) -> float:
    """Wait until something holds that nobody announces; return how long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < seconds, "it never came to hold"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@dataclass
class Tally:
    """Collects the answers of asks: one list of verdicts for each ask."""

    answers: list[list[int]] = field(default_factory=list)

    def ask(self, live: Liveness, keys: LiveKeys) -> None:
        mine: list[int] = []
        self.answers.append(mine)
        live.ask(keys, mine.append)

    async def all_answered(self, seconds: float = 5) -> float:
        return await eventually(lambda: all(self.answers), seconds)

    def verdicts(self) -> list[int]:
        """Return the verdict of each ask; fails unless each was answered exactly once."""
        assert all(len(mine) == 1 for mine in self.answers), "an ask was not answered exactly once"
        return [mine[0] for mine in self.answers]


def login(subject: str = "u-1", device: str = "", **more: Any) -> NewSession:
    return NewSession(subject=subject, device=device, **more)
