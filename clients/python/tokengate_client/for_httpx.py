"""An httpx.Auth: `httpx.Client(auth=HttpxAuth(session))`, and the same for `httpx.AsyncClient`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx

from tokengate_client.api import advice, backoff, held, origin
from tokengate_client.errors import BodyNotReplayable, NotSignedIn, SignedOut
from tokengate_client.session import Session, Token

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 9.2.1


class HttpxAuth(httpx.Auth):
    """Adds the session's token to requests to the gateway, and to no others.

    A request that meets a stale token is sent once more with a new one, one that meets a gateway which cannot
    serve it (503, before any backend saw it) after a pause. Raises BodyNotReplayable for a body that can be read
    once only, Unavailable where a new token was needed and nobody could be asked. A session that has ended is no
    error: the answer is the gateway's 401.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._origin = origin(session.base_url)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if not self._is_ours(request):
            yield request
            return
        session = self._session
        trial = _Trial(session, request)
        with contextlib.suppress(NotSignedIn, SignedOut):
            trial.begin(session.token())
        while True:
            response = yield request
            wait = trial.judge(response)
            if wait is None:
                return
            if trial.stale is not None:
                try:
                    trial.begin(session.refresh(trial.stale))
                except (NotSignedIn, SignedOut):
                    return
                trial.check_body()
            else:
                time.sleep(wait)

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if not self._is_ours(request):
            yield request
            return
        session = self._session
        trial = _Trial(session, request)
        with contextlib.suppress(NotSignedIn, SignedOut):
            trial.begin(await session.token_async())
        while True:
            response = yield request
            wait = trial.judge(response)
            if wait is None:
                return
            if trial.stale is not None:
                try:
                    trial.begin(await session.refresh_async(trial.stale))
                except (NotSignedIn, SignedOut):
                    return
                trial.check_body()
            else:
                await asyncio.sleep(wait)

    def _is_ours(self, request: httpx.Request) -> bool:
        return origin(str(request.url)) == self._origin and "Authorization" not in request.headers


class _Trial:
    """One request: what token it went out with, and whether it goes out again."""

    def __init__(self, session: Session, request: httpx.Request) -> None:
        self._session = session
        self._request = request
        self._replayable = _replayable(request.stream)
        self._token: Token | None = None
        self._renewed = False
        self._attempt = 0
        self._spent = 0.0
        self.stale: Token | None = None

    def begin(self, token: Token) -> None:
        self._token, self.stale = token, None
        self._request.headers["Authorization"] = f"Bearer {token.value}"

    def check_body(self) -> None:
        if not self._replayable:
            raise BodyNotReplayable

    def _said(self, response: httpx.Response) -> str:
        """Return the gateway's word; "" where the request has been elsewhere meanwhile, perhaps with an effect."""
        if response.history and self._request.method not in _SAFE:
            return ""
        ours = origin(str(response.url)) == origin(self._session.base_url)
        return response.headers.get("X-Gateway-Error", "") if ours else ""

    def judge(self, response: httpx.Response) -> float | None:
        """Return the seconds to wait before the request goes out again, None if the answer stands."""
        code = self._said(response)
        if response.status_code == 401 and self._token is not None:
            if not self._renewed and self._session.is_stale(code, self._token):
                self._renewed, self.stale = True, self._token
                return 0.0
            if code == "revoked_token":
                self._session.revoked(self._token)
        if held(response.status_code, code) and self._replayable:
            self._attempt += 1
            wait = backoff(self._attempt, advice(response.headers.get("Retry-After")))
            self._spent += wait
            if self._spent <= self._session.api.patience:
                return wait
        return None


def _replayable(stream: Any) -> bool:
    """Tell whether a body can be sent again: it is in memory, or made of such parts and files that can be rewound."""
    if isinstance(stream, httpx.ByteStream):
        return True
    parts = getattr(stream, "fields", None)  # of a multipart form, which rewinds its files by itself
    return parts is not None and all(_seekable(getattr(part, "file", b"")) for part in parts)


def _seekable(file: Any) -> bool:
    return isinstance(file, str | bytes) or bool(getattr(file, "seekable", bool)())
