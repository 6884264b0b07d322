"""An application behind the gateway that is nothing but the JavaScript client: its page, its modules, what it calls.

/app/             a page without content; `window.tokengate` is the client's module
/app/client/      clients/javascript/src
/api/...          who is calling, as JSON
/api/live         a WebSocket that says who is connected and repeats what it is told
/api/closing      a WebSocket that is closed with 4401 as soon as it is open
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import uvicorn

from tests.e2e.harness import until
from tests.redis_server import free_port

CLIENT = Path(__file__).parents[2] / "clients" / "javascript" / "src"
_PAGE = b"""<!doctype html><html lang="en"><title>App</title><link rel="icon" href="data:,">
<script type="module">window.tokengate = await import("/app/client/index.js")</script></html>"""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request (ASGI 3)."""
    if scope["type"] == "websocket":
        await _connected(scope, receive, send)
    elif scope["path"].startswith("/app/client/"):
        file = CLIENT / Path(scope["path"]).name
        await _answer(send, file.read_bytes(), b"text/javascript")
    elif scope["path"].startswith("/app/"):
        await _answer(send, _PAGE, b"text/html; charset=utf-8")
    else:
        await _answer(send, orjson.dumps({"user": _user(scope), "path": scope["path"]}), b"application/json")


async def _answer(send: Any, body: bytes, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


async def _connected(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    if scope["path"].endswith("/closing"):
        await send({"type": "websocket.close", "code": 4401})
        return
    await send({"type": "websocket.send", "text": f"hello {_user(scope)}"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


def _user(scope: Any) -> str:
    found: bytes = dict(scope["headers"]).get(b"x-auth-request-user", b"")
    return found.decode("latin-1")


@contextmanager
def client_page() -> Iterator[str]:
    """Serve the application in a thread until the with block ends; yield its address."""
    port = free_port()
    config = uvicorn.Config(
        application, "127.0.0.1", port, lifespan="off", log_level="error", ws="websockets-sansio", loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the application listens")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(15)
