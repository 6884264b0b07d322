"""Paths and targets, beside naive readers of the same."""

from __future__ import annotations

import itertools
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway.errors import BadRequest
from gateway.proxy.routes import OPEN, Route, RouteTable
from tests.fuzz.target import target

PREFIXES = (b"/api", b"/api/admin", b"/guarded", b"/open", b"/.well-known", b"")
TABLE = RouteTable([Route(path.decode() or "root", path or b"/", OPEN) for path in PREFIXES])
_UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def naive_route(path: bytes) -> bytes:
    """Return the longest prefix by whole segments."""
    return max((prefix for prefix in PREFIXES if (path + b"/").startswith(prefix + b"/")), key=len)


def remove_dots(path: bytes) -> bytes:
    """Follow RFC 3986 5.2.4 to the letter, for an absolute path."""
    rest, done = path, b""
    while rest:
        if rest.startswith(b"/./") or rest == b"/.":
            rest = b"/" + rest[3:]
        elif rest.startswith(b"/../") or rest == b"/..":
            rest, done = b"/" + rest[4:], done[: max(0, done.rfind(b"/"))]
        else:
            end = rest.find(b"/", 1)
            end = len(rest) if end < 0 else end
            done, rest = done + rest[:end], rest[end:]
    return done


def naive_normal(path: bytes) -> bytes | None:
    """Return the normal form byte by byte, None where there is none."""
    made, at = b"", 0
    while at < len(path):
        byte = path[at]
        if byte == ord("%"):
            if not re.fullmatch(rb"[0-9A-Fa-f]{2}", path[at + 1 : at + 3]):
                return None
            byte = int(path[at + 1 : at + 3], 16)
            made += bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte
            at += 2
        else:
            made += path[at : at + 1]
        at += 1
    return remove_dots(made)


def readings(path: bytes) -> set[bytes]:
    """Return what backends may take a path for, each liberty taken or not: escapes, `\\`, `;`, `//`, dots."""
    found = set()
    for unescape, backslash, cut_before, cut_after, merge in itertools.product((False, True), repeat=5):
        read = _without_parameters(path) if cut_before else path
        read = unquote_to_bytes(read) if unescape else read
        read = read.replace(b"\\", b"/") if backslash else read
        read = _without_parameters(read) if cut_after else read
        read = re.sub(rb"/+", b"/", read) if merge else read
        found |= {read, remove_dots(read)}
    return found


def _without_parameters(path: bytes) -> bytes:
    return b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))


@target(
    lambda: [
        b"/api/admin/x",
        b"/open/../guarded/x",
        b"/open/%2e%2E/guarded",
        b"/open/..;/guarded",
        b"/open//x/",
        b"/a%41%2f%5c",
    ],
    "/ // . .. /../ /./ ; .. ..; %2e %2E %2f %2F %5c %3b %25 %00 % \\ ? # api admin guarded open",
)
def path(data: bytes) -> None:
    """The path that is matched is the path that is sent: normal, and of one route however it is read."""
    try:
        route, normal = TABLE.find(b"", data)
    except BadRequest:
        return
    assert not re.search(rb"[^!-~]|[?#]", normal)
    assert normal == naive_normal(data)
    assert TABLE.find(b"", normal) == (route, normal)
    assert route.path.rstrip(b"/") == naive_route(normal)
    assert {b".", b".."}.isdisjoint(normal.split(b"/"))
    assert {naive_route(read) for read in readings(normal)} == {naive_route(normal)}
    try:
        verbatim = TABLE.find_verbatim(b"", data)
    except BadRequest:
        return
    assert {naive_route(read) for read in readings(data)} == {verbatim.path.rstrip(b"/")}


@target(lambda: [b"/api/x?y=1", b"/open/x?", b"/open/x?a#b", b"/open/x#b", b"//guarded/x"], "? # / // %3f %23 ..")
def request_target(data: bytes) -> None:
    """A target is found alike whether it is remembered or not, and no byte of its query is lost."""
    table = RouteTable([Route("all", b"/", OPEN), Route("api", b"/api/", OPEN)])
    first, second = _looked_up(table, data), _looked_up(table, data)
    assert first == second
    if first is not None:
        assert first[1:] == (table.find(b"", data.partition(b"?")[0])[1], b"".join(data.partition(b"?")[1:]))
        assert b"#" not in data


def _looked_up(table: RouteTable, data: bytes) -> Any:
    try:
        return table.look_up(b"", data)
    except BadRequest:
        return None
