"""Headers, cookies and addresses: the pure functions of the data plane, beside naive readers of the same."""

from __future__ import annotations

import re
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address, ip_network
from typing import Any

from starlette.requests import Request

from gateway import cookies
from gateway.api.clients import _basic
from gateway.api.verify import METHODS, TARGETS, read_original
from gateway.errors import BadRequest, CsrfRejected, InvalidClient
from gateway.identity.counted import alike, network
from gateway.proxy import forwarded, headers
from gateway.proxy.plain import whole_answer
from gateway.proxy.proxy_protocol import LONGEST, SIGNATURE, Peer, Prelude
from gateway.proxy.trust import trust
from gateway.proxy.tunnel import Frames, bearer_subprotocol
from gateway.telemetry import valid_request_id
from tests.fuzz.target import places, target
from tests.proxy.parsed import WholeAnswer
from tests.proxy.simulation import OWN_COOKIES, bytewise, cut

# --- cookies and origins ---

_PLANTED = b"a=b; __Secure-refresh=rt1.x; c; __Host-access=y"


@target(
    lambda: [_PLANTED, b'a="b; __Host-access=1"; c=d', b"__Secure-refresh", b"a=b;;c = d"],
    '; = , " \\ __Secure-refresh __Host-access',
)
def cookie(data: bytes) -> None:
    """Of the gateway's own cookies nothing is left, of others every byte; and two of one name are seen as two."""
    if re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", data):
        return  # no header's value (RFC 9110 5.5)
    rest = headers.strip_cookies(data, OWN_COOKIES)
    pairs = [part.partition(b"=") for part in data.split(b";")]
    kept = [
        part for part, pair in zip(data.split(b";"), pairs, strict=True) if pair[0].strip(b" \t") not in OWN_COOKIES
    ]
    assert rest == b";".join(kept).strip(b" \t")
    assert headers.strip_cookies(rest, OWN_COOKIES) == rest
    for own in OWN_COOKIES:
        assert cookies.values([rest], own) == []
        assert not re.search(rb"(?:^|;)[ \t]*%b[ \t]*(?:=|;|$)" % re.escape(own), rest)
        found = cookies.values([data], own)
        assert cookies.values([data, data], own) == found * 2
        assert len(found) == sum(name.strip(b" \t") == own and bool(value.strip(b" \t")) for name, _, value in pairs)
    if any(re.search(rb"[ \t]", part.strip(b" \t")) for part in rest.split(b";")):
        return  # white space ends a cookie to the next reader, not by RFC 6265 5.4
    try:  # as a backend's library reads it
        seen = SimpleCookie(rest.decode("latin-1"))
    except CookieError:
        return
    assert {name.decode() for name in OWN_COOKIES}.isdisjoint(seen)


@target(
    lambda: [b"same-origin\nhttps://a:443\na", b"\nhttp://a\na:80", b"none\nnull\n[::1]:8080"],
    "same-origin same-site cross-site none null https:// http:// :443 :80",
)
def origin(data: bytes) -> None:
    """A request counts as of our own origin only where it says so in the one spelling that browsers use."""
    site, said, host = [*data.split(b"\n"), b"", b"", b""][:3]
    own = cookies.own_origins(host.decode("latin-1"), ["http"], "https://a")
    for strict in (False, True):
        try:
            cookies.check_origin([site] if site else [], [said] if said else [], own, strict=strict)
        except CsrfRejected:
            continue
        if site:
            assert site in (b"same-origin", b"none")
            assert site == b"same-origin" or not strict
        elif said:
            scheme, _, named = said.decode("latin-1").lower().partition("://")
            default = {"http": ":80", "https": ":443"}[scheme]
            assert named.removesuffix(default) == host.decode("latin-1").lower().removesuffix(default)
        else:
            assert not strict


# --- addresses ---

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@target(
    lambda: [b"1.2.3.4, 10.0.0.1", b"2001:db8::1,fd00::1 , 10.1.1.1", b"::ffff:10.0.0.1, x", b"fe80::1%eth0"],
    ', : :: . % 10.0.0.1 fd00:: ::ffff: 1.2.3.4 unknown " [ ]',
)
def forwarded_for(data: bytes) -> None:
    """The client's address is the last that no trusted proxy has, an address and nothing more."""
    chain = data.decode("latin-1")
    found = forwarded.client_address(chain, "10.0.0.9", trust(TRUSTED))
    assert found == forwarded.client_address(chain, "10.0.0.9", trust(TRUSTED))
    assert re.fullmatch(r"[0-9A-Fa-f.:]{2,45}", found)
    believed = "10.0.0.9"
    for hop in reversed([part.strip() for part in chain.split(",") if part.strip()]):
        try:
            address = ip_address(hop)
        except ValueError:
            break
        if "%" in hop:
            break
        believed = hop
        if not any((getattr(address, "ipv4_mapped", None) or address) in each for each in TRUSTED):
            break
    assert found == believed
    assert network(found)


