"""Tokens of another issuer at two gateways: accepted, revocable at once, never taken for one of the gateway's own."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call, Spot
from tests.e2e.harness import AUDIENCE, ISSUER, Gateway, Site, route, until
from tests.e2e.wire import Answer, ask, json_request, request
from tests.issuer import Issuer, issuer
from tests.redis_server import RedisServer
from tests.tokens.support import ABSENT

CLIENT = "orders"
SECRET = "orders-secret"


@pytest.fixture(scope="module")
def idp() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


def gateway_options(idp: Issuer, backend: Backend, **more: Any) -> dict[str, Any]:
    """Return sections for a gateway that accepts this issuer's tokens; `more` are keys of its [[issuers]]."""
    backend._spots.setdefault("x", Spot("x", Call.reply))
    routes = [
        route("/guarded/", backend.url),
        route("/unlive/", backend.url, revocation="none"),
        route("/users/", backend.url, roles_any=["user"], scopes_all=["orders:read"]),
        route("/admins/", backend.url, roles_any=["admin"]),
        route("/refreshing/", backend.url, on_expired="refresh"),
    ]
    return {
        "routes": routes,
        "issuers": [idp.settings(**({"jwks_timeout": "2s"} | more))],
        "cookies": {"refresh": "__Secure-refresh", "access": "__Host-access"},
    }


@pytest.fixture(scope="module")
def pair(site: Site, backend: Backend, idp: Issuer) -> Iterator[tuple[Gateway, Gateway]]:
    options = gateway_options(idp, backend)
    with site.serve(**options) as one, site.serve(**options) as two:
        yield one, two


def get(gateway: Gateway, token: str, path: str = "/guarded/x") -> Answer:
    return ask(gateway.port, request("GET", path, token=token))


def test_a_token_passes_in_every_replica_and_the_backend_learns_whose_it_is(
    pair: tuple[Gateway, Gateway], idp: Issuer, backend: Backend
) -> None:
    for gateway in pair:
        spot = backend.spot()
        assert get(gateway, idp.token(sid="s-1", n=1), spot.path("/users")).status == 200
        call = spot.call()
        assert call.get("x-auth-request-user") == "f-1"
        assert call.get("x-auth-request-groups") == "user"
        assert call.get("x-auth-request-email") == "f@example.com"
        assert call.all("x-auth-request-session") == []


