"""The PROXY protocol is read strictly, within bounds, and in whatever pieces it comes."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.proxy_protocol import LONGEST, LONGEST_LINE, SIGNATURE, Malformed, Peer, Prelude, parse


def version_2(command: int, family: int, body: bytes, length: int = -1) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if length < 0 else length) + body


IPV4 = bytes([203, 0, 113, 7, 10, 0, 0, 1]) + struct.pack("!HH", 5123, 443)
IPV6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 5123, 443)
MAPPED = socket.inet_pton(socket.AF_INET6, "::ffff:203.0.113.7") + bytes(16) + struct.pack("!HH", 5123, 443)
TLV = b"\x03\x00\x04\x01\x02\x03\x04" + b"\x04\x00\x05hello"

GOOD: dict[str, tuple[bytes, Peer | None]] = {
    "1 IPv4": (b"PROXY TCP4 203.0.113.7 10.0.0.1 5123 443\r\n", ("203.0.113.7", 5123)),
    "1 IPv6": (b"PROXY TCP6 2001:DB8::7 ::1 5123 443\r\n", ("2001:db8::7", 5123)),
    "1 mapped": (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 5123 443\r\n", ("203.0.113.7", 5123)),
    "1 port 0": (b"PROXY TCP4 203.0.113.7 10.0.0.1 0 65535\r\n", ("203.0.113.7", 0)),
    "1 longest": (b"PROXY UNKNOWN " + b"f" * (LONGEST_LINE - 16) + b"\r\n", None),
    "1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "1 unknown with addresses": (b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
    "2 IPv4": (version_2(0x21, 0x11, IPV4), ("203.0.113.7", 5123)),
    "2 IPv6": (version_2(0x21, 0x21, IPV6), ("2001:db8::7", 5123)),
    "2 mapped": (version_2(0x21, 0x21, MAPPED), ("203.0.113.7", 5123)),
    "2 IPv4 and more": (version_2(0x21, 0x11, IPV4 + TLV), ("203.0.113.7", 5123)),
    "2 IPv6 and more": (version_2(0x21, 0x21, IPV6 + TLV), ("2001:db8::7", 5123)),
    "2 longest": (version_2(0x21, 0x11, IPV4.ljust(LONGEST - 16, b"\0")), ("203.0.113.7", 5123)),
    "2 local": (version_2(0x20, 0x00, b""), None),
    "2 local with an address": (version_2(0x20, 0x11, IPV4), None),
    "2 local of an odd family": (version_2(0x20, 0xFF, b"x"), None),
    "2 unspecified": (version_2(0x21, 0x00, TLV), None),
    "2 unix": (version_2(0x21, 0x31, bytes(216)), None),
}

BAD = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an empty line": b"\r\nGET / HTTP/1.1\r\n",
    "lower case": b"proxy TCP4 203.0.113.7 10.0.0.1 5123 443\r\n",
    "1 two spaces": b"PROXY  TCP4 203.0.113.7 10.0.0.1 5123 443\r\n",
    "1 a tab": b"PROXY TCP4\t203.0.113.7 10.0.0.1 5123 443\r\n",
    "1 more at the end": b"PROXY TCP4 203.0.113.7 10.0.0.1 5123 443 \r\n",
    "1 no ports": b"PROXY TCP4 203.0.113.7 10.0.0.1\r\n",
    "1 UDP": b"PROXY UDP4 203.0.113.7 10.0.0.1 5123 443\r\n",
    "1 leading zeros": b"PROXY TCP4 203.000.113.7 10.0.0.1 5123 443\r\n",
    "1 three numbers": b"PROXY TCP4 203.0.113 10.0.0.1 5123 443\r\n",
    "1 a name": b"PROXY TCP4 localhost 10.0.0.1 5123 443\r\n",
    "1 another family": b"PROXY TCP4 2001:db8::7 ::1 5123 443\r\n",
    "1 IPv4 as IPv6": b"PROXY TCP6 203.0.113.7 10.0.0.1 5123 443\r\n",
    "1 a zone": b"PROXY TCP6 fe80::1%eth0 ::1 5123 443\r\n",
    "1 a bad destination": b"PROXY TCP4 203.0.113.7 10.0.0.256 5123 443\r\n",
    "1 port too large": b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 443\r\n",
    "1 a bad port of the destination": b"PROXY TCP4 203.0.113.7 10.0.0.1 5123 99999\r\n",
    "1 port with a zero": b"PROXY TCP4 203.0.113.7 10.0.0.1 05123 443\r\n",
    "1 port with a sign": b"PROXY TCP4 203.0.113.7 10.0.0.1 +123 443\r\n",
    "1 line feed alone": b"PROXY TCP4 203.0.113.7 10.0.0.1 5123 443\nGET / HTTP/1.1\r\n",
    "1 NUL": b"PROXY UNKNOWN a\0b\r\n",
    "1 unknown grown on": b"PROXY UNKNOWNS\r\n",
    "1 without end": b"PROXY UNKNOWN " + b"f" * 200,
    "1 one byte too long": b"PROXY UNKNOWN " + b"f" * (LONGEST_LINE - 15) + b"\r\n",
    "2 another version": version_2(0x11, 0x11, IPV4),
    "2 another command": version_2(0x22, 0x11, IPV4),
    "2 UDP": version_2(0x21, 0x12, IPV4),
    "2 an odd family": version_2(0x21, 0x41, IPV6),
    "2 too short": version_2(0x21, 0x11, IPV4[:-1]),
    "2 IPv6 too short": version_2(0x21, 0x21, IPV4),
    "2 unix too short": version_2(0x21, 0x31, bytes(100)),
    "2 too long": version_2(0x21, 0x11, IPV4, LONGEST - 15),
    "2 far too long": version_2(0x20, 0x00, b"", 65535),
    "2 a wrong signature": b"\r\n\r\n\x00\r\nQUIT\r" + b"\x21\x11\x00\x0c" + IPV4,
}


@pytest.mark.parametrize(("header", "source"), GOOD.values(), ids=GOOD)
def test_a_header_names_the_source_and_ends_where_http_begins(header: bytes, source: Peer | None) -> None:
    assert parse(header) == (source, len(header))
    assert parse(header + b"GET / HTTP/1.1\r\n") == (source, len(header))


@pytest.mark.parametrize("header", [header for header, _ in GOOD.values()], ids=GOOD)
def test_every_beginning_of_a_header_waits_for_the_rest(header: bytes) -> None:
    assert {parse(header[:size]) for size in range(len(header))} == {None}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


@given(st.binary(max_size=700) | st.binary(max_size=600).map(lambda end: SIGNATURE + end))
def test_any_bytes_are_a_header_or_refused_or_few(data: bytes) -> None:
    try:
        found = parse(data)
    except Malformed:
        return
    assert found is not None or len(data) < LONGEST
    assert found is None or 0 < found[1] <= min(len(data), LONGEST)


class Owner:
    """Whoever waits for the header of a connection."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def proxied(self, source: Peer | None, rest: bytes) -> None:
        self.told.append((source, rest))

    def not_proxied(self) -> None:
        self.told.append("refused")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


@pytest.mark.parametrize(("header", "source"), GOOD.values(), ids=GOOD)
def test_a_header_may_come_in_pieces_and_with_what_follows(header: bytes, source: Peer | None) -> None:
    data = header + b"GET"
    for at in range(1, len(header)):
        owner = Owner()
        prelude = Prelude(owner)
        prelude.data_received(data[:at])
        assert owner.told == []
        prelude.data_received(data[at:])
        assert owner.told == [(source, b"GET")]


def test_a_refusal_is_told_once_and_the_end_of_the_connection_too() -> None:
    owner = Owner()
    prelude = Prelude(owner)
    prelude.data_received(b"GET / HTTP/1.1\r\n")
    prelude.data_received(b"Host: a\r\n\r\n")
    prelude.pause_writing()
    prelude.resume_writing()
    prelude.connection_lost(None)
    assert owner.told == ["refused", "pause", "resume", "lost"]
