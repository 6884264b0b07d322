"""What the tests of this room share: a store on some Redis, a clock that can be pushed, asks to count."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec

from gateway.sessions.cluster import ClusterClient
from gateway.sessions.connect import Endpoint, open_client, parse_url
from gateway.sessions.epochs import Epochs
from gateway.sessions.keyspace import DIGITS
from gateway.sessions.liveness import LiveKeys, Liveness
from gateway.sessions.store import NewSession, SessionPolicy, SessionStore

TIMEOUT = 1.0
POLICY = SessionPolicy(refresh_ttl=600, session_ttl=3600, grace=10, max_sessions=50, leeway=10, access_ttl=60)
FULL = NewSession(  # with something in every part of its record
    subject="u-1",
    device="laptop",
    user_agent="Mozilla/5.0 (X11; Linux x86_64)",
    ip="203.0.113.7",
    roles=("user", "admin"),
    scope="orders:read orders:write",
    claims={"email": "alice@example.com", "nested": {"list": [1, 2.5, None, True]}},
    credential_version="v7",
)

LOOKED_INTO: dict[Endpoint, str] = {}  # where a test looks into a Redis whose user may not look

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
        raw = await self.raw.holder(name) if isinstance(self.raw, EveryNode) else self.raw
        async with raw.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.pttl(name)
            (seconds, micros), left = await pipe.execute()
        return None if left == -1 else int(seconds) + int(micros) / 1e6 + left / 1000


@dataclass
class Memory:
    """What a gateway process knows of the epochs, and which partitions it found rolled back."""

    epochs: Epochs
    rolled_back: list[str]


class EveryNode:
    """The raw client of a cluster: a command goes to the node of its key, one without a key to every master."""

    def __init__(self, client: ClusterClient) -> None:
        self._client = client

    async def holder(self, name: str | bytes) -> Any:
        key = name.encode() if isinstance(name, str) else name
        return self._client.node(await self._client.map.owner(key.partition(b"{")[2][:1].decode()))

    async def masters(self) -> list[Any]:
        return [self._client.node(address) for address in {await self._client.map.owner(digit) for digit in DIGITS}]

    async def keys(self, pattern: str) -> list[bytes]:
        return [name for node in await self.masters() for name in await node.keys(pattern)]

    async def script_flush(self) -> None:
        for node in await self.masters():
            await node.script_flush()

    async def aclose(self) -> None:
        await self._client.aclose()

    def __getattr__(self, command: str) -> Callable[..., Awaitable[Any]]:
        async def run(name: str | bytes, *rest: Any) -> Any:
            return await getattr(await self.holder(name), command)(name, *rest)

        return run


def raw_client(url: str | Endpoint, timeout: float) -> Any:
    """Return what a test looks at the keys with."""
    endpoint = parse_url(url) if isinstance(url, str) else url
    client = open_client(LOOKED_INTO.get(endpoint, endpoint), timeout)
    return EveryNode(client) if isinstance(client, ClusterClient) else client


@asynccontextmanager
async def opened(
    url: str | Endpoint,
    prefix: str,
    clock: Clock | None = None,
    *,
    timeout: float = TIMEOUT,
    wait_replicas: int = 0,
    epochs: Epochs | None = None,
    is_down: Callable[[str], bool] | None = None,
    observe: Callable[[str, float], None] | None = None,
    **policy: Any,
) -> AsyncIterator[World]:
    """Open a store for the length of a block; `policy` is what differs from POLICY."""
    client = open_client(url, timeout)
    given = replace(POLICY, **policy)
    store = SessionStore(client, prefix, given, timeout, wait_replicas, clock, observe, epochs, is_down)
    raw = raw_client(url, timeout)
    try:
        yield World(store, raw, prefix)
    finally:
        await store.close()
        await raw.aclose()


@asynccontextmanager
async def remembering(
    url: str | Endpoint, prefix: str, clock: Clock | None = None, *, timeout: float = TIMEOUT
) -> AsyncIterator[Memory]:
    """Open what a gateway process knows of the epochs for the length of a block."""
    client = open_client(url, timeout)
    told: list[str] = []
    try:
        yield Memory(Epochs(client, prefix, timeout, clock, told.append), told)
    finally:
        await client.aclose()


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
