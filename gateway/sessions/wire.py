"""The connection that the live checks travel on: RESP written and read here, by callbacks.

Measured on one machine: 16 checks through redis-py cost 92 to 153 us of CPU, tasks and streams included,
this way 35 to 55 us, of which 25 are the kernel's for one round trip.

Laws: a batch given to `send` is answered exactly once, at the latest at its deadline. A reply that was
not due, in form or in number, ends the connection, for then nobody knows which answer belongs to
which ask. Only a primary is asked, never a replica. What cannot be answered is UNAVAILABLE, never ALIVE.

A link is greeting -> ready -> lost. The wire is connecting (asks wait, within their deadline), up, or
down (asks are refused at once) from the first failed try to connect until one succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis

from gateway.sessions.connect import Endpoint, open_client
from gateway.sessions.resp import (
    MAX_GREETING,
    Batch,
    Greeting,
    ProtocolViolation,
    Verdict,
    all_alive,
    check_greeting,
    greeting,
    parse_reply,
    unavailable,
)

logger = logging.getLogger(__name__)

_BACKOFF = (0.02, 0.5)  # seconds: the first wait and the longest; service is back within a second of Redis
_STEADY = 1.0  # seconds after which a link that had nothing to answer counts as good
_CONNECT = 0.5  # seconds a try to connect may take at least; a short timeout is for answers
_MORE = object()  # the reader's word for "not yet"

Done = Callable[[Batch, bytes], None]  # one verdict a byte, in the order of the batch


class Wire:
    """The kept connection to one endpoint. `done` is called with each batch and its verdicts.

    Raises OSError for TLS files that cannot be read.
    """

    def __init__(self, endpoint: Endpoint, timeout: float, done: Done) -> None:
        self._endpoint = endpoint
        self._tls = endpoint.tls()
        self._patience = max(timeout, _CONNECT)
        self.done = done
        self._link: _Link | None = None
        self._connecting = False
        self._held: deque[Batch] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self._link is not None

    def start(self) -> None:
        self._connecting = True
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    async def close(self) -> None:
        """End the connection; what is waiting is answered UNAVAILABLE."""
        self._connecting = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        link, self._link = self._link, None
        if link is not None:
            link.drop("closed")
            await link.lost.wait()
        self._refuse_held()

    def send(self, batch: Batch) -> None:
        if self._link is not None:
            self._link.send(batch)
        elif self._connecting:
            self._hold(batch)
        else:
            self.done(batch, unavailable(batch))

    def forget(self, link: _Link) -> None:
        """Send nothing more on this link; it is being dropped."""
        if self._link is link:
            self._link = None
            self._connecting = True

    async def _keep_connected(self) -> None:
        failures = 0
        while True:
            link = await self._connect()
            if link is not None:
                self._use(link)
                await link.lost.wait()
                self.forget(link)
                if link.was_good():
                    failures = 0
                    continue
            self._connecting = False
            self._refuse_held()
            first, longest = _BACKOFF
            await asyncio.sleep(min(longest, first * 2 ** min(failures, 10)) * random.uniform(0.5, 1))  # noqa: S311  # jitter
            failures += 1

    async def _connect(self) -> _Link | None:
        link = _Link(self, greeting(self._endpoint))
        try:
            async with asyncio.timeout(self._patience):
                await self._open(link)
                if await link.ready:
                    return link
        except Exception as error:  # also what is no OSError: a host name that is none, say
            logger.debug("redis: cannot connect: %s", type(error).__name__)
        except asyncio.CancelledError:
            link.drop("closed")
            raise
        link.drop("no greeting")
        return None

    async def _open(self, link: _Link) -> None:
        loop, endpoint = asyncio.get_running_loop(), self._endpoint
        if endpoint.scheme == "unix":
            await loop.create_unix_connection(lambda: link, endpoint.path)
        else:
            await loop.create_connection(lambda: link, endpoint.host, endpoint.port, ssl=self._tls)

    def _use(self, link: _Link) -> None:
        if link.dropped:
            return
        self._link = link
        self._connecting = False
        while self._held and self._link is link:
            link.send(self._held.popleft())

    def _hold(self, batch: Batch) -> None:
        self._held.append(batch)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(batch.deadline, self._expire_held)

    def _expire_held(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._held and self._held[0].deadline <= loop.time():
            batch = self._held.popleft()
            self.done(batch, unavailable(batch))
        if self._held and self._timer is None:
            self._timer = loop.call_at(self._held[0].deadline, self._expire_held)

    def _refuse_held(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held:
            batch = self._held.popleft()
            self.done(batch, unavailable(batch))


class _Link(asyncio.Protocol):
    """One connection, from its greeting to its loss."""

    def __init__(self, wire: Wire, hello: tuple[bytes, int]) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._wire = wire
        self._hello, replies = hello
        self._greetings = deque([Greeting.HELLO, Greeting.SELECT][:replies])
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._greeted = 0
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Batch] = deque()
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self.dropped = False
        self.answered = False
        self.ready_at = math.inf
        self.ready: asyncio.Future[bool] = loop.create_future()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvloop gives it
        self._transport = transport
        if self.dropped:
            transport.abort()
            return
        _keep_alive(transport.get_extra_info("socket"))
        transport.write(self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        waiting, self._waiting = self._waiting, deque()
        self.drop("connection lost")
        for batch in waiting:  # a read can be sent again: what was kept and broke costs no request
            self._wire.send(batch)
        self.lost.set()

    def send(self, batch: Batch) -> None:
        assert self._transport is not None
        keys = batch.keys
        self._transport.write(b"*%d\r\n$4\r\nMGET\r\n" % (2 * len(keys) + 1) + b"".join([k.wire for k in keys]))
        self._waiting.append(batch)
        if self._timer is None:
            self._timer = self._loop.call_at(batch.deadline, self._watch)

    def data_received(self, data: bytes) -> None:
        if self.dropped:
            return
        try:
            if self.ready.done():
                self._read(self._buffer + data if self._buffer else data)
            else:
                self._greet(data)
        except (ProtocolViolation, hiredis.ProtocolError) as error:
            self.drop(str(error))

    def was_good(self) -> bool:
        """Tell whether a new try is worth making at once: this one served, or was closed for being idle."""
        return self.answered or self._loop.time() - self.ready_at > _STEADY

    def drop(self, reason: str) -> None:
        """End the connection at once; what waits on it is answered UNAVAILABLE."""
        if self.dropped:
            return
        self.dropped = True
        logger.debug("redis: connection dropped: %s", reason)
        self._wire.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        if not self.ready.done():
            self.ready.set_result(False)
        if self._transport is not None:
            self._transport.abort()
        while self._waiting:
            batch = self._waiting.popleft()
            self._wire.done(batch, unavailable(batch))

    def _read(self, data: bytes) -> None:
        position = 0
        while self._waiting:
            batch = self._waiting[0]
            count = len(batch.answers)
            # Nearly every batch is alive throughout: one comparison instead of a parse.
            usual = all_alive(count)
            if data.startswith(usual, position):
                verdicts, position = bytes(count), position + len(usual)
            else:
                reply = parse_reply(data, position, count)
                if reply is None:
                    break
                verdicts, position = reply
            self._waiting.popleft()
            self.answered = True
            self._wire.done(batch, verdicts)
        else:
            if position < len(data):
                raise ProtocolViolation("reply to no command")
        self._buffer = data[position:]

    def _greet(self, data: bytes) -> None:
        self._greeted += len(data)
        if self._greeted > MAX_GREETING:
            raise ProtocolViolation("greeting too long")
        self._reader.feed(data)
        while self._greetings:
            reply = self._reader.gets()
            if reply is _MORE:
                return
            check_greeting(reply, self._greetings.popleft())
        if self._reader.has_data():
            raise ProtocolViolation("reply to no command")
        self.ready_at = self._loop.time()
        self.ready.set_result(True)

    def _watch(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        deadline = self._waiting[0].deadline
        if deadline <= self._loop.time():
            self.drop("timeout")
        else:
            self._timer = self._loop.call_at(deadline, self._watch)


def _keep_alive(connection: socket.socket | None) -> None:
    """Notice a peer that is gone while nothing is asked, so that no request has to find out."""
    if connection is None or connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)


class MemoryWire:
    """The same for `memory://`: a task a batch, in this process."""

    def __init__(self, endpoint: Endpoint, timeout: float, done: Done) -> None:
        self._client: Any = open_client(endpoint, timeout)
        self.done = done
        self._tasks: set[asyncio.Task[None]] = set()
        self.up = False

    def start(self) -> None:
        self.up = True

    async def close(self) -> None:
        self.up = False
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    def send(self, batch: Batch) -> None:
        if not self.up:
            self.done(batch, unavailable(batch))
            return
        task = asyncio.get_running_loop().create_task(self._ask(batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, batch: Batch) -> None:
        try:
            values = await self._client.mget([name for keys in batch.keys for name in keys.names()])
            pairs = zip(values[::2], values[1::2], strict=True)
            verdicts = bytes([Verdict.ALIVE if a is not None and r is None else Verdict.ENDED for a, r in pairs])
        except Exception as error:
            logger.warning("memory store: %s", type(error).__name__)
            verdicts = unavailable(batch)
        self.done(batch, verdicts)
