"""What Redis spends: CPU of live checks by the size of their batches and of each operation, bytes of each key.

CPU is that of Redis' process, by its own clock: on a machine that is busy with other things it hardly changes.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import hiredis
import redis

from benchmarks import machine
from benchmarks.crowd import Crowd
from benchmarks.plan import tables
from gateway.sessions.connect import open_client
from gateway.sessions.keyspace import DIGITS, Keyspace
from gateway.sessions.liveness import LiveKeys
from gateway.sessions.resp import STILL_PRIMARY, Batch
from gateway.sessions.store import NewSession, SessionPolicy, SessionStore

SIZES = (1, 2, 4, 8, 16, 32, 64)
TURNS = 1_500  # batches of each size in a round
RESTING = 300  # where there is a pause between them
OPERATIONS = 2_000  # of each kind
TOGETHER = 8  # operations under way
DAY = 86_400
POLICY = SessionPolicy(30 * DAY, 180 * DAY, grace=10, max_sessions=50, leeway=10, access_ttl=600)


@dataclass(frozen=True, slots=True)
class Line:
    """`first` + `each` * n, fitted; `off` is the worst relative distance of a point from it."""

    first: float
    each: float
    off: float


def fit(points: Sequence[tuple[float, float]]) -> Line:
    """Return the line through points (n, cost) whose relative errors are the least squares."""
    weights = [1 / cost**2 for _, cost in points]
    pairs = [(w, n, cost) for w, (n, cost) in zip(weights, points, strict=True)]
    s, sx = sum(weights), sum(w * n for w, n, _ in pairs)
    sxx, sy = sum(w * n * n for w, n, _ in pairs), sum(w * cost for w, _, cost in pairs)
    sxy = sum(w * n * cost for w, n, cost in pairs)
    each = (s * sxy - sx * sy) / (s * sxx - sx * sx)
    first = (sy - each * sx) / s
    return Line(first, each, max(abs(first + each * n - cost) / cost for n, cost in points))


class Probe:
    """A Redis with a crowd in it, asked as a gateway asks."""

    def __init__(self, port: int, pid: int, prefix: str = "gw") -> None:
        self.port, self.pid = port, pid
        self.keys = Keyspace(prefix)
        self.client: Any = redis.Redis(port=port, protocol=2)
        self.prefix = prefix

    # --- CPU of live checks ---

    def batches(
        self,
        sessions: Sequence[tuple[str, str]],
        rounds: int,
        *,
        apart: bool = False,
        workers: int = 1,
        pause: float = 0.0,
    ) -> list[tuple[int, float]]:
        """Return (size, microseconds a batch), the least of so many rounds; each asks about sessions at random.

        A batch to one server is a command and WAIT behind it; `apart` is one to a master of a cluster: a command for
        each session, as if none of them were of one partition, in one packet. So many workers ask at the same moment,
        with a pause of so many seconds after each, in which Redis falls asleep.
        """
        chance = random.Random(1)
        found: dict[int, list[float]] = {size: [] for size in SIZES}
        with ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection(("127.0.0.1", self.port), 10)) for _ in range(workers)
            ]
            for connection in connections:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(rounds):
                for size in SIZES:
                    turns = RESTING if pause else TURNS
                    asked = (chance.choices(sessions, k=size) for _ in range(turns))
                    said = [self._apart(some) if apart else self._batch(some) for some in asked]
                    found[size].append(self._cost(connections, said, size if apart else 2, pause))
        return [(size, min(costs)) for size, costs in found.items()]

    def _apart(self, sessions: Sequence[tuple[str, str]]) -> bytes:
        return b"".join(self._batch([each], b"") for each in sessions)

    def _batch(self, sessions: Sequence[tuple[str, str]], behind: bytes = STILL_PRIMARY) -> bytes:
        keys = [LiveKeys(0, self.keys.session(sid), self.keys.revoked(sid[0] + "t" * 22)) for _, sid in sessions]
        return Batch(keys, [], 0.0, 0.0).command() + behind

    def _cost(self, connections: Sequence[socket.socket], said: Sequence[bytes], replies: int, pause: float) -> float:
        before = machine.cpu_seconds([self.pid])
        for first in range(0, len(said), len(connections)):
            asked = list(zip(connections, said[first:], strict=False))
            for connection, batch in asked:
                connection.sendall(batch)
            for connection, _ in asked:
                self._read(connection, replies)
            if pause:
                time.sleep(pause)
        return (machine.cpu_seconds([self.pid]) - before) / len(said) * 1e6

    def _read(self, connection: socket.socket, replies: int) -> int:
        """Read so many replies, none of which may lack a session; return their bytes."""
        reader, size = hiredis.Reader(notEnoughData=...), 0
        while replies:
            data = connection.recv(1 << 16)
            if not data:
                raise OSError("Redis has closed the connection")
            size += len(data)
            reader.feed(data)
            while (reply := reader.gets()) is not ...:
                if isinstance(reply, list) and not all(isinstance(record, bytes) for record in reply[::2]):
                    raise RuntimeError("a session is missing")
                replies -= 1
        return size

    def traffic(self, sessions: Sequence[tuple[str, str]]) -> dict[int, tuple[float, float]]:
        """Return, by size, the bytes that a batch takes to Redis and from it."""
        found = {}
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            for size in SIZES:
                said = self._batch(sessions[:size])
                connection.sendall(said)
                found[size] = float(len(said)), float(self._read(connection, 2))
        return found

    # --- CPU of operations ---

    def operations(self) -> dict[str, float]:
        """Return the microseconds that one of each operation of the store takes of Redis, the least of two rounds."""
        rounds = [asyncio.run(self._operations(first)) for first in (10_000_000, 20_000_000)]
        return {name: min(each[name] for each in rounds) for name in rounds[0]}

    async def _operations(self, first: int) -> dict[str, float]:
        store = SessionStore(open_client(f"redis://127.0.0.1:{self.port}/0", 30), self.prefix, POLICY, 30)
        crowd, numbers = Crowd(self.prefix, 0), range(first, first + OPERATIONS)
        made: list[Any] = []

        async def create(number: int) -> None:
            made.append(await store.create(replace(crowd.session(number), subject=f"o-{number}")))

        found = {"login": await self._each(create, numbers)}
        found["refresh"] = await self._each(lambda n: store.rotate(made[n].id, 0), range(OPERATIONS))
        found["mark"] = await self._each(lambda n: store.mark_used(made[n].id, 1), range(OPERATIONS))
        end = int(time.time()) + 600
        found["revoke"] = await self._each(
            lambda n: store.revoke_token(f"{DIGITS[n % 16]}{first + n:022d}", end), range(OPERATIONS)
        )
        found["attempt"] = await self._each(lambda n: store.attempt("refresh", str(first + n), 30), range(OPERATIONS))
        found["logout"] = await self._each(lambda n: store.end(made[n].id), range(OPERATIONS))
        await store.close()
        return found

    async def _each(self, act: Callable[[int], Awaitable[object]], numbers: Sequence[int]) -> float:
        waiting = iter(numbers)

        async def work() -> None:
            for number in waiting:
                await act(number)

        before = machine.cpu_seconds([self.pid])
        await asyncio.gather(*(work() for _ in range(TOGETHER)))
        return (machine.cpu_seconds([self.pid]) - before) / len(numbers) * 1e6

    def logins_of_one(self, counts: Sequence[int], device: str = "") -> dict[int, float]:
        """Return, by the sessions that a user has, the microseconds that the user's next login takes of Redis."""
        return asyncio.run(self._logins_of_one(counts, device))

    async def _logins_of_one(self, counts: Sequence[int], device: str) -> dict[int, float]:
        policy = replace(POLICY, max_sessions=0)
        store = SessionStore(open_client(f"redis://127.0.0.1:{self.port}/0", 30), self.prefix, policy, 30)
        found, name, had = {}, f"many-{device}", 0
        for count in counts:
            for number in range(had, count):
                await store.create(NewSession(name, device=f"{device}{number}" if device else ""))
            before = machine.cpu_seconds([self.pid])
            for _ in range(50):
                await store.create(NewSession(name, device=device))
            found[count] = (machine.cpu_seconds([self.pid]) - before) / 50 * 1e6
            had = count if device else count + 50
        await store.end_all(name)
        await store.close()
        return found

    # --- bytes ---

    def memory(self) -> int:
        """Return used_memory once it has come to rest: old hash tables are given back step by step."""
        last, deadline = -1, time.monotonic() + 10
        while time.monotonic() < deadline:
            now = int(self.client.info("memory")["used_memory"])
            if abs(now - last) < 4096:
                break
            last = now
            time.sleep(0.25)
        return now

    def bytes_each(self, write: Callable[[], None], count: int) -> float:
        """Return what each of `count` keys takes that `write` writes, the hash tables left out."""
        before, keys = self.memory(), self.client.dbsize()
        write()
        grown = tables(self.client.dbsize()) - tables(keys)
        return (self.memory() - before - grown) / count

    def sizes(self, crowd: Crowd, count: int) -> dict[str, float]:
        """Return the bytes of a session's record, of its index, of a blacklist entry and of a limit's state."""
        found = {"session": self.bytes_each(lambda: crowd.fill(self.port, 0, count, index=False), count)}
        found["index"] = self.bytes_each(lambda: crowd.fill(self.port, 0, count, sessions=False), count)
        end = int(time.time() * 1000) + 600_000
        found["revoked"] = self.bytes_each(
            lambda: self._set(self.keys.revoked(f"{DIGITS[n % 16]}{n:022d}") for n in range(count)), count
        )
        found["attempt"] = self.bytes_each(
            lambda: self._set((self.keys.attempt("refresh", str(n)) for n in range(count)), b"%d" % (end * 1000)), count
        )
        return found

    def _set(self, names: Any, value: bytes = b"1") -> None:
        pipe = self.client.pipeline(transaction=False)
        for at, name in enumerate(names, 1):
            pipe.execute_command("SET", name, value, "PX", 3_600_000)
            if at % 5_000 == 0:
                pipe.execute()
        pipe.execute()
