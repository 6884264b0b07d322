"""The users are those of an existing backend, which is asked over HTTP.

    POST <url>           {"username", "password", "device", "ip"}
    POST <url>/refresh   {"sub", "session_id"}

200 with {"sub", "roles"?, "scope"?, "claims"?, "credential_version"?} is a yes, 401 a no. Anything else
is no answer: a redirect, an overlong or malformed body, a member of the wrong type, silence. A request is
sent once, never again (the backend may count wrong passwords).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from gateway.errors import IdentityUnavailable, InvalidCredentials
from gateway.identity import fields
from gateway.identity.outbound import TooLong, cause, is_packed, new_client, read
from gateway.identity.provider import Identity
from gateway.telemetry.spans import Span, step

LARGEST_ANSWER: Final = 64 * 1024  # bytes
# Shorter than the servers in use keep an idle connection (Node.js: 5 s), or one would be found closed.
KEEPALIVE: Final = 4.0  # seconds
REST_SECONDS: Final = 0.1  # for the body of a 401, which says nothing more, so that the connection can be used again
_WAITING_A_CONNECTION: Final = 4  # requests in line for each connection before more are turned away

_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json"}


class Webhook:
    """Asks a backend at `url` (http or https; ValueError else), each time for at most `timeout` seconds."""

    def __init__(self, url: str, timeout: float = 5.0, max_connections: int = 100) -> None:
        self._login_url, self._refresh_url = _addresses(url)
        self._timeout = timeout
        self._max_connections = max_connections
        self._places = max_connections * (1 + _WAITING_A_CONNECTION)
        self._client: aiohttp.ClientSession | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"Webhook({urlsplit(self._login_url).hostname!r})"

    async def authenticate(self, username: str, password: str, device: str, ip: str) -> Identity:
        """Return who the backend says this is. Raises InvalidCredentials or IdentityUnavailable."""
        # A backend that binds to LDAP would take an empty password for an anonymous bind (RFC 4513 5.1.2).
        if not username or not password:
            raise InvalidCredentials("empty user name or password")
        question = {"username": username, "password": password, "device": device, "ip": ip}
        answer = await self._ask(self._login_url, question)
        if answer is None:
            raise InvalidCredentials("refused by the webhook")
        return _identity(answer, None)

    async def recheck(self, subject: str, session_id: str) -> Identity | None:
        """Return the user as the backend has them by now; None where it refuses. IdentityUnavailable else.

        `sub` may be absent from this answer; another one than was asked about is no answer.
        """
        answer = await self._ask(self._refresh_url, {"sub": subject, "session_id": session_id})
        return None if answer is None else _identity(answer, subject)

    async def close(self) -> None:
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask(self, url: str, question: dict[str, str]) -> bytes | None:
        """Return the body of a 200, None for a 401."""
        try:
            body = orjson.dumps(question)
        except TypeError as error:  # lone surrogates, which no backend's user has in a name
            raise InvalidCredentials("not text") from error
        if self._closed or self._places <= 0:
            raise IdentityUnavailable("webhook: closed" if self._closed else "webhook: too many requests are waiting")
        self._places -= 1
        try:
            async with asyncio.timeout(self._timeout):
                return await self._exchange(url, body)
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as error:
            raise IdentityUnavailable(f"webhook: {cause(error)}") from error
        finally:
            self._places += 1

    async def _exchange(self, url: str, body: bytes) -> bytes | None:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        place: dict[str, str | int] = {"server__address": parts.hostname or "", "server__port": port}
        with step("POST", "client", http__request__method="POST", **place) as span:
            headers = {"traceparent": span.traceparent().decode()} if span is not None else None
            return await self._send(url, body, headers, span)

    async def _send(self, url: str, body: bytes, headers: dict[str, str] | None, span: Span | None) -> bytes | None:
        async with self._open().post(url, data=body, headers=headers, allow_redirects=False) as response:
            if span is not None:
                span.attributes["http.response.status_code"] = response.status
            if response.status == 401:
                with suppress(TimeoutError, TooLong, aiohttp.ClientError):  # the word is the status
                    async with asyncio.timeout(REST_SECONDS):
                        await read(response.content, LARGEST_ANSWER)
                return None
            if response.status != 200:
                raise IdentityUnavailable(f"webhook: answered {response.status}")
            if is_packed(response):
                raise IdentityUnavailable("webhook: answered with a compressed body")
            return await read(response.content, LARGEST_ANSWER)

    def _open(self) -> aiohttp.ClientSession:
        if self._client is None:  # not before there is an event loop
            connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=KEEPALIVE)
            self._client = new_client(_HEADERS, connector)
        return self._client


def _identity(answer: bytes, asked: str | None) -> Identity:
    """Read a 200. `asked` is the subject of a recheck. Raises IdentityUnavailable, naming the member."""
    try:
        document = orjson.loads(answer)
    except ValueError as error:
        raise IdentityUnavailable("webhook: answered what is not JSON") from error
    if not isinstance(document, dict):
        raise IdentityUnavailable("webhook: answered JSON that is not an object")
    if asked is not None and document.setdefault("sub", asked) != asked:
        raise IdentityUnavailable("webhook: answered about another subject")
    return _checked_identity(document)


def _checked_identity(document: dict[str, Any]) -> Identity:
    member = "sub"
    try:
        subject = fields.name(document.get(member))
        roles = fields.roles(document.get(member := "roles"))
        scope = fields.scope(document.get(member := "scope"))
        claims = fields.claims(document.get(member := "claims"))
        version = fields.credential_version(document.get(member := "credential_version"))
        member = "answer"
        fields.fitting(roles, scope, claims)
    except ValueError as error:
        raise IdentityUnavailable(f"webhook: {member} {error}") from error
    return Identity(subject, roles, scope, claims, version)


def _addresses(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # urllib's own text would quote what stands for the port, perhaps a password
        good = False
    if not good:
        raise ValueError("must be an http or https URL with a host") from None
    if parts.query or parts.fragment:
        raise ValueError("must be a URL without a query or a fragment")
    path = parts.path.rstrip("/")
    return url, urlunsplit(parts._replace(path=f"{path}/refresh"))
