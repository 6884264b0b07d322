"""Batches to one master of a cluster go in step: in one packet, when the last reply before them is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import pytest

from gateway.sessions.cluster_wire import ClusterWire
from gateway.sessions.endpoint import Address
from gateway.sessions.flights import FlightLink
from gateway.sessions.liveness import Liveness, Verdict
from gateway.sessions.resp import Answer, Batch, LiveKeys
from gateway.sessions.slots import Redirection
from tests.redis_server import RedisServer
from tests.redis_topologies import Cluster, cluster
from tests.sessions.test_cluster import both, heard, subject_in, token_of
from tests.sessions.world import Tally, eventually, in_loop, login

TIMEOUT = 10.0  # of checks that are answered: a busy machine is no outage


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@contextmanager
def frozen(node: RedisServer) -> Iterator[None]:
    node.pause()
    try:
        yield
    finally:
        node.resume()


def wire(live: Liveness) -> ClusterWire:
    assert isinstance(live._wire, ClusterWire)
    return live._wire


def link(live: Liveness, digit: str) -> FlightLink:
    found = wire(live)._link(digit)
    assert found is not None
    return found


def keys(live: Liveness, digit: str) -> LiveKeys:
    """Return keys of a session that there is not."""
    return live.keys(digit + "x" * 22, digit + "t" * 22)


async def fly(live: Liveness, tally: Tally, digit: str) -> None:
    """Ask about a partition whose master does not answer, so that a flight to it is up."""
    tally.ask(live, keys(live, digit))
    await eventually(lambda: bool(link(live, digit)._waiting))
    await a_tick()
    await a_tick()


async def a_tick() -> None:
    await asyncio.sleep(0)


class Counts:
    """How often a master has read from its clients, and the live checks that it has carried out."""

    def __init__(self, node: RedisServer) -> None:
        self._client: Any = node.client()
        self._now()

    def _now(self) -> tuple[int, int]:
        stats = self._client.info("stats"), self._client.info("commandstats").get("cmdstat_mget", {})
        return int(stats[0]["total_reads_processed"]), int(stats[1].get("calls", 0))

    def begin(self) -> None:
        self._before = self._now()

    def since(self) -> tuple[int, int]:
        """Return both since `begin`, without the readings of these counts."""
        reads, calls = self._now()
        return reads - self._before[0] - 2, calls - self._before[1]


@in_loop
async def test_what_is_asked_while_a_flight_is_up_leaves_in_one_packet(nodes: Cluster, prefix: str) -> None:
    """However many partitions and ticks the asks are of: one batch a partition, all read by the master at once."""
    master = nodes.owner("0")
    mine = nodes.partitions(master)
    async with both(nodes, prefix, timeout=TIMEOUT) as (world, live):
        alive = {digit: (await world.store.create(login(subject_in(digit)))).id for digit in mine}
        tally, counts, sizes = Tally(), Counts(master), list[int]()
        live._observe = lambda size, _: sizes.append(size)
        counts.begin()
        with frozen(master):
            await fly(live, tally, mine[0])
            for _ in range(2):
                for digit in mine:
                    tally.ask(live, keys(live, digit))
                    await a_tick()
                    tally.ask(live, live.keys(alive[digit], token_of(alive[digit])))
                    await a_tick()
            assert not any(tally.answers)
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED] + [Verdict.ENDED, Verdict.ALIVE] * (2 * len(mine))
        assert sizes == [1] + [4] * len(mine)
        assert counts.since() == (2, 1 + len(mine))


@in_loop
async def test_what_is_asked_of_an_idle_master_leaves_with_the_next_tick(nodes: Cluster, prefix: str) -> None:
    """All its partitions at once; the other masters get theirs."""
    async with both(nodes, prefix, timeout=TIMEOUT) as (_, live):
        counts = [Counts(node) for node in nodes.nodes]
        for each in counts:
            each.begin()
        tally = Tally()
        for digit in "0123456789abcdef" * 2:
            tally.ask(live, keys(live, digit))
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED] * 32
        assert [each.since() for each in counts] == [(1, len(nodes.partitions(node))) for node in nodes.nodes]


@in_loop
async def test_a_flight_to_one_master_keeps_no_lane_of_another_waiting(nodes: Cluster, prefix: str) -> None:
    master = nodes.owner("0")
    mine = nodes.partitions(master)
    async with both(nodes, prefix, timeout=TIMEOUT) as (_, live):
        tally = Tally()
        with frozen(master):
            await fly(live, tally, mine[0])
            tally.ask(live, keys(live, mine[1]))
            for digit in [each for each in "0123456789abcdef" if each not in mine] * 3:
                assert await live.verdict(keys(live, digit)) is Verdict.ENDED
            assert tally.answers == [[], []]
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED] * 2


@in_loop
async def test_a_revocation_holds_for_what_boards_after_it_whatever_flies(nodes: Cluster, prefix: str) -> None:
    """The batch of a lane that has to wait is made when it leaves, not when it was asked to."""
    async with both(nodes, prefix, timeout=TIMEOUT) as (world, live):
        mine = nodes.partitions(nodes.owner("0"))
        for round_ in range(20):
            session = await world.store.create(login(subject_in(mine[round_ % len(mine)])))
            asked = live.keys(session.id, token_of(session.id))
            around = [asyncio.ensure_future(live.verdict(keys(live, digit))) for digit in mine]
            assert await live.verdict(asked) is Verdict.ALIVE
            await world.store.end(session.id)
            around += [asyncio.ensure_future(live.verdict(keys(live, digit))) for digit in mine]
            await a_tick()
            assert await live.verdict(asked) is Verdict.ENDED
            await asyncio.gather(*around)


@asynccontextmanager
async def moved_behind_the_back(nodes: Cluster, digit: str) -> AsyncIterator[RedisServer]:
    """Give a partition to another master, which nobody tells the gateway; and back. Yields that master."""
    source = nodes.owner(digit)
    target = next(node for node in nodes.nodes if node is not source)
    await asyncio.to_thread(_move, nodes, digit, source, target)
    try:
        yield target
    finally:
        await asyncio.to_thread(_move, nodes, digit, target, source)


def _move(nodes: Cluster, digit: str, source: RedisServer, target: RedisServer) -> None:
    nodes.begin_move(digit, source, target)
    while nodes.move_keys(digit, source, target, 100):
        pass
    nodes.end_move(digit, target)


@in_loop
async def test_a_redirection_of_one_partition_in_a_flight_delays_none_of_the_others(
    nodes: Cluster, prefix: str
) -> None:
    """It goes where it is sent to, which does not answer; the others are asked again and again meanwhile."""
    mine = nodes.partitions(nodes.owner("0"))
    astray = mine[1]
    async with both(nodes, prefix, timeout=TIMEOUT) as (_, live), moved_behind_the_back(nodes, astray) as target:
        tally = Tally()
        with frozen(target):
            for digit in mine:
                tally.ask(live, keys(live, digit))
            await eventually(lambda: sum(map(len, tally.answers)) == len(mine) - 1)
            for _ in range(20):
                for digit in mine.replace(astray, ""):
                    assert await live.verdict(keys(live, digit)) is Verdict.ENDED
            assert tally.answers[1] == []
        await tally.all_answered(TIMEOUT)
        assert tally.verdicts() == [Verdict.ENDED] * len(mine)
        assert await live.verdict(keys(live, astray)) is Verdict.ENDED


@in_loop
async def test_a_partition_that_moves_while_it_waits_for_a_flight_leaves_and_is_then_free_of_that_master(
    nodes: Cluster, prefix: str
) -> None:
    mine = nodes.partitions(nodes.owner("0"))
    staying, moving = mine[0], mine[2]
    async with both(nodes, prefix, timeout=TIMEOUT) as (world, live):
        session = await world.store.create(login(subject_in(moving)))
        asked = live.keys(session.id, token_of(session.id))
        source = nodes.owner(staying)
        async with moved_behind_the_back(nodes, moving) as target:
            there, tally = Address("127.0.0.1", target.port), Tally()
            with frozen(source):
                await fly(live, tally, staying)
                tally.ask(live, asked)  # boards at the old master
                wire(live)._client.follow(moving, Redirection("MOVED", there))
                wire(live)._wake.set()
                await eventually(lambda: wire(live)._believed.get(moving) == there)
                assert tally.answers == [[], []]
            await tally.all_answered(TIMEOUT)
            assert tally.verdicts() == [Verdict.ENDED, Verdict.ALIVE]
            with frozen(source):
                await fly(live, tally, staying)
                assert await live.verdict(asked) is Verdict.ALIVE
                assert tally.answers[-1] == []
            await tally.all_answered(TIMEOUT)
        assert not link(live, staying)._boarded


def ask_timed(live: Liveness, digit: str, took: list[float]) -> None:
    asked = time.monotonic()
    live.ask(keys(live, digit), lambda _: took.append(time.monotonic() - asked))


@in_loop
async def test_who_waits_for_a_flight_to_a_frozen_master_is_answered_in_time_and_once(
    nodes: Cluster, prefix: str
) -> None:
    master = nodes.owner("0")
    mine = nodes.partitions(master)
    async with both(nodes, prefix, timeout=1.0) as (_, live):
        took: list[float] = []
        with frozen(master):
            tally = Tally()
            await fly(live, tally, mine[0])
            for at, digit in enumerate(mine * 2):
                await asyncio.sleep(0.02)
                ask_timed(live, digit, took)
                assert len(took) <= at
            await eventually(lambda: len(took) == 2 * len(mine), 10)
            await asyncio.sleep(0.1)
        assert len(took) == 2 * len(mine)
        assert tally.verdicts() == [Verdict.UNAVAILABLE]
        assert max(took) < 1.0 + 0.5  # a loaded machine
        await heard(live, mine[0] + "x" * 22)


@in_loop
async def test_with_the_loss_of_a_master_who_waits_for_its_flight_is_told_at_once(prefix: str) -> None:
    with cluster() as nodes:
        master = nodes.owner("0")
        mine = nodes.partitions(master)
        others = [digit for digit in "0123456789abcdef" if digit not in mine]
        async with both(nodes, prefix, timeout=30) as (_, live):
            tally = Tally()
            master.pause()
            await fly(live, tally, mine[0])
            for digit in mine:
                tally.ask(live, keys(live, digit))
            await a_tick()
            assert not any(tally.answers)
            master.stop()
            assert await tally.all_answered(15) < 15  # half of what they would wait for
            assert set(tally.verdicts()) == {Verdict.UNAVAILABLE}
            for digit in others:
                assert await live.verdict(keys(live, digit)) is Verdict.ENDED
            master.start()
            for digit in mine:
                await heard(live, digit + "x" * 22)


@in_loop
async def test_what_finds_no_room_when_a_flight_leaves_is_refused_and_the_rest_answered(
    nodes: Cluster, prefix: str
) -> None:
    master = nodes.owner("0")
    mine = nodes.partitions(master)
    async with both(nodes, prefix, timeout=TIMEOUT) as (_, live):
        live._max_waiting = 5
        tally = Tally()
        with frozen(master):
            await fly(live, tally, mine[0])
            for digit in (mine[1], mine[1], mine[1], mine[2], mine[2], mine[2], mine[3], mine[3]):
                tally.ask(live, keys(live, digit))
        await tally.all_answered()
        assert tally.verdicts() == [Verdict.ENDED] * 6 + [Verdict.UNAVAILABLE] * 3
        assert live._waiting == 0
        assert await live.verdict(keys(live, mine[3])) is Verdict.ENDED


@in_loop
async def test_who_waits_for_a_flight_is_answered_when_the_checks_are_closed(nodes: Cluster, prefix: str) -> None:
    master = nodes.owner("0")
    mine = nodes.partitions(master)
    async with both(nodes, prefix, timeout=TIMEOUT) as (_, live):
        tally = Tally()
        with frozen(master):
            await fly(live, tally, mine[0])
            for digit in mine:
                tally.ask(live, keys(live, digit))
            await live.close()
        await tally.all_answered()
        assert set(tally.verdicts()) == {Verdict.UNAVAILABLE}


# --- one connection, against a server of the test's own ---


class Told:
    """Who owns a link: collects what came of its batches."""

    born = (b"",) * 16

    def __init__(self) -> None:
        self.finished: list[Batch] = []
        self.back: list[Batch] = []

    def done(self, batch: Batch, verdicts: bytes) -> None:
        self.finished.append(batch)

    def failed(self, batch: Batch, error: bytes) -> None:
        self.finished.append(batch)

    def again(self, batch: Batch) -> None:
        self.back.append(batch)


class Server:
    """Takes one connection; says what it is told to say, and keeps what it reads, a piece a packet."""

    def __init__(self) -> None:
        self.read: list[bytes] = []
        self._writer: asyncio.StreamWriter

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        while data := await reader.read(65_536):
            self.read.append(data)
        writer.close()

    async def until_read(self, count: int) -> None:
        await eventually(lambda: b"".join(self.read).count(b"MGET") >= count, 10)

    def say(self, data: bytes) -> None:
        self._writer.write(data)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[FlightLink, Server, Told]]:
    loop, server, told = asyncio.get_running_loop(), Server(), Told()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    made = FlightLink(told, guarded=False)
    await loop.create_connection(lambda: made, "127.0.0.1", listening.sockets[0].getsockname()[1])
    made.serve()
    await eventually(lambda: hasattr(server, "_writer"))
    try:
        yield made, server, told
    finally:
        made.drop("the test is over")
        await made.lost.wait()
        listening.close()
        await asyncio.sleep(0.02)  # the server sees the end of its connection


def a_batch(digit: int = 0) -> Batch:
    unheard: Answer = lambda _: None  # noqa: E731  # named by its type
    now = asyncio.get_running_loop().time()
    return Batch([LiveKeys(digit, b"a", b"b")], [unheard], now, now + 30)


REPLY = b"*2\r\n$-1\r\n$-1\r\n"


@in_loop
async def test_who_boards_an_idle_connection_leaves_with_the_next_tick_and_not_before() -> None:
    async with connected() as (made, server, told):
        left: list[int] = []

        def leave(number: int) -> None:
            left.append(number)
            made.send(a_batch(number))

        for number in range(3):
            made.board(partial(leave, number))
        assert left == []
        await a_tick()
        assert left == [0, 1, 2]
        await server.until_read(3)
        assert len(server.read) == 1  # one packet
        server.say(REPLY * 3)
        await eventually(lambda: len(told.finished) == 3)


@in_loop
async def test_a_flight_has_landed_with_the_last_byte_of_its_last_reply() -> None:
    async with connected() as (made, server, told):
        left: list[bool] = []
        made.send(a_batch())
        made.send(a_batch(1))
        await server.until_read(2)
        made.board(lambda: left.append(True))
        for piece in (REPLY, REPLY[:5], REPLY[5:-1]):
            server.say(piece)
            await asyncio.sleep(0.02)
            assert left == []
        server.say(REPLY[-1:])
        await eventually(lambda: left == [True])
        assert len(told.finished) == 2


@in_loop
async def test_what_is_sent_while_a_flight_is_up_goes_at_once_and_takes_along_who_has_boarded() -> None:
    async with connected() as (made, server, told):
        made.send(a_batch())
        await server.until_read(1)
        made.board(lambda: made.send(a_batch(1)))
        await asyncio.sleep(0.02)
        assert len(made._waiting) == 1
        made.send(a_batch(2))
        await server.until_read(3)
        assert len(server.read) == 2
        server.say(REPLY * 3)
        await eventually(lambda: len(told.finished) == 3)


@pytest.mark.parametrize("end", ["drop", "retire"])
@in_loop
async def test_who_has_boarded_leaves_when_the_connection_ends(end: str) -> None:
    async with connected() as (made, server, told):
        left: list[bool] = []
        made.send(a_batch())
        await server.until_read(1)
        made.board(lambda: left.append(made.dropped))
        getattr(made, end)("the test says so")
        assert left == []
        await a_tick()
        assert left == [True]
        assert len(told.finished if end == "drop" else told.back) == 1
