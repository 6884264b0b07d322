"""The metrics of one worker, in the names and labels of the contract."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry import Telemetry, wants_openmetrics
from gateway.telemetry.metrics import MAX_CODES
from gateway.telemetry.series import MAX_SERIES, Histogram, Snapshot

# A histogram with more buckets than its bounds allow.
OVERLONG = (
    b'{"counters":{},"histograms":{"tokengate_check_batch_size":'
    b"[[[],[1,2,4,8,16,32,64,128,256,512,1024],[1,2,3,4,5,6,7,8,9,10,11,12,13],1,[]]]},"
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
        (lambda t: t.clock_skew(1.0), "tokengate_clock_skew_seconds{}"),
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
        ("tokengate_clock_skew_seconds", "gauge"),
        ("tokengate_store_rollbacks", "counter"),
        ("tokengate_check_batch_size", "histogram"),
        ("tokengate_upstream_errors", "counter"),
        ("tokengate_connections", "gauge"),
        ("tokengate_spans", "counter"),
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


def test_backends_that_make_up_statuses_do_not_take_the_series_of_other_routes() -> None:
    """llhttp reads 100 to 999; two or three such backends would fill the bound, and what was counted would vanish."""
    telemetry = Telemetry()
    hostile, others = [telemetry.route(f"hostile-{n}") for n in range(3)], telemetry.route("others")
    for code in (200, 500):
        others.done(code, 0.1)
    for route in hostile:
        for code in range(100, 1000):
            route.done(code, 0.1)
    found = samples(telemetry)
    for code in (200, 500):
        assert found[f'tokengate_requests_total{{code="{code}",route="others"}}'] == 1
    for route in hostile:
        mine = {name: value for name, value in found.items() if f'"{route.route}"' in name and "requests_total" in name}
        assert (len(mine), sum(mine.values())) == (MAX_CODES + 1, 900)
        assert mine[f'tokengate_requests_total{{code="other",route="{route.route}"}}'] == 900 - MAX_CODES


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


# --- exemplars ---

PROMETHEUS = (  # what it sends
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def seen(telemetry: Telemetry, name: str = "tokengate_request_seconds") -> dict[str, tuple[str, float]]:
    """Return le -> (trace id, value) of the exemplars of a metric, read as OpenMetrics is."""
    text = telemetry.render(openmetrics=True).decode()
    families = openmetrics_families(text)  # type: ignore[no-untyped-call]
    samples = [sample for family in families if family.name == name for sample in family.samples]
    return {s.labels["le"]: (s.exemplar.labels["trace_id"], s.exemplar.value) for s in samples if s.exemplar}


def test_each_bucket_has_the_trace_of_its_last_traced_request() -> None:
    telemetry = Telemetry()
    meter = telemetry.route("orders")
    for seconds, trace in ((0.003, "a" * 32), (0.004, TRACE), (20.0, "b" * 32)):
        meter.done(200, seconds)
        meter.see(seconds, trace)
    meter.done(200, 0.2)
    assert seen(telemetry) == {"0.005": (TRACE, 0.004), "+Inf": ("b" * 32, 20.0)}


def test_an_operation_of_the_store_has_one_where_it_was_traced() -> None:
    telemetry = Telemetry()
    telemetry.store("rotate", 0.003, TRACE)
    telemetry.store("create", 0.003)
    assert seen(telemetry, "tokengate_store_seconds") == {"0.005": (TRACE, 0.003)}


def test_a_value_at_a_bound_is_of_the_bucket_that_it_bounds() -> None:
    telemetry = Telemetry()
    telemetry.route("orders").done(200, 0.005)
    telemetry.route("orders").see(0.005, TRACE)
    assert set(seen(telemetry)) == {"0.005"}


def test_the_later_one_of_two_workers_counts(tmp_path: Path) -> None:
    one, other = Telemetry(tmp_path), Telemetry(tmp_path)
    one.route("orders").see(0.003, "a" * 32)
    other.route("orders").see(0.003, TRACE)
    other.route("orders").see(0.3, "b" * 32)
    one.flush()
    other.flush()
    for telemetry in (one, other):
        assert seen(telemetry) == {"0.005": (TRACE, 0.003), "0.5": ("b" * 32, 0.3)}
        telemetry.close()


def test_the_plain_text_has_none() -> None:
    telemetry = Telemetry()
    telemetry.route("orders").see(0.003, TRACE)
    assert TRACE not in telemetry.render().decode()


def test_the_two_formats_say_the_same() -> None:
    telemetry = Telemetry()
    telemetry.route("orders").done(200, 0.003)
    telemetry.spans({"exported": 3, "dropped": 1, "failed": 0})
    telemetry.spans({"exported": 5, "dropped": 1, "failed": 0})
    plain_ones = text_string_to_metric_families(telemetry.render().decode())
    plain = {(s.name, *s.labels.items()): s.value for f in plain_ones for s in f.samples}
    moving = {(name,): plain.pop((name,)) for name in ("process_cpu_seconds_total", "process_resident_memory_bytes")}
    text = telemetry.render(openmetrics=True).decode()
    open_ones = openmetrics_families(text)  # type: ignore[no-untyped-call]
    found = {(s.name, *s.labels.items()): s.value for f in open_ones for s in f.samples}
    assert all(found.pop(name) > 0 for name in moving)  # they have moved on since
    assert found == plain
    assert plain["tokengate_spans_total", ("outcome", "exported")] == 5


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", True),
        (PROMETHEUS, True),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;version=2.0.0,application/openmetrics-text;version=1.0.0", True),
        ("application/openmetrics-text;q=0, text/plain", False),
        ("application/openmetrics-text;q=0.00", False),
        ("application/openmetrics-text;version=;;=;q", False),
        ("x" * 10_000 + ";" * 10_000, False),
    ],
)
def test_who_asks_for_openmetrics(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) == wanted
