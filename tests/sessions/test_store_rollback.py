"""A real Redis that goes back: killed and started on an older dump, or replaced by a replica that lagged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.epochs import Epochs
from gateway.sessions.record import Session
from gateway.sessions.store import SessionStore, Unconfirmed
from gateway.tokens.rotation import Outcome
from tests.redis_server import RedisServer, redis_server
from tests.sessions.world import Clock, Memory, World, eventually, in_loop, login, opened, remembering

PREFIX = "gw"
SECONDS = 10.0
AT_ONCE = ["--repl-diskless-sync-delay", "0"]  # a replica is served when it asks, not five seconds later


async def refused(store: SessionStore, session: Session) -> bool:
    return (
        await store.get(session.id) is None
        and (await store.rotate(session.id, session.counter)).outcome is Outcome.UNKNOWN
    )


@asynccontextmanager
async def knowing(server: RedisServer, epochs: Epochs) -> AsyncIterator[World]:
    """Open a store with the memory of a process that has lived through it all."""
    async with opened(server.unix_url, PREFIX, timeout=SECONDS, epochs=epochs) as world:
        yield world


@asynccontextmanager
async def living(server: RedisServer) -> AsyncIterator[tuple[Memory, World]]:
    """Open a gateway process' memory, and a store that has it."""
    async with remembering(server.unix_url, PREFIX, timeout=SECONDS) as memory, knowing(server, memory.epochs) as world:
        yield memory, world


