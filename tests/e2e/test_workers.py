"""Several worker processes are one gateway: one set of metrics, one truth about sessions, one end."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Client, WireError, ask, request


def children(gateway: Gateway) -> list[int]:
    """Return the worker processes."""
    path = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")
    return [int(child) for child in path.read_text().split() if b"spawn_main" in _command(child)]


def _command(process: str) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return b""


@pytest.fixture(scope="module")
def two(site: Site, backend: Backend) -> Iterator[Gateway]:
    routes = [route("/guarded/", backend.url), route("/raw/", backend.url, auth="none")]
    with site.serve(["--workers", "2"], routes=routes) as gateway:
        until(lambda: len(children(gateway)) == 2, "two workers")
        yield gateway


def test_metrics_are_those_of_all_workers(two: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    before = two.metric("tokengate_requests_total", route="/guarded/", code="200")
    token = two.login()["access_token"]
    number = 200
    for _ in range(number):
        assert ask(two.port, request("GET", spot.path("/guarded"), token=token)).status == 200

    def counted() -> bool:
        """Whichever worker answers; they tell each other once a second."""
        scrapes = (two.metric("tokengate_requests_total", route="/guarded/", code="200") for _ in range(10))
        return all(scrape - before == number for scrape in scrapes)

    until(counted, "the requests of both workers are counted", 5)
    until(lambda: two.metric("tokengate_store_up") == 1, "every worker says that the store is up", 3)


def test_a_revoke_holds_at_once_whichever_worker_is_asked(two: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for _ in range(20):
        token = two.login("bob")["access_token"]
        clients = [Client(two.port) for _ in range(6)]
        for client in clients:
            assert client.ask(request("GET", spot.path("/guarded"), token=token)).status == 200
        assert ask(two.port, request("POST", "/auth/logout", token=token)).status == 204
        for client in clients:
            assert client.ask(request("GET", spot.path("/guarded"), token=token)).error == (401, "revoked_token")
            client.close()


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["one", "two"])
def test_a_request_in_flight_is_answered_before_the_end(site: Site, backend: Backend, words: list[str]) -> None:
    go = threading.Event()

    def behaviour(call: Call) -> None:
        assert go.wait(10)
        call.reply(b"finished")

    spot = backend.spot(behaviour)
    options: dict[str, Any] = {"server": {"drain_timeout": "10s"}, "routes": [route("/raw/", backend.url, auth="none")]}
    with site.serve(words, **options) as gateway, Client(gateway.port) as busy, Client(gateway.port) as idle:
        assert idle.ask(request("GET", "/auth/me")).status == 401
        busy.send(request("GET", spot.path()))
        spot.calls(1)
        gateway.process.send_signal(signal.SIGTERM)
        assert idle.ended()
        go.set()
        answer = busy.answer()
        assert (answer.body, answer.get("connection")) == (b"finished", "close")
        assert gateway.stop() == 0


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["one", "two"])
def test_a_request_that_never_ends_holds_up_the_end_no_longer_than_the_drain(
    site: Site, backend: Backend, words: list[str]
) -> None:
    spot = backend.spot(lambda call: call.gone())
    routes = [route("/raw/", backend.url, auth="none")]
    with site.serve(words, server={"drain_timeout": "1s"}, routes=routes) as gateway, Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        spot.calls(1)
        assert gateway.stop() == 0
        with pytest.raises((WireError, OSError)):
            client.answer()


SLOW_START = """
import asyncio
from uvicorn.lifespan.on import LifespanOn

startup = LifespanOn.startup


async def slow(self):
    await startup(self)
    await asyncio.sleep(1)  # management is up, the clients' listener is to come


LifespanOn.startup = slow
"""


@pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["one", "two"])
def test_a_replica_is_not_ready_before_clients_can_connect(
    site: Site, backend: Backend, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_START)
    spot = backend.spot()
    options: dict[str, Any] = {"routes": [route("/raw/", backend.url, auth="none")]}
    with site.serve(words, ready=503, environ={"PYTHONPATH": str(tmp_path)}, **options) as gateway:
        until(lambda: gateway.operate("GET", "/readyz").json().get("failing") == ["listening"], "only that is left")
        gateway.wait_ready()
        assert ask(gateway.port, request("GET", spot.path())).status == 200


def test_a_worker_that_dies_is_replaced(site: Site, backend: Backend) -> None:
    with site.serve(["--workers", "2"], routes=[route("/raw/", backend.url, auth="none")]) as gateway:
        until(lambda: len(children(gateway)) == 2, "two workers")
        first = children(gateway)
        os.kill(first[0], signal.SIGKILL)
        until(lambda: len(children(gateway)) == 2 and first[0] not in children(gateway), "a new worker")
        gateway.wait_ready()
        spot = backend.spot()
        for _ in range(20):
            assert ask(gateway.port, request("GET", spot.path())).status == 200
