"""Figures of a run of scale.py that need none of its servers: costs of samples, of passwords and signatures, checks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks import credentials
from benchmarks.crowd import Crowd
from benchmarks.measure import Sample
from benchmarks.plan import batch_size, check_cost
from benchmarks.scale_results import Check, Point, Results
from benchmarks.store_probe import fit
from gateway.identity.passwords import hash_password, verify
from gateway.tokens.keyring import Keyring, generate
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier

ALGORITHMS = ("ES256", "RS256", "EdDSA", "HS256")
EACH_ONCE = """local requests, at = {{}}, 0
function init(args)
  for token in io.lines("{file}") do
    requests[#requests + 1] = wrk.format("{method}", nil, {{["Authorization"] = "Bearer " .. token}})
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""
POST = """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"username":"a","password":"b"}'
"""


def cost(samples: Sequence[Sample]) -> float:
    """Return microseconds a request: the least of the rounds, since what else the machine does can only add."""
    check(samples)
    return min(sample.cpu_per_request for sample in samples) * 1e6


def check(samples: Sequence[Sample]) -> None:
    for sample in samples:
        if sample.errors > sample.requests / 100:
            raise RuntimeError(f"{sample.errors} of {sample.requests} requests failed")


def packets(clients: Sequence[Any]) -> int:
    """Return how often servers have read from those who ask them, this question included."""
    return sum(int(client.info("stats")["total_reads_processed"]) for client in clients)


def turn(points: Sequence[Point]) -> float:
    """Return the seconds from one batch of a worker to the next: the fewest, so that batches are taken for small."""
    return min(point.workers * point.seconds / point.batches for point in points if point.batches)


def load_checks(results: Results, cluster: Sequence[Point]) -> list[Check]:
    """Compare the model with loads that no constant rests on (of those beside one Redis the turn does).

    With all that four workers can do Redis is busy, at half of it it sleeps in between: each has a line of its own.
    What a worker's request takes is scaled by what nginx takes at that moment.
    """
    constants, woken, found = results.constants, fit(results.woken_batches), []
    beside = [point for point in results.points if point.workers == 4 and point.masters == 1]
    for points, where in ((beside, "1 Redis"), (cluster, "a cluster of 3")):
        half = next(point for point in points if point.rate)
        busiest = max(points, key=lambda point: point.connections)
        busy = check_cost(constants, busiest.batch, cluster=busiest.masters > 1)
        size = batch_size(half.requests / half.seconds, half.workers, constants.turn, half.masters)
        request = constants.request * half.nginx / constants.nginx
        name = f"4 workers, {where}"
        found += [
            Check(f"{name}, full load: Redis a live check", "µs", busy, busiest.check_cost),
            Check(
                f"{name}, half load: Redis a live check", "µs", woken.first / half.batch + woken.each, half.check_cost
            ),
            Check(f"{name}, half load: live checks in a batch", "", size, half.batch),
            Check(f"{name}, half load: worker a request", "µs", request, half.request_cost),
        ]
    return found


def password_cost(times: int = 3) -> float:
    hashed = hash_password("a password")
    before = time.process_time()
    for _ in range(times):
        verify(hashed, "a password")
    return (time.process_time() - before) / times * 1e6


def verify_costs(count: int = 200) -> dict[str, float]:
    """Return the microseconds that a token takes whose signature has to be checked, by algorithm."""
    found, crowd = {}, Crowd("gw", 0)
    who = [("u-0", "0" * 23)] * count
    for algorithm in ALGORITHMS:
        keyring = Keyring.load([generate(algorithm, time.time())], algorithm)
        signer = Signer(keyring, credentials.ISSUER, credentials.AUDIENCE, 600)
        verifier = Verifier(keyring, credentials.ISSUER, credentials.AUDIENCE, 10)
        tokens = [token.encode() for token in crowd.tokens(signer, who)]
        before, now = time.process_time(), time.time()
        for token in tokens:
            verifier.verify(token, now)
        found[algorithm] = (time.process_time() - before) / count * 1e6
    return found
