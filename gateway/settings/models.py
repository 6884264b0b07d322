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
from gateway.settings.cors import Cors
from gateway.settings.routes import Issuer, Route, Section, written
from gateway.settings.values import (
    AdminToken,
    CollectorUrl,
    Duration,
    HeaderValue,
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
    Ratio,
    RedisUrl,
    Retention,
    Size,
    Text,
    Timeout,
    Token,
    TokenDigest,
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
    """Where clients connect; `"[::]:8080"` for IPv6."""
    workers: Annotated[Number, Field(ge=1, le=256)] = 1
    """Processes; they share nothing but Redis. With `memory://` 1 alone."""
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(listed)] = ()
    """Networks whose `X-Forwarded-*` or `Forwarded` are believed, and which may use forward-auth; not the whole
    internet."""
    proxy_protocol: bool = False
    """Whether trusted proxies begin every connection with the PROXY protocol (v1 or v2), whose source address becomes
    the client's; then no one else may connect. Not beside `tls_cert`."""
    ignore_path_case: bool = False
    """Whether paths meet routes whatever their case (`/Admin` one for `/admin`), for backends that take one for the
    other: IIS, Windows and macOS file systems. Backends get paths as they were sent; the gateway's own addresses
    (`/auth`) are served in lower case alone."""
    max_connections: Annotated[Number, Field(ge=1)] = 20000
    """Client connections of a worker; one more gets 503 `overloaded`."""
    overload_after: Duration = written("250ms")
    """How long a request may wait for a worker that is busy with others; one that would wait longer gets 503
    `overloaded` at once; 0 = any time."""
    max_header_bytes: HeadSize = written("32KiB")
    """A larger request head gets 431. At most 128 headers."""
    max_body_bytes: Size = written("0")
    """A larger request body gets 413; 0 = no limit, for bodies are streamed."""
    header_timeout: Timeout = written("10s")
    """For a whole request head to arrive."""
    keepalive_timeout: Timeout = written("75s")
    """For the next request on an idle connection."""
    drain_delay: Duration = written("0s")
    """How long new connections are still taken after the signal to end, while load balancers see `/readyz` say 503."""
    drain_timeout: Duration = written("25s")
    """For requests in flight after that; Kubernetes kills 30 s after the signal."""
    tls_cert: Path | None = None
    """The certificate chain (PEM); without it the listener speaks plain HTTP. It and its key are read again when they
    change; whether the listener speaks TLS at all only a restart changes."""
    tls_key: Path | None = None
    """The private key of the certificate (PEM)."""
    watch_files: bool = True
    """Whether a changed file of configuration, keys, users, secrets or certificates is taken up without a signal;
    `false`: SIGHUP alone does it."""


class Management(Section):
    """The listener for probes, metrics and the admin API; never exposed to clients."""

    bind: Listen = written("127.0.0.1:9090")
    """Where operators connect. Its port differs from that of `server`."""
    admin_token: AdminToken = written("")
    """The bearer token of the admin API, at least 16 characters; without one the admin API is off."""
    admin_token_file: Path | None = None
    """A file with the admin token, read again when it changes."""
    admin_tokens: Annotated[dict[Token, TokenDigest], BeforeValidator(decoded)] = Field(
        default_factory=dict, repr=False
    )
    """Tokens of persons or programs: name = `"sha256:..."`, from `tokengate hash-token`. The audit trail has their name
    in `by`."""
    admin_tokens_file: Path | None = None
    """A file with such lines (TOML), read again when it changes."""


