"""One key file -> one key, bound to one algorithm.

A key signs and verifies with the algorithm that its file fixes, never with one that a token names
(RFC 8725 3.1, 3.2). A key that is too weak, or meant for something else, is refused when it is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from gateway.tokens.strict import Malformed, decode_base64url, parse_object

ALGORITHMS = ("ES256", "ES384", "EdDSA", "RS256", "PS256", "HS256")
MIN_RSA_BITS = 2048  # RFC 7518 3.3
MIN_HMAC_BYTES = 32  # RFC 7518 3.2: no shorter than the hash
MAX_FILE_BYTES = 32 * 1024  # an RSA private key of 16384 bits in PEM has 13 KiB
KID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# What tokens of other issuers may be signed with: public keys alone (keyset.py).
FOREIGN_ALGORITHMS = ("RS256", "ES256", "EdDSA", "PS256", "ES384", "ES512", "RS384", "RS512", "PS384", "PS512")
_IMPLEMENTED = {name: get_default_algorithms()[name] for name in {*ALGORITHMS, *FOREIGN_ALGORITHMS}}
_RSA_ALGORITHMS = ("RS256", "PS256")
_PEM_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_PEM_PRIVATE = ("PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY")
_JWK_MEMBERS = {  # kty -> its members that are base64url (RFC 7518 6), the required ones first
    "EC": (("x", "y"), ("d",)),
    "OKP": (("x",), ("d",)),  # RFC 8037 2
    "RSA": (("n", "e"), ("d", "p", "q", "dp", "dq", "qi")),
    "oct": (("k",), ()),
}
# InternalError is what cryptography makes of OpenSSL's refusal of a key whose length is not its type's.
_UNREADABLE = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, InternalError, PyJWTError)


class BadKey(ValueError):
    """A key file that cannot be used. The message names the file and the reason, never key material."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name!r}: {reason}" if name else reason)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of the key directory: its name, its bytes, and when it was modified (Unix seconds)."""

    name: str
    data: bytes = field(repr=False)
    modified: float


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """One key of one algorithm. `born` is in Unix seconds. `private` is None where it only verifies.

    An HMAC key has its secret as `private` and as `public`; `jwk` is {} for it, so that it is never published.
    """

    kid: str
    algorithm: str
    born: float
    private: Any = field(repr=False)
    public: Any = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Return the signature (RFC 7518 3.1, for ECDSA r || s); raise ValueError for a public key."""
        if self.private is None:
            raise ValueError(f"key {self.kid} cannot sign")
        return _IMPLEMENTED[self.algorithm].sign(message, self.private)

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Tell whether `signature` is this key's over `message`. Never raises, whatever the bytes."""
        return _IMPLEMENTED[self.algorithm].verify(message, self.public, signature)

    def jwk(self) -> dict[str, str]:
        """Return the public JWK (RFC 7517 4), {} for an HMAC key."""
        if self.algorithm == "HS256":
            return {}
        members: dict[str, Any] = _IMPLEMENTED[self.algorithm].to_jwk(self.public, as_dict=True)
        members.pop("key_ops", None)  # RFC 7517 4.3: not together with `use`
        return {**members, "use": "sig", "alg": self.algorithm, "kid": self.kid}


def read_key(file: KeyFile, suffix: str, rsa_algorithm: str = "RS256") -> Key:
    """Return the key in `file`; its name without `suffix` is the kid. Raise BadKey.

    `rsa_algorithm` is what an RSA key signs with where its file does not say it.
    """
    kid = file.name.removesuffix(suffix)
    if not KID.fullmatch(kid):
        raise BadKey(file.name, "the name must be 1 to 64 of A-Z a-z 0-9 . _ - before its suffix")
    if len(file.data) > MAX_FILE_BYTES:
        raise BadKey(file.name, f"larger than {MAX_FILE_BYTES} bytes")
    private, public, named = _read_pem(file) if suffix == ".pem" else _read_jwk(file)
    return Key(kid, _bind(file.name, public, named, rsa_algorithm), _born(file), private, public)


def _read_pem(file: KeyFile) -> tuple[Any, Any, None]:
    """Return (private or None, public, None): a PEM file names no algorithm."""
    labels = [label.decode() for label in _PEM_LABEL.findall(file.data) if label != b"EC PARAMETERS"]
    if len(labels) != 1:
        raise BadKey(file.name, f"must hold one PEM block, found {len(labels)}")
    try:
        if labels[0] in _PEM_PRIVATE:
            private = load_pem_private_key(file.data, password=None)
            return private, private.public_key(), None
        if labels[0] == "PUBLIC KEY":
            return None, load_pem_public_key(file.data), None
    except _UNREADABLE as error:
        encrypted = isinstance(error, TypeError)  # what cryptography raises for want of a password
        raise BadKey(file.name, "is encrypted" if encrypted else "not a readable PEM key") from None
    what = "is encrypted" if "ENCRYPTED" in labels[0] else "neither a private nor a public key"
    raise BadKey(file.name, what)


