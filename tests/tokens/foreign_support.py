"""Another issuer for the tests of this room: its keys, its JWK Set, its tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from gateway.tokens.foreign import IssuerRules, Issuers
from gateway.tokens.keyfile import FOREIGN_ALGORITHMS
from gateway.tokens.keyset import KeySet
from gateway.tokens.verifier import Verifier
from tests.tokens.support import ABSENT, AUDIENCE, ISSUER, LEEWAY, NOW, as_json, b64, keyring

IDP = "https://idp.example.com/realms/main"
OTHER = "https://other.example.com"
LIFE = 3600
RULES = IssuerRules(IDP, "api", FOREIGN_ALGORITHMS, frozenset({"at+jwt", "jwt", ""}))


@cache
def private_key(algorithm: str, number: int = 0) -> Any:
    curves = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm])
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def jwk(algorithm: str, kid: object = "k1", number: int = 0, **changes: Any) -> dict[str, Any]:
    """The public JWK of a key, with changes; ABSENT leaves a member out."""
    public = private_key(algorithm, number).public_key()
    members = get_default_algorithms()[algorithm].to_jwk(public, as_dict=True)
    members.pop("key_ops", None)
    members |= {"use": "sig", "alg": algorithm, "kid": kid} | changes
    return {name: value for name, value in members.items() if value is not ABSENT}


def document(*jwks: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": list(jwks)}).encode()


def keys(*jwks: Mapping[str, Any], algorithms: Sequence[str] = FOREIGN_ALGORITHMS) -> KeySet:
    return KeySet.parse(document(*jwks), algorithms)


def foreign_claims(**changes: Any) -> dict[str, Any]:
    good = {
        "iss": IDP,
        "aud": AUDIENCE,
        "sub": "f-1",
        "exp": NOW + LIFE,
        "iat": NOW,
        "jti": "onrtac:1e7a",
        "roles": ["user"],
        "scope": "openid orders:read",
        "azp": "shop",
    }
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


def token(
    payload: object = None, algorithm: str = "RS256", kid: object = "k1", number: int = 0, **header: Any
) -> bytes:
    """A token of the issuer, signed as it should be; `header` are changes to its header."""
    head = {"alg": algorithm, "kid": kid, "typ": "JWT"} | header
    head = {name: value for name, value in head.items() if value is not ABSENT}
    message = b64(as_json(head)) + b"." + b64(as_json(foreign_claims() if payload is None else payload))
    signature = get_default_algorithms()[algorithm].sign(message, private_key(algorithm, number))
    return message + b"." + b64(signature)


def issuers(*rules: IssuerRules, loaded: Mapping[str, KeySet] | None = None) -> Issuers:
    made = Issuers(rules or (RULES,), LEEWAY)
    for issuer, known in ({IDP: keys(jwk("RS256"))} if loaded is None else loaded).items():
        made.take_keys(issuer, known)
    return made


def checker(others: Issuers | None = None, **rules: Any) -> Verifier:
    """The gateway's verifier with other issuers; `rules` are changes to those of the one that there is."""
    if others is None:
        others = issuers(replace(RULES, **rules))
    return Verifier(keyring(), ISSUER, AUDIENCE, LEEWAY, others=others)
