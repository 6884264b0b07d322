"""SIGHUP: other issuers are added, changed and removed in one step, and the others keep their keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, until
from tests.e2e.test_drain import REFUSED, RELOADED, hang_up, rewrite
from tests.e2e.test_exchange import exchange
from tests.e2e.test_issuers import FORM, gateway_options, get
from tests.e2e.wire import Answer, ask, request
from tests.issuer import Issuer, issuer, silent

Idps = tuple[Issuer, Issuer]

INVALID, UNAVAILABLE = (401, "invalid_token"), (503, "identity_unavailable")


@pytest.fixture
def idps() -> Iterator[Idps]:
    with issuer() as first, issuer() as second:
        yield first, second


def options(idps: Idps, backend: Backend, *issuers: dict[str, Any]) -> dict[str, Any]:
    return gateway_options(idps[0], backend) | {"issuers": list(issuers)}


def reload(
    gateway: Gateway, idps: Idps, backend: Backend, *issuers: dict[str, Any], message: str = RELOADED
) -> dict[str, Any]:
    rewrite(gateway, **options(idps, backend, *issuers))
    return hang_up(gateway, message)[0]


def passes(gateway: Gateway, token: str) -> None:
    until(lambda: get(gateway, token).status == 200, "its issuer's keys are there")


def test_an_issuer_that_is_added_is_accepted_and_one_that_is_removed_is_refused_at_once(
    site: Site, backend: Backend, idps: Idps
) -> None:
    first, second = idps
    with site.serve(**options(idps, backend)) as gateway:
        old, new = first.token(), second.token()
        assert [get(gateway, token).error for token in (old, new)] == [INVALID] * 2
        reload(gateway, idps, backend, first.settings())
        passes(gateway, old)
        assert get(gateway, new).error == INVALID
        reload(gateway, idps, backend, first.settings(), second.settings())
        passes(gateway, new)
        assert get(gateway, old).status == 200
        reload(gateway, idps, backend, second.settings())
        assert get(gateway, old).error == INVALID
        assert get(gateway, first.token()).error == INVALID
        assert get(gateway, new).status == 200
        assert gateway.metric("tokengate_issuer_keys_timestamp_seconds", issuer=second.name) > 0
        assert f'issuer_keys_timestamp_seconds{{issuer="{first.name}"}}' not in metrics(gateway)
        reload(gateway, idps, backend)
        assert get(gateway, new).error == INVALID
        assert [line for line in gateway.log_lines() if "restart" in line["message"]] == []


def metrics(gateway: Gateway) -> str:
    return gateway.operate("GET", "/metrics").body.decode()


def test_an_issuer_that_stays_keeps_its_keys_though_it_cannot_be_reached(
    site: Site, backend: Backend, idps: Idps
) -> None:
    first, second = idps
    with site.serve(**options(idps, backend, first.settings(jwks_refresh="10m"))) as gateway:
        passes(gateway, first.token())
        fetches = first.fetches
        first.stop()
        reload(gateway, idps, backend, first.settings(jwks_refresh="5m", roles_claim="groups"), second.settings())
        assert get(gateway, first.token()).status == 200
        passes(gateway, second.token())
        assert first.fetches == fetches
        first.start()


def test_a_change_of_what_is_asked_of_tokens_holds_for_those_that_were_seen_before(
    site: Site, backend: Backend, idps: Idps
) -> None:
    idp = idps[0]
    with site.serve(**options(idps, backend, idp.settings())) as gateway:
        token = idp.token(groups=["admin"])
        passes(gateway, token)
        assert get(gateway, token, "/admins/x").status == 403
        reload(gateway, idps, backend, idp.settings(roles_claim="groups"))
        assert get(gateway, token, "/admins/x").status == 200
        reload(gateway, idps, backend, idp.settings(audience="others"))
        assert get(gateway, token).error == INVALID
        reload(gateway, idps, backend, idp.settings(algorithms=["RS256"]))
        assert get(gateway, token).error == INVALID


def test_keys_of_another_address_take_the_place_of_those_before_and_never_stand_beside_them(
    site: Site, backend: Backend, idps: Idps
) -> None:
    idp, moved = idps
    with site.serve(**options(idps, backend, idp.settings())) as gateway:
        token = idp.token()
        passes(gateway, token)
        moved.answer = silent
        reload(gateway, idps, backend, idp.settings(jwks_url=moved.jwks_url, jwks_timeout="1s"))
        assert get(gateway, token).error == UNAVAILABLE
        moved.released.set()
        passes(gateway, idp.token(moved.signing))
        assert get(gateway, token).error == INVALID


def test_a_fetch_that_was_under_way_for_a_removed_issuer_brings_nothing_back(
    site: Site, backend: Backend, idps: Idps
) -> None:
    first, second = idps
    first.answer = silent
    with site.serve(**options(idps, backend, first.settings())) as gateway:
        until(lambda: first.fetches == 1, "the fetch")
        reload(gateway, idps, backend, second.settings())
        first.released.set()
        passes(gateway, second.token())
        assert get(gateway, first.token()).error == INVALID


def test_issuers_that_cannot_be_used_change_nothing(site: Site, backend: Backend, idps: Idps) -> None:
    first, second = idps
    with site.serve(**options(idps, backend, first.settings())) as gateway:
        passes(gateway, first.token())
        bad = second.settings(jwks_url="https://127.0.0.1:1/jwks", jwks_ca="/nowhere/ca.crt")
        refused = reload(gateway, idps, backend, bad, message=REFUSED)
        assert "issuers.0.jwks_ca" in refused["reason"]
        assert get(gateway, first.token()).status == 200


def test_an_exchange_that_a_reload_allows_is_made_and_one_that_it_takes_away_is_not(
    site: Site, backend: Backend, idps: Idps
) -> None:
    idp = idps[0]
    with site.serve(**options(idps, backend, idp.settings())) as gateway:
        passes(gateway, idp.token())
        assert exchange(gateway, idp.token()).status == 400
        reload(gateway, idps, backend, idp.settings(exchange=True))
        answer = exchange(gateway, idp.token(sub="f-ex"))
        assert answer.status == 200
        subject = f"{idp.name.partition('://')[2]}|f-ex"
        assert len(sessions(gateway, subject).json()["sessions"]) == 1
        reload(gateway, idps, backend, idp.settings())
        assert exchange(gateway, idp.token()).status == 400
        own = answer.json()["access_token"]
        assert get(gateway, own).status == 200  # a session of ours, by now
        assert ask(gateway.port, request("POST", "/auth/revoke", FORM, f"token={own}".encode())).status == 200


def sessions(gateway: Gateway, subject: str) -> Answer:
    return gateway.operate("GET", f"/admin/users/{subject.replace('|', '%7C')}/sessions")
