"""The public keys of another issuer: a JWK Set (RFC 7517 5), read strictly and used narrowly.

Laws: a key verifies with one algorithm alone, fixed here and never by a token (RFC 8725 3.1). Secrets and
private keys verify nothing, whoever publishes them. A key of an unknown kind is passed over (RFC 7517 5), a
document that is no JWK Set is refused as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from gateway.tokens.keyfile import MIN_RSA_BITS, BadKey, Key, read_jwk_key
from gateway.tokens.strict import Malformed, parse_object

MAX_KEYS = 100
MAX_KID = 255  # characters
MAX_RSA_BITS = 8192  # beyond it one verification takes a millisecond
_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # RFC 7518 6.2.2, 6.3.2, 6.4.1
_RSA = ("RS256", "PS256", "RS384", "RS512", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


class KeySet:
    """The usable keys of one issuer. `ignored` counts those that were passed over."""

    __slots__ = ("_by_name", "_kids", "_prints", "ignored")

    def __init__(self, keys: Mapping[Key, str], ignored: int = 0) -> None:
        self._prints = dict(keys)
        self._by_name = {(key.kid, key.algorithm): key for key in keys}
        self._kids = frozenset(key.kid for key in keys)
        self.ignored = ignored

    @classmethod
    def parse(cls, data: bytes, algorithms: Sequence[str], before: KeySet | None = None) -> KeySet:
        """Read a JWK Set; raise Malformed. The caller bounds its length.

        A key that does not name its algorithm gets the first of `algorithms` that it fits. A key that stands
        in `before` alike stays the same object, so that what it verified need not be verified again.
        """
        jwks = parse_object(data).get("keys")
        if not isinstance(jwks, list):
            raise Malformed("not a JWK Set")
        if len(jwks) > MAX_KEYS:
            raise Malformed(f"more than {MAX_KEYS} keys")
        known = {print_: key for key, print_ in before._prints.items()} if before is not None else {}  # noqa: SLF001
        found: dict[tuple[str, str], tuple[Key, str]] = {}
        for jwk in jwks:
            try:
                key, print_ = _read(jwk, algorithms)
            except BadKey:
                continue
            found.setdefault((key.kid, key.algorithm), (known.get(print_, key), print_))
        return cls(dict(found.values()), len(jwks) - len(found))

    @property
    def keys(self) -> frozenset[Key]:
        return frozenset(self._prints)

    def __len__(self) -> int:
        return len(self._prints)

    def __repr__(self) -> str:
        return f"KeySet({sorted(self._kids)})"

    def find(self, kid: str | None, algorithm: str) -> Key | None:
        """Return the key that a token's header names; one without a kid means the only key that there is."""
        if kid is None:
            (only,) = self._prints if len(self._prints) == 1 else (None,)
            return only if only is not None and only.algorithm == algorithm else None
        return self._by_name.get((kid, algorithm))

    def has(self, kid: str) -> bool:
        return kid in self._kids


def _read(jwk: Any, algorithms: Sequence[str]) -> tuple[Key, str]:
    """Return (key, its members as text). Raises BadKey for one that is not to be used here."""
    if not isinstance(jwk, dict):
        raise BadKey("", "not an object")
    kid = jwk.get("kid", "")
    if not isinstance(kid, str) or len(kid) > MAX_KID:
        raise BadKey("", "kid is no text, or too long")
    if jwk.get("kty") not in ("RSA", "EC", "OKP") or _SECRET & jwk.keys():
        raise BadKey(kid, "not a public key")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise BadKey(kid, "not for signatures")
    public = read_jwk_key(kid, jwk)
    algorithm = _bind(kid, public, jwk, algorithms)
    members = ("kty", "crv", "n", "e", "x", "y")
    text = json.dumps([kid, algorithm, *(jwk.get(member) for member in members)])
    return Key(kid, algorithm, 0.0, None, public), text


def _bind(kid: str, public: Any, jwk: Mapping[str, Any], algorithms: Sequence[str]) -> str:
    fits = _fitting(kid, public)
    if "alg" in jwk:
        fits = tuple(algorithm for algorithm in fits if algorithm == jwk["alg"])
    for algorithm in algorithms:
        if algorithm in fits:
            return algorithm
    raise BadKey(kid, "its algorithm is not one of those that are allowed")


def _fitting(kid: str, public: Any) -> tuple[str, ...]:
    match public:
        case rsa.RSAPublicKey() if MIN_RSA_BITS <= public.key_size <= MAX_RSA_BITS and public.public_numbers().n % 2:
            return _RSA
        case ec.EllipticCurvePublicKey() if public.curve.name in _CURVES:
            return (_CURVES[public.curve.name],)
        case ed25519.Ed25519PublicKey():
            return ("EdDSA",)
    raise BadKey(kid, f"only RSA of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits, P-256, P-384, P-521 and Ed25519 are used")
