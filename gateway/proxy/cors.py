"""What pages of other origins are told (Fetch standard, "CORS protocol"). Pure.

Laws:
- An origin is in the list byte for byte, or it is not; nothing that a request says is repeated before that is known.
- A request with several `Origin` lines, or none, has no origin here.
- To a listed origin the gateway alone speaks: what a backend says of CORS is dropped, because browsers refuse an
  answer with two `Access-Control-Allow-Origin`. To everyone else the backend's words pass as they are.
- Every answer varies by Origin (RFC 9110 12.5.5), whoever asked: a cache must not give one page another one's answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gateway.proxy.headers import valid_name

RawHeaders = Sequence[tuple[bytes, bytes]]
VARY = b"Vary: Origin\r\n"
PREFLIGHT_VARY = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
# What the gateway itself says beside the body, and scripts could not read otherwise.
EXPOSED = (
    b"X-Gateway-Error",
    b"WWW-Authenticate",
    b"Retry-After",
    b"X-Access-Token",
    b"X-Access-Token-Expires-In",
    b"X-Request-Id",
)
MAX_METHOD = 32  # bytes of a method that is repeated
MAX_NAMES = 4096  # bytes of header names that are
_BACKENDS = re.compile(rb"^access-control-[^\r\n]*\r\n", re.IGNORECASE | re.MULTILINE)
_VARIES = re.compile(rb"^vary:(?:[^\r\n]*[ \t,])?(?:origin|\*)[ \t]*[,\r]", re.IGNORECASE | re.MULTILINE)


class Grant:
    """What answers say to the pages of one origin; of one that is not listed, and of none, `allowed` is b"".

    `lines` is that as the head bytes of an answer of the gateway's own, `headers` as pairs for ASGI.
    """

    __slots__ = ("allowed", "headers", "lines")

    def __init__(self, allowed: bytes = b"") -> None:
        self.allowed = allowed
        self.lines = allowed + VARY
        pairs = (line.split(b": ", 1) for line in self.lines.split(b"\r\n") if line)
        self.headers = [(name.lower(), value) for name, value in pairs]

    def __repr__(self) -> str:
        return f"Grant({self.allowed!r})"

    def fields(self, fields: bytes) -> bytes:
        """Return the header lines of a backend's answer, whole with their CRLF, as this origin gets them."""
        if self.allowed:
            fields = _BACKENDS.sub(b"", fields) + self.allowed
        return fields if _VARIES.search(fields) else fields + VARY


class Origins:
    """The origins whose pages may call, with what each is told made once. `max_age` is in seconds.

    `origins` are as browsers write them (RFC 6454 6.2), `exposed` further names of headers that pages may read.
    """

    __slots__ = ("_grants", "_max_age", "_others")

    def __init__(self, origins: Iterable[bytes], exposed: Iterable[bytes] = (), max_age: int = 600) -> None:
        names = {name.lower(): name for name in (*exposed, *EXPOSED)}
        tail = b"Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: %b\r\n" % b", ".join(
            sorted(names.values())
        )
        self._grants = {origin: Grant(b"Access-Control-Allow-Origin: %b\r\n%b" % (origin, tail)) for origin in origins}
        self._others = Grant()
        self._max_age = max_age

    def grant(self, headers: RawHeaders) -> Grant:
        """Return what the answer to a request with these headers says."""
        found = _values(headers, b"origin")
        return self._grants.get(found[0], self._others) if len(found) == 1 else self._others

    def preflight(self, headers: RawHeaders, methods: frozenset[bytes]) -> bytes:
        """Return the head bytes that grant a preflight of a listed origin; `methods` are the route's, empty for all.

        b"" for what is no preflight (Fetch, "CORS-preflight request").
        """
        origin, asked = _values(headers, b"origin"), _values(headers, b"access-control-request-method")
        if len(asked) != 1 or len(origin) != 1 or origin[0] not in self._grants:
            return b""
        if len(asked[0]) > MAX_METHOD or not valid_name(asked[0]):
            return b""
        names = _requested(headers)
        return b"".join(
            (
                b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Allow-Credentials: true\r\n" % origin[0],
                b"Access-Control-Allow-Methods: %b\r\n" % (b", ".join(sorted(methods)) or asked[0]),
                b"Access-Control-Allow-Headers: %b\r\n" % b", ".join(names) if names else b"",
                b"Access-Control-Max-Age: %d\r\n" % self._max_age,
                PREFLIGHT_VARY,
            )
        )


def _values(headers: RawHeaders, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name.lower() == wanted]


def _requested(headers: RawHeaders) -> list[bytes]:
    """Return the names that `Access-Control-Request-Headers` asks for; none where one of them is no field name.

    No browser sends what is none (Fetch, "CORS-unsafe request-header names"), so nothing of such a list is granted.
    """
    value = b",".join(_values(headers, b"access-control-request-headers"))
    names = [name for part in value.split(b",") if (name := part.strip(b" \t"))]
    return names if len(value) <= MAX_NAMES and all(map(valid_name, names)) else []
