"""What watched streams rest on: an epoch that tells every ending, and the end of a session as its record says it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.sessions.connect import Endpoint
from gateway.sessions.keyspace import partition
from gateway.sessions.liveness import EpochKeys, Liveness, Verdict
from gateway.sessions.record import Session
from tests.sessions.world import World, checking, in_loop, login, opened

DAY = 86_400


async def epoch(live: Liveness, keys: EpochKeys) -> bytes:
    """Return the epoch as a look finds it."""
    assert await live.verdict(keys) is Verdict.ALIVE
    return keys.value


Act = Callable[[World, Session], Awaitable[object]]
ENDINGS: dict[str, Act] = {
    "end": lambda world, session: world.store.end(session.id),
    "end all": lambda world, _: world.store.end_all("u-1"),
    "reuse": lambda world, session: world.store.rotate(session.id, 7),
    "the device again": lambda world, _: world.store.create(login(device="laptop")),
    "a token": lambda world, session: world.store.revoke_token(session.id[0] + "t" * 22, int(time.time()) + 60),
    "a subject elsewhere": lambda world, session: world.store.set_not_before(session.id[0] + "s", int(time.time()), 60),
}
OTHERS: dict[str, Act] = {
    "rotate": lambda world, session: world.store.rotate(session.id, 0),
    "mark used": lambda world, session: world.store.mark_used(session.id, 0),
    "another login": lambda world, _: world.store.create(login()),
    "look": lambda world, session: world.store.get(session.id),
    "list": lambda world, _: world.store.list("u-1"),
    "a session that is none": lambda world, session: world.store.end(session.id[0] + "x" * 22),
}


@pytest.mark.parametrize("act", ENDINGS)
@in_loop
async def test_whatever_ends_something_changes_the_epoch_of_its_partition(url: str, prefix: str, act: str) -> None:
    async with opened(url, prefix) as world, checking(url, prefix) as live:
        session = await world.store.create(login(device="laptop"))
        keys = live.epoch(int(session.id[0], 16))
        before = await epoch(live, keys)
        assert before
        await ENDINGS[act](world, session)
        assert await epoch(live, keys) != before


@pytest.mark.parametrize("act", OTHERS)
@in_loop
async def test_what_ends_nothing_leaves_the_epoch_as_it_is(url: str, prefix: str, act: str) -> None:
    async with opened(url, prefix) as world, checking(url, prefix) as live:
        session = await world.store.create(login(device="laptop"))
        keys = live.epoch(int(session.id[0], 16))
        before = await epoch(live, keys)
        await OTHERS[act](world, session)
        assert await epoch(live, keys) == before


@in_loop
async def test_an_epoch_that_is_gone_has_changed(url: str, prefix: str) -> None:
    async with opened(url, prefix) as world, checking(url, prefix) as live:
        await world.store.create(login())
        digit = partition("u-1")
        keys = live.epoch(int(digit, 16))
        assert await epoch(live, keys)
        await world.raw.delete(f"{prefix}:{{{digit}}}:epoch")
        assert await epoch(live, keys) == b""


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        ({"refresh_ttl": DAY, "session_ttl": 0}, DAY),
        ({"refresh_ttl": DAY, "session_ttl": 600}, 600),
        ({"refresh_ttl": 0, "session_ttl": 0}, math.inf),
    ],
)
@in_loop
async def test_the_end_of_a_session_is_that_of_the_record_last_seen(
    url: str, prefix: str, policy: dict[str, Any], left: float
) -> None:
    if getattr(url, "kind", "") == "memory":  # which keeps no reply to read it from
        left = -math.inf
    async with opened(url, prefix, **policy) as world, checking(url, prefix) as live:
        session = await world.store.create(login())
        keys = live.keys(session.id, session.id[0] + "t" * 22)
        assert keys.ends() == -math.inf
        assert await live.verdict(keys) is Verdict.ALIVE
        assert keys.ends() == pytest.approx(time.time() + left, abs=10)
        await asyncio.sleep(1.1)  # the record counts seconds
        await world.store.rotate(session.id, 0)
        assert await live.verdict(keys) is Verdict.ALIVE
        assert keys.ends() == pytest.approx(time.time() + left, abs=10)


@in_loop
async def test_the_record_last_seen_says_whether_a_token_was_used(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world, checking(url, prefix) as live:
        session = await world.store.create(login())
        keys = live.keys(session.id, session.id[0] + "t" * 22)
        known = url.kind != "memory"  # which keeps no reply to read it from
        assert [keys.is_used(counter) for counter in (0, 1)] == [False, False]
        await world.store.rotate(session.id, 0)
        assert await live.verdict(keys) is Verdict.ALIVE
        assert [keys.is_used(counter) for counter in (0, 1, 2)] == [known, False, False]
        await world.store.mark_used(session.id, 1)
        assert await live.verdict(keys) is Verdict.ALIVE
        assert [keys.is_used(counter) for counter in (0, 1, 2)] == [known, known, False]
        await world.store.rotate(session.id, 1)
        assert await live.verdict(keys) is Verdict.ALIVE
        assert [keys.is_used(counter) for counter in (1, 2)] == [known, False]
