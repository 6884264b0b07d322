"""The JavaScript client's own tests, and that what is in the package is what the README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_CLIENT = Path(__file__).parents[2] / "clients" / "javascript"
_SECONDS = 240.0


@pytest.mark.timeout(300)
def test_the_tests_of_the_javascript_client_pass_on_a_real_gateway() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    command = [node, "--test", *map(str, sorted((_CLIENT / "test").glob("*.test.js")))]
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        env={**os.environ, "TOKENGATE_PYTHON": sys.executable},
        cwd=_CLIENT,
    )
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    passed, failed, skipped = (int(re.findall(rf"^# {name} (\d+)$", ran.stdout, re.MULTILINE)[0]) for name in _COUNTS)
    assert (failed, skipped) == (0, 0)
    assert passed > 20


_COUNTS = ("pass", "fail", "skipped")


def test_every_name_that_the_client_exports_is_declared_in_its_types() -> None:
    exported = set(re.findall(r"\b([A-Za-z]+)\b", (_CLIENT / "src" / "index.js").read_text().partition("export")[2]))
    exported -= {"export", "from", "js", "client", "errors"}
    declared = set(re.findall(r"export (?:class|function) (\w+)", (_CLIENT / "src" / "index.d.ts").read_text()))
    assert exported == declared
