"""The contract of the store, on fakeredis and on a real Redis."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gateway.sessions.keyspace import Keyspace, partition
from gateway.sessions.store import NewIdentity, NewSession, SessionPolicy
from gateway.tokens.rotation import Outcome
from tests.sessions.world import POLICY, Clock, in_loop, login, opened

FULL = NewSession(
    subject="u-1",
    device="laptop",
    user_agent="Mozilla/5.0 (X11; Linux x86_64)",
    ip="203.0.113.7",
    roles=("user", "admin"),
    scope="orders:read orders:write",
    claims={"email": "alice@example.com", "nested": {"list": [1, 2.5, None, True]}},
    credential_version="v7",
)


@in_loop
async def test_a_session_is_read_back_as_it_was_created(url: str, prefix: str) -> None:
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
async def test_a_session_id_begins_with_the_partition_of_its_user(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        for number in range(20):
            session = await world.store.create(login(f"u-{number}"))
            assert session.id[0] == partition(f"u-{number}")
            assert len(session.id) == 23


@in_loop
async def test_every_key_of_one_session_lies_in_one_slot(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        assert {name.split(":")[1] for name in await world.names()} == {"{%s}" % session.id[0]}


@in_loop
async def test_every_key_ends_with_what_it_stands_for(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        other = await world.store.create(login("u-2"))
        token_end = int(time.time()) + 100
        await world.store.revoke_token(session.id[0] + "x" * 20, token_end)
        keys = Keyspace(prefix)
        expected = {
            keys.session(session.id): session.expires_at,
            keys.alive(session.id): session.expires_at,
            keys.user("u-1"): session.expires_at,
            keys.user("u-2"): other.expires_at,
            keys.revoked(session.id[0] + "x" * 20): token_end + 10,
        }
        for key, end in expected.items():
            assert await world.ends_at(key) == pytest.approx(end, abs=0.02), key


@in_loop
async def test_a_rotation_moves_the_end_of_every_key(url: str, prefix: str) -> None:
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
async def test_the_users_index_lives_as_long_as_the_latest_of_the_sessions(url: str, prefix: str) -> None:
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
async def test_a_session_that_never_ends_has_no_ttl(url: str, prefix: str) -> None:
    async with opened(url, prefix, refresh_ttl=0, session_ttl=0) as world:
        session = await world.store.create(login())
        assert (session.expires_at, session.ends_at) == (0, 0)
        rotated = await world.store.rotate(session.id, 0)
        assert rotated.outcome is Outcome.ROTATED
        assert len(await world.names()) == 3
        for name in await world.names():
            assert await world.ends_at(name) is None
        await world.store.end(session.id)
        assert await world.names() == set()


@in_loop
async def test_an_endless_session_beside_an_ending_one_keeps_the_index_without_ttl(url: str, prefix: str) -> None:
    async with opened(url, prefix, refresh_ttl=0, session_ttl=0) as endless, opened(url, prefix) as world:
        forever = await endless.store.create(login())
        ending = await world.store.create(login())
        index = Keyspace(prefix).user("u-1")
        assert await world.ends_at(index) is None
        await world.store.end(forever.id)
        assert await world.ends_at(index) == pytest.approx(ending.expires_at, abs=0.02)


@in_loop
async def test_the_absolute_end_caps_what_a_refresh_renews(url: str, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, refresh_ttl=600, session_ttl=1000) as world:
        session = await world.store.create(login())
        clock.push(599)
        after = (await world.store.rotate(session.id, 0)).session
        assert after is not None
        assert after.expires_at == after.ends_at == session.created_at + 1000


@in_loop
async def test_a_session_with_an_absolute_end_alone_ends_then(url: str, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock, refresh_ttl=0, session_ttl=1000) as world:
        session = await world.store.create(login())
        assert session.expires_at == session.created_at + 1000
        clock.push(1000)
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.EXPIRED


@in_loop
async def test_a_shorter_absolute_end_holds_for_sessions_that_are_there(url: str, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as before, opened(url, prefix, clock, session_ttl=60) as after:
        session = await before.store.create(login())
        clock.push(60)
        assert (await after.store.rotate(session.id, 0)).outcome is Outcome.EXPIRED
        assert await after.names() == set()


@in_loop
async def test_an_expired_session_is_gone_and_leaves_nothing_behind(url: str, prefix: str) -> None:
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
async def test_redis_itself_drops_every_key_when_the_session_ends(url: str, prefix: str) -> None:
    async with opened(url, prefix, refresh_ttl=1, leeway=0) as world:
        session = await world.store.create(login())
        await world.store.revoke_token(session.id[0] + "x" * 20, int(time.time()) + 1)
        assert len(await world.names()) == 4
        deadline = time.monotonic() + 5
        while await world.names():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert time.time() >= session.expires_at
        assert await world.store.get(session.id) is None


@in_loop
async def test_ending_a_session_leaves_nothing_behind_and_can_be_repeated(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        assert await world.store.end(session.id) is True
        assert await world.names() == set()
        assert await world.store.end(session.id) is False
        assert await world.store.get(session.id) is None


@in_loop
async def test_a_rotation_after_an_end_is_refused(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        await world.store.end(session.id)
        rotation = await world.store.rotate(session.id, 0)
        assert (rotation.outcome, rotation.session) == (Outcome.UNKNOWN, None)
        assert await world.names() == set()


@in_loop
async def test_an_end_among_concurrent_rotations_is_final(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        rotations = [world.store.rotate(session.id, 0) for _ in range(20)]
        await asyncio.gather(*rotations[:10], world.store.end(session.id), *rotations[10:])
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN
        assert await world.names() == set()


@in_loop
async def test_ending_all_sessions_names_them_and_can_keep_one(url: str, prefix: str) -> None:
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
async def test_keeping_the_session_of_another_user_keeps_none_of_ones_own(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        mine, theirs = await world.store.create(login()), await world.store.create(login("u-2"))
        assert await world.store.end_all("u-1", keep=theirs.id) == [mine.id]


@in_loop
async def test_fifty_concurrent_rotations_with_one_token_give_one_successor(url: str, prefix: str) -> None:
    async with opened(url, prefix, timeout=5) as world:
        session = await world.store.create(login())
        rotations = await asyncio.gather(*(world.store.rotate(session.id, 0) for _ in range(50)))
        outcomes = [rotation.outcome for rotation in rotations]
        assert outcomes.count(Outcome.ROTATED) == 1
        assert outcomes.count(Outcome.REPLAYED) == 49
        assert len({repr(rotation.session) for rotation in rotations}) == 1
        assert {rotation.session.counter for rotation in rotations if rotation.session} == {1}


@in_loop
async def test_a_lost_answer_can_be_asked_for_until_its_successor_was_used(url: str, prefix: str) -> None:
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
async def test_a_replay_renews_nothing(url: str, prefix: str) -> None:
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
async def test_a_mark_of_an_older_counter_or_a_second_mark_changes_nothing(url: str, prefix: str) -> None:
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
async def test_a_mark_tells_when_the_session_was_last_used_and_keeps_its_ttl(url: str, prefix: str) -> None:
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
async def test_marking_a_session_that_has_ended_brings_nothing_back(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        await world.store.end(session.id)
        await world.store.mark_used(session.id, 0)
        assert await world.names() == set()


@in_loop
async def test_a_counter_ahead_of_the_store_ends_the_session(url: str, prefix: str) -> None:
    """A store that was rolled back to a copy of itself cannot tell old tokens from new ones."""
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        assert (await world.store.rotate(session.id, 5)).outcome is Outcome.REUSE
        assert await world.names() == set()


@in_loop
async def test_a_record_without_its_alive_key_is_never_revived(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        await world.raw.delete(Keyspace(prefix).alive(session.id))
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN
        assert await world.names() == set()


@in_loop
async def test_a_record_that_cannot_be_read_is_no_session(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        key = Keyspace(prefix).session(session.id)
        good = await world.raw.get(key)
        for bad in (b"", b"x", good[:20], good.replace(b" ", b"\n"), b"-1" + good, good + b"\n{}", b"\xff\xfe"):
            await world.raw.set(key, bad)
            assert await world.store.get(session.id) is None
            assert await world.store.list("u-1") == []
            await world.store.mark_used(session.id, 0)
            assert await world.raw.get(key) == bad
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN
        assert await world.raw.exists(key, Keyspace(prefix).alive(session.id)) == 0


@in_loop
async def test_a_login_on_a_device_replaces_the_session_there(url: str, prefix: str) -> None:
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
async def test_logins_without_a_device_name_stand_side_by_side(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        for _ in range(3):
            await world.store.create(login())
        assert len(await world.store.list("u-1")) == 3


@in_loop
async def test_over_the_cap_the_least_recently_used_session_ends(url: str, prefix: str) -> None:
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
        assert await world.raw.exists(Keyspace(prefix).alive(sessions[2].id)) == 0


@in_loop
async def test_concurrent_logins_never_pass_the_cap(url: str, prefix: str) -> None:
    async with opened(url, prefix, timeout=5, max_sessions=3) as world:
        await asyncio.gather(*(world.store.create(login()) for _ in range(20)))
        assert len(await world.store.list("u-1")) == 3
        assert len(await world.names()) == 3 + 3 + 1


@in_loop
async def test_replacing_a_device_at_the_cap_ends_no_other_session(url: str, prefix: str) -> None:
    async with opened(url, prefix, max_sessions=2) as world:
        phone = await world.store.create(login(device="phone"))
        await world.store.create(login(device="laptop"))
        await world.store.create(login(device="laptop"))
        assert await world.store.get(phone.id) == phone


@in_loop
async def test_the_list_is_the_users_own_and_the_latest_used_comes_first(url: str, prefix: str) -> None:
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
async def test_a_recheck_takes_the_place_of_what_the_session_held(url: str, prefix: str) -> None:
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
async def test_a_role_that_was_taken_away_does_not_come_back_in_a_replay(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(FULL)
        await world.store.rotate(session.id, 0)
        demoted = NewIdentity(roles=(), scope="", claims={}, credential_version="v7")
        replayed = await world.store.rotate(session.id, 0, refreshed=demoted)
        assert replayed.outcome is Outcome.REPLAYED
        assert replayed.session is not None
        assert replayed.session.roles == ()
        assert await world.ends_at(Keyspace(prefix).session(session.id)) is not None


@pytest.mark.parametrize("subject", ["é" * 255, "u:{1}:x", 'a"b\\c', "%s %d", "  ", "用户", "-1"])
@in_loop
async def test_a_subject_may_be_any_text(url: str, prefix: str, subject: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login(subject, device="d"))
        rotated = await world.store.rotate(session.id, 0)
        assert rotated.session is not None
        assert rotated.session.subject == subject
        assert await world.store.list(subject) == [rotated.session]
        assert await world.store.end(session.id)
        assert await world.names() == set()


@pytest.mark.parametrize("subject", ["", "x" * 256, "a\nb", "a\0b", "a\x7fb", "\ud800"])
@in_loop
async def test_a_subject_that_no_record_can_hold_is_refused(prefix: str, subject: str) -> None:
    async with opened("memory://refused", prefix) as world:
        with pytest.raises(ValueError, match="subject must be"):
            await world.store.create(login(subject))


@in_loop
async def test_inputs_of_the_greatest_length_are_kept(url: str, prefix: str) -> None:
    claims = {f"c{number}": "x" * 1000 for number in range(60)}
    new = NewSession("s" * 255, "d" * 255, "a" * 255, "f" * 45, ("r" * 1000,), "s" * 1000, claims, "v" * 255)
    async with opened(url, prefix) as world:
        session = await world.store.create(new)
        assert (session.device, session.claims, session.scope) == (new.device, claims, new.scope)
        assert await world.store.get(session.id) == session


@pytest.mark.parametrize(
    "more",
    [
        {"device": "d" * 256},
        {"claims": {"c": "x" * 65_536}},
        {"claims": {"c": object()}},
        {"claims": {"c": "\ud800"}},
        {"scope": "\ud800"},
    ],
)
@in_loop
async def test_what_is_too_long_or_no_json_is_refused(prefix: str, more: dict[str, Any]) -> None:
    async with opened("memory://refused", prefix) as world:
        with pytest.raises(ValueError, match="must be"):
            await world.store.create(NewSession("u-1", **more))


@in_loop
async def test_what_a_client_says_of_itself_is_cut_and_cleaned(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login(device="a\nb\ud800", user_agent="x\r\n0 0 0" + "y" * 9000, ip="\n"))
        assert (session.device, session.ip) == ("a b?", " ")
        assert session.user_agent.startswith("x  0 0 0y")
        assert len(session.user_agent) == 255
        assert await world.store.get(session.id) == session


@pytest.mark.parametrize("session_id", ["", "x", "g" * 23, "0" * 15, "0" * 65, "0" * 22 + "\n", "0{a}:user:u-1234567"])
@in_loop
async def test_an_id_that_is_none_is_an_unknown_session_and_asks_redis_nothing(prefix: str, session_id: str) -> None:
    async with opened("redis://127.0.0.1:1", prefix) as world:
        assert await world.store.get(session_id) is None
        assert await world.store.end(session_id) is False
        assert (await world.store.rotate(session_id, 0)).outcome is Outcome.UNKNOWN
        await world.store.mark_used(session_id, 0)


@in_loop
async def test_a_token_that_has_expired_is_not_put_on_the_blacklist(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        await world.store.revoke_token("0" * 20, int(time.time()) - 11)
        assert await world.names() == set()
        await world.store.revoke_token("0" * 20, int(time.time()) - 5)  # within the leeway it still passes
        assert len(await world.names()) == 1


@pytest.mark.parametrize("token_id", ["urn:uuid:1234", "é", "\ud800", "0" * 255, "{b}"])
@in_loop
async def test_a_token_of_another_maker_can_be_revoked(url: str, prefix: str, token_id: str) -> None:
    async with opened(url, prefix) as world:
        await world.store.revoke_token(token_id, 2**62)
        assert await world.raw.exists(Keyspace(prefix).revoked(token_id)) == 1


@pytest.mark.parametrize("token_id", ["", "0" * 256])
@in_loop
async def test_a_token_id_that_is_none_is_refused(prefix: str, token_id: str) -> None:
    async with opened("memory://refused", prefix) as world:
        with pytest.raises(ValueError, match="token id"):
            await world.store.revoke_token(token_id, 2**40)


@in_loop
async def test_the_epoch_is_born_once_and_has_no_ttl(url: str, prefix: str) -> None:
    clock = Clock()
    async with opened(url, prefix, clock) as world:
        session = await world.store.create(login())
        key = Keyspace(prefix).epoch(session.id[0])
        born = await world.raw.get(key)
        clock.push(100)
        await world.store.create(login())
        assert await world.raw.get(key) == born == b"%d" % session.created_at
        assert await world.ends_at(key) is None


@in_loop
async def test_scripts_that_redis_forgot_are_sent_again(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        await world.raw.script_flush()
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.ROTATED


@in_loop
async def test_two_prefixes_on_one_redis_know_nothing_of_each_other(url: str, prefix: str) -> None:
    async with opened(url, prefix) as one, opened(url, prefix + "b") as other:
        session = await one.store.create(login())
        assert await other.store.get(session.id) is None
        assert await other.store.end_all("u-1") == []
        assert await one.store.get(session.id) == session


def test_a_policy_that_cannot_be_kept_is_refused() -> None:
    for bad in ({"refresh_ttl": 0.5}, {"session_ttl": -1}, {"grace": -1}, {"leeway": -1}, {"max_sessions": -1}):
        with pytest.raises(ValueError, match="must"):
            SessionPolicy(**{name: getattr(POLICY, name) for name in POLICY.__slots__} | bad)
