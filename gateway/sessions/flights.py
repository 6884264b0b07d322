"""A connection to one master of a cluster, on which the batches of its partitions go in step.

A batch is of one partition, for a command may touch one slot alone, so that a master of n partitions has up to n of
them. They travel as one flight: in one packet there, mostly in one back. That costs a master two system calls, and
the gateway one event, where batches that came and went each by itself would cost that each.

Laws: what boards while a flight is up leaves when its last reply is in, or when the connection is lost: who boards
waits for one flight at most. Whether one is up is whether replies are due on this very connection, so that a batch
that goes astray (a redirection, a loss) holds nobody up. What has to be sent at once (`send`: a batch that is sent
again) leaves with the next tick, and takes along who has boarded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.sessions.link import Link, Owner
from gateway.sessions.resp import Batch


class FlightLink(Link):
    """One connection to a master."""

    def __init__(self, owner: Owner, *, guarded: bool) -> None:
        super().__init__(owner, guarded=guarded)
        self._boarded: list[Callable[[], None]] = []
        self._written: list[bytes] = []
        self._leaving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvloop gives it
        super().connection_made(transport)
        self._write = self._gather

    def board(self, leave: Callable[[], None]) -> None:
        """Have `leave`, which sends a batch, called on the loop as soon as no reply is due."""
        self._boarded.append(leave)
        if not self._waiting:
            self._soon()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._boarded and not self._waiting:
            self._soon()

    def _end(self, reason: str) -> list[Batch]:
        waiting = super()._end(reason)
        if self._boarded:  # whoever has their partitions now
            self._soon()
        return waiting

    def _gather(self, said: bytes) -> None:
        self._written.append(said)
        self._soon()

    def _soon(self) -> None:
        if not self._leaving:
            self._leaving = True
            self._loop.call_soon(self._leave)

    def _leave(self) -> None:
        boarded, self._boarded = self._boarded, []
        for leave in boarded:
            leave()
        self._leaving = False
        written, self._written = self._written, []
        if written and self._transport is not None and not self.dropped:
            self._transport.write(b"".join(written))
