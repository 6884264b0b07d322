"""A cluster: partitions that move while they are asked about, masters that die, nodes that talk nonsense."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import open_client, parse_url
from gateway.sessions.endpoint import Address
from gateway.sessions.epochs import Epochs
from gateway.sessions.keyspace import DIGITS, Keyspace, partition
from gateway.sessions.liveness import Liveness, Verdict
from gateway.sessions.slots import SLOTS, Redirection, owners, redirection
from tests.redis_topologies import Cluster, cluster, replicate
from tests.sessions.world import World, eventually, in_loop, login, opened

TIMEOUT = 1.0


@pytest.fixture
def nodes() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


def subject_in(digit: str, number: int = 0) -> str:
    """Return the name of a user of a partition."""
    while partition(f"u-{number}") != digit:
        number += 1
    return f"u-{number}"


@asynccontextmanager
async def both(nodes: Cluster, prefix: str, timeout: float = TIMEOUT) -> AsyncIterator[tuple[World, Liveness]]:
    """Open what a gateway process has: one endpoint, one memory of the epochs, for store and live checks."""
    endpoint = parse_url(nodes.url)
    client = open_client(endpoint, timeout)
    epochs = Epochs(client, prefix, timeout)
    live = Liveness(endpoint, prefix, timeout, epochs)
    live.start()
    try:
        async with opened(endpoint, prefix, timeout=timeout, epochs=epochs) as world:
            async with asyncio.timeout(20):
                for digit in DIGITS:
                    while await live.alive(digit + "x" * 22, digit + "t" * 22) is not Verdict.ENDED:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
            yield world, live
    finally:
        await live.close()
        await client.aclose()


def token_of(session_id: str) -> str:
    return session_id[0] + "t" * 22


@in_loop
async def test_a_partition_that_moves_under_load_loses_no_check_and_no_operation(nodes: Cluster, prefix: str) -> None:
    """The slot of a partition there and back, key by key, with checks, sign-ins, refreshes and ends all the while."""
    digit = "4"
    async with both(nodes, prefix, timeout=5) as (world, live):
        kept = [await world.store.create(login(subject_in(digit))) for _ in range(20)]
        gone = [await world.store.create(login(subject_in(digit, 1000))) for _ in range(20)]
        for session in gone:
            await world.store.end(session.id)
        moving, seen = asyncio.Event(), 0

        async def ask() -> None:
            nonlocal seen
            while not moving.is_set():
                for session in kept:
                    assert await live.alive(session.id, token_of(session.id)) is Verdict.ALIVE
                for session in gone:
                    assert await live.alive(session.id, token_of(session.id)) is Verdict.ENDED
                seen += len(kept) + len(gone)

        async def work(number: int) -> None:
            while not moving.is_set():
                session = await world.store.create(login(subject_in(digit, 2000 + 100 * number)))
                assert await live.alive(session.id, token_of(session.id)) is Verdict.ALIVE
                assert (await world.store.rotate(session.id, 0)).outcome == "rotated"
                assert await world.store.end(session.id) is True
                assert await live.alive(session.id, token_of(session.id)) is Verdict.ENDED

        tasks = [asyncio.ensure_future(ask()) for _ in range(3)]
        tasks += [asyncio.ensure_future(work(number)) for number in range(3)]
        for _ in range(4):
            await asyncio.to_thread(move_slowly, nodes, digit)
        moving.set()
        await asyncio.gather(*tasks)
        assert seen > 100


def move_slowly(nodes: Cluster, digit: str) -> None:
    """Move a partition to the next master, a few keys at a time."""
    source = nodes.owner(digit)
    target = nodes.nodes[(nodes.nodes.index(source) + 1) % 3]
    nodes.begin_move(digit, source, target)
    while nodes.move_keys(digit, source, target, 5):
        time.sleep(0.01)
    nodes.end_move(digit, target)
    time.sleep(0.3)


@in_loop
async def test_a_partition_that_stays_half_moved_is_still_asked_about(nodes: Cluster, prefix: str) -> None:
    """Operations of several keys are refused by Redis for so long; live checks are answered, and exactly."""
    digit = "9"
    async with both(nodes, prefix) as (world, live):
        sessions = [await world.store.create(login(subject_in(digit), device=f"d{n}")) for n in range(10)]
        source = nodes.owner(digit)
        target = next(node for node in nodes.nodes if node is not source)
        nodes.begin_move(digit, source, target)
        nodes.move_keys(digit, source, target, 6)
        for _ in range(5):
            found = await asyncio.gather(*(live.alive(each.id, token_of(each.id)) for each in sessions))
            assert found == [Verdict.ALIVE] * 10
        assert await live.alive(digit + "x" * 22, digit + "t" * 22) is Verdict.ENDED
        with pytest.raises(StoreUnavailable):
            await world.store.create(login(subject_in(digit)))
        while nodes.move_keys(digit, source, target, 100):
            pass
        nodes.end_move(digit, target)
        assert await world.store.end(sessions[0].id) is True
        assert await live.alive(sessions[0].id, token_of(sessions[0].id)) is Verdict.ENDED
        assert await live.alive(sessions[1].id, token_of(sessions[1].id)) is Verdict.ALIVE


@in_loop
async def test_the_death_of_a_master_is_told_to_its_partitions_alone(nodes: Cluster, prefix: str) -> None:
    async with both(nodes, prefix, timeout=0.5) as (world, live):
        sessions = {digit: await world.store.create(login(subject_in(digit))) for digit in DIGITS}
        dead = nodes.owner("0")
        lost = nodes.partitions(dead)
        dead.stop()
        for _ in range(20):
            for digit, session in sessions.items():
                verdict = await live.alive(session.id, token_of(session.id))
                assert verdict is (Verdict.UNAVAILABLE if digit in lost else Verdict.ALIVE)
                if digit not in lost:
                    assert await world.store.get(session.id) is not None
            with pytest.raises(StoreUnavailable):
                await world.store.get(sessions["0"].id)
        assert live.up
        async with both_again(nodes, prefix, lost) as fresh:  # one that starts in the outage
            for digit, session in sessions.items():
                if digit not in lost:
                    assert await fresh.alive(session.id, token_of(session.id)) is Verdict.ALIVE
        dead.start()
        await heard(live, sessions["0"].id)
        assert await live.alive(sessions["0"].id, token_of(sessions["0"].id)) is Verdict.ENDED  # it lost its data


@asynccontextmanager
async def both_again(nodes: Cluster, prefix: str, lost: str) -> AsyncIterator[Liveness]:
    endpoint = parse_url(nodes.url)
    client = open_client(endpoint, TIMEOUT)
    live = Liveness(endpoint, prefix, TIMEOUT, Epochs(client, prefix, TIMEOUT))
    live.start()
    try:
        for digit in DIGITS:
            if digit not in lost:
                await heard(live, digit + "x" * 22)
        yield live
    finally:
        await live.close()
        await client.aclose()


async def heard(live: Liveness, session_id: str) -> None:
    """Wait until a partition is asked about."""
    async with asyncio.timeout(20):
        while await live.alive(session_id, token_of(session_id)) is Verdict.UNAVAILABLE:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@in_loop
async def test_a_frozen_master_delays_nobody_elses_check(nodes: Cluster, prefix: str) -> None:
    async with both(nodes, prefix, timeout=2) as (world, live):
        frozen = nodes.owner("0")
        lost = nodes.partitions(frozen)
        other = next(digit for digit in DIGITS if digit not in lost)
        session = await world.store.create(login(subject_in(other)))
        frozen.pause()
        waiting = asyncio.ensure_future(live.alive("0" * 23, "0" * 23))
        for _ in range(50):
            assert await live.alive(session.id, token_of(session.id)) is Verdict.ALIVE
        assert not waiting.done()
        assert await waiting is Verdict.UNAVAILABLE
        frozen.resume()


@in_loop
async def test_when_a_replica_takes_over_the_partition_is_served_again(prefix: str) -> None:
    with cluster(replicas=3) as nodes:
        async with both(nodes, prefix, timeout=0.5) as (world, live):
            session = await world.store.create(login(subject_in("0")))
            dead = nodes.owner("0")
            replicate(dead, "{0}:fence")
            dead.stop()
            began = time.monotonic()
            async with asyncio.timeout(60):
                while (verdict := await live.alive(session.id, token_of(session.id))) is not Verdict.ALIVE:
                    assert verdict is Verdict.UNAVAILABLE
                    assert time.monotonic() - began < 50
                    await asyncio.sleep(0.02)
            async with asyncio.timeout(10):
                await ended(world, session.id)
            assert await live.alive(session.id, token_of(session.id)) is Verdict.ENDED


async def ended(world: World, session_id: str) -> None:
    while True:
        try:
            await world.store.end(session_id)
        except StoreUnavailable:
            await asyncio.sleep(0.02)
        else:
            return


@in_loop
async def test_with_wait_replicas_an_end_waits_for_the_replica_of_the_partition(prefix: str) -> None:
    with cluster(replicas=1) as nodes:  # of the first master alone
        first = nodes.nodes[0]
        mine = nodes.partitions(first)
        other = next(digit for digit in DIGITS if digit not in mine)
        async with opened(nodes.url, prefix, timeout=2.0, wait_replicas=1) as world:
            held, unheld = [await world.store.create(login(subject_in(digit))) for digit in (mine[0], other)]
            assert await world.store.end(held.id) is True
            with nodes.nodes[3].client() as copy:
                copy.execute_command("READONLY")
                assert not copy.exists(Keyspace(prefix).session(held.id))
            with pytest.raises(StoreUnavailable, match="too few replicas"):
                await world.store.end(unheld.id)


@in_loop
async def test_redirections_that_go_round_are_followed_a_few_times_and_no_further(prefix: str) -> None:
    counts = [0, 0]
    ports: list[int] = []

    async def serve(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            for command in data.split(b"\r\n*"):
                writer.write(reply(number, command))
        writer.close()

    def reply(number: int, data: bytes) -> bytes:
        if b"HELLO" in data:
            return b"*2\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        if b"SLOTS" in data:
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % ports[number]
        counts[number] += 1
        return b"-MOVED 1 127.0.0.1:%d\r\n" % ports[1 - number]

    servers = [await asyncio.start_server(partial(serve, number), "127.0.0.1", 0) for number in range(2)]
    ports += [server.sockets[0].getsockname()[1] for server in servers]
    url = f"redis+cluster://127.0.0.1:{ports[0]}"
    async with opened(url, prefix, timeout=0.5) as world:
        with pytest.raises(StoreUnavailable):
            await world.store.get("0" * 23)
        assert sum(counts) <= 20
        client = open_client(url, 0.5)
        live = Liveness(url, prefix, 0.5, Epochs(client, prefix, 0.5))
        live.start()
        began = time.monotonic()
        assert await live.alive("0" * 23, "0" * 23) is Verdict.UNAVAILABLE
        assert time.monotonic() - began < 1.5
        await live.close()
        await client.aclose()
    for server in servers:
        server.close()
    await asyncio.sleep(0.05)  # their handlers see the end of their connections


@in_loop
async def test_without_any_node_all_is_unavailable_and_heals_when_they_come(nodes: Cluster, prefix: str) -> None:
    async with both(nodes, prefix, timeout=0.5) as (world, live):
        for node in nodes.nodes:
            node.stop()
        began = time.monotonic()
        assert await live.alive("0" * 23, "0" * 23) is Verdict.UNAVAILABLE
        with pytest.raises(StoreUnavailable):
            await world.store.create(login())
        with pytest.raises(StoreUnavailable):
            await world.store.ping()
        assert time.monotonic() - began < 3
        await eventually(lambda: not live.up)
        for node in nodes.nodes:
            node.start()
        await heard(live, "0" * 23)
        await world.store.create(login())


def test_every_partition_has_a_slot_of_its_own() -> None:
    assert len(set(SLOTS.values())) == 16
    assert (SLOTS["0"], SLOTS["9"], SLOTS["a"]) == (13_907, 10_106, 15_495)  # CLUSTER KEYSLOT {0} {9} {a}


ASKED = Address("h", 7000)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirection("MOVED", Address("127.0.0.1", 6381))),
        ("ASK 3999 node-1.example:6381", Redirection("ASK", Address("node-1.example", 6381))),
        ("MOVED 3999 :6381", Redirection("MOVED", Address("h", 6381))),
        ("MOVED 3999 ::1:6381", Redirection("MOVED", Address("::1", 6381))),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Redirection("TRYAGAIN")),
        ("CLUSTERDOWN The cluster is down", Redirection("CLUSTERDOWN")),
        ("LOADING Redis is loading the dataset in memory", Redirection("LOADING")),
        ("MOVED 3999 ?:6381", None),
        ("MOVED 3999 h:0", None),
        ("MOVED 3999 h:99999", None),
        ("MOVED 3999 h:", None),
        ("MOVED 3999", None),
        ("MOVED", None),
        ("ERR MOVED 1 h:1", None),
        ("", None),
    ],
)
def test_a_redirection_is_read_or_is_none(error: str, told: Redirection | None) -> None:
    assert redirection(error, ASKED) == told


def test_the_map_is_read_and_what_is_malformed_in_it_passed_over() -> None:
    whole = [[0, 5000, [b"a", 1, b"id"], [b"b", 2, b"id"]], [5001, 16_383, [b"", 2, b"id"]]]
    found = owners(whole, ASKED)
    assert {found[digit] for digit in DIGITS} == {Address("a", 1), Address("h", 2)}
    assert all((found[digit] == Address("a", 1)) == (SLOTS[digit] <= 5000) for digit in DIGITS)
    junk: Any
    for junk in (None, b"", 1, [], [1], [[]], [[0, 16_383]], [[0, 16_383, []]], [[0, 16_383, [b"a", 0]]]):
        assert owners(junk, ASKED) == {}
    for entry in ([0, 16_383, [b"?", 1]], [0, 16_383, [b"\xff", 1]], [0, 16_383, [1, 1]], [b"0", 16_383, [b"a", 1]]):
        assert owners([entry], ASKED) == {}
    assert owners([[0, 16_383, [None, 1]]], ASKED)["0"] == Address("h", 1)
