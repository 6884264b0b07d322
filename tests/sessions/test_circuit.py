"""The store's circuit: while the live check knows that Redis is away, operations are refused without a try."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import open_client, parse_url
from gateway.sessions.endpoint import Endpoint
from gateway.sessions.epochs import Epochs
from gateway.sessions.keyspace import DIGITS
from gateway.sessions.liveness import Liveness, Verdict
from gateway.sessions.store import SessionStore
from tests.redis_server import RedisServer, free_port
from tests.redis_topologies import cluster, replicate, sentinels
from tests.sessions.test_cluster import subject_in, token_of
from tests.sessions.test_outage import OPERATIONS
from tests.sessions.world import eventually, in_loop, login, opened

TIMEOUT = 0.5
CIRCUIT = [name for name in OPERATIONS if name != "ping"]  # whoever asks for that wants to know


class Process:
    """What a gateway process has of one Redis. `asked` are the operations that the store tried."""

    def __init__(self, store: SessionStore, live: Liveness, asked: list[str]) -> None:
        self.store = store
        self.live = live
        self.asked = asked

    async def refuses(self, name: str) -> bool:
        """Try an operation: whether it was refused without asking Redis."""
        self.asked.clear()
        try:
            await OPERATIONS[name](self.store)
        except StoreUnavailable as error:
            return error.retry_after is not None and not self.asked
        return False


@asynccontextmanager
async def process(endpoint: str | Endpoint, prefix: str) -> AsyncIterator[Process]:
    endpoint = parse_url(endpoint) if isinstance(endpoint, str) else endpoint
    client = open_client(endpoint, TIMEOUT)
    epochs = Epochs(client, prefix, TIMEOUT)
    live = Liveness(endpoint, prefix, TIMEOUT, epochs)
    asked: list[str] = []

    def observe(name: str, _: float) -> None:
        asked.append(name)

    try:
        async with opened(
            endpoint, prefix, timeout=TIMEOUT, epochs=epochs, is_down=live.is_down, observe=observe
        ) as world:
            yield Process(world.store, live, asked)
    finally:
        await live.close()
        await client.aclose()


async def all_of(check: Any) -> bool:
    return all([await check(digit) for digit in DIGITS])


@in_loop
async def test_what_is_known_to_be_away_is_not_asked_and_is_asked_again_as_soon_as_it_is_back(
    own_redis: RedisServer, prefix: str
) -> None:
    async with process(own_redis.url, prefix) as made:
        made.live.start()
        await eventually(lambda: made.live.up)
        assert not any([await made.refuses(name) for name in CIRCUIT])
        own_redis.stop()
        await eventually(lambda: made.live.is_down("0"))
        assert all([await made.refuses(name) for name in CIRCUIT])
        assert not await made.refuses("ping")
        own_redis.start()
        await eventually(lambda: made.live.up)
        assert not any([await made.refuses(name) for name in CIRCUIT])


@in_loop
async def test_a_frozen_redis_holds_operations_up_only_until_the_live_check_has_noticed(
    own_redis: RedisServer, prefix: str
) -> None:
    async with process(own_redis.url, prefix) as made:
        made.live.start()
        await eventually(lambda: made.live.up)
        own_redis.pause()
        assert await made.live.alive("0" * 23, token_of("0")) is Verdict.UNAVAILABLE
        await eventually(lambda: made.live.is_down("0"))
        assert all([await made.refuses(name) for name in CIRCUIT])
        own_redis.resume()
        await eventually(lambda: made.live.up)
        assert not any([await made.refuses(name) for name in CIRCUIT])


@in_loop
async def test_where_nobody_looks_whether_redis_is_there_each_operation_asks_it_itself(
    own_redis: RedisServer, prefix: str
) -> None:
    """The command line has no live check, and a gateway that has just started has not tried yet."""
    async with process(own_redis.url, prefix) as made:
        assert not made.live.is_down("0")
        assert not any([await made.refuses(name) for name in CIRCUIT])
        own_redis.stop()
        assert not any([await made.refuses(name) for name in CIRCUIT])


@in_loop
async def test_a_redis_that_was_never_there_is_known_to_be_away_after_the_first_try(prefix: str) -> None:
    async with process(f"redis://127.0.0.1:{free_port()}", prefix) as made:
        made.live.start()
        assert not made.live.is_down("0")
        await eventually(lambda: made.live.is_down("0"))
        assert all([await made.refuses(name) for name in CIRCUIT])


@in_loop
async def test_the_embedded_store_is_never_away(prefix: str) -> None:
    async with process("memory://circuit", prefix) as made:
        made.live.start()
        assert not any([await made.refuses(name) for name in CIRCUIT])


@in_loop
async def test_a_lost_master_is_not_asked_and_the_partitions_of_the_others_are(prefix: str) -> None:
    with cluster() as nodes:
        async with process(nodes.url, prefix) as made:
            made.live.start()
            for digit in DIGITS:
                await made.live.alive(digit + "x" * 22, token_of(digit))
            lost = nodes.partitions(nodes.nodes[0])
            nodes.nodes[0].stop()
            await eventually(lambda: all(made.live.is_down(digit) for digit in lost), 20)
            made.asked.clear()
            for digit in DIGITS:
                sign_in = made.store.create(login(subject_in(digit)))
                if digit in lost:
                    with pytest.raises(StoreUnavailable, match="known not to answer"):
                        await sign_in
                else:
                    await sign_in
            assert made.asked == ["create"] * (len(DIGITS) - len(lost))
            nodes.nodes[0].start()
            await eventually(lambda: not any(made.live.is_down(digit) for digit in lost), 20)
            async with asyncio.timeout(20):
                while not await all_of(functools.partial(_serves, made.store)):  # noqa: ASYNC110  # nobody announces it
                    await asyncio.sleep(0.02)


async def _serves(store: SessionStore, digit: str) -> bool:
    try:
        await store.create(login(subject_in(digit)))
    except StoreUnavailable:
        return False
    return True


@in_loop
async def test_the_primary_that_took_over_is_asked(prefix: str) -> None:
    with sentinels(3) as watched:
        async with process(watched.url, prefix) as made:
            made.live.start()
            await eventually(lambda: made.live.up)
            session = await made.store.create(login())
            replicate(watched.primary)
            watched.primary.stop()
            await eventually(lambda: made.live.is_down("0"), 20)
            assert all([await made.refuses(name) for name in CIRCUIT])
            await eventually(lambda: made.live.up, 60)
            assert await made.store.get(session.id) is not None