def test_roles_and_scopes_count_as_for_our_own(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    assert get(pair[0], idp.token(), "/admins/x").error == (403, "insufficient_scope")
    assert get(pair[0], idp.token(roles="user admin"), "/admins/x").status == 200
    assert get(pair[0], idp.token(roles={"admin": True}), "/admins/x").error == (403, "insufficient_scope")
    assert get(pair[0], idp.token(scope="openid"), "/users/x").error == (403, "insufficient_scope")


def unsigned(idp: Issuer, **header: Any) -> str:
    head, payload, _ = idp.token(header=header).split(".")
    return f"{head}.{payload}."


REFUSED: dict[str, Any] = {
    "another audience": lambda idp: idp.token(aud="other"),
    "another audience among several": lambda idp: idp.token(aud=["account", "other"]),
    "another issuer": lambda idp: idp.token(iss="https://evil.example"),
    "our own name as the issuer": lambda idp: idp.token(iss=ISSUER),
    "no time of issue": lambda idp: idp.token(iat=ABSENT),
    "a time of issue in the future": lambda idp: idp.token(iat=int(time.time()) + 60),
    "no expiry": lambda idp: idp.token(exp=ABSENT),
    "a life that is too long": lambda idp: idp.token(exp=int(time.time()) + 86500),
    "not valid yet": lambda idp: idp.token(nbf=int(time.time()) + 60),
    "a refresh token's type": lambda idp: idp.token(header={"typ": "rt+jwt"}),
    "no signature": unsigned,
    "no algorithm": lambda idp: unsigned(idp, alg="none"),
    "a secret's algorithm": lambda idp: idp.token(header={"alg": "HS256"}),
    "a critical extension": lambda idp: idp.token(header={"crit": ["exp"]}),
    "bound to a key": lambda idp: idp.token(cnf={"jkt": "x"}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_token_that_is_not_all_good_is_invalid(
    pair: tuple[Gateway, Gateway], idp: Issuer, backend: Backend, kind: str
) -> None:
    spot = backend.spot()
    for path in ("/guarded", "/unlive"):
        assert get(pair[0], REFUSED[kind](idp), spot.path(path)).error == (401, "invalid_token")
    assert spot.calls() == []


def test_a_key_that_the_token_brings_along_is_not_used(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    with issuer() as evil:
        for header in (
            {"jku": evil.jwks_url, "kid": idp.signing.kid},
            {"jwk": evil.signing.jwk(), "kid": idp.signing.kid},
            {"x5u": evil.jwks_url, "kid": idp.signing.kid},
        ):
            forged = idp.token(evil.signing, header)
            assert get(pair[0], forged).error == (401, "invalid_token")
        assert evil.fetches == 0


def test_an_expired_token_is_called_so(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    now = int(time.time())
    for _ in range(3):
        assert get(pair[0], idp.token(iat=now - 600, exp=now - 60)).error == (401, "expired_token")


def test_an_expired_token_of_another_issuer_is_never_refreshed(
    pair: tuple[Gateway, Gateway], idp: Issuer, backend: Backend
) -> None:
    """Whatever refresh cookie comes with it: nobody knows that they belong together."""
    spot = backend.spot()
    login = ask(pair[0].port, json_request("POST", "/auth/login", LOGIN | {"refresh_in": "cookie"}))
    cookies = dict(line.split(";")[0].split("=", 1) for line in login.all("set-cookie"))
    sid, now = login.json()["session_id"], int(time.time())
    expired = idp.token(iat=now - 600, exp=now - 60, sid=sid, sub="u-alice", n=0)
    refresh = f"__Secure-refresh={cookies['__Secure-refresh']}"
    for headers in (
        {"Authorization": f"Bearer {expired}", "Cookie": refresh},
        {"Cookie": f"__Host-access={expired}; {refresh}"},
    ):
        answer = ask(pair[0].port, request("GET", spot.path("/refreshing"), headers))
        assert answer.error == (401, "expired_token")
        assert answer.all("set-cookie") == []
    assert spot.calls() == []


LOGIN = {"username": "alice", "password": "correct horse"}


# --- revocation ---


def test_a_revoked_token_is_refused_by_the_very_next_request_in_every_replica(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    one, two = pair
    for jti in ({}, {"jti": ABSENT}, {"jti": "j" * 255}):
        token, other = idp.token(**jti), idp.token(**(jti if jti.get("jti") is not ABSENT else {}), nonce="2")
        assert get(two, token).status == 200
        assert ask(one.port, request("POST", "/auth/revoke", FORM, f"token={token}".encode())).status == 200
        assert get(two, token).error == (401, "revoked_token")
        assert get(one, token).error == (401, "revoked_token")
        assert get(one, token, "/unlive/x").status == 200
        if jti.get("jti") is ABSENT:
            assert get(two, other).status == 200


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_a_sign_out_revokes_the_token_that_it_comes_with_and_no_other(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    one, two = pair
    token, other = idp.token(), idp.token()
    assert ask(one.port, request("POST", "/auth/logout", token=token)).status == 204
    assert get(two, token).error == (401, "revoked_token")
    assert get(two, other).status == 200
    assert ask(one.port, request("POST", "/auth/logout", token=token)).status == 204


def test_to_sign_out_everywhere_voids_what_the_issuer_gave_the_user_until_then(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    one, two = pair
    mine, also, others = idp.token(sub="f-out"), idp.token(sub="f-out"), idp.token(sub="f-other")
    assert ask(one.port, request("DELETE", "/auth/sessions", token=mine)).status == 204
    assert [get(two, token).status for token in (mine, also, others)] == [401, 401, 200]
    assert get(two, also).error == (401, "revoked_token")
    until(lambda: get(two, idp.token(sub="f-out")).status == 200, "a token of a later second passes")
    assert get(two, also).error == (401, "revoked_token")


def test_a_token_from_a_clock_that_is_ahead_is_void_too_when_its_owner_signs_out(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    ahead = idp.token(sub="f-ahead", iat=int(time.time()) + 5)
    assert ask(pair[0].port, request("DELETE", "/auth/sessions", token=ahead)).status == 204
    assert get(pair[1], ahead).error == (401, "revoked_token")


def test_operators_revoke_by_token_by_jti_and_by_subject(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    one, two = pair
    token = idp.token(sub="f-op")
    assert one.operate("POST", "/admin/revoke", {"token": token}).status == 204
    assert get(two, token).error == (401, "revoked_token")
    token = idp.token(sub="f-op", jti="ID.7/x+y")
    content = {"jti": "ID.7/x+y", "exp": int(time.time()) + 600}
    assert one.operate("POST", "/admin/revoke", content).status == 204
    assert get(two, token).status == 200  # a jti of ours, that would be
    assert one.operate("POST", "/admin/revoke", content | {"issuer": idp.name}).status == 204
    assert get(two, token).error == (401, "revoked_token")
    token = idp.token(sub="f/op|x")
    query = f"?issuer={idp.name}"
    assert one.operate("DELETE", f"/admin/users/f/op|x/sessions{query}".replace("|", "%7C")).status == 204
    assert get(two, token).error == (401, "revoked_token")


@pytest.mark.parametrize("query", ["?issuer=https://evil.example", "?issuer=", "?x=1", "?issuer=a&issuer=b"])
def test_an_issuer_that_is_not_configured_has_no_users_to_void(pair: tuple[Gateway, Gateway], query: str) -> None:
    assert pair[0].operate("DELETE", f"/admin/users/f-1/sessions{query}").error == (400, "invalid_request")
    content = {"jti": "x", "exp": int(time.time()) + 600, "issuer": "https://evil.example"}
    assert pair[0].operate("POST", "/admin/revoke", content).error == (400, "invalid_request")


def test_a_user_of_another_issuer_is_not_the_local_user_of_the_same_name(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    one, two = pair
    tokens = one.login("alice")
    namesake = idp.token(sub="u-alice")
    listed = ask(one.port, request("GET", "/auth/sessions", token=namesake))
    assert (listed.status, listed.json()) == (200, {"sessions": []})
    one_session = f"/auth/sessions/{tokens['session_id']}"
    assert ask(one.port, request("DELETE", one_session, token=namesake)).error == (404, "not_found")
    but_this = ask(one.port, request("DELETE", "/auth/sessions?except=current", token=namesake))
    assert but_this.error == (400, "invalid_request")
    assert ask(one.port, request("DELETE", "/auth/sessions", token=namesake)).status == 204
    assert get(two, namesake).error == (401, "revoked_token")
    assert get(two, tokens["access_token"]).status == 200
    assert one.operate("DELETE", f"/admin/users/u-alice/sessions?issuer={idp.name}").status == 204
    assert get(two, tokens["access_token"]).status == 200
    forged = idp.token(sub="u-alice", sid=tokens["session_id"])
    ask(one.port, request("POST", "/auth/logout", token=forged))
    assert get(two, tokens["access_token"]).status == 200


def test_the_issuers_revocations_do_not_touch_tokens_of_ours(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    token = pair[0].login("bob")["access_token"]
    said = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    twin = idp.token(jti=said["jti"], sub="u-bob")
    assert ask(pair[0].port, request("POST", "/auth/revoke", FORM, f"token={twin}".encode())).status == 200
    assert get(pair[1], twin).error == (401, "revoked_token")
    assert get(pair[1], token).status == 200


def test_the_api_tells_the_claims_of_such_a_token(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    token = idp.token(sid="s-1", roles="user admin")
    answer = ask(pair[0].port, request("GET", "/auth/me", token=token))
    assert answer.status == 200
    said = answer.json()
    assert (said["iss"], said["sub"], said["roles"]) == (idp.name, "f-1", ["user", "admin"])
    assert "sid" not in said
    assert ask(pair[0].port, request("GET", "/auth/verify", token=token)).get("x-auth-request-user") == "f-1"


def test_a_store_that_was_emptied_voids_the_tokens_that_are_older(
    own_redis: RedisServer, backend: Backend, idp: Issuer
) -> None:
    """Whatever was revoked in it is forgotten, so nothing of that time may pass."""
    options = gateway_options(idp, backend) | {"tokens": {"leeway": "1s"}}
    with Site(own_redis.url) as site, site.age_store().serve(**options) as gateway:
        revoked, living = idp.token(), idp.token()
        assert ask(gateway.port, request("POST", "/auth/logout", token=revoked)).status == 204
        assert get(gateway, living).status == 200
        client = own_redis.client()
        client.flushall()
        client.close()
        gateway.login("alice")  # the store is in use again
        for token in (revoked, living):
            assert get(gateway, token).error == (401, "revoked_token")
        until(lambda: get(gateway, idp.token()).status == 200, "tokens of the new time pass")
        for token in (revoked, living):
            assert get(gateway, token).error == (401, "revoked_token")


def test_a_revoked_token_from_a_clock_that_is_ahead_does_not_come_back_with_an_emptied_store(
    own_redis: RedisServer, backend: Backend, idp: Issuer
) -> None:
    """It is dated later than the new store. Until a token can be had that surely is younger, nobody is sent for one."""
    options = gateway_options(idp, backend) | {"tokens": {"leeway": "3s"}}
    with Site(own_redis.url) as site, site.age_store().serve(**options) as gateway:
        ahead = idp.token(iat=int(time.time()) + 3)
        assert get(gateway, ahead).status == 200
        assert ask(gateway.port, request("POST", "/auth/logout", token=ahead)).status == 204
        with own_redis.client() as client:
            client.flushall()
            until(lambda: len(client.keys(f"{site.prefix}:*:epoch")) == 16, "the store has begun anew")
        seen: list[tuple[int, str]] = []
        while not seen or seen[-1] == (503, "store_unavailable"):
            answer = get(gateway, ahead)
            assert answer.get("retry-after") or answer.status == 401
            seen.append(answer.error)
            time.sleep(0.05)
        assert seen[0] == (503, "store_unavailable")
        assert seen[-1] == (401, "revoked_token")
        assert get(gateway, idp.token()).status == 200


def test_an_outage_of_redis_is_told_as_such(own_redis: RedisServer, backend: Backend, idp: Issuer) -> None:
    options = gateway_options(idp, backend) | {"tokens": {"leeway": "1s"}}  # this Redis comes back empty
    with Site(own_redis.url) as site, site.age_store().serve(**options) as gateway:
        token = idp.token()
        assert get(gateway, token).status == 200
        own_redis.stop()
        assert get(gateway, token).error == (503, "store_unavailable")
        assert get(gateway, token, "/unlive/x").status == 200
        assert ask(gateway.port, request("POST", "/auth/logout", token=token)).error == (503, "store_unavailable")
        own_redis.start()
        until(lambda: get(gateway, idp.token()).status == 200, "the store answers again")


def test_introspection_knows_them(site: Site, backend: Backend, idp: Issuer) -> None:
    from gateway.identity.passwords import hash_password

    options = gateway_options(idp, backend) | {"introspection": {"clients": {CLIENT: hash_password(SECRET)}}}
    with site.serve(**options) as gateway:
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()

        def introspect(token: str) -> dict[str, Any]:
            headers = FORM | {"Authorization": f"Basic {basic}"}
            answer = ask(gateway.port, request("POST", "/auth/introspect", headers, f"token={token}".encode()))
            assert answer.status == 200
            return dict(answer.json())

        token = idp.token()
        assert introspect(token) | {"active": True, "iss": idp.name, "sub": "f-1"} == introspect(token)
        assert ask(gateway.port, request("POST", "/auth/logout", token=token)).status == 204
        assert introspect(token) == {"active": False}


def test_the_audience_of_the_tests_is_that_of_the_gateway() -> None:
    assert AUDIENCE == "e2e"
