"""What an access token says, and what can never be minted."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ExpiredToken
from gateway.tokens.keyring import ALGORITHMS, Keyring
from gateway.tokens.signer import REGISTERED, CannotMint, Signer
from tests.tokens.support import AUDIENCE, ISSUER, NOW, SESSION, TTL, key_file, keyring, mint, signer, verifier

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def make(**changes: Any) -> str:
    good: dict[str, Any] = {
        "subject": "u-1",
        "session_id": SESSION,
        "counter": 3,
        "roles": ["user"],
        "scope": "orders:read",
        "claims": {},
        "now": NOW,
    }
    return signer().mint(**(good | changes)).token


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_library_verifies_what_was_minted(algorithm: str) -> None:
    ring = keyring(algorithm)
    token = mint(ring, email="a@example.com").decode()
    key = ring.signing.public if algorithm == "HS256" else jwt.PyJWK(ring.jwks()["keys"][0])
    checks = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
    claims = jwt.decode(token, key, [algorithm], audience=AUDIENCE, issuer=ISSUER, options=checks)  # type: ignore[arg-type]
    assert claims["email"] == "a@example.com"
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": ring.signing.kid, "typ": "at+jwt"}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_minted_is_read_back(algorithm: str) -> None:
    ring = keyring(algorithm)
    made = signer(ring).mint(
        subject="u-1",
        session_id=SESSION,
        counter=3,
        roles=("user", "admin"),
        scope="orders:read orders:write",
        claims={"email": "ä@example.com", "deep": {"list": [1, 2.5, None, True]}},
        now=NOW + 0.7,
        client_id="app",
    )
    claims = verifier(ring).verify(made.token.encode(), NOW)
    assert (claims.iss, claims.aud, claims.sub) == (ISSUER, (AUDIENCE,), "u-1")
    assert (claims.sid, claims.n, claims.client_id) == (SESSION, 3, "app")
    assert claims.roles == ("user", "admin")
    assert claims.scope == ("orders:read", "orders:write")
    assert (claims.iat, claims.exp, claims.jti) == (NOW, NOW + TTL, made.token_id)
    assert made.expires_at == claims.exp
    assert claims.raw["email"] == "ä@example.com"
    assert claims.raw["deep"] == {"list": [1, 2.5, None, True]}


def test_a_token_lives_for_its_ttl_in_whole_seconds_from_the_one_it_was_issued_in() -> None:
    made = Signer(keyring(), ISSUER, AUDIENCE, 0.5).mint(
        subject="u", session_id=SESSION, counter=0, roles=[], scope="", claims={}, now=NOW + 0.9
    )
    assert made.expires_at == NOW + 1


def test_the_token_id_begins_with_the_partition_of_the_session_and_never_repeats() -> None:
    made = [
        signer().mint(subject="u", session_id="7" + "S" * 22, counter=0, roles=[], scope="", claims={}, now=NOW)
        for _ in range(50)
    ]
    assert {one.token_id[0] for one in made} == {"7"}
    assert len({one.token_id for one in made}) == 50
    assert len(made[0].token_id) == 17  # the digit and 96 bits


def test_no_further_claim_stands_in_for_a_registered_one() -> None:
    usurper = dict.fromkeys(REGISTERED, "usurped") | {"email": "e"}
    claims = verifier().verify(make(claims=usurper).encode(), NOW)
    assert "usurped" not in json.dumps(claims.raw)
    assert claims.raw["email"] == "e"
    assert "nbf" not in claims.raw
    assert claims.client_id == ""


def test_a_minted_token_does_not_show_itself_when_printed() -> None:
    made = signer().mint(subject="u", session_id=SESSION, counter=0, roles=[], scope="", claims={}, now=NOW)
    assert made.token not in repr(made)


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": ""},
        {"subject": "u" * 256},
        {"subject": "u\r\nX-Admin: 1"},
        {"subject": "\ud800"},
        {"subject": 7},
        {"session_id": ""},
        {"session_id": "g" + "S" * 22},
        {"session_id": "a" + "S" * 14},
        {"session_id": "a" + "S" * 64},
        {"session_id": SESSION + "\n"},
        {"counter": -1},
        {"counter": True},
        {"counter": 1.0},
        {"roles": [1]},
        {"roles": [None]},
        {"scope": None},
        {"client_id": "c" * 256},
        {"claims": {"a": float("nan")}},
        {"claims": {"a": float("inf")}},
        {"claims": {"a": 2**64}},
        {"claims": {"a": object()}},
        {"claims": {"a": "\ud800"}},
        {"claims": {"a": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}},
        {"claims": {1: "a", "1": "b"}},
        {"claims": {"a": "x" * 7000}},
        {"roles": ["x" * 7000]},
    ],
)
def test_what_the_verifier_would_refuse_is_never_minted(changes: dict[str, Any]) -> None:
    with pytest.raises(CannotMint):
        make(**changes)


def test_claims_that_hold_themselves_are_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(CannotMint):
        make(claims=loop)


@settings(max_examples=150, deadline=None)
@given(
    subject=st.text(),
    roles=st.lists(st.text(), max_size=4),
    scope=st.text(),
    claims=st.dictionaries(st.text(), JSON, max_size=4),
)
def test_whatever_is_minted_is_accepted(subject: str, roles: list[str], scope: str, claims: dict[str, Any]) -> None:
    ring = keyring("HS256")
    try:
        made = signer(ring).mint(
            subject=subject, session_id=SESSION, counter=0, roles=roles, scope=scope, claims=claims, now=NOW
        )
    except CannotMint:
        return
    read = verifier(ring).verify(made.token.encode(), NOW)
    assert (read.sub, list(read.roles)) == (subject, roles)
    with pytest.raises(ExpiredToken):
        verifier(ring).verify(made.token.encode(), NOW + TTL + 10)


def test_after_a_reload_the_new_key_signs() -> None:
    made = signer()
    ring = Keyring.load([key_file("ES256"), key_file("ES256", 5)], "ES256")
    made.reload(ring)
    token = made.mint(subject="u", session_id=SESSION, counter=0, roles=[], scope="", claims={}, now=NOW + 5).token
    assert jwt.get_unverified_header(token)["kid"] == key_file("ES256", 5).name.removesuffix(".pem")
