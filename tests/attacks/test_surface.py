"""What can be reached from where: management, other people's addresses, caches (RFC 9700 4.11, OWASP ASVS 4.3)."""

from __future__ import annotations

import pytest

from gateway.api import PUBLIC
from gateway.api.management import ADMIN, HEALTH
from tests.attacks.support import ACCESS, REFRESH
from tests.e2e.backends import Backend
from tests.e2e.harness import ADMIN_TOKEN, Gateway
from tests.e2e.wire import Client, ask, request
from tests.settings.support import ROUTE, refused

MANAGEMENT = [
    path.replace("{subject:path}", "u-alice").replace("{session_id}", "a" * 23) for path in {**HEALTH, **ADMIN}
]
TRICKS = [
    "{}",
    "{}/",
    "/{}",
    "/.{}",
    "/auth{}",
    "/auth/..{}",
    "/auth/%2e%2e{}",
    "/auth/..%2f..{}",
    "/auth/verify{}",
    "/auth/verify/..{}",
    "/auth/verify/../..{}",
    "/auth/;{}",
    "/auth\\..{}",
    "/.well-known/..{}",
    "/guarded/..{}",
    "/guarded/%2e%2e{}",
    "http://gateway.test{}",
]


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("path", MANAGEMENT)
def test_no_address_of_the_public_listener_leads_to_management(fortress: Gateway, path: str, trick: str) -> None:
    """Not with the admin token either, whatever the host says it is."""
    for host in ("gateway.test", "localhost", f"127.0.0.1:{fortress.management}", "tenant.test"):
        target = trick.format(path).replace("gateway.test", host)
        for method in ("GET", "POST", "DELETE"):
            data = request(method, target, {"Host": host}, b"" if method == "POST" else None, ADMIN_TOKEN)
            with Client(fortress.port) as client:
                answer = client.ask(data, method)
            code = answer.get("x-gateway-error")
            assert code in (
                "",
                "no_route",
                "bad_request",
                "invalid_token",
                "missing_token",
                "method_not_allowed",
                "not_found",
            )
            assert not any(word in answer.body for word in (b"tokengate_", b'"status"', b'"sessions"', b'"signing"'))


@pytest.mark.parametrize("path", [path for path in PUBLIC if "{" not in path])
def test_management_serves_nothing_of_the_public_api(fortress: Gateway, path: str) -> None:
    for method in ("GET", "POST"):
        data = request(method, path, {"Connection": "close"}, b"" if method == "POST" else None, ADMIN_TOKEN)
        assert ask(fortress.management, data).error == (404, "no_route")


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {ADMIN_TOKEN}x",
        f"Bearer {ADMIN_TOKEN[:-1]}",
        f"Basic {ADMIN_TOKEN}",
        ADMIN_TOKEN,
    ],
)
def test_the_admin_api_opens_for_nothing_but_its_token(fortress: Gateway, credential: str) -> None:
    for target in (
        f"/admin/users/u-alice/sessions?token={ADMIN_TOKEN}",
        f"/admin/users/u-alice/sessions?access_token={ADMIN_TOKEN}",
    ):
        headers = {"Authorization": credential, "Cookie": f"{ACCESS}={ADMIN_TOKEN}; admin={ADMIN_TOKEN}"}
        assert ask(fortress.management, request("GET", target, {**headers, "Connection": "close"})).error == (
            403,
            "forbidden",
        )
    twice = [("Authorization", f"Bearer {ADMIN_TOKEN}")] * 2
    answer = ask(
        fortress.management, request("GET", "/admin/users/u-alice/sessions", [*twice, ("Connection", "close")])
    )
    assert answer.error == (403, "forbidden")


def test_an_access_token_of_an_administrator_is_no_admin_token(fortress: Gateway) -> None:
    question = request("GET", "/admin/users/u-bob/sessions", {"Connection": "close"}, token=fortress.token)
    assert ask(fortress.management, question).error == (403, "forbidden")
    assert ask(fortress.port, request("GET", "/auth/me", token=ADMIN_TOKEN)).error == (401, "invalid_token")


@pytest.mark.parametrize(
    ("bind", "upstream"),
    [
        ("127.0.0.1:9090", "http://127.0.0.1:9090"),
        ("127.0.0.1:9090", "http://localhost:9090"),
        ("0.0.0.0:9090", "http://127.0.0.1:9090"),
        ("[::]:9090", "http://[::1]:9090"),
        ("10.0.0.1:9090", "http://10.0.0.1:9090"),
    ],
)
def test_a_route_to_the_management_listener_stops_the_start(bind: str, upstream: str) -> None:
    told = refused(management={"bind": bind}, routes=[{**ROUTE, "upstream": [upstream]}])
    assert [line.split(": ")[0] for line in told] == ["routes.0.upstream"]


# --- redirects ---

LURES = [
    "",
    "/",
    "//evil.test",
    "/%2f%2fevil.test",
    "/..//evil.test",
    "?next=//evil.test",
    "?redirect_uri=https://evil.test",
    "\\evil.test",
]
EVIL = {
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Prefix": "//evil.test",
    "X-Forwarded-Uri": "//evil.test",
    "Referer": "https://evil.test/",
}


