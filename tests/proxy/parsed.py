"""What llhttp reads of requests and answers, for tests to compare with."""

from __future__ import annotations

import httptools


class Seen:
    """What llhttp reads of a request."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_message_complete(self) -> None:
        self.complete += 1


class SeenAnswer(Seen):
    """What llhttp reads of a response."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.ended:
            self.headers.append((name, value.rstrip(b" \t")))  # llhttp leaves white space at the end

    def on_headers_complete(self) -> None:
        self.ended = True


class WholeAnswer(SeenAnswer):
    """What llhttp reads of a whole answer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""
        self.parser = httptools.HttpResponseParser(self)
        self.keeps = False

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self.keeps = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += body
