"""The reader of replies against every reply, every beginning of one, and noise."""

from __future__ import annotations

import math
import time

import hypothesis.strategies as st
import pytest
from hiredis import ReplyError
from hypothesis import given

from gateway.sessions.resp import (
    Greeting,
    Kind,
    LiveKeys,
    ProtocolViolation,
    Verdict,
    check_greeting,
    greeting,
    parse_head,
    parse_integer,
    parse_values,
)

BORN = b"1763730000"
EARLIER, LATER = b"1763729999", b"1763730001"
RECORDS = st.sampled_from(
    [BORN + b" 0 1 2 3 4 u", LATER + b" 0 1 2 3 4 u", EARLIER + b" 0 1", BORN, b"9999999999x", b"z"]
)
VALUES = st.one_of(st.none(), st.just(b"1"), RECORDS, st.binary(max_size=20))
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=20)
EPOCHS = [BORN] * 16


def written(pairs: list[tuple[bytes | None, bytes | None]]) -> bytes:
    values = [
        b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value) for pair in pairs for value in pair
    ]
    return b"*%d\r\n" % len(values) + b"".join(values)


def asks(count: int) -> list[LiveKeys]:
    return [LiveKeys(number % 16, b"s", b"r") for number in range(count)]


def read(data: bytes, position: int, keys: list[LiveKeys]) -> tuple[bytes, int] | None:
    """Read one reply as a link does; None = not all there."""
    begin = parse_head(data, position, len(keys))
    if begin is None:
        return None
    verdicts = bytearray()
    end = parse_values(data, begin, keys, verdicts, EPOCHS)
    return (bytes(verdicts), end) if len(verdicts) == len(keys) else None


def expected(record: bytes | None, revoked: bytes | None) -> Verdict:
    alive = record is not None and record[:10].isdigit() and record[10:11] == b" " and record[:10] >= BORN
    return Verdict.ALIVE if alive and revoked is None else Verdict.ENDED


@given(PAIRS, st.binary(max_size=10), st.binary(max_size=10))
def test_a_reply_is_read_wherever_it_stands(
    pairs: list[tuple[bytes | None, bytes | None]], before: bytes, after: bytes
) -> None:
    reply = written(pairs)
    found = read(before + reply + after, len(before), asks(len(pairs)))
    assert found == (bytes([expected(*pair) for pair in pairs]), len(before) + len(reply))


@given(PAIRS, st.data())
def test_the_beginning_of_a_reply_is_waited_upon_and_read_on(
    pairs: list[tuple[bytes | None, bytes | None]], data: st.DataObject
) -> None:
    reply, keys = written(pairs), asks(len(pairs))
    cut = data.draw(st.integers(0, len(reply) - 1))
    begin = parse_head(reply[:cut], 0, len(keys))
    if begin is None:
        return
    verdicts = bytearray()
    position = parse_values(reply[:cut], begin, keys, verdicts, EPOCHS)
    assert len(verdicts) < len(keys)
    assert parse_values(reply, position, keys, verdicts, EPOCHS) == len(reply)
    assert list(verdicts) == [expected(*pair) for pair in pairs]


@given(PAIRS, PAIRS)
def test_what_a_reply_means_does_not_hang_on_the_replies_before_it(
    first: list[tuple[bytes | None, bytes | None]], second: list[tuple[bytes | None, bytes | None]]
) -> None:
    keys = asks(20)
    for pairs in (first, first, second, first):
        found = read(written(pairs), 0, keys[: len(pairs)])
        assert found is not None
        assert list(found[0]) == [expected(*pair) for pair in pairs]


def test_a_record_that_was_alive_is_void_once_its_epoch_is_over() -> None:
    keys, epochs = asks(1), list(EPOCHS)
    reply = written([(BORN + b" 0 1 2", None)])
    for born, verdict in ((BORN, Verdict.ALIVE), (LATER, Verdict.ENDED), (b"", Verdict.UNAVAILABLE)):
        epochs[0] = born
        verdicts = bytearray()
        parse_values(reply, 4, keys, verdicts, epochs)
        assert list(verdicts) == [verdict]


FOREIGN = [
    (Kind.TOKEN, None, BORN + b" 5 abc", 1763730001, Verdict.ALIVE),
    (Kind.TOKEN, None, BORN + b" 5 abc", 1763730000, Verdict.ENDED),
    (Kind.TOKEN, b"1", BORN + b" 5 abc", 1763730001, Verdict.ENDED),
    (Kind.TOKEN, None, None, 1763730001, Verdict.ENDED),
    (Kind.TOKEN, None, b"junk", 1763730001, Verdict.ENDED),
    (Kind.TOKEN, None, EARLIER + b" 5 abc", 1763730001, Verdict.UNAVAILABLE),
    (Kind.TOKEN, None, LATER + b" 0 ", 1763730001, Verdict.ENDED),
    (Kind.SUBJECT, None, BORN + b" 5 abc", 1763730001, Verdict.ALIVE),
    (Kind.SUBJECT, b"1763730001", BORN + b" 5 abc", 1763730002, Verdict.ALIVE),
    (Kind.SUBJECT, b"1763730002", BORN + b" 5 abc", 1763730002, Verdict.ENDED),
    (Kind.SUBJECT, b"junk", BORN + b" 5 abc", 1763730002, Verdict.ENDED),
    (Kind.SUBJECT, b"", BORN + b" 5 abc", 1763730002, Verdict.ENDED),
    (Kind.SUBJECT, None, None, 1763730002, Verdict.ENDED),
]


