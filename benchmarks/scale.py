"""The constants of the capacity model, measured on this machine in one run, and the model tried on what it did not see.

    python -m benchmarks --scale                    measures; prints the tables; three to four minutes
    python -m benchmarks --scale --docs             the same, and writes docs/scale.json and docs/operations/capacity.md
    python -m benchmarks --scale --from docs/scale.json --docs     the page again, without a run

CPU is that of processes, by their own clocks: what else the machine does changes it by little. Sessions are many, and
so are tokens: what is asked a thousand times is in every cache, and costs half.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import credentials, footprint, grants, machine, peers, scale_report, scale_results, streams
from benchmarks.crowd import Crowd
from benchmarks.gateway import sign_in, tokengate
from benchmarks.measure import Load, Peer, Sample, run
from benchmarks.plan import Constants, tables
from benchmarks.scale_figures import (
    EACH_ONCE,
    POST,
    check,
    cost,
    load_checks,
    packets,
    password_cost,
    turn,
    verify_costs,
)
from benchmarks.scale_results import SAVED, Check, Point, Results
from benchmarks.store_probe import Probe, fit
from gateway.tokens.keyring import Keyring
from gateway.tokens.signer import Signer

SESSIONS = 100_000  # in Redis while everything else is measured
TOKENS = 10_000  # of them that clients use
SLICE = 1_000  # tokens that several workers see
FRESH = 6_000  # tokens of a round of first sights
LOADED = 1_000_000  # sessions that the model of memory is tried on
IDLE = 2_000  # connections
REST = 3.0  # seconds for which workers at rest are watched
WORKERS = (1, 2, 4)
MANY = 16  # workers that ask Redis at the same moment
ROUNDS = 4  # of which the least counts
# Nothing is refused because the machine is busy with something else.
PATIENT = {"TOKENGATE_REDIS__TIMEOUT": "2s", "TOKENGATE_SERVER__OVERLOAD_AFTER": "5s"}
KEPT = {
    "nothing is kept": (),
    "appendfsync everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "appendfsync always": ("--appendonly", "yes", "--appendfsync", "always"),
}


def main(words: Sequence[str]) -> int:
    """Measure, or take a run that was saved; print it."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--scale", action="store_true", required=True)
    parser.add_argument("--seconds", type=float, default=1, help="length of a round, whole seconds (default 1)")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the run as JSON")
    parser.add_argument("--from", dest="from_file", type=Path, metavar="FILE", help="no run: take one that was saved")
    parser.add_argument("--docs", action="store_true", help="write docs/scale.json and the tables of the page")
    given = parser.parse_args(words)
    machine.raise_file_limit()
    results = scale_results.load(given.from_file) if given.from_file else measure(given.seconds)
    if given.save:
        scale_results.save(results, given.save)
    if given.docs:
        scale_results.save(results, SAVED)
        scale_report.write_page(results)
    sys.stdout.write(scale_report.document(results))
    return 0


