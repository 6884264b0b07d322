"""The processes of rendered pods without a cluster: their files, users and network, in namespaces of Linux.

    python -m tests.k8s.pod together POD...     run by `unshare --net`: all pods in one network, then the questions
    python -m tests.k8s.pod enter POD           run by `unshare --mount`: one pod's files, then its process

A POD is a directory that `Pod.write` made. What a kubelet does, as far as it matters to the processes:
- The root is read-only, and has nothing writable but the emptyDirs.
- A volume of a ConfigMap or Secret is a directory of links through `..data`, its files root's and of the fsGroup.
- The process has the pod's user and group, no capability, and can gain no privilege.

Whoever is not root has one user only: files and processes are then all that user's.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.e2e.harness import until
from tests.e2e.wire import Answer, ask, json_request, request
from tests.k8s.tools import ROOT
from tests.redis_server import find_redis_server

PASSWORD = "correct horse"
# What of this machine every pod sees: its programs, Python and this checkout; a link's way to Python too.
_SHARED = tuple(dict.fromkeys(("/usr", "/dev", "/proc", sys.base_prefix, sys.prefix, str(ROOT))))
_IMAGES = {  # the words that an image's programs have here; tokengate is the image's entry point
    "tokengate": [sys.executable, "-m", "gateway"],
    "python": [sys.executable],
    "redis-server": [find_redis_server() or "redis-server"],
}

Files = dict[str, str]


@dataclass(frozen=True)
class Volume:
    mount: str
    files: Files | None  # None: an emptyDir
    mode: int


@dataclass(frozen=True)
class Pod:
    """What of a rendered pod with one container a process can notice."""

    name: str
    command: list[str]
    environment: dict[str, str]
    user: int
    group: int
    volumes: list[Volume]

    @classmethod
    def read(cls, name: str, spec: dict[str, Any], stores: dict[str, Files]) -> Pod:
        """Take a pod spec; `stores` has the files of each ConfigMap and Secret by its name."""
        (container,) = spec["containers"]
        kinds = {volume["name"]: volume for volume in spec["volumes"]} if "volumes" in spec else {}
        mounts = container.get("volumeMounts", [])
        words = [*container.get("command", ["tokengate"]), *container.get("args", [])]
        return cls(
            name,
            [*_IMAGES[words[0]], *words[1:]],
            {one["name"]: one["value"] for one in container.get("env", [])},
            spec["securityContext"]["runAsUser"],
            spec["securityContext"]["runAsGroup"],
            [_volume(mount["mountPath"], kinds[mount["name"]], stores) for mount in mounts],
        )

    def write(self, directory: Path) -> Path:
        path = directory / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: Path) -> Pod:
        said = json.loads(path.read_text())
        return cls(**{**said, "volumes": [Volume(**volume) for volume in said["volumes"]]})


def _volume(mount: str, volume: dict[str, Any], stores: dict[str, Files]) -> Volume:
    if "emptyDir" in volume:
        return Volume(mount, None, 0o777)
    if "secret" in volume:
        return Volume(mount, stores[volume["secret"]["secretName"]], volume["secret"]["defaultMode"])
    return Volume(mount, stores[volume["configMap"]["name"]], 0o644)


def command(directory: Path, pods: Iterable[Pod]) -> list[str]:
    """Return the command that runs all pods in a network of their own and asks the questions."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    python = [sys.executable, "-m", "tests.k8s.pod", "together"]
    return ["unshare", *user, "--net", "--mount", *python, *(str(pod.write(directory)) for pod in pods)]


# --- one pod ---


def enter(pod: Pod, root: Path) -> None:
    """Become the pod's process; called in a mount namespace of its own."""
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(root))
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        if Path(name).is_symlink():
            (root / name[1:]).symlink_to(os.readlink(name))
    etc = root / "etc"
    etc.mkdir()
    # Every Service is this network's loopback.
    (etc / "hosts").write_text("127.0.0.1 localhost redis backend\n")
    for volume in pod.volumes:
        _fill(root / volume.mount[1:], volume, pod.group)
    for source in _SHARED:  # after the volumes: the checkout may be below /tmp, which is one of them
        if not any(Path(source).is_relative_to(other) for other in _SHARED if other != source):
            _bind(source, root)
    _mount("-o", "remount,ro", str(root))
    os.chroot(root)
    os.chdir("/")
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **pod.environment}
    words = [*_drop(pod), *pod.command]
    os.execve("/usr/bin/setpriv", words, environ)


