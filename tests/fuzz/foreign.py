"""What another issuer publishes and signs."""

from __future__ import annotations

import json
from functools import cache

import orjson

from gateway.errors import ExpiredToken, InvalidToken
from gateway.tokens.claims import Claims
from gateway.tokens.keyfile import FOREIGN_ALGORITHMS
from gateway.tokens.keyset import KeySet
from gateway.tokens.strict import Malformed
from tests.fuzz.target import target
from tests.fuzz.tokens import WORDS
from tests.tokens.foreign_support import IDP, checker, document, foreign_claims, issuers, jwk, keys, token
from tests.tokens.support import NOW, as_json

ALGORITHM = "EdDSA"  # the quickest, and the same signature each time


@cache
def _sets() -> tuple[bytes, ...]:
    several = [jwk(algorithm, f"k-{algorithm}") for algorithm in ("RS256", "ES256", "ES512", ALGORITHM)]
    return (document(*several), document(*several[1:], {"kty": "oct", "k": "AA", "kid": "s"}), document())


@target(
    _sets,
    '"keys" "kty" "RSA" "EC" "OKP" "oct" "crv" "P-256" "P-521" "Ed25519" "n" "e" "d" "k" "AQAB" "kid" "alg" "use"',
)
def jwk_set(data: bytes) -> None:
    """A JWK Set is public keys, each of one algorithm that is allowed, the same ones when it comes again; or none."""
    try:
        read = KeySet.parse(data, FOREIGN_ALGORITHMS)
    except Malformed as error:
        assert str(error).isprintable()
        return
    assert len(read) + read.ignored == len(json.loads(data)["keys"])
    assert KeySet.parse(data, FOREIGN_ALGORITHMS, read).keys == read.keys
    for key in read.keys:
        assert key.algorithm in FOREIGN_ALGORITHMS
        assert key.private is None
        assert read.find(key.kid, key.algorithm) is key
        assert not key.verify(b"message", data[:64])


def _verified(data: bytes) -> Claims | ExpiredToken | None:
    others = issuers(loaded={IDP: keys(jwk(ALGORITHM))})
    try:
        return checker(others).verify(data, NOW)
    except ExpiredToken as error:
        return error
    except InvalidToken:
        return None


@cache
def _tokens() -> tuple[bytes, ...]:
    return token(algorithm=ALGORITHM), token(foreign_claims(exp=NOW - 100), ALGORITHM)


@target(_tokens, WORDS)
def foreign_token(data: bytes) -> None:
    """No bytes are a token of another issuer but what it signed."""
    assert (_verified(data) is not None) == (data in _tokens())


@target(
    lambda: [as_json(foreign_claims()), as_json(foreign_claims(aud=["x", "api"], nbf=NOW, scp=["a"]))],
    '" { } [ ] null 1e9 -1 true iss aud exp jti sid n sub',
)
def foreign_payload(data: bytes) -> None:
    """What another issuer signed is claims of the right types without a session here, read alike by every reader."""
    found = _verified(token(data, ALGORITHM))
    if found is None:
        return
    said = found.claims if isinstance(found, ExpiredToken) else found
    for read in (json.loads, orjson.loads):
        assert read(data)["iss"] == said.iss == IDP
        assert read(data)["sub"] == said.raw["sub"]
    assert (said.sid, said.n) == ("", -1)
    texts = (said.sub, said.jti, said.client_id, *said.aud, *said.roles, *said.scope)
    assert all(type(text) is str for text in texts)
    assert said.sub.isprintable() or not set("\r\n\0") & set(said.sub)
    assert type(said.exp) is int
    assert type(said.iat) is int