class Redis(Section):
    """Where sessions are kept."""

    url: RedisUrl = written("redis://127.0.0.1:6379/0")
    """The server, with user and password if need be."""
    url_file: Path | None = None
    """A file with the URL; user and password in it are read again at each new connection. Where it leads only a restart
    changes."""
    username: str = ""
    """An ACL user; it wins over the URL's."""
    password: SecretStr = written("")
    """The password; it wins over the URL's, and may not stand beside one in the URL."""
    password_file: Path | None = None
    """A file with the password, read again at each new connection: a rotated password needs no restart."""
    sentinel_username: str = ""
    """For `redis+sentinel://`: an ACL user of the sentinels, whose users are not those of the servers."""
    sentinel_password: SecretStr = written("")
    """The password of the sentinels."""
    sentinel_password_file: Path | None = None
    """A file with `sentinel_password`, read again at each new connection."""
    tls_ca: Path | None = None
    """For a URL with `rediss`: authorities (PEM) that the server's certificate is checked against; the system's by
    default. This file and the next two are read again when they have changed."""
    tls_cert: Path | None = None
    """The client certificate (PEM)."""
    tls_key: Path | None = None
    """The key of the client certificate (PEM)."""
    prefix: KeyPrefix = written("gw")
    """What every key begins with."""
    timeout: Timeout = written("250ms")
    """For one operation, the live check included."""
    on_outage: Literal["deny", "allow-recent"] = "deny"
    """What happens to guarded requests while Redis cannot answer: 503, or with `allow-recent` a token passes that
    passed a live check of the same worker within `outage_grace`."""
    outage_grace: Timeout = written("30s")
    """For `allow-recent`: how old the last live check of a token may be."""
    wait_replicas: Annotated[Number, Field(ge=0, le=100)] = 0
    """Replicas that must acknowledge whatever ends a session or revokes a token (`WAIT`); with too few it is answered
    503, and can be asked again."""


class Tokens(Section):
    """Access tokens (RFC 9068), refresh tokens and the sessions behind them."""

    issuer: IssuerUrl
    """The `iss` claim: the public URL of this gateway."""
    audience: Text
    """The `aud` claim: the API that the tokens are for; also the realm of challenges."""
    algorithm: Literal["ES256", "ES384", "EdDSA", "RS256", "PS256", "HS256"] = "ES256"
    """What access tokens are signed with."""
    signing_keys: Path = Path("/run/keys")
    """A directory; the newest key that has been published for long enough signs, all verify."""
    publish_before: Duration = written("5m")
    """How long a new key verifies, and is in the JWKS, before it signs; 0 = it signs at once. The longest that a file
    takes to reach every replica (a minute or two for a mounted Secret) and that others cache the JWKS."""
    access_ttl: Lifetime = written("10m")
    """The life of an access token; roles in a token are as old as it is. Less than `refresh_ttl` and `session_ttl`."""
    leeway: Window = written("10s")
    """How far clocks may differ; a token passes for so long after its `exp`."""
    refresh_format: Literal["opaque", "jwt"] = "opaque"
    """How refresh tokens look (`jwt`: with `typ: rt+jwt`); both are always read, so a change signs no one out."""
    refresh_ttl: LifetimeOrNever = written("30d")
    """A session ends after so long without a refresh; 0 = never."""
    session_ttl: LifetimeOrNever = written("180d")
    """A session ends after so long at the latest; 0 = never while it is used."""
    refresh_grace: Window = written("10s")
    """How long a refresh token still works after its successor was used."""
    max_sessions_per_user: Annotated[Number, Field(ge=0)] = 50
    """One more ends the session least recently used; 0 = no limit."""
    remembered: Annotated[Number, Field(ge=1)] = 65536
    """Verified tokens that a worker remembers, some 3 KiB each; one that it had to forget is verified again."""


class Cookies(Section):
    """The cookies of browsers."""

    refresh: Token = written("__Secure-refresh")
    """The name of the refresh token's cookie: `HttpOnly; Secure; SameSite=Strict; Path=/auth` (`Path=/` for a `__Host-`
    name, beside an access cookie, or where a route has `on_expired = "refresh"`)."""
    access: OptionalToken = written("")
    """A name, as in `"__Host-access"`: a sign-in with `refresh_in = "cookie"` puts the access token into a cookie too,
    and scripts hold no token at all. `gateway/cookies.py` has the table of the origins from which it counts."""
    allow_same_site: bool = False
    """`true`: pages of every host of the same site (`app.example.com` beside `api.example.com`) may use the cookies
    where the browser says `Sec-Fetch-Site: same-site`; each of these hosts is trusted then. Where a browser says
    nothing, `Origin` must be the gateway's own all the same."""