def _drop(pod: Pod) -> list[str]:
    words = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    if _is_root():
        words += [f"--reuid={pod.user}", f"--regid={pod.group}", f"--groups={pod.group}"]
    return words


def _fill(at: Path, volume: Volume, group: int) -> None:
    """Mount a volume and put its files there, as a kubelet does."""
    at.mkdir(parents=True)
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", str(at))
    if volume.files is None:
        return
    data = at / "..2026_11_21_12_00_00.000000001"
    data.mkdir()
    (at / "..data").symlink_to(data.name)
    for name, text in volume.files.items():
        file = data / name
        file.write_text(text)
        if _is_root():
            os.chown(file, 0, group)
        file.chmod(volume.mode)
        (at / name).symlink_to(f"..data/{name}")
    _mount("-o", "remount,ro", str(at))


def _bind(source: str, root: Path) -> None:
    target = root / source[1:]
    target.mkdir(parents=True, exist_ok=True)
    _mount("--rbind", source, str(target))
    if source not in ("/dev", "/proc"):
        _mount("-o", "remount,bind,ro", str(target))


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, timeout=10)


def _is_root() -> bool:
    """Tell whether there are users beside this one: in a user namespace of one's own there is one alone."""
    return (
        len(Path("/proc/self/uid_map").read_text().split()) == 3
        and int(Path("/proc/self/uid_map").read_text().split()[2]) > 1
    )


# --- all of them ---


def together(paths: list[Path]) -> dict[str, Any]:
    """Start every pod, follow one session from its beginning to its end, and end the gateway as Kubernetes does."""
    _loopback_up()
    processes = {path.stem: _start(path) for path in paths}
    try:
        return _questions(processes["tokengate"])
    finally:
        for process in processes.values():
            process.kill()
            process.wait(10)


def _start(path: Path) -> subprocess.Popen[bytes]:
    root = path.with_suffix(".root")
    root.mkdir()
    words = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.k8s.pod", "enter"]
    with path.with_suffix(".log").open("wb") as log:
        return subprocess.Popen([*words, str(path), str(root)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _questions(gateway: subprocess.Popen[bytes]) -> dict[str, Any]:
    until(lambda: _status(9090, "/livez") == 200 or gateway.poll() is not None, "/livez 200", 60)
    until(lambda: _status(9090, "/readyz") == 200, "/readyz 200", 60)
    until(lambda: _status(8082, "/") == 200, "the backend serves", 60)
    found: dict[str, Any] = {"public": _status(8080, "/public/x"), "no token": _status(8080, "/api/hello")}
    login = ask(8080, json_request("POST", "/auth/login", {"username": "alice", "password": PASSWORD}))
    token = login.json()["access_token"]
    seen = _call(token)
    found |= {"login": login.status, "request": seen.status, "headers": seen.json()["headers"]}
    found["logout"] = ask(8080, request("POST", "/auth/logout", token=token)).status
    after = _call(token)
    found |= {"after": after.status, "error": after.json()["error"], "user": _user(gateway.pid)}
    found["writable"] = _writable(gateway.pid)
    gateway.send_signal(signal.SIGTERM)
    until(lambda: _status(9090, "/readyz") == 503, "/readyz 503 at the end")
    found["while it drains"] = _status(8080, "/public/x")
    found["exit"] = gateway.wait(40)
    return found


def _call(token: str) -> Answer:
    return ask(8080, request("GET", "/api/hello", token=token))


def _status(port: int, target: str) -> int:
    try:
        return ask(port, request("GET", target, {"Connection": "close"})).status
    except OSError:
        return 0


def _user(pid: int) -> dict[str, str]:
    wanted = ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs")
    rows = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in rows if name in wanted}


def _writable(pid: int) -> list[str]:
    """Return where the process has file systems that may be written, the kernel's own left out."""
    mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
    return [
        at for _, at, _, options, *_ in mounts if "rw" in options.split(",") and not at.startswith(("/dev", "/proc"))
    ]


def _loopback_up() -> None:
    """`ip link set lo up`, without ip (netdevice(7))."""
    get_flags, set_flags, up = 0x8913, 0x8914, 0x1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, get_flags, struct.pack("16sh14x", b"lo", 0))
        flags = struct.unpack("16sh14x", answer)[1]
        fcntl.ioctl(probe, set_flags, struct.pack("16sh14x", b"lo", flags | up))


def main(words: list[str]) -> None:
    if words[0] == "enter":
        enter(Pod.load(Path(words[1])), Path(words[2]))
    else:
        sys.stdout.write(json.dumps(together([Path(word) for word in words[1:]])))


if __name__ == "__main__":
    main(sys.argv[1:])