async def look(epochs: Epochs) -> None:
    """Check the epochs, once the connections that broke with the server are known to be broken."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return await epochs.check()
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


def replicate(replica: RedisServer, primary: RedisServer) -> None:
    with replica.client() as client:
        client.replicaof("127.0.0.1", str(primary.port))


async def in_step(primary: RedisServer, replica: RedisServer) -> None:
    with primary.client() as one, replica.client() as other:

        def same() -> bool:
            mine, theirs = one.info("replication"), other.info("replication")
            assert isinstance(mine, dict)
            assert isinstance(theirs, dict)
            return (
                theirs.get("master_link_status") == "up" and mine["master_repl_offset"] == theirs["master_repl_offset"]
            )

        await eventually(same, 20)


def promote(replica: RedisServer) -> None:
    with replica.client() as client:
        client.replicaof("NO", "ONE")


@contextmanager
def pair() -> Iterator[tuple[RedisServer, RedisServer]]:
    with redis_server(AT_ONCE) as primary, redis_server(AT_ONCE) as replica:
        replicate(replica, primary)
        yield primary, replica


@in_loop
async def test_a_redis_started_on_a_dump_older_than_an_end_lets_the_ended_session_stay_ended(
    own_redis: RedisServer,
) -> None:
    async with remembering(own_redis.unix_url, PREFIX, timeout=SECONDS) as memory:
        await memory.epochs.check()
        async with knowing(own_redis, memory.epochs) as world:
            ended, same = await world.store.create(login("u-1")), await world.store.create(login("u-1"))
            elsewhere = await world.store.create(login("u-2"))
            with own_redis.client() as admin:
                admin.save()
            assert await world.store.end(ended.id)
        own_redis.stop()
        own_redis.start()
        async with knowing(own_redis, memory.epochs) as world:
            assert await world.raw.exists(f"{PREFIX}:{{{ended.id[0]}}}:session:{ended.id}") == 1
            await look(memory.epochs)
            assert await refused(world.store, ended)
            assert await refused(world.store, same)  # of the same partition: what else was lost nobody knows
            assert await world.store.get(elsewhere.id) == elsewhere
            assert memory.rolled_back == [ended.id[0]]


@in_loop
async def test_a_script_that_comes_before_any_check_notices_it_as_well(own_redis: RedisServer) -> None:
    async with remembering(own_redis.unix_url, PREFIX, timeout=SECONDS) as memory:
        async with knowing(own_redis, memory.epochs) as world:
            ended = await world.store.create(login())
            with own_redis.client() as admin:
                admin.save()
            await world.store.end(ended.id)
        own_redis.stop()
        own_redis.start()
        async with knowing(own_redis, memory.epochs) as world:
            assert await refused(world.store, ended)
            assert memory.rolled_back == [ended.id[0]]


@in_loop
async def test_a_redis_started_on_a_dump_that_has_every_end_loses_no_session(own_redis: RedisServer) -> None:
    async with remembering(own_redis.unix_url, PREFIX, timeout=SECONDS) as memory:
        await memory.epochs.check()
        async with knowing(own_redis, memory.epochs) as world:
            ended, kept = await world.store.create(login()), await world.store.create(login())
            await world.store.end(ended.id)
            with own_redis.client() as admin:
                admin.save()
            late = await world.store.create(login())
        own_redis.stop()
        own_redis.start()
        async with knowing(own_redis, memory.epochs) as world:
            await look(memory.epochs)
            assert await world.store.get(kept.id) == kept
            assert await refused(world.store, ended)
            assert await refused(world.store, late)  # it is not there
            assert memory.rolled_back == []


@in_loop
async def test_a_redis_that_writes_every_command_to_its_log_loses_nothing_when_it_is_killed() -> None:
    with redis_server(["--appendonly", "yes", "--appendfsync", "always"]) as server:
        async with remembering(server.unix_url, PREFIX, timeout=SECONDS) as memory:
            async with knowing(server, memory.epochs) as world:
                sessions = [await world.store.create(login(f"u-{number}")) for number in range(40)]
                for session in sessions[::2]:
                    await world.store.end(session.id)
            server.stop()
            server.start()
            async with knowing(server, memory.epochs) as world:
                await look(memory.epochs)
                for ended, kept in zip(sessions[::2], sessions[1::2], strict=True):
                    assert await refused(world.store, ended)
                    assert await world.store.get(kept.id) == kept
                assert memory.rolled_back == []


@in_loop
async def test_a_redis_started_empty_knows_nobody_and_takes_new_logins(own_redis: RedisServer) -> None:
    async with remembering(own_redis.unix_url, PREFIX, timeout=SECONDS) as memory:
        await memory.epochs.check()
        before = list(memory.epochs.born)
        async with knowing(own_redis, memory.epochs) as world:
            session = await world.store.create(login())
        own_redis.stop()
        own_redis.start()
        async with knowing(own_redis, memory.epochs) as world:
            assert await refused(world.store, session)
            again = await world.store.create(login())
            assert await world.store.get(again.id) == again
            await look(memory.epochs)
            assert all(new > old for new, old in zip(memory.epochs.born, before, strict=True))


@in_loop
async def test_a_flushed_redis_knows_nobody_and_takes_new_logins(own_redis: RedisServer) -> None:
    async with living(own_redis) as (_, world):
        session = await world.store.create(login())
        with own_redis.client() as admin:
            admin.flushall()
        assert await refused(world.store, session)
        again = await world.store.create(login())
        assert await world.store.get(again.id) == again


@in_loop
async def test_a_promoted_replica_that_lagged_lets_no_ended_session_back_in() -> None:
    with pair() as (primary, replica):
        async with living(primary) as (before, world):
            await before.epochs.check()
            ended = await world.store.create(login())
            await in_step(primary, replica)
            promote(replica)  # from here on it hears of nothing
            assert await world.store.end(ended.id)
            primary.stop()
        async with opened(replica.unix_url, PREFIX, timeout=SECONDS) as nobody:
            assert await nobody.store.get(ended.id) is not None  # who remembers nothing cannot know
        async with remembering(replica.unix_url, PREFIX, timeout=SECONDS) as after:
            for digit in "0123456789abcdef":
                after.epochs.saw(digit, before.epochs.known(digit))
            async with knowing(replica, after.epochs) as world:
                assert await refused(world.store, ended)
                assert after.rolled_back == [ended.id[0]]


@in_loop
async def test_a_promoted_replica_that_was_in_step_loses_no_session() -> None:
    with pair() as (primary, replica):
        async with living(primary) as (before, world):
            await before.epochs.check()
            kept, ended = await world.store.create(login()), await world.store.create(login())
            await world.store.end(ended.id)
            await in_step(primary, replica)
            primary.stop()
        promote(replica)
        async with remembering(replica.unix_url, PREFIX, timeout=SECONDS) as after:
            for digit in "0123456789abcdef":
                after.epochs.saw(digit, before.epochs.known(digit))
            async with knowing(replica, after.epochs) as world:
                await after.epochs.check()
                assert await world.store.get(kept.id) == kept
                assert await refused(world.store, ended)
                assert after.rolled_back == []


async def unconfirmed(call: Awaitable[Any]) -> Any:
    """Return what an operation did that is refused for want of a replica."""
    with pytest.raises(StoreUnavailable) as caught:
        await call
    assert isinstance(caught.value, Unconfirmed)
    return caught.value.done


@in_loop
async def test_no_ending_is_confirmed_before_the_replica_has_it_and_each_can_be_asked_again() -> None:
    clock = Clock()
    with pair() as (primary, replica):
        async with opened(primary.unix_url, PREFIX, clock, timeout=2, wait_replicas=1, max_sessions=3) as world:
            store = world.store
            await in_step(primary, replica)
            ended, reused = await store.create(login("u-1")), await store.create(login("u-2"))
            all_of, replaced = await store.create(login("u-3")), await store.create(login("u-4", device="laptop"))
            crowd = []
            for _ in range(3):
                crowd.append(await store.create(login("u-5")))
                clock.push(1)
            replica.pause()
            told = await asyncio.gather(
                unconfirmed(store.end(ended.id)),
                unconfirmed(store.end_all("u-3")),
                unconfirmed(store.rotate(reused.id, 7)),
                unconfirmed(store.create(login("u-4", device="laptop"))),
                unconfirmed(store.create(login("u-5"))),
                unconfirmed(store.revoke_token("0" * 22, 2**40)),
                unconfirmed(store.set_not_before("~issuer:u-1", 1, 60)),
            )
            assert (told[0], told[1], told[2].outcome) == (True, [all_of.id], Outcome.REUSE)
            for session in (ended, reused, all_of, replaced, crowd[0]):  # the effect is there,
                assert await store.get(session.id) is None
            again = await asyncio.gather(  # and asking again confirms nothing either
                unconfirmed(store.end(ended.id)),
                unconfirmed(store.end_all("u-3")),
                unconfirmed(store.rotate(reused.id, 7)),
                unconfirmed(store.create(login("u-4", device="laptop"))),
                unconfirmed(store.revoke_token("0" * 22, 2**40)),
                unconfirmed(store.set_not_before("~issuer:u-1", 1, 60)),
            )
            assert (again[0], again[1], again[2].outcome) == (False, [], Outcome.UNKNOWN)
            # What ends nothing waits for nobody.
            assert (await store.rotate(crowd[1].id, 0)).outcome is Outcome.ROTATED
            await store.create(login("u-6"))
            replica.resume()
            await in_step(primary, replica)
            assert await store.end(ended.id) is False
            assert await store.end_all("u-3") == []
            assert (await store.rotate(reused.id, 7)).outcome is Outcome.UNKNOWN
            await store.create(login("u-4", device="laptop"))
            await store.revoke_token("0" * 22, 2**40)
            await store.set_not_before("~issuer:u-1", 1, 60)


@in_loop
async def test_what_was_confirmed_survives_the_death_of_the_primary() -> None:
    with pair() as (primary, replica):
        async with opened(primary.unix_url, PREFIX, timeout=SECONDS, wait_replicas=1) as world:
            await in_step(primary, replica)
            ended, kept = await world.store.create(login()), await world.store.create(login())
            assert await world.store.end(ended.id)
            primary.stop()
        promote(replica)
        async with opened(replica.unix_url, PREFIX, timeout=SECONDS) as nobody:
            assert await refused(nobody.store, ended)
            assert await nobody.store.get(kept.id) == kept
