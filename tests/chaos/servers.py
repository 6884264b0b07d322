"""Redis servers that a fault is done to, and the backend behind the gateways."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from tests.redis_server import RedisServer

PASSWORD = "the-password-of-redis"
AOF = ("--appendonly", "yes", "--appendfsync", "always")
TIMEOUT = 20.0  # seconds for what a server is waited for
# An AOF in memory: how fast a disk is must not decide what a fault comes to.
_FOLDER = next(folder for folder in ("/dev/shm", "/tmp") if Path(folder).is_dir())


class Store(RedisServer):
    """A Redis with a password and a directory of its own, and a connection of the test's that outlives every fault."""

    def __init__(self, options: Sequence[str] = AOF) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tg-chaos-", dir=_FOLDER)
        self.directory = Path(self._folder.name)
        access = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--maxmemory-policy", "noeviction")
        # A replica is given its data at once, and not after the 5 s that others may join within.
        super().__init__(self.directory, (*access, "--repl-diskless-sync-delay", "0", *options))
        self.admin: Any = redis.Redis(
            unix_socket_path=self.socket_path, password=PASSWORD, protocol=2, driver_info=None, socket_timeout=TIMEOUT
        )
        self.start()

    def with_options(self, *options: str) -> None:
        """Have these on the command line of the next start too."""
        self._options = (*self._options, *options)

    def shut_down(self) -> None:
        """End it as its operator does; what it holds is on disk then."""
        self.admin.shutdown(save=True)
        self.stop()

    def wipe(self) -> None:
        """Take away what it has on disk; it must be stopped."""
        for path in self.directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif not path.is_socket():
                path.unlink()

    def wait_answering(self) -> None:
        """Wait until it answers, and has loaded what it has on disk."""
        until(self.answers, "redis answers")

    def answers(self) -> bool:
        try:
            return bool(self.admin.ping()) and not self.admin.info("persistence")["loading"]
        except redis.RedisError:  # BusyLoadingError, or nobody there yet
            return False

    def follow(self, primary: Store, port: int = 0) -> None:
        """Become a replica of another, reached at its port or at this one, and wait until it has what that one has."""
        self.admin.replicaof("127.0.0.1", port or primary.port)
        until(self._follows, "the replica has its primary's data")
        until(primary.has_replica, "the primary knows that the replica has it")

    def hand_over(self) -> None:
        """Have the replica lead and become its replica, without losing a write and without ending a connection."""
        self.admin.execute_command("FAILOVER")
        until(self._follows, "the primary has become a replica")

    def lead(self) -> None:
        self.admin.replicaof("NO", "ONE")

    def drop_clients(self) -> None:
        """End every connection but the test's own."""
        self.admin.client_kill_filter(_type="normal", skipme=True)

    def has_replica(self) -> bool:
        found = self.admin.info("replication").get("slave0", {})
        return bool(found.get("state") == "online")

    def close(self) -> None:
        self.stop()  # SIGKILL, which a stopped process takes too
        self.admin.close()
        self._folder.cleanup()

    def _follows(self) -> bool:
        info = self.admin.info("replication")
        return bool(info["role"] == "slave" and info["master_link_status"] == "up")


def until(condition: Any, what: str, seconds: float = TIMEOUT) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


class Backend(asyncio.Protocol):
    """Answers every request without a body with 200."""

    def __init__(self) -> None:
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._head = (self._head + data).split(b"\r\n\r\n")
        assert self._transport is not None
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * len(heads))
