"""Every error that the gateway answers with, as one tree.

An error carries what the client may read (status, code, a fixed description, a challenge) apart from
what only the log may read (`reason`). One function, `answer`, turns any of them into an HTTP answer.
The codes and texts are a promise to clients (RFC 6749 5.2, RFC 6750 3.1, RFC 9110 15).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gateway.tokens.claims import Claims

Headers = list[tuple[bytes, bytes]]


class GatewayError(Exception):
    """An answer other than success.

    `status` is the HTTP status, `code` the stable word clients branch on, `description` a text that
    says nothing about tokens, users or hosts. `reason` is for the log alone. `retry_after` is in
    seconds, None where a retry is no remedy.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    description: ClassVar[str] = "The gateway could not handle the request"
    challenge: ClassVar[str | None] = None

    def __init__(self, reason: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(reason or self.code)
        self.reason = reason or self.code
        self.retry_after = retry_after

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r})"

    def www_authenticate(self, realm: str) -> str | None:
        """Return the challenge of RFC 6750 section 3 for this error, or None where there is none."""
        if self.challenge is None:
            return None
        return f'Bearer realm="{realm}"{self.challenge}'


class Unauthorized(GatewayError):
    status = 401


class MissingToken(Unauthorized):
    code = "missing_token"
    description = "No access token was presented"
    challenge = ""  # RFC 6750 3.1: no error code where no credentials were sent


class InvalidToken(Unauthorized):
    code = "invalid_token"
    description = "The access token is not valid"
    challenge = ', error="invalid_token", error_description="The access token is not valid"'


class EarlyToken(InvalidToken):
    """All is good but the time: `iat` or `nbf` is to come. `claims` is what the token said (evidence)."""

    def __init__(self, claims: Claims, reason: str) -> None:
        super().__init__(reason)
        self.claims = claims


class UnknownKey(InvalidToken):
    """No key of the token's issuer has the kid that the token names: it may have got new ones in the meantime."""

    def __init__(self, issuer: str, token: bytes) -> None:
        super().__init__("no key of its issuer has this kid")
        self.issuer = issuer
        self.token = token


class ExpiredToken(Unauthorized):
    """The signature is good and `exp` has passed. `claims` is what the token said (evidence)."""

    code = "expired_token"
    description = "The access token expired"
    challenge = ', error="invalid_token", error_description="The access token expired"'

    def __init__(self, claims: Claims) -> None:
        super().__init__("expired")
        self.claims = claims


class RevokedToken(Unauthorized):
    code = "revoked_token"
    description = "The session has ended"
    challenge = ', error="invalid_token", error_description="The session has ended"'


class InvalidCredentials(Unauthorized):
    code = "invalid_credentials"
    description = "The user name or the password is wrong"


class InvalidClient(Unauthorized):
    """RFC 6749 5.2 and RFC 7662 2.1: the caller of the introspection endpoint is not known."""

    code = "invalid_client"
    description = "Client authentication failed"

    def www_authenticate(self, realm: str) -> str | None:
        return f'Basic realm="{realm}", charset="UTF-8"'


class InvalidGrant(GatewayError):
    status = 400
    code = "invalid_grant"
    description = "The refresh token is not valid any more"


class InvalidRequest(GatewayError):
    """`detail` may name a parameter of the request, never its value."""

    status = 400
    code = "invalid_request"
    description = "The request is malformed"

    def __init__(self, detail: str = "", *, reason: str = "") -> None:
        super().__init__(reason or detail)
        if detail:
            self.description = detail  # type: ignore[misc]  # narrows the class's text for this one


class InvalidTarget(GatewayError):
    """RFC 8693 2.2.2: a token was asked for another service than this one."""

    status = 400
    code = "invalid_target"
    description = "No token for this audience or resource can be had here"


class InvalidScope(GatewayError):
    """RFC 6749 5.2: a scope was asked for that the subject token does not have."""

    status = 400
    code = "invalid_scope"
    description = "The scope exceeds that of the subject token"


class UnsupportedGrantType(GatewayError):
    status = 400
    code = "unsupported_grant_type"
    description = "The grant type is not supported"


