"""The way of spans to a collector: bounds, counts, and the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from gateway.telemetry.spans import Span, new_id
from gateway.telemetry.tracing import Exporter
from tests.e2e.collector import Collector, collecting
from tests.e2e.harness import until


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


def ended(name: str, error: str = "", **attributes: str | int) -> Span:
    span = Span(lambda _: None, new_id(16), b"", name, "server")
    span.attributes = {key.replace("__", "."): value for key, value in attributes.items()}
    span.finish(error)
    return span


def test_spans_are_sent_in_batches_and_counted(collector: Collector) -> None:
    exporter = Exporter(collector.url, "edge", version="1.2")
    for n in range(1000):
        exporter(ended(f"span {n}"))
    exporter.close(10)
    assert [span.name for span in collector.spans()] == [f"span {n}" for n in range(1000)]
    assert exporter.counts() == {"exported": 1000, "dropped": 0, "failed": 0}
    assert collector.spans()[0].resource["service.version"] == "1.2"
    assert len(collector.bodies) >= 1000 // 64


@pytest.mark.parametrize(
    ("error", "status", "failed"),
    [("", 200, False), ("missing_token", 401, False), ("upstream_timeout", 504, True), ("aborted", 200, True)],
)
def test_a_server_has_failed_where_it_could_not_answer(
    collector: Collector, error: str, status: int, failed: bool
) -> None:
    exporter = Exporter(collector.url, "edge")
    exporter(ended("x", error, http__response__status_code=status))
    exporter.close(10)
    (span,) = collector.spans()
    assert span.failed == failed
    assert span.attributes.get("error.type") == (error or None)


def test_more_spans_than_may_wait_are_dropped_at_once(collector: Collector) -> None:
    collector.stall()
    exporter = Exporter(collector.url, "edge", queue=100)
    for n in range(10):
        exporter(ended(f"{n}"))
    assert collector.arrived.wait(10)
    began = time.perf_counter()
    for n in range(1000):
        exporter(ended(f"{n}"))
    assert time.perf_counter() - began < 5
    assert exporter.dropped >= 900
    assert len(exporter._queue) <= 100
    collector.go_on()
    exporter.close(10)
    assert exporter.exported + exporter.dropped == 1010


def test_the_end_is_bounded_by_its_time(collector: Collector, caplog: pytest.LogCaptureFixture) -> None:
    collector.stall()
    exporter = Exporter(collector.url, "edge", timeout=3600)
    exporter(ended("x"))
    assert collector.arrived.wait(10)
    exporter(ended("y"))
    began = time.perf_counter()
    exporter.close(0.2)
    assert time.perf_counter() - began < 5
    assert "spans were left behind at the end" in caplog.text
    exporter(ended("z"))
    assert exporter.dropped == 1


def test_what_is_wrong_is_said_when_it_begins_and_when_it_is_over(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exporter = Exporter(collector.url, "edge", timeout=0.2)
    collector.status = 400
    for n in range(3):
        exporter(ended(f"{n}"))
        until(lambda n=n: exporter.failed == n + 1, "a failed export")  # type: ignore[misc]
    collector.status = 200
    exporter(ended("x"))
    exporter.close(10)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["spans cannot be exported", "spans are exported again"]
    assert "400" in caplog.records[0].__dict__["reason"]
    assert exporter.counts() == {"exported": 1, "dropped": 0, "failed": 3}
