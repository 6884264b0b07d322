"""Every overlay, component and chart rendering is what Kubernetes takes, and is as careful as it says."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.api import PUBLIC
from gateway.settings import Settings, load
from gateway.settings.models import IDENTITY_HEADERS
from gateway.telemetry import series
from tests.k8s import manifests, page, tools
from tests.k8s.manifests import (
    CHART,
    COMPONENTS,
    K8S,
    KUSTOMIZED,
    NEWEST,
    OLDEST,
    OVERLAYS,
    RENDERED,
    Object,
    only,
    pods,
    rendered,
)
from tests.k8s.schemas import complaints

UNSCALED = "chart without what can be left out"
CONFIGURATIONS = sorted(path for path in K8S.rglob("gateway.toml"))

pytestmark = pytest.mark.usefixtures("need_kustomize", "need_helm", "need_schemas")


def gateway_pod(name: str) -> Object:
    return next(spec for pod, spec in pods(rendered(name)) if pod == "tokengate")


# --- what the API server says ---


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", RENDERED)
def test_every_object_passes_the_schema_of_the_oldest_and_newest_kubernetes(name: str, version: str) -> None:
    objects = rendered(name, version) if name.startswith("chart ") else rendered(name)
    assert {f"{one['kind']}: {text}" for one in objects for text in complaints(one, version)} == set()


def test_an_unknown_field_is_refused_in_built_in_and_custom_kinds() -> None:
    service = {**only(rendered("base"), "Service", "tokengate"), "spce": {}}
    route = only(rendered("components/httproute"), "HTTPRoute")
    route = {**route, "spec": {**route["spec"], "hostname": "a"}}
    assert complaints(service, NEWEST)
    assert complaints(route, NEWEST)


@pytest.mark.parametrize("name", RENDERED)
def test_every_object_stands_once_and_in_the_namespace_of_its_overlay(name: str) -> None:
    objects = [one for one in rendered(name) if one["kind"] != "Namespace"]
    keys = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(keys) == len(set(keys))
    expected = {"base": {None}, "overlays/dev": {"tokengate-dev"}}.get(name, {"tokengate"})
    assert {one["metadata"].get("namespace") for one in objects} == expected


# --- what a linter of policies says (kube-linter, restricted Pod Security) ---


@pytest.mark.parametrize("name", RENDERED)
def test_every_pod_meets_the_restricted_standard(name: str) -> None:
    for _, spec in pods(rendered(name)):
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert all(set(volume) & {"configMap", "secret", "emptyDir"} for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert not {"runAsUser", "runAsNonRoot", "privileged", "seccompProfile"} & set(own)


@pytest.mark.parametrize("name", RENDERED)
def test_no_pod_gets_a_token_of_the_api_server_or_service_links(name: str) -> None:
    for _, spec in pods(rendered(name)):
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
    assert only(rendered(name), "ServiceAccount")["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", RENDERED)
def test_every_container_has_three_probes_requests_limits_and_a_fixed_image(name: str) -> None:
    for _, spec in pods(rendered(name)):
        for container in spec["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
            for part in ("requests", "limits"):
                assert set(container["resources"][part]) == {"cpu", "memory", "ephemeral-storage"}
            assert re.search(r":\d[\w.-]*$|@sha256:[0-9a-f]{64}$", container["image"]), container["image"]


@pytest.mark.parametrize("name", RENDERED)
def test_secrets_are_files_that_group_alone_may_read_and_never_variables(name: str) -> None:
    for _, spec in pods(rendered(name)):
        for volume in spec.get("volumes", []):
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440
                assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
        for container in spec["containers"]:
            assert all("value" in variable for variable in container.get("env", []))
    assert not [one for one in rendered(name) if one["kind"] == "Secret"]


@pytest.mark.parametrize("name", RENDERED)
def test_every_selector_meets_the_pods_that_it_is_for(name: str) -> None:
    made = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"]
        for one in rendered(name)
        if one["kind"] == "Deployment"
    }
    for one in rendered(name):
        spec = one.get("spec", {})
        match one["kind"]:
            case "Service":
                wanted = spec["selector"]
            case "Deployment" | "PodDisruptionBudget":
                wanted = spec["selector"]["matchLabels"]
            case "NetworkPolicy":
                wanted = spec["podSelector"]["matchLabels"]
            case _:
                continue
        own = one["metadata"]["name"].removesuffix("-management")
        met = [pod for pod, labels in made.items() if wanted.items() <= labels.items()]
        assert met == [own], f"{one['kind']} {own}"


@pytest.mark.parametrize("name", RENDERED)
def test_services_routes_and_monitors_name_ports_that_are_there(name: str) -> None:
    services = {one["metadata"]["name"]: one["spec"]["ports"] for one in rendered(name) if one["kind"] == "Service"}
    containers = {pod: [port["name"] for port in spec["containers"][0]["ports"]] for pod, spec in pods(rendered(name))}
    for service, ports in services.items():
        assert all(port["targetPort"] in containers[service.removesuffix("-management")] for port in ports)
    for one in rendered(name):
        if one["kind"] == "HTTPRoute":
            for rule in one["spec"]["rules"]:
                for reference in rule["backendRefs"]:
                    if reference["name"] in services:
                        assert reference["port"] in [port["port"] for port in services[reference["name"]]]
        if one["kind"] == "ServiceMonitor":
            assert one["spec"]["endpoints"][0]["port"] == services["tokengate-management"][0]["name"]


# --- what tokengate itself says ---


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: str(path.relative_to(K8S).parent))
def test_every_configuration_in_k8s_is_one_that_the_gateway_reads(path: Path, tmp_path: Path) -> None:
    settings = loaded(path, tmp_path)
    assert settings.management.bind.port == 9090
    assert settings.server.bind.port == 8080
    assert str(settings.tokens.signing_keys) == "/run/keys"


def loaded(path: Path, tmp_path: Path) -> Settings:
    """Load a configuration whose secrets stand in files of the test's own."""
    text = path.read_text()
    for name in re.findall(r'"/run/secrets/tokengate/([\w.-]+)"', text):
        file = tmp_path / name
        file.write_text("a-secret-of-the-tests")
        file.chmod(0o440)
        text = text.replace(f"/run/secrets/tokengate/{name}", str(file))
    copy = tmp_path / "gateway.toml"
    copy.write_text(text)
    return load(copy, {})


