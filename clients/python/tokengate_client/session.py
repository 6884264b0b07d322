"""A session at the gateway: sign in, tokens that are good, sign out. One for all threads and tasks of a program.

Laws:
- One refresh at a time, over all threads, tasks and processes that share a store.
- Only the gateway's word signs out: `invalid_grant` to a refresh, or `revoked_token` to a request. An outage does not.
- Signed out is told once for each sign-in.
- The old refresh token is kept until the new one is: an answer that was lost can be asked for again.
- A store that fails ends nothing: what is in memory goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tokengate_client.api import Answer, Api, Rules, is_tokens, refusal
from tokengate_client.clock import Moment, age, moment
from tokengate_client.errors import NotSignedIn, SignedOut, StorageFailed, TokengateError, Unavailable
from tokengate_client.kept import Kept
from tokengate_client.stores import MemoryStore, Store

_AHEAD = 30.0  # seconds before its end from which on a token is refreshed
_AHEAD_SHARE = 0.2  # or this share of its life, whichever is less
_SETTLED = 30.0  # seconds from which on another token may be good where this one is called invalid
_SETTLED_SHARE = 0.5  # or from this share of its life, whichever is less


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """An access token. `life` is in seconds, `since` when it came; `refresh_token` is the one that came with it."""

    value: str = field(repr=False)
    life: float
    since: Moment
    refresh_token: str = field(repr=False)


_log = logging.getLogger("tokengate_client")
_LOGIN = Rules(is_tokens, repeat=False, text=Unavailable.away)  # a try may count, and a lost answer left a session
_REFRESH = Rules(is_tokens)
_LOGOUT = Rules(text=Unavailable.out_here)
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
    are called in the thread that found out; what they raise is logged. Raises ValueError for a `base_url` that is none.
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
        self._kept = Kept(store if store is not None else MemoryStore())
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
    def store(self) -> Store:
        return self._kept.store

    @property
    def id(self) -> str:
        """The session's id, "" while it is not known."""
        return self._id

    @property
    def signed_in(self) -> bool:
        return not self._ended and (self._token is not None or self._kept.load() is not None)

    # --- in and out ---

    def login(self, username: str, password: str, device: str | None = None) -> None:
        """Begin a session. Raises InvalidCredentials, TooManyAttempts, Unavailable, StorageFailed, Refused."""
        content = {"username": username, "password": password}
        name = self._device if device is None else device
        if name:
            content["device"] = name
        answer = self.api.call("POST", "/auth/login", content, rules=_LOGIN)
        if answer.status != 200:
            raise refusal(answer)
        with self._refreshing, self._kept.lock():
            try:
                self._kept.save(answer.content["refresh_token"])
            except StorageFailed:
                self._give_up(answer)
                raise
            with self._lock:
                self._take(answer)

    def _give_up(self, answer: Answer) -> None:
        """End a session that has not begun, as far as the gateway can be told."""
        with contextlib.suppress(TokengateError):
            self.api.call("POST", "/auth/logout", {"refresh_token": answer.content["refresh_token"]})

    def logout(self) -> None:
        """End the session, here in any case. Raises Unavailable where the gateway could not be told."""
        with self._lock:
            refresh_token = self._kept.load() or (self._token.refresh_token if self._token else None)
            token = self._token.value if self._token else ""
            self._end()
        if not refresh_token and not token:
            return
        self._tell_signed_out("logout")
        content = {"refresh_token": refresh_token} if refresh_token else {}
        answer = self.api.call("POST", "/auth/logout", content, token, _LOGOUT)
        if answer.status not in (204, 401) and answer.error != "invalid_grant":
            raise refusal(answer)

    def sessions(self) -> list[SessionInfo]:
        """Return the user's sessions. Raises SignedOut, NotSignedIn, Unavailable."""
        found = self._ask("GET", "/auth/sessions")["sessions"]
        return [SessionInfo(**{name: each[name] for name in SessionInfo.__slots__}) for each in found]

    def end(self, session_id: str) -> None:
        """End one of the user's sessions. Raises Refused (404) for one that is not."""
        self._ask("DELETE", f"/auth/sessions/{quote(session_id, safe='')}")
        if session_id == self._id and self._end():
            self._tell_signed_out("logout")

    def end_all(self, *, except_current: bool = False) -> None:
        """Sign out everywhere, or everywhere else."""
        self._ask("DELETE", "/auth/sessions?except=current" if except_current else "/auth/sessions")
        if not except_current and self._end():
            self._tell_signed_out("logout")

    # --- tokens ---

    def token(self) -> Token:
        """Return a token that is not about to expire. Raises NotSignedIn, SignedOut, Unavailable."""
        token = self._token
        if token is not None and not self._is_old(token):
            return token
        try:
            return self.refresh(token)
        except TokengateError:
            if token is not None and self._still(token):
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
            with self._kept.lock():
                found = self._refresh()
        if isinstance(found, SignedOut):
            self._tell_signed_out(found.reason)
            raise found
        if self.on_refreshed is not None:
            _tell(self.on_refreshed)
        return found

    async def token_async(self) -> Token:
        """The same as `token`, without blocking the event loop."""
        token = self._token
        if token is not None and not self._is_old(token):
            return token
        try:
            return await self.refresh_async(token)
        except TokengateError:
            if token is not None and self._still(token):
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
            flight.add_done_callback(self._landed)
        return await asyncio.shield(flight)

    def _landed(self, flight: asyncio.Task[Token]) -> None:
        self._flights.pop(flight.get_loop(), None)
        if not flight.cancelled():
            flight.exception()  # looked at, for all who waited may have gone

    def is_stale(self, code: str, token: Token) -> bool:
        """Tell whether another token may be good where this one was refused with a code of the gateway's.

        It has expired, or it is one of an earlier key that was removed (RFC 6750 3.1). Where new tokens are refused
        too, not every request is to ask for one more.
        """
        if code != "invalid_token":
            return code == "expired_token"
        return age(token.since, self._now()) >= min(_SETTLED, _SETTLED_SHARE * token.life)

    def revoked(self, token: Token) -> None:
        """The gateway has said `revoked_token` to a request with this token."""
        with self._lock:
            if token is not self._token:
                return
            if self._kept.news() is not None:  # of another process, which may have signed in since
                self._token = None
                return
            self._end()
        self._tell_signed_out("revoked")

    def _refresh(self) -> Token | SignedOut:
        refresh_token = self._refresh_token()
        content = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        answer = self.api.call("POST", "/auth/token", content, rules=_REFRESH)
        with self._lock:
            if self._ended:  # signed out while the answer was on its way
                raise SignedOut("logout")
            if answer.error in ("invalid_grant", "revoked_token"):
                self._end()
                return SignedOut("session_ended")
            if answer.status != 200:
                raise refusal(answer)
            try:
                self._kept.save(answer.content["refresh_token"])
            except StorageFailed as error:
                _log.warning("the session will not outlive this process", exc_info=error)
            return self._take(answer)

    def _refresh_token(self) -> str:
        """Return the newest there is: another process's, or the one in memory. Raises NotSignedIn."""
        token = self._token
        if self._ended:
            raise NotSignedIn
        found = self._kept.news() or (token.refresh_token if token is not None else self._kept.load())
        if found is None:
            raise NotSignedIn
        return found

    def _take(self, answer: Answer) -> Token:
        said = answer.content
        token = Token(said["access_token"], float(said["expires_in"]), self._now(), said["refresh_token"])
        self._id, self._ended, self._token = said["session_id"], False, token
        return token

    def _end(self) -> bool:
        """Be signed out; tell whether that is news."""
        with self._lock:
            news = not self._ended
            self._ended, self._token, self._id = True, None, ""
            self._kept.clear()
            return news

    def _tell_signed_out(self, reason: str) -> None:
        """Call the application; never with a lock held, for it may sign in again."""
        if self.on_signed_out is not None:
            _tell(self.on_signed_out, reason)

    def _still(self, token: Token) -> bool:
        """Tell whether a token goes on being good for a while though a refresh has failed."""
        return token is self._token and self._left(token) > 0

    def _left(self, token: Token) -> float:
        return token.life - age(token.since, self._now())

    def _is_old(self, token: Token) -> bool:
        return self._left(token) <= min(_AHEAD, _AHEAD_SHARE * token.life)

    def _ask(self, method: str, path: str) -> Any:
        """Call the gateway's API with a token, and once more with another where it has become stale."""
        token = self.token()
        answer = self.api.call(method, path, token=token.value)
        if self.is_stale(answer.error, token):
            token = self.refresh(token)
            answer = self.api.call(method, path, token=token.value)
        if answer.error == "revoked_token":
            self.revoked(token)
            raise SignedOut("revoked")
        if answer.status >= 400:
            raise refusal(answer)
        return answer.content


def _tell(callback: Callable[..., object], *words: str) -> None:
    """Call the application; its own errors are not those of the request that found out."""
    try:
        callback(*words)
    except Exception:
        _log.exception("a callback has raised")
