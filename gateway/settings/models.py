"""Every key of the configuration, its default and what it is for.

Durations are seconds (float) and sizes bytes (int) once read; defaults stand here as in the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.settings import rules
from gateway.settings.routes import Issuer, Route, Section, written
from gateway.settings.values import (
    AdminToken,
    Duration,
    HeadSize,
    HttpUrl,
    IssuerUrl,
    KeyPrefix,
    Lifetime,
    LifetimeOrNever,
    Listen,
    Network,
    Number,
    OptionalToken,
    RedisUrl,
    Size,
    Text,
    Timeout,
    Token,
    Window,
    decoded,
    listed,
)

IDENTITY_HEADERS = {  # oauth2-proxy's names
    "X-Auth-Request-User": "sub",
    "X-Auth-Request-Email": "email",
    "X-Auth-Request-Groups": "roles",
    "X-Auth-Request-Session": "sid",
}


class Server(Section):
    """The listener for clients."""

    bind: Listen = written("0.0.0.0:8080")
    """Where clients connect."""
    workers: Annotated[Number, Field(ge=1, le=256)] = 1
    """Processes; they share nothing but Redis."""
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(listed)] = ()
    """Networks whose X-Forwarded-* or Forwarded headers are believed."""
    proxy_protocol: bool = False
    """Whether trusted proxies begin every connection with the PROXY protocol (v1 or v2); no one else may connect."""
    ignore_path_case: bool = False
    """Whether paths meet routes whatever their case, for backends that read them so."""
    max_connections: Annotated[Number, Field(ge=1)] = 20000
    """Client connections of a worker; one more is answered with 503 overloaded."""
    overload_after: Duration = written("250ms")
    """How long a request may wait for a busy worker; one that would wait longer gets 503 overloaded; 0 = any time."""
    max_header_bytes: HeadSize = written("32KiB")
    """The largest request head; one larger is answered with 431."""
    max_body_bytes: Size = written("0")
    """The largest request body, 0 = no limit."""
    header_timeout: Timeout = written("10s")
    """For a whole request head to arrive."""
    keepalive_timeout: Timeout = written("75s")
    """How long an idle connection is kept."""
    drain_delay: Duration = written("0s")
    """How long new connections are still taken at shutdown, while load balancers see /readyz say 503."""
    drain_timeout: Duration = written("25s")
    """How long requests in flight may take after that; Kubernetes kills 30 s after the first signal."""
    tls_cert: Path | None = None
    """The certificate chain (PEM); without it the listener speaks plain HTTP."""
    tls_key: Path | None = None
    """The private key of the certificate (PEM)."""


class Management(Section):
    """The listener for probes, metrics and the admin API; never exposed to clients."""

    bind: Listen = written("127.0.0.1:9090")
    """Where operators connect."""
    admin_token: AdminToken = written("")
    """The bearer token of the admin API; without it the admin API is off."""
    admin_token_file: Path | None = None
    """A file with the admin token."""


class Redis(Section):
    """Where sessions are kept."""

    url: RedisUrl = written("redis://127.0.0.1:6379/0")
    """The server, with user and password if need be."""
    url_file: Path | None = None
    """A file with the URL."""
    username: str = ""
    """The ACL user; it wins over the URL's."""
    password: SecretStr = written("")
    """The password; it wins over the URL's."""
    password_file: Path | None = None
    """A file with the password."""
    sentinel_username: str = ""
    """The ACL user at the sentinels; the URL's is that of the servers."""
    sentinel_password: SecretStr = written("")
    """The password at the sentinels."""
    sentinel_password_file: Path | None = None
    """A file with the password at the sentinels."""
    tls_ca: Path | None = None
    """Authorities (PEM) that the server's certificate is checked against; the system's by default."""
    tls_cert: Path | None = None
    """The client certificate (PEM)."""
    tls_key: Path | None = None
    """The key of the client certificate (PEM)."""
    prefix: KeyPrefix = written("gw")
    """What every key begins with."""
    timeout: Timeout = written("250ms")
    """For one operation."""
    on_outage: Literal["deny", "allow-recent"] = "deny"
    """What happens to guarded requests while Redis cannot answer."""
    outage_grace: Timeout = written("30s")
    """For allow-recent: how old the last live check of a token may be."""
    wait_replicas: Annotated[Number, Field(ge=0, le=100)] = 0
    """Replicas that must acknowledge a revocation (WAIT)."""


