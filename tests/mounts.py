"""A mounted ConfigMap or Secret as kubelet writes it (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go).

    gateway.toml -> ..data/gateway.toml,  ..data -> ..2026_11_21_10_00_00.1

A new version is another directory, and `..data` is renamed over to it: readers see all of the old or all of the new.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from itertools import count
from pathlib import Path

_NUMBERS = count(1)


class Mount:
    """A volume at `path`. Its files are for owner and group alone."""

    def __init__(self, path: Path, files: Mapping[str, bytes]) -> None:
        self.path = path
        self.files: dict[str, bytes] = {}
        path.mkdir()
        self.swap(files)

    def swap(self, files: Mapping[str, bytes]) -> None:
        """Put another version in the place of this one."""
        data = self.path / "..data"
        before = data.resolve() if data.exists() else None
        version = self.path / f"..2026_11_21_10_00_00.{next(_NUMBERS)}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
            (version / name).chmod(0o640)
        (self.path / "..data_tmp").symlink_to(version.name)
        os.rename(self.path / "..data_tmp", data)
        for name in files.keys() - self.files.keys():
            (self.path / name).symlink_to(f"..data/{name}")
        for name in self.files.keys() - files.keys():
            (self.path / name).unlink()
        self.files = dict(files)
        if before is not None:
            shutil.rmtree(before)
