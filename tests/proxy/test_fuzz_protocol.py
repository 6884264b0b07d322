"""The same bytes mean the same in whatever pieces they come, and no bytes make an exception escape.

Both ends are read by the code under test itself, the two connections between them are simulated: what is
written to one is kept, what is fed from it is cut where Hypothesis says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.e2e.hostile_answers import ANSWERS
from tests.e2e.hostile_framing import FRAMING
from tests.e2e.hostile_heads import HEADS
from tests.e2e.hostile_rows import HIDDEN
from tests.e2e.hostile_targets import TARGETS
from tests.proxy.simulation import REQUEST, answered, bytewise, cut, outcome, same

FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def alike(data: bytes, places: Sequence[int], limit: int = 32768) -> None:
    whole = outcome([data], limit)
    assert outcome(cut(data, places), limit) == whole
    assert outcome(bytewise(data), limit) == whole


SMALL = [row for row in (*FRAMING, *HEADS, *TARGETS) if len(row.data) < 2000 and b"/auth/" not in row.data]
FRAGMENTS = st.sampled_from(
    [
        REQUEST,
        HIDDEN,
        b"POST /open/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /guarded/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /open/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\nT:\r\n\r\n",
        b"HEAD /open/x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /open/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /open/../guarded HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /open/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"\r\n",
        b"GET /open/x HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /open/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"nonsense\r\n\r\n",
    ]
)
SNIPPETS = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\0", b";", b"0", b"-", b"\xff", b"chunked", b"a"]
)
PLACES = st.lists(st.integers(0, 1 << 16), max_size=6)


@pytest.mark.parametrize("row", SMALL, ids=[row.name for row in SMALL])
def test_a_hostile_request_is_the_same_in_any_two_pieces(row: Any) -> None:
    whole = outcome([row.data])
    assert outcome(bytewise(row.data)) == whole
    step = max(1, len(row.data) // 12)
    for at in range(1, len(row.data), step):
        assert outcome([row.data[:at], row.data[at:]]) == whole, f"cut after {row.data[:at][-30:]!r}"


@FUZZ
@given(parts=st.lists(FRAGMENTS, min_size=1, max_size=4), places=PLACES)
def test_requests_in_a_row_are_the_same_in_any_pieces(parts: list[bytes], places: list[int]) -> None:
    alike(b"".join(parts), places)


@FUZZ
@given(part=st.sampled_from(SMALL), at=st.integers(0, 1 << 16), gone=st.integers(0, 3), put=SNIPPETS, places=PLACES)
def test_a_broken_request_is_the_same_in_any_pieces(
    part: Any, at: int, gone: int, put: bytes, places: list[int]
) -> None:
    place = at % len(part.data)
    alike(part.data[:place] + put + part.data[place + gone :], places)


@FUZZ
@given(size=st.integers(100, 700), shape=st.sampled_from(["value", "space", "target", "name", "lines"]), places=PLACES)
def test_the_limit_of_a_head_is_the_same_in_any_pieces(size: int, shape: str, places: list[int]) -> None:
    target, more = b"/open/x", b""
    if shape == "target":
        target = b"/open/" + b"x" * size
    else:
        more = {
            "value": b"X-A: " + b"a" * size,
            "space": b"X-A:" + b" " * size + b"a",
            "name": b"a" * size + b": b",
            "lines": b"\r\n".join([b"X-A: b"] * (size // 8 + 1)),
        }[shape] + b"\r\n"
    alike(b"GET %b HTTP/1.1\r\nHost: a\r\n%b\r\n" % (target, more), places, limit=400)


@FUZZ
@given(data=st.binary(max_size=200), places=PLACES)
def test_no_bytes_make_an_exception_escape(data: bytes, places: list[int]) -> None:
    alike(data or b"\0", places)


def test_a_long_row_of_upgrades_is_read_without_recursion() -> None:
    for upgrade in (b"h2c", b"websocket", b"x"):
        lines = b"Host: a\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
        for path in (b"/open/x", b"/guarded/x", b"/nowhere"):
            try:
                outcome([(b"GET %b HTTP/1.1\r\n%b" % (path, lines)) * 3000])
            except Exception as error:
                pytest.fail(f"{upgrade!r} {path!r}: {error!r} from {error.__context__!r}", pytrace=False)


# --- answers ---


REPLIES = [bad for bad in ANSWERS if len(bad.data) < 2000 and bad.method == "GET" and bad.then != "stall"]


@pytest.mark.parametrize("bad", REPLIES, ids=[bad.name for bad in REPLIES])
def test_a_hostile_answer_is_the_same_in_any_two_pieces(bad: Any) -> None:
    closes = bad.then == "close"
    whole = answered([bad.data], closes=closes)
    for at in range(1, len(bad.data), max(1, len(bad.data) // 12)):
        pieces = [bad.data[:at], bad.data[at:]]
        assert same(answered(pieces, closes=closes), whole), f"cut after {bad.data[:at][-30:]!r}"


@FUZZ
@given(bad=st.sampled_from(REPLIES), at=st.integers(0, 1 << 16), gone=st.integers(0, 3), put=SNIPPETS, places=PLACES)
@example(bad=REPLIES[0], at=0, gone=0, put=b"\r\n", places=[])
def test_a_broken_answer_is_the_same_in_any_pieces(bad: Any, at: int, gone: int, put: bytes, places: list[int]) -> None:
    place = at % len(bad.data)
    data = bad.data[:place] + put + bad.data[place + gone :]
    whole = answered([data], closes=True)
    assert same(answered(cut(data, places), closes=True), whole)
    assert same(answered(bytewise(data), closes=True), whole)
