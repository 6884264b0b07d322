"""The metrics of several workers, which are real processes here."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from gateway.telemetry import Telemetry
from tests.telemetry.test_metrics import samples

WORKER = """
import sys
from pathlib import Path
from gateway.telemetry import Telemetry

telemetry = Telemetry(Path(sys.argv[1]))
meter = telemetry.route("orders")
for line in sys.stdin:
    for word in line.split():
        if word == "request":
            meter.done(200, 0.01)
        elif word == "connect":
            telemetry.connection("client", 1)
        elif word == "up":
            telemetry.store_up(True)
        elif word == "down":
            telemetry.store_up(False)
        elif word == "behind":
            telemetry.clock_skew(-8.0)
        elif word == "rejected":
            telemetry.rejected("orders", "expired_token")
    telemetry.flush()
    print("done", flush=True)
"""

REQUESTS = 'tokengate_requests_total{code="200",route="orders"}'
TIMES = 'tokengate_request_seconds_count{route="orders"}'
CONNECTIONS = 'tokengate_connections{side="client"}'


class Worker:
    """A process with a Telemetry of its own; `tell` makes it count and waits until it has flushed."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, words: str) -> None:
        pipe_in, pipe_out = self.process.stdin, self.process.stdout
        assert pipe_in is not None
        assert pipe_out is not None
        pipe_in.write(words + "\n")
        pipe_in.flush()
        assert pipe_out.readline() == "done\n"

    def die(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def telemetry(tmp_path: Path) -> Iterator[Telemetry]:
    made = Telemetry(tmp_path)
    yield made
    made.close()


def test_one_worker_answers_for_all(tmp_path: Path, telemetry: Telemetry) -> None:
    telemetry.route("orders").done(200, 0.01)
    telemetry.connection("client", 1)
    with Worker(tmp_path) as one, Worker(tmp_path) as two:
        one.tell("request request connect rejected")
        two.tell("request connect connect rejected")
        found = samples(telemetry)
    assert found[REQUESTS] == found[TIMES] == 4
    assert found[CONNECTIONS] == 4
    assert found['tokengate_rejections_total{error="expired_token",route="orders"}'] == 2


def test_the_own_numbers_of_the_worker_that_answers_need_no_flush(tmp_path: Path, telemetry: Telemetry) -> None:
    with Worker(tmp_path) as other:
        other.tell("request")
        telemetry.route("orders").done(200, 0.01)
        assert samples(telemetry)[REQUESTS] == 2


def test_a_killed_worker_keeps_its_counts_and_loses_its_gauges(tmp_path: Path, telemetry: Telemetry) -> None:
    with Worker(tmp_path) as worker:
        worker.tell("request request connect down")
        telemetry.store_up(True)
        assert samples(telemetry)[CONNECTIONS] == 1
        assert samples(telemetry)["tokengate_store_up{}"] == 0
        worker.die()
        found = samples(telemetry)
    assert found[REQUESTS] == found[TIMES] == 2
    assert found[CONNECTIONS] == 0
    assert found["tokengate_store_up{}"] == 1


def test_a_clock_is_off_by_as_much_as_that_of_the_worker_which_is_furthest_off(
    tmp_path: Path, telemetry: Telemetry
) -> None:
    name = "tokengate_clock_skew_seconds{}"
    telemetry.clock_skew(3.0)
    with Worker(tmp_path) as worker:
        worker.tell("up")
        assert samples(telemetry)[name] == 3
        worker.tell("behind")
        assert samples(telemetry)[name] == -8


def test_a_restarted_worker_counts_on_where_the_killed_one_ended(tmp_path: Path, telemetry: Telemetry) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(Worker(tmp_path))
        first.tell("request request connect")
        first.die()
        second = stack.enter_context(Worker(tmp_path))
        second.tell("request")
        found = samples(telemetry)
    assert found[REQUESTS] == found[TIMES] == 3
    assert found[CONNECTIONS] == 0
    assert len(list(tmp_path.glob("*.lock"))) == 2, "no file is left behind for each worker that ever was"


def test_the_store_is_up_only_where_every_worker_reaches_it(tmp_path: Path, telemetry: Telemetry) -> None:
    telemetry.store_up(True)
    with Worker(tmp_path) as worker:
        worker.tell("down")
        assert samples(telemetry)["tokengate_store_up{}"] == 0
        worker.tell("up")
        assert samples(telemetry)["tokengate_store_up{}"] == 1
        telemetry.store_up(False)
        assert samples(telemetry)["tokengate_store_up{}"] == 0


def test_a_worker_that_closes_leaves_its_last_counts(tmp_path: Path) -> None:
    leaving, staying = Telemetry(tmp_path), Telemetry(tmp_path)
    leaving.route("orders").done(200, 0.01)
    leaving.connection("client", 1)
    leaving.close()
    found = samples(staying)
    assert found[REQUESTS] == 1
    assert found[CONNECTIONS] == 0
    staying.close()
    staying.close()
