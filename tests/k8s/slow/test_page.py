"""What docs/kubernetes.md has users type, typed to an API server: `make k8s-apiserver-test`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k8s import page, tools
from tests.k8s.manifests import K8S
from tests.k8s.slow.cluster import Cluster, cluster

pytestmark = pytest.mark.timeout(180)  # seconds: the server starts, and kubectl is started often


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if any(tools.program(name) is None for name in (*tools.SERVERS, "helm")) or not tools.CRDS.is_dir():
        pytest.skip("needs etcd, kube-apiserver and helm: make k8s-apiserver-test builds them")
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("checkout")
    shutil.copytree(K8S, directory / "k8s")
    shutil.copy(K8S / "overlays/production/gateway.toml", directory)
    return directory


def test_the_dev_overlay_goes_in_as_the_page_says(server: Cluster, checkout: Path) -> None:
    blocks = page.blocks("The dev overlay")
    page.run(blocks[page.FILES] + blocks[page.CLUSTER], checkout, server.environ)
    words = ["--namespace=tokengate-dev", "--output=json"]
    secrets = json.loads(server.kubectl("get", "secrets", *words))["items"]
    names = {one["metadata"]["name"]: set(one["data"]) for one in secrets}
    assert names["tokengate-secrets"] == {"admin-token", "redis-password", "users.toml"}
    assert names["tokengate-redis"] == {"users.acl"}
    deployments = json.loads(server.kubectl("get", "deployments", *words))["items"]
    assert {one["metadata"]["name"] for one in deployments} == {"backend", "redis", "tokengate"}
    page.run("kubectl diff -k k8s/overlays/dev", checkout, server.environ)  # 1 if something would change


def test_helm_installs_upgrades_and_takes_away_the_release(server: Cluster, checkout: Path) -> None:
    _, upgrade, *_ = page.blocks("Helm")
    assert "REVISION: 1" in page.run(upgrade, checkout, server.environ)
    assert "REVISION: 2" in page.run(upgrade, checkout, server.environ)
    config = server.kubectl("get", "configmap", "tokengate-config", "--namespace=tokengate", "--output=json")
    assert json.loads(config)["data"]["gateway.toml"] == (checkout / "gateway.toml").read_text()
    page.run("helm uninstall tokengate --namespace tokengate", checkout, server.environ)
    assert server.kubectl("get", "deployments,services", "--namespace=tokengate", "--output=name") == ""


def test_the_production_overlay_goes_in_and_nothing_changes_when_it_goes_in_again(
    server: Cluster, checkout: Path
) -> None:
    server.define(tools.CRDS)
    for command in ("apply", "diff"):
        page.run(f"kubectl {command} -k k8s/overlays/production", checkout, server.environ)
