"""The commands of docs/kubernetes.md, as they stand there, run in a directory of the test's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.k8s import tools
from tests.k8s.tools import ROOT

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
FILES, CLUSTER = range(2)  # the two first blocks of the dev overlay


def blocks(heading: str) -> list[str]:
    """Return the shell commands of a section, block by block."""
    section = re.split(r"^## ", PAGE.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found


def run(script: str, directory: Path, environ: Mapping[str, str] = os.environ) -> str:
    """Run commands with tokengate and our helm on PATH; return what they print. Raises CalledProcessError."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "tokengate"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m gateway "$@"\n')
    program.chmod(0o755)
    path = f"{programs}:{tools.DIRECTORY}:{environ['PATH']}"
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env={**environ, "PATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, f"{script}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout
