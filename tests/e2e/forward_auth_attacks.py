"""What hostile clients send to a proxy that asks tokengate, and what may stand in its place."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.backends import Behaviour, Call, raw, steps
from tests.e2e.forward_auth_parts import Front
from tests.e2e.harness import AUDIENCE
from tests.e2e.wire import ask, request

REALM = f'Bearer realm="{AUDIENCE}"'

# Names that a CGI or WSGI backend cannot tell from those of the identity headers.
SPOOFED = [
    "X-Auth-Request-User",
    "x-auth-request-email",
    "X-AUTH-REQUEST-GROUPS",
    "X-Auth-Request-Session",
    "X_Auth_Request_User",
    "x_auth_request_email",
    "X-Auth_Request-Groups",
    "X_AUTH-REQUEST_SESSION",
]

# Statements about the original request that are the proxy's alone to make.
FORGED: list[dict[str, str]] = [
    {"X-Original-Method": "GET", "X-Original-URI": "/public/x"},
    {"X-Original-Method": "GET", "X-Original-URL": "http://gateway.test/public/x"},
    {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/public/x"},
    {"X-Forwarded-Method": "GET", "X-Forwarded-Uri": "/public/x", "X-Forwarded-Host": "gateway.test"},
    {"X_Original_Method": "GET", "X_Original_URI": "/public/x"},
    {"X_Forwarded_Uri": "/public/x", "X_Forwarded_Method": "GET"},
    {"X-Rewrite-URL": "/public/x", "X-HTTP-Method-Override": "GET"},
    {"X-Envoy-Original-Path": "/public/x"},
    {"Connection": "X-Original-URI, X-Original-Method, X-Forwarded-Uri, X-Forwarded-Method"},
]

# All of them name tenant.test to somebody, where /tenant/ asks for a role that no one has.
HOSTS = [
    [("Host", "tenant.test")],
    [("Host", "TENANT.test:80")],
    [("Host", "tenant.test"), ("X-Forwarded-Host", "gateway.test")],
    [("Host", "tenant.test"), ("X_Forwarded_Host", "gateway.test")],
    [("Host", "tenant.test"), ("Forwarded", "host=gateway.test")],
    [("Host", "tenant.test"), ("Connection", "X-Forwarded-Host")],
    [("Host", "tenant.test"), ("Host", "gateway.test")],
    [("Host", "gateway.test"), ("Host", "tenant.test")],
]

# Targets on whose route, or on whose being one, two readers could disagree.
TRICKS = [
    "/public/..%2fadmin/x",
    "/public/..%2Fadmin/x",
    "/public/%2e%2e/admin/x",
    "/public/%2E%2E%2Fadmin/x",
    "/public/.%2e/admin/x",
    "/public/../admin/x",
    "/public/./../admin/x",
    "/public//../admin/x",
    "/public/..//admin/x",
    "/public/x/../../admin/x",
    "/public/..;/admin/x",
    "/public/..;a=b/admin/x",
    "/public/;/../admin/x",
    "/public/..%5cadmin/x",
    "/public/..\\admin/x",
    "/public\\..\\admin/x",
    "/public/%252e%252e/admin/x",
    "/public%2f..%2fadmin/x",
    "/public;/../admin/x",
    "/public/%00/../admin/x",
    "/public/%zz/../admin/x",
    "/public/\x01/../admin/x",
    "/public/%c0%ae%c0%ae/admin/x",
    "/public/..%ef%bc%8fadmin/x",
    "/public/#/../admin/x",
    "/public/x?/../../admin/x",
    "/public/%3f/../../admin/x",
    "/public/%23/../../admin/x",
    "//admin/x",
    "///admin/x",
    "/./admin/x",
    "/%2fadmin/x",
    "/%61dmin/x",
    "/%61dmin/../public/x",
    "/%70ublic/../admin/x",
    "/admin/../public/x",
    "/admin/%2e%2e/public/x",
    "/admin/..%2fpublic/x",
    "/admin/x/../../public/x",
    "/admin//../public/x",
    "/admin/..;/public/x",
    "/admin;/../public/x",
    "/admin%2f..%2fpublic/x",
    "//public/x",
    "//public/../admin/x",
    "/public//admin/x",
    "/admin",
    "/admin?/public/",
    "/admin#/public/",
    "http://gateway.test/public/x",
    "http://gateway.test/admin/x",
    "http://gateway.test/public/../admin/x",
    "http://gateway.test/admin/../public/x",
    "http://gateway.test//admin/x",
    "http://other.test/admin/x",
    "http://gateway.test?/public/x",
    "/auth/../admin/x",
    "/auth/%2e%2e/admin/x",
    "/auth/..%2fadmin/x",
    "/auth%2f..%2fadmin/x",
    "/auth/me/../../admin/x",
    "/.well-known/../admin/x",
    "/.well-known/..%2fadmin/x",
    "/auth%2fx",
    "*",
    "admin/x",
    "",
]

ORACLES = ["/auth/verify", "/auth/verify/public/x", "/auth/verify?roles=user", "/auth/%76erify", "/auth/x/../verify"]


def hang(call: Call) -> None:
    call.gone()


ODD: dict[str, Behaviour] = {
    "a redirect": raw(b"HTTP/1.1 302 Found\r\nLocation: /public/x\r\nContent-Length: 0\r\n\r\n"),
    "a defect": raw(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
    "an unknown status": raw(b"HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n"),
    "not HTTP": raw(b"220 mail ESMTP\r\n200 OK\r\n\r\n"),
    "half a head": steps(raw(b"HTTP/1.1 200 OK\r\nX-Auth-Request-User: ro"), Call.close),
    "no answer": Call.close,
    "a reset": lambda call: call.connection.reset(),
    "silence": hang,
}


def ended(front: Front) -> str:
    token = front.gateway.login()["access_token"]
    assert ask(front.other.port, request("POST", "/auth/logout", {"Content-Length": "0"}, token=token)).status == 204
    return str(token)


def expired(front: Front) -> str:
    return (
        front.gateway.site.signer()
        .mint(
            subject="u-alice",
            session_id="0" + "A" * 22,
            counter=0,
            roles=["user", "admin"],
            scope="orders:read",
            claims={},
            now=time.time() - 3600,
        )
        .token
    )


INVALID = f'{REALM}, error="invalid_token", error_description="%s"'
REFUSED: dict[str, tuple[Any, str, str, int, str]] = {
    # token, method, path, status, challenge
    "missing_token": (lambda _: "", "GET", "/guarded/x", 401, REALM),
    "invalid_token": (lambda _: "a.b.c", "GET", "/guarded/x", 401, INVALID % "The access token is not valid"),
    "expired_token": (expired, "GET", "/guarded/x", 401, INVALID % "The access token expired"),
    "revoked_token": (ended, "GET", "/guarded/x", 401, INVALID % "The session has ended"),
    "insufficient_scope": (
        lambda front: front.gateway.login("bob")["access_token"],
        "POST",
        "/writers/x",
        403,
        f'{REALM}, error="insufficient_scope", scope="orders:write"',
    ),
    "no_route": (lambda front: front.gateway.token, "GET", "/elsewhere", 404, ""),
    "method_not_allowed": (lambda front: front.gateway.token, "DELETE", "/reading/x", 405, ""),
    "bad_request": (lambda front: front.gateway.token, "GET", "/public/..%2fadmin/x", 400, ""),
}