@target(
    lambda: [b"1.2.3.4", b"2001:db8::1", b"::ffff:1.2.3.4", b"unix", "\u0130stanbul".encode()], ": :: . % / ::ffff:"
)
def limited(data: bytes) -> None:
    """Whoever is counted, by address or by name, is counted under one short name, and no text makes that fail."""
    text = data.decode("utf-8", "surrogateescape")
    assert network(text) == network(text)
    assert alike(alike(text)) == alike(text)


_V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1024 443\r\n"
_V2 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 1, 192, 0, 2, 2, 4, 0, 1, 187])
_V6 = SIGNATURE + b"\x21\x21\x00\x24" + bytes(range(36))


@target(
    lambda: [_V1, _V2, _V6, b"PROXY UNKNOWN\r\n", _V1.replace(b"TCP4", b"TCP6"), SIGNATURE + b"\x20\x00\x00\x00"],
    [b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"\r\n", b" ", b"::", SIGNATURE, b"\x21\x11\x00\x0c", b"65536"],
)
def proxy_protocol(data: bytes) -> None:
    """A header is read alike in any pieces, within its bound, and means an address and a port or the proxy itself."""
    whole = _proxied([data])
    assert _proxied(bytewise(data)) == whole
    assert _proxied(cut(data, places(data))) == whole
    if whole is None or whole == "refused":
        assert whole == "refused" or len(data) < LONGEST
        return
    source, rest = whole
    size = len(data) - len(rest)
    assert data.endswith(rest)
    assert size <= LONGEST
    if source is not None:
        assert str(ip_address(source[0])) == source[0]
        assert "%" not in source[0]
        assert 0 <= source[1] <= 65535
    if data.startswith(b"PROXY TCP"):
        _, family, said, other, port, _ = data[: size - 2].decode().split(" ")
        assert source is not None
        assert ip_address(said) in (
            ip_address(source[0]),
            ip_address(f"::ffff:{source[0]}") if "." in source[0] else None,
        )
        assert {ip_address(each).version for each in (said, other)} == {int(family[3])}
        assert str(source[1]) == port


class _Owner:
    def __init__(self) -> None:
        self.found: tuple[Peer | None, bytes] | str | None = None

    def proxied(self, source: Peer | None, rest: bytes) -> None:
        assert self.found is None
        self.found = source, rest

    def not_proxied(self) -> None:
        assert self.found is None
        self.found = "refused"

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


def _proxied(pieces: list[bytes]) -> Any:
    """Return what the owner of a connection is told; what comes after the header goes to it directly."""
    owner = _Owner()
    prelude = Prelude(owner)
    for at, piece in enumerate(pieces):
        prelude.data_received(piece)
        if isinstance(owner.found, tuple):
            return owner.found[0], owner.found[1] + b"".join(pieces[at + 1 :])
    return owner.found


# --- headers ---


@target(
    lambda: [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"rt,chat, bearer, x", b"abc-DEF_1.2"],
    ", - bearer 00 01 ff",
)
def header_value(data: bytes) -> None:
    """What is taken over of a header's value cannot end its line, and a token leaves no trace in what is passed on."""
    if valid_request_id(data):
        assert re.fullmatch(rb"[A-Za-z0-9._-]{1,128}", data)
    if headers.valid_traceparent(data):
        version, trace, parent, flags = data.split(b"-")[:4]
        assert [len(each) for each in (version, trace, parent, flags)] == [2, 32, 16, 2]
        assert all(int(each, 16) for each in (trace, parent))
        assert version != b"ff"
    for name in headers.trailer_names(data):
        assert headers.valid_name(name)
        assert not re.search(rb"[\s:]", name)
    token, rest = bearer_subprotocol(data)
    if token is not None:
        words = [word.strip(b" \t") for word in data.split(b",")]
        assert token in words
        assert len(rest.split(b", ")) in (len(words) - 2, 1)
    else:
        assert rest == data
    assert headers.nominated(data).isdisjoint({b"", b"close", b"keep-alive"})


