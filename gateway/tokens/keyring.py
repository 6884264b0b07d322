"""kid -> key: which one signs, which still verify, and what is published of them.

One flat directory holds both rings. `*.pem` and `*.jwk` are keys of access tokens, `*.refresh.jwk` are
HMAC keys of refresh tokens, other files are ignored. All keys verify and are published; which one signs is told by
the time (schedule.py): a key is rotated by adding a file, and retired by removing one after the last of its tokens
has expired.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from gateway.tokens.keyfile import ALGORITHMS, BadKey, Key, KeyFile, read_key
from gateway.tokens.schedule import Schedule, age
from gateway.tokens.strict import encode_base64url

__all__ = ["ALGORITHMS", "BadKey", "Key", "KeyFile", "Keyring", "RefreshKeys", "generate", "generate_refresh"]

REFRESH_SUFFIX = ".refresh.jwk"
_NEW_RSA_BITS = 3072  # NIST SP 800-57 part 1, 5.6.1: as strong as P-256


class _Ring:
    """Keys by their kids; `schedule` says which of them signs when."""

    __slots__ = ("_keys", "schedule")

    def __init__(self, keys: Iterable[Key], schedule: Schedule) -> None:
        self._keys = {key.kid: key for key in keys}
        self.schedule = schedule

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys.values())

    def get(self, kid: str) -> Key | None:
        return self._keys.get(kid)

    def signing_at(self, now: float) -> Key:
        """Return the key that signs at `now` (Unix seconds)."""
        return self.schedule.at(now)

    @property
    def signing(self) -> Key:
        """The key that signs once every key has been published for long enough: the newest."""
        return self.schedule.newest

    def __repr__(self) -> str:
        return f"{type(self).__name__}(newest={self.signing!r}, {len(self._keys)} keys)"


class Keyring(_Ring):
    """The keys of access tokens. Those that can sign with the configured algorithm do, each in its turn."""

    __slots__ = ("_jwks",)

    def __init__(self, keys: Iterable[Key], schedule: Schedule) -> None:
        super().__init__(keys, schedule)
        self._jwks = [jwk for key in sorted(self, key=age, reverse=True) if (jwk := key.jwk())]

    @classmethod
    def load(cls, files: Sequence[KeyFile], algorithm: str, publish_before: float = 0.0) -> Keyring:
        """Read the key files of one directory; raise BadKey, also where none can sign with `algorithm`.

        `publish_before` is for how many seconds a key verifies before it signs.
        """
        if algorithm not in ALGORITHMS:
            raise BadKey("", f"algorithm {algorithm!r} is not one of {', '.join(ALGORITHMS)}")
        keys = [read_key(file, file.name[-4:], algorithm) for file in files if _is_access_key(file.name)]
        return cls(_unique(keys), Schedule(_able(keys, algorithm, "*.pem or *.jwk"), publish_before))

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the JWK Set of RFC 7517 5: public keys only, the newest first."""
        return {"keys": [dict(jwk) for jwk in self._jwks]}


class RefreshKeys(_Ring):
    """The HMAC keys of refresh tokens. They are never published outside, but every replica must have one in time."""

    __slots__ = ()

    @classmethod
    def load(cls, files: Sequence[KeyFile], publish_before: float = 0.0) -> RefreshKeys:
        """Read the refresh keys of one directory; raise BadKey, also where there is none that can sign.

        `publish_before` is for how many seconds a key is read before it signs.
        """
        found = [file for file in files if file.name.endswith(REFRESH_SUFFIX) and not file.name.startswith(".")]
        keys = [read_key(file, REFRESH_SUFFIX) for file in found]
        for file, key in zip(found, keys, strict=True):
            if key.algorithm != "HS256":
                raise BadKey(file.name, "a refresh key must have kty oct")
        return cls(_unique(keys), Schedule(_able(keys, "HS256", f"*{REFRESH_SUFFIX}"), publish_before))


def generate(algorithm: str, now: float) -> KeyFile:
    """Return a new private key for `algorithm`, as the file to write. `now` is in Unix seconds."""
    if algorithm == "HS256":
        return _generate_secret(now, ".jwk")
    pem = _new_private(algorithm).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return KeyFile(f"{_new_kid(now)}.pem", pem, now)


def generate_refresh(now: float) -> KeyFile:
    """Return a new HMAC key of 256 bits for refresh tokens, as the file to write."""
    return _generate_secret(now, REFRESH_SUFFIX)


def _generate_secret(now: float, suffix: str) -> KeyFile:
    kid = _new_kid(now)
    secret = encode_base64url(secrets.token_bytes(32)).decode()
    jwk = {"kty": "oct", "use": "sig", "alg": "HS256", "kid": kid, "k": secret}
    return KeyFile(kid + suffix, json.dumps(jwk).encode() + b"\n", now)


def _new_private(algorithm: str) -> Any:
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case "RS256" | "PS256":
            return rsa.generate_private_key(65537, _NEW_RSA_BITS)
    raise BadKey("", f"algorithm {algorithm!r} is not one of {', '.join(ALGORITHMS)}")


def _new_kid(now: float) -> str:
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _is_access_key(name: str) -> bool:
    hidden = name.startswith(".")  # `..data` and its like in a mounted Secret
    return name.endswith((".pem", ".jwk")) and not name.endswith(REFRESH_SUFFIX) and not hidden


def _unique(keys: list[Key]) -> list[Key]:
    seen: set[str] = set()
    for key in keys:
        if key.kid in seen:
            raise BadKey(key.kid, "two files of the directory have this kid")
        seen.add(key.kid)
    return keys


def _able(keys: list[Key], algorithm: str, pattern: str) -> list[Key]:
    able = [key for key in keys if key.algorithm == algorithm and key.private is not None]
    if not able:
        raise BadKey("", f"no key ({pattern}) can sign with {algorithm}; `tokengate keys new` makes one")
    return able
