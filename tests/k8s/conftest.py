"""What these tests need beside the test extra: kustomize and helm, which `make k8s-tools` builds."""

from __future__ import annotations

import shutil

import pytest

from tests.k8s import tools


@pytest.fixture(scope="session")
def need_kustomize() -> None:
    if tools.program("kustomize") is None and shutil.which("kubectl") is None:
        pytest.skip("needs kustomize: make k8s-tools, or kubectl on PATH")


@pytest.fixture(scope="session")
def need_helm() -> None:
    if tools.program("helm") is None:
        pytest.skip("needs helm: make k8s-tools, or helm on PATH")


@pytest.fixture(scope="session")
def need_schemas() -> None:
    if not tools.CRDS.is_dir():
        pytest.skip("needs the schemas of custom resources: make k8s-tools")
