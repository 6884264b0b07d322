"""Names of backends and the addresses behind them.

Laws:
- A name is looked up again every `interval`, and when a connection to it failed; never for each request.
- One lookup of a name is under way at most, however long the system's resolver takes.
- A lookup that fails or finds nothing changes nothing: the addresses known before stay.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address

_LOG = logging.getLogger("gateway.proxy")

INTERVAL = 5.0  # seconds; the TTL of a headless Service's records in CoreDNS
TIMEOUT = 5.0
PAUSE = 1.0  # least time between two lookups of a name, whatever fails meanwhile

Addresses = tuple[tuple[str, ...], tuple[str, ...]]
Lookup = Callable[[str], Awaitable[Sequence[str]]]


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address, which needs no resolver."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def system_lookup(host: str) -> Sequence[str]:
    """Ask the system's resolver; return addresses in the order of RFC 6724. Raises OSError, UnicodeError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [_shown(sockaddr) for *_, sockaddr in found]


def _shown(sockaddr: tuple[object, ...]) -> str:
    scoped = len(sockaddr) == 4 and sockaddr[3]
    return f"{sockaddr[0]}%{sockaddr[3]}" if scoped else str(sockaddr[0])


def by_family(found: Sequence[str]) -> Addresses:
    """Return (addresses of the preferred family, those of the other), each sorted and once.

    A name with both families is one set of hosts that is reached in two ways, not twice as many hosts: the
    family that RFC 6724 puts first is used, the other stands in where nothing of it can be reached.
    """
    if not found:
        return (), ()
    six = ":" in found[0]
    first = {address for address in found if (":" in address) is six}
    return tuple(sorted(first)), tuple(sorted(set(found) - first))


class Name:
    """A watched host name. `addresses` is what was found last, empty before anything was."""

    __slots__ = ("_asked_at", "_late", "_listeners", "_resolver", "_task", "_timer", "addresses", "host")

    def __init__(self, host: str, resolver: Resolver) -> None:
        self.host = host
        self.addresses: Addresses = ((), ())
        self._resolver = resolver
        self._listeners: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late = False
        self._asked_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Name {self.host} {self.addresses}>"

    @property
    def pending(self) -> bool:
        """True while a lookup is under way that may still answer in time."""
        return self._task is not None and not self._late

    def want(self) -> bool:
        """Look the name up unless that was done just now; return whether an answer is on its way in time."""
        loop = self._resolver.loop
        if self._task is None and loop.time() - self._asked_at >= PAUSE:
            self._asked_at = loop.time()
            self._late = False
            self._timer = loop.call_later(self._resolver.timeout, self._on_late)
            self._task = loop.create_task(self._look_up())
        return self.pending

    def add(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def remove(self, listener: Callable[[], None]) -> bool:
        """Return whether nobody listens any more."""
        self._listeners.remove(listener)
        return not self._listeners

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    async def _look_up(self) -> None:
        try:
            found = by_family(await self._resolver.lookup(self.host))
        except (OSError, UnicodeError) as error:
            found = ((), ())
            _LOG.warning("a backend's name was not resolved", extra={"host": self.host, "reason": str(error)})
        finally:
            self._task = None
            if self._timer is not None:
                self._timer.cancel()
        if found[0] and found != self.addresses:
            self.addresses = found
            self._tell()
        elif not self.addresses[0]:
            self._tell()

    def _on_late(self) -> None:
        self._late = True
        _LOG.warning("a backend's name was not resolved", extra={"host": self.host, "reason": "no answer in time"})
        if not self.addresses[0]:
            self._tell()

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()


class Resolver:
    """The watched names of a worker. `interval` and `timeout` are seconds."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        interval: float = INTERVAL,
        timeout: float = TIMEOUT,
        lookup: Lookup = system_lookup,
    ) -> None:
        self.loop = loop
        self.timeout = timeout
        self.lookup = lookup
        self._interval = interval
        self._names: dict[str, Name] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Resolver {list(self._names)}>"

    def watch(self, host: str, listener: Callable[[], None]) -> Name:
        """Look a name up from now on; `listener()` is called when its addresses change, or none are found."""
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = Name(host, self)
        name.add(listener)
        name.want()
        if self._timer is None:
            self._timer = self.loop.call_later(self._interval, self._turn)
        return name

    def forget(self, name: Name, listener: Callable[[], None]) -> None:
        """Take a listener away; a name that nobody listens for is looked up no more."""
        if name.remove(listener):
            del self._names[name.host]
            name.cancel()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for name in self._names.values():
            name.cancel()
        self._names.clear()

    def _turn(self) -> None:
        self._timer = self.loop.call_later(self._interval, self._turn) if self._names else None
        for name in self._names.values():
            name.want()
