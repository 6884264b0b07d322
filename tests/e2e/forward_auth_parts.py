"""The routes asked about, a proxy with what stands around it, a backend that records, and all readings of a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tests.e2e.backends import Backend, Behaviour, Call, Connection
from tests.e2e.forward_auth_proxies import FrontProxy
from tests.e2e.harness import Gateway, route
from tests.e2e.wire import Answer, ask, request

UNUSED = "http://127.0.0.1:9"  # the gateway decides and does not pass anything on
ROUTES: list[dict[str, Any]] = [
    route("/public/", UNUSED, auth="none"),
    route("/guarded/", UNUSED),
    route("/admin/", UNUSED, roles_any=["admin"]),
    route("/writers/", UNUSED, scopes_all=["orders:write"]),
    route("/reading/", UNUSED, methods=["GET"]),
    route("/tenant/", UNUSED, auth="none"),
    {**route("/tenant/", UNUSED, roles_any=["root"]), "host": "tenant.test"},
]
TRUSTED = {"trusted_proxies": ["127.0.0.1/32"], "drain_timeout": "1s"}


class Recorder(Backend):
    """A server that notes each request and answers all of them in one way; it stands in for a gateway too."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = Call.reply
        self.calls: list[Call] = []
        super().__init__()

    def fresh(self, behaviour: Behaviour = Call.reply) -> Recorder:
        """Forget the requests so far; answer the next ones like this."""
        self.behaviour = behaviour
        self.calls = []
        return self

    def only(self) -> Call:
        """Return the one request that came. What a client has an answer to has been noted."""
        (call,) = self.calls
        return call

    def _answer(self, connection: Connection, call: Call) -> None:
        connection.served += 1
        self.calls.append(call)
        self.behaviour(call)


@contextmanager
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    try:
        yield made
    finally:
        made.close()


@dataclass(frozen=True, slots=True)
class Front:
    """A proxy, the gateway that it asks, and another one over the same Redis."""

    proxy: FrontProxy
    gateway: Gateway
    other: Gateway
    backend: Recorder

    def ask(self, data: bytes) -> Answer:
        """Send one request; `backend.calls` is then what reached the backend of it."""
        self.backend.fresh(self.backend.behaviour)
        return ask(self.proxy.port, data)

    def get(self, path: str, headers: dict[str, str] | None = None, token: str = "") -> Answer:
        return self.ask(request("GET", path, headers, token=token))


def identity(call: Call) -> dict[str, str]:
    """Return the identity headers that say something, by any name that a CGI variable cannot tell from theirs."""
    pairs = ((name.lower().replace("_", "-"), value) for name, value in call.headers)
    return {name: value for name, value in pairs if name.startswith("x-auth-request-") and value}


def _resolved(path: str) -> str:
    """Return a path without its dot segments (RFC 3986 5.2.4)."""
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    return "/" + "/".join(kept)


def _without_parameters(path: str) -> str:
    return "/".join(segment.partition(";")[0] for segment in path.split("/"))


_READERS: list[Callable[[str], str]] = [
    lambda path: unquote(path, "latin-1"),
    lambda path: path.replace("\\", "/"),
    lambda path: re.sub(r"/{2,}", "/", path),
    _without_parameters,
    _resolved,
]


def readings(path: str) -> set[str]:
    """Return what backends could make of a path that reaches them: each reader's habit, in any order, once each."""
    found: set[tuple[str, frozenset[int]]] = {(path, frozenset())}
    todo = list(found)
    while todo:
        text, done = todo.pop()
        for number, read in enumerate(_READERS):
            if number not in done and (step := (read(text), done | {number})) not in found:
                found.add(step)
                todo.append(step)
    return {text for text, _ in found}
