"""One fault: sessions begin, some end; then load, the fault, its end, the return of the service; then the laws."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from tests.chaos import ledger as kinds
from tests.chaos.faults import Fault, Scene
from tests.chaos.ledger import LIVE, LOGIN, OPEN, REFRESH, UNAVAILABLE, Entry, Ledger
from tests.chaos.load import SLOW_PAUSE, Load
from tests.chaos.proxy import LIVE as LIVE_LINK
from tests.chaos.servers import until
from tests.chaos.sessions import Held, Sessions, decided
from tests.chaos.world import TIMEOUT, World
from tests.e2e.harness import Gateway
from tests.e2e.wire import ask

BACK_WITHIN = 1.0  # seconds from Redis' return to that of the service
MARGIN = 0.2  # seconds of scheduling that an answer may take beyond redis.timeout
NOISE = 3.0  # seconds; a gateway whose route without a check takes longer is blocked, whatever the machine does
NOTICED = 5.0  # seconds within which /readyz and the metrics have to tell of an outage
# How many operations of the store one answer may wait for, where each is slow and succeeds.
OPERATIONS = {LOGIN: 3, REFRESH: 2, kinds.RENEW: 5, kinds.LOGOUT: 2}
OPENINGS = 24  # connections that a gateway may open in the second after Redis' return: its load's, once or twice


@dataclass(slots=True)
class Row:
    """What a fault came to. Seconds, and numbers of answers."""

    name: str
    requests: int
    kinds: Counter[str]
    accepted: int
    signed_out: int
    lost: int
    cleared: int
    slowest: float
    noise: float
    window: float
    back: float
    unready: bool
    attempts: float  # tries to connect of the live check, a second and replica
    broken: list[str] = field(default_factory=list)


def run(fault: Fault, world: World, hold: float) -> Row:
    """Do one fault to the gateways and return what came of it. `hold` is how long it lasts at least, in seconds."""
    scene = Scene(world, fault.options)
    try:
        return _Run(fault, world, scene, hold).row()
    finally:
        scene.stack.close()


class _Run:
    def __init__(self, fault: Fault, world: World, scene: Scene, hold: float) -> None:
        self.fault, self.world, self.scene, self.hold = fault, world, scene, hold
        self.ledger = Ledger()
        self.broken: list[str] = []
        self.unready = False
        now = time.monotonic()
        self.injected_at = self.done_at = self.steady_at = self.healing_at = self.returned_at = now
        world.use(scene.store)
        self.sessions = Sessions.begin(world.gateways)
        fault.prepare(scene)
        self.sessions.end_some(world.gateways)

    def row(self) -> Row:
        before = [_refusals(gateway) for gateway in self.world.gateways]
        load = Load(self.world, self.scene.store, self.sessions, self.ledger)
        load.start()
        try:
            self._do(self._warm_up, self._inject)
            self._do(self._heal)
        finally:
            load.stop()
        self._counted(before)
        lost = self._audit()
        self._laws(lost)
        return self._result(lost)

    # --- what is done ---

    def _do(self, *steps: Callable[[], None]) -> None:
        """Take steps as far as they come: what does not happen in time is a law broken like any other."""
        try:
            for step in steps:
                step()
        except AssertionError as error:
            self.broken.append(str(error))

    def _warm_up(self) -> None:
        until(lambda: all(self._seen(role) for role in kinds.GOOD), "every client is served")

    def _seen(self, role: str) -> bool:
        return all(any(e.is_good for e in self.ledger.of(replica=r, roles=[role])) for r in (0, 1))

    def _inject(self) -> None:
        fault = self.fault
        if fault.fate != "kept":
            self.ledger.lossy = True
        self.injected_at = time.monotonic()
        fault.inject(self.scene)
        self.done_at = time.monotonic()
        if fault.fate == "gone":
            self.ledger.gone_since = self.done_at
        if fault.is_outage:
            self._do(self._said)
        time.sleep(max(0.0, self.done_at + TIMEOUT + MARGIN - time.monotonic()))  # what was asked before is answered
        self.steady_at = time.monotonic()
        time.sleep(max(0.0, self.injected_at + self.hold - self.steady_at))
        until(self._all_have_asked, "every client has asked again during the fault")
        for gateway in self.world.gateways:
            self._probe(gateway)

    def _said(self) -> None:
        """Wait until the probes and the metrics of both replicas tell of the outage."""
        for gateway in self.world.gateways:
            until(lambda g=gateway: _readyz(g) == (503, ["redis"]), "/readyz is 503", NOTICED)
            until(lambda g=gateway: g.metric("tokengate_store_up") == 0, "tokengate_store_up is 0", NOTICED)

    def _all_have_asked(self) -> bool:
        return len({(e.replica, e.role) for e in self.ledger.of(since=self.steady_at)}) == 2 * len(kinds.GOOD)

    def _probe(self, gateway: Gateway) -> None:
        if gateway.operate("GET", "/livez").status != 200:
            self.broken.append("/livez is not 200")
        ready = _readyz(gateway)
        self.unready |= ready[0] == 503
        if self.fault.calm and ready != ((503, ["redis"]) if self.fault.is_outage else (200, [])):
            self.broken.append(f"during the fault /readyz says {ready}")

    def _heal(self) -> None:
        self.healing_at = time.monotonic()
        self.fault.heal(self.scene)
        self.returned_at = time.monotonic()
        until(lambda: all(b is not None for b in self._back()), "the service is back")
        for gateway in self.world.gateways:
            gateway.wait_ready()
            until(lambda g=gateway: g.metric("tokengate_store_up") == 1, "tokengate_store_up is 1")
        time.sleep(0.1)  # an ended token that came back is asked for by now

    def _back(self) -> list[float | None]:
        roles = (LIVE, REFRESH, LOGIN)
        return [self.ledger.back_after(r, role, self.returned_at) for r in (0, 1) for role in roles]

    # --- what must hold ---

    def _counted(self, before: list[float]) -> None:
        """The metrics have counted what clients saw."""
        for replica, gateway in enumerate(self.world.gateways):
            entries = self.ledger.of(replica=replica, roles=[LIVE, kinds.ENDED])
            seen, counted = sum(e.kind == UNAVAILABLE for e in entries), _refusals(gateway) - before[replica]
            if seen != counted:
                self.broken.append(f"{seen} refusals, {counted:g} in tokengate_rejections_total")

    def _audit(self) -> int:
        """Present everything once more, to both replicas; return how many kept sessions are no more."""
        for replica, gateway in enumerate(self.world.gateways):
            for session in self.sessions.void:
                if _guarded(gateway, session) == 200:
                    self.broken.append(f"replica {replica}: an ended token was let in after the fault")
                    self.ledger.accepted += 1
        for session in self.sessions.ended:
            if decided(partial(self.world.gateways[0].refresh, session.refresh)).status == 200:
                self.broken.append("an ended session was refreshed after the fault")
                self.ledger.accepted += 1
        return sum(self._is_lost(session) for session in self.sessions.kept)

    def _is_lost(self, session: Held) -> bool:
        statuses = {_guarded(gateway, session) for gateway in self.world.gateways}
        refreshed = decided(partial(self.world.gateways[1].refresh, session.refresh)).status
        if self.fault.fate == "gone" and (200 in statuses or refreshed == 200):
            self.broken.append("a session that Redis has lost was let in")
        return statuses != {200} or refreshed != 200

    def _laws(self, lost: int) -> None:
        self.broken += self.ledger.broken.elements()
        if lost and self.fault.fate == "kept":
            self.broken.append(f"{lost} sessions lost")
        steady = [e for e in self.ledger.of(since=self.steady_at) if e.ended < self.healing_at]
        self._law_of_refusal(steady)
        for replica in (0, 1):
            self._law_of_time(replica)
            self._law_of_return(replica)

    def _law_of_refusal(self, steady: list[Entry]) -> None:
        fault = self.fault
        for role in kinds.GOOD:
            mine = [e for e in steady if e.role == role]
            refused = [e for e in mine if e.kind == UNAVAILABLE]
            if role in fault.down and len(refused) < len(mine):
                served = Counter(e.kind for e in mine if e.kind != UNAVAILABLE)
                self.broken.append(f"{role}: answered during the fault: {dict(served)}")
            if role not in fault.down and fault.calm and refused and not self._machine_stalled():
                self.broken.append(f"{role}: {len(refused)} of {len(mine)} refused though it needs nothing that failed")
        waits = [e.seconds for e in steady if e.role == LIVE]
        if LIVE in fault.down and waits and median(waits) > TIMEOUT / 2:
            self.broken.append("live checks wait for a Redis that is known to be away")

    def _machine_stalled(self) -> bool:
        """Whether Redis or a gateway stood still for so long, the fault aside, that a check may have been late."""
        asked = [seconds for begun, seconds in self.ledger.pings if self.steady_at - 1 < begun < self.healing_at]
        return max([*asked, *(self.ledger.slowest(replica, OPEN) for replica in (0, 1))]) > TIMEOUT / 2

    def _law_of_time(self, replica: int) -> None:
        noise = self.ledger.slowest(replica, OPEN)
        if noise > NOISE:
            self.broken.append(f"a route without a live check took {noise:.2f} s")
        for role in kinds.NEEDS_REDIS:
            took = self.ledger.slowest(replica, role)
            late = noise * OPERATIONS.get(role, 1)  # the machine may hold up each step
            if took > TIMEOUT * self._operations(role) + MARGIN + late:
                self.broken.append(f"{role}: an answer took {took:.2f} s (the machine {noise:.2f} s)")

    def _operations(self, role: str) -> int:
        waits = 1 if role == kinds.LOGOUT and self.fault.settings else 0
        return (OPERATIONS.get(role, 1) if self.fault.slow else 1) + waits

    def _law_of_return(self, replica: int) -> None:
        noise, proxy = self.ledger.slowest(replica, OPEN), self.world.proxies[replica]
        for role in (LIVE, REFRESH, LOGIN):
            back = self.ledger.back_after(replica, role, self.returned_at)
            if back is None or back > BACK_WITHIN + SLOW_PAUSE * 2 + noise:
                self.broken.append(f"{role}: back {back} s after Redis (the machine {noise:.2f} s)")
        lasted = self.healing_at - self.done_at
        tries = proxy.opened(self.done_at, self.healing_at, LIVE_LINK)
        if tries > 6 + lasted / 0.25:  # five tries while the wait grows to its longest, of which jitter takes a half
            self.broken.append(f"{tries} tries to connect in {lasted:.1f} s")
        opened = proxy.opened(self.returned_at, self.returned_at + 1)
        if opened > OPENINGS:
            self.broken.append(f"{opened} connections opened within a second of Redis' return")

    def _result(self, lost: int) -> Row:
        entries, replicas = self.ledger.of(), (0, 1)
        lasted = max(self.healing_at - self.done_at, 0.001)
        tries = sum(p.opened(self.done_at, self.healing_at, LIVE_LINK) for p in self.world.proxies)
        return Row(
            name=self.fault.name,
            requests=len(entries),
            kinds=Counter(e.kind[:3] for e in entries),
            accepted=self.ledger.accepted,
            signed_out=self.ledger.signed_out,
            lost=lost,
            cleared=self.ledger.cleared,
            slowest=max(self.ledger.slowest(r, role) for r in replicas for role in kinds.NEEDS_REDIS),
            noise=max(self.ledger.slowest(r, OPEN) for r in replicas),
            window=max(self.ledger.longest_window(r) for r in replicas),
            back=max(self.ledger.back_after(r, LIVE, self.returned_at) or 0.0 for r in replicas),
            unready=self.unready,
            attempts=tries / len(replicas) / lasted,
            broken=[f"{law} ({n} times)" if n > 1 else law for law, n in Counter(self.broken).items()],
        )


def _readyz(gateway: Gateway) -> tuple[int, list[str]]:
    answer = gateway.operate("GET", "/readyz")
    return answer.status, answer.json().get("failing", [])


def _refusals(gateway: Gateway) -> float:
    return gateway.metric("tokengate_rejections_total", route="/guarded/", error="store_unavailable")


def _guarded(gateway: Gateway, session: Held) -> int:
    return decided(lambda: ask(gateway.port, session.guarded)).status
