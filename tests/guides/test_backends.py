"""docs/backends.md: each backend reads who is calling, and believes nobody else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.settings import Settings
from tests.guides.terminal import ROOT, Terminal, commands, ports, steps, terminal

pytestmark = pytest.mark.timeout(240)  # pages start several servers, on a machine that may be busy

PAGE = "docs/backends.md"
SECTIONS = (
    "In front of an existing backend",
    "Flask",
    "Django",
    "FastAPI",
    "Express",
    "Backends that verify tokens themselves",
    "Paths and hosts",
    "CORS",
)
NODE = ROOT / "build" / "node-guides"


@pytest.fixture(scope="module")
def express() -> Path:
    """The folder of Express and what it needs, from npm, once."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    modules = NODE / "node_modules"
    if not (modules / "express").exists():
        words = ["--no-save", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "express"]
        NODE.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", str(NODE), *words]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        if ran.returncode:
            pytest.skip(f"needs the registry of npm: {ran.stderr[-300:]}")
    return modules


@pytest.fixture(scope="module")
def site() -> Iterator[Terminal]:
    """The page's gateway, with somebody signed in."""
    with terminal(ports("8080", "9090", "6380", "8000")) as running:
        running.run("redis-server --port 6380 --save '' --bind 127.0.0.1 >redis.log 2>&1 &")
        running.play(steps(PAGE, "In front of an existing backend"))
        yield running


@pytest.fixture
def beginning(site: Terminal) -> Iterator[Terminal]:
    """The page's gateway, without a backend: what a test starts ends with it."""
    before = set(site.run("jobs -p").split())
    yield site
    for process in set(site.run("jobs -p").split()) - before:
        site.run(f"kill {process}; wait {process} 2>/dev/null")


def test_every_command_of_the_page_is_in_a_section_that_is_run_here() -> None:
    found = [step for section in SECTIONS for step in steps(PAGE, section)]
    assert all(steps(PAGE, section) for section in SECTIONS)
    assert found == commands("docs/backends.md")


@pytest.mark.parametrize("kind", ["Flask", "Django", "FastAPI"])
def test_a_python_backend_knows_who_is_calling_and_refuses_who_comes_around(beginning: Terminal, kind: str) -> None:
    todo = steps(PAGE, kind)
    assert [bool(step.title) for step in todo] == [True, False]
    beginning.play(todo)


def test_an_express_backend_knows_who_is_calling_and_refuses_who_comes_around(
    beginning: Terminal, express: Path
) -> None:
    modules = beginning.directory / "node_modules"
    if not modules.exists():
        os.symlink(express, modules)
    beginning.play(steps(PAGE, "Express"))


@pytest.mark.parametrize("section", ["Backends that verify tokens themselves", "CORS"])
def test_what_needs_no_backend_is_as_the_page_says(beginning: Terminal, section: str) -> None:
    todo = steps(PAGE, section)
    assert todo
    beginning.play(todo)


def test_a_token_of_another_kind_or_use_is_refused_by_the_verifying_backend(beginning: Terminal) -> None:
    beginning.play(steps(PAGE, "Backends that verify tokens themselves"))
    assert "PyJWT" in beginning.run('python verify.py "${A}x" 2>&1 | grep -o "jwt.exceptions" | sed s/.*/PyJWT/')
    swapped = "import sys, verify; verify.jwt.get_unverified_header = lambda token: {'typ': 'rt+jwt'}"
    said = beginning.run(f'python -c "{swapped}; verify.claims(sys.argv[1])" "$A" 2>&1 | tail -n 1')
    assert "not an access token" in said


def test_paths_are_as_the_page_says(beginning: Terminal) -> None:
    beginning.play(steps(PAGE, "FastAPI"))
    beginning.play(steps(PAGE, "Paths and hosts"))


def test_every_other_configuration_of_the_pages_is_one(site: Terminal) -> None:
    whole = tomllib.loads((site.directory / "gateway.toml").read_text())
    parts = re.findall(r"(?<!-->\n)^```toml\n(.*?)^```", (ROOT / PAGE).read_text(), re.MULTILINE | re.DOTALL)
    assert parts
    for part in parts:
        Settings.model_validate({**whole, **tomllib.loads(part)})


def test_the_network_policy_names_the_pods_of_the_manifests() -> None:
    label = "app.kubernetes.io/name: tokengate"
    assert label in (ROOT / PAGE).read_text()
    assert label in (ROOT / "k8s" / "base" / "networkpolicy.yaml").read_text()
