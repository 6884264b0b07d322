"""Replicas whose clocks are wrong: by less than the leeway nobody notices, by more nobody is signed out.

What orders operations, how long a session lives and when a grace ends are the time of Redis, one for all. A replica's
own clock judges access tokens alone, so the worst that a wrong one does is to refuse a good access token, and a refresh
gives one that it takes. libfaketime shifts the clock of a process (CLOCK_REALTIME; its monotonic one is left alone).
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Site, until
from tests.e2e.wire import Answer, ask, request
from tests.races import calls
from tests.races.calls import Grant
from tests.races.clients import Recorder, Seat, at_once
from tests.races.conftest import Cluster, cluster
from tests.races.history import History, Result
from tests.races.laws import breaches
from tests.races.linearize import unexplained
from tests.redis_server import RedisServer

HOUR = 3600
OFFSETS = (0, 5, -5, HOUR, -HOUR)  # seconds; the leeway is 10
RIGHT, FAST, SLOW, AHEAD, BEHIND = range(5)
ALL = range(5)
NEAR = (RIGHT, FAST, SLOW)
REFRESH_TTL = HOUR // 2  # less than AHEAD is ahead
EXPIRED, INVALID, REVOKED = ((401, f"{code}_token") for code in ("expired", "invalid", "revoked"))


@pytest.fixture(scope="module")
def replicas(shared_redis: RedisServer, backend: Backend) -> Iterator[Cluster]:
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("needs libfaketime (Debian's package faketime)")
    with Site(shared_redis.url, "clocks") as site:
        processes = [((), _shifted(library, offset) if offset else {}, _sections(offset)) for offset in OFFSETS]
        with cluster(site, backend, processes, {AHEAD: ["clock"], BEHIND: ["clock"]}) as made:
            yield made


def _shifted(library: Path, seconds: int) -> dict[str, str]:
    untouched = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{seconds:+}s", **untouched}


def _sections(offset: int) -> dict[str, dict[str, str]]:
    """The grace is the presenting replica's; the one that is behind has none, so that its clock would prolong it.

    Refresh tokens are JWTs, which name their end: by the clock that is ahead they have expired when they are minted.
    """
    grace = "0s" if offset == -HOUR else "60s"
    return {"tokens": {"refresh_ttl": f"{REFRESH_TTL}s", "refresh_grace": grace, "refresh_format": "jwt"}}


def get(cluster: Cluster, replica: int, access: str, path: str = "") -> Answer:
    return ask(cluster.replicas[replica].port, request("GET", path or cluster.path, token=access))


def login(cluster: Cluster, replica: int) -> Grant:
    return calls.granted(ask(cluster.replicas[replica].port, calls.sign_in("alice")))


def refresh(cluster: Cluster, replica: int, token: str) -> Answer:
    return ask(cluster.replicas[replica].port, calls.refresh(token))


@pytest.mark.parametrize("replica", ALL)
def test_the_clocks_are_off_by_as_much_as_they_are_meant_to_be(replicas: Cluster, replica: int) -> None:
    before = int(time.time())
    issued_at = calls.claims(login(replicas, replica).access)["iat"]
    assert before <= issued_at - OFFSETS[replica] <= time.time()


@pytest.mark.parametrize("replica", ALL)
def test_a_replica_tells_how_far_its_clock_is_off_and_is_unready_beyond_the_leeway(
    replicas: Cluster, replica: int
) -> None:
    gateway = replicas.replicas[replica]
    assert gateway.metric("tokengate_clock_skew_seconds") == pytest.approx(OFFSETS[replica], abs=1)
    ready = gateway.operate("GET", "/readyz")
    assert (ready.status, ready.json().get("failing")) == ((200, None) if replica in NEAR else (503, ["clock"]))
    assert gateway.operate("GET", "/livez").status == 200
    said = [line["ahead"] for line in gateway.log_lines() if line["message"] == "the clock differs from that of Redis"]
    if replica not in (FAST, SLOW):  # these are off by half the leeway, from where on there is a warning
        assert said == ([] if replica == RIGHT else [pytest.approx(OFFSETS[replica], abs=1)])


@pytest.mark.parametrize("minted_at", NEAR)
def test_a_token_is_good_at_every_replica_whose_clock_is_off_by_less_than_the_leeway(
    replicas: Cluster, minted_at: int
) -> None:
    access = login(replicas, minted_at).access
    assert [get(replicas, replica, access).status for replica in NEAR] == [200] * 3


def test_a_replica_that_is_far_off_refuses_the_token_and_ends_nothing(replicas: Cluster) -> None:
    grant = login(replicas, RIGHT)
    ahead, behind = get(replicas, AHEAD, grant.access), get(replicas, BEHIND, grant.access)
    assert (ahead.error, behind.error) == (EXPIRED, INVALID)
    assert ahead.all("set-cookie") == behind.all("set-cookie") == []
    assert get(replicas, RIGHT, grant.access).status == 200
    assert refresh(replicas, RIGHT, grant.refresh).status == 200


def test_a_client_that_is_sent_from_clock_to_clock_is_never_signed_out(replicas: Cluster) -> None:
    grant = login(replicas, RIGHT)
    for replica in (AHEAD, RIGHT, BEHIND, AHEAD, BEHIND, RIGHT, FAST, AHEAD, SLOW):
        answer = get(replicas, replica, grant.access)
        if answer.status != 200:
            assert answer.error in (EXPIRED, INVALID)
            grant = calls.granted(refresh(replicas, replica, grant.refresh))
            assert get(replicas, replica, grant.access).status == 200


def test_a_route_that_refreshes_does_so_for_a_token_that_its_clock_takes_for_expired(replicas: Cluster) -> None:
    grant = login(replicas, RIGHT)
    port = replicas.replicas[AHEAD].port
    answer = ask(port, calls.renew(replicas.renewing, grant.access, grant.refresh))
    assert answer.status == 200
    given = calls.renewed(answer)
    assert given is not None
    assert [refresh(replicas, replica, given.refresh).status for replica in ALL] == [200] * 5


@pytest.mark.parametrize("replica", ALL)
def test_the_end_of_a_session_and_the_life_of_its_cookie_are_by_the_time_of_redis(
    replicas: Cluster, replica: int
) -> None:
    port, before = replicas.replicas[replica].port, int(time.time())
    answer = ask(port, calls.sign_in("alice", in_cookie=True))
    again = ask(port, calls.refresh(calls.granted(answer).refresh, in_cookie=True))
    for each in (answer, again):
        assert before <= each.json()["refresh_token_expires_at"] - REFRESH_TTL <= time.time()
        (cookie,) = each.all("set-cookie")
        assert f"; Max-Age={REFRESH_TTL}; " in cookie


def test_rotation_goes_on_from_replica_to_replica_whatever_their_clocks(replicas: Cluster) -> None:
    grants = [login(replicas, AHEAD)]
    for replica in (*ALL, *reversed(ALL)):
        grants.append(calls.granted(refresh(replicas, replica, grants[-1].refresh)))
    assert len({grant.refresh for grant in grants}) == len(grants)
    assert refresh(replicas, BEHIND, grants[0].refresh).error == (400, "invalid_grant")
    assert get(replicas, RIGHT, grants[-1].access).error == REVOKED


@pytest.mark.parametrize("used_at", [RIGHT, AHEAD, BEHIND])
def test_a_grace_that_began_at_one_clock_is_judged_alike_at_the_others(replicas: Cluster, used_at: int) -> None:
    """Within it the others replay; the one that has no grace takes it for reuse, though its clock is an hour behind."""
    first = login(replicas, RIGHT)
    second = calls.granted(refresh(replicas, used_at, first.refresh))
    assert get(replicas, used_at, second.access).status == 200
    replays = [calls.granted(refresh(replicas, replica, first.refresh)) for replica in (*NEAR, AHEAD)]
    assert {replay.refresh for replay in replays} == {second.refresh}
    until(lambda: refresh(replicas, BEHIND, first.refresh).status == 400, "the use has been noted")
    assert get(replicas, used_at, second.access).error == REVOKED


@pytest.mark.parametrize("revoked_at", ALL)
def test_a_revocation_holds_wherever_the_token_was_good_whatever_the_clock_of_who_answered_it(
    replicas: Cluster, revoked_at: int
) -> None:
    right, ahead = login(replicas, RIGHT).access, login(replicas, AHEAD).access
    port = replicas.replicas[revoked_at].port
    assert get(replicas, RIGHT, right).status == get(replicas, AHEAD, ahead).status == 200
    assert ask(port, calls.revoke(right)).status == ask(port, calls.revoke(ahead)).status == 200
    assert [get(replicas, replica, right).error for replica in NEAR] == [REVOKED] * 3
    assert get(replicas, AHEAD, ahead).error == REVOKED


def test_a_revocation_outlives_the_token_at_the_replica_whose_clock_is_behind(replicas: Cluster) -> None:
    """The token is good until `exp` and the leeway have passed by each replica's own clock."""
    session = login(replicas, RIGHT).session
    signer = replicas.site.signer(access_ttl=1)
    words: dict[str, Any] = {"roles": [], "scope": "", "claims": {}, "counter": 0}
    token = signer.mint(subject="u-alice", session_id=session, now=time.time() - 9, **words).token
    assert get(replicas, SLOW, token).status == 200
    assert ask(replicas.replicas[RIGHT].port, calls.revoke(token)).status == 200
    until(lambda: get(replicas, RIGHT, token).error == EXPIRED, "the token expires")
    assert get(replicas, SLOW, token).error == REVOKED


