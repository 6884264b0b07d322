"""The checkers are checked: histories that can have happened pass both, each that breaks the contract is rejected.

A history is written as lines: when an operation was invoked, when it was answered (None = its answer was lost), and
what it was. Tokens are named r0, r1 (refresh) and a0, a1 (access) after the refresh that gave them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest

from tests.races.history import History, Kind, Operation, Result
from tests.races.laws import breaches
from tests.races.linearize import unexplained

GRACE = 10.0
Line = tuple[float, float | None, dict[str, object]]


def login(session: str = "s", subject: str = "u", device: str = "") -> dict[str, object]:
    given = (
        {"refresh": "r0", "access": "a0"} if session == "s" else {"refresh": f"{session}r0", "access": f"{session}a0"}
    )
    return {"kind": Kind.LOGIN, "session": session, "subject": subject, "device": device, **given}


def refresh(presented: str, given: str = "", access: str = "") -> dict[str, object]:
    """A refresh that was served where it gave something, else refused (or lost)."""
    result = Result.OK if given else Result.REFUSED
    access = access or given.replace("r", "a")
    return {
        "kind": Kind.REFRESH,
        "session": "s",
        "presented": presented,
        "refresh": given,
        "access": access,
        "result": result,
    }


def request(presented: str, result: Result = Result.OK) -> dict[str, object]:
    return {"kind": Kind.REQUEST, "session": "s", "presented": presented, "result": result}


def end(**more: object) -> dict[str, object]:
    return {"kind": Kind.END, "session": "s", **more}


def everywhere(keep: str = "") -> dict[str, object]:
    return {"kind": Kind.END, "session": "", "subject": "u", "keep": keep}


def revoke(presented: str) -> dict[str, object]:
    return {"kind": Kind.REVOKE, "session": "s", "presented": presented}


def refused(presented: str) -> dict[str, object]:
    return request(presented, Result.REFUSED)


def made(lines: Iterable[Line]) -> History:
    history = History()
    for number, (invoked, answered, words) in enumerate(lines):
        operation = Operation(number, words["kind"], "client", "replica", invoked)  # type: ignore[arg-type]
        operation.result = Result.OK
        for name, value in words.items():
            setattr(operation, name, value)
        operation.answered = math.inf if answered is None else answered
        if answered is None:
            operation.result = Result.LOST
        history.operations.append(operation)
    return history


BEGIN: Line = (0, 1, login())
GOOD: dict[str, list[Line]] = {
    "a session that lives": [BEGIN, (2, 3, request("a0")), (4, 5, refresh("r0", "r1")), (6, 7, request("a1"))],
    "an older access token lives on": [
        BEGIN,
        (2, 3, refresh("r0", "r1")),
        (4, 5, request("a1")),
        (6, 7, request("a0")),
    ],
    "refused after its end": [BEGIN, (2, 3, end()), (4, 5, refused("a0")), (6, 7, refresh("r0"))],
    "served while its end is under way": [BEGIN, (2, 9, end()), (3, 4, request("a0")), (5, 6, refused("a0"))],
    "a refresh that came first and was answered late": [
        BEGIN,
        (2, 5, refresh("r0", "r1")),
        (3, 4, end()),
        (6, 7, refused("a1")),
    ],
    "parallel refreshes": [
        BEGIN,
        (2, 5, refresh("r0", "r1", "a1")),
        (2, 6, refresh("r0", "r1", "b1")),
        (7, 8, request("b1")),
    ],
    "a lost answer asked for again": [
        BEGIN,
        (2, None, refresh("r0")),
        (50, 51, refresh("r0", "r1")),
        (52, 53, refresh("r1", "r2")),
    ],
    "a replay within the grace": [
        BEGIN,
        (2, 3, refresh("r0", "r1")),
        (4, 5, request("a1")),
        (6, 7, refresh("r0", "r1", "b1")),
    ],
    "a use that was noted late": [
        BEGIN,
        (2, 3, refresh("r0", "r1")),
        (4, 5, request("a1")),
        (40, 41, refresh("r0", "r1", "b1")),
    ],
    "reuse after the grace": [
        BEGIN,
        (2, 3, refresh("r0", "r1")),
        (4, 5, request("a1")),
        (40, 41, refresh("r0")),
        (42, 43, refused("a1")),
    ],
    "reuse of a spent token": [
        BEGIN,
        (2, 3, refresh("r0", "r1")),
        (4, 5, refresh("r1", "r2")),
        (6, 7, refresh("r0")),
        (8, 9, refused("a2")),
    ],
    "reuse by a request whose answer was lost": [
        BEGIN,
        (2, 3, refresh("r0", "r1")),
        (4, 5, refresh("r1", "r2")),
        (6, None, refresh("r0")),
        (8, 9, request("a2")),
        (50, 51, refused("a2")),
    ],
    "an end that was lost and took place later": [
        BEGIN,
        (2, None, end()),
        (3, 4, request("a0")),
        (5, 6, refused("a0")),
    ],
    "an end that was lost and never took place": [BEGIN, (2, None, end()), (3, 4, refresh("r0", "r1"))],
    "an end that was refused": [BEGIN, (2, 3, end(result=Result.REFUSED)), (4, 5, request("a0"))],
    "one token revoked": [BEGIN, (2, 3, revoke("a0")), (4, 5, refused("a0")), (6, 7, refresh("r0", "r1"))],
    "a sign-in on the same device": [
        (0, 1, login(device="phone")),
        (2, 3, login("t", device="phone")),
        (4, 5, refused("a0")),
    ],
    "a sign-in beside a sign-out everywhere": [
        (0, 9, login()),
        (2, 5, everywhere()),
        (10, 11, request("a0")),
    ],
    "a session that was kept": [BEGIN, (2, 3, everywhere(keep="s")), (4, 5, request("a0"))],
}
BAD: dict[str, tuple[str, list[Line]]] = {
    "a token accepted after the end": ("exact", [BEGIN, (2, 3, end()), (4, 5, request("a0"))]),
    "accepted after a sign-out everywhere": ("exact", [BEGIN, (2, 3, everywhere()), (4, 5, request("a0"))]),
    "accepted after another session was kept": ("exact", [BEGIN, (2, 3, everywhere("t")), (4, 5, request("a0"))]),
    "accepted after a sign-in on its device": (
        "exact",
        [(0, 1, login(device="phone")), (2, 3, login("t", device="phone")), (4, 5, request("a0"))],
    ),
    "a token of an overlapping refresh accepted after the end": (
        "exact",
        [BEGIN, (2, 5, refresh("r0", "r1")), (3, 4, end()), (6, 7, request("a1"))],
    ),
    "a revoked token accepted": ("exact", [BEGIN, (2, 3, revoke("a0")), (4, 5, request("a0"))]),
    "a refresh served after the end": ("linear", [BEGIN, (2, 3, end()), (4, 5, refresh("r0", "r1"))]),
    "a session that came back for a request": (
        "final",
        [BEGIN, (2, None, end()), (3, 4, refused("a0")), (5, 6, request("a0"))],
    ),
    "a session that came back for a refresh": (
        "final",
        [BEGIN, (2, None, end()), (3, 4, refresh("r0")), (5, 6, refresh("r0", "r1"))],
    ),
    "two successors of one token": (
        "one successor",
        [BEGIN, (2, 5, refresh("r0", "r1")), (3, 4, refresh("r0", "x1"))],
    ),
    "one successor of two tokens": (
        "one successor",
        [BEGIN, (2, 3, refresh("r0", "r1")), (4, 5, refresh("r1", "r1"))],
    ),
    "a spent token served": (
        "spent",
        [BEGIN, (2, 3, refresh("r0", "r1")), (4, 5, refresh("r1", "r2")), (6, 7, refresh("r0", "r1"))],
    ),
    "signed out for nothing": ("no end without a cause", [BEGIN, (2, 3, refused("a0"))]),
    "a refresh refused for nothing": ("no end without a cause", [BEGIN, (2, 3, refresh("r0"))]),
    "signed out before the cause was invoked": (
        "no end without a cause",
        [BEGIN, (2, 3, refused("a0")), (4, 5, end())],
    ),
    "signed out by an end that was refused": (
        "no end without a cause",
        [BEGIN, (2, 3, end(result=Result.REFUSED)), (4, 5, refused("a0"))],
    ),
    "signed out by another's end": (
        "no end without a cause",
        [BEGIN, (0, 1, login("t")), (2, 3, end(session="t")), (4, 5, refused("a0"))],
    ),
    "a lost answer taken for reuse": (
        "no end without a cause",
        [BEGIN, (2, None, refresh("r0")), (50, 51, refresh("r0"))],
    ),
    "a replay within the grace taken for reuse": (
        "no end without a cause",
        [BEGIN, (2, 3, refresh("r0", "r1")), (4, 5, request("a1")), (6, 7, refresh("r0"))],
    ),
    "parallel refreshes taken for reuse": (
        "no end without a cause",
        [BEGIN, (2, 5, refresh("r0", "r1")), (3, 6, refresh("r0"))],
    ),
    "a session ended by the revocation of one token": (
        "no end without a cause",
        [BEGIN, (2, 3, refresh("r0", "r1")), (4, 5, revoke("a0")), (6, 7, refused("a1"))],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_that_can_have_happened_passes(name: str) -> None:
    history = made(GOOD[name])
    assert breaches(history, GRACE) == []
    assert unexplained(history, GRACE) == []


@pytest.mark.parametrize("name", BAD)
def test_a_history_that_breaks_a_law_is_rejected_by_that_law(name: str) -> None:
    law, lines = BAD[name]
    assert law in {breach.partition(":")[0] for breach in breaches(made(lines), GRACE)}


@pytest.mark.parametrize("name", [name for name in BAD if BAD[name][0] != "one successor"])
def test_a_history_that_breaks_a_law_is_not_linearizable(name: str) -> None:
    """Which bytes a successor has is no part of the table: one successor is a law of its own."""
    assert unexplained(made(BAD[name][1]), GRACE)


def test_only_the_search_sees_that_two_answers_exclude_each_other() -> None:
    """Each of these answers is possible, but not in one order: whichever reuse came first, the other was no reuse."""
    lines: list[Line] = [
        BEGIN,
        (2, 20, end()),
        (3, 4, refused("a0")),
        (3, 4.5, refresh("r0")),
        (3.5, 6, refresh("r0", "r1")),
        (7, 8, refused("a1")),
        (4.2, 5, request("a0")),
    ]
    assert unexplained(made(lines), GRACE)


def test_an_idle_session_may_end_by_itself() -> None:
    lines: list[Line] = [BEGIN, (2, 3, refresh("r0", "r1")), (4, 5, refresh("r0", "r1", "b1")), (32, 33, refresh("r1"))]
    assert breaches(made(lines), GRACE, lifetime=30) == []
    assert breaches(made(lines), GRACE, lifetime=40)


def test_hundreds_of_lost_answers_and_overlapping_requests_are_judged_in_moments() -> None:
    lines: list[Line] = [BEGIN]
    for number in range(200):
        at = 10.0 * (number + 1)
        lines += [(at, None, refresh(f"r{number}")), (at + 1, at + 2, refresh(f"r{number}", f"r{number + 1}"))]
        lines += [(at + 3, at + 8, request(f"a{number + 1}")) for _ in range(8)]
    assert unexplained(made(lines), GRACE) == []
    assert unexplained(made([*lines, (5000, 5001, refused("a200"))]), GRACE) == []  # one of the lost came late
    assert unexplained(made([*lines[: 10 * 3 + 1], (5000, 5001, refresh("r2"))]), GRACE) == []
    assert breaches(made(lines), GRACE) == []


def test_operations_take_their_times_before_they_go_out_and_after_they_came_in() -> None:
    ticks = iter([1.0, 2.0, 3.0])
    history = History(lambda: next(ticks))
    first = history.invoke(Kind.LOGIN, "client", "a", subject="u")
    second = history.invoke(Kind.REFRESH, "client", "a", session="s", presented="r0")
    history.answer(first, Result.OK, session="s", refresh="r0", access="a0")
    assert (first.invoked, first.answered, second.invoked, second.answered) == (1.0, 3.0, 2.0, math.inf)
    assert first.session == "s"
    assert second.result is Result.LOST
    assert not first.before(second)
