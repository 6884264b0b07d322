"""The tables that there may be several of: [[routes]] and [[issuers]]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.settings.values import (
    Backend,
    BufferSize,
    IssuerUrl,
    Method,
    Number,
    RouteHost,
    RoutePath,
    ScopeToken,
    SecureUrl,
    StripPrefix,
    Text,
    Timeout,
    listed,
)


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
