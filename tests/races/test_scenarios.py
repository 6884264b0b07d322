"""What clients do at the same moment on several replicas, and whether the whole of it can have happened in one order.

Every history here is judged twice: by the laws (tests/races/laws.py) and by the search for an order in which the
rotation table explains every answer (tests/races/linearize.py). `RACES_SCALE=20 make test PYTEST_ARGS=tests/races` has
twenty times the rounds and the seconds.
"""

from __future__ import annotations

import functools
import random
import time
from contextlib import ExitStack

import pytest

from tests.e2e.wire import request
from tests.races import calls
from tests.races.clients import WAYS, Recorder, Seat, at_once
from tests.races.conftest import SCALE, Cluster
from tests.races.history import History, Kind, Operation, Result
from tests.races.laws import breaches
from tests.races.linearize import unexplained

GRACE = 10.0  # the default, which `lively` has
ROUNDS = 12 * SCALE
SECONDS = 3.0 * SCALE
pytestmark = pytest.mark.timeout(60 * SCALE)


def check(history: History, grace: float = GRACE) -> None:
    assert breaches(history, grace) == []
    assert unexplained(history, grace) == []


def all_of(history: History, kind: Kind, result: Result = Result.OK) -> list[Operation]:
    return [each for each in history.operations if each.kind is kind and each.result is result]


