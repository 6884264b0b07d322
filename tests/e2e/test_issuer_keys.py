"""The keys of another issuer at a serving gateway: rotated, removed, missing, and behind every kind of outage."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.certificates import Authority
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.load import load
from tests.e2e.test_issuers import gateway_options, get
from tests.e2e.wire import Answer, Client, WireError, ask, request
from tests.issuer import (
    Behaviour,
    Issuer,
    broken,
    compressed,
    garbage,
    huge,
    issuer,
    new_key,
    redirecting,
    served,
    silent,
)

OPEN = "/unlive/x"  # no live check: what is told there is about keys alone


@pytest.fixture
def idp() -> Iterator[Issuer]:
    with issuer() as made:
        yield made


def gateway_with(site: Site, backend: Backend, idp: Issuer, **keys: Any) -> Any:
    return site.serve(**gateway_options(idp, backend, **keys))


def fetched(gateway: Gateway, idp: Issuer, outcome: str = "succeeded") -> float:
    return gateway.metric("tokengate_issuer_fetches_total", issuer=idp.name, outcome=outcome)


def first_fetch(gateway: Gateway, idp: Issuer) -> None:
    until(lambda: fetched(gateway, idp) + fetched(gateway, idp, "failed") >= 1, "the first fetch")


# --- rotation ---


def test_keys_are_rotated_under_load_without_a_failed_request(site: Site, backend: Backend, idp: Issuer) -> None:
    """The new key signs at once, and the gateway has never seen it."""
    with gateway_with(site, backend, idp) as gateway:
        spot = backend.spot()
        head = spot.path("/guarded")
        with load(lambda: [gateway.port], request("GET", head, token=idp.token()), clients=16) as steady:
            until(lambda: steady.total > 100, "load")
            idp.rotate("RS256")
            steady.data, before = request("GET", head, token=idp.token()), steady.total
            until(lambda: steady.total > before + 200, "load with the new key")
        assert steady.failures == []
        assert set(steady.answers) == {200}
        assert idp.fetches == 2


def test_a_key_is_found_however_many_ask_for_it_at_once(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp) as gateway:
        first_fetch(gateway, idp)
        idp.answer = silent
        idp.rotate("EdDSA")
        with ThreadPoolExecutor(24) as pool:
            asked = [pool.submit(get, gateway, idp.token(), OPEN) for _ in range(24)]
            until(lambda: idp.fetches == 2, "the fetch that they share")
            idp.answer = served
            idp.released.set()
            assert Counter(one.result(20).status for one in asked) == {200: 24}
        assert idp.fetches == 2


def test_a_removed_key_verifies_nothing_from_the_next_fetch_on(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp, jwks_refresh="1s") as gateway:
        first_fetch(gateway, idp)
        old = idp.token()
        assert get(gateway, old, OPEN).status == 200
        idp.rotate(keep=False)
        until(lambda: get(gateway, old, OPEN).status == 401, "the key is gone", 20)
        assert get(gateway, old, OPEN).error == (401, "invalid_token")
        assert get(gateway, idp.token(), OPEN).status == 200


def test_a_new_key_takes_the_removed_ones_away_with_the_same_fetch(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp) as gateway:
        first_fetch(gateway, idp)
        old = idp.token()
        assert get(gateway, old, OPEN).status == 200
        idp.rotate(keep=False)
        assert get(gateway, idp.token(), OPEN).status == 200
        assert get(gateway, old, OPEN).error == (401, "invalid_token")


def test_a_key_of_other_material_under_the_same_kid_takes_its_place(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp, jwks_refresh="1s") as gateway:
        first_fetch(gateway, idp)
        old = idp.token()
        assert get(gateway, old, OPEN).status == 200
        idp.signing = new_key(kid=idp.signing.kid)
        idp.keys = [idp.signing]
        until(lambda: get(gateway, old, OPEN).status == 401, "the old key is gone", 20)
        assert get(gateway, idp.token(), OPEN).status == 200


# --- floods ---


def test_a_flood_of_unknown_keys_makes_one_fetch_in_a_cooldown(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp) as gateway:
        first_fetch(gateway, idp)
        good, begun = idp.token(), time.monotonic()

        def flood(number: int) -> Counter[int]:
            answers: Counter[int] = Counter()
            for turn in range(50):
                forged = idp.token(header={"kid": f"forged-{number}-{turn}"})
                answers[get(gateway, forged, OPEN).status] += 1
                answers[get(gateway, good, OPEN).status] += 1
            return answers

        with ThreadPoolExecutor(6) as pool:
            total = sum(pool.map(flood, range(6)), Counter())
        assert total == {401: 300, 200: 300}
        assert idp.fetches <= 2 + (time.monotonic() - begun) // 10


@pytest.mark.parametrize("header", [{"typ": "rt+jwt"}, {"alg": "HS256"}, {"kid": 1}])
def test_a_token_that_no_key_could_make_good_causes_no_fetch(
    site: Site, backend: Backend, idp: Issuer, header: dict[str, Any]
) -> None:
    with gateway_with(site, backend, idp) as gateway:
        first_fetch(gateway, idp)
        assert get(gateway, idp.token(header={"kid": "new", **header}), OPEN).error == (401, "invalid_token")
        assert get(gateway, idp.token(header={"kid": "new"}, aud="other"), OPEN).error == (401, "invalid_token")
        assert idp.fetches == 1


# --- outages ---


@pytest.mark.parametrize("answer", [garbage, broken, huge, redirecting, compressed, silent, None])
def test_keys_are_served_stale_while_their_issuer_fails(
    site: Site, backend: Backend, idp: Issuer, answer: Behaviour | None
) -> None:
    with gateway_with(site, backend, idp, jwks_refresh="1s", jwks_timeout="500ms") as gateway:
        first_fetch(gateway, idp)
        if answer is None:
            idp.stop()
        else:
            idp.answer = answer
        failed = fetched(gateway, idp, "failed")
        until(lambda: fetched(gateway, idp, "failed") >= failed + 2, "fetches fail", 30)
        assert get(gateway, idp.token(), OPEN).status == 200  # seen for the first time
        assert gateway.readiness() == 200
        assert idp.elsewhere == 0
        told = [line for line in gateway.log_lines() if "keys of an issuer" in line["message"]]
        assert [line["message"] for line in told] == [
            "the keys of an issuer cannot be fetched; those that are there stay"
        ]
        idp.released.set()
        idp.rotate()
        idp.answer = served
        idp.start()
        until(lambda: get(gateway, idp.token(), OPEN).status == 200, "the new key is there", 30)


def test_an_unknown_key_in_an_outage_is_answered_within_the_timeout(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp, jwks_timeout="500ms") as gateway:
        first_fetch(gateway, idp)
        idp.answer = silent
        begun = time.monotonic()
        assert get(gateway, idp.token(header={"kid": "new"}), OPEN).error == (401, "invalid_token")
        assert 0.4 < time.monotonic() - begun < 8
        idp.released.set()


def test_the_age_of_the_keys_is_a_metric(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp) as gateway:
        first_fetch(gateway, idp)
        when = gateway.metric("tokengate_issuer_keys_timestamp_seconds", issuer=idp.name)
        assert 0 <= time.time() - when < 30


# --- the start ---


def test_a_gateway_starts_without_the_issuer_and_says_so_to_its_tokens_alone(
    site: Site, backend: Backend, idp: Issuer
) -> None:
    idp.stop()
    with gateway_with(site, backend, idp) as gateway:
        first_fetch(gateway, idp)
        assert gateway.readiness() == 200
        assert get(gateway, gateway.token).status == 200
        answer = get(gateway, idp.token(), OPEN)
        assert answer.error == (503, "identity_unavailable")
        assert answer.get("retry-after") == "1"
        assert answer.all("www-authenticate") == []
        logout = ask(gateway.port, request("POST", "/auth/logout", token=idp.token()))
        assert logout.error == (503, "identity_unavailable")
        assert get(gateway, idp.token(), "/auth/me").error == (503, "identity_unavailable")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        revoke = ask(gateway.port, request("POST", "/auth/revoke", form, f"token={idp.token()}".encode()))
        assert revoke.error == (503, "identity_unavailable")
        assert gateway.metric("tokengate_issuer_keys_timestamp_seconds", issuer=idp.name) == 0
        idp.start()
        until(lambda: get(gateway, idp.token(), OPEN).status == 200, "the issuer is back", 30)


def test_the_first_request_waits_for_the_first_fetch(site: Site, backend: Backend, idp: Issuer) -> None:
    idp.answer = silent
    with gateway_with(site, backend, idp, jwks_timeout="30s") as gateway:
        until(lambda: idp.fetches == 1, "the first fetch begins")
        answers: list[Answer] = []
        asking = threading.Thread(target=lambda: answers.append(get(gateway, idp.token(), OPEN)))
        asking.start()
        assert get(gateway, gateway.token).status == 200  # nobody else waits
        assert answers == []
        idp.released.set()
        asking.join(20)
        assert [answer.status for answer in answers] == [200]


def test_a_client_that_leaves_while_it_waits_harms_nothing(site: Site, backend: Backend, idp: Issuer) -> None:
    idp.answer = silent
    spot = backend.spot()
    with gateway_with(site, backend, idp, jwks_timeout="30s") as gateway:
        until(lambda: idp.fetches == 1, "the first fetch begins")
        for _ in range(5):
            with Client(gateway.port) as client:
                client.send(request("GET", spot.path("/unlive"), token=idp.token()))
        until(lambda: gateway.metric("tokengate_connections", side="client") == 0, "all have left")
        idp.released.set()
        assert get(gateway, idp.token(), OPEN).status == 200
        assert spot.calls() == []


def test_every_worker_has_the_keys(site: Site, backend: Backend, idp: Issuer) -> None:
    with site.serve(["--workers", "2"], **gateway_options(idp, backend)) as gateway:
        until(lambda: fetched(gateway, idp) >= 2, "both have fetched")
        for _ in range(20):
            assert get(gateway, idp.token(), OPEN).status == 200


# --- TLS ---


@pytest.mark.parametrize("trusted", [True, False])
def test_the_certificate_of_the_issuer_is_checked(site: Site, backend: Backend, tmp_path: Path, trusted: bool) -> None:
    authority = Authority(tmp_path)
    with issuer(tls=authority.issue("idp", "127.0.0.1")) as idp:
        keys = {"jwks_ca": str(authority.ca)} if trusted else {}
        with gateway_with(site, backend, idp, **keys) as gateway:
            first_fetch(gateway, idp)
            answer = get(gateway, idp.token(), OPEN)
            assert answer.status == 200 if trusted else answer.error == (503, "identity_unavailable")
            reasons = [line["reason"] for line in gateway.log_lines() if "cannot be fetched" in line["message"]]
            assert reasons == ([] if trusted else ["its certificate is not trusted"])


# --- streams ---


def drip(call: Call) -> None:
    """Send an event, then nothing more until the gateway ends the connection."""
    call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    call.gone()


def test_a_stream_ends_with_its_token_wherever_that_was_revoked(site: Site, backend: Backend, idp: Issuer) -> None:
    with gateway_with(site, backend, idp) as one, gateway_with(site, backend, idp) as two:
        for path, method in (("/auth/logout", "POST"), ("/auth/sessions", "DELETE")):
            token, spot = idp.token(sub=f"f-{method}"), backend.spot(drip)
            with Client(two.port) as client:
                client.send(request("GET", spot.path("/guarded"), token=token))
                pieces = client.body(client.head())
                assert next(pieces) == b"hello"
                assert ask(one.port, request(method, path, token=token)).status == 204
                with pytest.raises(WireError, match="ended"):
                    next(pieces)


def test_routes_of_the_tests_are_real() -> None:
    assert route("/unlive/", "http://127.0.0.1:1")["path"] == OPEN.removesuffix("x")