def _read_jwk(file: KeyFile) -> tuple[Any, Any, str | None]:
    """Return (private or None, public, the algorithm that it names or None). `kid` in the file is ignored."""
    try:
        jwk = parse_object(file.data)
        key = _jwk_key(file.name, jwk)
    except Malformed as error:
        raise BadKey(file.name, str(error)) from None
    signs, algorithm = _jwk_purpose(file.name, jwk)
    if isinstance(key, bytes):
        return key if signs else None, key, algorithm
    if "d" not in jwk:
        return None, key, algorithm
    return key if signs else None, key.public_key(), algorithm


def read_jwk_key(name: str, jwk: Mapping[str, Any]) -> Any:
    """Return the key in a JWK, whatever its strength and its purpose; `name` is for the message. Raise BadKey."""
    try:
        return _jwk_key(name, jwk)
    except Malformed as error:
        raise BadKey(name, str(error)) from None


def _jwk_key(name: str, jwk: Mapping[str, Any]) -> Any:
    kty = jwk.get("kty")
    if not isinstance(kty, str) or kty not in _JWK_MEMBERS:
        raise BadKey(name, "kty must be EC, OKP, RSA or oct")
    if "oth" in jwk:
        raise BadKey(name, "RSA keys of more than two primes are not supported")
    required, optional = _JWK_MEMBERS[kty]
    members = {member: jwk[member] for member in (*required, *optional) if member in jwk}
    for member in (*required, *members):
        if not isinstance(members.get(member), str):
            raise BadKey(name, f"member {member!r} must be a string")
        decode_base64url(members[member].encode())
    members |= {"kty": kty, "crv": jwk.get("crv")}
    try:
        return _IMPLEMENTED[{"EC": "ES256", "OKP": "EdDSA", "RSA": "RS256", "oct": "HS256"}[kty]].from_jwk(members)
    except _UNREADABLE:
        raise BadKey(name, "not a readable JWK") from None


def _jwk_purpose(name: str, jwk: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Return (may sign, the algorithm that it names or None) (RFC 7517 4.2, 4.3, 4.4)."""
    if jwk.get("use", "sig") != "sig":
        raise BadKey(name, "use must be sig")
    operations = jwk.get("key_ops", ["sign", "verify"])
    if not isinstance(operations, list) or not ("sign" in operations or "verify" in operations):
        raise BadKey(name, "key_ops must name sign or verify")
    algorithm = jwk.get("alg")
    if "alg" in jwk and algorithm not in ALGORITHMS:
        raise BadKey(name, f"alg must be one of {', '.join(ALGORITHMS)}")
    return "sign" in operations, algorithm


def _bind(name: str, public: Any, named: str | None, rsa_algorithm: str) -> str:
    """Return the one algorithm of this key; raise BadKey where it has none, or not the one that it names."""
    fits = _fitting(name, public)
    if named is not None and named not in fits:
        raise BadKey(name, f"alg {named} does not fit the key, which is for {' or '.join(fits)}")
    if named is not None:
        return named
    return rsa_algorithm if rsa_algorithm in fits else fits[0]


def _fitting(name: str, public: Any) -> tuple[str, ...]:
    """Return the algorithms that this key could serve, the default first."""
    match public:
        case bytes() if len(public) < MIN_HMAC_BYTES:
            raise BadKey(name, f"HMAC key of {len(public) * 8} bits, at least {MIN_HMAC_BYTES * 8} are needed")
        case bytes():
            return ("HS256",)
        case rsa.RSAPublicKey() if public.key_size < MIN_RSA_BITS:
            raise BadKey(name, f"RSA key of {public.key_size} bits, at least {MIN_RSA_BITS} are needed")
        case rsa.RSAPublicKey():
            return _RSA_ALGORITHMS
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return ("ES256",)
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return ("ES384",)
        case ed25519.Ed25519PublicKey():
            return ("EdDSA",)
    raise BadKey(name, "only P-256, P-384, Ed25519, RSA and HMAC keys are supported")


def time_in(name: str) -> float | None:
    """Return the time at the beginning of a file's name in Unix seconds, None where there is none."""
    try:
        return datetime.strptime(name[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _born(file: KeyFile) -> float:
    """Return the time in the file's name, else when it was modified: a mounted Secret has any mtime."""
    named = time_in(file.name)
    return file.modified if named is None else named