def test_the_bases_configuration_differs_from_the_sample_in_these_keys_alone() -> None:
    ours, sample = flat(K8S / "base/gateway.toml"), flat(tools.ROOT / "config/gateway.toml")
    assert {key for key, value in ours.items() if sample.get(key) != value} == {
        "server.drain_delay",
        "management.bind",
        "management.admin_token_file",
        "redis.url",
        "redis.username",
        "redis.password_file",
        "routes.0.upstream",
    }


def flat(path: Path) -> dict[str, Any]:
    def walk(prefix: str, value: Any) -> dict[str, Any]:
        rows = value.items() if isinstance(value, dict) else enumerate(value) if _tables(value) else None
        if rows is None:
            return {prefix: value}
        return {key: leaf for step, below in rows for key, leaf in walk(f"{prefix}.{step}".lstrip("."), below).items()}

    return walk("", tomllib.loads(path.read_text()))


def _tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


@pytest.mark.parametrize("name", KUSTOMIZED)
def test_the_drain_ends_before_kubernetes_kills(name: str, tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(only(rendered(name), "ConfigMap")["data"]["gateway.toml"])
    inner = tmp_path / "files"
    inner.mkdir()
    server = loaded(tmp_path / "gateway.toml", inner).server
    grace = gateway_pod(name)["terminationGracePeriodSeconds"]
    # The kubelet notices an end, and Python leaves, within a few seconds.
    assert 0 < server.drain_delay + server.drain_timeout <= grace - 5


@pytest.mark.parametrize("name", ["base", *(f"overlays/{name}" for name in OVERLAYS)])
def test_the_network_policy_lets_the_gateway_reach_its_redis(name: str) -> None:
    url = tomllib.loads(only(rendered(name), "ConfigMap")["data"]["gateway.toml"])["redis"]["url"]
    egress = only(rendered(name), "NetworkPolicy")["spec"]["egress"]
    outside = {port["port"] for rule in egress for to in rule["to"] if "ipBlock" in to for port in rule["ports"]}
    asked = re.findall(r"([\w.-]+):(\d+)", url.partition("://")[2])
    assert asked
    for host, port in asked:
        if "." in host:
            assert int(port) in outside
        else:
            assert {"to": [{"podSelector": {}}]} in egress


@pytest.mark.parametrize("name", [name for name in RENDERED if name not in ("overlays/dev", UNSCALED)])
def test_a_node_that_is_drained_leaves_a_pod_at_work(name: str) -> None:
    least = only(rendered(name), "HorizontalPodAutoscaler")["spec"]["minReplicas"]
    assert least - only(rendered(name), "PodDisruptionBudget")["spec"]["maxUnavailable"] >= 1
    assert "replicas" not in only(rendered(name), "Deployment")["spec"]


@pytest.mark.parametrize("name", RENDERED)
def test_probes_ask_the_management_listener_and_only_livez_restarts(name: str) -> None:
    container = gateway_pod(name)["containers"][0]
    asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {get["port"] for get in asked.values()} == {"management"}
    assert [get["path"] for get in asked.values()] == ["/livez", "/livez", "/readyz"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"http": 8080, "management": 9090}


@pytest.mark.parametrize("name", RENDERED)
def test_what_the_configuration_names_is_mounted(name: str) -> None:
    config = only(rendered(name), "ConfigMap")["data"]["gateway.toml"]
    mounts = [mount["mountPath"] for mount in gateway_pod(name)["containers"][0]["volumeMounts"]]
    live = "\n".join(line.partition("#")[0] for line in config.splitlines())
    for path in re.findall(r'"(/run/[^"]+)"', live):
        assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path


# --- what belongs together ---


def test_the_chart_as_it_comes_makes_what_the_base_makes() -> None:
    assert without_traces(rendered("chart as it comes")) == without_traces(rendered("base"))


def without_traces(objects: list[Object]) -> dict[tuple[str, str], Any]:
    """Return the objects by kind and name, without what names the tool that made them."""
    found = {}
    for one in objects:
        name = one["metadata"]["name"]
        if one["kind"] == "ConfigMap":
            name = "tokengate-config"
        kept = _without({key: value for key, value in one.items() if key != "metadata"})
        kept["labels"] = _without(one["metadata"]["labels"])
        found[one["kind"], name] = kept
    return found


TRACES = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
    "annotations",
    "imagePullPolicy",
}


