"""A kube-apiserver takes every rendering, and refuses what is wrong: `make k8s-apiserver-test`.

Beside the schemas it is asked for what they cannot say: defaults, admission (the restricted Pod Security Standard is
enforced), validation in code, and the rules of custom resources (CEL).
"""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.k8s import tools
from tests.k8s.manifests import NAMESPACE, RENDERED, Object, only, rendered
from tests.k8s.slow.cluster import Cluster, cluster

pytestmark = pytest.mark.timeout(180)  # seconds: the server starts, and kubectl is started often


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if any(tools.program(name) is None for name in tools.SERVERS) or not tools.CRDS.is_dir():
        pytest.skip("needs etcd and kube-apiserver: make k8s-apiserver-test builds them")
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        made.define(tools.CRDS)
        made.namespace(NAMESPACE)
        yield made


@dataclass(frozen=True)
class Applied:
    server: Cluster
    objects: list[Object]
    namespace: str

    def kind(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]


@pytest.fixture(scope="module", params=RENDERED)
def applied(request: pytest.FixtureRequest, server: Cluster) -> Iterator[Applied]:
    """One rendering, tried and then applied; gone when its tests are."""
    objects = rendered(request.param)
    spaces = [one for one in objects if one["kind"] == "Namespace"]
    namespace = spaces[0]["metadata"]["name"] if spaces else NAMESPACE
    if spaces:
        server.namespace(namespace, {})
        server.apply(spaces, namespace)
    rest = [one for one in objects if one["kind"] != "Namespace"]
    server.apply(rest, namespace, "--dry-run=server")
    server.apply(rest, namespace)
    yield Applied(server, rest, namespace)
    server.delete(rest, namespace)


def test_the_server_keeps_all_that_was_asked_for(applied: Applied) -> None:
    kept = applied.server.read(applied.objects, applied.namespace)
    changes = {
        f"{asked['kind']} {path}" for asked, got in zip(applied.objects, kept, strict=True) for path in lost(asked, got)
    }
    assert changes == set()


def lost(asked: Any, got: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which an object differs from what was asked for; what the server adds does not count."""
    match asked:
        case dict():
            for key, value in asked.items():
                yield from lost(value, got.get(key) if isinstance(got, dict) else None, f"{path}.{key}")
        case list() if isinstance(got, list) and len(got) == len(asked):
            for place, (one, other) in enumerate(zip(asked, got, strict=True)):
                yield from lost(one, other, f"{path}.{place}")
        case _ if asked != got:
            yield f"{path}: {asked} became {got}"


def test_every_pod_is_admitted_under_the_restricted_standard(applied: Applied) -> None:
    enforced = applied.server.kubectl(
        "get",
        "namespace",
        applied.namespace,
        "--output=jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}",
    )
    assert enforced == "restricted"
    made = [pod(one) for one in applied.kind("Deployment")]
    assert made
    applied.server.apply(made, applied.namespace)
    applied.server.delete(made, applied.namespace)


def pod(deployment: Object) -> Object:
    """Return the pod that the controllers would make of a Deployment."""
    template = copy.deepcopy(deployment["spec"]["template"])
    metadata = {**template["metadata"], "name": f"{deployment['metadata']['name']}-0"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


# --- the check can fail ---


def refused(server: Cluster, one: Object) -> str:
    """Try to apply an object; return what the server says against it."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        server.apply([one], NAMESPACE, "--dry-run=server")
    return str(error.value.stderr)


def changed(one: Object, path: str, value: Any) -> Object:
    """Return a copy of an object with one value changed; None takes it away."""
    copied = copy.deepcopy(one)
    *steps, last = path.split(".")
    inner: Any = copied
    for step in steps:
        inner = inner[int(step)] if step.isdigit() else inner[step]
    inner.pop(last, None)
    if value is not None:
        inner[last] = value
    return copied


CONTAINER = "spec.template.spec.containers.0"
GATEWAY = {"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "public"}
ENVOY = "components/forward-auth-envoy-gateway"
# what is wrong: where, in which kind, at which path, the value, and what the server says
BROKEN: dict[str, tuple[str, str, str, Any, str]] = {
    "an unknown field": ("base", "Deployment", f"{CONTAINER}.imagePulPolicy", "Always", "field not declared in schema"),
    "a selector that misses its pods": (
        "base",
        "Deployment",
        "spec.selector.matchLabels",
        {"app.kubernetes.io/name": "other"},
        "`selector` does not match template `labels`",
    ),
    "a volume that is not there": (
        "base",
        "Deployment",
        f"{CONTAINER}.volumeMounts.0.name",
        "other",
        "volumeMounts[0].name: Not found",
    ),
    "a request above the limit": (
        "base",
        "Deployment",
        f"{CONTAINER}.resources.requests.memory",
        "1Gi",
        "must be less than or equal to memory limit",
    ),
    "fewer at most than at least": ("base", "HorizontalPodAutoscaler", "spec.maxReplicas", 1, "spec.maxReplicas"),
    "two budgets in one": ("base", "PodDisruptionBudget", "spec.minAvailable", 1, "cannot be both set"),
    "a port's name that is too long": (
        "base",
        "NetworkPolicy",
        "spec.ingress.0.ports.0.port",
        "much-too-long-a-name",
        "spec.ingress[0].ports[0].port",
    ),
    "a monitor without endpoints": (
        "overlays/production",
        "ServiceMonitor",
        "spec.endpoints",
        None,
        "spec.endpoints: Required value",
    ),
    "a rule without an expression": (
        "overlays/production",
        "PrometheusRule",
        "spec.groups.0.rules.0.expr",
        None,
        "expr: Required value",
    ),
    "a route whose time-outs contradict (CEL)": (
        "components/httproute",
        "HTTPRoute",
        "spec.rules.0.timeouts",
        {"request": "1s", "backendRequest": "2s"},
        "backendRequest timeout cannot be longer than request timeout",
    ),
    "a policy without a target (CEL)": (ENVOY, "SecurityPolicy", "spec.targetRefs", None, "targetRefs"),
    "a question by HTTP and gRPC at once (CEL)": (
        ENVOY,
        "SecurityPolicy",
        "spec.extAuth.grpc",
        {"backendRefs": [{"name": "tokengate", "port": 80}]},
        "only one of grpc or http can be specified",
    ),
    "a policy of Istio for pods and for targets at once (CEL)": (
        "components/forward-auth-istio",
        "AuthorizationPolicy",
        "spec.targetRefs",
        [GATEWAY],
        "only one of targetRefs or selector can be set",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_manifest_is_refused(server: Cluster, name: str) -> None:
    rendering, kind, path, value, said = BROKEN[name]
    one = next(one for one in rendered(rendering) if one["kind"] == kind)
    assert said in refused(server, changed(one, path, value))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("spec.securityContext.runAsNonRoot", None, "runAsNonRoot"),
        ("spec.securityContext.runAsUser", 0, "runAsUser=0"),
        ("spec.securityContext.seccompProfile", None, "seccompProfile"),
        ("spec.containers.0.securityContext.allowPrivilegeEscalation", None, "allowPrivilegeEscalation"),
        ("spec.containers.0.securityContext.capabilities", None, "capabilities"),
        ("spec.hostNetwork", True, "hostNetwork"),
    ],
)
def test_a_pod_that_may_do_more_is_not_admitted(server: Cluster, path: str, value: Any, said: str) -> None:
    server.apply([only(rendered("base"), "ServiceAccount")], NAMESPACE)
    answer = refused(server, changed(pod(only(rendered("base"), "Deployment")), path, value))
    assert "violates PodSecurity" in answer
    assert said in answer
