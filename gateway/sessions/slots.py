"""What a Redis Cluster says of itself, pure: slots, the map of their masters, redirections (redis.io, "Cluster spec").

All keys of a partition have its digit as their hash tag, so that of the 16384 slots 16 matter here.
"""

from __future__ import annotations

from binascii import crc_hqx
from dataclasses import dataclass
from typing import Any

from gateway.sessions.endpoint import Address
from gateway.sessions.keyspace import DIGITS

SLOTS = {digit: crc_hqx(digit.encode(), 0) % 16_384 for digit in DIGITS}  # CRC-16/XMODEM of the tag

_LATER = ("TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN")


@dataclass(frozen=True, slots=True)
class Redirection:
    """An error that tells where to ask, or to ask later: `kind` is MOVED, ASK, or one of those that pass."""

    kind: str
    address: Address | None = None


def redirection(error: str, asked: Address) -> Redirection | None:
    """Read an error of the server `asked`; None for one that is no redirection, or malformed."""
    kind, _, rest = error.partition(" ")
    if kind in _LATER:
        return Redirection(kind)
    words = rest.split(" ")
    if kind not in ("MOVED", "ASK") or len(words) < 2:
        return None
    host, _, port = words[1].rpartition(":")
    if not _is_port(port) or host == "?":
        return None
    return Redirection(kind, Address(host.strip("[]") or asked.host, int(port)))


def owners(reply: Any, asked: Address) -> dict[str, Address]:
    """Read the reply of CLUSTER SLOTS: the master of each partition that has one. What is malformed is passed over."""
    found: dict[str, Address] = {}
    for entry in reply if isinstance(reply, list) else ():
        match entry:
            case [int(first), int(last), [name, int(port), *_], *_]:
                address = _node(name, port, asked)
            case _:
                continue
        if address is not None:
            found.update({digit: address for digit, slot in SLOTS.items() if first <= slot <= last})
    return found


def _node(name: Any, port: int, asked: Address) -> Address | None:
    """Return the address of a node. No name means the host that was asked, "?" that it is not known."""
    if not 0 < port < 65_536 or not isinstance(name, bytes | None):
        return None
    try:
        host = (name or b"").decode() or asked.host
    except UnicodeDecodeError:
        return None
    return None if host == "?" else Address(host, port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 65_536
