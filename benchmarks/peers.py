"""How each proxy is configured and started, all in front of the same nginx backend on loopback.

A peer that is not installed is left out of the table and named below it; nothing is downloaded here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from gateway.identity.passwords import hash_password
from gateway.tokens.keyring import generate, generate_refresh

READY_SECONDS = 15.0
USER = {"username": "bench", "password": "bench"}


@dataclass(slots=True)
class Peer:
    """A proxy that runs: its URL, the process whose tree is charged, the headers that a request needs."""

    name: str
    url: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=dict)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def process(command: list[str], ready: Callable[[], bool], log: Path) -> Iterator[int]:
    """Run a command until the block ends; yield its process id once it is ready. Raises RuntimeError."""
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "PYTHONPATH": os.getcwd()})
    try:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def listening(port: int) -> Callable[[], bool]:
    """Return a question: does something accept connections on this port?"""

    def ask() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return True
        return False

    return ask


def backend(folder: Path) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """Run the nginx that everyone stands in front of; yield (port, pid)."""
    root = folder / "www"
    root.mkdir()
    (root / "1k").write_bytes(b"x" * 1024)
    (root / "1m").write_bytes(os.urandom(1 << 20))
    server = f"root {root}; location = /post {{ client_body_buffer_size 128k; return 204; }}"
    return _nginx(folder / "backend", server, "sendfile on; tcp_nopush on;")


@contextlib.contextmanager
def nginx(folder: Path, target: int) -> Iterator[Peer]:
    """Plain nginx: the limit, with no authentication at all."""
    keep = f"upstream b {{ server 127.0.0.1:{target}; keepalive 256; keepalive_requests 1000000000; }}"
    server = (
        "location / { proxy_pass http://b; proxy_http_version 1.1;"
        ' proxy_set_header Connection ""; proxy_set_header Host $http_host; }'
    )
    with _nginx(folder / "nginx", server, keep) as (port, pid):
        yield Peer("nginx", f"http://127.0.0.1:{port}", pid)


@contextlib.contextmanager
def _nginx(folder: Path, server: str, http: str) -> Iterator[tuple[int, int]]:
    folder.mkdir()
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"""worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; client_max_body_size 0;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {http}
  server {{ listen 127.0.0.1:{port} backlog=4096; {server} }} }}
"""
    )
    with process([_where("nginx"), "-c", str(config)], listening(port), folder / "log") as pid:
        yield port, pid


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[int]:
    """Run a Redis that keeps nothing on disk; yield its port."""
    port = free_port()
    command = [_where("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with process(command, listening(port), folder / "redis.log"):
        yield port


@contextlib.contextmanager
def tokengate(folder: Path, target: int, store: int, *, name: str = "tokengate", live: bool = True) -> Iterator[Peer]:
    """Run the gateway with one worker and sign in; its requests carry a verified, live token."""
    home = folder / name.replace(" ", "-")
    home.mkdir()
    port, management = free_port(), free_port()
    config = _configure(home, port, management, target, store, live)
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config)]
    with process(command, lambda: _ready(management), home / "log") as pid:
        token = _sign_in(f"http://127.0.0.1:{port}")
        yield Peer(name, f"http://127.0.0.1:{port}", pid, {"Authorization": f"Bearer {token}"})


def _configure(home: Path, port: int, management: int, target: int, store: int, live: bool) -> Path:
    keys = home / "keys"
    keys.mkdir()
    for key in (generate("ES256", time.time()), generate_refresh(time.time())):
        (keys / key.name).touch(mode=0o600)
        (keys / key.name).write_bytes(key.data)
    (home / "users.toml").write_text(f'[users.bench]\npassword = "{hash_password("bench")}"\nroles = ["user"]\n')
    config = home / "gateway.toml"
    config.write_text(
        f"""[server]
bind = "127.0.0.1:{port}"
[management]
bind = "127.0.0.1:{management}"
[redis]
url = "redis://127.0.0.1:{store}/0"
[tokens]
issuer = "http://127.0.0.1:{port}"
audience = "bench"
signing_keys = "{keys}"
access_ttl = "1h"
[identity]
provider = "users-file"
users_file = "{home}/users.toml"
[[routes]]
path = "/"
upstream = ["http://127.0.0.1:{target}"]
roles_any = ["user"]
revocation = "{"live" if live else "none"}"
"""
    )
    return config


def _ready(management: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{management}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _sign_in(url: str) -> str:
    request = urllib.request.Request(
        f"{url}/auth/login", orjson.dumps(USER), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        token: str = orjson.loads(answer.read())["access_token"]
        return token


def _where(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found
