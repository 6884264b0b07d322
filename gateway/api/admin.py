"""The admin API of the management listener: anyone's sessions, any token, the keys."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body
from gateway.api.answers import Handler, empty, header_values, json_answer
from gateway.api.services import client_ip, describe, request_id
from gateway.errors import BadKeys, Forbidden, InvalidRequest
from gateway.telemetry import audit
from gateway.tokens.keyfile import BadKey

if TYPE_CHECKING:
    from gateway.api.management import Management

_TOKEN_ID = re.compile(r"[!-~]{1,255}")
_MAX_DATE = 2**40  # Unix seconds; far beyond any token, well within what the store counts in

_LOG = logging.getLogger("gateway.api")


def guarded(handler: Handler) -> Handler:
    """Return the handler behind the admin token (RFC 6750 2.1)."""

    async def behind(site: Management, request: Request) -> Response:
        check_admin(site, request)
        return await handler(site, request)

    return behind


def check_admin(site: Management, request: Request) -> None:
    """Raise Forbidden unless the request carries the admin token, in a time that tells nothing about it."""
    values = header_values(request, b"authorization")
    scheme, _, token = (values[0] if len(values) == 1 else b"").partition(b" ")
    right = hmac.compare_digest(hashlib.sha256(token).digest(), hashlib.sha256(site.admin_token.encode()).digest())
    if not right or scheme.lower() != b"bearer" or not site.admin_token:
        raise Forbidden("admin token")


async def list_sessions(site: Management, request: Request) -> Response:
    sessions = await site.store.list(request.path_params["subject"])
    return json_answer({"sessions": [describe(session) for session in sessions]})


async def end_sessions(site: Management, request: Request) -> Response:
    """`?issuer=` means a user of another issuer, by the subject that it knows them by."""
    given = request.query_params.multi_items()
    subject = request.path_params["subject"]
    match given:
        case []:
            await site.grants.end_sessions(subject, **_by(request))
        case [("issuer", issuer)]:
            await site.grants.void_foreign(_known(site, issuer), subject, **_by(request))
        case _:
            raise InvalidRequest("the only query is issuer, once")
    return empty()


async def end_session(site: Management, request: Request) -> Response:
    await site.grants.end_session(request.path_params["session_id"], **_by(request))
    return empty()


async def revoke(site: Management, request: Request) -> Response:
    """`{"token"}` of any kind, or `{"jti", "exp"}` where only the log knows it, of another `"issuer"` if need be."""
    given = await body.json_object(request)
    match given:
        case {"token": str(token)} if len(given) == 1 and token:
            await site.revoker.revoke(token, site.clock(), **_by(request))
        case {"jti": str(token_id), "exp": int(expires_at)} if len(given) == 2:
            await _revoke_id(site, request, token_id, expires_at)
        case {"jti": str(token_id), "exp": int(expires_at), "issuer": str(issuer)} if len(given) == 3:
            await _revoke_id(site, request, token_id, expires_at, _known(site, issuer))
        case _:
            raise InvalidRequest("token, or jti and exp, must be given")
    return empty()


async def reload_keys(site: Management, request: Request) -> Response:
    """Read the key directory again; one bad file and everything stays as it was."""
    try:
        kids = await site.reload_keys()
    except BadKey as error:
        _LOG.error("the keys were not reloaded", extra={"reason": str(error)})
        raise BadKeys(str(error)) from None
    audit("keys_reloaded", **_by(request))
    return json_answer(kids)


async def _revoke_id(
    site: Management, request: Request, token_id: str, expires_at: int, issuer: str | None = None
) -> None:
    if not _TOKEN_ID.fullmatch(token_id) or isinstance(expires_at, bool) or not 0 < expires_at < _MAX_DATE:
        raise InvalidRequest("jti or exp is malformed")
    if issuer is not None:
        token_id = site.grants.foreign_token_id(issuer, token_id)
    await site.grants.revoke_token(token_id, expires_at, **_by(request))


def _known(site: Management, issuer: str) -> str:
    """Return the issuer of one of [[issuers]]. Raises InvalidRequest."""
    if not site.grants.knows_issuer(issuer):
        raise InvalidRequest("issuer is none of the configured ones")
    return issuer


def _by(request: Request) -> dict[str, Any]:
    return {"by": "admin", "ip": client_ip(request), "request_id": request_id(request)}
