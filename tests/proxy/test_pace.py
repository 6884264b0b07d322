"""Which requests begin at once, which wait, and which are refused. Times are pushed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.errors import GatewayError
from gateway.proxy.pace import SLICE, Pace

BOUND = 0.25
COST = 0.4 * SLICE  # seconds that beginning a request takes: three begin in a turn


class World:
    """A pace, the time, and what became of the requests in it."""

    def __init__(self, bound: float = BOUND) -> None:
        self.now = 100.0
        self.pace = Pace(asyncio.get_running_loop(), bound, lambda: self.now)
        self.requests: list[Request] = []

    def read(self, count: int) -> list[Request]:
        """Read so many requests in this turn."""
        found = []
        for _ in range(count):
            request = Request(self)
            found.append(request)
            if self.pace.admits(request):
                request.begin()
        self.requests += found
        return found

    async def turn(self) -> None:
        await asyncio.sleep(0)


class Request:
    def __init__(self, world: World) -> None:
        self.world = world
        self.started = world.now
        self.begun = self.refused = self.done = False
        self.begun_at = 0.0

    def begin(self) -> None:
        assert not self.begun
        self.begun, self.begun_at = True, self.world.now
        self.world.now += COST

    def refuse(self, error: GatewayError) -> None:
        assert error.code == "overloaded"
        assert not self.begun
        self.refused = True


Check = Callable[[], Coroutine[Any, Any, None]]


def on_a_loop(check: Check) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(check())

    run.__name__, run.__doc__ = check.__name__, check.__doc__
    return run


@on_a_loop
async def test_what_is_read_within_the_bound_begins_at_once() -> None:
    world = World()
    assert [request.begun for request in world.read(3)] == [True, True, True]


@on_a_loop
async def test_what_is_read_later_begins_in_later_turns_and_in_its_order() -> None:
    world = World()
    requests = world.read(9)
    assert [request.begun for request in requests] == [True] * 3 + [False] * 6
    await world.turn()
    assert [request.begun for request in requests] == [True] * 6 + [False] * 3
    await world.turn()
    assert all(request.begun for request in requests)


@on_a_loop
async def test_a_new_request_does_not_overtake_one_that_waits() -> None:
    world = World()
    world.read(9)
    await world.turn()
    assert [request.begun for request in world.read(1)] == [False]


@on_a_loop
async def test_a_burst_that_drains_within_the_bound_costs_nobody_an_answer() -> None:
    world = World()
    requests = world.read(24)  # 0.24 s of work
    for _ in range(10):
        await world.turn()
    assert all(request.begun for request in requests)


@on_a_loop
async def test_what_has_waited_longer_than_the_bound_is_refused_in_its_turn() -> None:
    world = World()
    requests = world.read(60)
    for _ in range(30):
        await world.turn()
    assert all(request.begun for request in requests[:24])
    assert all(request.refused for request in requests[30:])


@on_a_loop
async def test_what_would_wait_longer_than_the_bound_is_refused_when_it_is_read() -> None:
    world = World()
    world.read(60)
    await world.turn()  # now it is known what a request costs
    assert [request.refused for request in world.read(2)] == [True, True]


@on_a_loop
async def test_whatever_is_offered_none_that_begins_has_waited_longer_than_the_bound() -> None:
    world = World()
    for _ in range(100):
        world.read(12)  # four times what a turn can do
        await world.turn()
    waits = [request.begun_at - request.started for request in world.requests if request.begun]
    assert max(waits) <= BOUND + SLICE
    assert len(waits) > 250, "it serves as much as it can"
    assert sum(request.refused for request in world.requests) > 700


@on_a_loop
async def test_a_request_whose_client_has_gone_is_not_begun() -> None:
    world = World()
    requests = world.read(4)
    requests[3].done = True
    await world.turn()
    assert not requests[3].begun


@on_a_loop
async def test_without_a_bound_every_request_begins_in_the_end() -> None:
    world = World(0.0)
    requests = world.read(300)
    for _ in range(200):
        await world.turn()
    assert all(request.begun for request in requests)
