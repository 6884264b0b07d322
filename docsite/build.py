"""The site: the staged pages, made into HTML by Zensical, which warns of every link and anchor that leads nowhere.

Zensical is what the makers of Material for MkDocs maintain in its place: MkDocs 1 has no more releases, Material gets
fixes alone. It takes one file of settings and Python-Markdown, so the way back to either is short.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from docsite import nav
from docsite.staging import ROOT, Stage

HERE = Path(__file__).parent
SETTINGS = HERE / "zensical.toml"
SECONDS = 120
_PLACE = "nav = []"
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def build(folder: Path) -> Path:
    """Stage and make the site in `folder`; return where it is. Raises SystemExit with what Zensical says is wrong."""
    pages, site = folder / "pages", folder / "site"
    for old in (pages, site):
        shutil.rmtree(old, ignore_errors=True)
    there = Stage(pages).fill()
    shutil.copytree(HERE / "assets", pages / "assets")
    (folder / SETTINGS.name).write_text(_settings(there))
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", SETTINGS.name]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS)
    if made.returncode:
        said = _COLOURS.sub("", made.stdout + made.stderr)
        raise SystemExit(said.partition("Traceback (most recent call last)")[0])
    (site / "404.html").unlink()  # for a server at the root of a host, which knows no other place
    return site


def default() -> Path:
    """Return where `make docs` builds."""
    folder = ROOT / "build" / "docsite"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _settings(there: list[str]) -> str:
    text = SETTINGS.read_text()
    folders = {entry: sorted(page for page in there if page.startswith(f"{entry}/")) for entry in nav.pages()}
    made = nav.toml(set(there), {name: found for name, found in folders.items() if found})
    if text.count(_PLACE) != 1:
        raise ValueError(f"{SETTINGS.name} has no one place for the navigation")
    return text.replace(_PLACE, f"nav = {made}")
