"""An OpenTelemetry collector: OTLP over HTTP on a real socket, its protobuf read with the official messages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

TIMEOUT = 15.0  # seconds
KINDS = {
    trace_pb2.Span.SPAN_KIND_SERVER: "server",
    trace_pb2.Span.SPAN_KIND_CLIENT: "client",
    trace_pb2.Span.SPAN_KIND_INTERNAL: "internal",
}


@dataclass(frozen=True)
class Received:
    """A span as it arrived. Ids are lower-case hex, `parent` "" for none; times nanoseconds of Unix time."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]

    def get(self, name: str) -> Any:
        return self.attributes.get(name)


class Collector:
    """Remembers what it gets; header names are lower case. `status` is what it answers; stalled, it says nothing."""

    def __init__(self) -> None:
        self.status = 200
        self.location = ""
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.arrived = threading.Event()
        self._spans: list[Received] = []
        self._changed = threading.Condition()
        self._going = threading.Event()
        self._going.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.arrived.set()
                collector._going.wait(TIMEOUT)
                collector._take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(collector.status)
                if collector.location:
                    self.send_header("Location", collector.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stall(self) -> None:
        self._going.clear()

    def go_on(self) -> None:
        self._going.set()

    def spans(self, trace: str = "") -> list[Received]:
        with self._changed:
            return [span for span in self._spans if not trace or span.trace == trace]

    def wait(self, condition: Callable[[list[Received]], Any], what: str, trace: str = "") -> list[Received]:
        """Wait until the spans that are here, of one trace or all, satisfy a condition; return them."""
        with self._changed:
            met = self._changed.wait_for(lambda: condition(self._of(trace)), TIMEOUT)
            assert met, (what, self._of(trace))
            return self._of(trace)

    def tree(self, trace: str, number: int) -> dict[str, Received]:
        """Return the spans of a trace by their names, as soon as there are so many; no name may come twice."""
        spans = self.wait(lambda found: len(found) >= number, f"{number} spans of {trace}", trace)
        named = {span.name: span for span in spans}
        assert len(named) == len(spans), spans
        return named

    def close(self) -> None:
        self._going.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(TIMEOUT)

    def _of(self, trace: str) -> list[Received]:
        return [span for span in self._spans if not trace or span.trace == trace]

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._changed:
            self.headers.append(headers)
            self.bodies.append(body)
            if path == "/v1/traces" and self.status == 200:
                self._spans += _read(body)
            self._changed.notify_all()


def _read(body: bytes) -> Iterator[Received]:
    message = ExportTraceServiceRequest.FromString(body)
    for resource in message.resource_spans:
        about = {each.key: _value(each.value) for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Received(
                    name=span.name,
                    kind=KINDS[span.kind],
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    attributes={each.key: _value(each.value) for each in span.attributes},
                    resource=about,
                )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return None if kind is None else getattr(value, kind)


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    try:
        yield collector
    finally:
        collector.close()
