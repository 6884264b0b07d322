"""The image as an engine would make and run it, in roots made by debootstrap.

    python -m tests.k8s.slow.root ROOT CONFIGURATION PROGRAM WORD...    run by `unshare --mount`: become the container

What an engine does, as far as it matters: both stages from the base image, COPY from one to the other, and then a
process with the image's environment and user, a read-only root, and nothing writable but /tmp. Shells are taken out of
the last stage: what still runs needs none. Debian's own Python stands for that of the base image.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.k8s import steps
from tests.k8s.tools import ROOT

BUILD, FINAL = steps.read(ROOT / "Dockerfile")
CONFIGURATION = Path("etc/tokengate")
_PACKAGES = "python3,python3-venv,ca-certificates"
_SHELLS = ("sh", "bash", "dash", "rbash")
_NO_NEW_PRIVILEGES = 38  # prctl(2)


def usable() -> bool:
    return os.geteuid() == 0 and shutil.which("debootstrap") is not None


def make(directory: Path) -> Path:
    """Make the image; return its root. Raises CalledProcessError."""
    base, final = directory / "base", directory / "final"
    words = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(base)]
    subprocess.run(words, check=True, capture_output=True, timeout=600)
    (base / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    subprocess.run(["cp", "--archive", base, final], check=True, timeout=120)
    _connect(base)
    steps.build(BUILD, base, inside=True)
    steps.build(FINAL, final, {BUILD.name: base}, inside=True)
    for name in _SHELLS:
        (final / "usr/bin" / name).unlink(missing_ok=True)
    (final / CONFIGURATION).mkdir()
    return final


def _connect(root: Path) -> None:
    """Let a step reach the package registry as this machine does."""
    for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", os.environ.get("PIP_CERT", "")):
        if name and Path(name).exists():
            target = root / name[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, target)


def command(root: Path, configuration: Path, words: list[str]) -> list[str]:
    """Return the command that runs words of the image with a directory as its /etc/tokengate."""
    unshare = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.k8s.slow.root"]
    return [*unshare, str(root), str(configuration), *words]


def enter(root: Path, configuration: Path, words: list[str]) -> None:
    """Become the container's process; called in a mount namespace of its own."""
    _mount("--bind", str(root), str(root))
    _mount("--bind", str(configuration), str(root / CONFIGURATION))
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(root / "tmp"))
    _mount("-t", "proc", "proc", str(root / "proc"))
    _mount("--rbind", "/dev", str(root / "dev"))
    for place in (root / CONFIGURATION, root):
        _mount("-o", "remount,bind,ro", str(place))
    os.chroot(root)
    said = dict(FINAL.steps)
    os.chdir(said["WORKDIR"])
    user, group = (int(number) for number in said["USER"].split(":"))
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    environ = FINAL.values("ENV")
    os.execvpe(words[0], words, environ)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, timeout=10)


if __name__ == "__main__":
    enter(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
