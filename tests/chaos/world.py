"""Two gateways, each with a way of its own to one Redis, and a backend."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from tests.chaos.proxy import LoopThread, Proxy, Weather
from tests.chaos.servers import PASSWORD, Backend, Store, until
from tests.e2e.harness import PASSWORD as USERS_PASSWORD
from tests.e2e.harness import Gateway, Site, route
from tests.e2e.wire import ask, json_request

TIMEOUT = 0.25  # seconds; redis.timeout as it is by default
PREFIX = "chaos"
GRACE = 2.0  # seconds; outage_grace
WAITING = {"wait_replicas": 1}
LENIENT = {"on_outage": "allow-recent", "outage_grace": f"{GRACE:g}s"}


class World:
    """`gateways[n]` goes through `proxies[n]`, to which Redis `world.use` leads them both."""

    def __init__(self, thread: LoopThread, site: Site, proxies: list[Proxy], gateways: list[Gateway]) -> None:
        self.thread = thread
        self.site = site
        self.proxies = proxies
        self.gateways = gateways

    def use(self, store: Store) -> None:
        """Lead the gateways to this Redis and wait until they serve."""
        for proxy in self.proxies:
            proxy.set(Weather())
            proxy.accept()
        self.lead_to(store)
        for gateway in self.gateways:
            until(lambda g=gateway: self._serves(g), f"{gateway!r} serves")
        for proxy in self.proxies:
            proxy.openings.clear()

    def lead_to(self, store: Store) -> None:
        """Let what connects from here on reach this Redis; what is connected is reset."""
        for proxy in self.proxies:
            proxy.target = store.port
            proxy.reset()

    def set(self, weather: Weather) -> None:
        for proxy in self.proxies:
            proxy.set(weather)

    def _serves(self, gateway: Gateway) -> bool:
        content = {"username": "alice", "password": USERS_PASSWORD}
        return gateway.readiness() == 200 and (
            ask(gateway.port, json_request("POST", "/auth/login", content)).status == 200
        )


@contextlib.contextmanager
def world(redis: Mapping[str, Any] | None = None) -> Iterator[World]:
    """Run the gateways; `redis` are further settings of its section. They see a Redis only once `use` is called."""
    with contextlib.ExitStack() as stack:
        thread, site, address = _surroundings(stack)
        proxies = [Proxy(thread) for _ in range(2)]
        for proxy in proxies:
            stack.callback(proxy.close)
            proxy.refuse()
        gateways = []
        for proxy in proxies:
            section = {"url": f"redis://:{PASSWORD}@127.0.0.1:{proxy.port}/0", **(redis or {})}
            gateways.append(stack.enter_context(site.serve(ready=503, redis=section, **_options(address))))
        yield World(thread, site, proxies, gateways)


@contextlib.contextmanager
def straight(url: str, redis: Mapping[str, Any]) -> Iterator[World]:
    """Run the gateways with nothing between them and a Redis that is there: sentinels and nodes name addresses."""
    with contextlib.ExitStack() as stack:
        thread, site, address = _surroundings(stack)
        gateways = [stack.enter_context(site.serve(redis={"url": url, **redis}, **_options(address))) for _ in range(2)]
        yield World(thread, site, [], gateways)


def _surroundings(stack: contextlib.ExitStack) -> tuple[LoopThread, Site, str]:
    """Return what gateways need beside Redis: a loop for the clients, keys and users, the address of a backend."""
    thread = stack.enter_context(LoopThread())
    backend = thread.run(_backend(thread))
    stack.callback(thread.loop.call_soon_threadsafe, backend.close)
    return thread, stack.enter_context(Site("", PREFIX)), f"http://127.0.0.1:{backend.sockets[0].getsockname()[1]}"


def _options(backend: str) -> dict[str, Any]:
    return {
        "routes": [
            route("/guarded/", backend),
            route("/renewing/", backend, on_expired="refresh"),
            route("/unlive/", backend, revocation="none"),
        ],
        "limits": {"login_per_user": 60_000, "login_per_ip": 60_000, "refresh_per_session": 60_000},
    }


async def _backend(thread: LoopThread) -> asyncio.Server:
    return await thread.loop.create_server(Backend, "127.0.0.1", 0)
