"""SIGHUP: limits, the recheck at a refresh, and the certificate of the listener, without a restart."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import Backend, Nginx
from tests.e2e.certificates import Authority
from tests.e2e.harness import ADMIN_TOKEN, PASSWORD, TIMEOUT, Gateway, Site, route, until
from tests.e2e.test_drain import ONE_AND_TWO, REFUSED, RELOADED, hang_up, rewrite, said
from tests.e2e.test_workers import children
from tests.e2e.wire import Answer, Client, ask, json_request, request
from tests.redis_server import free_port

NEEDS_RESTART = "settings that a restart is needed for have changed"


def log_in(gateway: Gateway, name: str, password: str = PASSWORD) -> Answer:
    return ask(gateway.port, json_request("POST", "/auth/login", {"username": name, "password": password}))


def refresh(gateway: Gateway, token: str) -> Answer:
    given = {"grant_type": "refresh_token", "refresh_token": token}
    return ask(gateway.port, json_request("POST", "/auth/token", given))


def test_limits_that_a_reload_brings_hold_from_then_on(site: Site) -> None:
    with site.serve(redis={"prefix": "limits"}) as gateway:
        token = log_in(gateway, "bob").json()["refresh_token"]
        assert {log_in(gateway, "bob", "wrong").status for _ in range(4)} == {401}
        rewrite(
            gateway,
            redis={"prefix": "limits"},
            limits={"login_per_user": 2, "login_per_ip": 0, "refresh_per_session": 1},
        )
        hang_up(gateway, RELOADED)
        assert [log_in(gateway, "bob", "wrong").status for _ in range(3)] == [401, 401, 429]
        token = refresh(gateway, token).json()["refresh_token"]
        assert refresh(gateway, token).error == (429, "too_many_attempts")
        rewrite(gateway, redis={"prefix": "limits"})
        hang_up(gateway, RELOADED)
        assert log_in(gateway, "bob").status == 200
        assert refresh(gateway, token).status == 200


def test_an_admin_whose_token_was_taken_away_is_none_after_a_reload(site: Site) -> None:
    tokens = {name: f"token-of-{name}-of-the-tests" for name in ("alice", "bob")}
    digests = {name: f"sha256:{hashlib.sha256(token.encode()).hexdigest()}" for name, token in tokens.items()}

    def asked(gateway: Gateway, name: str) -> int:
        data = request("GET", "/admin/users/nobody/sessions", {"Connection": "close"}, token=tokens[name])
        return ask(gateway.management, data).status

    with site.serve(management={"admin_tokens": digests}) as gateway:
        where = {"bind": f"127.0.0.1:{gateway.management}"}
        assert [asked(gateway, name) for name in tokens] == [200, 200]
        rewrite(gateway, management={**where, "admin_token": ADMIN_TOKEN, "admin_tokens": {"alice": digests["alice"]}})
        assert all("keys" not in line for line in hang_up(gateway, RELOADED))
        assert [asked(gateway, name) for name in tokens] == [200, 403]
        rewrite(gateway, management={**where, "admin_token": ""})
        hang_up(gateway, RELOADED)
        assert [asked(gateway, name) for name in tokens] == [404, 404]


def test_a_proxy_is_believed_or_not_from_a_reload_on_also_on_connections_that_stand(
    site: Site, backend: Backend
) -> None:
    """Proxies keep their connections for hours: one that was taken over would be believed for as long."""
    routes = [route("/", backend.url, auth="none")]
    spot = backend.spot()
    data = request("GET", spot.path("/"), {"X-Forwarded-For": "203.0.113.9"})

    def told() -> str:
        assert client.ask(data).status == 200
        return spot.calls()[-1].get("x-forwarded-for")

    with site.serve(routes=routes) as gateway, Client(gateway.port) as client:
        assert [told(), told()] == ["127.0.0.1"] * 2
        rewrite(gateway, routes=routes, server={"trusted_proxies": ["127.0.0.1/32"]})
        hang_up(gateway, RELOADED)
        assert [told(), told()] == ["203.0.113.9, 127.0.0.1"] * 2
        rewrite(gateway, routes=routes)
        hang_up(gateway, RELOADED)
        assert [told(), told()] == ["127.0.0.1"] * 2


def test_a_recheck_that_a_reload_brings_is_made_at_the_next_refresh(site: Site) -> None:
    users = site.directory / "users.toml"
    good = users.read_bytes()
    with site.serve(redis={"prefix": "recheck"}) as gateway:
        first, second = (log_in(gateway, "bob").json()["refresh_token"] for _ in range(2))
        try:
            users.write_bytes(good.replace(b"bob", b"rob"))
            hang_up(gateway, RELOADED)
            first = refresh(gateway, first).json()["refresh_token"]  # nobody asks who he is
            options = {"recheck_on_refresh": True}
            rewrite(gateway, redis={"prefix": "recheck"}, identity=options)
            assert all("keys" not in line for line in hang_up(gateway, RELOADED))
            assert refresh(gateway, first).error == (400, "invalid_grant")
            assert refresh(gateway, second).error == (400, "invalid_grant")
        finally:
            users.write_bytes(good)


# --- the certificate ---


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def renew(authority: Authority, name: str) -> str:
    """Put another certificate and key in the place of `front`'s, each by a rename; return its common name."""
    for new, old in zip(
        authority.issue(name), (authority.ca.parent / "front.crt", authority.ca.parent / "front.key"), strict=True
    ):
        os.replace(new, old)
    return name


