"""Backends that come and go, that speak TLS, and that are fewer than the requests for them."""

from __future__ import annotations

import http.server
import signal
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call, raw_backend
from tests.e2e.certificates import Authority
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Client, ask, request
from tests.redis_server import free_port

GET = request("GET", "/app/")


class Named(http.server.ThreadingHTTPServer):
    """Answers with its name, and with that of the certificate that it was shown."""

    daemon_threads = True

    def __init__(self, name: str, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.name = name
        self.context = context
        super().__init__(("127.0.0.1", port), Answering)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.context is not None:
            request.settimeout(5)
            try:
                request = self.context.wrap_socket(request, server_side=True)
            except OSError:
                return
        with request:  # the TLS socket is not the one that socketserver closes
            super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class Answering(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Named

    def do_GET(self) -> None:
        shown = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
        subject = dict(pair for parts in (shown or {}).get("subject", ()) for pair in parts)  # type: ignore[misc]
        body = f"{self.server.name} {subject.get('commonName', '-')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # http.server's name


@contextmanager
def named(name: str, port: int = 0, context: ssl.SSLContext | None = None) -> Iterator[Named]:
    server = Named(name, port, context)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def app(port: int | list[int], scheme: str = "http", host: str = "127.0.0.1", **options: Any) -> dict[str, Any]:
    ports = [port] if isinstance(port, int) else port
    return route("/app/", [f"{scheme}://{host}:{each}" for each in ports], auth="none", **options)


def bodies(gateway: Gateway, number: int) -> list[str]:
    """Ask on connections of their own; every answer must be a good one."""
    answers = [ask(gateway.port, GET) for _ in range(number)]
    assert {answer.status for answer in answers} == {200}, answers
    return [answer.body.decode() for answer in answers]


# --- several ---


def test_requests_go_to_all_backends_and_around_one_that_is_away_until_it_is_back(site: Site) -> None:
    port = free_port()
    with named("one") as one, site.serve(routes=[app([one.port, port])]) as gateway:
        assert set(bodies(gateway, 20)) == {"one -"}
        left_out = [line for line in gateway.log_lines() if line["message"] == "a backend is left out"]
        assert [line["upstream"] for line in left_out] == [f"127.0.0.1:{port}"]
        assert gateway.metric("tokengate_upstream_errors_total", route="/app/", kind="upstream_retried") == 3
        assert gateway.metric("tokengate_rejections_total", route="/app/") == 0
        with named("two", port):
            until(lambda: set(bodies(gateway, 4)) == {"one -", "two -"}, "the other one is back", 10)


def test_a_name_whose_preferred_address_has_no_backend_is_reached_by_the_other(site: Site) -> None:
    """`localhost` is ::1 and 127.0.0.1 on most machines; here something listens on 127.0.0.1 alone."""
    with named("one") as one, site.serve(routes=[app(one.port, host="localhost")]) as gateway:
        assert set(bodies(gateway, 10)) == {"one -"}


def test_a_name_that_does_not_resolve_is_a_502_and_the_gateway_is_ready_all_the_same(site: Site) -> None:
    with site.serve(routes=[app(80, host="nowhere.invalid")]) as gateway:
        for _ in range(3):
            assert ask(gateway.port, GET).error == (502, "upstream_unreachable")
        assert gateway.metric("tokengate_upstream_errors_total", route="/app/", kind="upstream_unreachable") == 3


def test_a_post_is_sent_once_though_the_first_backend_cannot_be_reached(site: Site, backend: Backend) -> None:
    spot = backend.spot()
    upstreams = [f"http://127.0.0.1:{free_port()}", backend.url]
    with site.serve(routes=[route("/raw/", upstreams, auth="none")]) as gateway:
        for number in range(1, 5):
            data = request("POST", spot.path(), body=b"x" * number)
            assert ask(gateway.port, data).status == 200
        assert [call.raw_body for call in spot.calls(4)] == [b"x", b"xx", b"xxx", b"xxxx"]


# --- bounds ---


@pytest.fixture
def slow() -> Iterator[tuple[Backend, threading.Event]]:
    with raw_backend() as made:
        yield made, threading.Event()


def test_requests_past_the_bounds_wait_or_are_refused(site: Site, slow: tuple[Backend, threading.Event]) -> None:
    backend, go = slow

    def behaviour(call: Call) -> None:
        assert go.wait(10)
        call.reply(b"ok")

    spot = backend.spot(behaviour)
    routes = [route("/raw/", backend.url, auth="none", max_connections=1, max_waiting=1)]
    with site.serve(routes=routes) as gateway, Client(gateway.port) as first, Client(gateway.port) as second:
        first.send(request("GET", spot.path()))
        spot.calls(1)
        second.send(request("GET", spot.path()))
        until(lambda: ask(gateway.port, request("GET", spot.path())).error == (503, "overloaded"), "refused")
        go.set()
        assert first.answer().body == b"ok"
        assert second.answer().body == b"ok"
        assert len(backend.connections) == 1


def test_nobody_waits_for_a_connection_longer_than_for_an_answer(site: Site, backend: Backend) -> None:
    spot = backend.spot(lambda call: call.gone())
    options = {"max_connections": 1, "response_timeout": "500ms"}
    routes = [route("/raw/", backend.url, auth="none", idle_timeout="10s", **options)]
    with site.serve(routes=routes) as gateway, Client(gateway.port) as busy:
        busy.send(request("POST", spot.path(), {"Content-Length": "10"}))  # a body that is yet to come
        spot.calls(1)
        answer = ask(gateway.port, request("GET", spot.path()))
        assert answer.error == (503, "overloaded")
        assert answer.get("retry-after")


# --- TLS ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def serving(files: tuple[Path, Path], client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_backend_whose_certificate_is_vouched_for_is_spoken_to(site: Site, authority: Authority, host: str) -> None:
    context = serving(authority.issue("backend", host))
    with named("tls", context=context) as backend:
        routes = [app(backend.port, "https", host, upstream_ca=str(authority.ca))]
        with site.serve(routes=routes) as gateway, Client(gateway.port) as client:
            for _ in range(3):
                assert client.ask(GET).body == b"tls -"


def test_a_backend_that_nobody_vouches_for_or_that_has_another_name_gets_no_request(
    site: Site, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    ca = {"upstream_ca": str(authority.ca)}
    with (
        named("stranger", context=serving(stranger.issue("backend"))) as unknown,
        named("other", context=serving(authority.issue("other", "other.test"))) as other,
        named("plain") as plain,
        site.serve(
            routes=[
                {**app(unknown.port, "https", "localhost", **ca), "path": "/unknown/"},
                {**app(unknown.port, "https", "localhost"), "path": "/system/"},
                {**app(other.port, "https", "localhost", **ca), "path": "/other/"},
                {**app(plain.port, "https", "localhost", connect_timeout="500ms", **ca), "path": "/plain/"},
            ]
        ) as gateway,
    ):
        for path in ("/unknown/", "/system/", "/other/", "/plain/"):
            assert ask(gateway.port, request("GET", path)).error == (502, "upstream_unreachable")
        reasons = [line["reason"] for line in gateway.log_lines() if line["message"] == "a backend cannot be reached"]
        assert sum("CERTIFICATE_VERIFY_FAILED" in reason for reason in reasons) >= 3


def test_a_backend_that_asks_for_a_certificate_is_shown_the_routes_own(site: Site, authority: Authority) -> None:
    cert, key = authority.issue("gateway")
    context = serving(authority.issue("backend"), client_ca=authority.ca)
    ca = {"upstream_ca": str(authority.ca)}
    own = {"upstream_cert": str(cert), "upstream_key": str(key)}
    with named("strict", context=context) as backend:
        routes = [
            app(backend.port, "https", "localhost", **ca, **own),
            {**app(backend.port, "https", "localhost", **ca), "path": "/without/"},
        ]
        with site.serve(routes=routes) as gateway:
            assert ask(gateway.port, GET).body == b"strict gateway"
            assert ask(gateway.port, request("GET", "/without/")).error[0] == 502


def test_a_certificate_that_is_replaced_is_shown_after_a_reload(site: Site, authority: Authority) -> None:
    cert, key = authority.issue("first")
    context = serving(authority.issue("backend"), client_ca=authority.ca)
    with named("strict", context=context) as backend:
        options = {"upstream_ca": str(authority.ca), "upstream_cert": str(cert), "upstream_key": str(key)}
        with site.serve(routes=[app(backend.port, "https", "localhost", **options)]) as gateway:
            assert ask(gateway.port, GET).body == b"strict first"
            for old, new in zip((cert, key), authority.issue("second"), strict=True):
                new.replace(old)
            gateway.process.send_signal(signal.SIGHUP)
            until(lambda: ask(gateway.port, GET).body == b"strict second", "the new certificate")
