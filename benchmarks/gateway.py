"""tokengate as a peer."""

from __future__ import annotations

import contextlib
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from benchmarks import machine
from benchmarks.credentials import AUDIENCE, ISSUER, TTL, USER, Credentials
from benchmarks.measure import Peer

TRIES = 20


@contextlib.contextmanager
def tokengate(
    name: str,
    folder: Path,
    target: int,
    store: int,
    credentials: Credentials,
    *,
    live: bool = True,
    workers: int = 1,
    trusting: bool = False,
    redis_url: str = "",
    accounts: int = 0,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Peer]:
    """Run the gateway and sign in; requests carry a token that is verified and, if `live`, checked in the store.

    `target` and `store` are the ports of the backend and of Redis. `trusting` lets a proxy on this machine ask
    /auth/verify about its own requests. `redis_url` stands in for the Redis on `store`; `accounts` is the port of a
    login webhook, in place of the users file. `environ` wins over the configuration.
    """
    home = folder / name.replace(" ", "-")
    home.mkdir()
    port, management = machine.free_port(), machine.free_port()
    config = home / "gateway.toml"
    redis_url = redis_url or f"redis://127.0.0.1:{store}/0"
    config.write_text(
        _config(port, management, target, redis_url, credentials, live=live, trusting=trusting, accounts=accounts)
    )
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), "--workers", str(workers)]
    cores = machine.cores()
    on = cores.two if workers > 1 else cores.one
    with machine.process(command, lambda: _ready(management), home / "log", on=on, environ=environ) as pid:
        url = f"http://127.0.0.1:{port}"
        token = str(sign_in(url)["access_token"])
        yield Peer(name, url, (pid,), {"Authorization": f"Bearer {token}"}, checks=True)


def sign_in(url: str) -> dict[str, object]:
    """Return the token response of a login; a machine that is busy with something else gets it a few times."""
    for left in reversed(range(TRIES)):
        try:
            return _sign_in(url)
        except urllib.error.HTTPError as error:
            if error.code != 503 or not left:
                raise
            time.sleep(0.5)
    raise AssertionError


def _sign_in(url: str) -> dict[str, object]:
    request = urllib.request.Request(
        f"{url}/auth/login", orjson.dumps(USER), {"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = orjson.loads(answer.read())
        return found


def _config(
    port: int,
    management: int,
    target: int,
    redis_url: str,
    credentials: Credentials,
    *,
    live: bool,
    trusting: bool,
    accounts: int,
) -> str:
    users = f'provider = "users-file"\nusers_file = "{credentials.users}"'
    webhook = f'provider = "webhook"\nwebhook_url = "http://127.0.0.1:{accounts}/login"'
    return f"""[server]
bind = "127.0.0.1:{port}"
trusted_proxies = {'["127.0.0.0/8"]' if trusting else "[]"}
[management]
bind = "127.0.0.1:{management}"
[redis]
url = "{redis_url}"
[tokens]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
signing_keys = "{credentials.keys}"
access_ttl = "{TTL:.0f}s"
max_sessions_per_user = 0
[identity]
{webhook if accounts else users}
[limits]
login_per_user = 0
login_per_ip = 0
refresh_per_session = 0
[[routes]]
path = "/"
upstream = ["http://127.0.0.1:{target}"]
roles_any = ["user"]
revocation = "{"live" if live else "none"}"
max_connections = 20000
"""


def _ready(management: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{management}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
