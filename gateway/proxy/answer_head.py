"""The head of a backend's answer: what of it passes, how the body is framed, whether it says `expired_token`. Pure.

llhttp has read the head strictly before; here it is taken as it came, less the few lines that concern the
connection to the backend alone.
"""

from __future__ import annotations

import http
import re

import orjson

from gateway.errors import UpstreamInvalid
from gateway.proxy.headers import (
    CANDIDATES,
    R_CODING,
    R_CONNECTION,
    R_DROP,
    R_LENGTH,
    R_TRAILER,
    R_UPGRADE,
    ResponseKinds,
    nominated,
    trailer_names,
    without_cookies,
    without_lines,
)

STATUS_LINES = {
    code: b"HTTP/1.1 %d %b\r\n" % (code, http.HTTPStatus(code).phrase.encode())
    if code in http.HTTPStatus._value2member_map_
    else b"HTTP/1.1 %d \r\n" % code
    for code in range(100, 1000)
}
LENGTH = frozenset({b"content-length"})
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
EXPIRED, JSON = b"expired", b"json"
_CHALLENGE = re.compile(rb"\nwww-authenticate:[^\r]*(?:expired_token|invalid_token[^\r]*expired)", re.IGNORECASE)
_OURS = re.compile(rb"\nx-gateway-error:[ \t]*expired_token[ \t]*\r", re.IGNORECASE)
_JSON = re.compile(rb"\ncontent-type:[ \t]*application/(?:[a-z.+-]*\+)?json", re.IGNORECASE)


class AnswerHead:
    """The header section of an answer, less the lines that concern the connection (RFC 9110 7.6.1) or are ours to say.

    `fields` are whole lines with their CRLF. `length` is the Content-Length, -1 where there is none; `upgrade` the
    protocol switched to, lower case; `announced` the names under which trailer fields may pass.
    """

    __slots__ = ("announced", "chunked", "fields", "length", "upgrade")

    def __init__(self, block: bytes, kinds: ResponseKinds, own_cookies: tuple[bytes, ...]) -> None:
        """`block` begins with the line feed before the first line, so that lines are found whole.

        Raises UpstreamInvalid for a coding that is not chunked.
        """
        self.length = -1
        self.chunked = False
        self.upgrade = b""
        self.announced: tuple[bytes, ...] = ()
        more = b""
        for line in CANDIDATES.findall(block):
            name, _, value = line.partition(b":")
            kind = kinds[name]
            if kind == R_LENGTH:
                self.length = int(value)
            elif kind:
                block = block.replace(line + b"\r", b"", 1)
                if kind != R_DROP:
                    more += self._note(kind, value.strip(b" \t"))
        self.fields = without_cookies(block[1:], own_cookies)
        if more:
            self._drop(nominated(more) - FRAMING)

    def without_length(self) -> bytes:
        """Return the lines for a message that has no body whatever it says."""
        return self.fields if self.length < 0 else without_lines(self.fields, LENGTH)

    def _drop(self, names: frozenset[bytes]) -> None:
        self.announced = tuple(name for name in self.announced if name.lower() not in names)
        self.fields = without_lines(self.fields, names)

    def _note(self, kind: int, value: bytes) -> bytes:
        """Note how the answer is framed; return what else a `Connection` value makes hop-by-hop."""
        if kind == R_CODING:
            if value.lower() != b"chunked" or self.chunked:
                raise UpstreamInvalid("transfer coding")
            self.chunked = True
        elif kind == R_UPGRADE:
            self.upgrade = value.lower()
        elif kind == R_TRAILER:
            self.announced += trailer_names(value)
        elif kind == R_CONNECTION and value.lower() not in (b"keep-alive", b"close"):
            return b"," + value
        return b""


def verdict(head: bytes) -> bytes:
    """Return EXPIRED where a 401's head says that the token expired, JSON where its body may, b"" else."""
    if _CHALLENGE.search(head) or _OURS.search(head):
        return EXPIRED
    return JSON if _JSON.search(head) else b""


def says_expired(body: bytes) -> bool:
    """Tell whether a JSON body is an error object that names expired_token (RFC 6749 5.2's shape, or RFC 9457's)."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(content, dict) and "expired_token" in (content.get("error"), content.get("code"))
