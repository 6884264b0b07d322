"""What another linter of policies says of every rendering: kube-score with all its checks, `make k8s-test`."""

from __future__ import annotations

import json
import subprocess
from functools import cache

import pytest
import yaml

from tests.k8s import tools
from tests.k8s.manifests import NEWEST, RENDERED, rendered

_PASSED = 10  # kube-score's grades are 1, 5, 7 and 10
ACCEPTED = {
    # Half a core is what a pod is planned for, and bursts are what the limit is for (docs/kubernetes.md, Size).
    "container-cpu-requests-equal-limits",
    "container-memory-requests-equal-limits",
    "container-resource-requests-equal-limits",
    "container-ephemeral-storage-request-equals-limit",
    # A tag is fixed and a digest is more so: a node that has the image starts a pod without asking anyone.
    "container-image-pull-policy",
    # Topology spread constraints do it, which this linter asks for too.
    "deployment-has-host-podantiaffinity",
}
ACCEPTED_OF = {
    # A Redis that keeps nothing must not be there twice, and answers one question alone to who has no password.
    "redis": {"deployment-replicas", "deployment-strategy", "pod-probes-identical"},
    "backend": {"deployment-replicas"},  # a sample
    "shop": {"ingress-targets-service"},  # its Service is its own, and not in these files
}
WITHOUT_POLICY = "chart without what can be left out"


@cache
def findings(name: str) -> frozenset[tuple[str, str]]:
    """Return (object, check) of all that kube-score complains of in a rendering."""
    program = tools.program("kube-score")
    if program is None:
        pytest.skip("needs kube-score: make k8s-test builds it")
    words = ["score", f"--kubernetes-version=v{NEWEST}", "--all-default-optional", "--output-format=json", "-"]
    text = yaml.safe_dump_all(rendered(name))
    ran = subprocess.run([program, *words], input=text, capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout, ran.stderr
    return frozenset(
        (one["object_meta"]["name"], check["check"]["id"])
        for one in json.loads(ran.stdout)
        for check in one["checks"]
        if not check["skipped"] and check["grade"] < _PASSED
    )


@pytest.mark.parametrize("name", RENDERED)
def test_kube_score_finds_nothing_but_what_is_meant(name: str) -> None:
    left = {(one, check) for one, check in findings(name) if check not in ACCEPTED | ACCEPTED_OF.get(one, set())}
    assert left == ({("tokengate", "pod-networkpolicy")} if name == WITHOUT_POLICY else set())


def test_nothing_is_accepted_that_is_not_found() -> None:
    found = {finding for name in RENDERED for finding in findings(name)}
    assert {check for _, check in found} >= ACCEPTED
    assert found >= {(one, check) for one, checks in ACCEPTED_OF.items() for check in checks}
