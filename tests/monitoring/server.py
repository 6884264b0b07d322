"""A real Prometheus for tests: it scrapes one gateway several times a second and evaluates the rules."""

from __future__ import annotations

import json
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.harness import until
from tests.monitoring.sources import RULES, need
from tests.redis_server import free_port

POD, NAMESPACE, JOB = "tokengate-1", "tokengate", "tokengate-management"


class Prometheus:
    """One server, by its HTTP API."""

    def __init__(self, port: int) -> None:
        self.port = port

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer. Fails with what the server says is wrong."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            answer = json.load(error)
        assert answer["status"] == "success", f"{parameters}: {answer}"
        assert not answer.get("warnings")
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return list(self.get("query", query=expression)["result"])

    def value(self, expression: str) -> float:
        """Return the one number that an expression gives, 0 where it gives none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False


@contextmanager
def prometheus(target: int) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes the management listener at a port of this machine."""
    program, port = need("prometheus"), free_port()
    with tempfile.TemporaryDirectory(prefix="tg-prometheus-") as made:
        directory = Path(made)
        labels = {"namespace": NAMESPACE, "pod": POD}
        job = {"job_name": JOB, "static_configs": [{"targets": [f"127.0.0.1:{target}"], "labels": labels}]}
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [job],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))
        log = directory / "log"
        words = [program, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
        words += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        with log.open("wb") as out:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=directory)
        server = Prometheus(port)
        try:
            until(lambda: process.poll() is not None or server.is_ready(), "Prometheus is ready", 30)
            assert process.poll() is None, log.read_text()
            yield server
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
