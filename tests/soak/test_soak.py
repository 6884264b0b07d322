"""The soak with small numbers: what `make soak` proves at length holds in short, and its laws can be broken."""

from __future__ import annotations

from tests.soak.run import Soak, soak
from tests.soak.traffic import WHOLE


def test_a_short_soak_leaks_nothing_and_its_counters_add_up() -> None:
    result = soak(WHOLE.scaled(0.003))
    assert result.broken == []
    assert result.answers["request 200"] > 1000
    assert result.answers["request 401"] > 10
    assert result.answers["refresh 200"] > 30


def test_a_law_that_does_not_hold_is_named() -> None:
    result = Soak(WHOLE)
    result.hold("no descriptor leaks", holds=False, found=(3, 4))
    assert result.broken == ["no descriptor leaks: (3, 4)"]
