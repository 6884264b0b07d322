"""What OAuth 2.0 gives other software: revocation, introspection, the public keys, the metadata."""

from __future__ import annotations

from typing import Unpack

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body
from gateway.api.answers import empty, json_answer, only_header
from gateway.api.services import SIGNED_IN, Services, client_ip, request_id
from gateway.errors import (
    EarlyToken,
    ExpiredToken,
    GatewayError,
    InvalidGrant,
    IssuerUnavailable,
    StoreUnavailable,
    Unauthorized,
)
from gateway.gate import Gate, require
from gateway.grants import Grants
from gateway.telemetry import Cause
from gateway.tokens.claims import Claims
from gateway.tokens.metadata import server_metadata
from gateway.tokens.refresh import RefreshTokens


async def revoke(services: Services, request: Request) -> Response:
    """RFC 7009: 200 whether the token was known or not; whoever holds a token may give it up.

    `token_type_hint` is not needed: the two kinds cannot be taken for each other.
    """
    token = body.required(await body.parameters(request), "token")
    revoker = Revoker(services.grants, services.gate, services.refresh_tokens)
    await revoker.revoke(token, services.clock(), by="holder", ip=client_ip(request), request_id=request_id(request))
    return empty(200)


class Revoker:
    """Revokes a token of any kind: a refresh token ends its session, an access token only itself."""

    def __init__(self, grants: Grants, gate: Gate, refresh_tokens: RefreshTokens) -> None:
        self._grants = grants
        self._gate = gate
        self._refresh_tokens = refresh_tokens

    async def revoke(self, token: str, now: float, **cause: Unpack[Cause]) -> None:
        """Raises StoreUnavailable, and IssuerUnavailable for a token of an issuer whose keys were never there.

        A token that was never valid needs no revocation. Its times are not looked at: another replica's clock, by
        which the token is good, may be the right one.
        """
        try:
            presented = self._refresh_tokens.read(token, now)
        except InvalidGrant:
            await self._revoke_access(token, cause)
        else:
            await self._grants.logout(presented.session_id, **cause)

    async def _revoke_access(self, token: str, cause: Cause) -> None:
        try:
            claims = await self._gate.verify_patiently(token.encode())
        except (EarlyToken, ExpiredToken) as error:
            claims = error.claims
        except Unauthorized:
            return
        token_id = claims.foreign.token_id if claims.foreign is not None else claims.jti
        await self._grants.revoke_token(token_id, claims.exp, subject=claims.sub, **cause)


async def introspect(services: Services, request: Request) -> Response:
    """RFC 7662. A refresh token is not active: a resource server that asks must not take it for access."""

    async def attempt() -> None:
        await services.grants.limit_client(client_ip(request))

    await services.clients.authenticate(only_header(request, b"authorization"), attempt)
    token = body.required(await body.parameters(request), "token")
    try:
        claims = require(await services.gate.admit([(b"authorization", b"Bearer " + token.encode())], SIGNED_IN))
    except (StoreUnavailable, IssuerUnavailable):
        raise
    except GatewayError:
        return json_answer({"active": False})
    return json_answer(_active(claims))


def _active(claims: Claims) -> dict[str, object]:
    return {**claims.raw, "active": True, "token_type": "Bearer"}


async def jwks(services: Services, request: Request) -> Response:
    return json_answer(services.keyring().jwks())


async def metadata(services: Services, request: Request) -> Response:
    return json_answer(server_metadata(services.issuer, exchange=services.grants.exchanges))
