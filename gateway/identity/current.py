"""The provider of the moment: another one can take its place while the gateway serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.identity.provider import Identity, Provider


class _Place:
    """A provider, how many calls are with it, and whether another one has followed."""

    __slots__ = ("calls", "followed", "provider")

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.calls = 0
        self.followed = False


class CurrentProvider:
    """Asks the provider that it was given last. One that is replaced is closed after its last call."""

    def __init__(self, provider: Provider) -> None:
        self._place = _Place(provider)
        self._closing: set[asyncio.Task[None]] = set()

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        """Return who this is. Raises InvalidCredentials, IdentityUnavailable."""
        with self._using() as provider:
            return await provider.authenticate(username, password, device, ip)

    async def recheck(self, subject: str, session_id: str) -> Identity | None:
        """Return the user as they are by now, or None where the session must end. Raises IdentityUnavailable."""
        with self._using() as provider:
            return await provider.recheck(subject, session_id)

    def replace(self, provider: Provider) -> None:
        """Ask another provider from here on."""
        old, self._place = self._place, _Place(provider)
        old.followed = True
        self._close_unused(old)

    async def close(self) -> None:
        await asyncio.gather(*self._closing)
        await self._place.provider.close()

    @contextmanager
    def _using(self) -> Iterator[Provider]:
        place = self._place
        place.calls += 1
        try:
            yield place.provider
        finally:
            place.calls -= 1
            self._close_unused(place)

    def _close_unused(self, place: _Place) -> None:
        if place.followed and not place.calls:
            task = asyncio.get_running_loop().create_task(place.provider.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
