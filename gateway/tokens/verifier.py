"""Access JWT + keys + now -> claims, or an error of the contract.

The laws: a token is good only if all of it is good; it is called expired only if nothing else is wrong with
it; no byte of it is believed before its signature is checked; whatever the bytes, the answer is Claims,
ExpiredToken, InvalidToken or IssuerUnavailable. What was verified is remembered, never past its expiry; what
has expired is remembered as that, so that asking again with it costs a look-up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from gateway.errors import EarlyToken, ExpiredToken, InvalidToken
from gateway.tokens import jws, members
from gateway.tokens.claims import Claims
from gateway.tokens.keyfile import Key
from gateway.tokens.keyring import Keyring
from gateway.tokens.memory import Memory
from gateway.tokens.strict import Malformed

ACCESS_TYPE = "at+jwt"  # RFC 9068 2.1
MAX_TOKEN_BYTES = 8192
MAX_FOREIGN_BYTES = 16384  # other issuers put more into a token: Entra ID up to 200 groups
MAX_EXPIRED = 8192  # of the tokens that are remembered as expired
MAX_EXPIRED_BYTES = 8 * 1024 * 1024
_ID = re.compile(r"[0-9a-f][A-Za-z0-9_-]{15,63}")  # the partition's digit, then at least 96 random bits


class Others(Protocol):
    """Reads tokens of other issuers (foreign.Issuers)."""

    def read(self, token: bytes, now: float) -> tuple[Claims, Key] | None: ...


class Verifier:
    """Verifies access tokens of one issuer for one audience, and those of `others`. `leeway` is in seconds.

    Remembers at most `max_entries` verified tokens of at most `max_bytes` together, and forgets the oldest
    first. The claims of a remembered token take some 2 KiB beside the token.
    """

    __slots__ = ("_audience", "_expired", "_issuer", "_keyring", "_known", "_leeway", "_others", "_recall")

    def __init__(
        self,
        keyring: Keyring,
        issuer: str,
        audience: str,
        leeway: float,
        max_entries: int = 65536,
        max_bytes: int = 32 * 1024 * 1024,
        others: Others | None = None,
    ) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._others = others
        self._known = Memory(max_entries, max_bytes)
        self._expired = Memory(min(max_entries, MAX_EXPIRED), min(max_bytes, MAX_EXPIRED_BYTES))
        self._recall = self._known.get

    def verify(self, token: bytes, now: float) -> Claims:
        """Return the claims of `token` at `now` (Unix seconds), the same object for the same token.

        Raises ExpiredToken(claims), InvalidToken(reason), of which UnknownKey is one, or IssuerUnavailable,
        never anything else. The last two only with `others`.
        """
        known = self._recall(token)  # the hot path: one look-up and one comparison
        if known is not None and now < known[1]:
            return known[0]
        return self._examine(token, now)

    def reload(self, keyring: Keyring) -> None:
        """Verify with these keys from here on; what was verified is forgotten, tokens of other issuers too."""
        self._keyring = keyring
        self._known.clear()
        self._expired.clear()

    def accept(self, others: Others | None) -> None:
        """Read the tokens of these other issuers from here on; what was verified is remembered (forget_keys)."""
        self._others = others

    def forget_keys(self, keys: frozenset[Key]) -> None:
        """Forget what these keys verified; they verify nothing any more."""
        self._known.forget_keys(keys)
        self._expired.forget_keys(keys)

    def _examine(self, token: bytes, now: float) -> Claims:
        over = self._known.pop(token) or self._expired.get(token)
        if over is not None and now >= over[1]:
            self._expired.put(token, over)
            raise ExpiredToken(over[0])
        try:
            claims, key = self._read(token, now)
        except Malformed as error:
            raise InvalidToken(str(error)) from None
        self._check_begin(claims, now)
        entry = (claims, claims.exp + self._leeway, key)
        if now >= entry[1]:  # last: ExpiredToken says that all else is good
            self._expired.put(token, entry)
            raise ExpiredToken(claims)
        self._known.put(token, entry)
        self._known.drop_expired(now)
        return claims

    def _read(self, token: bytes, now: float) -> tuple[Claims, Key]:
        if self._others is not None and len(token) <= MAX_FOREIGN_BYTES:
            found = self._others.read(token, now)
            if found is not None:
                return found
        if len(token) > MAX_TOKEN_BYTES:
            raise Malformed("token too long")
        raw, key = jws.read(token, self._keyring.get, ACCESS_TYPE)
        return read_claims(raw, self._issuer, self._audience), key

    def _check_begin(self, claims: Claims, now: float) -> None:
        """RFC 7519 4.1.5 and 4.1.6."""
        if claims.iat > now + self._leeway:
            raise EarlyToken(claims, "issued in the future")
        if claims.raw.get("nbf", 0) > now + self._leeway:
            raise EarlyToken(claims, "not valid yet")


def read_claims(raw: Mapping[str, Any], issuer: str, audience: str) -> Claims:
    """Return the claims of an access token of this gateway, typed; raise Malformed. Times are not compared here.

    Every claim must have the type of RFC 7519 4.1 and RFC 9068 2.2, and dates must be whole numbers: what
    would have to be converted is refused.
    """
    aud = members.audiences(raw)
    if raw.get("iss") != issuer:
        raise Malformed("iss is another issuer")
    if audience not in aud:
        raise Malformed("aud does not name this service")
    if "nbf" in raw:
        members.date(raw, "nbf")
    return Claims(
        iss=issuer,
        sub=members.text(raw, "sub"),
        aud=aud,
        exp=members.date(raw, "exp"),
        iat=members.date(raw, "iat"),
        jti=_identifier(raw, "jti"),
        sid=_identifier(raw, "sid"),
        n=members.whole(raw, "n"),
        roles=members.texts(raw, "roles"),
        scope=tuple(filter(None, members.string(raw, "scope").split(" "))),
        client_id=members.text(raw, "client_id") if "client_id" in raw else "",
        raw=raw,
    )


def _identifier(raw: Mapping[str, Any], name: str) -> str:
    value = members.string(raw, name)
    if not _ID.fullmatch(value):
        raise Malformed(f"{name} is not an identifier of this gateway")
    return value
