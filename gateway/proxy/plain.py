"""The plainest answer, read by one regular expression. Pure.

Most answers come whole in one read: HTTP/1.1, a Content-Length, no line that concerns the connection but
`Connection: keep-alive`. One match takes such a head in a fifth of the time that llhttp and its callbacks
take (2.3 us an answer). What is matched here llhttp reads alike: the grammar is a subset of RFC 9112's
(tests/proxy/test_head.py holds the two side by side), and whatever else comes goes to llhttp.
"""

from __future__ import annotations

import re

_VALUE = rb"[\t -~\x80-\xff]*+\r\n"
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*+:"
# Not the first letters of Keep-Alive, Proxy-*, TE, Trailer, Transfer-Encoding, Upgrade; of C only what is neither
# Connection nor Content-Length, of S what is not Set-Cookie (it is looked into: it may set one of the gateway's own),
# of X only what is neither X-Gateway-Error nor X-Access-Token.
_LINE = (
    rb"(?:[ABDEFGHIJLMNOQRVWYZabdefghijlmnoqrvwyz0-9]|[Ss](?![Ee][Tt]-)|[Cc](?![Oo][Nn])"
    rb"|[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-(?![Ll])|[Xx]-(?![Gg]|[Aa][Cc][Cc][Ee]))" + _NAME + _VALUE
)
_ANSWER = re.compile(
    rb"HTTP/1\.1 ([2345][0-9][0-9]) %b((?:%b)*+[Cc]ontent-[Ll]ength:[ \t]*+([0-9]{1,18}+)\r\n(?:%b)*+)"
    rb"(?:[Cc]onnection: keep-alive\r\n((?:%b)*+))?+\r\n" % (_VALUE, _LINE, _LINE, _LINE)
)
_NOT_PLAIN = frozenset({b"204", b"304", b"401"})  # without a body whatever they say; or worth a closer look

_REMEMBERED = 1024  # bytes of a head that a connection keeps; more than most have

Plain = tuple[int, bytes, int]


class PlainAnswers:
    """Reads those of one connection. A head that is byte for byte the one before is not read again (1.4 us).

    Within one second many answers of a backend differ in their body alone. Where the length is the same too, reading
    could find nothing else: a match ends with the head's blank line, and sees of the body its length.
    """

    __slots__ = ("_head", "_plain", "_size")

    def __init__(self) -> None:
        self._head = b""
        self._plain: Plain | None = None
        self._size = -1

    def read(self, data: bytes, limit: int) -> Plain | None:
        """Return what `whole_answer` does; `limit` is the same for all answers of a connection."""
        if len(data) == self._size and data.startswith(self._head):
            return self._plain
        plain = whole_answer(data, limit)
        if plain is not None and plain[2] <= _REMEMBERED:
            self._head, self._plain, self._size = data[: plain[2]], plain, len(data)
        return plain


def whole_answer(data: bytes, limit: int) -> Plain | None:
    """Return (status, header lines, where the body begins) of a read that is one whole plain answer, else None.

    The lines are whole, with their CRLF, and less `Connection`; a head is at most `limit` bytes.
    """
    match = _ANSWER.match(data)
    if match is None:
        return None
    status, lines, length, more = match.groups()
    at = match.end()
    if int(length) != len(data) - at or at > limit or status in _NOT_PLAIN:
        return None
    return int(status), lines + more if more else lines, at
