"""The image's steps in a fresh root of Debian: it serves with a read-only root, as nobody, without a shell."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import __version__
from gateway.tokens.keyring import generate, generate_refresh
from tests.e2e.harness import until
from tests.e2e.wire import ask, request
from tests.k8s.slow import root
from tests.k8s.slow.root import FINAL
from tests.k8s.tools import ROOT
from tests.redis_server import RedisServer, free_port

pytestmark = pytest.mark.timeout(900)  # seconds: a system is fetched and unpacked


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not root.usable():
        pytest.skip("needs root and debootstrap")
    return root.make(tmp_path_factory.mktemp("root").resolve())


@pytest.fixture
def configuration(tmp_path: Path, shared_redis: RedisServer) -> Path:
    """What a pod mounts at /etc/tokengate, keys included; readable by the image's group."""
    directory = tmp_path / "conf"
    keys = directory / "keys"
    keys.mkdir(parents=True)
    for key in (generate("ES256", 1e9), generate_refresh(1e9)):
        (keys / key.name).write_bytes(key.data)
        os.chown(keys / key.name, 0, 65532)
        (keys / key.name).chmod(0o440)
    (directory / "gateway.toml").write_text(f"""
[server]
bind = "127.0.0.1:{free_port()}"
[management]
bind = "127.0.0.1:{free_port()}"
[redis]
url = "{shared_redis.url}"
prefix = "root"
[tokens]
issuer = "https://image.test"
audience = "image"
signing_keys = "/etc/tokengate/keys"
[identity]
webhook_url = "http://127.0.0.1:9/"
""")
    return directory


def run(image: Path, configuration: Path, *words: str) -> str:
    command = root.command(image, configuration, list(words))
    ran = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, f"{words}: {ran.stderr}"
    return ran.stdout


def test_the_entry_point_tells_the_version(image: Path, configuration: Path) -> None:
    assert __version__ in run(image, configuration, *FINAL.words("ENTRYPOINT"), "--version")


def test_the_image_checks_a_configuration(image: Path, configuration: Path) -> None:
    assert "answers" in run(image, configuration, "tokengate", "check", "--config", "/etc/tokengate/gateway.toml")


def test_there_is_no_pip_no_shell_and_no_place_to_write_but_tmp(image: Path, configuration: Path) -> None:
    program = """
import os, shutil, sys
assert not [name for name in ("pip", "sh", "bash") if shutil.which(name)]
assert (os.getuid(), os.getgid(), os.getgroups()) == (65532, 65532, [])
for place in ("/", "/opt/tokengate", "/etc/tokengate"):
    try:
        open(os.path.join(place, "x"), "w")
    except OSError as error:
        assert error.errno in (13, 30), error
    else:
        sys.exit(place)
open("/tmp/x", "w").close()
print("as it should be")
"""
    assert run(image, configuration, "python", "-c", program) == "as it should be\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_is_found_healthy_and_ends_by_the_image_s_signal(
    image: Path, configuration: Path, workers: int
) -> None:
    management = int((configuration / "gateway.toml").read_text().partition("[management]")[2].split('"')[1][10:])
    check = [word.replace(":9090/", f":{management}/") for word in FINAL.words("HEALTHCHECK")]
    command = root.command(
        image, configuration, [*FINAL.words("ENTRYPOINT"), *FINAL.words("CMD"), f"--workers={workers}"]
    )
    with serving(command, management):
        run(image, configuration, *check)


@contextmanager
def serving(command: list[str], management: int) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(management), "the image serves", 60)
        yield
    finally:
        assert dict(FINAL.steps)["STOPSIGNAL"] == "SIGTERM"
        process.terminate()
        assert process.wait(60) == 0


def answers(port: int) -> bool:
    try:
        return ask(port, request("GET", "/readyz", {"Connection": "close"})).status == 200
    except OSError:
        return False
