"""Names of backends are looked up beside the traffic, and a resolver that fails changes nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest

from gateway.proxy import resolver as resolvers
from gateway.proxy.resolver import Resolver, by_family, is_address, system_lookup
from tests.proxy.backends import Names, until


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "PAUSE", 0.0)


def made(names: Names, *, interval: float = 0.01, timeout: float = 5.0) -> Resolver:
    return Resolver(asyncio.get_running_loop(), interval=interval, timeout=timeout, lookup=names.look_up)


def test_a_change_of_the_addresses_is_told_once_each_time() -> None:
    async def main() -> None:
        names, told = Names("10.0.0.1"), []
        resolver = made(names)
        name = resolver.watch("orders", lambda: told.append(name.addresses[0]))
        await until(lambda: told == [("10.0.0.1",)])
        names.addresses = ["10.0.0.2", "10.0.0.1"]
        await until(lambda: len(told) == 2)
        asked = names.asked
        await until(lambda: names.asked > asked + 3)
        assert told == [("10.0.0.1",), ("10.0.0.1", "10.0.0.2")]
        resolver.close()

    asyncio.run(main())


@pytest.mark.parametrize("failure", [socket.gaierror(-3, "Temporary failure"), UnicodeError("label"), ()])
def test_a_lookup_that_fails_or_finds_nothing_keeps_the_addresses(failure: Exception | tuple[str, ...]) -> None:
    async def main() -> None:
        names = Names("10.0.0.1")
        resolver = made(names)
        name = resolver.watch("orders", lambda: None)
        await until(lambda: name.addresses[0])
        names.addresses = failure
        asked = names.asked
        await until(lambda: names.asked > asked + 2)
        assert name.addresses == (("10.0.0.1",), ())
        resolver.close()

    asyncio.run(main())


def test_one_lookup_is_under_way_at_most_and_a_late_one_is_told_as_none() -> None:
    async def main() -> None:
        names, told = Names("10.0.0.1"), []
        names.hold = asyncio.Event()
        resolver = made(names, timeout=0.02)
        name = resolver.watch("orders", lambda: told.append(name.addresses[0]))
        await until(lambda: told == [()])
        assert not name.want()
        await asyncio.sleep(0.05)  # some intervals
        assert names.asked == 1
        names.hold.set()
        await until(lambda: told == [(), ("10.0.0.1",)])
        resolver.close()

    asyncio.run(main())


def test_a_name_is_asked_for_no_more_often_than_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "PAUSE", 60.0)

    async def main() -> None:
        names = Names()
        names.addresses = OSError("no")
        resolver = made(names)
        told: list[None] = []
        name = resolver.watch("orders", lambda: told.append(None))
        await until(lambda: told)
        assert [name.want() for _ in range(100)] == [False] * 100
        assert names.asked == 1
        resolver.close()

    asyncio.run(main())


def test_a_name_that_nobody_listens_for_is_forgotten() -> None:
    async def main() -> None:
        names = Names("10.0.0.1")
        resolver = made(names)

        def listener() -> None: ...

        name = resolver.watch("orders", listener)
        assert resolver.watch("orders", listener) is name
        resolver.forget(name, listener)
        await until(lambda: name.addresses[0])
        resolver.forget(name, listener)
        asked = names.asked
        await asyncio.sleep(0.05)
        assert names.asked == asked
        resolver.close()

    asyncio.run(main())


def test_the_family_that_comes_first_is_used_and_the_other_is_kept_in_reserve() -> None:
    assert by_family(["::1", "127.0.0.1", "::1"]) == (("::1",), ("127.0.0.1",))
    assert by_family(["10.0.0.2", "10.0.0.1", "fd00::1"]) == (("10.0.0.1", "10.0.0.2"), ("fd00::1",))
    assert by_family([]) == ((), ())


def test_the_system_resolves_localhost() -> None:
    assert set(asyncio.run(system_lookup("localhost"))) & {"127.0.0.1", "::1"}


def test_addresses_need_no_resolver() -> None:
    assert is_address("10.0.0.1")
    assert is_address("::1")
    assert not is_address("orders")
    assert not is_address("10.0.0.1.example")
