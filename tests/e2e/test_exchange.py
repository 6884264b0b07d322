"""Token exchange (RFC 8693): another issuer's token for a session here, which is then one like any other."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, until
from tests.e2e.test_issuers import FORM, LOGIN, gateway_options, get
from tests.e2e.wire import Answer, ask, json_request, request
from tests.issuer import Issuer, issuer
from tests.tokens.support import ABSENT

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE = "urn:ietf:params:oauth:token-type:"
ACCESS, JWT, ID, REFRESH, SAML = (
    f"{TYPE}{name}" for name in ("access_token", "jwt", "id_token", "refresh_token", "saml2")
)


@pytest.fixture(scope="module")
def idp() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


@pytest.fixture(scope="module")
def pair(site: Site, backend: Backend, idp: Issuer) -> Iterator[tuple[Gateway, Gateway]]:
    options = gateway_options(idp, backend, exchange=True)
    with site.serve(**options) as one, site.serve(**options) as two:
        yield one, two


def exchange(gateway: Gateway, token: str, **parameters: str) -> Answer:
    """Ask for an exchange; a parameter of "" is left out."""
    given = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS} | parameters
    body = urlencode({name: value for name, value in given.items() if value})
    return ask(gateway.port, request("POST", "/auth/token", FORM, body.encode()))


def exchanged(gateway: Gateway, token: str, **parameters: str) -> dict[str, Any]:
    answer = exchange(gateway, token, **parameters)
    assert answer.status == 200, answer
    assert answer.get("cache-control") == "no-store"
    return dict(answer.json())


def me(gateway: Gateway, token: str) -> dict[str, Any]:
    return dict(ask(gateway.port, request("GET", "/auth/me", token=token)).json())


def namespace(idp: Issuer) -> str:
    return f"127.0.0.1:{idp.port}/realms/main|"


def test_a_token_is_exchanged_refreshed_used_and_signed_out(
    pair: tuple[Gateway, Gateway], idp: Issuer, backend: Backend
) -> None:
    one, two = pair
    spot = backend.spot()
    tokens = exchanged(one, idp.token(sub="f-line"))
    assert tokens["issued_token_type"] == ACCESS
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "openid orders:read")
    assert get(two, tokens["access_token"], spot.path("/users")).status == 200
    call = spot.call()
    assert call.get("x-auth-request-user") == f"{namespace(idp)}f-line"
    assert call.get("x-auth-request-email") == "f@example.com"
    assert call.get("x-auth-request-session") == tokens["session_id"]
    renewed = two.refresh(tokens["refresh_token"]).json()
    assert "issued_token_type" not in renewed
    assert me(one, renewed["access_token"])["roles"] == ["user"]
    assert ask(two.port, request("POST", "/auth/logout", token=renewed["access_token"])).status == 204
    for token in (tokens["access_token"], renewed["access_token"]):
        assert get(one, token).error == (401, "revoked_token")
    assert one.refresh(renewed["refresh_token"]).error == (400, "invalid_grant")


def test_the_session_says_what_the_gateway_says_and_takes_over_what_was_configured(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    subject = idp.token(sid="0" * 23, n=7, client_id="evil", tenant="t-1", roles="user admin")
    said = me(pair[0], exchanged(pair[0], subject)["access_token"])
    assert said["iss"] == "https://gateway.test"
    assert (said["sub"], said["roles"], said["email"]) == (f"{namespace(idp)}f-1", ["user", "admin"], "f@example.com")
    assert said["sid"] != "0" * 23
    assert said["n"] == 0
    assert {"client_id", "tenant"} & said.keys() == set()


@pytest.mark.parametrize("kind", [ACCESS, JWT, ID])
def test_a_subject_token_may_be_called_by_each_of_its_names(
    pair: tuple[Gateway, Gateway], idp: Issuer, kind: str
) -> None:
    assert "access_token" in exchanged(pair[0], idp.token(), subject_token_type=kind)


def test_an_exchange_may_come_as_json(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    content = {"grant_type": GRANT, "subject_token": idp.token(), "subject_token_type": ACCESS, "device": "phone"}
    assert ask(pair[0].port, json_request("POST", "/auth/token", content)).status == 200


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token_type": REFRESH}, "invalid_request"),
        ({"subject_token_type": SAML}, "invalid_request"),
        ({"requested_token_type": SAML}, "invalid_request"),
        ({"requested_token_type": REFRESH}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": JWT}, "invalid_request"),
        ({"audience": "elsewhere"}, "invalid_target"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
        ({"scope": "orders:write"}, "invalid_scope"),
        ({"refresh_in": "both"}, "invalid_request"),
        ({"device": "x" * 256}, "invalid_request"),
        ({"grant_type": GRANT + "2"}, "unsupported_grant_type"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_name(
    pair: tuple[Gateway, Gateway], idp: Issuer, parameters: dict[str, str], error: str
) -> None:
    assert exchange(pair[0], idp.token(), **parameters).error == (400, error)


def test_the_audience_may_be_named_and_the_scope_narrowed(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    tokens = exchanged(pair[0], idp.token(), audience="e2e", scope="orders:read", requested_token_type=JWT)
    assert tokens["scope"] == "orders:read"
    assert me(pair[0], tokens["access_token"])["scope"] == "orders:read"


def now() -> int:
    return int(time.time())


NOT_EXCHANGED: dict[str, Any] = {
    "garbage": lambda idp: "x.y.z",
    "an expired token": lambda idp: idp.token(iat=now() - 600, exp=now() - 60),
    "another audience": lambda idp: idp.token(aud="other"),
    "another issuer": lambda idp: idp.token(iss="https://evil.example"),
    "a forged signature": lambda idp: idp.token()[:-8] + "AAAAAAAA",
    "an unknown key": lambda idp: idp.token(header={"kid": "unknown"}),
    "no time of issue": lambda idp: idp.token(iat=ABSENT),
    "a subject too long for a session": lambda idp: idp.token(sub="s" * 255),
    "too many roles": lambda idp: idp.token(roles=[f"r{n}" for n in range(201)]),
    "roles with control characters": lambda idp: idp.token(roles=["a\x00b"]),
    "a claim too large": lambda idp: idp.token(email="e" * 5000),
    "a header in it": lambda idp: "x\r\nX: y",
}


@pytest.mark.parametrize("kind", NOT_EXCHANGED)
def test_a_subject_token_that_is_not_good_is_an_invalid_request(
    pair: tuple[Gateway, Gateway], idp: Issuer, kind: str
) -> None:
    """RFC 8693 2.2.2: whatever is wrong with it."""
    answer = exchange(pair[0], NOT_EXCHANGED[kind](idp))
    assert answer.error == (400, "invalid_request")
    assert answer.all("set-cookie") == []


def test_a_token_of_ours_is_not_exchanged(pair: tuple[Gateway, Gateway]) -> None:
    tokens = pair[0].login("bob")
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert exchange(pair[0], token).error == (400, "invalid_request")


def test_a_revoked_token_is_not_exchanged(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    one, two = pair
    token, mine = idp.token(), idp.token(sub="f-gone")
    assert ask(one.port, request("POST", "/auth/logout", token=token)).status == 204
    assert exchange(two, token).error == (400, "invalid_request")
    assert ask(one.port, request("DELETE", "/auth/sessions", token=mine)).status == 204
    assert exchange(two, mine).error == (400, "invalid_request")


def test_each_exchange_is_a_sign_in_of_its_own_and_one_on_the_same_device_takes_its_place(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    token = idp.token(sub="f-many")
    first, second = (exchanged(pair[0], token) for _ in range(2))
    phone, again = (exchanged(pair[0], token, device="phone") for _ in range(2))
    assert [get(pair[1], each["access_token"]).status for each in (first, second, phone, again)] == [200, 200, 401, 200]


def test_a_user_here_signs_out_everywhere_and_the_issuers_tokens_give_no_new_session(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    one, two = pair
    subject, other = idp.token(sub="f-all"), idp.token(sub="f-all")
    mine, kept = exchanged(one, subject)["access_token"], exchanged(one, subject)["access_token"]
    assert ask(one.port, request("DELETE", "/auth/sessions?except=current", token=kept)).status == 204
    assert [get(two, token).status for token in (mine, kept, subject)] == [401, 200, 200]
    assert ask(one.port, request("DELETE", "/auth/sessions", token=kept)).status == 204
    for token in (mine, kept, subject, other):
        assert get(two, token).error == (401, "revoked_token")
    assert exchange(two, other).error == (400, "invalid_request")


def test_whoever_signs_out_at_the_issuer_by_its_token_loses_the_sessions_too(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    one, two = pair
    subject = idp.token(sub="f-both")
    session = exchanged(one, subject)["access_token"]
    assert ask(one.port, request("DELETE", "/auth/sessions", token=subject)).status == 204
    assert get(two, session).error == (401, "revoked_token")
    subject = until(lambda: fresh(two, idp, "f-both"), "a token of a later second")
    session = exchanged(one, subject)["access_token"]
    assert one.operate("DELETE", f"/admin/users/f-both/sessions?issuer={idp.name}").status == 204
    assert get(two, session).error == (401, "revoked_token")
    assert get(two, subject).error == (401, "revoked_token")


def test_an_operator_who_ends_all_sessions_by_the_command_line_voids_the_issuers_tokens_too(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    """Else the next exchange of a token that the thief has takes everything back."""
    one, two = pair
    subject, other, local = idp.token(sub="f-cli"), idp.token(sub="f-else"), one.login("bob")["access_token"]
    session = exchanged(one, subject)["access_token"]
    command = [sys.executable, "-m", "gateway", "sessions", "revoke", "--subject", f"{namespace(idp)}f-cli"]
    ran = subprocess.run(
        [*command, "--config", str(one.config)], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout == "1 ended\n"
    for token in (session, subject):
        assert get(two, token).error == (401, "revoked_token")
    assert exchange(two, subject).error == (400, "invalid_request")
    assert [get(two, token).status for token in (other, local)] == [200, 200]


def fresh(gateway: Gateway, idp: Issuer, subject: str) -> str:
    token = idp.token(sub=subject)
    return token if get(gateway, token).status == 200 else ""


def test_the_users_of_an_exchange_are_no_local_users(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    one, two = pair
    local = one.login("alice")
    namesake = exchanged(one, idp.token(sub="u-alice"))["access_token"]
    listed = ask(one.port, request("GET", "/auth/sessions", token=namesake)).json()["sessions"]
    assert len(listed) == 1
    session = f"/auth/sessions/{local['session_id']}"
    assert ask(one.port, request("DELETE", session, token=namesake)).error == (404, "not_found")
    assert ask(one.port, request("DELETE", "/auth/sessions", token=namesake)).status == 204
    assert get(two, local["access_token"]).status == 200


def test_a_local_sign_in_cannot_give_a_subject_in_the_issuers_namespace(
    site: Site, backend: Backend, idp: Issuer
) -> None:
    options = gateway_options(idp, backend, exchange=True, subject_prefix="u-a")
    with site.serve(**options) as gateway:
        answer = ask(gateway.port, json_request("POST", "/auth/login", LOGIN))
        assert answer.error == (503, "identity_unavailable")
        assert gateway.login("bob")["access_token"]


def test_a_prefix_stands_before_the_subject_of_tokens_and_of_sessions(
    site: Site, backend: Backend, idp: Issuer
) -> None:
    with site.serve(**gateway_options(idp, backend, exchange=True, subject_prefix="corp:")) as gateway:
        token = until(lambda: fresh(gateway, idp, "f-1"), "a token passes")
        assert me(gateway, token)["sub"] == "corp:f-1"
        assert me(gateway, exchanged(gateway, token)["access_token"])["sub"] == "corp:f-1"


def test_the_refresh_token_goes_into_the_cookie_where_that_was_asked_for(
    pair: tuple[Gateway, Gateway], idp: Issuer
) -> None:
    answer = exchange(pair[0], idp.token(), refresh_in="cookie")
    assert answer.status == 200
    assert {line.partition("=")[0] for line in answer.all("set-cookie")} == {"__Secure-refresh", "__Host-access"}
    assert {"refresh_token", "access_token"} & answer.json().keys() == set()
    given = {"grant_type": GRANT, "subject_token": idp.token(), "subject_token_type": ACCESS, "refresh_in": "cookie"}
    for header in (
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        headers = FORM | header
        crossed = ask(pair[0].port, request("POST", "/auth/token", headers, urlencode(given).encode()))
        assert crossed.error == (403, "csrf_rejected")
        assert crossed.all("set-cookie") == []


def test_a_session_is_not_rechecked_with_a_provider_that_does_not_know_its_user(
    site: Site, backend: Backend, idp: Issuer
) -> None:
    users = {"provider": "users-file", "users_file": str(site.directory / "users.toml"), "recheck_on_refresh": True}
    with site.serve(**gateway_options(idp, backend, exchange=True), identity=users) as gateway:
        tokens = exchanged(gateway, until(lambda: fresh(gateway, idp, "f-1"), "a token passes"))
        assert gateway.refresh(tokens["refresh_token"]).status == 200


def test_the_limits_of_sign_in_hold(site: Site, backend: Backend, idp: Issuer) -> None:
    options = gateway_options(idp, backend, exchange=True)
    with site.serve(**options, limits={"login_per_user": 2, "login_per_ip": 0}) as gateway:
        token = until(lambda: fresh(gateway, idp, "f-limit"), "a token passes")
        assert [exchange(gateway, token).status for _ in range(3)] == [200, 200, 429]
        assert exchange(gateway, token).error == (429, "too_many_attempts")
        assert exchange(gateway, idp.token(sub="f-other")).status == 200
    with site.serve(**options, limits={"login_per_user": 0, "login_per_ip": 2}) as gateway:
        assert [exchange(gateway, "x.y.z").status for _ in range(3)] == [400, 400, 429]


def test_it_is_off_unless_an_issuer_allows_it(site: Site, backend: Backend, idp: Issuer) -> None:
    with site.serve(**gateway_options(idp, backend)) as gateway:
        assert exchange(gateway, idp.token()).error == (400, "unsupported_grant_type")
        assert GRANT not in grants(gateway)


def test_only_the_issuers_that_allow_it_have_their_tokens_exchanged(site: Site, backend: Backend, idp: Issuer) -> None:
    with issuer() as other:
        options = gateway_options(idp, backend, exchange=True)
        options["issuers"] = [*options["issuers"], other.settings()]
        with site.serve(**options) as gateway:
            token = until(lambda: fresh(gateway, other, "f-1"), "a token passes")
            assert exchange(gateway, token).error == (400, "invalid_request")
            assert exchange(gateway, until(lambda: fresh(gateway, idp, "f-1"), "a token passes")).status == 200


def test_the_metadata_tells_of_it(pair: tuple[Gateway, Gateway]) -> None:
    assert grants(pair[0]) == ["refresh_token", GRANT]


def grants(gateway: Gateway) -> list[str]:
    answer = ask(gateway.port, request("GET", "/.well-known/oauth-authorization-server"))
    return list(answer.json()["grant_types_supported"])


def test_the_audit_trail_tells_exchanges_and_shows_no_token(pair: tuple[Gateway, Gateway], idp: Issuer) -> None:
    subject = idp.token(sub="f-audit")
    tokens = exchanged(pair[0], subject)
    exchange(pair[0], idp.token(sub="f-audit", aud="other"))
    lines = [line for line in pair[0].log_lines() if line.get("by") == "token exchange"]
    done = next(line for line in lines if line.get("session_id") == tokens["session_id"])
    assert (done["event"], done["subject"]) == ("login", f"{namespace(idp)}f-audit")
    assert any(line["event"] == "login_failed" for line in lines)
    for secret in (subject, tokens["access_token"], tokens["refresh_token"]):
        assert secret not in pair[0].log
    assert json.dumps(lines)
