"""The reader of replies against every reply, every beginning of one, and noise."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hiredis import ReplyError
from hypothesis import given

from gateway.sessions.connect import parse_url
from gateway.sessions.resp import (
    Greeting,
    LiveKeys,
    ProtocolViolation,
    Verdict,
    all_alive,
    check_greeting,
    greeting,
    parse_reply,
)

VALUES = st.one_of(st.none(), st.just(b"1"), st.binary(max_size=20))
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20)


def written(pairs: list[tuple[bytes | None, bytes | None]]) -> bytes:
    values = [
        b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value) for pair in pairs for value in pair
    ]
    return b"*%d\r\n" % len(values) + b"".join(values)


@given(PAIRS, st.binary(max_size=10), st.binary(max_size=10))
def test_a_reply_is_read_wherever_it_stands(
    pairs: list[tuple[bytes | None, bytes | None]], before: bytes, after: bytes
) -> None:
    reply = written(pairs)
    found = parse_reply(before + reply + after, len(before), len(pairs))
    expected = [Verdict.ALIVE if alive is not None and revoked is None else Verdict.ENDED for alive, revoked in pairs]
    assert found == (bytes(expected), len(before) + len(reply))


@given(PAIRS, st.data())
def test_the_beginning_of_a_reply_is_waited_upon(
    pairs: list[tuple[bytes | None, bytes | None]], data: st.DataObject
) -> None:
    reply = written(pairs)
    cut = data.draw(st.integers(0, len(reply) - 1))
    assert parse_reply(reply[:cut], 0, len(pairs)) is None


@given(st.binary(max_size=60) | st.text("*$-1240\r\n+:", max_size=60).map(str.encode), st.integers(1, 3))
def test_noise_never_passes_anybody(noise: bytes, count: int) -> None:
    try:
        found = parse_reply(noise, 0, count)
    except ProtocolViolation:
        return
    if found is not None and Verdict.ALIVE in found[0]:
        assert noise.startswith(b"*%d\r\n$" % (2 * count))


def test_the_usual_reply_is_that_of_a_batch_that_is_alive_throughout() -> None:
    for count in (1, 2, 16, 300):
        assert all_alive(count) == written([(b"1", None)] * count)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_the_keys_of_a_token_are_written_with_their_lengths(alive: bytes, revoked: bytes) -> None:
    keys = LiveKeys(alive, revoked)
    assert keys.names() == (alive, revoked)
    assert keys.wire == b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(alive), alive, len(revoked), revoked)


def test_the_greeting_says_who_we_are_and_which_database() -> None:
    plain, replies = greeting(parse_url("redis://h"))
    assert (plain, replies) == (b"*4\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$7\r\nSETNAME\r\n$14\r\ntokengate-live\r\n", 1)
    full, replies = greeting(parse_url("redis://:p@h/3"))
    assert b"$4\r\nAUTH\r\n$7\r\ndefault\r\n$1\r\np\r\n" in full
    assert full.endswith(b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n")
    assert replies == 2


WELCOME = [b"proto", 2, b"role", b"master"]
REFUSALS = [None, [], [b"role"], [b"role", b"replica"], [b"x", b"role"], [*WELCOME, b"role", b"replica"], 1, b"", b"OK"]


@pytest.mark.parametrize("reply", [*REFUSALS, [[], []], [b"role", []], ReplyError("NOAUTH a")])
def test_only_a_primary_that_welcomes_us_is_accepted(reply: object) -> None:
    check_greeting(WELCOME, Greeting.HELLO)
    with pytest.raises(ProtocolViolation):
        check_greeting(reply, Greeting.HELLO)


@pytest.mark.parametrize("reply", [WELCOME, None, b"", ReplyError("ERR DB index is out of range")])
def test_a_database_that_is_not_there_is_no_connection(reply: object) -> None:
    check_greeting(b"OK", Greeting.SELECT)
    with pytest.raises(ProtocolViolation):
        check_greeting(reply, Greeting.SELECT)
