"""The calls of the gateway itself, asked again while it cannot be reached or cannot answer."""

from __future__ import annotations

import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from tokengate_client.errors import InvalidCredentials, Refused, TokengateError, TooManyAttempts, Unavailable

HELD = frozenset({"store_unavailable", "draining", "overloaded"})  # 503: refused before any backend saw the request
MAX_ANSWER = 1 << 20

_PASSING = frozenset({502, 503, 504})
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ADVICE = 0.25, 8.0, 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the gateway's API. `error` is its error code, "" for none; `content` may be tokens."""

    status: int
    error: str
    retry_after: float
    content: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is special about a call.

    `good` knows a success of the gateway from a portal's or a cache's, or one that broke off. Without `repeat` a call
    is asked again only where nothing has been done. `text` is for people.
    """

    good: Callable[[Answer], bool] = lambda answer: True
    repeat: bool = True
    text: str = ""


_ANYTHING = Rules()


def is_tokens(answer: Answer) -> bool:
    """Tell a token response (http-api.md) from everything else."""
    said = answer.content if isinstance(answer.content, dict) else {}
    texts = (said.get("session_id"), said.get("access_token"), said.get("refresh_token"))
    return all(isinstance(text, str) for text in texts) and isinstance(said.get("expires_in"), int | float)


class Api:
    """The gateway at `base_url`. `patience` is for how many seconds an answer is asked for, `timeout` for one try."""

    def __init__(
        self, base_url: str, patience: float, timeout: float, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self.base_url = base_url.rstrip("/")
        if urlsplit(self.base_url).scheme not in ("http", "https") or not urlsplit(self.base_url).hostname:
            raise ValueError("base_url must be an http or https URL with a host")
        self.patience = patience
        self.timeout = timeout
        self.sleep = sleep
        self._opener = urllib.request.build_opener(_NoRedirect)

    def call(self, method: str, path: str, content: Any = None, token: str = "", rules: Rules = _ANYTHING) -> Answer:
        """Return an answer that is neither 502, 503 nor 504. Raises Unavailable."""
        spent, attempt = 0.0, 0
        while True:
            attempt += 1
            begun = time.monotonic()
            answer = self._once(method, path, content, token)
            if answer is not None and answer.status not in _PASSING and (answer.status != 200 or rules.good(answer)):
                return answer
            wait = backoff(attempt, answer.retry_after if answer else 0.0)
            spent += wait + time.monotonic() - begun
            if spent > self.patience or not (rules.repeat or (answer is not None and answer.error in HELD)):
                raise Unavailable(rules.text)
            self.sleep(wait)

    def _once(self, method: str, path: str, content: Any, token: str) -> Answer | None:
        headers = {"Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = None
        if content is not None:
            data, headers["Content-Type"] = json.dumps(content).encode(), "application/json"
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)  # noqa: S310  # ours
        try:
            with self._opener.open(request, timeout=self.timeout) as response:
                return _read(response.status, response.headers, response.read(MAX_ANSWER))
        except urllib.error.HTTPError as error:
            with error:
                return _read(error.code, error.headers, error.read(MAX_ANSWER))
        except (OSError, http.client.HTTPException):
            return None


def backoff(attempt: int, retry_after: float) -> float:
    """Return the seconds before the next try after try number `attempt`: exponential, with full jitter."""
    most = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (attempt - 1))
    return random.uniform(0, most) + min(retry_after, _LONGEST_ADVICE)  # noqa: S311  # it spreads tries, it keeps no secret


def origin(url: str) -> tuple[str, str, int]:
    """Return (scheme, host, port): what a token may be sent to (RFC 6454 4)."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80)


def advice(text: str | None) -> float:
    """Return the seconds of a Retry-After; 0 where there is none."""
    return float(text) if text and text.isascii() and text.isdigit() else 0.0


def held(status: int, error: str) -> bool:
    """Tell whether an answer is the gateway's word that no backend has seen the request, though one may soon."""
    return status == 503 and error in HELD


def refusal(answer: Answer) -> TokengateError:
    """Return the error that an answer means."""
    if answer.error == "invalid_credentials":
        return InvalidCredentials()
    if answer.error == "too_many_attempts":
        return TooManyAttempts(answer.retry_after or 60.0)
    return Refused(answer.error or f"http_{answer.status}", answer.status)


def _read(status: int, headers: Message, body: bytes) -> Answer:
    try:
        content = json.loads(body) if body else None
    except (ValueError, RecursionError):
        content = None
    return Answer(status, headers.get("X-Gateway-Error") or "", advice(headers.get("Retry-After")), content)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A credential is never taken to where an answer points."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
