"""Pages of other origins over time: their sessions, a reload, several workers, and what is told of their requests."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.attacks.support import cookie
from tests.e2e.backends import Backend
from tests.e2e.collector import Collector, collecting
from tests.e2e.cors import (
    ASKS,
    OTHER,
    PAGE,
    Pairs,
    assert_granted,
    assert_readable,
    assert_varies,
    from_page,
    options,
    said,
)
from tests.e2e.harness import PASSWORD, Gateway, Site, route, until
from tests.e2e.test_drain import REFUSED, RELOADED, hang_up, rewrite
from tests.e2e.wire import Answer, Client, ask, json_request


@pytest.fixture(scope="module")
def open_to_pages(site: Site, backend: Backend) -> Iterator[Gateway]:
    with site.serve(**options(backend)) as made:
        yield made


def token_call(gateway: Gateway, target: str, content: dict[str, str], more: Pairs | None = None) -> Answer:
    pairs = [("Content-Type", "application/json"), ("Sec-Fetch-Site", "same-site"), *(more or [])]
    return ask(gateway.port, from_page("POST", target, more=pairs, body=json.dumps(content).encode()))


def expired(gateway: Gateway, token: str) -> str:
    """Return an access token of the same session that has expired."""
    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    who = {"subject": claims["sub"], "session_id": claims["sid"], "counter": claims["n"]}
    minted = gateway.site.signer(access_ttl=1).mint(**who, roles=[], scope="", claims={}, now=claims["iat"] - 3600)
    return minted.token


def test_a_page_signs_in_sees_that_its_token_expired_and_refreshes_in_the_body(
    open_to_pages: Gateway, backend: Backend
) -> None:
    spot = backend.spot()
    said_in = token_call(open_to_pages, "/auth/login", {"username": "bob", "password": PASSWORD})
    assert_readable(said_in)
    tokens = said_in.json()
    old = expired(open_to_pages, tokens["access_token"])
    refused = ask(open_to_pages.port, from_page("GET", spot.path("/guarded"), token=old))
    assert refused.error == (401, "expired_token")
    assert_readable(refused)
    grant = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    renewed = token_call(open_to_pages, "/auth/token", grant)
    assert_readable(renewed)
    answer = ask(open_to_pages.port, from_page("GET", spot.path("/guarded"), token=renewed.json()["access_token"]))
    assert answer.status == 200


def test_a_page_keeps_its_refresh_token_in_the_cookie(open_to_pages: Gateway, backend: Backend) -> None:
    content = {"username": "bob", "password": PASSWORD, "refresh_in": "cookie"}
    signed_in = token_call(open_to_pages, "/auth/login", content)
    assert_readable(signed_in)
    value = cookie(signed_in, "__Secure-refresh")
    carried = ("Cookie", f"__Secure-refresh={value}")
    renewed = token_call(open_to_pages, "/auth/token", {"grant_type": "refresh_token"}, [carried])
    assert renewed.status == 200
    assert cookie(renewed, "__Secure-refresh") not in ("", value)
    assert_readable(renewed)
    carried = ("Cookie", f"__Secure-refresh={cookie(renewed, '__Secure-refresh')}")
    spot = backend.spot()
    old = expired(open_to_pages, renewed.json()["access_token"])
    answer = ask(open_to_pages.port, from_page("GET", spot.path("/renewing"), more=[carried], token=old))
    assert answer.status == 200
    assert answer.get("x-access-token")  # which the page may read
    assert_readable(answer)
    carried = ("Cookie", f"__Secure-refresh={cookie(answer, '__Secure-refresh')}")
    assert token_call(open_to_pages, "/auth/logout", {}, [carried]).status == 204


# --- off, reloaded, several workers, told of ---


def test_without_the_section_nothing_of_this_is_said(gateway: Gateway, backend: Backend) -> None:
    spot = backend.spot()
    for data in (
        from_page("OPTIONS", spot.path("/guarded"), more=ASKS),
        from_page("GET", spot.path()),
        from_page("GET", "/nowhere"),
        from_page("GET", "/auth/me"),
        b"GARBAGE\r\n\r\n",
    ):
        answer = ask(gateway.port, data)
        assert said(answer) == {}
        assert answer.all("vary") == []


def test_a_reload_takes_other_origins_up_also_on_connections_that_are_open(site: Site, backend: Backend) -> None:
    same: dict[str, Any] = {
        "routes": [route("/guarded/", backend.url)],
        "cookies": {"refresh": "__Secure-refresh", "access": "__Host-access"},
    }
    with site.serve(**same) as gateway, Client(gateway.port) as client:
        carried = [("Cookie", f"__Host-access={gateway.token}"), ("Sec-Fetch-Site", "same-site")]
        asked = from_page("OPTIONS", "/guarded/x", more=ASKS)
        posted = from_page("POST", backend.spot().path("/guarded"), more=carried, body=b"")

        asks = [asked, posted, from_page("GET", "/auth/me"), from_page("GET", "/nowhere")]

        def seen() -> list[tuple[int, bool]]:
            """The last one is asked twice, so that its head is one that the connection remembers."""
            answers = [client.ask(each) for each in (asks[-1], *asks)]
            assert answers[0].headers[1:] == answers[-1].headers[1:]
            return [(answer.status, "access-control-allow-origin" in said(answer)) for answer in answers[1:]]

        shut = [(401, False), (403, False), (401, False), (404, False)]
        open_ = [(204, True), (200, True), (401, True), (404, True)]
        assert seen() == shut
        rewrite(gateway, **same, cors={"allow_origins": [PAGE]})
        assert all("keys" not in line for line in hang_up(gateway, RELOADED))
        assert seen() == open_
        rewrite(gateway, **same, cors={"allow_origins": ["*"]})
        assert "cors.allow_origins.0" in hang_up(gateway, REFUSED)[0]["reason"]
        assert seen() == open_
        rewrite(gateway, **same, cors={"allow_origins": [OTHER]})
        hang_up(gateway, RELOADED)
        assert seen() == shut
        rewrite(gateway, **same)
        hang_up(gateway, RELOADED)
        assert seen() == shut
        assert client.ask(from_page("GET", "/nowhere")).all("vary") == []


def test_two_workers_say_the_same(site: Site, backend: Backend) -> None:
    with site.serve(["--workers", "2"], **options(backend)) as gateway:
        answers = [ask(gateway.port, from_page("OPTIONS", "/guarded/x", more=ASKS)) for _ in range(16)]
        for answer in answers:
            assert_granted(answer)
        until(
            lambda: gateway.metric("tokengate_requests_total", route="/guarded/", code="204") == len(answers),
            "all are counted, by whichever worker",
        )


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def told(site: Site, backend: Backend, collector: Collector) -> Iterator[Gateway]:
    """A gateway that logs every request, and records those that a proxy of this machine wants recorded."""
    tracing = {"endpoint": collector.url, "sample_ratio": 0.0}
    server = {"trusted_proxies": ["127.0.0.1"]}
    with site.serve(**options(backend, log={"access": True}, tracing=tracing, server=server)) as made:
        yield made


@pytest.mark.parametrize(
    ("target", "pattern", "name"),
    [
        ("/guarded/x", "/guarded/", "/guarded/"),
        ("/reading/x", "/reading/", "/reading/"),
        ("/auth/me", "/auth", "control"),
    ],
)
def test_preflights_are_counted_logged_and_traced_as_requests_of_their_route(
    told: Gateway, collector: Collector, target: str, pattern: str, name: str
) -> None:
    trace = secrets.token_hex(16)
    for sampled in ("01", "00"):
        more = [("traceparent", f"00-{trace}-00000000000000b7-{sampled}"), ("X-Request-Id", f"r{sampled}")]
        answer = ask(told.port, from_page("OPTIONS", target, more=[*ASKS, *more]))
        assert answer.status == 204
        assert answer.get("x-request-id") == f"r{sampled}"
    until(lambda: told.metric("tokengate_requests_total", route=name, code="204") == 2, "they are counted")
    lines = until(lambda: _lines(told, target, 2), "both are logged")
    assert {(line["method"], line["status"], line["route"]) for line in lines} == {("OPTIONS", 204, name)}
    assert all(line["bytes_out"] > 200 for line in lines)
    (span,) = collector.tree(trace, 1).values()
    assert (span.name, span.attributes["http.response.status_code"]) == (f"OPTIONS {pattern}", 204)


@pytest.mark.parametrize("sampled", ["01", "00"])
def test_requests_that_are_told_of_can_be_read_by_the_page_all_the_same(
    told: Gateway, backend: Backend, sampled: str
) -> None:
    more = [("traceparent", f"00-{secrets.token_hex(16)}-00000000000000b7-{sampled}")]
    for target in ("/guarded/x", "/auth/me", backend.spot().path(), "/nowhere"):
        assert_readable(ask(told.port, from_page("GET", target, more=more)))


def _lines(gateway: Gateway, path: str, number: int) -> list[dict[str, Any]]:
    found = [line for line in gateway.log_lines() if line.get("path") == path]
    return found if len(found) >= number else []


def test_a_preflight_at_the_limit_of_connections_is_refused_like_any_other(site: Site, backend: Backend) -> None:
    with (
        site.serve(**options(backend), server={"max_connections": 1}) as gateway,
        Client(gateway.port) as first,
        Client(gateway.port) as second,
    ):
        assert_granted(first.ask(from_page("OPTIONS", "/guarded/x", more=ASKS)))
        answer = second.answer()  # before anything was read
        assert answer.error == (503, "overloaded")
        assert said(answer) == {}
        assert_varies(answer)


def test_a_sign_in_in_json_from_an_unlisted_page_gets_no_answer_that_it_may_read(open_to_pages: Gateway) -> None:
    data = json_request("POST", "/auth/login", {"username": "bob", "password": PASSWORD})
    answer = ask(open_to_pages.port, data.replace(b"Host:", f"Origin: {OTHER}\r\nHost:".encode()))
    assert said(answer) == {}
