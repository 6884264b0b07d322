"""The sample backend: an ASGI application that knows nothing of tokens or sessions.

/            the page, an application like any other behind the gateway
/api/live    a WebSocket that ticks once a second, for whom the gateway says is connected
/api/        what reached the backend, as JSON; /public/ as well, on a route that asks for no token
"""

from __future__ import annotations

import asyncio
import contextlib
from importlib.util import find_spec
from typing import Any

import orjson

from gateway.demo.files import find

MAX_BODY = 65536
SECRET = frozenset({b"authorization", b"cookie"})
ECHOED = ("/api/", "/public/")
TICK = 1.0  # seconds
WEBSOCKETS = find_spec("websockets") is not None  # what uvicorn needs for them; the extra `demo` has it


async def backend(scope: Any, receive: Any, send: Any) -> None:
    """Answer one request (ASGI 3)."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "websocket":
        await _tick(scope, receive, send)
    elif scope["path"].startswith(ECHOED):
        await _echo(scope, await _read(receive), send)
    else:
        await _hand_out(scope["path"], send)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _tick(scope: Any, receive: Any, send: Any) -> None:
    """Say once a second who is connected, until the other side goes."""
    await receive()
    await send({"type": "websocket.accept"})
    user = dict(scope["headers"]).get(b"x-auth-request-user", b"").decode("latin-1")
    gone = asyncio.create_task(_gone(receive))
    number = 0
    try:
        with contextlib.suppress(OSError):  # it went in the middle of it
            while not gone.done():
                number += 1
                await send({"type": "websocket.send", "text": orjson.dumps({"tick": number, "user": user}).decode()})
                await asyncio.wait([gone], timeout=TICK)
    finally:
        gone.cancel()


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def _read(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")[: MAX_BODY - len(body)]
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return bytes(body)


async def _echo(scope: Any, body: bytes, send: Any) -> None:
    headers = {name.decode("latin-1"): _shown(name, value) for name, value in scope["headers"]}
    seen = {
        "message": "the sample backend received this",
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "headers": headers,
        "body": body.decode("utf-8", "replace"),
    }
    content = orjson.dumps(seen, option=orjson.OPT_INDENT_2) + b"\n"
    await _answer(send, 200, content, [(b"content-type", b"application/json")])


async def _hand_out(path: str, send: Any) -> None:
    found = find(path, live=WEBSOCKETS)
    if found is None:
        await _answer(send, 404, b"There is nothing here.\n", [(b"content-type", b"text/plain")])
    else:
        content, headers = found
        await _answer(send, 200, content, headers)


async def _answer(send: Any, status: int, content: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    start = [*headers, (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})


def _shown(name: bytes, value: bytes) -> str:
    """Tokens are not repeated, not even to who sent them."""
    return value[:12].decode("latin-1") + "..." if name in SECRET else value.decode("latin-1")
