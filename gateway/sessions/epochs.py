"""The epochs of the partitions: whether Redis still has what it had.

A Redis that is started again from a snapshot or a log that lags, or that was a replica which lagged, holds the
past: sessions that were ended since, tokens that were revoked since. So each partition has an epoch, and
every record says to which epoch it belongs.

- The epoch key holds when the epoch was born, how much has ended in it, and tags of the latest endings.
  Each script that ends something counts it there, in the same atomic step.
- Every process remembers the latest that Redis told it. Each script is told what the caller remembers, and the
  epoch it finds must go on from there: born later; or born alike, with no fewer endings, and the ending last seen
  among them. Else the partition was rolled back, and the script renews the epoch before it does anything else.
- A record of an older epoch is void: scripts delete it, the live check refuses it. So are tokens of other
  issuers that are older than the epoch. A rollback signs a sixteenth of the users out and lets nobody in.

The comparison is always with what was known when the command was sent: an answer that was overtaken by
another proves nothing. What no living process remembers, nobody can
miss (docs/decisions/09-a-store-that-goes-back.md).
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from gateway.errors import StoreUnavailable
from gateway.sessions.keyspace import DIGITS, Keyspace
from gateway.sessions.scripts import Script, milliseconds

logger = logging.getLogger(__name__)

BORN = 10  # bytes of an epoch's birth, and of what every record begins with

_RENEW = Script("renew")
_EPOCH = re.compile(rb"(\d{10}) (\d{1,15}) [0-9a-f]*", re.ASCII)
_NONE = (-1, -1)
_INTERVAL = 1.0  # seconds between two looks

Report = Callable[[str], None]


class Epochs:
    """What this process knows of the 16 epochs under one prefix.

    `born` holds the birth of each by partition, as ten ASCII digits, b"" = not known yet; a record or a foreign
    token is to be compared with it. `timeout` bounds a look, in seconds. `report` is told the partition (a hex
    digit) that this process found rolled back; `clock` returns Unix seconds in place of the time of Redis, for tests.
    """

    def __init__(
        self,
        client: Redis,
        prefix: str,
        timeout: float,
        clock: Callable[[], float] | None = None,
        report: Report | None = None,
    ) -> None:
        self._client: Any = client  # redis-py types a reply as a union of awaitable and not
        self._keys = [Keyspace(prefix).epoch(digit) for digit in DIGITS]
        self._timeout = timeout
        self._clock = clock
        self._report = report
        self._known = [b""] * len(DIGITS)
        self._task: asyncio.Task[None] | None = None
        self.born = [b""] * len(DIGITS)

    def known(self, digit: str) -> bytes:
        """Return the partition's epoch as last seen, b"" = never: what to tell a script that is about to be sent."""
        return self._known[int(digit, 16)]

    def saw(self, digit: str, value: bytes) -> None:
        """Take in what Redis told of a partition; what is older than what is known is passed over."""
        index = int(digit, 16)
        if _order(value) <= _order(self._known[index]):
            return
        if self.born[index] and self.born[index] != value[:BORN]:
            logger.warning("the store began anew: older sessions are void", extra={"partition": digit})
        self._known[index] = value
        self.born[index] = value[:BORN]

    def rolled_back(self, digit: str) -> None:
        """Tell that a script of this process found the partition rolled back, and has renewed it."""
        logger.error("the store was rolled back: the partition's sessions are void", extra={"partition": digit})
        if self._report is not None:
            self._report(digit)

    async def check(self, digits: str = DIGITS) -> None:
        """Look at the epochs of these partitions; make those that are missing, renew those that were rolled back.

        Raises StoreUnavailable; what could be looked at was, all the same (on a cluster where one node is lost).
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._look(digits)
        except StoreUnavailable:
            raise
        except Exception as error:
            raise StoreUnavailable(f"epochs: {type(error).__name__}: {error}"[:200]) from error

    def start(self) -> None:
        """Look once a second from now on; called on the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _watch(self) -> None:
        while True:
            try:
                await self.check()
            except StoreUnavailable as error:
                logger.debug("redis: %s", error.reason)
            await asyncio.sleep(_INTERVAL * random.uniform(0.5, 1))  # noqa: S311  # jitter

    async def _look(self, digits: str) -> None:
        async with self._client.pipeline(transaction=False) as pipe:
            for digit in digits:
                pipe.get(self._keys[int(digit, 16)])
            known = [self.known(digit) for digit in digits]
            values = await pipe.execute(raise_on_error=False)
        pairs = list(zip(digits, values, known, strict=True))
        failed = [value for value in values if isinstance(value, Exception)]
        changed = [d for d, value, old in pairs if not isinstance(value, Exception) and (not value or value != old)]
        await self._examine(changed)
        if failed:
            raise failed[0]

    async def _examine(self, digits: list[str]) -> None:
        """Have Redis compare what it holds with what is known here."""
        if not digits:
            return
        try:
            replies = await self._send("EVALSHA", _RENEW.digest, digits)
        except NoScriptError:
            replies = await self._send("EVAL", _RENEW.text, digits)
        for digit, reply in zip(digits, replies, strict=True):
            self.take(digit, reply)

    async def _send(self, command: str, script: str, digits: list[str]) -> list[Any]:
        now = "" if self._clock is None else milliseconds(self._clock())
        async with self._client.pipeline(transaction=False) as pipe:
            for digit in digits:
                pipe.execute_command(command, script, 1, self._keys[int(digit, 16)], now, self.known(digit))
            replies: list[Any] = await pipe.execute()
        return replies

    def take(self, digit: str, reply: Any) -> list[Any]:
        """Take in what a script's reply begins with; return the rest of it. Raises StoreUnavailable."""
        if not isinstance(reply, list) or len(reply) < 2 or _order(reply[0]) == _NONE:
            raise StoreUnavailable("malformed reply")
        self.saw(digit, reply[0])
        if reply[1]:
            self.rolled_back(digit)
        return reply[2:]


def _order(value: Any) -> tuple[int, int]:
    """Return what epochs are put in order by: birth and endings; what is none comes before all."""
    match = _EPOCH.fullmatch(value) if isinstance(value, bytes) else None
    return (int(match[1]), int(match[2])) if match else _NONE
