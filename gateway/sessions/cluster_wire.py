"""The live check over a Redis Cluster: a kept connection to each master, each batch for the master of its partition.

Laws, beside those of wire.py: a batch is of one partition; those of one master go in step (flights.py). A partition is
believed of a master only when its epoch was examined since the connection to it stands and since the partition is its:
a master that took over may hold the past. The loss of a master is told to the asks of its partitions alone.
Redirections are followed MAX_REDIRECTIONS times; what a node asks to be asked later is asked until the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from gateway.sessions.cluster import MAX_REDIRECTIONS, ClusterClient
from gateway.sessions.endpoint import Address, Endpoint
from gateway.sessions.flights import FlightLink
from gateway.sessions.keyspace import DIGITS
from gateway.sessions.link import Link
from gateway.sessions.resp import Batch, unavailable
from gateway.sessions.slots import redirection
from gateway.sessions.wire import BACKOFF, Done, Epochs, Keeper, Leave

logger = logging.getLogger(__name__)

_PAUSE = 0.01  # seconds until a node that said "later" is asked again
_SHARE = 0.2  # of the timeout: with less left a batch is not sent again, for it could cost a good connection


class ClusterWire:
    """The kept connections to the masters of one endpoint. `done` is called with each batch and its verdicts."""

    def __init__(self, endpoint: Endpoint, timeout: float, done: Done, epochs: Epochs) -> None:
        endpoint.tls()  # a wrong file is told at the start
        self._endpoint = endpoint
        self._timeout = timeout
        self._epochs = epochs
        self._client = ClusterClient(endpoint, timeout)  # for the map, and for partitions that are being moved
        self._owners = self._client.map.owners
        self._keepers: dict[Address, Keeper] = {}
        self._left: deque[Keeper] = deque()
        self._believed: dict[str, Address] = {}
        self._held: dict[str, deque[Batch]] = {digit: deque() for digit in DIGITS}
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._failing = False
        self.born: Sequence[bytes] = epochs.born
        self.done = done

    @property
    def up(self) -> bool:
        """Whether a partition can be asked about; the others are refused by themselves."""
        return bool(self._believed)

    def is_down(self, digit: str) -> bool:
        """See Liveness.is_down."""
        owner = self._owners.get(digit)
        return self._started and self._is_down(None if owner is None else self._keepers.get(owner))

    def start(self) -> None:
        self._started = True
        self._begin(self._keep_believing())

    async def close(self) -> None:
        """End the connections; what is waiting is answered UNAVAILABLE."""
        self._started = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(keeper.close() for keeper in (*self._left, *self._keepers.values())))
        await self._client.aclose()
        for digit in DIGITS:
            self._refuse(digit)
        self._believed = {}

    def boarding(self, digit: str, leave: Leave) -> Callable[[], object]:
        """Return what has asks leave with the next flight to the master of their partition."""
        return partial(self._board, digit, leave)

    def send(self, batch: Batch) -> None:
        digit = DIGITS[batch.keys[0].partition]
        link = self._link(digit)
        if link is not None:
            link.send(batch)
        elif self.is_down(digit) or not self._started:
            self.done(batch, unavailable(batch))
        else:
            self._hold(digit, batch)

    def again(self, batch: Batch) -> None:
        """Send once more what can be answered in time still."""
        left = batch.deadline - asyncio.get_running_loop().time()
        if left < _SHARE * self._timeout:
            self.done(batch, unavailable(batch))
        else:
            self.send(batch)

    def failed(self, batch: Batch, error: bytes) -> None:
        """Do as a node says that did not answer."""
        digit = DIGITS[batch.keys[0].partition]
        owner = self._owners.get(digit)
        told = redirection(error.decode("latin-1"), owner or self._endpoint.nodes[0])
        batch.redirections += 1
        if told is None or (told.kind == "MOVED" and batch.redirections > MAX_REDIRECTIONS):
            logger.debug("redis: the live check was refused: %s", error.partition(b" ")[0][:40])
            self.done(batch, unavailable(batch))
        elif told.kind == "MOVED":
            self._client.follow(digit, told)
            self._wake.set()
            self.again(batch)
        elif told.kind in ("ASK", "TRYAGAIN"):
            self._begin(self._ask_each(digit, batch))
        else:
            self._client.map.refresh(owner).add_done_callback(lambda _: self._wake.set())
            asyncio.get_running_loop().call_later(_PAUSE, self.again, batch)

    async def examine(self, link: Link) -> None:
        """Nothing yet: partitions are examined one by one (_keep_believing)."""

    def took(self, keeper: Keeper) -> None:
        self._wake.set()

    def lost(self, keeper: Keeper) -> None:
        self._believed = {digit: owner for digit, owner in self._believed.items() if owner != keeper.address}
        self._wake.set()

    def missed(self, keeper: Keeper) -> None:
        """Refuse what waits for this node, and ask the others who has taken its place."""
        for digit in DIGITS:
            if self._owners.get(digit) == keeper.address:
                self._refuse(digit)
        if self._started:
            self._client.map.refresh(keeper.address).add_done_callback(lambda _: self._wake.set())

    def _board(self, digit: str, leave: Leave) -> None:
        link = self._link(digit)
        if link is not None:
            link.board(leave)
        else:  # what `send` holds or refuses
            asyncio.get_running_loop().call_soon(leave)

    def _link(self, digit: str) -> FlightLink | None:
        """Return the connection to a master that is believed of a partition."""
        owner = self._believed.get(digit)
        if owner is None or self._owners.get(digit) != owner:
            return None
        keeper = self._keepers.get(owner)
        if keeper is None or not keeper.up:
            return None
        assert isinstance(keeper.link, FlightLink)
        return keeper.link

    def _is_down(self, keeper: Keeper | None) -> bool:
        if not self._started:
            return True
        return self._failing if keeper is None else keeper.down

    async def _keep_believing(self) -> None:
        """Examine every partition whose master has changed or was connected to anew."""
        failures = 0
        while True:
            self._wake.clear()
            if len(self._owners) < len(DIGITS):
                await asyncio.shield(self._client.map.refresh())
            self._settle_nodes()
            results = await asyncio.gather(*(self._believe(*each) for each in self._unbelieved().items()))
            self._failing = not self._owners
            if self._failing:
                for digit in DIGITS:
                    self._refuse(digit)
            if all(results) and len(self._owners) == len(DIGITS):
                failures = 0
                await self._wake.wait()
                continue
            first, longest = BACKOFF
            failures += 1
            await asyncio.sleep(min(longest, first * 2 ** min(failures, 10)) * random.uniform(0.5, 1))  # noqa: S311  # jitter

    def _unbelieved(self) -> dict[Address, str]:
        """Return the partitions to examine, by masters that are connected."""
        found: dict[Address, str] = {}
        for digit, owner in self._owners.items():
            keeper = self._keepers.get(owner)
            if self._believed.get(digit) != owner and keeper is not None and keeper.up:
                found[owner] = found.get(owner, "") + digit
        return found

    async def _believe(self, owner: Address, digits: str) -> bool:
        """Have epochs examined; then believe what the same connection to the same master says of these partitions."""
        link = self._keepers[owner].link
        try:
            await self._epochs.check(digits)
        except Exception as error:
            logger.debug("redis: partitions %s of %s: %s", digits, owner, error)
            return False
        keeper = self._keepers.get(owner)
        if keeper is None or keeper.link is not link or not keeper.up:
            return True  # it woke us
        for digit in digits:
            if self._owners.get(digit) == owner:
                self._believed[digit] = owner
                self._release(digit)
        return True

    def _settle_nodes(self) -> None:
        """Connect to masters that are new, leave those that are none any more."""
        wanted = set(self._owners.values())
        for address in wanted - self._keepers.keys():
            keeper = Keeper(self._endpoint, self._timeout, self, address=address, guarded=False, link=FlightLink)
            self._keepers[address] = keeper
            keeper.start()
        for address in self._keepers.keys() - wanted:
            keeper = self._keepers.pop(address)
            if keeper.link is not None:
                keeper.link.retire("a master no more")
            self._left.append(keeper)
            self._begin(self._close_left())

    async def _close_left(self) -> None:
        while self._left:
            await self._left[0].close()
            self._left.popleft()

    async def _ask_each(self, digit: str, batch: Batch) -> None:
        """Answer a batch whose partition is being moved."""
        try:
            async with asyncio.timeout_at(batch.deadline):
                values = await self._client.get_each(digit, [name for keys in batch.keys for name in keys.names()])
        except Exception as error:
            logger.debug("redis: partition %s is being moved: %s", digit, type(error).__name__)
            verdicts = unavailable(batch)
        except asyncio.CancelledError:
            self.done(batch, unavailable(batch))
            raise
        else:
            born = self.born[int(digit, 16)]
            pairs = zip(batch.keys, values[::2], values[1::2], strict=True)
            verdicts = bytes([keys.judge(first, second, born) for keys, first, second in pairs])
        self.done(batch, verdicts)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hold(self, digit: str, batch: Batch) -> None:
        self._held[digit].append(batch)
        self._wake.set()
        asyncio.get_running_loop().call_at(batch.deadline, self._expire, digit, batch)

    def _expire(self, digit: str, batch: Batch) -> None:
        if batch in self._held[digit]:
            self._held[digit].remove(batch)
            self.done(batch, unavailable(batch))

    def _release(self, digit: str) -> None:
        held, self._held[digit] = self._held[digit], deque()
        for batch in held:
            self.again(batch)

    def _refuse(self, digit: str) -> None:
        held, self._held[digit] = self._held[digit], deque()
        for batch in held:
            self.done(batch, unavailable(batch))
