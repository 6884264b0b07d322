"""ANY /auth/verify: what other proxies are told."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.tokens.access import AccessRule
from tests.api.support import PROXY, Stack, bearer, code, stack

PASSED = (200, "")


def told(response: httpx.Response) -> tuple[int, str]:
    if response.status_code == 200:
        assert response.content == b""
        return PASSED
    return code(response)


async def ask(
    s: Stack, headers: dict[str, str] | list[tuple[str, str]], path: str = "/auth/verify", method: str = "GET"
) -> httpx.Response:
    async with s.from_peer(PROXY) as proxy:
        return await proxy.request(method, path, headers=headers)


def nginx(method: str, uri: str) -> dict[str, str]:
    return {"x-original-method": method, "x-original-uri": uri, "host": "auth.internal"}


def ingress_nginx(method: str, uri: str) -> dict[str, str]:
    return {"x-original-method": method, "x-original-url": f"https://api.example.com{uri}"}


def traefik(method: str, uri: str) -> dict[str, str]:
    return {"x-forwarded-method": method, "x-forwarded-uri": uri, "x-forwarded-host": "api.example.com"}


FORMS = [nginx, ingress_nginx, traefik]
USER, ADMIN = ("alice", "wonderland"), ("bob", "builder")
TABLE = [
    # method, original target, who, the answer
    ("GET", "/public/x", None, PASSED),
    ("GET", "/user/x?role=1", USER, PASSED),
    ("POST", "/user/x", USER, PASSED),
    ("GET", "/user/x", None, (401, "missing_token")),
    ("GET", "/admin/x", USER, (403, "insufficient_scope")),
    ("GET", "/admin/x", ADMIN, (403, "insufficient_scope")),
    ("POST", "/admin/x", ADMIN, (405, "method_not_allowed")),
    ("GET", "/elsewhere", USER, (404, "no_route")),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("method", "target", "who", "expected"), TABLE)
def test_each_proxy_gets_what_the_gateway_itself_would_have_answered(
    form: object, method: str, target: str, who: tuple[str, str] | None, expected: tuple[int, str]
) -> None:
    async def run() -> None:
        async with stack() as s:
            headers = form(method, target)  # type: ignore[operator]
            headers |= bearer((await s.login(*who))["access_token"]) if who else {}
            assert told(await ask(s, headers)) == expected

    asyncio.run(run())


@pytest.mark.parametrize(("method", "target", "who", "expected"), TABLE)
def test_envoy_gets_the_same_by_its_path_prefix(
    method: str, target: str, who: tuple[str, str] | None, expected: tuple[int, str]
) -> None:
    async def run() -> None:
        async with stack() as s:
            headers = bearer((await s.login(*who))["access_token"]) if who else {}
            assert told(await ask(s, headers, f"/auth/verify{target}", method)) == expected

    asyncio.run(run())


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND"])
def test_the_sub_request_may_have_any_method(method: str) -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            response = await ask(s, nginx("GET", "/user/x") | bearer(token), method=method)
            assert response.status_code == 200
            assert response.headers["x-auth-request-user"] == "u-1"

    asyncio.run(run())


def test_identity_headers_are_set_and_those_without_a_claim_are_blanked() -> None:
    async def run() -> None:
        async with stack() as s:
            alice, bob = await s.login(), await s.login(*ADMIN)
            first = await ask(s, nginx("GET", "/user/x") | bearer(alice["access_token"]))
            assert first.headers["x-auth-request-user"] == "u-1"
            assert first.headers["x-auth-request-email"] == "alice@example.com"
            second = await ask(s, nginx("GET", "/user/x") | bearer(bob["access_token"]))
            assert second.headers["x-auth-request-email"] == ""
            nobody = await ask(s, nginx("GET", "/public/x"))
            assert nobody.headers["x-auth-request-user"] == ""

    asyncio.run(run())


@pytest.mark.parametrize("form", FORMS)
def test_an_untrusted_peer_that_names_the_original_request_is_refused(form: object) -> None:
    """Nothing public opens for it, and nothing weaker than a route's rule is answered in the route's place."""

    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            for target in ("/public/x", "/user/x", "/admin/x"):
                headers = form("GET", target) | bearer(token)  # type: ignore[operator]
                assert code(await s.client.get("/auth/verify", headers=headers)) == (400, "bad_request")
            assert code(await s.client.get("/auth/verify/public/x")) == (400, "bad_request")

    asyncio.run(run())


def test_the_peer_counts_and_not_the_client_that_it_forwards_for() -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]

            for peer, expected in ((PROXY, PASSED), ("203.0.113.5", (400, "bad_request"))):
                transport = httpx.ASGITransport(behind(s.app, peer), client=(PROXY, 1))
                async with httpx.AsyncClient(transport=transport, base_url="http://auth.internal") as client:
                    headers = nginx("GET", "/user/x") | bearer(token)
                    assert told(await client.get("/auth/verify", headers=headers)) == expected

    asyncio.run(run())


def behind(app: ASGIApp, peer: str) -> ASGIApp:
    """Return the application with `peer` at the other end of the connection, as the data plane says it."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"peer": peer}
        await app(scope, receive, send)

    return wrapped


