"""Keys, a user and tokens: one set for a whole run, so that every peer verifies tokens of the same size.

All gateways of a run have the same issuer, keys and store: a token of one is good at each of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import orjson
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gateway.identity.passwords import hash_password
from gateway.tokens.keyring import KeyFile, Keyring, generate, generate_refresh
from gateway.tokens.signer import Signer

ISSUER = "https://gateway.example"
AUDIENCE = "bench"
PASSWORD = "bench"
USER = {"username": "bench", "password": PASSWORD}
ALGORITHMS = ("ES256", "RS256")
TTL = 6 * 3600.0  # longer than any run


@dataclass(frozen=True, slots=True)
class Credentials:
    """`keys` is a directory for tokens.signing_keys, `public` holds `<algorithm>.pem`, `users` is a users file."""

    keys: Path
    public: Path
    users: Path
    files: tuple[KeyFile, ...]

    def jwks(self) -> str:
        """Return the public keys as the gateway would publish them (RFC 7517)."""
        return orjson.dumps(Keyring.load(self.files, ALGORITHMS[0]).jwks()).decode()

    def token_like(self, token: str, algorithm: str) -> str:
        """Return a token that says what `token` says, signed with another algorithm."""
        said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        signer = Signer(Keyring.load(self.files, algorithm), ISSUER, AUDIENCE, TTL)
        minted = signer.mint(
            subject=said["sub"],
            session_id=said["sid"],
            counter=said["n"],
            roles=said["roles"],
            scope=said["scope"],
            claims=said,
            now=time.time(),
        )
        return minted.token


def make(folder: Path) -> Credentials:
    """Write keys and a users file below `folder`."""
    keys, public, users = folder / "keys", folder / "public", folder / "users.toml"
    keys.mkdir()
    public.mkdir()
    files = [generate(algorithm, time.time()) for algorithm in ALGORITHMS]
    for algorithm, file in zip(ALGORITHMS, files, strict=True):
        key = load_pem_private_key(file.data, None).public_key()
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (public / f"{algorithm}.pem").write_bytes(pem)
    files.append(generate_refresh(time.time()))
    for file in files:
        (keys / file.name).touch(mode=0o600)
        (keys / file.name).write_bytes(file.data)
    users.touch(mode=0o600)
    users.write_text(f'[users.bench]\npassword = "{hash_password(PASSWORD)}"\nroles = ["user"]\n')
    return Credentials(keys, public, users, tuple(files))
