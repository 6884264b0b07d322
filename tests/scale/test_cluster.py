"""Four gateway processes before a Redis Cluster of three masters, on one machine: the shape of a large installation.

Counts and shares alone: nothing here is about speed.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.sessions.keyspace import DIGITS, partition
from gateway.sessions.slots import SLOTS
from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Answer, Client, ask, request
from tests.redis_server import RedisServer
from tests.redis_topologies import Cluster, cluster

GATEWAYS = 4
# Nothing is lost when a master is killed: what its log holds, its sessions, come back with it.
KEPT = ("--appendonly", "yes", "--appendfsync", "always")


def one_user_of_each_partition() -> dict[str, str]:
    """Return partition -> the subject of a user who falls into it."""
    found: dict[str, str] = {}
    for number in itertools.count():
        subject = f"u-{number}"
        found.setdefault(partition(subject), subject)
        if len(found) == len(DIGITS):
            return found
    raise AssertionError


USERS = one_user_of_each_partition()


@dataclass
class Fleet:
    """Gateways, the cluster behind them, and the access token of a user of each partition."""

    gateways: list[Gateway]
    nodes: Cluster
    backend: Backend
    path: str
    tokens: dict[str, str] = field(default_factory=dict)

    def call(self, gateway: Gateway, token: str) -> Answer:
        return ask(gateway.port, self.request(token))

    def request(self, token: str) -> bytes:
        return request("GET", self.path, token=token)

    def everywhere(self, token: str) -> list[Answer]:
        return [self.call(gateway, token) for gateway in self.gateways]

    def owner(self, digit: str) -> RedisServer:
        return self.nodes.owner(digit)

    def live_checks(self) -> list[int]:
        """Return how many commands of live checks each master has carried out."""
        return [calls(node, "mget") for node in self.nodes.nodes]


def calls(node: RedisServer, command: str) -> int:
    with node.client() as client:
        stats = client.info("commandstats")
    assert isinstance(stats, dict)
    return int(stats.get(f"cmdstat_{command}", {}).get("calls", 0))


@pytest.fixture(scope="module")
def fleet(backend: Backend) -> Iterator[Fleet]:
    users = {f"user-{digit}": {"sub": subject, "roles": ["user"]} for digit, subject in USERS.items()}
    with ExitStack() as stack:
        nodes = stack.enter_context(cluster(3, options=KEPT))
        site = stack.enter_context(Site(nodes.url, users=users))
        options: dict[str, Any] = {
            "routes": [route("/guarded/", backend.url)],
            "redis": {"url": nodes.url, "timeout": "2s"},
        }
        gateways = [stack.enter_context(site.serve(ready=0, **options)) for _ in range(GATEWAYS)]  # at the same time
        for gateway in gateways:
            until(lambda: gateway.readiness() == 200, f"{gateway!r} is ready", 45)  # noqa: B023  # called here
        made = Fleet(gateways, nodes, backend, backend.spot().path("/guarded"))
        for at, digit in enumerate(DIGITS):
            made.tokens[digit] = gateways[at % GATEWAYS].login(f"user-{digit}")["access_token"]
        yield made


def test_the_partitions_are_spread_over_all_masters_each_on_one(fleet: Fleet) -> None:
    shares = [fleet.nodes.partitions(node) for node in fleet.nodes.nodes]
    assert sorted("".join(shares)) == sorted(DIGITS)
    assert all(3 <= len(share) <= 8 for share in shares)


def test_a_login_at_one_gateway_is_served_by_all_four(fleet: Fleet) -> None:
    for token in fleet.tokens.values():
        assert [answer.status for answer in fleet.everywhere(token)] == [200] * GATEWAYS


def test_a_revocation_at_one_gateway_holds_at_all_four_with_the_next_request(fleet: Fleet) -> None:
    for at, digit in enumerate(DIGITS):
        signer_in, ender = fleet.gateways[at % GATEWAYS], fleet.gateways[(at + 1) % GATEWAYS]
        token = signer_in.login(f"user-{digit}")["access_token"]
        assert [answer.status for answer in fleet.everywhere(token)] == [200] * GATEWAYS
        assert ask(ender.port, request("POST", "/auth/logout", token=token)).status == 204
        assert [answer.error for answer in fleet.everywhere(token)] == [(401, "revoked_token")] * GATEWAYS


def test_of_gateways_that_see_a_refreshed_token_one_writes_that_it_is_used(fleet: Fleet) -> None:
    first = fleet.gateways[0]
    tokens = first.login("user-0")
    renewed = first.refresh(tokens["refresh_token"]).json()
    before = [gateway.metric("tokengate_store_seconds_count", operation="mark_used") for gateway in fleet.gateways]

    def written() -> list[float]:
        now = [gateway.metric("tokengate_store_seconds_count", operation="mark_used") for gateway in fleet.gateways]
        return [after - earlier for after, earlier in zip(now, before, strict=True)]

    assert fleet.call(first, renewed["access_token"]).status == 200
    until(lambda: written()[0] == 1, "the first use is written")
    for gateway in fleet.gateways[1:]:
        for _ in range(2):
            assert fleet.call(gateway, renewed["access_token"]).status == 200
        assert fleet.call(gateway, fleet.tokens["0"]).status == 200
    assert written() == [1, 0, 0, 0]


def test_each_master_is_asked_about_its_own_partitions_once_a_request(fleet: Fleet) -> None:
    for token in fleet.tokens.values():
        fleet.everywhere(token)
    before = fleet.live_checks()
    for token in fleet.tokens.values():
        fleet.everywhere(token)
    asked = [after - earlier for after, earlier in zip(fleet.live_checks(), before, strict=True)]
    assert asked == [GATEWAYS * len(fleet.nodes.partitions(node)) for node in fleet.nodes.nodes]


@pytest.mark.parametrize(
    ("digits", "each", "most"), [("0", 64, 8), (DIGITS, 4, 3 * len(DIGITS))], ids=["one partition", "all partitions"]
)
def test_requests_that_come_together_are_asked_about_together(fleet: Fleet, digits: str, each: int, most: int) -> None:
    """64 requests that a gateway finds waiting are a few live checks of Redis for each partition, not 64."""
    gateway = fleet.gateways[0]
    wanted = [fleet.tokens[digit] for digit in digits for _ in range(each)]
    for token in set(wanted):
        assert fleet.call(gateway, token).status == 200
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(gateway.port)) for _ in wanted]
        for client, token in zip(clients, wanted, strict=True):  # connected, and known to be
            assert client.ask(fleet.request(token)).status == 200
        before = sum(fleet.live_checks())
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            for client, token in zip(clients, wanted, strict=True):
                client.send(fleet.request(token))
        finally:
            gateway.process.send_signal(signal.SIGCONT)
        assert [client.answer().status for client in clients] == [200] * len(wanted)
        assert sum(fleet.live_checks()) - before <= most


def test_every_key_lies_in_the_slot_of_its_partition_and_no_script_asked_for_two(fleet: Fleet) -> None:
    tokens = fleet.gateways[1].login("user-7")
    assert fleet.gateways[2].refresh(tokens["refresh_token"]).status == 200
    kinds = set()
    for node in fleet.nodes.nodes:
        mine = fleet.nodes.partitions(node)
        with node.client() as client:
            for key in client.keys("*"):
                _, tag, rest = key.decode().replace("{", "}").split("}", 2)
                assert tag in mine
                assert client.execute_command("CLUSTER", "KEYSLOT", key) == SLOTS[tag]
                kinds.add(rest.split(":")[1])
            errors = client.info("errorstats")
        assert "errorstat_CROSSSLOT" not in errors
        assert calls(node, "evalsha") > 0
    assert kinds >= {"session", "user", "epoch"}


def test_the_loss_of_a_master_stops_its_partitions_alone_and_they_return_with_it(fleet: Fleet) -> None:
    lost = fleet.nodes.nodes[1]
    mine = fleet.nodes.partitions(lost)
    others = [digit for digit in DIGITS if digit not in mine]
    ended = fleet.gateways[0].login(f"user-{mine[0]}")["access_token"]
    assert ask(fleet.gateways[3].port, request("POST", "/auth/logout", token=ended)).status == 204
    lost.stop()
    try:
        for _ in range(2):
            assert statuses(fleet, others) == {200}
            assert statuses(fleet, mine) == {(503, "store_unavailable")}
            assert {answer.error for answer in fleet.everywhere(ended)} == {(503, "store_unavailable")}
        for gateway in fleet.gateways:
            assert sign_in(gateway, mine[0]).error == (503, "store_unavailable")
            assert sign_in(gateway, others[0]).status == 200
            assert gateway.readiness() == 200
    finally:
        lost.start()
    until(lambda: statuses(fleet, mine) == {200}, "the partitions return", 30)
    assert statuses(fleet, others) == {200}
    assert {answer.error for answer in fleet.everywhere(ended)} == {(401, "revoked_token")}


def sign_in(gateway: Gateway, digit: str) -> Answer:
    body = f'{{"username":"user-{digit}","password":"correct horse"}}'.encode()
    return ask(gateway.port, request("POST", "/auth/login", {"Content-Type": "application/json"}, body))


def statuses(fleet: Fleet, digits: Sequence[str]) -> set[int | tuple[int, str]]:
    """Return what all gateways answer to the users of these partitions: 200, or the error."""
    answers = [answer for digit in digits for answer in fleet.everywhere(fleet.tokens[digit])]
    return {200 if answer.status == 200 else answer.error for answer in answers}
