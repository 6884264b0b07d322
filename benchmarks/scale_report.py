"""The capacity model in words and tables: a plan with its arithmetic, the page's tables, and how good the model is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.plan import DIRECT, FRONTS, PARTITIONS, POOLED, STICKY, Constants, Demand, Headroom, Plan, plan, share
from benchmarks.scale_results import Results

PAGE = Path(__file__).parents[1] / "docs" / "operations" / "capacity.md"
SESSIONS = (1e3, 1e5, 1e7)
REQUESTS = (1e3, 1e4, 1e5, 1e6)
EXAMPLE = Demand(2e6, 5e4, 600.0)
_PLACE = re.compile(r"(<!-- scale: (\w+) -->\n).*?(<!-- /scale -->)", re.DOTALL)


def document(results: Results) -> str:
    """Return every table of a run, as Markdown."""
    return "\n\n".join(made(results) for made in TABLES.values()) + "\n"


def write_page(results: Results, page: Path = PAGE) -> None:
    """Put the tables of a run into their places of the page."""
    page.write_text(fill(page.read_text(), results))


def fill(text: str, results: Results) -> str:
    """Return a page with its tables made from a run. Raises KeyError for a place whose table there is not."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]](results)}\n\n{found[3]}", text)


# --- a plan ---


def told(made: Plan, constants: Constants, headroom: Headroom) -> str:
    """Return a plan with the arithmetic that led to it."""
    return "\n".join(f"{name:<22}{text}".rstrip() for name, text in _lines(made, constants, headroom)) + "\n"


def _lines(made: Plan, constants: Constants, headroom: Headroom) -> Iterable[tuple[str, str]]:
    demand, flow = made.demand, made.flow
    yield "sessions", f"{number(demand.sessions)}, {demand.online:.0%} of them in use"
    yield "requests", f"{number(demand.requests)}/s; {FRONTS[demand.front]}"
    yield "refreshes", f"{number(flow.refreshes)}/s, one each {demand.access_ttl:.0f} s and a request's wait"
    yield "logins, logouts", f"{number(flow.logins)}/s, {number(flow.logouts)}/s"
    yield "", ""
    yield "first sights", f"{number(flow.first_sights)}/s: a token is verified once by each worker that sees it"
    if flow.forgotten >= 1:
        yield "forgotten", f"{number(flow.forgotten)}/s: requests whose token a worker had no room to remember"
    yield (
        "CPU a request",
        f"{made.request_cost:.0f} µs, everything included ({_request(demand, constants):.0f} µs of it the request)",
    )
    yield "cores busy", f"{made.cores:.2f}"
    yield "workers", f"{made.workers:,}, each at most {headroom.busy:.0%} busy; what asks for them: {made.limit}"
    lost = f": with one of {headroom.zones} zones lost {made.workers:,} are left" if headroom.zones > 1 else ""
    yield "pods", f"{made.pods:,} of one worker{lost}"
    yield (
        "memory of a pod",
        f"{mebibytes(made.pod_bytes)}: {number(flow.connections)} connections, {number(flow.tokens)} tokens",
    )
    yield "", ""
    yield "live checks", f"{made.batch:.1f} at a time, {made.check:.1f} µs of Redis each"
    yield "Redis cores busy", f"{made.redis_cores:.2f}"
    yield "Redis masters", masters(made)
    each = f"maxmemory {mebibytes(made.maxmemory / made.shards)} a master, {mebibytes(made.node_bytes)} for its machine"
    yield "Redis data", f"{mebibytes(made.data_bytes)}; {each}"
    yield "Redis network", f"{mebibytes(made.redis_in)}/s in, {mebibytes(made.redis_out)}/s out"
    yield "Redis connections", f"{number(made.pods)} kept, at most {number(made.redis_connections)} to a master"


def _request(demand: Demand, constants: Constants) -> float:
    return constants.request_kept if demand.front == DIRECT else constants.request


