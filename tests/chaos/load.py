"""The clients: each does one thing over and over, at its own replica, on a connection that it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine
from typing import Any

from tests.chaos.client import PATIENCE, Http, Reply
from tests.chaos.ledger import ENDED, LIVE, LOGIN, LOGOUT, OPEN, REFRESH, RENEW, UNAVAILABLE, Ledger
from tests.chaos.servers import PASSWORD as STORE_PASSWORD
from tests.chaos.sessions import USERS, Held, Sessions, expired_token, held
from tests.chaos.world import World
from tests.e2e.harness import PASSWORD
from tests.e2e.wire import json_request, request
from tests.redis_server import RedisServer

PAUSE = 0.02  # seconds between two requests of a client
SLOW_PAUSE = 0.06  # of those that write
COOKIE = "__Secure-refresh"


class Load:
    """All clients of a run; `stop` ends them between two requests."""

    def __init__(self, world: World, store: RedisServer, sessions: Sessions, ledger: Ledger) -> None:
        self._world = world
        self._store = store
        self._sessions = sessions
        self._ledger = ledger
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._world.thread.run(self._start())

    def stop(self) -> None:
        self._stopping = True
        self._world.thread.run(self._stop())

    async def _start(self) -> None:
        self._tasks.append(asyncio.ensure_future(self._watch_store()))
        for replica in range(len(self._world.gateways)):
            for each in (self._live, self._live, self._ended, self._open, self._refresh, self._renew, self._change):
                self._tasks.append(asyncio.ensure_future(each(replica)))

    async def _stop(self) -> None:
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def _watch_store(self) -> None:
        """Ask Redis itself, past every gateway, and note how long it takes: that much is the machine's doing."""
        with contextlib.suppress(OSError, EOFError):  # where the fault ends it, nobody asks for this any more
            reader, writer = await asyncio.open_unix_connection(self._store.socket_path)
            try:
                writer.write(b"AUTH %b\r\n" % STORE_PASSWORD.encode())
                while not self._stopping:
                    begun = time.monotonic()
                    await asyncio.wait_for(reader.readline(), PATIENCE)
                    self._ledger.pings.append((begun, time.monotonic() - begun))
                    await asyncio.sleep(PAUSE)
                    writer.write(b"PING\r\n")
            finally:
                writer.close()

    def _client(self, replica: int) -> Http:
        return Http(self._world.gateways[replica].port)

    async def _ask(self, http: Http, replica: int, role: str, data: bytes, pause: float = PAUSE) -> Reply:
        reply = await http.ask(data)
        self._ledger.note(replica, role, reply)
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        return reply

    async def _over(self, replica: int, role: str, held: list[Held], turn: int = 0) -> None:
        """Present the access tokens of these sessions in turn."""
        http = self._client(replica)
        while not self._stopping:
            turn += 1
            await self._ask(http, replica, role, held[turn % len(held)].guarded)
        http.close()

    def _live(self, replica: int) -> Coroutine[Any, Any, None]:
        return self._over(replica, LIVE, self._sessions.kept, random.randrange(100))

    async def _ended(self, replica: int) -> None:
        http, turn = self._client(replica), 0
        while not self._stopping:
            void = self._sessions.void
            turn += 1
            await self._ask(http, replica, ENDED, void[turn % len(void)].guarded)
        http.close()

    async def _open(self, replica: int) -> None:
        http = self._client(replica)
        data = request("GET", "/unlive/x", token=self._sessions.kept[0].access)
        while not self._stopping:
            await self._ask(http, replica, OPEN, data)
        http.close()

    async def _refresh(self, replica: int) -> None:
        """Refresh as a browser does: the token comes and goes in the cookie."""
        http, session = self._client(replica), self._sessions.own[replica][0]
        while not self._stopping:
            headers = {"Cookie": f"{COOKIE}={session.refresh}", "Content-Type": "application/x-www-form-urlencoded"}
            data = request("POST", "/auth/token", headers, b"grant_type=refresh_token")
            reply = await self._ask(http, replica, REFRESH, data, SLOW_PAUSE)
            session.refresh = reply.cookie(COOKIE) or session.refresh
        http.close()

    async def _renew(self, replica: int) -> None:
        """Send requests with an expired access token and the refresh cookie."""
        http, session = self._client(replica), self._sessions.own[replica][1]
        expired = expired_token(self._world.site, session)
        while not self._stopping:
            data = request("GET", "/renewing/x", {"Cookie": f"{COOKIE}={session.refresh}"}, token=expired)
            reply = await self._ask(http, replica, RENEW, data, SLOW_PAUSE)
            session.refresh = reply.cookie(COOKIE) or session.refresh
        http.close()

    async def _change(self, replica: int) -> None:
        """Sign in and sign out by turns; once that was confirmed, the session must be refused everywhere."""
        http, turn = self._client(replica), replica
        while not self._stopping:
            turn += 1
            content = {"username": USERS[turn % len(USERS)], "password": PASSWORD}
            reply = await self._ask(http, replica, LOGIN, json_request("POST", "/auth/login", content), SLOW_PAUSE)
            if reply.status == 200:
                self._sessions.stock.append(held(reply.json()))
            stock, ended = self._sessions.stock, self._sessions.ended
            await self._end(http, replica, stock.pop(0) if stock else random.choice(ended))
        http.close()

    async def _end(self, http: Http, replica: int, session: Held) -> None:
        """Sign out; where that is not confirmed, nobody knows, and it is asked for again later."""
        data = request("POST", "/auth/logout", body=b"", token=session.access)
        reply = await self._ask(http, replica, LOGOUT, data, SLOW_PAUSE)
        if reply.status == 204 and session not in self._sessions.ended:
            self._sessions.ended.append(session)
        elif reply.kind == UNAVAILABLE:
            self._sessions.stock.append(session)
