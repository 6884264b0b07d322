"""WebSocket and other upgrades (RFC 9110 7.8, RFC 6455): two connections joined, bytes in both directions.

Laws:
- The upgrade is a request like any other until the backend answers 101; only then does a tunnel begin.
- Whoever is slower pauses the other side; what waits for the 101 is bounded.
- A WebSocket whose session or token ends is told why: a Close frame with code 4401 at a frame's boundary;
  one that a drain ends gets 1001.

States:  asked -> open -> ending -> closed.  A backend that answers anything but 101 leaves a plain answer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from gateway.errors import InvalidToken, UpstreamInvalid
from gateway.proxy.headers import without

if TYPE_CHECKING:
    from gateway.proxy.answer_head import AnswerHead
    from gateway.proxy.connection import UpstreamConnection
    from gateway.proxy.exchange import Exchange

HELD = 65536  # bytes that a client may send before the 101
SIGNED_OUT = 4401  # the session or the token has ended
GOING_AWAY = 1001  # RFC 6455 7.4.1
REFUSED = (b"h2c", b"h2", b"http/", b"tls/")  # another HTTP inside would carry requests past the gate


class Frames:
    """Finds the frame boundaries of one direction of a WebSocket (RFC 6455 5.2) as its bytes go by."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def between(self) -> bool:
        """True where the next byte begins a frame."""
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        """Take note of bytes that go by."""
        self.boundary(data, first=False)

    def boundary(self, data: bytes, *, first: bool = True) -> int:
        """Take note of bytes up to the first boundary among them, or of all; return how many that are."""
        at, size = 0, len(data)
        while at < size:
            if self._left:
                step = min(self._left, size - at)
                self._left -= step
                at += step
            else:
                at = self._read_head(data, at)
            if first and self.between:
                return at
        return at

    def _read_head(self, data: bytes, at: int) -> int:
        head = self._head + data[at : at + 14 - len(self._head)]
        length = self._payload(head)
        if length is None:
            self._head = head
            return len(data)
        header, payload = length
        used = header - len(self._head)
        self._head = b""
        self._left = payload
        return at + used

    @staticmethod
    def _payload(head: bytes) -> tuple[int, int] | None:
        """Return (header size, payload size) of a frame's beginning, None where more is needed."""
        if len(head) < 2:
            return None
        short, mask = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
        size = {126: 4, 127: 10}.get(short, 2)
        if len(head) < size + mask:
            return None
        if short < 126:
            return size + mask, short
        return size + mask, struct.unpack("!H" if short == 126 else "!Q", head[2:size])[0]


class Tunnel:
    """One upgraded exchange."""

    __slots__ = ("_ending", "_frames", "_held", "_held_bytes", "exchange", "opened", "protocol_name", "upstream")

    def __init__(self, exchange: Exchange, protocol_name: bytes) -> None:
        self.exchange = exchange
        self.protocol_name = protocol_name
        self.upstream: UpstreamConnection | None = None
        self.opened = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._frames = Frames() if protocol_name == b"websocket" else None
        self._ending = b""

    def __repr__(self) -> str:
        return f"<Tunnel {self.protocol_name.decode()} {'open' if self.opened else 'asked'}>"

    def open(self, upstream: UpstreamConnection) -> None:
        """The backend has switched."""
        self.opened = True
        self.upstream = upstream
        for piece in self._held:
            upstream.transport.write(piece)
        self._held.clear()
        self.exchange.protocol.resume_reading()

    def from_client(self, data: bytes) -> None:
        if self.upstream is not None:
            self.upstream.transport.write(data)
            self.exchange.progressed()
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD:
            self.exchange.protocol.pause_reading()

    def from_upstream(self, data: bytes) -> None:
        if self._ending:
            self._finish_frame(data)
            return
        if self._frames is not None:
            self._frames.feed(data)
        self.exchange.protocol.transport.write(data)
        self.exchange.progressed()

    def end(self, code: int, reason: str) -> None:
        """Close from our side: a Close frame for a WebSocket, as soon as it can stand, then the connection."""
        if not self.opened or self._frames is None:
            self.exchange.abort()
            return
        text = reason.encode()[:120]
        self._ending = b"\x88" + bytes([len(text) + 2]) + struct.pack("!H", code) + text
        if self._frames.between:
            self._say_goodbye()

    def _finish_frame(self, data: bytes) -> None:
        if self._frames is not None:
            data = data[: self._frames.boundary(data)]
        self.exchange.protocol.transport.write(data)
        if self._frames is not None and self._frames.between:
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        protocol = self.exchange.protocol
        protocol.transport.write(self._ending)
        self.exchange.tunnel_closed()


def ask(exchange: Exchange) -> None:
    """Have an exchange become a tunnel if the backend agrees; an `Upgrade` not taken is ignored (RFC 9110 7.8)."""
    fields = exchange.head.fields
    name = asked(exchange.head.method, fields.upgrade, fields.hop) if exchange.head.http11 else b""
    if name and fields.length <= 0:
        exchange.tunnel = Tunnel(exchange, name)


def asked(method: bytes, upgrade: bytes, connection: bytes) -> bytes:
    """Return the protocol that a request asks to switch to, b"" where it asks for none that is passed on."""
    words = [word.strip(b" \t").lower() for word in connection.split(b",")]
    name = upgrade.strip(b" \t").lower()
    if b"upgrade" not in words or not name or b"," in name or method != b"GET" or name.startswith(REFUSED):
        return b""
    return name


def bearer_subprotocol(value: bytes) -> tuple[bytes | None, bytes]:
    """Return (token, the other subprotocols) of a `Sec-WebSocket-Protocol` value like `bearer, <token>, chat`.

    Browsers let scripts set no other header on a WebSocket; Kubernetes does it this way too.
    """
    words = [word.strip(b" \t") for word in value.split(b",")]
    for at, word in enumerate(words[:-1]):
        if word.lower() == b"bearer":
            return words[at + 1], b", ".join(words[:at] + words[at + 2 :])
    return None, value


def subprotocol_token(exchange: Exchange) -> bytes | None:
    """Take the token out of `Sec-WebSocket-Protocol`; the backend gets the rest.

    Several lines are one list (RFC 6455 11.3.4). Raises InvalidToken for several tokens.
    """
    fields, name = exchange.head.fields, b"sec-websocket-protocol"
    offered = b", ".join(value for each, value in fields.headers if each.lower() == name)
    token, rest = bearer_subprotocol(offered)
    if token is None:
        return None
    if bearer_subprotocol(rest)[0] is not None:
        raise InvalidToken("several access tokens")
    exchange.by_subprotocol = True
    fields.headers = [header for header in fields.headers if header[0].lower() != name]
    fields.lines = without(fields.lines, frozenset({name}))
    if rest:
        fields.headers.append((b"Sec-WebSocket-Protocol", rest))
        fields.lines += (b"Sec-WebSocket-Protocol", b": ", rest, b"\r\n")
    return token


def agreed(exchange: Exchange, head: AnswerHead) -> bytes:
    """Return what the client gets below the first line of the backend's 101. Raises UpstreamInvalid for another one."""
    tunnel, fields = exchange.tunnel, head.without_length()
    if tunnel is None or head.upgrade != tunnel.protocol_name:
        raise UpstreamInvalid("101 unasked, or to another protocol")
    if exchange.by_subprotocol and b"\nsec-websocket-protocol:" not in b"\n" + fields.lower():
        fields += b"Sec-WebSocket-Protocol: bearer\r\n"  # browsers want one of those they offered
    return b"%b%bConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % (fields, exchange.extra, tunnel.protocol_name)