DISAGREE = [
    {"x-original-method": "GET", "x-original-uri": "/user/x", "x-forwarded-uri": "/public/x"},
    {"x-original-method": "GET", "x-original-uri": "/user/x", "x-original-url": "https://api.example.com/public/x"},
    {"x-original-method": "GET", "x-forwarded-method": "POST", "x-original-uri": "/user/x"},
    {
        "x-original-method": "GET",
        "x-original-url": "https://api.example.com/user/x",
        "x-forwarded-host": "other.example",
    },
    {"x-original-method": "GET"},
    {"x-original-uri": "/user/x"},
    {"x-forwarded-uri": "/public/x"},
    {"x-original-method": "", "x-original-uri": "/public/x"},
    {"x-original-method": "GE T", "x-original-uri": "/public/x"},
    {"x-original-method": "GET", "x-original-uri": ""},
    {"x-original-method": "GET", "x-original-uri": "public/x"},
    {"x-original-method": "GET", "x-original-url": "ftp://api.example.com/public/x"},
    {"x-original-method": "GET", "x-original-url": "https://user@api.example.com/public/x"},
    {"x-original-method": "GET", "x-original-url": "https:///public/x"},
    {"x-forwarded-method": "GET", "x-forwarded-uri": "/public/x", "x-forwarded-host": "a.example, b.example"},
]


@pytest.mark.parametrize("headers", DISAGREE)
def test_statements_that_disagree_or_are_incomplete_are_refused(headers: dict[str, str]) -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            assert code(await ask(s, headers | bearer(token))) == (400, "bad_request")

    asyncio.run(run())


def test_one_statement_sent_twice_is_refused_unless_both_say_the_same() -> None:
    async def run() -> None:
        async with stack() as s:
            method = ("x-original-method", "GET")
            same = [method, ("x-original-uri", "/public/x"), ("x-original-uri", "/public/x")]
            other = [method, ("x-original-uri", "/user/x"), ("x-original-uri", "/public/x")]
            assert told(await ask(s, same)) == PASSED
            assert told(await ask(s, other)) == (400, "bad_request")

    asyncio.run(run())


def test_envoys_path_and_a_header_that_says_otherwise_are_refused() -> None:
    async def run() -> None:
        async with stack() as s:
            for headers in ({"x-original-uri": "/public/x"}, {"x-forwarded-method": "POST"}):
                assert code(await ask(s, headers, "/auth/verify/user/x")) == (400, "bad_request")
            same = {"x-original-uri": "/public/x", "x-original-method": "GET"}
            assert told(await ask(s, same, "/auth/verify/public/x")) == PASSED

    asyncio.run(run())


