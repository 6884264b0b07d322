"""The tables of docs/configuration.md, from the settings' models: what a key is for stands there, and only there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from docsite.marks import between, table
from gateway.reload import takes
from gateway.settings import Settings
from gateway.settings.environment import PREFIX
from gateway.settings.files import SECRETS
from gateway.settings.load import _model_at

Json = dict[str, Any]

HEAD = ("key", "default", "allowed", "changed by", "")
LISTS = ("routes", "issuers")  # tables of which there may be several


def page(text: str) -> str:
    """Return docs/configuration.md with its tables made anew."""
    for section in Settings.model_fields:
        made = headers() if section == "identity_headers" else keys(section)
        text = between(text, f"keys of {section}", made)
    return between(text, "variables", variables())


def keys(section: str) -> str:
    """Return the table of a section: a row for each key."""
    model = _model_at((section,))
    schema = Settings.model_json_schema()["$defs"][model.__name__]["properties"]
    return table(HEAD, [_row(section, model, key, schema[key]) for key in model.model_fields])


def headers() -> str:
    """Return the table of the identity headers, whose keys are the operator's own."""
    default = Settings.model_fields["identity_headers"].get_default(call_default_factory=True)
    return table(("header", "default"), [(f"`{name}`", f'`"{claim}"`') for name, claim in default.items()])


def variables() -> str:
    """Return which variable stands for which key; 0 is the first of several tables."""
    return table(("variable", "key"), [row for section in Settings.model_fields for row in _variables(section)])


def _variables(section: str) -> list[tuple[str, ...]]:
    if section == "identity_headers":
        names = Settings.model_fields[section].get_default(call_default_factory=True)
    else:
        names = _model_at((section,)).model_fields
    several = "0__" if section in LISTS else ""
    return [
        (f"`{PREFIX}{section.upper()}__{several}{name.upper().replace('-', '_')}`", f"[`{section}.{name}`](#{section})")
        for name in names
    ]


def _row(section: str, model: type[BaseModel], key: str, schema: Json) -> tuple[str, ...]:
    field = model.model_fields[key]
    default = ... if field.is_required() else field.get_default(call_default_factory=True)
    meaning = " ".join((field.description or "").split())
    if (section, key) in SECRETS:
        meaning += f" Better in a file: `{key}_file`."
    return f"`{key}`", written(default), allowed(schema, default), _changed_by(section, key), meaning


def written(default: Any) -> str:
    """Return a default as it is written in the file; ... means that there is none."""
    match default:
        case _ if default is ...:
            return "*required*"
        case None:
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case dict() | tuple() | frozenset():
            return f"`{json.dumps(default if isinstance(default, dict) else list(default))}`"
        case str() | Path():
            return f'`"{default}"`'
    return f"`{default}`"


def allowed(schema: Json, default: Any = None) -> str:
    """Return in words which values a key may have, from its JSON Schema."""
    if "anyOf" in schema:
        return allowed(next(each for each in schema["anyOf"] if each.get("type") != "null"), default)
    if "enum" in schema:
        return " ".join(f'`"{value}"`' for value in schema["enum"])
    match schema["type"]:
        case "boolean":
            return "`true` `false`"
        case "integer":
            return _bounds(schema)
        case "array":
            words = schema["items"].get("enum")
            return "any of the default" if words and set(words) == set(default) else f"list: {allowed(schema['items'])}"
        case "object":
            return "table"
    return "path" if schema.get("format") == "path" else str(schema.get("x-allowed", "text"))


def _bounds(schema: Json) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    return f"{least} to {most}" if most is not None else f"{least} or more"


def _changed_by(section: str, key: str) -> str:
    return "reload" if takes(section, key) else "restart"
