"""How single values are written. Each parser takes what TOML or the environment gave and raises
ValueError whose text says what is allowed; the caller adds the key and what was found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, PlainValidator, SecretStr, WithJsonSchema

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")
_LONGEST = 36500 * 86400.0  # a hundred years: every sum with the time of day stays exact in milliseconds
_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"([0-9]{1,12})(B|KiB|MiB|GiB|TiB)?")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 5.6.2
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 3.3
_HOSTNAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*")
_ROUTE_PATH = re.compile(r"/[A-Za-z0-9\-._~!$&'()*+,=:@/]*")  # RFC 3986 pchar without escapes and `;`
_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,32}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OF_NOTHING = f"sha256:{hashlib.sha256().hexdigest()}"
_PORTS = {"http": 80, "https": 443}
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. An IPv6 host has no brackets here."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a backend is (RFC 6454 4). An IPv6 host has no brackets here."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{Address(self.host, self.port)}"


def duration(value: object) -> float:
    """Return seconds."""
    text = "0s" if value in ("0", 0) and not isinstance(value, bool) else value
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = float(match[1]) * _UNITS[match[2]] if match else -1.0
    if not 0 <= seconds <= _LONGEST:
        raise ValueError('a duration as in "250ms" "10s" "15m" "12h" "30d" is allowed')
    return seconds


def lifetime(value: object) -> float:
    """Return seconds, 0 for ever; nothing lives less than a second, which is what tokens count in."""
    seconds = duration(value)
    if 0 < seconds < 1:
        raise ValueError("0 or at least 1s is allowed")
    return seconds


def size(value: object) -> int:
    """Return bytes."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise ValueError('a size as in "0" "64KiB" "10MiB" is allowed')
    return int(match[1]) * _SIZES[match[2] or ""]


def address(value: object) -> Address:
    """Read `host:port`, `[::]:port` or `:port`, the last of which listens on every IPv4 address."""
    if isinstance(value, Address):
        return value
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bracketed = bare != host
    if not colon or not _is_port(port) or not _is_host(bare or "0.0.0.0", bracketed):
        raise ValueError('an address as in "0.0.0.0:8080" or "[::]:8080" is allowed')
    return Address(bare or "0.0.0.0", int(port))


def origin(value: object) -> Origin:
    """Read `http(s)://host[:port]`: the path of a request is passed on, so an origin has none of its own."""
    if isinstance(value, Origin):
        return value
    parts = _split(value)
    plain = parts is not None and parts.path in ("", "/") and "?" not in str(value) and "#" not in str(value)
    port = _PORTS.get(parts.scheme) if parts is not None else None
    if parts is None or port is None or not plain or parts.username is not None:
        raise ValueError('an origin as in "http://orders:8080" is allowed, without user, path or query')
    return Origin(parts.scheme, parts.hostname or "", parts.port or port)


def network(value: object) -> IPv4Network | IPv6Network:
    """Read a CIDR, or an address that stands for itself alone."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        if not isinstance(value, str):
            raise ValueError
        found = ip_network(value)
    except ValueError:
        raise ValueError('a network as in "10.0.0.0/8" is allowed, with no host bits set') from None
    if found.prefixlen == 0:
        raise ValueError("a network that is not the whole internet is allowed")
    return found


def secure_url(value: object) -> str:
    """Read an https URL, or an http one of this machine: what it names is trusted without another check."""
    parts = _split(value)
    secure = parts is not None and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts)))
    if parts is None or not secure or parts.username is not None or parts.fragment:
        raise ValueError("an https:// URL is allowed (http:// on a loopback host), without user or fragment")
    return str(value)


def issuer_url(value: object) -> str:
    """Read an issuer identifier (RFC 8414 2)."""
    text = secure_url(value)
    if urlsplit(text).query or "?" in text:
        raise ValueError("an issuer URL without a query is allowed")
    return text


def http_url(value: object) -> str:
    parts = _split(value)
    if parts is None or parts.scheme not in ("http", "https") or parts.username is not None or parts.fragment:
        raise ValueError("an http:// or https:// URL is allowed, without user or fragment")
    return str(value)


def redis_url(value: object) -> str:
    """Check how it begins; sessions/connect.py reads the rest."""
    schemes = ("redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")
    text = value if isinstance(value, str) else ""
    if not text.startswith((*(f"{scheme}://" for scheme in schemes), "unix://", "memory://")):
        raise ValueError(
            "a URL is allowed that begins with redis:// rediss:// redis+sentinel:// redis+cluster:// unix:// memory://"
        )
    return text


def route_path(value: object) -> str:
    """Read the prefix of a route, in its normal form: a prefix that is not would never be met."""
    if not isinstance(value, str) or not _ROUTE_PATH.fullmatch(value) or "//" in value:
        raise ValueError('a path as in "/api/orders/" is allowed, without // % ; ? or #')
    if any(segment in (".", "..") for segment in value.split("/")):
        raise ValueError("a path without . and .. segments is allowed")
    return value


def strip_prefix(value: object) -> str:
    return "" if value == "" else route_path(value)


def route_host(value: object) -> str:
    """Read the host of a route: a name without a port, or ''."""
    text = value.lower().rstrip(".") if isinstance(value, str) else value
    if text == "":
        return ""
    bare = text[1:-1] if isinstance(text, str) and text.startswith("[") and text.endswith("]") else text
    if not isinstance(text, str) or not _is_host(str(bare), bare != text):
        raise ValueError('a host name as in "shop.example.com" is allowed, without a port')
    return text


def collector_url(value: object) -> str:
    """Read the base URL of an OTLP collector, "" for none."""
    if value == "":
        return ""
    parts = _split(value)
    plain = parts is not None and parts.scheme in _PORTS and parts.username is None and not parts.fragment
    if parts is None or not plain or parts.query or "?" in str(value):
        raise ValueError('a URL as in "http://collector:4318" is allowed, without user or query')
    return str(value)


def ratio(value: object) -> float:
    """Read a part of 1; the environment gives it as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,12})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1 is allowed")
    return float(value)


