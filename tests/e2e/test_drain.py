"""SIGTERM ends a gateway and SIGHUP changes it, and no request pays for it."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call, Nginx
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.load import Load, load
from tests.e2e.test_workers import children
from tests.e2e.wire import Client, ask, request
from tests.redis_server import free_port

RATE = 2000  # requests a second that fall due in the tests of a load
ONE_AND_TWO = pytest.mark.parametrize("words", [[], ["--workers", "2"]], ids=["one", "two"])
GET = request("GET", "/app/")


def rewrite(gateway: Gateway, **options: Any) -> None:
    """Put another configuration in the place of a gateway's own."""
    path = gateway.site.configure(gateway.port, gateway.management, options)
    os.replace(path, gateway.config)


def hang_up(gateway: Gateway, message: str, number: int = 1) -> list[dict[str, Any]]:
    """Send SIGHUP and wait until this has been logged so many times more; return these lines."""
    before = len(said(gateway, message))
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: len(said(gateway, message)) >= before + number, f"{message}\n{gateway.log}", 10)
    return said(gateway, message)[before:]


def tell(capsys: pytest.CaptureFixture[str], what: str, running: Load) -> None:
    """Show how much was asked and answered: a machine that can do less is asked for less, and the test says so."""
    with capsys.disabled():
        sys.stdout.write(f"\n{what}: {running}\n")


def said(gateway: Gateway, message: str) -> list[dict[str, Any]]:
    whole = gateway.log.rpartition("\n")[0]
    return [line for line in gateway.log_lines() if line["message"] == message] if whole else []


RELOADED, REFUSED = "the configuration was reloaded", "the configuration was not reloaded"


# --- SIGTERM ---


