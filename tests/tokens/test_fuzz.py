"""Whatever the bytes, the verifier answers with Claims, ExpiredToken or InvalidToken."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ExpiredToken, InvalidToken
from gateway.tokens.claims import Claims
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
