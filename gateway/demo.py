"""The sample backend of `tokengate demo`: it says what reached it, and knows nothing of tokens or sessions."""

from __future__ import annotations

from typing import Any

import orjson

MAX_BODY = 65536
SECRET = frozenset({b"authorization", b"cookie"})


async def backend(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with what was received, as JSON (ASGI 3)."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _answer(scope, await _read(receive), send)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _read(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")[: MAX_BODY - len(body)]
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return bytes(body)


async def _answer(scope: Any, body: bytes, send: Any) -> None:
    headers = {name.decode("latin-1"): _shown(name, value) for name, value in scope["headers"]}
    seen = {
        "message": "the sample backend received this",
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "headers": headers,
        "body": body.decode("utf-8", "replace"),
    }
    answer = orjson.dumps(seen, option=orjson.OPT_INDENT_2) + b"\n"
    start = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    await send({"type": "http.response.body", "body": answer})


def _shown(name: bytes, value: bytes) -> str:
    """Tokens are not repeated, not even to who sent them."""
    return value[:12].decode("latin-1") + "..." if name in SECRET else value.decode("latin-1")
