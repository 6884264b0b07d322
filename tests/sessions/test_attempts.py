"""Rate limits: a burst of a minute's worth, then one in every interval; shared by all who use the Redis."""

from __future__ import annotations

import asyncio

import pytest

from gateway.sessions.connect import Endpoint
from tests.sessions.world import Clock, in_loop, opened


@pytest.mark.parametrize("rate", [1, 3, 7, 10, 997])
@in_loop
async def test_a_minutes_worth_is_allowed_at_once_and_no_more(url: Endpoint, prefix: str, rate: int) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        for _ in range(min(rate, 20)):
            assert await world.store.attempt("login", "alice", rate) == 0
        if rate <= 20:
            assert await world.store.attempt("login", "alice", rate) == pytest.approx(60 / rate, abs=0.001)


@in_loop
async def test_after_the_wait_that_was_told_one_attempt_is_allowed(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        for _ in range(10):
            await world.store.attempt("login", "alice", 10)
        wait = await world.store.attempt("login", "alice", 10)
        assert wait == pytest.approx(6)
        clock.push(wait - 0.002)
        assert await world.store.attempt("login", "alice", 10) > 0
        clock.push(0.002)
        assert await world.store.attempt("login", "alice", 10) == 0
        assert await world.store.attempt("login", "alice", 10) > 0


@in_loop
async def test_refused_attempts_do_not_prolong_the_wait(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        waits = [await world.store.attempt("login", "alice", 2) for _ in range(10)]
        assert waits == [0, 0] + [30.0] * 8


@in_loop
async def test_kinds_and_users_are_counted_apart(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        assert await world.store.attempt("login", "alice", 1) == 0
        assert await world.store.attempt("login", "bob", 1) == 0
        assert await world.store.attempt("refresh", "alice", 1) == 0
        assert await world.store.attempt("login", "alice", 1) > 0


@in_loop
async def test_concurrent_attempts_never_pass_the_rate(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, timeout=5) as world:
        waits = await asyncio.gather(*(world.store.attempt("login", "alice", 5) for _ in range(40)))
        assert waits.count(0) == 5


@in_loop
async def test_no_name_or_address_stands_in_a_key_and_every_key_has_a_ttl(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        await world.store.attempt("login-ip", "203.0.113.7", 30)
        await world.store.attempt("login", "alice@example.com", 30)
        names = await world.names()
        assert len(names) == 2
        for name in names:
            assert "203.0.113" not in name
            assert "alice" not in name
            assert 0 < await world.raw.pttl(name) <= 60_000


@in_loop
async def test_a_rate_of_nought_allows_all_and_asks_redis_nothing(prefix: str) -> None:
    async with opened("redis://127.0.0.1:1", prefix) as world:
        assert await world.store.attempt("login", "alice", 0) == 0


@in_loop
async def test_a_clock_that_was_set_back_locks_nobody_out_for_longer_than_a_minute(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        for _ in range(3):
            await world.store.attempt("login", "alice", 3)
        clock.push(-86_400)
        assert await world.store.attempt("login", "alice", 3) <= 60
