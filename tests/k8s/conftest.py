"""What these tests need beside the test extra: kustomize and helm, which `make k8s-tools` builds."""

from __future__ import annotations

import os

import pytest

from tests.k8s import tools

# .ci/run tests what is here; what is slow has targets of its own in the Makefile.
collect_ignore = ["slow", "test_image.py"] if os.environ.get("TESTS_OF_K8S") != "slow" else []


@pytest.fixture(scope="session")
def need_kustomize() -> None:
    if tools.kustomize() is None:
        pytest.skip("needs kustomize: make k8s-tools, or a kubectl that has version 5 or newer")


@pytest.fixture(scope="session")
def need_helm() -> None:
    if tools.program("helm") is None:
        pytest.skip("needs helm: make k8s-tools, or helm on PATH")


@pytest.fixture(scope="session")
def need_schemas() -> None:
    if not tools.CRDS.is_dir():
        pytest.skip("needs the schemas of custom resources: make k8s-tools")
