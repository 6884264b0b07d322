"""The metrics of one worker, in the names and labels of the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Telemetry
from gateway.telemetry.series import MAX_SERIES, Histogram, Snapshot

# A histogram with more buckets than its bounds allow.
OVERLONG = (
    b'{"counters":{},"histograms":{"tokengate_check_batch_size":'
    b"[[[],[1,2,4,8,16,32,64,128,256,512,1024],[1,2,3,4,5,6,7,8,9,10,11,12,13],1]]},"
    b'"gauges":{}}'
)


def samples(telemetry: Telemetry) -> dict[str, float]:
    """Read what is rendered, as Prometheus would: 'name{a="b"}' -> value."""
    found = {}
    for family in text_string_to_metric_families(telemetry.render().decode()):
        for sample in family.samples:
            labels = ",".join(f'{k}="{v}"' for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.mark.parametrize(
    ("act", "name"),
    [
        (lambda t: t.route("orders").done(200, 0.1), 'tokengate_requests_total{code="200",route="orders"}'),
        (lambda t: t.route("orders").done(200, 0.1), 'tokengate_request_seconds_count{route="orders"}'),
        (lambda t: t.rejected("orders", "no_route"), 'tokengate_rejections_total{error="no_route",route="orders"}'),
        (lambda t: t.refreshed("reuse"), 'tokengate_refreshes_total{outcome="reuse"}'),
        (lambda t: t.session("created"), 'tokengate_sessions_total{event="created"}'),
        (lambda t: t.store("rotate", 0.1), 'tokengate_store_seconds_count{operation="rotate"}'),
        (lambda t: t.store_up(True), "tokengate_store_up{}"),
        (lambda t: t.store_rolled_back(), "tokengate_store_rollbacks_total{}"),
        (lambda t: t.readiness([]), 'tokengate_workers{state="ready"}'),
        (lambda t: t.readiness(["redis"]), 'tokengate_workers{state="unready"}'),
        (lambda t: t.readiness(["draining", "redis"]), 'tokengate_workers{state="draining"}'),
        (lambda t: t.audit_dropped("flood"), 'tokengate_audit_dropped_total{reason="flood"}'),
        (lambda t: t.check_batch(1, 0.1), "tokengate_check_batch_size_count{}"),
        (lambda t: t.check_batch(1, 0.1), 'tokengate_store_seconds_count{operation="check"}'),
        (
            lambda t: t.upstream_error("orders", "timeout"),
            'tokengate_upstream_errors_total{kind="timeout",route="orders"}',
        ),
        (lambda t: t.connection("client", 1), 'tokengate_connections{side="client"}'),
        (lambda t: t.stream_closed("session_ended"), 'tokengate_streams_closed_total{reason="session_ended"}'),
    ],
)
def test_each_event_adds_one_to_the_series_the_contract_names(act: Callable[[Telemetry], None], name: str) -> None:
    telemetry = Telemetry()
    before = samples(telemetry).get(name, 0)
    act(telemetry)
    assert samples(telemetry)[name] == before + 1


def test_the_rendered_text_holds_exactly_the_metrics_of_the_contract() -> None:
    families = text_string_to_metric_families(Telemetry().render().decode())
    assert {(f.name, f.type) for f in families} == {
        ("tokengate_issuer_fetches", "counter"),
        ("tokengate_issuer_keys_timestamp_seconds", "gauge"),
        ("tokengate_requests", "counter"),
        ("tokengate_request_seconds", "histogram"),
        ("tokengate_rejections", "counter"),
        ("tokengate_refreshes", "counter"),
        ("tokengate_sessions", "counter"),
        ("tokengate_store_seconds", "histogram"),
        ("tokengate_store_up", "gauge"),
        ("tokengate_store_rollbacks", "counter"),
        ("tokengate_check_batch_size", "histogram"),
        ("tokengate_upstream_errors", "counter"),
        ("tokengate_connections", "gauge"),
        ("tokengate_streams_closed", "counter"),
        ("tokengate_workers", "gauge"),
        ("tokengate_audit_dropped", "counter"),
        ("process_cpu_seconds", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_start_time_seconds", "gauge"),
    }


def test_requests_are_counted_by_status_and_their_times_by_route() -> None:
    telemetry = Telemetry()
    meter = telemetry.route("orders")
    for code, seconds in ((200, 0.001), (200, 0.003), (401, 20.0)):
        meter.done(code, seconds)
    found = samples(telemetry)
    assert found['tokengate_requests_total{code="200",route="orders"}'] == 2
    assert found['tokengate_requests_total{code="401",route="orders"}'] == 1
    assert found['tokengate_request_seconds_sum{route="orders"}'] == pytest.approx(20.004)
    assert found['tokengate_request_seconds_bucket{le="10.0",route="orders"}'] == 2
    assert found['tokengate_request_seconds_bucket{le="+Inf",route="orders"}'] == 3


def test_a_status_that_no_rfc_knows_is_counted_like_any_other() -> None:
    telemetry = Telemetry()
    for code in (0, 999, 65535):
        telemetry.route("orders").done(code, 0.1)
        assert samples(telemetry)[f'tokengate_requests_total{{code="{code}",route="orders"}}'] == 1


def test_an_observation_on_a_bound_belongs_to_the_bucket_of_that_bound() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)
    assert histogram.cumulative() == [("1.0", 1), ("2.0", 3), ("+Inf", 4)]


def test_a_route_has_one_meter_however_often_it_is_asked_for() -> None:
    telemetry = Telemetry()
    assert telemetry.route("orders") is telemetry.route("orders")


def test_the_refresh_outcomes_are_shown_as_zero_before_the_first_refresh() -> None:
    found = samples(Telemetry())
    for outcome in ("rotated", "replayed", "reuse", "expired", "unknown"):
        assert found[f'tokengate_refreshes_total{{outcome="{outcome}"}}'] == 0


def test_the_store_counts_as_down_until_it_is_known_to_be_up() -> None:
    telemetry = Telemetry()
    assert samples(telemetry)["tokengate_store_up{}"] == 0
    telemetry.store_up(True)
    assert samples(telemetry)["tokengate_store_up{}"] == 1
    telemetry.store_up(False)
    assert samples(telemetry)["tokengate_store_up{}"] == 0


def test_connections_go_up_and_down() -> None:
    telemetry = Telemetry()
    for change in (1, 1, -1):
        telemetry.connection("upstream", change)
    assert samples(telemetry)['tokengate_connections{side="upstream"}'] == 1


def test_a_label_with_quotes_and_newlines_stays_one_label() -> None:
    telemetry = Telemetry()
    telemetry.rejected('a"b\nc\\', "no_route")
    families = {f.name: f for f in text_string_to_metric_families(telemetry.render().decode())}
    assert families["tokengate_rejections"].samples[0].labels["route"] == 'a"b\nc\\'


def test_too_many_label_values_are_counted_together_instead_of_growing_without_bound() -> None:
    telemetry = Telemetry()
    for i in range(MAX_SERIES + 10):
        telemetry.rejected(f"route-{i}", "no_route")
    found = samples(telemetry)
    assert found['tokengate_rejections_total{error="other",route="other"}'] == 10


def test_a_snapshot_survives_being_written_and_read() -> None:
    first = Snapshot()
    first.count("tokengate_requests", ("orders", "200"), 3)
    first.histogram("tokengate_store_seconds", ("check",)).observe(0.3)
    first.gauges["tokengate_connections"][("client",)] = 4.0
    second = Snapshot.load(first.dump())
    assert second.dump() == first.dump()


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"[]",
        b"1",
        b"{}",
        b'{"counters":{"tokengate_requests":[[["a","b"],"x"]]},"histograms":{},"gauges":{}}',
        b'{"counters":{"tokengate_requests":[[["a","b"],1,2]]},"histograms":{},"gauges":{}}',
        OVERLONG,
    ],
)
def test_a_broken_snapshot_is_passed_over(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "0.json").write_bytes(data)
    telemetry = Telemetry(tmp_path)
    telemetry.refreshed("reuse")
    assert samples(telemetry)['tokengate_refreshes_total{outcome="reuse"}'] == 1
    telemetry.close()


def test_metrics_that_cannot_be_written_cost_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = tmp_path / "shared"
    telemetry = Telemetry(shared)
    for file in shared.iterdir():
        file.unlink()
    shared.rmdir()
    for _ in range(3):
        telemetry.session("created")
        telemetry.flush()
    assert samples(telemetry)['tokengate_sessions_total{event="created"}'] == 3
    assert len(caplog.records) == 1, "one warning, not one a second"
    telemetry.close()
