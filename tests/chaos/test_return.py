"""Many clients at once while Redis is away and when it returns: it is not flooded, and nobody has to wait long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from gateway.sessions.connections import MAX_CONNECTIONS
from tests.chaos.client import Http
from tests.chaos.proxy import LIVE
from tests.chaos.servers import Store, until
from tests.chaos.sessions import Held, login
from tests.chaos.world import World
from tests.e2e.harness import Site, route
from tests.e2e.wire import ask, json_request, request
from tests.redis_server import free_port

OUTAGE = 3.0  # seconds
CLIENTS = 100


async def refresh_until_served(port: int, session: Held, kinds: Counter[str]) -> None:
    http = Http(port)
    content = {"grant_type": "refresh_token", "refresh_token": session.refresh}
    while True:
        reply = await http.ask(json_request("POST", "/auth/token", content))
        kinds[reply.kind] += 1
        if reply.status == 200:
            http.close()
            return
        await asyncio.sleep(0.1)


def test_redis_is_not_flooded_by_those_who_waited_for_it(plain: World, store: Store) -> None:
    plain.use(store)
    gateway, proxy = plain.gateways[0], plain.proxies[0]
    sessions = [login(gateway, user) for _ in range(CLIENTS // 2) for user in ("alice", "carol")]
    store.stop()
    until(lambda: gateway.readiness() == 503, "the outage is noticed")
    kinds: Counter[str] = Counter()
    begun = time.monotonic()

    async def crowd() -> None:
        await asyncio.gather(*(refresh_until_served(gateway.port, session, kinds) for session in sessions))

    waiting = asyncio.run_coroutine_threadsafe(crowd(), plain.thread.loop)
    time.sleep(OUTAGE)  # the length of the outage is what is looked at
    ended, proxy.most = time.monotonic(), 0
    tries = proxy.opened(begun, ended, LIVE)
    store.start()
    waiting.result(30)
    assert set(kinds) == {"200", "503 store_unavailable"}
    assert kinds["200"] == CLIENTS
    assert 3 <= tries <= (ended - begun) / 0.25 + 1  # a try in half a second, of which jitter takes a half
    assert proxy.most <= MAX_CONNECTIONS + 4  # those of the store, and the live check's own


def test_what_a_full_redis_cannot_note_is_tried_again_once_a_second_and_not_with_each_request(
    plain: World, store: Store
) -> None:
    """The first use of a refreshed token is written down for the rotation's grace."""
    plain.use(store)
    gateway = plain.gateways[0]
    fresh = str(gateway.refresh(login(gateway).refresh).json()["access_token"])
    store.admin.config_set("maxmemory", "1mb")

    def marked() -> float:
        return gateway.metric("tokengate_store_seconds_count", operation="mark_used")

    before, begun = marked(), time.monotonic()
    data = request("GET", "/guarded/x", token=fresh)
    for _ in range(50):
        assert ask(gateway.port, data).status == 200
    until(lambda: marked() > before, "the first use is told")
    assert marked() - before <= 1 + (time.monotonic() - begun)
    store.admin.config_set("maxmemory", "0")


def test_a_name_that_does_not_resolve_is_an_outage_like_any_other() -> None:
    """RFC 6761 6.4: nothing is ever found under .invalid. However long the resolver takes, nobody waits for it."""
    name = "redis://redis.invalid:6379/0"
    backend = f"http://127.0.0.1:{free_port()}"
    with Site(name) as site, site.serve(ready=503, routes=[route("/guarded/", backend)]) as gateway:
        token = site.signer().mint(
            subject="u", session_id="0" + "A" * 22, counter=0, roles=[], scope="", claims={}, now=time.time()
        )
        answers = [ask(gateway.port, request("GET", "/guarded/x", token=token.token)) for _ in range(20)]
        answers += [
            ask(gateway.port, json_request("POST", "/auth/login", {"username": "alice", "password": "correct horse"}))
            for _ in range(3)
        ]
        assert {answer.error for answer in answers} == {(503, "store_unavailable")}
        assert all(answer.get("retry-after") for answer in answers)
        assert gateway.operate("GET", "/readyz").json()["failing"] == ["redis"]
        assert gateway.operate("GET", "/livez").status == 200
