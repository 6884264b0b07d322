"""Redis killed, frozen, late or restarted: told within the timeout, never taken for an answer, healed by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import open_client
from gateway.sessions.liveness import Liveness, Verdict
from gateway.sessions.store import SessionStore
from gateway.tokens.rotation import Outcome
from tests.redis_server import RedisServer, free_port, redis_server
from tests.sessions.world import POLICY, Tally, checking, eventually, in_loop, login, opened

TIMEOUT = 0.25
SLACK = 0.35  # of a busy machine
TOKEN = "0" + "t" * 22
SESSION = "0" * 23

OPERATIONS: dict[str, Callable[[SessionStore], Any]] = {
    "create": lambda store: store.create(login()),
    "get": lambda store: store.get(SESSION),
    "rotate": lambda store: store.rotate(SESSION, 0),
    "mark_used": lambda store: store.mark_used(SESSION, 0),
    "list": lambda store: store.list("u-1"),
    "end": lambda store: store.end(SESSION),
    "end_all": lambda store: store.end_all("u-1"),
    "revoke_token": lambda store: store.revoke_token(TOKEN, 2**40),
    "attempt": lambda store: store.attempt("login", "alice", 10),
    "ping": lambda store: store.ping(),
}


async def refusal(call: Any) -> float:
    """Return after how many seconds a call was refused as unavailable."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await call
    return time.monotonic() - began


async def verdict_in_time(live: Liveness) -> Verdict:
    began = time.monotonic()
    verdict = await live.alive(SESSION, TOKEN)
    assert time.monotonic() - began < TIMEOUT + SLACK
    return verdict


@in_loop
async def test_every_operation_says_unavailable_while_nobody_listens(prefix: str) -> None:
    async with opened(f"redis://127.0.0.1:{free_port()}", prefix, timeout=TIMEOUT) as world:
        for operation in OPERATIONS.values():
            assert await refusal(operation(world.store)) < TIMEOUT + SLACK


@in_loop
async def test_every_operation_says_unavailable_within_the_timeout_of_a_frozen_redis(
    own_redis: RedisServer, prefix: str
) -> None:
    async with opened(own_redis.url, prefix, timeout=TIMEOUT) as world:
        await world.store.ping()
        own_redis.pause()
        for operation in OPERATIONS.values():
            assert await refusal(operation(world.store)) < TIMEOUT + SLACK
        own_redis.resume()
        await world.store.create(login())


@in_loop
async def test_the_store_works_again_as_soon_as_redis_is_back(own_redis: RedisServer, prefix: str) -> None:
    async with opened(own_redis.url, prefix, timeout=TIMEOUT) as world:
        session = await world.store.create(login())
        await asyncio.gather(*(world.store.get(session.id) for _ in range(20)))  # many connections that will break
        own_redis.stop()
        await refusal(world.store.get(session.id))
        own_redis.start()
        assert await world.store.get(session.id) is None  # a Redis that lost its data signs people out
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN
        await world.store.create(login())


@in_loop
async def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_command(
    own_redis: RedisServer, prefix: str
) -> None:
    async with opened(own_redis.url, prefix, timeout=TIMEOUT) as world:
        first, second = await world.store.create(login("u-1")), await world.store.create(login("u-2"))
        own_redis.pause()
        await refusal(world.store.get(first.id))
        own_redis.resume()
        for _ in range(5):
            assert await world.store.get(second.id) == second


@in_loop
async def test_a_caller_that_is_cancelled_leaves_no_answer_to_the_next(own_redis: RedisServer, prefix: str) -> None:
    async with opened(own_redis.url, prefix, timeout=5) as world:
        first, second = await world.store.create(login("u-1")), await world.store.create(login("u-2"))
        own_redis.pause()
        calls = [asyncio.ensure_future(world.store.get(first.id)) for _ in range(5)]
        await asyncio.sleep(0.05)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        own_redis.resume()
        for _ in range(10):
            assert await world.store.get(second.id) == second


