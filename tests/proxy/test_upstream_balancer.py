"""Which backend an exchange gets, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from gateway import errors
from gateway.proxy import balancer
from gateway.proxy import resolver as resolvers
from tests.proxy.backends import HOSTS, Names, ask, asked, free_port, grouped, listening, until

ONE, TWO, THREE = HOSTS


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "PAUSE", 0.0)
    monkeypatch.setattr(balancer, "WAIT_TICK", 0.01)


def test_the_backend_with_the_fewest_exchanges_is_chosen() -> None:
    async def main() -> None:
        port = free_port()
        async with AsyncExitStack() as stack:
            for host in HOSTS:
                await stack.enter_async_context(listening(host, port))
            group = await stack.enter_async_context(grouped(*((host, port) for host in HOSTS)))
            callers = [await asked(group) for _ in range(12)]
            assert Counter(caller.address for caller in callers) == dict.fromkeys(HOSTS, 4)
            of_two = [caller for caller in callers if caller.address == TWO]
            for caller in of_two:
                caller.give_back()
            again = [await asked(group) for _ in range(4)]
            assert {caller.address for caller in again} == {TWO}
            assert {caller.connection for caller in again} == {caller.connection for caller in of_two}

    asyncio.run(main())


def test_of_many_backends_none_is_left_idle_or_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancer, "SCANNED", 2)

    async def main() -> None:
        port = free_port()
        async with AsyncExitStack() as stack:
            for host in HOSTS:
                await stack.enter_async_context(listening(host, port))
            group = await stack.enter_async_context(grouped(*((host, port) for host in HOSTS), max_connections=30))
            callers = [await asked(group) for _ in range(90)]
            shares = Counter(caller.address for caller in callers)
            assert shares == dict.fromkeys(HOSTS, 30)  # the bound holds, and who is full is passed by

    asyncio.run(main())


def test_a_connection_that_was_given_back_is_used_again() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(ONE, port) as backend, grouped((ONE, port)) as group:
            first = await asked(group)
            first.give_back()
            second = ask(group)
            assert second.connection is first.connection
            fresh = await asked(group, fresh=True)
            assert fresh.connection is not first.connection
            assert backend.accepted == 2

    asyncio.run(main())


def test_a_fresh_connection_is_not_waited_for_where_a_kept_one_is_all_there_may_be() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(ONE, port), grouped((ONE, port), max_connections=1) as group:
            first = await asked(group)
            first.give_back()
            assert ask(group, fresh=True).connection is first.connection

    asyncio.run(main())


# --- names ---


def test_a_name_with_two_addresses_is_two_backends() -> None:
    async def main() -> None:
        port = free_port()
        names = Names(ONE, TWO)
        async with listening(ONE, port), listening(TWO, port), grouped(("orders", port), names=names) as group:
            callers = [await asked(group) for _ in range(4)]
            assert Counter(caller.address for caller in callers) == {ONE: 2, TWO: 2}
            assert {caller.connection.pool.authority for caller in callers} == {b"orders:%d" % port}

    asyncio.run(main())


def test_an_address_that_comes_is_used_and_one_that_goes_is_drained() -> None:
    async def main() -> None:
        port = free_port()
        names = Names(ONE)
        async with (
            listening(ONE, port) as one,
            listening(TWO, port),
            grouped(("orders", port), names=names) as group,
        ):
            busy, idle = await asked(group), await asked(group)
            idle.give_back()
            names.addresses = [TWO]
            await until(lambda: [upstream.target.address for upstream in group.upstreams] == [TWO])
            await until(lambda: len(one.open) == 1)
            assert (await asked(group)).address == TWO
            assert not busy.connection.lost
            busy.give_back()
            await until(lambda: not one.open)

    asyncio.run(main())


def test_a_name_that_resolves_no_more_keeps_its_backends() -> None:
    async def main() -> None:
        port = free_port()
        names = Names(ONE)
        async with listening(ONE, port), grouped(("orders", port), names=names) as group:
            await asked(group)
            names.addresses = socket.gaierror(-2, "Name or service not known")
            before = names.asked
            await until(lambda: names.asked > before + 2)
            assert (await asked(group)).address == ONE

    asyncio.run(main())


def test_who_comes_before_the_first_lookup_is_done_waits_for_it() -> None:
    async def main() -> None:
        port = free_port()
        names = Names(ONE)
        names.hold = asyncio.Event()
        async with listening(ONE, port), grouped(("orders", port), names=names) as group:
            callers = [ask(group) for _ in range(3)]
            await asyncio.sleep(0)
            assert all(caller.waits for caller in callers)
            names.hold.set()
            assert [(await caller.settled()).address for caller in callers] == [ONE] * 3

    asyncio.run(main())


def test_a_name_that_does_not_resolve_is_unreachable_until_it_does() -> None:
    async def main() -> None:
        port = free_port()
        names = Names()
        names.addresses = socket.gaierror(-2, "Name or service not known")
        async with listening(ONE, port), grouped(("orders", port), names=names) as group:
            for _ in range(3):
                assert isinstance((await asked(group)).error, errors.UpstreamUnreachable)
            names.addresses = [ONE]
            await until(lambda: group.upstreams)
            assert (await asked(group)).address == ONE

    asyncio.run(main())


def test_a_resolver_that_hangs_holds_nobody_longer_than_its_time() -> None:
    async def main() -> None:
        names = Names(ONE)
        names.hold = asyncio.Event()
        async with grouped(("orders", free_port()), names=names, timeout=0.05) as group:
            assert isinstance((await asked(group)).error, errors.UpstreamUnreachable)
            assert isinstance(ask(group).error, errors.UpstreamUnreachable)  # told at once from then on
            names.hold.set()

    asyncio.run(main())


# --- backends that cannot be reached ---


def test_a_request_whose_backend_cannot_be_reached_goes_to_another_one() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(THREE, port), grouped(*((host, port) for host in HOSTS)) as group:
            callers = [await asked(group) for _ in range(20)]
            assert {caller.address for caller in callers} == {THREE}
            kinds = {kind for caller in callers for kind in caller.plane.meters.errors}
            assert kinds == {("/api/", "upstream_retried")}

    asyncio.run(main())


def test_each_address_is_tried_once_before_a_request_is_refused() -> None:
    async def main() -> None:
        port = free_port()
        async with grouped(*((host, port) for host in HOSTS)) as group:
            caller = await asked(group)
            assert isinstance(caller.error, errors.UpstreamUnreachable)
            assert [upstream.failures for upstream in group.upstreams] == [1, 1, 1]
            assert [upstream.open for upstream in group.upstreams] == [0, 0, 0]

    asyncio.run(main())


def test_a_backend_that_does_not_answer_holds_a_request_no_longer_than_the_connect_timeout() -> None:
    async def main() -> None:
        port = free_port()
        mute = socket.socket()
        mute.bind((ONE, port))
        mute.listen(0)
        fillers = []
        for _ in range(4):  # a full backlog: the kernel drops what comes after
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((ONE, port))
            fillers.append(filler)
        async with listening(TWO, port), grouped((ONE, port), (TWO, port), connect_timeout=0.1) as group:
            started = time.monotonic()
            callers = [await asked(group) for _ in range(2)]
            assert {caller.address for caller in callers} == {TWO}
            assert 0.1 <= time.monotonic() - started < 1.0
        for each in (mute, *fillers):
            each.close()

    asyncio.run(main())


def test_a_backend_is_left_out_after_three_failures_and_comes_back_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancer, "EJECT_SECONDS", 0.05)

    async def main() -> None:
        port = free_port()
        async with listening(TWO, port), grouped((ONE, port), (TWO, port)) as group:
            one = group.upstreams[0]
            callers = [await asked(group) for _ in range(10)]
            assert one.ejected
            assert one.failures == balancer.EJECT_AFTER  # no request tried it after that
            assert sum(len(caller.plane.meters.errors) for caller in callers) == balancer.EJECT_AFTER
            await until(lambda: one.ejections >= 2)  # looked at, still away, left out for longer
            async with listening(ONE, port) as back:
                await until(lambda: not one.ejected)
                assert back.accepted == 1
                assert len(one.idle) == 1  # the connection that found it waits for a request
                assert ONE in {(await asked(group)).address for _ in range(2)}

    asyncio.run(main())


def test_the_last_backend_is_never_left_out() -> None:
    async def main() -> None:
        port = free_port()
        async with grouped((ONE, port), (TWO, port)) as group:
            for _ in range(10):
                await asked(group)
            assert sum(upstream.ejected for upstream in group.upstreams) == 1
            able = next(upstream for upstream in group.upstreams if not upstream.ejected)
            async with listening(able.target.address, port):
                assert (await asked(group)).error is None

    asyncio.run(main())


def test_the_other_family_stands_in_where_the_preferred_one_cannot_be_reached() -> None:
    async def main() -> None:
        names = Names("::1", "127.0.0.1")
        port = free_port(["127.0.0.1"])
        async with listening("127.0.0.1", port), grouped(("localhost", port), names=names) as group:
            callers = [await asked(group) for _ in range(6)]
            assert {caller.address for caller in callers} == {"127.0.0.1"}
            tried = sum(len(caller.plane.meters.errors) for caller in callers)
            assert tried == balancer.EJECT_AFTER

    asyncio.run(main())


# --- bounds ---


def test_past_the_bound_a_caller_waits_for_the_next_connection_of_any_backend() -> None:
    async def main() -> None:
        port = free_port()
        async with (
            listening(ONE, port) as one,
            listening(TWO, port) as two,
            grouped((ONE, port), (TWO, port), max_connections=1) as group,
        ):
            holding = [await asked(group) for _ in range(2)]
            first, second = ask(group), ask(group)
            assert first.waits
            holding[1].give_back()
            assert first.connection is holding[1].connection
            assert second.waits
            holding[0].connection.transport.abort()  # a place is free, though no connection is
            assert (await second.settled()).error is None
            assert one.accepted + two.accepted == 3

    asyncio.run(main())


def test_past_the_waiting_bound_a_caller_is_refused_at_once() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(ONE, port), grouped((ONE, port), max_connections=1, max_waiting=2) as group:
            await asked(group)
            waiting = [ask(group) for _ in range(2)]
            assert isinstance(ask(group).error, errors.Overloaded)
            assert all(caller.waits for caller in waiting)

    asyncio.run(main())


def test_nobody_waits_for_longer_than_the_bound() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(ONE, port), grouped((ONE, port), max_connections=1, wait_timeout=0.05) as group:
            await asked(group)
            assert isinstance((await asked(group)).error, errors.Overloaded)
            assert not group.waiting

    asyncio.run(main())


def test_who_is_gone_leaves_the_queue_and_gets_no_connection() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(ONE, port), grouped((ONE, port), max_connections=1, max_waiting=2) as group:
            holding = await asked(group)
            gone, also_gone = ask(group), ask(group)
            gone.done = also_gone.done = True
            await until(lambda: not group.waiting)
            patient = ask(group)
            holding.give_back()
            assert patient.connection is holding.connection
            assert gone.connection is None

    asyncio.run(main())


def test_a_connection_whose_caller_left_while_it_was_made_is_kept_for_the_next() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(ONE, port) as backend, grouped((ONE, port)) as group:
            gone = ask(group)
            gone.done = True
            await until(lambda: group.upstreams[0].idle)
            assert ask(group).connection is not None
            assert backend.accepted == 1

    asyncio.run(main())


# --- a group that a reload has replaced ---


def test_a_closed_group_serves_whoever_still_comes_and_keeps_nothing() -> None:
    async def main() -> None:
        port = free_port()
        async with listening(ONE, port) as backend, grouped((ONE, port), max_connections=1) as group:
            busy = await asked(group)
            waiting = ask(group)
            group.close()
            assert not busy.connection.lost
            busy.give_back()
            assert (await waiting.settled()).error is None
            waiting.give_back()
            late = await asked(group)
            assert late.error is None
            late.give_back()
            await until(lambda: not backend.open)

    asyncio.run(main())
