"""Refresh inside the gateway: on_expired = "refresh", the backend's own expired_token, and the access cookie."""

from __future__ import annotations

import concurrent.futures
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call, raw
from tests.e2e.harness import AUDIENCE, ISSUER, PASSWORD, Gateway, Site, route, until
from tests.e2e.wire import Answer, Client, ask, json_request, request
from tests.redis_server import free_port

REFRESH, ACCESS = "__Secure-refresh", "__Host-access"
OK = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
EXPIRED_JSON = b'{"error":"expired_token"}'
CHALLENGE = (
    b'HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer error="invalid_token", error_description="It expired"\r\n'
    b"Content-Length: 3\r\n\r\nno!"
)
EXPIRED = b"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(EXPIRED_JSON),
    EXPIRED_JSON,
)


def tokens_for(site: Site, **more: str) -> dict[str, str]:
    return {"issuer": ISSUER, "audience": AUDIENCE, "signing_keys": str(site.directory / "keys"), **more}


@pytest.fixture(scope="module")
def pair(site: Site, backend: Backend) -> Iterator[tuple[Gateway, Gateway]]:
    """Two replicas with tokens that live for a second."""
    options: dict[str, Any] = {
        "routes": [
            route("/guarded/", backend.url, on_expired="refresh"),
            route("/rejecting/", backend.url),
        ],
        "tokens": tokens_for(site, access_ttl="1s", leeway="0s", refresh_grace="1s"),
        "limits": {"login_per_user": 0, "login_per_ip": 0, "refresh_per_session": 30},
    }
    with site.serve(**options) as first, site.serve(**options) as second:
        yield first, second


