"""What a worker is made of, each part from the settings: keys, store, provider, cookies, routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.attempts import Limits
from gateway.backends import Backends
from gateway.cookies import Cookies
from gateway.identity import Provider, UsersFile, Webhook
from gateway.proxy.routes import OPEN, Route, RouteTable
from gateway.sessions.connect import Endpoint, parse_url
from gateway.sessions.epochs import Epochs
from gateway.sessions.store import SessionPolicy, SessionStore
from gateway.settings import Settings, SettingsError, read_keys, read_users
from gateway.settings.routes import Route as RouteSettings
from gateway.telemetry import Telemetry
from gateway.tokens.access import AccessRule
from gateway.tokens.keyring import KeyFile, Keyring, RefreshKeys
from gateway.tokens.refresh import RefreshTokens
from gateway.tokens.signer import Signer
from gateway.tokens.verifier import Verifier

# The gateway's own addresses: routes of the table like any other, served by the control plane.
CONTROL_PATHS = (b"/auth", b"/auth/verify", b"/.well-known/jwks.json", b"/.well-known/oauth-authorization-server")
RAW_PATHS = (b"/auth/verify",)  # what follows is the path of the request that another proxy asks about


class Keys:
    """The keys of a worker, and who must hear of others. Raises BadKey, SettingsError."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._seen: list[KeyFile] = []
        self.keyring, self.refresh = self._read()

    def _read(self) -> tuple[Keyring, RefreshKeys]:
        files = key_files(self._settings)
        loaded = Keyring.load(files, self._settings.tokens.algorithm), RefreshKeys.load(files)
        self._seen = files
        return loaded

    def changed(self) -> bool:
        """Tell whether the directory holds other keys than those in use."""
        return key_files(self._settings) != self._seen

    def reload(self, signer: Signer, verifier: Verifier, refresh_tokens: RefreshTokens) -> dict[str, Any]:
        """Read the directory again; one bad file, and everything stays as it was. Raises BadKey, SettingsError."""
        self.keyring, self.refresh = self._read()
        signer.reload(self.keyring)
        verifier.reload(self.keyring)
        refresh_tokens.reload(self.refresh)
        return {"signing": self.keyring.signing.kid, "refresh": self.refresh.signing.kid}


def key_files(settings: Settings) -> list[KeyFile]:
    """Return the files of the key directory. Raises SettingsError."""
    return [KeyFile(*row) for row in read_keys(settings)]


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
            tls_ca=str(redis.tls_ca or ""),
            tls_cert=str(redis.tls_cert or ""),
            tls_key=str(redis.tls_key or ""),
        )
    except ValueError as error:
        raise SettingsError([f"redis.url: {error}"]) from None


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


def open_provider(settings: Settings) -> Provider:
    """Return who checks user names and passwords. Raises SettingsError for a users file that cannot be read."""
    identity = settings.identity
    if identity.provider == "users-file":
        return UsersFile.load(read_users(settings))
    return Webhook(str(identity.webhook_url))


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
    return Cookies(names.refresh, cookie_path(settings), names.access, names.allow_same_site)


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
