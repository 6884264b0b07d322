"""How far this process' clock is from that of Redis.

What orders operations and ends sessions is the time of Redis; access tokens are judged by each gateway's own clock.
While the two differ by the leeway at most, an entry of the blacklist outlives its token at every gateway, and a store
that lost its data voids the tokens that are older (epochs.py).

What is told is what is certain: Redis said its time somewhere between question and answer, so that half of the round
trip is taken off. Of a cluster every master is asked, for each judges its own partitions, and the worst counts; of
servers behind sentinels the primary. What could not be asked is as it was last seen.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from gateway.errors import StoreUnavailable
from gateway.sessions.cluster import ClusterClient

logger = logging.getLogger(__name__)

INTERVAL = 10.0  # seconds between two comparisons
RETRY = 1.0  # seconds until the next one where Redis did not answer
LEAST = 1.0  # seconds that are no difference: tokens know whole seconds alone

Observe = Callable[[float], None]


class Clocks:
    """Compares the clock of this process with Redis'.

    `timeout` bounds a comparison, in seconds. `leeway` is by how many the clocks may differ; from half of it on a
    warning is logged. `observe` is told each skew; `clock` returns Unix seconds and takes the place of this machine's.
    """

    def __init__(
        self,
        client: Redis | ClusterClient,
        timeout: float,
        leeway: float,
        observe: Observe | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client: Any = client  # redis-py types a reply as a union of awaitable and not
        self._timeout = timeout
        self._limit = max(leeway, LEAST)
        self._observe = observe
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        self._warned = False
        self.skew = 0.0

    @property
    def agree(self) -> bool:
        """Whether the clocks differ by no more than they may, as far as is known."""
        return abs(self.skew) <= self._limit

    async def check(self) -> None:
        """Compare now; `skew` is then by how many seconds this clock is ahead, negative = behind.

        Raises StoreUnavailable; where some masters of a cluster answered, those count all the same.
        """
        try:
            async with asyncio.timeout(self._timeout):
                nodes = await self._client.masters() if isinstance(self._client, ClusterClient) else [self._client]
                found = await asyncio.gather(*(self._compare(node) for node in nodes), return_exceptions=True)
        except Exception as error:
            raise _unavailable(error) from error
        skews = [skew for skew in found if not isinstance(skew, BaseException)]
        if skews:
            self._take(max(skews, key=abs))
        failed = [each for each in found if isinstance(each, BaseException)]
        if failed:
            raise _unavailable(failed[0]) from failed[0]

    def start(self) -> None:
        """Compare from now on; called on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def hurry(self) -> None:
        """Compare at once: Redis has come back, and may be another server."""
        self._soon.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            pause = INTERVAL
            self._soon.clear()
            try:
                await self.check()
            except StoreUnavailable as error:
                logger.debug("redis: %s", error.reason)
                pause = RETRY
            try:
                async with asyncio.timeout(pause * random.uniform(0.5, 1)):  # noqa: S311  # jitter
                    await self._soon.wait()
            except TimeoutError:
                continue

    async def _compare(self, node: Any) -> float:
        asked_at, begun = self._clock(), time.perf_counter()
        seconds, microseconds = await node.execute_command("TIME")
        half = (time.perf_counter() - begun) / 2
        return certain(asked_at + half - int(seconds) - int(microseconds) / 1e6, half)

    def _take(self, skew: float) -> None:
        self.skew = skew
        if self._observe is not None:
            self._observe(skew)
        warns = abs(skew) > self._limit / 2
        if warns != self._warned:
            self._warned = warns
            said = "differs from" if warns else "agrees again with"
            logger.warning("the clock %s that of Redis", said, extra={"ahead": round(skew, 3)})


def certain(skew: float, doubt: float) -> float:
    """Return the least skew that explains a measured one which may be wrong by `doubt` seconds."""
    return math.copysign(max(0.0, abs(skew) - doubt), skew)


def _unavailable(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"clocks: {type(error).__name__}: {error}"[:200])
