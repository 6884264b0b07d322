"""What an API server would say of an object, by the schemas that it publishes; unknown fields are refused.

Built-in kinds: the wheel kubernetes-validate. Custom ones: their projects' definitions, from `make k8s-tools`. The
rules in those definitions' CEL expressions are not evaluated.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.k8s import tools

_BUILT_IN = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"


class Unknown(LookupError):
    """No schema for this kind in this version."""


def complaints(one: dict[str, Any], version: str) -> list[str]:
    """Return what is wrong with an object for a version of Kubernetes, as in "1.37". Raises Unknown."""
    group, _, rest = one["apiVersion"].rpartition("/")
    if _is_custom(group):
        validator = _custom(group, rest, one["kind"])
    else:
        prefix = f"{group.partition('.')[0]}-" if group else ""
        validator = _built_in(f"{one['kind'].lower()}-{prefix}{rest}", version)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(one)]


def _is_custom(group: str) -> bool:
    return "." in group and (not group.endswith(".k8s.io") or group == "gateway.networking.k8s.io")


@cache
def _built_in(name: str, version: str) -> Draft202012Validator:
    directory = _BUILT_IN / f"v{version}.0-local-strict"
    try:
        schema = json.loads((directory / f"{name}.json").read_text())
    except FileNotFoundError:
        raise Unknown(f"{name} in Kubernetes {version}") from None
    return Draft202012Validator(schema, registry=_definitions(directory))


@cache
def _definitions(directory: Path) -> Registry[Any]:
    found = Resource.from_contents(json.loads((directory / "_definitions.json").read_text()))
    return found @ Registry()


@cache
def _custom(group: str, version: str, kind: str) -> Draft202012Validator:
    for definition in _definitions_of_custom_resources():
        spec = definition["spec"]
        if (spec["group"], spec["names"]["kind"]) != (group, kind):
            continue
        for served in spec["versions"]:
            if served["name"] == version and served["served"]:
                return Draft202012Validator(_strict(served["schema"]["openAPIV3Schema"], root=True))
    raise Unknown(f"{kind} of {group}/{version}")


@cache
def _definitions_of_custom_resources() -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    texts = [path.read_text() for path in sorted(tools.CRDS.iterdir())]
    documents = [one for text in texts for one in yaml.load_all(text, Loader=loader)]
    return [one for one in documents if one and one.get("kind") == "CustomResourceDefinition"]


def _strict(schema: Any, *, root: bool = False) -> Any:
    """Return the schema as JSON Schema: what it does not name is not allowed, as with `kubectl apply --validate`."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {
        key: _strict(value) for key, value in schema.items() if key not in {"properties", "description", "default"}
    }
    if "properties" in schema:
        plain["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        if root:
            plain["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            plain["additionalProperties"] = False
    return plain
