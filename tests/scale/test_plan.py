"""The arithmetic of docs/operations/capacity.md: how a plan follows from what is asked and from what was measured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks import planning
from benchmarks.plan import (
    DIRECT,
    FRONTS,
    POOLED,
    STICKY,
    USUAL,
    Constants,
    Demand,
    Headroom,
    Plan,
    batch_size,
    check_cost,
    plan,
    reached,
    renewals,
    share,
)
from benchmarks.store_probe import fit

ROUND = Constants(
    nginx=20,
    request=50,
    request_kept=40,
    request_full=40,
    verify=100,
    mark=100,
    refresh=400,
    login=500,
    logout=400,
    password=160_000,
    worker_bytes=60e6,
    connection_bytes=6e3,
    token_bytes=3e3,
    turn=200e-6,
    batch=10,
    batch_cluster=10,
    ask=2,
    ask_cluster=3,
    store_refresh=30,
    store_login=40,
    store_logout=30,
    store_revoke=30,
    store_mark=30,
    store_attempt=20,
    store_worker=100,
    store_bytes=1e6,
    session_bytes=300,
    index_bytes=150,
    revoked_bytes=130,
    attempt_bytes=120,
    ask_in=90,
    ask_out=130,
    batch_in=40,
    batch_out=6,
    refresh_in=500,
    refresh_out=400,
)
NOBODY: dict[str, Any] = {"logins": 0.0, "logouts": 0.0}


def planned(sessions: float, requests: float, headroom: Headroom = USUAL, **more: Any) -> Plan:
    return plan(Demand(sessions, requests, **more), ROUND, headroom)


def test_a_session_is_refreshed_once_a_token_and_the_wait_for_a_request() -> None:
    assert renewals(Demand(1000, 1e9)) == pytest.approx(1000 / 600, rel=1e-3)
    assert renewals(Demand(10e6, 1000)) == pytest.approx(10e6 / (600 + 10_000))
    assert renewals(Demand(1000, 1e9, online=0.1)) == pytest.approx(100 / 600, rel=1e-3)
    for requests in (1, 1e3, 1e6):
        assert renewals(Demand(1e6, requests)) < requests


def test_of_ten_workers_a_few_draws_meet_as_many_and_many_draws_meet_all() -> None:
    assert reached(10, 1) == pytest.approx(1)
    assert reached(10, 2) == pytest.approx(1.9)
    assert reached(10, 1000) == pytest.approx(10)
    assert reached(1, 1000) == 1


def test_a_few_requests_need_two_pods_of_which_one_is_enough() -> None:
    made = planned(1000, 1000, **NOBODY)
    assert (made.workers, made.pods, made.limit, made.shards) == (1, 2, "one is enough", 1)


def test_cores_are_the_sum_of_what_everything_costs() -> None:
    made = planned(600_000, 100_000, Headroom(zones=1), front=STICKY, **NOBODY)
    refreshes = 600_000 / (600 + 6)
    expected = 100_000 * 50 + refreshes * 100 + refreshes * (400 + 100)
    assert made.flow.forgotten == 0
    assert made.cores == pytest.approx(expected / 1e6)
    assert made.workers == -(-expected // 600_000) == made.pods
    assert made.limit == "CPU"


@pytest.mark.parametrize("zones", [1, 2, 3, 5])
def test_without_its_fullest_zone_enough_workers_are_left(zones: int) -> None:
    for requests in (1e3, 1e4, 1e5):
        made = planned(1000, requests, Headroom(zones=zones))
        lost = -(-made.pods // zones) if zones > 1 else 0
        assert made.pods - lost >= made.workers
        assert made.pods == 2 or made.pods - 1 - (-(-(made.pods - 1) // zones) if zones > 1 else 0) < made.workers


def test_a_proxy_that_sends_requests_anywhere_has_every_token_verified_by_many() -> None:
    anywhere, sticky = (planned(1e6, 1e5, front=front) for front in (POOLED, STICKY))
    assert anywhere.flow.first_sights > 5 * sticky.flow.first_sights
    assert anywhere.workers > sticky.workers
    assert anywhere.flow.refreshes == sticky.flow.refreshes


def test_more_tokens_than_a_worker_remembers_are_verified_again() -> None:
    little, much = (planned(10e6, 1e5, Headroom(tokens=tokens), front=STICKY) for tokens in (1_000, 10_000_000))
    assert much.flow.forgotten == 0 < little.flow.forgotten
    assert little.workers > much.workers
    assert little.flow.tokens == 1_000 < much.flow.tokens


def test_clients_of_their_own_connections_need_workers_for_them() -> None:
    made = planned(1e6, 2e5, front=DIRECT)
    assert made.limit == "connections"
    assert made.flow.connections <= 0.6 * 20_000
    assert made.pod_bytes > ROUND.worker_bytes + made.flow.connections * ROUND.connection_bytes


def test_the_number_of_workers_is_the_least_that_is_enough() -> None:
    for front in FRONTS:
        for sessions in (1e3, 1e6):
            made = planned(sessions, 1e5, front=front)
            assert made.cores <= 0.6 * made.workers
            fewer = planned(sessions, 1e5, Headroom(busy=made.cores / made.workers * 1.001), front=front)
            assert fewer.workers >= made.workers - 1


def test_a_password_of_a_users_file_costs_what_hundreds_of_refreshes_do() -> None:
    webhook, users_file = (planned(1e6, 1e4, logins=100, users_file=each) for each in (False, True))
    assert users_file.cores - webhook.cores == pytest.approx(16, rel=0.2)


def test_live_checks_travel_together_where_a_worker_has_many_and_on_a_cluster_by_master() -> None:
    assert batch_size(100_000, 10, 200e-6) == pytest.approx(2)
    assert batch_size(100_000, 100, 200e-6) == 1
    assert batch_size(100_000, 10, 600e-6, masters=3) == pytest.approx(2)
    assert check_cost(ROUND, 1, cluster=False) == 12
    assert check_cost(ROUND, 10, cluster=False) == 3
    assert check_cost(ROUND, 1, cluster=True) == 13
    assert check_cost(ROUND, 10, cluster=True) == 4


def test_a_longer_way_to_redis_makes_batches_larger_and_checks_cheaper() -> None:
    near, far = (planned(1e4, 1e5, round_trip=each) for each in (0.0, 2e-3))
    assert far.batch > near.batch
    assert far.redis_cores < near.redis_cores


def test_one_master_is_enough_until_its_core_is_busy_and_sixteen_are_the_most() -> None:
    shards = [planned(1e5, requests) for requests in (1e3, 1e4, 1e5, 3e5, 5e6)]
    assert shards[0].shards == 1
    assert [made.shards for made in shards] == sorted(made.shards for made in shards)
    assert all(made.shards in (1, 3, 4, 6, 8, 16) for made in shards)
    for made in shards[:-1]:
        assert made.enough
        assert made.redis_cores * share(made.shards) <= 0.6
    assert not shards[-1].enough
    assert shards[-1].shards == 16


def test_the_fullest_master_has_whole_partitions() -> None:
    assert [share(masters) * 16 for masters in (1, 3, 4, 5, 6, 8, 15, 16)] == [16, 6, 4, 4, 3, 2, 2, 1]


def test_memory_of_redis_is_that_of_sessions_blacklist_and_hash_tables() -> None:
    made = planned(1e6, 1e3, **NOBODY, revocations=100)
    least = 1e6 * 450 + 100 * 600 * 130
    assert least < made.data_bytes < least * 1.15
    assert made.maxmemory == pytest.approx(made.data_bytes / 0.75)


def test_what_is_no_demand_is_refused() -> None:
    for wrong in ({"sessions": 0}, {"requests": 0}, {"online": 0}, {"online": 1.1}, {"access_ttl": 0}):
        with pytest.raises(ValueError, match="must be positive"):
            replace(Demand(1, 1), **wrong)
    with pytest.raises(ValueError, match="front"):
        Demand(1, 1, front="elsewhere")


def test_numbers_are_read_as_people_write_them() -> None:
    assert [planning.count(text) for text in ("1500", "50k", "2M", "1.5G")] == [1500, 50_000, 2e6, 1.5e9]
    assert [planning.duration(text) for text in ("500us", "10s", "10m", "2h")] == [500e-6, 10, 600, 7200]
    assert [planning.part(text) for text in ("60%", "0.6")] == [0.6, 0.6]
    for wrong in ("", "2m", "k", "-1", "1e6"):
        with pytest.raises(ValueError, match="is no number"):
            planning.count(wrong)
    with pytest.raises(ValueError, match="is no duration"):
        planning.duration("10")


def test_a_line_is_fitted_with_relative_errors() -> None:
    exact = fit([(size, 10 + 1.5 * size) for size in (1, 2, 4, 64)])
    assert (exact.first, exact.each, exact.off) == pytest.approx((10, 1.5, 0))
    bent = fit([(1, 12.0), (2, 14.0), (4, 18.0), (64, 200.0)])
    assert bent.first == pytest.approx(10, rel=0.2)
