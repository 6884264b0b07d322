"""The refresh token: derived from (session, counter), never stored.

It is an HMAC under a server key, so that a forged one is refused before the store hears of it, a copy of the
store holds no usable token, and the same successor can be given again to whoever lost it (RFC 9700
4.14.2). Whether its session is alive and which counter is current, the store decides. Both formats are read
whichever is minted, so that a change of format signs no one out.

The key is chosen by when the session was rotated, which the store remembers, and never by a clock of here: so the
successor is the same in every replica, also where one is asked before and another after the key has changed.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from typing import Any, Literal

from gateway.errors import InvalidGrant
from gateway.tokens import jws
from gateway.tokens.keyfile import Key
from gateway.tokens.keyring import RefreshKeys
from gateway.tokens.strict import Malformed, encode_base64url, encode_object

REFRESH_TYPE = "rt+jwt"
MAX_TOKEN_BYTES = 2048  # an opaque token has at most 207, a JWT grows with the issuer's name
MAX_COUNTER = 10**16 - 1
_SESSION_ID = r"[0-9a-f][A-Za-z0-9_-]{15,63}"
_SESSION = re.compile(_SESSION_ID)
# A kid may hold dots, but nothing after it may: the parts are told apart from the right.
_OPAQUE = re.compile(rf"rt1\.([A-Za-z0-9._-]{{1,64}})\.({_SESSION_ID})\.(0|[1-9][0-9]{{0,15}})\.([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """What a refresh token says: a session, and the session's refresh counter when it was minted.

    `expired`: its `exp` has passed by the reader's clock. That alone is no reason to refuse it, for the session ends
    by the time of the store; it tells why a session that is not there any more has gone.
    """

    session_id: str
    counter: int
    expired: bool = False


class RefreshTokens:
    """Mints refresh tokens in one format and reads both."""

    __slots__ = ("_form", "_issuer", "_keys")

    def __init__(self, keys: RefreshKeys, form: Literal["opaque", "jwt"], issuer: str) -> None:
        self._keys = keys
        self._form = form
        self._issuer = issuer

    def reload(self, keys: RefreshKeys) -> None:
        """Mint and read with these keys from here on."""
        self._keys = keys

    def mint(self, session_id: str, counter: int, issued_at: int, expires_at: int) -> str:
        """Return the refresh token: the same for the same arguments and keys. `expires_at` 0 = never.

        `issued_at` is when the session was begun or last rotated, as the store says. Times are Unix seconds.
        Raises ValueError for a session id or a counter that no token can carry.
        """
        if not _SESSION.fullmatch(session_id) or not 0 <= counter <= MAX_COUNTER:
            raise ValueError("not a session id and its counter")
        key = self._keys.signing_at(issued_at)
        if self._form == "opaque":
            return _opaque(key, session_id, counter)
        claims = {"iss": self._issuer, "sid": session_id, "n": counter, "iat": issued_at}
        if expires_at:
            claims["exp"] = expires_at
        return jws.write(key, REFRESH_TYPE, encode_object(claims)).decode()

    def read(self, token: str | bytes, now: float) -> RefreshToken:
        """Return what `token` says; raise InvalidGrant with reason "malformed", never anything else."""
        text = token if isinstance(token, str) else token.decode("latin-1")
        if len(text) > MAX_TOKEN_BYTES or not text.isascii():
            raise InvalidGrant("malformed")
        if text.startswith("rt1."):
            return self._read_opaque(text)
        try:
            claims, _ = jws.read(text.encode(), self._keys.get, REFRESH_TYPE)
        except Malformed:
            raise InvalidGrant("malformed") from None
        return self._read_claims(claims, now)

    def _read_opaque(self, text: str) -> RefreshToken:
        parts = _OPAQUE.fullmatch(text)
        key = self._keys.get(parts[1]) if parts else None
        if parts is None or key is None:
            raise InvalidGrant("malformed")
        session_id, counter = parts[2], int(parts[3])
        if not hmac.compare_digest(_opaque(key, session_id, counter), text):
            raise InvalidGrant("malformed")
        return RefreshToken(session_id, counter)

    def _read_claims(self, claims: dict[str, Any], now: float) -> RefreshToken:
        session_id, counter, expires_at = claims.get("sid"), claims.get("n"), claims.get("exp", 0)
        dates = (claims.get("iat"), expires_at)
        if (
            claims.get("iss") != self._issuer
            or not isinstance(session_id, str)
            or not _SESSION.fullmatch(session_id)
            or type(counter) is not int  # a bool is an int to isinstance
            or not 0 <= counter <= MAX_COUNTER
            or not all(type(date) is int and date >= 0 for date in dates)
        ):
            raise InvalidGrant("malformed")
        return RefreshToken(session_id, counter, expired=0 < expires_at <= now)


def _opaque(key: Key, session_id: str, counter: int) -> str:
    # The text before the first NUL keeps this apart from what a JWT signs with the same key.
    message = f"tokengate refresh v1\0{key.kid}\0{session_id}\0{counter}"
    mac = encode_base64url(key.sign(message.encode())).decode()
    return f"rt1.{key.kid}.{session_id}.{counter}.{mac}"
