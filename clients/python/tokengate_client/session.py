"""A session at the gateway: sign in, tokens that are good, sign out. One for all threads and tasks of a program.

Laws:
- One refresh at a time, over all threads, tasks and processes that share a store.
- Only the gateway's word signs out: `invalid_grant` to a refresh, or `revoked_token` to a request. An outage does not.
- Signed out is told once for each sign-in.
- The old refresh token is kept until the new one is: an answer that was lost can be asked for again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tokengate_client.api import Api, refusal
from tokengate_client.clock import Moment, age, moment
from tokengate_client.errors import NotSignedIn, SignedOut, Unavailable
from tokengate_client.stores import MemoryStore, Store

_AHEAD = 30.0  # seconds before its end from which on a token is refreshed
_AHEAD_SHARE = 0.2  # or this share of its life, whichever is less


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """An access token. `life` is in seconds, `since` when it came."""

    value: str = field(repr=False)
    life: float
    since: Moment


_ANY: Any = object()  # whatever token there is


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One of the user's sessions. Times are Unix seconds; `expires_at` 0 = never."""

    id: str
    device: str
    user_agent: str
    ip: str
    created_at: int
    last_used_at: int
    expires_at: int
    current: bool


class Session:
    """The session of one user at the gateway of `base_url`.

    `store` keeps the refresh token (in memory by default), `device` names this machine in the user's list. An answer
    that does not come is asked for again for `patience` seconds; one try takes `timeout` at most. The callbacks
    are called in the thread that found out.
    """

    def __init__(
        self,
        base_url: str,
        *,
        store: Store | None = None,
        device: str = "",
        patience: float = 30.0,
        timeout: float = 10.0,
        on_signed_out: Callable[[str], object] | None = None,
        on_refreshed: Callable[[], object] | None = None,
        now: Callable[[], Moment] = moment,
    ) -> None:
        self.api = Api(base_url, patience, timeout)
        self.store: Store = store if store is not None else MemoryStore()
        self.on_signed_out = on_signed_out
        self.on_refreshed = on_refreshed
        self._device = device
        self._now = now
        self._lock = threading.RLock()  # the state
        self._refreshing = threading.Lock()  # one refresh
        self._token: Token | None = None
        self._id = ""
        self._ended = False  # nothing is taken up again without a sign-in
        self._flights: dict[asyncio.AbstractEventLoop, asyncio.Task[Token]] = {}

    def __repr__(self) -> str:
        return f"<Session {self._id or 'without tokens'} at {self.base_url}>"

    @property
    def base_url(self) -> str:
        return self.api.base_url

    @property
    def id(self) -> str:
        """The session's id, "" while it is not known."""
        return self._id

    @property
    def signed_in(self) -> bool:
        return not self._ended and (self._token is not None or self.store.load() is not None)

    # --- in and out ---

    def login(self, username: str, password: str, device: str | None = None) -> None:
        """Begin a session. Raises InvalidCredentials, TooManyAttempts, Unavailable, Refused."""
        content = {"username": username, "password": password}
        name = self._device if device is None else device
        if name:
            content["device"] = name
        answer = self.api.call("POST", "/auth/login", content)
        if answer.status != 200:
            raise refusal(answer)
        with self._refreshing, self.store.lock():
            self._take(answer.content)

    def logout(self) -> None:
        """End the session, here in any case. Raises Unavailable where the gateway could not be told."""
        with self._lock:
            refresh_token = self.store.load()
            token = self._token.value if self._token else ""
            self._forget()
        if not refresh_token and not token:
            return
        self._tell_signed_out("logout")
        content = {"refresh_token": refresh_token} if refresh_token else {}
        answer = self.api.call("POST", "/auth/logout", content, token)
        if answer.status not in (204, 401) and answer.error != "invalid_grant":
            raise refusal(answer)

    def sessions(self) -> list[SessionInfo]:
        """Return the user's sessions. Raises SignedOut, NotSignedIn, Unavailable."""
        found = self._ask("GET", "/auth/sessions")["sessions"]
        return [SessionInfo(**{name: each[name] for name in SessionInfo.__slots__}) for each in found]

    def end(self, session_id: str) -> None:
        """End one of the user's sessions. Raises Refused (404) for one that is not."""
        self._ask("DELETE", f"/auth/sessions/{quote(session_id, safe='')}")
        if session_id == self._id and self._forget():
            self._tell_signed_out("logout")

    def end_all(self, *, except_current: bool = False) -> None:
        """Sign out everywhere, or everywhere else."""
        self._ask("DELETE", "/auth/sessions?except=current" if except_current else "/auth/sessions")
        if not except_current and self._forget():
            self._tell_signed_out("logout")

    # --- tokens ---

    def token(self) -> Token:
        """Return a token that is not about to expire. Raises NotSignedIn, SignedOut, Unavailable."""
        token = self._token
        if token is not None and not self._is_old(token):
            return token
        try:
            return self.refresh(token)
        except Unavailable:
            if token is not None and self._left(token) > 0:  # it is good for a while yet
                return token
            raise

    def refresh(self, old: Token | None = _ANY) -> Token:
        """Return another token than `old`, a new one in any case without it. Whoever asks meanwhile waits for the same.

        Raises SignedOut where the session has ended, NotSignedIn where there was none, Unavailable.
        """
        with self._refreshing:
            token = self._token
            if token is not None and old is not _ANY and token is not old:
                return token
            with self.store.lock():
                found = self._refresh()
        if isinstance(found, SignedOut):
            self._tell_signed_out(found.reason)
            raise found
        if self.on_refreshed is not None:
            self.on_refreshed()
        return found

    async def token_async(self) -> Token:
        """The same as `token`, without blocking the event loop."""
        token = self._token
        if token is not None and not self._is_old(token):
            return token
        try:
            return await self.refresh_async(token)
        except Unavailable:
            if token is not None and self._left(token) > 0:
                return token
            raise

    async def refresh_async(self, old: Token | None = _ANY) -> Token:
        """The same as `refresh`; tasks of one loop share one thread."""
        token = self._token
        if token is not None and old is not _ANY and token is not old:
            return token
        loop = asyncio.get_running_loop()
        flight = self._flights.get(loop)
        if flight is None:
            flight = self._flights[loop] = loop.create_task(asyncio.to_thread(self.refresh, old))
            flight.add_done_callback(lambda _: self._flights.pop(loop, None))
        return await asyncio.shield(flight)

    def revoked(self, token: Token) -> None:
        """The gateway has said `revoked_token` to a request with this token."""
        with self._lock:
            ended = token is self._token and self._forget()
        if ended:
            self._tell_signed_out("revoked")

    def _refresh(self) -> Token | SignedOut:
        refresh_token = None if self._ended else self.store.load()
        if refresh_token is None:
            raise NotSignedIn
        answer = self.api.call("POST", "/auth/token", {"grant_type": "refresh_token", "refresh_token": refresh_token})
        if answer.error in ("invalid_grant", "revoked_token") and self._forget():
            return SignedOut("session_ended")
        if self._ended:  # signed out while the answer was on its way
            raise SignedOut("logout")
        if answer.status != 200:
            raise refusal(answer)
        return self._take(answer.content)

    def _take(self, said: Any) -> Token:
        with self._lock:
            self.store.save(said["refresh_token"])
            self._id, self._ended = said["session_id"], False
            self._token = token = Token(said["access_token"], float(said["expires_in"]), self._now())
            return token

    def _forget(self) -> bool:
        """Be signed out; tell whether that is news."""
        with self._lock:
            news = not self._ended
            self._ended, self._token, self._id = True, None, ""
            self.store.clear()
            return news

    def _tell_signed_out(self, reason: str) -> None:
        """Call the application; never with a lock held, for it may sign in again."""
        if self.on_signed_out is not None:
            self.on_signed_out(reason)

    def _left(self, token: Token) -> float:
        return token.life - age(token.since, self._now())

    def _is_old(self, token: Token) -> bool:
        return self._left(token) <= min(_AHEAD, _AHEAD_SHARE * token.life)

    def _ask(self, method: str, path: str) -> Any:
        """Call the gateway's API with a token, and once more where it has expired."""
        token = self.token()
        answer = self.api.call(method, path, token=token.value)
        if answer.error == "expired_token":
            token = self.refresh(token)
            answer = self.api.call(method, path, token=token.value)
        if answer.error == "revoked_token":
            self.revoked(token)
            raise SignedOut("revoked")
        if answer.status >= 400:
            raise refusal(answer)
        return answer.content
