"""What both OpenAPI documents are made of: pieces that the public one and the management one share."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
SECONDS: Json = {"type": "integer", "description": "Unix seconds"}
SECONDS_OR_NEVER: Json = {"type": "integer", "description": "Unix seconds; 0 = never"}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def members(properties: Json, optional: frozenset[str] = frozenset()) -> Json:
    """Return the schema of an object that has all of these, bar the optional ones."""
    return {"type": "object", "required": [p for p in properties if p not in optional], "properties": properties}


def content(text: str, schema: Json) -> Json:
    return {"200": {"description": text, "content": {"application/json": {"schema": schema}}}}


def nothing() -> Json:
    return {"204": {"description": "Done"}}


def error() -> Json:
    """Return the schema of every error."""
    return members({"error": TEXT, "error_description": TEXT}) | {"additionalProperties": False}


def session(**more: Json) -> Json:
    """Return the schema of a session in a list."""
    return members(
        {
            "id": TEXT,
            "device": TEXT,
            "user_agent": TEXT,
            "ip": TEXT,
            "created_at": SECONDS,
            "last_used_at": SECONDS,
            "expires_at": SECONDS_OR_NEVER,
            **more,
        }
    )
