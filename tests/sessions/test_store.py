"""The contract of the store, on fakeredis and on a real Redis."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.sessions.connect import Endpoint
from gateway.sessions.keyspace import Keyspace, partition
from gateway.sessions.store import NewIdentity
from gateway.tokens.rotation import Outcome
from tests.sessions.world import FULL, Clock, in_loop, login, opened


@in_loop
async def test_a_session_is_read_back_as_it_was_created(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(FULL)
        assert await world.store.get(session.id) == session
        for name in ("subject", "device", "user_agent", "ip", "roles", "scope", "claims", "credential_version"):
            assert getattr(session, name) == getattr(FULL, name)
        assert session.counter == 0
        assert session.created_at == session.rotated_at == session.last_used_at
        assert abs(session.created_at - time.time()) < 2
        assert session.expires_at - session.created_at == 600
        assert session.ends_at - session.created_at == 3600


@in_loop
async def test_a_session_id_begins_with_the_partition_of_its_user(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        for number in range(20):
            session = await world.store.create(login(f"u-{number}"))
            assert session.id[0] == partition(f"u-{number}")
            assert len(session.id) == 23


@in_loop
async def test_fifty_concurrent_rotations_with_one_token_give_one_successor(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, timeout=5) as world:
        session = await world.store.create(login())
        rotations = await asyncio.gather(*(world.store.rotate(session.id, 0) for _ in range(50)))
        outcomes = [rotation.outcome for rotation in rotations]
        assert outcomes.count(Outcome.ROTATED) == 1
        assert outcomes.count(Outcome.REPLAYED) == 49
        assert len({repr(rotation.session) for rotation in rotations}) == 1
        assert {rotation.session.counter for rotation in rotations if rotation.session} == {1}


@in_loop
async def test_a_lost_answer_can_be_asked_for_until_its_successor_was_used(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        await world.store.rotate(session.id, 0)
        clock.push(500)  # far beyond the grace, which has not begun
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.REPLAYED
        await world.store.mark_used(session.id, 1)
        clock.push(10)
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.REPLAYED
        clock.push(0.001)
        reuse = await world.store.rotate(session.id, 0)
        assert reuse.outcome is Outcome.REUSE
        assert reuse.session is not None
        assert reuse.session.subject == "u-1"
        assert await world.names() == set()


@in_loop
async def test_the_use_of_a_token_says_nothing_of_its_successor(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        clock.push(1)
        await world.store.mark_used(session.id, 0)
        await world.store.rotate(session.id, 0)
        clock.push(500)
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.REPLAYED


@in_loop
async def test_a_replay_renews_nothing(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        rotated = await world.store.rotate(session.id, 0)
        clock.push(5)
        replayed = await world.store.rotate(session.id, 0)
        assert replayed.session == rotated.session
        for name in await world.names():
            assert replayed.session is not None
            assert await world.ends_at(name) == pytest.approx(replayed.session.expires_at, abs=0.02)


@in_loop
async def test_a_mark_of_an_older_counter_or_a_second_mark_changes_nothing(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        await world.store.rotate(session.id, 0)
        await world.store.mark_used(session.id, 0)
        await world.store.mark_used(session.id, 2)
        clock.push(100)
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.REPLAYED
        await world.store.mark_used(session.id, 1)
        clock.push(9)
        await world.store.mark_used(session.id, 1)
        clock.push(2)
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.REUSE


@in_loop
async def test_a_mark_tells_when_the_session_was_last_used_and_keeps_its_ttl(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        clock.push(30.5)
        await world.store.mark_used(session.id, 0)
        after = await world.store.get(session.id)
        assert after is not None
        assert after.last_used_at == session.created_at + 30
        assert await world.ends_at(Keyspace(prefix).session(session.id)) == pytest.approx(session.expires_at, abs=0.02)


@in_loop
async def test_marking_a_session_that_has_ended_brings_nothing_back(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        await world.store.end(session.id)
        await world.store.mark_used(session.id, 0)
        assert await world.names() == set()


@in_loop
async def test_a_counter_ahead_of_the_store_ends_the_session(url: Endpoint, prefix: str) -> None:
    """A store that was rolled back to a copy of itself cannot tell old tokens from new ones."""
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        assert (await world.store.rotate(session.id, 5)).outcome is Outcome.REUSE
        assert await world.names() == set()


@in_loop
async def test_a_login_on_a_device_replaces_the_session_there(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        old = await world.store.create(login(device="laptop"))
        phone = await world.store.create(login(device="phone"))
        prefix_of_it = await world.store.create(login(device="lap"))
        stranger = await world.store.create(login("u-2", device="laptop"))
        new = await world.store.create(login(device="laptop"))
        assert await world.store.get(old.id) is None
        assert (await world.store.rotate(old.id, 0)).outcome is Outcome.UNKNOWN
        for kept in (phone, prefix_of_it, stranger, new):
            assert await world.store.get(kept.id) == kept


@in_loop
async def test_logins_without_a_device_name_stand_side_by_side(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        for _ in range(3):
            await world.store.create(login())
        assert len(await world.store.list("u-1")) == 3


@in_loop
async def test_over_the_cap_the_least_recently_used_session_ends(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, max_sessions=3) as world:
        sessions = []
        for _ in range(3):
            sessions.append(await world.store.create(login()))
            clock.push(1)
        await world.store.rotate(sessions[0].id, 0)
        clock.push(1)
        await world.store.mark_used(sessions[1].id, 0)
        clock.push(1)
        newest = await world.store.create(login())
        alive = {session.id for session in await world.store.list("u-1")}
        assert alive == {sessions[0].id, sessions[1].id, newest.id}
        assert await world.raw.exists(Keyspace(prefix).session(sessions[2].id)) == 0


@in_loop
async def test_concurrent_logins_never_pass_the_cap(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, timeout=5, max_sessions=3) as world:
        await asyncio.gather(*(world.store.create(login()) for _ in range(20)))
        assert len(await world.store.list("u-1")) == 3
        assert len(await world.names()) == 3 + 1


@in_loop
async def test_replacing_a_device_at_the_cap_ends_no_other_session(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, max_sessions=2) as world:
        phone = await world.store.create(login(device="phone"))
        await world.store.create(login(device="laptop"))
        await world.store.create(login(device="laptop"))
        assert await world.store.get(phone.id) == phone


@in_loop
async def test_the_list_is_the_users_own_and_the_latest_used_comes_first(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        first = await world.store.create(login())
        await world.store.create(login("u-2"))
        clock.push(1)
        second = await world.store.create(login())
        assert [session.id for session in await world.store.list("u-1")] == [second.id, first.id]
        clock.push(1)
        await world.store.rotate(first.id, 0)
        assert [session.id for session in await world.store.list("u-1")] == [first.id, second.id]
        assert await world.store.list("nobody") == []


@in_loop
async def test_a_recheck_takes_the_place_of_what_the_session_held(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(FULL)
        fresh = NewIdentity(roles=("user",), scope="", claims={"email": "b@example.com"}, credential_version="v8")
        rotated = await world.store.rotate(session.id, 0, refreshed=fresh)
        assert rotated.session is not None
        assert rotated.session.roles == ("user",)
        assert rotated.session.claims == {"email": "b@example.com"}
        assert rotated.session.credential_version == "v8"
        assert (rotated.session.device, rotated.session.subject) == ("laptop", "u-1")
        assert await world.store.get(session.id) == rotated.session


@in_loop
async def test_a_role_that_was_taken_away_does_not_come_back_in_a_replay(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(FULL)
        await world.store.rotate(session.id, 0)
        demoted = NewIdentity(roles=(), scope="", claims={}, credential_version="v7")
        replayed = await world.store.rotate(session.id, 0, refreshed=demoted)
        assert replayed.outcome is Outcome.REPLAYED
        assert replayed.session is not None
        assert replayed.session.roles == ()
        assert await world.ends_at(Keyspace(prefix).session(session.id)) is not None


@in_loop
async def test_scripts_that_redis_forgot_are_sent_again(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        await world.raw.script_flush()
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.ROTATED


@in_loop
async def test_two_prefixes_on_one_redis_know_nothing_of_each_other(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as one, opened(url, prefix + "b") as other:
        session = await one.store.create(login())
        assert await other.store.get(session.id) is None
        assert await other.store.end_all("u-1") == []
        assert await one.store.get(session.id) == session
