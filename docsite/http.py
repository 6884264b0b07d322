"""docs/http-reference.md, from the OpenAPI document: each operation with what goes in and what comes out."""

from __future__ import annotations

import json
from typing import Any

from docsite.marks import table
from gateway.api.answers import Table
from gateway.api.management import ADMIN, HEALTH
from gateway.api.openapi import document

Json = dict[str, Any]
Rows = list[tuple[str, ...]]

HEAD = """# HTTP reference

Every operation of the public API: what goes in, what comes out. This page is made by `make docs-generate` from the
document that `tokengate openapi` prints; [HTTP API](http-api.md) has examples, and what the errors mean.
"""
MANAGEMENT = {  # these are in no OpenAPI document
    "GET /livez": "whether the process answers, whatever Redis does",
    "GET /readyz": "whether requests should come here, or what fails",
    "GET /metrics": "what all workers have counted",
    "GET /admin/users/{sub}/sessions": "a user's sessions",
    "DELETE /admin/users/{sub}/sessions": "end all of a user's sessions, or void another issuer's tokens of theirs",
    "DELETE /admin/sessions/{id}": "end one session",
    "POST /admin/revoke": "revoke a token",
    "POST /admin/keys/reload": "read the key directory again",
}
CREDENTIALS = {
    "accessToken": "an access token",
    "refreshCookie": "the refresh cookie",
    "client": "HTTP Basic of an introspection client",
}


def page(_: str = "") -> str:
    """Return the whole page; nothing of it is written by hand."""
    made = document()
    parts = [HEAD, made["info"]["description"], _overview(made)]
    parts += [_operation(made, path, method, one) for path, method, one in operations(made)]
    parts += ["## What is in them", *(_schema(name, schema) for name, schema in made["components"]["schemas"].items())]
    parts.append(_management())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def operations(made: Json) -> list[tuple[str, str, Json]]:
    """Return (path, method, operation); "any method" where all of a path's are alike."""
    found = []
    for path, item in made["paths"].items():
        methods = {method: one for method, one in item.items() if method != "parameters"}
        shared = item.get("parameters", [])
        if len(methods) == 8 and len({one["summary"] for one in methods.values()}) == 1:
            methods = {"any method": methods["get"]}
        for method, one in methods.items():
            found.append((path, method, one | {"parameters": [*shared, *one.get("parameters", [])]}))
    return found


def call(path: str, method: str) -> str:
    return f"any method {path}" if method == "any method" else f"{method.upper()} {path}"


def _overview(made: Json) -> str:
    rows: Rows = [
        (f"[`{call(path, method)}`](#{anchor(path, method)})", one["summary"]) for path, method, one in operations(made)
    ]
    return "## Operations\n\n" + table(("call", ""), rows)


def anchor(path: str, method: str) -> str:
    """Return the anchor of an operation's heading, by the rule of Git hosts and of the site alike."""
    kept = (char for char in call(path, method).lower() if char.isalnum() or char in "-_ ")
    return "".join(kept).replace(" ", "-")


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
    parts.append(
        table(("status", "", "body"), [_answer(made, status, said) for status, said in one["responses"].items()])
    )
    return "\n\n".join(parts)


def _credentials(security: list[Json]) -> str:
    words = [CREDENTIALS[name] for each in security for name in each]
    if not words:
        return "none"
    return " or ".join(words) + (", or none" if {} in security else "")


def _body(body: Json) -> str:
    kinds = " or ".join(f"`{kind}`" for kind in body["content"])
    (schema, *_) = (each["schema"] for each in body["content"].values())
    optional = "" if body["required"] else ", which may be left out"
    return f"Body: {kinds}{optional}.\n\n{_members(schema)}"


def _members(schema: Json) -> str:
    needed = schema.get("required", ())
    rows: Rows = [
        (f"`{name}`", "always" if name in needed else "", _kind(each), each.get("description", ""))
        for name, each in schema["properties"].items()
    ]
    return table(("member", "there", "what it is", ""), rows)


def _answer(made: Json, status: str, said: Json) -> tuple[str, ...]:
    if "$ref" in said:
        name = said["$ref"].rpartition("/")[2]
        said = made["components"]["responses"][name]
    content = [
        _kind(each["schema"]) if kind == "application/json" else f"`{kind}`"
        for kind, each in said.get("content", {}).items()
    ]
    return status, said["description"], ", ".join(content)


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


def _schema(name: str, schema: Json) -> str:
    return f"### {name}\n\n{_members(schema)}"


def _management() -> str:
    rows = [*_calls(HEALTH, ""), *_calls(ADMIN, "the admin token")]
    return (
        "## Management\n\nOn a listener of its own (`management.bind`), and in no OpenAPI document. What goes in and "
        "out: [HTTP API](http-api.md#management).\n\n" + table(("call", "credential", ""), rows)
    )


def _calls(served: Table, credential: str) -> Rows:
    calls = [f"{method} {shown(path)}" for path, methods in served.items() for method in methods]
    return [(f"`{call}`", credential, MANAGEMENT[call]) for call in calls]


def shown(path: str) -> str:
    """Return an address as it is told: without how Starlette reads its parts."""
    return path.replace("{session_id}", "{id}").replace("{subject:path}", "{sub}")