class Tokens(Section):
    """Access tokens (RFC 9068), refresh tokens and the sessions behind them."""

    issuer: IssuerUrl
    """The `iss` claim: the public URL of this gateway."""
    audience: Text
    """The `aud` claim: the API that the tokens are for."""
    algorithm: Literal["ES256", "ES384", "EdDSA", "RS256", "PS256", "HS256"] = "ES256"
    """What access tokens are signed with."""
    signing_keys: Path = Path("/run/keys")
    """A directory; the newest key signs, all verify."""
    access_ttl: Lifetime = written("10m")
    """The life of an access token."""
    leeway: Window = written("10s")
    """How far clocks may differ."""
    refresh_format: Literal["opaque", "jwt"] = "opaque"
    """How refresh tokens look; both are always read."""
    refresh_ttl: LifetimeOrNever = written("30d")
    """How long a session lives without a refresh, 0 = for ever."""
    session_ttl: LifetimeOrNever = written("180d")
    """How long a session lives at all, 0 = as long as it is used."""
    refresh_grace: Window = written("10s")
    """How long a refresh token still works after its successor was used."""
    max_sessions_per_user: Annotated[Number, Field(ge=0)] = 50
    """At one more the session least recently used ends; 0 = no limit."""


class Cookies(Section):
    """The cookies of browsers."""

    refresh: Token = written("__Secure-refresh")
    """The refresh token's cookie: HttpOnly, Secure, SameSite=Strict."""
    access: OptionalToken = written("")
    """The access token's cookie; without a name browsers hold the token themselves."""
    allow_same_site: bool = False
    """Whether pages of other hosts of the same site may use the cookies, rather than the gateway's own origin alone."""


class Identity(Section):
    """Who checks user names and passwords."""

    provider: Literal["webhook", "users-file"] = "webhook"
    """An HTTP call to your accounts service, or a file."""
    webhook_url: HttpUrl | None = None
    """What is asked: POST {username, password, device, ip}."""
    users_file: Path | None = None
    """Users with their password hashes (TOML)."""
    recheck_on_refresh: bool = False
    """Whether each refresh asks again: new roles, or the end of the session."""


class Introspection(Section):
    """Who may call /auth/introspect (RFC 7662)."""

    clients: Annotated[dict[Text, str], BeforeValidator(decoded)] = Field(default_factory=dict, repr=False)
    """Client name = argon2id hash of its secret, from `tokengate hash-password`."""
    clients_file: Path | None = None
    """A file with such lines (TOML)."""


class Limits(Section):
    """Attempts per minute, 0 = none; counted in Redis for all replicas."""

    login_per_user: Annotated[Number, Field(ge=0)] = 10
    """Sign-ins with one user name."""
    login_per_ip: Annotated[Number, Field(ge=0)] = 30
    """Sign-ins from one address (IPv6: one /64)."""
    refresh_per_session: Annotated[Number, Field(ge=0)] = 30
    """Refreshes of one session."""


class Log(Section):
    """What is written to standard error, one JSON object a line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written; the audit trail always is."""


class Settings(BaseSettings):
    """The whole configuration. Only `load` sees the environment: an instance is what it was given."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        title="Configuration of tokengate",
    )

    server: Server = Field(default_factory=Server)
    management: Management = Field(default_factory=Management)
    redis: Redis = Field(default_factory=Redis)
    tokens: Tokens
    cookies: Cookies = Field(default_factory=Cookies)
    identity: Identity = Field(default_factory=Identity)
    introspection: Introspection = Field(default_factory=Introspection)
    limits: Limits = Field(default_factory=Limits)
    log: Log = Field(default_factory=Log)
    issuers: tuple[Issuer, ...] = ()
    identity_headers: dict[Token, Text] = Field(default_factory=IDENTITY_HEADERS.copy)
    """The header sent to backends = the claim that it carries."""
    routes: tuple[Route, ...] = ()

    @model_validator(mode="after")
    def _together(self) -> Self:
        lines = rules.violations(self)
        if lines:
            raise PydanticCustomError("rules", "{count} rules broken", {"count": len(lines), "lines": lines})
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing but what is passed: the library's own sources neither refuse an unknown variable
        nor reach into a list of tables (environment.py does both)."""
        return (init_settings,)
