"""The compiled route table: pure.

A route's path is a prefix by whole segments, a trailing slash ignored, as in Kubernetes' Ingress
(`/foo` meets `/foo`, `/foo/` and `/foo/bar`, not `/foobar`). The longest prefix wins; among equals a
route that names the request's host wins over one for every host. The gateway's own paths are routes
of the table too, so that one normal form and one look-up decide who gets a request.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.errors import BadRequest, MethodNotAllowed, NoRoute
from gateway.proxy import paths
from gateway.tokens.access import AccessRule

OPEN = AccessRule(auth="none", roles_any=frozenset(), scopes_all=frozenset(), live=False)


@dataclass(slots=True, eq=False)
class Route:
    """One route, ready to use. Times are seconds, sizes bytes.

    `upstream` is the pool that serves it, None for the control plane. `meter` counts its answers. `raw` is
    for forward-auth: what follows the route's path is the path of another request, and stays as it came.
    `ignores_case` is that of the table: what is stripped meets a path in any case.
    `refreshes` is on_expired = "refresh", `keeps_streams` on_stream_expiry = "keep".
    """

    name: str
    path: bytes
    rule: AccessRule
    upstream: Any = None
    meter: Any = None
    host: bytes = b""
    methods: frozenset[bytes] = frozenset()
    strip_prefix: bytes = b""
    forward_authorization: bool = True
    response_timeout: float = 30.0
    idle_timeout: float = 300.0
    raw: bool = False
    refreshes: bool = False
    keeps_streams: bool = False
    replay_buffer: int = 65536
    ignores_case: bool = False
    allow: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.allow = ", ".join(sorted(method.decode() for method in self.methods))

    def __repr__(self) -> str:
        return f"Route({self.name!r})"

    def target(self, path: bytes) -> bytes:
        """Return the path that the backend gets for a matched path."""
        strip = self.strip_prefix
        if not strip or not (path.startswith(strip) or self.ignores_case):
            return path
        if not path.startswith(strip) and path[: len(strip)].lower() != strip.lower():
            return path
        rest = path[len(strip) :]
        return rest if rest[:1] == b"/" else b"/" + rest


Found = tuple[Route, bytes, bytes]
_MEMORY = 4096  # targets remembered, of at most so many bytes each
_SHORT = 256


class RouteTable:
    """Finds the route of (host, path).

    With `ignore_case` paths meet routes whatever their case, for backends that read them so. They get them as sent.
    """

    __slots__ = ("_any", "_by_host", "_ignore_case", "_known", "_longest", "_raw")

    def __init__(self, routes: Iterable[Route], *, ignore_case: bool = False) -> None:
        self._ignore_case = ignore_case
        self._known: dict[bytes, Found] = {}
        self._any: dict[bytes, Route] = {}
        self._by_host: dict[bytes, dict[bytes, Route]] = {}
        self._longest = 0
        self._raw: list[tuple[bytes, Route]] = []
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        table = self._by_host.setdefault(route.host.lower(), {}) if route.host else self._any
        prefix = self._cased(route.path.rstrip(b"/"))
        if prefix in table:
            raise ValueError(f"two routes for {route.host.decode()}{route.path.decode()}")
        table[prefix] = route
        if route.raw:
            self._raw.append((prefix, route))
        self._longest = max(self._longest, len(prefix))

    def look_up(self, host: bytes, target: bytes) -> Found:
        """Return (route, normal path, query with its `?`) for a target in origin form (RFC 9112 3.2.1).

        Raises NoRoute or BadRequest. Where no route names a host, short targets are remembered.
        """
        found = self._known.get(target)
        return found if found is not None else self._look_up(host, target)

    def _look_up(self, host: bytes, target: bytes) -> Found:
        path, mark, query = target.partition(b"?")
        if b"#" in query:
            raise BadRequest("fragment")
        route, normal = self.find(host, path)
        found = route, normal, mark + query
        if not self._by_host and len(target) <= _SHORT:
            if len(self._known) >= _MEMORY:
                self._known.clear()
            self._known[target] = found
        return found

    def find(self, host: bytes, path: bytes) -> tuple[Route, bytes]:
        """Return the route and the normal path for a raw path (no query).

        Raises NoRoute, or BadRequest for a path that two readers could take for different routes.
        """
        for prefix, route in self._raw:
            if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in (b"", b"/"):
                return route, path
        if paths.is_plain(path):
            return self._match(host, path), path
        normal = paths.normalise(path)
        route = self._match(host, normal)
        self._check_readings(host, normal, route)
        return route, normal

    def find_verbatim(self, host: bytes, path: bytes) -> Route:
        """Return the route of a raw path that another proxy passes on as it came.

        Its backend may resolve dots after it has merged slashes or cut parameters, or not at all, so a path
        with dot segments is refused, and so is one whose bytes as they stand are another route's.
        """
        route, normal = self.find(host, path)
        if paths.has_dots(path):
            raise BadRequest("a path with two readings")
        if normal != path:
            self._check_readings(host, path, route)
        return route

    def _check_readings(self, host: bytes, path: bytes, route: Route) -> None:
        """Raise BadRequest (or NoRoute) where a backend could take a path for another route's."""
        found = paths.readings(path)
        if self._ignore_case:
            found |= {each for read in found for each in paths.folded(read)}
        if any(self._match(host, read) is not route for read in found):
            raise BadRequest("a path with two readings")

    def _cased(self, path: bytes) -> bytes:
        return path.lower() if self._ignore_case else path

    def _match(self, host: bytes, path: bytes) -> Route:
        prefix = path = path.lower() if self._ignore_case else path
        if len(prefix) > self._longest:  # cut first, so that a long path costs no more than the longest route
            end = self._longest
            prefix = path[:end] if path[end : end + 1] == b"/" else path[: max(0, path.rfind(b"/", 0, end + 1))]
        mine = self._by_host.get(hostname(host)) if self._by_host else None
        while True:
            if mine is not None and prefix in mine:
                return mine[prefix]
            if prefix in self._any:
                return self._any[prefix]
            if not prefix:
                raise NoRoute
            prefix = prefix[: prefix.rfind(b"/")]


def hostname(host: bytes) -> bytes:
    """Return the name in a `Host` value, lower case, without the port (RFC 9110 7.2)."""
    if host[:1] == b"[":
        return host.partition(b"]")[0].lower() + b"]"
    return host.partition(b":")[0].rstrip(b".").lower()


def check_method(route: Route, method: bytes) -> None:
    """Raise MethodNotAllowed where a route does not take this method."""
    if route.methods and method not in route.methods:
        raise MethodNotAllowed(route.allow)
