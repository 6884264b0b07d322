"""More requests at once than a worker can read in time: some are refused at once, none is lost or wrong."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import Answer, Client, request

BURST = 400  # at some 40 us each this takes a worker many milliseconds, also a fast one


@pytest.fixture(scope="module")
def impatient(site: Site, backend: Backend) -> Iterator[Gateway]:
    routes = [route("/guarded/", backend.url, max_waiting=BURST), route("/open/", backend.url, auth="none")]
    with site.serve(server={"overload_after": "1ms"}, routes=routes) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def patient(site: Site, backend: Backend) -> Iterator[Gateway]:
    with site.serve(server={"overload_after": "0s"}, routes=[route("/guarded/", backend.url, max_waiting=BURST)]) as it:
        yield it


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
        answers = [client.answer() for client in clients]
        assert {client.ask(data).status for client in clients} == {200}, "it serves again, on the same connections"
    return answers


def test_requests_that_are_read_too_late_in_a_turn_are_refused(impatient: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    answers = burst(impatient, request("GET", spot.path("/guarded"), token=impatient.token))
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 503}, statuses
    refused = [answer for answer in answers if answer.status == 503]
    assert {answer.error for answer in refused} == {(503, "overloaded")}
    assert {answer.get("retry-after") for answer in refused} == {"1"}
    assert len(spot.calls()) == statuses[200] + BURST, "a refused request has reached the backend"
    assert impatient.metric("tokengate_rejections_total", error="overloaded") == len(refused)


def test_without_the_bound_every_request_waits_its_turn(patient: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    answers = burst(patient, request("GET", spot.path("/guarded"), token=patient.token))
    assert {answer.status for answer in answers} == {200}
