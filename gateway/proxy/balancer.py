"""The backends of a route: which of them gets an exchange, and who waits when none is free.

Laws:
- The backend with the fewest exchanges is chosen, in turn among equals; a name with several addresses is
  several backends, and they change with the name (resolver.py).
- Where a connection cannot be made, no byte of the request is out: each other address is tried once.
- A backend that cannot be reached EJECT_AFTER times in a row is left out for a growing time and comes back
  when a connection of our own reaches it, so that no request has to try; the last one is never left out.
- Connections and waiting exchanges are bounded, and so is the time of a wait: past a bound it is Overloaded.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway import errors
from gateway.proxy.headers import ResponseKinds
from gateway.proxy.resolver import Resolver, is_address
from gateway.proxy.upstream import Target, Unreachable, Upstream

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.plane import Meters

_LOG = logging.getLogger("gateway.proxy")

EJECT_AFTER = 3  # failures in a row
EJECT_SECONDS = 5.0  # the first time; twice as long each further one
EJECT_LONGEST = 60.0
WAIT_TICK = 0.25  # how late an exchange that waited too long may be told
SCANNED = 8  # of more backends two are compared, chosen at random (Mitzenmacher, "The power of two choices")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times are seconds. `max_connections` is for each backend, `max_waiting` for all of a group."""

    connect_timeout: float = 2.0
    wait_timeout: float = 30.0
    max_connections: int = 1024
    max_waiting: int = 4096


