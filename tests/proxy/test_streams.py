"""Which streams are asked about at a look, whatever the epoch says."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.proxy.streams import ROUND, SOON, Turn, Watched
from gateway.sessions.liveness import LiveKeys

NOW = 1_000_000.0


@dataclass(eq=False)
class Exchange:
    """Remembers why it was ended."""

    name: str = ""
    claims: Any = None
    live = True
    keeps = False
    ended: list[str] = field(default_factory=list)

    def end_stream(self, reason: str) -> None:
        self.ended.append(reason)


def keys(ends: float | None) -> LiveKeys:
    """Return keys whose session's record says so; None: nothing is known."""
    made = LiveKeys(3, b"session", b"revoked")
    if ends is not None:
        life = int(ends - NOW) if ends < math.inf else 0
        record = b"0000000001 0 %d 0 0 %d u-1\n\n\n\n[]" % (NOW, life)
        made.usual = b"$%d\r\n%b\r\n$-1\r\n" % (len(record), record)
    return made


def turn(*ends: float | None) -> tuple[Turn, list[Watched]]:
    made = Turn()
    for end in ends:
        made.add(Exchange(), math.inf, keys(end))
    return made, list(made.live.values())


def test_a_new_stream_is_asked_about_at_the_next_look() -> None:
    made, watched = turn(*[math.inf] * 100)
    assert set(made.due(NOW)) == set(watched)
    made.add(Exchange(), math.inf, keys(math.inf))
    assert list(made.live.values())[-1] in made.due(NOW)


def test_every_stream_is_asked_about_once_in_a_round_and_a_few_at_a_look() -> None:
    made, watched = turn(*[math.inf] * 100)
    assert set(made.due(NOW)) == set(watched)  # all are new
    looks = [made.due(NOW) for _ in range(2 * ROUND)]
    assert max(map(len, looks)) <= math.ceil(100 / ROUND)
    assert all(sum(each in look for look in looks) in (1, 2, 3) for each in watched)


@pytest.mark.parametrize(
    ("ends", "every_look"),
    [
        (None, True),
        (NOW - 5, True),
        (NOW + SOON - 1, True),
        (NOW + SOON + 1, False),
        (math.inf, False),
    ],
)
def test_a_stream_whose_session_may_end_by_itself_is_asked_about_at_every_look(
    ends: float | None, every_look: bool
) -> None:
    made, _ = turn(ends, *[math.inf] * 99)
    first = next(iter(made.live.values()))
    made.due(NOW)
    assert all(first in made.due(NOW) for _ in range(ROUND)) is every_look


def test_an_end_that_comes_near_is_noticed_and_one_that_a_refresh_put_off_is_forgotten() -> None:
    made, watched = turn(NOW + SOON + 10, *[math.inf] * 99)
    for _ in range(2 * ROUND):
        made.due(NOW)
    assert all(watched[0] in made.due(NOW + 11) for _ in range(ROUND))
    watched[0].keys.usual = keys(NOW + 10_000).usual
    watched[0](0)
    assert not all(watched[0] in made.due(NOW + 12) for _ in range(ROUND))


def test_what_is_over_is_asked_about_no_more() -> None:
    made, watched = turn(None, math.inf)
    for stream in list(made.live):
        made.discard(stream)
    assert made.due(NOW) == []
    assert all(each.over for each in watched)
    assert not made.expiring


def test_expired_streams_are_ended_and_nothing_else_is_looked_at_before_the_next_is_due() -> None:
    made, late, early, kept = Turn(), Exchange(), Exchange(), Exchange()
    for stream, expiry in ((late, NOW + 9), (early, NOW), (kept, math.inf)):
        made.add(stream, expiry, None)
    made.end_expired(NOW - 1)
    assert early.ended == []
    made.end_expired(NOW)
    made.discard(early)
    assert (early.ended, late.ended, kept.ended) == (["expired"], [], [])
    made.end_expired(NOW + 9)
    assert (late.ended, kept.ended) == (["expired"], [])
