"""The table of what befalls a primary behind sentinels, and a cluster: how each is done, and until when it lasts.

prepare   before sessions are ended and the load begins
strike    what happens; returns when it has
settle    returns when Redis could serve everyone again
after     what comes back later, and must change nothing
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.sessions.keyspace import partition
from tests.chaos.world import WAITING
from tests.redis_server import RedisServer
from tests.redis_topologies import Cluster, Watched, cluster, replicate, sentinels, wait_until

STRUCK = partition("u-alice")  # the partition that a cluster loses; those of carol and bob have another master
REPLICATOR = "replicator"  # as whom replicas log in where their link is to be cut
_KEPT = ("--appendonly", "yes", "--appendfsync", "always")


@dataclass
class Ground:
    """What a blow is done to. `primary` serves, or has the struck partition; `spare` is its replica.

    `witness` is a server that no blow touches: what it is late with is the machine's doing.
    """

    url: str
    primary: RedisServer
    spare: RedisServer
    witness: RedisServer
    sentinels: Watched | None = field(repr=False, default=None)
    cluster: Cluster | None = field(repr=False, default=None)

    @property
    def watched(self) -> Watched:
        assert self.sentinels is not None
        return self.sentinels

    @property
    def nodes(self) -> Cluster:
        assert self.cluster is not None
        return self.cluster


@contextmanager
def behind_sentinels() -> Iterator[Ground]:
    with sentinels(3) as watched:
        yield Ground(watched.url, watched.primary, watched.replica, watched.replica, sentinels=watched)


@contextmanager
def in_a_cluster() -> Iterator[Ground]:
    with cluster(3, 3, _KEPT) as nodes:
        primary = nodes.owner(STRUCK)
        spare = nodes.nodes[nodes.nodes.index(primary) + 3]
        yield Ground(nodes.url, primary, spare, nodes.owner(partition("u-carol")), cluster=nodes)


Step = Callable[[Ground], None]


def _nothing(ground: Ground) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Blow:
    """`lossy`: what was acknowledged a moment ago may be lost. Then its partition's sessions are void, as soon as the
    gateway that knows better has looked and the others have heard of it.

    `calm`: nothing that was served before may be refused while it lasts. `splits`: for a moment two servers take
    writes, and what the older one has confirmed is lost; only `wait_replicas`, among the `settings` of the gateways'
    Redis, rules that out.
    """

    name: str
    where: Callable[[], Any]
    strike: Step
    settle: Step = _nothing
    prepare: Step = _nothing
    after: Step = _nothing
    lossy: bool = False
    calm: bool = False
    splits: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def clustered(self) -> bool:
        return self.where is in_a_cluster


def _synchronize(ground: Ground) -> None:
    """Let the replica have all that was written until now."""
    replicate(ground.primary, f"{{{STRUCK}}}:fence")


def _kill(ground: Ground) -> None:
    ground.primary.stop()


def _freeze(ground: Ground) -> None:
    ground.primary.pause()


def _until_it_leads(ground: Ground) -> None:
    """Wait until the replica leads, by what the sentinels say, or by what the cluster does."""
    if ground.sentinels is not None:
        wait_until(lambda: ground.watched.named() == ground.spare.port, 60)
    wait_until(lambda: _role(ground.spare) == "master", 60)


def _until_it_follows(ground: Ground) -> None:
    """Let the old primary come back, and be told that it is one no more."""
    ground.primary.resume()
    wait_until(lambda: _role(ground.primary) == "slave", 60)


def _until_the_other_follows(ground: Ground) -> None:
    wait_until(lambda: _role(ground.primary) == "slave", 60)


def _role(server: RedisServer) -> str:
    with server.client() as client:
        return str(client.info("replication")["role"])


def _hand_over(ground: Ground) -> None:
    """Have the replica take over while all is well, without losing a write where that is possible."""
    if ground.sentinels is not None:
        ground.watched.fail_over()
    else:
        with ground.spare.client() as client:
            client.execute_command("CLUSTER", "FAILOVER")


def _replicate_as_a_user(ground: Ground) -> None:
    """Have the replica log in, so that its link can be cut by taking that user's right to."""
    for server in (ground.primary, ground.spare):
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", REPLICATOR, "on", "nopass", "+psync", "+replconf", "+ping")
    with ground.spare.client() as copy:
        copy.config_set("masteruser", REPLICATOR)
        copy.config_set("masterauth", "any")
    _synchronize(ground)


