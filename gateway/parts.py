"""What a worker is made of, each part from the settings: store, provider, cookies, routes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.attempts import Limits
from gateway.backends import Backends
from gateway.cookies import Cookies
from gateway.identity import Provider, UsersFile, Webhook
from gateway.identity.passwords import check_hash
from gateway.proxy.routes import OPEN, Route, RouteTable
from gateway.sessions.connect import Endpoint, parse_url
from gateway.sessions.epochs import Epochs
from gateway.sessions.liveness import Liveness
from gateway.sessions.store import SessionPolicy, SessionStore
from gateway.sessions.trail import AuditTrail
from gateway.settings import Settings, SettingsError, read_users
from gateway.settings.routes import Route as RouteSettings
from gateway.telemetry import Telemetry
from gateway.telemetry.access import AccessLog, Out
from gateway.tokens.access import AccessRule
from gateway.tokens.keyring import Keyring
from gateway.tokens.verifier import Others, Verifier

if TYPE_CHECKING:
    from gateway.telemetry.tracing import Exporter

_OPENTELEMETRY = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
# The gateway's own addresses: routes of the table like any other, served by the control plane.
CONTROL_PATHS = (b"/auth", b"/auth/verify", b"/.well-known/jwks.json", b"/.well-known/oauth-authorization-server")
REMEMBERED_BYTES = 1024  # of a remembered token, on average: more than most have
RAW_PATHS = (b"/auth/verify",)  # what follows is the path of the request that another proxy asks about


def redis_endpoint(settings: Settings) -> Endpoint:
    """Return where Redis is. Raises SettingsError that says what is wrong and never repeats a secret."""
    redis = settings.redis
    try:
        return parse_url(
            redis.url.get_secret_value(),
            username=redis.username,
            password="" if redis.password_file else redis.password.get_secret_value(),
            password_file=str(redis.password_file or ""),
            sentinel_username=redis.sentinel_username,
            sentinel_password="" if redis.sentinel_password_file else redis.sentinel_password.get_secret_value(),
            sentinel_password_file=str(redis.sentinel_password_file or ""),
            url_file=str(redis.url_file or ""),
            tls_ca=str(redis.tls_ca or ""),
            tls_cert=str(redis.tls_cert or ""),
            tls_key=str(redis.tls_key or ""),
        )
    except ValueError as error:
        raise SettingsError([f"redis.url: {error}"]) from None


def make_verifier(settings: Settings, keyring: Keyring, others: Others) -> Verifier:
    """Return what verifies tokens by these keys, and those of `others` where there are any."""
    tokens = settings.tokens
    return Verifier(
        keyring,
        tokens.issuer,
        tokens.audience,
        tokens.leeway,
        max_entries=tokens.remembered,
        max_bytes=tokens.remembered * REMEMBERED_BYTES,
        others=others if settings.issuers else None,
    )


def open_store(
    settings: Settings,
    client: Any,
    observe: Callable[[str, float], None] | None = None,
    epochs: Epochs | None = None,
    is_down: Callable[[str], bool] | None = None,
) -> SessionStore:
    """Return the store of these settings over a client (connect.open_client)."""
    tokens, redis = settings.tokens, settings.redis
    policy = SessionPolicy(
        refresh_ttl=tokens.refresh_ttl,
        session_ttl=tokens.session_ttl,
        grace=tokens.refresh_grace,
        max_sessions=tokens.max_sessions_per_user,
        # An entry of the blacklist must outlive its token wherever that is judged: by a clock that is behind by as
        # much as the leeway allows, and a moment before Redis is asked.
        leeway=2 * tokens.leeway + redis.timeout,
        access_ttl=tokens.access_ttl,
    )
    return SessionStore(
        client,
        redis.prefix,
        policy,
        redis.timeout,
        redis.wait_replicas,
        observe=observe,
        epochs=epochs,
        is_down=is_down,
    )


def open_liveness(
    settings: Settings, endpoint: Endpoint, epochs: Epochs, observe: Callable[[int, float], None]
) -> Liveness:
    """Return the live check of these settings; `observe` is told the size and the seconds of each batch."""
    redis = settings.redis
    return Liveness(
        endpoint,
        redis.prefix,
        redis.timeout,
        epochs,
        grace=redis.outage_grace if redis.on_outage == "allow-recent" else 0.0,
        lead=2 * settings.tokens.leeway,  # of an issuer's clock to that of a replica, and of that to Redis'
        observe=observe,
    )


def open_trail(settings: Settings, client: Any, observe: Callable[[str, float], None] | None = None) -> AuditTrail:
    """Return the audit trail of these settings over a client (connect.open_client)."""
    audit, redis = settings.audit, settings.redis
    return AuditTrail(client, redis.prefix, redis.timeout, audit.max_len, audit.retention, observe=observe)


def admin_digests(settings: Settings) -> dict[str, bytes]:
    """Return the SHA-256 digests of the admin tokens, by whose they are: "admin", or "admin:NAME"."""
    token, named = settings.management.admin_token.get_secret_value(), settings.management.admin_tokens
    own = {"admin": hashlib.sha256(token.encode()).digest()} if token else {}
    return own | {f"admin:{name}": bytes.fromhex(digest.removeprefix("sha256:")) for name, digest in named.items()}


def open_provider(settings: Settings) -> Provider:
    """Return who checks user names and passwords. Raises SettingsError for a users file that cannot be read."""
    identity = settings.identity
    if identity.provider == "users-file":
        return UsersFile.load(read_users(settings))
    return Webhook(str(identity.webhook_url))


def check_clients(settings: Settings) -> None:
    """Raise ValueError for a client of the introspection whose hash is none."""
    for name, hashed in settings.introspection.clients.items():
        try:
            check_hash(hashed)
        except ValueError as error:
            raise ValueError(f"introspection.clients.{name}: {error}") from None


def open_exporter(settings: Settings) -> Exporter | None:
    """Return where spans go, None where nothing is traced. Raises SettingsError where OpenTelemetry is missing."""
    section = settings.tracing
    if not section.endpoint:
        return None
    check_tracing(settings)
    from gateway.telemetry.tracing import Exporter

    return Exporter(
        section.endpoint,
        section.service_name,
        version=__version__,
        headers=section.headers,
        timeout=section.timeout,
        queue=section.queue,
        tls_ca=str(section.tls_ca or ""),
    )


def check_tracing(settings: Settings) -> None:
    """Raise SettingsError where traces are asked for and OpenTelemetry is not installed. It is not loaded for that."""
    if settings.tracing.endpoint and not all(map(_is_installed, _OPENTELEMETRY)):
        missing = "OpenTelemetry is not installed; pip install 'tokengate[otel]' brings it, and \"\" is allowed"
        raise SettingsError([f"tracing.endpoint: {missing}"])


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


def access_log(settings: Settings, out: Out) -> AccessLog | None:
    section = settings.log
    if not section.access:
        return None
    bounds = section.access_sample, section.access_slow, section.access_per_second
    return AccessLog(out, *bounds, user=section.access_user)


def limits(settings: Settings) -> Limits:
    section = settings.limits
    return Limits(section.login_per_user, section.login_per_ip, section.refresh_per_session)


def access_rule(route: RouteSettings) -> AccessRule:
    return AccessRule(
        auth=route.auth,
        roles_any=frozenset(route.roles_any),
        scopes_all=frozenset(route.scopes_all),
        live=route.revocation == "live",
    )


def make_cookies(settings: Settings) -> Cookies:
    names = settings.cookies
    return Cookies(names.refresh, cookie_path(settings), names.access, names.allow_same_site, listed_origins(settings))


def listed_origins(settings: Settings) -> frozenset[bytes]:
    return frozenset(origin.encode() for origin in settings.cors.allow_origins)


def cookie_path(settings: Settings) -> str:
    """Return the refresh cookie's Path: /auth, or / where routes refresh by themselves or its name asks for it."""
    refreshing = any(route.on_expired == "refresh" for route in settings.routes)
    everywhere = refreshing or settings.cookies.access or settings.cookies.refresh.startswith("__Host-")
    return "/" if everywhere else "/auth"


