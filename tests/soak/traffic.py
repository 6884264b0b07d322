"""What the clients of a soak do: sign in, ask, refresh, end sessions, and break connections off.

The model knows which sessions live. A session is used by one client at a time, so that every answer has
exactly one right status; what several do to one session at once is the business of tests/races.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.e2e.harness import ADMIN_TOKEN, PASSWORD
from tests.e2e.wire import json_request, request
from tests.soak.client import Link, Reply

CLIENTS = 48
SMALL, LARGE = "/app/small", "/files/large"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. Sessions are spread over `users`."""

    sessions: int
    requests: int
    refreshes: int
    revokes: int
    drops: int
    users: int

    def scaled(self, factor: float) -> Plan:
        values = (getattr(self, name) for name in self.__slots__)
        return Plan(*(max(1, round(value * factor)) for value in values))


WHOLE = Plan(sessions=100_000, requests=1_000_000, refreshes=20_000, revokes=5_000, drops=5_000, users=2_000)


@dataclass(slots=True)
class Held:
    """A session as its client knows it."""

    id: str
    access: str
    refresh: str
    alive: bool = True


@dataclass
class Traffic:
    """The load on some replicas. `ports` and `management` are theirs."""

    plan: Plan
    ports: Sequence[int]
    management: Sequence[int]
    seed: int = 1
    sessions: list[Held] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    dropped: int = 0
    progress: Callable[[float], None] = lambda done: None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._free: list[Held] = []

    async def sign_in(self) -> None:
        """Make all sessions."""
        todo = iter(range(self.plan.sessions))
        await asyncio.gather(*(self._signing_in(todo, number) for number in range(CLIENTS)))
        self._free = list(self.sessions)

    async def run(self) -> None:
        """Do everything else, in an order that the seed settles."""
        plan = self.plan
        acts = ["request"] * plan.requests + ["refresh"] * plan.refreshes
        acts += ["revoke"] * plan.revokes + ["drop"] * plan.drops
        self.random.shuffle(acts)
        total, todo = len(acts), iter(acts)
        await asyncio.gather(*(self._client(todo, number, total) for number in range(CLIENTS)))

    @property
    def alive(self) -> int:
        return sum(held.alive for held in self.sessions)

    async def _signing_in(self, todo: Iterator[int], number: int) -> None:
        link = await Link.open(self.ports[number % len(self.ports)])
        for turn in todo:  # shared by all clients
            content = {"username": f"user-{turn % self.plan.users}", "password": PASSWORD, "device": f"device {turn}"}
            reply = await link.ask(json_request("POST", "/auth/login", content))
            self._count("login", reply, 200)
            if reply.status == 200:
                said = json.loads(reply.body)
                self.sessions.append(Held(said["session_id"], said["access_token"], said["refresh_token"]))
        await link.close()

    async def _client(self, todo: Iterator[str], number: int, total: int) -> None:
        link = await Link.open(self.ports[number % len(self.ports)])
        for act in todo:
            if link.lost or self.random.random() < 0.001:  # a client that comes back on a new connection
                await link.close()
                link = await Link.open(self.random.choice(self.ports))
            held = self._take()
            try:
                await getattr(self, f"_{act}")(link, held)
            except (ConnectionError, TimeoutError) as error:
                self.wrong.append(f"{act}: {type(error).__name__} {error}")
                await link.close()
            self._free.append(held)
            done = sum(self.answers.values()) - self.plan.sessions + self.dropped
            if done % max(1, total // 20) == 0:
                self.progress(done / total)
        await link.close()

    def _take(self) -> Held:
        at = self.random.randrange(len(self._free))
        self._free[at], self._free[-1] = self._free[-1], self._free[at]
        return self._free.pop()

    async def _request(self, link: Link, held: Held) -> None:
        reply = await link.ask(request("GET", SMALL, token=held.access))
        self._count("request", reply, 200 if held.alive else 401)
        if not held.alive and b"x-gateway-error: revoked_token" not in reply.head:
            self.wrong.append(f"request of an ended session: {reply.head!r}")

    async def _refresh(self, link: Link, held: Held) -> None:
        content = {"grant_type": "refresh_token", "refresh_token": held.refresh}
        reply = await link.ask(json_request("POST", "/auth/token", content))
        self._count("refresh", reply, 200 if held.alive else 400)
        if reply.status == 200:
            said = json.loads(reply.body)
            held.access, held.refresh = said["access_token"], said["refresh_token"]

    async def _revoke(self, link: Link, held: Held) -> None:
        """End the session in one of the ways there are, then ask another replica."""
        ways = (
            request("POST", "/auth/logout", body=b"", token=held.access),
            request("DELETE", f"/auth/sessions/{held.id}", token=held.access),
            request("POST", "/auth/revoke", FORM, b"token=" + held.refresh.encode()),
        )
        if not held.alive:
            await self._request(link, held)
            return
        way = self.random.randrange(len(ways) + 1)
        if way == len(ways):
            operator = await Link.open(self.random.choice(self.management))
            reply = await operator.ask(request("DELETE", f"/admin/sessions/{held.id}", token=ADMIN_TOKEN))
            await operator.close()
        else:
            reply = await link.ask(ways[way])
        held.alive = False
        self._count("revoke", reply, 200 if way == 2 else 204)
        other = await Link.open(self.random.choice(self.ports))
        await self._request(other, held)
        await other.close()

    async def _drop(self, link: Link, held: Held) -> None:
        """Break off: before the head is whole, within a body, or without waiting for the answer."""
        broken = await Link.open(self.random.choice(self.ports))
        data = self.random.choice(
            (
                request("GET", SMALL, token=held.access)[:-2],
                request("POST", SMALL, {"Content-Length": "1000"}, token=held.access) + b"abc",
                request("GET", LARGE, token=held.access),
            )
        )
        broken.transport.write(data)
        await asyncio.sleep(self.random.choice((0, 0.001, 0.01)))  # not to wait for anything: to break off anywhere
        await broken.close()
        self.dropped += 1

    def _count(self, act: str, reply: Reply, wanted: int) -> None:
        self.answers[f"{act} {reply.status}"] += 1
        if reply.status != wanted:
            self.wrong.append(f"{act}: {reply.status} where {wanted} is due: {reply.head!r} {reply.body[:200]!r}")
