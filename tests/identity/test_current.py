"""A provider that takes another one's place while the gateway serves."""

from __future__ import annotations

import asyncio

import pytest

from gateway.identity import Identity
from gateway.identity.current import CurrentProvider


class Known:
    """Knows everyone under one name, and says so when `go` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.closed = asyncio.Event()

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        self.asked.set()
        await self.go.wait()
        assert not self.closed.is_set()
        return Identity(self.name)

    async def recheck(self, subject: str, session_id: str) -> Identity | None:
        return Identity(self.name)

    async def close(self) -> None:
        self.closed.set()


def test_a_replaced_provider_finishes_its_calls_and_is_closed_then() -> None:
    async def main() -> None:
        old, new = Known("old"), Known("new")
        current = CurrentProvider(old)
        call = asyncio.create_task(current.authenticate("a", "b", "", ""))
        await old.asked.wait()
        current.replace(new)
        assert (await current.recheck("a", "s")) == Identity("new")
        assert not old.closed.is_set()
        old.go.set()
        assert await call == Identity("old")
        async with asyncio.timeout(5):
            await old.closed.wait()
        await current.close()
        assert new.closed.is_set()

    asyncio.run(main())


def test_a_provider_that_nobody_asks_is_closed_as_it_is_replaced() -> None:
    async def main() -> None:
        old = Known("old")
        current = CurrentProvider(old)
        current.replace(Known("new"))
        async with asyncio.timeout(5):
            await old.closed.wait()
        await current.close()

    asyncio.run(main())


def test_a_call_that_fails_counts_as_ended() -> None:
    class Failing(Known):
        async def recheck(self, subject: str, session_id: str) -> Identity | None:
            raise ValueError

    async def main() -> None:
        old = Failing("old")
        current = CurrentProvider(old)
        with pytest.raises(ValueError):  # noqa: PT011  # any
            await current.recheck("a", "s")
        current.replace(Known("new"))
        async with asyncio.timeout(5):
            await old.closed.wait()

    asyncio.run(main())