def header_value(value: object) -> str:
    """Read a header's value (RFC 9110 5.5)."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]([ -~]{0,4094}[!-~])?", value):
        raise ValueError("printable ASCII without white space at its ends is allowed")
    return value


def token(value: object) -> str:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise ValueError("a name of letters, digits and !#$%&'*+-.^_`|~ is allowed (RFC 9110 5.6.2)")
    return value


def optional_token(value: object) -> str:
    return "" if value == "" else token(value)


def method(value: object) -> str:
    if token(value) != str(value).upper() or value == "CONNECT":
        raise ValueError('a method in capitals as in "GET" is allowed, other than CONNECT')
    return str(value)


def scope_token(value: object) -> str:
    if not isinstance(value, str) or not _SCOPE_TOKEN.fullmatch(value):
        raise ValueError("a name of printable ASCII without space, quote or backslash is allowed (RFC 6749 3.3)")
    return value


def key_prefix(value: object) -> str:
    """Read what every key begins with: braces would move the hash tag that keeps a user in one slot."""
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise ValueError("1 to 32 of A-Z a-z 0-9 _ . : - are allowed")
    return value


def text(value: object) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
        raise ValueError("1 to 255 printable characters are allowed")
    return value


def optional_text(value: object) -> str:
    return "" if value == "" else text(value)


def token_type(value: object) -> str:
    """Read a `typ` (RFC 7515 4.1.9), "" for none. Types that name what is no access token are refused."""
    plain = value.lower().removeprefix("application/") if isinstance(value, str) else None
    if plain is None or (plain and not re.fullmatch(r"[a-z0-9!#$&^_.+-]{1,100}", plain)):
        raise ValueError('a type as in "at+jwt" or "JWT" is allowed, "" for none')
    if plain in ("rt+jwt", "logout+jwt", "dpop+jwt", "token-introspection+jwt", "secevent+jwt"):
        raise ValueError("a type that is not that of another kind of token is allowed")
    return str(value)


def admin_token(value: SecretStr) -> SecretStr:
    secret = value.get_secret_value()
    if secret and (len(secret) < 16 or not secret.isascii() or not secret.isprintable() or " " in secret):
        raise ValueError("at least 16 printable ASCII characters without a space are allowed")
    return value


def token_digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise ValueError("sha256: and 64 hex digits are allowed; `tokengate hash-token` makes them")
    if value == _OF_NOTHING:  # what a script makes of a variable that is not set; "Authorization: Bearer" would do
        raise ValueError("is the digest of nothing; `tokengate hash-token` makes one of a token")
    return value


def listed(value: object) -> object:
    """Read a list that the environment gave as text: JSON, or words between commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return decoded(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def decoded(value: object) -> object:
    """Read a table, or a list of tables, that the environment gave as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("a table is allowed, in the environment as JSON") from None


def is_loopback(parts: SplitResult) -> bool:
    return parts.hostname in _LOOPBACK


def _split(value: object) -> SplitResult | None:
    """Return the parts of a URL with a host; None for what is none, or holds what no URL may."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return None
    try:
        parts = urlsplit(value)
        good = bool(parts.hostname) and _is_host(parts.hostname or "", "[" in parts.netloc) and parts.port != 0
    except ValueError:
        return None
    return parts if good else None


def _is_port(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= 5 and int(digits) <= 65535


def _is_host(name: str, bracketed: bool) -> bool:
    """Tell whether this is an IPv6 address (in brackets) or a host name or IPv4 address (not)."""
    if not bracketed:
        return _HOSTNAME.fullmatch(name) is not None
    try:
        return ip_address(name).version == 6
    except ValueError:
        return False


def _not_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a whole number is allowed")
    return value


@dataclass(frozen=True, slots=True)
class Within:
    """A check that says its bounds as they are written in the file."""

    low: str
    high: str
    least: float
    most: float

    def __call__(self, value: Any) -> Any:
        if not self.least <= value <= self.most:
            raise ValueError(f"{self.low} to {self.high} is allowed")
        return value


def _within(parse: Callable[[object], float], low: str, high: str) -> AfterValidator:
    return AfterValidator(Within(low, high, parse(low), parse(high)))


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": rf"^(0|{_DURATION.pattern})$"})
_SIZE_SCHEMA = WithJsonSchema({"type": "string", "pattern": rf"^{_SIZE.pattern}$"})
_TEXT_SCHEMA = WithJsonSchema({"type": "string"})
_URL_SCHEMA = WithJsonSchema({"type": "string", "format": "uri"})

Duration = Annotated[float, BeforeValidator(duration), _DURATION_SCHEMA]
Timeout = Annotated[float, BeforeValidator(duration), _within(duration, "1ms", "1d"), _DURATION_SCHEMA]
FetchTimeout = Annotated[float, BeforeValidator(duration), _within(duration, "100ms", "1m"), _DURATION_SCHEMA]
RefreshInterval = Annotated[float, BeforeValidator(duration), _within(duration, "1s", "1d"), _DURATION_SCHEMA]
TokenLife = Annotated[float, BeforeValidator(duration), _within(duration, "1s", "90d"), _DURATION_SCHEMA]
Window = Annotated[float, BeforeValidator(duration), _within(duration, "0s", "5m"), _DURATION_SCHEMA]
Retention = Annotated[float, BeforeValidator(duration), _within(duration, "1m", "3650d"), _DURATION_SCHEMA]
Lifetime = Annotated[float, BeforeValidator(duration), _within(duration, "1s", "36500d"), _DURATION_SCHEMA]
LifetimeOrNever = Annotated[float, BeforeValidator(lifetime), _DURATION_SCHEMA]
Size = Annotated[int, BeforeValidator(size), _SIZE_SCHEMA]
HeadSize = Annotated[int, BeforeValidator(size), _within(size, "1KiB", "1MiB"), _SIZE_SCHEMA]
BufferSize = Annotated[int, BeforeValidator(size), _within(size, "0", "16MiB"), _SIZE_SCHEMA]
Number = Annotated[int, BeforeValidator(_not_boolean)]
Ratio = Annotated[float, PlainValidator(ratio), WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1})]
Listen = Annotated[Address, PlainValidator(address), WithJsonSchema({"type": "string", "examples": ["0.0.0.0:8080"]})]
Backend = Annotated[Origin, PlainValidator(origin), _URL_SCHEMA]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(network), _TEXT_SCHEMA]
SecureUrl = Annotated[str, PlainValidator(secure_url), _URL_SCHEMA]
IssuerUrl = Annotated[str, PlainValidator(issuer_url), _URL_SCHEMA]
HttpUrl = Annotated[str, PlainValidator(http_url), _URL_SCHEMA]
CollectorUrl = Annotated[str, PlainValidator(collector_url), _TEXT_SCHEMA]
HeaderValue = Annotated[str, PlainValidator(header_value), _TEXT_SCHEMA]
RedisUrl = Annotated[SecretStr, BeforeValidator(redis_url), _URL_SCHEMA]
RoutePath = Annotated[str, PlainValidator(route_path), WithJsonSchema({"type": "string", "pattern": "^/"})]
StripPrefix = Annotated[str, PlainValidator(strip_prefix), WithJsonSchema({"type": "string", "pattern": "^(/|$)"})]
RouteHost = Annotated[str, PlainValidator(route_host), _TEXT_SCHEMA]
Token = Annotated[str, PlainValidator(token), _TEXT_SCHEMA]
OptionalToken = Annotated[str, PlainValidator(optional_token), _TEXT_SCHEMA]
Method = Annotated[str, PlainValidator(method), _TEXT_SCHEMA]
ScopeToken = Annotated[str, PlainValidator(scope_token), _TEXT_SCHEMA]
KeyPrefix = Annotated[str, PlainValidator(key_prefix), _TEXT_SCHEMA]
Text = Annotated[str, PlainValidator(text), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 255})]
OptionalText = Annotated[str, PlainValidator(optional_text), WithJsonSchema({"type": "string", "maxLength": 255})]
TokenType = Annotated[str, PlainValidator(token_type), _TEXT_SCHEMA]
AdminToken = Annotated[SecretStr, AfterValidator(admin_token)]
TokenDigest = Annotated[str, PlainValidator(token_digest), _TEXT_SCHEMA]