class Identity(Section):
    """Who checks user names and passwords."""

    provider: Literal["webhook", "users-file"] = "webhook"
    """An HTTP call to your accounts service, or a file."""
    webhook_url: HttpUrl | None = None
    """What is asked; required with `webhook`."""
    users_file: Path | None = None
    """Users with their password hashes (TOML); required with `users-file`."""
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
    """Sign-ins with one user name, right or wrong; spellings that differ in case, width, accents or unseen characters
    count as one. A user under attack keeps every session and waits for a new one until a place is free, one every
    60 / limit seconds."""
    login_per_ip: Annotated[Number, Field(ge=0)] = 30
    """Sign-ins from one address (an IPv6 address counts as its /64); failed client authentication at
    `/auth/introspect` has as many of its own."""
    refresh_per_session: Annotated[Number, Field(ge=0)] = 30
    """Refreshes of one session."""


class Log(Section):
    """What is written to standard error, one JSON object a line."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is written; the audit trail (`"logger":"gateway.audit"`) always is, refreshes in it at debug."""
    access: bool = False
    """Whether requests are logged too, a line each (`"logger":"gateway.access"`)."""
    access_sample: Ratio = 1.0
    """The part of requests that have a line; what was refused, failed, broke off or was slow always has one."""
    access_slow: Duration = written("1s")
    """From here on a request is slow."""
    access_per_second: Annotated[Number, Field(ge=0)] = 1000
    """The most lines that a worker writes in a second; the next line says how many were left out; 0 = any number."""
    access_user: bool = False
    """Whether lines name the user (`sub`) and the session."""


class Tracing(Section):
    """Traces of requests, sent to an OpenTelemetry collector; needs `tokengate[otel]`."""

    endpoint: CollectorUrl = written("")
    """The collector, as in `"http://collector:4318"`, spoken to by OTLP over HTTP (protobuf) at `/v1/traces`; without
    one nothing is traced. No redirect is followed, no proxy of the environment used."""
    sample_ratio: Ratio = 0.01
    """The part of requests that is traced."""
    parents: Literal["trusted", "always", "never"] = "trusted"
    """Whose `sampled` flag in `traceparent` decides in its place: that of `server.trusted_proxies`, everyone's,
    nobody's."""
    service_name: Text = written("tokengate")
    """What the gateway is called in traces (`service.name`)."""
    headers: Annotated[dict[Token, HeaderValue], BeforeValidator(decoded)] = Field(default_factory=dict, repr=False)
    """Headers for the collector, such as its credential."""
    headers_file: Path | None = None
    """A file with them: `Authorization = "Bearer ..."`, a line each (TOML)."""
    tls_ca: Path | None = None
    """For an `https://` endpoint: authorities (PEM) for its certificate; the usual ones by default."""
    timeout: Timeout = written("10s")
    """For one export, tries after failures included."""
    queue: Annotated[Number, Field(ge=1, le=1_000_000)] = 2048
    """Spans of a worker that wait for the collector; one more is dropped, and counted."""


class Audit(Section):
    """Where the audit trail goes beside the log."""

    stream: bool = False
    """Whether its lines are kept in Redis too, in one stream for all replicas (`<prefix>:{0}:audit`), which
    `tokengate audit` reads. No request waits for it or fails for it."""
    max_len: Annotated[Number, Field(ge=100, le=10_000_000)] = 100_000
    """About how many entries the stream keeps, some 400 bytes each."""
    retention: Retention = written("30d")
    """How old an entry may be when another is written, by the time of Redis; older ones are cut then, and the stream
    ends when nothing was written for so long."""


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
    cors: Cors = Field(default_factory=Cors)
    identity: Identity = Field(default_factory=Identity)
    introspection: Introspection = Field(default_factory=Introspection)
    limits: Limits = Field(default_factory=Limits)
    log: Log = Field(default_factory=Log)
    tracing: Tracing = Field(default_factory=Tracing)
    audit: Audit = Field(default_factory=Audit)
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
