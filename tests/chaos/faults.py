"""The table of faults: how each is done, how it ends, and what must go on meanwhile.

prepare   before sessions are ended and the load begins (a snapshot is taken, a replica joins)
inject    the fault
heal      returns when Redis could serve again
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import redis

from tests.chaos.ledger import LOGIN, LOGOUT, NEEDS_REDIS, REFRESH, RENEW
from tests.chaos.proxy import CLEAR, Proxy, Weather
from tests.chaos.servers import AOF, PASSWORD, Store, until
from tests.chaos.world import TIMEOUT, WAITING, World

SNAPSHOTS = ("--appendonly", "no")  # what is on disk is what SAVE wrote


class Scene:
    """The Redis of one fault, and whatever else it needs; all of it ends with the scene."""

    def __init__(self, world: World, options: tuple[str, ...]) -> None:
        self.world = world
        self.stack = contextlib.ExitStack()
        self.store = self.server(*options)
        self.spare: Store
        self.link: Proxy

    def server(self, *options: str) -> Store:
        store = Store(options)
        self.stack.callback(store.close)
        return store

    def replica(self) -> Store:
        """Return a replica that has what the Redis of the scene has."""
        made = self.server(*SNAPSHOTS)
        made.follow(self.store)
        return made


Step = Callable[[Scene], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`down` is what must be refused with 503 from the moment that the fault is noticed until it is healed.

    What is not `down` must go on without a single refusal where the fault is `calm`. `fate` is what becomes of
    sessions that nobody ended: kept, gone, or either of the two. `slow`: an operation takes long and
    succeeds, so that an answer with several operations may take several times as long.
    """

    name: str
    inject: Step
    heal: Step
    prepare: Step = lambda _: None
    down: frozenset[str] = NEEDS_REDIS
    calm: bool = True
    fate: Literal["kept", "gone", "either"] = "kept"
    slow: bool = False
    options: tuple[str, ...] = AOF
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_outage(self) -> bool:
        """Nothing that needs Redis is served: /readyz and the metrics say so."""
        return self.down == NEEDS_REDIS


# --- the process ---


def _kill(scene: Scene) -> None:
    scene.store.stop()


def _start(scene: Scene) -> None:
    scene.store.start()
    scene.store.wait_answering()


def _resume(scene: Scene) -> None:
    scene.store.resume()
    scene.store.wait_answering()


def _fill(scene: Scene) -> None:
    with scene.store.admin.pipeline(transaction=False) as pipe:
        for number in range(600):
            pipe.set(f"other:{number}", "x" * 100)
        pipe.execute()


