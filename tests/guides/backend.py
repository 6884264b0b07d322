"""A backend that answers with the headers that it got, in lower case, as JSON, and with a page's files.

with mirror(port) as files:
    files["/app/"] = "<p>a page</p>"
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.served import served

Files = dict[str, str]  # path -> text


class Mirror(BaseHTTPRequestHandler):
    """Answers for the server's `files`, and for anything else with what came."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        read = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        content = self.answer(read)
        if content is None:
            content = {"path": self.path, **{name.lower(): value for name, value in self.headers.items()}}
        kind = "application/json"
        if isinstance(content, str):
            kind = "text/javascript" if self.path.endswith(".js") else "text/html"
        body = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_OPTIONS = do_GET  # noqa: N815  # the names are http.server's

    def answer(self, read: bytes) -> str | dict[str, Any] | None:
        """Return a file's text or what to say as JSON, None for what came."""
        files: Files = getattr(self.server, "files", {})
        return files.get(self.path)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[Mirror]) -> None:
        super().__init__(address, handler)
        self.files: Files = {}


@contextmanager
def mirror(port: int) -> Iterator[Files]:
    """Run the backend on a port of 127.0.0.1; what is put into the files is served."""
    with served(Server(("127.0.0.1", port), Mirror)) as server:
        yield server.files
