"""The one normal form of a request path, and which paths are refused.

What is matched against the routes is what the backend gets (contract 6.8). The normal form keeps every
byte that means something and resolves what means nothing (RFC 3986 6.2.2): escapes of unreserved
characters are decoded, the others get upper-case digits, dot segments are resolved. A path is refused
that a laxer backend could read as an address under another route: one with escaped slashes or
backslashes, doubled slashes or `;` parameters is fine only if every such reading meets the same route,
whichever of these a backend minds and whichever not.
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
MAX_READ = 65536  # bytes of all readings of one path together
_SLASHES = re.compile(rb"/{2,}")


def is_plain(path: bytes) -> bool:
    """True where a path is its own normal form and has one reading only."""
    return path[:1] == b"/" and _ODD.search(path) is None


def normalise(path: bytes) -> bytes:
    """Return the normal form. Raises BadRequest for what is not a path (RFC 3986 3.3)."""
    if path[:1] != b"/" or _FORBIDDEN.search(path):
        raise BadRequest("path")
    return _resolve(_ESCAPE.sub(_unescape, path))


def readings(path: bytes) -> set[bytes]:
    """Return what backends may take a path for, itself among them.

    Each takes some of these liberties: to cut parameters after `;`, to decode escapes, to take backslashes for
    slashes, to merge slashes, to resolve dots. All of them together are one reading more, not the worst one:
    `..` takes away an empty segment where slashes are not merged first, and a named one where they are. Raises
    BadRequest for a path that is long and has so many readings that to look at them would be work worth an attack.
    """
    found = {path}
    for liberty in _LIBERTIES:
        found |= {liberty(read) for read in found}
        if len(found) > 2 and len(found) * len(path) > MAX_READ:
            raise BadRequest("a long path with many readings")
    return found


def folded(path: bytes) -> set[bytes]:
    """Return what a path is to backends that ignore case also beyond ASCII: to some the Kelvin sign is a k."""
    text = _decode(path).decode("utf-8", "surrogateescape")
    return {each.casefold().encode("utf-8", "surrogateescape") for each in (text, text.upper())}


def has_dots(path: bytes) -> bool:
    """True where a reader could find a `.` or `..` segment in a raw path without malformed escapes."""
    decoded = _turn_backslashes(_decode(path))
    return any(segment.partition(b";")[0] in (b".", b"..") for segment in decoded.split(b"/"))


def _cut_parameters(path: bytes) -> bytes:
    return b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))


def _decode(path: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), path)


def _turn_backslashes(path: bytes) -> bytes:
    return path.replace(b"\\", b"/")


def _merge_slashes(path: bytes) -> bytes:
    return _SLASHES.sub(b"/", path)


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


# In the order in which backends come to them: parameters before or after escapes, slashes before or after dots.
_LIBERTIES = (_cut_parameters, _decode, _turn_backslashes, _cut_parameters, _merge_slashes, _resolve, _merge_slashes)
