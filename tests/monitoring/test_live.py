"""A real Prometheus scrapes a real gateway: every query of the dashboard and the rules names what is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.backends import Backend, Call
from tests.e2e.conftest import _no_exception_is_logged, backend, site
from tests.e2e.harness import Gateway, Site, route, until
from tests.e2e.wire import Client, ask, json_request, request
from tests.issuer import issuer
from tests.monitoring.server import JOB, NAMESPACE, POD, Prometheus, prometheus
from tests.monitoring.sources import ALERTS, QUERIES, filled, metrics_in, variables
from tests.redis_server import free_port

__all__ = ["_no_exception_is_logged", "backend", "site"]

ROUNDS = 8
Asked = tuple[Gateway, Prometheus]


@pytest.fixture(scope="module")
def asked(site: Site, backend: Backend) -> Iterator[Asked]:
    """Run a gateway and a Prometheus until it has seen traffic of every kind."""
    options: dict[str, Any] = {
        "routes": [
            route("/guarded/", backend.url),
            route("/closed/", f"http://127.0.0.1:{free_port()}", auth="none"),
        ],
        "audit": {"stream": True},
    }
    with (
        issuer() as idp,
        site.serve(issuers=[idp.settings()], **options) as gateway,
        prometheus(gateway.management) as server,
    ):
        for number in range(ROUNDS):
            traffic(gateway, backend)
            wait_for_scrapes(server, number + 2)
        last = "sum(increase(tokengate_streams_closed_total[5m])) > 0"
        until(lambda: server.query(last), "what was counted last is scraped", 30)
        yield gateway, server


def wait_for_scrapes(server: Prometheus, number: int) -> None:
    query = f'count_over_time(up{{job="{JOB}"}}[5m])'
    until(lambda: server.value(query) >= number, "another scrape", 30)


def traffic(gateway: Gateway, backend: Backend) -> None:
    """Do a little of everything that the metrics count."""
    session = gateway.login()
    token = session["access_token"]
    spot = backend.spot()
    for _ in range(3):
        assert ask(gateway.port, request("GET", spot.path("/guarded"), token=token)).status == 200
    assert ask(gateway.port, request("GET", spot.path("/guarded"))).status == 401
    assert ask(gateway.port, request("GET", "/closed/x")).status == 502
    assert gateway.refresh(session["refresh_token"]).status == 200
    body = {"username": "alice", "password": "wrong"}
    assert ask(gateway.port, json_request("POST", "/auth/login", body)).status == 401
    end_a_stream(gateway, backend, token)


def end_a_stream(gateway: Gateway, backend: Backend, token: str) -> None:
    def events(call: Call) -> None:
        call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
        call.gone()

    with Client(gateway.port) as client:
        client.send(request("GET", backend.spot(events).path("/guarded"), token=token))
        assert client.head().status == 200
        assert ask(gateway.port, request("POST", "/auth/logout", token=token)).status == 204
        client.rest()


def exported(gateway: Gateway) -> set[str]:
    """Return the names of the samples that the gateway shows, and of those that Prometheus makes by itself."""
    text = gateway.operate("GET", "/metrics").body.decode()
    return {"up", *re.findall(r"^(\w+)[{ ]", text, re.MULTILINE)}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("expression", QUERIES)
def test_every_query_of_the_dashboard_is_answered_with_data(asked: Asked, expression: str) -> None:
    gateway, server = asked
    assert metrics_in(expression) <= exported(gateway)
    assert metrics_in(expression)
    found = server.query(filled(expression))
    assert found
    assert all(sample["value"][1] != "NaN" for sample in found)


@pytest.mark.timeout(180)
def test_each_chosen_value_is_enough(asked: Asked) -> None:
    """A namespace, a job, a pod and a route alone, as Grafana puts them in."""
    chosen = {"namespace": NAMESPACE, "job": JOB, "pod": POD, "route": "/guarded/"}
    expression = next(query.values[0] for query in QUERIES if "$route" in str(query.values[0]))
    assert isinstance(expression, str)
    for name, value in chosen.items():
        expression = expression.replace(f"${name}", value)
    assert asked[1].value(expression.replace("$__rate_interval", "5m")) > 0
    assert asked[1].query(expression.replace(POD, "another").replace("$__rate_interval", "5m")) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("variable", [pytest.param(each, id=each["name"]) for each in variables()])
def test_every_variable_has_values_to_choose_from(asked: Asked, variable: dict[str, Any]) -> None:
    match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
    assert match is not None
    values = asked[1].get(f"label/{match[2]}/values", **{"match[]": filled(match[1])})
    expected = {"namespace": NAMESPACE, "job": JOB, "pod": POD, "route": "/guarded/"}
    assert expected[variable["name"]] in values


@pytest.mark.timeout(180)
@pytest.mark.parametrize("alert", ALERTS)
def test_every_rule_names_what_the_gateway_exports_and_is_evaluated(asked: Asked, alert: str) -> None:
    gateway, server = asked
    assert metrics_in(ALERTS[alert]["expr"]) <= exported(gateway)
    assert metrics_in(ALERTS[alert]["expr"])
    server.query(ALERTS[alert]["expr"])

    def health() -> list[str]:
        groups = server.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"] if rule["name"] == alert]
        return [f"{rule['health']} {rule.get('lastError', '')}".strip() for rule in rules]

    until(lambda: health() != ["unknown"], "the rule is evaluated", 30)
    assert health() == ["ok"]


@pytest.mark.timeout(180)
def test_a_gateway_that_is_well_sets_off_no_alert_that_waits_for_nothing(asked: Asked) -> None:
    assert asked[1].query('ALERTS{alertstate="firing"}') == []
