"""wait_replicas: a revocation that too few replicas have is a 503, holds all the same, and can be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.faults import SNAPSHOTS
from tests.chaos.servers import Store
from tests.chaos.sessions import Held, decided, login
from tests.chaos.world import World
from tests.e2e.harness import Gateway
from tests.e2e.wire import Answer, ask, request

FORM = {"Content-Type": "application/x-www-form-urlencoded"}

Way = Callable[[Gateway, Held], Answer]


def logout(gateway: Gateway, session: Held) -> Answer:
    return ask(gateway.port, request("POST", "/auth/logout", body=b"", token=session.access))


def revoke_access(gateway: Gateway, session: Held) -> Answer:
    return ask(gateway.port, request("POST", "/auth/revoke", FORM, f"token={session.access}".encode()))


def revoke_refresh(gateway: Gateway, session: Held) -> Answer:
    return ask(gateway.port, request("POST", "/auth/revoke", FORM, f"token={session.refresh}".encode()))


def end_by_admin(gateway: Gateway, session: Held) -> Answer:
    return gateway.operate("DELETE", f"/admin/sessions/{session.id}")


def end_everywhere(gateway: Gateway, session: Held) -> Answer:
    return gateway.operate("DELETE", "/admin/users/u-alice/sessions")


@pytest.fixture
def follower() -> Iterator[Store]:
    made = Store(SNAPSHOTS)
    yield made
    made.close()


@pytest.mark.parametrize("way", [logout, revoke_access, revoke_refresh, end_by_admin, end_everywhere])
def test_a_revocation_without_its_replica_is_a_503_that_holds_and_can_be_repeated(
    waiting: World, store: Store, follower: Store, way: Way
) -> None:
    waiting.use(store)
    session = login(waiting.gateways[0])
    for _ in range(2):
        answer = way(waiting.gateways[0], session)
        assert answer.error == (503, "store_unavailable")
        assert int(answer.get("retry-after")) >= 1
        refused_everywhere(waiting, session)
    follower.follow(store)
    gone = 404 if way is end_by_admin else 204  # the admin API tells that there is no such session any more
    assert decided(lambda: way(waiting.gateways[1], session)).status in (200, gone)
    refused_everywhere(waiting, session)


def refused_everywhere(waiting: World, session: Held) -> None:
    for gateway in waiting.gateways:
        assert ask(gateway.port, session.guarded).error == (401, "revoked_token")


def test_sign_in_and_refresh_wait_for_no_replica(waiting: World, store: Store) -> None:
    waiting.use(store)
    gateway = waiting.gateways[0]
    session = login(gateway)
    assert gateway.refresh(session.refresh).status == 200
    assert ask(gateway.port, session.guarded).status == 200
