"""User agents, shortened: a browser's has 110 characters and more, of which few tell it from another's.

The pieces that browsers repeat stand in a record as one control character each, which no user agent holds
there otherwise (record.py cleans them away). It saves 96 to 128 bytes a session, a fifth of it. A user agent of
another form stays as it is.

Records outlive the process that wrote them: a code's meaning never changes, and codes are only ever added.
"""

from __future__ import annotations

import re

_PIECES = {  # the frozen parts of today's user agents (Chromium's reduction, WebKit's, Gecko's)
    b"\x01": b"Mozilla/5.0 (",
    b"\x02": b"Windows NT 10.0; Win64; x64",
    b"\x03": b"Macintosh; Intel Mac OS X 10",
    b"\x04": b"X11; Linux x86_64",
    b"\x05": b"Linux; Android ",
    b"\x06": b"iPhone; CPU iPhone OS ",
    b"\x07": b" like Mac OS X",
    b"\x08": b") AppleWebKit/537.36 (KHTML, like Gecko) Chrome/",
    b"\x0b": b") AppleWebKit/605.1.15 (KHTML, like Gecko) Version/",
    b"\x0c": b".0.0.0 Safari/537.36",
    b"\x0e": b".0.0.0 Mobile Safari/537.36",
    b"\x0f": b" Mobile/15E148 Safari/604.1",
    b"\x10": b" Safari/605.1.15",
    b"\x11": b") Gecko/20100101 Firefox/",
    b"\x12": b" Edg/",
}
_CODES = {piece: code for code, piece in _PIECES.items()}
_PIECE = re.compile(b"|".join(re.escape(piece) for piece in sorted(_CODES, key=len, reverse=True)))
_CODE = re.compile(b"[%b]" % b"".join(_PIECES))


def shorten(text: bytes) -> bytes:
    """Return a user agent without control characters as it stands in a record."""
    return _PIECE.sub(lambda match: _CODES[match[0]], text)


def restore(text: bytes) -> bytes:
    """Return the user agent that was shortened."""
    return _CODE.sub(lambda match: _PIECES[match[0]], text)
