"""The tables that there may be several of: [[routes]] and [[issuers]]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.settings.values import (
    Backend,
    BufferSize,
    FetchTimeout,
    IssuerUrl,
    Method,
    Number,
    OptionalText,
    RefreshInterval,
    RouteHost,
    RoutePath,
    ScopeToken,
    SecureUrl,
    StripPrefix,
    Text,
    Timeout,
    TokenLife,
    TokenType,
    listed,
)

# Public keys alone (RFC 8725 3.2): where a secret and a public key can be asked for, one is taken for the other.
ForeignAlgorithm = Literal["RS256", "ES256", "EdDSA", "PS256", "ES384", "ES512", "RS384", "RS512", "PS384", "PS512"]
FOREIGN_ALGORITHMS: tuple[ForeignAlgorithm, ...] = get_args(ForeignAlgorithm)


class Section(BaseModel):
    """A table of the file. Unknown keys are errors; defaults are written as in the file and checked as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


def written(default: str) -> Any:
    """A default as it stands in the file; it is read like one (`validate_default`)."""
    return Field(default)


class Route(Section):
    """A prefix of paths, where its requests go and what they need."""

    path: RoutePath
    """A prefix by whole segments; the longest wins."""
    host: RouteHost = written("")
    """The host that this route is for; any by default."""
    upstream: Annotated[tuple[Backend, ...], BeforeValidator(listed), Field(min_length=1)]
    """Origins of the backend's replicas; a name with several addresses is several replicas."""
    upstream_ca: Path | None = None
    """For https:// origins: authorities (PEM) that vouch for the backend; the system's by default."""
    upstream_cert: Path | None = None
    """The client certificate (PEM) that the backend is shown."""
    upstream_key: Path | None = None
    """The key of the client certificate (PEM)."""
    max_connections: Annotated[Number, Field(ge=1)] = 1024
    """Connections of a worker to each replica; a request that finds none free waits for one."""
    max_waiting: Annotated[Number, Field(ge=0)] = 4096
    """Requests of a worker that may wait; one more is answered with 503 overloaded."""
    auth: Literal["required", "optional", "none"] = "required"
    """Whether an access token must, may or need not be presented."""
    methods: Annotated[tuple[Method, ...], BeforeValidator(listed)] = ()
    """The methods that pass; all by default."""
    roles_any: Annotated[frozenset[Text], BeforeValidator(listed)] = frozenset()
    """Roles of which the caller needs one."""
    scopes_all: Annotated[frozenset[ScopeToken], BeforeValidator(listed)] = frozenset()
    """Scopes that the caller needs, all of them."""
    strip_prefix: StripPrefix = written("")
    """What is taken off the path before the backend gets it."""
    on_expired: Literal["reject", "refresh"] = "reject"
    """What happens to a request with an expired access token."""
    revocation: Literal["live", "none"] = "live"
    """Ask the store at every request, or go by signature and expiry alone."""
    on_stream_expiry: Literal["close", "keep"] = "close"
    """What happens to a long stream when its token expires; the end of the session always closes it."""
    replay_buffer: BufferSize = written("64KiB")
    """The largest request body kept for a second try after the backend's own 401 expired_token."""
    forward_authorization: bool = True
    """Whether the backend gets the Authorization header."""
    connect_timeout: Timeout = written("2s")
    """To reach the backend."""
    response_timeout: Timeout = written("30s")
    """Until the response head."""
    idle_timeout: Timeout = written("5m")
    """Between two pieces of a body or of a stream."""


class Issuer(Section):
    """Whose tokens, minted elsewhere, are accepted and revocable here too."""

    issuer: IssuerUrl
    """The `iss` claim of its tokens."""
    jwks_url: SecureUrl
    """Where its public keys are (RFC 7517)."""
    audience: Text
    """The `aud` claim that its tokens must have."""
    roles_claim: Text = written("roles")
    """The claim with the caller's roles; a dot goes one level down."""
    scope_claim: Text = written("scope")
    """The claim with the token's scope, a string or a list; a dot goes one level down."""
    subject_claim: Text = written("sub")
    """The claim that names the user; a dot goes one level down."""
    subject_prefix: OptionalText = written("")
    """What stands before each of its subjects, so that none can be taken for another issuer's or a local user."""
    algorithms: Annotated[tuple[ForeignAlgorithm, ...], BeforeValidator(listed), Field(min_length=1)] = (
        FOREIGN_ALGORITHMS
    )
    """What its tokens may be signed with; a key that names no algorithm gets the first that it fits."""
    typ: Annotated[tuple[TokenType, ...], BeforeValidator(listed), Field(min_length=1)] = ("at+jwt", "JWT", "")
    """The types of token that are accepted; "" is a token that names none."""
    max_token_ttl: TokenLife = written("1d")
    """The longest life that a token may have, from `iat` to `exp`."""
    jwks_refresh: RefreshInterval = written("10m")
    """How often its keys are fetched, at least."""
    jwks_timeout: FetchTimeout = written("5s")
    """For one fetch, and so for a request that waits for one."""
    jwks_ca: Path | None = None
    """Authorities (PEM) that the certificate of jwks_url is checked against; the system's by default."""
    exchange: bool = False
    """Whether its tokens can be exchanged for a session here (RFC 8693)."""
    exchange_claims: Annotated[tuple[Text, ...], BeforeValidator(listed)] = ("email",)
    """Claims that go from an exchanged token into the session's own tokens."""

    @property
    def namespace(self) -> str:
        """Return what the subjects of sessions that its tokens are exchanged for begin with."""
        return self.subject_prefix or f"{self.issuer.partition('://')[2]}|"
