"""More requests at once than a worker can read in time."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import Answer, Client, request
from tests.soak.overload import overload

BURST = 400


@pytest.fixture(scope="module")
def impatient(site: Site, backend: Backend) -> Iterator[Gateway]:
    routes = [route("/guarded/", backend.url, max_waiting=BURST)]
    with site.serve(server={"overload_after": "1ms"}, routes=routes) as gateway:
        yield gateway


def burst(gateway: Gateway, data: bytes) -> list[Answer]:
    """Send a request on each of many connections while the gateway is stopped: it finds them all in one turn."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(gateway.port)) for _ in range(BURST)]
        for client in clients:  # each is accepted and known to the loop
            assert client.ask(request("GET", "/auth/me", token=gateway.token)).status == 200
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            for client in clients:
                client.send(data)
        finally:
            gateway.process.send_signal(signal.SIGCONT)
        return [client.answer() for client in clients]


def test_a_burst_after_a_pause_is_served_however_late_it_is_read(impatient: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    answers = burst(impatient, request("GET", spot.path("/guarded"), token=impatient.token))
    assert {answer.status for answer in answers} == {200}


def test_four_times_the_capacity_is_met_with_refusals_and_with_nothing_worse() -> None:
    full, calm, storm = overload(1.5)
    assert {*full.statuses, *calm.statuses} <= {200, 503}  # another process may take the machine away for a while
    assert full.statuses[200] > full.statuses[503]
    assert set(storm.statuses) == {200, 503}