def route_table(settings: Settings, backends: Backends, telemetry: Telemetry) -> RouteTable:
    """Return the routes of these settings and the gateway's own. Raises ValueError or OSError for files of no use."""
    control = [Route(name="control", path=path, rule=OPEN, raw=path in RAW_PATHS) for path in CONTROL_PATHS]
    ignore_case = settings.server.ignore_path_case
    routes = (_route(route, backends, telemetry, ignore_case) for route in settings.routes)
    return RouteTable([*control, *routes], ignore_case=ignore_case)


def _route(route: RouteSettings, backends: Backends, telemetry: Telemetry, ignore_case: bool) -> Route:
    name = route.host + route.path
    return Route(
        name=name,
        path=route.path.encode(),
        host=route.host.encode(),
        rule=access_rule(route),
        upstream=backends.group(route),
        meter=telemetry.route(name),
        methods=frozenset(method.encode() for method in route.methods),
        strip_prefix=route.strip_prefix.encode(),
        forward_authorization=route.forward_authorization,
        response_timeout=route.response_timeout,
        idle_timeout=route.idle_timeout,
        refreshes=route.on_expired == "refresh",
        keeps_streams=route.on_stream_expiry == "keep",
        replay_buffer=route.replay_buffer,
        ignores_case=ignore_case,
    )
