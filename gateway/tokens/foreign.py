"""Tokens of other issuers: which issuer's, with which of its keys, and what they say in this gateway's terms.

Laws:
- The `iss` of a token picks one issuer, and that issuer's keys and rules alone meet the token: another issuer's
  key of the same `kid` is never tried, and this gateway's own neither.
- What a token says before its signature is checked can only have it refused.
- What has a meaning in this gateway's own tokens alone (`sid`, `n`) is never taken from another issuer's.
- A token must say when it was issued and when it ends, and not live longer than `max_ttl`: so that a
  revocation by time can end (keyspace.py, not-before).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import IssuerUnavailable, UnknownKey
from gateway.tokens import jws, members
from gateway.tokens.claims import Claims, Foreign, claim_at
from gateway.tokens.keyfile import Key
from gateway.tokens.keyset import MAX_KID, KeySet
from gateway.tokens.strict import Malformed, encode_base64url, parse_object

_RESERVED = frozenset({"sid", "n"})
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 3.3
LONGEST_JTI = 200  # characters: a token id in the store has 255 at most
_DIGEST_CHARACTERS = 11  # 66 bits: enough to tell configured issuers apart


@dataclass(frozen=True, slots=True)
class IssuerRules:
    """What is asked of one issuer's tokens, and how they are read.

    `types` are the values of `typ` in lower case without `application/`, "" for none. `max_ttl` is in seconds.
    `subject_prefix` stands before every subject of this issuer. `exchange_prefix` stands before the subjects of
    the sessions that its tokens are exchanged for, "" where they are not exchanged; `exchange_claims` are the
    claims that go into such a session.
    """

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    types: frozenset[str]
    roles_claim: str = "roles"
    scope_claim: str = "scope"
    subject_claim: str = "sub"
    max_ttl: float = 86400.0
    subject_prefix: str = ""
    exchange_prefix: str = ""
    exchange_claims: tuple[str, ...] = ()

    def subject_id(self, subject: str) -> str:
        """Return what a user is known by in the store; never like one of this gateway's own."""
        return f"~{_digest(self.issuer)}:{subject}"

    def token_id(self, jti: str) -> str:
        """Return what a token is known by in the store, after its `jti`; a long one stands there as its digest."""
        return f"~{_digest(self.issuer)}:{jti if len(jti) <= LONGEST_JTI else 'j.' + _sha256(jti.encode())}"

    def voided(self, now: float, leeway: float, issued_at: int = 0) -> tuple[int, float]:
        """Return the moment at or before which a user's tokens are void from `now` on, and for how many seconds.

        `issued_at` is the time of a token that must be among those, though the issuer's clock may be ahead.
        """
        moment = max(int(now), issued_at)
        return moment, moment - now + self.max_ttl + 2 * leeway + 1  # by the slowest of the clocks


class _Issuer:
    """An issuer and its keys of the moment; None = none have ever been loaded."""

    __slots__ = ("keys", "rules")

    def __init__(self, rules: IssuerRules) -> None:
        self.rules = rules
        self.keys: KeySet | None = None


