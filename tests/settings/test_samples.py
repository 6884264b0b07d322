"""The files of config/ and the JSON Schema say what the models say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway.settings import Issuer, Route, Settings, load, sample
from gateway.settings.load import _model_at

GATEWAY = sample("gateway.toml")
_TABLES = [name for name in Settings.model_fields if name != "identity_headers"]


def _as_written(default: Any) -> Any:
    if isinstance(default, tuple | frozenset):
        return list(default)
    return str(default) if isinstance(default, Path) else default


def _uncommented() -> dict[str, Any]:
    """Return the production file with every key that stands in a comment taken in too."""
    text = re.sub(r"^# (?=(\[\[)?[a-z_]+(\]\]| = ))", "", GATEWAY.read_text(), flags=re.MULTILINE)
    return tomllib.loads(text)


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document[name]
    table: dict[str, Any] = found[0] if isinstance(found, list) else found
    return table


@pytest.mark.parametrize("name", ["gateway.toml", "demo.toml"])
def test_a_sample_is_a_good_configuration(name: str) -> None:
    load(sample(name), {})


@pytest.mark.parametrize("name", _TABLES)
def test_the_production_file_has_every_key_and_no_other(name: str) -> None:
    document = _uncommented()
    assert set(document) == set(Settings.model_fields)
    assert set(_table(document, name)) == set(_model_at((name,)).model_fields)


@pytest.mark.parametrize("name", _TABLES)
def test_what_the_production_file_says_is_the_default_unless_it_is_an_example(name: str) -> None:
    table = _table(tomllib.loads(GATEWAY.read_text()), name) if name != "issuers" else {}
    lines = GATEWAY.read_text().splitlines()
    examples = {line.split(" = ")[0] for line in lines if "# example" in line}
    fields = _model_at((name,)).model_fields
    for key, written in table.items():
        if key not in examples:
            default = fields[key].get_default(call_default_factory=True)
            assert written == _as_written(default), key


def test_the_identity_headers_of_the_production_file_are_the_default() -> None:
    assert load(GATEWAY, {}).identity_headers == Settings.model_fields["identity_headers"].get_default(
        call_default_factory=True
    )


def _described(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if not field.description]


@pytest.mark.parametrize("model", [*(_model_at((name,)) for name in _TABLES), Route, Issuer])
def test_every_key_says_what_it_is_for(model: type[BaseModel]) -> None:
    assert _described(model) == []


def test_the_schema_takes_what_the_production_file_says() -> None:
    schema = Settings.model_json_schema()
    document = tomllib.loads(GATEWAY.read_text())
    for name in document.keys() - {"identity_headers"}:
        properties = schema["$defs"][_model_at((name,)).__name__]["properties"]
        for key, value in _table(document, name).items():
            pattern = properties[key].get("pattern")
            if pattern is not None:
                assert re.search(pattern, value), f"{name}.{key}"


def test_the_schema_closes_every_table() -> None:
    schema = Settings.model_json_schema()
    assert schema["additionalProperties"] is False
    assert all(definition["additionalProperties"] is False for definition in schema["$defs"].values())


def test_the_schema_shows_defaults_as_they_are_written() -> None:
    tokens = Settings.model_json_schema()["$defs"]["Tokens"]["properties"]
    assert tokens["access_ttl"]["default"] == "10m"
