"""One soak: two replicas, their Redis and nginx behind them; what held and what did not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.e2e.backends import nginx_backend
from tests.e2e.harness import Gateway, Site, route
from tests.redis_server import redis_server
from tests.soak import resources
from tests.soak.resources import Usage
from tests.soak.traffic import CLIENTS, Plan, Traffic

LARGE = 2 << 20
GROWTH = 0.10  # of a gateway's memory in the second half of the run, beside
SLACK = 12 << 20  # bytes that an allocator may keep


@dataclass
class Soak:
    """What a run came to. `broken` names each law that did not hold."""

    plan: Plan
    seconds: float = 0.0
    samples: list[tuple[float, list[Usage]]] = field(default_factory=list)
    keys: dict[str, int] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    broken: list[str] = field(default_factory=list)

    def hold(self, law: str, *, holds: bool, found: object = "") -> None:
        if not holds:
            self.broken.append(f"{law}: {found}")


def soak(plan: Plan, say: Callable[[str], None] = lambda text: None) -> Soak:
    """Run the plan and look whether everything adds up."""
    result = Soak(plan)
    with _site(plan) as (site, gateways):
        begun = time.monotonic()
        before = [resources.usage(gateway) for gateway in gateways]
        traffic = Traffic(plan, [each.port for each in gateways], [each.management for each in gateways])

        def progress(done: float) -> None:
            result.samples.append((done, [resources.usage(gateway) for gateway in gateways]))
            say(f"{done:.0%} of the requests, {time.monotonic() - begun:.0f} s")

        traffic.progress = progress
        say(f"{plan.sessions} sign-ins")
        asyncio.run(traffic.sign_in())
        asyncio.run(traffic.run())
        result.seconds = time.monotonic() - begun
        result.answers, result.dropped = dict(traffic.answers), traffic.dropped
        _judge(result, traffic, site, gateways, before)
    return result


def _judge(result: Soak, traffic: Traffic, site: Site, gateways: list[Gateway], before: list[Usage]) -> None:
    result.hold("every answer is the right one", holds=not traffic.wrong, found=traffic.wrong[:5])
    after = [resources.settled(gateway) for gateway in gateways]
    for gateway, first, last in zip(gateways, before, after, strict=True):
        kept = last.upstreams - first.upstreams
        most = first.descriptors + kept + 64  # the store's pool
        result.hold("no descriptor leaks", holds=last.descriptors <= most, found=(first, last))
        result.hold("no connection to the backend leaks", holds=last.upstreams <= CLIENTS + 64, found=last)
        gateway.check_log()
    middle = result.samples[len(result.samples) // 2][1] if result.samples else before
    for half, last in zip(middle, after, strict=True):
        bound = half.memory * (1 + GROWTH) + SLACK
        result.hold("memory stays as it was half way", holds=last.memory <= bound, found=(half.memory, last.memory))
    result.keys = dict(resources.keys(site.redis_url, site.prefix))
    _judge_keys(result, traffic)
    _judge_counters(result, traffic, gateways)


def _judge_keys(result: Soak, traffic: Traffic) -> None:
    found = result.keys
    result.hold("a key for each session that lives", holds=found.get("session", 0) == traffic.alive, found=found)
    result.hold("every key ends", holds=found.get("endless", 0) == 0, found=found)
    known = {"session", "alive", "user", "revoked", "epoch", "attempt", "fence", "endless"}
    result.hold("no key of another kind", holds=set(found) <= known, found=found)


def _judge_counters(result: Soak, traffic: Traffic, gateways: list[Gateway]) -> None:
    """Compare what the gateways counted with what the clients saw; what was broken off may count or not."""

    def total(name: str, **labels: str) -> int:
        return round(sum(gateway.metric(name, **labels) for gateway in gateways))

    saw = traffic.answers
    routed = {code: total("tokengate_requests_total", route="/app/", code=code) for code in ("200", "401")}
    for code, counted in routed.items():
        seen = saw[f"request {code}"]
        holds = seen <= counted <= seen + traffic.dropped
        result.hold(f"requests answered {code} are counted", holds=holds, found=(seen, counted))
    rotated, refreshed = total("tokengate_refreshes_total", outcome="rotated"), saw["refresh 200"]
    result.hold("refreshes are counted", holds=rotated == refreshed, found=(refreshed, rotated))
    created, signed_in = total("tokengate_sessions_total", event="created"), saw["login 200"]
    result.hold("sign-ins are counted", holds=created == signed_in, found=(signed_in, created))
    errors = total("tokengate_upstream_errors_total")
    result.hold("no error of the backend", holds=errors == 0, found=errors)


@contextmanager
def _site(plan: Plan) -> Iterator[tuple[Site, list[Gateway]]]:
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        nginx = stack.enter_context(nginx_backend())
        (nginx.files / "large").write_bytes(bytes(LARGE))
        users = {f"user-{number}": {"sub": f"u-{number}"} for number in range(plan.users)}
        site = stack.enter_context(Site(redis.url, "soak", users))
        routes = [route("/app/", nginx.url), route("/files/", nginx.url)]
        yield site, [stack.enter_context(site.serve(routes=routes, log={"level": "error"})) for _ in range(2)]
