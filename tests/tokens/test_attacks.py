"""Attacks on the signed form itself. Each row was a weakness of a real library, or could be one."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.errors import InvalidToken
from gateway.tokens.keyring import ALGORITHMS, Key, Keyring
from gateway.tokens.refresh import RefreshTokens
from tests.tokens.support import (
    ABSENT,
    ISSUER,
    NOW,
    SESSION,
    as_json,
    b64,
    claims,
    forge,
    header,
    key_file,
    keyring,
    mint,
    refresh_keys,
    signed,
    verifier,
)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def refused(token: bytes, why: str | None = None, ring: Keyring | None = None) -> None:
    with pytest.raises(InvalidToken, match=why):
        verifier(ring).verify(token, NOW)


def with_signature(token: bytes, signature: bytes) -> bytes:
    return token[: token.rindex(b".") + 1] + b64(signature)


def signature_of(token: bytes) -> bytes:
    text = token[token.rindex(b".") + 1 :]
    return base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))


NONES = ["none", "None", "NONE", "nOnE", "none ", " none", "none\x00", "n\u043ene", "", None, 0, False, [], {}, ABSENT]


@pytest.mark.parametrize("alg", NONES)
def test_no_spelling_of_none_is_an_algorithm(alg: object) -> None:
    """CVE-2015-9235 and its kind."""
    key = keyring().signing
    refused(forge(header(key, alg=alg), claims()), "alg is not the key's")
    refused(signed(claims(), alg=alg), "alg is not the key's")
    refused(forge(header(key, alg=alg, kid=ABSENT), claims()), "no key")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("alg", [*ALGORITHMS, "ES512", "ES256K", "HS384", "HS512", "RS512", "Ed25519", "es256"])
def test_a_header_never_chooses_the_algorithm(algorithm: str, alg: str) -> None:
    ring = keyring(algorithm)
    if alg != algorithm:
        refused(signed(claims(), ring, alg=alg), "alg is not the key's", ring)


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "EdDSA", "RS256", "PS256"])
def test_a_public_key_is_never_a_shared_secret(algorithm: str) -> None:
    """CVE-2015-9235, CVE-2022-29217, CVE-2024-33663: HS256 with a public key in any of its forms."""
    ring = keyring(algorithm)
    public: Any = ring.signing.public
    secrets = [
        public.public_bytes(encoding, form)
        for encoding, form in [
            (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            *([(Encoding.OpenSSH, PublicFormat.OpenSSH)]),
        ]
    ]
    for secret in (*secrets, as_json(ring.jwks()["keys"][0]), b""):
        for alg in ("HS256", algorithm):
            message = b64(as_json(header(ring.signing, alg=alg))) + b"." + b64(as_json(claims()))
            refused(message + b"." + b64(hmac.digest(secret, message, hashlib.sha256)), "alg|signature", ring)


def test_a_key_of_another_curve_does_not_sign_for_this_one() -> None:
    p256, p384 = key_file("ES256"), key_file("ES384")
    ring = Keyring.load([p256, p384], "ES256")
    other = ring.get(p384.name.removesuffix(".pem"))
    assert other is not None
    refused(forge(header(ring.signing), claims(), other), "signature", ring)
    refused(forge(header(other, alg="ES256"), claims(), other), "alg", ring)
    assert verifier(ring).verify(forge(header(other), claims(), other), NOW).sub == "u-1"


def test_rsa_paddings_do_not_stand_in_for_each_other() -> None:
    pkcs1, pss = (Keyring.load([key_file("RS256")], algorithm) for algorithm in ("RS256", "PS256"))
    refused(forge(header(pkcs1.signing), claims(), pss.signing), "signature", pkcs1)
    refused(forge(header(pss.signing), claims(), pkcs1.signing), "signature", pss)


@pytest.mark.parametrize(
    "kid",
    [
        ABSENT,
        None,
        "",
        0,
        True,
        [],
        {},
        "other",
        "../../etc/passwd",
        "/dev/null",
        "a' OR '1'='1",
        "key|id",
        "kid\x00",
        "x" * 4000,
        "__class__",
    ],
)
def test_a_kid_is_a_name_and_nothing_else(kid: object) -> None:
    """CVE-2018-0114's neighbours: a kid that is a path, a query or another type."""
    refused(signed(claims(), kid=kid), "no key")


def test_a_kid_in_a_list_or_another_case_is_unknown() -> None:
    kid = keyring().signing.kid
    for other in ([kid], {kid: 1}, kid.lower(), kid + ".pem", kid + " ", "../" + kid):
        refused(signed(claims(), kid=other), "no key")