def _without(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without(below) for key, below in value.items() if key not in TRACES}
        case list():
            return [_without(below) for below in value]
        case str() if value.startswith("tokengate-config"):
            return "tokengate-config"
    return value


def test_the_charts_configuration_is_the_bases() -> None:
    assert (CHART / "files/gateway.toml").read_bytes() == (K8S / "base/gateway.toml").read_bytes()


def test_helm_finds_nothing_wrong_with_the_chart(tmp_path: Path) -> None:
    (tmp_path / "k8s").symlink_to(K8S)
    said = page.run(page.blocks("Helm")[0], tmp_path)
    assert "0 chart(s) failed" in said
    assert "kind: Deployment" in said


@pytest.mark.parametrize(
    "values",
    [{"replica": 3}, {"image": {"tag": "latest"}}, {"service": {"port": 0}}, {"resources": {"limits": {"cpu": "1"}}}],
    ids=["unknown key", "latest", "port", "no memory limit"],
)
def test_the_chart_refuses_values_that_its_schema_does_not_allow(values: Object) -> None:
    if "resources" in values:
        values = {"resources": {**values["resources"], "requests": {"cpu": "1", "memory": None}}}
    with pytest.raises(subprocess.CalledProcessError) as refused:
        manifests.chart(values)
    assert "values don't meet the specifications of the schema" in refused.value.stderr


def test_the_image_tag_is_the_version_of_the_package() -> None:
    from gateway import __version__

    for name in ("base", "overlays/dev", "overlays/production", "chart as it comes"):
        assert gateway_pod(name)["containers"][0]["image"] == f"tokengate:{__version__}"


def test_alerts_ask_for_metrics_that_the_gateway_has() -> None:
    exported = {f"{name}_total" for name in series.COUNTERS} | set(series.GAUGES)
    exported |= {f"{name}_bucket" for name in series.HISTOGRAMS}
    rules = only(rendered("overlays/production"), "PrometheusRule")["spec"]["groups"][0]["rules"]
    asked = {name for rule in rules for name in re.findall(r"\btokengate_\w+", rule["expr"])}
    assert asked
    assert asked <= exported


