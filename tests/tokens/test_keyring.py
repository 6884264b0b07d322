"""Which keys are read, which sign, which verify, which are published."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm, get_default_algorithms

from gateway.tokens.keyfile import MAX_FILE_BYTES
from gateway.tokens.keyring import ALGORITHMS, BadKey, KeyFile, Keyring, RefreshKeys, generate, generate_refresh
from tests.tokens.support import NOW, b64, jwk_file, key_file, refresh_file

# PKCS #8 of an X448 key with the 32 bytes of an Ed25519 one
SHORT = b"-----BEGIN PRIVATE KEY-----\n%b\n-----END PRIVATE KEY-----\n" % base64.b64encode(
    bytes.fromhex("302e020100300506032b656f04220420") + b"k" * 32
)
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def pem(private: Any, name: str = "key.pem") -> KeyFile:
    return KeyFile(name, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), NOW)


def public_pem(file: KeyFile, name: str = "public.pem") -> KeyFile:
    public = load_pem_private_key(file.data, None).public_key()
    return KeyFile(name, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), NOW)


def private_jwk(algorithm: str) -> dict[str, Any]:
    if algorithm == "HS256":
        return {"kty": "oct", "k": b64(b"k" * 32).decode()}
    private: Any = load_pem_private_key(key_file(algorithm).data, None)
    jwk: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(private, as_dict=True)
    jwk.pop("key_ops", None)
    return jwk


def renamed(file: KeyFile, name: str, modified: float = NOW) -> KeyFile:
    return KeyFile(name, file.data, modified)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_generated_key_signs_with_its_algorithm_and_is_named_by_its_file(algorithm: str) -> None:
    file = generate(algorithm, 1_700_000_000.9)
    ring = Keyring.load([file], algorithm)
    assert file.name.startswith("20231114T221320Z-")
    assert ring.signing.kid == file.name.rsplit(".", 1)[0]
    assert ring.signing.algorithm == algorithm
    assert ring.signing.born == 1_700_000_000
    assert ring.signing.verify(b"m", ring.signing.sign(b"m"))
    assert not ring.signing.verify(b"n", ring.signing.sign(b"m"))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_jwk_signs_with_its_algorithm(algorithm: str) -> None:
    for named in ({"alg": algorithm}, {}):
        ring = Keyring.load([jwk_file(private_jwk(algorithm) | named)], algorithm)
        assert ring.signing.kid == "key"
        assert ring.signing.verify(b"m", ring.signing.sign(b"m"))


@pytest.mark.parametrize("algorithm", [a for a in ALGORITHMS if a != "HS256"])
def test_the_published_key_verifies_elsewhere_and_holds_nothing_private(algorithm: str) -> None:
    ring = Keyring.load([key_file(algorithm)], algorithm)
    (jwk,) = ring.jwks()["keys"]
    assert not PRIVATE_MEMBERS & jwk.keys()
    assert (jwk["use"], jwk["alg"], jwk["kid"]) == ("sig", algorithm, ring.signing.kid)
    assert "key_ops" not in jwk
    signature = ring.signing.sign(b"m")
    elsewhere = jwt.PyJWK(jwk)
    assert elsewhere.Algorithm.verify(b"m", elsewhere.key, signature)


def test_an_hmac_key_is_never_published() -> None:
    ring = Keyring.load([key_file("HS256"), key_file("ES256")], "HS256")
    assert [jwk["kty"] for jwk in ring.jwks()["keys"]] == ["EC"]
    assert ring.signing.jwk() == {}


def test_changing_the_answer_of_jwks_does_not_change_the_keyring() -> None:
    ring = Keyring.load([key_file("ES256")], "ES256")
    ring.jwks()["keys"][0]["kid"] = "other"
    ring.jwks()["keys"].clear()
    assert ring.jwks()["keys"][0]["kid"] == ring.signing.kid


def test_neither_a_key_nor_a_file_nor_a_ring_shows_secrets_when_printed() -> None:
    file = jwk_file(private_jwk("HS256"))
    ring = Keyring.load([file], "HS256")
    for shown in (repr(file), repr(ring), repr(ring.signing), str(ring.signing)):
        assert b64(b"k" * 32).decode() not in shown
        assert "kkkk" not in shown
    refresh = RefreshKeys.load([refresh_file()])
    assert json.loads(refresh_file().data)["k"] not in repr(refresh) + repr(refresh.signing)


@pytest.mark.parametrize(
    ("names", "signs"),
    [
        (["20240101T000000Z-aaaaaa.pem", "20240102T000000Z-000000.pem"], "20240102T000000Z-000000"),
        (["b.pem", "a.pem"], "b"),  # same mtime: by name
        (["a.pem", "b.pem"], "b"),
        (["20240102T000000Z.pem", "20240101T000000Z.pem"], "20240102T000000Z"),
    ],
)
def test_the_newest_key_signs_and_all_verify(names: list[str], signs: str) -> None:
    files = [renamed(key_file("ES256", number), name) for number, name in enumerate(names)]
    ring = Keyring.load(files, "ES256")
    assert ring.signing.kid == signs
    for file in files:
        key = ring.get(file.name.removesuffix(".pem"))
        assert key is not None
        assert key.verify(b"m", key.sign(b"m"))
    assert ring.get("other") is None
    assert ring.jwks()["keys"][0]["kid"] == signs


def test_the_time_in_a_name_counts_before_the_time_of_the_file() -> None:
    """A mounted Secret gives every file the mtime of the mount."""
    dated = renamed(key_file("ES256"), "20200101T000000Z-aaaaaa.pem", modified=NOW + 9999)
    undated = renamed(key_file("ES256", 1), "a.pem", modified=NOW)
    assert Keyring.load([dated, undated], "ES256").signing.kid == "a"


def test_a_name_that_only_looks_like_a_time_counts_by_the_time_of_the_file() -> None:
    odd = renamed(key_file("ES256"), "20239901T000000Z-aaaaaa.pem", modified=NOW)
    assert Keyring.load([odd], "ES256").signing.born == NOW


def test_a_newer_key_of_another_algorithm_or_without_its_private_half_verifies_but_does_not_sign() -> None:
    old = renamed(key_file("ES256"), "20240101T000000Z.pem")
    other = renamed(key_file("EdDSA"), "20240102T000000Z.pem")
    public = public_pem(key_file("ES256", 1), "20240103T000000Z.pem")
    ring = Keyring.load([old, other, public], "ES256")
    assert ring.signing.kid == "20240101T000000Z"
    key = ring.get("20240103T000000Z")
    assert key is not None
    with pytest.raises(ValueError, match="cannot sign"):
        key.sign(b"m")
    assert len(ring.jwks()["keys"]) == 3


def test_an_rsa_key_serves_the_configured_algorithm_unless_its_file_names_one() -> None:
    file = key_file("RS256")
    assert Keyring.load([file], "PS256").signing.algorithm == "PS256"
    bystander = Keyring.load([file, key_file("ES256")], "ES256").get(file.name.removesuffix(".pem"))
    assert bystander is not None
    assert bystander.algorithm == "RS256"
    with pytest.raises(BadKey, match="PS256"):
        Keyring.load([jwk_file(private_jwk("RS256") | {"alg": "RS256"})], "PS256")


def test_files_that_are_no_keys_are_ignored() -> None:
    junk = [
        KeyFile(name, b"junk", NOW)
        for name in ("README", "..data", ".hidden.pem", ".x.jwk", "tls.key", "tls.crt", "a.PEM", "x.refresh.jwk", "")
    ]
    assert Keyring.load([*junk, key_file("ES256")], "ES256").signing.algorithm == "ES256"


def test_both_rings_are_read_from_one_directory() -> None:
    files = [key_file("HS256"), refresh_file(0), key_file("ES256"), refresh_file(1)]
    ring, refresh = Keyring.load(files, "HS256"), RefreshKeys.load(files)
    assert ring.signing.kid == key_file("HS256").name.removesuffix(".jwk")
    assert refresh.signing.kid == refresh_file(1).name.removesuffix(".refresh.jwk")
    assert refresh.get(ring.signing.kid) is None
    assert ring.get(refresh.signing.kid) is None


@pytest.mark.parametrize(
    "files",
    [[], [KeyFile("README", b"", NOW)], [key_file("EdDSA")], [public_pem(key_file("ES256"))], [refresh_file()]],
)
def test_a_directory_without_a_key_that_can_sign_is_refused(files: list[KeyFile]) -> None:
    with pytest.raises(BadKey, match="can sign with ES256"):
        Keyring.load(files, "ES256")


def test_a_directory_without_a_refresh_key_is_refused() -> None:
    with pytest.raises(BadKey, match=r"\*\.refresh\.jwk"):
        RefreshKeys.load([key_file("HS256")])


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "HS512", "RS384", "ES256K", "es256", ""])
def test_an_algorithm_outside_the_six_is_refused(algorithm: str) -> None:
    with pytest.raises(BadKey, match="not one of"):
        Keyring.load([key_file("ES256")], algorithm)
    with pytest.raises(BadKey, match="not one of"):
        generate(algorithm, NOW)


@pytest.mark.parametrize("name", ["a b.pem", "ä.pem", "k" * 65 + ".pem", "a/b.pem", "a\n.pem", "a:b.jwk", "٣.pem"])
def test_a_name_that_makes_no_good_kid_is_refused(name: str) -> None:
    with pytest.raises(BadKey, match="the name must be"):
        Keyring.load([renamed(key_file("ES256"), name)], "ES256")


def test_two_files_of_one_kid_are_refused() -> None:
    one = renamed(key_file("ES256"), "same.pem")
    with pytest.raises(BadKey, match="this kid"):
        Keyring.load([one, jwk_file(private_jwk("ES256"), "same.jwk")], "ES256")
    with pytest.raises(BadKey, match="this kid"):
        RefreshKeys.load([refresh_file(), refresh_file()])


def bad_pems() -> list[tuple[str, KeyFile, str]]:
    private = load_pem_private_key(key_file("ES256").data, None)
    locked = BestAvailableEncryption(b"password")
    encrypted = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
    encrypted_old = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, locked)
    good = key_file("ES256").data
    return [
        ("a P-521 key", pem(ec.generate_private_key(ec.SECP521R1())), "only P-256"),
        ("a secp256k1 key", pem(ec.generate_private_key(ec.SECP256K1())), "only P-256"),
        ("an Ed448 key", pem(ed448.Ed448PrivateKey.generate()), "only P-256"),
        ("an X25519 key", pem(x25519.X25519PrivateKey.generate()), "only P-256"),
        ("a DSA key", pem(dsa.generate_private_key(2048)), "only P-256"),
        ("an RSA key of 1024 bits", pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
        ("an encrypted key", KeyFile("key.pem", encrypted, NOW), "is encrypted"),
        ("an encrypted key of OpenSSL", KeyFile("key.pem", encrypted_old, NOW), "is encrypted"),
        ("two keys in one file", KeyFile("key.pem", good + good, NOW), "one PEM block, found 2"),
        ("no PEM at all", KeyFile("key.pem", b"secret", NOW), "one PEM block, found 0"),
        ("an empty file", KeyFile("key.pem", b"", NOW), "one PEM block, found 0"),
        # the kind is X448's, the length is not: cryptography raises an InternalError of its own
        ("a key shorter than its kind", KeyFile("key.pem", SHORT, NOW), "not a readable PEM key"),
        ("a damaged PEM", KeyFile("key.pem", good[:60] + good[90:], NOW), "not a readable PEM key"),
        (
            "a certificate",
            KeyFile("key.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", NOW),
            "neither a private nor a public key",
        ),
        ("a huge file", KeyFile("key.pem", good + b"\n" * MAX_FILE_BYTES, NOW), "larger than"),
    ]


@pytest.mark.parametrize(("file", "why"), [pytest.param(f, w, id=i) for i, f, w in bad_pems()])
def test_a_pem_key_that_is_weak_foreign_or_unreadable_is_refused(file: KeyFile, why: str) -> None:
    with pytest.raises(BadKey, match=why) as caught:
        Keyring.load([file, key_file("ES256")], "ES256")
    assert "'key.pem'" in str(caught.value)


def test_a_key_as_openssl_ecparam_writes_it_is_read() -> None:
    private = load_pem_private_key(key_file("ES256").data, None)
    old = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    ring = Keyring.load([KeyFile("key.pem", parameters + old, NOW)], "ES256")
    assert ring.signing.kid == "key"


def bad_jwks() -> list[tuple[str, object, str]]:
    es, hs, rs, ed = (private_jwk(a) for a in ("ES256", "HS256", "RS256", "EdDSA"))
    es2: dict[str, Any] = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
    small = dict(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024), as_dict=True))
    return [
        ("for encryption", es | {"use": "enc"}, "use must be sig"),
        ("use of another type", es | {"use": None}, "use must be sig"),
        ("no operation of ours", es | {"key_ops": ["encrypt"]}, "key_ops"),
        ("operations of another type", es | {"key_ops": "sign"}, "key_ops"),
        ("no operation at all", es | {"key_ops": []}, "key_ops"),
        ("alg none", es | {"alg": "none"}, "alg must be one of"),
        ("alg null", es | {"alg": None}, "alg must be one of"),
        ("alg of another type", es | {"alg": ["ES256"]}, "alg must be one of"),
        ("an EC key for HMAC", es | {"alg": "HS256"}, "does not fit"),
        ("a P-256 key for ES384", es | {"alg": "ES384"}, "does not fit"),
        ("an HMAC key for RS256", hs | {"alg": "RS256"}, "does not fit"),
        ("a short HMAC key", hs | {"k": b64(b"k" * 31).decode()}, "248 bits"),
        ("an empty HMAC key", hs | {"k": ""}, "not a readable JWK"),
        ("a padded HMAC key", hs | {"k": hs["k"] + "="}, "base64url"),
        ("an RSA key of 1024 bits", small, "1024 bits"),
        ("an RSA key of three primes", rs | {"oth": []}, "two primes"),
        ("an RSA key without all of its primes", {k: v for k, v in rs.items() if k != "q"}, "not a readable"),
        ("an RSA key of zeros", rs | {"n": "AA", "e": "AA"}, "not a readable"),
        ("a point off the curve", es | {"x": es["y"]}, "not a readable"),
        ("halves that do not match", es | {"d": es2["d"]}, "not a readable"),
        ("Ed25519 halves that do not match", ed | {"d": b64(b"d" * 32).decode()}, "not a readable"),
        ("a short coordinate", es | {"x": b64(b"x" * 31).decode()}, "not a readable"),
        ("another curve's name", es | {"crv": "P-384"}, "not a readable"),
        ("a curve of another type", es | {"crv": ["P-256"]}, "not a readable"),
        ("no curve", {k: v for k, v in es.items() if k != "crv"}, "not a readable"),
        ("X25519", ed | {"crv": "X25519"}, "not a readable"),
        ("no kty", {}, "kty must be"),
        ("kty of another type", es | {"kty": ["EC"]}, "kty must be"),
        ("kty in another case", es | {"kty": "ec"}, "kty must be"),
        ("a JWK set", {"keys": [es]}, "kty must be"),
        ("a missing coordinate", {k: v for k, v in es.items() if k != "y"}, "member 'y'"),
        ("a number for a coordinate", es | {"y": 7}, "member 'y'"),
        ("a number for the secret", hs | {"k": 7}, "member 'k'"),
        ("a null private half", es | {"d": None}, "member 'd'"),
        ("no object", [es], "not a JSON object"),
        ("no JSON", b"secret", "not JSON"),
        ("a member named twice", b'{"kty":"oct","k":"a","k":"b"}', "occurs twice"),
    ]


@pytest.mark.parametrize(("jwk", "why"), [pytest.param(j, w, id=i) for i, j, w in bad_jwks()])
def test_a_jwk_that_is_weak_foreign_or_unreadable_is_refused(jwk: object, why: str) -> None:
    data = jwk if isinstance(jwk, bytes) else json.dumps(jwk).encode()
    with pytest.raises(BadKey, match=why) as caught:
        Keyring.load([KeyFile("key.jwk", data, NOW), key_file("ES256")], "ES256")
    assert "'key.jwk'" in str(caught.value)


def test_the_message_of_a_bad_key_holds_none_of_the_key() -> None:
    secret = b64(b"topsecret-topsecret-topsecret").decode()
    for jwk in ({"kty": "oct", "k": secret}, {"kty": "oct", "k": secret + "=="}, {"kty": secret}):
        with pytest.raises(BadKey) as caught:
            Keyring.load([jwk_file(jwk)], "HS256")
        assert secret not in f"{caught.value}{caught.value.__cause__}"


@pytest.mark.parametrize(
    ("operations", "signs"), [(["sign"], True), (["verify"], False), (["verify", "sign"], True), (["sign", "x"], True)]
)
def test_key_ops_decide_whether_a_private_key_may_sign(operations: list[str], signs: bool) -> None:
    for algorithm in ("ES256", "HS256"):
        file = jwk_file(private_jwk(algorithm) | {"key_ops": operations})
        ring = Keyring.load([file, renamed(key_file(algorithm), "0000" + key_file(algorithm).name[-4:], 0)], algorithm)
        assert (ring.signing.kid == "key") is signs


def test_a_public_jwk_verifies_but_does_not_sign() -> None:
    jwk = {k: v for k, v in private_jwk("ES256").items() if k != "d"}
    ring = Keyring.load([jwk_file(jwk), key_file("ES256", 1)], "ES256")
    key = ring.get("key")
    assert key is not None
    assert key.private is None
    assert ring.signing.kid != "key"


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        (private_jwk("ES256"), "kty oct"),
        ({"kty": "oct", "k": b64(b"k" * 31).decode()}, "248 bits"),
        ({"kty": "oct", "k": b64(b"k" * 32).decode(), "use": "enc"}, "use"),
    ],
)
def test_a_refresh_key_that_is_weak_or_foreign_is_refused(jwk: dict[str, Any], why: str) -> None:
    with pytest.raises(BadKey, match=why):
        RefreshKeys.load([jwk_file(jwk, "key.refresh.jwk")])


def test_a_generated_refresh_key_has_256_random_bits() -> None:
    one, two = (json.loads(generate_refresh(NOW).data) for _ in range(2))
    assert one["k"] != two["k"]
    assert len(one["k"]) == 43
    assert one["alg"] == "HS256"
