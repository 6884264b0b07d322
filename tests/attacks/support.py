"""What attacks have in common: a browser's cookies, a WebSocket's request, the names in play."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence

from tests.e2e.backends import Call
from tests.e2e.harness import PASSWORD, Gateway
from tests.e2e.wire import Answer, ask, request

REFRESH, ACCESS = "__Secure-refresh", "__Host-access"
CLIENT, CLIENT_SECRET = "orders", "secret-of-the-introspecting-client"
Pairs = list[tuple[str, str]]
_NUMBERS = itertools.count(1)


def address() -> str:
    """Return an address that no other test has used."""
    number = next(_NUMBERS)
    return f"203.0.{number // 250}.{number % 250 + 1}"


def cookie(answer: Answer, name: str) -> str:
    """Return the value that an answer sets for a cookie, '' where it sets none."""
    for value in answer.all("set-cookie"):
        if value.startswith(f"{name}="):
            return value.partition(";")[0].partition("=")[2]
    return ""


def sign_in(gateway: Gateway, more: Mapping[str, str] | None = None, user: str = "alice") -> dict[str, str]:
    """Sign in as a browser does; the cookies."""
    headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin", **(more or {})}
    body = json.dumps({"username": user, "password": PASSWORD, "refresh_in": "cookie"}).encode()
    answer = ask(gateway.port, request("POST", "/auth/login", headers, body))
    assert answer.status == 200, answer
    return {name: cookie(answer, name) for name in (REFRESH, ACCESS)}


def jar(cookies: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def websocket(more: Sequence[tuple[str, str]] = ()) -> Pairs:
    """Return the headers of a WebSocket's opening handshake (RFC 6455 4.1), with others behind them."""
    key = base64.b64encode(b"0123456789abcdef").decode()
    head = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", key)]
    return [*head, ("Sec-WebSocket-Version", "13"), *more]


def switch(call: Call) -> None:
    """Switch protocols, as a backend, and end."""
    call.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    call.close()


def attempt(gateway: Gateway, user: str, password: str = "wrong", forwarded: str = "") -> Answer:
    """Try to sign in, through the proxy in front where `forwarded` names a client."""
    headers = {"Content-Type": "application/json"} | ({"X-Forwarded-For": forwarded} if forwarded else {})
    body = json.dumps({"username": user, "password": password}).encode()
    return ask(gateway.port, request("POST", "/auth/login", headers, body))