def masters(made: Plan) -> str:
    """Return how many masters, and how busy the fullest is."""
    busy = made.redis_cores * share(made.shards)
    if not made.enough:
        return f"more than {PARTITIONS}, which are {busy:.0%} busy: several installations"
    kind = "one server, or sentinels" if made.shards == 1 else "a cluster"
    return f"{made.shards} ({kind}), the fullest {busy:.0%} busy"


def number(value: float) -> str:
    """Return a number as people write it: 7.4, 830, 16.7 k, 2 M."""
    for scale, unit in ((1e6, " M"), (1e3, " k")):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g}{unit}" if value < 1e3 * scale else f"{value / scale:,.0f}{unit}"
    return f"{value:.3g}"


def mebibytes(value: float) -> str:
    for scale, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value / 1024:.0f} KiB"


# --- the tables of the page ---


def _about(results: Results) -> str:
    about = results.machine
    return (
        f"{results.when}. {about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']};"
        f" {about['pinning']}. A request that plain nginx passes on took {results.constants.nginx:.1f} µs at the same"
        " rate in the same run: divide by that to compare with another machine."
    )


def _table(results: Results) -> str:
    head = "sessions|requests/s|refreshes/s|µs a request|pods|sticky|direct|MiB a pod|Redis cores|masters|Redis data"
    rows = [_row(results.constants, sessions, requests) for sessions in SESSIONS for requests in REQUESTS]
    return markdown((*head.split("|"), "to Redis"), rows)


def _row(constants: Constants, sessions: float, requests: float) -> list[str]:
    made, sticky, direct = (
        plan(Demand(sessions, requests, front=front), constants) for front in (POOLED, STICKY, DIRECT)
    )
    more = "" if made.enough else f" ({made.redis_cores * share(made.shards):.0%})"
    return [
        number(sessions),
        number(requests),
        number(made.flow.refreshes),
        f"{made.request_cost:.0f}",
        f"{made.pods:,}",
        f"{sticky.pods:,}",
        f"{direct.pods:,}",
        f"{made.pod_bytes / 2**20:.0f}",
        f"{made.redis_cores:.2f}",
        f"{made.shards}{more}",
        mebibytes(made.data_bytes),
        f"{made.redis_in * 8 / 1e6:,.0f} Mbit/s",
    ]


_CPU = (
    ("request", "a request with its live check; tokens take turns on the connections, as behind a proxy that pools"),
    ("request_kept", "the same where each connection keeps to a token, as those of clients do"),
    ("request_full", "the first with all that a worker can do: more requests share a turn of its loop"),
    ("verify", "on top, a token that the worker has not seen: its signature (ES256), its claims"),
    ("mark", "on top, a token that nobody has seen since its refresh: one write to Redis"),
    ("refresh", "a refresh"),
    ("login", "a sign-in by the webhook, the webhook's own work left out"),
    ("password", "on top with a users file: argon2id, in a thread of its own"),
    ("logout", "a sign-out"),
)
_STORE = (
    ("batch", "a batch of live checks to one server, whatever is in it"),
    ("ask", "each live check in it"),
    ("batch_cluster", "what travels to a master of a cluster in one packet, whatever is in it"),
    ("ask_cluster", "each live check in it, of a partition of its own"),
    ("store_refresh", "a refresh"),
    ("store_mark", "the first use of a refreshed token"),
    ("store_login", "a sign-in"),
    ("store_logout", "a sign-out"),
    ("store_revoke", "a token on the blacklist"),
    ("store_attempt", "a rate limit asked: twice a sign-in, once a refresh"),
)
_BYTES = (
    ("worker_bytes", "a worker without connections"),
    ("connection_bytes", "a client's connection, idle"),
    ("token_bytes", "a remembered token"),
    ("session_bytes", "Redis: a session's record, its key included"),
    ("index_bytes", "Redis: its user's index"),
    ("revoked_bytes", "Redis: a token on the blacklist"),
    ("attempt_bytes", "Redis: a rate limit's state, for some seconds"),
)


