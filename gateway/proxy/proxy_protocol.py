"""The PROXY protocol, versions 1 and 2: where a connection comes from, said by the proxy that passes it on.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, "the specification" below.

Laws:
- Where it is due every connection begins with it, and only a trusted proxy may connect: there is no guessing
  whether a header is there (the specification's section 2).
- It is read strictly and within bounds: anything else ends the connection before HTTP begins.
- It names the source of the connection and nothing more: type-length-values are skipped.
"""

from __future__ import annotations

import asyncio
import re
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

Peer = tuple[str, int]  # address, port
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
LONGEST_LINE = 107  # bytes of version 1, CRLF included (2.1)
LONGEST = 536  # bytes of version 2, the smallest that any path takes in one segment (2.2)
_LINE = re.compile(rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\Z")
_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: [ -~]*)?\Z")  # a receiver must ignore what follows (2.1)
_LOCAL, _PROXY = 0x20, 0x21
# family and transport of version 2 -> the bytes of its addresses and ports; datagrams carry no HTTP/1
_ADDRESSES = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: 216}


class Malformed(ValueError):
    """The bytes are no PROXY header, and will be none."""


class Proxied(Protocol):
    """What is told where its connection comes from."""

    def proxied(self, source: Peer | None, rest: bytes) -> None: ...
    def not_proxied(self) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class Prelude(asyncio.Protocol):
    """Reads the header in place of its owner, which takes the transport back; the owner keeps the time."""

    def __init__(self, owner: Proxied) -> None:
        self._owner = owner
        self._read = b""
        self._over = False

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._read += data
        try:
            found = parse(self._read)
        except Malformed:
            self._over = True
            self._owner.not_proxied()
            return
        if found is not None:
            self._over = True
            source, size = found
            self._owner.proxied(source, self._read[size:])

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.connection_lost(exc)


def parse(data: bytes) -> tuple[Peer | None, int] | None:
    """Return (source, size of the header), where no source means the proxy itself; None where more is due.

    Raises Malformed as soon as the bytes cannot become a header.
    """
    if data[:12] == SIGNATURE[: len(data)]:
        return _version_2(data)
    if data[:6] == b"PROXY "[: len(data)]:
        return _version_1(data)
    raise Malformed("no PROXY header")


def _version_1(data: bytes) -> tuple[Peer | None, int] | None:
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise Malformed("version 1: length")
        return None
    line = data[:end]
    if _UNKNOWN.match(line):
        return None, end + 2
    match = _LINE.match(line)
    if match is None:
        raise Malformed("version 1: line")
    family, source, destination, source_port, destination_port = match.groups()
    _port(destination_port)
    _address(family, destination)
    return (_address(family, source), _port(source_port)), end + 2


def _address(family: bytes, text: bytes) -> str:
    try:
        return _plain(IPv4Address(text.decode()) if family == b"TCP4" else IPv6Address(text.decode()))
    except ValueError:
        raise Malformed("version 1: address") from None


def _port(text: bytes) -> int:
    if int(text) > 65535 or (text[:1] == b"0" and text != b"0"):
        raise Malformed("version 1: port")
    return int(text)


def _plain(address: IPv4Address | IPv6Address) -> str:
    """Return an address as text; an IPv4 address in IPv6's clothes as what it is (RFC 4291 2.5.5.2)."""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _version_2(data: bytes) -> tuple[Peer | None, int] | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command not in (_LOCAL, _PROXY) or 16 + length > LONGEST:
        raise Malformed("version 2: command or length")
    if command == _PROXY and length < _ADDRESSES.get(family, LONGEST):
        raise Malformed("version 2: family or length")
    if len(data) < 16 + length:
        return None
    return None if command == _LOCAL else _source(data, family), 16 + length


def _source(data: bytes, family: int) -> Peer | None:
    if family == 0x11:
        return _plain(IPv4Address(data[16:20])), int.from_bytes(data[24:26])
    if family == 0x21:
        return _plain(IPv6Address(data[16:32])), int.from_bytes(data[48:50])
    return None
