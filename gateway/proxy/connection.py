"""One connection to a backend, and its side of an exchange.

Laws:
- An answer that two parsers could read differently ends the connection (contract 6.8): llhttp refuses what
  is malformed, `AnswerHead` and `_framing` what is well-formed but odd.
- A byte that comes when none is due makes the connection unusable.
- What has no Date gets one (RFC 9110 6.6.1: MUST, for a recipient with a clock that passes an answer on).
- Trailers pass where the client asked for them and the backend announced them (RFC 9110 6.5), else not.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import httptools

from gateway import errors
from gateway.proxy import refreshing
from gateway.proxy.answer_head import STATUS_LINES, AnswerHead, verdict
from gateway.proxy.headers import ResponseKinds, dated
from gateway.proxy.plain import PlainAnswers
from gateway.proxy.trailers import Trailers, TwinParser
from gateway.proxy.tunnel import Tunnel, agreed

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.upstream import Upstream

_LOG = logging.getLogger("gateway.proxy")

MAX_HEAD = 65536
RAW_BODY = 65536  # rest of a body, in bytes, from which on it bypasses the parser
MAX_INTERIM = 32  # 1xx before an answer
BARE = frozenset({100, 101, 102, 103})  # the 1xx that llhttp knows to have no body, whatever they say of one
SMALL = 16384  # an answer whose head and body are copied into one write


class UpstreamConnection(asyncio.Protocol):
    """One connection to a backend. `exchange` is whom it serves, None while idle."""

    __slots__ = (
        "bodyless",
        "chunked",
        "ended",
        "exchange",
        "idle_since",
        "in_head",
        "interim",
        "keep",
        "kinds",
        "left",
        "lost",
        "out",
        "parser",
        "paused",
        "plain",
        "pool",
        "raw",
        "raw_left",
        "rechunk",
        "said",
        "served",
        "suspect",
        "switched",
        "transport",
        "tunnel",
        "twin",
        "until_close",
        "unusable",
    )

    def __init__(self, pool: Upstream) -> None:
        self.pool = pool
        self.kinds: ResponseKinds = pool.kinds
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set by connection_made
        self.parser: Any = httptools.HttpResponseParser(self)
        self.exchange: Exchange | None = None
        self.out: list[bytes] = []
        self.plain = PlainAnswers()
        self.idle_since = 0.0
        self.served = self.raw_left = 0
        self.lost = self.paused = self.unusable = self.switched = False
        self.tunnel: Tunnel | None = None
        self.suspect = self.said = b""
        self.twin: TwinParser | None = None
        self._begin()

    def __repr__(self) -> str:
        return f"<UpstreamConnection {self.pool.name} served={self.served}>"

    def _begin(self) -> None:
        self.left = -1
        self.interim = 0
        self.raw = b""
        self.in_head = True
        self.chunked = self.ended = self.rechunk = self.until_close = self.bodyless = self.keep = False

    # --- taken and given back ---

    def serve(self, exchange: Exchange) -> None:
        """Begin an exchange."""
        self.exchange = exchange
        self.served += 1
        if self.ended:
            self._begin()
        exchange.connected(self)
        if exchange.protocol.write_paused:
            self.pause_reading()

    def abandon(self) -> None:
        """The exchange wants no more of this connection: end it."""
        self.exchange = None
        self.unusable = True
        self.transport.abort()

    def _finish(self) -> None:
        exchange = self.exchange
        if exchange is None:
            return
        self.exchange = None
        if self.keep and not self.unusable and exchange.whole:
            if self.bodyless:
                self.parser = httptools.HttpResponseParser(self)  # it would wait for a body
            if self.paused:
                self.resume_reading()
            self.pool.release(self)
        else:
            self.unusable = True
            self.transport.close()
        exchange.responded()

    def pause_reading(self) -> None:
        if not self.paused and not self.lost:
            self.paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.paused and not self.lost:
            self.paused = False
            self.transport.resume_reading()

    # --- the connection ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.protocol.pause_reading()

    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.protocol.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.parser = self.twin = None
        self.pool.forget(self)
        exchange = self.exchange
        if exchange is None:
            return
        if self.tunnel is not None:
            self.exchange = None
            exchange.tunnel_closed()
            return
        if self.until_close and not self.in_head and exc is None:
            exchange.protocol.transport.writelines([*self.out, b"0\r\n\r\n"] if self.rechunk else self.out)
            self.out.clear()
            self.ended = True
            self.exchange = None
            exchange.responded()
            return
        self.exchange = None
        begun = not self.in_head or self.raw != b"" or self.interim > 0
        error = errors.UpstreamInvalid("cut short") if begun else errors.UpstreamUnreachable("closed without answer")
        exchange.upstream_lost(error, reused=self.served > 1)

    # --- bytes in ---

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.unusable = True
            self.transport.abort()
            return
        if self.raw_left or self.tunnel is not None or exchange.renewed is not None:
            self._unparsed(exchange, data)
            return
        if self.in_head:
            if not self.raw and self._plain(exchange, data):
                return
            self.raw = self.raw + data if self.raw else data
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            if self.switched:
                self._switch(exchange, data[stop.args[0] :])
            else:
                self._invalid("upgrade")
        except httptools.HttpParserError as error:
            if self.ended:  # what came after a whole answer is not ours to read
                self.unusable = True
                self._pass_on(exchange)
            else:
                self._invalid(error)
        else:
            self._pass_on(exchange)

    def _unparsed(self, exchange: Exchange, data: bytes) -> None:
        """Take what no parser is to see, or not yet."""
        if self.raw_left:
            self._raw_body(exchange, data)
        elif self.tunnel is not None:
            self.tunnel.from_upstream(data)
        else:
            refreshing.confirm(exchange, self, data)

    def _plain(self, exchange: Exchange, data: bytes) -> bool:
        """Pass on what is one whole plain answer; False where it takes a parser."""
        head = exchange.head
        plain = None if head.method == b"HEAD" or exchange.tunnel is not None else self.plain.read(data, MAX_HEAD)
        if plain is None:
            return False
        status, lines, at = plain
        self.in_head, self.keep, self.ended = False, True, True
        kept = b"\r\n" if head.http11 else b"Connection: keep-alive\r\n\r\n"
        end = kept if exchange.responding(status) else b"Connection: close\r\n\r\n"
        if not dated(data, at):
            end = exchange.protocol.date() + end
        lines = lines if exchange.grant is None else exchange.grant.fields(lines)
        transport = exchange.protocol.transport
        if len(data) <= SMALL:  # one small copy is cheaper than writev
            transport.write(b"".join((STATUS_LINES[status], lines, exchange.extra, end, data[at:])))
        else:
            transport.writelines((b"".join((STATUS_LINES[status], lines, exchange.extra, end)), data[at:]))
        self._finish()
        return True

    def _pass_on(self, exchange: Exchange) -> None:
        """Write what the parser made of one read, and see where that leaves the answer."""
        out = self.out
        if self.suspect and not refreshing.cleared(self, exchange):
            return
        if out:
            self.out = []
            transport = exchange.protocol.transport
            if len(out) == 2 and len(out[1]) <= SMALL:  # head and body: one small copy is cheaper than writev
                transport.write(out[0] + out[1])
            else:
                transport.writelines(out)
        if self.ended:
            self._finish()
        elif self.in_head:
            if len(self.raw) > MAX_HEAD:
                self._invalid("head size")
        else:
            exchange.progressed()
            if exchange.place < 0:
                exchange.watch()
            if self.left >= RAW_BODY:
                self.raw_left = self.left

    def _raw_body(self, exchange: Exchange, data: bytes) -> None:
        left = self.raw_left
        if len(data) > left:
            self.unusable = True
            data = data[:left]
        self.raw_left = left = left - len(data)
        exchange.protocol.transport.write(data)
        exchange.progressed()
        if not left:
            self.ended = True
            self.parser = httptools.HttpResponseParser(self)
            self._finish()

    def _switch(self, exchange: Exchange, rest: bytes) -> None:
        """Join the two connections: no parser from here on."""
        tunnel = self.tunnel = exchange.tunnel
        exchange.protocol.transport.writelines(self.out)
        self.out = []
        if tunnel is not None:
            exchange.tunnel_open()
            tunnel.open(self)
            if rest:
                tunnel.from_upstream(rest)

    def _invalid(self, reason: str | BaseException | None) -> None:
        if isinstance(reason, httptools.HttpParserCallbackError):
            reason = reason.__context__
            if not isinstance(reason, errors.GatewayError):
                _LOG.error("a defect while reading an answer", exc_info=reason)
        exchange, self.exchange = self.exchange, None
        self.out.clear()
        self.unusable = True
        self.transport.abort()
        if exchange is not None:
            exchange.upstream_lost(errors.UpstreamInvalid(str(reason)), reused=False)

    # --- the parser's callbacks ---

    def on_message_begin(self) -> None:
        if self.ended:
            self.unusable = True

    # There is no on_header: llhttp has read every line strictly when it calls on_headers_complete, so that the
    # head can be taken as it came, less the few lines that are not to pass. A call a header would cost 3 us.

    def on_headers_complete(self) -> None:
        exchange = self.exchange
        if exchange is None or self.ended:
            return
        status = self.parser.get_status_code()
        raw, self.raw = self.raw, b""
        if raw[:7] != b"HTTP/1.":  # llhttp also takes HTTP/2.0, RTSP and others
            raise errors.UpstreamInvalid("version")
        end = raw.find(b"\r\n\r\n") + 2
        if status < 100 or end > MAX_HEAD:
            raise errors.UpstreamInvalid("status or head size")
        head = AnswerHead(raw[raw.find(b"\r\n") + 1 : end], self.kinds, exchange.plane.own_cookies)
        if status < 200:
            self.raw = raw[end + 2 :]  # a 1xx has no body: what follows is the next head
            self._interim(exchange, status, head)
            return
        if exchange.grant is not None:
            head.fields = exchange.grant.fields(head.fields)
        self.in_head = False
        self.keep = self.parser.should_keep_alive()
        if status == 401 and refreshing.can_replay(exchange):
            self.suspect, self.said = verdict(raw[:end]), b""
        self.left, self.chunked = head.length, head.chunked
        fields = head.without_length() if status == 204 else head.fields  # RFC 9110 8.6
        tail = self._framing(exchange, status) + (b"" if dated(raw, end) else exchange.protocol.date())
        if head.announced:
            tail += self._expect_trailers(exchange, head.announced, raw)
        if not exchange.responding(status):
            tail += b"Connection: close\r\n\r\n"
        else:
            tail += b"\r\n" if exchange.head.http11 else b"Connection: keep-alive\r\n\r\n"
        self.out.append(b"".join((STATUS_LINES[status], fields, exchange.extra, tail)))

    def _framing(self, exchange: Exchange, status: int) -> bytes:
        """Decide how the answer's end is told to the client; return what is to be added (RFC 9112 6.3)."""
        head = exchange.head
        if self.chunked and self.parser.get_http_version() != "1.1":
            raise errors.UpstreamInvalid("chunked before HTTP/1.1")
        if head.method == b"HEAD" or status == 304 or status == 204:
            self.ended = self.bodyless = True
            self.left = 0
            return b""
        if self.left >= 0:
            return b""
        self.until_close = not self.chunked
        if head.http11:
            self.rechunk = True
            return b"Transfer-Encoding: chunked\r\n"
        exchange.keep_alive = False  # HTTP/1.0: the end of the connection is the end of the answer
        return b""

    def _expect_trailers(self, exchange: Exchange, names: tuple[bytes, ...], raw: bytes) -> bytes:
        """Announce trailers to a client that takes them and can be sent them; return that header."""
        if not (self.chunked and self.rechunk and exchange.head.fields.trailers):
            return b""
        self.twin = self.parser = TwinParser(self.parser, Trailers(names), raw)
        return b"Trailer: %b\r\n" % b", ".join(names)

    def _interim(self, exchange: Exchange, status: int, head: AnswerHead) -> None:
        """Pass on a 1xx (RFC 9110 15.2), whose framing means nothing; a 101 only where it was asked for."""
        self.interim += 1
        if self.interim > MAX_INTERIM:
            raise errors.UpstreamInvalid("no end of 1xx")
        if status not in BARE and (head.length > 0 or head.chunked):  # the parser would read a body (RFC 9110 8.6)
            raise errors.UpstreamInvalid("a 1xx with a body")
        if status == 101:
            self.out.append(STATUS_LINES[101] + agreed(exchange, head))
            self.switched = True
        elif exchange.head.http11:
            self.out.append(b"".join((STATUS_LINES[status], head.without_length(), b"\r\n")))

    def on_body(self, body: bytes) -> None:
        if self.ended:
            self.unusable = True
            return
        if self.suspect:
            self.said += body
        if self.rechunk:
            self.out += (b"%x\r\n" % len(body), body, b"\r\n")
        else:
            self.left -= len(body)
            self.out.append(body)

    def on_message_complete(self) -> None:
        if not self.in_head and not self.ended:  # in_head still: a 1xx, after which the answer itself comes
            self.ended = True
            if self.rechunk:
                twin, self.twin = self.twin, None
                if twin is not None:
                    self.parser = twin.first
                self.out.append(b"0\r\n\r\n" if twin is None else twin.trailers.last_chunk())
