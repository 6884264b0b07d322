"""What it costs to watch streams: the CPU of a gateway, and of its store, while WebSockets stand and say nothing.

Each stream has a session and a token of its own, as 10,000 users have, and each is looked at again once a second
or so: its token's expiry, and in the store that its session lives. The same gateway without any stream is
what the figures are counted from.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import argon2
import orjson

from benchmarks import footprint, machine
from benchmarks.credentials import PASSWORD, Credentials
from benchmarks.footprint import TRIES
from benchmarks.measure import Peer

STREAMS = 10_000
USERS = 1_000
SETTLE = 2.0  # seconds, so that what opening them took is over
SPARE = 512  # open files for all but the streams, which take two each


@dataclass(frozen=True, slots=True)
class Watched:
    """`cpu` and `store_cpu` are CPU seconds a second, above those of the same gateway without a stream."""

    count: int
    cpu: float
    store_cpu: float


def quick_users(folder: Path, credentials: Credentials) -> Credentials:
    """Return the same with many users, whose password's check costs next to nothing: sign-ins are not measured here."""
    users = folder / "quick-users.toml"
    users.touch(mode=0o600)
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    lines = [f'[users.bench]\npassword = "{hashed}"\nroles = ["user"]\n']
    lines += [f'[users.bench-{at}]\npassword = "{hashed}"\nroles = ["user"]\n' for at in range(USERS)]
    users.write_text("".join(lines))
    return replace(credentials, users=users)


def watch(peer: Peer, store: int, seconds: float, count: int = STREAMS) -> Watched:
    """Sign in as often, open a WebSocket with each token, and let them stand. Raises NotTaken or OSError.

    Where this process may not open so many files, there are fewer.
    """
    count = min(count, (machine.raise_file_limit() - SPARE) // 2)
    before = _used(peer, store, seconds)
    with contextlib.ExitStack() as stack:
        for token in _tokens(peer, count):
            footprint.open_websocket(replace(peer, headers={"Authorization": f"Bearer {token}"}), stack)
        time.sleep(SETTLE)
        during = _used(peer, store, seconds)
    return Watched(count, during[0] - before[0], during[1] - before[1])


def _tokens(peer: Peer, count: int) -> Iterator[str]:
    connection = http.client.HTTPConnection(urlsplit(peer.url).netloc, timeout=10)
    with contextlib.closing(connection):
        for at in range(count):
            body = orjson.dumps({"username": f"bench-{at % USERS}", "password": PASSWORD})
            yield _token(connection, body)


def _token(connection: http.client.HTTPConnection, body: bytes) -> str:
    for _ in range(TRIES):
        connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status == 200:
            return str(orjson.loads(content)["access_token"])
        time.sleep(0.5)
    raise OSError(f"a login was answered with {answer.status} {answer.headers['X-Gateway-Error']}")


def _used(peer: Peer, store: int, seconds: float) -> tuple[float, float]:
    """Return the CPU seconds a second of the peer and of the store over so many seconds."""
    before = machine.cpu_seconds(peer.pids), machine.cpu_seconds([store]), time.monotonic()
    time.sleep(seconds)
    after = machine.cpu_seconds(peer.pids), machine.cpu_seconds([store]), time.monotonic()
    passed = after[2] - before[2]
    return (after[0] - before[0]) / passed, (after[1] - before[1]) / passed