def test_a_key_that_the_token_brings_along_is_not_looked_at() -> None:
    """CVE-2018-0114: the attacker signs with a key of its own and sends it in the header."""
    own = Keyring.load([key_file("ES256", 9)], "ES256")
    jwk = own.jwks()["keys"][0]
    for brought in (
        {"jwk": jwk},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["MIIB"]},
        {"x5t": "abc", "x5t#S256": "abc"},
    ):
        refused(forge(header(keyring().signing, **brought), claims(), own.signing), "signature")
        refused(forge(header(own.signing, **brought), claims(), own.signing), "no key")
        assert verifier().verify(signed(claims(), **brought), NOW).sub == "u-1"


@pytest.mark.parametrize(
    "typ",
    [
        ABSENT,
        None,
        "",
        1,
        ["at+jwt"],
        "JWT",
        "jwt",
        "rt+jwt",
        "application/rt+jwt",
        "logout+jwt",
        "dpop+jwt",
        "at+jwt ",
        "text/at+jwt",
        "application/application/at+jwt",
        "at+jwt; charset=utf-8",
        "id+jwt",
    ],
)
def test_a_token_of_another_type_is_no_access_token(typ: object) -> None:
    refused(signed(claims(), typ=typ), "typ is not")


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_the_type_is_a_media_type_of_any_case(typ: str) -> None:
    """RFC 9068 4, RFC 7515 4.1.9."""
    assert verifier().verify(signed(claims(), typ=typ), NOW).sub == "u-1"


@pytest.mark.parametrize(
    "extension",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"crit": None},
        {"crit": "x"},
        {"crit": ["http://example.com/UNDEFINED"], "http://example.com/UNDEFINED": True},
    ],
)
def test_an_extension_that_must_be_understood_is_refused(extension: dict[str, Any]) -> None:
    """RFC 7515 4.1.11, RFC 7797."""
    refused(signed(claims(), **extension), "crit or b64")


def test_an_unencoded_payload_is_refused() -> None:
    """RFC 7797: the signature is over other bytes than the segment."""
    key = keyring().signing
    head = b64(as_json(header(key, b64=False, crit=["b64"])))
    payload = as_json(claims())
    refused(head + b"." + payload + b"." + b64(key.sign(head + b"." + payload)))
    refused(head + b".." + b64(key.sign(head + b"." + payload)), "crit")


def test_an_encrypted_token_is_refused() -> None:
    """RFC 7516: five segments. A zip bomb in one is never inflated (CVE-2024-33664)."""
    head = as_json({"alg": "dir", "enc": "A256GCM", "zip": "DEF", "typ": "at+jwt", "kid": keyring().signing.kid})
    refused(b".".join([b64(head), b"", b64(b"i" * 12), b64(b"c" * 500), b64(b"t" * 16)]), "three segments")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_is_whole_or_worth_nothing(algorithm: str) -> None:
    ring = keyring(algorithm)
    token = mint(ring)
    good = signature_of(token)
    for signature in (
        b"",
        good[:-1],
        good[1:],
        good + b"\x00",
        b"\x00" + good,
        good + good,
        good[: len(good) // 2],
        bytes(len(good)),
        b"\xff" * len(good),
        bytes([good[0] ^ 1]) + good[1:],
        good[:-1] + bytes([good[-1] ^ 1]),
        good[::-1],
        b"\x00" * 4000,
    ):
        refused(with_signature(token, signature), "signature", ring)


def test_a_psychic_signature_is_refused() -> None:
    """CVE-2022-21449: r or s of 0, or of the group's order, verified any message."""
    token = mint()
    for r in (0, 1, P256_ORDER - 1, P256_ORDER, P256_ORDER + 1, 2**256 - 1):
        for s in (0, P256_ORDER, P256_ORDER + 1, 2**256 - 1):
            refused(with_signature(token, r.to_bytes(32, "big") + s.to_bytes(32, "big")), "signature")


def test_an_ecdsa_signature_in_der_is_refused() -> None:
    """RFC 7518 3.4: r || s, and no second form of it."""
    token = mint()
    raw = signature_of(token)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    refused(with_signature(token, der), "signature")


def test_an_ed25519_signature_with_a_scalar_beyond_the_order_is_refused() -> None:
    """RFC 8032 5.1.7: s + L would verify in a lenient library."""
    ring = keyring("EdDSA")
    token = mint(ring)
    raw = signature_of(token)
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(raw[32:], "little") + order
    refused(with_signature(token, raw[:32] + s.to_bytes(32, "little")), "signature", ring)


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("extra", [b"=", b"==", b" ", b"\n", b"\t", b"\x00", b"A", b"%3D", "é".encode(), b"+", b"/"])
def test_no_segment_has_a_second_spelling(segment: int, extra: bytes) -> None:
    parts = mint().split(b".")
    for spelled in (parts[segment] + extra, extra + parts[segment], parts[segment][:4] + extra + parts[segment][4:]):
        refused(b".".join([*parts[:segment], spelled, *parts[segment + 1 :]]))


@pytest.mark.parametrize("algorithm", ["ES384", "HS256", "RS256", "EdDSA"])
def test_stray_bits_after_the_last_byte_of_a_signature_are_refused(algorithm: str) -> None:
    """Otherwise one token has several texts, and a list of revoked texts can be walked around."""
    ring = keyring(algorithm)
    token = mint(ring)
    good = signature_of(token)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    tails = [token[:-1] + bytes([c]) for c in alphabet]
    same = [tail for tail in tails if signature_of(tail) == good]
    assert len(same) == {0: 1, 1: 16, 2: 4}[len(good) % 3]
    for tail in same:
        if tail != token:
            refused(tail, "canonical", ring)


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"..",
        b"...",
        b"." * 8192,
        b"a.b.c",
        b"e30.e30.e30",
        b"\xff.\xfe.\xfd",
        b"\x00" * 100,
        b"x" * 8193,
        b"null",
        b"undefined",
        b"Bearer " + b"a.b.c",
        b'{"protected":"e30","payload":"e30","signature":"AA"}',
        b"rt1.k." + SESSION.encode() + b".0." + b"A" * 43,
    ],
)
def test_what_is_no_token_is_invalid(token: bytes) -> None:
    refused(token)


