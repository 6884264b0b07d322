"""The compact signed form (RFC 7515 7.1), written and read.

The laws of reading, in this order: one spelling of the three segments; a header that names a type, a known
key and that key's own algorithm; the signature; and only then the payload. What a header says about
keys (`jku`, `jwk`, `x5u`, `x5c`) is never looked at (RFC 8725 3.10).
"""

from __future__ import annotations

from collections.abc import Callable
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


def read(token: bytes, find: FindKey, typ: str) -> dict[str, Any]:
    """Return the claims of a token of type `typ` whose signature is good; raise Malformed, never anything else.

    `find` gives the key of a kid. The caller bounds the length of `token` and judges the claims.
    """
    parts = token.split(b".", 3)
    if len(parts) != 3:  # five are a JWE (RFC 7516 9)
        raise Malformed("not three segments")
    head, payload, signature = map(decode_base64url, parts)
    key = _key(parse_object(head), find, typ)
    if not key.verify(token[: token.rindex(b".")], signature):
        raise Malformed("the signature is wrong")
    return parse_object(payload)


def _key(header: dict[str, Any], find: FindKey, typ: str) -> Key:
    """Return the key that a header names; raise Malformed where the header asks for anything unusual."""
    if "crit" in header or "b64" in header:  # RFC 7515 4.1.11: no extension is understood here; RFC 7797
        raise Malformed("crit or b64 in the header")
    said = header.get("typ")
    # RFC 8725 3.11, RFC 9068 4; media types are compared without case, `application/` may be left out (RFC 7515 4.1.9)
    if not isinstance(said, str) or said.lower().removeprefix("application/") != typ:
        raise Malformed(f"typ is not {typ}")
    kid = header.get("kid")
    key = find(kid) if isinstance(kid, str) else None
    if key is None:
        raise Malformed("no key has this kid")
    if header.get("alg") != key.algorithm:
        raise Malformed("alg is not the key's")
    return key
