"""How sessions end, and that every key ends with what it stands for."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.sessions.connect import Endpoint
from gateway.sessions.keyspace import Keyspace
from gateway.tokens.rotation import Outcome
from tests.sessions.world import Clock, in_loop, login, opened


@in_loop
async def test_every_key_of_one_session_lies_in_one_slot(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        assert {name.split(":")[1] for name in await world.names()} == {"{" + session.id[0] + "}"}


@in_loop
async def test_every_key_ends_with_what_it_stands_for(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        other = await world.store.create(login("u-2"))
        token_end = int(time.time()) + 100
        await world.store.revoke_token(session.id[0] + "x" * 20, token_end)
        keys = Keyspace(prefix)
        expected = {
            keys.session(session.id): session.expires_at,
            keys.user("u-1"): session.expires_at,
            keys.user("u-2"): other.expires_at,
            keys.revoked(session.id[0] + "x" * 20): token_end + 10,
        }
        for key, end in expected.items():
            assert await world.ends_at(key) == pytest.approx(end, abs=0.02), key


@in_loop
async def test_a_rotation_moves_the_end_of_every_key(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        clock.push(100)
        after = (await world.store.rotate(session.id, 0)).session
        assert after is not None
        assert after.expires_at == session.expires_at + 100
        for name in await world.names():
            assert await world.ends_at(name) == pytest.approx(after.expires_at, abs=0.02)


@in_loop
async def test_the_users_index_lives_as_long_as_the_latest_of_the_sessions(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        first = await world.store.create(login())
        clock.push(50)
        second = await world.store.create(login())
        index = Keyspace(prefix).user("u-1")
        assert await world.ends_at(index) == pytest.approx(second.expires_at, abs=0.02)
        await world.store.end(second.id)
        assert await world.ends_at(index) == pytest.approx(first.expires_at, abs=0.02)


@in_loop
async def test_a_session_that_never_ends_has_no_ttl(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, refresh_ttl=0, session_ttl=0) as world:
        session = await world.store.create(login())
        assert (session.expires_at, session.ends_at) == (0, 0)
        rotated = await world.store.rotate(session.id, 0)
        assert rotated.outcome is Outcome.ROTATED
        assert len(await world.names()) == 2
        for name in await world.names():
            assert await world.ends_at(name) is None
        await world.store.end(session.id)
        assert await world.names() == set()


@in_loop
async def test_an_endless_session_beside_an_ending_one_keeps_the_index_without_ttl(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, refresh_ttl=0, session_ttl=0) as endless, opened(url, prefix) as world:
        forever = await endless.store.create(login())
        ending = await world.store.create(login())
        index = Keyspace(prefix).user("u-1")
        assert await world.ends_at(index) is None
        await world.store.end(forever.id)
        assert await world.ends_at(index) == pytest.approx(ending.expires_at, abs=0.02)


@in_loop
async def test_the_absolute_end_caps_what_a_refresh_renews(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, refresh_ttl=600, session_ttl=1000) as world:
        session = await world.store.create(login())
        clock.push(599)
        after = (await world.store.rotate(session.id, 0)).session
        assert after is not None
        assert after.expires_at == after.ends_at == session.created_at + 1000


@in_loop
async def test_a_session_with_an_absolute_end_alone_ends_then(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, refresh_ttl=0, session_ttl=1000) as world:
        session = await world.store.create(login())
        assert session.expires_at == session.created_at + 1000
        clock.push(1000)
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.EXPIRED


@in_loop
async def test_a_shorter_absolute_end_holds_for_sessions_that_are_there(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as before, opened(url, prefix, clock, session_ttl=60) as after:
        session = await before.store.create(login())
        clock.push(60)
        assert (await after.store.rotate(session.id, 0)).outcome is Outcome.EXPIRED
        assert await after.names() == set()


@in_loop
async def test_an_expired_session_is_gone_and_leaves_nothing_behind(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        clock.push(600)
        assert await world.store.get(session.id) is None
        assert await world.store.list("u-1") == []
        rotation = await world.store.rotate(session.id, 0)
        assert rotation.outcome is Outcome.EXPIRED
        assert rotation.session is not None
        assert rotation.session.subject == "u-1"
        assert await world.names() == set()
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN


@in_loop
async def test_redis_itself_drops_every_key_when_the_session_ends(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix, refresh_ttl=1, leeway=0) as world:
        session = await world.store.create(login())
        await world.store.revoke_token(session.id[0] + "x" * 20, int(time.time()) + 1)
        assert len(await world.names()) == 3
        deadline = time.monotonic() + 5
        while await world.names():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert time.time() >= session.expires_at
        assert await world.store.get(session.id) is None


@in_loop
async def test_ending_a_session_leaves_nothing_behind_and_can_be_repeated(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        assert await world.store.end(session.id) is True
        assert await world.names() == set()
        assert await world.store.end(session.id) is False
        assert await world.store.get(session.id) is None


@in_loop
async def test_a_rotation_after_an_end_is_refused(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        await world.store.end(session.id)
        rotation = await world.store.rotate(session.id, 0)
        assert (rotation.outcome, rotation.session) == (Outcome.UNKNOWN, None)
        assert await world.names() == set()


@in_loop
async def test_an_end_among_concurrent_rotations_is_final(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        rotations = [world.store.rotate(session.id, 0) for _ in range(20)]
        await asyncio.gather(*rotations[:10], world.store.end(session.id), *rotations[10:])
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN
        assert await world.names() == set()


@in_loop
async def test_ending_all_sessions_names_them_and_can_keep_one(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        sessions = [await world.store.create(login()) for _ in range(4)]
        stranger = await world.store.create(login("u-2"))
        ended = await world.store.end_all("u-1", keep=sessions[0].id)
        assert sorted(ended) == sorted(session.id for session in sessions[1:])
        assert [session.id for session in await world.store.list("u-1")] == [sessions[0].id]
        assert await world.store.end_all("u-1") == [sessions[0].id]
        assert await world.store.end_all("u-1") == []
        assert await world.store.get(stranger.id) == stranger


@in_loop
async def test_keeping_the_session_of_another_user_keeps_none_of_ones_own(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        mine, theirs = await world.store.create(login()), await world.store.create(login("u-2"))
        assert await world.store.end_all("u-1", keep=theirs.id) == [mine.id]


@in_loop
async def test_a_token_that_has_expired_is_not_put_on_the_blacklist(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        await world.store.revoke_token("0" * 20, int(time.time()) - 11)
        assert await world.names() == set()
        await world.store.revoke_token("0" * 20, int(time.time()) - 5)  # within the leeway it still passes
        assert len(await world.names()) == 1


@in_loop
async def test_the_epoch_is_born_once_and_has_no_ttl(url: Endpoint, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        key = Keyspace(prefix).epoch(session.id[0])
        born = await world.raw.get(key)
        clock.push(100)
        await world.store.create(login())
        assert await world.raw.get(key) == born == b"%d 0 " % session.created_at
        assert await world.ends_at(key) is None
