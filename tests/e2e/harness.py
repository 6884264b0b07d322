"""`tokengate serve` as a process of its own: keys, users, configuration, readiness, log, end.

    with Site(redis_url) as site, site.serve(routes=[route("/api/", backend.url)]) as gateway:
        token = gateway.login("alice")["access_token"]

No gateway may ever log an exception, and each must end with status 0: both are looked at for every one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import argon2
import redis

from gateway.sessions.keyspace import DIGITS, Keyspace
from gateway.tokens.keyring import KeyFile, Keyring, generate, generate_refresh
from gateway.tokens.signer import Signer
from tests.e2e.wire import Answer, ask, json_request, request
from tests.redis_server import free_port

ISSUER = "https://gateway.test"
AUDIENCE = "e2e"
ADMIN_TOKEN = "admin-token-of-the-tests"
PASSWORD = "correct horse"
TIMEOUT = 30.0  # seconds for a process to be ready or to end, on a machine that does much else
USERS: dict[str, dict[str, Any]] = {
    "alice": {"sub": "u-alice", "roles": ["user", "admin"], "scope": "orders:read orders:write"},
    "carol": {"sub": "u-carol", "roles": ["user", "admin"], "scope": "orders:read orders:write"},
    "bob": {"sub": "u-bob", "roles": ["guest"], "scope": "orders:read"},
    "odd": {
        "sub": "u-odd",
        "roles": ["plain", "with,comma", "caf\u00e9"],
        "claims": {"email": "a\r\nX-Auth-Request-Groups: admin", "name": "J\u00fcrgen, 100%", "edge": " spaced "},
    },
}

Options = Mapping[str, Any]


def route(path: str, upstream: str | Sequence[str], **options: Any) -> dict[str, Any]:
    return {"path": path, "upstream": [upstream] if isinstance(upstream, str) else list(upstream), **options}


def until(condition: Callable[[], Any], what: str, seconds: float = TIMEOUT) -> Any:
    """Return what `condition` gives as soon as it is true; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)
    return value


class Gateway:
    """One running gateway: its address, its process and its log."""

    def __init__(
        self,
        site: Site,
        config: Path,
        port: int,
        management: int,
        words: Sequence[str],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.site = site
        self.config = config
        self.port = port
        self.management = management
        self._log = config.with_suffix(".log")
        self._checked = 0
        command = [sys.executable, "-m", "gateway", "serve", "--config", str(config), *words]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TOKENGATE_")}
        env = {**inherited, **(environ or {})}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, cwd=_ROOT
            )

    def __repr__(self) -> str:
        return f"<Gateway {self.config.stem} on {self.port}>"

    @property
    def log(self) -> str:
        return self._log.read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the log; every line must be a JSON object."""
        return [json.loads(line) for line in self.log.splitlines()]

    def operate(self, method: str, target: str, content: Any = None) -> Answer:
        """Ask the management listener, with the admin token."""
        if content is None:
            return ask(self.management, request(method, target, {"Connection": "close"}, token=ADMIN_TOKEN))
        return ask(self.management, json_request(method, target, content, ADMIN_TOKEN))

    def readiness(self) -> int:
        """Return the status of /readyz, 0 while nothing answers there."""
        assert self.process.poll() is None, f"the gateway ended:\n{self.log}"
        try:
            return self.operate("GET", "/readyz").status
        except OSError:
            return 0

    def wait_ready(self, status: int = 200) -> None:
        until(lambda: self.readiness() == status, f"/readyz {status} of {self!r}\n{self.log}")

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of a metric that have these labels."""
        text = self.operate("GET", "/metrics").body.decode()
        found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        return sum(float(value) for said, value in found if wanted <= set(re.findall(r'\w+="[^"]*"', said)))

    def login(self, user: str = "alice", **more: str) -> dict[str, Any]:
        """Sign in; the token response."""
        content = {"username": user, "password": PASSWORD, **more}
        answer = ask(self.port, json_request("POST", "/auth/login", content))
        assert answer.status == 200, answer
        return dict(answer.json())

    def refresh(self, refresh_token: str) -> Answer:
        content = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return ask(self.port, json_request("POST", "/auth/token", content))

    @cached_property
    def token(self) -> str:
        """An access token of alice that every test may use and none may end."""
        return str(self.login()["access_token"])

    def resident(self) -> int:
        """Return the resident memory of the process, in bytes."""
        return self._memory("VmRSS")

    def peak(self) -> int:
        """Return the most that was resident since `forget_peak`, in bytes."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")  # proc(5)

    def check_log(self) -> None:
        """Fail for an exception that was logged since this was last asked."""
        log = self.log
        fresh, self._checked = log[self._checked :], len(log)
        wrong = [line[-600:] for line in fresh.splitlines() if "Traceback" in line or "Warning" in line]
        assert not wrong, f"{self!r} logged {len(wrong)} exceptions, the first one:\n{wrong[0]}"

    def stop(self) -> int:
        """End the process by SIGTERM as an orchestrator does; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self!r} did not end:\n{self.log}") from None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


