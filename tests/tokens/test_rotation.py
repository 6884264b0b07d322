"""The rotation of refresh tokens as a truth table. c is 5; times are seconds; the grace is 10."""

from __future__ import annotations

import pytest

from gateway.tokens.rotation import Outcome, SessionState, idle_end, mark_used, rotate

NOW = 1000.0
UNUSED = SessionState(counter=5, used_at=None, expires_at=2000)


def used(seconds_ago: float) -> SessionState:
    return SessionState(counter=5, used_at=NOW - seconds_ago, expires_at=2000)


# presented, session before, outcome
TABLE = [
    (5, UNUSED, Outcome.ROTATED),
    (5, used(0), Outcome.ROTATED),
    (5, used(500), Outcome.ROTATED),
    (4, UNUSED, Outcome.REPLAYED),
    (4, used(0), Outcome.REPLAYED),
    (4, used(10), Outcome.REPLAYED),
    (4, used(10.001), Outcome.REUSE),
    (4, used(500), Outcome.REUSE),
    (3, UNUSED, Outcome.REUSE),
    (3, used(0), Outcome.REUSE),
    (0, UNUSED, Outcome.REUSE),
    (-1, UNUSED, Outcome.REUSE),
    (-1, SessionState(counter=0), Outcome.REUSE),
    (0, SessionState(counter=0), Outcome.ROTATED),
    (0, SessionState(counter=1), Outcome.REPLAYED),
    (6, UNUSED, Outcome.REUSE),
    (7, used(0), Outcome.REUSE),
    (5, None, Outcome.UNKNOWN),
    (4, None, Outcome.UNKNOWN),
    (-1, None, Outcome.UNKNOWN),
    (5, SessionState(counter=5, expires_at=1001), Outcome.ROTATED),
    (5, SessionState(counter=5, expires_at=1000), Outcome.EXPIRED),
    (4, SessionState(counter=5, expires_at=1000), Outcome.EXPIRED),
    (0, SessionState(counter=5, expires_at=999), Outcome.EXPIRED),
    (5, SessionState(counter=5, ends_at=1000), Outcome.EXPIRED),
    (5, SessionState(counter=5, expires_at=0, ends_at=0), Outcome.ROTATED),
]


@pytest.mark.parametrize(("presented", "before", "outcome"), TABLE)
def test_the_table_of_rotation_holds(presented: int, before: SessionState | None, outcome: Outcome) -> None:
    decision = rotate(before, presented, NOW, 10, 600)
    assert decision.outcome is outcome
    if outcome is Outcome.REPLAYED:
        assert decision.session == before
    elif outcome is Outcome.ROTATED:
        assert before is not None
        assert decision.session is not None
        assert decision.session.counter == before.counter + 1
        assert decision.session.used_at is None
    else:
        assert decision.session is None


def test_without_a_grace_a_successor_that_was_used_makes_the_old_token_reuse() -> None:
    assert rotate(used(0), 4, NOW, 0).outcome is Outcome.REPLAYED
    assert rotate(used(0.001), 4, NOW, 0).outcome is Outcome.REUSE


@pytest.mark.parametrize(
    ("ttl", "ends_at", "end"),
    [(600, 0, 1600), (600, 5000, 1600), (600, 1200, 1200), (0, 1200, 1200), (0, 0, 0), (600.9, 0, 1600)],
)
def test_a_rotation_renews_the_idle_end_up_to_the_absolute_one(ttl: float, ends_at: int, end: int) -> None:
    assert idle_end(NOW, ttl, ends_at) == end
    after = rotate(SessionState(counter=5, expires_at=1100, ends_at=ends_at), 5, NOW, 10, ttl).session
    assert after is not None
    assert after.expires_at == end


def test_the_first_use_of_the_present_counter_is_kept_and_no_other() -> None:
    assert mark_used(UNUSED, 5, NOW) == used(0)
    assert mark_used(used(7), 5, NOW) == used(7)
    assert mark_used(UNUSED, 4, NOW) == UNUSED
    assert mark_used(UNUSED, 6, NOW) == UNUSED
    assert mark_used(None, 5, NOW) is None
    assert mark_used(SessionState(counter=5, expires_at=1000), 5, NOW) is None
