"""What becomes of each header on its way through the gateway: pure functions over raw headers.

A header is classified once by its name as it came (any case, `_` or `-`) and the class is remembered,
so that on the hot path a header costs one dictionary look-up. Nothing here trusts a client:
identity headers, forwarded headers and the gateway's own are dropped on the way in whatever their
spelling (contract 6.6; CVE-2025-64484 is the `_` for `-` of a peer).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import orjson

from gateway.tokens.claims import claim_at

# What happens to a request header. PASS is 0 so that the hot path asks `if kind`.
PASS, DROP, HOST, AUTHORIZATION, COOKIE, CONNECTION, LENGTH, CODING, EXPECT, UPGRADE, REQUEST_ID, FORWARDED = range(12)
TE, TRACEPARENT, TRACESTATE, METHOD, FORWARDED_FOR, FORWARDED_PROTO = range(12, 18)

# RFC 9110 7.6.1, and what proxies before it used. Trailer goes because trailers of requests are not passed.
# "proxy" is no such header, but becomes a CGI backend's HTTP_PROXY (CVE-2016-5385).
HOP_BY_HOP = frozenset(
    {b"proxy", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"trailer"}
)
SPECIAL = {
    b"host": HOST,
    b"authorization": AUTHORIZATION,
    b"cookie": COOKIE,
    b"connection": CONNECTION,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-request-id": REQUEST_ID,
    b"te": TE,
    b"traceparent": TRACEPARENT,
    b"tracestate": TRACESTATE,
    b"forwarded": FORWARDED,
    b"x-forwarded-for": FORWARDED_FOR,
    b"x-forwarded-proto": FORWARDED_PROTO,
    b"x-forwarded-host": DROP,  # the backend gets the host that was routed by
    # another method in place of the one that the route was asked for (Rack, Laravel, Symfony, OData and their like)
    b"x-http-method-override": METHOD,
    b"x-http-method": METHOD,
    b"x-method-override": METHOD,
}
# Headers by which a client could pretend to have been forwarded by someone; a WSGI or CGI backend cannot tell
# `X_Forwarded_For` from `X-Forwarded-For`.
FORGEABLE = (
    b"x-forwarded",
    b"forwarded",
    b"x-real-ip",
    b"x-client-ip",
    b"x-cluster-client-ip",
    b"client-ip",
    b"true-client-ip",
    b"x-gateway-",
    b"x-auth-request-",  # the identity headers' family: a backend may know more of them than are configured
    b"x-original-",  # and the next: an address in place of the one that was matched (CVE-2018-14773)
    b"x-rewrite-url",
)

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_MARKS = re.compile(rb"[^a-z0-9]")
_MEMORY = 4096  # names remembered, of at most so many bytes each
_SHORT = 64


def _dashed(name: bytes) -> bytes:
    """Return a name as the laxest CGI backend reads it: whatever is no letter or digit is one and the same mark."""
    return _MARKS.sub(b"-", name)


class RequestKinds(dict[bytes, int]):
    """Header name as it came -> what happens to it. Remembers at most a few thousand short names."""

    def __init__(self, identity_names: Iterable[bytes]) -> None:
        super().__init__()
        self._identity = frozenset(_dashed(name.lower()) for name in identity_names)

    def __missing__(self, name: bytes) -> int:
        kind = self.classify(name)
        if len(name) <= _SHORT:
            if len(self) >= _MEMORY:  # begin again: names that nobody repeats must not keep the usual ones out
                self.clear()
            self[name] = kind
        return kind

    def classify(self, name: bytes) -> int:
        """Return the kind of a header name in any spelling."""
        lower = name.lower()
        if lower in SPECIAL:
            return SPECIAL[lower]
        dashed = _dashed(lower)
        if lower in HOP_BY_HOP or dashed in self._identity or dashed in SPECIAL:
            return DROP
        return DROP if dashed.startswith(FORGEABLE) else PASS


# What happens to a response header.
R_PASS, R_DROP, R_LENGTH, R_CODING, R_CONNECTION, R_UPGRADE, R_TRAILER = range(7)
_RESPONSE = {
    b"content-length": R_LENGTH,
    b"transfer-encoding": R_CODING,
    b"connection": R_CONNECTION,
    b"keep-alive": R_DROP,
    b"proxy-connection": R_DROP,
    b"te": R_DROP,
    b"trailer": R_TRAILER,
    b"upgrade": R_UPGRADE,
    b"x-gateway-error": R_DROP,  # only the gateway says that an answer is its own
    b"x-access-token": R_DROP,  # and which token a client is to use from here on
    b"x-access-token-expires-in": R_DROP,
}


# Finds every line of a head that can mean something to the gateway, by the first two letters of its name, and a
# few more; a look-up by the whole name decides. Two classes, for an alternation costs three times as much.
_letters = sorted({name[:2] for name in _RESPONSE})
CANDIDATES = re.compile(
    rb"\n[%b][%b][^\r]*+"
    % tuple(re.escape(bytes({n[at] for n in _letters} | {n.upper()[at] for n in _letters})) for at in (0, 1))
)


class ResponseKinds(dict[bytes, int]):
    """The same for the headers of a backend's answer; the line feed before a name may stand with it."""

    def __missing__(self, name: bytes) -> int:
        kind = _RESPONSE.get(name.strip(b"\n").lower(), R_PASS)
        if len(self) < _MEMORY and len(name) <= _SHORT:
            self[name] = kind
        return kind


_DATE = re.compile(rb"\n[Dd][Aa][Tt][Ee]:")


def dated(data: bytes, end: int) -> bool:
    """Tell whether a head that ends at `end` has a Date (0.15 us where its first "ate:" is that of a Date)."""
    at = data.find(b"ate:", 0, end)
    return data[at - 2 : at] in (b"\nD", b"\nd") or _DATE.search(data, 0, end) is not None


