"""Which peers are believed when they say for whom they speak."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv4Network, IPv6Network, ip_address

REMEMBERED = 4096  # peers whose answer is known
Networks = Collection[IPv4Network | IPv6Network]


def trust(networks: Networks) -> Callable[[str], bool]:
    """Return whether an address lies in one of the networks; remembers a few thousand answers."""
    known: dict[str, bool] = {}

    def trusted(host: str) -> bool:
        if host not in known:
            if len(known) >= REMEMBERED:
                known.clear()
            known[host] = _within(host, networks)
        return known[host]

    return trusted


def _within(host: str, networks: Networks) -> bool:
    try:
        address = ip_address(host)
    except ValueError:  # a unix socket has no address
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
