"""kustomize, helm and the schemas of custom resources, put into build/k8s-tools from the Go module proxy.

    python -m tests.k8s.tools       about 20 s where Go has built them before, minutes where it has not

Go checks what it loads against its checksum database. Nothing here is needed to run tokengate.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "build" / "k8s-tools"
CRDS = DIRECTORY / "crds"
PROGRAMS = {
    "kustomize": "sigs.k8s.io/kustomize/kustomize/v5@v5.7.1",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
}
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


def program(name: str) -> str | None:
    """Return the path of a program, ours first, None where there is none."""
    ours = DIRECTORY / name
    return str(ours) if ours.exists() else shutil.which(name)


def install_programs() -> None:
    environ = {**os.environ, "GOBIN": str(DIRECTORY), "CGO_ENABLED": "0"}
    for module in PROGRAMS.values():
        subprocess.run(["go", "install", "-ldflags=-s -w", module], env=environ, check=True)


def copy_schemas() -> None:
    CRDS.mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(["go", "mod", "download", "-json", *SCHEMAS], stdout=subprocess.PIPE, check=True)
    decoder, text = json.JSONDecoder(), ran.stdout.decode().strip()
    while text:
        found, end = decoder.raw_decode(text)
        text = text[end:].lstrip()
        for file in SCHEMAS[f"{found['Path']}@{found['Version']}"]:
            shutil.copyfile(Path(found["Dir"]) / file, CRDS / f"{found['Path'].replace('/', '_')}_{Path(file).name}")


def main() -> None:
    if shutil.which("go") is None:
        sys.exit("Go is needed to build kustomize and helm")
    began = time.monotonic()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    copy_schemas()
    install_programs()
    schemas = len(list(CRDS.iterdir()))
    seconds = time.monotonic() - began
    sys.stdout.write(f"{', '.join(PROGRAMS)} and {schemas} schemas in {DIRECTORY}, after {seconds:.0f} s\n")


if __name__ == "__main__":
    main()
