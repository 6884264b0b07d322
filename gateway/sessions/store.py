"""The store: what changes sessions, one Lua script an operation, atomic.

Laws: every key ends with what it stands for. A session that has ended leaves nothing behind and never
comes back, also where Redis itself goes back (epochs.py). Nothing but StoreUnavailable comes out of it when
Redis does not answer, and then nobody knows whether the operation took place: asking again is safe for all of
them. Whatever says that something is over is said when as many replicas as are asked for have it (WAIT).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from gateway.errors import StoreUnavailable
from gateway.sessions import record
from gateway.sessions.epochs import Epochs
from gateway.sessions.keyspace import Keyspace, is_session_id, new_session_id, partition
from gateway.sessions.record import NewIdentity, NewSession, Session
from gateway.sessions.scripts import Argument, Script, milliseconds
from gateway.tokens.rotation import Outcome

__all__ = ["NewIdentity", "NewSession", "Rotation", "Session", "SessionPolicy", "SessionStore", "Unconfirmed"]

_MAX_END = 2**53 - 1  # ms; the greatest that a Lua number holds exactly
_MAX_ID = 512  # characters of the id of a token or subject of another maker

Sessions = list[Session]  # the class below has a method named list
SessionIds = list[str]


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How long sessions live, in seconds; 0 = never for the two ends. `max_sessions` 0 = no cap."""

    refresh_ttl: float
    session_ttl: float
    grace: float
    max_sessions: int
    leeway: float
    access_ttl: float

    def __post_init__(self) -> None:
        for name in ("refresh_ttl", "session_ttl"):
            value = getattr(self, name)
            if value and not value >= 1:
                raise ValueError(f"{name} must be 0 or at least one second")
        for name in ("grace", "max_sessions", "leeway"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a refresh came to. `session` is the session after it, or what it was where it is over."""

    outcome: Outcome
    session: Session | None


_CREATE, _GET, _LIST = Script("create"), Script("get"), Script("list")
_ROTATE, _MARK_USED = Script("rotate"), Script("mark_used")
_END, _END_ALL = Script("end"), Script("end_all")
_REVOKE_TOKEN, _NOT_BEFORE, _ATTEMPT = Script("revoke_token"), Script("not_before"), Script("attempt")


class Unconfirmed(StoreUnavailable):
    """Something has ended, and too few replicas are known to have it; asked again, it is waited for anew.

    `done` is what the operation would have returned.
    """

    def __init__(self, reason: str, done: Any = None) -> None:
        super().__init__(reason)
        self.done = done


class SessionStore:
    """Sessions under one prefix of one Redis.

    `timeout` bounds every operation, in seconds; with `wait_replicas` what ends something may take it twice, and
    raises Unconfirmed where too few replicas acknowledge it.
    `clock` returns Unix seconds and takes the place of the time of Redis; it is for tests. `observe` is told
    each operation and the seconds it took, also where it failed. `epochs` is what the process knows of them, one
    for the store and the live checks; without it the store has its own. `is_down(digit)` tells whether Redis is known
    not to answer for a partition: the store then refuses at once, rather than try to connect for each operation.
    """

    def __init__(
        self,
        client: Redis,
        prefix: str,
        policy: SessionPolicy,
        timeout: float,
        wait_replicas: int = 0,
        clock: Callable[[], float] | None = None,
        observe: Callable[[str, float], None] | None = None,
        epochs: Epochs | None = None,
        is_down: Callable[[str], bool] | None = None,
    ) -> None:
        self._client: Any = client  # redis-py types a reply as a union of awaitable and not
        self._keys = Keyspace(prefix)
        self._policy = policy
        self._timeout = timeout
        self._wait_replicas = wait_replicas
        self._clock = clock
        self._observe = observe
        self._is_down = is_down
        self.epochs = epochs or Epochs(client, prefix, timeout, clock)

    async def create(self, new: NewSession) -> Session:
        """Begin a session. It ends the user's session on the same device, and the least recently used over the cap.

        Raises ValueError for a subject, device or claims that do not fit (record.py), StoreUnavailable.
        """
        record.check_subject(new.subject)
        session_id, keys, digit = new_session_id(new.subject), self._keys, partition(new.subject)
        policy = self._policy
        reply = await self._run(
            _CREATE,
            digit,
            [keys.session(session_id), keys.epoch(digit), keys.user(new.subject), keys.sessions(digit)],
            [
                session_id,
                new.subject,
                record.client_part(new),
                record.device_start(new.device),
                record.identity_part(new),
                milliseconds(policy.refresh_ttl),
                milliseconds(policy.session_ttl),
                policy.max_sessions,
            ],
        )
        session = self._parse(session_id, _item(reply, 0))
        if session is None:
            raise StoreUnavailable("create: malformed reply")
        if _items(_item(reply, 1)):
            await self._replicated(digit, session)
        return session

    async def get(self, session_id: str) -> Session | None:
        if not is_session_id(session_id):
            return None
        digit, keys = session_id[0], self._keys
        reply = await self._run(_GET, digit, [keys.session(session_id), keys.epoch(digit)], [])
        return self._parse(session_id, _item(reply, 0))

    async def rotate(self, session_id: str, counter: int, *, refreshed: NewIdentity | None = None) -> Rotation:
        """Present the refresh token of `counter`: the table of tokens/rotation.py.

        `refreshed` is what a recheck of the user brought; it is stored where the refresh is served.
        """
        if not is_session_id(session_id):
            return Rotation(Outcome.UNKNOWN, None)
        policy = self._policy
        reply = await self._run(
            _ROTATE,
            session_id[0],
            self._own_keys(session_id),
            [
                session_id,
                counter,
                milliseconds(policy.grace),
                milliseconds(policy.refresh_ttl),
                milliseconds(policy.session_ttl),
                record.identity_part(refreshed) if refreshed else b"",
            ],
        )
        outcome, session = _outcome(_item(reply, 0)), self._parse(session_id, _item(reply, 1))
        if session is None and outcome in (Outcome.ROTATED, Outcome.REPLAYED):
            raise StoreUnavailable("rotate: malformed reply")
        rotation = Rotation(outcome, session)
        if outcome not in (Outcome.ROTATED, Outcome.REPLAYED):  # an unknown session may have ended a moment ago
            await self._replicated(session_id[0], rotation)
        return rotation

    async def mark_used(self, session_id: str, counter: int) -> None:
        """Note that an access token minted with `counter` was seen: its predecessor's grace begins."""
        if is_session_id(session_id):
            digit, keys = session_id[0], self._keys
            await self._run(_MARK_USED, digit, [keys.session(session_id), keys.epoch(digit)], [counter])

    async def list(self, subject: str) -> Sessions:
        """Return the user's sessions, the most recently used first."""
        keys, digit = self._keys, partition(subject)
        reply = await self._run(_LIST, digit, [keys.user(subject), keys.epoch(digit), keys.sessions(digit)], [])
        items = _items(_item(reply, 0))
        parsed = (self._parse(_ascii(sid), text) for sid, text in zip(items[::2], items[1::2], strict=False))
        return sorted((session for session in parsed if session), key=_recency, reverse=True)

    async def end(self, session_id: str) -> bool:
        """End a session; True if it was alive. Once this has returned, no replica lets its tokens through."""
        if not is_session_id(session_id):
            return False
        reply = await self._run(_END, session_id[0], self._own_keys(session_id), [session_id])
        was_alive = _number(_item(reply, 0)) == 1
        await self._replicated(session_id[0], was_alive)
        return was_alive

    async def end_all(self, subject: str, keep: str = "") -> SessionIds:
        """End all sessions of a user, or all but `keep`; the ids of those that were alive."""
        keys, digit = self._keys, partition(subject)
        reply = await self._run(
            _END_ALL,
            digit,
            [keys.user(subject), keys.epoch(digit), keys.sessions(digit)],
            [keep.encode("utf-8", "replace")],
        )
        ended = [_ascii(sid) for sid in _items(_item(reply, 0))]
        await self._replicated(digit, ended)
        return ended

    async def revoke_token(self, token_id: str, expires_at: int) -> bool:
        """Put a token on the blacklist until its `exp` (Unix seconds) and the leeway have passed; True if that is news.

        Raises ValueError for an id that no token here may have.
        """
        _check_foreign("a token id", token_id)
        until = min(milliseconds(min(expires_at, _MAX_END) + self._policy.leeway), _MAX_END)
        digit, keys = self._keys.digit(token_id), self._keys
        reply = await self._run(_REVOKE_TOKEN, digit, [keys.revoked(token_id), keys.epoch(digit)], [until])
        is_new = _number(_item(reply, 0)) == 1
        await self._replicated(digit, is_new)
        return is_new

    async def set_not_before(self, subject_id: str, moment: int, life: float) -> None:
        """Void the tokens that another issuer gave a subject at `moment` (Unix seconds) or earlier.

        `life` is for how many seconds the latest of them may yet be valid. A later moment is never lowered. Raises
        ValueError for a subject, moment or life that is none, StoreUnavailable.
        """
        _check_foreign("a subject id", subject_id)
        if not (0 <= moment <= _MAX_END and 0 < life <= _MAX_END / 1000):
            raise ValueError("the moment and the life must be seconds, not negative, the life more than none")
        digit, keys = self._keys.digit(subject_id), self._keys
        arguments = [moment, max(1, milliseconds(life))]
        await self._run(_NOT_BEFORE, digit, [keys.not_before(subject_id), keys.epoch(digit)], arguments)
        await self._replicated(digit)

    async def attempt(self, kind: str, who: str, per_minute: int) -> float:
        """Count an attempt of `who`; 0 if it is allowed, else the seconds until one is. `per_minute` 0 = no limit."""
        if per_minute <= 0:
            return 0.0
        keys = [self._keys.attempt(kind, who)]
        self._refuse_if_down(_ATTEMPT.name, self._keys.attempt_digit(kind, who))
        async with self._answering(_ATTEMPT.name):
            reply = await _ATTEMPT.run(self._client, keys, [self._now(), per_minute])
        return _number(reply) / 1_000_000

    async def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers."""
        async with self._answering("ping"):
            await self._client.ping()

    async def close(self) -> None:
        async with self._answering("close"):
            await self._client.aclose()

    def _own_keys(self, session_id: str) -> Sequence[bytes]:
        keys, digit = self._keys, session_id[0]
        return keys.session(session_id), keys.epoch(digit), keys.users(digit)

    def _parse(self, session_id: str, text: Any) -> Session | None:
        return record.parse(session_id, text, self._policy.session_ttl)

    def _now(self) -> Argument:
        return "" if self._clock is None else milliseconds(self._clock())

    async def _run(
        self, script: Script, digit: str, keys: Sequence[bytes], arguments: Sequence[Argument]
    ) -> Sequence[Any]:
        """Run a script in its partition's epoch; return what it says beside that."""
        self._refuse_if_down(script.name, digit)
        async with self._answering(script.name):
            reply = await script.run(self._client, keys, [self._now(), self.epochs.known(digit), *arguments])
        return self.epochs.take(digit, reply)

    async def _replicated(self, digit: str, done: Any = None) -> None:
        """Wait until replicas hold what was written, as far as is asked for (WAIT). Raises Unconfirmed with `done`."""
        if not self._wait_replicas:
            return
        try:
            await self._pass_fence(digit)
        except StoreUnavailable as error:
            raise Unconfirmed(error.reason, done) from error

    async def _pass_fence(self, digit: str) -> None:
        """Write a key and wait for replicas that have it. Raises StoreUnavailable.

        WAIT speaks for the writes of its own connection alone. The fence is such a write; replicas that
        have it have all that came before it, also where an earlier try had written already.
        """
        self._refuse_if_down("wait", digit)
        wait = max(1, int(self._timeout * 800))
        async with self._answering("wait"), self._client.pipeline(transaction=False) as pipe:
            pipe.set(self._keys.fence(digit), b"1", px=wait)
            pipe.wait(self._wait_replicas, wait)
            reply = await pipe.execute()
        if _number(_item(reply, 1)) < self._wait_replicas:
            raise StoreUnavailable("wait: too few replicas have acknowledged")

    def _refuse_if_down(self, operation: str, digit: str) -> None:
        if self._is_down is not None and self._is_down(digit):
            raise StoreUnavailable(f"{operation}: Redis is known not to answer")

    @asynccontextmanager
    async def _answering(self, operation: str) -> AsyncIterator[None]:
        """Translate whatever goes wrong in asking Redis; the one edge where foreign exceptions end.

        Exception, not RedisError: redis-py meets a reply that no Redis sends with whatever comes of it.
        """
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except Exception as error:
            raise StoreUnavailable(f"{operation}: {type(error).__name__}: {error}"[:200]) from error
        finally:
            if self._observe is not None:
                self._observe(operation, time.perf_counter() - begun)


def _recency(session: Session) -> tuple[int, int]:
    return session.last_used_at, session.created_at


def _outcome(value: Any) -> Outcome:
    try:
        return Outcome(_ascii(value))
    except ValueError as error:
        raise StoreUnavailable("malformed reply") from error


def _item(reply: Any, position: int) -> Any:
    items = _items(reply)
    if len(items) <= position:
        raise StoreUnavailable("malformed reply")
    return items[position]


def _items(reply: Any) -> list[Any]:
    if not isinstance(reply, list):
        raise StoreUnavailable("malformed reply")
    return reply


def _ascii(value: Any) -> str:
    if not isinstance(value, bytes) or not value.isascii():
        raise StoreUnavailable("malformed reply")
    return value.decode("ascii")


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise StoreUnavailable("malformed reply")
    return value


def _check_foreign(what: str, identifier: str) -> None:
    if not 0 < len(identifier) <= _MAX_ID:
        raise ValueError(f"{what} must be 1 to {_MAX_ID} characters")
