"""What the verifier remembers, for how long, and how much of it."""

from __future__ import annotations

import time
from unittest.mock import patch

import pytest

from gateway.errors import ExpiredToken, InvalidToken
from gateway.tokens.keyring import Keyring
from gateway.tokens.verifier import Verifier
from tests.tokens.support import LEEWAY, NOW, TTL, claims, key_file, keyring, mint, signed, verifier


def remembered(checker: Verifier) -> int:
    return len(checker._known)


def weight(checker: Verifier) -> int:
    return checker._known.bytes


def test_the_same_token_gives_the_same_claims_and_is_verified_once() -> None:
    checker, token = verifier(), mint()
    first = checker.verify(token, NOW)
    with patch("gateway.tokens.jws.read", side_effect=AssertionError("verified again")):
        assert checker.verify(bytes(bytearray(token)), NOW + 1) is first
        assert checker.verify(token, NOW + TTL + LEEWAY - 0.001) is first


@pytest.mark.parametrize("seen", [NOW, NOW + TTL, NOW + TTL + LEEWAY - 1])
def test_what_is_remembered_never_outlives_its_expiry(seen: float) -> None:
    checker, token = verifier(), mint()
    checker.verify(token, seen)
    for late in (NOW + TTL + LEEWAY, NOW + TTL + LEEWAY, NOW + 10**6):
        with pytest.raises(ExpiredToken) as caught:
            checker.verify(token, late)
        assert caught.value.claims.sub == "u-1"
    assert remembered(checker) == 0
    assert weight(checker) == 0


def test_a_remembered_token_lasts_no_longer_than_one_seen_for_the_first_time() -> None:
    token = mint()
    for late in range(TTL - 2, TTL + LEEWAY + 3):
        outcomes: list[bool] = []
        for checker in (verifier(), verifier()):
            if not outcomes:
                checker.verify(token, NOW)
            try:
                outcomes.append(bool(checker.verify(token, NOW + late)))
            except ExpiredToken:
                outcomes.append(False)
        assert outcomes[0] is outcomes[1]


def test_neither_an_expired_nor_an_invalid_token_is_remembered_as_good() -> None:
    checker = verifier()
    with pytest.raises(ExpiredToken):
        checker.verify(mint(), NOW + 10**6)
    for bad in (mint()[:-4] + b"AAAA", signed(claims(iat=NOW + 99)), b"x" * 100):
        with pytest.raises(InvalidToken):
            checker.verify(bad, NOW)
    assert remembered(checker) == 0


def test_a_flood_of_one_expired_token_is_verified_once() -> None:
    checker, token = verifier(), mint()
    late = NOW + TTL + LEEWAY
    with pytest.raises(ExpiredToken) as first:
        checker.verify(token, late)
    with patch("gateway.tokens.jws.read", side_effect=AssertionError("verified again")):
        for _ in range(3):
            with pytest.raises(ExpiredToken) as again:
                checker.verify(bytes(bytearray(token)), late + 1)
            assert again.value.claims is first.value.claims


def test_an_expired_token_is_good_again_for_a_clock_that_was_set_back() -> None:
    checker, token = verifier(), mint()
    with pytest.raises(ExpiredToken):
        checker.verify(token, NOW + TTL + LEEWAY)
    assert checker.verify(token, NOW).sub == "u-1"


def test_a_token_that_differs_in_one_bit_of_an_expired_one_is_invalid() -> None:
    checker, token, late = verifier(), mint(), NOW + TTL + LEEWAY
    with pytest.raises(ExpiredToken):
        checker.verify(token, late)
    with pytest.raises(InvalidToken):
        checker.verify(token[:-5] + bytes([token[-5] ^ 1]) + token[-4:], late)


def test_expired_tokens_are_remembered_in_bounded_number_and_never_in_the_place_of_good_ones() -> None:
    ring = keyring("HS256")
    checker = verifier(ring, max_entries=10)
    good = [mint(ring, subject=f"good-{n}", now=NOW + TTL + LEEWAY) for n in range(10)]
    seen = [checker.verify(token, NOW + TTL + LEEWAY) for token in good]
    for number in range(40):
        with pytest.raises(ExpiredToken):
            checker.verify(mint(ring, subject=f"old-{number}"), NOW + TTL + LEEWAY)
    assert len(checker._expired) == 10
    assert [checker.verify(token, NOW + TTL + LEEWAY) for token in good] == seen


