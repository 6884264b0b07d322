"""POST /auth/login: a name and a password for a session."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body
from gateway.api.services import Services, client_ip, request_id, user_agent
from gateway.api.token import refresh_in_cookie, token_response
from gateway.errors import InvalidRequest

MAX_PASSWORD = 1024  # bytes


async def login(services: Services, request: Request) -> Response:
    """JSON alone: a page of another site cannot send that without a preflight, which is granted to listed origins only.

    So nobody can be signed in to an account that is not theirs (login CSRF); with a cookie to set, the
    origin is checked as well.
    """
    given = await body.parameters(request, forms=False)
    username = body.line(body.required(given, "username"), "username")
    password = body.required(given, "password")
    device = body.line(given.get("device", ""), "device")
    if len(password.encode()) > MAX_PASSWORD:
        raise InvalidRequest("password is too long")
    in_cookie = refresh_in_cookie(services, request, given)
    tokens = await services.grants.login(
        username, password, device, client_ip(request), user_agent(request), request_id=request_id(request)
    )
    return token_response(services, tokens, in_cookie=in_cookie)
