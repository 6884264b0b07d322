"""What a client may expect of one session: the rotation table, and the little that nobody outside can know.

Two things are not known from outside: whether a request whose answer was lost took place, and from when on a successor
counts as used (that is noted beside the request which uses it). So the model keeps every state in which the session may
be; each answer must fit at least one of them, and those that it does not fit are dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from gateway.tokens.rotation import Outcome, SessionState, rotate

NOW = 1.0  # any moment after USED: the replicas have no grace
USED = 0.0
SHARED = 4.0  # seconds; longer than a worker shares the result of a refresh (gateway/proxy/renewal.py)
_SERVED = (Outcome.ROTATED, Outcome.REPLAYED)


@dataclass(frozen=True, slots=True)
class State:
    """`rotation` is None where the session is over; `marking`: the first use of its successor is being noted."""

    rotation: SessionState | None
    marking: bool = False


States = frozenset[State]
OVER: States = frozenset({State(None)})


@dataclass(eq=False)
class Model:
    """One session. Tokens are kept by the refresh that gave them; those of the login are 0."""

    id: str
    subject: str
    device: str
    probe: str  # the login's access token: using it marks nothing
    refreshes: list[str]
    in_cookie: bool
    states: States = frozenset({State(SessionState(0))})
    accesses: list[tuple[int, str]] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    flights: dict[tuple[int, int], float] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.id} of {self.subject}, {len(self.refreshes)} tokens, {sorted(map(str, self.states))}>"

    @property
    def alive(self) -> bool:
        """Tell whether the session may be alive."""
        return any(state.rotation is not None for state in self.states)

    def end(self) -> None:
        self.states = OVER

    def may_end(self) -> None:
        """Its end is under way."""
        self.states |= OVER

    def see(self, alive: bool) -> None:
        """Drop what a live check has disproved."""
        self._keep((state for state in self.states if (state.rotation is not None) == alive), f"alive: {alive}")

    def use(self, counter: int) -> None:
        """An access token of this counter was accepted."""
        self.see(alive=True)
        self.states = frozenset(_marked(state, counter) for state in self.states)

    def refreshed(self, counter: int, served: bool) -> None:
        """The refresh token of this counter was presented and answered."""
        self._keep(self._after(counter, served), f"a refresh with token {counter} was served: {served}")

    def lost(self, counter: int) -> None:
        """The refresh token of this counter was presented, or was not."""
        self.states |= self._after(counter, served=True) | self._after(counter, served=False)

    def renewed(self, replica: int, counter: int, served: bool) -> bool:
        """The same through a route that refreshes by itself; tell whether the answer must bring tokens.

        A worker shares the result for a moment, and so a spent token may still let a request pass: the session's
        live check decides, nothing is handed out, nothing changes.
        """
        table, shared = self._after(counter, served), self._shared(replica, counter)
        if shared:
            table |= frozenset(state for state in self.states if (state.rotation is not None) == served)
        self._keep(table, f"a request with token {counter} was refreshed in place: {served}")
        self.flights[replica, counter] = time.monotonic()
        return not shared

    def learn(self, counter: int, refresh: str, access: str) -> None:
        """Tokens were given for this counter. Raises AssertionError where its refresh token is another one."""
        if counter == len(self.refreshes):
            self.refreshes.append(refresh)
        assert self.refreshes[counter] == refresh, "one successor"
        self.accesses.append((counter, access))

    def _shared(self, replica: int, counter: int) -> bool:
        return time.monotonic() - self.flights.get((replica, counter), -SHARED) < SHARED

    def _after(self, counter: int, served: bool) -> States:
        found = set()
        for state in (each for possible in self.states for each in _settlings(possible)):
            decision = rotate(state.rotation, counter, NOW, 0.0)
            if (decision.outcome in _SERVED) == served:
                replayed = decision.outcome is Outcome.REPLAYED
                found.add(State(decision.session, state.marking and replayed))
        return frozenset(found)

    def _keep(self, states: Iterable[State], answer: str) -> None:
        kept = frozenset(states)
        assert kept, f"{answer}; {self!r}"
        self.states = kept


def _settlings(state: State) -> tuple[State, ...]:
    """A mark that is under way may have arrived, or not."""
    if not state.marking or state.rotation is None:
        return (state,)
    return state, State(replace(state.rotation, used_at=USED))


def _marked(state: State, counter: int) -> State:
    rotation = state.rotation
    if rotation is None or not counter or rotation.counter != counter or rotation.used_at is not None:
        return state
    return replace(state, marking=True)
