"""The audit trail's stream: bounded in entries, time and what waits; nobody waits for it, nothing fails for it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.sessions.connect import Endpoint, open_client
from gateway.sessions.trail import BATCH, FLOOD_BURST, FLOOD_RATE, MAX_QUEUED, AuditTrail, AuditWriter
from gateway.telemetry import audit, audit_sink
from tests.redis_server import RedisServer
from tests.sessions.world import TIMEOUT, Clock, eventually, in_loop, raw_client

HOSTILE = "x\r\nXADD a * b c\r\n\x00\x1b[2J\u2028\u202eé\ud800"


@asynccontextmanager
async def trail_on(
    url: str | Endpoint, prefix: str, *, max_len: int = 1000, retention: float = 600, **more: Any
) -> AsyncIterator[AuditTrail]:
    client = open_client(url, TIMEOUT)
    try:
        yield AuditTrail(client, prefix, TIMEOUT, max_len, retention, **more)
    finally:
        await client.aclose()


def entry(number: int, event: str = "login", **more: str) -> dict[str, str]:
    return {"ts": "2026-01-01T00:00:00.000Z", "event": event, "subject": f"u-{number}", **more}


class Dropped:
    """Counts what was left out, by reason."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, reason: str, number: int) -> None:
        self.numbers[reason] = self.numbers.get(reason, 0) + number


@in_loop
async def test_entries_come_back_as_they_were_written_in_their_order(url: Endpoint, prefix: str) -> None:
    async with trail_on(url, prefix) as trail:
        written = [entry(1, reason="why"), entry(2), entry(3, ip="192.0.2.1")]
        await trail.append(written[:2])
        await trail.append(written[2:])
        found = await trail.read("-", 10)
        assert [fields for _, fields in found] == written
        ids = [entry_id for entry_id, _ in found]
        assert [fields for _, fields in await trail.read(f"({ids[0]}", 1)] == [written[1]]
        assert await trail.read(f"({ids[2]}", 10) == []


@in_loop
async def test_the_stream_keeps_about_as_many_entries_as_it_may(url: Endpoint, prefix: str) -> None:
    async with trail_on(url, prefix, max_len=100) as trail:
        for batch in range(10):
            await trail.append([entry(100 * batch + n) for n in range(100)])
        found = await trail.read("-", 2000)
        assert 100 <= len(found) <= 300
        assert found[-1][1]["subject"] == "u-999"


@in_loop
async def test_the_key_ends_with_its_newest_entry_and_older_ones_are_cut(url: Endpoint, prefix: str) -> None:
    """The TTL law (contract 6.4): nothing stays for longer than the retention, written or left alone."""
    raw, now = raw_client(url, TIMEOUT), time.time()
    async with trail_on(url, prefix, retention=60) as trail:
        for age in (90, 65, 30):
            await raw.xadd(trail.key, {"event": f"{age} s old"}, f"{int((now - age) * 1000)}-0")
        assert await raw.pttl(trail.key) == -1
        await trail.append([entry(1)])
        assert [fields["event"] for _, fields in await trail.read("-", 10)] == ["30 s old", "login"]
        assert 50_000 < await raw.pttl(trail.key) <= 60_000
    await raw.aclose()


@in_loop
async def test_a_hostile_value_is_one_value_of_one_entry(url: Endpoint, prefix: str) -> None:
    """Stream injection: neither a line break nor a lone surrogate makes another entry, field or command."""
    async with trail_on(url, prefix) as trail:
        await trail.append([entry(1, reason=HOSTILE)])
        ((_, fields),) = await trail.read("-", 10)
        assert set(fields) == {"ts", "event", "subject", "reason"}
        assert fields["reason"] == HOSTILE.encode("utf-8", "backslashreplace").decode()


@in_loop
async def test_an_audit_line_reaches_the_stream_cleaned_bounded_and_named(url: Endpoint, prefix: str) -> None:
    logging.getLogger("gateway.audit").setLevel(logging.INFO)
    async with trail_on(url, prefix) as trail:
        writer = AuditWriter(trail, "pod-1", Dropped())
        writer.start()
        with audit_sink(writer.take):
            audit("session_revoked", subject="u-1", reason=HOSTILE + " password=hunter2 " + "y" * 9999, number=1)
        audit("login", subject="u-2")  # after the block
        await writer.close()
        ((_, fields),) = await trail.read("-", 10)
    assert (fields["event"], fields["replica"], fields["number"]) == ("session_revoked", "pod-1", "1")
    assert "hunter2" not in fields["reason"]
    assert fields["reason"].isprintable()
    assert len(fields["reason"]) < 400