@pytest.fixture(scope="module")
def lasting(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A replica with tokens that last, in front of backends that see them otherwise."""
    routes = [route("/guarded/", backend.url, on_expired="refresh", replay_buffer="1KiB")]
    with site.serve(routes=routes, tokens=tokens_for(site)) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def browser(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A replica whose browsers hold no token in script."""
    routes = [route("/guarded/", backend.url)]
    tokens = tokens_for(site, access_ttl="1s", leeway="0s")
    cookies = {"refresh": REFRESH, "access": ACCESS}
    with site.serve(routes=routes, tokens=tokens, cookies=cookies) as gateway:
        yield gateway


def cookie(answer: Answer, name: str) -> str:
    """Return the value that an answer sets for a cookie, '' where it sets none."""
    for value in answer.all("set-cookie"):
        if value.startswith(f"{name}="):
            return value.partition(";")[0].partition("=")[2]
    return ""


def expire(gateway: Gateway, token: str) -> None:
    """Wait until a token has expired."""
    question = request("GET", "/auth/me", token=token)
    until(lambda: ask(gateway.port, question).get("x-gateway-error") == "expired_token", "the token expires", 4)


def pair_of(tokens: Mapping[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}", "Cookie": f"{REFRESH}={tokens['refresh_token']}; a=b"}


def test_an_expired_token_with_its_refresh_cookie_is_refreshed_and_the_request_goes_upstream_once(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    tokens = pair[0].login()
    expire(pair[0], tokens["access_token"])
    spot = backend.spot(OK)
    answer = ask(pair[0].port, request("GET", spot.path("/guarded"), pair_of(tokens)))
    assert answer.status == 200
    assert "no-store" in answer.all("cache-control")
    new = answer.get("x-access-token")
    assert int(answer.get("x-access-token-expires-in")) in (0, 1)
    (call,) = spot.calls(1)
    assert call.get("Authorization") == f"Bearer {new}"
    assert call.get("Cookie") == "a=b"
    assert call.get("X-Auth-Request-User") == "u-alice"
    assert cookie(answer, REFRESH) not in ("", tokens["refresh_token"])


def test_a_route_that_rejects_does_not_refresh(pair: tuple[Gateway, Gateway], backend: Backend) -> None:
    tokens = pair[0].login()
    expire(pair[0], tokens["access_token"])
    spot = backend.spot(OK)
    answer = ask(pair[0].port, request("GET", spot.path("/rejecting"), pair_of(tokens)))
    assert answer.error == (401, "expired_token")
    assert spot.calls() == []


@pytest.mark.parametrize("other", ["none", "of another session", "twice", "malformed"])
def test_without_the_refresh_cookie_of_the_same_session_there_is_no_refresh(
    pair: tuple[Gateway, Gateway], backend: Backend, other: str
) -> None:
    tokens = pair[0].login()
    stranger = pair[0].login("bob")
    expire(pair[0], tokens["access_token"])
    mine = f"{REFRESH}={tokens['refresh_token']}"
    cookies = {
        "none": "a=b",
        "of another session": f"{REFRESH}={stranger['refresh_token']}",
        "twice": f"{mine}; {mine}",
        "malformed": f"{mine}x",
    }
    spot = backend.spot(OK)
    headers = {"Authorization": f"Bearer {tokens['access_token']}", "Cookie": cookies[other]}
    assert ask(pair[0].port, request("GET", spot.path("/guarded"), headers)).error == (401, "expired_token")
    assert spot.calls() == []
    assert pair[0].refresh(tokens["refresh_token"]).status == 200


def test_200_parallel_requests_with_an_expired_token_on_two_replicas_agree_on_one_successor(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    tokens = pair[0].login()
    expire(pair[0], tokens["access_token"])
    spot = backend.spot(OK)
    question = request("GET", spot.path("/guarded"), pair_of(tokens))
    barrier = threading.Barrier(20)

    def client(number: int) -> list[Answer]:
        with Client(pair[number % 2].port) as connection:
            barrier.wait()
            return [connection.ask(question) for _ in range(10)]

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = [answer for several in pool.map(client, range(20)) for answer in several]
    assert [answer.status for answer in answers] == [200] * 200
    successors = {cookie(answer, REFRESH) for answer in answers} - {""}
    assert len(successors) == 1
    assert pair[1].refresh(successors.pop()).status == 200


def test_a_lost_answer_costs_nothing(pair: tuple[Gateway, Gateway], backend: Backend) -> None:
    tokens = pair[0].login()
    expire(pair[0], tokens["access_token"])
    question = request("GET", backend.spot(OK).path("/guarded"), pair_of(tokens))
    lost = ask(pair[0].port, question)
    # longer than the grace and than what a worker shares: only that the successor is unused lets it go on
    for _ in range(3):
        expire(pair[1], pair[1].login()["access_token"])
    again = ask(pair[0].port, question)
    assert again.status == 200
    assert cookie(again, REFRESH) == cookie(lost, REFRESH)


def test_a_session_that_has_ended_is_told_so_and_its_cookie_is_taken_away(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    tokens = pair[0].login()
    expire(pair[0], tokens["access_token"])
    gone = ask(pair[1].port, json_request("POST", "/auth/logout", {"refresh_token": tokens["refresh_token"]}))
    assert gone.status == 204
    spot = backend.spot(OK)
    answer = ask(pair[0].port, request("GET", spot.path("/guarded"), pair_of(tokens)))
    assert answer.error == (401, "revoked_token")
    assert any(value.startswith(f"{REFRESH}=; Max-Age=0") for value in answer.all("set-cookie"))
    assert spot.calls() == []


def test_tokens_of_a_refresh_that_others_share_are_not_handed_out_when_their_session_has_ended(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    """The refresh came first, the end of the session second, and the live check of a late comer third."""
    tokens = pair[0].login()
    expire(pair[0], tokens["access_token"])
    question = request("GET", backend.spot(OK).path("/guarded"), pair_of(tokens))
    assert ask(pair[0].port, question).status == 200
    gone = ask(pair[1].port, json_request("POST", "/auth/logout", {"refresh_token": tokens["refresh_token"]}))
    assert gone.status == 204
    late = ask(pair[0].port, question)
    assert late.error == (401, "revoked_token")
    assert late.all("cache-control") == ["no-store"]
    assert late.all("x-access-token") == []
    assert [value.partition(";")[0] for value in late.all("set-cookie")] == [f"{REFRESH}="]


def test_the_tokens_of_a_refresh_go_out_with_a_refusal_that_has_another_cause(site: Site) -> None:
    routes = [route("/guarded/", f"http://127.0.0.1:{free_port()}", on_expired="refresh")]
    with site.serve(routes=routes, tokens=tokens_for(site, access_ttl="1s", leeway="0s")) as gateway:
        tokens = gateway.login()
        expire(gateway, tokens["access_token"])
        answer = ask(gateway.port, request("GET", "/guarded/x", pair_of(tokens)))
        assert answer.error == (502, "upstream_unreachable")
        assert answer.all("cache-control") == ["no-store"]
        assert gateway.refresh(cookie(answer, REFRESH)).status == 200


def test_an_answer_that_comes_late_puts_no_older_cookie_over_a_newer_one(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    tokens = pair[0].login()
    expire(pair[0], tokens["access_token"])
    arrived, leave = threading.Event(), threading.Event()

    def slow(call: Call) -> None:
        arrived.set()
        leave.wait(10)
        call.reply(b"late")

    question = request("GET", backend.spot(slow).path("/guarded"), pair_of(tokens))
    with Client(pair[0].port) as client:
        client.send(question)
        assert arrived.wait(5)
        # meanwhile another tab gets the same successor and goes on to the next
        other = ask(pair[1].port, request("GET", backend.spot(OK).path("/guarded"), pair_of(tokens)))
        assert pair[1].refresh(cookie(other, REFRESH)).status == 200
        leave.set()
        late = client.answer()
    assert (late.status, late.body) == (200, b"late")
    assert late.all("set-cookie") == late.all("x-access-token") == []


CHUNKED = EXPIRED.partition(b"Content-Length")[0] + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
    len(EXPIRED_JSON),
    EXPIRED_JSON,
)


@pytest.mark.parametrize(
    "refusal",
    [
        EXPIRED,
        CHUNKED,
        CHALLENGE,
        b"HTTP/1.1 401 No\r\nX-Gateway-Error: expired_token\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ],
    ids=["json", "json in chunks", "challenge", "another gateway"],
)
def test_a_backend_that_says_expired_token_gets_the_request_once_more_with_a_new_one(
    lasting: Gateway, backend: Backend, refusal: bytes
) -> None:
    tokens = lasting.login()
    seen: list[tuple[str, bytes]] = []

    def behaviour(call: Call) -> None:
        seen.append((call.get("Authorization"), call.body()))
        call.send(refusal if len(seen) == 1 else b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    spot = backend.spot(behaviour)
    answer = ask(lasting.port, request("POST", spot.path("/guarded"), pair_of(tokens), b"x" * 1000))
    assert answer.status == 201
    assert [body for _, body in seen] == [b"x" * 1000] * 2
    assert seen[1][0] == f"Bearer {answer.get('x-access-token')}"
    assert seen[0][0] == f"Bearer {tokens['access_token']}"


def test_a_backend_that_keeps_saying_so_is_asked_twice_and_then_believed(lasting: Gateway, backend: Backend) -> None:
    spot = backend.spot(raw(EXPIRED))
    answer = ask(lasting.port, request("GET", spot.path("/guarded"), pair_of(lasting.login())))
    assert (answer.status, answer.body) == (401, EXPIRED_JSON)
    assert len(spot.calls(2)) == 2


@pytest.mark.parametrize("why", ["body too large", "no cookie", "another 401", "another error"])
def test_a_401_that_cannot_be_mended_passes_as_it_came(lasting: Gateway, backend: Backend, why: str) -> None:
    tokens = lasting.login()
    headers = pair_of(tokens)
    body, refusal = b"x" * 10, EXPIRED
    if why == "body too large":
        body = b"x" * 2000
    elif why == "no cookie":
        headers["Cookie"] = "a=b"
    elif why == "another 401":
        refusal = b"HTTP/1.1 401 No\r\nContent-Length: 3\r\n\r\nno!"
    else:
        refusal = EXPIRED.replace(b"expired_token", b"revoked_token")
    spot = backend.spot(raw(refusal))
    answer = ask(lasting.port, request("POST", spot.path("/guarded"), headers, body))
    assert (answer.status, answer.body) == (401, refusal.partition(b"\r\n\r\n")[2])
    assert len(spot.calls(1)) == 1


# --- the access cookie ---


def sign_in(gateway: Gateway) -> dict[str, str]:
    """Sign in as a browser does; the cookies."""
    content = {"username": "alice", "password": PASSWORD, "refresh_in": "cookie"}
    headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
    answer = ask(gateway.port, request("POST", "/auth/login", headers, json.dumps(content).encode()))
    assert answer.status == 200
    assert not {"access_token", "refresh_token"} & set(answer.json())
    assert all("HttpOnly; SameSite=Strict" in value for value in answer.all("set-cookie"))
    return {name: cookie(answer, name) for name in (REFRESH, ACCESS)}


def carried(cookies: Mapping[str, str], **headers: str) -> dict[str, str]:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()) + "; theme=dark", **names}


def test_the_access_cookie_signs_a_request_and_no_cookie_of_the_gateway_reaches_the_backend(
    browser: Gateway, backend: Backend
) -> None:
    cookies = sign_in(browser)
    spot = backend.spot(OK)
    assert ask(browser.port, request("GET", spot.path("/guarded"), carried(cookies))).status == 200
    (call,) = spot.calls(1)
    assert call.get("Cookie") == "theme=dark"
    assert call.get("X-Auth-Request-User") == "u-alice"
    assert call.get("Authorization") == f"Bearer {cookies[ACCESS]}"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Origin": "https://gateway.test"}, True),
        ({"Origin": "http://gateway.test"}, True),
        ({}, False),
        ({"Sec_Fetch_Site": "none"}, False),
        ({"Sec_Fetch_Site": "same-site"}, False),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "cross-site", "Origin": "https://gateway.test"}, False),
        ({"Origin": "https://evil.test"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "https://gateway.test.evil.test"}, False),
    ],
)
def test_an_unsafe_method_with_the_access_cookie_must_come_from_the_gateways_own_origin(
    browser: Gateway, backend: Backend, headers: dict[str, str], allowed: bool
) -> None:
    spot = backend.spot(OK)
    answer = ask(browser.port, request("POST", spot.path("/guarded"), carried(sign_in(browser), **headers), b"x"))
    assert answer.status == (200 if allowed else 403)
    assert len(spot.calls(1) if allowed else spot.calls()) == int(allowed)
    if not allowed:
        assert answer.error == (403, "csrf_rejected")


@pytest.fixture(scope="module")
def sibling(site: Site, backend: Backend) -> Iterator[Gateway]:
    """A gateway that trusts every host of its site."""
    cookies = {"refresh": REFRESH, "access": ACCESS, "allow_same_site": True}
    with site.serve(routes=[route("/guarded/", backend.url)], cookies=cookies) as made:
        yield made


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "a" * 22,
}


@pytest.mark.parametrize("method", ["POST", "GET"], ids=["unsafe", "upgrade"])
@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Sec_Fetch_Site": "same-site"}, True),
        ({"Sec_Fetch_Site": "same-site", "Origin": "https://app.gateway.test"}, True),
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        ({"Sec_Fetch_Site": "none"}, False),
        ({"Sec_Fetch_Site": "same-site, cross-site"}, False),
        ({"Origin": "https://gateway.test"}, True),
        ({"Origin": "https://app.gateway.test"}, False),  # nobody has said that it is the same site
        ({}, False),
    ],
)
def test_with_allow_same_site_the_browser_must_have_said_that_it_is_the_same_site(
    sibling: Gateway, backend: Backend, headers: dict[str, str], allowed: bool, method: str
) -> None:
    spot = backend.spot(OK)
    more = UPGRADE if method == "GET" else {}
    answer = ask(sibling.port, request(method, spot.path("/guarded"), {**carried(sign_in(sibling), **headers), **more}))
    assert answer.status == (200 if allowed else 403)
    assert len(spot.calls(1) if allowed else spot.calls()) == int(allowed)


