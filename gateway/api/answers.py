"""The one way in which a request reaches a handler and an outcome becomes an answer.

A handler takes (site, request) and returns a response or raises a GatewayError; `Endpoint` is the ASGI
application around it. Nothing the API answers may be stored by a cache (RFC 6749 5.1, RFC 9111 5.2.2.5).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway.errors import BadRequest, GatewayError, Headers, InvalidRequest, MethodNotAllowed, NoRoute, answer
from gateway.telemetry import Telemetry

ROUTE = "auth"  # the name under which the control plane's rejections are counted
JSON = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]

MAX_COMPLAINTS = 128

_LOG = logging.getLogger("gateway.api")


class Site(Protocol):
    """What every endpoint needs of the application that it belongs to."""

    @property
    def realm(self) -> str: ...
    @property
    def telemetry(self) -> Telemetry: ...


Handler = Callable[[Any, Request], Awaitable[Response]]
Table = Mapping[str, Mapping[str | None, Handler]]


class Endpoint:
    """The handlers of one path by method, None for every method, as an ASGI application."""

    __slots__ = ("_handlers", "_site")

    def __init__(self, site: Any, handlers: Mapping[str | None, Handler]) -> None:
        self._site = site
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        handler = self._handlers.get(request.method) or self._handlers.get(None) or self._handlers["GET"]  # HEAD
        try:
            response = await handler(self._site, request)
        except ClientDisconnect:
            return
        except GatewayError as error:
            response = failure(self._site, error)
        await response(scope, receive, send)


def application(site: Site, table: Table) -> Starlette:
    """Return the application that serves `table` (path -> method -> handler)."""
    routes: list[BaseRoute] = [
        Route(path, Endpoint(site, handlers), methods=None if None in handlers else [m for m in handlers if m])
        for path, handlers in table.items()
    ]
    refused = Refused(site)
    app = Starlette(routes=routes, exception_handlers={HTTPException: refused.by_router, Exception: refused.by_defect})
    app.router.redirect_slashes = False  # one address a thing; a redirect would also lose a body
    return app


class Complaints:
    """What is worth a line in the log: each reason once a minute, since an outage refuses every request."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def is_news(self, error: GatewayError) -> bool:
        now, reason = time.monotonic(), f"{error.code} {error.reason}"
        if now < self._told.get(reason, 0.0):
            return False
        if len(self._told) >= MAX_COMPLAINTS:
            self._told = {key: until for key, until in self._told.items() if now < until}
        if len(self._told) < MAX_COMPLAINTS:
            self._told[reason] = now + 60
            return True
        return False


_complaints = Complaints()


class Refused:
    """Answers for what no handler answered, in the shape of the contract."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def by_router(self, request: Request, error: Exception) -> Response:
        """No route, or not with this method (RFC 9110 15.5.6 wants `Allow`)."""
        if isinstance(error, HTTPException) and error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            return failure(self._site, MethodNotAllowed(", ".join(sorted(allow.split(", ")))))
        return failure(self._site, NoRoute())

    def by_defect(self, request: Request, error: Exception) -> Response:
        """A defect of ours. Starlette raises it again once this is sent, and the server logs it."""
        return failure(self._site, GatewayError())


def failure(site: Site, error: GatewayError, extra: Headers | None = None) -> Response:
    """Return the answer for an error, and count it."""
    site.telemetry.rejected(ROUTE, error.code)
    if (error.status >= 500 or isinstance(error, BadRequest)) and _complaints.is_news(error):
        _LOG.warning("a request was refused", extra={"error": error.code, "reason": error.reason})
    status, headers, body = answer(error, site.realm)
    return raw_answer(status, body, [*headers, *(extra or [])])


def json_answer(content: Any, status: int = 200, extra: Headers | None = None) -> Response:
    body = orjson.dumps(content)
    return raw_answer(status, body, [*JSON, (b"content-length", b"%d" % len(body)), *(extra or [])])


def text_answer(body: bytes, content_type: str) -> Response:
    headers = [(b"content-type", content_type.encode("ascii")), (b"content-length", b"%d" % len(body))]
    return raw_answer(200, body, [*headers, (b"cache-control", b"no-store")])


def empty(status: int = 204, extra: Headers | None = None) -> Response:
    """Return an answer without a body; a 204 has no Content-Length (RFC 9110 8.6)."""
    length: Headers = [] if status == 204 else [(b"content-length", b"0")]
    return raw_answer(status, b"", [(b"cache-control", b"no-store"), *length, *(extra or [])])


def header_values(request: Request, name: bytes) -> list[bytes]:
    """Return every value of a header, by its lower-case name."""
    return [value for key, value in request.scope["headers"] if key == name]


def only_header(request: Request, name: bytes) -> bytes | None:
    """Return a header that must not come twice. Raises InvalidRequest."""
    values = header_values(request, name)
    if len(values) > 1:
        raise InvalidRequest(f"the header {name.decode()} came more than once")
    return values[0] if values else None


def raw_answer(status: int, body: bytes, headers: Headers) -> Response:
    """Return an answer with just these headers, Content-Length included."""
    response = Response(status_code=status)
    response.body = body
    response.raw_headers = headers
    return response
