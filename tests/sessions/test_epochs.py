"""Epochs, on fakeredis and on a real Redis: a store that was rolled back is noticed, and lets nobody in."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import Endpoint, open_client
from gateway.sessions.epochs import Epochs
from gateway.sessions.keyspace import DIGITS, Keyspace
from gateway.sessions.store import SessionStore
from gateway.tokens.rotation import Outcome
from tests.redis_server import RedisServer
from tests.sessions.world import POLICY, Clock, World, eventually, in_loop, login, opened, remembering

ALL = list(DIGITS)


async def copy(world: World) -> dict[bytes, tuple[bytes, int]]:
    """Return what a snapshot holds: each string's value and TTL (ms), and the users' indexes."""
    found: dict[bytes, tuple[bytes, int]] = {}
    for key in await world.raw.keys(f"{world.prefix}:*"):
        found[key] = (await world.raw.dump(key), max(0, await world.raw.pttl(key)))
    return found


async def go_back(world: World, snapshot: dict[bytes, tuple[bytes, int]]) -> None:
    """Make Redis what it was, as a restart from that snapshot does."""
    for key in await world.raw.keys(f"{world.prefix}:*"):
        await world.raw.delete(key)
    for key, (value, ttl) in snapshot.items():
        await world.raw.restore(key, ttl, value)


async def epoch_of(world: World, digit: str) -> tuple[int, int]:
    """Return (born, endings) as Redis holds them."""
    born, endings, _ = (await world.raw.get(Keyspace(world.prefix).epoch(digit))).split(b" ")
    return int(born), int(endings)


async def lives(world: World, session_id: str) -> bool:
    return await world.store.get(session_id) is not None


@in_loop
async def test_a_check_of_an_empty_store_makes_all_epochs_and_knows_them(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, remembering(url, prefix) as memory:
        assert memory.epochs.born == [b""] * 16
        await memory.epochs.check()
        for digit in ALL:
            born, endings = await epoch_of(world, digit)
            assert abs(born - time.time()) < 10
            assert endings == 0
            assert memory.epochs.born[int(digit, 16)] == b"%d" % born
        assert memory.rolled_back == []


@in_loop
async def test_what_a_check_finds_again_changes_nothing(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, remembering(url, prefix) as memory:
        session = await world.store.create(login())
        await memory.epochs.check()
        before = await copy(world)
        for _ in range(3):
            await memory.epochs.check()
        assert {key: value for key, (value, _) in (await copy(world)).items()} == {
            key: value for key, (value, _) in before.items()
        }
        assert await lives(world, session.id)


@in_loop
async def test_a_record_begins_with_the_epoch_that_it_belongs_to(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        clock.push(100)
        await world.store.rotate(session.id, 0)
        record = await world.raw.get(Keyspace(prefix).session(session.id))
        assert re.match(rb"%d \d" % session.created_at, record)
        assert world.store.epochs.born[int(session.id[0], 16)] == b"%d" % session.created_at


ENDINGS: dict[str, Any] = {
    "end": lambda world, session: world.store.end(session.id),
    "end_all": lambda world, session: world.store.end_all("u-1"),
    "reuse": lambda world, session: world.store.rotate(session.id, 7),
    "a login on the same device": lambda world, session: world.store.create(login(device="laptop")),
    "a login over the cap": lambda world, session: world.store.create(login()),
    "revoke_token": lambda world, session: world.store.revoke_token(session.id, 2**40),
    "set_not_before": lambda world, session: world.store.set_not_before(session.id, 1, 60),
}
NO_ENDINGS: dict[str, Any] = {
    "create": lambda world, session: world.store.create(login("u-1", device="phone")),
    "rotate": lambda world, session: world.store.rotate(session.id, 0),
    "mark_used": lambda world, session: world.store.mark_used(session.id, 0),
    "get": lambda world, session: world.store.get(session.id),
    "list": lambda world, session: world.store.list("u-1"),
    "end of nothing": lambda world, session: world.store.end(session.id[0] + "x" * 22),
    "end_all of nothing": lambda world, session: world.store.end_all("u-1", keep=session.id),
    "attempt": lambda world, session: world.store.attempt("login", "u-1", 10),
}


@pytest.mark.parametrize(("kind", "count"), [*((k, 1) for k in ENDINGS), *((k, 0) for k in NO_ENDINGS)])
@in_loop
async def test_each_ending_is_counted_once_and_nothing_else_is(
    url: Endpoint, prefix: str, kind: str, count: int
) -> None:
    async with opened(url, prefix, max_sessions=1 if "cap" in kind else 9) as world:
        session = await world.store.create(login(device="laptop"))
        born, endings = await epoch_of(world, session.id[0])
        assert endings == 0
        await (ENDINGS | NO_ENDINGS)[kind](world, session)
        assert await epoch_of(world, session.id[0]) == (born, count)
        known = world.store.epochs.known(session.id[0])
        assert known == await world.raw.get(Keyspace(prefix).epoch(session.id[0]))


@pytest.mark.parametrize("kind", [kind for kind in ENDINGS if kind not in ("revoke_token", "set_not_before")])
@in_loop
async def test_a_session_that_was_ended_does_not_come_back_with_an_old_snapshot(
    url: Endpoint, prefix: str, kind: str
) -> None:
    async with opened(url, prefix, max_sessions=1 if "cap" in kind else 9) as world:
        session = await world.store.create(login(device="laptop"))
        snapshot = await copy(world)
        await ENDINGS[kind](world, session)
        await go_back(world, snapshot)
        assert await world.raw.exists(Keyspace(prefix).session(session.id))
        assert not await lives(world, session.id)
        assert await world.store.list("u-1") == []
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN
        assert await world.raw.exists(Keyspace(prefix).session(session.id)) == 0


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (lambda store, sid: store.get(sid), None),
        (lambda store, sid: store.list("u-1"), []),
        (lambda store, sid: store.end(sid), False),
        (lambda store, sid: store.end_all("u-1"), []),
        (lambda store, sid: store.mark_used(sid, 0), None),
    ],
    ids=["get", "list", "end", "end_all", "mark_used"],
)
@in_loop
async def test_whatever_is_asked_first_after_a_rollback_sees_no_old_session(
    url: Endpoint, prefix: str, first: Any, answer: Any
) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        other = await world.store.create(login())
        snapshot = await copy(world)
        await world.store.end(other.id)
        await go_back(world, snapshot)
        assert await first(world.store, session.id) == answer
        assert not await lives(world, other.id)


@in_loop
async def test_after_a_rollback_a_new_login_lives_and_the_old_ones_of_the_user_are_cleared(
    url: Endpoint, prefix: str
) -> None:
    async with opened(url, prefix) as world:
        old = [await world.store.create(login()) for _ in range(3)]
        snapshot = await copy(world)
        await world.store.end(old[0].id)
        await go_back(world, snapshot)
        new = await world.store.create(login())
        assert await world.store.list("u-1") == [new]
        assert len(await world.names()) == 2


@in_loop
async def test_a_check_notices_a_rollback_voids_that_partition_alone_and_tells_once(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, remembering(url, prefix) as memory, remembering(url, prefix) as other:
        await memory.epochs.check()
        session, elsewhere = await world.store.create(login("u-1")), await world.store.create(login("u-2"))
        assert session.id[0] != elsewhere.id[0]
        snapshot = await copy(world)
        await world.store.end(session.id)
        for each in (memory, other):
            await each.epochs.check()
        born, endings = await epoch_of(world, session.id[0])
        assert endings == 1
        await go_back(world, snapshot)
        await memory.epochs.check()
        await other.epochs.check()
        renewed, endings = await epoch_of(world, session.id[0])
        assert renewed > born
        assert endings == 0
        assert memory.rolled_back == [session.id[0]]
        assert other.rolled_back == []
        assert memory.epochs.born == other.epochs.born
        assert memory.epochs.born[int(session.id[0], 16)] == b"%d" % renewed
        async with opened(url, prefix) as fresh:
            assert not await lives(fresh, session.id)
            assert await lives(fresh, elsewhere.id)


@in_loop
async def test_two_that_notice_a_rollback_at_once_renew_it_once(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, remembering(url, prefix) as one, remembering(url, prefix) as other:
        await one.epochs.check()
        session = await world.store.create(login())
        snapshot = await copy(world)
        await world.store.end(session.id)
        for each in (one, other):
            await each.epochs.check()
        await go_back(world, snapshot)
        await asyncio.gather(*(each.epochs.check() for each in (one, other) * 5))
        assert one.rolled_back + other.rolled_back == [session.id[0]]
        assert one.epochs.born == other.epochs.born


@in_loop
async def test_a_history_that_parted_is_noticed_also_where_as_much_was_ended_in_it(url: Endpoint, prefix: str) -> None:
    """A replica that lagged is promoted, and something else is ended there before anyone looks."""
    async with (
        opened(url, prefix) as world,
        opened(url, prefix) as elsewhere,
        remembering(url, prefix) as memory,
    ):
        await memory.epochs.check()
        lost, other = await world.store.create(login()), await world.store.create(login())
        more = await world.store.create(login())
        snapshot = await copy(world)
        await elsewhere.store.list("u-1")
        await world.store.end(lost.id)
        await memory.epochs.check()
        await go_back(world, snapshot)
        await elsewhere.store.end(other.id)
        assert await lives(elsewhere, lost.id)  # nobody knows there
        await elsewhere.store.end(more.id)
        await memory.epochs.check()
        assert memory.rolled_back == [lost.id[0]]
        assert not await lives(elsewhere, lost.id)


@in_loop
async def test_what_went_on_elsewhere_is_no_rollback(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, remembering(url, prefix) as memory:
        kept = await world.store.create(login())
        for batch in (0, 1, 5, 31, 32, 33, 70):
            for _ in range(batch):
                await world.store.revoke_token(kept.id[0] + str(time.monotonic_ns()), 2**40)
            await memory.epochs.check()
        assert memory.rolled_back == []
        assert await lives(world, kept.id)
        assert (await epoch_of(world, kept.id[0]))[1] == 172
        assert len(await world.raw.get(Keyspace(prefix).epoch(kept.id[0]))) == 10 + 1 + 3 + 1 + 32 * 5


@in_loop
async def test_answers_that_overtake_each_other_are_no_rollback(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, timeout=10) as world, remembering(url, prefix, timeout=10) as memory:
        sessions = [await world.store.create(login()) for _ in range(50)]
        shared = SessionStore(open_client(url, 10), prefix, POLICY, 10, epochs=memory.epochs)
        ends = [world.store.end(session.id) for session in sessions[:20]]
        ends += [shared.end(session.id) for session in sessions[20:40]]
        reads = [shared.get(session.id) for session in sessions[40:]]
        await asyncio.gather(*ends, *reads, *(memory.epochs.check() for _ in range(20)))
        assert memory.rolled_back == []
        assert all([await lives(world, session.id) for session in sessions[40:]])
        await shared.close()


def test_what_was_overtaken_is_passed_over_and_what_is_none_too() -> None:
    epochs = Epochs(open_client("memory://unused", 1), "gw", 1)
    epochs.saw("a", b"1700000000 3 aaaaabbbbbccccc")
    for older in (b"1700000000 2 aaaaabbbbb", b"1699999999 9 ", b"", b"x", b"17000000001 9 ", b"1700000000 3 00000"):
        epochs.saw("a", older)
        assert epochs.known("a") == b"1700000000 3 aaaaabbbbbccccc"
    epochs.saw("a", b"1700000001 0 ")
    assert epochs.born[10] == b"1700000001"
    assert epochs.born.count(b"") == 15


@in_loop
async def test_a_wiped_store_begins_anew_later_than_it_was_and_knows_nobody(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world, remembering(url, prefix, clock) as memory:
        session = await world.store.create(login())
        await memory.epochs.check()
        before = list(memory.epochs.born)
        await go_back(world, {})
        await memory.epochs.check()
        assert all(new > old for new, old in zip(memory.epochs.born, before, strict=True))
        assert sorted(memory.rolled_back) == ALL
        assert not await lives(world, session.id)
        again = await world.store.create(login())
        assert await lives(world, again.id)


@in_loop
async def test_an_epoch_that_was_deleted_by_hand_voids_its_partition(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, opened(url, prefix) as other:
        session = await world.store.create(login())
        await world.raw.delete(Keyspace(prefix).epoch(session.id[0]))
        assert not await lives(world, session.id)
        assert not await lives(other, session.id)


@pytest.mark.parametrize("bad", [b"", b"x", b"1700000000", b"1700000000 1 ", b"1700000000 2 aaaaa", b"99999999999 0 "])
@in_loop
async def test_an_epoch_that_cannot_be_read_is_made_anew(url: Endpoint, prefix: str, bad: bytes) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world, remembering(url, prefix, clock) as memory:
        session = await world.store.create(login())
        clock.push(1)
        await world.raw.set(Keyspace(prefix).epoch(session.id[0]), bad)
        await memory.epochs.check()
        assert (await epoch_of(world, session.id[0]))[1] == 0
        assert not await lives(world, session.id)


@in_loop
async def test_a_clock_that_was_set_back_makes_no_epoch_older_than_the_one_before(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, refresh_ttl=0, session_ttl=0) as world:  # else it would have ended for Redis
        session = await world.store.create(login())
        snapshot = await copy(world)
        born, _ = await epoch_of(world, session.id[0])
        await world.store.end(session.id)
        await go_back(world, snapshot)
        clock.push(-86_400)
        assert not await lives(world, session.id)
        assert await epoch_of(world, session.id[0]) == (born + 1, 0)
        again = await world.store.create(login())
        assert await lives(world, again.id)
        await go_back(world, {})
        assert not await lives(world, again.id)
        assert await epoch_of(world, session.id[0]) == (born + 2, 0)


@in_loop
async def test_two_prefixes_have_epochs_of_their_own(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as one, opened(url, prefix + "b") as other:
        session, kept = await one.store.create(login()), await other.store.create(login())
        snapshot = await copy(one)
        await one.store.end(session.id)
        await go_back(one, {key: value for key, value in snapshot.items() if key.startswith(f"{prefix}:".encode())})
        assert not await lives(one, session.id)
        assert await lives(other, kept.id)


@in_loop
async def test_the_watch_finds_a_rollback_within_a_second_or_so_and_outlives_an_outage(own_redis: RedisServer) -> None:
    async with (
        opened(own_redis.url, "gw") as world,
        remembering(own_redis.url, "gw", timeout=0.25) as memory,
    ):
        session = await world.store.create(login())
        snapshot = await copy(world)
        await world.store.end(session.id)
        memory.epochs.start()
        await eventually(lambda: bool(memory.epochs.born[0]))
        own_redis.stop()
        await asyncio.sleep(1.2)  # a look or two that fail
        own_redis.start()
        await go_back(world, snapshot)
        await eventually(lambda: session.id[0] in memory.rolled_back, 10)
        await memory.epochs.close()
        await memory.epochs.close()


@in_loop
async def test_a_check_that_finds_nobody_says_unavailable_and_forgets_nothing(own_redis: RedisServer) -> None:
    async with remembering(own_redis.url, "gw", timeout=0.25) as memory:
        await memory.epochs.check()
        known = list(memory.epochs.born)
        own_redis.stop()
        with pytest.raises(StoreUnavailable):
            await memory.epochs.check()
        assert memory.epochs.born == known


@in_loop
async def test_scripts_that_redis_forgot_are_sent_again(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, remembering(url, prefix) as memory:
        await world.raw.script_flush()
        await memory.epochs.check()
        assert b"" not in memory.epochs.born
