"""The production configuration of the repository, pointed at a real Redis and nginx by the environment alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.backends import Nginx
from tests.e2e.harness import PASSWORD, Site, until
from tests.e2e.wire import Answer, ask, json_request, request
from tests.redis_server import free_port

ROOT = Path(__file__).parents[2]


@contextmanager
def served(site: Site, nginx: Nginx) -> Iterator[int]:
    """Run `tokengate serve --config config/gateway.toml`; yield the clients' port."""
    port, management = free_port(), free_port()
    given = {
        "SERVER__BIND": f"127.0.0.1:{port}",
        "MANAGEMENT__BIND": f"127.0.0.1:{management}",
        "REDIS__URL": site.redis_url,
        "REDIS__PREFIX": "production",
        "TOKENS__SIGNING_KEYS": str(site.directory / "keys"),
        "TOKENS__ACCESS_TTL": "1s",
        "TOKENS__LEEWAY": "0s",
        "IDENTITY__PROVIDER": "users-file",
        "IDENTITY__USERS_FILE": str(site.directory / "users.toml"),
        "ROUTES__0__PATH": "/app/",
        "ROUTES__0__UPSTREAM": nginx.url,
    }
    environ = {**os.environ, **{f"TOKENGATE_{name}": value for name, value in given.items()}}
    command = [sys.executable, "-m", "gateway", "serve", "--config", "config/gateway.toml"]
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _ready(management), "the gateway is ready")
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def _ready(management: int) -> bool:
    try:
        return ask(management, request("GET", "/readyz")).status == 200
    except OSError:
        return False


def call(port: int, token: str) -> Answer:
    return ask(port, request("GET", "/app/hello", token=token))


def test_the_main_line_holds_with_the_configuration_that_users_begin_with(site: Site, nginx: Nginx) -> None:
    with served(site, nginx) as first, served(site, nginx) as second:
        login = ask(first, json_request("POST", "/auth/login", {"username": "alice", "password": PASSWORD}))
        tokens = login.json()
        answer = call(first, tokens["access_token"])
        assert (answer.status, answer.body) == (200, b"user=u-alice groups=user,admin")
        until(lambda: call(first, tokens["access_token"]).status == 401, "the token expires", 4)
        assert call(second, tokens["access_token"]).error == (401, "expired_token")
        grant = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        renewed = ask(second, json_request("POST", "/auth/token", grant)).json()["access_token"]
        assert call(first, renewed).status == 200
        assert ask(first, request("POST", "/auth/logout", token=renewed)).status == 204
        assert call(second, renewed).error == (401, "revoked_token")
