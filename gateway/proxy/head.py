"""A request head, read and routed. Nothing is decided here yet."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gateway import errors
from gateway.proxy.forwarded import Source
from gateway.proxy.headers import (
    AUTHORIZATION,
    CODING,
    CONNECTION,
    COOKIE,
    DROP,
    EXPECT,
    FORWARDED,
    FORWARDED_FOR,
    FORWARDED_PROTO,
    HOST,
    LENGTH,
    METHOD,
    REQUEST_ID,
    TE,
    TRACEPARENT,
    TRACESTATE,
    UPGRADE,
    RequestKinds,
    nominated,
    strip_cookies,
    valid_traceparent,
    wants_trailers,
)
from gateway.proxy.plane import Plane
from gateway.proxy.routes import Route, check_method

if TYPE_CHECKING:
    from gateway.proxy.cors import Grant

LARGEST = 2**63 - 1
KNOWN_HOSTS = 1024  # Host values remembered as well-formed
LONGEST_SECTION = 4096  # bytes of a header section that a connection remembers
RawHeaders = list[tuple[bytes, bytes]]
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?\Z")
_REQUEST_LINE = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS) (/[!-~]*+) HTTP/1\.1\r\n")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)\Z", re.IGNORECASE)


class Fields:
    """The header section of a request (RFC 9110 6.3), sorted. It knows neither method nor target.

    `length` is the Content-Length, -1 where there is none. `lines` is what the backend gets of the client's
    headers, four pieces a header. A client repeats its header section on a connection, so one that it has
    sent before is taken again as it is, with the `tail` that was made of it for one route and one token.
    """

    # Not slots: class attributes as defaults make a section cost what it has, not what it could have.
    length = -1
    chunked = expecting = trailers = False
    host = hop = request_id = upgrade = b""
    hosts = 0
    cookies: tuple[bytes, ...] = ()
    authorizations: tuple[bytes, ...] = ()
    traceparents: tuple[bytes, ...] = ()
    tracestates: tuple[bytes, ...] = ()
    forwarded: tuple[bytes, ...] = ()
    forwarded_for: tuple[bytes, ...] = ()
    forwarded_proto: tuple[bytes, ...] = ()
    source: Source | None = None  # what these three say, once a trusted peer is asked for it
    overrides: tuple[bytes, ...] = ()
    tail = b""
    tail_of: tuple[object, object] = (None, None)
    kinds: RequestKinds | None = None
    grant: Grant | None = None  # what the answer says to pages of other origins (cross_origin.py)

    def __init__(self, headers: RawHeaders) -> None:
        self.headers = headers
        self.lines: list[bytes] = []

    def sort(self, kinds: RequestKinds, own_cookies: tuple[bytes, ...]) -> None:
        """Sort the client's headers into what the backend gets and what the gateway acts on. Raises BadRequest."""
        lines = self.lines
        self.kinds = kinds
        for name, value in self.headers:
            kind = kinds[name]
            if not kind:
                lines += (name, b": ", value, b"\r\n")
            elif kind == HOST:
                self.hosts += 1
                self.host = value
                lines += (name, b": ", value, b"\r\n")
            elif kind == AUTHORIZATION:
                self.authorizations += (value,)
            elif kind != DROP:
                self._act_on(kind, name, value, own_cookies)

    def _act_on(self, kind: int, name: bytes, value: bytes, own_cookies: tuple[bytes, ...]) -> None:
        if kind == LENGTH:
            self.length = int(value)
            if self.length > LARGEST:  # negative to a reader that counts in 64 bits with a sign
                raise errors.BadRequest("content-length")
            self.lines += (name, b": ", b"%d" % self.length, b"\r\n")  # without zeros in front: octal to some
        elif kind == COOKIE:
            self.cookies += (value,)
            rest = strip_cookies(value, own_cookies)
            if rest:
                self.lines += (name, b": ", rest, b"\r\n")
        elif kind == UPGRADE:
            self.upgrade = self.upgrade + b"," + value if self.upgrade else value
        elif kind == CONNECTION:
            if value.lower() not in (b"keep-alive", b"close"):
                self.hop += b"," + value
        elif kind == CODING:
            if value.lower() != b"chunked":  # RFC 9112 6.1: what we cannot decode, nobody behind us may
                raise errors.BadRequest("transfer coding")
            self.chunked = True
            self.lines += (b"Transfer-Encoding", b": ", b"chunked", b"\r\n")
        elif kind == EXPECT:
            self.expecting = True
            self.lines += (name, b": ", value, b"\r\n")
        elif kind == METHOD:
            self.overrides += (value,)
            self.lines += (name, b": ", value, b"\r\n")
        else:
            self._note(kind, value)

    def _note(self, kind: int, value: bytes) -> None:
        """Take note of what the gateway itself says to the backend instead."""
        if kind == REQUEST_ID:
            self.request_id = value
        elif kind == TE:
            self.trailers = self.trailers or wants_trailers(value)
        elif kind == TRACEPARENT:
            self.traceparents += (value,)
        elif kind == TRACESTATE:
            self.tracestates += (value,)
        elif kind == FORWARDED_FOR:
            self.forwarded_for += (value,)
        elif kind == FORWARDED_PROTO:
            self.forwarded_proto += (value,)
        elif kind == FORWARDED:
            self.forwarded += (value,)

    def parent(self) -> bytes:
        """Return the client's `traceparent`, b"" where it has none or one that is not valid.

        Several are none (W3C Trace Context 3.2). What `Connection` names goes no further (RFC 9110 7.6.1).
        """
        given = self.traceparents
        if len(given) != 1 or not valid_traceparent(given[0]):
            return b""
        return b"" if self.hop and b"traceparent" in nominated(self.hop) else given[0]

    def trace(self, ours: bytes = b"") -> bytes:
        """Return the client's trace as the end of a head, b"" where it has none; `ours` is the parent in its place.

        `tracestate` is nothing without a parent (W3C Trace Context 3.3).
        """
        parent = self.parent()
        if not parent:
            return b""
        hop = nominated(self.hop) if self.hop else ()
        states = b"".join(b"tracestate: %b\r\n" % state for state in self.tracestates if b"tracestate" not in hop)
        return b"\r\ntraceparent: %b\r\n%b\r\n" % (ours or parent, states)

    @property
    def bodyless(self) -> bool:
        """True where no body follows, whatever the client is told."""
        return self.length <= 0 and not self.chunked and not self.expecting

    @property
    def repeatable(self) -> bool:
        """True where the same bytes mean the same again: nothing in them is about one message."""
        return self.bodyless and not (self.hop or self.request_id or self.traceparents)


