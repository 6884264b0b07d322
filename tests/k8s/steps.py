"""The steps of a Dockerfile without an engine: COPY, RUN, ENV, WORKDIR into a directory that stands for the root.

    python -m tests.k8s.steps       run them all, and print what tokengate adds to the base image

Only what our Dockerfile uses is known; an ARG holds for the stage that it stands in. Words that begin with /opt or
/src are put under the directory, and `python` is this one; or, where the directory is the root of a whole system, steps
run inside it. COPY leaves out what .dockerignore does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.k8s.tools import ROOT

_OURS = re.compile(r"(?<![\w.])/(opt|src)\b")


@dataclass
class Stage:
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def words(self, instruction: str) -> list[str]:
        """Return the exec form of the last such instruction."""
        text = [rest for name, rest in self.steps if name == instruction][-1]
        found = json.loads(text[text.index("[") :])
        assert isinstance(found, list)
        return found

    def values(self, instruction: str) -> dict[str, str]:
        """Return the NAME=value pairs of all such instructions."""
        texts = [rest for name, rest in self.steps if name == instruction]
        return dict(pair.split("=", 1) for text in texts for pair in shlex.split(text))


def read(path: Path) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    text = "".join(line for line in path.read_text().splitlines(keepends=True) if not line.lstrip().startswith("#"))
    stages: list[Stage] = []
    for line in text.replace("\\\n", " ").splitlines():
        name, _, rest = line.strip().partition(" ")
        if name == "FROM":
            stages.append(Stage(rest.partition(" AS ")[2]))
        elif name and stages:
            stages[-1].steps.append((name, rest.strip()))
    return stages


def build(
    stage: Stage,
    root: Path,
    earlier: Mapping[str, Path] | None = None,
    *,
    inside: bool = False,
    arguments: Mapping[str, str] | None = None,
) -> None:
    """Run the steps of a stage into `root`; `earlier` has the roots of stages by name. Raises CalledProcessError.

    `arguments` are those of --build-arg.
    `inside`: the root is a whole system, and what runs sees nothing else. That takes the rights of root.
    """
    directory, environ = root, _environ()
    for name, rest in stage.steps:
        if name == "WORKDIR":
            directory = root / rest[1:]
            directory.mkdir(parents=True, exist_ok=True)
        elif name == "ARG":
            argument, _, default = rest.partition("=")
            environ[argument] = (arguments or {}).get(argument, default)
        elif name == "ENV":
            environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            environ.pop("PIP_NO_CACHE_DIR", None)  # what has been fetched once stands in this machine's cache
        elif name == "COPY":
            *sources, target = shlex.split(rest)
            if sources[0].startswith("--from="):
                _copy_from((earlier or {})[sources[0].removeprefix("--from=")], sources[1:], root, target)
                continue
            for source in sources:
                _copy(source, directory / target)
        elif name == "RUN" and inside:
            script = f"cd /{directory.relative_to(root)}\n{rest}"
            words = [shutil.which("chroot") or "/usr/sbin/chroot", str(root), "/bin/sh", "-ec", script]
            subprocess.run(words, env=environ, check=True, capture_output=True)
        elif name == "RUN":
            script = _OURS.sub(rf"{root}/\1", rest)
            subprocess.run(["sh", "-ec", script], cwd=directory, env=environ, check=True, capture_output=True)


def _environ() -> dict[str, str]:
    """Return the environment of an engine's step, with pip's settings of this machine and its cache."""
    wanted = ("PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy", "HOME", "LANG")
    kept = {name: value for name, value in os.environ.items() if name.startswith(wanted)}
    python = Path(sys.base_prefix) / "bin"
    return {**kept, "PATH": f"{python}:/usr/local/bin:/usr/bin:/bin"}


def _copy_from(earlier: Path, sources: list[str], root: Path, target: str) -> None:
    for source in sources:
        shutil.copytree(earlier / source[1:], root / target[1:], symlinks=True)


def _copy(source: str, target: Path) -> None:
    if source.endswith("/"):
        for path in context():
            if path.startswith(source):
                _put(ROOT / path, target / path.removeprefix(source))
    else:
        assert source in context(), f"{source} is not in the context"
        _put(ROOT / source, target / Path(source).name)


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def context() -> list[str]:
    """Return the files that .dockerignore leaves in, as paths from the root of the repository."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    gone = [rule.removeprefix("**/") for rule in rules if rule.startswith("**/")]
    return [
        path for path in _tree(kept) if not any(Path(part).match(rule) for rule in gone for part in path.split("/"))
    ]


def _tree(kept: list[str]) -> Iterator[str]:
    for rule in kept:
        for path in sorted(ROOT.glob(rule.rstrip("/"))):
            files = path.rglob("*") if path.is_dir() else [path]
            yield from (str(file.relative_to(ROOT)) for file in files if file.is_file())


def size(directory: Path) -> int:
    """Return the bytes of all files, each link as nothing."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def main() -> None:
    with tempfile.TemporaryDirectory() as made:
        root = Path(made).resolve()
        build(read(ROOT / "Dockerfile")[0], root)
        total = size(root / "opt" / "tokengate")
        sys.stdout.write(f"/opt/tokengate: {total / 2**20:.0f} MiB ({total} bytes)\n")


if __name__ == "__main__":
    main()
