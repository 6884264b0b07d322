"""One connection of the live check, from its greeting to its loss: RESP written and read by callbacks.

Measured on one machine: 16 checks through redis-py cost 92 to 153 us of CPU, tasks and streams included,
this way 35 to 55 us, of which 25 are the kernel's for one round trip.

Laws: a batch given to `send` is answered exactly once, at the latest at its deadline, or given back to the owner
where the connection broke under it: a read can be sent again. A reply that was not due, in form or in number,
ends the connection, for then nobody knows which answer belongs to which ask.

A link is greeting (`call`, one after the other) -> serving (`send`) -> lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import hiredis

from gateway.sessions.resp import (
    MAX_GREETING,
    STILL_PRIMARY,
    Batch,
    ProtocolViolation,
    head_of,
    parse_error,
    parse_head,
    parse_integer,
    parse_values,
    unavailable,
)

logger = logging.getLogger(__name__)

_STEADY = 1.0  # seconds after which a link that had nothing to answer counts as good
_LAST_LOOK = 0.001  # seconds after a deadline in which the answer may still be read
_MORE = object()  # the reader's word for "not yet"
_USUALLY = b":0\r\n"  # replicas that have acknowledged what this connection wrote
_REPLICA = b"ERR WAIT cannot be used"  # "with replica instances", or in older words


class Owner(Protocol):
    """Who is told what came of batches."""

    @property
    def born(self) -> Sequence[bytes]: ...
    def done(self, batch: Batch, verdicts: bytes) -> None: ...
    def failed(self, batch: Batch, error: bytes) -> None: ...
    def again(self, batch: Batch) -> None: ...


class Link(asyncio.Protocol):
    """One connection. `guarded` has the server say with each batch that it is a primary still."""

    def __init__(self, owner: Owner, *, guarded: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._owner = owner
        self._born = owner.born
        self._guarded = guarded
        self._reader = hiredis.Reader(notEnoughData=_MORE)
        self._greeted = 0
        self._calls: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._write: Callable[[bytes], None]  # since there is a transport
        self._serving = False
        self._waiting: deque[Batch] = deque()
        self._verdicts: bytearray | None = None  # of the first that waits, as far as they are read
        self._error: bytes | None = None
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None
        self._ready_at = math.inf
        self._answered = self._late = False
        self.dropped = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvloop gives it
        self._transport, self._write = transport, transport.write
        if self.dropped:
            transport.abort()
            return
        _keep_alive(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.retire("connection lost")
        self.lost.set()

    async def call(self, commands: bytes, replies: int) -> list[Any]:
        """Send commands before the link serves, and return their replies. Raises ConnectionError."""
        if self._transport is None or self.dropped:
            raise ConnectionError("the connection is gone")
        futures = [self._loop.create_future() for _ in range(replies)]
        self._calls.extend(futures)
        self._transport.write(commands)
        return [await future for future in futures]

    def serve(self) -> None:
        """Begin to take batches. Raises ProtocolViolation where the server has said more than it was asked."""
        if self._reader.has_data():
            raise ProtocolViolation("reply to no command")
        self._serving = True
        self._ready_at = self._loop.time()

    def send(self, batch: Batch) -> None:
        said = batch.command()
        if self._guarded:
            said += STILL_PRIMARY
        self._write(said)
        self._waiting.append(batch)
        if self._timer is None:
            self._timer = self._loop.call_at(batch.deadline, self._watch)
        elif batch.deadline < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(batch.deadline, self._watch)

    def data_received(self, data: bytes) -> None:
        if self.dropped:
            return
        try:
            if self._serving:
                self._read(self._buffer + data if self._buffer else data)
            else:
                self._greet(data)
        except (ProtocolViolation, hiredis.ProtocolError) as error:
            self.drop(str(error))

    def was_good(self) -> bool:
        """Tell whether a new try is worth making at once: this one served, or was closed for being idle."""
        return self._answered or self._loop.time() - self._ready_at > _STEADY

    def drop(self, reason: str) -> None:
        """End the connection at once; what waits on it is answered UNAVAILABLE."""
        for batch in self._end(reason):
            self._owner.done(batch, unavailable(batch))

    def retire(self, reason: str) -> None:
        """End the connection at once; what waits on it is given back."""
        for batch in self._end(reason):
            self._owner.again(batch)

    def _end(self, reason: str) -> list[Batch]:
        if self.dropped:
            return []
        self.dropped = True
        logger.debug("redis: connection dropped: %s", reason)
        if self._timer is not None:
            self._timer.cancel()
        for call in self._calls:
            if not call.done():
                call.set_exception(ConnectionError(reason))
                call.exception()  # who waited may be gone
        if self._transport is None:
            self.lost.set()
        else:
            self._transport.abort()
        waiting, self._waiting = list(self._waiting), deque()
        return waiting

    def _read(self, data: bytes) -> None:
        position, waiting = 0, self._waiting
        while waiting:
            batch = waiting[0]
            count = len(batch.answers)
            verdicts = self._verdicts
            if verdicts is None:
                head = head_of(count)
                begin = position + len(head) if data.startswith(head, position) else self._begin(data, position, count)
                if begin is None:
                    break
                position = begin
                verdicts = self._verdicts = self._verdicts or bytearray()
            if len(verdicts) < count:
                position = parse_values(data, position, batch.keys, verdicts, self._born)
                if len(verdicts) < count:
                    break
            if self._guarded:
                end = position + 4 if data.startswith(_USUALLY, position) else self._primary(data, position)
                if end is None:
                    break
                position = end
                if self.dropped:
                    return
            waiting.popleft()
            self._finish(batch, verdicts)
            if self.dropped:
                return
        else:
            if position < len(data):
                raise ProtocolViolation("reply to no command")
        self._buffer = data[position:]

    def _begin(self, data: bytes, position: int, count: int) -> int | None:
        """Read the beginning of a reply, or an error in its place; return where it ends, None = not all there."""
        if not data.startswith(b"-", position):
            return parse_head(data, position, count)
        found = parse_error(data, position)
        if found is None:
            return None
        self._error, position = found
        self._verdicts = bytearray(b"\x02" * count)
        return position

    def _primary(self, data: bytes, position: int) -> int | None:
        """Read that the server is a primary still; leave one that is not. Where it ends, None = not all there."""
        if not data.startswith(b"-", position):
            return parse_integer(data, position)
        found = parse_error(data, position)
        if found is None:
            return None
        if found[0].startswith(_REPLICA):
            self.retire("the server is no primary any more")
        elif self._error is None:
            self._error = found[0]
        return found[1]

    def _finish(self, batch: Batch, verdicts: bytearray) -> None:
        error, self._error, self._verdicts = self._error, None, None
        self._answered, self._late = error is None, False
        if error is None:
            self._owner.done(batch, bytes(verdicts))
        else:
            self._owner.failed(batch, error)

    def _greet(self, data: bytes) -> None:
        self._greeted += len(data)
        if self._greeted > MAX_GREETING:
            raise ProtocolViolation("greeting too long")
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not _MORE:
            if not self._calls:
                raise ProtocolViolation("reply to no command")
            call = self._calls.popleft()
            if not call.done():
                call.set_result(reply)

    def _watch(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        now, deadline = self._loop.time(), min(batch.deadline for batch in self._waiting)
        if deadline > now:
            self._timer = self._loop.call_at(deadline, self._watch)
        elif self._late:
            self.drop("timeout")
        else:  # timers come before what can be read: a loop that was busy may have the answer already
            self._late = True
            self._timer = self._loop.call_at(now + _LAST_LOOK, self._watch)


def _keep_alive(connection: socket.socket | None) -> None:
    """Notice a peer that is gone while nothing is asked, so that no request has to find out."""
    if connection is None or connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
