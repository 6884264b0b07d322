"""What a gateway and its store hold: memory, descriptors, keys and counters."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass

import redis

from tests.e2e.harness import Gateway, until

SETTLED = 30.0  # seconds for connections that were broken off to be noticed


@dataclass(frozen=True, slots=True)
class Usage:
    """One gateway at one moment. `memory` is resident, in bytes."""

    memory: int
    descriptors: int
    clients: int
    upstreams: int


def usage(gateway: Gateway) -> Usage:
    return Usage(
        memory=gateway.resident(),
        descriptors=len(os.listdir(f"/proc/{gateway.process.pid}/fd")),
        clients=round(gateway.metric("tokengate_connections", side="client")),
        upstreams=round(gateway.metric("tokengate_connections", side="upstream")),
    )


def settled(gateway: Gateway, clients: int = 0) -> Usage:
    """Return the usage when no more than `clients` connections of clients are left."""
    until(lambda: usage(gateway).clients <= clients, f"clients' connections of {gateway!r} end", SETTLED)
    return usage(gateway)


def keys(url: str, prefix: str) -> Counter[str]:
    """Count the keys under a prefix by kind; `endless` counts those that have no TTL."""
    found: Counter[str] = Counter()
    with redis.Redis.from_url(url) as client:
        names = list(client.scan_iter(f"{prefix}:*", count=10_000))
        for at in range(0, len(names), 10_000):
            piece = names[at : at + 10_000]
            with client.pipeline(transaction=False) as pipe:
                for name in piece:
                    pipe.pttl(name)
                lives = pipe.execute()
            for name, life in zip(piece, lives, strict=True):
                kind = name.decode().split(":")[2]
                found[kind] += 1
                found["endless"] += life == -1 and kind != "epoch"
    return found