def _constants(results: Results) -> str:
    values = results.constants
    yardstick = values.nginx
    cpu = [
        (f"`{name}`", f"{getattr(values, name):,.1f}", f"{getattr(values, name) / yardstick:,.1f}", text)
        for name, text in _CPU
    ]
    store = [
        (f"`{name}`", f"{getattr(values, name):,.1f}", f"{getattr(values, name) / yardstick:,.2f}", text)
        for name, text in _STORE
    ]
    sizes = [(f"`{name}`", _size(getattr(values, name)), "", text) for name, text in _BYTES]
    more = [
        (
            "`turn`",
            f"{values.turn * 1e6:,.0f} µs",
            "",
            "from one batch of a busy worker to its next, the shortest there was",
        ),
        ("`store_worker`", f"{values.store_worker:,.0f} µs/s", "", "of Redis, for a worker that does nothing"),
        (
            "`ask_in`, `ask_out`",
            f"{values.ask_in:.0f} B, {values.ask_out:.0f} B",
            "",
            "a live check on the wire, to Redis and back",
        ),
        ("`batch_in`, `batch_out`", f"{values.batch_in:.0f} B, {values.batch_out:.0f} B", "", "a batch, on top"),
        (
            "`refresh_in`, `refresh_out`",
            f"{values.refresh_in:.0f} B, {values.refresh_out:.0f} B",
            "",
            "a refresh on the wire, to Redis and back",
        ),
    ]
    more.append(
        ("Redis connections", str(results.redis_connections), "", "of a worker, refreshed at from 32 connections")
    )
    more += [(name, f"{size:.0f} B", "", "one role, an e-mail claim") for name, size in results.tokens.items()]
    return "\n\n".join(
        (
            "**CPU of a worker, µs**\n\n" + markdown(("", "µs", "times nginx", ""), cpu),
            "**CPU of Redis, µs**\n\n" + markdown(("", "µs", "times nginx", ""), store),
            "**Sizes, and the rest**\n\n" + markdown(("", "", "", ""), [*sizes, *more]),
        )
    )


def _size(value: float) -> str:
    return f"{value:.0f} B" if value < 10_000 else mebibytes(value)


def _batches(results: Results) -> str:
    sizes = [size for size, _ in results.batches]
    kinds = (
        ("one server", results.batches),
        ("one server, 16 workers at the same moment", results.crowded_batches),
        ("one server, asleep between batches", results.woken_batches),
        ("a master of a cluster", results.cluster_batches),
    )
    rows = [
        [f"{name}, µs a live check", *(f"{cost / size:.1f}" for size, cost in points)]
        for name, points in kinds
        if points
    ]
    return markdown(("live checks that travel together", *(str(size) for size in sizes)), rows)


def _points(results: Results) -> str:
    head = ("workers", "Redis", "connections", "load", "checks together", "Redis µs a check", "worker µs a request")
    rows = [
        [
            str(point.workers),
            "one" if point.masters == 1 else f"{point.masters} masters",
            str(point.connections),
            "half" if point.rate else "full",
            f"{point.batch:.1f}",
            f"{point.check_cost:.1f}",
            f"{point.request_cost:.0f}",
        ]
        for point in results.points
    ]
    return markdown(head, rows)


def _checks(results: Results) -> str:
    rows = [
        [
            check.text,
            f"{check.predicted:,.1f} {check.unit}",
            f"{check.measured:,.1f} {check.unit}",
            f"{check.error:+.1%}",
        ]
        for check in results.checks
    ]
    return markdown(("", "the model", "measured", "error"), rows)


def _one_user(results: Results) -> str:
    counts = list(next(iter(results.one_user.values()), {}))
    rows = [[name, *(f"{cost:.0f}" for cost in costs.values())] for name, costs in results.one_user.items()]
    return markdown(("sessions that the user has", *counts), rows)


def _persistence(results: Results) -> str:
    rows = [
        [name, f"{costs['login']:.0f}", f"{costs['refresh']:.0f}", mebibytes(costs["log"]) if costs["log"] else ""]
        for name, costs in results.persistence.items()
    ]
    return markdown(("", "µs a sign-in", "µs a refresh", "log after 2,000 of each operation"), rows)


