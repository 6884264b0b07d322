"""Rotation in Redis beside its table: random histories of clients, lost answers, marks, revokes and time.

The table (tokens/rotation.py) is the oracle. Whatever the history, the script says what the table says.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway.sessions.connect import Endpoint, open_client
from gateway.sessions.keyspace import Keyspace
from gateway.sessions.store import SessionPolicy, SessionStore
from gateway.tokens.rotation import Outcome, SessionState, ended, mark_used, rotate
from tests.sessions.world import Clock, login, raw_client

GRACE = 10.0
SESSIONS = st.integers(0, 2)  # few, so that a history dwells on one
TIMES = st.sampled_from([0.25, GRACE, GRACE, GRACE + 0.25, GRACE + 0.25, 40.0])


@dataclass
class Model:
    """A session as the table sees it, and the token that its client holds (it may have lost an answer)."""

    id: str
    subject: str
    state: SessionState | None
    held: int = 0


class RotationMachine(RuleBasedStateMachine):
    url: str | Endpoint = ""
    prefix = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.sessions: list[Model] = []

    def run(self, call: Any) -> Any:
        return self.runner.run(call)

    @initialize(refresh_ttl=st.sampled_from([0.0, 60.0]), session_ttl=st.sampled_from([0.0, 300.0]))
    def begin(self, refresh_ttl: float, session_ttl: float) -> None:
        self.policy = SessionPolicy(refresh_ttl, session_ttl, GRACE, max_sessions=0, leeway=10, access_ttl=60)
        self.raw: Any = raw_client(self.url, 5)
        self.store = SessionStore(open_client(self.url, 5), self.prefix, self.policy, 5, clock=self.clock)
        self.run(self.clear())

    async def clear(self) -> None:
        for key in await self.raw.keys(f"{self.prefix}:*"):
            await self.raw.delete(key)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.run(self.raw.aclose())
        self.runner.close()

    def chosen(self, number: int) -> Model:
        """Return one of the last three sessions, dead or alive."""
        recent = self.sessions[-3:]
        return recent[number % len(recent)]

    @precondition(lambda self: len(self.sessions) < 6 and sum(map(self.alive, self.sessions)) < 3)
    @rule(subject=st.sampled_from(["u-1", "u-2"]))
    def log_in(self, subject: str) -> None:
        session = self.run(self.store.create(login(subject)))
        for model in self.sessions:
            if model.subject == subject and not self.alive(model):
                model.state = None  # a login clears away what had expired: its token is unknown from then on
        state = SessionState(0, None, session.expires_at, session.ends_at)
        self.sessions.append(Model(session.id, subject, state))

    @precondition(lambda self: self.sessions)
    @rule(number=SESSIONS, lost=st.booleans())
    def refresh(self, number: int, lost: bool) -> None:
        model = self.chosen(number)
        session = self.present(model, model.held)
        if session is not None and not lost:
            model.held = session.counter

    @precondition(lambda self: self.sessions)
    @rule(number=SESSIONS, seconds=TIMES, seen=st.booleans())
    def use_refresh_lose_the_answer_and_ask_again(self, number: int, seconds: float, seen: bool) -> None:
        self.mark(number, 0)
        self.refresh(number, lost=True)
        if seen:  # the answer reached a thief, or the half of a client that does not refresh
            self.mark(number, 0)
        self.time_passes(seconds)
        self.refresh(number, lost=False)

    @precondition(lambda self: self.sessions)
    @rule(number=SESSIONS, behind=st.sampled_from([0, 1, 1, 1, 1, 2, -1]))
    def present_an_old_or_impossible_token(self, number: int, behind: int) -> None:
        model = self.chosen(number)
        if model.held - behind >= 0:
            self.present(model, model.held - behind)

    @precondition(lambda self: self.sessions)
    @rule(number=SESSIONS, clients=st.integers(2, 5))
    def refresh_at_once(self, number: int, clients: int) -> None:
        model = self.chosen(number)
        expected = []
        for _ in range(clients):
            decision = rotate(model.state, model.held, self.clock.now, GRACE, self.policy.refresh_ttl)
            model.state = decision.session
            expected.append(decision.outcome)
        found = self.run(self.all_at_once(model, clients))
        assert sorted(rotation.outcome for rotation in found) == sorted(expected)
        successors = {rotation.session.counter for rotation in found if rotation.outcome in ("rotated", "replayed")}
        assert len(successors) <= 1

    async def all_at_once(self, model: Model, clients: int) -> list[Any]:
        return await asyncio.gather(*(self.store.rotate(model.id, model.held) for _ in range(clients)))

    @precondition(lambda self: self.sessions)
    @rule(number=SESSIONS, behind=st.sampled_from([0, 0, 0, 1, -1]))
    def mark(self, number: int, behind: int) -> None:
        model = self.chosen(number)
        counter = model.state.counter - behind if model.state else 0
        self.run(self.store.mark_used(model.id, counter))
        if model.state is not None and not ended(model.state, self.clock.now):
            model.state = mark_used(model.state, counter, self.clock.now)

    @precondition(lambda self: self.sessions)
    @rule(number=SESSIONS)
    def revoke(self, number: int) -> None:
        model = self.chosen(number)
        assert self.run(self.store.end(model.id)) == self.alive(model)
        model.state = None

    @rule(subject=st.sampled_from(["u-1", "u-2"]))
    def revoke_all(self, subject: str) -> None:
        mine = [model for model in self.sessions if model.subject == subject]
        expected = sorted(model.id for model in mine if self.alive(model))
        assert sorted(self.run(self.store.end_all(subject))) == expected
        for model in mine:
            model.state = None

    @rule(subject=st.sampled_from(["u-1", "u-2"]))
    def look(self, subject: str) -> None:
        listed = {session.id for session in self.run(self.store.list(subject))}
        assert listed == {model.id for model in self.sessions if model.subject == subject and self.alive(model)}

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        self.clock.push(seconds)

    @invariant()
    def the_store_knows_the_sessions_that_the_table_knows(self) -> None:
        for model in self.sessions:
            found = self.run(self.store.get(model.id))
            assert (found is not None) == self.alive(model)
            if found is not None and model.state is not None:
                assert (found.counter, found.expires_at) == (model.state.counter, model.state.expires_at)

    @invariant()
    def a_session_that_was_ended_has_left_nothing(self) -> None:
        keys = Keyspace(self.prefix)
        for model in self.sessions:
            if model.state is None:
                assert self.run(self.raw.exists(keys.session(model.id))) == 0

    def alive(self, model: Model) -> bool:
        return model.state is not None and not ended(model.state, self.clock.now)

    def present(self, model: Model, counter: int) -> Any:
        decision = rotate(model.state, counter, self.clock.now, GRACE, self.policy.refresh_ttl)
        found = self.run(self.store.rotate(model.id, counter))
        assert found.outcome is decision.outcome
        model.state = decision.session
        if decision.session is None:
            return None
        assert found.session.counter == decision.session.counter
        assert found.session.expires_at == decision.session.expires_at
        return found.session if found.outcome in (Outcome.ROTATED, Outcome.REPLAYED) else None


def test_the_script_says_what_the_table_says(request: pytest.FixtureRequest, url: Endpoint, prefix: str) -> None:
    machine = type("Machine", (RotationMachine,), {"url": url, "prefix": prefix})
    # fakeredis takes a millisecond and more a script; how Redis is run makes no difference to a script
    examples = {"fakeredis": 40, "redis": 80}.get(request.node.callspec.params["url"], 10)
    bounds = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to shrink a history takes minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=bounds)
