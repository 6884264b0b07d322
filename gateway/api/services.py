"""What the public API is made of, and what its handlers ask of a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from gateway.api.answers import header_values
from gateway.api.clients import Clients
from gateway.cookies import Cookies
from gateway.gate import Gate, require
from gateway.grants import Grants
from gateway.sessions.record import Session
from gateway.sessions.store import SessionStore
from gateway.telemetry import Telemetry, new_request_id, valid_request_id
from gateway.tokens.access import AccessRule
from gateway.tokens.claims import Claims
from gateway.tokens.refresh import RefreshTokens

# What the API asks of an access token presented to itself.
SIGNED_IN = AccessRule(auth="required", roles_any=frozenset(), scopes_all=frozenset(), live=True)
MAX_USER_AGENT = 160  # characters kept of it: enough to name browser and system, and a session stays small


class Verifier(Protocol):
    def verify(self, token: bytes, now: float) -> Claims: ...


class PublicKeys(Protocol):
    def jwks(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Services:
    """Everything that the public API needs; made by app.py.

    `keyring` is asked for the JWKS at every call, so a reloaded one must stand behind it.
    `match(host, path, method)` returns what the route of a request asks, for /auth/verify; `path` is raw and
    has no query. It raises NoRoute, MethodNotAllowed or BadRequest. `identity_headers` renders the headers
    of a token, `identity_names` is every name it may use. `trusted` tells whether a peer is one of
    `server.trusted_proxies`.
    """

    grants: Grants
    gate: Gate
    store: SessionStore
    keyring: Callable[[], PublicKeys]
    refresh_tokens: RefreshTokens
    verifier: Verifier
    telemetry: Telemetry
    issuer: str
    realm: str
    cookies: Cookies
    clients: Clients
    match: Callable[[bytes, bytes, bytes], AccessRule]
    identity_headers: Callable[[Claims], list[tuple[bytes, bytes]]]
    trusted: Callable[[str], bool]
    identity_names: tuple[bytes, ...] = ()
    clock: Callable[[], float] = time.time

    async def caller(self, request: Request) -> Claims:
        """Return the claims of the live access token that a request carries. Raises GatewayError."""
        scope = request.scope
        method = request.method.encode("latin-1")
        return require(await self.gate.admit(scope["headers"], SIGNED_IN, method=method, scheme=scope["scheme"]))


def client_ip(request: Request) -> str:
    """Return the address of the client, as the data plane resolved it behind trusted proxies."""
    client = request.scope.get("client")
    return str(client[0]) if client else ""


def peer_ip(request: Request) -> str:
    """Return the address of whoever opened the connection, which may be a proxy."""
    return str(request.scope.get("state", {}).get("peer") or client_ip(request))


def user_agent(request: Request) -> str:
    values = header_values(request, b"user-agent")
    return values[0].decode("latin-1")[:MAX_USER_AGENT] if values else ""


def request_id(request: Request) -> str:
    """Return the request's name for the log: one that a trusted proxy gave, else a fresh one."""
    known: str | None = request.scope.get("state", {}).get("request_id")  # by the access log
    if known is not None:
        return known
    values = header_values(request, b"x-request-id") if request.scope.get("state", {}).get("trusted") else []
    given = values[0] if len(values) == 1 and valid_request_id(values[0]) else new_request_id()
    return given.decode("ascii")


def describe(session: Session) -> dict[str, Any]:
    """Return what users and operators may see of a session."""
    return {
        "id": session.id,
        "device": session.device,
        "user_agent": session.user_agent,
        "ip": session.ip,
        "created_at": session.created_at,
        "last_used_at": session.last_used_at,
        "expires_at": session.expires_at,
    }
