"""The rooms behind the data plane as a recorded request passes them; used in their place where tracing is on.

Each step becomes a child of the span that its task works for (telemetry.spans.CURRENT); what works for none, such
as a request that is not recorded, costs a look at that variable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from typing import Final, Protocol

from gateway.gate import Gate
from gateway.sessions.liveness import Verdict
from gateway.telemetry.spans import CURRENT, Span, Value
from gateway.tokens.claims import Claims

# OpenTelemetry, "Semantic conventions for Redis client calls": a script's name is a stored procedure's.
LIVE_CHECK: Final[dict[str, Value]] = {"db.system.name": "redis", "db.operation.name": "MGET"}
SCRIPT: Final = "EVALSHA"
_COMMANDS: Final = {"ping": "PING", "wait": "WAIT"}


class Store(Protocol):
    """Who counts the operations of the store (telemetry.Telemetry)."""

    def store(self, operation: str, seconds: float, trace_id: str = "") -> None: ...


class TracedGate(Gate):
    """A gate whose live checks for the control plane are steps; those of the data plane are observed.py's."""

    __slots__ = ()

    async def check(self, claims: Claims) -> int:
        span = CURRENT.get()
        if span is None:
            return await super().check(claims)
        asked = perf_counter()
        verdict = await super().check(claims)
        live_check(span, asked, verdict)
        return verdict


def live_check(parent: Span, asked: float, verdict: int) -> None:
    """Record a live check that has just been answered."""
    span = parent.child("live check", "client", asked)
    span.attributes.update(LIVE_CHECK)
    span.finish("store_unavailable" if verdict == Verdict.UNAVAILABLE else "")


def store_observer(telemetry: Store) -> Callable[[str, float], None]:
    """Return what the store tells of each operation, as soon as it has ended."""

    def observe(operation: str, seconds: float) -> None:
        parent = CURRENT.get()
        if parent is None:
            telemetry.store(operation, seconds)
            return
        telemetry.store(operation, seconds, parent.trace_id.decode())
        command = _COMMANDS.get(operation, SCRIPT)
        name = command if command != SCRIPT else f"{SCRIPT} {operation}"
        end = perf_counter()
        span = parent.child(name, "client", end - seconds)
        span.attributes.update({"db.system.name": "redis", "db.operation.name": command})
        if command == SCRIPT:
            span.attributes["db.stored_procedure.name"] = operation
        failure = sys.exception()  # the one under way, if any: the store tells on its way out
        span.finish(str(getattr(failure, "code", type(failure).__name__)) if failure is not None else "", end)

    return observe
