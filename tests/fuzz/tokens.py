"""Tokens, keys, and the readers that read one way only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.errors import ExpiredToken, InvalidGrant, InvalidToken
from gateway.tokens import jws
from gateway.tokens.claims import Claims
from gateway.tokens.keyfile import BadKey, Key, KeyFile, read_key
from gateway.tokens.keyring import Keyring, RefreshKeys
from gateway.tokens.refresh import REFRESH_TYPE, RefreshToken, RefreshTokens
from gateway.tokens.strict import Malformed, decode_base64url, encode_base64url, encode_object, parse_object
from gateway.tokens.verifier import ACCESS_TYPE, Verifier
from tests.fuzz.target import target
from tests.tokens.support import AUDIENCE, ISSUER, NOW, SESSION, TTL, as_json, b64, claims, forge, header, verifier

# The keys never change, so that a token in the corpus stays a good one.
_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
_SECRET = json.dumps({"kty": "oct", "k": b64(b"a secret of thirty-two bytes ....").decode()}).encode()
_EC = ec.derive_private_key(0x7465737473, ec.SECP256R1())
_ED = ed25519.Ed25519PrivateKey.from_private_bytes(b"a secret of thirty-two bytes ...")
FILES = [
    KeyFile("hs.jwk", _SECRET, NOW),
    KeyFile("es.pem", _EC.private_bytes(*_PEM), NOW),
    KeyFile("ed.pem", _ED.private_bytes(*_PEM), NOW),
]
REFRESH_FILES = [KeyFile("one.refresh.jwk", _SECRET, NOW), KeyFile("t.w.o.refresh.jwk", _SECRET, NOW + 1)]


@cache
def ring(algorithm: str = "HS256") -> Keyring:
    return Keyring.load(FILES, algorithm)


@cache
def refresher(form: Any = "opaque") -> RefreshTokens:
    return RefreshTokens(RefreshKeys.load(REFRESH_FILES), form, ISSUER)


def _signed(payload: object, key: Key | None = None, **changes: Any) -> bytes:
    key = key or ring().signing
    return forge(header(key, **changes), payload, key)


@cache
def access_tokens() -> tuple[bytes, ...]:
    """Good tokens, and one that has expired and is good else."""
    keys = [ring(algorithm).signing for algorithm in ("HS256", "ES256", "EdDSA")]
    good = [_signed(claims(), key) for key in keys]
    return (*good, _signed(claims(exp=NOW - TTL)), _signed(claims(sub="caf\u00e9", email="a@b.example")))


@cache
def refresh_tokens() -> tuple[bytes, ...]:
    forms = ("opaque", "jwt")
    minted = [refresher(form).mint(SESSION, n, NOW, NOW + 5) for form in forms for n in (0, 7, 10**15)]
    return tuple(token.encode() for token in minted)


WORDS = "eyJ . .. = == - _ rt1. hs es ed none HS256 ES256 EdDSA at+jwt rt+jwt JWT crit b64 kid alg typ jwk zip \\u0061"


@target(access_tokens, WORDS)
def access_token(data: bytes) -> None:
    """No bytes are accepted, nor called expired, but what was signed; whatever comes, it is one of three answers."""
    reader = verifier(ring())
    first, second = _verified(reader, data), _verified(reader, data)
    assert type(first) is type(second)
    if isinstance(first, Claims):
        assert second is first
    if first is not None:
        # not the signature: of one by ECDSA anyone can make another over the same bytes
        assert data.rpartition(b".")[0] in {token.rpartition(b".")[0] for token in access_tokens()}


def _verified(reader: Verifier, data: bytes) -> Claims | ExpiredToken | None:
    try:
        return reader.verify(data, NOW)
    except ExpiredToken as error:
        return error
    except InvalidToken:
        return None


@target(lambda: [as_json(header(ring().signing)), as_json(header(ring().signing, jku="https://a", x5c=["a"]))], WORDS)
def signed_header(data: bytes) -> None:
    """A header counts only where every reader finds our type, our key and its algorithm in it, and no extension."""
    if _verified(verifier(ring()), forge(data, claims(), ring().signing)) is None:
        return
    for read in (json.loads, orjson.loads):
        said = read(data)
        assert said["typ"].lower().removeprefix("application/") == ACCESS_TYPE
        assert (said["alg"], said["kid"]) == ("HS256", "hs")
        assert not {"crit", "b64"} & said.keys()


@target(
    lambda: [as_json(claims()), as_json(claims(aud=["x", AUDIENCE], nbf=NOW, client_id="c"))],
    '" { } [ ] null 1e9 -1 true iss aud exp',
)
def signed_claims(data: bytes) -> None:
    """What is signed is claims of the right types, read alike by every reader, or refused."""
    found = _verified(verifier(ring()), _signed(data))
    if found is None:
        return
    said = found.claims if isinstance(found, ExpiredToken) else found
    for read in (json.loads, orjson.loads):
        assert read(data) == said.raw
    texts = (said.iss, said.sub, said.jti, said.sid, said.client_id, *said.aud, *said.roles, *said.scope)
    assert all(type(text) is str for text in texts)
    assert all(type(number) is int and number >= 0 for number in (said.exp, said.iat, said.n))
    assert said.iss == ISSUER
    assert AUDIENCE in said.aud
    assert not set("\r\n\0") & set(said.sub + said.jti + said.sid)
    assert said.iat <= NOW + 10
    assert isinstance(found, ExpiredToken) == (said.exp + 10 <= NOW)


@target(refresh_tokens, WORDS)
def refresh_token(data: bytes) -> None:
    """No bytes are a refresh token but what was minted, as text or as bytes."""
    found = _refresh(data)
    assert _refresh(data.decode("latin-1")) == found
    assert (found is not None) == (data in refresh_tokens())
    assert _verified(verifier(ring()), data) is None


def _refresh(data: str | bytes) -> RefreshToken | None:
    try:
        return refresher().read(data, NOW)
    except InvalidGrant as error:
        assert error.reason == "malformed"
        return None


_REFRESH_CLAIMS = {"iss": ISSUER, "sid": SESSION, "n": 3, "iat": NOW, "exp": NOW + 9}


@target(lambda: [as_json(_REFRESH_CLAIMS), as_json({**_REFRESH_CLAIMS, "exp": 0})], '" { } null 1e9 -1 true iss sid')
def refresh_claims(data: bytes) -> None:
    """A signed refresh token names a session and its counter, and is never an access token."""
    key = RefreshKeys.load(REFRESH_FILES).signing
    token = jws.write(key, REFRESH_TYPE, data)
    found = _refresh(token)
    assert _verified(verifier(ring()), token) is None
    if found is not None:
        assert type(found.counter) is int
        again = refresher().read(refresher().mint(found.session_id, found.counter, NOW, 0), NOW)
        assert (again.session_id, again.counter) == (found.session_id, found.counter)
        for read in (json.loads, orjson.loads):
            assert (read(data)["sid"], read(data)["n"]) == (found.session_id, found.counter)


_OBJECTS = [
    as_json(claims()),
    b"{}",
    b'{"a":{"b":[1,-0.5,1e3,"\\u00e9\\ud83d\\ude00",null,true]}}',
    b'{"a":18446744073709551615}',
]


@target(
    lambda: _OBJECTS,
    '{ } [ ] " : , \\u0000 \\ud800 \\\\ NaN Infinity -Infinity 1e999 18446744073709551616 {"a":1,"a":2} null',
)
def json_object(data: bytes) -> None:
    """An object that is read is the same to every reader, names nothing twice, and can be written again."""
    try:
        said = parse_object(data)
    except Malformed:
        return
    assert orjson.loads(data) == said
    assert json.loads(data, object_pairs_hook=_once) == said
    assert parse_object(encode_object(said)) == said


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


@target(lambda: [b64(bytes(range(n))) for n in range(5)], "= == + / - _ A Q")
def base64url(data: bytes) -> None:
    """Bytes have one spelling."""
    assert decode_base64url(encode_base64url(data)) == data
    try:
        decoded = decode_base64url(data)
    except Malformed:
        return
    assert encode_base64url(decoded) == data


def _key_files() -> list[bytes]:
    public = _EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    jwks = [{**ring(algorithm).signing.jwk(), "d": "AA"} for algorithm in ("ES256", "EdDSA")]
    return [*(file.data for file in FILES), public, *(as_json(jwk) for jwk in jwks), *map(as_json, map(_public, jwks))]


def _public(jwk: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in jwk.items() if name != "d"}


@target(
    _key_files,
    '"kty" "EC" "OKP" "RSA" "oct" "crv" "P-256" "P-384" "Ed25519" "use" "sig" "key_ops" "alg" "AQAB" "n" "e" "d" BEGIN',
)
def key_file(data: bytes) -> None:
    """A key file is a key that signs what it verifies, or is refused in one line."""
    for suffix in (".jwk", ".pem", ".refresh.jwk"):
        try:
            key = read_key(KeyFile("kid" + suffix, data, NOW), suffix)
        except BadKey as error:
            assert str(error).isprintable()
            continue
        assert not key.verify(b"message", data[:64])
        assert not {"d", "k", "p", "q"} & key.jwk().keys()
        if key.private is not None:
            assert key.verify(b"message", key.sign(b"message"))