def test_the_overlay_and_the_chart_have_the_rules_and_the_dashboard_as_they_are() -> None:
    monitoring = K8S / "monitoring"
    for name in ("overlays/production", "chart with everything"):
        assert only(rendered(name), "PrometheusRule")["spec"] == yaml.safe_load((monitoring / "rules.yaml").read_text())
        board = only(rendered(name), "ConfigMap", "grafana-dashboard-tokengate")
        assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(board["data"]["tokengate.json"]) == json.loads((monitoring / "dashboard.json").read_text())


FORWARD_AUTH = [name for name in COMPONENTS if name.startswith("forward-auth-")]


@pytest.mark.parametrize("name", FORWARD_AUTH)
def test_every_forward_auth_component_copies_every_identity_header(name: str) -> None:
    text = "".join(path.read_text() for path in (K8S / "components" / name).iterdir()).lower()
    assert [header for header in IDENTITY_HEADERS if header.lower() not in text] == []


def test_traefiks_middlewares_are_those_of_the_example_that_is_run() -> None:
    """But for the gateway's address, and a field that older versions refuse."""
    example = yaml.safe_load((tools.ROOT / "config" / "examples" / "traefik" / "tokengate.yaml").read_text())
    middlewares = (one for one in rendered("components/forward-auth-traefik") if one["kind"] == "Middleware")
    made = {one["metadata"]["name"]: one["spec"] for one in middlewares}
    run = example["http"]["middlewares"]
    made["tokengate"]["forwardAuth"].pop("maxResponseBodySize")
    assert made["tokengate"]["forwardAuth"].pop("address").endswith("/auth/verify")
    assert run["tokengate"]["forwardAuth"].pop("address").endswith("/auth/verify")
    assert made == run


def test_traefik_removes_every_way_to_write_an_identity_header() -> None:
    objects = rendered("components/forward-auth-traefik")
    (found,) = (one for one in objects if one["metadata"]["name"] == "no-pretence")
    removed = found["spec"]["headers"]["customRequestHeaders"]
    for header in IDENTITY_HEADERS:
        parts = header.split("-")
        for signs in itertools.product("-_", repeat=len(parts) - 1):
            name = parts[0] + "".join(sign + part for sign, part in zip(signs, parts[1:], strict=True))
            assert removed[name] == "", name


@pytest.mark.parametrize("name", FORWARD_AUTH)
def test_every_forward_auth_component_shuts_8080_to_all_but_the_proxy(name: str) -> None:
    policy = only(rendered(f"components/{name}"), "NetworkPolicy")
    assert policy["spec"]["ingress"][0]["from"]
    variables = {one["name"]: one["value"] for one in gateway_pod(f"components/{name}")["containers"][0]["env"]}
    assert set(variables) == {"TOKENGATE_SERVER__TRUSTED_PROXIES"}


@pytest.mark.parametrize("name", ["forward-auth-traefik", "forward-auth-ingress-nginx", "forward-auth-envoy-gateway"])
def test_clients_reach_all_that_the_gateway_serves_itself_but_verify(name: str) -> None:
    shown = set()
    for one in rendered(f"components/{name}"):
        if one["kind"] == "Ingress" and one["metadata"]["name"] == "shop-sign-in":
            shown |= {path["path"] for rule in one["spec"]["rules"] for path in rule["http"]["paths"]}
        if one["kind"] == "HTTPRoute" and one["metadata"]["name"] == "shop-sign-in":
            matches = (match for rule in one["spec"]["rules"] for match in rule["matches"])
            shown |= {match["path"]["value"] for match in matches}
    served = {path.partition("/{")[0] for path in PUBLIC}
    assert shown == served - {"/auth/verify"}


def test_no_file_names_a_registry_or_another_address_to_download_from() -> None:
    files = [path for path in K8S.rglob("*") if path.is_file()]
    files += [tools.ROOT / "Dockerfile", *(tools.ROOT / "requirements").iterdir()]
    named = re.compile(r"(?:docker|ghcr|quay|gcr|pypi|pythonhosted|github)\.(?:io|com|org)|registry[.\w]*\.\w+/")
    # labels and annotations have names that look like hosts
    found = {path: named.findall(path.read_text()) for path in files}
    assert {path: names for path, names in found.items() if names} == {}
