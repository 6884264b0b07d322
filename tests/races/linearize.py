"""Is a history linearizable? Could each operation have taken place at one moment between its invocation and its answer,
one after the other, each answered as the table of tokens/rotation.py says?

The table itself is the specification (`rotate`), with a live check and the ways to end a session beside it. Sessions
are apart from each other, so each is judged alone (Herlihy and Wing 1990, locality). The search goes through the
events in the order of time and keeps every configuration that explains what was answered so far (Wing and Gong 1993;
Lowe 2017, "just-in-time"): a state of the session, what is open but has not taken place, and what was lost and has not
taken place. It stays small, because

- an operation that fits and changes nothing is done at once: it could only fit worse later;
- of two configurations that differ in lost operations alone, the one with more of them left explains all that
  the other does, since nothing forces a lost operation to take place;
- nothing changes a session that is over.

Times enter in one place, the grace, and only where they are certain. That an access token was used is noted beside its
request and not before it, so the successor may or may not count as used from then on; reuse within the grace
is a breach, a replay after it is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.tokens.rotation import Outcome, SessionState, mark_used, rotate
from tests.races.history import History, Kind, Operation, Result, about, counters

_SERVED = (Outcome.ROTATED, Outcome.REPLAYED)
_READS = (Kind.REQUEST, Kind.REFRESH, Kind.REVOKE)
Numbers = frozenset[int]


@dataclass(frozen=True, slots=True)
class State:
    """A session: not begun, alive with its rotation, or over. `revoked` are access tokens."""

    begun: bool = False
    rotation: SessionState | None = None
    revoked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Configuration:
    """`open` and `lost` are numbers of operations that have been invoked and have not taken place."""

    state: State
    open: Numbers = frozenset()
    lost: Numbers = frozenset()


def unexplained(history: History, grace: float) -> list[str]:
    """Return, for each session whose history is not linearizable, the first answer that nothing explains."""
    found = (_Search(history, login, grace).run() for login in history.sessions().values())
    return [breach for breach in found if breach]


class _Search:
    def __init__(self, history: History, login: Operation, grace: float) -> None:
        self._login = login
        self._grace = grace
        self._all = {each.number: each for each in about(history.operations, login)}
        self._counters = counters(list(self._all.values()), login)
        self._first_use = self._first_uses()
        self._kept = {Configuration(State())}

    def run(self) -> str:
        for _, is_answer, number in self._events():
            operation = self._all[number]
            if is_answer:
                before, self._kept = self._kept, self._explain(number)
                if not self._kept:
                    return f"not linearizable: {operation}; before it {_sample(before)}"
            else:
                self._kept = {_with(each, operation) for each in self._kept}
        return ""

    def _first_uses(self) -> dict[int, float]:
        """Return the earliest moment at which an access token of each counter can have been seen."""
        found: dict[int, float] = {}
        for each in self._all.values():
            if each.kind is Kind.REQUEST:
                counter = self._counters.get(each.presented, 0)
                found[counter] = min(each.invoked, found.get(counter, each.invoked))
        return found

    def _events(self) -> list[tuple[float, bool, int]]:
        """Invocations come before answers of the same moment: what may overlap is taken to overlap."""
        events = [(each.invoked, False, each.number) for each in self._all.values()]
        events += [(e.answered, True, e.number) for e in self._all.values() if e.result is not Result.LOST]
        return sorted(events)

    def _explain(self, number: int) -> set[Configuration]:
        """Return every configuration in which the operation has taken place."""
        seen: set[Configuration] = set()
        least: dict[tuple[State, Numbers], list[Numbers]] = {}
        waiting = [self._settled(each) for each in self._kept]
        while waiting:
            configuration = waiting.pop()
            if configuration in seen or not _worth(configuration, least):
                continue
            seen.add(configuration)
            if number in configuration.open:  # else what is left can take place later just as well
                waiting += [self._settled(each) for each in self._moves(configuration)]
        return {each for each in seen if number not in each.open and _still(each, least)}

    def _settled(self, configuration: Configuration) -> Configuration:
        """Do at once what fits and changes nothing."""
        state = configuration.state
        over = state.begun and state.rotation is None
        done = [
            number
            for number in configuration.open
            if (over or self._all[number].kind in _READS) and state in self._after(state, self._all[number])
        ]
        lost = frozenset() if over else configuration.lost
        return replace(configuration, open=configuration.open - frozenset(done), lost=lost)

    def _moves(self, configuration: Configuration) -> Iterator[Configuration]:
        state, still_open, lost = configuration.state, configuration.open, configuration.lost
        for number in still_open | lost:
            for after in self._after(state, self._all[number]):
                yield Configuration(after, still_open - {number}, lost - {number})

    def _after(self, state: State, operation: Operation) -> Iterator[State]:
        """Yield the states after an operation that takes place here and is answered as it was."""
        if operation is self._login:
            if not state.begun:
                yield replace(state, begun=True, rotation=SessionState(0))
        elif operation.kind is Kind.REQUEST:
            yield from self._after_request(state, operation)
        elif operation.kind is Kind.REFRESH:
            yield from self._after_refresh(state, operation)
        elif operation.kind is Kind.REVOKE:
            yield replace(state, revoked=state.revoked | {operation.presented})
        else:
            yield replace(state, rotation=None)  # before the session has begun there is none either

    def _after_request(self, state: State, operation: Operation) -> Iterator[State]:
        alive = state.rotation is not None and operation.presented not in state.revoked
        if operation.result is not Result.OK and not alive and state.begun:
            yield state
        if operation.result is not Result.REFUSED and alive:
            counter = self._counters.get(operation.presented, 0)
            rotation = mark_used(state.rotation, counter, self._first_use[counter]) if counter else state.rotation
            yield replace(state, rotation=rotation)

    def _after_refresh(self, state: State, operation: Operation) -> Iterator[State]:
        counter = self._counters.get(operation.presented)
        if not state.begun or counter is None:
            return
        # `used_at` is the earliest that it can be and `answered` the latest: reuse here means that it is possible.
        decision = rotate(state.rotation, counter, operation.answered, self._grace)
        served = decision.outcome in _SERVED
        if operation.result is not Result.REFUSED and served:
            yield replace(state, rotation=decision.session)
        if operation.result is not Result.OK and not served:
            yield replace(state, rotation=None)
        if operation.result is not Result.REFUSED and not served and _replay(state.rotation, counter):
            yield state


def _replay(rotation: SessionState | None, counter: int) -> bool:
    """Tell whether the successor may have counted as unused still."""
    return rotation is not None and counter == rotation.counter - 1


def _with(configuration: Configuration, operation: Operation) -> Configuration:
    if operation.result is Result.LOST:
        return replace(configuration, lost=configuration.lost | {operation.number})
    return replace(configuration, open=configuration.open | {operation.number})


def _worth(configuration: Configuration, least: dict[tuple[State, Numbers], list[Numbers]]) -> bool:
    """Remember a configuration unless one that has more lost operations left stands for it."""
    known = least.setdefault((configuration.state, configuration.open), [])
    if any(configuration.lost < other for other in known):
        return False
    known[:] = [other for other in known if not other < configuration.lost] + [configuration.lost]
    return True


def _still(configuration: Configuration, least: dict[tuple[State, Numbers], list[Numbers]]) -> bool:
    return configuration.lost in least[configuration.state, configuration.open]


def _sample(configurations: set[Configuration]) -> str:
    shown = sorted(str(each.state) for each in configurations)[:3]
    return f"{len(configurations)} configurations, as {'; '.join(shown)}"