class InsufficientScope(GatewayError):
    status = 403
    code = "insufficient_scope"
    description = "The token lacks a role or scope that this needs"

    def __init__(self, scope: str = "", *, reason: str = "") -> None:
        super().__init__(reason or "role or scope missing")
        self.scope = scope

    def www_authenticate(self, realm: str) -> str | None:
        scope = f', scope="{self.scope}"' if self.scope else ""
        return f'Bearer realm="{realm}", error="insufficient_scope"{scope}'


class CsrfRejected(GatewayError):
    status = 403
    code = "csrf_rejected"
    description = "A request with a cookie came from another origin"


class Forbidden(GatewayError):
    """The admin API, asked without its token."""

    status = 403
    code = "forbidden"
    description = "The admin token is missing or wrong"


class BadKeys(GatewayError):
    """The admin API, asked to reload keys of which one cannot be used; the old keys stay."""

    status = 409
    code = "bad_keys"
    description = "A key file cannot be used; the log names it"


class BadRequest(GatewayError):
    status = 400
    code = "bad_request"
    description = "The request is not valid HTTP"


class NoRoute(GatewayError):
    status = 404
    code = "no_route"
    description = "Nothing is served at this address"


class NotFound(GatewayError):
    status = 404
    code = "not_found"
    description = "There is no such thing here"


class MethodNotAllowed(GatewayError):
    """`allow` holds the methods of RFC 9110 15.5.6's Allow header."""

    status = 405
    code = "method_not_allowed"
    description = "This method is not allowed here"

    def __init__(self, allow: str) -> None:
        super().__init__()
        self.allow = allow


class BodyTooLarge(GatewayError):
    status = 413
    code = "body_too_large"
    description = "The request body is larger than allowed"


class HeadersTooLarge(GatewayError):
    status = 431
    code = "headers_too_large"
    description = "The request head is larger than allowed"


class RequestTimeout(GatewayError):
    """RFC 9110 15.5.9: the request did not arrive in time."""

    status = 408
    code = "request_timeout"
    description = "The request did not arrive in time"


class TooManyAttempts(GatewayError):
    status = 429
    code = "too_many_attempts"
    description = "Too many attempts; try again later"


class IdentityUnavailable(GatewayError):
    status = 503
    code = "identity_unavailable"
    description = "Sign-in is not available at the moment"


class IssuerUnavailable(IdentityUnavailable):
    """The token is one of another issuer, none of whose keys could be fetched since the start."""

    description = "The keys of the token's issuer cannot be had at the moment"

    def __init__(self, issuer: str, token: bytes) -> None:
        super().__init__("no keys of this issuer were ever loaded", retry_after=1)
        self.issuer = issuer
        self.token = token


class StoreUnavailable(GatewayError):
    status = 503
    code = "store_unavailable"
    description = "Sessions cannot be checked at the moment"

    def __init__(self, reason: str = "", *, retry_after: float | None = 1) -> None:
        super().__init__(reason, retry_after=retry_after)


class Draining(GatewayError):
    status = 503
    code = "draining"
    description = "This replica is shutting down"

    def __init__(self, reason: str = "", *, retry_after: float | None = 1) -> None:
        super().__init__(reason, retry_after=retry_after)


class Overloaded(GatewayError):
    status = 503
    code = "overloaded"
    description = "Too many requests are waiting"

    def __init__(self, reason: str = "", *, retry_after: float | None = 1) -> None:
        super().__init__(reason, retry_after=retry_after)


class UpstreamUnreachable(GatewayError):
    status = 502
    code = "upstream_unreachable"
    description = "The backend cannot be reached"


class UpstreamInvalid(GatewayError):
    status = 502
    code = "upstream_invalid"
    description = "The backend's answer is not valid HTTP"


class UpstreamTimeout(GatewayError):
    status = 504
    code = "upstream_timeout"
    description = "The backend did not answer in time"


def answer(error: GatewayError, realm: str) -> tuple[int, Headers, bytes]:
    """Return (status, headers, body) for an error, in the one shape of the contract.

    Headers are lower-case byte pairs without framing headers other than content-length. Texts are
    ASCII without quotes or control characters, so they need no escaping in JSON or in a challenge.
    """
    body = b'{"error":"%b","error_description":"%b"}' % (error.code.encode(), error.description.encode())
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-gateway-error", error.code.encode()),
    ]
    challenge = error.www_authenticate(realm)
    if challenge is not None:
        headers.append((b"www-authenticate", challenge.encode()))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    return error.status, headers, body