@in_loop
async def test_the_writer_puts_together_what_comes_together(shared_redis: RedisServer, prefix: str) -> None:
    operations: list[str] = []
    url = shared_redis.unix_url
    async with trail_on(url, prefix, observe=lambda operation, _: operations.append(operation)) as trail:
        writer = AuditWriter(trail, "r", Dropped())
        writer.start()
        for number in range(2 * BATCH):
            writer.take(entry(number))
        await eventually(lambda: len(operations) == 2)
        assert len(await trail.read("-", 1000)) == 2 * BATCH
        await writer.close()
        assert operations == ["audit", "audit"]


@in_loop
async def test_an_outage_of_redis_holds_entries_back_and_then_writes_them(own_redis: RedisServer, prefix: str) -> None:
    dropped = Dropped()
    async with trail_on(own_redis.url, prefix) as trail:
        own_redis.stop()
        writer = AuditWriter(trail, "r", dropped)
        writer.start()
        writer.take(entry(1))
        await asyncio.sleep(0.3)  # the first try has failed by then
        own_redis.start()
        writer.take(entry(2))

        async def written() -> bool:
            try:
                return len(await trail.read("-", 10)) == 2
            except StoreUnavailable:
                return False

        async with asyncio.timeout(20):
            while not await written():  # noqa: ASYNC110  # Redis announces nothing
                await asyncio.sleep(0.05)
        await writer.close()
    assert dropped.numbers == {}


@in_loop
async def test_what_waits_is_bounded_and_what_is_left_out_is_counted(prefix: str) -> None:
    dropped = Dropped()
    async with trail_on("redis://127.0.0.1:1", prefix) as trail:
        writer = AuditWriter(trail, "r", dropped)
        for number in range(MAX_QUEUED + 5):
            writer.take(entry(number))
        assert dropped.numbers == {"full": 5}
        await writer.close()
        assert dropped.numbers == {"full": 5, "store": MAX_QUEUED}


@in_loop
async def test_a_flood_of_failed_sign_ins_has_an_allowance_and_nothing_else_is_left_out(prefix: str) -> None:
    """Evidence cannot be pushed out of the stream by whoever knows no password."""
    dropped, clock = Dropped(), Clock()
    async with trail_on(f"memory://{secrets.token_hex(4)}", prefix, max_len=100_000) as trail:
        writer = AuditWriter(trail, "r", dropped, clock)
        for number in range(1000):
            writer.take(entry(number, "login_failed"))
        writer.take(entry(0, "refresh_reuse"))
        assert dropped.numbers == {"flood": 1000 - FLOOD_BURST}
        clock.push(2)
        for number in range(1000):
            writer.take(entry(number, "login_failed"))
        assert dropped.numbers == {"flood": 2000 - FLOOD_BURST - 2 * FLOOD_RATE}
        await writer.close()
        found = [fields["event"] for _, fields in await trail.read("-", 5000)]
    assert found.count("refresh_reuse") == 1


@in_loop
async def test_what_changes_nothing_shares_that_allowance_but_for_what_operators_do(prefix: str) -> None:
    dropped, clock = Dropped(), Clock()
    async with trail_on(f"memory://{secrets.token_hex(4)}", prefix, max_len=100_000) as trail:
        writer = AuditWriter(trail, "r", dropped, clock)
        for number in range(200):
            writer.take(entry(number, "login_failed"))
        dropped.numbers.clear()
        for by in ("", "user", "holder"):
            writer.take({**entry(0, "logout", by=by), "number": "0"})
            writer.take({**entry(0, "logout", by=by), "number": "1"})
        for by in ("admin", "admin:jane", "cli"):
            writer.take({**entry(0, "sessions_revoked", by=by), "number": "0"})
        assert dropped.numbers == {"flood": 3}
        await writer.close()
        found = [fields["event"] for _, fields in await trail.read("-", 5000)]
    assert (found.count("logout"), found.count("sessions_revoked")) == (3, 3)


@in_loop
async def test_a_key_that_is_no_stream_fails_the_trail_alone(shared_redis: RedisServer, prefix: str) -> None:
    async with trail_on(shared_redis.unix_url, prefix) as trail:
        with shared_redis.client() as admin:
            admin.set(trail.key, "1", px=60_000)
        with pytest.raises(StoreUnavailable):
            await trail.append([entry(1)])
        with pytest.raises(StoreUnavailable):
            await trail.read("-", 1)


@in_loop
async def test_a_redis_that_hangs_costs_whoever_is_audited_no_time(own_redis: RedisServer, prefix: str) -> None:
    async with trail_on(own_redis.url, prefix) as trail:
        writer = AuditWriter(trail, "r", Dropped())
        writer.start()
        own_redis.pause()
        try:
            loop = asyncio.get_running_loop()
            began = loop.time()
            for number in range(100):
                writer.take(entry(number))
                await asyncio.sleep(0)
            assert loop.time() - began < TIMEOUT / 2
        finally:
            own_redis.resume()
        await writer.close()
