"""The whole API over the real rooms, on the embedded store or a real Redis, with a clock one can push."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import bcrypt
import httpx
from starlette.applications import Starlette

from gateway.api import Clients, Services, create_api
from gateway.attempts import Limits
from gateway.cookies import Cookies
from gateway.errors import IdentityUnavailable, MethodNotAllowed, NoRoute
from gateway.gate import Gate
from gateway.grants import Grants
from gateway.identity import Identity, Provider, UsersFile
from gateway.identity.passwords import PasswordPool
from gateway.sessions.connect import open_client
from gateway.sessions.epochs import Epochs
from gateway.sessions.liveness import Liveness
from gateway.sessions.store import SessionPolicy, SessionStore
from gateway.telemetry import Telemetry
from gateway.tokens.access import AccessRule
from gateway.tokens.claims import Claims
from gateway.tokens.foreign import Issuers
from gateway.tokens.keyring import Keyring, RefreshKeys, generate, generate_refresh
from gateway.tokens.refresh import RefreshTokens
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier

ISSUER = "https://api.example.com"
KEYS = [generate("ES256", 1_700_000_000), generate_refresh(1_700_000_000)]
POLICY = SessionPolicy(refresh_ttl=3600, session_ttl=0, grace=10, max_sessions=50, leeway=0, access_ttl=600)
COOKIE = "__Secure-refresh"
PROXY = "10.0.0.9"  # the peer that the stack trusts
SECRET = "s3cret+with/odd:characters"


def quick_hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


USERS = f"""
[users.alice]
password = "{quick_hash("wonderland")}"
sub = "u-1"
roles = ["user"]
scope = "orders:read"
claims = {{ email = "alice@example.com" }}

[users.bob]
password = "{quick_hash("builder")}"
sub = "u-2"
roles = ["user", "admin"]
"""


class Clock:
    """Unix seconds, real until pushed."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Rechecked:
    """The users file, except that what a recheck answers is set by the test."""

    users: UsersFile
    answer: Identity | None = None
    down: bool = False

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        identity = await self.users.authenticate(username, password, device, ip)
        return replace(identity, credential_version="v1")

    async def recheck(self, subject: str, session_id: str) -> Identity | None:
        if self.down:
            raise IdentityUnavailable("down")
        return self.answer

    async def close(self) -> None:
        await self.users.close()


@dataclass
class Stack:
    """A running API and what a test may look at behind it."""

    app: Starlette
    services: Services
    store: SessionStore
    clock: Clock
    telemetry: Telemetry
    verifier: Verifier
    client: httpx.AsyncClient
    extra: dict[str, Any] = field(default_factory=dict)

    async def login(self, username: str = "alice", password: str = "wonderland", **more: str) -> dict[str, Any]:
        response = await self.client.post("/auth/login", json={"username": username, "password": password, **more})
        assert response.status_code == 200, response.text
        body: dict[str, Any] = response.json()
        return body

    async def refresh(self, token: str) -> httpx.Response:
        return await self.client.post("/auth/token", data={"grant_type": "refresh_token", "refresh_token": token})

    async def me(self, access_token: str) -> httpx.Response:
        return await self.client.get("/auth/me", headers=bearer(access_token))

    def from_peer(self, peer: str) -> httpx.AsyncClient:
        """Return a client whose connections come from this address."""
        return new_client(self.app, peer)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def code(response: httpx.Response) -> tuple[int, str]:
    """Return (status, code) after holding the answer against the shape of the contract."""
    body = response.json()
    assert set(body) == {"error", "error_description"}
    assert response.headers["x-gateway-error"] == body["error"]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    return response.status_code, body["error"]


def new_client(app: Starlette, peer: str = "192.0.2.7") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(peer, 40000))
    return httpx.AsyncClient(transport=transport, base_url=ISSUER)


def match(host: bytes, path: bytes, method: bytes) -> AccessRule:
    """A small route table: /public, /user and /admin, which takes GET alone; other.example has /public only."""
    rule = AccessRule(auth="required", roles_any=frozenset(), scopes_all=frozenset(), live=True)
    if path.startswith(b"/public"):
        return replace(rule, auth="none")
    if path.startswith(b"/user") and host != b"other.example":
        return replace(rule, roles_any=frozenset({"user"}))
    if path.startswith(b"/admin") and host != b"other.example":
        if method != b"GET":
            raise MethodNotAllowed("GET")
        return replace(rule, roles_any=frozenset({"admin"}), scopes_all=frozenset({"admin:all"}))
    raise NoRoute


def identity_headers(claims: Claims) -> list[tuple[bytes, bytes]]:
    headers = [(b"X-Auth-Request-User", claims.sub.encode())]
    email = claims.raw.get("email")
    return [*headers, (b"X-Auth-Request-Email", email.encode())] if email else headers


@asynccontextmanager
async def stack(
    url: str = "memory://",
    *,
    limits: Limits | None = None,
    provider: Callable[[UsersFile], Provider] | None = None,
    policy: SessionPolicy = POLICY,
    form: Any = "opaque",
    clients: Mapping[str, str] | None = None,
    store_clock: bool = True,
    issuers: Issuers | None = None,
    wait_replicas: int = 0,
) -> AsyncIterator[Stack]:
    """Build every room for one event loop and take it down again."""
    clock, telemetry, prefix = Clock(), Telemetry(), f"t{secrets.token_hex(4)}"
    redis = open_client(url, 2.0)
    store_time = clock if store_clock else None
    epochs = Epochs(redis, prefix, 2.0, store_time)
    store = SessionStore(redis, prefix, policy, 2.0, wait_replicas, store_time, epochs=epochs)
    liveness = Liveness(url, prefix, 2.0, epochs)
    keyring = Keyring.load(KEYS, "ES256")
    refresh_tokens = RefreshTokens(RefreshKeys.load(KEYS), form, ISSUER)
    verifier = Verifier(keyring, ISSUER, "api", policy.leeway, others=issuers)
    users, pool = UsersFile.load(USERS), PasswordPool()
    who = provider(users) if provider else users
    signer = Signer(keyring, ISSUER, "api", policy.access_ttl)
    recheck = provider is not None
    grants = Grants(who, store, signer, refresh_tokens, limits or Limits(), recheck, telemetry, clock, issuers)
    services = Services(
        grants=grants,
        gate=Gate(verifier, liveness, store.mark_used, clock),
        store=store,
        keyring=lambda: keyring,
        refresh_tokens=refresh_tokens,
        verifier=verifier,
        telemetry=telemetry,
        issuer=ISSUER,
        realm="api",
        cookies=Cookies(COOKIE),
        clients=Clients({"orders": quick_hash(SECRET)} if clients is None else clients, pool.verify),
        match=match,
        identity_headers=identity_headers,
        trusted=lambda peer: peer == PROXY,
        identity_names=(b"X-Auth-Request-User", b"X-Auth-Request-Email"),
        clock=clock,
    )
    app = create_api(services)
    liveness.start()
    try:
        async with new_client(app) as client:
            yield Stack(app, services, store, clock, telemetry, verifier, client, {"provider": who, "redis": redis})
    finally:
        await liveness.close()
        await users.close()
        pool.close()
        await store.close()
