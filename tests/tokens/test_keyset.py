"""Another issuer's JWK Set: which of its keys are used, and for what."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from gateway.tokens.keyfile import ALGORITHMS, FOREIGN_ALGORITHMS
from gateway.tokens.keyset import MAX_KEYS, KeySet
from gateway.tokens.strict import Malformed
from tests.tokens.foreign_support import document, jwk, keys, private_key
from tests.tokens.support import ABSENT, b64

SECRET = {"kty": "oct", "kid": "k1", "use": "sig", "alg": "HS256", "k": b64(b"s" * 32).decode()}


@pytest.mark.parametrize("algorithm", FOREIGN_ALGORITHMS)
def test_a_public_key_of_every_asymmetric_algorithm_is_used(algorithm: str) -> None:
    found = keys(jwk(algorithm)).find("k1", algorithm)
    assert found is not None
    assert (found.algorithm, found.private) == (algorithm, None)


def test_no_algorithm_with_a_secret_is_ever_used() -> None:
    assert {name for name in FOREIGN_ALGORITHMS if name.startswith(("HS", "none"))} == set()
    assert {name for name in ALGORITHMS if name.startswith("HS")} == {"HS256"}


UNUSED: list[tuple[str, Any]] = [
    ("a secret", SECRET),
    ("a secret for RS256", SECRET | {"alg": "RS256"}),
    ("a private RSA key", json.loads(RSAAlgorithm.to_jwk(private_key("RS256"))) | {"kid": "k1", "key_ops": ["verify"]}),
    ("a public key with a private member", jwk("ES256", d="AAAA")),
    ("an RSA key with another prime", jwk("RS256", oth=[])),
    ("a key for encryption", jwk("RS256", use="enc")),
    ("a use in capitals", jwk("RS256", use="SIG")),
    ("a use that is no text", jwk("RS256", use=["sig"])),
    ("a key that only wraps", jwk("RS256", key_ops=["wrapKey"])),
    ("key_ops that are no list", jwk("RS256", key_ops="verify")),
    ("another algorithm than the key's", jwk("RS256", alg="ES256")),
    ("a curve that is not the algorithm's", jwk("ES384", alg="ES256")),
    ("HS256 for an RSA key", jwk("RS256", alg="HS256")),
    ("none", jwk("RS256", alg="none")),
    ("an algorithm for encryption", jwk("RS256", alg="RSA-OAEP")),
    ("an algorithm that is no text", jwk("RS256", alg=["RS256"])),
    ("a curve that is not used", jwk("ES256", crv="secp256k1")),
    ("a point that is not on the curve", jwk("ES256", y=b64(b"\x01" * 32).decode())),
    ("a coordinate of 31 bytes", jwk("ES256", x=b64(b"\x01" * 31).decode())),
    ("Ed448", {"kty": "OKP", "crv": "Ed448", "x": b64(b"\x01" * 57).decode(), "kid": "k1"}),
    ("X25519", {"kty": "OKP", "crv": "X25519", "x": b64(b"\x01" * 32).decode(), "kid": "k1", "use": "sig"}),
    ("padding", jwk("EdDSA", x=b64(b"\x01" * 32).decode() + "=")),
    ("an exponent of 1", jwk("RS256", e="AQ")),
    ("an even modulus", jwk("RS256", n=b64(b"\x80" + b"\0" * 255).decode())),
    ("no modulus", jwk("RS256", n=ABSENT)),
    ("a modulus that is a number", jwk("RS256", n=65537)),
    ("an unknown kind", jwk("RS256", kty="AKP")),
    ("a kind that is no text", jwk("RS256", kty={})),
    ("a kid that is a number", jwk("RS256", kid=1)),
    ("a kid that is too long", jwk("RS256", kid="k" * 256)),
    ("text", "k1"),
    ("null", None),
    ("an empty object", {}),
]


@pytest.mark.parametrize("unused", [pytest.param(key, id=name) for name, key in UNUSED])
def test_what_is_no_public_key_for_signatures_is_passed_over(unused: Any) -> None:
    found = keys(unused, jwk("RS256", "good"))
    assert (len(found), found.ignored) == (1, 1)
    assert found.find("k1", "RS256") is None
    assert found.find("good", "RS256") is not None


@pytest.mark.parametrize(("bits", "used"), [(1024, 0), (2048, 1)])
def test_an_rsa_key_that_is_too_short_is_passed_over(bits: int, used: int) -> None:
    public = rsa.generate_private_key(65537, bits).public_key()  # too short on purpose
    assert len(keys(RSAAlgorithm.to_jwk(public, as_dict=True) | {"kid": "k1", "key_ops": ["verify"]})) == used


def test_an_rsa_key_that_is_too_long_is_passed_over() -> None:
    """One verification with it would hold up every other request."""
    modulus = b64(b"\xff" * 2047 + b"\x01").decode()
    assert len(keys(jwk("RS256", n=modulus))) == 0


@pytest.mark.parametrize(
    ("key", "algorithms", "bound"),
    [
        (jwk("RS256", alg=ABSENT), FOREIGN_ALGORITHMS, "RS256"),
        (jwk("RS256", alg=ABSENT), ("ES256", "PS256", "RS256"), "PS256"),
        (jwk("ES256", alg=ABSENT), ("RS256", "ES256"), "ES256"),
        (jwk("RS256", alg="PS512"), FOREIGN_ALGORITHMS, "PS512"),
    ],
)
def test_a_key_is_for_one_algorithm_alone(key: Any, algorithms: tuple[str, ...], bound: str) -> None:
    found = keys(key, algorithms=algorithms)
    assert {name for name in FOREIGN_ALGORITHMS if found.find("k1", name)} == {bound}


def test_a_key_whose_algorithm_is_not_allowed_is_passed_over() -> None:
    assert len(keys(jwk("RS256"), jwk("ES256", alg=ABSENT), algorithms=("EdDSA", "RS512"))) == 0


def test_two_keys_may_share_a_kid_where_their_algorithms_differ() -> None:
    """RFC 7517 4.5: as alternatives for what the other side can do."""
    found = keys(jwk("RS256"), jwk("ES256"))
    assert len(found) == 2
    assert found.find("k1", "ES256") is not found.find("k1", "RS256")


def test_of_two_keys_with_the_same_kid_and_algorithm_the_first_counts() -> None:
    found, first = keys(jwk("RS256"), jwk("RS256", number=1)), keys(jwk("RS256"))
    assert (len(found), found.ignored) == (1, 1)
    both = found.find("k1", "RS256"), first.find("k1", "RS256")
    assert both[0] is not None
    assert both[1] is not None
    assert both[0].public.public_numbers() == both[1].public.public_numbers()


def test_a_token_without_a_kid_means_the_only_key() -> None:
    assert keys(jwk("RS256")).find(None, "RS256") is not None
    assert keys(jwk("RS256", kid=ABSENT)).find(None, "RS256") is not None
    assert keys(jwk("RS256")).find(None, "ES256") is None
    assert keys(jwk("RS256"), jwk("ES256", "k2")).find(None, "RS256") is None
    assert keys().find(None, "RS256") is None


def test_a_key_that_stays_is_the_same_object_and_one_of_another_material_is_not() -> None:
    before = keys(jwk("RS256"), jwk("ES256", "k2"))
    after = KeySet.parse(document(jwk("ES256", "k2"), jwk("RS256", number=1)), FOREIGN_ALGORITHMS, before)
    assert after.find("k2", "ES256") is before.find("k2", "ES256")
    assert after.find("k1", "RS256") is not before.find("k1", "RS256")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "not a JWK Set"),
        (b'{"keys":{}}', "not a JWK Set"),
        (b'{"keys":"RS256"}', "not a JWK Set"),
        (b'{"keys":[],"keys":[]}', "twice"),
        (b'{"keys":[{"kid":"a","kid":"b"}]}', "twice"),
        (b'{"keys":' + b"[" * 5000 + b"]" * 5000 + b"}", "deeply|not JSON"),
        (b'{"keys":[NaN]}', "not JSON"),
        (document(*[{}] * (MAX_KEYS + 1)), "more than"),
    ],
)
def test_what_is_no_jwk_set_is_refused_as_a_whole(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        KeySet.parse(data, FOREIGN_ALGORITHMS)


def test_a_set_may_have_no_keys_and_members_of_its_own() -> None:
    assert len(keys()) == 0
    assert len(KeySet.parse(b'{"keys":[],"x":1}', FOREIGN_ALGORITHMS)) == 0


def test_its_repr_shows_kids_alone() -> None:
    assert repr(keys(jwk("RS256", "a"), jwk("ES256", "b"))) == "KeySet(['a', 'b'])"
