"""What docs/operations/observability.md shows is what a gateway does: its commands, its settings, its fields."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from gateway.settings.models import Log, Tracing
from tests.e2e.backends import Backend
from tests.e2e.collector import collecting
from tests.e2e.harness import Site, route, until
from tests.e2e.test_access_log import ROUTED, lines
from tests.e2e.wire import ask, request

PAGE = (Path(__file__).parents[2] / "docs" / "operations" / "observability.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_its_commands_show_what_it_says(site: Site, backend: Backend, tmp_path: Path) -> None:
    spot = backend.spot()
    routes = [route("/raw/", backend.url, auth="none"), route("/guarded/", backend.url)]
    with collecting() as collector:
        tracing = {"endpoint": collector.url, "sample_ratio": 1.0}
        with site.serve(routes=routes, tracing=tracing, log={"access": True}) as gateway:
            assert ask(gateway.port, request("GET", spot.path())).status == 200
            assert ask(gateway.port, request("GET", spot.path("/guarded"))).status == 401
            until(lambda: gateway.metric("tokengate_spans_total", outcome="exported") >= 3, "spans are exported")
            (tmp_path / "gateway.log").write_text(gateway.log)
            outputs = []
            for block in blocks("sh"):
                script = block.replace("127.0.0.1:9090", f"127.0.0.1:{gateway.management}")
                ran = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", script],
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=True,
                )
                outputs.append(ran.stdout)
    metrics, log = outputs
    assert 'tokengate_request_seconds_bucket{le="' in metrics
    assert 'tokengate_spans_total{outcome="exported"}' in metrics
    assert '"error":"missing_token"' in log
    assert log.splitlines()[-1] == "1"


@pytest.mark.parametrize("block", blocks("toml"))
def test_its_settings_are_good_ones(block: str) -> None:
    document = tomllib.loads(block)
    for name, model in (("tracing", Tracing), ("log", Log)):
        if name in document:
            model(**document[name])


def test_it_tells_every_field_of_a_line(site: Site, backend: Backend) -> None:
    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|((?: `\w+`)+) \|", PAGE, re.MULTILINE))))
    spot = backend.spot()
    log = {"access": True, "access_user": True}
    with site.serve(routes=[route("/guarded/", backend.url)], log=log) as gateway:
        assert ask(gateway.port, request("GET", spot.path("/guarded"), token=gateway.token)).status == 200
        until(lambda: lines(gateway, path=spot.path("/guarded")), "a line")
        (found,) = lines(gateway, path=spot.path("/guarded"))
    written = set(found) | ROUTED
    assert written <= told
    assert told - written == {"error", "cut", "left_out"}
