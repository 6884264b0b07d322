"""etcd and kube-apiserver on loopback, in a directory that goes away with them: no controller, no node.

What is created is checked, filled in, admitted and stored as in a cluster, and then nothing comes of it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.harness import until
from tests.k8s import tools
from tests.k8s.manifests import Object
from tests.redis_server import free_port

_TOKEN = "of-the-tests"
_STARTS_WITHIN = 90  # seconds
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}


@dataclass(frozen=True)
class Cluster:
    directory: Path

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which kubectl and helm speak to this server, and keep their caches in its directory."""
        return {**os.environ, "KUBECONFIG": str(self.directory / "kubeconfig"), "HOME": str(self.directory)}

    def kubectl(self, *words: str, objects: list[Object] | None = None) -> str:
        """Run kubectl, with objects as its input; return what it prints. Raises CalledProcessError; so do warnings."""
        text = None if objects is None else yaml.safe_dump_all(objects)
        command = ["kubectl", "--warnings-as-errors", *words, *(["--filename=-"] if objects is not None else [])]
        ran = subprocess.run(
            command, input=text, env=self.environ, capture_output=True, text=True, check=False, timeout=60
        )
        if ran.returncode:
            raise subprocess.CalledProcessError(ran.returncode, command, ran.stdout, ran.stderr)
        return ran.stdout

    def apply(self, objects: list[Object], namespace: str, *words: str) -> None:
        """Apply objects; those that name no namespace go into this one. Unknown fields are refused."""
        self.kubectl("apply", "--server-side", "--validate=strict", f"--namespace={namespace}", *words, objects=objects)

    def read(self, objects: list[Object], namespace: str) -> list[Object]:
        """Return these objects as the server has them, in their order."""
        said = json.loads(self.kubectl("get", f"--namespace={namespace}", "--output=json", objects=objects))
        found = said["items"] if said["kind"] == "List" else [said]
        assert len(found) == len(objects)
        return list(found)

    def delete(self, objects: list[Object], namespace: str) -> None:
        self.kubectl(
            "delete", f"--namespace={namespace}", "--ignore-not-found", "--wait=false", "--now", objects=objects
        )

    def namespace(self, name: str, labels: dict[str, str] | None = None) -> None:
        """Make a namespace with what its controller would put there, the account of pods that name none."""
        metadata = {"name": name, "labels": RESTRICTED if labels is None else labels}
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, account], name)

    def define(self, directory: Path) -> None:
        """Make the custom resources that are defined in a directory, and wait until they are served."""
        words = [f"--filename={directory}", "--validate=strict"]
        self.kubectl("apply", "--server-side", *words)
        self.kubectl("wait", "--for=condition=Established", "--all", "customresourcedefinitions", "--timeout=50s")


@contextmanager
def cluster(directory: Path) -> Iterator[Cluster]:
    """Start the two servers; end them."""
    made = Cluster(directory)
    with ExitStack() as stack:
        etcd = _etcd(directory, stack)
        port = free_port()
        server = _start("kube-apiserver", _flags(directory, etcd, port), directory, stack)
        (directory / "kubeconfig").write_text(json.dumps(_kubeconfig(directory, port)))
        until(lambda: _ready(made, server), "kube-apiserver is ready", _STARTS_WITHIN)
        yield made


def _etcd(directory: Path, stack: ExitStack) -> str:
    """Start etcd; return its URL."""
    url, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    words = [f"--data-dir={directory}/etcd", "--unsafe-no-fsync", "--log-level=error", "--name=one"]
    words += [f"--listen-client-urls={url}", f"--advertise-client-urls={url}", f"--listen-peer-urls={peer}"]
    words += [f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=one={peer}"]
    _start("etcd", words, directory, stack)
    return url


def _flags(directory: Path, etcd: str, port: int) -> list[str]:
    """Return the flags of kube-apiserver. It makes its own certificate; every default of admission stays."""
    key = directory / "accounts.key"
    key.write_bytes(
        rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    (directory / "tokens.csv").write_text(f"{_TOKEN},tests,tests,system:masters\n")
    return [
        f"--etcd-servers={etcd}",
        *("--bind-address=127.0.0.1", f"--secure-port={port}", "--advertise-address=127.0.0.1"),
        *(f"--cert-dir={directory}/certificates", f"--token-auth-file={directory}/tokens.csv"),
        *(f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}"),
        *("--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16"),
        *("--authorization-mode=RBAC", "--endpoint-reconciler-type=none"),
    ]


def _start(name: str, words: list[str], directory: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    found = tools.program(name)
    assert found, f"{name} is missing"
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([found, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)
    stack.callback(process.wait, 20)
    stack.callback(process.kill)
    return process


def _kubeconfig(directory: Path, port: int) -> dict[str, Any]:
    server = {
        "server": f"https://127.0.0.1:{port}",
        "certificate-authority": f"{directory}/certificates/apiserver.crt",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": server}],
        "users": [{"name": "tests", "user": {"token": _TOKEN}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        "current-context": "tests",
    }


def _ready(made: Cluster, server: subprocess.Popen[bytes]) -> bool:
    log = made.directory / "kube-apiserver.log"
    assert server.poll() is None, log.read_text()[-4000:]
    try:
        return made.kubectl("get", "--raw=/readyz", "--request-timeout=5s") == "ok"
    except subprocess.CalledProcessError:
        return False
