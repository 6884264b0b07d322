"""A backend that tells what reached it, as JSON, and counts it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.served import served


class EchoBackend(ThreadingHTTPServer):
    """Answers every request with {method, path, user, body}; `counts` holds "METHOD path" of what came."""

    daemon_threads = True
    request_queue_size = 256  # with 5, as it is by default, a hundred connections at once are not all accepted in time

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EchoBackend

    def do_GET(self) -> None:
        body = self._body()
        with self.server.lock:
            self.server.counts[f"{self.command} {self.path}"] += 1
        user = self.headers.get("X-Auth-Request-User", "")
        said = {"method": self.command, "path": self.path, "user": user, "body": body.decode("utf-8", "replace")}
        answer = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET  # noqa: N815  # the names are http.server's

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing: what came is in `counts`."""


@contextmanager
def echo_backend() -> Iterator[EchoBackend]:
    with served(EchoBackend()) as backend:
        yield backend
