"""Pages of other origins at a gateway: what they send, and what an answer must say to them."""

from __future__ import annotations

from typing import Any

from tests.e2e.backends import Backend
from tests.e2e.harness import route
from tests.e2e.wire import Answer, request
from tests.redis_server import free_port

PAGE, OTHER = "https://app.example.com", "https://evil.example.com"
EXPOSED = {
    "x-gateway-error",
    "www-authenticate",
    "retry-after",
    "x-access-token",
    "x-access-token-expires-in",
    "x-request-id",
    "x-total",
}
Pairs = list[tuple[str, str]]
ASKS: Pairs = [("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", "authorization,x-a")]
CORS: dict[str, Any] = {"allow_origins": [PAGE, "http://localhost:3000"], "expose_headers": ["X-Total"]}
UNLISTED = [
    "https://app.example.co",
    "https://app.example.com.evil.test",
    "https://evil-app.example.com",
    "https://APP.example.com",
    "https://app.example.com:443",
    "http://app.example.com",
    "https://app.example.com/",
    "https://app.example.com, https://app.example.com",
    "null",
    "*",
    "",
]


def options(backend: Backend, **more: Any) -> dict[str, Any]:
    routes = [
        route("/guarded/", backend.url),
        route("/raw/", backend.url, auth="none"),
        route("/reading/", backend.url, methods=["GET", "HEAD"]),
        route("/renewing/", backend.url, on_expired="refresh"),
        route("/stripped/", backend.url, auth="none", strip_prefix="/stripped"),
        route("/closed/", f"http://127.0.0.1:{free_port()}", auth="none"),
    ]
    return {"routes": routes, "cors": CORS, "cookies": {"refresh": "__Secure-refresh", "access": ""}, **more}


def from_page(method: str, target: str, origin: str = PAGE, more: Pairs | None = None, **rest: Any) -> bytes:
    return request(method, target, [("Origin", origin), *(more or [])], **rest)


def said(answer: Answer) -> dict[str, str]:
    """Return what an answer says of CORS; each header may come once alone."""
    return {name: answer.get(name) for name, _ in answer.headers if name.startswith("access-control-")}


def assert_readable(answer: Answer, origin: str = PAGE) -> None:
    told = said(answer)
    assert (told["access-control-allow-origin"], told["access-control-allow-credentials"]) == (origin, "true")
    assert {name.strip().lower() for name in told.pop("access-control-expose-headers").split(",")} == EXPOSED
    assert len(told) == 2
    assert_varies(answer)


def assert_varies(answer: Answer) -> None:
    assert "origin" in {part.strip().lower() for value in answer.all("vary") for part in value.split(",")}


def assert_granted(answer: Answer, methods: str = "PUT", headers: str = "authorization, x-a") -> None:
    assert (answer.status, answer.body, answer.all("content-length"), answer.all("content-type")) == (204, b"", [], [])
    assert said(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": methods,
        "access-control-allow-headers": headers,
        "access-control-max-age": "600",
    }
    assert answer.get("vary") == "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    assert answer.get("date")
    assert answer.get("x-request-id")
