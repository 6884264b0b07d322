"""What holds for every answer, and the OpenAPI document."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from typing import Any

import pytest
from starlette.routing import Route

from gateway.api import PUBLIC, openapi
from gateway.api.answers import MAX_COMPLAINTS, Complaints
from gateway.errors import BadRequest, GatewayError, StoreUnavailable
from tests.api.support import code, stack


@pytest.mark.parametrize(
    "path", ["/", "/auth", "/auth/", "/auth/login/", "/auth/loginx", "/.well-known/x", "/auth//me"]
)
def test_an_unknown_path_is_404_in_the_shape_of_the_contract(path: str) -> None:
    async def run() -> None:
        async with stack() as s:
            for method in ("GET", "POST"):
                assert code(await s.client.request(method, path)) == (404, "no_route")

    asyncio.run(run())


WRONG = [
    ("GET", "/auth/login", "POST"),
    ("DELETE", "/auth/token", "POST"),
    ("GET", "/auth/logout", "POST"),
    ("POST", "/auth/sessions", "DELETE, GET, HEAD"),
    ("GET", "/auth/sessions/x", "DELETE"),
    ("POST", "/auth/me", "GET, HEAD"),
    ("OPTIONS", "/auth/token", "POST"),
    ("PUT", "/.well-known/jwks.json", "GET, HEAD"),
]


@pytest.mark.parametrize(("method", "path", "allow"), WRONG)
def test_a_wrong_method_is_405_with_every_method_that_is_allowed(method: str, path: str, allow: str) -> None:
    async def run() -> None:
        async with stack() as s:
            response = await s.client.request(method, path)
            assert code(response) == (405, "method_not_allowed")
            assert response.headers["allow"] == allow

    asyncio.run(run())


def test_nothing_of_the_api_may_be_cached_or_read_by_other_origins() -> None:
    async def run() -> None:
        async with stack() as s:
            for path in ("/auth/me", "/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/x"):
                response = await s.client.get(path, headers={"origin": "https://evil.example"})
                assert response.headers["cache-control"] == "no-store"
                assert "access-control-allow-origin" not in response.headers

    asyncio.run(run())


def test_a_defect_is_answered_in_the_shape_of_the_contract_and_tells_nothing() -> None:
    async def run() -> None:
        async with stack() as s:

            def broken(path: str) -> Any:
                raise ValueError("a secret detail")

            object.__setattr__(s.services, "keyring", broken)
            response = await s.client.get("/.well-known/jwks.json")
            assert code(response) == (500, GatewayError.code)
            assert "secret detail" not in response.text

    asyncio.run(run())


def test_rejections_are_counted_by_their_code() -> None:
    async def run() -> None:
        async with stack() as s:
            await s.client.get("/auth/me")
            await s.client.get("/nowhere")
            text = s.telemetry.render().decode()
            assert 'tokengate_rejections_total{error="missing_token",route="auth"} 1' in text
            assert 'tokengate_rejections_total{error="no_route",route="auth"} 1' in text

    asyncio.run(run())


def test_no_log_line_holds_a_token_a_password_or_a_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="gateway")
    caplog.set_level(logging.DEBUG, logger="gateway.audit")  # whose level the command line sets

    async def run() -> list[str]:
        async with stack() as s:
            body = await s.login()
            second = (await s.refresh(body["refresh_token"])).json()
            await s.client.post("/auth/login", json={"username": "alice", "password": "hunter2"})
            await s.client.get("/auth/me?x=queried", headers={"authorization": "Bearer " + body["access_token"]})
            await s.client.post("/auth/revoke", data={"token": second["access_token"]})
            await s.client.post("/auth/logout", data={"refresh_token": second["refresh_token"]})
            return [body["access_token"], body["refresh_token"], second["access_token"], second["refresh_token"]]

    tokens = asyncio.run(run())
    text = "\n".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    events = [record.getMessage() for record in caplog.records if record.name == "gateway.audit"]
    assert events == ["login", "refresh", "login_failed", "token_revoked", "logout"]
    for secret in [*tokens, "wonderland", "hunter2", "queried"]:
        assert secret not in text


def test_the_openapi_document_names_every_route_and_no_other() -> None:
    async def run() -> None:
        async with stack() as s:
            served = {
                re.sub(r":\w+}", "}", route.path): route.methods and route.methods - {"HEAD"}
                for route in s.app.routes
                if isinstance(route, Route)
            }
            paths = openapi.document()["paths"]
            assert set(paths) == set(served)
            for path, methods in served.items():
                if methods is not None:
                    assert {name.upper() for name in paths[path] if name != "parameters"} == methods

    asyncio.run(run())
    assert len(PUBLIC) == len(openapi.document()["paths"])


def test_the_openapi_document_is_json_with_no_dangling_reference_or_doubled_name() -> None:
    text = json.dumps(openapi.document())
    document = json.loads(text)
    for section, name in re.findall(r'"#/components/(\w+)/(\w+)"', text):
        assert name in document["components"][section]
    names = re.findall(r'"operationId": "(\w+)"', text)
    assert len(names) == len(set(names)) + 8  # /auth/verify and its Envoy form share the names of 8 methods


def test_a_reason_is_logged_once_a_minute_and_many_reasons_take_bounded_room() -> None:
    complaints = Complaints()
    assert complaints.is_news(StoreUnavailable("down"))
    assert not complaints.is_news(StoreUnavailable("down"))
    assert sum(complaints.is_news(BadRequest(f"peer {n}")) for n in range(1000)) == MAX_COMPLAINTS - 1
