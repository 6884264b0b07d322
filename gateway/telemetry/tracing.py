"""Spans on their way to a collector: OTLP over HTTP, in a thread of its own. The one file that imports OpenTelemetry.

Laws:
- Whoever ends a span never waits. At most `queue` spans are kept; one more is dropped and counted.
- A collector that is down, slow or stalled costs the spans and nothing else: each export has a time limit, no
  redirect is followed, and the thread ends with the process whatever it does at that moment.
- What is wrong is said when it begins and when it is over, not for each batch.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.telemetry.redaction import clean
from gateway.telemetry.spans import Span

BATCH: Final = 64  # spans: to encode more at a time would hold up the event loop, which shares the interpreter
EVERY: Final = 1.0  # seconds between two exports where no batch is full
REASON_LIMIT: Final = 512

_KINDS: Final = {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "internal": SpanKind.INTERNAL}
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_LOG = logging.getLogger("gateway.telemetry")


class Exporter:
    """Takes spans that have ended (`exporter(span)`) and sends them. `timeout` is in seconds, for one export."""

    def __init__(
        self,
        endpoint: str,
        service_name: str,
        *,
        version: str = "",
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        queue: int = 2048,
        tls_ca: str = "",
    ) -> None:
        self._limit = queue
        self._queue: deque[Span] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._failing = False
        self.exported = self.dropped = self.failed = 0
        self._resource = Resource.create(
            {"service.name": service_name, "service.version": version, "service.instance.id": secrets.token_hex(8)}
        )
        self._scope = InstrumentationScope("tokengate", version)
        self._session = _Session()
        _hush(True)
        self._sender = OTLPSpanExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/traces",
            headers=dict(headers or {}),
            timeout=timeout,
            certificate_file=tls_ca or None,
            session=self._session,
        )
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Exporter waiting={len(self._queue)} exported={self.exported} dropped={self.dropped}>"

    def __call__(self, span: Span) -> None:
        """Take a span that has ended."""
        if len(self._queue) >= self._limit or self._closing:
            self.dropped += 1
            return
        self._queue.append(span)
        if len(self._queue) == BATCH:
            self._wake.set()

    def counts(self) -> dict[str, int]:
        """Return what became of spans since the start."""
        return {"exported": self.exported, "dropped": self.dropped, "failed": self.failed}

    def close(self, seconds: float) -> None:
        """Send what waits, for so long at most, and take no more. It waits: to be called beside the loop."""
        self._closing = True
        self._wake.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            _LOG.warning("spans were left behind at the end", extra={"spans": len(self._queue)})
        self._sender.shutdown()  # type: ignore[no-untyped-call]
        _hush(False)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(EVERY)
            self._wake.clear()
            while self._queue:
                self._send([self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))])

    def _send(self, spans: Sequence[Span]) -> None:
        offset = time.time() - time.perf_counter()
        try:
            sent = self._sender.export([self._readable(span, offset) for span in spans]) is SpanExportResult.SUCCESS
        except Exception as error:  # the thread must outlive whatever a collector answers
            self._session.cause = type(error).__name__
            sent = False
        if sent:
            self.exported += len(spans)
        else:
            self.failed += len(spans)
        self._tell(not sent)

    def _tell(self, failing: bool) -> None:
        if failing and not self._failing:
            _LOG.warning("spans cannot be exported", extra={"reason": clean(self._session.cause, REASON_LIMIT)})
        elif self._failing and not failing:
            _LOG.info("spans are exported again", extra={"failed": self.failed, "dropped": self.dropped})
        self._failing = failing

    def _readable(self, span: Span, offset: float) -> ReadableSpan:
        parent = _context(span.trace_id, span.parent_id) if span.parent_id else None
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=parent,
            resource=self._resource,
            attributes={**span.attributes, **({"error.type": span.error} if span.error else {})},
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR) if _is_error(span) else Status(StatusCode.UNSET),
            start_time=int((span.start + offset) * 1e9),
            end_time=int((span.end + offset) * 1e9),
            instrumentation_scope=self._scope,
        )


def _is_error(span: Span) -> bool:
    """A server that refuses a request has not failed (OpenTelemetry, "Semantic conventions for HTTP spans")."""
    status = span.attributes.get("http.response.status_code")
    if span.kind == "server" and isinstance(status, int) and 400 <= status < 500:
        return False
    return span.error != ""


def _context(trace_id: bytes, span_id: bytes) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)


class _Session(requests.Session):
    """What the exporter asks through. `cause` is what last went wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False  # neither a proxy nor a .netrc of the machine
        self.cause = "not taken"

    def request(self, *arguments: Any, **more: Any) -> requests.Response:
        try:
            response = super().request(*arguments, **more)
        except Exception as error:
            self.cause = f"{type(error).__name__}: {error}"
            raise
        if response.status_code >= 300:
            self.cause = f"status {response.status_code} {response.reason}"
        if response.is_redirect:  # it is not followed, and would count as a success
            raise requests.TooManyRedirects(self.cause)
        return response


def _hush(quiet: bool) -> None:
    """Keep what OpenTelemetry says of every try and batch out of the log."""
    logger = logging.getLogger("opentelemetry")
    logger.handlers[:] = [logging.NullHandler()] if quiet else []
    logger.propagate = not quiet
