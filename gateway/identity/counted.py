"""What a rate limit counts as one: one place, one user."""

from __future__ import annotations

import ipaddress
import unicodedata

_ACCENTS = frozenset(map(chr, range(0x300, 0x370)))  # combining marks of Latin, Greek and Cyrillic


def network(ip: str) -> str:
    """Return what a rate limit counts as one place: an IPv4 address, or the /64 of an IPv6 one.

    One IPv6 customer commands a whole /64 (RFC 6177). What is no address stands for itself.
    """
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def alike(username: str) -> str:
    """Return what a rate limit counts as one user: whatever a provider may take for one.

    That is `Alice`, `alice `, full-width letters, and what databases' collations do not tell apart: accents, and
    characters that are not seen. Two users who share a limit by this are no harm.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", username).casefold())
    return "".join(c for c in folded if c not in _ACCENTS and unicodedata.category(c) != "Cf").strip()
