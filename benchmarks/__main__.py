"""python -m benchmarks: every load on every peer in alternating rounds; prints the tables."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import (
    chart,
    credentials,
    envoy,
    footprint,
    grants,
    machine,
    peers,
    planning,
    report,
    scale,
    slices,
    streams,
)
from benchmarks.gateway import tokengate
from benchmarks.measure import Load, Peer, Sample, run
from benchmarks.report import BODIES, GET, HALF, OURS, TWO, UNCHECKED_ENVOY
from benchmarks.results import Footprints, Results, load, save

POST = 'wrk.method = "POST"\nwrk.body = string.rep("x", 65536)\n'
# Peers that differ from another by what they do with a token alone: beside that, a load says nothing new of them.
VARIANTS = ("jwt_verify", "jwt_authn", "ext_authz")
LOADS = (
    Load(GET, "/1k", 32),
    Load("GET of 1 KiB, 1 connection", "/1k", 1),
    Load("GET of 1 KiB, 256 connections", "/1k", 256),
    Load(BODIES, "/1m", 8),
    Load("POST of 64 KiB, 32 connections", "/post", 32, POST),
)
STANDING = 8.0  # seconds for which streams are watched
SLICE_ROUND = 2  # times as long: a quarter of a core does a quarter of the requests
DOCS = Path("docs")
MARKS = ("<!-- tables: begin, made by `python -m benchmarks --docs` -->", "<!-- tables: end -->")
Starts = dict[str, Callable[[], contextlib.AbstractContextManager[Peer]]]


def main() -> int:
    """Print the tables; return 1 where a target is missed."""
    words = sys.argv[1:]
    for flag, command in (("--plan", planning.main), ("--scale", scale.main)):
        if flag in words:
            return command(words)
    given = _arguments()
    machine.raise_file_limit()
    results = load(given.from_file) if given.from_file else _run(given)
    if given.save:
        save(results, given.save)
    if given.docs:
        _write_docs(results)
    sys.stdout.write(report.document(results))
    return int(any(target.met is False for target in report.targets(results)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="nginx and tokengate alone, the first load, three rounds")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds of each load (default 5)")
    parser.add_argument("--seconds", type=float, default=2, help="length of a round, whole seconds (default 2)")
    parser.add_argument(
        "--only", default="", metavar="TEXT|TEXT", help="peers whose name has one of these; nginx always"
    )
    parser.add_argument("--loads", default="", metavar="TEXT|TEXT", help="loads whose name has one of these")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the run as JSON")
    parser.add_argument("--from", dest="from_file", type=Path, metavar="FILE", help="no run: take one that was saved")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.json, .md and .svg")
    parser.add_argument("--scale", action="store_true", help="the constants of the capacity model instead")
    parser.add_argument("--plan", action="store_true", help="pods and Redis for numbers of yours; --plan --help")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds, given.only, given.loads = 3, 2, OURS, GET
    return given


def _run(given: argparse.Namespace) -> Results:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    cores = machine.cores()
    results = Results(machine.describe(), now, given.seconds, cores.scales)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokengate-bench-")))
        folder.chmod(0o755)  # nginx' workers read the files as another user
        machine.pin(cores.rest)
        bench = Bench(folder, stack, results, given)
        bench.loads()
        if not given.quick:
            bench.grants()
            with bench.alone():  # these start gateways of their own
                bench.slices()
                bench.streams()
                bench.footprints()
    return results


class Bench:
    """One run: the backend, the store, and the peers that could be started."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, results: Results, given: argparse.Namespace) -> None:
        self.folder = folder
        self.results = results
        self.given = given
        self.credentials = credentials.make(folder)
        self.target, _ = stack.enter_context(peers.backend(folder))
        self.port, self.store = stack.enter_context(peers.redis(folder))
        self.started = self._start(stack)

    def _start(self, stack: contextlib.ExitStack) -> dict[str, Peer]:
        """Start the peers. The gateway comes first, for the others take its tokens, and stands last in the tables."""
        ours = stack.enter_context(self._gateway(OURS))
        token = ours.headers["Authorization"].removeprefix("Bearer ")
        authority = (
            stack.enter_context(self._gateway("authority", trusting=True)) if self._wanted("ext_authz") else ours
        )
        found: dict[str, Peer] = {}
        for name, start in (self._field(token, authority) | self._ours()).items():
            if name != report.LIMIT and not self._wanted(name):
                continue
            try:
                found[name] = ours if name == OURS else stack.enter_context(start())
            except FileNotFoundError as missing:
                self.results.absent[name] = str(missing)
                continue
            check(found[name])
        self.results.versions = {name: peer.version for name, peer in found.items() if " " not in name}
        return found

    def _wanted(self, name: str) -> bool:
        return any(text.strip() in name for text in self.given.only.split("|"))

    def _gateway(self, name: str, **options: bool | int) -> contextlib.AbstractContextManager[Peer]:
        return tokengate(name, self.folder, self.target, self.port, self.credentials, **options)  # type: ignore[arg-type]

    def _field(self, token: str, authority: Peer) -> Starts:
        rsa = self.credentials.token_like(token, "RS256")
        haproxy = partial(peers.haproxy, self.folder, self.target, self.credentials)
        an_envoy = partial(envoy.envoy, folder=self.folder, target=self.target)
        jwt = partial(envoy.jwt_authn, self.credentials)
        cached = "Envoy jwt_authn, token cache"
        jwks = f"{authority.url}/.well-known/jwks.json"
        return {
            "nginx": partial(peers.nginx, self.folder, self.target),
            "HAProxy": haproxy,
            "HAProxy jwt_verify ES256": partial(haproxy, token=token, algorithm="ES256"),
            "HAProxy jwt_verify RS256": partial(haproxy, token=rsa, algorithm="RS256"),
            UNCHECKED_ENVOY: partial(an_envoy, UNCHECKED_ENVOY),
            "Envoy jwt_authn": partial(an_envoy, "Envoy jwt_authn", token=token, filters=jwt(cache=False)),
            cached: partial(an_envoy, cached, token=token, filters=jwt(cache=True)),
            "Envoy ext_authz": partial(
                an_envoy,
                "Envoy ext_authz",
                token=token,
                filters=envoy.ext_authz(authority),
                authority=authority,
            ),
            "Caddy": partial(peers.caddy, self.folder, self.target),
            "Traefik": partial(peers.traefik, self.folder, self.target),
            "oauth2-proxy": partial(peers.oauth2_proxy, self.folder, self.target, jwks, rsa),
            "Starlette + httpx": partial(peers.starlette, self.folder, self.target),
        }

    def _ours(self) -> Starts:
        unchecked = "tokengate, no live check"
        return {
            OURS: partial(self._gateway, OURS),
            unchecked: partial(self._gateway, unchecked, live=False),
            TWO: partial(self._gateway, TWO, workers=2),
        }

    # --- loads ---

    def loads(self) -> None:
        """Measure every load that was asked for; half load is half of what tokengate can."""
        chosen = [load for load in LOADS if any(text in load.name for text in self.given.loads.split("|"))]
        for each in chosen:
            self.results.loads[each.name] = self._measure(each)
        full = self.results.loads.get(GET, {}).get(OURS)
        if full and not self.given.quick:
            rate = round(median(sample.rate for sample in full) / 2)
            self.results.loads[HALF] = self._measure(Load(HALF, "/1k", 32, rate=rate))

    def _measure(self, load: Load) -> dict[str, list[Sample]]:
        every = load.name in (GET, HALF)
        chosen = {name: peer for name, peer in self.started.items() if every or not any(v in name for v in VARIANTS)}
        for peer in chosen.values():  # connections and caches
            with self.alone(peer):
                run(load, peer, 1, self.store)
        samples: dict[str, list[Sample]] = {name: [] for name in chosen}
        for at in range(self.given.rounds):
            _say(f"{load.name}: round {at + 1} of {self.given.rounds}")
            for name, peer in chosen.items():
                with self.alone(peer):
                    samples[name].append(run(load, peer, self.given.seconds, self.store))
        return samples

    def alone(self, peer: Peer | None = None) -> contextlib.AbstractContextManager[None]:
        """Hold every peer still but this one: a dozen idle proxies take a fortieth of a core, in bursts."""
        own = set(peer.pids) if peer else set()
        return machine.stopped({pid for each in self.started.values() for pid in each.pids} - own)

    def grants(self) -> None:
        """Measure login and refresh, in alternating rounds."""
        peer = self.started.get(OURS)
        if peer is None:
            return
        self.results.hash_cost = grants.hash_cost()
        for at in range(self.given.rounds):
            _say(f"login and refresh: round {at + 1} of {self.given.rounds}")
            for name, measure in ((grants.LOGIN, grants.login), (grants.REFRESH, grants.refresh)):
                with self.alone(peer):
                    self.results.grants.setdefault(name, []).append(measure(peer, self.given.seconds, self.store))

    def slices(self) -> None:
        """Measure two workers against one where neither has a core to itself."""
        if self.results.scales or OURS not in self.started:
            return
        _say("two workers beside one, a slice of a core each")
        folder = self.folder / "slices"
        folder.mkdir(mode=0o755)

        def start(workers: int) -> contextlib.AbstractContextManager[Peer]:
            return tokengate(f"{workers} of them", folder, self.target, self.port, self.credentials, workers=workers)

        try:
            self.results.slices = slices.measure(start, self.given.rounds, SLICE_ROUND * self.given.seconds, self.store)
        except slices.Unavailable as error:
            self.results.slices = str(error)

    def streams(self) -> None:
        """Measure what it costs to watch streams, on a gateway started afresh."""
        if OURS not in self.started:
            return
        _say(f"watching {streams.STREAMS:,} streams")
        folder = self.folder / "streams"
        folder.mkdir(mode=0o755)
        quick = streams.quick_users(folder, self.credentials)
        with (
            footprint.websocket_backend(folder) as target,
            tokengate(OURS, folder, target, self.port, quick) as peer,
        ):
            try:
                self.results.watched = streams.watch(peer, self.store, STANDING)
            except (footprint.NotTaken, OSError) as error:
                self.results.watched = f"not measured: {error}"

    # --- memory ---

    def footprints(self) -> None:
        """Count what connections cost in memory, on peers started afresh."""
        with footprint.websocket_backend(self.folder) as sockets:
            self.results.idle = self._footprints("idle", self.target, footprint.idle)
            self.results.websockets = self._footprints("websockets", sockets, footprint.websockets)

    def _footprints(self, kind: str, target: int, count: Callable[[Peer], footprint.Footprint]) -> Footprints:
        folder = self.folder / kind
        folder.mkdir(mode=0o755)
        starts: Starts = {
            "nginx": partial(peers.nginx, folder, target),
            "HAProxy": partial(peers.haproxy, folder, target, self.credentials),
            UNCHECKED_ENVOY: partial(envoy.envoy, UNCHECKED_ENVOY, folder, target),
            "Caddy": partial(peers.caddy, folder, target),
            OURS: partial(tokengate, OURS, folder, target, self.port, self.credentials),
        }
        found: Footprints = {}
        for name in [name for name in starts if name in self.started]:
            _say(f"memory, {kind}: {name}")
            with starts[name]() as peer:
                try:
                    found[name] = count(peer)
                except (footprint.NotTaken, OSError) as error:
                    found[name] = f"not measured: {error}"
        return found


def check(peer: Peer) -> None:
    """Make sure that a peer does what it is measured for. Raises RuntimeError."""
    bad = {name: value[:-6] + "AAAAAA" for name, value in peer.headers.items()}
    for headers, wanted in ((peer.headers, (200,)), (bad, (401, 403)), ({}, (401, 403))):
        if not peer.checks and headers is not peer.headers:
            continue
        connection = http.client.HTTPConnection(peer.url.removeprefix("http://"), timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", "/1k", headers=dict(headers))
            answer = connection.getresponse()
            size = len(answer.read())
        if answer.status not in wanted or (answer.status == 200 and size != 1024):
            raise RuntimeError(f"{peer.name} answers {answer.status} where {wanted} is due")


def _write_docs(results: Results) -> None:
    """Save the run, draw it, and put its tables between the marks of docs/benchmarks.md."""
    save(results, DOCS / "benchmarks.json")
    (DOCS / "benchmarks.svg").write_text(chart.draw(results))
    page = DOCS / "benchmarks.md"
    text = page.read_text()
    begin, end = MARKS
    before, after = text[: text.index(begin)], text[text.index(end) :]
    page.write_text(f"{before}{begin}\n\n{report.document(results)}\n{after}")


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
