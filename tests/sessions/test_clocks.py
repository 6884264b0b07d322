"""This machine's clock compared with Redis': by as much as is certain, with the worst of a cluster's masters."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions import clocks
from gateway.sessions.clocks import Clocks, certain
from gateway.sessions.connect import Endpoint, open_client, parse_url
from tests.redis_server import RedisServer
from tests.redis_topologies import Cluster, Watched, cluster
from tests.sessions.world import eventually, in_loop

LEEWAY = 10.0


class Pushed:
    """Unix seconds that are ahead of real ones by as much as a test says."""

    def __init__(self, ahead: float = 0.0) -> None:
        self.ahead = ahead

    def __call__(self) -> float:
        return time.time() + self.ahead


@asynccontextmanager
async def comparing(
    endpoint: str | Endpoint, clock: Pushed, *, leeway: float = LEEWAY, **more: Any
) -> AsyncIterator[Clocks]:
    client = open_client(endpoint, 2.0)
    made = Clocks(client, 2.0, leeway, clock=clock, **more)
    try:
        yield made
    finally:
        await made.close()
        await client.aclose()


@pytest.mark.parametrize("ahead", [0.0, 4.0, -4.0, 3600.0, -3600.0])
@in_loop
async def test_a_clock_is_off_by_what_it_is_ahead_of_redis(url: Endpoint, ahead: float) -> None:
    async with comparing(url, Pushed(ahead)) as made:
        assert made.agree  # nothing is known yet
        await made.check()
        assert made.skew == pytest.approx(ahead, abs=1.0)
        assert made.agree is (abs(ahead) <= LEEWAY)


@pytest.mark.parametrize(
    ("skew", "doubt", "told"), [(5, 1, 4), (-5, 1, -4), (5, 5, 0), (0.2, 3, 0), (-0.2, 3, 0), (0, 0, 0)]
)
def test_no_more_is_told_than_is_certain(skew: float, doubt: float, told: float) -> None:
    assert certain(skew, doubt) == told


@in_loop
async def test_an_answer_that_took_long_accuses_no_clock(own_redis: RedisServer) -> None:
    """Redis says its time, and its answer is read half a second later."""
    clock = Pushed()
    async with comparing(own_redis.url, clock) as made:
        await made.check()
        own_redis.pause()
        asked = asyncio.ensure_future(made.check())
        await asyncio.sleep(0.5)  # the length of the answer is what is looked at
        own_redis.resume()
        await asked
        assert abs(made.skew) < 0.1


@in_loop
async def test_less_than_a_second_is_no_difference_whatever_the_leeway(own_redis: RedisServer) -> None:
    async with comparing(own_redis.url, Pushed(0.9), leeway=0.0) as made:
        await made.check()
        assert made.skew > 0.5
        assert made.agree


@in_loop
async def test_a_clock_that_is_put_right_agrees_again_and_each_change_is_logged_once(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[float] = []
    clock = Pushed()
    caplog.set_level(logging.WARNING)
    async with comparing(own_redis.url, clock, observe=told.append) as made:
        for clock.ahead in (0, 4, 6, 7, -7, 11, 0, 0):
            await made.check()
        assert made.agree
    assert [round(skew) for skew in told] == [0, 4, 6, 7, -7, 11, 0, 0]
    assert [record.getMessage() for record in caplog.records] == [
        "the clock differs from that of Redis",
        "the clock agrees again with that of Redis",
    ]


@in_loop
async def test_a_redis_that_is_away_changes_nothing_and_is_asked_again(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clocks, "RETRY", 0.01)
    clock = Pushed(60)
    async with comparing(own_redis.url, clock) as made:
        await made.check()
        own_redis.stop()
        with pytest.raises(StoreUnavailable):
            await made.check()
        assert not made.agree
        clock.ahead = 0
        made.start()
        own_redis.start()
        await eventually(lambda: made.agree)


@in_loop
async def test_clocks_are_compared_again_when_redis_has_come_back(own_redis: RedisServer) -> None:
    clock = Pushed()
    told: list[float] = []
    async with comparing(own_redis.url, clock, observe=told.append) as made:
        made.start()
        await eventually(lambda: bool(told))
        clock.ahead = 60
        made.hurry()
        await eventually(lambda: not made.agree)


def times_asked(server: RedisServer) -> int:
    with server.client() as admin:
        return int(admin.info("commandstats").get("cmdstat_time", {}).get("calls", 0))


@in_loop
async def test_every_master_of_a_cluster_is_asked(shared_cluster: Cluster) -> None:
    before = [times_asked(node) for node in shared_cluster.nodes]
    async with comparing(shared_cluster.url, Pushed(60)) as made:
        await made.check()
        assert made.skew == pytest.approx(60, abs=1)
    assert [times_asked(node) - number for node, number in zip(shared_cluster.nodes, before, strict=True)] == [1, 1, 1]


@in_loop
async def test_a_master_that_is_lost_does_not_hide_what_the_others_say() -> None:
    with cluster() as own:
        async with comparing(own.url, Pushed(60)) as made:
            await made.check()
            made.skew = 0.0
            own.nodes[0].stop()
            with pytest.raises(StoreUnavailable):
                await made.check()
            assert made.skew == pytest.approx(60, abs=1)


@in_loop
async def test_behind_sentinels_the_primary_is_asked(shared_sentinels: Watched) -> None:
    before = times_asked(shared_sentinels.primary), times_asked(shared_sentinels.replica)
    async with comparing(shared_sentinels.url, Pushed(-60)) as made:
        await made.check()
        assert made.skew == pytest.approx(-60, abs=1)
    assert (times_asked(shared_sentinels.primary), times_asked(shared_sentinels.replica)) == (before[0] + 1, before[1])


@in_loop
async def test_the_embedded_store_has_this_machines_clock() -> None:
    async with comparing(parse_url("memory://clocks"), Pushed()) as made:
        await made.check()
        assert abs(made.skew) < 0.5
