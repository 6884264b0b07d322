"""The kept connection that the live checks of one server, or of the primary that sentinels name, travel on.

Laws: a batch given to `send` is answered exactly once, at the latest at its deadline. Only a primary is asked,
never a replica, and none before the epochs of its partitions were examined (epochs.py): what comes back after a
loss may hold the past. What cannot be answered is UNAVAILABLE, never ALIVE.

A wire is connecting (asks wait, within their deadline), up, or down (asks are refused at once) from the
first failed try to connect until one succeeds.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from gateway.sessions.connect import open_client
from gateway.sessions.endpoint import Address, Endpoint
from gateway.sessions.keyspace import DIGITS, Keyspace
from gateway.sessions.link import Link
from gateway.sessions.link import Owner as LinkOwner
from gateway.sessions.resp import (
    Batch,
    Greeting,
    ProtocolViolation,
    check_greeting,
    command,
    greeting,
    unavailable,
)
from gateway.sessions.sentinel import Sentinels

logger = logging.getLogger(__name__)

BACKOFF = (0.02, 0.5)  # seconds: the first wait and the longest; service is back within a second of Redis
_CONNECT = 0.5  # seconds a try to connect may take at least; a short timeout is for answers
_LOOK = 1.0  # seconds between two questions to the sentinels while all is well

Leave = Callable[[], None]  # makes a batch of what was asked, and sends it
Done = Callable[[Batch, bytes], None]  # one verdict a byte, in the order of the batch


class Epochs(Protocol):
    """What the live check needs of epochs.py."""

    @property
    def born(self) -> Sequence[bytes]: ...
    def known(self, digit: str) -> bytes: ...
    def saw(self, digit: str, value: bytes) -> None: ...
    async def check(self, digits: str = DIGITS) -> None: ...


class Owner(LinkOwner, Protocol):
    """Who is told, beside what came of batches, how the connection fares."""

    async def examine(self, link: Link) -> None: ...
    def took(self, keeper: Keeper) -> None: ...
    def lost(self, keeper: Keeper) -> None: ...
    def missed(self, keeper: Keeper) -> None: ...


class Keeper:
    """Keeps one connection standing: to a server, or to the primary of the day.

    Tries again for as long as it runs, at once where a connection was good, else after a wait with jitter.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        timeout: float,
        owner: Owner,
        *,
        address: Address | None = None,
        guarded: bool = True,
        link: type[Link] = Link,
    ) -> None:
        endpoint.tls()  # a wrong file is told at the start
        self._endpoint = endpoint
        self._patience = max(timeout, _CONNECT)
        self._owner = owner
        self._sentinels = Sentinels(endpoint, timeout) if endpoint.kind == "sentinel" else None
        self._guarded, self._make = guarded, link
        self.address = address or Address(endpoint.host, endpoint.port)
        self.link: Link | None = None
        self.down = False
        self._welcomed = False  # at the last try
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self.link is not None and not self.link.dropped

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End the connection; what waits on it is answered UNAVAILABLE."""
        self.down = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        link, self.link = self.link, None
        if link is not None:
            link.drop("closed")
            await link.lost.wait()

    async def _run(self) -> None:
        failures = 0
        while True:
            welcomed, self._welcomed = self._welcomed, False
            link = await self._connect()
            if self._welcomed and not welcomed:  # Redis has just come: there is no need to wait for long
                failures = 0
            if link is not None:
                self.link, self.down = link, False
                self._owner.took(self)
                await self._until_lost(link)
                self.link = None
                self._owner.lost(self)
                if link.was_good():
                    failures = 0
                    continue
            self.down = True
            self._owner.missed(self)
            first, longest = BACKOFF
            await asyncio.sleep(min(longest, first * 2 ** min(failures, 10)) * random.uniform(0.5, 1))  # noqa: S311  # jitter
            failures += 1

    async def _connect(self) -> Link | None:
        link = self._make(self._owner, guarded=self._guarded)
        try:
            async with asyncio.timeout(self._patience):
                await self._open(link)
                await self._greet(link)
                self._welcomed = True
                await self._owner.examine(link)
            link.serve()
        except Exception as error:  # also what is no OSError: a host name that is none, say
            logger.debug("redis: cannot connect: %s", type(error).__name__)
            link.drop("no greeting")
        except asyncio.CancelledError:
            link.drop("closed")
            raise
        return None if link.dropped else link

    async def _open(self, link: Link) -> None:
        loop, endpoint = asyncio.get_running_loop(), self._endpoint
        if self._sentinels is not None:
            self.address = await self._sentinels.primary()
        if endpoint.scheme == "unix":
            await loop.create_unix_connection(lambda: link, endpoint.path)
        else:
            host, port = self.address
            await loop.create_connection(lambda: link, host, port, ssl=endpoint.tls())

    async def _greet(self, link: Link) -> None:
        """Say who we are, with the password as it is now."""
        username, password = self._endpoint.auth.read()
        said, replies = greeting(username, password, self._endpoint.db)
        for reply, expected in zip(await link.call(said, len(replies)), replies, strict=True):
            check_greeting(reply, expected)

    async def _until_lost(self, link: Link) -> None:
        if self._sentinels is None:
            await link.lost.wait()
            return
        while not link.lost.is_set():
            try:
                async with asyncio.timeout(_LOOK * random.uniform(0.5, 1)):  # noqa: S311  # jitter
                    await link.lost.wait()
            except TimeoutError:
                await self._look(link, self._sentinels)

    async def _look(self, link: Link, sentinels: Sentinels) -> None:
        """Leave a server that the sentinels do not name any more. Their silence says nothing."""
        try:
            address = await sentinels.primary()
        except Exception as error:
            logger.debug("redis: no sentinel answers: %s", type(error).__name__)
            return
        if address != self.address:
            link.retire("the primary is another")


class Wire:
    """The kept connection to one endpoint. `done` is called with each batch and its verdicts.

    Raises OSError for TLS files that cannot be read.
    """

    def __init__(self, endpoint: Endpoint, prefix: str, timeout: float, done: Done, epochs: Epochs) -> None:
        names = Keyspace(prefix)
        self._epochs = epochs
        self._look = command([b"MGET", *(names.epoch(digit) for digit in DIGITS)])
        self._keeper = Keeper(endpoint, timeout, self)
        self.born = epochs.born
        self.done = done
        self._started = False
        self._held: deque[Batch] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def up(self) -> bool:
        return self._keeper.up

    def is_down(self, digit: str) -> bool:
        """See Liveness.is_down; one server has all partitions."""
        return self._started and self._keeper.down

    def start(self) -> None:
        self._started = True
        self._keeper.start()

    async def close(self) -> None:
        """End the connection; what is waiting is answered UNAVAILABLE."""
        self._started = False
        await self._keeper.close()
        self._refuse_held()

    def boarding(self, digit: str, leave: Leave) -> Callable[[], object]:
        """Return what has asks leave with the next tick: there is one batch under way at a time as it is."""
        return partial(asyncio.get_running_loop().call_soon, leave)

    def send(self, batch: Batch) -> None:
        link = self._keeper.link
        if link is not None and not link.dropped:
            link.send(batch)
        elif self._started and not self._keeper.down:
            self._hold(batch)
        else:
            self.done(batch, unavailable(batch))

    def failed(self, batch: Batch, error: bytes) -> None:
        """Leave a server that refuses live checks (BUSY, NOPERM): it is down until it is examined and serves."""
        self.done(batch, unavailable(batch))
        link = self._keeper.link
        if link is not None:
            link.drop(f"the live check was refused: {error.partition(b' ')[0][:40].decode('latin-1')}")

    again = send

    async def examine(self, link: Link) -> None:
        """Have the epochs checked, and see that this very server holds what was found.

        The kept connections of others may lead elsewhere. Raises StoreUnavailable, ProtocolViolation, ConnectionError.
        """
        await self._epochs.check()
        (values,) = await link.call(self._look, 1)
        check_greeting(values, Greeting.EPOCHS)
        for digit, value in zip(DIGITS, values, strict=True):
            if not isinstance(value, bytes):
                raise ProtocolViolation("the server has no epoch")
            self._epochs.saw(digit, value)
            if self._epochs.known(digit) != value:
                raise ProtocolViolation("the server holds the past")

    def took(self, keeper: Keeper) -> None:
        while self._held and keeper.up:
            self.send(self._held.popleft())

    def lost(self, keeper: Keeper) -> None:
        """Let what comes from now on wait."""

    def missed(self, keeper: Keeper) -> None:
        self._refuse_held()

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


class MemoryWire:
    """The same for `memory://`: a task a batch, in this process."""

    def __init__(self, endpoint: Endpoint, timeout: float, done: Done, epochs: Epochs) -> None:
        self._client: Any = open_client(endpoint, timeout)
        self._epochs = epochs
        self.done = done
        self._tasks: set[asyncio.Task[Any]] = set()
        self._started = False
        self.up = False

    def is_down(self, digit: str) -> bool:
        return False

    def start(self) -> None:
        self._started = True
        self._begin(self._look())

    async def close(self) -> None:
        self._started = self.up = False
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    def boarding(self, digit: str, leave: Leave) -> Callable[[], object]:
        return partial(asyncio.get_running_loop().call_soon, leave)

    def send(self, batch: Batch) -> None:
        if self._started:
            self._begin(self._ask(batch))
        else:
            self.done(batch, unavailable(batch))

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(self) -> None:
        try:
            await self._epochs.check()
            self.up = self._started
        except Exception as error:
            logger.warning("memory store: %s", type(error).__name__)

    async def _ask(self, batch: Batch) -> None:
        try:
            if not self.up:
                await self._look()
            values = await self._client.mget([name for keys in batch.keys for name in keys.names()])
            pairs = zip(batch.keys, values[::2], values[1::2], strict=True)
            born = self._epochs.born
            verdicts = bytes([keys.judge(first, second, born[keys.partition]) for keys, first, second in pairs])
        except Exception as error:
            logger.warning("memory store: %s", type(error).__name__)
            verdicts = unavailable(batch)
        self.done(batch, verdicts)