def nominated(value: bytes) -> frozenset[bytes]:
    """Return the header names that a `Connection` value makes hop-by-hop (RFC 9110 7.6.1), lower case."""
    return frozenset(part.strip(b" \t").lower() for part in value.split(b",")) - {b"", b"close", b"keep-alive"}


def without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """Return header lines (four pieces each: name, ": ", value, CRLF) less those with one of `names`."""
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):
        if lines[at].lower() not in names:
            kept += lines[at : at + 4]
    return kept


def without_lines(fields: bytes, names: frozenset[bytes]) -> bytes:
    """Return header lines, whole with their CRLF, less those with one of `names`."""
    lines = fields.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() not in names)


def without_cookies(fields: bytes, names: tuple[bytes, ...]) -> bytes:
    """Return header lines, whole with their CRLF, less the `Set-Cookie` of these names.

    Only the gateway sets its own cookies: with one of them a backend, or whoever has taken it over, could sign a
    browser in as somebody else (session fixation).
    """
    for name in names:
        if name in fields:  # seldom; to look for it costs 0.3 us
            return b"\r\n".join(line for line in fields.split(b"\r\n") if _cookie_set(line) not in names)
    return fields


def _cookie_set(line: bytes) -> bytes | None:
    """Return the name of the cookie that a header line sets (RFC 6265 5.2), None where it sets none."""
    name, _, value = line.partition(b":")
    if name.lower() != b"set-cookie":
        return None
    # One without a name is sent back by some browsers as if its value were a name and a value.
    return value.partition(b";")[0].lstrip(b"= \t").partition(b"=")[0].rstrip(b" \t")


def strip_cookies(value: bytes, names: Iterable[bytes]) -> bytes:
    """Return a `Cookie` value without the cookies of these names; the others stay byte for byte."""
    ours = frozenset(names)
    # by the name less the white space around it, which some readers of cookies overlook
    kept = [part for part in value.split(b";") if part.partition(b"=")[0].strip(b" \t") not in ours]
    return b";".join(kept).strip(b" \t")


# W3C Trace Context 3.2: version ff is none, ids of zeros are none, a later version may have more at the end.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,200})?\Z"
)


def valid_traceparent(value: bytes) -> bool:
    """Tell whether a `traceparent` may be taken over (W3C Trace Context 3.2.2)."""
    match = _TRACEPARENT.match(value)
    return match is not None and (match[1] is None or value[:2] != b"00")


def wants_trailers(value: bytes) -> bool:
    """Tell whether a `TE` value says that trailers are understood (RFC 9110 10.1.4)."""
    return b"trailers" in [part.strip(b" \t").lower() for part in value.split(b",")]


# What may not stand in a trailer section: it frames, routes, authenticates or steers, or says how the content is to
# be read (RFC 9110 6.5.1, RFC 7230 4.1.2), and the gateway's own.
_NEVER_TRAILERS = frozenset(
    b"""age authorization cache-control connection content-encoding content-length content-location content-range
    content-type cookie date expect expires host keep-alive location max-forwards pragma proxy-authenticate
    proxy-authorization proxy-connection range retry-after set-cookie te trailer transfer-encoding upgrade vary via
    warning www-authenticate""".split()
)
_NEVER_BEGIN = (b"if-", b"x-gateway-", b"x-access-token", b"access-control-", b"x-forwarded")


def trailer_names(value: bytes) -> tuple[bytes, ...]:
    """Return the names of a `Trailer` value, as written, under which trailer fields may pass."""
    names = [part.strip(b" \t") for part in value.split(b",")]
    return tuple(name for name in names if valid_name(name) and _may_trail(name.lower()))


def _may_trail(lower: bytes) -> bool:
    return lower not in _NEVER_TRAILERS and not lower.startswith(_NEVER_BEGIN)


def identity_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return identity headers as the bytes of a head."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


def identity_headers(spec: Mapping[str, str], raw: Mapping[str, Any]) -> list[tuple[bytes, bytes]]:
    """Return (name, value) for each header of `spec` (header = claim) whose claim the token has.

    A claim may be a dotted path (`realm_access.roles`). Values are made safe by `encode_claim`.
    """
    found = ((name, claim_at(raw, path)) for name, path in spec.items())
    return [(name.encode("ascii"), encode_claim(value)) for name, value in found if value is not None]


def encode_claim(value: Any) -> bytes:
    """Return a claim as a header value that can only be read one way.

    Strings stand as they are where they can; `%`, control characters, CR, LF and everything outside
    ASCII are percent-encoded as UTF-8 (RFC 3986 2.1), and so is a comma inside an element of a list,
    whose elements are joined by commas. Numbers and booleans are written as in JSON, objects as JSON.
    """
    if isinstance(value, str):
        return _encode(value, ",")
    if isinstance(value, (list, tuple)):
        return b",".join(_encode(_scalar(element), "") for element in value)
    return _encode(_scalar(value), ",")


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def _encode(text: str, also_safe: str) -> bytes:
    """Edges are encoded too: a parser would strip white space there (RFC 9110 5.5)."""
    stripped = text.strip(" ")
    lead = len(text) - len(text.lstrip(" "))
    trail = len(text) - lead - len(stripped)
    safe = " !\"#$&'()*+-./:;<=>?@[\\]^_`{|}~" + also_safe
    # A lone surrogate cannot be encoded as UTF-8; it becomes "?", which no name contains by accident.
    middle = quote(stripped.encode("utf-8", "replace"), safe=safe)
    return ("%20" * lead + middle + "%20" * trail).encode("ascii")


def valid_name(name: bytes) -> bool:
    """True for a field name of RFC 9110 5.1."""
    return _TOKEN.match(name) is not None
