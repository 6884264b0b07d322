"""POST /auth/token: a refresh token for new tokens (RFC 6749 6), another issuer's for a session (RFC 8693).

A refresh is answered the way it was asked: a token that came in a cookie goes back in a cookie, and no
script ever reads it. An exchange is a sign-in: the subject token can be exchanged again while it is good, each
time for a session of its own, or for the one that takes the place of the same device's.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body, cookies
from gateway.api.answers import failure, json_answer
from gateway.api.services import SIGNED_IN, Services, client_ip, request_id, user_agent
from gateway.errors import (
    ExpiredToken,
    GatewayError,
    InvalidGrant,
    InvalidRequest,
    InvalidTarget,
    RevokedToken,
    Unauthorized,
    UnsupportedGrantType,
)
from gateway.gate import require
from gateway.grants import Place, TokenSet
from gateway.telemetry import audit
from gateway.tokens.claims import Claims
from gateway.tokens.metadata import TOKEN_EXCHANGE

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105  # a type's name (RFC 8693 3)
_JWT = "urn:ietf:params:oauth:token-type:jwt"
_SUBJECT_TYPES = (_ACCESS_TOKEN, _JWT, "urn:ietf:params:oauth:token-type:id_token")


async def token(services: Services, request: Request) -> Response:
    given = await body.parameters(request)
    kind = body.required(given, "grant_type")
    if kind == TOKEN_EXCHANGE and services.grants.exchanges:
        return await _exchange(services, request, given)
    if kind != "refresh_token":
        raise UnsupportedGrantType
    presented = given.get("refresh_token")
    if presented is not None:
        return token_response(services, await _refresh(services, request, presented), in_cookie=False)
    presented = cookies.read_refresh(request, services.cookies)
    if presented is None:
        raise InvalidRequest("refresh_token is missing")
    cookies.check_origin(request, services.issuer, services.cookies)
    try:
        return token_response(services, await _refresh(services, request, presented), in_cookie=True)
    except InvalidGrant as error:  # and nothing else: an outage must not sign anyone out
        return failure(services, error, services.cookies.clear())


async def _exchange(services: Services, request: Request, given: body.Parameters) -> Response:
    """Return a session's tokens for a subject token. What is wrong with that is an invalid_request (RFC 8693 2.2.2)."""
    subject_token = body.required(given, "subject_token")
    _check_exchange(services, given)
    in_cookie = refresh_in_cookie(services, request, given)
    ip, name = client_ip(request), request_id(request)
    place = Place(body.line(given.get("device", ""), "device"), ip, user_agent(request))
    try:
        await services.grants.limit_exchange(ip)
        claims = await _living(services, subject_token)
        tokens = await services.grants.exchange(
            claims,
            place,
            lambda: _check_living(services, claims),
            scope=given.get("scope"),
            request_id=name,
        )
    except GatewayError as error:
        if error.status < 500:
            audit("login_failed", by="token exchange", ip=ip, reason=error.reason, request_id=name)
            services.telemetry.session("login_failed")
        raise
    return token_response(services, tokens, in_cookie=in_cookie, issued=True)


def _check_exchange(services: Services, given: body.Parameters) -> None:
    """Raise InvalidRequest or InvalidTarget for what cannot be done here (RFC 8693 2.1)."""
    if body.required(given, "subject_token_type") not in _SUBJECT_TYPES:
        raise InvalidRequest("subject_token_type is not supported")
    if given.get("requested_token_type", _ACCESS_TOKEN) not in (_ACCESS_TOKEN, _JWT):
        raise InvalidRequest("requested_token_type is not supported")
    if "actor_token" in given or "actor_token_type" in given:
        raise InvalidRequest("actor_token is not supported")
    if given.get("audience", services.realm) != services.realm or "resource" in given:
        raise InvalidTarget


async def _living(services: Services, subject_token: str) -> Claims:
    """Return the claims of a good token. Raises InvalidRequest, or what says that nobody knows for now."""
    header = (b"authorization", b"Bearer " + subject_token.encode())
    try:
        return require(await services.gate.admit([header], SIGNED_IN))
    except ExpiredToken:
        raise InvalidRequest("subject_token has expired") from None
    except RevokedToken:
        raise InvalidRequest("subject_token was revoked") from None
    except Unauthorized as error:
        raise InvalidRequest("subject_token is not valid", reason=error.reason) from None


async def _check_living(services: Services, claims: Claims) -> None:
    try:
        services.gate.settle(claims, SIGNED_IN, await services.gate.check(claims))
    except RevokedToken:
        raise InvalidRequest("subject_token was revoked") from None


def refresh_in_cookie(services: Services, request: Request, given: body.Parameters) -> bool:
    """Tell whether the refresh token is to go into the cookie. Raises InvalidRequest, CsrfRejected."""
    place = given.get("refresh_in", "body")
    if place not in ("body", "cookie"):
        raise InvalidRequest("refresh_in must be body or cookie")
    if place == "cookie":
        cookies.check_origin(request, services.issuer, services.cookies)
    return place == "cookie"


def token_response(services: Services, tokens: TokenSet, in_cookie: bool, *, issued: bool = False) -> Response:
    """Return the token response of RFC 6749 5.1, with the refresh token in the body or in the cookie.

    `issued` adds the type of the access token (RFC 8693 2.2.1).
    """
    content: dict[str, Any] = {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "access_token_expires_at": tokens.access_expires_at,
        "refresh_token_expires_at": tokens.refresh_expires_at,
        "session_id": tokens.session_id,
        "scope": tokens.scope,
    }
    if issued:
        content["issued_token_type"] = _ACCESS_TOKEN
    if in_cookie:
        if services.cookies.access:  # no token where a script could read it
            content.pop("access_token")
        return json_answer(content, extra=services.cookies.hand_out(tokens))
    return json_answer(content | {"refresh_token": tokens.refresh_token})


async def _refresh(services: Services, request: Request, presented: str) -> TokenSet:
    return await services.grants.refresh(presented, client_ip(request), request_id=request_id(request))
