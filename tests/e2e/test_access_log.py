"""The access log of a real gateway: a line for each way in which a request can end, and nothing secret in it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call, raw, steps
from tests.e2e.harness import PASSWORD, TIMEOUT, Gateway, Site, route, until
from tests.e2e.test_drain import RELOADED, hang_up, rewrite
from tests.e2e.test_streams import echo, frame, opened, upgrade
from tests.e2e.wire import Client, ask, json_request, request
from tests.redis_server import free_port

ALWAYS = {"ts", "level", "logger", "message", "status", "ip"}
ROUTED = ALWAYS | {"method", "path", "route", "seconds", "bytes_out", "protocol", "request_id"}
Line = dict[str, Any]


@pytest.fixture(scope="module")
def logged(site: Site, backend: Backend) -> Iterator[Gateway]:
    routes = [
        route("/guarded/", backend.url),
        route("/raw/", backend.url, auth="none"),
        route("/reading/", backend.url, methods=["GET"], auth="none"),
        route("/closed/", f"http://127.0.0.1:{free_port()}", auth="none"),
        route("/impatient/", backend.url, auth="none", response_timeout="300ms"),
        route("/idle/", backend.url, auth="none", idle_timeout="300ms"),
    ]
    log = {"access": True, "access_per_second": 0}
    with site.serve(routes=routes, log=log, server={"trusted_proxies": ["127.0.0.1"]}) as gateway:
        yield gateway


def lines(gateway: Gateway, **wanted: Any) -> list[Line]:
    """Return the lines of the access log that have these members; every line of the log must be JSON."""
    whole = gateway.log.rpartition("\n")[0]
    found = [json.loads(line) for line in whole.splitlines()]
    access = [line for line in found if line["logger"] == "gateway.access"]
    return [line for line in access if wanted.items() <= line.items()]


def line(gateway: Gateway, **wanted: Any) -> Line:
    """Wait for the one line with these members."""
    until(lambda: lines(gateway, **wanted), f"a line with {wanted}\n{gateway.log[-2000:]}")
    (found,) = lines(gateway, **wanted)
    return found


def test_a_good_request_has_a_line_with_where_it_went(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.reply(b"hello"))
    headers = {"X-Request-Id": "a-name", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}
    answer = ask(logged.port, request("POST", f"{spot.path('/guarded')}?q=1", headers, b"12345", token=logged.token))
    assert answer.status == 200
    found = line(logged, path=spot.path("/guarded"))
    assert set(found) == ROUTED | {"bytes_in", "upstream", "trace_id"}
    assert found["method"] == "POST"
    assert (found["route"], found["status"], found["protocol"]) == ("/guarded/", 200, "HTTP/1.1")
    assert (found["bytes_in"], found["ip"]) == (5, "127.0.0.1")
    assert found["upstream"] == f"127.0.0.1:{backend.port}"
    assert (found["request_id"], found["trace_id"]) == ("a-name", "ab" * 16)
    assert 0 < found["seconds"] < TIMEOUT


def test_the_bytes_that_went_out_are_those_that_the_client_got(logged: Gateway, backend: Backend) -> None:
    bodies = [b"", b"x" * 100, b"x" * 300_000]
    chunked = raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    spots = [*(backend.spot(partial(Call.reply, body=body)) for body in bodies), backend.spot(chunked)]
    for spot in spots:
        with Client(logged.port) as client:
            client.send(request("GET", spot.path(), {"Connection": "close"}))
            size = len(client.rest())
        assert line(logged, path=spot.path())["bytes_out"] == size


def test_a_kept_connection_counts_for_each_request_anew(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.reply(b"hello"))
    with Client(logged.port) as client:
        for _ in range(3):
            assert client.ask(request("GET", spot.path())).status == 200
    until(lambda: len(lines(logged, path=spot.path())) == 3, "three lines")
    assert len({found["bytes_out"] for found in lines(logged, path=spot.path())}) == 1
    assert len({found["request_id"] for found in lines(logged, path=spot.path())}) == 3
    assert len({found["trace_id"] for found in lines(logged, path=spot.path())}) == 3


def test_the_request_id_and_the_trace_are_those_that_the_backend_gets(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    assert ask(logged.port, request("GET", spot.path())).status == 200
    found = line(logged, path=spot.path())
    assert spot.call().get("x-request-id") == found["request_id"]
    assert spot.call().get("traceparent").split("-")[1] == found["trace_id"]


@pytest.mark.parametrize(
    ("target", "headers", "status", "error"),
    [
        ("/guarded/x", {}, 401, "missing_token"),
        ("/guarded/x", {"Authorization": "Bearer nonsense"}, 401, "invalid_token"),
        ("/closed/x", {}, 502, "upstream_unreachable"),
        ("/nowhere/x", {}, 404, "no_route"),
        ("/raw/x?a#b", {}, 400, "bad_request"),
    ],
)
def test_a_refusal_has_a_line_with_its_code(
    logged: Gateway, target: str, headers: dict[str, str], status: int, error: str
) -> None:
    before = len(lines(logged, error=error))
    answer = ask(logged.port, request("GET", f"{target}{'&' if '?' in target else '?'}canary=1", headers))
    assert answer.error == (status, error)
    until(lambda: len(lines(logged, error=error)) > before, "a line")
    found = lines(logged, error=error)[-1]
    assert (found["status"], found["method"]) == (status, "GET")
    assert "canary" not in json.dumps(found)
    if "request_id" in found:
        assert found["request_id"] == answer.get("x-request-id")
        assert found["bytes_out"] > 100


def test_a_method_that_a_route_does_not_take_has_a_line(logged: Gateway) -> None:
    assert ask(logged.port, request("DELETE", "/reading/a-method")).status == 405
    found = line(logged, path="/reading/a-method")
    assert (found["method"], found["error"]) == ("DELETE", "method_not_allowed")


def test_what_is_no_request_has_a_line_without_one(logged: Gateway) -> None:
    before = len(lines(logged, error="bad_request"))
    with Client(logged.port) as client:
        client.send(b"\x16\x03\x01 canary\r\n\r\n")
        client.rest()
    until(lambda: len(lines(logged, error="bad_request")) > before, "a line")
    assert set(lines(logged, error="bad_request")[-1]) == ALWAYS | {"error"}


def test_a_backend_that_is_too_slow_has_a_line(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.gone())
    assert ask(logged.port, request("GET", spot.path("/impatient"))).status == 504
    found = line(logged, path=spot.path("/impatient"))
    assert (found["status"], found["error"]) == (504, "upstream_timeout")
    assert found["seconds"] >= 0.3


def test_a_client_that_goes_away_has_a_line_with_499(logged: Gateway, backend: Backend) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        if call.gone():
            ended.set()

    spot = backend.spot(behaviour)
    with Client(logged.port) as client:
        client.send(request("GET", spot.path()))
        spot.calls(1)
    assert ended.wait(TIMEOUT)
    found = line(logged, path=spot.path())
    assert (found["status"], found["bytes_out"]) == (499, 0)


def test_an_answer_that_breaks_off_is_told_as_cut(logged: Gateway, backend: Backend) -> None:
    def behaviour(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        time.sleep(0.2)
        call.close()

    spot = backend.spot(behaviour)
    with Client(logged.port) as client:
        client.send(request("GET", spot.path()))
        assert client.head().status == 200
        assert client.socket.recv(100) in (b"half", b"")
    found = line(logged, path=spot.path())
    assert (found["status"], found["cut"], found["error"]) == (200, "aborted", "upstream_invalid")


def test_a_websocket_has_one_line_when_it_ends(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot(echo)
    with Client(logged.port) as client:
        opened(client, upgrade(spot.path("/guarded"), logged.token))
        sent = frame(b"x" * 1000, mask=b"abcd")
        client.send(sent)
        assert b"".join(client._exactly(len(sent))) == sent
        assert lines(logged, path=spot.path("/guarded")) == []
    found = line(logged, path=spot.path("/guarded"))
    assert (found["status"], found["protocol"]) == (101, "websocket")
    assert found["bytes_out"] > len(sent)


def test_a_websocket_that_idles_too_long_is_told_as_cut_and_counted_once(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot(echo)
    with Client(logged.port) as client:
        opened(client, upgrade(spot.path("/idle")))
        assert client.ended()
    found = line(logged, path=spot.path("/idle"))
    assert (found["status"], found["cut"]) == (101, "aborted")
    assert logged.metric("tokengate_requests_total", route="/idle/", code="101") == 1


def test_a_stream_that_the_gateway_ends_says_why(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot(echo)
    session = logged.login("carol")
    with Client(logged.port) as client:
        opened(client, upgrade(spot.path("/guarded"), session["access_token"]))
        assert ask(logged.port, request("POST", "/auth/logout", token=session["access_token"])).status == 204
        client.rest()
    assert line(logged, path=spot.path("/guarded"))["cut"] == "revoked"


def test_the_control_plane_has_lines_without_what_is_the_users(logged: Gateway) -> None:
    session = logged.login("carol", device="canary-device")
    sid = session["session_id"]
    assert ask(logged.port, request("DELETE", f"/auth/sessions/{sid}", token=session["access_token"])).status == 204
    found = line(logged, path="/auth/sessions/{session_id}", status=204)
    assert set(found) == ROUTED
    assert (found["method"], found["route"]) == ("DELETE", "control")
    data = json_request("POST", "/auth/login", {"username": "canary", "password": "canary"})
    assert ask(logged.port, data.replace(b"Host:", b"X-Request-Id: of-a-login\r\nHost:", 1)).status == 401
    found = line(logged, request_id="of-a-login")
    assert (found["path"], found["error"]) == ("/auth/login", "invalid_credentials")
    audit = [each for each in logged.log_lines() if each.get("event") == "login_failed"]
    assert audit[-1]["request_id"] == "of-a-login"
    told = json.dumps(lines(logged))
    assert sid not in told
    assert "canary" not in told


def test_forward_auth_has_a_line(logged: Gateway) -> None:
    headers = {"X-Original-Method": "GET", "X-Original-URI": "/guarded/x?canary=1", "X-Request-Id": "of-a-verify"}
    assert ask(logged.port, request("GET", "/auth/verify", headers, token=logged.token)).status == 200
    found = line(logged, request_id="of-a-verify")
    assert (found["path"], found["status"]) == ("/auth/verify", 200)
    assert "subject" not in found


def test_users_and_sessions_are_named_where_the_operator_asks_for_it(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    with site.serve(routes=[route("/guarded/", backend.url)], log={"access": True, "access_user": True}) as gateway:
        session = gateway.login("bob")
        assert ask(gateway.port, request("GET", spot.path("/guarded"), token=session["access_token"])).status == 200
        found = line(gateway, path=spot.path("/guarded"))
        assert (found["subject"], found["session_id"]) == ("u-bob", session["session_id"])


# --- attacks ---


def test_what_a_client_sends_cannot_make_a_line_or_a_member_of_its_own(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    attacks = [
        f'/raw/{spot.name}/","status":200,"x":"',
        f"/raw/{spot.name}/%0a%7b%22logger%22:%22gateway.audit%22%7d",
        f"/raw/{spot.name}/\\u000a{{}}",
        f"/raw/{spot.name}/{'<script>'}",
        f"/raw/{spot.name}/;a=b%1b[31m",
    ]
    before = len(lines(logged))
    for target in attacks:
        ask(logged.port, request("GET", target, {"X-Request-Id": '"},{"', "Host": "gateway.test"}))
    until(lambda: len(lines(logged)) >= before + len(attacks), "a line each")
    for found in lines(logged)[before:]:
        assert set(found) <= ROUTED | {"bytes_in", "upstream", "trace_id", "error"}
        assert '"},{"' not in found.get("request_id", "")
    assert not any("x" in found for found in lines(logged)[before:])
    assert "\x1b" not in logged.log


def test_a_method_with_control_characters_is_no_method(logged: Gateway) -> None:
    before = len(lines(logged))
    for method in (b"GE\x1bT", b'GET"', b"GET\x00", b"\xffGET"):
        with Client(logged.port) as client:
            client.send(method + b" /raw/x HTTP/1.1\r\nHost: a\r\n\r\n")
            client.rest()
    until(lambda: len(lines(logged)) == before + 4, "a line each")
    assert {found["error"] for found in lines(logged)[before:]} == {"bad_request"}
    assert not any("method" in found for found in lines(logged)[before:])


def test_a_huge_path_is_cut(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    target = f"/raw/{'a' * 30_000}/{spot.name}"
    assert ask(logged.port, request("GET", target)).status == 200
    until(lambda: [found for found in lines(logged) if found.get("path", "").startswith("/raw/aaaa")], "a line")
    (found,) = [found for found in lines(logged) if found.get("path", "").startswith("/raw/aaaa")]
    assert len(found["path"]) == 512
    assert found["path"].endswith("…")


def test_a_token_in_a_path_is_blotted_out(logged: Gateway) -> None:
    token = logged.login()["access_token"]
    assert ask(logged.port, request("GET", f"/raw/reset/{token}")).status == 404
    line(logged, path="/raw/reset/[redacted]")
    assert token not in logged.log


def test_no_credential_cookie_or_query_is_in_the_log(logged: Gateway, backend: Backend) -> None:
    spot = backend.spot(raw(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=canary-a\r\nContent-Length: 0\r\n\r\n"))
    token = logged.login()["access_token"]
    headers = {"Cookie": "a=canary-b", "X-Api-Key": "canary-c", "Referer": "canary-d", "User-Agent": "canary-e"}
    for target in (f"{spot.path('/guarded')}?access_token={token}", f"{spot.path('/raw')}?q=canary-f"):
        assert ask(logged.port, request("POST", target, headers, b"canary-g", token=token)).status == 200
    assert ask(logged.port, request("GET", "/guarded/x", {"Authorization": "Basic canary-h"})).status == 401
    until(lambda: lines(logged, path=spot.path("/raw")), "the lines")
    told = json.dumps(lines(logged))
    assert token not in told
    assert "canary" not in told


# --- sampling and bounds ---


def sampled(site: Site, backend: Backend, **log: Any) -> Any:
    routes = [route("/raw/", backend.url, auth="none"), route("/guarded/", backend.url)]
    return site.serve(routes=routes, log={"access": True, "access_per_second": 0, **log})


def test_of_good_requests_a_part_is_logged_and_of_the_others_all(site: Site, backend: Backend) -> None:
    """400 of one in four: that fewer than 50 or more than 150 are logged happens once in 10^8 runs."""
    spot = backend.spot()
    slow = backend.spot(steps(lambda call: time.sleep(0.3), Call.reply))
    broken = backend.spot(raw(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"))
    with sampled(site, backend, access_sample=0.25, access_slow="300ms") as gateway:
        with Client(gateway.port) as client:
            for _ in range(400):
                assert client.ask(request("GET", spot.path())).status == 200
            for _ in range(20):
                assert client.ask(request("GET", broken.path())).status == 500
                assert client.ask(request("GET", "/guarded/x")).status == 401
            for _ in range(3):
                assert client.ask(request("GET", slow.path())).status == 200
        until(lambda: len(lines(gateway, path=slow.path())) == 3, "all that are slow")
        assert 50 < len(lines(gateway, path=spot.path())) < 150
        assert len(lines(gateway, path=broken.path())) == 20
        assert len(lines(gateway, path="/guarded/x")) == 20


def test_replicas_behind_each_other_log_the_same_requests(site: Site, backend: Backend) -> None:
    """The name that a trusted proxy gave decides, wherever the request comes by."""
    spot = backend.spot()
    trusting = {"trusted_proxies": ["127.0.0.1"]}
    log = {"access": True, "access_sample": 0.5, "access_per_second": 0}
    behind = [route("/raw/", backend.url, auth="none")]
    with ExitStack() as stack:
        second = stack.enter_context(site.serve(routes=behind, log=log, server=trusting))
        before = [route("/raw/", f"http://127.0.0.1:{second.port}", auth="none")]
        first = stack.enter_context(site.serve(routes=before, log=log))
        with Client(first.port) as client:
            for _ in range(100):
                assert client.ask(request("GET", spot.path())).status == 200
        first.stop()
        second.stop()
        mine = {found["request_id"] for found in lines(first, path=spot.path())}
        assert 10 < len(mine) < 90
        assert mine == {found["request_id"] for found in lines(second, path=spot.path())}


def test_a_client_cannot_hide_by_the_name_of_its_request(site: Site, backend: Backend) -> None:
    """One name 60 times: by its hash they would all be logged, or none of them; by a draw some are."""
    spot = backend.spot()
    with sampled(site, backend, access_sample=0.5) as gateway:
        with Client(gateway.port) as client:
            for _ in range(60):
                assert client.ask(request("GET", spot.path(), {"X-Request-Id": "chosen"})).status == 200
        gateway.stop()
        assert 0 < len(lines(gateway, request_id="chosen")) < 60


def test_more_lines_than_the_bound_are_left_out_and_counted(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    with sampled(site, backend, access_per_second=5) as gateway:
        number = 300
        with Client(gateway.port) as client:
            for _ in range(number):
                assert client.ask(request("GET", spot.path())).status == 200
        before = len(lines(gateway, path=spot.path()))
        assert before < number

        def told() -> bool:
            assert ask(gateway.port, request("GET", spot.path())).status == 200
            return len(lines(gateway, path=spot.path())) > before

        until(told, "there is room again")
        gateway.stop()
        left_out = sum(found.get("left_out", 0) for found in lines(gateway))
        assert len(spot.calls()) == len(lines(gateway, path=spot.path())) + left_out


def test_a_reader_of_the_log_that_stops_does_not_stop_the_gateway(site: Site, backend: Backend) -> None:
    """Standard error is a pipe that nobody reads: requests go on, and a later line says how many were left out."""
    spot = backend.spot()
    port, management = free_port(), free_port()
    config = site.configure(
        port,
        management,
        {
            "routes": [route("/raw/", backend.url, auth="none")],
            "log": {"access": True, "access_per_second": 0},
        },
    )
    reading, writing = os.pipe()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENGATE_")}
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing, env=inherited)
    os.close(writing)
    try:
        until(lambda: _ready(management), "ready")
        padding = "a" * 200
        with Client(port) as client:  # a pipe holds 64 KiB, the gateway 256 KiB more
            for _ in range(1500):
                assert client.ask(request("GET", f"/raw/{padding}/{spot.name}")).status == 200
        pieces: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(reading, pieces), daemon=True)
        reader.start()
        until(lambda: b"left_out" in b"".join(pieces) or _nudge(port, spot.path()), "it is told")
        found = [json.loads(each) for each in b"".join(pieces).rpartition(b"\n")[0].splitlines()]
        assert max(each.get("left_out", 0) for each in found) > 100
    finally:
        process.terminate()
        process.wait(TIMEOUT)
        os.close(reading)


def _ready(management: int) -> bool:
    try:
        return ask(management, request("GET", "/readyz", {"Connection": "close"})).status == 200
    except OSError:
        return False


def _nudge(port: int, target: str) -> bool:
    assert ask(port, request("GET", target)).status == 200
    return False


def _drain(reading: int, pieces: list[bytes]) -> None:
    while True:
        try:
            piece = os.read(reading, 65536)
        except OSError:
            return
        if not piece:
            return
        pieces.append(piece)


def test_lines_of_several_workers_do_not_mix(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    routes = [route("/raw/", backend.url, auth="none")]
    log = {"access": True, "access_per_second": 0}
    with site.serve(["--workers", "2"], routes=routes, log=log) as gateway:
        threads = [threading.Thread(target=_ask_many, args=(gateway.port, spot.path(), 200)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        until(lambda: len(lines(gateway, path=spot.path())) == 800, "every line")


def _ask_many(port: int, target: str, number: int) -> None:
    for _ in range(number // 20):
        with Client(port) as client:
            for _ in range(20):
                assert client.ask(request("GET", target)).status == 200


# --- on and off ---


def test_it_is_off_by_default_and_a_reload_puts_it_on_and_off(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    options: dict[str, Any] = {"routes": [route("/raw/", backend.url, auth="none")]}
    with site.serve(**options) as gateway, Client(gateway.port) as client:
        assert client.ask(request("GET", spot.path())).status == 200
        rewrite(gateway, **options, log={"access": True})
        hang_up(gateway, RELOADED)
        assert lines(gateway) == []
        assert client.ask(request("GET", spot.path())).status == 200  # on the same connection
        line(gateway, path=spot.path())
        rewrite(gateway, **options)
        hang_up(gateway, RELOADED)
        assert client.ask(request("GET", spot.path())).status == 200
        assert client.ask(request("GET", "/nowhere")).status == 404
        gateway.stop()
        assert len(lines(gateway)) == 1


def test_a_reload_takes_up_the_level(site: Site) -> None:
    with site.serve() as gateway:
        refresh = gateway.login("bob")["refresh_token"]
        rewrite(gateway, log={"level": "debug"})
        hang_up(gateway, RELOADED)
        assert gateway.refresh(refresh).status == 200  # audited at debug alone
        until(lambda: any(each.get("event") == "refresh" for each in gateway.log_lines()), "the refresh is told")


def test_an_id_that_nobody_vouches_for_is_taken_over_where_it_is_one(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    name = secrets.token_hex(8)
    with sampled(site, backend) as gateway:
        assert ask(gateway.port, request("GET", spot.path(), {"X-Request-Id": name})).status == 200
        line(gateway, request_id=name)
        body = json_request("POST", "/auth/login", {"username": "bob", "password": PASSWORD})
        assert ask(gateway.port, body).status == 200
        assert line(gateway, path="/auth/login")["status"] == 200