def _load(scene: Scene) -> None:
    """Restart it so that it loads its data for about two seconds: it answers, but with -LOADING alone."""
    scene.store.shut_down()
    scene.store.with_options("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    scene.store.start()


def _wipe(scene: Scene) -> None:
    scene.store.stop()
    scene.store.wipe()


def _flush(scene: Scene) -> None:
    scene.store.admin.flushall()


# --- its data ---


def _save(scene: Scene) -> None:
    scene.store.admin.save()


def _lagging_replica(scene: Scene) -> None:
    """Let a replica join whose link then stands still; what it carries meanwhile never arrives."""
    scene.link = Proxy(scene.world.thread)
    scene.stack.callback(scene.link.close)
    scene.link.target = scene.store.port
    scene.spare = scene.server(*SNAPSHOTS)
    scene.spare.follow(scene.store, scene.link.port)
    scene.link.set(Weather(lose_replies=True))


def _fail_over_to_the_laggard(scene: Scene) -> None:
    scene.link.refuse()
    _fail_over(scene)


# --- its state ---


def _fill_up(scene: Scene) -> None:
    scene.store.admin.config_set("maxmemory", "1mb")


def _make_room(scene: Scene) -> None:
    scene.store.admin.config_set("maxmemory", "0")


def _with_replica(scene: Scene) -> None:
    scene.spare = scene.replica()


def _demote(scene: Scene) -> None:
    scene.store.hand_over()


def _promote(scene: Scene) -> None:
    scene.store.lead()


def _take_the_slots(scene: Scene) -> None:
    scene.store.admin.config_set("maxclients", 1)
    scene.store.drop_clients()


def _give_the_slots(scene: Scene) -> None:
    scene.store.admin.config_set("maxclients", 10_000)


def _change_the_password(scene: Scene) -> None:
    scene.store.admin.config_set("requirepass", "another-password")
    scene.store.drop_clients()


def _restore_the_password(scene: Scene) -> None:
    scene.store.admin.config_set("requirepass", PASSWORD)


# --- other servers ---


def _fail_over(scene: Scene) -> None:
    """Let the replica lead, and let gateways reach it at the old address."""
    scene.spare.lead()
    scene.world.lead_to(scene.spare)


def _fail_over_and_follow(scene: Scene) -> None:
    scene.spare.lead()
    scene.store.start()
    scene.store.wait_answering()
    scene.store.follow(scene.spare)
    scene.world.lead_to(scene.spare)


def _pause_the_replica(scene: Scene) -> None:
    scene.spare.pause()


def _resume_the_replica(scene: Scene) -> None:
    scene.spare.resume()
    until(scene.spare.answers, "the replica answers")


# --- the way to it ---


def _weather(weather: Weather) -> Step:
    return lambda scene: scene.world.set(weather)


def _refuse(scene: Scene) -> None:
    for proxy in scene.world.proxies:
        proxy.refuse()


def _accept(scene: Scene) -> None:
    for proxy in scene.world.proxies:
        proxy.accept()


def _run_a_long_script(scene: Scene) -> None:
    scene.store.admin.config_set("busy-reply-threshold", 50)

    def run() -> None:
        with contextlib.suppress(redis.RedisError), scene.store.client() as client:
            client.execute_command("AUTH", PASSWORD)
            client.eval("while true do end", 0)

    runner = threading.Thread(target=run)
    runner.start()
    scene.stack.callback(runner.join, 10)
    until(lambda: _is_busy(scene), "redis is busy")


def _is_busy(scene: Scene) -> bool:
    try:
        scene.store.admin.ping()
    except redis.RedisError as error:
        return "BUSY" in str(error)
    return False


def _end_the_script(scene: Scene) -> None:
    scene.store.admin.script_kill()
    scene.store.wait_answering()


_clear = _weather(CLEAR)

WRITES = frozenset({LOGIN, REFRESH, RENEW})

FAULTS = (
    Fault("killed (-9), restarted with its data", _kill, _start),
    Fault("stopped (SIGSTOP), continued", lambda scene: scene.store.pause(), _resume),
    Fault("restarted, loading its data", _load, lambda s: s.store.wait_answering(), prepare=_fill, options=SNAPSHOTS),
    Fault("restarted empty", _wipe, _start, fate="gone"),
    Fault("flushed (FLUSHALL)", _flush, lambda _: None, down=frozenset(), fate="gone"),
    Fault("restarted from an old snapshot", _kill, _start, prepare=_save, fate="either", options=SNAPSHOTS),
    Fault(
        "failover to a replica that lagged",
        _kill,
        _fail_over_to_the_laggard,
        prepare=_lagging_replica,
        fate="either",
    ),
    Fault(
        "failover, wait_replicas = 1",
        _kill,
        _fail_over_and_follow,
        prepare=_with_replica,
        fate="either",  # an ending that was under way when the primary died makes its partition a rolled back one
        settings=WAITING,
    ),
    Fault(
        "the replica of wait_replicas = 1 stopped",
        _pause_the_replica,
        _resume_the_replica,
        prepare=_with_replica,
        down=frozenset({LOGOUT}),
        settings=WAITING,
    ),
    Fault("made a replica of another, connections kept", _demote, _promote, prepare=_with_replica),
    Fault("full (maxmemory, noeviction)", _fill_up, _make_room, down=WRITES),
    Fault("busy with a script that does not end", _run_a_long_script, _end_the_script),
    Fault("out of client slots (maxclients)", _take_the_slots, _give_the_slots),
    Fault("another password", _change_the_password, _restore_the_password),
    Fault("100 ms late", _weather(Weather(delay=0.1)), _clear, down=frozenset(), calm=False, slow=True),
    Fault("later than redis.timeout (400 ms)", _weather(Weather(delay=TIMEOUT + 0.15)), _clear),
    Fault("connections refused", _refuse, _accept),
    Fault("network cut both ways", _weather(Weather(lose_requests=True, lose_replies=True)), _clear),
    Fault("network cut towards Redis", _weather(Weather(lose_requests=True)), _clear),
    Fault("network cut on the way back", _weather(Weather(lose_replies=True)), _clear),
    Fault("connections reset within replies", _weather(Weather(cut_after=3)), _clear),
    Fault("garbage in the place of replies", _weather(Weather(garbage=b"+HTTP/1.1 400 Bad Request\r\n\x00*")), _clear),
)
