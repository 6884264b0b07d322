"""What the store takes in: any text, up to a length; what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sessions.connect import Endpoint
from gateway.sessions.keyspace import Keyspace
from gateway.sessions.store import NewSession, SessionPolicy
from gateway.tokens.rotation import Outcome
from tests.sessions.world import POLICY, in_loop, login, opened


@in_loop
async def test_a_record_that_cannot_be_read_is_no_session(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login())
        key = Keyspace(prefix).session(session.id)
        good = await world.raw.get(key)
        for bad in (b"", b"x", good[:20], good.replace(b" ", b"\n"), b"-1" + good, good + b"\n{}", b"\xff\xfe"):
            await world.raw.set(key, bad)
            assert await world.store.get(session.id) is None
            assert await world.store.list("u-1") == []
            await world.store.mark_used(session.id, 0)
            assert await world.raw.get(key) == bad
        assert (await world.store.rotate(session.id, 0)).outcome is Outcome.UNKNOWN
        assert await world.raw.exists(key) == 0


@pytest.mark.parametrize("subject", ["é" * 255, "u:{1}:x", 'a"b\\c', "%s %d", "  ", "用户", "-1"])
@in_loop
async def test_a_subject_may_be_any_text(url: Endpoint, prefix: str, subject: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login(subject, device="d"))
        rotated = await world.store.rotate(session.id, 0)
        assert rotated.session is not None
        assert rotated.session.subject == subject
        assert await world.store.list(subject) == [rotated.session]
        assert await world.store.end(session.id)
        assert await world.names() == set()


@pytest.mark.parametrize("subject", ["", "x" * 256, "a\nb", "a\0b", "a\x7fb", "\ud800"])
@in_loop
async def test_a_subject_that_no_record_can_hold_is_refused(prefix: str, subject: str) -> None:
    async with opened("memory://refused", prefix) as world:
        with pytest.raises(ValueError, match="subject must be"):
            await world.store.create(login(subject))


@in_loop
async def test_inputs_of_the_greatest_length_are_kept(url: Endpoint, prefix: str) -> None:
    claims = {f"c{number}": "x" * 1000 for number in range(60)}
    new = NewSession("s" * 255, "d" * 255, "a" * 255, "f" * 45, ("r" * 1000,), "s" * 1000, claims, "v" * 255)
    async with opened(url, prefix) as world:
        session = await world.store.create(new)
        assert (session.device, session.claims, session.scope) == (new.device, claims, new.scope)
        assert await world.store.get(session.id) == session


@pytest.mark.parametrize(
    "more",
    [
        {"device": "d" * 256},
        {"claims": {"c": "x" * 65_536}},
        {"claims": {"c": object()}},
        {"claims": {"c": "\ud800"}},
        {"scope": "\ud800"},
    ],
)
@in_loop
async def test_what_is_too_long_or_no_json_is_refused(prefix: str, more: dict[str, Any]) -> None:
    async with opened("memory://refused", prefix) as world:
        with pytest.raises(ValueError, match="must be"):
            await world.store.create(NewSession("u-1", **more))


@in_loop
async def test_what_a_client_says_of_itself_is_cut_and_cleaned(url: Endpoint, prefix: str) -> None:
    async with opened(url, prefix) as world:
        session = await world.store.create(login(device="a\nb\ud800", user_agent="x\r\n0 0 0" + "y" * 9000, ip="\n"))
        assert (session.device, session.ip) == ("a b?", " ")
        assert session.user_agent.startswith("x  0 0 0y")
        assert len(session.user_agent) == 255
        assert await world.store.get(session.id) == session


@pytest.mark.parametrize("session_id", ["", "x", "g" * 23, "0" * 15, "0" * 65, "0" * 22 + "\n", "0{a}:user:u-1234567"])
@in_loop
async def test_an_id_that_is_none_is_an_unknown_session_and_asks_redis_nothing(prefix: str, session_id: str) -> None:
    async with opened("redis://127.0.0.1:1", prefix) as world:
        assert await world.store.get(session_id) is None
        assert await world.store.end(session_id) is False
        assert (await world.store.rotate(session_id, 0)).outcome is Outcome.UNKNOWN
        await world.store.mark_used(session_id, 0)


@pytest.mark.parametrize("token_id", ["urn:uuid:1234", "é", "\ud800", "0" * 255, "{b}"])
@in_loop
async def test_a_token_of_another_maker_can_be_revoked(url: Endpoint, prefix: str, token_id: str) -> None:
    async with opened(url, prefix) as world:
        await world.store.revoke_token(token_id, 2**62)
        assert await world.raw.exists(Keyspace(prefix).revoked(token_id)) == 1


@pytest.mark.parametrize("token_id", ["", "0" * 513])
@in_loop
async def test_a_token_id_that_is_none_is_refused(prefix: str, token_id: str) -> None:
    async with opened("memory://refused", prefix) as world:
        with pytest.raises(ValueError, match="token id"):
            await world.store.revoke_token(token_id, 2**40)


@pytest.mark.parametrize(
    ("subject_id", "moment", "life"),
    [("", 1, 1), ("~" * 513, 1, 1), ("~i:u", -1, 1), ("~i:u", 2**60, 1), ("~i:u", 1, 0), ("~i:u", 1, float("nan"))],
)
@in_loop
async def test_a_not_before_that_is_none_is_refused(prefix: str, subject_id: str, moment: int, life: float) -> None:
    async with opened("memory://refused", prefix) as world:
        with pytest.raises(ValueError, match="must be"):
            await world.store.set_not_before(subject_id, moment, life)


@pytest.mark.parametrize("subject_id", ["~issuer:u-1", "~issuer:é", "~i:\ud800", "~i:{b}", "~" * 512])
@in_loop
async def test_a_subject_of_another_issuer_may_be_any_text(url: Endpoint, prefix: str, subject_id: str) -> None:
    async with opened(url, prefix) as world:
        await world.store.set_not_before(subject_id, 1_700_000_000, 60)
        assert await world.raw.get(Keyspace(prefix).not_before(subject_id)) == b"1700000000"


def test_a_policy_that_cannot_be_kept_is_refused() -> None:
    for bad in ({"refresh_ttl": 0.5}, {"session_ttl": -1}, {"grace": -1}, {"leeway": -1}, {"max_sessions": -1}):
        with pytest.raises(ValueError, match="must"):
            SessionPolicy(**{name: getattr(POLICY, name) for name in POLICY.__slots__} | bad)
