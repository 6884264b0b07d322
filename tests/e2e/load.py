"""A steady load over kept connections, from a thread of its own, that counts every request that failed.

A client as HTTP asks for: it uses a connection until an answer says `Connection: close` and then makes a
new one (RFC 9112 9.6). Nothing is tried twice: an end without an answer, a reset, a refused connection
or a wrong status is a failure.

Requests fall due by the clock, `rate` a second, and go out on whichever connection has been idle longest; where
all are busy they wait for one, so that a machine that cannot do as many is asked as fast as it can.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter

import uvloop

TIMEOUT = 20.0  # seconds for a connection, and for an answer
TICK = 0.002


class Load:
    """`clients` is how many connections there are, `ports` where they are made at the moment."""

    def __init__(self, ports: Callable[[], Sequence[int]], data: bytes, clients: int, rate: float) -> None:
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self.closes = self.sent = 0
        self.by_port: Counter[int] = Counter()
        self.rate = rate
        self.data = data
        self.seconds = 0.0
        self.idle: deque[_Connection] = deque()
        self.waiting: set[_Connection] = set()  # for an answer
        self._ports = ports
        self._clients = clients
        self._open = self._turn = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(2 * TIMEOUT)
        assert not self._thread.is_alive()

    @property
    def total(self) -> int:
        return sum(self.answers.values())

    def __str__(self) -> str:
        seconds = self.seconds or 1.0
        due, answered = self.rate, self.total / seconds
        return f"{due:,.0f} requests/s due, {answered:,.0f} answered for {seconds:.1f} s, {len(self.failures)} failed"

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        begin = perf_counter()
        while not self._stop.is_set():
            self._send(int((perf_counter() - begin) * self.rate) - self.sent)
            self._end_late()
            await asyncio.sleep(TICK)
        self.seconds = perf_counter() - begin
        await asyncio.gather(*self._opening)
        while self.waiting:  # every request gets its answer, or its failure
            self._end_late()
            await asyncio.sleep(TICK)
        while self.idle:
            self.idle.pop().transport.abort()

    def _send(self, due: int) -> None:
        for _ in range(due):
            if self.idle:
                self.sent += 1
                self.idle.popleft().send()
            elif self._open < self._clients:
                self.sent += 1
                self._open += 1
                task = asyncio.get_running_loop().create_task(self._connect())
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
            else:
                return

    async def _connect(self) -> None:
        """Make a connection for a request that is due."""
        ports = self._ports()
        self._turn += 1
        port = ports[self._turn % len(ports)]
        try:
            async with asyncio.timeout(TIMEOUT):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(lambda: _Connection(self, port), "127.0.0.1", port)
        except (OSError, TimeoutError) as error:
            self._open -= 1
            self.fail(type(error).__name__, port)
        else:
            connection.send()

    def _end_late(self) -> None:
        limit = perf_counter() - TIMEOUT
        for connection in [each for each in self.waiting if each.sent_at < limit]:
            self.fail("no answer in time", connection.port)
            connection.give_up()

    def answered(self, status: int, head: bytes, port: int) -> None:
        self.answers[status] += 1
        self.by_port[port] += 1
        if status != 200:
            self.failures.append(f"status {status}: {head!r}")

    def fail(self, what: str, port: int) -> None:
        self.failures.append(f"{what} on {port} after {self.total} answers")

    def lost(self) -> None:
        self._open -= 1


class _Connection(asyncio.Protocol):
    """One kept connection: a request, its answer with a Content-Length, the next request."""

    def __init__(self, load: Load, port: int) -> None:
        self.port = port
        self.sent_at = 0.0
        self.transport: asyncio.Transport
        self._load = load
        self._read = b""

    def send(self) -> None:
        self.sent_at = perf_counter()
        self._load.waiting.add(self)
        self.transport.write(self._load.data)

    def give_up(self) -> None:
        self._load.waiting.discard(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._read[:end].lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(self._read) < end + 4 + length:
            return
        load, whole, self._read = self._load, len(self._read) == end + 4 + length, b""
        load.waiting.discard(self)
        load.answered(int(head[9:12]), head, self.port)
        if not whole:
            load.fail("more than an answer", self.port)
        if b"connection: close" in head or not whole:
            load.closes += 1
            self.transport.close()
        else:
            load.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        load = self._load
        load.lost()
        if self in load.waiting:
            load.waiting.discard(self)
            load.fail("ended without an answer" if exc is None else type(exc).__name__, self.port)
        elif self in load.idle:  # ended between two requests, and known before the next one
            load.idle.remove(self)


@contextmanager
def load(ports: Callable[[], Sequence[int]], data: bytes, *, clients: int = 32, rate: float = 2000) -> Iterator[Load]:
    made = Load(ports, data, clients, rate)
    made.start()
    try:
        yield made
    finally:
        made.stop()