@pytest.mark.parametrize(("origin", "status"), [("same-site", 200), ("cross-site", 403)])
def test_with_allow_same_site_the_refresh_cookie_counts_from_the_same_site(
    sibling: Gateway, origin: str, status: int
) -> None:
    headers = carried(sign_in(sibling), Sec_Fetch_Site=origin) | {"Content-Type": "application/x-www-form-urlencoded"}
    answer = ask(sibling.port, request("POST", "/auth/token", headers, b"grant_type=refresh_token"))
    assert answer.status == status


def test_an_expired_access_cookie_is_refreshed_in_place_and_no_token_stands_in_a_header(
    browser: Gateway, backend: Backend
) -> None:
    cookies = sign_in(browser)
    expire(browser, cookies[ACCESS])
    spot = backend.spot(OK)
    answer = ask(browser.port, request("GET", spot.path("/guarded"), carried(cookies)))
    assert answer.status == 200
    assert answer.all("x-access-token") == []
    new = {name: cookie(answer, name) for name in cookies}
    assert all(new[name] not in ("", cookies[name]) for name in cookies)
    assert ask(browser.port, request("GET", spot.path("/guarded"), carried(new))).status == 200


def test_a_token_in_two_places_is_no_token(browser: Gateway, backend: Backend) -> None:
    cookies = sign_in(browser)
    spot = backend.spot(OK)
    both = carried(cookies, Authorization=f"Bearer {cookies[ACCESS]}")
    assert ask(browser.port, request("GET", spot.path("/guarded"), both)).error == (401, "invalid_token")
    tossed = {"Cookie": f"{ACCESS}={cookies[ACCESS]}; {ACCESS}={cookies[ACCESS]}"}
    assert ask(browser.port, request("GET", spot.path("/guarded"), tossed)).error == (401, "invalid_token")
    assert spot.calls() == []


def test_the_api_takes_the_access_cookie_and_signing_out_takes_both_cookies_away(browser: Gateway) -> None:
    cookies = sign_in(browser)
    assert ask(browser.port, request("GET", "/auth/me", carried(cookies))).status == 200
    across = ask(browser.port, request("DELETE", "/auth/sessions", carried(cookies, Sec_Fetch_Site="cross-site")))
    assert across.error == (403, "csrf_rejected")
    out = ask(browser.port, request("POST", "/auth/logout", carried(cookies, Sec_Fetch_Site="same-origin")))
    assert out.status == 204
    assert sum("Max-Age=0" in value for value in out.all("set-cookie")) == 2
    assert ask(browser.port, request("GET", "/auth/me", carried(cookies))).error == (401, "revoked_token")
