"""Keys made once a run, and tokens put together by hand, so that an attack needs no help from the signer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.tokens.keyring import Key, KeyFile, Keyring, RefreshKeys, generate, generate_refresh
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier

NOW = 1_700_000_000
ISSUER = "https://api.example.com"
AUDIENCE = "api"
LEEWAY = 10
TTL = 600
SESSION = "a" + "S" * 22
TOKEN_ID = "a" + "T" * 16
ABSENT = object()  # a claim or header member to leave out


@cache
def key_file(algorithm: str, number: int = 0) -> KeyFile:
    """A private key file; a higher number is a newer key."""
    if algorithm not in ("RS256", "PS256"):
        return generate(algorithm, NOW + number)
    private = rsa.generate_private_key(65537, 2048)  # a new one of 3072 bits takes ten times as long
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyFile(f"{algorithm.lower()}-{number}.pem", pem, NOW + number)


@cache
def refresh_file(number: int = 0) -> KeyFile:
    return generate_refresh(NOW + number)


def jwk_file(jwk: Mapping[str, Any], name: str = "key.jwk") -> KeyFile:
    return KeyFile(name, json.dumps(jwk).encode(), NOW)


def keyring(algorithm: str = "ES256") -> Keyring:
    return Keyring.load([key_file(algorithm)], algorithm)


def refresh_keys(*numbers: int) -> RefreshKeys:
    return RefreshKeys.load([refresh_file(number) for number in numbers or (0,)])


def verifier(ring: Keyring | None = None, **bounds: Any) -> Verifier:
    return Verifier(ring or keyring(), ISSUER, AUDIENCE, LEEWAY, **bounds)


def signer(ring: Keyring | None = None) -> Signer:
    return Signer(ring or keyring(), ISSUER, AUDIENCE, TTL)


def mint(ring: Keyring | None = None, subject: str = "u-1", now: float = NOW, **claims: Any) -> bytes:
    made = signer(ring).mint(
        subject=subject, session_id=SESSION, counter=3, roles=["user"], scope="orders:read", claims=claims, now=now
    )
    return made.token.encode()


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; ABSENT leaves one out."""
    good = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "u-1",
        "exp": NOW + TTL,
        "iat": NOW,
        "jti": TOKEN_ID,
        "sid": SESSION,
        "n": 3,
        "roles": ["user"],
        "scope": "orders:read",
    }
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


def header(key: Key, **changes: Any) -> dict[str, Any]:
    good = {"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"}
    return {name: value for name, value in (good | changes).items() if value is not ABSENT}


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def as_json(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def forge(head: object, payload: object, key: Key | None = None) -> bytes:
    """A token of any header and payload (objects, or bytes as they are), signed by `key`, or by no one."""
    message = b64(as_json(head)) + b"." + b64(as_json(payload))
    return message + b"." + (b64(key.sign(message)) if key else b"")


def signed(payload: object, ring: Keyring | None = None, **changes: Any) -> bytes:
    """A token of any payload, signed as it should be. `changes` are made to the header."""
    key = (ring or keyring()).signing
    return forge(header(key, **changes), payload, key)