def test_envoys_path_is_handed_on_as_it_came() -> None:
    """An escaped slash or a dot segment must reach the one normal form that routes are matched with."""
    seen: list[bytes] = []

    async def run() -> None:
        async with stack() as s:

            def match(host: bytes, path: bytes, method: bytes) -> AccessRule:
                seen.append(path)
                return AccessRule("none", frozenset(), frozenset(), live=False)

            object.__setattr__(s.services, "match", match)
            for path in ("/a%2Fb", "/a/%2e%2e/b", "/a//b", "/", "/a;b?c=/d"):
                assert told(await ask(s, {}, f"/auth/verify{path}")) == PASSED

    asyncio.run(run())
    assert seen == [b"/a%2Fb", b"/a/%2e%2e/b", b"/a//b", b"/", b"/a;b"]


def test_the_host_narrows_the_route_and_its_port_does_not() -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            url = {"x-original-method": "GET", "x-original-url": "https://Other.Example:8443/user/x"}
            assert told(await ask(s, url | bearer(token))) == (404, "no_route")
            ported = traefik("GET", "/user/x") | {"x-original-url": "https://api.example.com:8443/user/x"}
            assert told(await ask(s, ported | bearer(token))) == PASSED

    asyncio.run(run())


OPERATORS = [
    ("", PASSED),
    ("?roles=user", PASSED),
    ("?roles=admin,user", PASSED),
    ("?scopes=orders:read", PASSED),
    ("?roles=user&scopes=orders:read", PASSED),
    ("?roles=admin", (403, "insufficient_scope")),
    ("?scopes=orders:read,orders:write", (403, "insufficient_scope")),
    ("?roles=user&scopes=orders:write", (403, "insufficient_scope")),
    ("?role=admin", (400, "bad_request")),
    ("?roles=", (400, "bad_request")),
    ("?roles=,", (400, "bad_request")),
    ("?roles=user&roles=admin", (400, "bad_request")),
    ("?roles=user&other=1", (400, "bad_request")),
]


@pytest.mark.parametrize(("query", "expected"), OPERATORS)
def test_without_a_statement_the_token_must_be_valid_and_meet_the_operators_query(
    query: str, expected: tuple[int, str]
) -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            for client in (s.client, s.from_peer(PROXY)):
                assert told(await client.get(f"/auth/verify{query}", headers=bearer(token))) == expected
            if expected[0] != 400:
                assert told(await s.client.get(f"/auth/verify{query}")) == (401, "missing_token")

    asyncio.run(run())


def test_a_forged_statement_does_not_lift_the_operators_query() -> None:
    """nginx passes a client's own X-Original-* on where its configuration neither sets nor clears them."""

    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            for forged in (nginx("GET", "/public/x"), traefik("GET", "/public/x?roles=admin")):
                missing = await ask(s, forged, "/auth/verify?roles=admin")
                assert told(missing) == (401, "missing_token")
                lacking = await ask(s, forged | bearer(token), "/auth/verify?roles=admin")
                assert told(lacking) == (403, "insufficient_scope")

    asyncio.run(run())


def test_a_query_carried_over_from_the_client_cannot_lift_the_routes_rule() -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            headers = traefik("GET", "/admin/x?roles=user") | bearer(token)
            assert told(await ask(s, headers, "/auth/verify?roles=user")) == (403, "insufficient_scope")

    asyncio.run(run())


def test_with_envoy_the_query_is_the_clients_and_counts_for_nothing() -> None:
    async def run() -> None:
        async with stack() as s:
            token = (await s.login())["access_token"]
            for path, expected in (
                ("/user/x?roles=nobody", PASSED),
                ("/admin/x?roles=user", (403, "insufficient_scope")),
            ):
                assert told(await ask(s, bearer(token), f"/auth/verify{path}")) == expected

    asyncio.run(run())


def test_the_four_failures_of_a_token_are_told_apart_with_the_gateways_challenge() -> None:
    async def run() -> None:
        async with stack() as s:
            body = await s.login()
            headers = nginx("GET", "/user/x") | bearer(body["access_token"])
            s.clock.ahead = 601
            expired = await ask(s, headers)
            assert told(expired) == (401, "expired_token")
            assert "The access token expired" in expired.headers["www-authenticate"]
            s.clock.ahead = 0
            await s.store.end(body["session_id"])
            assert told(await ask(s, headers)) == (401, "revoked_token")

    asyncio.run(run())
