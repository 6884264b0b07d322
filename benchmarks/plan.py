"""How many pods, and how much Redis, for so many sessions and requests: arithmetic over measured constants, pure.

    python -m benchmarks --plan --sessions 2M --rps 50k --access-ttl 10m

Every formula stands in docs/operations/capacity.md too. All of them err on the side of too much: batches as small as
on loopback, clients that are all in use, a zone that is lost at the busiest moment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

DIRECT, POOLED, STICKY = "direct", "pooled", "sticky"
FRONTS = {
    DIRECT: "each client keeps a connection to a pod (a load balancer of layer 4)",
    POOLED: "a proxy in front sends each request to any pod",
    STICKY: "a proxy in front sends a session's requests to one pod",
}
PARTITIONS = 16
PROXY_CONNECTIONS = 512  # that a proxy in front keeps to a pod
MICRO = 1e-6
_MOST = 100_000  # workers that are tried


@dataclass(frozen=True, slots=True)
class Constants:
    """What one run measured (scale.py). CPU in microseconds, sizes in bytes.

    `nginx` is a request that plain nginx passes on in the same run, the yardstick. The first part is a worker's: a
    proxied request with its live check at half load, where requests of many tokens share connections and where each
    connection keeps to one (`request_kept`); what a token costs on top that the worker has not seen yet (`verify`) and
    that nobody has seen since its refresh (`mark`), a refresh, a login by the webhook, a logout; a worker at rest, a
    connection, a remembered token. The second is Redis': a live check is `batch / n + ask` where n of them travel
    together, `batch_cluster / n + ask_cluster` to a master of a cluster; `worker` is what a worker costs in a second by
    itself. `turn` is in seconds: from one batch of a busy worker to the next.
    """

    nginx: float
    request: float
    request_kept: float
    request_full: float
    verify: float
    mark: float
    refresh: float
    login: float
    logout: float
    password: float
    worker_bytes: float
    connection_bytes: float
    token_bytes: float
    turn: float
    batch: float
    batch_cluster: float
    ask: float
    ask_cluster: float
    store_refresh: float
    store_login: float
    store_logout: float
    store_revoke: float
    store_mark: float
    store_attempt: float
    store_worker: float
    store_bytes: float
    session_bytes: float
    index_bytes: float
    revoked_bytes: float
    attempt_bytes: float
    ask_in: float
    ask_out: float
    batch_in: float
    batch_out: float
    refresh_in: float
    refresh_out: float


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked of the installation. Times in seconds, rates a second.

    `online` is the share of the sessions whose clients make the requests; the others are kept, and cost memory alone.
    `logins` None = each session begins once a day. `revocations` are single tokens put on the blacklist.
    `round_trip` is to Redis and back on the network, on top of what loopback takes.
    """

    sessions: float
    requests: float
    access_ttl: float = 600.0
    online: float = 1.0
    logins: float | None = None
    logouts: float | None = None
    revocations: float = 0.0
    front: str = POOLED
    round_trip: float = 0.0
    users_file: bool = False

    def __post_init__(self) -> None:
        if not (self.sessions >= 1 and self.requests > 0 and self.access_ttl >= 1 and 0 < self.online <= 1):
            raise ValueError("sessions, requests, access_ttl and online must be positive, online at most 1")
        if self.front not in FRONTS:
            raise ValueError(f"front must be one of {', '.join(FRONTS)}")

    @property
    def clients(self) -> float:
        return max(1.0, self.sessions * self.online)


@dataclass(frozen=True, slots=True)
class Headroom:
    """How full things may be. `busy` is of a core, of a pod's connections and of a Redis' core; `full` of maxmemory.

    One of `zones` may be lost without more than that. `tokens` and `connections` are a worker's bounds
    (tokens.remembered, server.max_connections); `copy` is what a fork of Redis may add to its memory.
    """

    busy: float = 0.6
    full: float = 0.75
    zones: int = 3
    tokens: int = 65_536
    connections: int = 20_000
    keepalive: float = 75.0
    copy: float = 0.5
    shard_bytes: float = 24 * 2.0**30


USUAL = Headroom()


