"""Sign in, call a backend, expire, refresh, sign out: two gateway processes, one Redis, nginx behind them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.backends import Nginx
from tests.e2e.harness import AUDIENCE, Gateway, Site, route, until
from tests.e2e.wire import Answer, ask, request

PATH = "/app/hello"


@pytest.fixture(scope="module")
def pair(site: Site, nginx: Nginx) -> Iterator[tuple[Gateway, Gateway]]:
    routes = [route("/app/", nginx.url)]
    tokens = {
        "issuer": "https://gateway.test",
        "audience": AUDIENCE,
        "signing_keys": str(site.directory / "keys"),
        "access_ttl": "1s",
        "leeway": "0s",
    }
    with site.serve(routes=routes, tokens=tokens) as first, site.serve(routes=routes, tokens=tokens) as second:
        yield first, second


def call(gateway: Gateway, token: str) -> Answer:
    return ask(gateway.port, request("GET", PATH, token=token))


def test_the_main_line_from_login_to_the_401_after_logout(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    tokens = first.login("alice")
    answer = call(first, tokens["access_token"])
    assert (answer.status, answer.body) == (200, b"user=u-alice groups=user,admin")

    expired = until(lambda: (a := call(first, tokens["access_token"])).status == 401 and a, "the token expires", 4)
    assert expired.error == (401, "expired_token")
    challenge = f'Bearer realm="{AUDIENCE}", error="invalid_token", error_description="The access token expired"'
    assert expired.get("www-authenticate") == challenge

    renewed = second.refresh(tokens["refresh_token"])
    assert renewed.status == 200
    token = renewed.json()["access_token"]
    assert call(first, token).status == 200
    assert call(second, token).status == 200

    assert ask(first.port, request("POST", "/auth/logout", token=token)).status == 204
    after = call(second, token)
    assert after.error == (401, "revoked_token")


def test_a_logout_holds_for_the_very_next_request_on_the_other_process(pair: tuple[Gateway, Gateway]) -> None:
    first, second = pair
    for _ in range(20):
        token = first.login("alice")["access_token"]
        assert call(second, token).status == 200
        assert ask(first.port, request("POST", "/auth/logout", token=token)).status == 204
        assert call(second, token).error == (401, "revoked_token")
