"""The one normal form of a request path, and which paths are refused.

What is matched against the routes is what the backend gets (contract 6.8). The normal form keeps every
byte that means something and resolves what means nothing (RFC 3986 6.2.2): escapes of unreserved
characters are decoded, the others get upper-case digits, dot segments are resolved. A path is refused
that a laxer backend could read as an address under another route: one with escaped slashes or
backslashes, doubled slashes or `;` parameters is fine only if every such reading meets the same route.
Pure: bytes in, bytes or BadRequest out.
"""

from __future__ import annotations

import re

from gateway.errors import BadRequest

# Most paths hold none of these and are normal as they stand.
_ODD = re.compile(rb"[^!$&'()*+,\-./0-9:=@A-Z_a-z~]|//|/\.")
_FORBIDDEN = re.compile(rb"[^!-~]|[#?]")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})?")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_BARE_ESCAPE = re.compile(rb"%([0-9A-F]{2})")
_SLASHES = re.compile(rb"/{2,}")


def is_plain(path: bytes) -> bool:
    """True where a path is its own normal form and has one reading only."""
    return path[:1] == b"/" and _ODD.search(path) is None


def normalise(path: bytes) -> bytes:
    """Return the normal form. Raises BadRequest for what is not a path (RFC 3986 3.3)."""
    if path[:1] != b"/" or _FORBIDDEN.search(path):
        raise BadRequest("path")
    return _resolve(_ESCAPE.sub(_unescape, path))


def loosest(path: bytes) -> bytes:
    """Return what the laxest backend could read in a normal path.

    Escapes decoded, backslashes as slashes, parameters after `;` cut, slashes merged, dots resolved.
    """
    decoded = _BARE_ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), path).replace(b"\\", b"/")
    segments = (segment.partition(b";")[0] for segment in decoded.split(b"/"))
    return _resolve(_SLASHES.sub(b"/", b"/".join(segments)))


def has_dots(path: bytes) -> bool:
    """True where a reader could find a `.` or `..` segment in a raw path without malformed escapes."""
    decoded = _ESCAPE.sub(lambda m: bytes([int(m[1], 16)]), path).replace(b"\\", b"/")
    return any(segment.partition(b";")[0] in (b".", b"..") for segment in decoded.split(b"/"))


def _unescape(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise BadRequest("a percent sign without two digits")
    byte = int(match[1], 16)
    if byte == 0:
        raise BadRequest("an escaped NUL")
    return bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte


def _resolve(path: bytes) -> bytes:
    """Resolve `.` and `..` segments (RFC 3986 5.2.4)."""
    if b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
