"""Where Redis is: a URL into an endpoint, an endpoint into a redis-py client.

The live check (wire.py) and the store connect to the same endpoint, each in its own way. A client
never tries a command twice by itself: what a lost answer means is for the caller to decide.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

MAX_CONNECTIONS = 64

_PORT = 6379
_LATER = frozenset({"redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"})
_SCHEMES = frozenset({"redis", "rediss", "unix", "memory"})
_memory: dict[str, Any] = {}  # fakeredis servers by name: one store a process, as a Redis would be


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Redis server. `path` is the unix socket, or the name of the embedded store."""

    scheme: str
    host: str = ""
    port: int = _PORT
    path: str = ""
    db: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS settings: the server's name and chain are always verified, TLS 1.2 and newer.

        Raises OSError where a file cannot be read or is no PEM (ssl.SSLError is one).
        """
        if self.scheme != "rediss":
            return None
        context = ssl.create_default_context(cafile=self.tls_ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.tls_cert:
            context.load_cert_chain(self.tls_cert, self.tls_key or None)
        return context


def parse_url(
    url: str,
    *,
    username: str = "",
    password: str = "",
    tls_ca: str = "",
    tls_cert: str = "",
    tls_key: str = "",
) -> Endpoint:
    """Read `redis://[user:password@]host[:port][/db]`, `rediss://`, `unix://[user:password@]/path[?db=n]`, `memory://`.

    The keywords win over what the URL carries. Raises ValueError that says what is wrong and never
    repeats the URL, which may hold a password.
    """
    scheme = url.partition("://")[0].lower()
    if scheme in _LATER:  # told before the rest is read, whose several hosts are no URL of one
        raise ValueError(f"{scheme}:// is not supported yet")
    parts = _split(url)
    if parts.scheme not in _SCHEMES:
        raise ValueError("the URL must begin with redis://, rediss://, unix:// or memory://")
    if (tls_ca or tls_cert or tls_key) and parts.scheme != "rediss":
        raise ValueError("TLS files need a rediss:// URL")
    if tls_key and not tls_cert:
        raise ValueError("a TLS key needs a TLS certificate")
    host, port, path = _address(parts)
    return Endpoint(
        scheme=parts.scheme,
        host=host,
        port=port,
        path=path,
        db=_database(parts),
        username=username or unquote(parts.username or ""),
        password=password or unquote(parts.password or ""),
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )


def open_client(
    url: str | Endpoint,
    timeout: float,
    *,
    username: str = "",
    password: str = "",
    tls_ca: str = "",
    tls_cert: str = "",
    tls_key: str = "",
) -> Redis:
    """Return a client that connects when it is first used; every step of it ends after `timeout` seconds.

    Raises ValueError as `parse_url` does, and OSError for TLS files that cannot be read.
    """
    if isinstance(url, Endpoint):
        endpoint = url
    else:
        endpoint = parse_url(
            url, username=username, password=password, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key
        )
    if endpoint.scheme == "memory":
        return _embedded(endpoint.path)
    return Redis.from_pool(_pool(endpoint, timeout))


def _pool(endpoint: Endpoint, timeout: float) -> BlockingConnectionPool:
    options: dict[str, Any] = {
        "db": endpoint.db,
        "username": endpoint.username or None,
        "password": endpoint.password or None,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,  # spares two commands a connection
    }
    if endpoint.scheme == "unix":
        options |= {"connection_class": UnixDomainSocketConnection, "path": endpoint.path}
    else:
        options |= {"connection_class": Connection, "host": endpoint.host, "port": endpoint.port}
    if endpoint.scheme == "rediss":
        endpoint.tls()  # a wrong file is told at the start, not at the first login
        options |= {
            "connection_class": SSLConnection,
            "ssl_ca_certs": endpoint.tls_ca or None,
            "ssl_certfile": endpoint.tls_cert or None,
            "ssl_keyfile": endpoint.tls_key or None,
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
    return BlockingConnectionPool(max_connections=MAX_CONNECTIONS, timeout=timeout, **options)


def _embedded(name: str) -> Redis:
    try:
        from fakeredis import FakeAsyncRedis, FakeServer
    except ImportError as error:
        raise ValueError("memory:// needs the package fakeredis[lua]") from error
    server = _memory.setdefault(name, FakeServer())
    client: Redis = FakeAsyncRedis(server=server, protocol=2)
    return client


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ValueError("the URL is malformed") from None  # the cause would repeat parts of it
    if parts.fragment:
        raise ValueError("the URL must not have a fragment; a # in a password is written %23")
    return parts


def _address(parts: SplitResult) -> tuple[str, int, str]:
    if parts.scheme == "memory":
        return "", 0, (parts.netloc + parts.path).strip("/")
    if parts.scheme == "unix":
        if parts.hostname or not parts.path.startswith("/"):
            raise ValueError("a unix:// URL must name an absolute path, as in unix:///run/redis.sock")
        return "", 0, unquote(parts.path)
    if not parts.hostname:
        raise ValueError("the URL must name a host")
    return parts.hostname, parts.port or _PORT, ""


def _database(parts: SplitResult) -> int:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    given = query.pop("db", "") if parts.scheme == "unix" else ""
    if query:
        raise ValueError("the URL must not have options after a ?, save db in a unix:// URL")
    if parts.scheme in ("redis", "rediss"):
        given = parts.path.strip("/")
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) <= 5):
        raise ValueError("the database in the URL must be a number")
    return int(given)
