"""What requirements/ pins."""

from __future__ import annotations

import re

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.k8s.tools import ROOT

FILES = [ROOT / "requirements" / name for name in ("runtime.txt", "traced.txt", "build.txt")]


def pinned(python: str | None = None, *, traced: bool = False) -> dict[str, str]:
    """Return the version of each package that the image has with a Python, this one by default, by its name.

    `traced` is for the image with OpenTelemetry.
    """
    rows = re.findall(r"^\w[^\\]*", FILES[traced].read_text(), re.MULTILINE)
    wanted = [Requirement(row) for row in rows]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in wanted if due(one, python)}


def due(one: Requirement, python: str | None = None) -> bool:
    """Tell whether a requirement holds with a Python (as in "3.11.2"), this one by default, and no extra."""
    of_python = {} if python is None else {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    return one.marker is None or one.marker.evaluate({"extra": "", **of_python})
