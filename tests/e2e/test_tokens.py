"""What a guarded route answers to every kind of credential, word for word (contract 5)."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import AUDIENCE, Gateway, Site
from tests.e2e.wire import Client, ask, json_request, request

REALM = f'Bearer realm="{AUDIENCE}"'
INVALID = f'{REALM}, error="invalid_token", error_description="The access token is not valid"'
EXPIRED = f'{REALM}, error="invalid_token", error_description="The access token expired"'


def minted(site: Site, *, now: float | None = None, **options: Any) -> str:
    """Return a token with the gateway's own signature over claims that it would not make."""
    session = options.pop("session_id", "0" + "A" * 22)
    return (
        site.signer(**options)
        .mint(
            subject="u-alice",
            session_id=session,
            counter=0,
            roles=["user", "admin"],
            scope="orders:read orders:write",
            claims={},
            now=time.time() if now is None else now,
        )
        .token
    )


def tampered(token: str) -> str:
    head, payload, signature = token.split(".")
    return f"{head}.{payload}.{signature[::-1]}"


WRONG: dict[str, Any] = {
    "no scheme": lambda token: [("Authorization", token)],
    "no token": lambda _: [("Authorization", "Bearer")],
    "an empty token": lambda _: [("Authorization", "Bearer ")],
    "a word": lambda _: [("Authorization", "Bearer x")],
    "dots": lambda _: [("Authorization", "Bearer ...")],
    "two segments": lambda token: [("Authorization", "Bearer " + token.rpartition(".")[0])],
    "four segments": lambda token: [("Authorization", f"Bearer {token}.x")],
    "a wrong signature": lambda token: [("Authorization", "Bearer " + tampered(token))],
    "padding": lambda token: [("Authorization", f"Bearer {token}==")],
    "a space inside": lambda token: [("Authorization", f"Bearer {token[:20]} {token[20:]}")],
    "a list": lambda token: [("Authorization", f"Bearer {token}, Bearer {token}")],
    "quotes": lambda token: [("Authorization", f'Bearer "{token}"')],
    "non-ascii": lambda token: [("Authorization", f"Bearer {token}\u00e9")],
    "twice": lambda token: [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")],
    "twice, two spellings": lambda token: [("Authorization", f"Bearer {token}"), ("AUTHORIZATION", "Basic eDp5")],
    "8 KiB and more": lambda token: [("Authorization", "Bearer " + token + "A" * 8193)],
    "20 KiB": lambda _: [("Authorization", "Bearer " + "A." * 10_000)],
    "no algorithm": lambda token: [("Authorization", "Bearer eyJhbGciOiJub25lIn0." + token.split(".")[1] + ".")],
    "a deep header": lambda _: [("Authorization", "Bearer " + "W1tbW1tbW1tb" * 400 + ".e30.e30")],
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("prefix", ["/guarded", "/optional", "/unlive", "/admin", "/private"])
def test_a_bad_credential_is_an_invalid_token(gateway: Gateway, backend: Backend, kind: str, prefix: str) -> None:
    spot = backend.spot()
    answer = ask(gateway.port, request("GET", spot.path(prefix), WRONG[kind](gateway.token)))
    assert answer.error == (401, "invalid_token")
    assert answer.get("www-authenticate") == INVALID
    assert answer.json()["error_description"] == "The access token is not valid"
    assert spot.calls() == []


MISSING: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "another scheme": [("Authorization", "Basic eDp5")],
    "in the query": [("X-Nothing", "1")],
    "another header": [("X-Authorization", "Bearer x"), ("Proxy-Authorization", "Bearer x")],
}


@pytest.mark.parametrize("kind", MISSING)
def test_no_credential_is_a_missing_token(gateway: Gateway, backend: Backend, kind: str) -> None:
    spot = backend.spot()
    target = spot.path("/guarded") + f"?access_token={gateway.token}"
    answer = ask(gateway.port, request("GET", target, MISSING[kind]))
    assert answer.error == (401, "missing_token")
    assert answer.get("www-authenticate") == REALM  # RFC 6750 3.1: no error code
    assert spot.calls() == []


def test_an_expired_token_is_told_apart(gateway: Gateway, site: Site, backend: Backend) -> None:
    spot = backend.spot()
    old = minted(site, now=time.time() - 1000)
    for prefix in ("/guarded", "/optional", "/unlive"):
        answer = ask(gateway.port, request("GET", spot.path(prefix), token=old))
        assert answer.error == (401, "expired_token")
        assert answer.get("www-authenticate") == EXPIRED
        assert answer.json() == {"error": "expired_token", "error_description": "The access token expired"}
    assert ask(gateway.port, request("GET", spot.path("/guarded"), token=tampered(old))).error[1] == "invalid_token"
    assert spot.calls() == []


@pytest.mark.parametrize(
    "options",
    [{"audience": "another"}, {"issuer": "https://evil.test"}, {"now": time.time() + 1000}],
    ids=["audience", "issuer", "from the future"],
)
def test_a_token_for_someone_else_is_invalid(
    gateway: Gateway, site: Site, backend: Backend, options: dict[str, Any]
) -> None:
    spot = backend.spot()
    answer = ask(gateway.port, request("GET", spot.path("/guarded"), token=minted(site, **options)))
    assert (answer.error, answer.get("www-authenticate")) == ((401, "invalid_token"), INVALID)
    assert spot.calls() == []


def test_a_token_of_another_gateways_key_is_invalid(gateway: Gateway, site: Site) -> None:
    with Site(site.redis_url) as other:
        token = minted(other)
    assert ask(gateway.port, request("GET", "/guarded/x", token=token)).error == (401, "invalid_token")


def test_a_token_whose_session_redis_does_not_know_is_revoked(gateway: Gateway, site: Site, backend: Backend) -> None:
    spot = backend.spot()
    token = minted(site)
    answer = ask(gateway.port, request("GET", spot.path("/guarded"), token=token))
    assert answer.error == (401, "revoked_token")
    challenge = f'{REALM}, error="invalid_token", error_description="The session has ended"'
    assert answer.get("www-authenticate") == challenge
    assert spot.calls() == []


def test_a_refresh_token_is_no_access_token(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    refresh = gateway.login("bob")["refresh_token"]
    answer = ask(gateway.port, request("GET", spot.path("/guarded"), token=refresh))
    assert answer.error == (401, "invalid_token")
    assert spot.calls() == []


def test_an_access_token_is_no_refresh_token(gateway: Gateway) -> None:
    assert gateway.refresh(gateway.token).error == (400, "invalid_grant")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR", "Bearer "])
def test_the_scheme_is_read_in_any_case(gateway: Gateway, backend: Backend, scheme: str) -> None:
    spot = backend.spot()
    headers = {"Authorization": f"{scheme} {gateway.token}"}
    assert ask(gateway.port, request("GET", spot.path("/guarded"), headers)).status == 200


def test_roles_and_scopes_are_needed(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    bob = gateway.login("bob")["access_token"]
    answer = ask(gateway.port, request("GET", spot.path("/admin"), token=bob))
    assert answer.error == (403, "insufficient_scope")
    assert answer.get("www-authenticate") == f'{REALM}, error="insufficient_scope"'
    answer = ask(gateway.port, request("GET", spot.path("/writers"), token=bob))
    assert answer.error == (403, "insufficient_scope")
    assert answer.get("www-authenticate") == f'{REALM}, error="insufficient_scope", scope="orders:read orders:write"'
    assert spot.calls() == []
    for prefix in ("/admin", "/writers"):
        assert ask(gateway.port, request("GET", spot.path(prefix), token=gateway.token)).status == 200


def test_a_revoked_token_is_told_so_and_not_what_it_lacks(gateway: Gateway) -> None:
    token = gateway.login("bob")["access_token"]
    assert ask(gateway.port, request("POST", "/auth/logout", token=token)).status == 204
    assert ask(gateway.port, request("GET", "/admin/x", token=token)).error == (401, "revoked_token")


def test_a_method_that_a_route_does_not_take_is_a_405(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for method in ("POST", "DELETE", "OPTIONS"):
        answer = ask(gateway.port, request(method, spot.path("/reading")))
        assert answer.error == (405, "method_not_allowed")
        assert answer.get("allow") == "GET, HEAD"
    assert spot.calls() == []
    assert ask(gateway.port, request("HEAD", spot.path("/reading"))).status == 200


@pytest.mark.parametrize("path", ["/", "/nowhere", "/rawhide/x", "/guardedx", "/?/raw/x"])
def test_an_address_without_a_route_is_a_404(gateway: Gateway, path: str) -> None:
    answer = ask(gateway.port, request("GET", path, token=gateway.token))
    assert answer.error == (404, "no_route")


def test_an_error_answer_to_head_has_no_body(gateway: Gateway) -> None:
    with Client(gateway.port) as client:
        for path, status in (("/guarded/x", 401), ("/closed/x", 502), ("/guarded/x", 401), ("/nowhere", 404)):
            answer = client.ask(request("HEAD", path))
            assert (answer.status, answer.body) == (status, b"")
            assert int(answer.get("content-length")) > 0
            if answer.get("connection") == "close":
                assert client.ended()
                break


def test_an_optional_route_takes_a_good_token_or_none(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    assert ask(gateway.port, request("GET", spot.path("/optional"))).status == 200
    assert ask(gateway.port, request("GET", spot.path("/optional"), token=gateway.token)).status == 200
    assert [call.all("x-auth-request-user") for call in spot.calls(2)] == [[], ["u-alice"]]
    ended = gateway.login("bob")["access_token"]
    assert ask(gateway.port, request("POST", "/auth/logout", token=ended)).status == 204
    assert ask(gateway.port, request("GET", spot.path("/optional"), token=ended)).error == (401, "revoked_token")


def test_an_open_route_looks_at_no_token(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for value in ("Bearer nonsense", "Basic eDp5", "nonsense"):
        assert ask(gateway.port, request("GET", spot.path(), {"Authorization": value})).status == 200
    calls = spot.calls(3)
    assert [call.get("authorization") for call in calls] == ["Bearer nonsense", "Basic eDp5", "nonsense"]
    assert [call.all("x-auth-request-user") for call in calls] == [[], [], []]


def test_a_route_without_revocation_goes_by_signature_and_expiry(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    token = gateway.login("bob")["access_token"]
    assert ask(gateway.port, request("POST", "/auth/logout", token=token)).status == 204
    assert ask(gateway.port, request("GET", spot.path("/guarded"), token=token)).error == (401, "revoked_token")
    assert ask(gateway.port, request("GET", spot.path("/unlive"), token=token)).status == 200


def test_a_single_token_can_be_revoked_while_its_session_lives(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    tokens = gateway.login("bob")
    first = tokens["access_token"]
    second = gateway.refresh(tokens["refresh_token"]).json()["access_token"]
    assert gateway.operate("POST", "/admin/revoke", {"token": first}).status in (200, 204)
    assert ask(gateway.port, request("GET", spot.path("/guarded"), token=first)).error == (401, "revoked_token")
    assert ask(gateway.port, request("GET", spot.path("/guarded"), token=second)).status == 200


def test_every_session_of_a_user_can_be_ended_at_once(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    tokens = [gateway.login("odd")["access_token"] for _ in range(3)]
    assert ask(gateway.port, request("DELETE", "/auth/sessions?except=current", token=tokens[0])).status == 204
    asked = [ask(gateway.port, request("GET", spot.path("/guarded"), token=token)) for token in tokens]
    assert [answer.status for answer in asked] == [200, 401, 401]
    assert gateway.operate("DELETE", "/admin/users/u-odd/sessions").status == 204
    assert ask(gateway.port, request("GET", spot.path("/guarded"), token=tokens[0])).error == (401, "revoked_token")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b'{"username":1,"password":"x"}',
        b'{"username":"alice"}',
        b"\xff",
        b"[" * 5000,
    ],
)
def test_a_login_that_is_no_object_of_strings_is_an_invalid_request(gateway: Gateway, body: bytes) -> None:
    answer = ask(gateway.port, request("POST", "/auth/login", {"Content-Type": "application/json"}, body))
    assert answer.error == (400, "invalid_request")
    assert answer.all("www-authenticate") == []


def test_a_wrong_password_has_no_challenge(gateway: Gateway) -> None:
    for user in ("alice", "nobody"):
        answer = ask(gateway.port, json_request("POST", "/auth/login", {"username": user, "password": "wrong"}))
        assert answer.error == (401, "invalid_credentials")
        assert answer.all("www-authenticate") == []


def test_no_credential_stands_in_the_log(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    tokens = gateway.login("bob")
    ask(gateway.port, request("GET", spot.path("/guarded") + "?secret=query", token=tokens["access_token"]))
    gateway.refresh(tokens["refresh_token"])
    ask(gateway.port, request("POST", "/auth/logout", token=tokens["access_token"]))
    log = gateway.log
    for secret in (tokens["access_token"], tokens["refresh_token"], "correct horse", "secret=query"):
        assert secret not in log
    assert {line["event"] for line in gateway.log_lines() if "event" in line} >= {"login", "logout"}