def test_a_reload_forgets_expired_tokens_too() -> None:
    old, new = key_file("ES256"), key_file("ES256", 1)
    checker, token = verifier(Keyring.load([old], "ES256")), mint(Keyring.load([old], "ES256"))
    with pytest.raises(ExpiredToken):
        checker.verify(token, NOW + 10**6)
    checker.reload(Keyring.load([new], "ES256"))
    with pytest.raises(InvalidToken, match="no key"):
        checker.verify(token, NOW + 10**6)


def test_a_token_that_differs_in_one_bit_is_not_the_remembered_one() -> None:
    checker, token = verifier(), mint()
    checker.verify(token, NOW)
    for place in range(0, len(token), 7):
        other = token[:place] + bytes([token[place] ^ 1]) + token[place + 1 :]
        with pytest.raises(InvalidToken):
            checker.verify(other, NOW)


def test_the_number_of_remembered_tokens_is_bounded_and_the_oldest_goes_first() -> None:
    ring = keyring("HS256")
    checker = verifier(ring, max_entries=10)
    tokens = [mint(ring, subject=f"u-{n}") for n in range(25)]
    seen = [checker.verify(token, NOW) for token in tokens]
    assert remembered(checker) == 10
    assert checker.verify(tokens[-10], NOW) is seen[-10]
    assert checker.verify(tokens[0], NOW) is not seen[0]


def test_the_bytes_of_remembered_tokens_are_bounded() -> None:
    ring = keyring("HS256")
    checker = verifier(ring, max_bytes=40_000)
    for number in range(30):
        checker.verify(mint(ring, pad="x" * 5000, number=number), NOW)
        assert weight(checker) == sum(map(len, checker._known._entries)) <= 40_000
    assert remembered(checker) == 5


@pytest.mark.parametrize("bounds", [{"max_entries": 0}, {"max_bytes": 0}, {"max_bytes": 10}])
def test_a_memory_of_nothing_still_verifies(bounds: dict[str, int]) -> None:
    checker, token = verifier(None, **bounds), mint()
    for _ in range(2):
        assert checker.verify(token, NOW).sub == "u-1"
        assert remembered(checker) == weight(checker) == 0


def test_expired_tokens_make_room_as_others_come() -> None:
    ring = keyring("HS256")
    checker = verifier(ring)
    for number in range(20):
        checker.verify(mint(ring, subject=f"old-{number}"), NOW)
    later = NOW + TTL + LEEWAY
    for number in range(10):
        checker.verify(mint(ring, subject=f"new-{number}", now=later), later)
    assert remembered(checker) == 10
    assert all(entry.sub.startswith("new") for entry, *_ in checker._known._entries.values())


def test_a_reload_forgets_what_a_retired_key_had_verified() -> None:
    """A key that leaked is taken out of the directory: its tokens are void at once."""
    old, new = key_file("ES256"), key_file("ES256", 1)
    checker, token = verifier(Keyring.load([old], "ES256")), mint(Keyring.load([old], "ES256"))
    first = checker.verify(token, NOW)
    checker.reload(Keyring.load([old, new], "ES256"))
    assert remembered(checker) == weight(checker) == 0
    assert checker.verify(token, NOW) is not first
    checker.reload(Keyring.load([new], "ES256"))
    with pytest.raises(InvalidToken, match="no key"):
        checker.verify(token, NOW)


def test_verifiers_share_nothing() -> None:
    token = mint()
    assert verifier().verify(token, NOW) is not verifier().verify(token, NOW)


def test_looking_up_a_remembered_token_costs_no_more_than_a_few_dictionary_look_ups() -> None:
    """Some 0.2 us for a token of 500 bytes just cut out of a header; 5 us allow for a busy machine."""
    checker, value = verifier(), b"Bearer " + mint()
    checker.verify(value[7:], NOW)
    rounds = []
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(5_000):
            checker.verify(value[7:], NOW)
        rounds.append(time.perf_counter() - begin)
    assert min(rounds) / 5_000 < 5e-6
