"""An endpoint into a redis-py client.

The live check (wire.py) and the store connect to the same endpoint, each in its own way. A client
never tries a command twice by itself where it may have been carried out: what a lost answer means is for the caller
to decide.
"""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from gateway.sessions.cluster import ClusterClient
from gateway.sessions.connections import UnixConnection, node_client, options_of, pooled
from gateway.sessions.endpoint import Address, Credentials, Endpoint, parse_url
from gateway.sessions.sentinel import primary_client

__all__ = ["Address", "Credentials", "Endpoint", "open_client", "parse_url"]

_memory: dict[str, Any] = {}  # fakeredis servers by name: one store a process, as a Redis would be


def open_client(url: str | Endpoint, timeout: float) -> Any:
    """Return a client that connects when it is first used; every step of it ends after `timeout` seconds.

    It is a redis.asyncio.Redis, or a ClusterClient (cluster.py), which has the commands that are needed here.
    Raises ValueError as `parse_url` does, and OSError for TLS files that cannot be read.
    """
    endpoint = parse_url(url) if isinstance(url, str) else url
    endpoint.tls()  # a wrong file is told at the start, not at the first login
    match endpoint.kind:
        case "memory":
            return _embedded(endpoint.path)
        case "cluster":
            return ClusterClient(endpoint, timeout)
        case "sentinel":
            return primary_client(endpoint, timeout)
    if endpoint.scheme == "unix":
        options = options_of(endpoint.auth, timeout) | {"db": endpoint.db, "path": endpoint.path}
        return pooled(BlockingConnectionPool, timeout, connection_class=UnixConnection, **options)
    return node_client(endpoint, Address(endpoint.host, endpoint.port), timeout)


def _embedded(name: str) -> Redis:
    try:
        from fakeredis import FakeAsyncRedis, FakeServer
    except ImportError as error:
        raise ValueError("memory:// needs the package fakeredis[lua]") from error
    server = _memory.setdefault(name, FakeServer())
    client: Redis = FakeAsyncRedis(server=server, protocol=2)
    return client