def _cut_replication(ground: Ground) -> None:
    with ground.primary.client() as admin:
        admin.execute_command("ACL", "SETUSER", REPLICATOR, "off")
        admin.execute_command("CLIENT", "KILL", "TYPE", "replica")


def _lag(ground: Ground) -> None:
    _replicate_as_a_user(ground)
    _cut_replication(ground)


def _lose_a_sentinel(ground: Ground) -> None:
    ground.watched.sentinels[1].stop()


def _lose_all_sentinels(ground: Ground) -> None:
    for each in ground.watched.sentinels:
        each.stop()


def _bring_sentinels_back(ground: Ground) -> None:
    time.sleep(2)  # nobody names a primary for so long
    for each in ground.watched.sentinels:
        each.start()
    wait_until(lambda: ground.watched.named() == ground.primary.port)


def _lose_both(ground: Ground) -> None:
    ground.spare.stop()
    ground.primary.stop()


def _start_both(ground: Ground) -> None:
    ground.primary.start()
    ground.spare.start()
    wait_until(lambda: ground.nodes.owner(STRUCK) in (ground.primary, ground.spare), 60)
    wait_until(lambda: all(_is_well(node) for node in ground.nodes.nodes), 60)


def _is_well(node: RedisServer) -> bool:
    with node.client() as client:
        info = client.execute_command("CLUSTER", "INFO")
    text = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
    return bool(text["cluster_state"] == "ok")


def _move_there_and_back(ground: Ground) -> None:
    """Move the partition key by key to another master, and back."""
    nodes, target = ground.nodes, next(node for node in ground.nodes.nodes[:3] if node is not ground.primary)
    for source, aim in ((ground.primary, target), (target, ground.primary)):
        nodes.begin_move(STRUCK, source, aim)
        while nodes.move_keys(STRUCK, source, aim, 1):
            pass
        nodes.end_move(STRUCK, aim)


BLOWS = (
    Blow("Sentinel: the primary killed", behind_sentinels, _kill, _until_it_leads, prepare=_synchronize, lossy=True),
    Blow(
        "Sentinel: the primary cut off, later back",
        behind_sentinels,
        _freeze,
        _until_it_leads,
        prepare=_synchronize,
        after=_until_it_follows,
        lossy=True,
    ),
    Blow(
        "Sentinel: a failover by hand",
        behind_sentinels,
        _hand_over,
        _until_it_leads,
        prepare=_synchronize,
        lossy=True,
        splits=True,
    ),
    Blow(
        "Sentinel: a failover by hand, wait_replicas = 1",
        behind_sentinels,
        _hand_over,
        _until_it_leads,
        prepare=_synchronize,
        after=_until_the_other_follows,
        lossy=True,
        settings=WAITING,
    ),
    Blow(
        "Sentinel: a replica that lagged takes over",
        behind_sentinels,
        _kill,
        _until_it_leads,
        prepare=_lag,
        lossy=True,
    ),
    Blow("Sentinel: one sentinel of three lost", behind_sentinels, _lose_a_sentinel, calm=True),
    Blow("Sentinel: all sentinels lost, later back", behind_sentinels, _lose_all_sentinels, _bring_sentinels_back),
    Blow("Cluster: a master killed", in_a_cluster, _kill, _until_it_leads, prepare=_synchronize, lossy=True),
    Blow(
        "Cluster: a master cut off, later back",
        in_a_cluster,
        _freeze,
        _until_it_leads,
        prepare=_synchronize,
        after=_until_it_follows,
        lossy=True,
    ),
    Blow("Cluster: a master and its replica killed, both back", in_a_cluster, _lose_both, _start_both, lossy=True),
    Blow("Cluster: a failover by hand", in_a_cluster, _hand_over, _until_it_leads, prepare=_synchronize),
    Blow(
        "Cluster: a replica that lagged takes over",
        in_a_cluster,
        _kill,
        _until_it_leads,
        prepare=_lag,
        lossy=True,
    ),
    Blow("Cluster: a slot moved there and back", in_a_cluster, _move_there_and_back),
)
