"""wait_replicas: a revocation that too few replicas have is a 503, holds all the same, and can be repeated."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.faults import SNAPSHOTS, WAITING
from tests.chaos.servers import Store, until
from tests.chaos.sessions import login
from tests.chaos.world import World, world
from tests.e2e.harness import ADMIN_TOKEN, Gateway
from tests.e2e.wire import Answer, ask, request

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def waiting() -> Iterator[World]:
    with world(WAITING) as made:
        yield made


def form(body: str) -> bytes:
    return request("POST", "/auth/revoke", FORM, body.encode())


@pytest.mark.parametrize("way", ["logout", "sign-out everywhere", "revoke", "revoke the refresh token", "admin"])
def test_a_revocation_without_its_replica_is_a_503_that_holds_and_can_be_repeated(
    waiting: World, store: Store, way: str
) -> None:
    waiting.use(store)
    session = login(waiting.gateways[0])
    port, data = {
        "logout": (0, request("POST", "/auth/logout", body=b"", token=session.access)),
        "sign-out everywhere": (-1, request("DELETE", "/admin/users/u-alice/sessions", token=ADMIN_TOKEN)),
        "revoke": (0, form(f"token={session.access}")),
        "revoke the refresh token": (0, form(f"token={session.refresh}")),
        "admin": (-1, request("DELETE", f"/admin/sessions/{session.id}", token=ADMIN_TOKEN)),
    }[way]
    first = waiting.gateways[0]

    def revoke() -> Answer:
        return ask(first.port if port == 0 else first.management, data)

    answer = revoke()
    assert answer.error == (503, "store_unavailable")
    assert answer.get("retry-after")
    for gateway in waiting.gateways:
        assert ask(gateway.port, session.guarded).error == (401, "revoked_token")
    with_replica(store, waiting, revoke)
    for gateway in waiting.gateways:
        assert ask(gateway.port, session.guarded).error == (401, "revoked_token")


def with_replica(store: Store, waiting: World, revoke: object) -> None:
    """Let a replica join, and the revocation be repeated until it is confirmed."""
    assert callable(revoke)
    replica = Store(SNAPSHOTS)
    try:
        replica.follow(store)
        until(lambda: revoke().status in (200, 204, 404), "the revocation is confirmed")
    finally:
        replica.close()


def test_sign_in_and_refresh_wait_for_no_replica(waiting: World, store: Store) -> None:
    waiting.use(store)
    gateway: Gateway = waiting.gateways[0]
    session = login(gateway)
    assert gateway.refresh(session.refresh).status == 200
    assert ask(gateway.port, session.guarded).status == 200
