"""Random histories of clients over three replicas, one of two workers, and a real Redis, beside the rotation table.

Whatever the clients do, one after the other or at once, every answer is one that the table explains, and after every
step all replicas agree on which sessions live. CI runs the same few examples each time. For more, and others each time:

    RACES_SCALE=20 make test PYTEST_ARGS=tests/races/test_machine.py
"""

from __future__ import annotations

import concurrent.futures
import select
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

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

from tests.e2e.harness import USERS
from tests.e2e.wire import Answer, Client, ask, request
from tests.races import calls
from tests.races.conftest import SCALE, Cluster
from tests.races.model import Model

NUMBERS = st.integers(0, 2)
REPLICAS = st.integers(0, 2)
BEHIND = st.sampled_from([0, 0, 0, 0, 1, 1, 1, 2])  # how many refreshes ago a token was given
PEOPLE = st.sampled_from(["alice", "bob"])
OVER = (400, "invalid_grant")
SIGNED_OUT = (401, "revoked_token")


class RaceMachine(RuleBasedStateMachine):
    cluster: ClassVar[Cluster]

    def __init__(self) -> None:
        super().__init__()
        self.models: list[Model] = []
        self.turn = 0

    @initialize()
    def begin(self) -> None:
        for user in ("alice", "bob"):
            self.operate(0, "DELETE", f"/admin/users/{USERS[user]['sub']}/sessions", 204)

    # --- signing in ---

    @precondition(lambda self: sum(model.alive for model in self.models) < 4)
    @rule(replica=REPLICAS, user=PEOPLE, device=st.sampled_from(["", "phone", "phone"]), in_cookie=st.booleans())
    def log_in(self, replica: int, user: str, device: str, in_cookie: bool) -> None:
        grant = calls.granted(self.ask(replica, calls.sign_in(user, device, in_cookie=in_cookie), 200))
        subject = str(USERS[user]["sub"])
        for model in self.models:
            if device and (model.subject, model.device) == (subject, device):
                model.end()
        model = Model(grant.session, subject, device, grant.access, [grant.refresh], in_cookie)
        self.models.append(model)

    # --- requests and refreshes, one at a time ---

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, behind=BEHIND)
    def ask_for_something(self, number: int, replica: int, behind: int) -> None:
        model = self.chosen(number)
        counter, access = (model.accesses or [(0, model.probe)])[-1 - behind :][0]
        self.request(model, replica, counter, access)

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, behind=BEHIND)
    def refresh(self, number: int, replica: int, behind: int) -> None:
        model = self.chosen(number)
        counter = _counter(model, behind)
        self.settle(model, counter, self.send(replica, self.refresh_of(model, counter)))

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, behind=BEHIND)
    def ask_a_route_that_refreshes(self, number: int, replica: int, behind: int) -> None:
        model = self.chosen(number)
        counter = _counter(model, behind)
        self.settle_renewal(model, replica, counter, self.send(replica, self.renewal_of(model, counter)))

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, again=REPLICAS, wait=st.booleans())
    def lose_the_answer_of_a_refresh_and_ask_again(self, number: int, replica: int, again: int, wait: bool) -> None:
        model = self.chosen(number)
        counter = _counter(model, 0)
        with Client(self.port(replica)) as client:
            client.send(self.refresh_of(model, counter))
            if wait or replica == 2:  # two workers: nobody can tell which of them has it
                assert select.select([client.socket], [], [], 10)[0]
        model.lost(counter)
        self.pass_time(replica)
        self.settle(model, counter, self.send(again, self.refresh_of(model, counter)))

    @precondition(lambda self: any(model.accesses and model.alive for model in self.models))
    @rule(number=NUMBERS, replica=REPLICAS, other=REPLICAS)
    def use_what_was_given_and_present_the_older_token_again(self, number: int, replica: int, other: int) -> None:
        """As a thief would. With the successor in use and no grace it is reuse as soon as the use has been noted."""
        models = [model for model in self.models if model.accesses and model.alive]
        model = models[number % len(models)]
        fresh = [(counter, access) for counter, access in model.accesses if access not in model.revoked]
        if not fresh or fresh[-1][0] != len(model.refreshes) - 1:
            return
        counter, access = fresh[-1]
        self.request(model, replica, counter, access)
        limit = time.monotonic() + 10
        while model.alive:
            assert time.monotonic() < limit, f"no reuse: {model!r}"
            self.settle(model, counter - 1, self.send(other, self.refresh_of(model, counter - 1)))

    # --- several at once ---

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replicas=st.lists(REPLICAS, min_size=2, max_size=6), behind=BEHIND)
    def refresh_at_once(self, number: int, replicas: list[int], behind: int) -> None:
        model = self.chosen(number)
        counter = _counter(model, behind)
        answers = self.at_once([(replica, self.refresh_of(model, counter)) for replica in replicas])
        for answer in sorted(answers, key=lambda answer: answer.status):  # those that were served came first
            self.settle(model, counter, answer)

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replicas=st.lists(REPLICAS, min_size=2, max_size=4), way=st.integers(0, 2))
    def refresh_while_the_session_ends(self, number: int, replicas: list[int], way: int) -> None:
        model = self.chosen(number)
        counter = _counter(model, 0)
        ending = [
            calls.sign_out(token=model.refreshes[-1], in_cookie=model.in_cookie),
            calls.revoke(model.refreshes[0]),
            calls.sign_out(access=model.probe),
        ][way]
        first, *others = replicas
        answers = self.at_once([*((each, self.refresh_of(model, counter)) for each in others), (first, ending)])
        assert answers[-1].status in (200, 204), answers[-1]
        for answer in sorted(answers[:-1], key=lambda answer: answer.status):
            model.may_end()
            self.settle(model, counter, answer)
        model.end()

    # --- the ends ---

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, behind=BEHIND, by=st.sampled_from(["refresh", "access"]))
    def log_out(self, number: int, replica: int, behind: int, by: str) -> None:
        model = self.chosen(number)
        token = model.refreshes[_counter(model, behind)]
        ending = calls.sign_out(token=token, in_cookie=model.in_cookie)
        self.ask(replica, ending if by == "refresh" else calls.sign_out(access=model.probe), 204)
        model.end()

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, victim=NUMBERS, replica=REPLICAS)
    def end_one_of_the_own_sessions(self, number: int, victim: int, replica: int) -> None:
        model, other = self.chosen(number), self.chosen(victim)
        answer = self.send(replica, request("DELETE", f"/auth/sessions/{other.id}", token=model.probe))
        if not model.alive:
            assert answer.error == SIGNED_OUT
        elif model.subject == other.subject and other.alive:
            assert answer.status == 204
            other.end()
        else:
            assert answer.status == 404

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, keep=st.booleans())
    def sign_out_everywhere(self, number: int, replica: int, keep: bool) -> None:
        model = self.chosen(number)
        target = "/auth/sessions?except=current" if keep else "/auth/sessions"
        answer = self.send(replica, request("DELETE", target, token=model.probe))
        if not model.alive:
            assert answer.error == SIGNED_OUT
            return
        assert answer.status == 204
        self.end_all(model.subject, keep=model if keep else None)

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, behind=BEHIND, admin=st.booleans())
    def revoke_a_refresh_token(self, number: int, replica: int, behind: int, admin: bool) -> None:
        model = self.chosen(number)
        self.revoke(replica, model.refreshes[_counter(model, behind)], admin)
        model.end()

    @precondition(lambda self: any(model.accesses for model in self.models))
    @rule(number=NUMBERS, replica=REPLICAS, admin=st.booleans())
    def revoke_an_access_token(self, number: int, replica: int, admin: bool) -> None:
        models = [model for model in self.models if model.accesses]
        model = models[number % len(models)]
        _, access = model.accesses[-1]
        self.revoke(replica, access, admin)
        model.revoked.append(access)

    @precondition(lambda self: self.models)
    @rule(number=NUMBERS, replica=REPLICAS, everyone=st.booleans())
    def the_operator_ends_sessions(self, number: int, replica: int, everyone: bool) -> None:
        model = self.chosen(number)
        if everyone:
            self.operate(replica, "DELETE", f"/admin/users/{model.subject}/sessions", 204)
            self.end_all(model.subject)
        else:
            self.operate(replica, "DELETE", f"/admin/sessions/{model.id}", 204 if model.alive else 404)
            model.end()

    # --- what holds after every step ---

    def watched(self) -> list[Model]:
        """Return the sessions that live, and those that ended lately."""
        return [model for model in self.models if model.alive or model in self.models[-3:]]

    @invariant()
    def every_replica_says_the_same_of_every_session(self) -> None:
        for model in self.watched():
            answers = [self.send(replica, request("GET", self.cluster.path, token=model.probe)) for replica in range(3)]
            alive = answers[0].status == 200
            model.see(alive)
            assert all(answer.status == 200 if alive else answer.error == SIGNED_OUT for answer in answers), model

    @invariant()
    def what_has_ended_is_refused_in_every_replica(self) -> None:
        self.turn += 1
        replica = self.turn % 3
        for model in self.watched():
            ended = model.revoked if model.alive else [access for _, access in model.accesses[-3:]]
            for access in ended:
                assert self.send(replica, request("GET", self.cluster.path, token=access)).error == SIGNED_OUT
            if not model.alive:
                assert self.send(replica, self.refresh_of(model, len(model.refreshes) - 1)).error == OVER

    @invariant()
    def the_list_of_sessions_is_that_of_the_model(self) -> None:
        for subject in {model.subject for model in self.models}:
            listed = self.operate(self.turn % 3, "GET", f"/admin/users/{subject}/sessions", 200).json()["sessions"]
            expected = {model.id for model in self.models if model.subject == subject and model.alive}
            assert {session["id"] for session in listed} == expected

    # --- how it is asked ---

    def chosen(self, number: int) -> Model:
        """Return one of the last three sessions, dead or alive."""
        recent = self.models[-3:]
        return recent[number % len(recent)]

    def port(self, replica: int) -> int:
        return self.cluster.replicas[replica].port

    def send(self, replica: int, data: bytes) -> Answer:
        return ask(self.port(replica), data)

    def ask(self, replica: int, data: bytes, status: int) -> Answer:
        answer = self.send(replica, data)
        assert answer.status == status, answer
        return answer

    def operate(self, replica: int, method: str, target: str, status: int, content: Any = None) -> Answer:
        answer = self.cluster.replicas[replica].operate(method, target, content)
        assert answer.status == status, answer
        return answer

    def at_once(self, questions: Sequence[tuple[int, bytes]]) -> list[Answer]:
        """Send all from threads of their own, on connections that are there already."""
        with ExitStack() as stack, concurrent.futures.ThreadPoolExecutor(len(questions)) as pool:
            clients = [stack.enter_context(Client(self.port(replica))) for replica, _ in questions]
            return list(pool.map(lambda client, question: client.ask(question[1]), clients, questions))

    def pass_time(self, replica: int) -> None:
        """Have the replica do a further refresh, so that one whose client has gone is not still on its way."""
        for _ in range(3):
            grant = calls.granted(self.ask(replica, calls.sign_in("carol"), 200))
            self.ask(replica, calls.refresh(grant.refresh), 200)

    def refresh_of(self, model: Model, counter: int) -> bytes:
        return calls.refresh(model.refreshes[counter], in_cookie=model.in_cookie)

    def renewal_of(self, model: Model, counter: int) -> bytes:
        """A request with an access token that expired an hour ago, of the same session."""
        signer = self.cluster.site.signer(access_ttl=1)
        words: dict[str, Any] = {"roles": ["user"], "scope": "", "claims": {}, "now": time.time() - 3600}
        expired = signer.mint(subject=model.subject, session_id=model.id, counter=counter, **words)
        return calls.renew(self.cluster.renewing, expired.token, model.refreshes[counter])

    def request(self, model: Model, replica: int, counter: int, access: str) -> None:
        answer = self.send(replica, request("GET", self.cluster.path, token=access))
        if answer.status == 200:
            assert access not in model.revoked
            model.use(counter)
        else:
            assert answer.error == SIGNED_OUT
            if access not in model.revoked:
                model.see(alive=False)

    def settle(self, model: Model, counter: int, answer: Answer) -> None:
        """Compare the answer of a refresh with the table."""
        served = answer.status == 200
        assert served or answer.error == OVER, answer
        model.refreshed(counter, served)
        if served:
            grant = calls.granted(answer)
            assert grant.session == model.id
            model.learn(counter + 1, grant.refresh, grant.access)

    def settle_renewal(self, model: Model, replica: int, counter: int, answer: Answer) -> None:
        served = answer.status == 200
        assert served or answer.error == SIGNED_OUT, answer
        brings = model.renewed(replica, counter, served)
        grant = calls.renewed(answer) if served else None
        assert grant is not None or not (served and brings), answer
        if grant is not None:
            model.learn(counter + 1, grant.refresh, grant.access)

    def revoke(self, replica: int, token: str, admin: bool) -> None:
        if admin:
            self.operate(replica, "POST", "/admin/revoke", 204, {"token": token})
        else:
            self.ask(replica, calls.revoke(token), 200)

    def end_all(self, subject: str, keep: Model | None = None) -> None:
        for model in self.models:
            if model.subject == subject and model is not keep:
                model.end()


def _counter(model: Model, behind: int) -> int:
    return max(0, len(model.refreshes) - 1 - behind)


@pytest.mark.timeout(60 * SCALE)
def test_every_answer_of_three_replicas_is_one_that_the_table_explains(strict: Cluster) -> None:
    machine = type("Machine", (RaceMachine,), {"cluster": strict})
    bounds = settings(
        max_examples=15 * SCALE,
        stateful_step_count=30,
        deadline=None,
        database=None,
        derandomize=SCALE == 1,
        phases=[Phase.generate],  # to shrink a history takes minutes
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(machine, settings=bounds)
