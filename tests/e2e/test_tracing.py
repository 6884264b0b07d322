"""Traces of a real gateway, as a collector gets them: the tree, its ids, what is never in it, and what it costs."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.e2e.backends import Backend, Call, raw, steps
from tests.e2e.collector import Collector, Received, collecting
from tests.e2e.harness import AUDIENCE, ISSUER, PASSWORD, Gateway, Site, route, until
from tests.e2e.test_drain import RELOADED, hang_up, rewrite, said
from tests.e2e.test_renewal import cookie, expire
from tests.e2e.test_streams import echo, frame, opened, upgrade
from tests.e2e.wire import Answer, Client, ask, json_request, request
from tests.redis_server import free_port

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;q=0.5"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def traced(site: Site, backend: Backend, collector: Collector) -> Iterator[Gateway]:
    """A gateway that trusts this machine as a proxy and records what it is asked to by one."""
    routes = [
        route("/guarded/", backend.url),
        route("/unlive/", backend.url, revocation="none"),
        route("/raw/", backend.url, auth="none"),
        route("/closed/", f"http://127.0.0.1:{free_port()}", auth="none"),
        route("/refreshing/", backend.url, on_expired="refresh"),
    ]
    tracing = {"endpoint": collector.url, "sample_ratio": 0.0, "service_name": "edge"}
    with site.serve(routes=routes, tracing=tracing, server={"trusted_proxies": ["127.0.0.1"]}) as gateway:
        yield gateway


def parent(sampled: bool = True) -> tuple[str, str, dict[str, str]]:
    """Return (trace id, span id, headers) of a client's trace."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-{'01' if sampled else '00'}"}


def sign_in(user: str, headers: dict[str, str]) -> bytes:
    body = json.dumps({"username": user, "password": PASSWORD}).encode()
    return request("POST", "/auth/login", {"Content-Type": "application/json", **headers}, body)


def upstream(call: Call) -> tuple[str, str, str]:
    """Return (trace id, parent's span id, flags) that a backend was told."""
    match = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", call.get("traceparent"))
    assert match is not None, call.head
    return match[1], match[2], match[3]


def whole(spans: list[Received]) -> bool:
    return any(span.kind == "server" for span in spans)


# --- the tree ---


def test_a_recorded_request_is_a_server_span_with_its_live_check_and_its_try_below(
    traced: Gateway, backend: Backend, collector: Collector
) -> None:
    spot = backend.spot()
    trace, caller, headers = parent()
    target = f"{spot.path('/guarded')}?secret=1"
    assert ask(traced.port, request("GET", target, headers, token=traced.token)).status == 200
    spans = collector.tree(trace, 3)
    server, check, attempt = spans["GET /guarded/"], spans["live check"], spans["GET"]
    assert (server.kind, server.parent) == ("server", caller)
    assert (check.kind, check.parent) == ("client", server.id)
    assert (attempt.kind, attempt.parent) == ("client", server.id)
    assert upstream(spot.call()) == (trace, attempt.id, "01")
    assert server.start <= check.start <= check.end <= attempt.start <= attempt.end <= server.end
    assert abs(server.start / 1e9 - time.time()) < 60


