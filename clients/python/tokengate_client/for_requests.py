"""An auth for requests: `requests.get(url, auth=RequestsAuth(session))`, or once for a `requests.Session`."""

from __future__ import annotations

import time
from typing import Any

import requests
from requests.auth import AuthBase

from tokengate_client.api import advice, backoff, held, origin
from tokengate_client.errors import BodyNotReplayable, NotSignedIn, SignedOut
from tokengate_client.session import Session, Token


class RequestsAuth(AuthBase):
    """Adds the session's token to requests to the gateway, and to no others; see HttpxAuth for the rest."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._origin = origin(session.base_url)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if origin(request.url or "") != self._origin or "Authorization" in request.headers:
            return request
        trial = _Trial(self._session, request)
        try:
            trial.carry(request, self._session.token())
        except (NotSignedIn, SignedOut):
            return request
        request.register_hook("response", trial)
        return request


class _Trial:
    """One request and what is tried again of it, as a hook on its answers."""

    def __init__(self, session: Session, request: requests.PreparedRequest) -> None:
        self._session = session
        self._token: Token | None = None
        body = request.body
        self._position = _position(body)
        self._replayable = body is None or isinstance(body, str | bytes) or self._position is not None

    def carry(self, request: requests.PreparedRequest, token: Token) -> None:
        self._token = token
        request.headers["Authorization"] = f"Bearer {token.value}"

    def __call__(self, response: requests.Response, **options: Any) -> requests.Response:
        if origin(response.url) != origin(self._session.base_url):
            return response  # a redirect has led elsewhere, where no token goes and whose word counts for nothing
        renewed, spent, attempt = False, 0.0, 0
        while True:
            code = response.headers.get("X-Gateway-Error", "")
            old = self._token
            if response.status_code == 401 and not renewed and old is not None and self._session.is_stale(code, old):
                renewed = True
                try:
                    token = self._session.refresh(old)
                except (NotSignedIn, SignedOut):
                    return response
                if not self._can_go_again(response):
                    raise BodyNotReplayable
                response = self._again(response, token, options)
            elif held(response.status_code, code) and self._can_go_again(response):
                attempt += 1
                wait = backoff(attempt, advice(response.headers.get("Retry-After")))
                spent += wait
                if spent > self._session.api.patience:
                    return response
                time.sleep(wait)
                response = self._again(response, self._token, options)
            else:
                if code == "revoked_token" and self._token is not None:
                    self._session.revoked(self._token)
                return response

    def _can_go_again(self, response: requests.Response) -> bool:
        return self._replayable or response.request.body is None  # which a redirect has left out

    def _again(self, response: requests.Response, token: Token | None, options: dict[str, Any]) -> requests.Response:
        response.content  # noqa: B018  # read to its end, so that the connection can be used again
        response.close()
        request = response.request.copy()
        if token is not None:
            self.carry(request, token)
        body: Any = request.body
        if self._position is not None and body is not None:  # a file, which told its position
            body.seek(self._position)
        connection: Any = response.connection
        answer: requests.Response = connection.send(request, **options)
        answer.history.append(response)
        answer.request = request
        return answer


def _position(body: Any) -> int | None:
    """Return where a file is, None for a body that cannot be rewound."""
    try:
        position: int = body.tell()
        return position if body.seekable() else None
    except (AttributeError, OSError):
        return None
