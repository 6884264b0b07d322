"""Another issuer for tests: a real HTTP server with a JWK Set, keys that it rotates, and every way to misbehave.

with issuer() as idp:
    idp.token(sub="f-1"); idp.rotate(); idp.stop(); idp.start(); idp.answer = garbage; idp.fetches
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from tests.redis_server import free_port
from tests.tokens.support import ABSENT, as_json, b64

Behaviour = Callable[["Issuer", web.Request], Awaitable[web.StreamResponse]]
LIFE = 600


@dataclass
class SigningKey:
    kid: str
    algorithm: str
    private: Any = field(repr=False)

    def jwk(self) -> dict[str, Any]:
        members = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        members.pop("key_ops", None)
        return {**members, "use": "sig", "alg": self.algorithm, "kid": self.kid}

    def sign(self, message: bytes) -> bytes:
        return bytes(get_default_algorithms()[self.algorithm].sign(message, self.private))


def new_key(algorithm: str = "ES256", kid: str = "") -> SigningKey:
    private: Any = {
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }.get(algorithm, lambda: rsa.generate_private_key(65537, 2048))()
    return SigningKey(kid or secrets.token_hex(4), algorithm, private)


async def served(idp: Issuer, request: web.Request) -> web.StreamResponse:
    """Serve the JWK Set as it is, with its ETag."""
    body = idp.jwks()
    etag = hashlib.sha256(body).hexdigest()[:16]
    headers = {"ETag": f'"{etag}"', **idp.headers}
    if request.headers.get("If-None-Match") == f'"{etag}"':
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, content_type="application/jwk-set+json", headers=headers)


async def silent(idp: Issuer, request: web.Request) -> web.StreamResponse:
    """Say nothing until `released` is set."""
    await asyncio.to_thread(idp.released.wait, 30)
    return await served(idp, request)


async def garbage(idp: Issuer, request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"<html>a login page</html>", content_type="text/html")


async def broken(idp: Issuer, request: web.Request) -> web.StreamResponse:
    return web.Response(status=500, body=idp.jwks())


async def huge(idp: Issuer, request: web.Request) -> web.StreamResponse:
    """Serve the JWK Set with blanks after it, without saying how many."""
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(idp.jwks())
    for _ in range(64):
        await response.write(b" " * 65536)
    return response


async def redirecting(idp: Issuer, request: web.Request) -> web.StreamResponse:
    raise web.HTTPFound(f"http://127.0.0.1:{idp.port}/elsewhere")


async def compressed(idp: Issuer, request: web.Request) -> web.StreamResponse:
    response = web.Response(body=idp.jwks())
    response.enable_compression(web.ContentCoding.gzip)
    return response


class Issuer:
    """Serves its keys on 127.0.0.1. `fetches` counts the requests for them, `asked` has the headers of each."""

    def __init__(self, algorithm: str = "ES256", tls: tuple[Path, Path] | None = None) -> None:
        self._tls = tls
        self.port = free_port()
        self.keys = [new_key(algorithm)]
        self.signing = self.keys[0]
        self.answer: Behaviour = served
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, str]] = []
        self.elsewhere = 0
        self.released = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._runner: web.AppRunner | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.port}/realms/main"

    @property
    def jwks_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/jwks"

    @property
    def fetches(self) -> int:
        return len(self.asked)

    def settings(self, **more: Any) -> dict[str, Any]:
        """Return the [[issuers]] table of this issuer."""
        return {"issuer": self.name, "jwks_url": self.jwks_url, "audience": "e2e"} | more

    def jwks(self) -> bytes:
        return json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()

    def rotate(self, algorithm: str = "ES256", *, keep: bool = True) -> SigningKey:
        """Sign with a new key from here on; without `keep` the old ones are published no more."""
        self.signing = new_key(algorithm)
        self.keys = [*(self.keys if keep else []), self.signing]
        return self.signing

    def token(self, key: SigningKey | None = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a good token, with changes; ABSENT leaves a claim or a member of the header out."""
        key, now = key or self.signing, int(time.time())
        content = {
            "iss": self.name,
            "aud": "e2e",
            "sub": "f-1",
            "exp": now + LIFE,
            "iat": now,
            "jti": secrets.token_hex(8),
            "roles": ["user"],
            "scope": "openid orders:read",
            "email": "f@example.com",
        } | claims
        head = {"alg": key.algorithm, "kid": key.kid, "typ": "JWT"} | (header or {})
        parts = [{name: value for name, value in each.items() if value is not ABSENT} for each in (head, content)]
        message = b".".join(b64(as_json(part)) for part in parts)
        return (message + b"." + b64(key.sign(message))).decode()

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """Listen no more; connections are refused."""
        self._call(self._stop())

    def close(self) -> None:
        self.released.set()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _start(self) -> None:
        if self._runner is not None:
            return
        app = web.Application()
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/elsewhere", self._elsewhere)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True, ssl_context=context).start()

    async def _stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.asked.append({name.lower(): value for name, value in request.headers.items()})
        return await self.answer(self, request)

    async def _elsewhere(self, request: web.Request) -> web.StreamResponse:
        self.elsewhere += 1
        return web.Response(body=self.jwks())


@contextmanager
def issuer(algorithm: str = "ES256", tls: tuple[Path, Path] | None = None) -> Iterator[Issuer]:
    """Run an issuer for the length of a with block; `tls` is (certificate, key) where it speaks https."""
    made = Issuer(algorithm, tls)
    made.start()
    try:
        yield made
    finally:
        made.close()
