"""What a session costs in Redis: at most 600 bytes, all keys counted."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from gateway.sessions import useragent
from gateway.sessions.connect import open_client
from gateway.sessions.record import NewSession
from gateway.sessions.store import SessionStore
from tests.redis_server import RedisServer
from tests.sessions.world import POLICY, in_loop

DAY = 86_400
DEFAULTS = replace(POLICY, refresh_ttl=30 * DAY, session_ttl=180 * DAY, access_ttl=600)
# Two keys a session: 16,400 and the epochs. Redis doubles its two hash tables (the keys, their ends) beyond 16,384
# keys, so this is where a session's share of them is greatest: 64 bytes. With 100,000 sessions it is 42.
SESSIONS = 8_200
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
)

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/17.5 Mobile/15E148 Safari/604.1"
)


def realistic(number: int, subject: str) -> NewSession:
    return NewSession(
        subject=subject,
        device="Chrome on Windows",
        user_agent=CHROME,
        ip=f"203.0.{number // 256}.{number % 256}",
        roles=("user",),
        claims={"email": f"user{number}@example.com"},
    )


async def fill(url: str, subject: Callable[[int], str]) -> None:
    store = SessionStore(open_client(url, 30), "gw", DEFAULTS, 30)
    numbers = iter(range(SESSIONS))

    async def sign_in() -> None:
        for number in numbers:
            await store.create(realistic(number, subject(number)))

    await asyncio.gather(*(sign_in() for _ in range(8)))
    await store.close()


def used_memory(client: redis.Redis) -> int:
    info = client.info("memory")
    assert isinstance(info, dict)
    return int(info["used_memory"])


@pytest.mark.parametrize(
    "subject", [lambda n: f"u-{n}", lambda n: str(uuid.UUID(int=n << 80 | n))], ids=["a short subject", "a UUID"]
)
@in_loop
async def test_a_session_takes_at_most_600_bytes(own_redis: RedisServer, subject: Callable[[int], str]) -> None:
    with own_redis.client() as client:
        before = used_memory(client)
        await fill(own_redis.unix_url, subject)
        assert SESSIONS * 2 < client.dbsize() <= SESSIONS * 2 + 16
        deadline = time.monotonic() + 20
        while (used_memory(client) - before) / SESSIONS > 600:  # until the old hash tables are given back
            assert time.monotonic() < deadline, f"{(used_memory(client) - before) / SESSIONS:.0f} bytes a session"
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (CHROME, 7),
        (CHROME + " Edg/126.0.0.0", 17),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0", 18),
        (IPHONE, 13),
        ("curl/8.5.0", 10),
        ("", 0),
        ("Mozilla/5.0 (Mozilla/5.0 (", 2),
        ("größer", 8),
    ],
)
def test_a_user_agent_is_shortened_and_restored(text: str, length: int) -> None:
    short = useragent.shorten(text.encode())
    assert len(short) == length
    assert useragent.restore(short) == text.encode()


def test_the_codes_of_user_agents_are_what_they_were() -> None:
    """Records outlive an upgrade: codes may be added, none may change."""
    codes = bytes(code for code in range(1, 32) if code != 0x0A)
    assert useragent.restore(codes).startswith(
        b"Mozilla/5.0 (Windows NT 10.0; Win64; x64Macintosh; Intel Mac OS X 10X11; Linux x86_64Linux; Android "
        b"iPhone; CPU iPhone OS  like Mac OS X) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/\t"
        b") AppleWebKit/605.1.15 (KHTML, like Gecko) Version/.0.0.0 Safari/537.36\r.0.0.0 Mobile Safari/537.36"
        b" Mobile/15E148 Safari/604.1 Safari/605.1.15) Gecko/20100101 Firefox/ Edg/"
    )