@contextlib.contextmanager
def https(gateway: Gateway, authority: Authority) -> Iterator[http.client.HTTPSConnection]:
    context = ssl.create_default_context(cafile=authority.ca)
    connection = http.client.HTTPSConnection("localhost", gateway.port, timeout=20, context=context)
    with contextlib.closing(connection):
        connection.connect()
        yield connection


def shown(connection: http.client.HTTPSConnection) -> str:
    """Return the common name of the certificate that was shown."""
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert()
    assert certificate is not None
    subject: Any = certificate["subject"]
    (((_, name),),) = subject  # one name with one attribute
    return str(name)


def status(connection: http.client.HTTPSConnection) -> int:
    connection.request("GET", "/app/")
    answer = connection.getresponse()
    answer.read()
    return answer.status


@ONE_AND_TWO
def test_a_renewed_certificate_is_shown_after_sighup_and_no_connection_is_closed_for_it(
    site: Site, nginx: Nginx, authority: Authority, words: list[str]
) -> None:
    cert, key = authority.issue("front")
    server = {"tls_cert": str(cert), "tls_key": str(key)}
    routes = [route("/app/", nginx.url, auth="none")]
    with site.serve(words, server=server, routes=routes) as gateway, https(gateway, authority) as before:
        assert (shown(before), status(before)) == ("front", 200)
        renew(authority, "renewed")
        hang_up(gateway, RELOADED, len(words) or 1)
        assert status(before) == 200
        for _ in range(4):  # whichever worker it is
            with https(gateway, authority) as after:
                assert (shown(after), status(after)) == ("renewed", 200)


def test_a_certificate_in_other_files_is_taken_up_by_workers_that_start_later_too(
    site: Site, nginx: Nginx, authority: Authority
) -> None:
    cert, key = authority.issue("front")
    routes = [route("/app/", nginx.url, auth="none")]
    with site.serve(["--workers", "2"], server={"tls_cert": str(cert), "tls_key": str(key)}, routes=routes) as gateway:
        other, its_key = authority.issue("other")
        rewrite(gateway, server={"tls_cert": str(other), "tls_key": str(its_key)}, routes=routes)
        hang_up(gateway, RELOADED, 2)
        cert.unlink()
        before = children(gateway)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(children(gateway)) == 2 and not set(children(gateway)) & set(before), "new workers", 20)
        gateway.wait_ready(200)
        with https(gateway, authority) as connection:
            assert (shown(connection), status(connection)) == ("other", 200)


