"""Whatever the bytes, the verifier answers with Claims, ExpiredToken or InvalidToken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ExpiredToken, InvalidToken, IssuerUnavailable
from gateway.tokens.claims import Claims
from gateway.tokens.keyfile import FOREIGN_ALGORITHMS
from gateway.tokens.keyset import KeySet
from gateway.tokens.strict import Malformed
from tests.tokens.foreign_support import IDP, checker, foreign_claims, issuers, jwk, keys
from tests.tokens.foreign_support import token as foreign_token
from tests.tokens.support import NOW, as_json, claims, forge, header, keyring, mint, signed, verifier

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from([*claims(), "nbf", "client_id", "x"])
CLAIMS = st.dictionaries(NAMES, JSON, max_size=3).map(lambda changes: claims(**changes))
SEGMENT = st.text("eyJhbGciOiJub25lIn0-_=. ", max_size=60).map(str.encode)
HEADS = st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "zip"]), JSON, max_size=3)


def outcome(token: bytes, ring: Any = None, now: float = NOW) -> Claims | None:
    """The claims, None where the token is expired or invalid. Any other exception fails the test."""
    try:
        return verifier(ring).verify(token, now)
    except (InvalidToken, ExpiredToken):
        return None


def well_typed(said: Claims) -> bool:
    strings = (said.iss, said.sub, said.jti, said.sid, said.client_id, *said.aud, *said.roles, *said.scope)
    whole = (said.exp, said.iat, said.n)
    return all(type(s) is str for s in strings) and all(type(n) is int and n >= 0 for n in whole)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=600) | st.lists(SEGMENT, max_size=6).map(b".".join))
def test_arbitrary_bytes_are_refused_and_never_raise_anything_else(token: bytes) -> None:
    assert outcome(token) is None


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_good_token_with_any_change_is_refused(data: st.DataObject) -> None:
    token = mint(keyring("HS256"))
    start = data.draw(st.integers(0, len(token)))
    stop = data.draw(st.integers(start, min(len(token), start + 5)))
    changed = token[:start] + data.draw(st.binary(max_size=5)) + token[stop:]
    assert (outcome(changed, keyring("HS256")) is not None) == (changed == token)


@settings(max_examples=300, deadline=None)
@given(CLAIMS | JSON, st.floats(0, 4e9))
def test_any_signed_json_is_claims_of_the_right_types_or_refused(payload: Any, now: float) -> None:
    said = outcome(
        signed(json.dumps(payload).encode("utf-8", "surrogatepass"), keyring("HS256")), keyring("HS256"), now
    )
    assert said is None or well_typed(said)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_signed_bytes_are_refused(payload: bytes) -> None:
    assert outcome(signed(payload, keyring("HS256")), keyring("HS256")) is None


@settings(max_examples=300, deadline=None)
@given(HEADS, st.booleans())
def test_any_header_over_good_claims_is_refused_unless_it_changes_nothing(changes: dict[str, Any], sign: bool) -> None:
    key = keyring("HS256").signing
    head = header(key) | changes
    said = outcome(forge(as_json(head), claims(), key if sign else None), keyring("HS256"))
    wanted = header(key).items() <= head.items() and not {"crit", "b64"} & head.keys()
    if said is not None:
        assert sign
        assert wanted


FOREIGN_NAMES = st.sampled_from([*foreign_claims(), "nbf", "client_id", "cnf", "sid", "n"])
FOREIGN_CLAIMS = st.dictionaries(FOREIGN_NAMES, JSON, max_size=3).map(lambda changes: foreign_claims(**changes))
OTHERS = issuers(loaded={IDP: keys(jwk("EdDSA"))})


@settings(max_examples=300, deadline=None)
@given(FOREIGN_CLAIMS | JSON, st.floats(0, 4e9))
def test_any_signed_json_of_another_issuer_is_claims_of_the_right_types_or_refused(payload: Any, now: float) -> None:
    data = json.dumps(payload).encode("utf-8", "surrogatepass")
    try:
        said = checker(OTHERS).verify(foreign_token(data, "EdDSA"), now)
    except (InvalidToken, ExpiredToken):
        return
    assert said.foreign is not None
    assert (said.sid, said.n, said.iss) == ("", -1, IDP)
    assert all(type(text) is str for text in (said.sub, said.jti, said.client_id, *said.aud, *said.roles, *said.scope))
    assert said.foreign.subject_id.startswith("~")
    assert said.foreign.token_id.startswith("~")
    assert {"sid", "n"} & said.raw.keys() == set()


@settings(max_examples=300, deadline=None)
@given(HEADS, FOREIGN_CLAIMS, st.binary(max_size=80), st.booleans())
def test_no_unsigned_token_of_another_issuer_is_ever_good(
    head: Any, payload: Any, signature: bytes, loaded: bool
) -> None:
    token = forge({"alg": "EdDSA", "kid": "k1", "typ": "JWT"} | head, payload) + signature.hex().encode()
    try:
        checker(OTHERS if loaded else issuers(loaded={})).verify(token, NOW)
    except (InvalidToken, ExpiredToken, IssuerUnavailable):
        return
    raise AssertionError("accepted")


JWKS = st.dictionaries(st.sampled_from([*jwk("RS256"), *jwk("ES256"), "d", "key_ops"]), JSON, max_size=4)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.sampled_from([jwk("RS256"), jwk("ES256"), jwk("EdDSA")]).flatmap(lambda k: JWKS.map(lambda c: k | c)) | JSON
    )
)
def test_any_jwk_set_is_keys_of_the_right_kind_or_refused(jwks: list[Any]) -> None:
    try:
        found = KeySet.parse(json.dumps({"keys": jwks}).encode(), FOREIGN_ALGORITHMS)
    except Malformed:
        return
    for key in found.keys:
        assert key.private is None
        assert key.algorithm in FOREIGN_ALGORITHMS
        assert key.verify(b"message", b"signature") is False


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_jwk_set_are_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        KeySet.parse(data + b"x", FOREIGN_ALGORITHMS)
