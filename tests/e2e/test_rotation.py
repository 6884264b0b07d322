"""One successor: fifty clients refresh one session at the same moment through two processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.e2e.backends import Backend
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Client, ask, json_request, request

CLIENTS = 50
ROUNDS = 100


@pytest.fixture(scope="module")
def pair(site: Site, backend: Backend) -> Iterator[tuple[Gateway, Gateway]]:
    options: dict[str, Any] = {"routes": [route("/guarded/", backend.url)], "tokens": {"refresh_grace": "0s"}}
    with site.serve(**options) as first, site.serve(**options) as second:
        yield first, second


def refresh_at_once(clients: list[Client], refresh_token: str) -> list[dict[str, str]]:
    """Send one refresh on every connection before any answer is read."""
    content = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    data = json_request("POST", "/auth/token", content)
    for client in clients:
        client.send(data)
    answers = [client.answer("POST") for client in clients]
    assert {answer.status for answer in answers} == {200}, answers
    return [answer.json() for answer in answers]


def refreshes(pair: tuple[Gateway, Gateway], outcome: str) -> float:
    return sum(gateway.metric("tokengate_refreshes_total", outcome=outcome) for gateway in pair)


def test_concurrent_refreshes_have_one_successor_and_an_old_token_ends_the_session(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    spot = backend.spot()
    first, second = pair
    tokens = first.login("alice", device="shared")
    old = tokens["refresh_token"]
    rotated, replayed = refreshes(pair, "rotated"), refreshes(pair, "replayed")
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(pair[number % 2].port)) for number in range(CLIENTS)]
        for _ in range(ROUNDS):
            answers = refresh_at_once(clients, tokens["refresh_token"])
            assert len({answer["refresh_token"] for answer in answers}) == 1
            assert {answer["session_id"] for answer in answers} == {tokens["session_id"]}
            assert answers[0]["refresh_token"] != tokens["refresh_token"]
            tokens = answers[0]
    assert refreshes(pair, "rotated") - rotated == ROUNDS
    assert refreshes(pair, "replayed") - replayed == ROUNDS * (CLIENTS - 1)
    for gateway in pair:
        assert ask(gateway.port, request("GET", spot.path("/guarded"), token=tokens["access_token"])).status == 200

    assert second.refresh(old).error == (400, "invalid_grant")
    for gateway in pair:
        answer = ask(gateway.port, request("GET", spot.path("/guarded"), token=tokens["access_token"]))
        assert answer.error == (401, "revoked_token")
        assert gateway.refresh(tokens["refresh_token"]).error == (400, "invalid_grant")
    assert second.metric("tokengate_refreshes_total", outcome="reuse") == 1
    told = [line for line in second.log_lines() if line.get("event") == "refresh_reuse"]
    assert [line["session_id"] for line in told] == [tokens["session_id"]]


def test_an_answer_that_was_lost_is_given_again_until_its_token_is_used(
    pair: tuple[Gateway, Gateway], backend: Backend
) -> None:
    spot = backend.spot()
    first, second = pair
    lost = first.login("alice", device="lossy")["refresh_token"]
    answers = [gateway.refresh(lost).json() for gateway in (first, second, first)]
    assert len({answer["refresh_token"] for answer in answers}) == 1
    used = answers[0]["access_token"]
    assert ask(second.port, request("GET", spot.path("/guarded"), token=used)).status == 200
    # The access token that came with the successor was seen, and the grace is 0.
    answer = until(lambda: (a := first.refresh(lost)).status == 400 and a, "the successor counts as used", 3)
    assert answer.error == (400, "invalid_grant")
    assert ask(first.port, request("GET", spot.path("/guarded"), token=used)).error == (401, "revoked_token")
