"""What a rate limit counts as one: one place, one user."""

from __future__ import annotations

import ipaddress
import unicodedata


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
    """Return what a rate limit counts as one user: a provider may take `Alice`, `alice ` and full-width for one."""
    return unicodedata.normalize("NFKC", username).casefold().strip()
