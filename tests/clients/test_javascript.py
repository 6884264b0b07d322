"""The JavaScript client's own tests and the examples of its README, run by Node, and that its types are complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_CLIENT = _ROOT / "clients" / "javascript"
_NODE_MODULES = _ROOT / "build" / "node" / "node_modules"
_SECONDS = 420.0  # half of them wait for tokens to expire, and a busy machine is slow


@pytest.fixture(scope="module")
def axios() -> Path:
    """The path of axios' module, from npm: in the build folder, as its latest version, once."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    module = _NODE_MODULES / "axios" / "index.js"
    if not module.exists():
        words = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "axios"]
        command = [npm, "install", "--prefix", str(_NODE_MODULES.parent), *words]
        _NODE_MODULES.parent.mkdir(parents=True, exist_ok=True)
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if ran.returncode:
            pytest.skip(f"needs the registry of npm: {ran.stderr[-300:]}")
    return module


@pytest.mark.timeout(450)
def test_the_tests_of_the_javascript_client_pass_on_a_real_gateway() -> None:
    assert _passed(*sorted({*(_CLIENT / "test").glob("*.test.js")} - {_README})) > 40


@pytest.mark.timeout(450)
def test_the_readme_of_the_javascript_client_is_true_of_axios_too(axios: Path) -> None:
    assert _passed(_README, TOKENGATE_AXIOS=str(axios)) == 6


_README = _CLIENT / "test" / "readme.test.js"


def _passed(*files: Path, **environ: str) -> int:
    """Run these; return how many tests passed. None may fail or be skipped."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    ran = subprocess.run(
        [node, "--test", "--test-reporter=tap", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        env={**os.environ, "TOKENGATE_PYTHON": sys.executable, **environ},
        cwd=_CLIENT,
    )
    wrong = re.findall(r"^not ok .*(?:\n  .*){0,30}", ran.stdout, re.MULTILINE)
    assert ran.returncode == 0, "\n".join(wrong)[:6000] + ran.stderr[-2000:]
    passed, failed, skipped = (int(re.findall(rf"^# {name} (\d+)$", ran.stdout, re.MULTILINE)[0]) for name in _COUNTS)
    assert (failed, skipped) == (0, 0)
    return passed


_COUNTS = ("pass", "fail", "skipped")


def test_every_name_that_the_client_exports_is_declared_in_its_types() -> None:
    exported = set(re.findall(r"\b([A-Za-z]+)\b", (_CLIENT / "src" / "index.js").read_text().partition("export")[2]))
    exported -= {"export", "from", "js", "client", "errors"}
    declared = set(re.findall(r"export (?:class|function) (\w+)", (_CLIENT / "src" / "index.d.ts").read_text()))
    assert exported == declared
