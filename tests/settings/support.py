"""Configurations for the tests of this room."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.settings import Settings, SettingsError, load

Tree = dict[str, Any]

GOOD: Tree = {
    "tokens": {"issuer": "https://api.example.com", "audience": "api"},
    "identity": {"webhook_url": "http://accounts:8080/login"},
}
ROUTE: Tree = {"path": "/api/", "upstream": ["http://orders:8080"]}


def environ(**tables: Any) -> dict[str, str]:
    """Return an environment that says what `tables` say, laid over the least that is needed."""
    tree = dict(GOOD)
    for name, table in tables.items():
        tree[name] = {**tree.get(name, {}), **table} if isinstance(table, dict) else table
    return {f"TOKENGATE_{name.upper()}": json.dumps(table) for name, table in tree.items()}


def loaded(**tables: Any) -> Settings:
    return load(None, environ(**tables))


def refused(variables: Mapping[str, str] | None = None, **tables: Any) -> list[str]:
    """Return the lines with which a configuration is refused."""
    with pytest.raises(SettingsError) as caught:
        load(None, {**environ(**tables), **(variables or {})})
    return caught.value.lines
