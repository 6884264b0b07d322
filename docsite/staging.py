"""The pages as the site has them, in a folder of their own: every link leads to a page of the site.

In the repository links go from file to file, so that they work where the repository is read. Some of those files lie
outside of docs/: README.md, SECURITY.md, CHANGELOG.md and the clients' READMEs become pages; a configuration, a
manifest or a program that is linked becomes a page that shows it, a folder one that shows all its files.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
MOVED = {  # pages that lie elsewhere in the repository
    "README.md": "readme.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "clients/javascript/README.md": "clients/javascript.md",
    "clients/python/README.md": "clients/python.md",
}
LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".js": "js",
    ".html": "html",
    ".lua": "lua",
    ".conf": "nginx",
    ".cfg": "text",
    ".md": "markdown",
    "": "text",
}
LARGEST = 100_000  # characters of a file that is shown

_COMMENT = re.compile(r"<!--.*?-->[ \t]*\n?", re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_CODE = re.compile(r"^( *)(`{3,}).*?^\1\2`*[ \t]*$|(`+)[^`].*?\3", re.MULTILINE | re.DOTALL)


class Broken(ValueError):
    """A link that leads nowhere."""


class Stage:
    """What is put into the folder `to`."""

    def __init__(self, to: Path) -> None:
        self._to = to
        self._shown: dict[str, str] = {}  # path in the repository -> page that shows it

    def fill(self) -> list[str]:
        """Write all pages and what lies beside them; return the pages of docs/ and the moved ones."""
        own = {f"docs/{path.relative_to(DOCS)}": str(path.relative_to(DOCS)) for path in sorted(DOCS.rglob("*.md"))}
        pages = {**own, **MOVED}
        shutil.copytree(DOCS, self._to, ignore=shutil.ignore_patterns("*.md"), dirs_exist_ok=True)
        for source, page in pages.items():
            self._write(page, _outside_code(self._relinked(source, page, pages), (ROOT / source).read_text()))
        for source, page in self._shown.items():
            self._write(page, "".join(_showing(ROOT / source)))
        return list(pages.values())

    def _write(self, page: str, text: str) -> None:
        file = self._to / page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def _relinked(self, source: str, page: str, pages: dict[str, str]) -> Callable[[str], str]:
        def target(link: re.Match[str]) -> str:
            address, _, anchor = link[2].partition("#")
            if "://" in address or address.startswith("mailto:") or not address:
                return link[0]
            found = os.path.normpath(PurePosixPath(source).parent / address)
            leads = self._page(found, pages) if (ROOT / found).exists() else None
            if leads is None:
                raise Broken(f"{source}: {link[2]}")
            way = os.path.relpath(leads, PurePosixPath(page).parent)
            return f"{link[1]}{way}{'#' + anchor if anchor else ''}{link[3]}"

        return lambda text: _LINK.sub(target, _COMMENT.sub("", text))

    def _page(self, found: str, pages: dict[str, str]) -> str | None:
        """Return what of the site shows a file or folder of the repository."""
        for inside in (found, f"{found}/index.md", f"{found}/README.md"):
            if inside in pages:
                return pages[inside]
        if found.startswith("docs/"):
            return found.removeprefix("docs/") if (ROOT / found).is_file() else None
        return self._shown.setdefault(found, f"files/{found}{'/index' if (ROOT / found).is_dir() else ''}.md")


def _outside_code(change: Callable[[str], str], text: str) -> str:
    """Return the text, changed wherever it is not code."""
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[0])
        return f"\0{len(kept) - 1}\0"

    changed = change(_CODE.sub(keep, text))
    return re.sub("\0(\\d+)\0", lambda found: kept[int(found[1])], changed)


def _showing(path: Path) -> Iterator[str]:
    """Return a page that shows a file, or all files of a folder. No search finds it: it is no text to read."""
    name = path.relative_to(ROOT)
    yield f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n"
    for file in sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]:
        if path.is_dir():
            yield f"\n## {file.relative_to(path)}\n"
        yield _fenced(file)


def _fenced(file: Path) -> str:
    try:
        text = file.read_text()
    except UnicodeDecodeError:
        return "\nThis is no text.\n"
    longest = max((len(found) for found in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    end = "" if text.endswith("\n") else "\n"
    return f"\n{fence}{LANGUAGES.get(file.suffix, 'text')}\n{text[:LARGEST]}{end}{fence}\n"
