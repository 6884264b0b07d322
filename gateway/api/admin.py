"""The admin API of the management listener: anyone's sessions, any token, the keys.

Every call leaves an audit line: by which token (`by`, proven), for whom and why (`who`, `reason`, as the headers
X-Admin-Actor and X-Admin-Reason say).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body
from gateway.api.answers import Handler, empty, header_values, json_answer, only_header
from gateway.api.services import client_ip, describe, request_id
from gateway.errors import BadKeys, Forbidden, InvalidRequest, NoRoute
from gateway.telemetry import Cause, audit
from gateway.tokens.keyfile import BadKey

if TYPE_CHECKING:
    from gateway.api.management import Management

_TOKEN_ID = re.compile(r"[!-~]{1,255}")
_ACTOR, _REASON = b"x-admin-actor", b"x-admin-reason"
_MAX_SAID = 200  # characters, less than a line of the audit trail keeps of a field
_MAX_DATE = 2**40  # Unix seconds; far beyond any token, well within what the store counts in

_LOG = logging.getLogger("gateway.api")


def guarded(handler: Handler) -> Handler:
    """Return the handler behind the admin tokens (RFC 6750 2.1); where there are none, there is nothing."""

    async def behind(site: Management, request: Request) -> Response:
        if not site.admins():
            raise NoRoute
        by = check_admin(site, request)
        request.state.cause = _cause(by, request)
        return await handler(site, request)

    return behind


def check_admin(site: Management, request: Request) -> str:
    """Raise Forbidden unless the request carries an admin token; else return whose: "admin", or "admin:NAME".

    The time it takes tells nothing about a token, nor which of them it is: all are compared, by their digests.
    """
    values = header_values(request, b"authorization")
    scheme, _, token = (values[0] if len(values) == 1 else b"").partition(b" ")
    presented, found = hashlib.sha256(token).digest(), ""
    for by, digest in site.admins().items():
        if hmac.compare_digest(presented, digest):
            found = by
    if not found or scheme.lower() != b"bearer":
        raise Forbidden("admin token")
    return found


async def list_sessions(site: Management, request: Request) -> Response:
    subject = request.path_params["subject"]
    sessions = await site.store.list(subject)
    audit("sessions_listed", subject=subject, number=len(sessions), **_by(request))
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


def _by(request: Request) -> Cause:
    """Return what `guarded` found: by whom and why a request of an operator came."""
    cause: Cause = request.state.cause
    return cause


def _cause(by: str, request: Request) -> Cause:
    """Raises InvalidRequest for a header that is none of a plain line."""
    who, reason = _said(request, _ACTOR), _said(request, _REASON)
    return {"by": by, "who": who, "reason": reason, "ip": client_ip(request), "request_id": request_id(request)}


def _said(request: Request, name: bytes) -> str:
    try:
        text = (only_header(request, name) or b"").decode("utf-8").strip(" ")
    except UnicodeDecodeError:
        raise InvalidRequest(f"the header {name.decode()} is not UTF-8") from None
    if not text.isprintable():
        raise InvalidRequest(f"the header {name.decode()} has control characters")
    if len(text) > _MAX_SAID:
        raise InvalidRequest(f"the header {name.decode()} has more than {_MAX_SAID} characters")
    return text
