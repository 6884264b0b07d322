"""Credentials where they do not belong, planted ones, and ones that were there before (RFC 6750 2, RFC 9700 4.3)."""

from __future__ import annotations

import json

import pytest

from tests.attacks.support import ACCESS, REFRESH, cookie, jar, sign_in, switch, websocket
from tests.e2e.backends import Backend
from tests.e2e.harness import PASSWORD, Gateway
from tests.e2e.wire import Answer, Client, ask, request

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
REFRESHING = b"grant_type=refresh_token"


def refreshed(gateway: Gateway, cookies: list[str]) -> Answer:
    headers = [*FORM.items(), *[("Cookie", value) for value in cookies], ("Sec-Fetch-Site", "same-origin")]
    return ask(gateway.port, request("POST", "/auth/token", headers, REFRESHING))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (FORM, b"access_token=@"),
        ({"Content-Type": "application/json"}, b'{"access_token":"@"}'),
        ({"X-Access-Token": "@"}, None),
        ({"X-Auth-Request-Access-Token": "@"}, None),
        ({"X-Forwarded-Access-Token": "@"}, None),
        ({"Cookie": "access_token=@; token=@; Authorization=Bearer @"}, None),
        ({"Referer": "https://gateway.test/?access_token=@"}, None),
        ({"Authorization_": "Bearer @"}, None),
        ({"Sec-WebSocket-Protocol": "bearer, @"}, None),  # and no upgrade
    ],
)
def test_a_token_anywhere_but_in_its_places_is_none(
    fortress: Gateway, backend: Backend, headers: dict[str, str], body: bytes | None
) -> None:
    """RFC 9700 4.3.2: not in a query, and RFC 6750 2.2's form is not taken either."""
    spot = backend.spot()
    given = {name: value.replace("@", fortress.token) for name, value in headers.items()}
    content = None if body is None else body.replace(b"@", fortress.token.encode())
    target = f"{spot.path('/guarded')}?access_token={fortress.token}"
    assert ask(fortress.port, request("POST", target, given, content)).error == (401, "missing_token")
    assert spot.calls() == []


@pytest.mark.parametrize(
    "places",
    [
        ("header", "protocol"),
        ("cookie", "protocol"),
        ("header", "cookie"),
        ("protocol", "protocol"),
        ("header", "header"),
        ("cookie", "cookie"),
        ("header", "cookie", "protocol"),
    ],
    ids="+".join,
)
def test_a_websocket_with_tokens_in_two_places_is_refused(
    fortress: Gateway, backend: Backend, places: tuple[str, ...]
) -> None:
    """Which one is meant nobody can tell, even where they are the same."""
    where = {
        "header": ("Authorization", f"Bearer {fortress.token}"),
        "cookie": ("Cookie", f"{ACCESS}={fortress.token}"),
        "protocol": ("Sec-WebSocket-Protocol", f"bearer, {fortress.token}"),
    }
    spot = backend.spot(switch)
    headers = websocket([("Origin", "https://gateway.test"), *(where[place] for place in places)])
    assert ask(fortress.port, request("GET", spot.path("/guarded"), headers)).error == (401, "invalid_token")
    assert spot.calls() == []


def test_two_tokens_in_one_list_of_subprotocols_are_refused(fortress: Gateway, backend: Backend) -> None:
    spot = backend.spot(switch)
    offered = f"bearer, {fortress.token}, chat, BEARER, {fortress.token}"
    answer = ask(fortress.port, request("GET", spot.path("/guarded"), websocket([("Sec-WebSocket-Protocol", offered)])))
    assert answer.error == (401, "invalid_token")
    assert spot.calls() == []


@pytest.mark.parametrize(
    "lines",
    [["bearer, @, chat"], ["chat", "bearer, @"], ["bearer, @", "chat"], ["bearer", "@, chat"]],
    ids=["one line", "the second line", "the first line", "across lines"],
)
@pytest.mark.parametrize("prefix", ["/guarded", "/sealed"])
def test_a_token_among_the_subprotocols_does_not_reach_the_backend(
    fortress: Gateway, backend: Backend, prefix: str, lines: list[str]
) -> None:
    """Nor does it on an open route that forwards no authorization."""
    spot = backend.spot(switch)
    token = str(fortress.login()["access_token"])
    headers = websocket([("Sec-WebSocket-Protocol", line.replace("@", token)) for line in lines])
    with Client(fortress.port) as client:
        client.send(request("GET", spot.path(prefix), headers))
        assert client.head().status == 101
    call = spot.call()
    assert call.get("Sec-WebSocket-Protocol") == "chat"
    assert token not in call.head.decode().replace(call.get("Authorization") or "\0", "")


