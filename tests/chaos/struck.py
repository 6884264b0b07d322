"""One blow to Redis behind sentinels or to a cluster: sessions begin, some end; load, blow, return; then the laws."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.chaos import ledger as kinds
from tests.chaos.blows import Blow, Ground
from tests.chaos.ledger import LIVE, LOGIN, OPEN, REFRESH, UNAVAILABLE, Ledger
from tests.chaos.load import Load
from tests.chaos.run import MARGIN, NOISE, OPERATIONS
from tests.chaos.servers import until
from tests.chaos.sessions import Held, Sessions, decided
from tests.chaos.world import TIMEOUT, World, straight
from tests.e2e.harness import Gateway
from tests.e2e.wire import ask

LOOK = 1.0  # seconds between two looks at the epochs, at most
BACK_WITHIN = 2.0  # seconds from the moment at which Redis could serve; sentinels and nodes are asked once a second


@dataclass(slots=True)
class Outcome:
    """What a blow came to. Seconds, and numbers of answers; `elsewhere` is of partitions that were not struck."""

    name: str
    requests: int
    kinds: Counter[str]
    accepted: int
    signed_out: int
    lost: int
    elsewhere: tuple[int, int] | None  # answers, and how many of them were 503
    slowest: float
    noise: float
    away: float  # from the blow until Redis could serve
    window: float
    back: float
    unready: bool
    broken: list[str] = field(default_factory=list)


class Clients(Load):
    """The load, and beside it live tokens of partitions that are not struck; what these see has a ledger of its own."""

    def __init__(self, world: World, ground: Ground, sessions: Sessions, ledger: Ledger, elsewhere: Ledger) -> None:
        super().__init__(world, ground.witness, sessions, ledger)
        self._elsewhere = elsewhere

    async def _start(self) -> None:
        await super()._start()
        for replica in range(len(self._world.gateways)):
            self._tasks.append(asyncio.ensure_future(self._watch_others(replica)))

    def _live(self, replica: int) -> Coroutine[Any, Any, None]:
        return self._over(replica, LIVE, self._sessions.kept[::3])  # alice's, whose partition is struck

    async def _watch_others(self, replica: int) -> None:
        http, turn = self._client(replica), replica
        others = self._sessions.kept[1:3]
        while not self._stopping:
            turn += 1
            self._elsewhere.note(replica, LIVE, await http.ask(others[turn % 2].guarded))
            await asyncio.sleep(0.02)
        http.close()


def run(blow: Blow, hold: float) -> Outcome:
    """Do one blow and return what came of it. `hold` is for how long the load goes on after the return, in seconds."""
    with blow.where() as ground, straight(ground.url, blow.settings) as world:
        return _Run(blow, ground, world, hold).outcome()


class _Run:
    def __init__(self, blow: Blow, ground: Ground, world: World, hold: float) -> None:
        self.blow, self.ground, self.world, self.hold = blow, ground, world, hold
        self.ledger, self.elsewhere = Ledger(lossy=blow.lossy), Ledger(lossy=blow.lossy and not blow.clustered)
        self.broken: list[str] = []
        self.unready = False
        self.struck_at = self.returned_at = time.monotonic()
        self.sessions = Sessions.begin(world.gateways)
        self.sessions.end_some(world.gateways)
        blow.prepare(ground)

    def outcome(self) -> Outcome:
        clients = Clients(self.world, self.ground, self.sessions, self.ledger, self.elsewhere)
        clients.start()
        try:
            self._happen()
        except AssertionError as error:  # what does not happen in time is a law broken like any other
            self.broken.append(str(error))
        finally:
            clients.stop()
        lost = self._audit()
        self._laws(lost)
        return self._result(lost)

    def _happen(self) -> None:
        blow = self.blow
        until(lambda: all(self._seen(role) for role in kinds.GOOD), "every client is served")
        self.struck_at = time.monotonic()
        blow.strike(self.ground)
        with ThreadPoolExecutor(1) as beside:
            looked = beside.submit(self._look)
            blow.settle(self.ground)
            self.returned_at = time.monotonic()
            looked.result()
        until(lambda: all(b is not None for b in self._back()), "the service is back")
        blow.after(self.ground)
        time.sleep(self.hold)  # what came back later is asked, if anybody believes it
        for gateway in self.world.gateways:
            gateway.wait_ready()

    def _look(self) -> None:
        """See what /readyz says some time after the blow; /livez is never touched."""
        time.sleep(TIMEOUT + MARGIN)
        for gateway in self.world.gateways:
            self.unready |= gateway.readiness() == 503
            if gateway.operate("GET", "/livez").status != 200:
                self.broken.append("/livez is not 200")

    def _seen(self, role: str) -> bool:
        return all(any(e.is_good for e in self.ledger.of(replica=r, roles=[role])) for r in (0, 1))

    def _back(self) -> list[float | None]:
        # A refresh of a session that was lost may be of one that has just ended: it waits for a replica too.
        roles = (LIVE,) if self.blow.settings else (LIVE, REFRESH, LOGIN)
        return [self.ledger.back_after(r, role, self.returned_at) for r in (0, 1) for role in roles]

    def _audit(self) -> int:
        """Present everything once more, to both replicas; return how many kept sessions are no more."""
        afterwards: Counter[str] = Counter()
        for replica, gateway in enumerate(self.world.gateways):
            for session in self.sessions.void:
                if _guarded(gateway, session) == 200:
                    self.ledger.accepted += 1
                    afterwards[f"{kinds.ENDED}: let in afterwards by replica {replica}"] += 1
        for session in self.sessions.ended:
            if decided(partial(self.world.gateways[0].refresh, session.refresh)).status == 200:
                self.ledger.accepted += 1
                afterwards["an ended session was refreshed afterwards"] += 1
        if not self.blow.splits:
            self.broken += afterwards.elements()
        return sum({_guarded(gateway, each) for gateway in self.world.gateways} != {200} for each in self.sessions.kept)

    def _laws(self, lost: int) -> None:
        blow = self.blow
        if blow.lossy:
            self._law_of_what_was_lost()
        if blow.splits:
            self._forgive()
        self.broken += self.ledger.broken.elements()
        self.broken += [f"another partition: {law}" for law in self.elsewhere.broken.elements()]
        if lost and not blow.lossy:
            self.broken.append(f"{lost} sessions lost")
        if blow.calm or blow.clustered:
            self._law_of_the_others()
        for replica in (0, 1):
            self._law_of_time(replica)
        noise = self._noise()
        for back in self._back():
            if back is None or back > BACK_WITHIN + noise:
                self.broken.append(f"back {back} s after Redis (the machine {noise:.2f} s)")

    def _law_of_what_was_lost(self) -> None:
        """An ending that the new primary lacks counts there once who knows of it has looked, and then the other."""
        late = [e for e in self.ledger.of(roles=[kinds.ENDED]) if e.kind == "200" and e.begun > self._looked_by()]
        if not late:
            self._forgive()

    def _forgive(self) -> None:
        """Take away what is broken where Redis itself has lost what it confirmed; the table counts it all the same."""
        self.ledger.broken = Counter({law: n for law, n in self.ledger.broken.items() if kinds.ENDED not in law})

    def _looked_by(self) -> float:
        """Return when both gateways have compared the new primary with what they knew, and heard from each other."""
        answers = (self.ledger.back_after(replica, LIVE, self.returned_at) for replica in (0, 1))
        return self.returned_at + max(after or 0.0 for after in answers) + LOOK + TIMEOUT + self._noise()

    def _law_of_the_others(self) -> None:
        """Whose partition was not struck is refused nothing, bar what a machine that stands still makes late."""
        refused = [entry for entry in self.elsewhere.of() if entry.kind == UNAVAILABLE]
        stalled = max((seconds for _, seconds in self.ledger.pings), default=0.0)
        if refused and max(stalled, self._noise()) < TIMEOUT / 2:
            self.broken.append(f"{len(refused)} refused though nothing that they need has failed")

    def _law_of_time(self, replica: int) -> None:
        noise = self.ledger.slowest(replica, OPEN)
        if noise > NOISE:
            self.broken.append(f"a route without a live check took {noise:.2f} s")
        for role in kinds.NEEDS_REDIS:
            waits = 2 if role == kinds.LOGOUT and self.blow.settings else 0
            took, operations = self.ledger.slowest(replica, role), OPERATIONS.get(role, 1) + waits
            if took > (TIMEOUT + noise) * operations + MARGIN:
                self.broken.append(f"{role}: an answer took {took:.2f} s (the machine {noise:.2f} s)")

    def _noise(self) -> float:
        return max(self.ledger.slowest(replica, OPEN) for replica in (0, 1))

    def _result(self, lost: int) -> Outcome:
        entries, others, replicas = self.ledger.of(), self.elsewhere.of(), (0, 1)
        refused = sum(entry.kind == UNAVAILABLE for entry in others)
        return Outcome(
            name=self.blow.name,
            requests=len(entries) + len(others),
            kinds=Counter(entry.kind[:3] for entry in (*entries, *others)),
            accepted=self.ledger.accepted + self.elsewhere.accepted,
            signed_out=self.ledger.signed_out + self.elsewhere.signed_out,
            lost=lost,
            elsewhere=(len(others), refused) if self.blow.clustered else None,
            slowest=max(self.ledger.slowest(r, role) for r in replicas for role in kinds.NEEDS_REDIS),
            noise=self._noise(),
            away=self.returned_at - self.struck_at,
            window=max(self.ledger.longest_window(r) for r in replicas),
            back=max(self.ledger.back_after(r, LIVE, self.returned_at) or 0.0 for r in replicas),
            unready=self.unready,
            broken=[f"{law} ({n} times)" if n > 1 else law for law, n in Counter(self.broken).items()],
        )


def _guarded(gateway: Gateway, session: Held) -> int:
    return decided(lambda: ask(gateway.port, session.guarded)).status
