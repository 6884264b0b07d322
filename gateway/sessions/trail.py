"""The audit trail in Redis: a stream with the newest entries, which ends when nothing has come for the retention.

Laws: nobody waits for the trail, and nothing fails for it; the log has every line first. What waits to be written is
bounded, and what is left out is counted. What anyone on the internet can cause has an allowance, so that a flood of it
does not push out what matters; so has what a client ends that is over already, which costs no sign-in each time. An
entry whose answer was lost is written again: it may stand in the stream twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from gateway.errors import StoreUnavailable
from gateway.sessions.keyspace import Keyspace
from gateway.sessions.scripts import Argument, Script, milliseconds

MAX_QUEUED: Final = 4096  # entries; some 2 MiB
BATCH: Final = 128
CLOSING_SECONDS: Final = 1.0
_GATHER: Final = 0.1  # seconds in which entries come together
_PAUSES: Final = (0.5, 10.0)  # seconds: the first wait after a failure, and the longest

# Events that need no valid credential: this many a second and worker, after a burst.
UNPROVEN: Final = frozenset({"login_failed"})
CLIENTS: Final = frozenset({"", "user", "holder"})  # `by`; what these do that ends nothing shares that allowance
FLOOD_RATE: Final = 10.0
FLOOD_BURST: Final = 100.0

_APPEND = Script("audit")

_LOG = logging.getLogger("gateway.sessions")

Entry = Mapping[str, str]
Entries = list[tuple[str, dict[str, str]]]


class AuditTrail:
    """The stream under one prefix. `timeout` bounds every operation, in seconds.

    It holds about `max_len` entries; those older than `retention` seconds by the time of Redis are cut whenever one is
    written, and the stream ends so long after the last one. `observe` is told the operation and its seconds.
    """

    def __init__(
        self,
        client: Any,
        prefix: str,
        timeout: float,
        max_len: int,
        retention: float,
        observe: Callable[[str, float], None] | None = None,
    ) -> None:
        self._client = client
        self.key = Keyspace(prefix).audit()
        self._timeout = timeout
        self._max_len = max_len
        self._retention = retention
        self._observe = observe

    async def append(self, entries: Sequence[Entry]) -> None:
        """Write entries, the oldest first. Raises StoreUnavailable, and then nobody knows whether they were written."""
        words: list[Argument] = [self._max_len, milliseconds(self._retention)]
        for entry in entries:
            flat = [word.encode("utf-8", "backslashreplace") for pair in entry.items() for word in pair]
            words += [len(flat), *flat]
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                await _APPEND.run(self._client, [self.key], words)
        except Exception as error:
            raise _unavailable(error) from error
        finally:
            if self._observe is not None:
                self._observe("audit", time.perf_counter() - begun)

    async def read(self, start: str, count: int) -> Entries:
        """Return up to `count` entries as (id, fields), the oldest first, from an id on or, with "(", after it.

        `start` may be "-" for the oldest, or Unix milliseconds. Raises StoreUnavailable.
        """
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._client.execute_command("XRANGE", self.key, start, "+", "COUNT", count)
            return [(_text(entry), {_text(k): _text(v) for k, v in fields.items()}) for entry, fields in reply]
        except Exception as error:
            raise _unavailable(error) from error


class AuditWriter:
    """Takes entries from requests and writes them in batches, from a task of its own.

    `replica` is put to each of them. `dropped(reason, number)` is told what is left out: "full", "flood" or "store".
    """

    def __init__(
        self,
        trail: AuditTrail,
        replica: str,
        dropped: Callable[[str, int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._trail = trail
        self._replica = replica
        self._dropped = dropped
        self._clock = clock
        self._queue: deque[Entry] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._allowance, self._counted_at = FLOOD_BURST, clock()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Write what waits, for CLOSING_SECONDS at most."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                while self._queue:
                    await self._write()
        if self._queue:
            _LOG.warning("audit entries were not written to the stream", extra={"number": len(self._queue)})
            self._dropped("store", len(self._queue))
            self._queue.clear()

    def take(self, entry: Entry) -> None:
        """Put an entry into the queue, from the event loop's thread. It never waits and never raises."""
        if _is_cheap(entry) and not self._is_allowed():
            self._dropped("flood", 1)
        elif len(self._queue) >= MAX_QUEUED:
            self._dropped("full", 1)
        else:
            self._queue.append({**entry, "replica": self._replica})
            self._wake.set()

    def _is_allowed(self) -> bool:
        now = self._clock()
        self._allowance = min(FLOOD_BURST, self._allowance + FLOOD_RATE * (now - self._counted_at))
        self._counted_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    async def _run(self) -> None:
        pause, failing = _PAUSES[0], False
        while True:
            await self._wake.wait()
            await asyncio.sleep(_GATHER)
            try:
                while self._queue:
                    await self._write()
                self._wake.clear()
            except StoreUnavailable as error:
                if not failing:  # once an outage
                    _LOG.warning("the audit stream cannot be written", extra={"reason": error.reason})
                failing = True
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSES[1])
            else:
                pause, failing = _PAUSES[0], False

    async def _write(self) -> None:
        batch = [self._queue[position] for position in range(min(BATCH, len(self._queue)))]
        await self._trail.append(batch)
        for _ in batch:
            self._queue.popleft()


def _is_cheap(entry: Entry) -> bool:
    """Tell whether a client can cause such an entry as often as it likes."""
    ends_nothing = entry.get("number") == "0" and entry.get("by", "") in CLIENTS
    return ends_nothing or entry.get("event") in UNPROVEN


def _text(value: Any) -> str:
    return bytes(value).decode("utf-8", "backslashreplace")


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"audit: {type(error).__name__}: {error}"[:200])
