"""GET and DELETE /auth/sessions, and /auth/me: what a signed-in user sees and ends of their own.

A caller with a token of another issuer has no sessions here, whoever's `sub` it may share: there is nothing to
list, and to sign out everywhere voids the tokens that this issuer gave them until then.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.answers import empty, json_answer
from gateway.api.services import Services, client_ip, describe, request_id
from gateway.errors import InvalidRequest, NotFound
from gateway.tokens.claims import Claims


async def me(services: Services, request: Request) -> Response:
    return json_answer(dict((await services.caller(request)).raw))


async def list_sessions(services: Services, request: Request) -> Response:
    claims = await services.caller(request)
    sessions = await services.store.list(claims.sub) if claims.foreign is None else []
    return json_answer({"sessions": [describe(s) | {"current": s.id == claims.sid} for s in sessions]})


async def end_session(services: Services, request: Request) -> Response:
    """404 for a session that is not the caller's, exactly as for one that does not exist."""
    claims = await services.caller(request)
    if claims.foreign is not None:
        raise NotFound("session")
    await services.grants.end_session(
        request.path_params["session_id"],
        owner=claims.sub,
        by="user",
        ip=client_ip(request),
        request_id=request_id(request),
    )
    return empty()


async def end_sessions(services: Services, request: Request) -> Response:
    """All of the caller's sessions, or with `?except=current` all others."""
    claims = await services.caller(request)
    given = request.query_params.multi_items()
    if given not in ([], [("except", "current")]):
        raise InvalidRequest("the only query is except=current")
    if claims.foreign is not None:
        await _void_foreign(services, request, claims, keep=bool(given))
        return empty()
    await services.grants.end_sessions(
        claims.sub,
        keep=claims.sid if given else "",
        by="user",
        ip=client_ip(request),
        request_id=request_id(request),
    )
    return empty()


async def _void_foreign(services: Services, request: Request, claims: Claims, *, keep: bool) -> None:
    if keep or claims.foreign is None:
        raise InvalidRequest("a token of another issuer has no session to except")
    await services.grants.void_foreign(
        claims.iss,
        claims.foreign.subject,
        issued_at=claims.iat,
        by="user",
        ip=client_ip(request),
        request_id=request_id(request),
    )
