"""A backend that records every request, and every way in which a backend may read a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from tests.e2e.backends import Backend, Behaviour, Call, Connection

NORMAL_SEGMENTS = re.compile(r"/{2,}")


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
    lambda path: NORMAL_SEGMENTS.sub("/", path),
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
