"""A table of what misbehaving backends send, and what their clients must see of it."""
# ruff: noqa: E501  # a row is a line

from __future__ import annotations

from dataclasses import dataclass

INVALID, UNREACHABLE, SLOW = "upstream_invalid", "upstream_unreachable", "upstream_timeout"
STATUS = {INVALID: 502, UNREACHABLE: 502, SLOW: 504}
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Bad:
    """`data` is sent, then `then` is done: keep, close, reset or stall.

    `kind` is the error that the gateway makes of it, "" where the answer passes with `status` and `body`.
    `begun` says that the answer's head is out before it goes wrong: the client must see that it was cut.
    """

    name: str
    rfc: str
    data: bytes
    kind: str = INVALID
    then: str = "keep"
    begun: bool = False
    status: int = 200
    body: bytes = b"ok"
    method: str = "GET"
    late: bytes = b""  # sent after the answer, when the client has had it


def _ok(*headers: bytes, body: bytes = b"ok", first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join((first, *headers)) + END + body


def _chunked(body: bytes) -> bytes:
    return _ok(b"Transfer-Encoding: chunked", body=body)


_CL2 = b"Content-Length: 2"
HEADS = [
    Bad("garbage", "9112 4", b"\x00\xff\xfe garbage \r\n\r\n"),
    Bad("garbage without an end", "9112 4", b"\x16\x03\x01" * 100),
    Bad("text", "9112 4", b"hello\r\n\r\n"),
    Bad("http 0.9", "9112 4", b"<html>hello</html>\r\n", then="close"),
    Bad("http 2 preface", "9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Bad("http 2 settings", "9113 6.5", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    Bad("a request", "9112 4", b"GET /raw/x HTTP/1.1\r\nHost: a\r\n\r\n"),
    Bad("half a head", "9112 8", b"HTTP/1.1 200 OK\r\nContent-Le", then="close"),
    Bad("half a head, reset", "9112 8", b"HTTP/1.1 200 OK\r\nContent-Le", then="reset"),
    Bad("half a status line", "9112 8", b"HTT", then="close"),
    Bad("a head without its empty line", "9112 8", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", then="close"),
    Bad("a head of 70 KiB", "6585 5", b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 71_000 + b"\r\nContent-Length: 2\r\n\r\nok"),
    Bad("a head without an end", "6585 5", b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 20_000),
    Bad("a reason without an end", "6585 5", b"HTTP/1.1 200 " + b"a" * 200_000),
    Bad("a leading empty line", "9112 4", b"\r\n" + _ok(_CL2)),
    Bad("two leading empty lines", "9112 4", b"\r\n\r\n" + _ok(_CL2)),
    Bad("a leading bare lf", "9112 4", b"\n" + _ok(_CL2)),
    Bad("version 0.9", "9112 2.3", _ok(_CL2, first=b"HTTP/0.9 200 OK")),
    Bad("version 2.0", "9112 2.3", _ok(_CL2, first=b"HTTP/2.0 200 OK")),
    Bad("version 1.2", "9112 2.3", _ok(_CL2, first=b"HTTP/1.2 200 OK")),
    Bad("rtsp", "9112 2.3", _ok(_CL2, first=b"RTSP/1.0 200 OK")),
    Bad("icy", "9112 2.3", _ok(_CL2, first=b"ICE/1.0 200 OK")),
    Bad("status 99", "9112 4", _ok(_CL2, first=b"HTTP/1.1 99 X")),
    Bad("status 099", "9112 4", _ok(_CL2, first=b"HTTP/1.1 099 X")),
    Bad("status 000", "9112 4", _ok(_CL2, first=b"HTTP/1.1 000 X")),
    Bad("status 1000", "9112 4", _ok(_CL2, first=b"HTTP/1.1 1000 X")),
    Bad("status of letters", "9112 4", _ok(_CL2, first=b"HTTP/1.1 2xx OK")),
    Bad("negative status", "9112 4", _ok(_CL2, first=b"HTTP/1.1 -200 OK")),
    Bad("two spaces before the status", "9112 4", _ok(_CL2, first=b"HTTP/1.1  200 OK")),
    Bad("bare lf", "9112 2.2", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    Bad("a bare lf after a field", "9112 2.2", _ok(b"X-A: b\nSet-Cookie: evil=1", _CL2)),
    Bad("a bare cr after the status line", "9112 2.2", _ok(_CL2, first=b"HTTP/1.1 200 OK\rSet-Cookie: evil=1")),
    Bad("a bare cr in a value", "9112 2.2", _ok(b"X-A: b\rSet-Cookie: evil=1", _CL2)),
    Bad("a folded line", "9112 5.2", _ok(b"X-A: b\r\n c", _CL2)),
    Bad("a space before a colon", "9112 5.1", _ok(b"Content-Length : 2")),
    Bad("a nul in a value", "9110 5.5", _ok(b"X-A: b\x00c", _CL2)),
    Bad("a control character in a value", "9110 5.5", _ok(b"X-A: b\x01c", _CL2)),
    Bad("a control character in a name", "9110 5.1", _ok(b"X\x01A: b", _CL2)),
    Bad("no name", "9110 5.1", _ok(b": b", _CL2)),
    Bad("no colon", "9112 5", _ok(b"nonsense", _CL2)),
    Bad("101 unasked", "9110 15.2.2", _ok(b"Connection: upgrade", b"Upgrade: websocket", first=b"HTTP/1.1 101 X", body=b"evil")),
    Bad("101 without upgrade", "9110 15.2.2", _ok(first=b"HTTP/1.1 101 X", body=b"")),
    Bad("a flood of 1xx", "9110 15.2", _ok(first=b"HTTP/1.1 102 X", body=b"") * 5000),
    Bad("a flood of large 1xx", "9110 15.2", _ok(b"X-A: " + b"a" * 60_000, first=b"HTTP/1.1 103 X", body=b"") * 200),
    Bad("1xx alone", "9110 15.2", _ok(first=b"HTTP/1.1 103 X", body=b""), then="close", kind=INVALID),
    Bad("1xx and garbage", "9110 15.2", _ok(first=b"HTTP/1.1 103 X", body=b"") + b"garbage\r\n\r\n"),
]  # fmt: skip

FRAMES = [
    Bad("both", "9112 6.3", _ok(_CL2, b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    Bad("both, other way", "9112 6.3", _ok(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n")),
    Bad("two lengths", "9112 6.3", _ok(_CL2, b"Content-Length: 3")),
    Bad("the same length twice", "9110 8.6", _ok(_CL2, _CL2)),
    Bad("a list of lengths", "9110 8.6", _ok(b"Content-Length: 2, 2")),
    Bad("a negative length", "9110 8.6", _ok(b"Content-Length: -2")),
    Bad("a plus length", "9110 8.6", _ok(b"Content-Length: +2")),
    Bad("a hexadecimal length", "9110 8.6", _ok(b"Content-Length: 0x2")),
    Bad("an empty length", "9110 8.6", _ok(b"Content-Length:")),
    Bad("a length past 64 bits", "9110 8.6", _ok(b"Content-Length: 18446744073709551618")),
    Bad("an unknown coding", "9112 6.1", _ok(b"Transfer-Encoding: gzip"), then="close"),
    Bad("two codings", "9112 6.1", _ok(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    Bad("chunked twice", "9112 6.1", _ok(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    Bad("chunked before the last", "9112 6.1", _ok(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n")),
    Bad("chunked in http 1.0", "9112 6.1", _ok(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK", body=b"2\r\nok\r\n0\r\n\r\n")),
    Bad("a vertical tab before the coding", "9110 5.5", _ok(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    Bad("a length in a 1xx and chunks after it", "9110 8.6", _ok(b"Content-Length: 1", first=b"HTTP/1.1 103 X", body=b"") + _chunked(b"2\r\nok\r\n0\r\n\r\n"), kind=""),
    Bad("a length in a 1xx and another after it", "9110 8.6", _ok(b"Content-Length: 1", first=b"HTTP/1.1 103 X", body=b"") + _ok(_CL2), kind=""),
    Bad("a length in a 1xx and none after it", "9110 8.6", _ok(b"Content-Length: 1", first=b"HTTP/1.1 103 X", body=b"") + _ok(), kind="", then="close"),
    Bad("chunked in a 1xx and a length after it", "9112 6.1", _ok(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 103 X", body=b"") + _ok(_CL2), kind=""),
    Bad("a body in an unknown 1xx", "9110 8.6", _ok(b"Content-Length: 4", first=b"HTTP/1.1 199 X", body=b"evil") + _ok(_CL2)),
    Bad("an answer as the body of an unknown 1xx", "9110 8.6", _ok(b"Content-Length: 42", first=b"HTTP/1.1 104 X", body=EVIL) + _ok(_CL2)),
    Bad("a length in an unknown 1xx", "9110 8.6", _ok(b"Content-Length: 1", first=b"HTTP/1.1 104 X", body=b"") + _ok(_CL2)),
    Bad("a length of nothing in an unknown 1xx", "9110 8.6", _ok(b"Content-Length: 0", first=b"HTTP/1.1 104 X", body=b"") + _ok(_CL2), kind=""),
    Bad("chunks in an unknown 1xx", "9112 6.1", _ok(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 199 X", body=b"4\r\nevil\r\n0\r\n\r\n") + _ok(_CL2)),
    Bad("chunked in a 1xx and in the answer", "9112 6.1", _ok(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 103 X", body=b"") + _chunked(b"2\r\nok\r\n0\r\n\r\n"), kind=""),
    Bad("a body that is longer than it says", "9112 6.3", _ok(_CL2, body=b"okevil"), kind=""),
    Bad("a body that is longer than it says, closed", "9112 6.3", _ok(_CL2, body=b"okevil"), kind="", then="close"),
    Bad("a body that is shorter than it says", "9112 8", _ok(b"Content-Length: 9", body=b"half"), then="close", begun=True),
    Bad("a body that is shorter, reset", "9112 8", _ok(b"Content-Length: 9", body=b"half"), then="reset", begun=True),
    Bad("a large body that is shorter", "9112 8", _ok(b"Content-Length: 900000", body=b"x" * 300_000), then="close", begun=True),
    Bad("no body at all, closed", "9112 8", _ok(b"Content-Length: 9", body=b""), then="close", begun=True),
    Bad("no body at all, reset", "9112 8", _ok(b"Content-Length: 9", body=b""), then="reset", begun=True),
    Bad("a body until close that is reset", "9112 8", _ok(body=b"half"), then="reset", begun=True),
    Bad("chunks without an end", "9112 8", _chunked(b"4\r\nhalf\r\n"), then="close", begun=True),
    Bad("chunks without an end, reset", "9112 8", _chunked(b"4\r\nhalf\r\n"), then="reset", begun=True),
    Bad("half a chunk", "9112 8", _chunked(b"9\r\nhalf"), then="close", begun=True),
    Bad("half a chunk, reset", "9112 8", _chunked(b"9\r\nhalf"), then="reset", begun=True),
    Bad("half a chunk size", "9112 8", _chunked(b"4\r\nhalf\r\n1"), then="close", begun=True),
    Bad("half a last chunk", "9112 8", _chunked(b"4\r\nhalf\r\n0\r\n"), then="close", begun=True),
    Bad("a bad chunk size", "9112 7.1", _chunked(b"4\r\nhalf\r\nzz\r\nevil"), begun=True),
    Bad("a bad first chunk size", "9112 7.1", _chunked(b"0x2\r\nok\r\n0\r\n\r\n"), begun=True),
    Bad("a chunk longer than it says", "9112 7.1", _chunked(b"4\r\nhalfevil\r\n0\r\n\r\n"), begun=True),
    Bad("a bare lf after a chunk size", "9112 7.1", _chunked(b"4\nhalf\r\n0\r\n\r\n"), begun=True),
    Bad("a bare lf in a chunk extension", "9112 7.1.1", _chunked(b"4;a\nb\r\nhalf\r\n0\r\n\r\n"), begun=True),
    Bad("a chunk size past 64 bits", "9112 7.1", _chunked(b"10000000000000004\r\nhalf\r\n0\r\n\r\n"), begun=True),
    Bad("a length in a trailer", "9110 6.5.1", _chunked(b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n"), begun=True),
    Bad("chunk extensions", "9112 7.1.1", _chunked(b'2;a="b"\r\nok\r\n0\r\n\r\n'), kind=""),
    Bad("fields in a trailer", "9110 6.5.1", _chunked(b"2\r\nok\r\n0\r\nX-Gateway-Error: evil\r\n\r\n"), kind=""),
]  # fmt: skip

MORE = [
    Bad("two answers", "9112 9.3", _ok(_CL2) + EVIL, kind=""),
    Bad("two answers, the second one later", "9112 9.3", _ok(_CL2), kind="", late=EVIL),
    Bad("half a second answer later", "9112 9.3", _ok(_CL2), kind="", late=EVIL[:30]),
    Bad("garbage after an answer", "9112 9.3", _ok(_CL2) + b"evil\r\n\r\n", kind=""),
    Bad("garbage after an answer, later", "9112 9.3", _ok(_CL2), kind="", late=b"evil"),
    Bad("two chunked answers", "9112 9.3", _chunked(b"2\r\nok\r\n0\r\n\r\n") + EVIL, kind=""),
    Bad("two large answers", "9112 9.3", _ok(b"Content-Length: 300000", body=b"x" * 300_000) + EVIL, kind="", body=b"x" * 300_000),
    Bad("an answer before and one after", "9112 9.3", _ok(_CL2) + EVIL * 3, kind="", method="POST"),
    Bad("a 408 while idle", "9110 15.5.9", _ok(_CL2), kind="", late=_ok(b"Content-Length: 4", b"Connection: close", first=b"HTTP/1.1 408 X", body=b"evil")),
    Bad("head with a body", "9110 9.3.2", _ok(b"Content-Length: 4", body=b"evil"), kind="", method="HEAD", body=b""),
    Bad("head with an answer as its body", "9110 9.3.2", _ok(b"Content-Length: %d" % len(EVIL), body=EVIL), kind="", method="HEAD", body=b""),
    Bad("head with a body later", "9110 9.3.2", _ok(b"Content-Length: %d" % len(EVIL), body=b""), kind="", method="HEAD", body=b"", late=EVIL),
    Bad("head with chunks", "9110 9.3.2", _chunked(b"4\r\nevil\r\n0\r\n\r\n"), kind="", method="HEAD", body=b""),
    Bad("204 with a body", "9110 15.3.5", _ok(b"Content-Length: 4", first=b"HTTP/1.1 204 X", body=b"evil"), kind="", status=204, body=b""),
    Bad("204 with chunks", "9110 15.3.5", _ok(b"Transfer-Encoding: chunked", first=b"HTTP/1.1 204 X", body=b"4\r\nevil\r\n0\r\n\r\n"), kind="", status=204, body=b""),
    Bad("204 with an answer as its body", "9110 15.3.5", _ok(b"Content-Length: %d" % len(EVIL), first=b"HTTP/1.1 204 X", body=EVIL), kind="", status=204, body=b""),
    Bad("304 with a body", "9110 15.4.5", _ok(b"Content-Length: 4", first=b"HTTP/1.1 304 X", body=b"evil"), kind="", status=304, body=b""),
    Bad("304 with a body later", "9110 15.4.5", _ok(b"Content-Length: %d" % len(EVIL), first=b"HTTP/1.1 304 X", body=b""), kind="", status=304, body=b"", late=EVIL),
    Bad("205 with a body", "9110 15.3.6", _ok(b"Content-Length: 2", first=b"HTTP/1.1 205 X"), kind="", status=205),
    Bad("status 999", "9110 15", _ok(_CL2, first=b"HTTP/1.1 999 X"), kind="", status=999),
    Bad("no reason", "9112 4", _ok(_CL2, first=b"HTTP/1.1 200"), kind=""),
    Bad("a nul in the reason", "9112 4", _ok(_CL2, first=b"HTTP/1.1 200 O\x00K"), kind=""),
    Bad("http 1.0, kept", "9112 9.3", _ok(_CL2, b"Connection: keep-alive", first=b"HTTP/1.0 200 OK"), kind=""),
    Bad("connection: content-length", "9110 7.6.1", _ok(_CL2, b"Connection: Content-Length"), kind=""),
    Bad("connection: close and more", "9112 9.6", _ok(_CL2, b"Connection: close") + EVIL, kind=""),
    Bad("upgrade in a 200", "9110 7.8", _ok(_CL2, b"Connection: upgrade", b"Upgrade: h2c") + EVIL, kind=""),
]  # fmt: skip

BREAKS = [
    Bad("closed before a byte", "9112 9.5", b"", kind=UNREACHABLE, then="close", method="POST"),
    Bad("reset before a byte", "9112 9.5", b"", kind=UNREACHABLE, then="reset", method="POST"),
    Bad("silence", "contract 5", b"", kind=SLOW, then="stall"),
    Bad("a stalled status line", "contract 5", b"HTTP/1.1 2", kind=SLOW, then="stall"),
    Bad("a stalled head", "contract 5", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", kind=SLOW, then="stall"),
    Bad("a stall after a 1xx", "contract 5", _ok(first=b"HTTP/1.1 103 X", body=b""), kind=SLOW, then="stall"),
    Bad("a stalled body", "contract 5", _ok(b"Content-Length: 9", body=b"half"), kind=SLOW, then="stall", begun=True),
    Bad("a stalled large body", "contract 5", _ok(b"Content-Length: 900000", body=b"x" * 200_000), kind=SLOW, then="stall", begun=True),
    Bad("a body that never begins", "contract 5", _ok(b"Content-Length: 9", body=b""), kind=SLOW, then="stall", begun=True),
    Bad("a stalled chunk", "contract 5", _chunked(b"9\r\nhalf"), kind=SLOW, then="stall", begun=True),
    Bad("a stall between chunks", "contract 5", _chunked(b"4\r\nhalf\r\n"), kind=SLOW, then="stall", begun=True),
]  # fmt: skip

ANSWERS = [*HEADS, *FRAMES, *MORE, *BREAKS]