def test_a_token_with_anything_around_it_is_invalid() -> None:
    token = mint()
    for around in (
        token + b".",
        b"." + token,
        token + b".AAAA",
        token + b"," + token,
        token + b" " + token,
        b" " + token,
        token + b" ",
        token + b"\r\n",
        b'"' + token + b'"',
        token.rsplit(b".", 1)[0],
        token.rsplit(b".", 1)[0] + b".",
        b"Bearer " + token,
    ):
        refused(around)


def test_segments_of_two_tokens_do_not_mix() -> None:
    one, two = mint(subject="alice").split(b"."), mint(subject="mallory").split(b".")
    refused(b".".join([one[0], two[1], one[2]]), "signature")
    refused(b".".join([one[0], one[1], two[2]]), "signature")


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (b'{"alg":"ES256","alg":"none","kid":"@","typ":"at+jwt"}', "twice"),
        (b'{"alg":"none","\\u0061lg":"ES256","kid":"@","typ":"at+jwt"}', "twice"),
        (b'{"alg":"ES256","kid":"x","kid":"@","typ":"at+jwt"}', "twice"),
        (b'{"alg":"ES256","kid":"@","typ":"at+jwt","x":' + b"[" * 2500 + b"]" * 2500 + b"}", "JSON"),
        (b'{"alg":"ES256","kid":"@","typ":"at+jwt","x":' + b"1" * 5000 + b"}", "large"),
        (b'{"alg":"ES256","kid":"@","typ":"at+jwt","x":NaN}', "NaN"),
        (b'\xef\xbb\xbf{"alg":"ES256","kid":"@","typ":"at+jwt"}', "JSON"),
        (b'[{"alg":"ES256","kid":"@","typ":"at+jwt"}]', "object"),
        (b'"at+jwt"', "object"),
        (b"", "JSON"),
        (b"{", "JSON"),
    ],
)
def test_a_header_that_two_readers_could_read_differently_is_refused(head: bytes, why: str) -> None:
    key = keyring().signing
    head = head.replace(b"@", key.kid.encode())
    small = as_json({"sub": "u"})
    token = forge(head, small, key)
    assert len(token) <= 8192
    refused(token, why)


def test_a_refresh_token_is_no_access_token() -> None:
    keys = refresh_keys()
    for form in ("opaque", "jwt"):
        refused(RefreshTokens(keys, form, ISSUER).mint(SESSION, 3, NOW, 0).encode())


def test_a_refresh_token_is_no_access_token_even_under_the_same_key() -> None:
    """One secret used for both, by mistake: the type still tells them apart."""
    ring = keyring("HS256")
    as_refresh = Key(ring.signing.kid, "HS256", NOW, ring.signing.private, ring.signing.public)
    refused(forge(header(as_refresh, typ="rt+jwt"), claims(), as_refresh), "typ", ring)
