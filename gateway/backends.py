"""The backends that routes name, as groups of upstreams: made of settings, shared, kept over a reload.

Routes that say the same of the same origins share one group, so that they share its connections. A group
lives on through a reload that does not touch it, and with it what it knows of its backends.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path

from gateway.proxy.balancer import Bounds, UpstreamGroup
from gateway.proxy.headers import ResponseKinds
from gateway.proxy.plane import Meters
from gateway.proxy.resolver import Resolver
from gateway.settings.routes import Route


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is at the moment: one that is replaced under its name is another one."""

    path: Path
    version: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path | None) -> File | None:
        """Raises OSError."""
        if path is None:
            return None
        status = path.stat()
        return cls(path, (status.st_ino, status.st_size, status.st_mtime_ns))


Files = tuple[File | None, File | None, File | None]


@dataclass(frozen=True, slots=True)
class Spec:
    """What makes two routes' backends the same. `files` are (ca, cert, key), None for plain HTTP."""

    origins: tuple[tuple[str, int], ...]
    bounds: Bounds
    files: Files | None

    @classmethod
    def of(cls, route: Route) -> Spec:
        """Raises OSError for a file that is not there."""
        secure = route.upstream[0].scheme == "https"
        files = (File.of(route.upstream_ca), File.of(route.upstream_cert), File.of(route.upstream_key))
        return cls(
            tuple((origin.host, origin.port) for origin in route.upstream),
            Bounds(
                connect_timeout=route.connect_timeout,
                wait_timeout=route.response_timeout,
                max_connections=route.max_connections,
                max_waiting=route.max_waiting,
            ),
            files if secure else None,
        )


class Backends:
    """The groups of a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, meters: Meters, resolver: Resolver | None = None) -> None:
        self.resolver = resolver if resolver is not None else Resolver(loop)
        self._meters = meters
        self._kinds = ResponseKinds()
        self._groups: dict[Spec, UpstreamGroup] = {}
        self._contexts: dict[Files, ssl.SSLContext] = {}
        self._named: set[Spec] = set()  # asked for, and of these made, since the last settle
        self._made: set[Spec] = set()

    def __repr__(self) -> str:
        return f"<Backends {list(self._groups.values())}>"

    def group(self, route: Route) -> UpstreamGroup:
        """Return the backends of a route. Raises ValueError or OSError that names a file that is no use."""
        spec = Spec.of(route)
        self._named.add(spec)
        found = self._groups.get(spec)
        if found is None:
            context = None if spec.files is None else self._context(spec.files)
            self._made.add(spec)
            found = self._groups[spec] = UpstreamGroup(
                spec.origins, self.resolver, spec.bounds, context=context, kinds=self._kinds, meters=self._meters
            )
        return found

    def settle(self, *, taken: bool) -> None:
        """Keep the groups asked for since the last time, or, where they are not taken, those from before.

        The others are closed; what they serve still comes to its end.
        """
        gone = self._groups.keys() - self._named if taken else self._made & self._groups.keys()
        for spec in gone:
            self._groups.pop(spec).close()
        used = {spec.files for spec in self._groups}
        self._contexts = {files: context for files, context in self._contexts.items() if files in used}
        self._named, self._made = set(), set()

    def close(self) -> None:
        for group in self._groups.values():
            group.close()
        self._groups.clear()
        self.resolver.close()

    def _context(self, files: Files) -> ssl.SSLContext:
        context = self._contexts.get(files)
        if context is None:
            context = self._contexts[files] = client_context(*(file.path if file else None for file in files))
        return context


def client_context(ca: Path | None = None, cert: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Return how backends are spoken to over TLS: certificate and name checked, HTTP/1.1 alone (RFC 7301).

    Raises ValueError that names the file that is no use.
    """
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ValueError) as error:
        raise ValueError(f'upstream_ca: "{ca}" is no use: {error}') from None
    context.set_alpn_protocols(["http/1.1"])
    if cert is not None and key is not None:
        try:
            context.load_cert_chain(str(cert), str(key), password="")  # the terminal is never asked
        except (OSError, ValueError) as error:
            raise ValueError(f'upstream_cert: "{cert}" and "{key}" are no use: {error}') from None
    return context