@target(
    lambda: [
        b"X-Forwarded-Uri: /a?b\nX-Forwarded-Method: GET\nX-Forwarded-Host: a",
        b"X-Original-URL: http://a:80/b\nX-Original-Method: PUT",
    ],
    "X-Forwarded-Uri: X-Forwarded-Method: X-Original-URI: X-Original-Method: http:// ? # @ \\ GET",
)
def forward_auth(data: bytes) -> None:
    """The request that a proxy asks about is told once, or every time alike, or it is refused."""
    lines = [line.partition(b": ") for line in data.split(b"\n")]
    given = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
    request = Request({"type": "http", "method": "GET", "headers": given, "path": "/auth/verify"})
    try:
        original = read_original(request, None)
    except BadRequest:
        return
    assert {value for name, value in given if name in METHODS} == {original.method}
    targets = [value for name, value in given if name in TARGETS]
    assert targets
    assert all(
        re.sub(rb"(?i)^https?://[^/?#]*", b"", value).partition(b"?")[0] in (original.path, b"") for value in targets
    )
    assert not re.search(rb"[\s/@\\?#]", original.host)


@target(lambda: [b"Basic b3JkZXJzOnNlY3JldA==", b"basic  OmE6Yg=="], "Basic basic = == : % %3A +")
def basic_credentials(data: bytes) -> None:
    """A client's credentials are text, or no client."""
    try:
        found = _basic(data)
    except InvalidClient:
        return
    assert 1 <= len(found) <= 2
    assert all(type(each) is str for pair in found for each in pair)


@target(
    lambda: [b"\x81\x02hi\x88\x00", b"\x82\x7e\x01\x00" + b"a" * 256, b"\x81\xff" + bytes(7) + b"\x03mask" + b"abc"],
    [b"\x81\x7e", b"\x82\x7f", b"\x88\x02", b"\x80"],
)
def websocket_frames(data: bytes) -> None:
    """Where frames end does not hang on how they are cut, and is where a plain reader finds it."""
    for pieces in ([data], bytewise(data), cut(data, places(data))):
        frames = Frames()
        for piece in pieces:
            frames.feed(piece)
        assert frames.between == (_after_frames(data) == len(data))
    first = Frames().boundary(data)
    assert first == min(len(data), _after_frames(data, most=1))


def _after_frames(data: bytes, most: int = 1 << 30) -> int:
    """Return where the last frame that begins in `data` ends (RFC 6455 5.2), past its end where it is cut short."""
    at = 0
    while at < len(data) and most:
        most -= 1
        if len(data) < at + 2:
            return len(data) + 1
        size, masked = data[at + 1] & 127, bool(data[at + 1] & 128)
        wide = {126: 2, 127: 8}.get(size, 0)
        if len(data) < at + 2 + wide + 4 * masked:
            return len(data) + 1
        if wide:
            size = int.from_bytes(data[at + 2 : at + 2 + wide])
        at += 2 + wide + 4 * masked + size
    return at


# --- answers ---


@target(
    lambda: [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 500 x\r\nDate: x\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    ],
    [
        b"\r\n",
        b"\r",
        b"\n",
        b":",
        b" ",
        b"\t",
        b"Content-Length: ",
        b"Connection: ",
        b"Transfer-Encoding: chunked\r\n",
        b"X-Gateway-Error: x\r\n",
        b"\0",
        b"Connec",
        b"Conn",
        b"Content-",
    ],
)
def plain_answer(data: bytes) -> None:
    """An answer that is taken without the parser is one whole answer to the parser, with the same meaning."""
    plain = whole_answer(data, 65536)
    if plain is None:
        return
    status, kept, at = plain
    seen = WholeAnswer()
    seen.parser.feed_data(data)
    assert (status, data[at:], seen.complete, seen.keeps) == (seen.parser.get_status_code(), seen.body, 1, True)
    lines = [line.partition(b":") for line in kept.split(b"\r\n")[:-1]]
    assert [(name, value.strip(b" \t")) for name, _, value in lines] == [
        header for header in seen.headers if header[0].lower() != b"connection"
    ]
    kinds = headers.ResponseKinds()
    assert {kinds[name] for name, _, _ in lines} <= {headers.R_PASS, headers.R_LENGTH}
