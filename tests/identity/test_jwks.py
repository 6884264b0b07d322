"""The keys of other issuers: when they are fetched, what is taken for them, and what an outage takes away (nothing)."""

from __future__ import annotations

import asyncio
import gc
import logging
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.identity import jwks
from gateway.identity.jwks import MAX_BYTES, Fetcher, FetchFailed, IssuerKeys, Source, tls_context
from tests.identity.backend import http
from tests.issuer import (
    Behaviour,
    Issuer,
    broken,
    compressed,
    garbage,
    huge,
    issuer,
    redirecting,
    served,
    silent,
)


@pytest.fixture
def idp() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


class Taken:
    """What a fetcher took up, and what it reported."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.reports: list[bool] = []

    def take(self, body: bytes) -> None:
        if not body.startswith(b'{"keys"'):
            raise ValueError("not a JWK Set")
        self.bodies.append(body)

    def report(self, _: str, succeeded: bool) -> None:
        self.reports.append(succeeded)


def fetcher_of(idp: Issuer, taken: Taken, **options: Any) -> Fetcher:
    source = Source(idp.name, idp.jwks_url, taken.take, **({"refresh": 3600.0, "timeout": 5.0} | options))
    return Fetcher(source, taken.report)


@asynccontextmanager
async def running(idp: Issuer, **options: Any) -> AsyncIterator[tuple[Fetcher, Taken]]:
    """A started fetcher whose first fetch is over."""
    taken = Taken()
    fetcher = fetcher_of(idp, taken, **options)
    fetcher.start()
    try:
        await until(lambda: bool(taken.reports))
        yield fetcher, taken
    finally:
        await fetcher.close()


async def until(condition: Any, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_keys_are_fetched_at_the_start_and_again_by_the_clock(idp: Issuer) -> None:
    async def run() -> None:
        async with running(idp, refresh=0.05) as (_, taken):
            assert taken.bodies[0] == idp.jwks()
            await until(lambda: idp.fetches >= 3)
            idp.rotate()
            await until(lambda: taken.bodies[-1] == idp.jwks())

    asyncio.run(run())


def test_a_set_that_has_not_changed_is_not_sent_again(idp: Issuer) -> None:
    async def run() -> None:
        async with running(idp, refresh=0.05) as (_, taken):
            await until(lambda: len(taken.reports) >= 3)
            assert "if-none-match" not in idp.asked[0]
            assert idp.asked[1]["if-none-match"] == idp.asked[2]["if-none-match"]
            assert len(taken.bodies) == 1
            assert all(taken.reports)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("cache_control", "due"),
    [
        ("max-age=60", 60.0),
        ("public, max-age=60, must-revalidate", 60.0),
        ("Max-Age=60", 60.0),
        ("max-age=1", jwks.LEAST_REFRESH),
        ("max-age=99999", 600.0),
        ("max-age=0", 600.0),
        ("no-cache", 600.0),
        ("no-store", 600.0),
        ("s-maxage=60", 600.0),
        ("max-age=soon", 600.0),
        ("", 600.0),
    ],
)
def test_cache_control_brings_the_next_fetch_forward_and_never_puts_it_off(
    idp: Issuer, cache_control: str, due: float
) -> None:
    async def run() -> None:
        fetcher = fetcher_of(idp, Taken(), refresh=600.0)
        idp.headers = {"Cache-Control": cache_control}
        try:
            assert await fetcher._refresh() == due
            assert await fetcher._refresh() == due  # from a 304 too
        finally:
            await fetcher.close()

    asyncio.run(run())


@pytest.mark.parametrize("answer", [garbage, broken, huge, redirecting, compressed, silent])
def test_an_answer_that_is_no_jwk_set_takes_nothing_up_and_nothing_away(idp: Issuer, answer: Behaviour) -> None:
    async def run() -> None:
        async with running(idp, timeout=0.5) as (fetcher, taken):
            idp.answer = answer
            flight = fetcher.want()
            assert flight is not None
            await flight
            assert taken.reports == [True, False]
            assert len(taken.bodies) == 1
            assert fetcher.failing
            assert idp.elsewhere == 0

    asyncio.run(run())


def test_an_issuer_that_is_gone_is_tried_again_until_it_is_back(idp: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        idp.stop()
        with caplog.at_level(logging.WARNING):
            async with running(idp) as (fetcher, taken):
                assert taken.reports == [False]
                idp.start()
                await until(lambda: bool(taken.bodies))
                assert not fetcher.failing

    asyncio.run(run())
    assert [record.message for record in caplog.records] == [
        "the keys of an issuer cannot be fetched; those that are there stay",
        "the keys of an issuer can be fetched again",
    ]


def test_tries_grow_rarer_while_an_issuer_fails(idp: Issuer) -> None:
    async def run() -> list[float]:
        fetcher = fetcher_of(idp, Taken())
        idp.answer = broken
        try:
            return [await fetcher._refresh() for _ in range(8)]
        finally:
            await fetcher.close()

    assert asyncio.run(run()) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_many_who_want_keys_share_one_fetch(idp: Issuer) -> None:
    async def run() -> None:
        async with running(idp) as (fetcher, _):
            flights = [fetcher.want() for _ in range(100)]
            await asyncio.gather(*[flight for flight in flights if flight is not None])
            assert None not in flights
            assert idp.fetches == 2

    asyncio.run(run())


def test_a_flood_of_unknown_keys_causes_one_fetch_in_a_cooldown(idp: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("gateway.identity.jwks.time.monotonic", lambda: clock[0])

    async def run() -> None:
        fetcher = fetcher_of(idp, Taken())
        try:
            for second in range(30):
                clock[0] = 1000.0 + second
                for _ in range(20):
                    flight = fetcher.want()
                    if flight is not None:
                        await flight
        finally:
            await fetcher.close()

    asyncio.run(run())
    assert idp.fetches == 3


def test_a_fetch_by_the_clock_does_not_use_up_that_of_an_unknown_key(idp: Issuer) -> None:
    async def run() -> None:
        async with running(idp) as (fetcher, taken):
            idp.rotate()
            flight = fetcher.want()  # right after the fetch of the start
            assert flight is not None
            await flight
            assert taken.bodies[-1] == idp.jwks()
            assert fetcher.want() is None

    asyncio.run(run())


def test_who_joins_a_fetch_under_way_does_not_use_up_its_own(idp: Issuer) -> None:
    async def run() -> None:
        idp.answer = silent
        taken = Taken()
        fetcher = fetcher_of(idp, taken)
        fetcher.start()
        try:
            await until(lambda: idp.fetches == 1)
            joined = fetcher.want()
            assert joined is not None
            idp.answer = served
            idp.released.set()
            await joined
            own = fetcher.want()
            assert own is not None
            await own
            assert idp.fetches == 2
        finally:
            await fetcher.close()

    asyncio.run(run())


def test_waiting_for_a_fetch_ends_with_its_timeout(idp: Issuer) -> None:
    async def run() -> None:
        async with running(idp, timeout=0.2) as (fetcher, taken):
            idp.answer = silent
            flight = fetcher.want()
            assert flight is not None
            async with asyncio.timeout(10):
                await flight
            assert taken.reports == [True, False]

    asyncio.run(run())


def test_those_who_wait_are_bounded_and_the_next_is_told_at_once(idp: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jwks, "MAX_WAITING", 3)

    async def run() -> None:
        idp.answer = silent
        fetcher = fetcher_of(idp, Taken())
        try:
            flights = [fetcher.want() for _ in range(3)]
            assert None not in flights
            await asyncio.sleep(0)
            assert fetcher.want() is None
            idp.released.set()
            await asyncio.gather(*[flight for flight in flights if flight is not None])
            assert fetcher._waiting == 0
        finally:
            await fetcher.close()

    asyncio.run(run())


def test_who_stops_waiting_does_not_end_the_fetch_of_the_others(idp: Issuer) -> None:
    async def run() -> None:
        async with running(idp) as (fetcher, taken):
            idp.answer = silent
            first, second = fetcher.want(), fetcher.want()
            assert first is not None
            assert second is not None
            await until(lambda: idp.fetches == 2)
            first.cancel()
            idp.released.set()
            await second
            assert taken.reports == [True, True]

    asyncio.run(run())


def test_an_unforeseen_error_is_logged_and_the_next_fetch_comes_all_the_same(
    idp: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        taken, failures = Taken(), [KeyError("x")]

        def take(body: bytes) -> None:
            if failures:
                raise failures.pop()
            taken.take(body)

        fetcher = Fetcher(Source(idp.name, idp.jwks_url, take, 0.05), taken.report)
        fetcher.start()
        try:
            await until(lambda: bool(taken.bodies))
        finally:
            await fetcher.close()

    asyncio.run(run())
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.ERROR] == [True]


@pytest.mark.parametrize("etag", ['"', "x" * 300, "W/x", '"é"'])
def test_an_etag_that_is_none_is_not_sent_back(etag: str) -> None:
    async def run() -> list[str]:
        asked: list[str] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            body = b'{"keys":[]}'
            writer.write(http(200, body, f"ETag: {etag}", "Connection: close"))
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        fetcher = Fetcher(Source("x", f"http://127.0.0.1:{port}/", Taken().take))
        try:
            await fetcher._refresh()
            await fetcher._refresh()
        finally:
            await fetcher.close()
            server.close()
            await server.wait_closed()
        return asked

    asked = asyncio.run(run())
    assert len(asked) == 2
    assert not any("if-none-match" in head.lower() for head in asked)


def test_a_304_that_nobody_asked_for_is_no_answer(idp: Issuer) -> None:
    async def run() -> None:
        fetcher = fetcher_of(idp, Taken())
        idp.headers = {"X": "1"}

        async def unchanged(made: Issuer, request: Any) -> Any:
            response = await served(made, request)
            response.set_status(304)
            return response

        idp.answer = unchanged
        try:
            with pytest.raises(FetchFailed, match="answered 304"):
                await fetcher.fetch()
        finally:
            await fetcher.close()

    asyncio.run(run())


def test_closing_ends_a_fetch_and_leaves_nothing_open(idp: Issuer) -> None:
    async def run() -> None:
        idp.answer = silent
        keys = IssuerKeys({idp.name: Source(idp.name, idp.jwks_url, Taken().take)})
        keys.start()
        await until(lambda: idp.fetches == 1)
        waiting = keys.want(idp.name)
        assert waiting is not None
        await keys.close()
        await waiting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    gc.collect()  # a session left open would warn, and a warning is an error


def test_the_certificate_of_an_issuer_is_checked(tmp_path: Path) -> None:
    assert tls_context(None).verify_mode is ssl.CERT_REQUIRED
    assert tls_context(None).check_hostname
    assert tls_context(None).minimum_version >= ssl.TLSVersion.TLSv1_2
    (tmp_path / "ca.pem").write_text("nonsense")
    for wrong in ("ca.pem", "nowhere.pem"):
        with pytest.raises(OSError, match=r".+"):
            tls_context(str(tmp_path / wrong))


def test_a_body_of_the_greatest_size_is_taken() -> None:
    assert MAX_BYTES == 256 * 1024