def measure(seconds: float) -> Results:
    """Return a whole run; `seconds` is the length of a round."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tokengate-scale-")))
        folder.chmod(0o755)  # nginx' workers read the files as another user
        machine.pin(machine.cores().rest)
        bench = Bench(folder, stack, seconds)
        found = {**bench.store(), **bench.worker()}
        points = bench.points()
        found["turn"] = turn(points)
        results = Results(machine.describe(), now, Constants(**found), SESSIONS, points)
        results.batches, results.cluster_batches = bench.batches, bench.cluster_batches
        results.crowded_batches, results.woken_batches = bench.crowded_batches, bench.woken_batches
        results.one_user, results.tokens, results.verify = bench.one_user(), bench.token_sizes, verify_costs()
        results.redis_connections = bench.redis_connections
        results.persistence = bench.persistence()
        results.checks = [*bench.cluster_checks(results), *bench.memory_checks(results)]
    return results


class Bench:
    """One run: a backend, a Redis with a crowd in it, and gateways started as they are needed."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack, seconds: float) -> None:
        self.folder = folder
        self.seconds = seconds
        self.credentials = streams.quick_users(folder, credentials.make(folder))
        self.signer = Signer(
            Keyring.load(self.credentials.files, "ES256"), credentials.ISSUER, credentials.AUDIENCE, credentials.TTL
        )
        self.target, _ = stack.enter_context(peers.backend(folder))
        self.nginx = stack.enter_context(peers.nginx(folder, self.target))
        self.accounts, _ = stack.enter_context(peers.accounts(folder))
        self.port, self.redis = stack.enter_context(peers.redis(folder))
        self.probe = Probe(self.port, self.redis)
        born = int(time.time()) - 10
        self.fresh = Crowd("gw", born)  # signed in
        self.refreshed = Crowd("gw", born, counter=1)  # and refreshed since: their first use is written
        self.batches: list[tuple[int, float]] = []
        self.cluster_batches: list[tuple[int, float]] = []
        self.crowded_batches: list[tuple[int, float]] = []
        self.woken_batches: list[tuple[int, float]] = []
        self.token_sizes: dict[str, float] = {}
        self.redis_connections = 0
        self._number = 0

    # --- Redis alone ---

    def store(self) -> dict[str, float]:
        """Return the constants of Redis."""
        _say(f"Redis: {SESSIONS:,} sessions, live checks by size, operations")
        probe, crowd = self.probe, self.fresh
        base = probe.memory()
        crowd.begin_epochs(probe.client)
        sizes = probe.sizes(crowd, SESSIONS)
        self.batches = probe.batches(crowd.made, 3)
        self.cluster_batches = probe.batches(crowd.made, 3, apart=True)
        self.crowded_batches = probe.batches(crowd.made, 3, workers=MANY)
        self.woken_batches = probe.batches(crowd.made, 2, pause=0.001)
        single, cluster = fit(self.batches), fit(self.cluster_batches)
        costs = probe.operations()
        traffic = probe.traffic(crowd.made)
        ins = fit([(size, each[0]) for size, each in traffic.items()])
        outs = fit([(size, each[1]) for size, each in traffic.items()])
        return {
            "batch": single.first,
            "batch_cluster": cluster.first,
            "ask": single.each,
            "ask_cluster": cluster.each,
            **{f"store_{name}": cost for name, cost in costs.items()},
            "store_bytes": float(base),
            **{f"{name}_bytes": size for name, size in sizes.items()},
            "ask_in": ins.each,
            "ask_out": outs.each,
            "batch_in": ins.first,
            "batch_out": outs.first,
        }

    def one_user(self) -> dict[str, dict[str, float]]:
        """Return what the next login of a user takes of Redis who has so many sessions."""
        counts = (1, 10, 100, 1000)
        return {
            name: {str(count): cost for count, cost in self.probe.logins_of_one(counts, device).items()}
            for name, device in (("without a device", ""), ("on a new device", "device "))
        }

    # --- one worker ---

    def worker(self) -> dict[str, float]:
        """Return the constants of a worker."""
        _say("a worker: requests, first sights, refreshes, logins, logouts")
        found = self._memory()
        at_rest = self._store_cpu(REST)
        with self._gateway() as peer:
            found["store_worker"] = max(0.0, self._store_cpu(REST) - at_rest) / REST * 1e6
            found |= self._steady(peer)
            found |= self._first_sights(peer, found["request"])
            found |= self._grants(peer)
        with self._gateway(accounts=self.accounts) as peer:
            anonymous = replace(peer, headers={})
            samples = self._rounds(Load("login", "/auth/login", 8, POST), anonymous)
            found["login"] = cost(samples)
        found["password"] = password_cost()
        return found

    def _memory(self) -> dict[str, float]:
        with self._gateway() as peer:
            grown = footprint.idle(peer, IDLE)
        with self._gateway() as peer:
            tokens = self._tokens(self.fresh, 50_000, 4 * FRESH)
            run(Load("warm", "/1k", 4), peer, 1, self.redis)
            before = machine.memory(peer.pids)
            sample = run(Load("tokens", "/1k", 4, self._script(tokens, "GET")), peer, 5, self.redis)
            seen = min(sample.requests, len(tokens))
            each = (machine.memory(peer.pids) - before) / seen
        self.token_sizes["access token"] = sum(map(len, tokens)) / len(tokens)
        return {"worker_bytes": float(grown.before), "connection_bytes": grown.each, "token_bytes": each}

    def _steady(self, peer: Peer) -> dict[str, float]:
        """Return microseconds a request: of nginx, on connections that keep to a token, and where tokens take turns.

        At half of what a worker can, which is where a plan has it; the last also with all that it can.
        """
        tokens = self._tokens(self.fresh, 0, TOKENS)
        self._warm(peer, tokens, 1)
        varied = self._script(tokens, "GET")
        full = self._rounds(Load("full", "/1k", 32, varied), peer)
        rate = round(median(sample.rate for sample in full) / 2)
        loads = {
            "nginx": (Load("nginx", "/1k", 32, rate=rate), self.nginx),
            "request_kept": (Load("kept", "/1k", 32, rate=rate), peer),
            "request": (Load("varied", "/1k", 32, varied, rate=rate), peer),
        }
        samples: dict[str, list[Sample]] = {name: [] for name in loads}
        for _ in range(ROUNDS):
            for name, (load, asked) in loads.items():
                samples[name].append(run(load, asked, self.seconds, self.redis))
        return {"request_full": cost(full)} | {name: cost(each) for name, each in samples.items()}

    def _warm(self, peer: Peer, tokens: Sequence[str], workers: int) -> None:
        """Have each worker see each token, and most of them again."""
        for first in range(0, len(tokens), SLICE):
            some = tokens[first : first + SLICE]
            load, seconds = Load("warm", "/1k", 32, self._script(some, "GET")), 1
            while run(load, peer, seconds, self.redis).requests < len(some) * (2 if workers == 1 else 4 * workers):
                seconds = min(16, 2 * seconds)

    def _first_sights(self, peer: Peer, request: float) -> dict[str, float]:
        """Return what it costs on top to see a token first, and one that was just refreshed."""
        self.refreshed.fill(self.port, 500_000, ROUNDS * FRESH)
        verified: list[float] = []
        marked: list[float] = []
        for at in range(ROUNDS):
            for crowd, first, costs in (
                (self.fresh, TOKENS + at * FRESH, verified),
                (self.refreshed, at * FRESH, marked),
            ):
                tokens = self._tokens(crowd, first, FRESH)
                sample = run(Load("first", "/1k", 8, self._script(tokens, "GET")), peer, 1, self.redis)
                check([sample])
                seen = min(sample.requests, len(tokens))
                costs.append((sample.cpu * 1e6 - sample.requests * request) / seen)
        return {"verify": min(verified), "mark": max(0.0, min(marked) - min(verified))}

    def _grants(self, peer: Peer) -> dict[str, float]:
        client = self.probe.client
        before = client.info("stats")
        samples = [grants.refresh(peer, self.seconds, self.redis) for _ in range(ROUNDS)]
        after = client.info("stats")
        check(samples)
        total = sum(sample.requests for sample in samples)
        self.redis_connections = client.info("clients")["connected_clients"] - 1
        self._measure_tokens(peer)
        tokens = self._tokens(self.refreshed, 0, FRESH)
        sample = run(Load("logout", "/auth/logout", 8, self._script(tokens, "POST")), peer, 1, self.redis)
        return {
            "refresh": cost(samples),
            "logout": sample.cpu / sample.requests * 1e6,
            "refresh_in": (after["total_net_input_bytes"] - before["total_net_input_bytes"]) / total,
            "refresh_out": (after["total_net_output_bytes"] - before["total_net_output_bytes"]) / total,
        }

    def _measure_tokens(self, peer: Peer) -> None:
        answer = sign_in(peer.url)
        self.token_sizes["refresh token"] = float(len(str(answer["refresh_token"])))
        record = self.probe.client.get(self.probe.keys.session(self.fresh.made[0][1]))
        self.token_sizes["session record"] = float(len(record))

    # --- several workers, and a cluster ---

    def points(self) -> list[Point]:
        """Return loads on one worker, two and four."""
        found: list[Point] = []
        for workers in WORKERS:
            _say(f"{workers} worker{'s' if workers > 1 else ''} beside one Redis")
            with self._gateway(workers=workers) as peer:
                found += self._loads(peer, workers, [self.redis], [self.probe.client])
        return found

    def _loads(
        self, peer: Peer, workers: int, pids: list[int], clients: list[Any], tokens: Crowd | None = None
    ) -> list[Point]:
        crowd = tokens or self.fresh
        kept = self._tokens(crowd, 0, SLICE)
        self._warm(peer, kept, workers)
        script = self._script(kept, "GET")
        found = [self._point(peer, workers, pids, clients, Load("", "/1k", 32, script))]
        rate = round(found[0].requests / found[0].seconds / 2)
        nginx = run(Load("nginx", "/1k", 32, rate=rate), self.nginx, self.seconds, self.redis).cpu_per_request * 1e6
        for connections, asked in ((32, rate), (4, 0), (128, 0)):
            load = Load("", "/1k", connections, script, rate=asked)
            found.append(replace(self._point(peer, workers, pids, clients, load), nginx=nginx))
        return found

    def _point(self, peer: Peer, workers: int, pids: list[int], clients: list[Any], load: Load) -> Point:
        """Return the cheaper of two rounds."""
        return min(
            (self._round(peer, workers, pids, clients, load) for _ in range(2)), key=lambda each: each.check_cost
        )

    def _round(self, peer: Peer, workers: int, pids: list[int], clients: list[Any], load: Load) -> Point:
        before, store = packets(clients), machine.cpu_seconds(pids)
        sample = run(load, peer, self.seconds, self.redis)
        check([sample])
        used, batches = machine.cpu_seconds(pids) - store, packets(clients) - before - len(clients)
        connections, requests = load.connections, sample.requests
        return Point(workers, len(pids), connections, load.rate, requests, sample.seconds, sample.cpu, used, batches)

    def cluster_checks(self, results: Results) -> list[Check]:
        """Put four workers before a cluster of three masters, and compare with what the model says of that."""
        _say("4 workers before a cluster of 3 masters")
        from tests.redis_topologies import cluster

        with cluster(3) as nodes:
            clients = [node.client() for node in nodes.nodes]
            pids = [int(client.info("server")["process_id"]) for client in clients]
            crowd = Crowd("gw", self.fresh.epoch)
            owners = {digit: node for node in nodes.nodes for digit in nodes.partitions(node)}
            for digit, node in owners.items():
                with node.client() as client:
                    crowd.begin_epochs(client, digit)
            crowd.fill({digit: node.port for digit, node in owners.items()}, 0, SLICE)
            with self._gateway(workers=4, redis_url=nodes.url) as peer:
                points = self._loads(peer, 4, pids, clients, crowd)
        results.points += points
        return load_checks(results, points)

    def persistence(self) -> dict[str, dict[str, float]]:
        """Return what a sign-in and a refresh take of Redis, by how it keeps its data."""
        _say("Redis with and without a log")
        found: dict[str, dict[str, float]] = {}
        for name, options in KEPT.items():
            folder = self.folder / f"kept-{len(found)}"
            folder.mkdir()
            with peers.redis(folder, *options) as (port, pid):
                probe = Probe(port, pid)
                self.fresh.begin_epochs(probe.client)
                costs = probe.operations()
                written = int(probe.client.info("persistence").get("aof_current_size", 0)) if options else 0
            found[name] = {"login": costs["login"], "refresh": costs["refresh"], "log": float(written)}
        return found

    def memory_checks(self, results: Results) -> list[Check]:
        """Load a million sessions into an empty Redis, and compare; then have it write a snapshot."""
        _say(f"{LOADED:,} sessions in one Redis")
        folder, constants = self.folder / "million", results.constants
        folder.mkdir()
        with peers.redis(folder) as (port, pid):
            probe = Probe(port, pid)
            Crowd("gw", int(time.time())).fill(port, 0, LOADED)
            measured = probe.memory()
            before = time.monotonic()
            probe.client.bgsave()
            while probe.client.info("persistence")["rdb_bgsave_in_progress"]:
                time.sleep(0.1)
            results.million = {
                "resident": float(probe.client.info("memory")["used_memory_rss"]),
                "snapshot": float((folder / "dump.rdb").stat().st_size),
                "seconds": time.monotonic() - before,
                "fork": float(probe.client.info("stats")["latest_fork_usec"]),
            }
        predicted = (
            constants.store_bytes + LOADED * (constants.session_bytes + constants.index_bytes) + tables(2 * LOADED)
        )
        return [Check(f"used_memory of {LOADED:,} sessions", "MiB", predicted / 2**20, measured / 2**20)]

    # --- helpers ---

    @contextlib.contextmanager
    def _gateway(self, **options: Any) -> Iterator[Peer]:
        self._number += 1
        name = f"scale-{self._number}"
        with tokengate(name, self.folder, self.target, self.port, self.credentials, environ=PATIENT, **options) as peer:
            yield peer

    def _tokens(self, crowd: Crowd, first: int, count: int) -> list[str]:
        return list(crowd.tokens(self.signer, crowd.made[first : first + count]))

    def _script(self, tokens: Sequence[str], method: str) -> str:
        self._number += 1
        file = self.folder / f"tokens-{self._number}"
        file.write_text("\n".join(tokens) + "\n")
        return EACH_ONCE.format(file=file, method=method)

    def _rounds(self, load: Load, peer: Peer) -> list[Sample]:
        samples = [run(load, peer, self.seconds, self.redis) for _ in range(ROUNDS)]
        check(samples)
        return samples

    def _store_cpu(self, seconds: float) -> float:
        before = machine.cpu_seconds([self.redis])
        time.sleep(seconds)
        return machine.cpu_seconds([self.redis]) - before


def _say(what: str) -> None:
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()
