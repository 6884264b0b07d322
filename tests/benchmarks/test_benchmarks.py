"""What the benchmarks read and report, without a run."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks import chart, grants, machine, report, slices
from benchmarks.footprint import Footprint
from benchmarks.machine import Cores
from benchmarks.measure import Sample, read
from benchmarks.report import BODIES, GET, HALF, LIMIT, OURS, TWO
from benchmarks.results import Results, load, save
from benchmarks.streams import Watched

WRK = """Running 4s test @ http://127.0.0.1:1/1k
  Latency Distribution
     50%    1.29ms
     75%    1.40ms
     90%    2.40ms
     99%   34.12ms
  60000 requests in 1.50m, 73.10MB read
  Socket errors: connect 0, read 3, write 0, timeout 2
  Non-2xx or 3xx responses: 7
Requests/sec:  15000.00
"""


def sample(cpu: float, *, requests: int = 1000, seconds: float = 1.0, p99: float = 0.002, store: float = 0.0) -> Sample:
    return Sample(requests, seconds, cpu, store, 0.001, p99, 10 << 20, 0)


@pytest.fixture
def results() -> Results:
    found = Results(
        {"cpu": "a <CPU>", "cores": 2, "kernel": "6", "python": "3", "pinning": "core 0"}, "2026-01-01", 4, False
    )
    found.versions, found.absent = {"nginx": "1.22"}, {"Traefik": "traefik is not installed"}
    found.loads[GET] = {
        LIMIT: [sample(0.02), sample(0.04)],
        OURS: [sample(0.03), sample(0.05)],
        TWO: [sample(0.03)] * 2,
    }
    found.idle = {OURS: Footprint(1000, 0, 13 * 1024 * 1000)}
    found.websockets = {OURS: "not measured: HTTP/1.1 426 Upgrade Required"}
    return found


def test_everything_wrk_says_is_read() -> None:
    found = read(WRK, cpu=1.2, store_cpu=0.1, resident=42)
    assert (found.requests, found.seconds) == (60000, 90.0)
    assert (found.p50, found.p99) == pytest.approx((0.00129, 0.03412))
    assert found.errors == 12
    assert found.cpu_per_request == pytest.approx(20e-6)
    assert (found.store_cpu, found.memory) == (0.1, 42)


def test_a_wrk_that_says_nothing_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="unable to connect"):
        read("unable to connect to 127.0.0.1:1", 0, 0, 0)


def test_a_ratio_is_the_median_of_the_ratios_of_the_rounds(results: Results) -> None:
    assert report.ratio(results.loads[GET], OURS) == pytest.approx((1.5 + 1.25) / 2)


def test_a_run_is_the_same_after_it_was_saved_and_loaded(results: Results, tmp_path: Path) -> None:
    results.grants = {grants.REFRESH: [sample(0.3)]}
    results.slices = {slices.ONE: [sample(0.2)], slices.TWO: [sample(0.4)]}
    results.watched = Watched(10_000, 0.003, 0.002)
    save(results, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == results


def test_the_document_names_who_is_absent_and_what_was_not_measured(results: Results) -> None:
    text = report.document(results)
    assert "Not in this run: Traefik (traefik is not installed)." in text
    assert "not measured: HTTP/1.1 426 Upgrade Required" in text
    assert "| tokengate | 40.0 | 1.38 |" in text


def test_every_line_of_a_table_has_as_many_cells_as_its_head(results: Results) -> None:
    for block in report.document(results).split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line.startswith("|")}) <= 1


def test_a_target_is_met_missed_or_not_measured(results: Results) -> None:
    results.loads[BODIES] = {LIMIT: [sample(0.5)], OURS: [sample(0.8)]}
    results.loads[HALF] = {LIMIT: [sample(0.5)], OURS: [sample(0.8, p99=0.0025)]}
    results.grants = {grants.REFRESH: [sample(0.3)]}
    met = {target.text.partition(",")[0]: target.met for target in report.targets(results)}
    assert met == {
        "CPU a request with the live check": True,
        "requests/s of 2 workers at least 1.8 times 1": None,
        "CPU a byte of 1 MiB bodies": False,
        "p99 at half load above nginx'": True,
        "memory of an idle connection": False,
        "CPU of a refresh": True,
    }


def test_a_run_of_other_peers_alone_says_nothing_of_the_targets(results: Results) -> None:
    del results.loads[GET][OURS]
    results.idle = {}
    assert report.targets(results) == []
    assert "| nginx |" in report.document(results)


def test_two_workers_are_compared_where_they_have_a_core_each(results: Results) -> None:
    results.scales = True
    results.loads[GET][TWO] = [sample(0.06, requests=1700)] * 2
    assert [target.met for target in report.targets(results) if "2 workers" in target.text] == [False]


def test_without_a_core_for_each_two_workers_are_compared_in_slices_of_one(results: Results) -> None:
    results.slices = {slices.ONE: [sample(0.25, requests=900)] * 2, slices.TWO: [sample(0.5, requests=1710)] * 2}
    (target,) = [target for target in report.targets(results) if "2 workers" in target.text]
    assert (target.found, target.met) == ("1.90 (a quarter of a core each)", True)
    assert "| 2 workers, a quarter of a core each |" in report.document(results)


def test_without_slices_the_reason_is_said(results: Results) -> None:
    results.slices = "no CPU quota can be set: Read-only file system"
    (target,) = [target for target in report.targets(results) if "2 workers" in target.text]
    assert target.met is None
    assert "Read-only file system" in target.found


def test_the_cost_of_watched_streams_is_that_of_ten_thousand(results: Results) -> None:
    results.watched = Watched(5_000, 0.002, 0.001)
    (target,) = [target for target in report.targets(results) if "streams" in target.text]
    assert (target.found, target.met) == ("4.00", True)
    assert "| tokengate | 5,000 | 2.0 | 1.0 |" in report.document(results)


def test_the_clock_of_a_process_counts_its_work_and_not_its_rest() -> None:
    before, began = machine.cpu_seconds([os.getpid()]), time.process_time()
    while time.process_time() - began < 0.05:
        pass
    assert machine.cpu_seconds([os.getpid()]) - before >= 0.05
    with subprocess.Popen(["sleep", "10"]) as child:
        before = machine.cpu_seconds([child.pid])
        assert machine.cpu_seconds([child.pid]) - before < 0.05
        child.kill()


def test_a_stopped_process_does_nothing_until_the_block_ends() -> None:
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as child:
        with machine.stopped([child.pid]):
            _, status = os.waitpid(child.pid, os.WUNTRACED)  # it stands still from here on
            assert os.WIFSTOPPED(status)
            before = machine.cpu_seconds([child.pid])
            time.sleep(0.1)
            assert machine.cpu_seconds([child.pid]) == before
        _, status = os.waitpid(child.pid, os.WCONTINUED)
        assert os.WIFCONTINUED(status)
        child.kill()


def test_the_chart_is_well_formed_and_has_a_bar_for_each_peer(results: Results) -> None:
    svg = ET.fromstring(chart.draw(results))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.attrib["width"]) for bar in svg.iter(f"{space}rect")]
    assert len(widths) == 3
    assert widths == sorted(widths)
    assert "a <CPU>" in "".join(text.text or "" for text in svg.iter(f"{space}text"))


def test_one_slow_peer_does_not_flatten_the_bars_of_the_others(results: Results) -> None:
    results.loads[GET]["slow"] = [sample(3.0)] * 2
    drawn = chart.draw(results)
    bars = [float(bar.attrib["width"]) for bar in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}rect")]
    assert bars[-1] == bars[-2]
    assert drawn.count('class="cut"') == 1


@pytest.mark.parametrize(
    ("usable", "one", "two", "rest"),
    [
        ([0], {0}, {0}, {0}),
        ([0, 1], {0}, {0, 1}, {1}),
        ([2, 4, 6], {2}, {2, 4}, {4, 6}),
        ([0, 1, 2, 3], {0}, {0, 1}, {2, 3}),
    ],
)
def test_the_load_never_shares_the_core_of_one_worker_while_there_is_another(
    usable: list[int], one: set[int], two: set[int], rest: set[int]
) -> None:
    cores = Cores.of(usable)
    assert [set(each) for each in (cores.one, cores.two, cores.rest)] == [one, two, rest]
    assert cores.scales == (len(usable) > 3)
