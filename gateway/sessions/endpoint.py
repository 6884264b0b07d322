"""Where Redis is: a URL into an endpoint.

An endpoint says how Redis is run: one server, a primary that sentinels name, or a cluster. Password and TLS
files are read again for new connections, so that secrets and certificates are rotated without a restart; so is a file
with the URL, whose user and password count as long as the URL leads where it led.
"""

from __future__ import annotations

import logging
import os
import ssl
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

logger = logging.getLogger(__name__)

_PORT = 6379
_SENTINEL_PORT = 26379
_SCHEMES = frozenset({"redis", "rediss", "unix", "memory"})
_SEVERAL = frozenset({"redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"})
_ALLOWED = (
    "redis:// rediss:// redis+sentinel:// rediss+sentinel:// redis+cluster:// rediss+cluster:// unix:// memory://"
)
_MAX_SECRET = 65_536  # bytes of a password file
_MAX_NODES = 64


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UrlFile:
    """A file with the URL, and the URL as it was at the start."""

    path: str
    url: str = field(repr=False)

    def read(self) -> tuple[str, str] | None:
        """Return (user, password) of the URL by now, None where it leads elsewhere or is none."""
        url = _read_text(self.path)
        try:
            before, parts = _split(self.url), _split(url)
        except ValueError:
            return None
        if _without_user(before) != _without_user(parts):
            return None
        return _user_of(parts)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and a password, or the files that hold them: those are read each time anew.

    Where there is a `url_file` it has what stands in neither `username` nor `password`, nor in the `password_file`.
    """

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    password_file: str = ""
    url_file: UrlFile | None = None

    def read(self) -> tuple[str, str]:
        """Return (user, password), "" for none. Raises OSError or ValueError where a file cannot be read."""
        username, password = self.username, self.password
        if self.url_file is not None:
            told = self.url_file.read() or _user_of(_split(self.url_file.url))
            username, password = username or told[0], password or told[1]
        return username, _read_text(self.password_file) if self.password_file else password


class Found:
    """What is known of where Redis is now. All that connects to one endpoint shares it, so that all go the same way.

    `primary` is what the sentinels name; `owners` the masters of a cluster by partition.
    """

    def __init__(self) -> None:
        self.primary: Address | None = None
        self.owners: dict[str, Address] = {}


class _Tls:
    """The TLS settings of an endpoint, made again when one of their files has changed."""

    def __init__(self) -> None:
        self.context: ssl.SSLContext | None = None
        self.made_of: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A Redis, as it is run. `path` is the unix socket, or the name of the embedded store.

    `nodes` are the sentinels, or those nodes of a cluster that are asked for the others; `service` is what the
    sentinels call the primary.
    """

    scheme: str
    host: str = ""
    port: int = _PORT
    path: str = ""
    db: int = 0
    nodes: tuple[Address, ...] = ()
    service: str = ""
    auth: Credentials = Credentials()
    sentinel_auth: Credentials = Credentials()
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    found: Found = field(default_factory=Found, repr=False, compare=False)
    _tls: _Tls = field(default_factory=_Tls, repr=False, compare=False)

    @property
    def kind(self) -> str:
        """Return "memory", "sentinel", "cluster", or "single" for one server."""
        if self.scheme == "memory":
            return "memory"
        return self.scheme.partition("+")[2] or "single"

    @property
    def secure(self) -> bool:
        return self.scheme.startswith("rediss")

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS settings: the server's name and chain are always verified, TLS 1.2 and newer.

        Files that have changed are read again; where that fails, the settings stay as they were. Raises OSError
        where a file cannot be read at first or is no PEM (ssl.SSLError is one).
        """
        if not self.secure:
            return None
        held = self._tls
        try:
            made_of = tuple(_version(path) for path in (self.tls_ca, self.tls_cert, self.tls_key) if path)
            if held.context is None or made_of != held.made_of:
                held.context, held.made_of = self._make_tls(), made_of
        except OSError as error:
            if held.context is None:
                raise
            logger.warning("redis: the TLS files cannot be read: %s", type(error).__name__)
        return held.context

    def _make_tls(self) -> ssl.SSLContext:
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
    password_file: str = "",
    sentinel_username: str = "",
    sentinel_password: str = "",
    sentinel_password_file: str = "",
    url_file: str = "",
    tls_ca: str = "",
    tls_cert: str = "",
    tls_key: str = "",
) -> Endpoint:
    """Read a URL, which `url_file` holds, if anything does.

        redis://[user:password@]host[:port][/db]                  one server; rediss:// for TLS
        unix://[user:password@]/path[?db=n]
        redis+sentinel://[user:password@]host[:port],.../service[/db]   user and password are those of the primary
        redis+cluster://[user:password@]host[:port],...
        memory://[name]

    The keywords win over what the URL carries. Raises ValueError that says what is wrong and never
    repeats the URL, which may hold a password.
    """
    parts = _split(url)
    secure = parts.scheme.startswith("rediss")
    if (tls_ca or tls_cert or tls_key) and not secure:
        raise ValueError("TLS files need a rediss:// URL")
    if tls_key and not tls_cert:
        raise ValueError("a TLS key needs a TLS certificate")
    if (sentinel_username or sentinel_password or sentinel_password_file) and not parts.scheme.endswith("+sentinel"):
        raise ValueError("a sentinel user or password needs a redis+sentinel:// URL")
    nodes = _nodes(parts) if parts.scheme in _SEVERAL else ()
    host, port, path = ("", 0, "") if nodes else _address(parts)
    service, db = _service(parts) if parts.scheme.endswith("+sentinel") else ("", _database(parts))
    return Endpoint(
        scheme=parts.scheme,
        host=host,
        port=port,
        path=path,
        db=db,
        nodes=nodes,
        service=service,
        auth=_credentials(username, password, password_file, UrlFile(url_file, url) if url_file else None, parts),
        sentinel_auth=Credentials(sentinel_username, sentinel_password, sentinel_password_file),
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
    )


def _credentials(
    username: str, password: str, password_file: str, url_file: UrlFile | None, parts: SplitResult
) -> Credentials:
    if url_file is None:
        told = _user_of(parts)
        username, password = username or told[0], password or told[1]
    return Credentials(username, password, password_file, url_file)


def _user_of(parts: SplitResult) -> tuple[str, str]:
    return unquote(parts.username or ""), unquote(parts.password or "")


def _without_user(parts: SplitResult) -> SplitResult:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2])


def _read_text(path: str) -> str:
    """Return what a file holds, without its last newline. Raises OSError or ValueError."""
    with open(path, "rb") as file:
        data = file.read(_MAX_SECRET + 1)
    if len(data) > _MAX_SECRET:
        raise ValueError("the password file is too large")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ValueError("the password file is not UTF-8 text") from None
    return text.removesuffix("\n").removesuffix("\r")


def _version(path: str) -> tuple[int, int, int]:
    """Return what differs once a file is another."""
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ino, status.st_size


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the URL is malformed") from None  # the cause would repeat parts of it
    if parts.scheme not in _SCHEMES | _SEVERAL:
        raise ValueError(f"the URL must begin with one of {_ALLOWED}")
    if parts.fragment:
        raise ValueError("the URL must not have a fragment; a # in a password is written %23")
    if parts.scheme in _SCHEMES:
        _check_single(parts)
    return parts


def _check_single(parts: SplitResult) -> None:
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("the URL names several hosts; redis+sentinel:// and redis+cluster:// take them")
    try:
        _ = parts.port
    except ValueError:
        raise ValueError("the URL is malformed") from None


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


def _nodes(parts: SplitResult) -> tuple[Address, ...]:
    default = _SENTINEL_PORT if parts.scheme.endswith("+sentinel") else _PORT
    nodes = []
    for host in parts.netloc.rpartition("@")[2].split(","):
        try:
            node = urlsplit(f"//{host}")
            port = node.port
        except ValueError:
            raise ValueError("the URL is malformed") from None
        if not node.hostname or port == 0:
            raise ValueError("the URL must name hosts, as in host:port,host:port")
        nodes.append(Address(node.hostname, port or default))
    if len(nodes) > _MAX_NODES:
        raise ValueError(f"the URL must name at most {_MAX_NODES} hosts")
    return tuple(nodes)


def _service(parts: SplitResult) -> tuple[str, int]:
    if parts.query:
        raise ValueError("the URL must not have options after a ?")
    service, _, db = parts.path.removeprefix("/").removesuffix("/").partition("/")
    if not service:
        raise ValueError("a redis+sentinel:// URL must name its service, as in redis+sentinel://host:port/mymaster/0")
    return unquote(service), _number(db)


def _database(parts: SplitResult) -> int:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    given = query.pop("db", "") if parts.scheme == "unix" else ""
    if query or (parts.query and parts.scheme != "unix"):
        raise ValueError("the URL must not have options after a ?, save db in a unix:// URL")
    if parts.scheme.endswith("+cluster"):
        if parts.path.strip("/"):
            raise ValueError("a cluster has no databases: a redis+cluster:// URL must end after its hosts")
        return 0
    if parts.scheme in ("redis", "rediss"):
        given = parts.path.strip("/")
    return _number(given)


def _number(given: str) -> int:
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) <= 5):
        raise ValueError("the database in the URL must be a number")
    return int(given)