def test_the_attributes_are_those_of_the_stable_conventions(
    traced: Gateway, backend: Backend, collector: Collector
) -> None:
    spot = backend.spot(raw(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"))
    trace, _, headers = parent()
    assert ask(traced.port, request("GET", spot.path("/guarded"), headers, token=traced.token)).status == 404
    spans = collector.tree(trace, 3)
    server, check, attempt = spans["GET /guarded/"], spans["live check"], spans["GET"]
    assert server.attributes == {
        "http.request.method": "GET",
        "http.route": "/guarded/",
        "url.path": spot.path("/guarded"),
        "url.scheme": "http",
        "server.address": "gateway.test",
        "network.protocol.version": "1.1",
        "http.response.status_code": 404,
    }
    assert attempt.attributes == {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": backend.port,
        "http.response.status_code": 404,
        "error.type": "404",
    }
    assert check.attributes == {"db.system.name": "redis", "db.operation.name": "MGET"}
    assert [server.failed, attempt.failed, check.failed] == [False, True, False]
    assert server.resource["service.name"] == "edge"
    assert {"service.version", "service.instance.id", "telemetry.sdk.name"} <= set(server.resource)


def test_a_route_without_a_live_check_has_no_span_of_one(
    traced: Gateway, backend: Backend, collector: Collector
) -> None:
    for prefix, token in (("/unlive", traced.token), ("/raw", "")):
        spot = backend.spot()
        trace, _, headers = parent()
        assert ask(traced.port, request("GET", spot.path(prefix), headers, token=token)).status == 200
        assert set(collector.tree(trace, 2)) == {f"GET {prefix}/", "GET"}


def test_tracestate_goes_upstream_as_it_came_and_not_to_the_collector(
    traced: Gateway, backend: Backend, collector: Collector
) -> None:
    spot = backend.spot()
    trace, _, headers = parent()
    pairs = [*headers.items(), ("tracestate", "a=1"), ("tracestate", "b=canary-state")]
    assert ask(traced.port, request("GET", spot.path(), pairs)).status == 200
    assert spot.call().all("tracestate") == ["a=1", "b=canary-state"]
    collector.tree(trace, 2)
    assert not any(b"canary-state" in body for body in collector.bodies)


def test_a_refusal_is_a_server_span_with_its_code_and_no_try(traced: Gateway, collector: Collector) -> None:
    trace, _, headers = parent()
    assert ask(traced.port, request("GET", "/guarded/x", headers, token="nonsense")).status == 401
    (server,) = collector.tree(trace, 1).values()
    assert (server.get("http.response.status_code"), server.get("error.type")) == (401, "invalid_token")
    assert not server.failed, "a server that refuses has not failed"


def test_a_backend_that_cannot_be_reached_fails_the_try_and_the_request(traced: Gateway, collector: Collector) -> None:
    trace, _, headers = parent()
    assert ask(traced.port, request("GET", "/closed/x", headers)).status == 502
    spans = collector.tree(trace, 2)
    for span in (spans["GET"], spans["GET /closed/"]):
        assert (span.get("error.type"), span.failed) == ("upstream_unreachable", True)
    assert spans["GET /closed/"].get("http.response.status_code") == 502


def test_a_second_try_is_a_span_of_its_own(traced: Gateway, backend: Backend, collector: Collector) -> None:
    """A kept connection that breaks before an answer: the backend is told of the try that it gets."""
    calls: list[Call] = []

    def behaviour(call: Call) -> None:
        calls.append(call)
        if len(calls) == 2:
            call.body()
            call.close()
        else:
            call.reply()

    spot = backend.spot(behaviour)
    with Client(traced.port) as client:
        assert client.ask(request("GET", spot.path())).status == 200
        trace, _, headers = parent()
        assert client.ask(request("GET", spot.path(), headers)).status == 200
    spans = collector.wait(lambda found: len(found) >= 3, "three spans", trace)
    first, second = sorted((span for span in spans if span.kind == "client"), key=lambda span: span.start)
    assert (first.get("error.type"), first.failed) == ("upstream_unreachable", True)
    assert (second.get("http.request.resend_count"), second.failed) == (1, False)
    assert [upstream(call)[1] for call in calls[1:]] == [first.id, second.id]


def test_a_websocket_is_one_span_that_ends_with_it(traced: Gateway, backend: Backend, collector: Collector) -> None:
    spot = backend.spot(echo)
    trace, _, headers = parent()
    with Client(traced.port) as client:
        opened(client, upgrade(spot.path("/guarded"), traced.token, **headers))
        sent = frame(b"x", mask=b"abcd")
        client.send(sent)
        assert b"".join(client._exactly(len(sent))) == sent
        time.sleep(1.5)  # longer than an export: an open tunnel must not be told of
        assert not whole(collector.spans(trace))
    server = collector.tree(trace, 3)["GET /guarded/"]
    assert server.get("http.response.status_code") == 101
    assert server.end - server.start > 1_000_000_000
    assert upstream(spot.call())[0] == trace


def test_a_client_that_goes_away_ends_the_spans(traced: Gateway, backend: Backend, collector: Collector) -> None:
    ended = threading.Event()

    def behaviour(call: Call) -> None:
        if call.gone():
            ended.set()

    spot = backend.spot(behaviour)
    trace, _, headers = parent()
    with Client(traced.port) as client:
        client.send(request("GET", spot.path(), headers))
        spot.calls(1)
    assert ended.wait(10)
    server = collector.tree(trace, 2)["GET /raw/"]
    assert server.get("http.response.status_code") == 499


# --- the control plane, the store, the webhook ---


def test_a_sign_in_and_a_refresh_show_the_scripts_of_the_store(traced: Gateway, collector: Collector) -> None:
    trace, caller, headers = parent()
    answer = ask(traced.port, sign_in("alice", headers))
    assert answer.status == 200
    spans = collector.tree(trace, 2)
    server, create = spans["POST /auth/login"], spans["EVALSHA create"]
    assert (server.kind, server.parent, create.parent) == ("server", caller, server.id)
    assert create.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "EVALSHA",
        "db.stored_procedure.name": "create",
    }
    trace, _, headers = parent()
    form = f"grant_type=refresh_token&refresh_token={answer.json()['refresh_token']}".encode()
    more = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    assert ask(traced.port, request("POST", "/auth/token", more, form)).status == 200
    spans = collector.tree(trace, 2)
    assert spans["EVALSHA rotate"].parent == spans["POST /auth/token"].id


def test_forward_auth_and_a_session_of_the_control_plane_are_told_by_their_patterns(
    traced: Gateway, collector: Collector
) -> None:
    trace, _, headers = parent()
    more = {**headers, "X-Original-Method": "GET", "X-Original-URI": "/guarded/x?canary=1"}
    assert ask(traced.port, request("GET", "/auth/verify", more, token=traced.token)).status == 200
    spans = collector.tree(trace, 2)
    assert spans["live check"].parent == spans["GET /auth/verify"].id
    session = traced.login("carol")
    trace, _, headers = parent()
    target = f"/auth/sessions/{session['session_id']}"
    assert ask(traced.port, request("DELETE", target, headers, token=session["access_token"])).status == 204
    server = collector.wait(whole, "the request", trace)
    (shown,) = [span for span in server if span.kind == "server"]
    assert shown.name == "DELETE /auth/sessions/{session_id}"
    assert shown.get("url.path") == "/auth/sessions/{session_id}"


def test_the_webhook_is_a_client_span_and_hears_of_it(site: Site, backend: Backend, collector: Collector) -> None:
    accounts = backend.spot(lambda call: call.reply(b'{"sub": "u-web"}'))
    identity = {"provider": "webhook", "webhook_url": f"{backend.url}{accounts.path('')}"}
    trace, _, headers = parent()
    with site.serve(tracing={"endpoint": collector.url, "sample_ratio": 1.0}, identity=identity) as gateway:
        assert ask(gateway.port, sign_in("w", headers)).status == 200
        assert gateway.login("w")
    spans = collector.tree(trace, 3)
    server, hook = spans["POST /auth/login"], spans["POST"]
    assert (hook.kind, hook.parent, hook.get("http.response.status_code")) == ("client", server.id, 200)
    assert (hook.get("server.address"), hook.get("server.port")) == ("127.0.0.1", backend.port)
    assert upstream(accounts.calls(2)[0]) == (trace, hook.id, "01")
    assert spans["EVALSHA create"].parent == server.id


def test_a_refresh_inside_the_gateway_is_a_step_with_its_scripts(
    site: Site, backend: Backend, collector: Collector
) -> None:
    tokens = {"issuer": ISSUER, "audience": AUDIENCE, "signing_keys": str(site.directory / "keys")}
    options: dict[str, Any] = {
        "routes": [route("/refreshing/", backend.url, on_expired="refresh")],
        "tokens": {**tokens, "access_ttl": "1s", "leeway": "0s"},
        "tracing": {"endpoint": collector.url, "sample_ratio": 1.0},
    }
    spot = backend.spot()
    with site.serve(**options) as gateway:
        answer = ask(
            gateway.port,
            json_request("POST", "/auth/login", {"username": "bob", "password": PASSWORD, "refresh_in": "cookie"}),
        )
        token, refresh = answer.json()["access_token"], cookie(answer, "__Secure-refresh")
        expire(gateway, token)
        trace, _, headers = parent()
        headers["Cookie"] = f"__Secure-refresh={refresh}"
        assert ask(gateway.port, request("GET", spot.path("/refreshing"), headers, token=token)).status == 200
        spans = collector.wait(whole, "the request", trace)
    named = {span.name: span for span in spans}
    server, step = named["GET /refreshing/"], named["refresh"]
    assert (step.kind, step.parent) == ("internal", server.id)
    assert named["EVALSHA rotate"].parent == step.id
    assert named["live check"].parent == named["GET"].parent == server.id
    assert upstream(spot.call()) == (trace, named["GET"].id, "01")


# --- who decides ---


def test_what_a_trusted_proxy_does_not_sample_is_not_recorded_and_keeps_its_trace(
    traced: Gateway, backend: Backend, collector: Collector
) -> None:
    spot = backend.spot()
    trace, span, headers = parent(sampled=False)
    assert ask(traced.port, request("GET", spot.path(), headers)).status == 200
    assert upstream(spot.call()) == (trace, span, "00")
    marker, _, more = parent()
    assert ask(traced.port, request("GET", spot.path(), more)).status == 200
    collector.tree(marker, 2)  # sent after it, so that it would have come
    assert collector.spans(trace) == []


def test_an_untrusted_client_cannot_force_the_recording_of_its_requests(
    site: Site, backend: Backend, collector: Collector
) -> None:
    """Neither by the flag nor by a trace id of its choice, such as one that is sampled by every ratio of it."""
    spot = backend.spot()
    tracing = {"endpoint": collector.url, "sample_ratio": 0.0}
    chosen = ["0" * 31 + "1", "f" * 32, "0" * 16 + "f" * 16, *(secrets.token_hex(16) for _ in range(20))]
    with site.serve(routes=[route("/raw/", backend.url, auth="none")], tracing=tracing) as gateway:
        for trace in chosen:
            headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
            assert ask(gateway.port, request("GET", spot.path(), headers)).status == 200
    assert [upstream(call) for call in spot.calls()] == [(trace, "00f067aa0ba902b7", "01") for trace in chosen]
    assert not any(collector.spans(trace) for trace in chosen)


def test_an_untrusted_client_keeps_its_trace_where_the_gateway_records_it(
    site: Site, backend: Backend, collector: Collector
) -> None:
    spot = backend.spot()
    trace, caller, headers = parent(sampled=False)
    tracing = {"endpoint": collector.url, "sample_ratio": 1.0}
    with site.serve(routes=[route("/raw/", backend.url, auth="none")], tracing=tracing) as gateway:
        assert ask(gateway.port, request("GET", spot.path(), headers)).status == 200
    spans = collector.tree(trace, 2)
    assert spans["GET /raw/"].parent == caller
    assert upstream(spot.call()) == (trace, spans["GET"].id, "01")


def test_everyone_decides_where_the_operator_says_so(site: Site, backend: Backend, collector: Collector) -> None:
    spot = backend.spot()
    tracing = {"endpoint": collector.url, "sample_ratio": 0.0, "parents": "always"}
    trace, _, headers = parent()
    with site.serve(routes=[route("/raw/", backend.url, auth="none")], tracing=tracing) as gateway:
        assert ask(gateway.port, request("GET", spot.path(), headers)).status == 200
    collector.tree(trace, 2)


def test_the_ratio_is_that_of_the_requests_and_new_traces_say_whether_they_are_recorded(
    site: Site, backend: Backend, collector: Collector
) -> None:
    """400 draws at 0.25: that fewer than 50 or more than 150 are recorded happens once in 10^8 runs."""
    spot = backend.spot()
    tracing = {"endpoint": collector.url, "sample_ratio": 0.25}
    with site.serve(routes=[route("/raw/", backend.url, auth="none")], tracing=tracing) as gateway:
        with Client(gateway.port) as client:
            for _ in range(400):
                assert client.ask(request("GET", spot.path())).status == 200
        told = [upstream(call) for call in spot.calls(400)]
        recorded = {trace: span for trace, span, flags in told if flags == "01"}
        assert {flags for _, _, flags in told} == {"00", "01"}
        assert len({trace for trace, _, _ in told}) == 400
        assert 50 < len(recorded) < 150

        def exported() -> bool:
            return {span.trace for span in collector.spans()} >= set(recorded)

        until(exported, "all of them have come")
        for trace, span in recorded.items():
            assert collector.tree(trace, 2)["GET"].id == span


def test_a_reload_takes_up_the_ratio(site: Site, backend: Backend, collector: Collector) -> None:
    spot = backend.spot()
    options: dict[str, Any] = {"routes": [route("/raw/", backend.url, auth="none")]}
    with site.serve(**options, tracing={"endpoint": collector.url, "sample_ratio": 0.0}) as gateway:
        assert ask(gateway.port, request("GET", spot.path())).status == 200
        rewrite(gateway, **options, tracing={"endpoint": collector.url, "sample_ratio": 1.0})
        hang_up(gateway, RELOADED)
        assert ask(gateway.port, request("GET", spot.path())).status == 200
    before, after = (upstream(call) for call in spot.calls(2))
    assert (before[2], after[2]) == ("00", "01")
    collector.tree(after[0], 2)


# --- what is never told ---


def test_no_secret_that_is_sent_anywhere_comes_to_the_collector(
    site: Site, backend: Backend, collector: Collector
) -> None:
    spot = backend.spot(
        raw(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=canary-9\r\nX: canary-9\r\nContent-Length: 8\r\n\r\ncanary-9")
    )
    options: dict[str, Any] = {
        "routes": [route("/guarded/", backend.url, on_expired="refresh")],
        "tracing": {"endpoint": collector.url, "sample_ratio": 1.0, "parents": "never"},
        "cookies": {"refresh": "__Secure-refresh", "access": "__Host-access"},
    }
    first = len(collector.bodies)
    with site.serve(**options) as gateway:
        signed_in = gateway.login("alice", device="canary-device")
        secret = [signed_in["access_token"], signed_in["refresh_token"], signed_in["session_id"], PASSWORD]
        headers = {
            "Cookie": "x=canary-1; __Secure-refresh=canary-2",
            "X-Api-Key": "canary-3",
            "Referer": "http://canary-4/",
            "User-Agent": "canary-5",
            "baggage": "k=canary-6",
            "tracestate": "k=canary-7",
            "traceparent": parent()[2]["traceparent"],
        }
        for target in (f"{spot.path('/guarded')}?token=canary-8", f"/guarded/{signed_in['access_token']}?a=canary-8"):
            for token in (signed_in["access_token"], "canary-9", ""):
                ask(gateway.port, request("POST", target, headers, b"canary-10", token=token))
        form = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": "Basic Y2FuYXJ5OmNhbmFyeQ=="}
        ask(gateway.port, request("POST", "/auth/introspect", form, b"token=canary-11"))
        ask(gateway.port, request("POST", "/auth/revoke?x=canary-12", form, b"token=canary-11"))
        ask(gateway.port, json_request("POST", "/auth/login", {"username": "canary-13", "password": "canary-14"}))
        assert gateway.refresh(signed_in["refresh_token"]).status == 200
        target = f"/auth/sessions/{signed_in['session_id']}"
        ask(gateway.port, request("DELETE", target, token=signed_in["access_token"]))
    told = b"".join(collector.bodies[first:])
    assert told.count(b"/auth/introspect") >= 1
    assert told.count(b"/guarded/") >= 4
    for each in ["canary", "alice", "u-alice", *secret]:
        assert each.encode() not in told, each


def test_the_credential_for_the_collector_is_in_no_log_and_no_error(
    site: Site, backend: Backend, collector: Collector, tmp_path: Path
) -> None:
    file = tmp_path / "headers.toml"
    file.write_text('Authorization = "Bearer canary-credential"\nX-Tenant = "one"\n')
    file.chmod(0o600)
    tracing = {"endpoint": collector.url, "sample_ratio": 1.0, "headers_file": str(file)}
    with site.serve(routes=[route("/raw/", backend.url, auth="none")], tracing=tracing) as gateway:
        trace, _, headers = parent()
        assert ask(gateway.port, request("GET", "/raw/x", headers)).status in (200, 404)  # the word of the backend
        collector.tree(trace, 2)
        log = gateway.log
    assert collector.headers[-1]["authorization"] == "Bearer canary-credential"
    assert collector.headers[-1]["x-tenant"] == "one"
    assert collector.headers[-1]["content-type"] == "application/x-protobuf"
    assert "canary-credential" not in log


# --- a collector that fails ---


def serve_failing(site: Site, backend: Backend, endpoint: str, **more: Any) -> Any:
    tracing = {"endpoint": endpoint, "sample_ratio": 1.0, "timeout": "1s", **more}
    return site.serve(routes=[route("/raw/", backend.url, auth="none")], tracing=tracing)


def ask_often(gateway: Gateway, target: str, number: int) -> None:
    with Client(gateway.port) as client:
        for _ in range(number):
            assert client.ask(request("GET", target)).status == 200


def test_a_collector_that_is_down_fails_no_request_and_is_told_once(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    with serve_failing(site, backend, f"http://127.0.0.1:{free_port()}") as gateway:
        ask_often(gateway, spot.path(), 100)
        until(lambda: gateway.metric("tokengate_spans_total", outcome="failed") > 0, "spans have failed")
        ask_often(gateway, spot.path(), 100)
        failed = gateway.metric("tokengate_spans_total", outcome="failed")
        until(lambda: gateway.metric("tokengate_spans_total", outcome="failed") > failed, "more have failed")
        (line,) = said(gateway, "spans cannot be exported")
        assert "Connection" in line["reason"]
        assert gateway.metric("tokengate_spans_total", outcome="exported") == 0


def test_a_collector_that_stalls_costs_spans_and_neither_memory_nor_the_end(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    with collecting() as stalling, serve_failing(site, backend, stalling.url, queue=50, timeout="1h") as gateway:
        stalling.stall()
        ask_often(gateway, spot.path(), 10)
        assert stalling.arrived.wait(10)
        ask_often(gateway, spot.path(), 300)
        until(lambda: gateway.metric("tokengate_spans_total", outcome="dropped") >= 2 * 300 - 50, "spans are dropped")
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < 10
        assert said(gateway, "spans were left behind at the end")


def test_a_collector_that_refuses_is_told_with_its_status_and_when_it_takes_spans_again(
    site: Site, backend: Backend
) -> None:
    spot = backend.spot()
    with collecting() as refusing, serve_failing(site, backend, refusing.url) as gateway:
        refusing.status = 403
        ask_often(gateway, spot.path(), 3)
        (line,) = until(lambda: said(gateway, "spans cannot be exported"), "the refusal is told")
        assert "403" in line["reason"]
        refusing.status = 200
        ask_often(gateway, spot.path(), 3)
        until(lambda: said(gateway, "spans are exported again"), "that it is over is told")
        until(lambda: gateway.metric("tokengate_spans_total", outcome="exported") == 6, "they are counted")


def test_a_collector_that_redirects_is_not_followed(site: Site, backend: Backend, collector: Collector) -> None:
    spot = backend.spot()
    with collecting() as moved, serve_failing(site, backend, moved.url) as gateway:
        moved.status, moved.location = 307, f"{collector.url}/v1/traces"
        before = len(collector.bodies)
        ask_often(gateway, spot.path(), 3)
        (line,) = until(lambda: said(gateway, "spans cannot be exported"), "it is told")
        assert "307" in line["reason"]
        assert len(collector.bodies) == before


def test_the_last_spans_are_sent_at_the_end(site: Site, backend: Backend, collector: Collector) -> None:
    spot = backend.spot()
    trace, _, headers = parent()
    with site.serve(
        routes=[route("/raw/", backend.url, auth="none")], tracing={"endpoint": collector.url, "sample_ratio": 1.0}
    ) as gateway:
        assert ask(gateway.port, request("GET", spot.path(), headers)).status == 200
    assert len(collector.spans(trace)) == 2


# --- exemplars ---


def exemplars(gateway: Gateway, name: str, **labels: str) -> dict[str, float]:
    """Return trace id -> value of the exemplars of a histogram, read as OpenMetrics is."""
    answer = ask(gateway.management, request("GET", "/metrics", {**OPENMETRICS, "Connection": "close"}))
    assert answer.get("content-type").startswith("application/openmetrics-text; version=1.0.0")
    found = {}
    families = text_string_to_metric_families(answer.body.decode())  # type: ignore[no-untyped-call]
    for family in families:
        for sample in family.samples if family.name == name else ():
            if sample.exemplar and labels.items() <= sample.labels.items():
                assert sample.exemplar.value <= float(sample.labels["le"])
                found[sample.exemplar.labels["trace_id"]] = sample.exemplar.value
    return found


def test_buckets_carry_the_trace_of_the_last_recorded_request(traced: Gateway, backend: Backend) -> None:
    spot = backend.spot(steps(lambda call: time.sleep(0.3), Call.reply))
    trace, _, headers = parent()
    assert ask(traced.port, request("GET", spot.path(), headers)).status == 200
    found = exemplars(traced, "tokengate_request_seconds", route="/raw/")
    assert 0.3 <= found[trace] < 10
    assert len(found) <= 15
    login, _, headers = parent()
    assert ask(traced.port, sign_in("alice", headers)).status == 200
    assert login in exemplars(traced, "tokengate_request_seconds", route="control")
    assert login in exemplars(traced, "tokengate_store_seconds", operation="create")


def test_the_plain_text_is_the_default_and_has_no_exemplar(traced: Gateway) -> None:
    for headers in ({}, {"Accept": "text/plain"}, {"Accept": "*/*"}, {"Accept": "application/openmetrics-text;q=0"}):
        answer = ask(traced.management, request("GET", "/metrics", {**headers, "Connection": "close"}))
        assert answer.get("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        assert b"trace_id" not in answer.body
        assert b"# EOF" not in answer.body


def test_exemplars_are_those_of_all_workers(site: Site, backend: Backend, collector: Collector) -> None:
    spot = backend.spot()
    tracing = {"endpoint": collector.url, "sample_ratio": 1.0}
    routes = [route("/raw/", backend.url, auth="none")]
    with site.serve(["--workers", "2"], routes=routes, tracing=tracing) as gateway:
        trace, _, headers = parent()
        assert ask(gateway.port, request("GET", spot.path(), headers)).status == 200

        def everywhere() -> bool:
            return all(trace in exemplars(gateway, "tokengate_request_seconds", route="/raw/") for _ in range(8))

        until(everywhere, "whichever worker is asked")


# --- off ---


def test_without_an_endpoint_opentelemetry_is_not_loaded(site: Site, backend: Backend) -> None:
    def loaded(gateway: Gateway) -> bool:
        maps = Path(f"/proc/{gateway.process.pid}/maps").read_text()
        return "google/_upb" in maps or "google/protobuf" in maps

    routes = [route("/raw/", backend.url, auth="none")]
    with site.serve(routes=routes) as gateway:
        assert ask(gateway.port, request("GET", "/raw/x")).status in (200, 404)  # the word of the backend
        assert not loaded(gateway)
    with collecting() as there, site.serve(routes=routes, tracing={"endpoint": there.url}) as gateway:
        assert loaded(gateway), "the test can tell"


def test_the_rooms_load_neither_the_traces_nor_the_exporter_of_opentelemetry() -> None:
    """redis-py loads OpenTelemetry's metrics by itself, where they are installed."""
    names = "gateway.app gateway.parts gateway.server gateway.traced gateway.proxy.observer gateway.telemetry.access"
    code = f"import sys, {', '.join(names.split())}; print([m for m in sys.modules if m.startswith('opentelemetry.')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    loaded = ran.stdout
    assert "opentelemetry.sdk.trace" not in loaded
    assert "opentelemetry.exporter" not in loaded
    assert "opentelemetry.proto" not in loaded


MISSING = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")):
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Missing())
from gateway.cli import main
main()
"""


@pytest.mark.parametrize("command", ["serve", "check"])
def test_without_the_extra_an_endpoint_is_refused_in_one_line(site: Site, command: str) -> None:
    config = site.configure(free_port(), free_port(), {"tracing": {"endpoint": "http://collector:4318"}})
    ran = subprocess.run(
        [sys.executable, "-c", MISSING, command, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("TOKENGATE_")},
    )
    assert ran.returncode == 1
    lines = [line for line in (ran.stdout + ran.stderr).splitlines() if "tracing.endpoint" in line]
    assert len(lines) == 1
    assert "pip install 'tokengate[otel]'" in lines[0]
    assert "Traceback" not in ran.stderr


def test_a_tracing_endpoint_that_is_nowhere_does_not_stop_the_start(site: Site, backend: Backend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts and says nothing
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with serve_failing(site, backend, endpoint) as gateway:
            answer: Answer = ask(gateway.port, request("GET", "/raw/x"))
            assert answer.status in (200, 404)  # the word of the backend
