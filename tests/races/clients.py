"""Clients that write down what they ask and what they are answered.

A `Seat` is what a browser's tabs share: the newest tokens of one session. A `Recorder` is one of the tabs: a thread
with connections of its own to every replica.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.e2e.harness import USERS
from tests.e2e.wire import Answer, Client, request
from tests.races import calls
from tests.races.calls import Grant
from tests.races.conftest import Cluster
from tests.races.history import History, Kind, Operation, Result

OVER = {(401, "revoked_token"), (400, "invalid_grant")}
EXPIRED = (401, "expired_token")
WAYS = ("logout", "logout by access token", "delete", "revoke", "everywhere", "admin", "admin everywhere")


@dataclass
class Seat:
    """The session that some clients share. They take and set its tokens without waiting for each other."""

    user: str
    device: str = ""
    in_cookie: bool = False
    grant: Grant | None = None
    older: list[Grant] = field(default_factory=list)
    signing_in: threading.Lock = field(default_factory=threading.Lock)

    @property
    def subject(self) -> str:
        return str(USERS[self.user]["sub"])

    @property
    def tokens(self) -> Grant:
        assert self.grant is not None, "not signed in"
        return self.grant

    def take(self, grant: Grant) -> None:
        if self.grant is not None:
            self.older.append(self.grant)
        self.grant = grant


class Recorder:
    """One client. `replica` is a number of the cluster's."""

    def __init__(self, cluster: Cluster, history: History, name: str) -> None:
        self._cluster = cluster
        self._history = history
        self._name = name
        self._connections: dict[int, Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections.values():
            connection.close()

    def connect(self) -> None:
        """Connect to every replica, so that what follows is sent at once."""
        for number in range(len(self._cluster.replicas)):
            self._connection(number)

    def login(self, replica: int, seat: Seat) -> Grant:
        operation = self._invoke(Kind.LOGIN, replica, subject=seat.subject, device=seat.device)
        answer = self._ask(replica, calls.sign_in(seat.user, seat.device, in_cookie=seat.in_cookie))
        assert answer.status == 200, answer
        grant = calls.granted(answer)
        self._answer(operation, Result.OK, grant)
        seat.take(grant)
        return grant

    def login_again(self, replica: int, seat: Seat, over: Grant) -> None:
        """Sign in where the session of `over` is still the seat's."""
        with seat.signing_in:
            if seat.tokens.session == over.session:
                self.login(replica, seat)

    def request(self, replica: int, grant: Grant) -> Result:
        """Present an access token on a live route."""
        operation = self._invoke(Kind.REQUEST, replica, session=grant.session, presented=grant.access)
        answer = self._ask(replica, request("GET", self._cluster.path, token=grant.access))
        return self._answer(operation, _result(answer))

    def refresh(self, replica: int, seat: Seat, grant: Grant | None = None) -> Result:
        """Present the refresh token of a grant, by default the seat's newest."""
        grant = grant or seat.tokens
        operation = self._invoke(Kind.REFRESH, replica, session=grant.session, presented=grant.refresh)
        answer = self._ask(replica, calls.refresh(grant.refresh, in_cookie=seat.in_cookie))
        result = _result(answer)
        given = calls.granted(answer) if result is Result.OK else None
        self._answer(operation, result, given)
        if given is not None:
            seat.take(given)
        return result

    def renew(self, replica: int, seat: Seat) -> Result:
        """Ask a route that refreshes by itself, with the seat's tokens.

        A refresh inside the gateway and the request that it was for are two operations. Where the answer does not
        tell what the refresh came to, it is one whose answer was lost; an access token that had not expired needs none.
        """
        grant = seat.tokens
        inside = self._invoke(Kind.REFRESH, replica, session=grant.session, presented=grant.refresh)
        operation = self._invoke(Kind.REQUEST, replica, session=grant.session, presented=grant.access)
        answer = self._ask(replica, calls.renew(self._cluster.renewing, grant.access, grant.refresh))
        given = calls.renewed(answer) if answer.status == 200 else None
        if given is not None:
            operation.presented = given.access
            self._answer(inside, Result.OK, given)
            seat.take(given)
        elif time.time() < calls.claims(grant.access)["exp"]:
            inside.result = Result.VOID
        else:  # the session was let in, by a token that nobody was given
            operation.presented = ""
        return self._answer(operation, _result(answer))

    def end(self, replica: int, seat: Seat, way: str) -> Result:
        """End the session of a seat; `way` is one of WAYS."""
        grant = seat.tokens
        session = "" if "everywhere" in way else grant.session
        operation = self._invoke(Kind.END, replica, session=session, subject=seat.subject)
        if way.startswith("admin"):
            answer = self._operate(replica, grant.session, seat.subject, everyone="everywhere" in way)
        else:
            answer = self._ask(replica, _ending(way, grant, seat.in_cookie))
        done = answer.status in (200, 204)
        assert done or answer.status == 404 or answer.error in {*OVER, EXPIRED}, answer
        return self._answer(operation, Result.OK if done else Result.REFUSED)

    def revoke_access(self, replica: int, grant: Grant) -> Result:
        operation = self._invoke(Kind.REVOKE, replica, session=grant.session, presented=grant.access)
        assert self._ask(replica, calls.revoke(grant.access)).status == 200
        return self._answer(operation, Result.OK)

    def lose(self, replica: int, grant: Grant, data: bytes, kind: Kind, *, at_once: bool) -> None:
        """Send a request and go away, at once or when the answer is there and before it is read."""
        presented = grant.refresh if kind is Kind.REFRESH else grant.access
        self._invoke(kind, replica, session=grant.session, presented=presented)
        client = self._connection(replica)
        client.send(data)
        if not at_once:
            select.select([client.socket], [], [], 10)
        client.close()
        del self._connections[replica]

    def _operate(self, replica: int, session: str, subject: str, *, everyone: bool) -> Answer:
        target = f"/admin/users/{subject}/sessions" if everyone else f"/admin/sessions/{session}"
        return self._cluster.replicas[replica].operate("DELETE", target)

    def _invoke(
        self, kind: Kind, replica: int, *, session: str = "", subject: str = "", device: str = "", presented: str = ""
    ) -> Operation:
        names = {"session": session, "subject": subject, "device": device, "presented": presented}
        return self._history.invoke(kind, self._name, self._cluster.names()[replica], **names)

    def _answer(self, operation: Operation, result: Result, grant: Grant | None = None) -> Result:
        given = {"session": grant.session, "refresh": grant.refresh, "access": grant.access} if grant else {}
        self._history.answer(operation, result, **given)
        return result

    def _ask(self, replica: int, data: bytes) -> Answer:
        answer = self._connection(replica).ask(data)
        if answer.get("connection") == "close":
            self._connections.pop(replica).close()
        return answer

    def _connection(self, replica: int) -> Client:
        if replica not in self._connections:
            self._connections[replica] = Client(self._cluster.replicas[replica].port)
        return self._connections[replica]


def at_once(*actions: Callable[[], object]) -> None:
    """Run actions in threads that begin together; raise what the first of them raised."""
    barrier = threading.Barrier(len(actions))
    errors: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            barrier.wait(10)
            action()
        except BaseException as error:  # told below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _result(answer: Answer) -> Result:
    """Return what an answer says of the session; one that the contract does not know here fails the test."""
    if answer.status == 200:
        return Result.OK
    assert answer.error in {*OVER, EXPIRED}, answer
    return Result.VOID if answer.error == EXPIRED else Result.REFUSED


def _ending(way: str, grant: Grant, in_cookie: bool) -> bytes:
    endings = {
        "logout": calls.sign_out(token=grant.refresh, in_cookie=in_cookie),
        "logout by access token": calls.sign_out(access=grant.access),
        "delete": request("DELETE", f"/auth/sessions/{grant.session}", token=grant.access),
        "revoke": calls.revoke(grant.refresh),
        "everywhere": request("DELETE", "/auth/sessions", token=grant.access),
    }
    return endings[way]
