"""What of docs/ is made from the code is as the code is now; `make docs-generate` makes it so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from docsite import configuration, http, rotation
from docsite.generated import DOCS, made
from docsite.marks import between
from docsite.metrics import metrics
from gateway.api import PUBLIC
from gateway.api.management import ADMIN, HEALTH
from gateway.api.openapi import document
from gateway.api.openapi_management import management
from gateway.reload import merge, takes
from gateway.settings import Settings, load, sample
from gateway.settings.environment import overlay
from gateway.settings.files import SECRETS
from gateway.settings.models import IDENTITY_HEADERS
from gateway.telemetry import Telemetry
from gateway.tokens.rotation import Outcome

MADE = made()


@pytest.mark.parametrize("path", MADE, ids=lambda path: str(path.relative_to(DOCS)))
def test_what_is_committed_is_what_the_code_makes(path: Path) -> None:
    assert path.exists(), "run make docs-generate"
    assert path.read_text() == MADE[path], "run make docs-generate"


def test_a_place_that_is_made_is_there_once_and_ends() -> None:
    assert between("a\n<!-- x -->\nold\n<!-- /x -->\nb\n", "x", "new") == "a\n<!-- x -->\nnew\n<!-- /x -->\nb\n"
    for text in ("", "<!-- x -->\n", "<!-- /x -->\n<!-- x -->\n", "<!-- x -->\n<!-- /x -->\n<!-- x -->\n<!-- /x -->\n"):
        with pytest.raises(ValueError, match="x"):
            between(text, "x", "new")


# --- configuration ---


@pytest.mark.parametrize(("section", "key"), SECRETS, ids=".".join)
def test_a_secret_names_the_file_that_may_hold_it(section: str, key: str) -> None:
    (row,) = (line for line in configuration.keys(section).splitlines() if line.startswith(f"| `{key}` |"))
    assert f"`{key}_file`" in row


@pytest.mark.parametrize(
    ("section", "key", "words"),
    [
        ("server", "workers", "1 to 256"),
        ("server", "max_connections", "1 or more"),
        ("redis", "wait_replicas", "0 to 100"),
        ("redis", "timeout", "duration, 1ms to 1d"),
        ("redis", "on_outage", '`"deny"` `"allow-recent"`'),
        ("tokens", "signing_keys", "path"),
        ("server", "trusted_proxies", "list: network (CIDR)"),
        ("cookies", "allow_same_site", "`true` `false`"),
        ("identity", "webhook_url", "`http(s)://` URL"),
        ("introspection", "clients", "table"),
        ("server", "overload_after", "duration"),
        ("server", "max_header_bytes", "size, 1KiB to 1MiB"),
        ("routes", "upstream", "list: `http(s)://host:port`"),
        ("issuers", "algorithms", "any of the default"),
        ("redis", "username", "text"),
    ],
)
def test_a_key_says_which_values_it_may_have(section: str, key: str, words: str) -> None:
    (row,) = (line for line in configuration.keys(section).splitlines() if line.startswith(f"| `{key}` |"))
    assert row.split(" | ")[2] == words


def test_no_value_is_told_in_words_of_the_program() -> None:
    for section in set(Settings.model_fields) - {"identity_headers"}:
        assert not re.search(r"\bNone\b|\bnull\b|SecretStr|\bint\b", configuration.keys(section))


def test_a_key_is_changed_by_a_reload_where_a_reload_takes_it_up() -> None:
    old = load(sample("gateway.toml"), {})
    for section, key, value in (
        ("limits", "login_per_user", 7),
        ("tokens", "access_ttl", 77.0),
        ("server", "workers", 3),
    ):
        changed = getattr(old, section).model_copy(update={key: value})
        _, left = merge(old, old.model_copy(update={section: changed}))
        assert (left == []) is takes(section, key)
        assert f"| {'reload' if left == [] else 'restart'} |" in next(
            line for line in configuration.keys(section).splitlines() if line.startswith(f"| `{key}` |")
        )


def test_each_variable_that_is_named_sets_its_key() -> None:
    rows = [line.strip("| ").split(" | ") for line in configuration.variables().splitlines()[2:]]
    assert len(rows) > 90
    for variable, key in rows:
        section, name = re.findall(r"`(\w+)\.([\w-]+)`", key)[0]
        tree = {"identity_headers": dict(IDENTITY_HEADERS)}
        (found,) = overlay(tree, {variable.strip("`"): "x"})
        assert (found[0], found[-1]) == (section, name)


def test_the_bounds_of_numbers_are_in_the_schema() -> None:
    schema = Settings.model_json_schema()["$defs"]
    assert schema["Server"]["properties"]["workers"] | {"description": ""} == {
        "default": 1,
        "description": "",
        "maximum": 256,
        "minimum": 1,
        "title": "Workers",
        "type": "integer",
    }


# --- HTTP ---

OPERATIONS = [*http.operations(document()), *http.operations(management())]


def test_every_operation_of_the_documents_has_a_place_of_its_own() -> None:
    text = (DOCS / "http-reference.md").read_text()
    for path, method, one in OPERATIONS:
        assert text.count(f"\n### {http.call(path, method)}\n\n{one['summary']}.") == 1
        assert f"](#{http.anchor(path, method)})" in text


@pytest.mark.parametrize("table", [PUBLIC, HEALTH, ADMIN], ids=["public", "health", "admin"])
def test_every_path_that_is_served_is_told(table: Mapping[str, Mapping[str | None, object]]) -> None:
    told = {(path, method.upper()) for path, method, _ in OPERATIONS}
    for path, methods in table.items():
        for method in methods:
            assert (path.replace(":path}", "}"), method or "ANY METHOD") in told


# --- metrics ---


def test_every_metric_has_a_row_with_its_type_and_labels() -> None:
    types = re.findall(r"^# TYPE (\w+) (\w+)", Telemetry().render().decode(), re.MULTILINE)
    rows = {line.split("`")[1]: line for line in metrics().splitlines()[2:]}
    assert {(name, row.split(" | ")[1]) for name, row in rows.items()} == set(types)


# --- the picture of the rotation ---


def test_every_state_and_outcome_of_the_table_is_drawn() -> None:
    steps = rotation.steps()
    assert {step.before for step in steps} == set(rotation.BOXES) == {"fresh", "grace", "over", "none"}
    drawn = {step.outcome for step in steps} | rotation.expired()
    assert drawn - {""} == set(Outcome)
    assert {(step.before, step.after) for step in steps} == set(rotation.LINES)


def test_the_picture_says_what_presenting_a_token_does() -> None:
    found = {(step.before, step.event): (step.outcome, step.after) for step in rotation.steps()}
    for before in ("fresh", "grace", "over"):
        assert found[before, "n = c"] == ("rotated", "fresh")
        assert found[before, "n < c - 1"] == found[before, "n > c"] == ("reuse", "none")
    assert found["fresh", "n = c - 1"] == ("replayed", "fresh")
    assert found["grace", "n = c - 1"] == ("replayed", "grace")
    assert found["over", "n = c - 1"] == ("reuse", "none")
    assert found["fresh", "an access token|of c is seen"] == ("", "grace")
    assert found["grace", "the grace passes"] == ("", "over")
    assert found["none", "any n"] == ("unknown", "none")


def test_the_picture_is_an_svg_with_words_for_those_who_cannot_see_it() -> None:
    root = ET.fromstring(rotation.picture())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "successor unused (no token of c was seen), n = c: rotated, successor unused" in root.attrib["aria-label"]
    assert "prefers-color-scheme:dark" in rotation.STYLE
