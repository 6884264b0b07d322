"""on_outage = "allow-recent": what a live check passed within outage_grace passes an outage, and nothing else."""

from __future__ import annotations

import time

from tests.chaos.proxy import CLEAR, Weather
from tests.chaos.servers import Store, until
from tests.chaos.sessions import Held, decided, login
from tests.chaos.world import GRACE, World
from tests.e2e.harness import Gateway
from tests.e2e.wire import ask, request

TICK = 0.01  # seconds; the loop's clock goes by milliseconds
CUT = Weather(lose_requests=True, lose_replies=True)


def status(gateway: Gateway, session: Held) -> int:
    return ask(gateway.port, session.guarded).status


def passed(gateway: Gateway, session: Held) -> tuple[float, float]:
    """Return between which moments a live check has passed this token for the last time."""
    before = time.monotonic()
    assert status(gateway, session) == 200
    return before, time.monotonic()


def passes_for_the_grace_alone(gateway: Gateway, session: Held, last: tuple[float, float]) -> None:
    """Ask until it is refused; what was asked after the grace must be, and what was answered within it must not."""
    served, refused = 0, 0
    while refused < 10:
        begun = time.monotonic()
        answer = ask(gateway.port, session.guarded)
        if answer.status == 200:
            served += 1
            assert begun <= last[1] + GRACE + TICK
        else:
            refused += 1
            assert answer.error == (503, "store_unavailable")
            assert time.monotonic() >= last[0] + GRACE - TICK
    assert served


def test_a_token_passes_an_outage_for_the_grace_after_its_last_check_and_no_other_does(
    lenient: World, store: Store
) -> None:
    lenient.use(store)
    gateway = lenient.gateways[0]
    recent, never_seen, ended = login(gateway), login(gateway), login(gateway)
    assert status(gateway, ended) == 200
    assert ask(lenient.gateways[1].port, request("POST", "/auth/logout", body=b"", token=ended.access)).status == 204
    assert status(gateway, ended) == 401  # this replica has seen that it has ended
    last = passed(gateway, recent)
    store.stop()
    assert status(gateway, ended) == 503
    assert status(gateway, never_seen) == 503
    passes_for_the_grace_alone(gateway, recent, last)
    assert status(gateway, ended) == 503
    store.start()
    assert decided(lambda: ask(gateway.port, recent.guarded)).status == 200
    assert decided(lambda: ask(gateway.port, ended.guarded)).status == 401


def test_a_session_that_is_ended_beyond_a_partition_passes_there_for_the_grace_at_most(
    lenient: World, store: Store
) -> None:
    lenient.use(store)
    cut_off, other = lenient.gateways
    session = login(other)
    last = passed(cut_off, session)
    lenient.proxies[0].set(CUT)
    assert ask(other.port, request("POST", "/auth/logout", body=b"", token=session.access)).status == 204
    assert status(other, session) == 401
    passes_for_the_grace_alone(cut_off, session, last)
    assert cut_off.operate("GET", "/readyz").json()["failing"] == ["redis"]
    assert other.operate("GET", "/readyz").status == 200
    lenient.proxies[0].set(CLEAR)
    assert decided(lambda: ask(cut_off.port, session.guarded)).status == 401


def test_the_grace_is_for_live_checks_alone(lenient: World, store: Store) -> None:
    lenient.use(store)
    gateway = lenient.gateways[0]
    session = login(gateway)
    passed(gateway, session)
    lenient.proxies[0].refuse()
    until(lambda: gateway.readiness() == 503, "the outage is noticed")
    assert status(gateway, session) == 200
    assert gateway.refresh(session.refresh).error == (503, "store_unavailable")
    assert ask(gateway.port, request("POST", "/auth/logout", body=b"", token=session.access)).status == 503
    assert status(gateway, session) == 200  # for nobody has ended it