@in_loop
async def test_a_rotation_that_timed_out_can_be_asked_again(own_redis: RedisServer, prefix: str) -> None:
    """Whether it took place nobody knows; asked again it gives the one successor either way."""
    async with opened(own_redis.url, prefix, timeout=TIMEOUT) as world:
        session = await world.store.create(login())
        own_redis.pause()
        await refusal(world.store.rotate(session.id, 0))
        own_redis.resume()
        rotation = await world.store.rotate(session.id, 0)
        assert rotation.outcome in (Outcome.ROTATED, Outcome.REPLAYED)
        assert rotation.session is not None
        assert rotation.session.counter == 1


@in_loop
async def test_live_checks_say_unavailable_while_nobody_listens_and_heal_when_redis_comes(prefix: str) -> None:
    with redis_server() as server:
        server.stop()
        async with checking(server.url, prefix, timeout=TIMEOUT, ready=False) as live:
            assert await verdict_in_time(live) is Verdict.UNAVAILABLE
            assert not live.up
            began = time.monotonic()
            while time.monotonic() - began < 1.5:  # long enough for the longest wait between two tries
                assert await verdict_in_time(live) is Verdict.UNAVAILABLE
                await asyncio.sleep(0.05)
            server.start()
            assert await eventually(lambda: live.up) < 1
            assert await verdict_in_time(live) is Verdict.ENDED


@in_loop
async def test_live_checks_say_unavailable_when_redis_is_killed_and_heal_when_it_is_back(
    own_redis: RedisServer, prefix: str
) -> None:
    async with opened(own_redis.url, prefix) as world, checking(own_redis.url, prefix, timeout=TIMEOUT) as live:
        session = await world.store.create(login())
        keys, tally = live.keys(session.id, TOKEN), Tally()
        tally.ask(live, keys)
        await tally.all_answered()
        own_redis.stop()
        for _ in range(20):
            tally.ask(live, keys)
            await asyncio.sleep(0.01)
        assert await tally.all_answered() < TIMEOUT + SLACK
        assert tally.verdicts() == [Verdict.ALIVE] + [Verdict.UNAVAILABLE] * 20
        own_redis.start()
        assert await eventually(lambda: live.up) < 1
        assert await live.alive(session.id, TOKEN) is Verdict.ENDED
        again = await world.store.create(login())
        assert await live.alive(again.id, TOKEN) is Verdict.ALIVE


@in_loop
async def test_live_checks_of_a_frozen_redis_are_answered_once_and_within_the_timeout(
    own_redis: RedisServer, prefix: str
) -> None:
    async with opened(own_redis.url, prefix) as world, checking(own_redis.url, prefix, timeout=TIMEOUT) as live:
        session = await world.store.create(login())
        keys, tally, latest = live.keys(session.id, TOKEN), Tally(), 0.0
        own_redis.pause()
        for _ in range(30):
            began, mine = time.monotonic(), Tally()
            mine.ask(live, keys)
            tally.answers += mine.answers
            await mine.all_answered()
            latest = max(latest, time.monotonic() - began)
        assert latest < TIMEOUT + SLACK
        own_redis.resume()
        assert await eventually(lambda: live.up) < 1
        assert await live.alive(session.id, TOKEN) is Verdict.ALIVE
        assert set(tally.verdicts()) == {Verdict.UNAVAILABLE}  # none was answered again by what came late


@in_loop
async def test_what_redis_answers_late_is_not_taken_for_the_answer_to_another_ask(
    own_redis: RedisServer, prefix: str
) -> None:
    async with opened(own_redis.url, prefix) as world, checking(own_redis.url, prefix, timeout=TIMEOUT) as live:
        session = await world.store.create(login())
        own_redis.pause()
        assert await live.alive(session.id, TOKEN) is Verdict.UNAVAILABLE
        own_redis.resume()
        await eventually(lambda: live.up)
        for _ in range(5):
            assert await verdict_in_time(live) is Verdict.ENDED


@in_loop
async def test_a_kept_connection_that_redis_closes_costs_no_request(prefix: str) -> None:
    with redis_server() as server, server.client() as admin:
        async with checking(server.url, prefix, timeout=TIMEOUT) as live:
            assert await verdict_in_time(live) is Verdict.ENDED
            for _ in range(5):
                admin.client_kill_filter(_type="normal", skipme=True)
                assert await verdict_in_time(live) is Verdict.ENDED


