"""tokengate's client for Python: no request of yours ever fails because a token has expired.

    session = Session("https://api.example.com", store=FileStore("~/.config/app/session"))
    session.login("alice", "correct horse")
    with httpx.Client(base_url=session.base_url, auth=HttpxAuth(session)) as client:
        client.get("/api/orders")

errors     what can go wrong, with a text for a person
clock      how old a token is, whatever happens to the clock
stores     where the refresh token is kept: memory, or a file of the user's own
kept       a store as a session sees it: failures end nothing, and what others have put there is told apart
api        the calls of the gateway itself
session    sign in, refresh, sign out; one session for all threads and tasks of a program
for_httpx  an httpx.Auth, for sync and async clients (needs httpx)
for_requests  an auth for requests (needs requests)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokengate_client.errors import (
    BodyNotReplayable,
    InvalidCredentials,
    NotSignedIn,
    Refused,
    SignedOut,
    StorageFailed,
    TokengateError,
    TooManyAttempts,
    Unavailable,
)
from tokengate_client.session import Session, SessionInfo
from tokengate_client.stores import FileStore, MemoryStore, Store

if TYPE_CHECKING:
    from tokengate_client.for_httpx import HttpxAuth
    from tokengate_client.for_requests import RequestsAuth

__all__ = [
    "BodyNotReplayable",
    "FileStore",
    "HttpxAuth",
    "InvalidCredentials",
    "MemoryStore",
    "NotSignedIn",
    "Refused",
    "RequestsAuth",
    "Session",
    "SessionInfo",
    "SignedOut",
    "StorageFailed",
    "Store",
    "TokengateError",
    "TooManyAttempts",
    "Unavailable",
]


def __getattr__(name: str) -> Any:
    """Import what needs httpx or requests when it is asked for, so that neither has to be installed."""
    if name == "HttpxAuth":
        from tokengate_client.for_httpx import HttpxAuth

        return HttpxAuth
    if name == "RequestsAuth":
        from tokengate_client.for_requests import RequestsAuth

        return RequestsAuth
    raise AttributeError(name)