class Head:
    """A request head. `target` is as it came, `path` is normal, `query` keeps its `?`."""

    __slots__ = ("fields", "http11", "keep_alive", "method", "path", "query", "route", "target")

    path: bytes
    query: bytes
    route: Route

    def __init__(self, method: bytes, target: bytes, fields: Fields, *, http11: bool, keep_alive: bool) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.http11 = http11
        self.keep_alive = keep_alive


def from_parser(parser: Any, target: bytes, headers: RawHeaders, plane: Plane) -> Head:
    """Return the head of the request that llhttp has just read. Raises BadRequest."""
    method, version = parser.get_method(), parser.get_http_version()
    if method == b"CONNECT" or version not in ("1.1", "1.0"):
        raise errors.BadRequest("method or version")
    fields = Fields(headers)
    fields.sort(plane.kinds, plane.own_cookies)
    if fields.chunked and (version == "1.0" or parser.should_upgrade()):
        raise errors.BadRequest("chunked before HTTP/1.1, or with an upgrade")
    if fields.hosts != 1 or fields.host not in plane.hosts:
        _check_host(fields, version == "1.1", plane.hosts)
    return Head(method, target, fields, http11=version == "1.1", keep_alive=parser.should_keep_alive())


def repeated(data: bytes, section: bytes, fields: Fields) -> Head | None:
    """Return the head that `data` is, where all but its first line is a header section seen before.

    `section` includes the empty line. llhttp has read it strictly once; the first line is read here, by a
    grammar that llhttp accepts with the same meaning. None where that or the rest differs.
    """
    if not data.endswith(section):
        return None
    line = _REQUEST_LINE.fullmatch(data, 0, len(data) - len(section))
    return None if line is None else Head(line[1], line[2], fields, http11=True, keep_alive=True)


def section_of(data: bytes, head: Head) -> bytes:
    """Return the header section of a head that is all of `data`, b"" where it is not to be taken again."""
    line = _REQUEST_LINE.match(data)
    if line is None or not (head.http11 and head.keep_alive and head.fields.repeatable):
        return b""
    section = data[line.end() :]
    return section if len(section) <= LONGEST_SECTION and section.find(b"\r\n\r\n") == len(section) - 4 else b""


def route(head: Head, plane: Plane) -> None:
    """Find out who gets a request. Raises BadRequest, NoRoute or MethodNotAllowed."""
    target, host = head.target, head.fields.host
    if target[:1] != b"/":
        target = _origin_form(host, target)
    head.route, head.path, head.query = plane.table.look_up(host, target)
    if head.route.methods:
        check_method(head.route, head.method)
        for override in head.fields.overrides:  # what a backend may take for the method
            check_method(head.route, override.upper())
    if head.route.strip_prefix and head.route.target(head.path).startswith(b"//"):
        raise errors.BadRequest("a host in place of a path")  # RFC 3986 4.2


def _check_host(fields: Fields, http11: bool, known: set[bytes]) -> None:
    """Raise BadRequest unless there is one Host and it is one (RFC 9112 3.2; HTTP/1.0 may have none)."""
    hosts, host = fields.hosts, fields.host
    if hosts > 1 or (hosts == 0 and http11) or (hosts and not _HOST.match(host)):
        raise errors.BadRequest("host")
    if hosts and len(host) <= 255:
        if len(known) >= KNOWN_HOSTS:
            known.clear()
        known.add(host)


def _origin_form(host: bytes, target: bytes) -> bytes:
    """Return the origin form of an absolute one, whose authority must be the Host (RFC 9112 3.2.2)."""
    match = _ABSOLUTE.match(target)
    if match is None or match[1].lower() != host.lower():
        raise errors.BadRequest("target")
    rest = match[2]
    return rest if rest[:1] == b"/" else b"/" + rest