def test_signing_in_with_a_cookie_that_is_there_begins_another_session(fortress: Gateway) -> None:
    """Session fixation (OWASP ASVS 3.2.1): who planted the cookie does not share what comes of it."""
    planted = sign_in(fortress, user="bob")
    mine = sign_in(fortress, {"Cookie": jar(planted)}, "alice")
    assert not set(planted.values()) & set(mine.values())
    asked = [request("GET", "/auth/me", {"Cookie": f"{ACCESS}={cookies[ACCESS]}"}) for cookies in (planted, mine)]
    theirs, own = (ask(fortress.port, question).json() for question in asked)
    assert (theirs["sub"], own["sub"]) == ("u-bob", "u-alice")
    assert theirs["sid"] != own["sid"]


def test_nobody_chooses_the_id_of_a_session_or_what_a_token_says(fortress: Gateway) -> None:
    chosen = {"session_id": "a" * 23, "sid": "a" * 23, "sub": "u-root", "roles": "admin", "scope": "all", "jti": "a"}
    content = {"username": "bob", "password": PASSWORD, "device": "", **chosen}
    headers = {"Content-Type": "application/json", "X-Session-Id": "a" * 23}
    answer = ask(fortress.port, request("POST", "/auth/login", headers, json.dumps(content).encode())).json()
    claims = ask(fortress.port, request("GET", "/auth/me", token=answer["access_token"])).json()
    assert (claims["sub"], claims["roles"], claims["scope"]) == ("u-bob", ["guest"], "orders:read")
    assert "a" * 23 not in (answer["session_id"], claims["sid"])


@pytest.mark.parametrize("first", [True, False], ids=["planted first", "planted last"])
@pytest.mark.parametrize("apart", [True, False], ids=["two lines", "one line"])
def test_a_cookie_that_a_sibling_host_plants_beside_ours_is_refused_and_ends_nothing(
    fortress: Gateway, first: bool, apart: bool
) -> None:
    """Cookie tossing: `Domain=` of the parent puts two of one name into a request."""
    planted, mine = sign_in(fortress, user="bob"), sign_in(fortress)
    pairs = [f"{REFRESH}={cookies[REFRESH]}" for cookies in ((planted, mine) if first else (mine, planted))]
    answer = refreshed(fortress, pairs if apart else ["; ".join(pairs)])
    assert answer.error == (400, "invalid_request")
    assert answer.all("set-cookie") == []
    assert refreshed(fortress, [f"{REFRESH}={mine[REFRESH]}"]).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "__secure-refresh",
        "__SECURE-REFRESH",
        "Secure-refresh",
        "__Secure-refresh[]",
        '"__Secure-refresh"',
        "%5F%5FSecure-refresh",
        "\xa0__Secure-refresh",
        "\xe2\x80\x80__Secure-refresh",  # U+2000 in UTF-8, which some frameworks strip
        "__Secure-refresh\xa0",
        "$Version=1, __Secure-refresh",
    ],
)
def test_a_cookie_whose_name_only_looks_like_ours_is_not_ours(fortress: Gateway, name: str) -> None:
    """A browser gives the guarantees of `__Secure-` and `__Host-` to the name as it is written, and to no other."""
    mine = sign_in(fortress)
    assert refreshed(fortress, [f"{name}={mine[REFRESH]}"]).error == (400, "invalid_request")
    me = request("GET", "/auth/me", {"Cookie": f"{name.replace('Secure-refresh', 'Host-access')}={mine[ACCESS]}"})
    assert ask(fortress.port, me).error == (401, "missing_token")


def test_the_two_cookies_do_not_stand_in_for_each_other(fortress: Gateway) -> None:
    mine = sign_in(fortress)
    swapped = request("GET", "/auth/me", {"Cookie": f"{ACCESS}={mine[REFRESH]}"})
    assert ask(fortress.port, swapped).error == (401, "invalid_token")
    assert refreshed(fortress, [f"{REFRESH}={mine[ACCESS]}"]).error == (400, "invalid_grant")


def test_the_gateways_cookies_are_closed_to_scripts_to_other_sites_and_to_plain_http(fortress: Gateway) -> None:
    """OWASP ASVS 3.4."""
    headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
    body = json.dumps({"username": "alice", "password": PASSWORD, "refresh_in": "cookie"}).encode()
    answer = ask(fortress.port, request("POST", "/auth/login", headers, body))
    assert len(answer.all("set-cookie")) == 2
    for value in answer.all("set-cookie"):
        attributes = {part.strip().lower().partition("=")[0] for part in value.split(";")[1:]}
        assert {"secure", "httponly", "samesite", "path", "max-age"} == attributes  # and no Domain
        assert "SameSite=Strict" in value
    assert cookie(answer, REFRESH) not in answer.body.decode()
    assert cookie(answer, ACCESS) not in answer.body.decode()