def _million(results: Results) -> str:
    found = results.million
    return (
        f"A million sessions were {mebibytes(found['resident'])} resident, a snapshot of {mebibytes(found['snapshot'])}"
        f" that took {found['seconds']:.1f} s, and a fork that stopped Redis for {found['fork'] / 1000:.1f} ms."
    )


def _verify(results: Results) -> str:
    return markdown(
        ("", *results.verify),
        [["µs of a worker, a token's first sight", *(f"{cost:.0f}" for cost in results.verify.values())]],
    )


def _example(results: Results) -> str:
    return f"```text\n{told(plan(EXAMPLE, results.constants), results.constants, Headroom())}```"


def _arithmetic(results: Results) -> str:
    steps = _steps(plan(EXAMPLE, results.constants), results.constants)
    return "```text\n" + "\n".join(f"{name:<15}{'=' if name else ' '} {text}" for name, text in steps) + "\n```"


def _steps(made: Plan, c: Constants) -> Iterable[tuple[str, str]]:
    flow, pods, workers = made.flow, made.pods, made.workers
    met = flow.first_sights / (flow.refreshes + flow.logins)
    held = flow.refreshes * EXAMPLE.access_ttl * met / workers
    yield "refreshes", f"2,000,000 / (600 + 2,000,000 / 50,000) = {flow.refreshes:,.0f}/s"
    yield "logins", f"2,000,000 / 86,400 = {flow.logins:.1f}/s, and as many logouts"
    yield "k", f"{workers} (1 - (1 - 1/{workers})^(1 + 600 x 50,000 / 2,000,000)) = {met:.1f}"
    yield "first sights", f"({flow.refreshes:,.0f} + {flow.logins:.0f}) x {met:.1f} = {flow.first_sights:,.0f}/s"
    yield "tokens held", f"{flow.refreshes:,.0f} x 600 x {met:.1f} / {workers} = {held:,.0f}"
    if flow.forgotten:
        yield "forgotten", f"(50,000 - {flow.first_sights:,.0f}) x (1 - 65,536 / {held:,.0f}) = {flow.forgotten:,.0f}/s"
    seen = (flow.first_sights + flow.forgotten, c.verify)
    yield "CPU", _sum((50_000, c.request), seen, (flow.refreshes, c.refresh + c.mark))
    yield "", f"+ {_sum((flow.logins, c.login), (flow.logouts, c.logout))} µs a second = {made.cores:.2f} cores"
    yield "workers", f"{made.cores:.2f} / 0.6 = {workers}; pods {pods}"
    masters = f" / {made.shards}" if made.shards > 1 else ""
    yield "together", f"max(1, 50,000 / {pods} x {c.turn * 1e6:.0f} µs{masters}) = {made.batch:.2f} live checks"
    batch, ask = (c.batch_cluster, c.ask_cluster) if made.shards > 1 else (c.batch, c.ask)
    yield "live check", f"{batch:.1f} / {made.batch:.2f} + {ask:.2f} = {made.check:.1f} µs of Redis"
    yield "Redis", _sum((50_000, made.check), (flow.refreshes, c.store_refresh + c.store_attempt + c.store_mark))
    more = _sum((flow.logins, c.store_login + 2 * c.store_attempt), (flow.logouts, c.store_logout))
    yield "", f"+ {more} + {pods} x {c.store_worker:.0f} µs a second = {made.redis_cores:.2f} cores"
    session = f"2,000,000 x ({c.session_bytes:.0f} + {c.index_bytes:.0f})"
    yield "Redis' data", f"{session} + hash tables of 4,000,000 keys = {mebibytes(made.data_bytes)}"


def _sum(*products: tuple[float, float]) -> str:
    return " + ".join(f"{count:,.0f} x {cost:,.1f}" for count, cost in products)


TABLES: dict[str, Callable[[Results], str]] = {
    "about": _about,
    "table": _table,
    "constants": _constants,
    "batches": _batches,
    "points": _points,
    "one_user": _one_user,
    "verify": _verify,
    "persistence": _persistence,
    "million": _million,
    "example": _example,
    "arithmetic": _arithmetic,
    "checks": _checks,
}


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns but the first are numbers, bar a last one of words."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
