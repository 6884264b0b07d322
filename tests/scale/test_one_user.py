"""A user with very many sessions: a bot that signs in and never out. Redis does one thing at a time."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sessions.record import NewSession
from tests.redis_server import RedisServer
from tests.sessions.world import Clock, in_loop, opened

MANY = 250  # more than a script reads in one command


def looked_up(client: Any) -> int:
    """Return how many keys Redis has looked up."""
    stats = client.info("stats")
    return int(stats["keyspace_hits"]) + int(stats["keyspace_misses"])


@pytest.mark.parametrize("cap", [0, 10 * MANY], ids=["without a cap", "below the cap"])
@in_loop
async def test_a_login_reads_a_bounded_number_of_the_sessions_that_the_user_has(
    own_redis: RedisServer, cap: int
) -> None:
    async with opened(own_redis.unix_url, "gw", max_sessions=cap) as world:
        for _ in range(MANY):
            await world.store.create(NewSession("bot"))
        with own_redis.client() as client:
            before = looked_up(client)
            await world.store.create(NewSession("bot"))
            assert looked_up(client) - before <= 60
        assert len(await world.store.list("bot")) == MANY + 1


@in_loop
async def test_a_device_is_found_among_hundreds_of_others(own_redis: RedisServer) -> None:
    async with opened(own_redis.unix_url, "gw", max_sessions=0) as world:
        made = [await world.store.create(NewSession("bot", device=f"d-{n}")) for n in range(MANY)]
        # A device's name elsewhere in a record is not that device.
        await world.store.create(NewSession("bot", device="another", user_agent="d-120"))
        again = await world.store.create(NewSession("bot", device="d-120"))
        alive = {session.id for session in await world.store.list("bot")}
        assert len(alive) == MANY + 1
        assert made[120].id not in alive
        assert {made[119].id, made[121].id, again.id} <= alive


@in_loop
async def test_at_a_cap_of_hundreds_the_least_recently_used_session_ends(own_redis: RedisServer) -> None:
    clock = Clock()
    async with opened(own_redis.unix_url, "gw", clock, max_sessions=MANY) as world:
        made = [await world.store.create(NewSession("bot")) for _ in range(MANY)]
        clock.push(5)
        for session in made[:120]:
            await world.store.rotate(session.id, 0)
        clock.push(5)
        await world.store.create(NewSession("bot"))
        alive = {session.id for session in await world.store.list("bot")}
        gone = {session.id for session in made} - alive
        assert len(alive) == MANY
        assert gone == {min(session.id for session in made[120:])}


@in_loop
async def test_what_has_expired_leaves_the_index_some_at_each_login(own_redis: RedisServer) -> None:
    clock = Clock()
    async with opened(own_redis.unix_url, "gw", clock, max_sessions=0, refresh_ttl=60) as world:
        for _ in range(MANY):
            await world.store.create(NewSession("bot"))
        clock.push(61)
        for login in range(1, 7):
            await world.store.create(NewSession("bot"))
            left = await world.raw.zcard(next(name for name in await world.names() if ":user:" in name))
            assert left == max(0, MANY - 50 * login) + login
