"""Combinations of good values that are not safe, or cannot work, together.

Each rule yields lines `key: what was found; what is allowed`. All of them are told at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import SecretStr

from gateway.settings.values import Address, Origin

if TYPE_CHECKING:
    from gateway.settings.models import Cookies, Redis, Settings
    from gateway.settings.routes import Issuer, Route

_WILDCARDS = ("0.0.0.0", "::")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_RESERVED = ("/auth", "/.well-known")
_NEVER_IDENTITY = frozenset(
    # headers that frame, steer or name a message, or carry its credential; Proxy is HTTP_PROXY to CGI (CVE-2016-5385)
    """authorization connection content-length content-type cookie date expect forwarded host keep-alive
    proxy proxy-authorization proxy-connection te traceparent tracestate trailer transfer-encoding upgrade via
    x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id""".split()  # noqa: SIM905  # a list of words
)
_OWN_CLAIMS = frozenset("iss sub aud exp nbf iat jti sid n roles scope client_id".split())  # noqa: SIM905
Lines = Iterator[str]


def violations(settings: Settings) -> list[str]:
    """Return a line for everything that is wrong between the keys."""
    return [line for rule in _RULES for line in rule(settings)]


def listeners(settings: Settings) -> Lines:
    server, management = settings.server, settings.management
    if _overlap(server.bind, management.bind):
        yield f'management.bind: found "{management.bind}"; a port other than that of server.bind is allowed'
    yield from _pair("server", server.tls_cert, server.tls_key)
    if server.proxy_protocol and (server.tls_cert or server.tls_key):
        yield "server.proxy_protocol: found true beside server.tls_*; the proxy in front ends TLS, so false is allowed"
    if server.proxy_protocol and not server.trusted_proxies:
        yield "server.proxy_protocol: found true without server.trusted_proxies, who alone may connect then"


def admins(settings: Settings) -> Lines:
    """Each token is one admin's, so that the audit trail names who it was."""
    section = settings.management
    seen = {f"sha256:{hashlib.sha256(section.admin_token.get_secret_value().encode()).hexdigest()}": "admin_token"}
    for name, digest in section.admin_tokens.items():
        if digest in seen:
            other = f"management.{seen[digest]}"
            yield f"management.admin_tokens.{name}: is the token of {other} too; one of its own is allowed"
        seen.setdefault(digest, f"admin_tokens.{name}")


def redis(settings: Settings) -> Lines:
    url, section = settings.redis.url.get_secret_value(), settings.redis
    yield from _pair("redis", section.tls_cert, section.tls_key)
    if (section.tls_ca or section.tls_cert) and not url.startswith("rediss"):
        yield "redis.url: found a URL without TLS beside redis.tls_*; rediss:// is allowed"
    if section.password.get_secret_value() and _has_password(url):
        yield "redis.password: found beside a password in redis.url; one of the two is allowed"
    if url.startswith("memory://") and settings.server.workers > 1:
        yield f"server.workers: found {settings.server.workers}; memory:// lives in one process, so 1 is allowed"
    yield from _sentinels(section, url.partition("://")[0])
    if url.startswith("memory://") and section.wait_replicas:
        yield f"redis.wait_replicas: found {section.wait_replicas}; memory:// has no replicas, so 0 is allowed"


def _sentinels(section: Redis, scheme: str) -> Lines:
    if scheme.endswith("+sentinel"):
        return
    for key in ("username", "password"):
        if getattr(section, f"sentinel_{key}") not in ("", SecretStr("")):
            yield f"redis.sentinel_{key}: found without sentinels; redis+sentinel:// is allowed in redis.url"


def lifetimes(settings: Settings) -> Lines:
    tokens = settings.tokens
    for name in ("refresh_ttl", "session_ttl"):
        end = getattr(tokens, name)
        if end and tokens.access_ttl >= end:
            yield f"tokens.access_ttl: found {tokens.access_ttl:g}s; less than tokens.{name} ({end:g}s) is allowed"


def issuers(settings: Settings) -> Lines:
    seen = {settings.tokens.issuer: "tokens.issuer"}
    for position, issuer in enumerate(settings.issuers):
        key = f"issuers.{position}.issuer"
        if issuer.issuer in seen:
            yield f'{key}: found "{issuer.issuer}", which is {seen[issuer.issuer]} too; each issuer once is allowed'
        seen.setdefault(issuer.issuer, key)
        yield from _issuer(f"issuers.{position}", issuer)
    yield from _namespaces(settings)
    if settings.issuers and settings.tokens.algorithm == "HS256":
        # RFC 8725 2.1: where secrets and public keys verify side by side, one is mistaken for the other
        yield 'tokens.algorithm: found "HS256" beside [[issuers]]; ES256 ES384 EdDSA RS256 PS256 are allowed'


def _issuer(key: str, issuer: Issuer) -> Lines:
    if issuer.jwks_ca and issuer.jwks_url.startswith("http://"):
        yield f"{key}.jwks_url: found a URL without TLS beside {key}.jwks_ca; https:// is allowed"
    for claim in issuer.exchange_claims:
        if claim in _OWN_CLAIMS:
            yield f'{key}.exchange_claims: found "{claim}"; a claim that the gateway does not set itself is allowed'


def _namespaces(settings: Settings) -> Lines:
    """The users that tokens are exchanged for must not be taken for one another: no prefix may begin another one."""
    known = [(n, issuer.namespace) for n, issuer in enumerate(settings.issuers) if issuer.exchange]
    for position, prefix in known:
        for other, beginning in known:
            if other != position and prefix.startswith(beginning):
                key = f"issuers.{position}.subject_prefix"
                yield f'{key}: found "{prefix}", which begins like that of issuers.{other}; one of its own is allowed'