@dataclass(frozen=True, slots=True)
class Flow:
    """What happens in a second with so many workers, and what a worker holds."""

    refreshes: float
    logins: float
    logouts: float
    first_sights: float  # of a token by a worker
    forgotten: float  # requests whose token the worker had to forget
    tokens: float  # of a worker
    connections: float  # of a worker


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. Cores are busy ones, bytes those that are needed; `limit` says what asks for the pods."""

    demand: Demand
    flow: Flow
    workers: int
    pods: int
    limit: str
    cores: float
    request_cost: float  # microseconds a request, everything included
    pod_bytes: float
    batch: float
    check: float  # microseconds of Redis a live check
    redis_cores: float
    shards: int
    enough: bool  # False where 16 shards are too few
    data_bytes: float
    maxmemory: float
    node_bytes: float
    redis_in: float  # bytes a second
    redis_out: float
    redis_connections: int = field(default=0)  # at most, to one master


def plan(demand: Demand, constants: Constants, headroom: Headroom = USUAL) -> Plan:
    """Return what to run. Raises ValueError where no number of workers is enough."""
    workers, limit = _workers(demand, constants, headroom)
    pods = _with_a_zone_lost(workers, headroom.zones)
    flow = _flow(demand, headroom, workers)
    cores = _cpu(demand, constants, flow) * MICRO
    shards, cpu, batch, check, enough = _shards(demand, constants, headroom, flow, pods)
    data = _data(demand, constants, flow, shards)
    maxmemory = data / headroom.full
    sent, received = _network(demand, constants, flow, batch if shards == 1 else 1.0)
    pod = constants.worker_bytes + flow.connections * constants.connection_bytes + flow.tokens * constants.token_bytes
    return Plan(
        demand=demand,
        flow=flow,
        workers=workers,
        pods=pods,
        limit=limit,
        cores=cores,
        request_cost=cores / MICRO / demand.requests,
        pod_bytes=pod,
        batch=batch,
        check=check,
        redis_cores=cpu,
        shards=shards,
        enough=enough,
        data_bytes=data,
        maxmemory=maxmemory,
        node_bytes=maxmemory / shards * (1 + headroom.copy),
        redis_in=sent,
        redis_out=received,
        redis_connections=pods * 65,
    )


# --- the gateway ---


def renewals(demand: Demand) -> float:
    """Return the refreshes a second: a client renews its token with the first request after it has expired."""
    return demand.clients / (demand.access_ttl + demand.clients / demand.requests)


def reached(workers: int, draws: float) -> float:
    """Return how many of so many workers are met where each of `draws` requests goes to any of them."""
    return workers * -math.expm1(draws * math.log1p(-1 / workers)) if workers > 1 else 1.0


def _flow(demand: Demand, headroom: Headroom, workers: int) -> Flow:
    rate, refreshes = demand.requests / demand.clients, renewals(demand)
    logins = demand.sessions / 86_400 if demand.logins is None else demand.logins
    logouts = logins if demand.logouts is None else demand.logouts
    a_token = 1 + demand.access_ttl * rate  # requests with it
    draws = {
        POOLED: a_token,
        STICKY: 1.0,
        DIRECT: 1 + (a_token - 1) * math.exp(-headroom.keepalive * rate),  # it connects again after a pause
    }[demand.front]
    met = reached(workers, draws)
    held = refreshes * demand.access_ttl * met / workers
    first = min(demand.requests, (refreshes + logins) * met)
    forgotten = (demand.requests - first) * max(0.0, 1 - headroom.tokens / held)
    if demand.front == DIRECT:
        connections = demand.clients * -math.expm1(-headroom.keepalive * rate) / workers
    else:
        connections = float(PROXY_CONNECTIONS)
    return Flow(refreshes, logins, logouts, first, forgotten, min(held, headroom.tokens), connections)


def _cpu(demand: Demand, constants: Constants, flow: Flow) -> float:
    """Return microseconds of CPU a second."""
    login = constants.login + (constants.password if demand.users_file else 0)
    request = constants.request_kept if demand.front == DIRECT else constants.request
    return (
        demand.requests * request
        + (flow.first_sights + flow.forgotten) * constants.verify
        + flow.refreshes * (constants.refresh + constants.mark)
        + flow.logins * login
        + flow.logouts * constants.logout
    )


def _workers(demand: Demand, constants: Constants, headroom: Headroom) -> tuple[int, str]:
    """Return the least number of workers that is enough, and what asks for it.

    Looked for from below: with more workers each token is verified by more of them, and forgotten by fewer.
    """
    for workers in range(1, _MOST):
        flow = _flow(demand, headroom, workers)
        needs = {"CPU": _cpu(demand, constants, flow) * MICRO / headroom.busy}
        if demand.front == DIRECT:
            needs["connections"] = flow.connections * workers / (headroom.connections * headroom.busy)
        limit = max(needs, key=needs.__getitem__)
        if needs[limit] <= workers:
            return workers, limit if workers > 1 else "one is enough"
    raise ValueError(f"{_MOST:,} workers are not enough")


def _with_a_zone_lost(workers: int, zones: int) -> int:
    """Return how many pods, spread evenly, leave so many when one zone is gone."""
    pods = max(2, workers)
    while zones > 1 and pods - math.ceil(pods / zones) < workers:
        pods += 1
    return pods


# --- Redis ---


def batch_size(requests: float, workers: float, turn: float, masters: int = 1) -> float:
    """Return how many live checks travel to a master together: those that come while those before are under way."""
    return max(1.0, requests / workers / masters * turn)


def check_cost(constants: Constants, batch: float, *, cluster: bool) -> float:
    """Return microseconds of Redis a live check, where so many travel together.

    On a cluster each is taken for a command of its own, as if no two of them were of one partition.
    """
    if cluster:
        return constants.batch_cluster / batch + constants.ask_cluster
    return constants.batch / batch + constants.ask


def share(shards: int) -> float:
    """Return the part of all that the fullest of so many shards has: partitions are not divided."""
    return math.ceil(PARTITIONS / shards) / PARTITIONS


def _shards(
    demand: Demand, constants: Constants, headroom: Headroom, flow: Flow, pods: int
) -> tuple[int, float, float, float, bool]:
    """Return (shards, busy cores of all, batch, microseconds a check, whether that is enough)."""
    turn = constants.turn + demand.round_trip
    for shards in _useful():
        batch = batch_size(demand.requests, pods, turn, shards)
        check = check_cost(constants, batch, cluster=shards > 1)
        cpu = (demand.requests * check + _writes(constants, flow) + pods * constants.store_worker) * MICRO
        fits = _data(demand, constants, flow, shards) / headroom.full * share(shards) <= headroom.shard_bytes
        if cpu * share(shards) <= headroom.busy and fits:
            return shards, cpu, batch, check, True
    return shards, cpu, batch, check, False


def _useful() -> Iterator[int]:
    """Yield one, and the sizes of a cluster, three and more, that have less on their fullest than the one before."""
    yield 1
    yield from (shards for shards in range(3, PARTITIONS + 1) if shards == 3 or share(shards) < share(shards - 1))


def _writes(constants: Constants, flow: Flow) -> float:
    return (
        flow.refreshes * (constants.store_refresh + constants.store_attempt + constants.store_mark)
        + flow.logins * (constants.store_login + 2 * constants.store_attempt)
        + flow.logouts * constants.store_logout
    )


def tables(keys: float) -> float:
    """Return the bytes of Redis' two hash tables (keys, their ends): 8 a slot, doubled when they are full."""
    return 16.0 * float(2 ** math.ceil(math.log2(max(4.0, keys))))


def _data(demand: Demand, constants: Constants, flow: Flow, shards: int) -> float:
    blacklist = demand.revocations * demand.access_ttl
    attempts = flow.refreshes * 2 + flow.logins * 8  # seconds that a limit is remembered for, at its default
    keys = 2 * demand.sessions + blacklist + attempts
    return (
        shards * constants.store_bytes
        + demand.sessions * (constants.session_bytes + constants.index_bytes)
        + blacklist * constants.revoked_bytes
        + attempts * constants.attempt_bytes
        + shards * tables(keys / shards)
    )


def _network(demand: Demand, constants: Constants, flow: Flow, batch: float) -> tuple[float, float]:
    """Return bytes a second to Redis and from it, without the headers of TCP and IP."""
    batches = demand.requests / batch
    return (
        demand.requests * constants.ask_in + batches * constants.batch_in + flow.refreshes * constants.refresh_in,
        demand.requests * constants.ask_out + batches * constants.batch_out + flow.refreshes * constants.refresh_out,
    )
