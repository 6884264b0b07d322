"""Who the client is behind trusted proxies: X-Forwarded-For, else Forwarded (RFC 7239)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.proxy import forwarded
from gateway.proxy.forwarded import parse, source

PEER = "10.0.0.1"


def trusts(address: str) -> bool:
    return address.startswith(("10.", "fd00:"))


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("198.51.100.1, 203.0.113.7", "203.0.113.7"),  # what stands left of an untrusted hop is its claim
        ("198.51.100.1, 10.0.0.9", "198.51.100.1"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("", "10.0.0.1"),
        ("nonsense, 10.0.0.9", "10.0.0.9"),
        ("203.0.113.7, nonsense", "10.0.0.1"),
        ("fe80::1%<any text>", "10.0.0.1"),  # a zone is of any text and length, and would stand in logs and sessions
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(chain: str, address: str) -> None:
    assert forwarded.client_address(chain, PEER, trusts) == address


@pytest.mark.parametrize(
    ("value", "address", "scheme", "chain"),
    [
        (b"for=203.0.113.7", "203.0.113.7", b"", b"203.0.113.7"),
        (b"FOR=203.0.113.7;Proto=HTTPS;by=10.0.0.1;host=a.test", "203.0.113.7", b"https", b"203.0.113.7"),
        (b"for=203.0.113.7, for=10.0.0.5", "203.0.113.7", b"", b"203.0.113.7, 10.0.0.5"),
        # what stands left of an address that no trusted proxy has is its claim
        (b"for=6.6.6.6;proto=https, for=203.0.113.7;proto=http", "203.0.113.7", b"http", b"6.6.6.6, 203.0.113.7"),
        # the scheme is the one that the client itself has used
        (b"for=203.0.113.7;proto=https,for=10.0.0.5;proto=http", "203.0.113.7", b"https", b"203.0.113.7, 10.0.0.5"),
        (b"for=10.0.0.8, for=10.0.0.9", "10.0.0.8", b"", b"10.0.0.8, 10.0.0.9"),
        (b'for="203.0.113.7:4711"', "203.0.113.7", b"", b"203.0.113.7"),
        (b'for="203.0.113.7:_port"', "203.0.113.7", b"", b"203.0.113.7"),
        (b'for="[2001:db8:cafe::17]:4711"', "2001:db8:cafe::17", b"", b"2001:db8:cafe::17"),
        (b'for="[2001:db8::1]", for="[fd00::2]"', "2001:db8::1", b"", b"2001:db8::1, fd00::2"),
        (b'for="203.0.113\\.7"', "203.0.113.7", b"", b"203.0.113.7"),
        # one that hides itself ends the walk, and its proxy's word on the scheme holds
        (b"for=_hidden;proto=https", PEER, b"https", b"unknown"),
        (b"for=203.0.113.7, for=unknown", PEER, b"", b"203.0.113.7, unknown"),
        (b"for=203.0.113.7, for=_x, for=10.0.0.5", "10.0.0.5", b"", b"203.0.113.7, unknown, 10.0.0.5"),
        (b"for=999.0.113.7", PEER, b"", b"unknown"),
        (b'for="[::::]"', PEER, b"", b"unknown"),
        (b"proto=https", PEER, b"https", b"unknown"),
        (b"for=203.0.113.7;proto=gopher", "203.0.113.7", b"", b"203.0.113.7"),
        (b', ,for=203.0.113.7;;secret="a, b;for=6.6.6.6",', "203.0.113.7", b"", b"203.0.113.7"),
    ],
)
def test_forwarded_names_the_client_that_no_trusted_proxy_is(
    value: bytes, address: str, scheme: bytes, chain: bytes
) -> None:
    found = source((), (), (value,), PEER, trusts)
    assert (found.address, found.scheme, found.chain) == (address, scheme, chain)


@pytest.mark.parametrize(
    "value",
    [
        b"for",
        b"for=",
        b"for =1.2.3.4",
        b"for= 1.2.3.4",
        b"for=1.2.3.4; proto=http",
        b"for=1.2.3.4 proto=http",
        b"for=1.2.3.4:80",  # a colon stands in quotes alone
        b"for=[2001:db8::1]",
        b'for="2001:db8::1"',  # IPv6 stands in brackets
        b'for="1.2.3.4',
        b'for="1.2.3.4", for="',
        b'for="a, for=203.0.113.7',  # a client's part would swallow the proxy's
        b'for="1.2.3.4"x',
        b"for=1.2.3.4;for=1.2.3.4",
        b"for=1.2.3.4;FOR=5.6.7.8",
        b"for=example.test",
        b'for="_hidden host"',
        b'for="1.2.3.4:123456"',
        b'for="1.2.3.4:"',
        b"for=1.2.3.4;by=me",
        b"proto=1http",
        b'proto="http "',
        b'host="a b"',
        b'host=""',
        b'host="a@b"',
        b"for=1.2.3.4,@",
        b"=1.2.3.4",
        b"for=1.2.3.4\x00",
        b'for="\x01"',
    ],
)
def test_what_is_not_rfc_7239_is_refused(value: bytes) -> None:
    with pytest.raises(BadRequest):
        source((), (), (value,), PEER, trusts)


@pytest.mark.parametrize("value", [b"for=6.6.6.6;proto=https", b'for="'])
@pytest.mark.parametrize(
    ("xff", "proto", "address", "scheme"),
    [((b"203.0.113.7",), (), "203.0.113.7", b""), ((), (b"http",), PEER, b"http")],
)
def test_forwarded_counts_for_nothing_beside_x_forwarded(
    value: bytes, xff: tuple[bytes, ...], proto: tuple[bytes, ...], address: str, scheme: bytes
) -> None:
    found = source(xff, proto, (value,), PEER, trusts)
    assert (found.address, found.scheme, found.chain) == (address, scheme, b", ".join(xff))


def test_several_forwarded_lines_are_one_list() -> None:
    assert source((), (), (b"for=203.0.113.7", b"for=10.0.0.5"), PEER, trusts).address == "203.0.113.7"


@pytest.mark.parametrize(
    ("proto", "scheme"), [((b"HTTPS",), b"https"), ((b"gopher",), b""), ((b"http", b"https"), b"")]
)
def test_a_scheme_is_http_or_https_and_one(proto: tuple[bytes, ...], scheme: bytes) -> None:
    assert source((), proto, (), PEER, trusts).scheme == scheme


PAIRS = st.tuples(st.sampled_from([b"for", b"by", b"x"]), st.binary(max_size=12))


def quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


@given(
    st.lists(
        st.dictionaries(st.sampled_from([b"x", b"y", b"z"]), st.text('!#;,=\\" \tab~').map(str.encode)), max_size=4
    )
)
def test_what_is_quoted_is_read_as_it_was(elements: list[dict[bytes, bytes]]) -> None:
    value = b", ".join(b";".join(b"%b=%b" % (k, quoted(v)) for k, v in each.items()) for each in elements)
    assert parse(value) == [each for each in elements if each]


@given(
    st.lists(st.sampled_from([b"for=", b"proto=", b"1.2.3.4", b'"', b"\\", b",", b";", b" ", b"[::1]", b"_a", b"\xff"]))
)
def test_any_value_is_read_or_refused(pieces: list[bytes]) -> None:
    try:
        found = source((), (), (b"".join(pieces),), PEER, trusts)
    except BadRequest:
        return
    assert b'"' not in found.chain
    assert found.scheme in (b"", b"http", b"https")