class Issuers:
    """The other issuers whose tokens are accepted. `leeway` is in seconds."""

    def __init__(self, rules: Iterable[IssuerRules], leeway: float) -> None:
        self._issuers = {each.issuer: _Issuer(each) for each in rules}
        self.leeway = leeway

    def take_up(self, rules: Iterable[IssuerRules], fresh: Container[str]) -> frozenset[Key]:
        """Accept the tokens of these issuers from here on (a reload); return the keys that verified by other rules.

        Issuers keep their keys, but for those in `fresh`, whose keys are to be fetched anew.
        """
        before = self._issuers
        self._issuers = {each.issuer: _Issuer(each) for each in rules}
        gone: set[Key] = set()
        for name, old in before.items():
            place = self._issuers.get(name)
            kept = place is not None and name not in fresh
            if place is not None and kept:
                place.keys = old.keys
            if old.keys is not None and not (place is not None and kept and place.rules == old.rules):
                gone |= old.keys.keys
        return frozenset(gone)

    def rules(self, issuer: str) -> IssuerRules | None:
        found = self._issuers.get(issuer)
        return found.rules if found is not None else None

    def all_rules(self) -> list[IssuerRules]:
        return [each.rules for each in self._issuers.values()]

    def keys(self, issuer: str) -> KeySet | None:
        return self._issuers[issuer].keys

    def take_keys(self, issuer: str, keys: KeySet) -> frozenset[Key]:
        """Verify this issuer's tokens with these keys from here on; return those that went."""
        place = self._issuers[issuer]
        gone = place.keys.keys - keys.keys if place.keys is not None else frozenset[Key]()
        place.keys = keys
        return gone

    def read(self, token: bytes, now: float) -> tuple[Claims, Key] | None:
        """Return the claims of a token of one of these issuers and the key that verified it, None for any other token.

        Raises Malformed; UnknownKey where only the key is missing, IssuerUnavailable where no keys were ever
        there. `exp` and `nbf` are left to the caller.
        """
        parts = jws.split(token)
        raw = parse_object(parts.payload)
        name = raw.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            return None
        claims = read_foreign_claims(raw, parts.message, issuer.rules)
        key = self._key(issuer, parts.header, token, claims.exp + self.leeway <= now)
        if not key.verify(parts.message, parts.signature):
            raise Malformed("the signature is wrong")
        return claims, key

    def _key(self, issuer: _Issuer, header: dict[str, Any], token: bytes, expired: bool) -> Key:
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in issuer.rules.algorithms:
            raise Malformed("alg is not one of those that are allowed")
        if jws.media_type(header) not in issuer.rules.types:
            raise Malformed("typ is not one of those that are allowed")
        if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
            raise Malformed("kid is no text, or too long")
        if issuer.keys is None:
            raise IssuerUnavailable(issuer.rules.issuer, token)
        key = issuer.keys.find(kid, algorithm)
        if key is not None:
            return key
        if kid is None or expired or issuer.keys.has(kid):  # other keys would not make this token good
            raise Malformed("no key has this kid and alg")
        raise UnknownKey(issuer.rules.issuer, token)


def read_foreign_claims(raw: Mapping[str, Any], message: bytes, rules: IssuerRules) -> Claims:
    """Return the claims of another issuer's token, told as this gateway tells its own; raise Malformed.

    `message` is what was signed: where there is no `jti` its digest names the token. It is not the whole token,
    because a signature of ECDSA has a second spelling.
    """
    aud = members.audiences(raw)
    if rules.audience not in aud:
        raise Malformed("aud does not name this service")
    if "cnf" in raw:  # RFC 7800: whoever holds it must prove more, which is not asked here
        raise Malformed("the token is bound to a key")
    exp, iat = members.date(raw, "exp"), members.date(raw, "iat")
    if exp - iat > rules.max_ttl:
        raise Malformed("the token lives too long")
    if "nbf" in raw:
        members.date(raw, "nbf")
    subject = members.checked_text(claim_at(raw, rules.subject_claim), rules.subject_claim)
    jti = members.text(raw, "jti") if "jti" in raw else "h." + _sha256(message)
    roles, scope = _words(claim_at(raw, rules.roles_claim)), _scope(claim_at(raw, rules.scope_claim))
    sub, client_id = rules.subject_prefix + subject, _client(raw)
    told = {name: value for name, value in raw.items() if name not in _RESERVED}
    told |= {"sub": sub, "roles": list(roles), "scope": " ".join(scope)}
    return Claims(
        iss=rules.issuer,
        sub=sub,
        aud=aud,
        exp=exp,
        iat=iat,
        jti=jti,
        sid="",
        n=-1,
        roles=roles,
        scope=scope,
        client_id=client_id,
        raw=told,
        foreign=Foreign(subject, rules.subject_id(subject), rules.token_id(jti)),
    )


def _words(value: Any) -> tuple[str, ...]:
    """Return a list of strings, or the words of one; anything else gives none, and no right that hangs on them."""
    if isinstance(value, str):
        return tuple(filter(None, value.split(" ")))
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    return ()


def _scope(value: Any) -> tuple[str, ...]:
    words = _words(value)
    return words if all(map(_SCOPE_TOKEN.fullmatch, words)) else ()


def _client(raw: Mapping[str, Any]) -> str:
    """RFC 9068 2.2 has `client_id`, OpenID Connect Core 2 `azp`."""
    value = raw.get("client_id", raw.get("azp"))
    return value if isinstance(value, str) else ""


def _digest(issuer: str) -> str:
    return _sha256(issuer.encode("utf-8", "surrogatepass"))[:_DIGEST_CHARACTERS]


def _sha256(data: bytes) -> str:
    return encode_base64url(hashlib.sha256(data).digest()).decode()
