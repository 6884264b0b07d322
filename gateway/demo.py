"""What `tokengate demo` shows: a sample backend that says what reached it and knows nothing of tokens or
sessions, and three lines to paste that follow one session from its login to its end.
"""

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


def introduction(url: str, management: str) -> str:
    """Return what the demo prints: where it is, who may sign in, and what to paste."""
    take = 'sed \'s/.*"%s":"\\([^"]*\\)".*/\\1/\''
    access, refresh = take % "access_token", take % "refresh_token"
    call = f'curl -si {url}/api/hello -H "Authorization: Bearer $A"'
    json = "-H 'Content-Type: application/json'"
    return f"""
tokengate demo: {url}  (sample backend behind /api/, metrics at http://{management}/metrics)
sample user: demo / demo. Access tokens live for 60 seconds here. Paste, one line after the other:

1. sign in, and call the backend with the token: it is told who calls
T=$(curl -s {url}/auth/login {json} -d '{{"username":"demo","password":"demo"}}'); \
A=$(echo "$T" | {access}); R=$(echo "$T" | {refresh}); {call}

2. a minute later: 401 expired_token, then a refresh, then the call again
sleep 61; {call}; echo; T=$(curl -s {url}/auth/token -d grant_type=refresh_token -d "refresh_token=$R"); \
A=$(echo "$T" | {access}); R=$(echo "$T" | {refresh}); {call}

3. sign out: the token has most of its minute left, and is 401 revoked_token at once
curl -si -X POST {url}/auth/logout -H "Authorization: Bearer $A"; {call}; echo

Ctrl+C ends it; nothing is kept.

"""
