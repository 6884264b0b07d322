"""A primary that sentinels name: found, left when it is one no more, found again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import Address, Credentials, parse_url
from gateway.sessions.liveness import Verdict
from gateway.sessions.sentinel import Sentinels
from tests.redis_server import RedisServer, free_port, redis_server
from tests.redis_topologies import SERVICE, Watched, replicate, sentinels
from tests.sessions.world import checking, eventually, in_loop, login, opened

TIMEOUT = 0.5
RIGHTS = ["-@all", "+hello", "+auth", "+sentinel|get-master-addr-by-name"]  # as in docs/deployment.md


@pytest.fixture
def watched() -> Iterator[Watched]:
    with sentinels(3) as running:
        yield running


async def until_named(watched: Watched, port: int) -> float:
    """Wait until the sentinels name a primary; return when."""
    async with asyncio.timeout(60):
        while await asyncio.to_thread(watched.named) != port:  # noqa: ASYNC110  # nobody announces it
            await asyncio.sleep(0.02)
    return time.monotonic()


@in_loop
async def test_when_the_primary_dies_the_service_is_back_within_a_second_of_the_next_and_nobody_is_refused(
    watched: Watched, prefix: str
) -> None:
    endpoint = parse_url(watched.url)
    async with opened(endpoint, prefix, timeout=TIMEOUT) as world, checking(endpoint, prefix, timeout=TIMEOUT) as live:
        session = await world.store.create(login())
        keys = live.keys(session.id, session.id[0] + "t" * 22)
        assert await live.verdict(keys) is Verdict.ALIVE
        replicate(watched.primary)
        seen: list[Verdict] = []
        watched.primary.stop()
        named = asyncio.ensure_future(until_named(watched, watched.replica.port))
        back_at = 0.0
        while not (named.done() and seen[-1] is Verdict.ALIVE):
            began = time.monotonic()
            seen.append(await live.verdict(keys))
            back_at = time.monotonic()
            assert back_at - began < TIMEOUT + 0.5
            assert not named.done() or back_at - named.result() < 5
            await asyncio.sleep(0.01)
        assert back_at - named.result() < 1
        assert set(seen) == {Verdict.UNAVAILABLE, Verdict.ALIVE}
        assert (await world.store.rotate(session.id, 0)).outcome == "rotated"
        await world.store.end(session.id)
        assert await live.verdict(keys) is Verdict.ENDED


@in_loop
async def test_a_primary_that_was_replaced_while_it_was_well_is_left_at_once(watched: Watched, prefix: str) -> None:
    """A failover on command, in traffic: what was ended on the new primary never passes on the old one."""
    endpoint = parse_url(watched.url)
    async with opened(endpoint, prefix, timeout=TIMEOUT) as world, checking(endpoint, prefix, timeout=TIMEOUT) as live:
        sessions = [await world.store.create(login(f"u-{number}")) for number in range(20)]
        replicate(watched.primary)
        watched.fail_over()
        async with asyncio.timeout(60):
            for session in sessions:
                await ended(world.store, session.id)
                verdict = await live.alive(session.id, session.id[0] + "t" * 22)
                assert verdict is not Verdict.ALIVE
                await asyncio.sleep(0.1)
            await until_named(watched, watched.replica.port)
            while await live.alive(sessions[0].id, sessions[0].id[0] + "t" * 22) is Verdict.UNAVAILABLE:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def ended(store: object, session_id: str) -> None:
    """End a session, however often it takes."""
    while True:
        try:
            await store.end(session_id)  # type: ignore[attr-defined]
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return


@in_loop
async def test_a_server_that_was_made_a_replica_answers_no_ask_more(prefix: str, own_redis: RedisServer) -> None:
    """Without sentinels too: its own word is asked with every batch."""
    with redis_server() as other:
        async with (
            opened(own_redis.url, prefix, timeout=TIMEOUT) as world,
            checking(own_redis.url, prefix, timeout=TIMEOUT) as live,
        ):
            session = await world.store.create(login())
            keys = live.keys(session.id, session.id[0] + "t" * 22)
            assert await live.verdict(keys) is Verdict.ALIVE
            with own_redis.client() as admin:
                admin.replicaof("127.0.0.1", str(other.port))
                assert await live.verdict(keys) is Verdict.UNAVAILABLE
                with pytest.raises(StoreUnavailable):
                    await world.store.mark_used(session.id, 0)
                admin.replicaof("NO", "ONE")
            await eventually(lambda: live.up)
            assert await live.verdict(keys) is not Verdict.UNAVAILABLE


@in_loop
async def test_without_an_answer_of_a_sentinel_all_is_unavailable_in_time(prefix: str) -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/{SERVICE}"
    async with (
        opened(url, prefix, timeout=TIMEOUT) as world,
        checking(url, prefix, timeout=TIMEOUT, ready=False) as live,
    ):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await world.store.create(login())
        assert await live.alive("0" * 23, "0" * 23) is Verdict.UNAVAILABLE
        assert time.monotonic() - began < 2 * TIMEOUT + 1


@in_loop
async def test_the_loss_of_the_sentinels_costs_nothing_while_the_primary_stands(watched: Watched, prefix: str) -> None:
    async with opened(watched.url, prefix) as world, checking(watched.url, prefix) as live:
        session = await world.store.create(login())
        for each in watched.sentinels:
            each.stop()
        for _ in range(30):
            assert await live.alive(session.id, session.id[0] + "t" * 22) is Verdict.ALIVE
            assert await world.store.get(session.id) is not None
            await asyncio.sleep(0.1)


@in_loop
async def test_the_sentinels_have_a_user_of_their_own(watched: Watched, prefix: str) -> None:
    for each in watched.sentinels:
        with each.client() as admin:
            admin.execute_command("ACL", "SETUSER", "asker", "on", ">pw", *RIGHTS)
            admin.execute_command("ACL", "SETUSER", "default", "off")
    with_user = parse_url(watched.url, sentinel_username="asker", sentinel_password="pw")
    async with opened(with_user, prefix) as world, checking(with_user, prefix) as live:
        session = await world.store.create(login())
        assert await live.alive(session.id, session.id[0] + "t" * 22) is Verdict.ALIVE
    async with opened(watched.url, prefix, timeout=TIMEOUT) as world:
        with pytest.raises(StoreUnavailable):
            await world.store.ping()


class Said(Sentinels):
    """Sentinels whose answers are given: an address, None for silence, a number of seconds to wait first."""

    def __init__(self, *answers: tuple[str | None, float]) -> None:
        nodes = tuple(Address("sentinel", number + 1) for number in range(len(answers)))
        super().__init__(replace(parse_url("redis+sentinel://h/s"), nodes=nodes), 0.5)
        self._answers = answers

    async def _ask(self, node: Address) -> Address | None:
        host, seconds = self._answers[node.port - 1]
        await asyncio.sleep(seconds)
        return None if host is None else Address(host, 1)


@pytest.mark.parametrize(
    ("answers", "host"),
    [
        ([("a", 0)], "a"),
        ([("old", 0), ("new", 0.01), ("new", 0.02)], "new"),
        ([(None, 0), ("a", 0.02), (None, 60)], "a"),
        ([("a", 0), ("a", 0), ("b", 60)], "a"),
        ([(None, 0), (None, 0)], None),
    ],
)
@in_loop
async def test_what_most_sentinels_name_is_the_primary(
    answers: list[tuple[str | None, float]], host: str | None
) -> None:
    asked = Said(*answers)
    async with asyncio.timeout(10):
        if host is None:
            with pytest.raises(ConnectionError):
                await asked.primary()
        else:
            assert await asked.primary() == Address(host, 1)


def test_the_credentials_of_the_sentinels_are_not_those_of_the_servers() -> None:
    endpoint = parse_url("redis+sentinel://bob:p@h/s", sentinel_username="eve", sentinel_password="q")
    assert (endpoint.auth, endpoint.sentinel_auth) == (Credentials("bob", "p"), Credentials("eve", "q"))
    with pytest.raises(ValueError, match="sentinel"):
        parse_url("redis://h", sentinel_password="q")