def cookies(settings: Settings) -> Lines:
    names = settings.cookies
    if names.access.lower() == names.refresh.lower():
        yield f'cookies.access: found "{names.access}"; a name other than that of cookies.refresh is allowed'
    yield from _misspelt(names)


def cors(settings: Settings) -> Lines:
    origins = settings.cors.allow_origins
    for position, origin in enumerate(origins):
        if origin in origins[:position]:
            yield f'cors.allow_origins.{position}: found "{origin}" twice; each once is allowed'


def identity(settings: Settings) -> Lines:
    section = settings.identity
    if section.provider == "webhook" and section.webhook_url is None:
        yield 'identity.webhook_url: is missing; provider = "webhook" needs a URL'
    if section.provider == "users-file" and section.users_file is None:
        yield 'identity.users_file: is missing; provider = "users-file" needs a file'


def introspection(settings: Settings) -> Lines:
    for name, hashed in settings.introspection.clients.items():
        if not hashed.startswith("$argon2id$"):
            yield f"introspection.clients.{name}: is not an argon2id hash; `tokengate hash-password` makes one"
        if ":" in name:  # RFC 7617 2
            yield f"introspection.clients.{name}: a name without a colon is allowed"


def identity_headers(settings: Settings) -> Lines:
    seen: dict[str, str] = {}
    for name in settings.identity_headers:
        plain = name.lower().replace("_", "-")  # backends that follow CGI cannot tell the two
        if plain in _NEVER_IDENTITY:
            yield f"identity_headers.{name}: a header that does not steer HTTP itself is allowed"
        if plain in seen:
            yield f"identity_headers.{name}: is the same header as {seen[plain]}; each once is allowed"
        seen.setdefault(plain, name)


def routes(settings: Settings) -> Lines:
    seen: dict[tuple[str, str], int] = {}
    for position, route in enumerate(settings.routes):
        key, prefix = f"routes.{position}", route.path.rstrip("/")
        prefix = prefix.lower() if settings.server.ignore_path_case else prefix
        first = seen.setdefault((route.host, prefix), position)
        if first != position:
            yield f'{key}.path: found "{route.host}{route.path}", which is routes.{first} too; each once is allowed'
        if any(_is_under(prefix, reserved) for reserved in _RESERVED):
            yield f'{key}.path: found "{route.path}"; /auth and /.well-known are the gateway\'s own'
        for origin in route.upstream:
            if _leads_to(origin, settings.management.bind):
                yield f'{key}.upstream: found "{origin}", which is management.bind; a backend is allowed'
        yield from _route(key, route)


def _route(key: str, route: Route) -> Lines:
    if route.auth == "none" and (route.roles_any or route.scopes_all):
        yield f'{key}.auth: found "none" beside roles_any or scopes_all; "required" or "optional" is allowed'
    if route.strip_prefix and not _is_under(route.path.rstrip("/"), route.strip_prefix.rstrip("/")):
        yield f'{key}.strip_prefix: found "{route.strip_prefix}"; a beginning of the path "{route.path}" is allowed'
    schemes = {origin.scheme for origin in route.upstream}
    if len(schemes) > 1:
        yield f"{key}.upstream: found http:// and https://; one of the two is allowed"
    if "https" not in schemes and (route.upstream_ca or route.upstream_cert or route.upstream_key):
        yield f"{key}.upstream: found an origin without TLS beside upstream_ca, _cert or _key; https:// is allowed"
    if route.upstream_cert and not route.upstream_key:
        yield f"{key}.upstream_key: is missing; {key}.upstream_cert needs its key"
    if route.upstream_key and not route.upstream_cert:
        yield f"{key}.upstream_cert: is missing; {key}.upstream_key needs its certificate"
    if len(set(route.upstream)) < len(route.upstream):
        yield f"{key}.upstream: found an origin twice; each once is allowed"


def _misspelt(names: Cookies) -> Lines:
    """Browsers hold a cookie to the rules of a prefix in any case, other programs only as it is written."""
    for key, name in (("refresh", names.refresh), ("access", names.access)):
        for prefix in ("__Host-", "__Secure-"):
            if name.lower().startswith(prefix.lower()) and not name.startswith(prefix):
                yield f'cookies.{key}: found "{name}"; the prefix is written {prefix}'


def _pair(section: str, cert: object, key: object) -> Lines:
    if cert and not key:
        yield f"{section}.tls_key: is missing; {section}.tls_cert needs its key"
    if key and not cert:
        yield f"{section}.tls_cert: is missing; {section}.tls_key needs its certificate"


def _overlap(one: Address, other: Address) -> bool:
    if one.port != other.port or one.port == 0:  # port 0: the system picks a free one
        return False
    return one.host == other.host or any(host in _WILDCARDS for host in (one.host, other.host))


def _leads_to(origin: Origin, bind: Address) -> bool:
    """Tell whether a backend's address is that of a listener of ours, as far as can be told without asking anyone."""
    if origin.port != bind.port or not bind.port:
        return False
    return origin.host == bind.host or (origin.host in _LOOPBACK and bind.host in (*_LOOPBACK, *_WILDCARDS))


def _has_password(url: str) -> bool:
    try:
        return bool(urlsplit(url).password)
    except ValueError:
        return False


def _is_under(path: str, prefix: str) -> bool:
    """Tell whether the segments of `path` begin with those of `prefix`; neither ends with a slash."""
    return path == prefix or path.startswith(prefix + "/")


_RULES: tuple[Callable[[Settings], Lines], ...] = (
    listeners,
    admins,
    redis,
    lifetimes,
    issuers,
    cookies,
    cors,
    identity,
    introspection,
    identity_headers,
    routes,
)