@pytest.mark.parametrize(("kind", "first", "second", "issued_at", "verdict"), FOREIGN)
def test_a_foreign_token_is_judged_by_its_revocation_and_by_the_epoch(
    kind: Kind, first: bytes | None, second: bytes | None, issued_at: int, verdict: Verdict
) -> None:
    keys = LiveKeys(0, b"a", b"b", kind, issued_at)
    assert keys.judge(first, second, BORN) is verdict
    assert keys.judge(first, second, b"") is Verdict.UNAVAILABLE


OWNED = [
    (b"u-1", Verdict.ALIVE),
    (b"u-2", Verdict.ENDED),
    (b"u-", Verdict.ENDED),
    (b"u-1 ", Verdict.ENDED),
    (b"evil u-1", Verdict.ENDED),
    (b"7 u-1", Verdict.ENDED),
    (b"", Verdict.ENDED),
]


@pytest.mark.parametrize(("owner", "verdict"), OWNED)
@pytest.mark.parametrize("rest", [b"\nlaptop\nagent\nip\n[]", b"\n\n\n\n" + b"x" * 5000])
def test_a_session_is_alive_for_a_token_of_its_own_user_alone(owner: bytes, verdict: Verdict, rest: bytes) -> None:
    keys = LiveKeys(0, b"s", b"r", subject=b"u-1")
    reply = written([(BORN + b" 0 1 2 3 4 " + owner + rest, None)])
    for _ in range(2):  # also where it is compared with the reply before
        found = read(reply, 0, [keys])
        assert found is not None
        assert list(found[0]) == [verdict]


@pytest.mark.parametrize("record", [BORN, BORN + b" u-1", BORN + b" 0 1 2 3 4 u-1", BORN + b" 0 1 2 3 x u-1\n"])
def test_a_record_that_names_no_user_is_no_session(record: bytes) -> None:
    assert LiveKeys(0, b"s", b"r", subject=b"u-1").judge(record, None, BORN) is Verdict.ENDED


LEAD = 20  # seconds by which an issuer's clock may be ahead of Redis'


@pytest.mark.parametrize("kind", [Kind.TOKEN, Kind.SUBJECT])
def test_a_foreign_token_that_may_be_older_than_the_store_never_passes(kind: Kind) -> None:
    """It was dated by a clock that may be ahead: at Redis it may have been revoked before the data was lost."""
    began = 1763730000
    for issued_at in (began - 1, began, began + 1, began + LEAD):
        assert LiveKeys(0, b"a", b"b", kind, issued_at, lead=LEAD).judge(None, BORN + b" 5 abc", BORN) is Verdict.ENDED
    younger = LiveKeys(0, b"a", b"b", kind, began + LEAD + 1, lead=LEAD)
    assert younger.judge(None, BORN + b" 5 abc", BORN) is Verdict.ALIVE


def test_while_no_younger_token_can_be_had_nobody_is_sent_to_get_one() -> None:
    began = int(time.time()) - LEAD // 2
    epoch = b"%d 0 " % began
    verdicts = {}
    for issued_at in (began, began + 1, began + LEAD, began + LEAD + 1):
        keys = LiveKeys(0, b"a", b"b", Kind.TOKEN, issued_at, lead=LEAD)
        keys.passed_at = 1.0
        verdicts[issued_at - began] = keys.judge(None, epoch, epoch[:10])
        assert (keys.passed_at == -math.inf) is (
            0 < issued_at - began <= LEAD
        )  # on_outage = "allow-recent" is no remedy
    assert verdicts == {0: Verdict.ENDED, 1: Verdict.UNAVAILABLE, LEAD: Verdict.UNAVAILABLE, LEAD + 1: Verdict.ALIVE}


@given(st.binary(max_size=60) | st.text("*$-1240\r\n+:", max_size=60).map(str.encode), st.integers(1, 3))
def test_noise_never_passes_anybody(noise: bytes, count: int) -> None:
    try:
        found = read(noise, 0, asks(count))
    except ProtocolViolation:
        return
    if found is not None and Verdict.ALIVE in found[0]:
        assert noise.startswith(b"*%d\r\n$" % (2 * count))


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_the_keys_of_an_ask_are_written_with_their_lengths(first: bytes, second: bytes) -> None:
    keys = LiveKeys(0, first, second)
    assert keys.names() == (first, second)
    assert keys.wire == b"$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(first), first, len(second), second)


@pytest.mark.parametrize("text", [b":0\r\n", b":12\r\n"])
def test_an_integer_is_read_and_its_beginning_waited_upon(text: bytes) -> None:
    assert parse_integer(b"x" + text + b"y", 1) == 1 + len(text)
    assert all(parse_integer(text[:cut], 0) is None for cut in range(len(text)))
    for wrong in (b"+1\r\n", b":x\r\n", b":1\rx", b":" + b"1" * 20, b"$1\r\n1\r\n"):
        with pytest.raises(ProtocolViolation):
            parse_integer(wrong, 0)


def test_the_greeting_says_who_we_are_and_which_database() -> None:
    plain, replies = greeting("", "", 0)
    assert plain == b"*4\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$7\r\nSETNAME\r\n$14\r\ntokengate-live\r\n"
    assert replies == [Greeting.HELLO]
    full, replies = greeting("", "p", 3)
    assert b"$4\r\nAUTH\r\n$7\r\ndefault\r\n$1\r\np\r\n" in full
    assert full.endswith(b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n")
    assert replies == [Greeting.HELLO, Greeting.SELECT]


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
