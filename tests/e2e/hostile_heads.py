"""Hostile heads: request lines, field lines, Host, Connection, limits, upgrades and spoofed identities."""
# ruff: noqa: E501  # a row is a line

from __future__ import annotations

from tests.e2e.hostile_rows import FINE, HIDDEN, TOO_LARGE, UNAUTHORIZED, Passed, Refused, get, passed, post, row

_H = b"%d" % len(HIDDEN)


def _line(first: bytes) -> bytes:
    return first + b"\r\nHost: a\r\n\r\n"


REQUEST_LINES = [
    row("two spaces", "9112 3", "MAY be taken for one; written anew", _line(b"GET  /open/x HTTP/1.1"), FINE),
    row("two spaces before the version", "9112 3", "MAY be taken for one; written anew", _line(b"GET /open/x  HTTP/1.1"), FINE),
    row("tab after the method", "9112 3", "one SP", _line(b"GET\t/open/x HTTP/1.1")),
    row("tab before the version", "9112 3", "one SP", _line(b"GET /open/x\tHTTP/1.1")),
    row("vertical tab in the line", "9112 3", "a separator to some", _line(b"GET /open/x\x0bHTTP/1.1")),
    row("form feed in the line", "9112 3", "a separator to some", _line(b"GET /open/x\x0cHTTP/1.1")),
    row("space before the method", "9112 3", "a token", _line(b" GET /open/x HTTP/1.1")),
    row("space after the version", "9112 3", "CRLF", _line(b"GET /open/x HTTP/1.1 ")),
    row("space in the target", "9112 3.2", "which is the version?", _line(b"GET /open/x /guarded/x HTTP/1.1")),
    row("bare lf after the line", "9112 2.2", "CRLF", b"GET /open/x HTTP/1.1\nHost: a\r\n\r\n"),
    row("bare cr after the line", "9112 2.2", "CRLF", b"GET /open/x HTTP/1.1\rHost: a\r\n\r\n"),
    row("bare cr in the target", "9112 2.2", "CRLF", _line(b"GET /open/x\rX HTTP/1.1")),
    row("bare lf in the target", "9112 2.2", "CRLF", _line(b"GET /open/x\nX HTTP/1.1")),
    row("cr cr lf after the line", "9112 2.2", "CRLF", _line(b"GET /open/x HTTP/1.1\r")),
    row("nul in the target", "9112 3.2", "C strings end there", _line(b"GET /open/x\x00/../guarded HTTP/1.1")),
    row("high byte in the target", "9112 3.2", "URIs are ASCII", _line(b"GET /open/\xff HTTP/1.1")),
    row("delete in the target", "9112 3.2", "a control character", _line(b"GET /open/\x7f HTTP/1.1")),
    row("lower-case method", "9110 9.1", "methods are case-sensitive", _line(b"get /open/x HTTP/1.1")),
    row("mixed-case method", "9110 9.1", "methods are case-sensitive", _line(b"Get /open/x HTTP/1.1")),
    row("unknown method", "9110 9.1", "not known", _line(b"FOO /open/x HTTP/1.1")),
    row("empty method", "9112 3", "a token", _line(b" /open/x HTTP/1.1")),
    row("method with a control character", "9110 9.1", "a token", _line(b"GE\x01T /open/x HTTP/1.1")),
    row("method that a route does not take", "9110 15.5.6", "the route's rule", post(b"Content-Length: 0", target=b"/reading/x"), Refused(405, "method_not_allowed", method=b"POST")),
    row("no version", "9112 2.3", "HTTP/0.9", b"GET /open/x\r\n\r\n"),
    row("version 0.9", "9112 2.3", "not ours", _line(b"GET /open/x HTTP/0.9")),
    row("version 1.2", "9112 2.3", "not ours", _line(b"GET /open/x HTTP/1.2")),
    row("version 2.0", "9113 3.4", "not ours", _line(b"GET /open/x HTTP/2.0")),
    row("version 1.10", "9112 2.3", "one digit", _line(b"GET /open/x HTTP/1.10")),
    row("version 01.1", "9112 2.3", "one digit", _line(b"GET /open/x HTTP/01.1")),
    row("version 1,1", "9112 2.3", "a dot", _line(b"GET /open/x HTTP/1,1")),
    row("version without a number", "9112 2.3", "DIGIT", _line(b"GET /open/x HTTP/x.y")),
    row("lower-case http", "9112 2.3", "case-sensitive", _line(b"GET /open/x http/1.1")),
    row("rtsp", "9112 2.3", "another protocol", _line(b"GET /open/x RTSP/1.0")),
    row("options of rtsp", "9112 2.3", "another protocol, with a method of both", _line(b"OPTIONS /open/x RTSP/1.0")),
    row("describe of rtsp", "9112 2.3", "another protocol", _line(b"DESCRIBE /open/x RTSP/1.0")),
    row("source of ice", "9112 2.3", "another protocol", _line(b"SOURCE /open/x ICE/1.0")),
    row("http 2 preface", "9113 3.4", "not ours", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    row("tls", "9112 2", "not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    row("empty line before the line", "9112 2.2", "SHOULD be ignored", b"\r\n" + get(), FINE),
    row("http 1.0 without a host", "9112 3.2", "the backend gets one", b"GET /open/x HTTP/1.0\r\n\r\n", FINE, ends=True),
    row("http 1.0 with a body to hide in", "9112 6.3", "content is no request", b"POST /open/x HTTP/1.0\r\nContent-Length: %b\r\n\r\n" % _H + HIDDEN, passed(HIDDEN), ends=True),
    row("http 1.0 without a length", "9112 6.3", "has no content; what follows is not read", b"POST /open/x HTTP/1.0\r\nHost: a\r\n\r\n" + HIDDEN, passed(), ends=True),
]  # fmt: skip

FIELDS = [
    row("space before a field's colon", "9112 5.1", "MUST be 400", get(b"/open/x", b"X-A : b")),
    row("tab before a field's colon", "9112 5.1", "MUST be 400", get(b"/open/x", b"X-A\t: b")),
    row("host with a space before its colon", "9112 5.1", "MUST be 400", get(host=b"Host : a")),
    row("folded line", "9112 5.2", "obs-fold", get(b"/open/x", b"X-A: b\r\n c")),
    row("folded line with a tab", "9112 5.2", "obs-fold", get(b"/open/x", b"X-A: b\r\n\tc")),
    row("folded identity", "9112 5.2", "obs-fold hides a name", get(b"/open/x", b"X-A: b\r\n X-Auth-Request-User: spoofed")),
    row("folded first line", "9112 2.2", "white space before the first field", get(host=b" Host: a")),
    row("empty folded line", "9112 5.2", "the end of the head to some", get(b"/open/x", b"X-A: b\r\n ")),
    row("bare lf after a field", "9112 2.2", "CRLF", get(b"/open/x", b"X-A: b\nX-Auth-Request-User: spoofed")),
    row("bare cr in a value", "9112 2.2", "CRLF", get(b"/open/x", b"X-A: b\rX-Auth-Request-User: spoofed")),
    row("bare cr in a name", "9110 5.1", "a token", get(b"/open/x", b"X-A\rB: c")),
    row("bare lf in a name", "9110 5.1", "a token", get(b"/open/x", b"X-A\nB: c")),
    row("bare lf ends the head", "9112 2.2", "CRLF", b"GET /open/x HTTP/1.1\r\nHost: a\r\n\n"),
    row("lf lf ends the head", "9112 2.2", "CRLF", b"GET /open/x HTTP/1.1\r\nHost: a\n\n"),
    row("cr lf cr ends the head", "9112 2.2", "CRLF", b"GET /open/x HTTP/1.1\r\nHost: a\r\n\rGET /guarded/x HTTP/1.1\r\n\r\n"),
    row("nul in a value", "9110 5.5", "C strings end there", get(b"/open/x", b"X-A: b\x00c")),
    row("nul in a name", "9110 5.1", "a token", get(b"/open/x", b"X\x00A: b")),
    row("control character in a value", "9110 5.5", "field-vchar", get(b"/open/x", b"X-A: b\x01c")),
    row("delete in a value", "9110 5.5", "field-vchar", get(b"/open/x", b"X-A: \x7f")),
    row("escape in a value", "9110 5.5", "field-vchar", get(b"/open/x", b"X-A: \x1b[0m")),
    row("control character in a name", "9110 5.1", "a token", get(b"/open/x", b"X\x01A: b")),
    row("high byte in a name", "9110 5.1", "a token", get(b"/open/x", b"X\xe9: b")),
    row("high byte in a value", "9110 5.5", "obs-text, passed as it came", get(b"/open/x", b"X-A: \xe9\xff"), Passed(b"/open/x", has=((b"x-a", b"\xe9\xff"),))),
    row("utf-8 in a value", "9110 5.5", "obs-text, passed as it came", get(b"/open/x", "X-A: \u560d\u560a".encode()), Passed(b"/open/x", has=((b"x-a", "\u560d\u560a".encode()),))),
    row("empty name", "9110 5.1", "1*tchar", get(b"/open/x", b": b")),
    row("no colon", "9112 5", "not a field line", get(b"/open/x", b"nonsense")),
    row("brackets in a name", "9110 5.1", "a token", get(b"/open/x", b"(X): b")),
    row("quotes in a name", "9110 5.1", "a token", get(b"/open/x", b'"X": b')),
    row("slash in a name", "9110 5.1", "a token", get(b"/open/x", b"X/Y: b")),
    row("pseudo field of http 2", "9113 8.3", "a colon begins no name", get(b"/open/x", b":authority: b")),
    row("second request line", "9112 5", "not a field line", get(b"/open/x", b"GET /guarded/x HTTP/1.1")),
    row("empty value", "9110 5.5", "is one", get(b"/open/x", b"X-A:"), Passed(b"/open/x", has=((b"x-a", b""),))),
    row("colon in a value", "9110 5.5", "is one", get(b"/open/x", b"X-A:: b"), Passed(b"/open/x", has=((b"x-a", b": b"),))),
    row("white space around a value", "9110 5.5", "OWS is no part of it", get(b"/open/x", b"X-A: \t b c \t "), Passed(b"/open/x", has=((b"x-a", b"b c"),))),
]  # fmt: skip

HOSTS = [
    row("no host", "9112 3.2", "MUST be 400", get(host=b"")),
    row("two hosts", "9112 3.2", "MUST be 400", get(b"/open/x", b"Host: b")),
    row("the same host twice", "9112 3.2", "MUST be 400", get(b"/open/x", b"Host: a")),
    row("two hosts in two spellings", "9112 3.2", "MUST be 400", get(b"/open/x", b"hOST: a")),
    row("empty host", "9112 3.2", "names nobody", b"GET /open/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get(host=b"Host:"), FINE, Refused()),
    row("list of hosts", "9112 3.2", "which one?", get(host=b"Host: a, b")),
    row("space in a host", "9110 7.2", "uri-host", get(host=b"Host: a b")),
    row("user in a host", "9110 7.2", "uri-host", get(host=b"Host: a@b")),
    row("path in a host", "9110 7.2", "uri-host", get(host=b"Host: a/b")),
    row("query in a host", "9110 7.2", "uri-host", get(host=b"Host: a?b")),
    row("fragment in a host", "9110 7.2", "uri-host", get(host=b"Host: a#b")),
    row("backslash in a host", "9110 7.2", "uri-host", get(host=b"Host: a\\b")),
    row("port of letters", "9110 7.2", "digits", get(host=b"Host: a:b")),
    row("two ports", "9110 7.2", "one", get(host=b"Host: a:1:2")),
    row("half a bracket", "9110 7.2", "IP-literal", get(host=b"Host: [::1")),
    row("something after the bracket", "9110 7.2", "IP-literal", get(host=b"Host: [::1]a")),
    row("high byte in a host", "9110 7.2", "uri-host", get(host=b"Host: \xe9")),
    row("host with an underscore", "9110 5.1", "Host_ is not Host", get(b"/open/x", b"Host_: b"), FINE),
    row("escape in a host", "3986 3.2.2", "%2e is a dot to a laxer reader, and so another host", get(host=b"Host: inner%2etest"), site="hosted"),
    row("another case of a host", "9110 4.2.3", "hosts are of any case", get(host=b"Host: INNER.Test"), UNAUTHORIZED, site="hosted"),
    row("dot after a host", "3986 3.2.2", "the same host", get(host=b"Host: inner.test."), UNAUTHORIZED, site="hosted"),
    row("port after a host", "9110 7.2", "the same host", get(host=b"Host: inner.test:8080"), UNAUTHORIZED, site="hosted"),
    row("empty port after a host", "3986 3.2.3", "the same host", get(host=b"Host: inner.test:"), UNAUTHORIZED, site="hosted"),
    row("absolute form of a host", "9112 3.2.2", "the same host", get(b"http://inner.test/open/x", host=b"Host: inner.test"), UNAUTHORIZED, site="hosted"),
    row("absolute form of one host, host of another", "9112 3.2.2", "whose rule?", get(b"http://other.test/open/x", host=b"Host: inner.test"), site="hosted"),
    row("x-forwarded-host of another route", "7239 4", "untrusted", get(b"/open/x", b"X-Forwarded-Host: other.test", host=b"Host: inner.test"), UNAUTHORIZED, site="hosted"),
]  # fmt: skip

_GUARDED = b"Authorization: Bearer TOKEN"
_WHO = (b"x-auth-request-user", b"u-alice")
_SAFE = Passed(b"/guarded/x", has=(_WHO,))


def _guarded(*headers: bytes) -> bytes:
    return get(b"/guarded/x", _GUARDED, *headers)


CONNECTIONS = [
    row("connection: identity", "9110 7.6.1", "takes away what the gateway set (CVE-2024-45410)", _guarded(b"Connection: X-Auth-Request-User"), _SAFE),
    row("connection: close, identity", "9110 7.6.1", "the same in a list", _guarded(b"Connection: close, X-Auth-Request-User"), _SAFE, ends=True),
    row("connection: host", "9110 7.6.1", "MUST NOT name such", _guarded(b"Connection: Host"), Passed(b"/guarded/x", has=(_WHO, (b"host", b"a")))),
    row("connection: authorization", "9110 7.6.1", "the backend checks it", _guarded(b"Connection: Authorization"), Passed(b"/guarded/x", has=(_WHO, (b"authorization", b"Bearer TOKEN")))),
    row("connection: cookie", "9110 7.6.1", "the backend checks it", _guarded(b"Connection: cookie", b"Cookie: a=b"), Passed(b"/guarded/x", has=(_WHO, (b"cookie", b"a=b")))),
    row("connection: content-length", "9110 7.6.1", "frames the message", post(b"Connection: Content-Length\r\nContent-Length: " + _H, HIDDEN), passed(HIDDEN)),
    row("connection: transfer-encoding", "9110 7.6.1", "frames the message", post(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"), passed(b"abc")),
    row("connection: x-forwarded-for", "9110 7.6.1", "the gateway's own", _guarded(b"Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host"), _SAFE),
    row("connection: x-request-id", "9110 7.6.1", "the gateway's own", _guarded(b"Connection: X-Request-Id", b"X-Request-Id: abc"), _SAFE),
    row("connection: what it may", "9110 7.6.1", "is dropped", _guarded(b"Connection: X-Hop", b"X-Hop: spoofed", b"X-Stay: 1"), Passed(b"/guarded/x", has=(_WHO, (b"x-stay", b"1")))),
    row("connection twice", "9110 7.6.1", "both are read", _guarded(b"Connection: X-Hop", b"Connection: X-Hip", b"X-Hop: spoofed", b"x-hip: spoofed"), _SAFE),
    row("connection with nonsense", "9110 7.6.1", "tokens", _guarded(b"Connection: ,, ;=, X-Hop ,\t", b"X-Hop: spoofed"), _SAFE),
    row("proxy-connection", "9112 C.2.2", "never forwarded", _guarded(b"Proxy-Connection: keep-alive"), _SAFE),
    row("keep-alive", "9112 C.2.2", "never forwarded", _guarded(b"Keep-Alive: timeout=1000"), _SAFE),
    row("proxy-authorization", "9110 11.7.2", "for the next proxy alone", _guarded(b"Proxy-Authorization: Basic spoofed"), _SAFE),
]  # fmt: skip

_NAMES = {
    "as it is": b"X-Auth-Request-User",
    "in lower case": b"x-auth-request-user",
    "in upper case": b"X-AUTH-REQUEST-USER",
    "with underscores": b"X_Auth_Request_User",
    "with one underscore": b"X-Auth-Request_User",
    "in upper case with underscores": b"X_AUTH_REQUEST_USER",
    "with dots": b"X.Auth.Request.User",
    "another one": b"X-Auth-Request-Groups",
    "another one with underscores": b"x_auth_request_email",
}
SPOOFS = [
    *(row(f"identity {how}", "contract 6.6", "whatever a client sends is dropped", get(b"/open/x", name + b": spoofed"), FINE) for how, name in _NAMES.items()),
    *(row(f"identity {how} beside a token", "contract 6.6", "the gateway's own is the only one", _guarded(name + b": spoofed"), _SAFE) for how, name in _NAMES.items()),
    row("identity twice", "contract 6.6", "before and after the token", get(b"/guarded/x", b"X-Auth-Request-User: spoofed", _GUARDED, b"X-Auth-Request-User: spoofed"), _SAFE),
    row("two tokens", "6750 2", "MUST NOT use more than one", _guarded(b"Authorization: Bearer spoofed"), Refused(401, "invalid_token")),
    row("two tokens where none is asked", "6750 2", "MUST NOT use more than one", get(b"/open/x", b"Authorization: Bearer a", b"Authorization: Bearer spoofed"), Refused(401, "invalid_token")),
    row("x-forwarded-for", "7239 4", "untrusted", get(b"/open/x", b"X-Forwarded-For: spoofed", b"X_Forwarded_For: spoofed"), FINE),
    row("forwarded", "7239 4", "untrusted", get(b"/open/x", b"Forwarded: for=spoofed"), FINE),
    row("x-real-ip", "7239 8.2", "untrusted", get(b"/open/x", b"X-Real-IP: spoofed", b"True-Client-IP: spoofed"), FINE),
    row("x-forwarded-prefix", "7239 4", "untrusted", get(b"/open/x", b"X-Forwarded-Prefix: spoofed", b"X-Forwarded-User: spoofed"), FINE),
    row("x-original-url", "contract 6.8", "some backends take it for the path", get(b"/open/x", b"X-Original-URL: /guarded/spoofed"), FINE),
    row("x-rewrite-url", "contract 6.8", "some backends take it for the path (CVE-2018-14773)", get(b"/open/x", b"X-Rewrite-URL: /guarded/spoofed"), FINE),
    row("proxy", "3875 4.1.18", "is HTTP_PROXY to a CGI backend (CVE-2016-5385)", get(b"/open/x", b"Proxy: http://spoofed/"), FINE),
    row("x-gateway-error", "contract 5", "the gateway's own", get(b"/open/x", b"X-Gateway-Error: spoofed"), FINE),
    row("access cookie", "contract 6.6", "never reaches the backend", get(b"/open/x", b"Cookie: a=b; __Host-access=spoofed; __Secure-refresh=spoofed; c=d"), Passed(b"/open/x", has=((b"cookie", b"a=b; c=d"),))),
    row("bad request id", "contract 6.8", "a new one is made", get(b"/open/x", b"X-Request-Id: spoofed spoofed"), FINE),
    row("two request ids", "9110 5.3", "one reaches the backend", get(b"/open/x", b"X-Request-Id: a", b"X_Request_Id: spoofed", b"X-Request-Id: b"), FINE),
]  # fmt: skip

LIMITS = [
    row("long request line", "9112 3", "longer than the largest head", get(b"/open/" + b"x" * 40_000), TOO_LARGE),
    row("long value", "6585 5", "longer than the largest head", get(b"/open/x", b"X-A: " + b"a" * 40_000), TOO_LARGE),
    row("long name", "6585 5", "longer than the largest head", get(b"/open/x", b"a" * 40_000 + b": b"), TOO_LARGE),
    row("long white space", "6585 5", "longer than the largest head", get(b"/open/x", b"X-A:" + b" " * 40_000 + b"b"), TOO_LARGE),
    row("long white space after a value", "6585 5", "longer than the largest head", get(b"/open/x", b"X-A: b" + b" " * 40_000), TOO_LARGE),
    row("many fields", "6585 5", "more than 128", get(b"/open/x", *[b"X-A: b"] * 200), TOO_LARGE),
    row("a few bytes too many", "6585 5", "the whole head counts, its line and its ends too", get(b"/open/x", b"X-A: " + b"a" * (32_768 - 30)), TOO_LARGE),
    row("just small enough", "6585 5", "below the limit", get(b"/open/x", b"X-A: " + b"a" * 32_000), FINE),
    row("head without an end", "6585 5", "longer than the largest head", b"GET /open/x HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 70_000, Refused(0)),
    row("line without an end", "9112 3", "longer than the largest head", b"GET /open/" + b"x" * 70_000, Refused(0)),
]  # fmt: skip

_UP = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
UPGRADES = [
    row("h2c", "9113 3.1", "HTTP/2 over a tunnel would pass the gate by", post(_UP, method=b"GET"), passed(b"", b"/open/x", b"GET", b"upgrade", b"connection", b"http2-settings")),
    row("h2c and a hidden request", "9110 7.8", "an upgrade not taken is a plain request", post(_UP, HIDDEN, method=b"GET"), FINE, UNAUTHORIZED),
    row("h2c with a body to hide in", "9110 7.8", "content is no request", post(_UP + b"\r\nContent-Length: " + _H, HIDDEN), passed(HIDDEN)),
    row("h2c with chunks", "9110 7.8", "no reader agrees where they end", post(_UP + b"\r\nTransfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n")),
    row("h2c of a guarded route", "9113 3.1", "checked as any request", post(_UP, target=b"/guarded/x", method=b"GET"), UNAUTHORIZED),
    row("upgrade without connection", "9110 7.8", "means nothing", get(b"/open/x", b"Upgrade: h2c") + HIDDEN, FINE, UNAUTHORIZED),
    row("upgrade in http 1.0", "9110 7.8", "MUST be ignored", b"GET /open/x HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + HIDDEN, FINE, ends=True),
    row("upgrade to nothing known", "9110 7.8", "an upgrade not taken is a plain request", get(b"/open/x", b"Connection: upgrade", b"Upgrade: x\x21, h2c") + HIDDEN, FINE, UNAUTHORIZED),
    row("websocket of a guarded route", "6455 4.1", "checked as any request", get(b"/guarded/x", b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), UNAUTHORIZED),
    row("connect", "9112 3.2.3", "no tunnel", b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + HIDDEN),
    row("connect with a path", "9112 3.2.3", "authority form alone", b"CONNECT /open/x HTTP/1.1\r\nHost: a\r\n\r\n"),
    row("trace", "9110 9.3.8", "one plain request, whatever the backend does with it", post(b"X-A: b", method=b"TRACE"), passed(b"", method=b"TRACE")),
]  # fmt: skip

HEADS = [*REQUEST_LINES, *FIELDS, *HOSTS, *CONNECTIONS, *SPOOFS, *LIMITS, *UPGRADES]
