"""Redis as it is run, for tests: behind sentinels, as a cluster, over TLS with a client certificate and an ACL user.

with sentinels() as watched:        watched.url, watched.primary, watched.replica, watched.sentinels
with cluster() as nodes:            nodes.url, nodes.owner(digit), nodes.move(digit, target)
with guarded_redis(folder) as safe: safe.endpoint()
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from gateway.sessions.connect import Endpoint, parse_url
from gateway.sessions.slots import SLOTS
from tests.redis_certificates import certificates
from tests.redis_server import RedisServer, find_redis_server, free_port

SERVICE = "mymaster"
_AT_ONCE = ("--repl-diskless-sync-delay", "0")
_SLOTS = 16_384


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for what servers come to among themselves."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


def replicate(primary: RedisServer, key: str = "fence") -> None:
    """Wait until a replica has all that was written; WAIT speaks for its own connection, so that one writes too."""
    with primary.client() as admin:
        admin.set(key, "1", px=60_000)
        assert admin.wait(1, 10_000) == 1


class Sentinel:
    """One sentinel process that watches a primary."""

    def __init__(self, directory: Path, primary: RedisServer, quorum: int, lines: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._file = directory / f"sentinel-{self.port}.conf"
        watch = [f"monitor {SERVICE} 127.0.0.1 {primary.port} {quorum}"]
        watch += [f"down-after-milliseconds {SERVICE} 500", f"failover-timeout {SERVICE} 3000"]
        told = [f"port {self.port}", "bind 127.0.0.1", f"dir {directory}", "loglevel warning", *lines]
        self._file.write_text("\n".join([*told, *(f"sentinel {line}" for line in watch)]) + "\n")

    def client(self, **more: Any) -> Any:
        return redis.Redis(port=self.port, protocol=2, driver_info=None, **more)

    def start(self) -> None:
        program = find_redis_server()
        assert program is not None
        self._process = subprocess.Popen(
            [program, str(self._file), "--sentinel"], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL
        )
        wait_until(self._listens)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the sentinel did not start"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@dataclass
class Watched:
    """A primary, its replica, and the sentinels that watch them."""

    primary: RedisServer
    replica: RedisServer
    sentinels: list[Sentinel]

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{each.port}' for each in self.sentinels)}/{SERVICE}/0"

    def named(self, **more: Any) -> int:
        """Return the port that the first sentinel names."""
        with self.sentinels[0].client(**more) as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def fail_over(self) -> None:
        """Have the replica take over while the primary is well."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", SERVICE)