def test_a_certificate_without_its_key_changes_nothing_and_is_told(
    site: Site, nginx: Nginx, authority: Authority
) -> None:
    cert, key = authority.issue("front")
    stray, _ = authority.issue("stray")
    routes = [route("/app/", nginx.url, auth="none")]
    with site.serve(server={"tls_cert": str(cert), "tls_key": str(key)}, routes=routes) as gateway:
        os.replace(stray, cert)
        (line,) = hang_up(gateway, REFUSED)
        assert "server.tls_cert" in line["reason"]
        with https(gateway, authority) as connection:
            assert (shown(connection), status(connection)) == ("front", 200)


def test_a_certificate_that_is_of_no_use_stops_the_start_with_one_line(site: Site) -> None:
    junk = site.directory / "junk.pem"
    junk.write_text("not a certificate")
    junk.chmod(0o600)
    for words in ((), ("--workers", "2")):
        config = site.configure(free_port(), free_port(), {"server": {"tls_cert": str(junk), "tls_key": str(junk)}})
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), *words]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        assert ran.returncode == 1
        (line,) = ran.stderr.splitlines()
        assert f'server.tls_cert: "{junk}"' in line


def test_a_worker_that_finds_its_certificate_gone_says_so_in_a_line_and_starts_once_it_is_back(
    site: Site, nginx: Nginx, authority: Authority
) -> None:
    """It takes the place of one that died; the others serve meanwhile, with what they have."""
    cert, key = authority.issue("front")
    away = cert.with_suffix(".away")
    routes = [route("/app/", nginx.url, auth="none")]
    server = {"tls_cert": str(cert), "tls_key": str(key)}
    with site.serve(["--workers", "2"], server=server, routes=routes) as gateway:
        until(lambda: listeners(gateway.management) == 2, "two workers that serve")
        os.replace(cert, away)
        os.kill(children(gateway)[0], signal.SIGKILL)
        until(lambda: said(gateway, "the worker cannot start"), "the new worker has found it gone")
        assert all("server.tls_cert" in line["reason"] for line in said(gateway, "the worker cannot start"))
        with https(gateway, authority) as connection:
            assert (shown(connection), status(connection)) == ("front", 200)
        os.replace(away, cert)
        until(lambda: listeners(gateway.management) == 2, "the worker has started")
        gateway.check_log()


def listeners(port: int) -> int:
    """Return how many sockets listen at a port: each worker has one for management (proc_net_tcp(5))."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(row[1].rpartition(":")[2], 16) == port and row[3] == "0A" for row in rows)


def test_whether_tls_is_spoken_at_all_only_a_restart_can_change(site: Site, nginx: Nginx, authority: Authority) -> None:
    cert, key = authority.issue("front")
    routes = [route("/app/", nginx.url, auth="none")]
    with site.serve(routes=routes) as gateway:
        rewrite(gateway, routes=routes, server={"tls_cert": str(cert), "tls_key": str(key)})
        (line,) = hang_up(gateway, NEEDS_RESTART)
        assert line["keys"] == "server.tls_cert server.tls_key"
        assert ask(gateway.port, b"GET /app/ HTTP/1.1\r\nHost: a\r\n\r\n").status == 200


def test_handshakes_under_way_during_many_renewals_all_succeed(site: Site, nginx: Nginx, authority: Authority) -> None:
    """Each meets a certificate with its own key, never one half of another."""
    cert, key = authority.issue("front")
    server = {"tls_cert": str(cert), "tls_key": str(key)}
    over = threading.Event()
    seen: set[str] = set()
    failures: list[str] = []

    def knock() -> None:
        while not over.is_set():
            try:
                with https(gateway, authority) as connection:
                    seen.add(shown(connection))
                    assert status(connection) == 200
            except (OSError, http.client.HTTPException, AssertionError) as error:
                failures.append(repr(error))

    with site.serve(server=server, routes=[route("/app/", nginx.url, auth="none")]) as gateway:
        knocking = [threading.Thread(target=knock) for _ in range(4)]
        for thread in knocking:
            thread.start()
        try:
            for turn in range(8):
                name = renew(authority, f"renewed-{turn}")
                hang_up(gateway, RELOADED)
                until(lambda name=name: name in seen, "the new one is shown")  # type: ignore[misc]
        finally:
            over.set()
            for thread in knocking:
                thread.join(30)
    assert failures == []
