"""Who may ask about tokens: the clients of the introspection endpoint (RFC 7662 2.1, RFC 6749 2.3.1).

An unknown client costs what a wrong secret costs, so that names cannot be found by the time it takes. A
secret that was right once is remembered as a keyed digest: a resource server asks at every request of
its own, and the slow hash is there for those who guess.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import secrets
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote_plus

from gateway.errors import InvalidClient
from gateway.identity.passwords import decoy

MAX_CREDENTIALS = 2048  # bytes of the header's value

Check = Callable[[str, str], Awaitable[bool]]


class Clients:
    """`hashes`: client -> password hash. `check(hash, secret)` is PasswordPool.verify: slow, off the event loop."""

    def __init__(self, hashes: Mapping[str, str], check: Check) -> None:
        self._hashes = dict(hashes)
        self._check = check
        self._decoy = decoy(next(iter(self._hashes.values()))) if self._hashes else ""
        self._key = secrets.token_bytes(32)
        self._right: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Clients({sorted(self._hashes)})"

    async def authenticate(self, authorization: bytes | None, attempt: Callable[[], Awaitable[None]]) -> str:
        """Return the name of the client that an `Authorization` value proves. Raises InvalidClient.

        `attempt` is awaited before a secret is checked the slow way, and may raise.
        """
        readings = _basic(authorization)
        if not self._hashes:
            raise InvalidClient("no client is configured")
        for name, secret in readings:
            known = self._right.get(name)
            if known is not None and hmac.compare_digest(known, self._digest(name, secret)):
                return name
        await attempt()
        for name, secret in readings:
            if await self._check(self._hashes.get(name, self._decoy), secret) and name in self._hashes:
                self._right[name] = self._digest(name, secret)
                return name
        raise InvalidClient("unknown client or wrong secret")

    def _digest(self, name: str, secret: str) -> bytes:
        return hmac.digest(self._key, f"{len(name)}:{name}{secret}".encode(), hashlib.sha256)


def _basic(authorization: bytes | None) -> list[tuple[str, str]]:
    """Return (name, secret) as it stands, and form-decoded where that differs.

    RFC 6749 2.3.1 wants both form-encoded before they are joined; many clients leave that out. Raises
    InvalidClient for what is no Basic credential (RFC 7617 2).
    """
    scheme, _, encoded = (authorization or b"").partition(b" ")
    if scheme.lower() != b"basic" or len(encoded) > MAX_CREDENTIALS:
        raise InvalidClient("no basic credentials")
    try:
        text = b64decode(encoded.strip(b" "), validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise InvalidClient("malformed credentials") from None
    name, colon, secret = text.partition(":")
    if not colon:
        raise InvalidClient("malformed credentials")
    decoded = unquote_plus(name), unquote_plus(secret)
    return [(name, secret)] if decoded == (name, secret) else [(name, secret), decoded]
