"""Access JWT + keyring + now -> claims, or an error of the contract.

The laws: a token is good only if all of it is good; it is called expired only if nothing else is wrong with
it; no byte of it is believed before its signature is checked; whatever the bytes, the answer is
Claims, ExpiredToken or InvalidToken. What was verified is remembered, never past its expiry.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from gateway.errors import EarlyToken, ExpiredToken, InvalidToken
from gateway.tokens import jws
from gateway.tokens.claims import Claims
from gateway.tokens.keyring import Keyring
from gateway.tokens.strict import Malformed

ACCESS_TYPE = "at+jwt"  # RFC 9068 2.1
MAX_TOKEN_BYTES = 8192
MAX_TEXT = 255
MAX_DATE = 253402300799  # the end of the year 9999
_ID = re.compile(r"[0-9a-f][A-Za-z0-9_-]{15,63}")  # the partition's digit, then at least 96 random bits
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Verifier:
    """Verifies access tokens of one issuer for one audience. `leeway` is in seconds.

    Remembers at most `max_entries` verified tokens of at most `max_bytes` together, and forgets the oldest
    first. The claims of a remembered token take some 2 KiB beside the token.
    """

    __slots__ = (
        "_audience",
        "_bytes",
        "_issuer",
        "_keyring",
        "_known",
        "_leeway",
        "_max_bytes",
        "_max_entries",
        "_recall",
    )

    def __init__(
        self,
        keyring: Keyring,
        issuer: str,
        audience: str,
        leeway: float,
        max_entries: int = 65536,
        max_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        # An OrderedDict, because taking the oldest out of a dict walks over all that was taken out before.
        self._known: OrderedDict[bytes, tuple[Claims, float]] = OrderedDict()
        self._recall = self._known.get
        self._bytes = 0

    def verify(self, token: bytes, now: float) -> Claims:
        """Return the claims of `token` at `now` (Unix seconds), the same object for the same token.

        Raises ExpiredToken(claims) or InvalidToken(reason), never anything else.
        """
        known = self._recall(token)  # the hot path: one look-up and one comparison
        if known is not None and now < known[1]:
            return known[0]
        return self._examine(token, now)

    def reload(self, keyring: Keyring) -> None:
        """Verify with these keys from here on; what the old keys verified is forgotten."""
        self._keyring = keyring
        self._known.clear()
        self._bytes = 0

    def _examine(self, token: bytes, now: float) -> Claims:
        known = self._known.pop(token, None)
        if known is not None:  # its time is up
            self._bytes -= len(token)
            raise ExpiredToken(known[0])
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidToken("token too long")
        try:
            claims = read_claims(jws.read(token, self._keyring.get, ACCESS_TYPE), self._issuer, self._audience)
        except Malformed as error:
            raise InvalidToken(str(error)) from None
        self._check_times(claims, now)
        self._remember(token, claims, now)
        return claims

    def _check_times(self, claims: Claims, now: float) -> None:
        """RFC 7519 4.1.4 to 4.1.6. Expiry comes last: ExpiredToken says that all else is good."""
        if claims.iat > now + self._leeway:
            raise EarlyToken(claims, "issued in the future")
        if claims.raw.get("nbf", 0) > now + self._leeway:
            raise EarlyToken(claims, "not valid yet")
        if now >= claims.exp + self._leeway:
            raise ExpiredToken(claims)

    def _remember(self, token: bytes, claims: Claims, now: float) -> None:
        known = self._known
        known[token] = (claims, claims.exp + self._leeway)
        self._bytes += len(token)
        while len(known) > self._max_entries or self._bytes > self._max_bytes:
            self._forget_oldest()
        # Tokens of one lifetime expire in the order they came. Two out for one in empties the memory of a
        # crowd that left, without a pause for all of them.
        for _ in range(2):
            if known and next(iter(known.values()))[1] <= now:
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        token, _ = self._known.popitem(last=False)
        self._bytes -= len(token)


def read_claims(raw: Mapping[str, Any], issuer: str, audience: str) -> Claims:
    """Return the claims of an access token of this gateway, typed; raise Malformed. Times are not compared here.

    Every claim must have the type of RFC 7519 4.1 and RFC 9068 2.2, and dates must be whole numbers: what
    would have to be converted is refused.
    """
    aud = _audiences(raw)
    if raw.get("iss") != issuer:
        raise Malformed("iss is another issuer")
    if audience not in aud:
        raise Malformed("aud does not name this service")
    if "nbf" in raw:
        _date(raw, "nbf")
    return Claims(
        iss=issuer,
        sub=_text(raw, "sub"),
        aud=aud,
        exp=_date(raw, "exp"),
        iat=_date(raw, "iat"),
        jti=_identifier(raw, "jti"),
        sid=_identifier(raw, "sid"),
        n=_whole(raw, "n"),
        roles=_texts(raw, "roles"),
        scope=tuple(filter(None, _string(raw, "scope").split(" "))),
        client_id=_text(raw, "client_id") if "client_id" in raw else "",
        raw=raw,
    )


def _string(raw: Mapping[str, Any], name: str) -> str:
    value = raw.get(name)
    if not isinstance(value, str):
        raise Malformed(f"{name} is not a string")
    return value


def _text(raw: Mapping[str, Any], name: str) -> str:
    value = _string(raw, name)
    if not 0 < len(value) <= MAX_TEXT or _CONTROL.search(value):
        raise Malformed(f"{name} is empty, too long or has control characters")
    return value


def _texts(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Malformed(f"{name} is not a list of strings")
    return tuple(value)


def _identifier(raw: Mapping[str, Any], name: str) -> str:
    value = _string(raw, name)
    if not _ID.fullmatch(value):
        raise Malformed(f"{name} is not an identifier of this gateway")
    return value


def _audiences(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """RFC 7519 4.1.3: a string, or a list of strings."""
    value = raw.get("aud")
    return (value,) if isinstance(value, str) else _texts(raw, "aud")


def _whole(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    if type(value) is not int or value < 0:  # a bool is an int to isinstance
        raise Malformed(f"{name} is not a whole number")
    return value


def _date(raw: Mapping[str, Any], name: str) -> int:
    value = _whole(raw, name)
    if value > MAX_DATE:
        raise Malformed(f"{name} is not a date")
    return value
