"""Claims -> access JWT (RFC 9068).

The signer mints nothing that the verifier would refuse: what it is about to sign is read by the same rules.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.tokens import jws
from gateway.tokens.keyring import Keyring
from gateway.tokens.strict import encode_object, parse_object
from gateway.tokens.verifier import ACCESS_TYPE, MAX_TOKEN_BYTES, read_claims

# Claims that only the gateway may set, whatever an identity provider sends along.
REGISTERED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "n", "roles", "scope", "client_id"})
_RANDOM_BYTES = 12  # 96 bits: among 2**32 tokens of one partition, two alike with a chance of 2**-33


class CannotMint(ValueError):
    """No token can say this: a subject or claim that is malformed, or too much for 8 KiB. Says which, not what."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A minted access token. `expires_at` is in Unix seconds, `token_id` is its jti."""

    token: str = field(repr=False)
    expires_at: int
    token_id: str


class Signer:
    """Mints access tokens. `access_ttl` is in seconds."""

    __slots__ = ("_access_ttl", "_audience", "_issuer", "_keyring")

    def __init__(self, keyring: Keyring, issuer: str, audience: str, access_ttl: float) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._audience = audience
        self._access_ttl = access_ttl

    def reload(self, keyring: Keyring) -> None:
        """Sign with this ring's keys from here on."""
        self._keyring = keyring

    def mint(
        self,
        *,
        subject: str,
        session_id: str,
        counter: int,
        roles: Sequence[str],
        scope: str,
        claims: Mapping[str, Any],
        now: float,
        client_id: str = "",
    ) -> AccessToken:
        """Return an access token for a session, valid from `now` (Unix seconds). Raises CannotMint.

        `counter` is the session's refresh counter. `claims` are further claims; none of them can stand in
        for a registered one. The token lives for `access_ttl` from the second of `now` on.
        """
        token_id = session_id[:1] + secrets.token_urlsafe(_RANDOM_BYTES)
        expires_at = int(now) + math.ceil(self._access_ttl)
        registered = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "exp": expires_at,
            "iat": int(now),
            "jti": token_id,
            "sid": session_id,
            "n": counter,
            "roles": list(roles),
            "scope": scope,
        }
        if client_id:
            registered["client_id"] = client_id
        extra = {name: value for name, value in claims.items() if name not in REGISTERED}
        return AccessToken(self._sign(registered | extra, now), expires_at, token_id)

    def _sign(self, claims: dict[str, Any], now: float) -> str:
        try:
            payload = encode_object(claims)
            read_claims(parse_object(payload), self._issuer, self._audience)
        except (ValueError, TypeError, RecursionError) as error:
            raise CannotMint(str(error)) from None
        token = jws.write(self._keyring.signing_at(now), ACCESS_TYPE, payload)
        if len(token) > MAX_TOKEN_BYTES:
            raise CannotMint(f"the access token would exceed {MAX_TOKEN_BYTES} bytes")
        return token.decode()
