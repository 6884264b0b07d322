"""docs/ as a site: it is built strictly, has every page in its navigation, and needs no network, not even to search."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from docsite import build, nav, staging
from docsite.staging import Broken, Stage
from tests.web.browser import PHONE, chromium, find_chromium, overflow, visit

pytestmark = pytest.mark.timeout(180)  # a browser on a machine that may be busy
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "link": "href"}
_FETCHED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build.build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("needs chromium on PATH")
    with chromium() as made:
        yield made


class Loads(HTMLParser):
    """What a page has a browser fetch, and what it links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = {name: value or "" for name, value in attrs}
        self.ids |= {said["id"]} if "id" in said else set()
        fetched = tag != "link" or _FETCHED_LINKS & set(said.get("rel", "").split())
        if tag in _LOADS and fetched:
            self.found.append(said.get(_LOADS[tag], ""))
        if tag == "a":
            self.links.append(said.get("href", ""))


def html(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


# --- what is in it ---


def test_every_page_of_the_documentation_is_in_the_site(site: Path) -> None:
    pages = [str(path.relative_to(staging.DOCS)) for path in staging.DOCS.rglob("*.md")]
    missing = [page for page in [*pages, *staging.MOVED.values()] if not (site / page).with_suffix(".html").exists()]
    assert missing == []


def test_every_page_is_in_the_navigation_once_and_what_the_navigation_names_is_there() -> None:
    pages = [str(path.relative_to(staging.DOCS)) for path in staging.DOCS.rglob("*.md")] + [*staging.MOVED.values()]
    named = list(nav.pages())
    assert len(named) == len(set(named))
    assert [page for page in pages if page not in named and not page.startswith("decisions/")] == []
    assert set(named) - set(pages) == {"decisions"}


def test_the_list_of_decisions_has_each_with_its_heading() -> None:
    folder = staging.DOCS / "decisions"
    told = dict(re.findall(r"^- \[(.*)\]\((.*)\)$", (folder / "index.md").read_text(), re.MULTILINE))
    pages = sorted(path for path in folder.glob("*.md") if path.name != "index.md")
    assert list(told.values()) == [path.name for path in pages]
    assert list(told) == [path.read_text().partition("\n")[0].removeprefix("# ") for path in pages]


def test_a_comment_is_not_shown(site: Path) -> None:
    text = (site / "kubernetes.html").read_text()
    assert "not run: it needs a cluster" not in text
    assert "port-forward" in text


# --- links ---


def test_every_link_leads_to_a_page_of_the_site_and_a_place_on_it(site: Path) -> None:
    read = {path: Loads(path.read_text()) for path in html(site)}
    for page, seen in read.items():
        for link in seen.links:
            address, _, anchor = link.partition("#")
            if "://" in address or address.startswith("mailto:"):
                continue
            target = (page.parent / address).resolve() if address else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.relative_to(site)}: {link}"
            if anchor and target in read:
                assert anchor in read[target].ids, f"{page.relative_to(site)}: {link}"


def test_a_file_that_is_no_page_is_shown(site: Path) -> None:
    assert "trusted_proxies" in (site / "files" / "config" / "gateway.toml.html").read_text()
    shown = (site / "files" / "k8s" / "index.html").read_text()
    assert "kustomization.yaml" in shown
    assert 'href="files/config/gateway.toml.html"' in (site / "configuration.html").read_text().replace("./", "")


def _copy(monkeypatch: pytest.MonkeyPatch, directory: Path, text: str) -> Path:
    """Have pages staged from a small copy, whose one page has this text."""
    docs = directory / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(text)
    monkeypatch.setattr(staging, "ROOT", directory)
    monkeypatch.setattr(staging, "DOCS", docs)
    monkeypatch.setattr(staging, "MOVED", {})
    return directory / "made"


def test_a_link_that_leads_nowhere_stops_the_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    to = _copy(monkeypatch, tmp_path, "[gone](../gone.toml)\n")
    with pytest.raises(Broken, match=r"docs/index\.md: \.\./gone\.toml"):
        Stage(to).fill()


def test_an_anchor_that_leads_nowhere_stops_the_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _copy(monkeypatch, tmp_path, "# One\n\n[gone](#two)\n")
    with pytest.raises(SystemExit, match="anchor does not exist"):
        build.build(tmp_path)


def test_code_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = 1\n")
    code = "`[x](../a.toml)`\n\n```md\n<!-- kept -->\n[x](../a.toml)\n```\n\n[x](../a.toml) <!-- gone -->\n"
    to = _copy(monkeypatch, tmp_path, code)
    Stage(to).fill()
    assert (to / "index.md").read_text() == code.replace(" <!-- gone -->\n", " ").replace(
        "[x](../a.toml) ", "[x](files/a.toml.md) "
    )
    assert "```toml\na = 1\n```" in (to / "files" / "a.toml.md").read_text()


# --- without a network ---


def test_no_page_and_no_style_names_anything_that_a_browser_would_fetch_from_elsewhere(site: Path) -> None:
    for page in html(site):
        found = Loads(page.read_text()).found
        assert [address for address in found if re.match(r"(?:https?:)?//", address)] == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", style.read_text()) == [], style


def _followed(page: Page) -> list[str]:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    return asked


def test_no_page_asks_for_anything_that_is_not_a_file_of_the_site(site: Path, browser: Browser) -> None:
    with visit(browser) as context:
        page = context.new_page()
        asked = _followed(page)
        for path in sorted(site.glob("*.html")):
            page.goto(path.as_uri())
    assert len(asked) > 50
    assert {url for url in asked if not url.startswith((site.as_uri(), "data:", "blob:", "about:"))} == set()


def test_the_search_finds_without_a_network(site: Path, browser: Browser) -> None:
    with visit(browser, offline=True) as context:
        page = context.new_page()
        page.goto((site / "operations" / "failures.html").as_uri())
        page.get_by_role("button", name="Search").first.click()
        words = page.get_by_role("combobox", name="Search")
        words.press_sequentially("sentinel_password_file")
        expect(page.get_by_role("option", name="redis").first).to_have_attribute(
            "href", re.compile("configuration.html")
        )
        expect(words).to_have_value("sentinel_password_file")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_can_be_read_on_a_phone(scheme: str, site: Path, browser: Browser) -> None:
    with visit(browser, viewport=PHONE, color_scheme=scheme) as context:
        page = context.new_page()
        for name in ("index", "quickstart", "configuration", "rotation", "http-reference"):
            page.goto((site / f"{name}.html").as_uri())
            assert overflow(page) <= 0, name