@pytest.mark.parametrize("way", WAYS)
def test_whatever_a_refresh_gave_beside_the_end_of_its_session_is_dead_when_the_end_is_answered(
    strict: Cluster, way: str
) -> None:
    history = History()
    with Recorder(strict, history, "tab") as tab, Recorder(strict, history, "other tab") as other:
        tab.connect()
        other.connect()
        for number in range(ROUNDS):
            seat = Seat("alice", in_cookie=number % 2 == 1)
            here, there = number % 3, (number + 1 + number // 3 % 2) % 3
            tab.login(here, seat)
            at_once(functools.partial(tab.refresh, here, seat), functools.partial(other.end, there, seat, way))
            for grant in (seat.tokens, *seat.older):
                assert [tab.request(replica, grant) for replica in range(3)] == [Result.REFUSED] * 3
            assert [tab.refresh(replica, seat) for replica in range(3)] == [Result.REFUSED] * 3
    check(history, grace=0)


def test_a_refresh_that_is_overtaken_by_the_end_of_its_session_gives_nothing_that_lives(strict: Cluster) -> None:
    """A crowd refreshes while the session ends: some are served, some refused, and nothing that was given lives on."""
    history = History()
    crowd = 6
    with ExitStack() as stack:
        tabs = [stack.enter_context(Recorder(strict, history, f"tab {number}")) for number in range(crowd + 1)]
        for tab in tabs:
            tab.connect()
        for number in range(ROUNDS):
            seats = [Seat("bob") for _ in range(crowd + 1)]
            grant = tabs[0].login(0, seats[0])
            for seat in seats[1:]:
                seat.take(grant)
            refreshes = [functools.partial(tab.refresh, n % 3, seats[n]) for n, tab in enumerate(tabs[:crowd])]
            ending = functools.partial(tabs[crowd].end, number % 3, seats[crowd], WAYS[number % len(WAYS)])
            place = number % (crowd + 1)
            at_once(*refreshes[:place], ending, *refreshes[place:])
            for seat in seats:
                assert tabs[0].request(number % 3, seat.tokens) is Result.REFUSED
    check(history, grace=0)
    assert all_of(history, Kind.REFRESH), "not one refresh came before an end"
    assert all_of(history, Kind.REFRESH, Result.REFUSED), "not one refresh came after an end"


def test_two_tabs_that_refresh_at_every_expiry_stay_signed_in(lively: Cluster) -> None:
    history = History()
    seat = Seat("alice", "browser", in_cookie=True)
    limit = time.monotonic() + SECONDS

    def surf(tab: Recorder, replica: int) -> None:
        while time.monotonic() < limit:
            if tab.request(replica, seat.tokens) is Result.VOID:  # expired
                assert tab.refresh(replica, seat) is Result.OK

    with Recorder(lively, history, "first") as first, Recorder(lively, history, "second") as second:
        first.login(0, seat)
        at_once(functools.partial(surf, first, 0), functools.partial(surf, second, 1))
        assert first.refresh(2, seat) is Result.OK
    check(history)
    rotations = {each.presented for each in all_of(history, Kind.REFRESH)}
    assert len(rotations) >= 2, "the tabs lived through several expiries"


def test_a_client_that_loses_every_third_answer_is_never_signed_out(lively: Cluster) -> None:
    history = History()
    seat, chance = Seat("alice", "train"), random.Random(3)
    with Recorder(lively, history, "train") as client:
        client.login(0, seat)
        for number in range(200 * SCALE):
            replica, refreshes, at_the_end = chance.randrange(3), chance.random() < 0.5, chance.random() < 0.5
            if number % 3 == 2:
                kind = Kind.REFRESH if refreshes else Kind.REQUEST
                data = calls.refresh(seat.tokens.refresh)
                if not refreshes:
                    data = request("GET", lively.path, token=seat.tokens.access)
                client.lose(replica, seat.tokens, data, kind, at_once=not at_the_end)
                if refreshes:  # where the lost one is, so that it is not on its way still when others have followed
                    assert client.refresh(replica, seat) is Result.OK
            elif refreshes:
                assert client.refresh(replica, seat) is Result.OK
            else:
                assert client.request(replica, seat.tokens) is not Result.REFUSED
        assert client.refresh(0, seat) is Result.OK
    check(history)
    assert len(all_of(history, Kind.REFRESH, Result.LOST)) > 20 * SCALE


def test_eight_clients_on_three_replicas_make_a_history_that_can_have_happened(lively: Cluster) -> None:
    history = History()
    seats = [
        Seat(user, f"device {number}", number % 2 == 1)
        for number, user in enumerate(["alice", "alice", "bob", "carol"])
    ]
    limit = time.monotonic() + SECONDS

    def live(client: Recorder, number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < limit or len(history.operations) < 2000:
            step(client, chance.choice(seats), chance)

    with ExitStack() as stack:
        clients = [stack.enter_context(Recorder(lively, history, f"client {number}")) for number in range(8)]
        for number, seat in enumerate(seats):
            clients[number].login(number % 3, seat)
        at_once(*(functools.partial(live, client, number) for number, client in enumerate(clients)))
    check(history)
    for kind in (Kind.REQUEST, Kind.REFRESH):
        for result in (Result.OK, Result.REFUSED):
            assert all_of(history, kind, result), f"no {kind} was {result}"
    served = all_of(history, Kind.REFRESH)
    assert len(served) > len({each.presented for each in served}), "no refresh was a replay"


def step(client: Recorder, seat: Seat, chance: random.Random) -> None:
    """Do one thing with a seat that other clients use too; sign in anew where its session is over."""
    replica, what, newest = chance.randrange(3), chance.random(), seat.tokens
    known = chance.choice([newest, *(each for each in seat.older[-2:] if each.session == newest.session)])
    result = Result.OK
    if what < 0.60:
        result = client.request(replica, known)
    elif what < 0.75:
        result = client.refresh(replica, seat, newest)
    elif what < 0.93:
        result = client.renew(replica, seat)
    elif what < 0.95:
        client.lose(replica, newest, calls.refresh(newest.refresh), Kind.REFRESH, at_once=chance.random() < 0.5)
    elif what < 0.96:
        client.refresh(replica, seat, known)  # may be reuse
    elif what < 0.98:
        client.revoke_access(replica, known)
    elif what < 0.985:
        client.end(replica, seat, chance.choice(WAYS))
    elif what < 0.99:
        client.login(replica, seat)
    if result is Result.REFUSED:
        client.login_again(replica, seat, newest)
