"""The one timer of a worker."""

from __future__ import annotations

import asyncio

from gateway.proxy.wheel import AGAIN, AHEAD, TICK, Wheel


class Clock:
    """A loop of which only time and timers exist, and time goes when told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[tuple[float, object]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: object) -> asyncio.TimerHandle:
        self.timers.append((self.now + delay, callback))
        return object()  # type: ignore[return-value]

    def push(self, seconds: float) -> None:
        end = self.now + seconds
        while self.timers and min(self.timers, key=lambda t: t[0])[0] <= end:
            timer = min(self.timers, key=lambda t: t[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()  # type: ignore[operator]
        self.now = end


class Thing:
    def __init__(self) -> None:
        self.deadline = 0.0
        self.due = 0.0
        self.fired: list[float] = []

    def on_deadline(self, now: float) -> None:
        self.deadline = 0.0
        self.fired.append(now)


def watched(clock: Clock, seconds: float) -> tuple[Wheel, Thing]:
    wheel, thing = Wheel(clock), Thing()  # type: ignore[arg-type]
    thing.deadline = clock.now + seconds
    wheel.watch(thing)
    return wheel, thing


def test_a_deadline_is_met_late_by_at_most_two_ticks_and_never_early() -> None:
    clock = Clock()
    _, thing = watched(clock, 3.0)
    start = clock.now
    clock.push(2.99)
    assert thing.fired == []
    clock.push(0.01 + 2 * TICK)
    assert len(thing.fired) == 1
    assert thing.fired[0] >= start + 3.0


def test_a_deadline_moved_on_by_assignment_is_not_met_at_its_old_time() -> None:
    clock = Clock()
    _, thing = watched(clock, 1.0)
    thing.deadline += 10
    clock.push(5.0)
    assert thing.fired == []
    clock.push(6.0 + 2 * TICK)
    assert len(thing.fired) == 1


def test_an_earlier_deadline_is_met_once_and_its_old_place_in_the_wheel_means_nothing() -> None:
    clock = Clock()
    wheel, thing = watched(clock, 4.0)
    thing.deadline = clock.now + 1.0
    wheel.watch(thing)
    clock.push(10.0)
    assert len(thing.fired) == 1


def test_what_is_due_far_ahead_is_looked_at_within_a_bound_so_that_the_gone_are_let_go() -> None:
    clock = Clock()
    _, thing = watched(clock, 1000.0)
    thing.deadline = 0.0  # gone
    clock.push(AHEAD + 1)
    assert clock.timers == []
    assert thing.fired == []


def test_what_has_lasted_is_looked_at_more_rarely_and_its_deadline_is_met_all_the_same() -> None:
    clock = Clock()
    _, thing = watched(clock, 1000.0)
    clock.push(AHEAD + 2 * TICK)
    assert AGAIN - 2 * TICK <= thing.due - clock.now <= AGAIN
    start, thing.deadline = clock.now, clock.now + AGAIN + 3.0
    clock.push(AGAIN + 2.9)
    assert thing.fired == []
    clock.push(0.1 + 2 * TICK)
    assert len(thing.fired) == 1
    assert thing.fired[0] >= start + AGAIN + 3.0


def test_an_earlier_deadline_of_what_has_lasted_is_met_in_time() -> None:
    clock = Clock()
    wheel, thing = watched(clock, 1000.0)
    clock.push(AHEAD + 2 * TICK)
    thing.deadline = clock.now + 1.0
    wheel.watch(thing)
    clock.push(1.0 + 2 * TICK)
    assert len(thing.fired) == 1


def test_what_has_lasted_and_is_gone_is_let_go_within_a_bound() -> None:
    clock = Clock()
    _, thing = watched(clock, 1000.0)
    clock.push(AHEAD + 2 * TICK)
    thing.deadline = 0.0  # gone
    clock.push(AGAIN + 1)
    assert clock.timers == []
    assert thing.fired == []
