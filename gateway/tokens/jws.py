"""The compact signed form (RFC 7515 7.1), written and read.

The laws of reading, in this order: one spelling of the three segments; a header that names a type, a known
key and that key's own algorithm; the signature; and only then the payload. What a header says about
keys (`jku`, `jwk`, `x5u`, `x5c`) is never looked at (RFC 8725 3.10).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.tokens.keyfile import Key
from gateway.tokens.strict import Malformed, decode_base64url, encode_base64url, encode_object, parse_object

FindKey = Callable[[str], Key | None]


def write(key: Key, typ: str, payload: bytes) -> bytes:
    """Return `payload`, a JSON object, signed as a token of type `typ`; raise ValueError for a public key.

    The same arguments give the same bytes where the algorithm is deterministic (HS256, EdDSA, RS256).
    """
    header = encode_object({"alg": key.algorithm, "kid": key.kid, "typ": typ})
    message = encode_base64url(header) + b"." + encode_base64url(payload)
    return message + b"." + encode_base64url(key.sign(message))


@dataclass(frozen=True, slots=True)
class Unverified:
    """A token taken apart. Nothing in it may be believed until `key.verify(message, signature)` has said so."""

    header: dict[str, Any]
    payload: bytes = field(repr=False)
    message: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def read(token: bytes, find: FindKey, typ: str) -> tuple[dict[str, Any], Key]:
    """Return the claims of a token of type `typ` whose signature is good, and its key; raise Malformed, nothing else.

    `find` gives the key of a kid. The caller bounds the length of `token` and judges the claims.
    """
    parts = split(token)
    key = _key(parts.header, find, typ)
    if not key.verify(parts.message, parts.signature):
        raise Malformed("the signature is wrong")
    return parse_object(parts.payload), key


def split(token: bytes) -> Unverified:
    """Take a token apart; raise Malformed for one with another spelling, or that asks for an extension."""
    segments = token.split(b".", 3)
    if len(segments) != 3:  # five are a JWE (RFC 7516 9)
        raise Malformed("not three segments")
    head, payload, signature = map(decode_base64url, segments)
    header = parse_object(head)
    if "crit" in header or "b64" in header:  # RFC 7515 4.1.11: no extension is understood here; RFC 7797
        raise Malformed("crit or b64 in the header")
    return Unverified(header, payload, token[: token.rindex(b".")], signature)


def media_type(header: dict[str, Any]) -> str:
    """Return the token's type in lower case, "" where it names none; raise Malformed where that is no text.

    Media types are compared without case, and `application/` may be left out (RFC 7515 4.1.9).
    """
    said = header.get("typ", "")
    if not isinstance(said, str):
        raise Malformed("typ is not a string")
    return said.lower().removeprefix("application/")


def _key(header: dict[str, Any], find: FindKey, typ: str) -> Key:
    """Return the key that a header names; raise Malformed where the header asks for anything unusual."""
    if media_type(header) != typ:  # RFC 8725 3.11, RFC 9068 4
        raise Malformed(f"typ is not {typ}")
    kid = header.get("kid")
    key = find(kid) if isinstance(kid, str) else None
    if key is None:
        raise Malformed("no key has this kid")
    if header.get("alg") != key.algorithm:
        raise Malformed("alg is not the key's")
    return key
