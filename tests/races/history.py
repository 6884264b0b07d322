"""A history: what clients asked, what they were answered, and when, by one monotonic clock.

    operation = history.invoke(Kind.REFRESH, client="tab 1", replica="a", session=sid, presented=token)
    ... the request goes out, its answer is read to the end ...
    history.answer(operation, Result.OK, refresh=successor, access=access)

`invoked` is taken before the first byte goes out and `answered` after the last byte has come in, so that the moment at
which an operation took place lies between the two, whatever the threads of the recorder do. An operation
that was never answered stays LOST: it may have taken place at any moment after `invoked`, or never.

Pure but for the clock, which is an argument.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    LOGIN = "login"  # begins `session`, and ends those of `subject` on the same `device`
    REQUEST = "request"  # presents an access token on a live route
    REFRESH = "refresh"  # presents a refresh token
    END = "end"  # ends `session`; where that is "", every session of `subject` but `keep`
    REVOKE = "revoke"  # ends one access token, `presented`


class Result(StrEnum):
    OK = "ok"
    REFUSED = "refused"  # revoked_token, or invalid_grant: the session is over, or this token is
    LOST = "lost"
    VOID = "void"  # the answer says nothing of the session: expired_token


@dataclass(slots=True, eq=False)
class Operation:
    """One operation. Times are seconds of the history's clock; `answered` is inf where no answer came."""

    number: int
    kind: Kind
    client: str
    replica: str
    invoked: float
    answered: float = math.inf
    result: Result = Result.LOST
    session: str = ""
    subject: str = ""
    device: str = ""
    keep: str = ""
    presented: str = field(default="", repr=False)  # the token that the request carried
    refresh: str = field(default="", repr=False)  # what the answer gave
    access: str = field(default="", repr=False)

    def before(self, other: Operation) -> bool:
        """Tell whether this was answered before the other was invoked; only then is their order certain."""
        return self.answered < other.invoked

    def __str__(self) -> str:
        about = self.session or f"all of {self.subject} but {self.keep or 'none'}"
        times = f"{self.invoked:.4f}..{self.answered:.4f}"
        return f"#{self.number} {self.kind} of {about} by {self.client} on {self.replica} at {times}: {self.result}"


class History:
    """Operations in the order of their invocation. Any number of threads may record."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count()
        self.operations: list[Operation] = []

    def invoke(
        self,
        kind: Kind,
        client: str = "",
        replica: str = "",
        *,
        session: str = "",
        subject: str = "",
        device: str = "",
        keep: str = "",
        presented: str = "",
    ) -> Operation:
        operation = Operation(next(self._numbers), kind, client, replica, self._clock())
        operation.session, operation.subject, operation.device = session, subject, device
        operation.keep, operation.presented = keep, presented
        self.operations.append(operation)  # atomic
        return operation

    def answer(
        self, operation: Operation, result: Result, *, session: str = "", refresh: str = "", access: str = ""
    ) -> None:
        operation.answered = self._clock()
        operation.result = result
        operation.session = session or operation.session
        operation.refresh, operation.access = refresh, access

    def sessions(self) -> dict[str, Operation]:
        """Return the sessions that were begun, each with its login."""
        found = (each for each in self.operations if each.kind is Kind.LOGIN and each.result is Result.OK)
        return {login.session: login for login in found}


def ends(operation: Operation, login: Operation) -> bool:
    """Tell whether an operation ends the session that `login` began, where that is alive.

    One that was refused did nothing.
    """
    if operation.result is Result.REFUSED or operation is login:
        return False
    if operation.kind is Kind.END and operation.session:
        return operation.session == login.session
    if operation.kind is Kind.END:
        return operation.subject == login.subject and operation.keep != login.session
    if operation.kind is Kind.LOGIN:
        return bool(login.device) and (operation.subject, operation.device) == (login.subject, login.device)
    return False


def surely_ends(operation: Operation, login: Operation) -> bool:
    """Tell whether the session cannot have outlived an operation: it had begun when what ends it was invoked."""
    named = operation.kind is Kind.END and operation.session == login.session
    return ends(operation, login) and (named or login.before(operation))


def about(history: list[Operation], login: Operation) -> list[Operation]:
    """Return what could have touched one session. Sessions are apart from each other, so each can be judged alone."""
    return [
        each
        for each in history
        if each is login
        or ends(each, login)
        or (each.session == login.session and each.kind is not Kind.END and each.result is not Result.VOID)
    ]


def counters(history: list[Operation], login: Operation) -> dict[str, int]:
    """Return which refresh of the session gave a token: the login's are 0, the successors of n are n + 1.

    It goes by what was answered, and reads no token.
    """
    found = {login.refresh: 0, login.access: 0}
    served = [each for each in history if each.kind is Kind.REFRESH and each.result is Result.OK]
    grown = True
    while grown:
        before = len(found)
        for each in served:
            if each.presented in found:
                found.setdefault(each.refresh, found[each.presented] + 1)
                found.setdefault(each.access, found[each.presented] + 1)
        grown = len(found) > before
    return found
