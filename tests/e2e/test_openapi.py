"""A running gateway answers as its OpenAPI document says, whatever is asked (Schemathesis).

Schemathesis makes requests that fit the document and such that do not. They are given credentials here, now and
then: each time of a sign-in of its own, so that none is signed out by another.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import argon2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from gateway.api.openapi import document
from tests.e2e.harness import PASSWORD, Gateway, Site, route
from tests.redis_server import free_port

Words = dict[str, Any]
SECRET = "secret of orders"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
_SCHEMA: Any = schemathesis.openapi.from_dict(document())
OPERATIONS: dict[str, Any] = {each.ok().label: each.ok() for each in _SCHEMA.get_all_operations()}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
EXAMPLES = {"/auth/verify": 6, "/auth/verify/{original}": 6}  # eight operations each, which are one


@pytest.fixture(scope="module")
def documented(site: Site) -> Iterator[Gateway]:
    hashed = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(SECRET)
    nobody = f"http://127.0.0.1:{free_port()}"
    with site.serve(
        server={"trusted_proxies": ["127.0.0.1/32"]},  # who may ask about another request
        introspection={"clients": {"orders": hashed}},
        cookies={"refresh": "__Secure-refresh", "access": "__Host-access"},
        routes=[route("/open/", nobody, auth="none"), route("/guarded/", nobody)],
    ) as made:
        yield made


def bearer(mine: Words) -> Words:
    return {"Authorization": f"Bearer {mine['access_token']}"}


def cookie(mine: Words) -> Words:
    return {"Cookie": f"__Secure-refresh={mine['refresh_token']}", "Sec-Fetch-Site": "same-origin"}


def two_cookies(mine: Words) -> Words:
    return {"Cookie": "__Secure-refresh=a; __Secure-refresh=b"}


def basic(mine: Words) -> Words:
    return {"Authorization": "Basic " + b64encode(f"orders:{SECRET}".encode()).decode()}


CREDENTIALS = {"accessToken": bearer, "refreshCookie": cookie, "client": basic}


@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_asked_is_answered_as_it_is_documented(label: str, documented: Gateway) -> None:
    operation = OPERATIONS[label]
    schemes = [name for each in operation.definition.raw["security"] for name in each]

    @settings(
        max_examples=EXAMPLES.get(operation.path, 30),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(list(schemathesis.GenerationMode)))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        scheme = data.draw(st.sampled_from([None, *schemes]))
        headers = CREDENTIALS[scheme](documented.login("carol")) if scheme else {}
        _call(case, documented, headers)

    run()


def _call(case: Any, gateway: Gateway, headers: Words) -> Any:
    response = case.call(base_url=f"http://127.0.0.1:{gateway.port}", headers=headers, timeout=10)
    case.validate_response(response, checks=CHECKS)
    return response


def _login(mine: Words, **more: str) -> Words:
    return {"body": {"username": "carol", "password": PASSWORD, **more}}


def _refresh(mine: Words) -> Words:
    return {"body": {"grant_type": "refresh_token", "refresh_token": mine["refresh_token"]}}


# (operation, media type, credential, status) and what makes the request of a fresh sign-in
GOOD: list[tuple[str, str, Any, int, Any]] = [
    ("POST /auth/login", JSON, None, 200, _login),
    ("POST /auth/login", JSON, None, 200, lambda mine: _login(mine, device="laptop", refresh_in="cookie")),
    ("POST /auth/token", JSON, None, 200, _refresh),
    ("POST /auth/token", FORM, None, 200, _refresh),
    ("POST /auth/token", FORM, cookie, 200, lambda mine: {"body": {"grant_type": "refresh_token"}}),
    ("POST /auth/logout", JSON, None, 204, lambda mine: {"body": {"refresh_token": mine["refresh_token"]}}),
    ("POST /auth/logout", JSON, bearer, 204, lambda mine: {}),
    ("POST /auth/logout", FORM, cookie, 204, lambda mine: {}),
    ("GET /auth/sessions", "", bearer, 200, lambda mine: {}),
    ("DELETE /auth/sessions", "", bearer, 204, lambda mine: {}),
    ("DELETE /auth/sessions", "", bearer, 204, lambda mine: {"query": {"except": "current"}}),
    (
        "DELETE /auth/sessions/{session_id}",
        "",
        bearer,
        204,
        lambda mine: {"path_parameters": {"session_id": mine["session_id"]}},
    ),
    ("DELETE /auth/sessions/{session_id}", "", bearer, 404, lambda mine: {"path_parameters": {"session_id": "a" * 23}}),
    ("GET /auth/me", "", bearer, 200, lambda mine: {}),
    ("POST /auth/revoke", FORM, None, 200, lambda mine: {"body": {"token": mine["access_token"]}}),
    ("POST /auth/revoke", JSON, None, 200, lambda mine: {"body": {"token": "x", "token_type_hint": "x"}}),
    ("POST /auth/introspect", FORM, basic, 200, lambda mine: {"body": {"token": mine["access_token"]}}),
    ("POST /auth/introspect", JSON, basic, 200, lambda mine: {"body": {"token": "x"}}),
    ("GET /auth/verify", "", bearer, 200, lambda mine: {}),
    ("PATCH /auth/verify", "", bearer, 200, lambda mine: {}),
    ("GET /auth/verify/{original}", "", bearer, 200, lambda mine: {"path_parameters": {"original": "guarded"}}),
    ("GET /auth/verify/{original}", "", None, 401, lambda mine: {"path_parameters": {"original": "guarded"}}),
    ("GET /auth/verify/{original}", "", None, 404, lambda mine: {"path_parameters": {"original": "nowhere"}}),
    ("GET /auth/account", "", None, 200, lambda mine: {}),
    ("GET /auth/account", "", cookie, 200, lambda mine: {}),
    ("GET /auth/account", "", two_cookies, 400, lambda mine: {}),
    ("GET /auth/account/{name}", "", None, 200, lambda mine: {"path_parameters": {"name": "account.css"}}),
    ("GET /auth/account/{name}", "", None, 404, lambda mine: {"path_parameters": {"name": "other.css"}}),
    ("GET /.well-known/jwks.json", "", None, 200, lambda mine: {}),
    ("GET /.well-known/oauth-authorization-server", "", None, 200, lambda mine: {}),
]


@pytest.mark.parametrize(("label", "media", "credential", "status", "make"), GOOD)
def test_a_good_request_is_answered_as_it_is_documented(
    label: str, media: str, credential: Any, status: int, make: Any, documented: Gateway
) -> None:
    mine = documented.login("carol")
    given = make(mine)
    case = OPERATIONS[label].Case(**given, **({"media_type": media} if media and "body" in given else {}))
    response = _call(case, documented, credential(mine) if credential else {})
    assert response.status_code == status, response.text


def test_every_operation_is_asked_what_makes_it_succeed() -> None:
    paths = {OPERATIONS[label].path for label, _, _, status, _ in GOOD if status < 300}
    assert paths == set(document()["paths"])
