"""docs/http-reference.md, from the two OpenAPI documents: each operation with what goes in and what comes out."""

from __future__ import annotations

import json
from typing import Any

from docsite.marks import table
from gateway.api.openapi import document
from gateway.api.openapi_management import management

Json = dict[str, Any]
Rows = list[tuple[str, ...]]

HEAD = """# HTTP reference

Every operation: what goes in, what comes out. This page is made by `make docs-generate` from the documents that
`tokengate openapi` and `tokengate openapi --management` print; [HTTP API](http-api.md) has examples, and what errors
mean.
"""
CREDENTIALS = {
    "accessToken": "an access token",
    "refreshCookie": "the refresh cookie",
    "client": "HTTP Basic of an introspection client",
    "adminToken": "an admin token",
}
VERIFIED = 8  # methods of /auth/verify, which answers all of them alike


def page(_: str = "") -> str:
    """Return the whole page; nothing of it is written by hand."""
    public, operators = document(), management()
    parts = [HEAD, *_api("Public", public), *_api("Management", operators), "## What is in them"]
    schemas = {**operators["components"]["schemas"], **public["components"]["schemas"]}
    parts += [f"### {name}\n\n{_members(schema)}" for name, schema in schemas.items()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def operations(made: Json) -> list[tuple[str, str, Json]]:
    """Return (path, method, operation); "any method" where all of a path's are alike."""
    found = []
    for path, item in made["paths"].items():
        methods = {method: one for method, one in item.items() if method != "parameters"}
        shared = item.get("parameters", [])
        if len(methods) == VERIFIED and len({one["summary"] for one in methods.values()}) == 1:
            methods = {"any method": methods["get"]}
        for method, one in methods.items():
            parameters = [_found(made, each) for each in (*shared, *one.get("parameters", []))]
            found.append((path, method, one | {"parameters": parameters}))
    return found


def call(path: str, method: str) -> str:
    """Return an operation as its heading has it."""
    return f"any method {path}" if method == "any method" else f"{method.upper()} {path}"


def anchor(path: str, method: str) -> str:
    """Return the anchor of an operation's heading, by the rule of Git hosts and of the site alike."""
    kept = (char for char in call(path, method).lower() if char.isalnum() or char in "-_ ")
    return "".join(kept).replace(" ", "-")


def _api(title: str, made: Json) -> list[str]:
    known = operations(made)
    rows: Rows = [(f"[`{call(path, method)}`](#{anchor(path, method)})", one["summary"]) for path, method, one in known]
    overview = f"## {title}\n\n{made['info']['description']}\n\n{table(('call', ''), rows)}"
    return [overview, *(_operation(made, path, method, one) for path, method, one in known)]


def _operation(made: Json, path: str, method: str, one: Json) -> str:
    parts = [f"### {call(path, method)}", f"{one['summary']}. Credential: {_credentials(one['security'])}."]
    if one["parameters"]:
        rows: Rows = [
            (f"`{each['name']}`", each["in"], _kind(each["schema"]), each.get("description", ""))
            for each in one["parameters"]
        ]
        parts.append(table(("parameter", "in", "what it is", ""), rows))
    if "requestBody" in one:
        parts.append(_body(one["requestBody"]))
    answers = [_answer(made, status, said) for status, said in one["responses"].items()]
    return "\n\n".join([*parts, table(("status", "", "body"), sorted(answers))])


def _credentials(security: list[Json]) -> str:
    words = [CREDENTIALS[name] for each in security for name in each]
    if not words:
        return "none"
    return " or ".join(words) + (", or none" if {} in security else "")


def _body(body: Json) -> str:
    kinds = " or ".join(f"`{kind}`" for kind in body["content"])
    (schema, *_) = (each["schema"] for each in body["content"].values())
    optional = "" if body["required"] else ", which may be left out"
    either = [_members(each) for each in schema.get("oneOf", [schema])]
    return f"Body: {kinds}{optional}.\n\n" + "\n\nor\n\n".join(either)


def _members(schema: Json) -> str:
    needed = schema.get("required", ())
    rows: Rows = [
        (f"`{name}`", "always" if name in needed else "", _kind(each), each.get("description", ""))
        for name, each in schema["properties"].items()
    ]
    return table(("member", "there", "what it is", ""), rows)


def _answer(made: Json, status: str, said: Json) -> tuple[str, ...]:
    said = _found(made, said)
    content = [
        _kind(each["schema"]) if kind == "application/json" else f"`{kind}`"
        for kind, each in said.get("content", {}).items()
    ]
    return status, said["description"], ", ".join(content)


def _found(made: Json, said: Json) -> Json:
    """Return what a reference leads to; what is none is itself."""
    found = said
    for step in said["$ref"].removeprefix("#/").split("/") if "$ref" in said else ():
        found = (made if found is said else found)[step]
    return found


def _kind(schema: Json) -> str:
    """Return in words what a value is."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[`{name}`](#{name.lower()})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        default = f", by default `{json.dumps(schema['default'])}`" if "default" in schema else ""
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"]) + default
    if "oneOf" in schema:
        return " or ".join(_kind(each) for each in schema["oneOf"])
    return _plain(schema)


def _plain(schema: Json) -> str:
    match schema["type"]:
        case "array":
            return f"list of {_kind(schema['items'])}"
        case "object" if "properties" in schema:
            members = ", ".join(f"`{name}`: {_kind(each)}" for name, each in schema["properties"].items())
            return f"object with {members}"
        case "string" if "maxLength" in schema:
            return f"string, {schema['maxLength']} characters at most"
    return str(schema["type"])
