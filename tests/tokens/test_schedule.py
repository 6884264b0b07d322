"""Which key signs when: one rule, the same in every replica; and until when a key is needed."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Literal

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.tokens.keyring import Key, KeyFile, Keyring, RefreshKeys
from gateway.tokens.refresh import RefreshTokens
from gateway.tokens.schedule import Kind, Lives, Schedule, Stage, stages
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier
from tests.tokens.support import AUDIENCE, ISSUER, LEEWAY, NOW, SESSION, TTL, key_file, refresh_file

FOREVER = 10**11  # the year 5138
BEFORE = 300.0  # seconds that a key is published
DAY = 86400.0
COMMON = refresh_file()


def key(born: float, kid: str = "") -> Key:
    return Key(kid or f"k-{born:g}", "HS256", born, b"s" * 32, b"s" * 32)


def schedule(*born: float, before: float = BEFORE) -> Schedule:
    return Schedule([key(each) for each in born], before)


def signing(plan: Schedule, now: float) -> float:
    return plan.at(now).born


# --- the rule ---


def test_a_first_key_signs_at_once() -> None:
    for now in (NOW - DAY, NOW, NOW + 1, NOW + BEFORE, NOW + DAY):
        assert signing(schedule(NOW), now) == NOW


@pytest.mark.parametrize(
    ("now", "signs"),
    [(NOW, 0), (NOW + 1, 0), (NOW + 299.999, 0), (NOW + 300, NOW), (NOW + 301, NOW), (NOW + DAY, NOW)],
)
def test_a_new_key_signs_once_it_has_been_published_for_long_enough(now: float, signs: float) -> None:
    assert signing(schedule(0, NOW), now) == signs


def test_with_no_time_to_be_published_the_newest_key_signs_from_its_birth_on() -> None:
    plan = schedule(0, NOW, before=0)
    assert signing(plan, NOW - 0.001) == 0
    assert signing(plan, NOW) == NOW


def test_where_no_key_has_been_published_for_long_enough_the_oldest_signs() -> None:
    plan = schedule(NOW, NOW + 10, NOW + 20)
    assert [signing(plan, NOW + now) for now in (0, 50, 299, 300, 310, 320)] == [NOW, NOW, NOW, NOW, NOW + 10, NOW + 20]


def test_a_key_of_a_far_future_waits_for_its_time_and_holds_up_no_other() -> None:
    plan = schedule(0, NOW, FOREVER)
    assert [signing(plan, now) for now in (NOW, NOW + 300, FOREVER, FOREVER + 299)] == [0, NOW, NOW, NOW]
    assert signing(plan, FOREVER + 300) == FOREVER


def test_of_keys_that_were_born_alike_the_one_of_the_greater_kid_is_the_newer() -> None:
    pair = [key(NOW, "a"), key(NOW, "b")]
    for ordered in (pair, pair[::-1]):
        plan = Schedule(ordered, BEFORE)
        assert [plan.at(now).kid for now in (NOW, NOW + 299, NOW + 300)] == ["a", "a", "b"]
        late = Schedule([key(0, "z"), *ordered], BEFORE)
        assert [late.at(now).kid for now in (NOW + 299, NOW + 300)] == ["z", "b"]


def test_when_the_stolen_key_is_removed_the_new_one_signs_at_once() -> None:
    assert signing(schedule(0, NOW), NOW + 1) == 0
    assert signing(schedule(NOW), NOW + 1) == NOW


def test_the_keys_that_wait_are_told_in_their_order() -> None:
    plan = schedule(NOW + 5, 0, NOW)
    assert [(each.born, due) for each, due in plan.waiting(NOW + 299)] == [(NOW, NOW + 300), (NOW + 5, NOW + 305)]
    assert [each.born for each, _ in plan.waiting(NOW + 300)] == [NOW + 5]
    assert plan.waiting(NOW + 305) == []


def test_a_key_that_cannot_sign_with_the_algorithm_never_does_however_long_it_is_published() -> None:
    files = [key_file("ES256"), replace(key_file("EdDSA"), name="20240101T000000Z-e.pem")]
    ring = Keyring.load(files, "ES256", BEFORE)
    assert ring.signing_at(FOREVER).algorithm == "ES256"


TIMES = st.integers(0, 5000)
BORN = st.lists(st.integers(0, 1000), min_size=1, max_size=6)
BEFORES = st.sampled_from([0, 1, 300])


@given(born=BORN, before=BEFORES, now=TIMES, shuffled=st.randoms())
def test_every_replica_finds_the_key_that_the_rule_names(
    born: list[int], before: int, now: int, shuffled: Random
) -> None:
    keys = [key(each, f"k{number}") for number, each in enumerate(born)]
    due = [each for each in keys if each.born + before <= now]
    wanted = max(due, key=lambda k: (k.born, k.kid)) if due else min(keys, key=lambda k: (k.born, k.kid))
    shuffled.shuffle(keys)
    assert Schedule(keys, before).at(now) is wanted


@given(born=BORN, before=BEFORES, times=st.lists(TIMES, min_size=2, max_size=10))
def test_as_time_passes_the_signing_key_only_gets_newer(born: list[int], before: int, times: list[int]) -> None:
    plan = schedule(*born, before=before)
    signed = [plan.at(now) for now in sorted(times)]
    assert [(each.born, each.kid) for each in signed] == sorted((each.born, each.kid) for each in signed)


@given(born=BORN, newer_by=st.integers(1, 1000), before=BEFORES, drawn=st.data())
def test_a_key_that_is_added_changes_nothing_before_its_time(
    born: list[int], newer_by: int, before: int, drawn: st.DataObject
) -> None:
    """So it does not matter which of the replicas have it already."""
    added = max(born) + newer_by
    now = drawn.draw(st.integers(0, added + before - 1))
    assert schedule(*born, before=before).at(now).kid == schedule(*born, added, before=before).at(now).kid


@given(born=BORN, before=BEFORES, now=TIMES)
def test_to_remove_a_key_that_has_been_followed_changes_nothing_from_then_on(
    born: list[int], before: int, now: int
) -> None:
    plan = schedule(*born, before=before)
    left = [each for each in born if each >= plan.at(now).born]
    for later in (now, now + 1, now + 5000):
        assert schedule(*left, before=before).at(later).kid == plan.at(later).kid


# --- tokens ---


def named(born: int) -> str:
    return f"20231114T{born // 3600:02}{born // 60 % 60:02}{born % 60:02}Z-k"


START = 1_699_920_000  # the midnight that names like these count from


def access_ring(*born: int, before: float = BEFORE) -> Keyring:
    files = [replace(key_file("ES256", number), name=f"{named(at)}.pem") for number, at in enumerate(born)]
    return Keyring.load(files, "ES256", before)


def refresh_ring(*born: int, before: float = BEFORE) -> RefreshKeys:
    return RefreshKeys.load([KeyFile(f"{named(at)}.refresh.jwk", COMMON.data, NOW) for at in born], before)


def test_a_new_key_verifies_and_is_published_before_it_signs() -> None:
    old, both = access_ring(0), access_ring(0, 1000)
    signers = [Signer(ring, ISSUER, AUDIENCE, TTL) for ring in (old, both)]
    verifier = Verifier(both, ISSUER, AUDIENCE, LEEWAY)
    assert [jwk["kid"] for jwk in both.jwks()["keys"]] == [named(1000), named(0)]
    for now, kids in ((1001, [named(0)] * 2), (1299, [named(0)] * 2), (1300, [named(0), named(1000)])):
        tokens = [
            signer.mint(
                subject="u", session_id=SESSION, counter=0, roles=[], scope="", claims={}, now=START + now
            ).token.encode()
            for signer in signers
        ]
        assert [kid_of(token) for token in tokens] == kids
        assert [verifier.verify(token, START + now).sub for token in tokens] == ["u", "u"]


def kid_of(token: bytes) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


@pytest.mark.parametrize("form", ["opaque", "jwt"])
@given(born=st.lists(st.integers(0, 2000), min_size=1, max_size=4, unique=True), drawn=st.data())
def test_a_successor_is_the_same_whenever_and_wherever_it_is_asked_for(
    form: Literal["opaque", "jwt"], born: list[int], drawn: st.DataObject
) -> None:
    """A replay long after the key has changed, at a replica that has the next key already: the same token."""
    here = RefreshTokens(refresh_ring(*born), form, ISSUER)
    later = drawn.draw(st.integers(max(born) + 1, 3000))
    issued = drawn.draw(st.integers(0, later + int(BEFORE) - 1))
    there = RefreshTokens(refresh_ring(*born, later), form, ISSUER)
    minted = {each.mint(SESSION, 7, START + issued, START + issued + 99) for each in (here, there, here)}
    assert len(minted) == 1
    for each in (here, there):
        assert each.read(minted.copy().pop(), START + issued).counter == 7


def test_a_refresh_token_is_made_with_the_key_of_when_its_session_was_rotated() -> None:
    maker = RefreshTokens(refresh_ring(0, 1000), "opaque", ISSUER)
    kids = [maker.mint(SESSION, 7, START + issued, 0).split(".")[1] for issued in (10, 1299, 1300, 9999)]
    assert kids == [named(0), named(0), named(1000), named(1000)]


# --- until when a key is needed ---


def found(now: float, *born: float, needed: float | None = 100.0, **arrived: float) -> list[tuple[float, Stage]]:
    keys = [key(each) for each in born]
    told = {name.replace("k_", "k-"): at for name, at in arrived.items()}
    kind: Kind = "access"
    return [(each.key.born, each) for each in stages(kind, keys, Schedule(keys, BEFORE), needed, told, now)]


@pytest.mark.parametrize(
    ("now", "states"),
    [
        (1000, ["published", "signing"]),
        (1299, ["published", "signing"]),
        (1300, ["signing", "retired"]),
        (1399, ["signing", "retired"]),
        (1400, ["signing", "may be removed"]),
        (FOREVER, ["signing", "may be removed"]),
    ],
)
def test_a_key_is_published_signs_is_retired_and_may_be_removed(now: float, states: list[str]) -> None:
    assert [stage.state for _, stage in found(now, 0, 1000)] == states


def test_the_table_says_from_when_a_key_signs_and_after_when_it_may_be_removed() -> None:
    (_, newest), (_, oldest) = found(1350, 0, 1000)
    assert (newest.signs_from, newest.removable_after) == (1300, None)
    assert (oldest.signs_from, oldest.removable_after) == (0, 1400)


def test_a_key_whose_follower_came_late_is_needed_for_as_long_after_that() -> None:
    (_, newest), (_, oldest) = found(1450, 0, 1000, k_1000=1500.0)
    assert (newest.state, oldest.state, oldest.removable_after) == ("signing", "retired", 1600)


def test_where_tokens_live_for_ever_their_keys_do() -> None:
    assert [(stage.state, stage.removable_after) for _, stage in found(FOREVER, 0, 1000, needed=None)] == [
        ("signing", None),
        ("retired", None),
    ]


def test_a_key_that_only_verifies_is_told_as_that_and_is_never_for_removal() -> None:
    able, public = key(NOW), replace(key(0, "public"), private=None)
    listed = stages("access", [able, public], Schedule([able], BEFORE), 1.0, {}, FOREVER)
    assert [(stage.key.kid, stage.state, stage.removable_after) for stage in listed] == [
        (able.kid, "signing", None),
        ("public", "verifies", None),
    ]


@given(born=BORN, now=TIMES)
def test_the_signing_key_and_those_to_come_are_never_for_removal(born: list[int], now: int) -> None:
    keys = [key(each, f"k{number}") for number, each in enumerate(born)]
    plan = Schedule(keys, BEFORE)
    listed = {stage.key.kid: stage.state for stage in stages("access", keys, plan, 0.0, {}, now)}
    assert listed.keys() == {each.kid for each in keys}
    assert [kid for kid, state in listed.items() if state == "signing"] == [plan.at(now).kid]
    assert {listed[each.kid] for each, _ in plan.waiting(now)} <= {"published"}


@given(born=BORN, now=TIMES, life=st.integers(0, 1000), later=st.integers(0, 5000))
def test_what_may_be_removed_has_signed_no_token_that_lives(born: list[int], now: int, life: int, later: int) -> None:
    """Neither one of the last life nor one that is signed after now."""
    keys = [key(each, f"k{number}") for number, each in enumerate(born)]
    plan = Schedule(keys, BEFORE)
    gone = {s.key.kid for s in stages("access", keys, plan, float(life), {}, now) if s.state == "may be removed"}
    assert plan.at(now - life + later).kid not in gone


@pytest.mark.parametrize(
    ("refresh_ttl", "session_ttl", "needed"),
    [(30.0, 0.0, 60.0), (0.0, 180.0, 180.0), (30.0, 45.0, 45.0), (30.0, 180.0, 60.0), (0.0, 0.0, None)],
)
def test_a_refresh_key_is_needed_until_its_last_token_and_the_replays_of_that_have_ended(
    refresh_ttl: float, session_ttl: float, needed: float | None
) -> None:
    assert Lives(600, 10, refresh_ttl, session_ttl).after_refresh() == needed


def test_an_access_key_is_needed_until_its_last_token_has_ended_by_every_clock() -> None:
    assert Lives(600, 10, 0, 0).after_access() == 610
