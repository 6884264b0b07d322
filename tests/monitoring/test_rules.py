"""Every alert fires when it should and is silent when it should be, by promtool on made-up series."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.monitoring.sources import ALERTS, HERE, PAGE, ROOT, RULES, need

WHERE = 'namespace="n",job="tokengate-management",instance="10.0.0.1:9090",pod="p-1"'
MINUTES = 120
Series = dict[str, str]


def name(metric: str, labels: str = "") -> str:
    return f"{metric}{{{WHERE}{',' if labels else ''}{labels}}}"


def per_second(rate: float) -> str:
    """Return a counter that grows so fast, a sample a minute."""
    return f"0+{rate * 60:g}x{MINUTES}"


def always(value: float) -> str:
    return f"{value:g}x{MINUTES}"


UP, STORE_UP = name("up"), name("tokengate_store_up")
READY, UNREADY, DRAINING = (name("tokengate_workers", f'state="{state}"') for state in ("ready", "unready", "draining"))
REQUESTS = name("tokengate_requests_total", 'route="/a/",code="200"')
ISSUER = name("tokengate_issuer_keys_timestamp_seconds", 'issuer="https://idp"')
REUSED = name("tokengate_refreshes_total", 'outcome="reuse"')
CREATED, FAILED = (name("tokengate_sessions_total", f'event="{event}"') for event in ("created", "login_failed"))
ROLLED_BACK = name("tokengate_store_rollbacks_total")
SKEW = name("tokengate_clock_skew_seconds")
FULL = name("tokengate_audit_dropped_total", 'reason="full"')

# A replica that is well: ten requests a second, and nothing else happens. Time begins at 0.
WELL: Series = {
    UP: always(1),
    READY: always(2),
    UNREADY: always(0),
    DRAINING: always(0),
    STORE_UP: always(1),
    REQUESTS: per_second(10),
    ISSUER: f"0+60x{MINUTES}",
    REUSED: always(0),
    CREATED: per_second(0.1),
    FAILED: always(0),
    ROLLED_BACK: always(0),
    SKEW: always(0),
    FULL: always(0),
}


def rejected(error: str, rate: float) -> Series:
    return {name("tokengate_rejections_total", f'route="/a/",error="{error}"'): per_second(rate)}


def failing(kind: str, rate: float) -> Series:
    return {name("tokengate_upstream_errors_total", f'route="/a/",kind="{kind}"'): per_second(rate)}


def slow(operation: str, bounds: dict[str, float]) -> Series:
    """Return a histogram: for each bound, how many a second were within it."""
    labels = f'operation="{operation}",le='
    return {name("tokengate_store_seconds_bucket", f'{labels}"{le}"'): per_second(n) for le, n in bounds.items()}


@dataclass
class Case:
    """What differs from WELL (None: the series is not there), and which alerts fire at a minute for it."""

    series: Mapping[str, str | None]
    fires: list[str] = field(default_factory=list)
    at: int = 30


CASES: dict[str, Case] = {
    "all is well": Case({}),
    "a replica is not scraped": Case({UP: always(0)}, ["TokengateDown"]),
    "a scrape fails once": Case({UP: f"1x10 0 1x{MINUTES}"}, at=11),
    "another job is down": Case({'up{job="node",instance="a"}': always(0)}),
    "nothing is scraped": Case({READY: None, UNREADY: None, DRAINING: None}, ["TokengateAbsent"]),
    "few are ready": Case({READY: always(1), UNREADY: always(2)}, ["TokengateNotReady"]),
    "none is ready": Case({READY: always(0), UNREADY: always(2)}, ["TokengateNotReady"]),
    "half are ready": Case({READY: always(1), UNREADY: always(1)}),
    "few are ready for a moment": Case({READY: f"2x10 0 2x{MINUTES}", UNREADY: f"0x10 2 0x{MINUTES}"}, at=11),
    "a drain hangs": Case({DRAINING: always(1)}, ["TokengateDraining"]),
    "a drain of a minute": Case({DRAINING: f"0x10 1x1 0x{MINUTES}"}, at=12),
    "redis is down": Case({STORE_UP: always(0)}, ["TokengateStoreDown"]),
    "redis is down for a moment": Case({STORE_UP: f"1x10 0 1x{MINUTES}"}, at=10),
    "redis refuses some": Case(rejected("store_unavailable", 1), ["TokengateStoreErrors"]),
    "redis refuses few": Case(rejected("store_unavailable", 0.05)),
    "live checks are slow": Case(slow("check", {"0.05": 5, "0.1": 10, "+Inf": 10}), ["TokengateRevocationCheckSlow"]),
    "live checks are late for one in a thousand": Case(slow("check", {"0.05": 9.99, "0.1": 10, "+Inf": 10})),
    "refreshes are slow": Case(slow("rotate", {"0.1": 5, "0.25": 10, "+Inf": 10}), ["TokengateStoreSlow"]),
    "refreshes are quick": Case(slow("rotate", {"0.1": 10, "0.25": 10, "+Inf": 10})),
    "redis came back older": Case({ROLLED_BACK: f"0x20 16x{MINUTES}"}, ["TokengateStoreRolledBack"], 25),
    "redis came back older an hour ago": Case({ROLLED_BACK: f"0x20 16x{MINUTES}"}, at=80),
    "tokens are used again": Case({REUSED: f"0x20 20x{MINUTES}"}, ["TokengateRefreshTokenReused"], 25),
    "few tokens are used again": Case({REUSED: f"0x20 5x{MINUTES}"}, at=25),
    "tokens expire": Case(rejected("expired_token", 3), ["TokengateExpiredTokens"]),
    "tokens expire now and then": Case(rejected("expired_token", 1)),
    "passwords are tried": Case({FAILED: per_second(2)}, ["TokengateLoginFailures"]),
    "passwords are tried and nobody signs in": Case({FAILED: per_second(2), CREATED: None}, ["TokengateLoginFailures"]),
    "many sign in and some fail": Case({FAILED: per_second(2), CREATED: per_second(1)}),
    "passwords are tried slowly": Case({FAILED: per_second(0.5)}),
    "many requests are refused": Case(rejected("no_route", 4), ["TokengateRejections"]),
    "some requests are refused": Case(rejected("no_route", 2)),
    "what has an alert of its own is told once": Case(rejected("overloaded", 8), ["TokengateOverloaded"]),
    "a backend fails": Case(failing("upstream_timeout", 1), ["TokengateUpstreamErrors"]),
    "a backend fails seldom": Case(failing("upstream_timeout", 0.2)),
    "kept connections break and are tried again": Case(failing("upstream_retried", 5)),
    "a clock is behind": Case({SKEW: always(-7)}, ["TokengateClockSkew"], 30),
    "a clock is off by what none notices": Case({SKEW: always(4)}),
    "there is too much to do": Case(rejected("overloaded", 1), ["TokengateOverloaded"]),
    "there is a little too much to do": Case(rejected("overloaded", 0.05)),
    "an issuer's keys grow old": Case({ISSUER: f"0+60x10 600x{MINUTES}"}, ["TokengateIssuerKeysStale"], 90),
    "an issuer's keys were never fetched": Case({ISSUER: always(0)}, ["TokengateIssuerKeysStale"], 90),
    "audit entries are left out": Case({FULL: f"0x20 7x{MINUTES}"}, ["TokengateAuditDropped"], 25),
    "audit entries were left out once": Case({FULL: f"0x20 7x{MINUTES}"}, at=60),
}


def promtool(directory: Path, test: dict[str, object]) -> None:
    file = directory / "test.yaml"
    document = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [{"interval": "1m", **test}]}
    file.write_text(json.dumps(document))  # JSON is YAML
    command = [need("promtool"), "test", "rules", str(file)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def listed(series: Mapping[str, str | None]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in {**WELL, **series}.items() if values is not None]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_these_alerts_fire_and_no_others(tmp_path: Path, case: Case) -> None:
    firing = [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in case.fires]
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    expected = [{"expr": query, "eval_time": f"{case.at}m", "exp_samples": firing}]
    promtool(tmp_path, {"input_series": listed(case.series), "promql_expr_test": expected})


def test_every_alert_is_tried_both_ways() -> None:
    assert {alert for case in CASES.values() for alert in case.fires} == set(ALERTS)


def test_an_alert_says_which_replica_and_where_to_read_on(tmp_path: Path) -> None:
    rule = ALERTS["TokengateStoreDown"]
    where = dict(re.findall(r'(\w+)="([^"]*)"', WHERE))
    told = {**rule["annotations"], "summary": "Redis does not answer 10.0.0.1:9090"}
    alert = {"exp_labels": {**where, **rule["labels"]}, "exp_annotations": told}
    expected = [{"eval_time": "30m", "alertname": "TokengateStoreDown", "exp_alerts": [alert]}]
    promtool(tmp_path, {"input_series": listed({STORE_UP: always(0)}), "alert_rule_test": expected})


def test_labels_that_a_set_up_does_not_have_are_no_matter(tmp_path: Path) -> None:
    """Plain Prometheus has neither namespace nor pod."""
    bare = {
        series.replace('namespace="n",', "").replace(',pod="p-1"', ""): values
        for series, values in {**WELL, STORE_UP: always(0), **rejected("no_route", 4)}.items()
    }
    firing = [
        {"labels": '{alertname="TokengateRejections"}', "value": 1},
        {"labels": '{alertname="TokengateStoreDown"}', "value": 1},
    ]
    query = 'sort(count by (alertname) (ALERTS{alertstate="firing"}))'
    expected = [{"expr": query, "eval_time": "30m", "exp_samples": firing}]
    promtool(
        tmp_path,
        {"input_series": [{"series": k, "values": v} for k, v in bare.items()], "promql_expr_test": expected},
    )


def test_promtool_takes_the_rules() -> None:
    ran = subprocess.run([need("promtool"), "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"{len(ALERTS)} rules found" in ran.stdout


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_severity_a_summary_a_description_and_a_place_in_the_page(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert ROOT / page == PAGE
    assert anchor == alert.lower()
    assert f"\n### {alert}\n" in PAGE.read_text()


def test_the_page_tells_of_no_alert_that_is_not_there() -> None:
    assert set(re.findall(r"^### (Tokengate\w+)$", PAGE.read_text(), re.MULTILINE)) == set(ALERTS)


def test_what_is_made_from_the_rules_and_the_panels_is_up_to_date() -> None:
    """`make monitoring` would change nothing."""
    command = [sys.executable, str(HERE / "make.py"), "--check"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_operator_gets_the_same_rules() -> None:
    made = yaml.safe_load((HERE / "prometheusrule.yaml").read_text())
    assert made["kind"] == "PrometheusRule"
    assert made["spec"] == yaml.safe_load(RULES.read_text())
    chart = ROOT / "k8s" / "chart"
    assert (chart / "files" / "rules.yaml").read_text() == RULES.read_text()
    assert '.Files.Get "files/rules.yaml"' in (chart / "templates" / "prometheusrule.yaml").read_text()
