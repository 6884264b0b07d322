"""A reverse proxy as one writes it with the libraries at hand: Starlette and httpx, streaming, no authentication."""

from __future__ import annotations

import os

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

TARGET = os.environ.get("BENCHMARK_TARGET", "http://127.0.0.1:8082")
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"})
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
client = httpx.AsyncClient(
    base_url=TARGET, limits=httpx.Limits(max_keepalive_connections=512), timeout=30, trust_env=False
)


async def proxy(request: Request) -> Response:
    """Pass a request on and its answer back."""
    content = request.stream() if request.method not in ("GET", "HEAD") else None
    kept = [(name, value) for name, value in request.headers.raw if name not in HOP_BY_HOP]
    outgoing = client.build_request(request.method, request.url.path, headers=kept, content=content)
    answer = await client.send(outgoing, stream=True)
    response = StreamingResponse(answer.aiter_raw(), answer.status_code, background=BackgroundTask(answer.aclose))
    response.raw_headers = [
        (name.lower(), value) for name, value in answer.headers.raw if name.lower() not in HOP_BY_HOP
    ]
    return response


app = Starlette(routes=[Route("/{path:path}", proxy, methods=METHODS)])
