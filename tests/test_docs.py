"""The documentation names what the code has: keys and defaults, codes, addresses, the rotation table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from gateway import errors
from gateway.api import PUBLIC
from gateway.api.management import ADMIN, HEALTH
from gateway.settings import Settings
from gateway.settings.load import _model_at, load
from gateway.telemetry import Telemetry
from gateway.tokens import rotation

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
PAGES += sorted((ROOT / "clients").glob("*/README.md"))

UNANSWERED = {errors.Unauthorized.code}  # what no request is answered with
MADE_BY_BENCH = {"benchmarks.json", "benchmarks.svg"}

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def _rows(page: str, heading: str) -> dict[str, list[str]]:
    """Return the table rows under a heading of level two: first cell without its backticks -> the other cells."""
    section = (DOCS / page).read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    cells = (
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    )
    return {row[0].strip("|` "): [cell.strip("| ") for cell in row[1:]] for row in cells}


def _keys() -> Iterator[tuple[str, str, Any]]:
    for table in Settings.model_fields:
        model = _model_at((table,))
        if model is not Settings and issubclass(model, BaseModel):
            for key, field in model.model_fields.items():
                yield table, key, ... if field.is_required() else field.get_default(call_default_factory=True)


KEYS = list(_keys())


def _written(default: Any) -> str:
    match default:
        case _ if default is ...:
            return "*required*"
        case None:
            return "none"
        case bool():
            return f"`{str(default).lower()}`"
        case tuple() | frozenset():
            return f"`{json.dumps(list(default))}`"
        case str() | Path():
            return f'`"{default}"`'
    return f"`{default}`"


def _errors(kind: type[errors.GatewayError] = errors.GatewayError) -> Iterator[type[errors.GatewayError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _errors(below)


@pytest.mark.parametrize(("table", "key", "default"), KEYS, ids=[f"{table}.{key}" for table, key, _ in KEYS])
def test_every_key_of_the_configuration_is_told_with_its_default(table: str, key: str, default: Any) -> None:
    rows = _rows("configuration.md", table)
    assert key in rows
    assert rows[key][0] == _written(default)


def test_every_error_code_is_told_with_its_status() -> None:
    text = (DOCS / "http-api.md").read_text()
    missing = [kind.code for kind in _errors() if f"| {kind.status} | `{kind.code}` |" not in text]
    assert set(missing) <= UNANSWERED


@pytest.mark.parametrize("table", [PUBLIC, HEALTH, ADMIN], ids=["public", "health", "admin"])
def test_every_address_of_the_api_is_told(table: dict[str, dict[str | None, Any]]) -> None:
    text = (DOCS / "http-api.md").read_text()
    for path, methods in table.items():
        shown = path.replace("{session_id}", "{id}").replace("{subject:path}", "{sub}").removesuffix("/{original:path}")
        for method in methods:
            assert f"`{method} {shown}`" in text or (method is None and f"`{shown}`" in text), (method, path)


def test_every_metric_is_told() -> None:
    names = re.findall(r"^# TYPE (\w+)", Telemetry().render().decode(), re.MULTILINE)
    text = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert names
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_the_rotation_table_is_that_of_the_code() -> None:
    table = [line for line in (rotation.__doc__ or "").splitlines() if line.startswith("|")]
    assert len(table) > 5
    assert "\n".join(table) in (DOCS / "rotation.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if "://" in target or target in MADE_BY_BENCH:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


def test_the_configuration_of_the_readme_can_be_used(tmp_path: Path) -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "gateway.toml").write_text(block)
    settings = load(tmp_path / "gateway.toml", {})
    assert [route.path for route in settings.routes] == ["/api/"]
    assert settings.identity.provider == "webhook"
