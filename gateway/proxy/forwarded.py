"""Who the client is, as the trusted proxies in front say: `X-Forwarded-*`, else `Forwarded` (RFC 7239). Pure.

Laws:
- Only what a trusted peer sends is read, and it is read from the right: what stands left of the first address
  that no trusted proxy has is what that one claimed (RFC 7239 8.1).
- Where `X-Forwarded-For` or `X-Forwarded-Proto` is there, `Forwarded` counts for nothing: most proxies set the
  one and let a client's own of the other through.
- `Forwarded` that is read must be RFC 7239's to the letter, or the request is refused: in what is malformed, a
  client's part could swallow the proxy's.
- The backend gets one statement, `X-Forwarded-*`, whichever was read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.errors import BadRequest

Trusts = Callable[[str], bool]
Element = dict[bytes, bytes]  # parameter in lower case -> value without its quotes

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_STRING = rb'"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~\x80-\xff])*+)"'
_PAIR = re.compile(rb"(%b)=(?:(%b)|%b)" % (_TOKEN, _TOKEN, _STRING))
_SPACE = re.compile(rb"[ \t]*+")
_QUOTED = re.compile(rb"\\(.)", re.DOTALL)
_HIDDEN = rb"_[0-9A-Za-z._-]+"
_NODE = re.compile(
    rb"(?:([0-9]{1,3}(?:\.[0-9]{1,3}){3})|\[([0-9A-Fa-f:.]{2,45})\]|[Uu][Nn][Kk][Nn][Oo][Ww][Nn]|%b)(?::(?:[0-9]{1,5}|%b))?"
    % (_HIDDEN, _HIDDEN)
)
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*")
_HOST = re.compile(rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
UNKNOWN = b"unknown"  # RFC 7239 6.2, and the word for it in X-Forwarded-For


@dataclass(frozen=True, slots=True)
class Source:
    """Where a request comes from. `chain` is what stands in X-Forwarded-For before the peer.

    `scheme` is http or https, b"" where the proxies do not say.
    """

    address: str
    scheme: bytes
    chain: bytes


def source(
    xff: Sequence[bytes], proto: Sequence[bytes], forwarded: Sequence[bytes], peer: str, trusts: Trusts
) -> Source:
    """Return what a trusted peer says by its X-Forwarded-For, X-Forwarded-Proto and Forwarded lines.

    Several lines are one list (RFC 9110 5.3). Raises BadRequest.
    """
    if forwarded and not (xff or proto):
        return _by_rfc_7239(parse(b", ".join(forwarded)), peer, trusts)
    chain = b", ".join(xff)
    return Source(client_address(chain.decode("latin-1"), peer, trusts), _scheme(b",".join(proto)), chain)


def client_address(chain: str, peer: str, trusts: Trusts) -> str:
    """Return the last address of an `X-Forwarded-For` chain that no trusted proxy has.

    Read from the right, because everything left of an untrusted address is what that one claimed.
    """
    address = peer
    for hop in reversed([part.strip() for part in chain.split(",") if part.strip()]):
        try:
            ipaddress.ip_address(hop)
        except ValueError:
            break
        if "%" in hop:  # a zone, of any text, means nothing to another host (RFC 4007 6)
            break
        address = hop
        if not trusts(hop):
            break
    return address


def parse(value: bytes) -> list[Element]:
    """Return the elements of a `Forwarded` value (RFC 7239 4). Raises BadRequest for anything that is none."""
    elements: list[Element] = []
    at, end = 0, len(value)
    while at < end:
        element, at = _element(value, _past_space(value, at))
        if element:  # empty list elements count for nothing (RFC 9110 5.6.1.2)
            elements.append(element)
        at = _past_space(value, at)
        if at < end and value[at : at + 1] != b",":
            raise BadRequest("forwarded")
        at += 1
    return elements


def forwarded_block(client: bytes, scheme: bytes, chain: bytes = b"") -> bytes:
    """Return the `X-Forwarded-For` and `-Proto` lines; `chain` is what a trusted proxy had put before."""
    before = chain + b", " if chain else b""
    return b"X-Forwarded-For: %b%b\r\nX-Forwarded-Proto: %b\r\n" % (before, client, scheme)


def _past_space(value: bytes, at: int) -> int:
    match = _SPACE.match(value, at)
    return at if match is None else match.end()


def _element(value: bytes, at: int) -> tuple[Element, int]:
    """Read pairs with a semicolon between them; return (element, where it ends)."""
    element: Element = {}
    while True:
        match = _PAIR.match(value, at)
        if match is not None:
            name, token, quoted = match.groups()
            name, given = name.lower(), token if token is not None else _QUOTED.sub(rb"\1", quoted)
            if name in element:  # RFC 7239 4: each parameter once
                raise BadRequest("forwarded")
            element[name] = _checked(name, given)
            at = match.end()
        if value[at : at + 1] != b";":
            return element, at
        at += 1


def _checked(name: bytes, value: bytes) -> bytes:
    form = {b"for": _NODE, b"by": _NODE, b"proto": _SCHEME, b"host": _HOST}.get(name)
    if form is not None and not form.fullmatch(value):
        raise BadRequest("forwarded")
    return value


def _by_rfc_7239(elements: list[Element], peer: str, trusts: Trusts) -> Source:
    """The scheme is that of the element which names the client: the one that the client itself has used."""
    address, scheme = peer, b""
    for element in reversed(elements):
        scheme = element.get(b"proto", b"")
        hop = node_address(element.get(b"for", UNKNOWN))
        if hop == UNKNOWN:
            break
        address = hop.decode("ascii")
        if not trusts(address):
            break
    chain = b", ".join(node_address(element.get(b"for", UNKNOWN)) for element in elements)
    return Source(address, _scheme(scheme), chain)


def node_address(node: bytes) -> bytes:
    """Return the address of a node (RFC 7239 6) without port and brackets, `unknown` where it hides it."""
    match = _NODE.fullmatch(node)
    if match is None:
        return UNKNOWN
    found = match[1] or match[2] or b""
    try:
        ipaddress.ip_address(found.decode("ascii"))
    except ValueError:  # hidden on purpose, or 999.1.1.1
        return UNKNOWN
    return found


def _scheme(value: bytes) -> bytes:
    lower = value.strip(b" \t").lower()
    return lower if lower in (b"http", b"https") else b""
