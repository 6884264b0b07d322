"""POST /auth/logout: end the session that a credential names.

The credential is a refresh token in the body, an access token, or the refresh cookie. Where a client
sends several, each good one counts and a bad one beside it does not: an app whose access token has expired
still signs out with its cookie. A session that is over already is no error, so a lost answer can be
asked for again. An access token of another issuer has no session here: it is revoked itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body, cookies
from gateway.api.answers import empty, failure
from gateway.api.services import Services, client_ip, request_id
from gateway.errors import GatewayError, Headers, InvalidGrant, MissingToken
from gateway.gate import bearer_token, only_authorization
from gateway.tokens.claims import Claims

Found = dict[str, str | Claims]  # session id -> its subject, "" where the credential does not say; or foreign claims


async def logout(services: Services, request: Request) -> Response:
    given = await body.parameters(request)
    cookie = cookies.read_refresh(request, services.cookies)
    clear: Headers = services.cookies.clear() if cookie is not None else []
    found, refused = await _credentials(services, request, given.get("refresh_token"), cookie)
    if not found:
        error = refused[0] if refused else MissingToken()
        return failure(services, error, clear if isinstance(error, InvalidGrant) else None)
    ip, name = client_ip(request), request_id(request)
    for session_id, whose in found.items():
        if isinstance(whose, Claims):
            await services.grants.logout_foreign(whose, ip=ip, request_id=name)
        else:
            await services.grants.logout(session_id, subject=whose, ip=ip, request_id=name)
    return empty(extra=clear)


async def _credentials(
    services: Services, request: Request, refresh_token: str | None, cookie: str | None
) -> tuple[Found, list[GatewayError]]:
    found: Found = {}
    refused: list[GatewayError] = []
    readers: tuple[Callable[[], Awaitable[Found]], ...] = (
        lambda: _by_refresh_token(services, refresh_token),
        lambda: _by_access_token(services, request),
        lambda: _by_cookie(services, request, cookie),
    )
    for read in readers:
        try:
            for session_id, whose in (await read()).items():
                found[session_id] = found.get(session_id) or whose
        except GatewayError as error:
            refused.append(error)
    return found, refused


async def _by_refresh_token(services: Services, token: str | None) -> Found:
    return {services.refresh_tokens.read(token, services.clock()).session_id: ""} if token else {}


async def _by_access_token(services: Services, request: Request) -> Found:
    authorization = only_authorization(request.scope["headers"])
    token = bearer_token(authorization) if authorization is not None else None
    if token is None:
        return {}
    claims = await services.gate.verify_patiently(token)
    return {claims.sid: claims.sub} if claims.foreign is None else {"": claims}


async def _by_cookie(services: Services, request: Request, cookie: str | None) -> Found:
    if cookie is None:
        return {}
    cookies.check_origin(request, services.issuer, services.cookies)
    return await _by_refresh_token(services, cookie)
