"""What of docs/ is made, and by whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docsite import configuration, http, rotation
from docsite.marks import between
from docsite.metrics import PLACE, metrics

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MADE: dict[str, Callable[[str], str]] = {
    "configuration.md": configuration.page,
    "http-reference.md": http.page,
    "images/rotation.svg": rotation.picture,
}


def made() -> dict[Path, str]:
    """Return what each file that is made, or has a part that is, must say."""
    found = {
        DOCS / name: make((DOCS / name).read_text() if (DOCS / name).exists() else "") for name, make in MADE.items()
    }
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text()
        if f"<!-- {PLACE} -->" in text:
            found[page] = between(text, PLACE, metrics())
    return found


def write() -> list[Path]:
    """Write what differs; return those files."""
    changed = {path: text for path, text in made().items() if not path.exists() or path.read_text() != text}
    for path, text in changed.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(changed)