_ROOT = Path(__file__).parents[2]
_RUNNING: list[Gateway] = []


def running() -> list[Gateway]:
    """Return the gateways that are up at the moment."""
    return list(_RUNNING)


class Site:
    """A directory with keys and users that several gateways share, and the Redis behind them."""

    def __init__(
        self,
        redis_url: str,
        prefix: str = "",
        users: Mapping[str, Mapping[str, Any]] = USERS,
        algorithm: str = "ES256",
    ) -> None:
        self.redis_url = redis_url
        self.prefix = prefix or f"e2e-{secrets.token_hex(4)}"  # sites that share a Redis share no session
        self.algorithm = algorithm
        self._temporary = tempfile.TemporaryDirectory(prefix="tg-e2e-")
        self.directory = Path(self._temporary.name)
        self._number = 0
        keys = self.directory / "keys"
        keys.mkdir()
        now = time.time()
        for file in (generate(algorithm, now), generate_refresh(now)):
            _write_secret(keys / file.name, file.data)
        hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)  # cheap, for the tests' speed
        known = {name: {"password": hasher.hash(PASSWORD), **user} for name, user in users.items()}
        _write_secret(self.directory / "users.toml", toml({"users": known}).encode())

    def replace_signing_key(self) -> None:
        """Remove the key that signs access tokens as one that was stolen, and put another one there."""
        keys = self.directory / "keys"
        for old in keys.glob("*.pem"):
            old.unlink()
        file = generate(self.algorithm, time.time())
        _write_secret(keys / file.name, file.data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._temporary.cleanup()

    def age_store(self, seconds: int = 3600) -> Self:
        """Have the store be so old before a gateway has seen it: tokens of other issuers must be younger than it."""
        born = int(time.time()) - seconds
        names = Keyspace(self.prefix)
        with redis.Redis.from_url(self.redis_url) as client:
            client.mset({names.epoch(digit): b"%d 0 " % born for digit in DIGITS})
        return self

    def signer(self, *, issuer: str = ISSUER, audience: str = AUDIENCE, access_ttl: float = 600.0) -> Signer:
        """Return a signer with the gateway's own key, for tokens that the gateway would not mint."""
        files = [KeyFile(path.name, path.read_bytes(), 0.0) for path in (self.directory / "keys").iterdir()]
        return Signer(Keyring.load(files, self.algorithm), issuer, audience, access_ttl)

    def configure(self, port: int, management: int, options: Mapping[str, Any]) -> Path:
        """Write a configuration: `options` are sections that are laid over the tests' own."""
        sections: dict[str, Any] = {
            "server": {"bind": f"127.0.0.1:{port}", "drain_timeout": "1s"},
            "management": {"bind": f"127.0.0.1:{management}", "admin_token": ADMIN_TOKEN},
            "redis": {"url": self.redis_url, "prefix": self.prefix},
            "tokens": {
                "issuer": ISSUER,
                "audience": AUDIENCE,
                "algorithm": self.algorithm,
                "signing_keys": str(self.directory / "keys"),
                "max_sessions_per_user": 0,  # no test's login may end another's session
            },
            "identity": {"provider": "users-file", "users_file": str(self.directory / "users.toml")},
            "limits": {"login_per_user": 0, "login_per_ip": 0, "refresh_per_session": 0},
        }
        for name, section in options.items():
            known = sections.get(name, {})
            sections[name] = {**known, **section} if isinstance(section, Mapping) else section
        self._number += 1
        path = self.directory / f"gateway-{self._number}.toml"
        _write_secret(path, toml(sections).encode())
        return path

    @contextmanager
    def serve(
        self, words: Sequence[str] = (), *, ready: int = 200, environ: Mapping[str, str] | None = None, **options: Any
    ) -> Iterator[Gateway]:
        """Run a gateway with these sections until the with block ends.

        `words` are further ones of its command, `environ` further variables. `ready` is the status of /readyz
        that is waited for, 0 = none.
        """
        port, management = free_port(), free_port()
        gateway = Gateway(self, self.configure(port, management, options), port, management, words, environ)
        _RUNNING.append(gateway)
        try:
            gateway.wait_ready(ready)
            yield gateway
        except BaseException:
            gateway.kill()
            raise
        else:
            assert gateway.stop() == 0, gateway.log
            gateway.check_log()
        finally:
            _RUNNING.remove(gateway)


def toml(sections: Mapping[str, Any]) -> str:
    """Return a TOML document: JSON's strings, numbers and lists are TOML's too, inline tables are not."""
    lines = []
    for name, section in sections.items():
        if isinstance(section, Mapping):
            lines.append(f"[{_key(name)}]")
            lines += [f"{_key(key)} = {_value(value)}" for key, value in section.items()]
        else:
            for table in section:
                lines.append(f"[[{_key(name)}]]")
                lines += [f"{_key(key)} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def _write_secret(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)
