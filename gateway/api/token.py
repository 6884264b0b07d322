"""POST /auth/token: a refresh token for new tokens (RFC 6749 6).

A refresh is answered the way it was asked: a token that came in a cookie goes back in a cookie, and no
script ever reads it.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body, cookies
from gateway.api.answers import failure, json_answer
from gateway.api.services import Services, client_ip, request_id
from gateway.errors import InvalidGrant, InvalidRequest, UnsupportedGrantType
from gateway.grants import TokenSet


async def token(services: Services, request: Request) -> Response:
    given = await body.parameters(request)
    if body.required(given, "grant_type") != "refresh_token":
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


def token_response(services: Services, tokens: TokenSet, in_cookie: bool) -> Response:
    """Return the token response of RFC 6749 5.1, with the refresh token in the body or in the cookie."""
    content: dict[str, Any] = {
        "access_token": tokens.access_token,
        "token_type": "Bearer",
        "expires_in": tokens.expires_in,
        "access_token_expires_at": tokens.access_expires_at,
        "refresh_token_expires_at": tokens.refresh_expires_at,
        "session_id": tokens.session_id,
        "scope": tokens.scope,
    }
    if in_cookie:
        if services.cookies.access:  # no token where a script could read it
            content.pop("access_token")
        return json_answer(content, extra=services.cookies.hand_out(tokens, services.clock()))
    return json_answer(content | {"refresh_token": tokens.refresh_token})


async def _refresh(services: Services, request: Request, presented: str) -> TokenSet:
    return await services.grants.refresh(presented, client_ip(request), request_id=request_id(request))
