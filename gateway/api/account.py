"""GET and POST /auth/account: the page for the person behind a session.

The page goes by the refresh cookie alone, which no script can read, and changes nothing by being looked at. Every
change is a form of the gateway's own origin (RFC 9700 4.7), answered with a redirect to the page: the only address
that an answer of the gateway ever leads to.
"""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from gateway.api import body, cookies
from gateway.api.answers import header_values, raw_answer
from gateway.api.login import MAX_PASSWORD
from gateway.api.services import Services, client_ip, request_id, user_agent
from gateway.errors import GatewayError, Headers, InvalidCredentials, InvalidGrant, InvalidRequest, NoRoute, answer
from gateway.sessions.record import Session
from gateway.telemetry import Cause
from gateway.web import account, page

ROUTE = "account"
SIGNED_IN = "signed-in"  # ?note= after a sign-in: without a cookie by then, the browser keeps none


async def show(services: Services, request: Request) -> Response:
    """The user's devices, or the form to sign in."""
    note = request.query_params.get("note", "")
    try:
        session = await _session(services, request)
    except InvalidGrant:
        return _page(account.sign_in_page("session_ended"), extra=services.cookies.clear())
    except GatewayError as error:
        return _failed(services, error, account.unavailable_page(error.code))
    if session is not None:
        return await _devices(services, session, note=note)
    if _from_elsewhere(request):
        return _page(account.come_again_page())
    return _page(account.sign_in_page("cookies_blocked" if note == SIGNED_IN else "", note))


async def act(services: Services, request: Request) -> Response:
    """One of the page's forms: `do` says which."""
    given: body.Parameters = {}
    try:
        cookies.check_origin(request, services.issuer, services.cookies, strict=True)
        given = await body.parameters(request)
        if given.get("do") == "sign-in":
            return await _sign_in(services, request, given)
        return await _sign_out(services, request, given)
    except InvalidGrant:
        return _page(account.sign_in_page("session_ended"), extra=services.cookies.clear())
    except GatewayError as error:
        return await _explained(services, request, given, error)


async def asset(services: Services, request: Request) -> Response:
    """A style, a script or the icon of the page."""
    found = page.static(request.path_params["name"])
    if found is None:
        raise NoRoute
    content, kind = found
    headers = [
        (b"content-type", kind.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    return _answer(200, content, headers)


async def _session(services: Services, request: Request) -> Session | None:
    """Return the session of the refresh cookie, None without one. Raises InvalidGrant, StoreUnavailable.

    The cookie must be the newest one or, while that is on its way, the one before: an older one was replaced long
    ago, and whoever still has it has no right to see anything.
    """
    presented = cookies.read_refresh(request, services.cookies)
    if presented is None:
        return None
    token = services.refresh_tokens.read(presented, services.clock())
    session = await services.store.get(token.session_id)
    if session is None or session.counter - token.counter not in (0, 1):
        raise InvalidGrant("unknown")
    return session


async def _devices(
    services: Services, session: Session, *, note: str = "", error: GatewayError | None = None
) -> Response:
    try:
        sessions = await services.store.list(session.subject)
    except GatewayError as failed:
        return _failed(services, failed, account.unavailable_page(failed.code))
    devices = [
        account.Device(
            each.id,
            each.device,
            each.user_agent,
            each.ip,
            each.created_at,
            each.last_used_at,
            each.expires_at,
            each.id == session.id,
        )
        for each in sessions
    ]
    content = account.devices_page(session.subject, devices, error.code if error else "", note)
    return _failed(services, error, content) if error else _page(content)


async def _sign_in(services: Services, request: Request, given: body.Parameters) -> Response:
    username = body.line(body.required(given, "username"), "username")
    password = body.required(given, "password")
    if len(password.encode()) > MAX_PASSWORD:
        raise InvalidCredentials("password is too long")
    tokens = await services.grants.login(
        username, password, "", client_ip(request), user_agent(request), request_id=request_id(request)
    )
    return _to_page(SIGNED_IN, services.cookies.hand_out(tokens))


async def _sign_out(services: Services, request: Request, given: body.Parameters) -> Response:
    session = await _session(services, request)
    if session is None:
        raise InvalidGrant("no cookie")
    grants = services.grants
    who: Cause = {"by": "user", "ip": client_ip(request), "request_id": request_id(request)}
    match given.get("do"):
        case "end" if body.required(given, "id") != session.id:
            await grants.end_session(given["id"], owner=session.subject, **who)
            return _to_page("device-signed-out")
        case "end":
            await grants.end_session(session.id, owner=session.subject, **who)
            return _to_page("signed-out", services.cookies.clear())
        case "end-others":
            await grants.end_sessions(session.subject, keep=session.id, **who)
            return _to_page("others-signed-out")
        case "end-all":
            await grants.end_sessions(session.subject, **who)
            return _to_page("everywhere", services.cookies.clear())
    raise InvalidRequest("do")


async def _explained(services: Services, request: Request, given: body.Parameters, error: GatewayError) -> Response:
    """Say what went wrong on the page that the form was on; nothing that was there is lost."""
    if given.get("do") == "sign-in":
        username = given.get("username", "")[:255]
        content = account.sign_in_page(error.code, username=username, wait=error.retry_after or 0.0)
        return _failed(services, error, content)
    try:
        session = await _session(services, request)
    except GatewayError:
        session = None
    if session is None:
        return _failed(services, error, account.unavailable_page(error.code))
    return await _devices(services, session, error=error)


def _from_elsewhere(request: Request) -> bool:
    """Tell whether another site's link led here: then the browser has kept the cookie back (SameSite=Strict)."""
    return header_values(request, b"sec-fetch-site") in ([b"cross-site"], [b"same-site"])


def _to_page(note: str, extra: Headers | None = None) -> Response:
    location = f"{account.PATH}?{urlencode({'note': note})}".encode()
    return _answer(303, b"", [(b"location", location), (b"cache-control", b"no-store"), *(extra or [])])


def _page(content: bytes, extra: Headers | None = None) -> Response:
    return _answer(200, content, [*page.HEADERS, *(extra or [])])


def _failed(services: Services, error: GatewayError, content: bytes) -> Response:
    services.telemetry.rejected(ROUTE, error.code)
    status, headers, _ = answer(error, services.realm)
    kept = [(name, value) for name, value in headers if name in (b"x-gateway-error", b"retry-after")]
    return _answer(status, content, [*page.HEADERS, *kept])


def _answer(status: int, content: bytes, headers: Headers) -> Response:
    return raw_answer(status, content, [*headers, (b"content-length", b"%d" % len(content))])