@in_loop
async def test_with_a_grace_what_a_check_passed_still_passes_in_an_outage_and_nothing_else(
    own_redis: RedisServer, prefix: str
) -> None:
    async with (
        opened(own_redis.url, prefix) as world,
        checking(own_redis.url, prefix, timeout=TIMEOUT, grace=1.0) as live,
    ):
        kept, ended = await world.store.create(login("u-1")), await world.store.create(login("u-2"))
        passed, revoked, never_seen = (live.keys(name, TOKEN) for name in (kept.id, ended.id, kept.id))
        tally = Tally()
        tally.ask(live, passed)
        tally.ask(live, revoked)
        await tally.all_answered()
        passed_at = time.monotonic()
        await world.store.end(ended.id)
        tally.ask(live, revoked)
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ALIVE, Verdict.ALIVE, Verdict.ENDED]
        own_redis.stop()
        outage = Tally()
        for keys in (passed, revoked, never_seen):
            outage.ask(live, keys)
        await outage.all_answered()
        assert outage.verdicts() == [Verdict.ALIVE, Verdict.UNAVAILABLE, Verdict.UNAVAILABLE]
        await asyncio.sleep(1.05 - (time.monotonic() - passed_at))  # the grace itself is what is waited for
        outage.ask(live, passed)
        await outage.all_answered()
        assert outage.verdicts()[-1] == Verdict.UNAVAILABLE


@in_loop
async def test_no_room_is_no_outage_and_gets_no_grace(own_redis: RedisServer, prefix: str) -> None:
    async with (
        opened(own_redis.url, prefix) as world,
        checking(own_redis.url, prefix, grace=60, max_waiting=1) as live,
    ):
        session = await world.store.create(login())
        keys, tally = live.keys(session.id, session.id[0] + TOKEN[1:]), Tally()
        tally.ask(live, keys)
        await tally.all_answered()
        tally.ask(live, keys)
        tally.ask(live, keys)
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ALIVE, Verdict.ALIVE, Verdict.UNAVAILABLE]


@in_loop
async def test_a_revocation_that_too_few_replicas_have_is_not_confirmed_however_often_it_is_asked(
    own_redis: RedisServer, prefix: str
) -> None:
    async with opened(own_redis.url, prefix, timeout=TIMEOUT, wait_replicas=1) as world:
        session = await world.store.create(login())
        for _ in range(3):
            await refusal(world.store.end(session.id))
        await refusal(world.store.end_all("u-1"))
        await refusal(world.store.revoke_token(TOKEN, 2**40))


@in_loop
async def test_a_revocation_that_the_replicas_have_is_confirmed_and_replicas_are_not_asked(
    own_redis: RedisServer, prefix: str
) -> None:
    with redis_server() as replica:
        with own_redis.client() as admin, replica.client() as copy:
            copy.replicaof("127.0.0.1", str(own_redis.port))
            info: Any = admin.info("replication")
            while not (info["connected_slaves"] and info["slave0"]["state"] == "online"):
                await asyncio.sleep(0.05)
                info = admin.info("replication")
        async with opened(own_redis.url, prefix, timeout=3.0, wait_replicas=1) as world:
            session = await world.store.create(login())
            assert await world.store.end(session.id) is True
            await world.store.revoke_token(TOKEN, 2**40)
            with replica.client() as copy:
                assert copy.keys(f"{prefix}:*session*") == []
                assert copy.exists(f"{prefix}:{{0}}:revoked:{TOKEN}")
            assert all(name.endswith((TOKEN, ":fence")) for name in await world.names())
            assert all([await world.raw.pttl(name) > 0 for name in await world.names()])
        async with checking(replica.url, prefix, timeout=TIMEOUT, ready=False) as live:
            assert await live.alive(SESSION, TOKEN) is Verdict.UNAVAILABLE
            assert not live.up


def test_a_store_that_was_never_used_can_be_closed() -> None:
    async def main() -> None:
        await SessionStore(open_client("redis://127.0.0.1:1", 1), "gw", POLICY, 1).close()

    asyncio.run(main())