@pytest.mark.parametrize("lure", LURES)
@pytest.mark.parametrize(
    "path", [*(path.partition("/{")[0] for path in PUBLIC), "/auth", "/.well-known", "//evil.test"]
)
def test_no_answer_of_the_gateways_own_is_a_redirect(behind: Gateway, path: str, lure: str) -> None:
    """RFC 9700 4.11: an endpoint that sends browsers elsewhere is none if there is none."""
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        data = request(method, path + lure, {"Host": "gateway.test", **EVIL}, b"" if method == "POST" else None)
        with Client(behind.port) as client:
            answer = client.ask(data, method)
        assert not 300 <= answer.status < 400
        assert answer.all("location") == answer.all("refresh") == answer.all("content-location") == []
        assert b"evil" not in answer.body


# --- caches ---


@pytest.mark.parametrize("path", [path for path in PUBLIC if "{" not in path])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
def test_nothing_that_the_gateway_answers_may_be_kept_by_a_cache(fortress: Gateway, path: str, method: str) -> None:
    """RFC 6749 5.1, RFC 9111 5.2.2.5; also not what it answers under a name that a cache takes for a picture's."""
    for more in ("", "?x=.css", "/x.css", "/..%2fx.png"):
        for token in ("", fortress.token, "nonsense"):
            data = request(method, path + more, None, b"" if method in ("POST", "PUT") else None, token)
            answer = ask(fortress.port, data)
            assert answer.get("cache-control") == "no-store"
            assert answer.all("age") == answer.all("etag") == answer.all("last-modified") == []


@pytest.mark.parametrize(
    "target", ["/guarded/x", "/guarded/x.css", "/guarded/x%2ecss", "/guarded/x/..%2fx.css", "/admins/x.js"]
)
def test_a_refusal_behind_a_route_is_kept_by_no_cache(fortress: Gateway, target: str) -> None:
    """Web cache deception and poisoning: a kept 401 would lock everyone out, a kept 200 would let everyone in."""
    for headers in ({}, {"Authorization": "Bearer x"}, {"Cookie": f"{ACCESS}=x"}, {"Cookie": f"{REFRESH}=x"}):
        answer = ask(fortress.port, request("GET", target, headers))
        assert answer.status in (400, 401)
        assert answer.get("cache-control") == "no-store"


# --- forward-auth, asked by those who may not ask ---


@pytest.mark.parametrize(
    "statement",
    [
        {"X-Original-URI": "/open/x", "X-Original-Method": "GET"},
        {"X-Original-URL": "http://gateway.test/open/x", "X-Original-Method": "GET"},
        {"X-Forwarded-Uri": "/open/x", "X-Forwarded-Method": "GET", "X-Forwarded-Host": "gateway.test"},
        {"X-Original-Method": "GET"},
        {"X-Forwarded-Uri": "/open/x"},
        {"X-Original-URI": "/open/x", "X-Original-Method": "GET", "X-Forwarded-For": "127.0.0.1"},
        {"X-Original-URI": "/open/x", "X-Original-Method": "GET", "Forwarded": "for=127.0.0.1"},
    ],
)
def test_a_peer_that_is_not_trusted_learns_nothing_by_forward_auth(
    fortress: Gateway, statement: dict[str, str]
) -> None:
    """Neither the routes, nor an identity: not even with a good token."""
    for token in ("", fortress.token):
        answer = ask(fortress.port, request("GET", "/auth/verify", statement, token=token))
        assert answer.error == (400, "bad_request")
        assert not [name for name, _ in answer.headers if name.startswith("x-auth-request")]


@pytest.mark.parametrize("path", ["/auth/verify/open/x", "/auth/verify/guarded/x", "/auth/verify/", "/auth/verify//"])
def test_a_peer_that_is_not_trusted_cannot_ask_by_path_either(fortress: Gateway, path: str) -> None:
    assert ask(fortress.port, request("GET", path, token=fortress.token)).error == (400, "bad_request")


@pytest.mark.parametrize("path", ["/auth/login", "/auth/me", "/.well-known/jwks.json", "/auth/verify", "/nowhere"])
def test_forward_auth_guards_no_address_of_the_gateway_and_none_that_it_does_not_know(
    behind: Gateway, path: str
) -> None:
    told = {"X-Original-URI": path, "X-Original-Method": "GET", "X-Forwarded-Host": "gateway.test"}
    assert ask(behind.port, request("GET", "/auth/verify", told, token=behind.token)).error == (404, "no_route")


def test_a_backend_is_reached_by_no_request_that_asks_for_a_tunnel_or_for_another_host(
    fortress: Gateway, backend: Backend
) -> None:
    """No open proxy: CONNECT, and a target that names another host than Host does, go nowhere."""
    before = backend.received
    for data in (
        b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (backend.port, backend.port),
        b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: gateway.test\r\n\r\n" % backend.port,
        b"GET https://evil.test/ HTTP/1.1\r\nHost: gateway.test\r\n\r\n",
        b"GET @evil.test/ HTTP/1.1\r\nHost: gateway.test\r\n\r\n",
        b"GET evil.test:80 HTTP/1.1\r\nHost: gateway.test\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: gateway.test\r\n\r\n",
    ):
        with Client(fortress.port) as client:
            assert client.ask(data, "GET").status in (400, 404)
    assert backend.received == before