@ONE_AND_TWO
def test_two_replicas_that_end_one_after_the_other_fail_no_request(
    site: Site, nginx: Nginx, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in Kubernetes: who is not ready gets no new connections, a moment later."""
    options: dict[str, Any] = {"routes": [route("/app/", nginx.url)], "server": {"drain_delay": "1s"}}
    with site.serve(words, **options) as one, site.serve(words, **options) as other:
        ready = [one.port, other.port]
        data = request("GET", "/app/", token=one.token)
        with load(lambda: ready, data, rate=RATE) as running:
            until(lambda: running.total > RATE, "load")
            one.process.send_signal(signal.SIGTERM)
            until(lambda: one.readiness() == 503, "not ready")
            ready = [other.port]
            assert one.process.wait(15) == 0
            since = running.by_port[other.port]
            until(lambda: running.by_port[other.port] > since + RATE, "the other one serves on")
        tell(capsys, f"SIGTERM, {len(words) or 1} of each replica", running)
        assert running.failures == []
        assert running.closes >= 1
        assert running.by_port[one.port] > 100


def test_readiness_ends_at_the_signal_and_new_connections_are_taken_during_the_delay(site: Site, nginx: Nginx) -> None:
    options: dict[str, Any] = {"routes": [route("/app/", nginx.url, auth="none")], "server": {"drain_delay": "1s"}}
    with site.serve(**options) as gateway:
        assert ask(gateway.port, GET).get("connection") == ""
        gateway.process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        gateway.wait_ready(503)
        assert time.monotonic() - sent < 0.5
        answer = ask(gateway.port, GET)
        assert (answer.status, answer.get("connection")) == (200, "close")
        until(lambda: refuses(gateway), "no new connections", 5)
        assert time.monotonic() - sent >= 0.9


def refuses(gateway: Gateway) -> bool:
    try:
        Client(gateway.port).close()
    except ConnectionRefusedError:
        return True
    return False


@ONE_AND_TWO
def test_a_connection_between_two_requests_gets_one_more_answer_at_the_end(
    site: Site, nginx: Nginx, words: list[str]
) -> None:
    with site.serve(words, routes=[route("/app/", nginx.url, auth="none")]) as gateway, Client(gateway.port) as client:
        assert client.ask(GET).status == 200
        gateway.process.send_signal(signal.SIGTERM)
        until(lambda: gateway.operate("GET", "/readyz").status == 503, "not ready")
        answer = client.ask(GET)
        assert (answer.status, answer.get("connection")) == (200, "close")
        assert client.ended()


def test_an_idle_connection_does_not_hold_up_the_end(site: Site, nginx: Nginx) -> None:
    options: dict[str, Any] = {"routes": [route("/app/", nginx.url, auth="none")], "server": {"drain_timeout": "10s"}}
    with site.serve(**options) as gateway, Client(gateway.port) as client, Client(gateway.port):
        assert client.ask(GET).status == 200
        sent = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - sent < 4


def test_a_stream_has_the_drain_timeout_and_is_ended_then(site: Site, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        call.gone()

    spot = backend.spot(behaviour)
    options: dict[str, Any] = {
        "routes": [route("/raw/", backend.url, auth="none")],
        "server": {"drain_timeout": "1500ms"},
    }
    with site.serve(**options) as gateway, Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        assert client.head().status == 200
        sent = time.monotonic()
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(10) == 0
        assert 1.4 < time.monotonic() - sent < 4


# --- SIGHUP ---


@pytest.fixture
def served(site: Site, nginx: Nginx) -> Iterator[Gateway]:
    with site.serve(routes=[route("/app/", nginx.url, auth="none")]) as gateway:
        yield gateway


@ONE_AND_TWO
def test_reloads_under_load_fail_no_request_and_close_no_connection(
    site: Site, nginx: Nginx, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    number = len(words) or 1
    routes = [route("/app/", nginx.url)]
    with site.serve(words, routes=routes) as gateway:
        data = request("GET", "/app/", token=gateway.token)
        with load(lambda: [gateway.port], data, rate=RATE) as running:
            until(lambda: running.total > RATE, "load")
            for turn in range(10):
                more = route(f"/more-{turn}/", nginx.url, auth="none")
                changed = route("/app/", nginx.url, max_connections=100 + turn)  # another pool each time
                rewrite(gateway, routes=[changed, more])
                hang_up(gateway, RELOADED, number)
                since = running.total
                until(lambda since=since: running.total > since + 200, "load after it")  # type: ignore[misc]
                for _ in range(4):
                    assert ask(gateway.port, request("GET", f"/more-{turn}/")).status == 404  # nginx's own
                assert ask(gateway.port, request("GET", f"/more-{turn - 1}/")).error == (404, "no_route")
        tell(capsys, f"SIGHUP ten times, {number} workers", running)
        assert running.failures == []
        assert running.closes == 0
        assert set(running.answers) == {200}


def test_a_request_in_flight_ends_under_the_route_that_it_began_with(site: Site, backend: Backend) -> None:
    go = threading.Event()

    def behaviour(call: Call) -> None:
        assert go.wait(10)
        call.reply(b"old")

    spot = backend.spot(behaviour)
    with site.serve(routes=[route("/raw/", backend.url, auth="none")]) as gateway, Client(gateway.port) as client:
        client.send(request("GET", spot.path()))
        spot.calls(1)
        rewrite(gateway, routes=[])
        hang_up(gateway, RELOADED)
        go.set()
        assert client.answer().body == b"old"
        assert client.ask(request("GET", spot.path())).error == (404, "no_route")


def test_a_file_that_cannot_be_used_changes_nothing_and_is_told_in_one_line(served: Gateway) -> None:
    served.config.write_text(served.config.read_text().replace('["server"]', '["server"]\nwrokers = 2'))
    (line,) = hang_up(served, REFUSED)
    assert "server.wrokers" in line["reason"]
    assert ask(served.port, GET).status == 200


def test_users_that_cannot_be_read_change_nothing(served: Gateway) -> None:
    users = served.site.directory / "users.toml"
    good = users.read_bytes()
    try:
        users.write_text("[users.alice]\npassword = 'plain'\n")
        users.chmod(0o600)
        (line,) = hang_up(served, REFUSED)
        assert "users.alice" in line["reason"]
        served.login("bob")
    finally:
        users.write_bytes(good)


@ONE_AND_TWO
def test_what_only_a_restart_can_change_is_named_and_stays(site: Site, nginx: Nginx, words: list[str]) -> None:
    routes = [route("/app/", nginx.url, auth="none")]
    with site.serve(words, routes=routes) as gateway:
        rewrite(gateway, routes=routes, redis={"prefix": "other"}, tokens={"access_ttl": "9m"})
        lines = hang_up(gateway, "settings that a restart is needed for have changed", len(words) or 1)
        assert {line["keys"] for line in lines} == {"redis.prefix tokens.access_ttl"}
        assert gateway.operate("GET", "/admin/users/u-alice/sessions").status == 200


def test_users_and_rules_of_routes_are_those_of_the_new_files(site: Site, nginx: Nginx) -> None:
    with site.serve(routes=[route("/app/", nginx.url)]) as gateway:
        token = gateway.login("bob")["access_token"]
        data = request("GET", "/app/", token=token)
        with Client(gateway.port) as client:
            assert client.ask(data).status == 200
            rewrite(gateway, routes=[route("/app/", nginx.url, roles_any=["admin"])])
            hang_up(gateway, RELOADED)
            assert client.ask(data).error == (403, "insufficient_scope")
        users = site.directory / "users.toml"
        good = users.read_bytes()
        try:
            users.write_bytes(good.replace(b"bob", b"rob"))
            hang_up(gateway, RELOADED)
            gateway.login("rob")
        finally:
            users.write_bytes(good)


def test_an_identity_header_that_a_reload_brings_cannot_be_sent_by_a_client_from_then_on(
    site: Site, backend: Backend
) -> None:
    spot = backend.spot()
    routes = [route("/guarded/", backend.url)]
    with site.serve(routes=routes) as gateway, Client(gateway.port) as client:
        data = request("GET", spot.path("/guarded"), {"X-Rank": "admiral"}, token=gateway.token)
        for _ in range(3):  # the connection remembers this section
            assert client.ask(data).status == 200
        assert spot.calls(3)[-1].all("x-rank") == ["admiral"]
        rewrite(gateway, routes=routes, identity_headers={"X-Rank": "sub"})
        hang_up(gateway, RELOADED)
        assert client.ask(data).status == 200
        call = spot.calls(4)[-1]
        assert call.all("x-rank") == ["u-alice"]
        assert call.all("x-auth-request-user") == []


def test_pools_that_a_reload_leaves_alone_keep_their_connections(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    routes = [route("/raw/", backend.url, auth="none")]
    with site.serve(routes=routes) as gateway:
        assert ask(gateway.port, request("GET", spot.path())).status == 200
        rewrite(gateway, routes=[*routes, route("/more/", backend.url, auth="none")])
        hang_up(gateway, RELOADED)
        assert ask(gateway.port, request("GET", spot.path("/more"))).status == 200
        first, second = spot.calls(2)
        assert second.connection is first.connection
        rewrite(gateway, routes=[])
        hang_up(gateway, RELOADED)
        assert first.gone()


# --- workers ---


def test_a_killed_worker_comes_back_while_no_connection_is_refused(site: Site, nginx: Nginx) -> None:
    with site.serve(["--workers", "2"], routes=[route("/app/", nginx.url, auth="none")]) as gateway:
        until(lambda: len(children(gateway)) == 2, "two workers")
        first = children(gateway)
        with load(lambda: [gateway.port], GET, clients=6) as running:
            until(lambda: running.total > 200, "load")
            os.kill(first[0], signal.SIGKILL)
            until(lambda: len(children(gateway)) == 2 and first[0] not in children(gateway), "a new worker")
            since = running.total
            until(lambda: running.total > since + 300, "load after it")
        assert not [failure for failure in running.failures if "Refused" in failure], running.failures
        assert len(running.failures) <= 6  # those that the dead worker had, one each
        (line,) = said(gateway, "a worker died and is replaced")
        assert line["status"] == -signal.SIGKILL


def test_a_worker_that_comes_later_has_the_settings_of_the_last_reload(site: Site, nginx: Nginx) -> None:
    with site.serve(["--workers", "2"], routes=[]) as gateway:
        until(lambda: len(children(gateway)) == 2, "two workers")
        rewrite(gateway, routes=[route("/app/", nginx.url, auth="none")])
        hang_up(gateway, RELOADED, 2)
        gateway.config.write_text("this is no longer TOML")
        first = children(gateway)
        for process in first:
            os.kill(process, signal.SIGKILL)
        until(lambda: len(children(gateway)) == 2 and not set(first) & set(children(gateway)), "new workers")
        until(lambda: gateway.readiness() == 200, "ready")
        for _ in range(10):
            assert ask(gateway.port, GET).status == 200


def test_workers_that_cannot_start_end_the_gateway_with_an_error(site: Site) -> None:
    bad = site.directory / "bad.toml"
    bad.write_text("[users.alice]\npassword = 'plain'\n")
    bad.chmod(0o600)
    port, management = free_port(), free_port()
    config = site.configure(port, management, {"identity": {"users_file": str(bad)}})
    gateway = Gateway(site, config, port, management, ["--workers", "2"])
    try:
        assert gateway.process.wait(20) == 3
    finally:
        gateway.kill()
    assert "no worker can start" in gateway.log
