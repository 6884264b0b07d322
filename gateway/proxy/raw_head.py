"""Where a request's head begins and ends in what was read: for its size, and for its first line. Pure.

llhttp tells what it has read, not how many bytes that took, and it reads other protocols' first lines as
HTTP/1.0's. A head's limit must not depend on how it was cut into pieces, so its bytes are counted here.
"""

from __future__ import annotations

UNKNOWN = -1


class RawHead:
    """Follows the heads on one connection. `size` is what the pending head has come to, in bytes."""

    __slots__ = ("_at", "_before", "_piece")

    def __init__(self) -> None:
        self._before = b""
        self._piece = b""
        self._at = 0

    @property
    def size(self) -> int:
        return len(self._before)

    def read(self, piece: bytes, at: int) -> None:
        """Take the next piece; the head begins at `at` in it, or has begun before (0), or UNKNOWN."""
        self._piece = piece
        self._at = at

    def end(self) -> tuple[int, bytes]:
        """The head ends in this piece: return (size, first line), (UNKNOWN, b"") where it began nobody knows where."""
        at, before = self._at, self._before
        self._before = b""
        if at < 0:
            return UNKNOWN, b""
        raw, start = (before + self._piece, 0) if before else (self._piece, at)
        begin = start
        while raw[begin : begin + 1] in (b"\r", b"\n"):  # empty lines before it (RFC 9112 2.2)
            begin += 1
        end = raw.find(b"\r\n\r\n", begin) + 4
        self._at = end - len(before)
        return end - start, raw[begin : raw.find(b"\r\n", begin)]

    def skip(self, body: int) -> None:
        """A body of so many bytes follows, or one whose end is UNKNOWN."""
        if self._at >= 0:
            self._at = UNKNOWN if body < 0 else self._at + body

    def pend(self) -> None:
        """The piece ended within a head."""
        at = self._at
        self._before += self._piece if at <= 0 else self._piece[at:]
        self._piece = b""
        if at > 0:
            self._at = 0

    @property
    def unknown(self) -> bool:
        """True where the pending head began nobody knows where."""
        return self._at < 0
