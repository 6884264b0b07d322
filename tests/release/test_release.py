"""A release can be built twice alike, installs where nothing is, and says what is in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway import __version__
from tests.k8s.requirements import pinned
from tests.release.__main__ import hashes, release

PINNED = pinned()
WHEEL = f"tokengate-{__version__}-py3-none-any.whl"
SDIST = f"tokengate-{__version__}.tar.gz"

pytestmark = pytest.mark.timeout(600)  # seconds: three environments, and the first time what is in them is fetched


@dataclass(frozen=True)
class Made:
    scratch: Path
    dist: Path

    def text(self, name: str) -> str:
        return (self.dist / name).read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    scratch = tmp_path_factory.mktemp("release")
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch / "probe"), "idna"]
    if subprocess.run(probe, check=False, capture_output=True, timeout=60).returncode:
        pytest.skip("needs the package registry, which does not answer")
    release(scratch, scratch / "dist")  # raises where two builds differ
    return Made(scratch, scratch / "dist")


def test_a_release_is_a_wheel_an_sdist_a_bill_licences_and_the_hashes_of_all(made: Made) -> None:
    found = hashes(made.dist)
    assert set(found) == {WHEEL, SDIST, "bom.cdx.json", "licences.md", "SHA256SUMS"}
    listed = {name: digest for digest, name in (line.split() for line in made.text("SHA256SUMS").splitlines())}
    assert listed == {name: digest for name, digest in found.items() if name != "SHA256SUMS"}


def test_the_wheel_runs_in_an_environment_with_its_pinned_dependencies_alone(made: Made) -> None:
    program = made.scratch / "installed" / "bin" / "tokengate"
    ran = subprocess.run([program, "--version"], cwd="/", check=True, capture_output=True, text=True, timeout=50)
    assert __version__ in ran.stdout
    ran = subprocess.run([program, "schema"], cwd="/", check=True, capture_output=True, text=True, timeout=50)
    assert "tokens" in json.loads(ran.stdout)["properties"]


def test_the_sdist_makes_the_same_wheel(made: Made, tmp_path: Path) -> None:
    python = made.scratch / "first" / "tools" / "bin" / "python"
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, *words, str(made.dist / SDIST)], check=True, capture_output=True, timeout=120)
    assert hashes(tmp_path)[WHEEL] == hashes(made.dist)[WHEEL]


def test_the_bill_names_every_pinned_dependency_and_no_place_of_the_machine(made: Made) -> None:
    bill = json.loads(made.text("bom.cdx.json"))
    assert bill["bomFormat"] == "CycloneDX"
    found = {_plain(one["name"]): one["version"] for one in bill["components"]}
    assert found == {**{_plain(name): version for name, version in PINNED.items()}, "tokengate": __version__}
    assert str(made.scratch) not in made.text("bom.cdx.json")


def test_every_dependency_says_its_licence(made: Made) -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.text("licences.md").splitlines()[2:]]
    licences = {_plain(name): licence for name, _, licence in rows}
    assert set(licences) == {_plain(name) for name in PINNED} | {"tokengate"}
    assert [name for name, licence in licences.items() if licence == "UNKNOWN" and name != "tokengate"] == []


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