@pytest.mark.parametrize("ended_at", ALL)
def test_a_session_that_was_ended_at_any_clock_is_over_at_every_clock(replicas: Cluster, ended_at: int) -> None:
    own = [login(replicas, replica) for replica in ALL]
    for grant in own:
        assert ask(replicas.replicas[ended_at].port, calls.sign_out(token=grant.refresh)).status == 204
    for replica, grant in enumerate(own):
        assert get(replicas, replica, grant.access).error == REVOKED
        assert refresh(replicas, replica, grant.refresh).error == (400, "invalid_grant")


def test_refreshes_against_ends_over_wrong_clocks_make_a_history_that_can_have_happened(replicas: Cluster) -> None:
    history = History()
    with Recorder(replicas, history, "tab") as tab, Recorder(replicas, history, "other tab") as other:
        for number in range(12):
            seat = Seat("bob")
            here, there = NEAR[number % 3], NEAR[(number + 1 + number // 6) % 3]
            tab.login(here, seat)
            at_once(functools.partial(tab.refresh, here, seat), functools.partial(other.end, there, seat, "revoke"))
            for grant in (seat.tokens, *seat.older):
                assert [tab.request(replica, grant) for replica in NEAR] == [Result.REFUSED] * 3
    assert breaches(history, 60) == []
    assert unexplained(history, 60) == []