@contextmanager
def sentinels(count: int = 3) -> Iterator[Watched]:
    """Run a primary, a replica that has its data, and sentinels that know of both and of each other."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-sentinel-", dir="/tmp")))
        primary, replica = (_server(stack, directory / name, _AT_ONCE) for name in ("a", "b"))
        with replica.client() as copy:
            copy.replicaof("127.0.0.1", str(primary.port))
        with primary.client() as admin:
            wait_until(lambda: _is_followed(admin))
        watching = [Sentinel(directory, primary, count // 2 + 1) for _ in range(count)]
        for each in watching:
            each.start()
            stack.callback(each.stop)
        wait_until(lambda: all(_knows(each, count) for each in watching))
        yield Watched(primary, replica, watching)


def _is_followed(admin: Any) -> bool:
    info = admin.info("replication")
    return bool(info["connected_slaves"] and info["slave0"]["state"] == "online")


def _knows(sentinel: Sentinel, count: int) -> bool:
    with sentinel.client() as client:
        state = client.execute_command("INFO", "sentinel")["master0"]
    return state["status"] == "ok" and int(state["slaves"]) == 1 and int(state["sentinels"]) == count


def _server(stack: ExitStack, directory: Path, options: Sequence[str] = (), port: int = 0) -> RedisServer:
    directory.mkdir()
    server = RedisServer(directory, options)
    server.port = port or server.port
    server.start()
    stack.callback(server.stop)
    return server


class Cluster:
    """Masters that share the slots among them."""

    def __init__(self, masters: list[RedisServer]) -> None:
        self.nodes = masters

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes[:3])}"

    def owner(self, digit: str) -> RedisServer:
        """Return the master that says that it has the partition."""
        for node in self.nodes:
            if node.runs and _has(node, SLOTS[digit]):
                return node
        raise AssertionError(f"nobody has partition {digit}")

    def partitions(self, node: RedisServer) -> str:
        return "".join(digit for digit in SLOTS if _has(node, SLOTS[digit]))

    def begin_move(self, digit: str, source: RedisServer, target: RedisServer) -> None:
        with source.client() as old, target.client() as new:
            slot = SLOTS[digit]
            new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(source))
            old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(target))

    def move_keys(self, digit: str, source: RedisServer, target: RedisServer, count: int) -> int:
        """Move so many keys of a partition that is being moved; return how many there were to move."""
        with source.client() as old:
            keys = old.execute_command("CLUSTER", "GETKEYSINSLOT", SLOTS[digit], count)
            if keys:
                old.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            return len(keys)

    def end_move(self, digit: str, target: RedisServer) -> None:
        for node in sorted(self.nodes, key=lambda each: each is not target):
            if node.runs and _leads(node):
                with node.client() as client:
                    client.execute_command("CLUSTER", "SETSLOT", SLOTS[digit], "NODE", _id(target))


@contextmanager
def cluster(masters: int = 3, replicas: int = 0, options: Sequence[str] = ()) -> Iterator[Cluster]:
    """Run a cluster; replica n follows master n."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-cluster-", dir="/tmp")))
        told = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-config-file", "nodes.conf"]
        told += [
            "--cluster-require-full-coverage",
            "no",
            "--cluster-allow-replica-migration",
            "no",
            *_AT_ONCE,
            *options,
        ]
        count = masters + replicas
        nodes = [_server(stack, directory / str(number), told, _bus_port()) for number in range(count)]
        for number, node in enumerate(nodes[:masters]):
            _give(node, range(number * _SLOTS // masters, (number + 1) * _SLOTS // masters))
        for node in nodes[1:]:
            with nodes[0].client() as first:
                first.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        wait_until(lambda: all(_agrees(node, masters, count) for node in nodes))
        for master, replica in zip(nodes, nodes[masters:], strict=False):
            with replica.client() as copy, master.client() as original:
                wait_until(lambda: _follows(copy, master))  # noqa: B023  # called here
                wait_until(lambda: _is_followed(original))
        yield Cluster(nodes)


def _leads(node: RedisServer) -> bool:
    with node.client() as client:
        return bool(client.info("replication")["role"] == "master")


def _give(node: RedisServer, slots: range) -> None:
    with node.client() as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *slots)


def _follows(copy: Any, master: RedisServer) -> bool:
    try:
        copy.execute_command("CLUSTER", "REPLICATE", _id(master))
    except redis.ResponseError:  # it has not heard of the master yet
        return False
    return True


def _agrees(node: RedisServer, masters: int, count: int) -> bool:
    with node.client() as client:
        info = client.execute_command("CLUSTER", "INFO")
        known = client.execute_command("CLUSTER", "SLOTS")
    text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
    return text["cluster_state"] == "ok" and int(text["cluster_known_nodes"]) == count and len(known) >= masters


def _has(node: RedisServer, slot: int) -> bool:
    with node.client() as client:
        mine = _id(node)
        for first, last, master, *_ in _slots(client):
            if first <= slot <= last:
                return bool(master == mine)
    return False


def _slots(client: Any) -> list[tuple[int, int, str]]:
    """Return (first, last, id of the master) of each range, read from the reply itself."""
    client.response_callbacks.pop("CLUSTER SLOTS", None)
    return [(first, last, master[2].decode()) for first, last, master, *_ in client.execute_command("CLUSTER SLOTS")]


def _id(node: RedisServer) -> str:
    with node.client() as client:
        name: bytes | str = client.execute_command("CLUSTER", "MYID")
    return name.decode() if isinstance(name, bytes) else name


def _bus_port() -> int:
    """Return a free port whose cluster bus, 10000 above it, is free too."""
    while True:
        port = free_port()
        # below the ports of outgoing connections, as free_port's own
        if port < 22_000:
            with suppress(OSError), socket.socket() as bus:
                bus.bind(("127.0.0.1", port + 10_000))
                return port


USER, PASSWORD = "gate", "s3cret:/@ word"
RIGHTS = """-@all +hello +auth +select +ping +client|setname +time +get +mget +set +del +exists +persist +pexpireat
    +pttl +zadd +zrange +zrem +eval +evalsha +wait +xadd +xtrim +xrange +asking +cluster|slots""".split()  # noqa: SIM905  # as in docs


@dataclass
class Guarded:
    """A server that wants a client certificate and knows one user, whose password is in a file."""

    server: RedisServer
    port: int
    directory: Path

    @property
    def password_file(self) -> Path:
        return self.directory / "password"

    def endpoint(self, **more: Any) -> Endpoint:
        files = {f"tls_{name}": f"{self.directory}/{file}" for name, file in TLS_FILES.items()}
        told = {"username": USER, "password_file": str(self.password_file)} | files | more
        return parse_url(f"rediss://127.0.0.1:{self.port}/0", **told)

    def set_password(self, password: str, *, file: bool = True) -> None:
        """Give the user another password, in the server and in the file."""
        with self.server.client() as admin:
            admin.execute_command("ACL", "SETUSER", USER, "resetpass", f">{password}")
        if file:
            self.password_file.write_text(password + "\n")


TLS_FILES = {"ca": "ca.pem", "cert": "node.pem", "key": "node.key"}


@contextmanager
def guarded_redis() -> Iterator[Guarded]:
    """Run a Redis with TLS, client certificates and an ACL user with no more rights than the documentation asks for."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-tls-", dir="/tmp")))
        certificates(directory)
        port = free_port()
        told = ["--tls-port", str(port), "--tls-auth-clients", "yes"]
        for option, file in (("cert-file", "node.pem"), ("key-file", "node.key"), ("ca-cert-file", "ca.pem")):
            told += [f"--tls-{option}", f"{directory}/{file}"]
        server = _server(stack, directory / "redis", told)
        guarded = Guarded(server, port, directory)
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", USER, "on", "~*", *RIGHTS)
        guarded.set_password(PASSWORD)
        yield guarded