class UpstreamGroup:
    """Several backends that answer alike. `origins` are (host, port); `context` makes it https."""

    def __init__(
        self,
        origins: Sequence[tuple[str, int]],
        resolver: Resolver,
        bounds: Bounds | None = None,
        *,
        context: ssl.SSLContext | None = None,
        kinds: ResponseKinds | None = None,
        meters: Meters | None = None,
    ) -> None:
        self.loop = resolver.loop
        self.bounds = bounds if bounds is not None else Bounds()
        self.context = context
        self.kinds = kinds if kinds is not None else ResponseKinds()
        self.upstreams: list[Upstream] = []
        self.waiting: deque[tuple[float, Exchange]] = deque()
        self.closed = False
        self._meters = meters
        self._resolver = resolver
        self._ready: list[Upstream] = []
        self._only: Upstream | None = None  # the one that is ready, where it is one: the hot path's short cut
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[Upstream, asyncio.TimerHandle] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._fixed = [(host, port) for host, port in origins if is_address(host)]
        named = [(host, port) for host, port in origins if not is_address(host)]
        self._named = [(resolver.watch(host, self._readdress), port) for host, port in named]
        self._readdress()

    def __repr__(self) -> str:
        return f"<UpstreamGroup {self.upstreams} waiting={len(self.waiting)}>"

    # --- an exchange wants a connection ---

    def acquire(self, exchange: Exchange, *, fresh: bool = False) -> None:
        """Give an exchange a connection: kept, new, or the next that comes free; `fresh` asks for a new one."""
        only = self._only
        if only is not None:
            if only.idle and not fresh:
                only.idle.pop().serve(exchange)
            else:
                self._use(only, exchange, fresh)
        elif self._ready:
            self._use(self._choose(), exchange, fresh)
        elif self._want_addresses():
            self._wait(exchange)
        else:
            exchange.upstream_lost(errors.UpstreamUnreachable("name"), reused=False)

    def _choose(self) -> Upstream:
        ready = self._ready
        number = len(ready)
        if number > SCANNED:
            one, other = random.sample(ready, 2)
            best = one if one.open - len(one.idle) <= other.open - len(other.idle) else other
            if best.idle or best.open < self.bounds.max_connections:
                return best
        self._turn = turn = (self._turn + 1) % number
        best = ready[turn]
        least = best.open - len(best.idle)
        for upstream in ready[turn + 1 :] + ready[:turn]:
            load = upstream.open - len(upstream.idle)
            if load < least:
                best, least = upstream, load
        return best

    def _use(self, upstream: Upstream, exchange: Exchange, fresh: bool) -> None:
        room = upstream.open < self.bounds.max_connections
        if upstream.idle and not (fresh and room):
            upstream.idle.pop().serve(exchange)
        elif room:
            upstream.open += 1
            self._begin(self._reach(upstream, exchange))
        else:
            self._wait(exchange)

    async def _reach(self, upstream: Upstream, exchange: Exchange) -> None:
        """Connect, to another backend where one cannot be reached, and hand the connection out."""
        tried = {upstream}
        limit = self.loop.time() + self.bounds.wait_timeout
        while True:
            try:
                connection = await upstream.connect()
            except Unreachable as error:
                self._failed(upstream, str(error))
            else:
                upstream.failures = upstream.ejections = 0
                if exchange.done:
                    upstream.release(connection)
                else:
                    connection.serve(exchange)
                return
            other = None if exchange.done else self._another(tried)
            if other is None or self.loop.time() >= limit:
                break
            exchange.plane.meters.upstream_error(exchange.route.name, "upstream_retried")
            if other.idle or other.open >= self.bounds.max_connections:
                self._use(other, exchange, False)
                return
            tried.add(other)
            other.open += 1
            upstream = other
        if not exchange.done:
            exchange.upstream_lost(errors.UpstreamUnreachable("connect"), reused=False)
        self.serve_waiting()

    def _another(self, tried: set[Upstream]) -> Upstream | None:
        """Return the next best backend: one in use, else one of the other family, else one left out."""
        left = [upstream for upstream in self.upstreams if upstream not in tried]
        return min(left, key=lambda each: (each.ejected, each.tier, each.open - len(each.idle)), default=None)

    # --- waiting ---

    def _wait(self, exchange: Exchange) -> None:
        if len(self.waiting) >= self.bounds.max_waiting:
            exchange.refuse(errors.Overloaded("upstream connections"))
            return
        self.waiting.append((self.loop.time() + self.bounds.wait_timeout, exchange))
        if self._ticking is None:
            self._ticking = self.loop.call_later(WAIT_TICK, self._tick)

    def next_waiting(self) -> Exchange | None:
        """Return who has waited longest."""
        while self.waiting:
            _, exchange = self.waiting.popleft()
            if not exchange.done:
                return exchange
        return None

    def serve_waiting(self) -> None:
        """There may be room: let those who wait have it."""
        while self.waiting and self._ready:
            upstream = self._choose()
            if not upstream.idle and upstream.open >= self.bounds.max_connections:
                return
            exchange = self.next_waiting()
            if exchange is not None:
                self._use(upstream, exchange, False)

    def _tick(self) -> None:
        """Take out of the queue who is gone, and tell who has waited too long."""
        self._ticking = None
        now = self.loop.time()
        late = [exchange for deadline, exchange in self.waiting if deadline <= now]
        self.waiting = deque(entry for entry in self.waiting if entry[0] > now and not entry[1].done)
        for exchange in late:
            if not exchange.done:
                exchange.refuse(errors.Overloaded("no connection came free"))
        if self.waiting and self._ticking is None:
            self._ticking = self.loop.call_later(WAIT_TICK, self._tick)

    # --- backends that cannot be reached ---

    def _failed(self, upstream: Upstream, reason: str) -> None:
        upstream.failures += 1
        if upstream.failures == 1:
            _LOG.warning("a backend cannot be reached", extra={**_shown(upstream), "reason": reason})
        able = sum(not each.ejected for each in self.upstreams)
        if upstream.failures >= EJECT_AFTER and able > 1 and not (upstream.ejected or upstream.retired):
            self._eject(upstream)
        self._want_addresses()

    def _eject(self, upstream: Upstream) -> None:
        upstream.ejected = True
        upstream.ejections += 1
        seconds = min(EJECT_SECONDS * 2 ** (upstream.ejections - 1), EJECT_LONGEST)
        seconds *= random.uniform(0.9, 1.1)  # noqa: S311  # replicas should not come back in step
        self._timers[upstream] = self.loop.call_later(seconds, self._probe, upstream)
        level = logging.WARNING if upstream.ejections == 1 else logging.DEBUG
        _LOG.log(level, "a backend is left out", extra={**_shown(upstream), "seconds": round(seconds, 1)})
        self._sort()

    def _probe(self, upstream: Upstream) -> None:
        del self._timers[upstream]
        upstream.open += 1
        self._begin(self._try_again(upstream))

    async def _try_again(self, upstream: Upstream) -> None:
        try:
            connection = await upstream.connect()
        except Unreachable:
            if not (upstream.retired or self.closed):
                self._eject(upstream)
            return
        upstream.ejected = False
        upstream.failures = 0
        _LOG.info("a backend is back", extra=_shown(upstream))
        self._sort()
        upstream.release(connection)
        self.serve_waiting()

    # --- addresses ---

    def _want_addresses(self) -> bool:
        """Have the names looked up; return whether an answer is on its way."""
        return not self.closed and any([name.want() for name, _ in self._named])  # noqa: C419  # all of them

    def _targets(self) -> Iterator[tuple[Target, int]]:
        for host, port in self._fixed:
            yield Target(host, host, port), 0
        for name, port in self._named:
            for tier, addresses in enumerate(name.addresses):
                for address in addresses:
                    yield Target(name.host, address, port), tier

    def _readdress(self) -> None:
        """Take up the addresses that the names have by now; those that are gone are drained."""
        wanted = dict(self._targets())
        for upstream in self.upstreams:
            if upstream.target not in wanted:
                self._drop(upstream)
        kept = {upstream.target: upstream for upstream in self.upstreams if upstream.target in wanted}
        self.upstreams = [kept.get(target) or Upstream(self, target) for target in wanted]
        for upstream in self.upstreams:
            upstream.tier = wanted[upstream.target]
        self._sort()
        if self._ready:
            self.serve_waiting()
        elif not any(name.pending for name, _ in self._named):
            self._refuse_waiting()

    def _drop(self, upstream: Upstream) -> None:
        upstream.retire()
        timer = self._timers.pop(upstream, None)
        if timer is not None:
            timer.cancel()

    def _sort(self) -> None:
        """Find out who is ready: the preferred family unless all of it is left out."""
        able = [upstream for upstream in self.upstreams if not upstream.ejected] or self.upstreams
        tier = min((upstream.tier for upstream in able), default=0)
        self._ready = [upstream for upstream in able if upstream.tier == tier]
        self._only = self._ready[0] if len(self._ready) == 1 else None

    def _refuse_waiting(self) -> None:
        while (exchange := self.next_waiting()) is not None:
            exchange.upstream_lost(errors.UpstreamUnreachable("name"), reused=False)

    # --- the rest ---

    def count(self, change: int) -> None:
        if self._meters is not None:
            self._meters.connection("upstream", change)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)  # the loop keeps only weak references to tasks
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Keep no connection from here on. An exchange that still comes, or waits, is served all the same."""
        self.closed = True
        for name, _ in self._named:
            self._resolver.forget(name, self._readdress)
        for upstream in self.upstreams:
            self._drop(upstream)


def _shown(upstream: Upstream) -> dict[str, str]:
    return {"upstream": upstream.name, "address": upstream.target.address}
