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


_OF_SCHEMA = {"ge": "minimum", "le": "maximum"}


def _in_words_of_json_schema(schema: dict[str, Any]) -> None:
    """Name the bounds as JSON Schema does: behind a validator pydantic leaves its own words there."""
    for each in schema["properties"].values():
        for word in _OF_SCHEMA.keys() & each.keys():
            each[_OF_SCHEMA[word]] = each.pop(word)


class Section(BaseModel):
    """A table of the file. Unknown keys are errors; defaults are written as in the file and checked as it is."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        use_attribute_docstrings=True,
        json_schema_extra=_in_words_of_json_schema,
    )


def written(default: str) -> Any:
    """A default as it stands in the file; it is read like one (`validate_default`)."""
    return Field(default)


class Route(Section):
    """A prefix of paths, where its requests go and what they need."""

    path: RoutePath
    """A prefix by whole segments: `/api/` meets `/api`, `/api/` and `/api/x`, not `/apix`; the longest wins. Paths with
    two readings are refused."""
    host: RouteHost = written("")
    """A name narrows the route to that host."""
    upstream: Annotated[tuple[Backend, ...], BeforeValidator(listed), Field(min_length=1)]
    """Origins of the backend's replicas, all `http` or all `https`, and never `management.bind`; a name with several
    addresses is several replicas. The one with the fewest requests in flight is chosen."""
    upstream_ca: Path | None = None
    """Authorities (PEM) that the certificates of `https://` backends are checked against; the system's by default."""
    upstream_cert: Path | None = None
    """The client certificate (PEM) shown to backends."""
    upstream_key: Path | None = None
    """The key of `upstream_cert` (PEM)."""
    max_connections: Annotated[Number, Field(ge=1)] = 1024
    """Connections of a worker to one backend address; a request that finds none free waits for one."""
    max_waiting: Annotated[Number, Field(ge=0)] = 4096
    """Requests of a worker that may wait for a connection; one more gets 503 `overloaded`."""
    auth: Literal["required", "optional", "none"] = "required"
    """`optional`: a good token or none; `none`: no token is looked at."""
    methods: Annotated[tuple[Method, ...], BeforeValidator(listed)] = ()
    """The methods that pass; `[]` = all. They hold for `X-HTTP-Method-Override`, `X-HTTP-Method` and
    `X-Method-Override` too, which many frameworks take for the method."""
    roles_any: Annotated[frozenset[Text], BeforeValidator(listed)] = frozenset()
    """Roles of which the caller needs one."""
    scopes_all: Annotated[frozenset[ScopeToken], BeforeValidator(listed)] = frozenset()
    """Scopes that the caller needs, all of them."""
    strip_prefix: StripPrefix = written("")
    """What is taken off the path before the backend gets it; a beginning of `path`."""
    on_expired: Literal["reject", "refresh"] = "reject"
    """`refresh`: a request with an expired access token and the refresh cookie of the same session is refreshed in
    place; the answer carries the new cookie and, where there is no access cookie, `X-Access-Token`."""
    revocation: Literal["live", "none"] = "live"
    """`none`: signature and expiry alone, Redis is not asked; a revoked token passes until it expires."""
    on_stream_expiry: Literal["close", "keep"] = "close"
    """`keep`: a stream may outlive its access token; the end of the session closes it all the same."""
    replay_buffer: BufferSize = written("64KiB")
    """The largest body kept for a second try after the backend's own 401 `expired_token`, where
    `on_expired = "refresh"`."""
    forward_authorization: bool = True
    """Whether the backend gets the `Authorization` header."""
    connect_timeout: Timeout = written("2s")
    """To reach the backend."""
    response_timeout: Timeout = written("30s")
    """Until the response head: 504 `upstream_timeout`."""
    idle_timeout: Timeout = written("5m")
    """Between two pieces of a body or of a stream."""


class Issuer(Section):
    """Whose tokens, minted elsewhere, are accepted and revocable here too."""

    issuer: IssuerUrl
    """The `iss` claim of its tokens, to the letter; each once, and not `tokens.issuer`."""
    jwks_url: SecureUrl
    """Where its public keys are (RFC 7517). Whoever can change what comes from there signs anyone in, hence `https://`;
    no redirect is followed."""
    audience: Text
    """The `aud` claim that its tokens must have, alone or among others."""
    roles_claim: Text = written("roles")
    """The claim with the caller's roles: a list of strings, or words between spaces; anything else is no role. A dot
    goes one level down, where no claim has the whole name."""
    scope_claim: Text = written("scope")
    """The claim with the scope, read like `roles_claim`."""
    subject_claim: Text = written("sub")
    """The claim that names the user; a dot goes one level down."""
    subject_prefix: OptionalText = written("")
    """What stands before each of its subjects, in identity headers too, so that none can be taken for another issuer's
    or a local user."""
    algorithms: Annotated[tuple[ForeignAlgorithm, ...], BeforeValidator(listed), Field(min_length=1)] = (
        FOREIGN_ALGORITHMS
    )
    """What its tokens may be signed with; HS256 and its like are never allowed. A key that names no algorithm is for
    the first of these that it fits."""
    typ: Annotated[tuple[TokenType, ...], BeforeValidator(listed), Field(min_length=1)] = ("at+jwt", "JWT", "")
    """The types of token that are accepted (RFC 8725 3.11); `""` is a token that names none."""
    max_token_ttl: TokenLife = written("1d")
    """The longest life of a token, `exp` less `iat`. One that lives longer, or lacks either, is invalid."""
    jwks_refresh: RefreshInterval = written("10m")
    """How often its keys are fetched, at least. A shorter `max-age` of its answer counts, down to 30 s."""
    jwks_timeout: FetchTimeout = written("5s")
    """For one fetch, and so for a request that waits for one."""
    jwks_ca: Path | None = None
    """Authorities (PEM) that the certificate of `jwks_url` is checked against; the system's by default."""
    exchange: bool = False
    """Whether its tokens can be exchanged for a session here (RFC 8693)."""
    exchange_claims: Annotated[tuple[Text, ...], BeforeValidator(listed)] = ("email",)
    """Claims that go from an exchanged token into the session's own tokens; none that the gateway sets itself."""

    @property
    def namespace(self) -> str:
        """Return what the subjects of sessions that its tokens are exchanged for begin with."""
        return self.subject_prefix or f"{self.issuer.partition('://')[2]}|"
