"""What the grants do beyond what the API's own tests show."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from gateway.errors import IdentityUnavailable, InvalidGrant, StoreUnavailable
from gateway.identity import Identity, UsersFile
from gateway.identity.counted import network
from tests.api.support import code, stack
from tests.redis_server import RedisServer


@dataclass
class Fixed:
    """A provider that lets everyone in as the same user."""

    users: UsersFile
    identity: Identity = field(default_factory=lambda: Identity("u-9"))

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        return self.identity

    async def recheck(self, subject: str, session_id: str) -> Identity | None:
        return self.identity

    async def close(self) -> None:
        await self.users.close()


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_a_rate_limit_counts_an_ipv4_address_or_an_ipv6_network(address: str, place: str) -> None:
    assert network(address) == place


@pytest.mark.parametrize(
    "identity",
    [
        Identity("a\nb"),
        Identity("s" * 256),
        Identity("u-9", claims={"x": "y" * 7000}),
        Identity("u-9", claims={"x": 2**70}),
        Identity("u-9", claims={"x": {1, 2}}),
    ],
)
def test_an_identity_that_no_token_can_carry_leaves_no_session_behind(identity: Identity) -> None:
    async def run() -> None:
        async with stack(provider=Fixed) as s:
            s.extra["provider"].identity = identity
            with pytest.raises(IdentityUnavailable):
                await s.services.grants.login("a", "b", "", "", "")
            assert await s.store.list(identity.subject) == []

    asyncio.run(run())


def test_a_token_set_shows_no_token_in_its_repr() -> None:
    async def run() -> None:
        async with stack(provider=Fixed) as s:
            tokens = await s.services.grants.login("a", "b", "", "", "")
            assert tokens.access_token not in repr(tokens)
            assert tokens.refresh_token not in repr(tokens)
            assert tokens.outcome == "login"

    asyncio.run(run())


def test_a_refresh_names_why_it_was_refused_for_the_log() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            second = (await s.refresh(body["refresh_token"])).json()
            await s.refresh(second["refresh_token"])

            async def reason(token: Any) -> str:
                with pytest.raises(InvalidGrant) as caught:
                    await s.services.grants.refresh(token, "")
                return caught.value.reason

            assert await reason("nonsense") == "malformed"
            assert await reason(body["refresh_token"]) == "reuse"
            assert await reason(body["refresh_token"].encode()) == "unknown"

    asyncio.run(run())


def test_what_too_few_replicas_have_is_503_as_often_as_it_is_asked_and_the_audit_trail_has_its_cause(
    shared_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with stack(shared_redis.unix_url, wait_replicas=1) as s:
            grants = s.services.grants
            reused, ended, left = await s.login(), await s.login(), await s.login()
            successor = (await s.refresh(reused["refresh_token"])).json()["refresh_token"]
            await s.refresh(successor)
            for _ in range(2):
                one, other, out, token, refresh = await asyncio.gather(
                    grants.end_session(ended["session_id"], by="test"),
                    grants.end_sessions("u-9", by="test"),
                    grants.logout(left["session_id"]),
                    grants.revoke_token("0" * 22, 2**40),
                    s.refresh(reused["refresh_token"]),
                    return_exceptions=True,
                )
                assert isinstance(out, StoreUnavailable)
                assert isinstance(token, StoreUnavailable)
                assert isinstance(one, StoreUnavailable)
                assert isinstance(other, StoreUnavailable)
                assert isinstance(refresh, httpx.Response)
                assert code(refresh) == (503, "store_unavailable")

    with caplog.at_level("INFO", logger="gateway.audit"):
        asyncio.run(run())
    told = [(r.getMessage(), r.__dict__["audit"].get("outcome")) for r in caplog.records if r.name == "gateway.audit"]
    assert Counter(told) == {
        ("login", None): 3,
        ("session_revoked", "unconfirmed"): 2,
        ("sessions_revoked", "unconfirmed"): 2,
        ("logout", "unconfirmed"): 2,
        ("token_revoked", "unconfirmed"): 2,
        ("refresh_reuse", None): 1,
    }
