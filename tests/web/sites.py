"""What the browser visits: `tokengate demo` as a process, and a gateway on a real Redis with the account page."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.settings import sample
from tests.e2e.harness import TIMEOUT, until
from tests.e2e.wire import ask, request
from tests.redis_server import free_port

_ROOT = Path(__file__).parents[2]
_WITHOUT_WEBSOCKETS = "import sys; sys.modules['websockets'] = None; from gateway.cli import main; main(['demo'])"


@dataclass(frozen=True)
class Demo:
    """A running demo: its address, what it said when it started, its process."""

    port: int
    management: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        return self.log.read_text()

    def ready(self) -> bool:
        assert self.process.poll() is None, self.said
        try:
            return ask(self.management, request("GET", "/readyz", {"Connection": "close"})).status == 200
        except OSError:
            return False

    def stop(self) -> int:
        """End it as Ctrl+C does; return its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT)


@contextmanager
def demo(access_ttl: str | None = None, *, websockets: bool = True) -> Iterator[Demo]:
    """Run the demo on free ports until the with block ends; then it must end well and have logged no exception."""
    port, management = free_port(), free_port()
    program = ["-m", "gateway", "demo"] if websockets else ["-c", _WITHOUT_WEBSOCKETS]
    with tempfile.NamedTemporaryFile(prefix="tg-demo-", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(port, management, access_ttl),
            cwd=_ROOT,
        )
        made = Demo(port, management, process, Path(log.name))
        try:
            until(made.ready, "the demo is ready")
            yield made
            assert made.stop() == 0, made.said
            assert "Traceback" not in made.said
            assert "Exception" not in made.said
            assert "Redis does not answer" not in made.said  # the embedded store is always there
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _environment(port: int, management: int, access_ttl: str | None) -> Mapping[str, str]:
    backend = f"http://127.0.0.1:{free_port()}"
    routes = tomllib.loads(sample("demo.toml").read_text())["routes"]
    given = {
        "TOKENGATE_SERVER__BIND": f"127.0.0.1:{port}",
        "TOKENGATE_MANAGEMENT__BIND": f"127.0.0.1:{management}",
        "TOKENGATE_ROUTES": json.dumps([{**route, "upstream": [backend]} for route in routes]),
        "TOKENGATE_LIMITS__LOGIN_PER_USER": "0",  # all tests sign in with one name, from one address
        "TOKENGATE_LIMITS__LOGIN_PER_IP": "0",
        "TOKENGATE_LIMITS__REFRESH_PER_SESSION": "0",
        **({"TOKENGATE_TOKENS__ACCESS_TTL": access_ttl} if access_ttl else {}),
    }
    return {**{name: value for name, value in os.environ.items() if not name.startswith("TOKENGATE_")}, **given}
