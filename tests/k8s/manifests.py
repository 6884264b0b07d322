"""Every rendering that users can make of k8s/, as objects."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.k8s import tools

K8S = tools.ROOT / "k8s"
CHART = K8S / "chart"
OVERLAYS = ("dev", "production")
COMPONENTS = tuple(sorted(path.name for path in (K8S / "components").iterdir()))
NAMESPACE = "tokengate"
NEWEST = "1.37"
OLDEST = "1.28"  # what the chart's kubeVersion says
CHART_VALUES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "with everything": {
        "image": {"digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "config": '[server]\nbind = "0.0.0.0:8080"\n',
        "env": [{"name": "TOKENGATE_LOG__LEVEL", "value": "debug"}],
        "extraVolumes": [{"name": "redis-tls", "secret": {"secretName": "redis-tls", "defaultMode": 0o440}}],
        "extraVolumeMounts": [{"name": "redis-tls", "mountPath": "/run/redis-tls", "readOnly": True}],
        "networkPolicy": {
            "from": [{"podSelector": {}}],
            "extraEgress": [{"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 6380}]}],
        },
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True, "labels": {"release": "monitoring"}},
        "grafanaDashboard": {"enabled": True},
        "ingress": {"enabled": True, "annotations": {"a.example/b": "c"}},
        "httpRoute": {"enabled": True},
        "podAnnotations": {"a.example/b": "c"},
        "podLabels": {"team": "identity"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
    },
    "without what can be left out": {
        "autoscaling": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "replicas": 3,
    },
}
KUSTOMIZED = ("base", *(f"overlays/{name}" for name in OVERLAYS), *(f"components/{name}" for name in COMPONENTS))
RENDERED = (*KUSTOMIZED, *(f"chart {name}" for name in CHART_VALUES))

Object = dict[str, Any]


@cache
def rendered(name: str, version: str = NEWEST) -> list[Object]:
    """Return the objects of one of RENDERED. Raises CalledProcessError."""
    if name.startswith("chart "):
        return chart(CHART_VALUES[name.removeprefix("chart ")], version)
    if name.startswith("components/"):
        return with_component(name.removeprefix("components/"))
    return kustomize(K8S / name)


def kustomize(directory: Path) -> list[Object]:
    """Return the objects of a kustomization. Raises CalledProcessError."""
    command = tools.kustomize()
    assert command, "kustomize is missing"
    return _objects(_run([*command, str(directory)]))


def with_component(name: str) -> list[Object]:
    """Return the objects of the production overlay with one component, as a user would add it."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made).resolve()
        words = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": NAMESPACE,
            "resources": [os.path.relpath(K8S / "overlays" / "production", directory)],
            "components": [os.path.relpath(K8S / "components" / name, directory)],
        }
        (directory / "kustomization.yaml").write_text(yaml.safe_dump(words))
        return kustomize(directory)


def chart(values: Object, version: str = NEWEST) -> list[Object]:
    """Return the objects of the chart for a release `tokengate`. Raises CalledProcessError."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(values, file)
        file.flush()
        words = ["template", "tokengate", str(CHART), "--namespace", NAMESPACE, "--values", file.name]
        return _objects(helm(*words, "--kube-version", f"{version}.0"))


def helm(*words: str) -> str:
    """Run helm; return what it prints. Raises CalledProcessError."""
    found = tools.program("helm")
    assert found, "helm is missing"
    return _run([found, *words])


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield (name, pod spec) of everything that makes pods."""
    for one in objects:
        if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def only(objects: list[Object], kind: str, name: str = "tokengate") -> Object:
    """Return the one object of this kind and name; a generated name's hash does not count."""
    found = [one for one in objects if one["kind"] == kind and one["metadata"]["name"].startswith(name)]
    exact = [one for one in found if one["metadata"]["name"] == name] or found
    assert len(exact) == 1, f"{len(exact)} of {kind} {name}"
    return exact[0]


def _objects(text: str) -> list[Object]:
    return [one for one in yaml.safe_load_all(text) if one]


def _run(command: list[str]) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if ran.returncode:
        raise subprocess.CalledProcessError(ran.returncode, command, ran.stdout, ran.stderr)
    return ran.stdout
