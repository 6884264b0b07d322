"""Which claims make a token good, expired or invalid: all of these are signed as they should be."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from gateway.errors import ExpiredToken, InvalidToken
from gateway.tokens.keyring import ALGORITHMS, Keyring
from tests.tokens.support import (
    ABSENT,
    AUDIENCE,
    ISSUER,
    LEEWAY,
    NOW,
    SESSION,
    TTL,
    as_json,
    claims,
    key_file,
    keyring,
    mint,
    signed,
    verifier,
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_that_another_library_made_is_accepted(algorithm: str) -> None:
    ring = keyring(algorithm)
    head = {"kid": ring.signing.kid, "typ": "at+jwt"}
    token = jwt.encode(claims(), ring.signing.private, algorithm, headers=head)
    assert verifier(ring).verify(token.encode(), NOW).sub == "u-1"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": [AUDIENCE]},
        {"aud": ["other", AUDIENCE]},
        {"roles": []},
        {"scope": ""},
        {"n": 0},
        {"client_id": "app"},
        {"nbf": NOW},
        {"nbf": NOW + LEEWAY},
        {"iat": NOW + LEEWAY},
        {"iat": 0},
        {"exp": NOW - LEEWAY + 1},
        {"exp": 253402300799},
        {"sub": "u" * 255},
        {"sub": "ユーザー"},
        {"jti": "0" + "-_" * 31 + "z"},
        {"extra": {"any": ["thing", 1.5, None]}},
    ],
)
def test_good_claims_are_accepted(changes: dict[str, Any]) -> None:
    assert verifier().verify(signed(claims(**changes)), NOW).sid == SESSION


NOT_WHOLE = [ABSENT, None, True, False, "1700000000", 1700000000.0, 1.5, -1, [], {}, 2**63]
BAD: list[tuple[str, list[Any]]] = [
    ("exp", [*NOT_WHOLE, 253402300800]),
    ("iat", [*NOT_WHOLE, NOW + LEEWAY + 1, 253402300799]),
    ("nbf", [*NOT_WHOLE[1:], NOW + LEEWAY + 1]),
    ("n", [ABSENT, None, True, "3", 3.0, -1, []]),
    ("iss", [ABSENT, None, "", ISSUER + "/", ISSUER.upper(), "https://evil.example", [ISSUER], 1, {}]),
    ("aud", [ABSENT, None, "", "API", "apis", "api ", [], ["other"], [AUDIENCE, 1], [[AUDIENCE]], {AUDIENCE: 1}, 1]),
    ("sub", [ABSENT, None, "", 1, True, [], "u" * 256, "a\nb", "a\x00", "\x7f"]),
    ("jti", [ABSENT, None, "", 1, "a" * 15, "a" * 65, "g" + "a" * 20, "A" + "a" * 20, "a" * 20 + "\n", "a" * 20 + "é"]),
    ("sid", [ABSENT, None, "", 1, "a" * 15, "a" * 65, "g" + "a" * 20, "a" * 20 + "{}", "a" * 20 + ":", "a" * 20 + "."]),
    ("roles", [ABSENT, None, "user", {}, [1], [None], [["user"]], ["user", True]]),
    ("scope", [ABSENT, None, 1, ["orders:read"], {}]),
    ("client_id", [None, "", 1, [], "c" * 256]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD for value in values])
def test_a_claim_of_another_type_form_or_value_makes_the_token_invalid(name: str, value: Any) -> None:
    with pytest.raises(InvalidToken):
        verifier().verify(signed(claims(**{name: value})), NOW)


@pytest.mark.parametrize(
    "date", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"1.7e9", b"1700000600.0", b"-0.0", b"9" * 30, b"1" * 5000]
)
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_a_date_that_is_no_whole_number_of_json_makes_the_token_invalid(name: str, date: bytes) -> None:
    payload = as_json(claims(**{name: "@"})).replace(b'"@"', date)
    with pytest.raises(InvalidToken):
        verifier().verify(signed(payload), NOW)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (as_json(claims())[:-1] + b',"sub":"admin"}', "twice"),
        (as_json(claims())[:-1] + b',"exp":9999999999}', "twice"),
        (as_json(claims())[:-1] + b',"\\u0065xp":9999999999}', "twice"),
        (as_json(claims())[:-1] + b',"x":{"y":1,"y":2}}', "twice"),
        (as_json(claims(x="@")).replace(b'"@"', b"[" * 2500 + b"]" * 2500), "JSON"),
        (as_json(claims(x="@")).replace(b'"@"', b'{"a":' * 900 + b"1" + b"}" * 900), "JSON"),
        (as_json(claims(x="@")).replace(b'"@"', b"[" * 20 + b"]" * 20), "deeply"),
        (as_json(claims()).decode().encode("utf-16"), "JSON"),
        (b"\xef\xbb\xbf" + as_json(claims()), "JSON"),
        (as_json(claims(sub="@")).replace(b"@", b"\xff"), "JSON"),
        (as_json([claims()]), "object"),
        (as_json("claims"), "object"),
        (b"", "JSON"),
        (b"null", "object"),
    ],
)
def test_a_payload_that_two_readers_could_read_differently_is_invalid(payload: bytes, why: str) -> None:
    token = signed(payload)
    assert len(token) < 8192
    with pytest.raises(InvalidToken, match=why):
        verifier().verify(token, NOW)


def test_a_token_is_good_until_the_leeway_after_exp_has_passed_and_expired_from_then_on() -> None:
    token, end = mint(), NOW + TTL + LEEWAY
    assert verifier().verify(token, end - 0.001).sub == "u-1"
    for late in (end, end + 1, end * 2):
        with pytest.raises(ExpiredToken) as caught:
            verifier().verify(token, late)
        assert caught.value.claims.sid == SESSION


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"sub": ""},
        {"nbf": NOW + 1000},
        {"iat": NOW + 1000},
        {"roles": None},
        {"sid": "x"},
    ],
)
def test_a_token_is_called_expired_only_where_nothing_else_is_wrong(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidToken):
        verifier().verify(signed(claims(exp=NOW - 1000, **changes)), NOW)


def test_an_expired_token_with_a_wrong_signature_is_invalid_and_not_expired() -> None:
    token = signed(claims(exp=NOW - 1000))
    with pytest.raises(InvalidToken):
        verifier().verify(token[:-4] + (b"AAAA" if token[-4:] != b"AAAA" else b"BBBB"), NOW)


def test_a_token_of_exactly_8_kib_is_read_and_a_longer_one_is_not() -> None:
    ring = keyring("HS256")
    tokens = [signed(claims(pad="x" * length), ring) for length in range(5600, 6000)]
    fitting = [token for token in tokens if len(token) <= 8192]
    longer = [token for token in tokens if len(token) > 8192]
    assert 8190 <= len(fitting[-1]) <= 8192 < len(longer[0]) <= 8195
    assert verifier(ring).verify(fitting[-1], NOW).sub == "u-1"
    with pytest.raises(InvalidToken, match="too long"):
        verifier(ring).verify(longer[0], NOW)


def test_tokens_of_an_old_key_are_good_for_as_long_as_the_key_is_there() -> None:
    old, new = key_file("ES256"), key_file("ES256", 1)
    token = mint(Keyring.load([old], "ES256"))
    both = Keyring.load([old, new], "ES256")
    assert both.signing.kid == new.name.removesuffix(".pem")
    assert verifier(both).verify(token, NOW).sub == "u-1"
    with pytest.raises(InvalidToken, match="no key"):
        verifier(Keyring.load([new], "ES256")).verify(token, NOW)


def test_the_reason_and_the_claims_of_an_error_never_hold_the_token() -> None:
    token = mint()
    for bad in (token[:-2] + b"AA", token + b".x", b"x" * 9000, signed(claims(sub="", email="p@example.com"))):
        with pytest.raises(InvalidToken) as caught:
            verifier().verify(bad, NOW)
        assert len(caught.value.reason) < 80
        assert "example" not in caught.value.reason
        assert caught.value.__cause__ is None
