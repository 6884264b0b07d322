"""What the tests of k8s/ run, put into build/k8s-tools from the Go module proxy.

    python -m tests.k8s.tools [WHAT...]     by default schemas, kustomize and helm; docs/kubernetes.md says the time

kustomize is not built where kubectl has it. Go checks what it loads against its checksum database. Nothing here is
needed to run tokengate, and this file needs nothing but Python: .ci/run starts it before there is an environment.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "build" / "k8s-tools"
CRDS = DIRECTORY / "crds"
KUBERNETES = "1.37.0"
PROGRAMS = {
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kube-score": "github.com/zegl/kube-score/cmd/kube-score@v1.20.0",
}
DEFAULT = ("schemas", "kustomize", "helm")
SERVERS = ("etcd", "kube-apiserver")
# module: the files in it that define the custom resources of k8s/
SCHEMAS = {
    "sigs.k8s.io/gateway-api@v1.6.0": ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"],
    "github.com/envoyproxy/gateway@v1.9.1": [
        "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_securitypolicies.yaml"
    ],
    "istio.io/api@v1.31.1": ["kubernetes/customresourcedefinitions.gen.yaml"],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
    "github.com/traefik/traefik/v3@v3.7.13": [
        "docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml"
    ],
}
# What is started a few dozen times need not be fast: without these, Go takes a third longer.
_QUICKLY = ("-ldflags=-s -w", "-gcflags=all=-N -l -dwarf=false")
_GO = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
_ETCD = """package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
"""


def program(name: str) -> str | None:
    """Return the path of a program, ours first, None where there is none."""
    ours = DIRECTORY / name
    return str(ours) if ours.exists() else shutil.which(name)


@cache
def kustomize() -> list[str] | None:
    """Return the words that come before a kustomization's directory, None where nothing can build it."""
    found = program("kustomize")
    if found:
        return [found, "build"]
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    ran = subprocess.run([kubectl, "version", "--client", "--output=json"], capture_output=True, check=False)
    said = json.loads(ran.stdout or b"{}").get("kustomizeVersion", "v0")
    # Version 5 is the first that fills in k8s/ as it is meant; kubectl has it since 1.27.
    return [kubectl, "kustomize"] if int(said[1:].partition(".")[0]) >= 5 else None


def install(names: list[str]) -> None:
    """Put what is named into the directory. Raises CalledProcessError, KeyError for what nobody knows."""
    for name in names:
        began = time.monotonic()
        if name == "schemas":
            _copy_schemas()
        elif name == "servers":
            _build_servers()
        elif name != "kustomize" or kustomize() is None:
            _go("install", *_QUICKLY, PROGRAMS[name])
        sys.stdout.write(f"{name} after {time.monotonic() - began:.0f} s\n")


def _copy_schemas() -> None:
    shutil.rmtree(CRDS, ignore_errors=True)
    CRDS.mkdir(parents=True)
    for found in _download(*SCHEMAS):
        for file in SCHEMAS[f"{found['Path']}@{found['Version']}"]:
            shutil.copyfile(Path(found["Dir"]) / file, CRDS / f"{found['Path'].replace('/', '_')}_{Path(file).name}")


def _build_servers() -> None:
    """Build etcd and kube-apiserver as a module of its own would.

    k8s.io/kubernetes has parts of itself beside it, where no other module finds them; each was published too.
    """
    (found,) = _download(f"k8s.io/kubernetes@v{KUBERNETES}")
    theirs = Path(found["GoMod"]).read_text()
    go = re.findall(r"^go .*", theirs, re.MULTILINE)
    parts = re.findall(r"^\s*(k8s\.io/\S+) => \./staging/", theirs, re.MULTILINE)
    published = f"v0.{KUBERNETES.partition('.')[2]}"
    source = DIRECTORY / "servers"
    (source / "etcd").mkdir(parents=True, exist_ok=True)
    (source / "etcd" / "main.go").write_text(_ETCD)
    (source / "go.sum").unlink(missing_ok=True)
    replaced = [f"replace {part} => {part} {published}" for part in parts]
    words = ["module servers", *go, f"require k8s.io/kubernetes v{KUBERNETES}", *replaced]
    (source / "go.mod").write_text("\n".join(words) + "\n")
    major, minor, _ = KUBERNETES.split(".")
    says = {"gitVersion": f"v{KUBERNETES}", "gitMajor": major, "gitMinor": minor}
    flags = "-ldflags=-s -w " + " ".join(
        f"-X k8s.io/component-base/version.{name}={text}" for name, text in says.items()
    )
    for name, package in zip(SERVERS, ("./etcd", "k8s.io/kubernetes/cmd/kube-apiserver"), strict=True):
        _go("build", "-mod=mod", flags, "-o", str(DIRECTORY / name), package, cwd=source)


def _download(*modules: str) -> list[dict[str, str]]:
    decoder, text, found = json.JSONDecoder(), _go("mod", "download", "-json", *modules).strip(), []
    while text:
        one, end = decoder.raw_decode(text)
        found.append(one)
        text = text[end:].lstrip()
    return found


def _go(*words: str, cwd: Path = ROOT) -> str:
    assert _GO
    environ = {**os.environ, "GOBIN": str(DIRECTORY), "CGO_ENABLED": "0", "GOGC": "400"}
    ran = subprocess.run([_GO, *words], cwd=cwd, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout


def main(names: list[str]) -> None:
    if _GO is None:
        sys.exit(f"Go is needed to make {', '.join(names)}")
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    install(names)


if __name__ == "__main__":
    main(sys.argv[1:] or list(DEFAULT))
