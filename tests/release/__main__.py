"""The files of a release, in build/dist: wheel, sdist, bill of materials, licences, hashes.

    python -m tests.release         needs the extra `release`; about a minute

The archives are built twice, from two copies of the source, and must be the same to the last byte. The bill and the
licences are those of an empty environment into which the wheel and its pinned dependencies have been installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIST = ROOT / "build" / "dist"
SOURCES = (
    *("gateway", "clients", "config", "tests"),
    *("pyproject.toml", "README.md", "CHANGELOG.md", "SECURITY.md", ".gitignore"),
)
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "node_modules", "*.pyc", "*.pem", "*.jwk", "*.key")


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        release(Path(made), DIST)
    for path in sorted(DIST.iterdir()):
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")


def release(scratch: Path, dist: Path) -> None:
    """Make the files in `dist`, which is emptied. Raises CalledProcessError, RuntimeError for builds that differ."""
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    first, second = (built(scratch / name) for name in ("first", "second"))
    if hashes(first) != hashes(second):
        raise RuntimeError(f"two builds of one source differ: {hashes(first)} and {hashes(second)}")
    for path in first.iterdir():
        shutil.copy(path, dist)
    (wheel,) = dist.glob("*.whl")
    python = installed(scratch / "installed", wheel)
    (dist / "bom.cdx.json").write_text(bill(python))
    (dist / "licences.md").write_text(licences(python))
    rows = [f"{digest}  {name}\n" for name, digest in sorted(hashes(dist).items())]
    (dist / "SHA256SUMS").write_text("".join(rows))


def hashes(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


def built(scratch: Path) -> Path:
    """Build wheel and sdist from a copy of the source; return the directory that has them."""
    source, out = scratch / "source", scratch / "out"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=_LEFT_OUT, copy_function=shutil.copy)
        else:
            shutil.copy(ROOT / name, source / name)
    python = _environment(scratch / "tools", "build.txt")
    # Where there is no SOURCE_DATE_EPOCH, hatchling puts a fixed time of its own into the archives.
    _run([python, "-m", "hatchling", "build", "--directory", str(out), "-t", "wheel", "-t", "sdist"], cwd=source)
    return out


def installed(directory: Path, wheel: Path) -> str:
    """Install a wheel and its pinned dependencies into an empty environment; return its Python."""
    python = _environment(directory, "runtime.txt")
    _pip(python, "--no-deps", "--no-index", str(wheel))
    return python


def _environment(directory: Path, requirements: str) -> str:
    venv.create(directory, with_pip=False)
    python = str(directory / "bin" / "python")
    _pip(python, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", f"{ROOT}/requirements/{requirements}")
    return python


def _pip(python: str, *words: str) -> None:
    _run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", *words])


def bill(python: str) -> str:
    """Return the bill of materials of an environment (CycloneDX 1.6, JSON), without times and random numbers."""
    words = ["--output-reproducible", "--spec-version=1.6", "--output-format=JSON", "--output-file=-"]
    found = json.loads(_run([_tool("cyclonedx-py"), "environment", *words, python]))
    for component in found["components"]:  # where on this machine the wheel was is nobody's business
        kept = [one for one in component.get("externalReferences", []) if not one["url"].startswith("file:")]
        component["externalReferences"] = kept
    return json.dumps(found, indent=2, sort_keys=True) + "\n"


def licences(python: str) -> str:
    """Return a table of what is installed and under which licence."""
    words = ["--from=mixed", "--format=markdown", "--order=name"]
    return _run([_tool("pip-licenses"), f"--python={python}", *words])


def _tool(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _run(command: list[str], cwd: Path | None = None) -> str:
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "SOURCE_DATE_EPOCH"}}
    ran = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=300)
    if ran.returncode:
        sys.stderr.write(ran.stderr)
        ran.check_returncode()
    return ran.stdout


if __name__ == "__main__":
    main()
