"""The laws of contract section 6 over a history, each a few comparisons of times, no model of a session among them.

| law | what is a breach of it |
|---|---|
| exact | an access token accepted by a request invoked after the answer of what ended its session, or it |
| linear | a refresh served though invoked after the answer of what ended its session |
| final | anything of a session served after a refusal had told that it is over |
| one successor | two refreshes with one token gave different ones; two tokens gave the same one |
| spent | a refresh token served after its successor's refresh had been answered |
| no end without a cause | a refusal for which nothing that was invoked before its answer can be the cause |

What can be known is bounded by what a client sees. Of two operations that overlap nobody outside can tell which came
first: answers may be held up on their way, and a gateway that has decided cannot call its answer back. So a refresh
that was invoked before a revoke's answer may be answered 200, even where the client reads that answer after the
revoke's: it took place before the revoke, and its answer was late. What must hold, and is checked, is that such
a 200 is worth nothing: every token it gave is refused from the revoke's answer on, on every replica (exact), and no
refresh that is invoked later is served (linear).

The causes of the last law: what ends the session, the revocation of that very token, reuse (a spent refresh token was
presented, or one whose successor had been used longer ago than the grace), and, with `lifetime`, idleness.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from tests.races.history import History, Kind, Operation, Result, about, counters, ends, surely_ends

Operations = list[Operation]


def breaches(history: History, grace: float = 0.0, lifetime: float = math.inf) -> list[str]:
    """Return every breach of a law, as a sentence. `grace` and `lifetime` (of an idle session) are seconds."""
    found: list[str] = []
    for login in history.sessions().values():
        mine = about(history.operations, login)
        found += _exact(mine, login)
        found += _linear(mine, login)
        found += _final(mine)
        found += _one_successor(mine)
        found += _spent(mine)
        found += _causes(mine, login, grace, lifetime)
    return found


def _served(mine: Operations, kind: Kind) -> Operations:
    return [each for each in mine if each.kind is kind and each.result is Result.OK]


def _exact(mine: Operations, login: Operation) -> Iterator[str]:
    enders = [each for each in mine if surely_ends(each, login)]
    revokes = [each for each in mine if each.kind is Kind.REVOKE and each.result is Result.OK]
    for request in _served(mine, Kind.REQUEST):
        causes = enders + [each for each in revokes if each.presented == request.presented]
        for cause in causes:
            if cause.before(request):
                yield f"exact: {request}, after {cause}"


def _linear(mine: Operations, login: Operation) -> Iterator[str]:
    enders = [each for each in mine if surely_ends(each, login)]
    for refresh in _served(mine, Kind.REFRESH):
        for cause in enders:
            if cause.before(refresh):
                yield f"linear: {refresh}, after {cause}"


def _final(mine: Operations) -> Iterator[str]:
    revoked = {each.presented for each in mine if each.kind is Kind.REVOKE}
    told = [
        each
        for each in mine
        if each.result is Result.REFUSED and each.kind is not Kind.REVOKE and each.presented not in revoked
    ]
    first = min(told, key=lambda each: each.answered, default=None)
    for later in _served(mine, Kind.REQUEST) + _served(mine, Kind.REFRESH):
        if first is not None and first.before(later):
            yield f"final: {later}, after {first}"


def _one_successor(mine: Operations) -> Iterator[str]:
    successors: dict[str, Operation] = {}
    predecessors: dict[str, Operation] = {}
    for refresh in _served(mine, Kind.REFRESH):
        other = successors.setdefault(refresh.presented, refresh)
        if other.refresh != refresh.refresh:
            yield f"one successor: {refresh} gave another one than {other}"
        other = predecessors.setdefault(refresh.refresh, refresh)
        if other.presented != refresh.presented:
            yield f"one successor: {refresh} gave the same one as {other}"


def _spent(mine: Operations) -> Iterator[str]:
    served = _served(mine, Kind.REFRESH)
    followed: dict[str, Operation] = {}  # a token -> the first answered refresh with its successor
    for refresh in served:
        for next_one in served:
            if next_one.presented == refresh.refresh:
                known = followed.get(refresh.presented)
                if known is None or next_one.answered < known.answered:
                    followed[refresh.presented] = next_one
    for refresh in served:
        after = followed.get(refresh.presented)
        if after is not None and after.before(refresh):
            yield f"spent: {refresh}, after {after}"


def _causes(mine: Operations, login: Operation, grace: float, lifetime: float) -> Iterator[str]:
    known = counters(mine, login)
    enders = [each for each in mine if ends(each, login)]
    for refusal in mine:
        if refusal.result is not Result.REFUSED or refusal.kind not in (Kind.REQUEST, Kind.REFRESH):
            continue
        until = refusal.answered
        revoked = any(
            each.kind is Kind.REVOKE and each.presented == refusal.presented and each.invoked <= until for each in mine
        )
        ended = any(each.invoked <= until for each in enders)
        idle = until - max(_last_rotation(mine, until), login.invoked) >= lifetime
        if not (revoked or ended or idle or _reuse(mine, known, until, grace)):
            yield f"no end without a cause: {refusal}"


def _last_rotation(mine: Operations, until: float) -> float:
    """Return the earliest moment at which the last rotation may have been: later refreshes with a token are replays."""
    first: dict[str, float] = {}
    for each in mine:
        if each.kind is Kind.REFRESH and each.result is Result.OK and each.answered <= until:
            first[each.presented] = min(each.invoked, first.get(each.presented, math.inf))
    return max(first.values(), default=-math.inf)


def _reuse(mine: Operations, known: dict[str, int], until: float, grace: float) -> bool:
    """Tell whether a refresh that was invoked by then may have presented a token that was spent."""
    refreshes = [each for each in mine if each.kind is Kind.REFRESH and each.invoked <= until]
    for spent in refreshes:
        counter, by = known.get(spent.presented), min(spent.answered, until)
        if counter is None:
            continue  # not given in this history: nobody can say
        if any(known.get(each.presented, -1) > counter and each.invoked <= by for each in refreshes):
            return True
        used = (e for e in mine if e.kind is Kind.REQUEST and known.get(e.presented, -1) > counter)
        if any(each.invoked + grace <= by for each in used):
            return True
    return False
