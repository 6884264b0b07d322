"""python -m tests.web.screenshots: the pictures of the pages in docs/images. Takes about a minute.

The demo's page is taken after a token has expired before its eyes; the account page with four devices.
"""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from playwright.sync_api import BrowserContext, Page, expect

from tests.web.browser import chromium, visit
from tests.web.sites import Demo, demo

FOLDER = Path(__file__).parents[2] / "docs" / "images"
SIZE = {"width": 1280, "height": 940}
NARROW = {"width": 640, "height": 860}
_CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
_DEVICES = (
    ("", "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 Version/19.1 Safari/604.1"),
    ("", "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:150.0) Gecko/20100101 Firefox/150.0"),
    ("Nightly export", "python-requests/2.32"),
)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with demo() as site, chromium() as browser:
        for device, user_agent in _DEVICES:
            _sign_in(site, device, user_agent)
        with visit(browser, viewport=NARROW, user_agent=_CHROME) as context:
            _take(_account_page(context, site), "account", full_page=True)
        with visit(browser, viewport=SIZE, user_agent=_CHROME) as context:
            _take(_demo_page(context, site), "demo")


def _demo_page(context: BrowserContext, site: Demo) -> Page:
    page = context.new_page()
    page.goto(site.url)
    page.get_by_role("radio", name="Wait until it expires").check()
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#live-state")).to_have_text("Open.")
    page.get_by_role("button", name="Call /api/hello").click()
    expect(page.locator("#life-text")).to_have_text("expired", timeout=60_000)
    page.wait_for_timeout(1000)  # the gateway counts in whole seconds
    page.get_by_role("button", name="Call /api/hello").click()
    expect(page.locator("#timeline li")).to_have_count(7)
    page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
    expect(page.locator("#life-text")).to_contain_text("23 of 30 s")
    return page


def _account_page(context: BrowserContext, site: Demo) -> Page:
    page = context.new_page()
    page.goto(f"{site.url}/auth/account")
    page.get_by_label("User name").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Your devices")).to_be_visible()
    return page


def _sign_in(site: Demo, device: str, user_agent: str) -> None:
    content = {"username": "demo", "password": "demo", "device": device}
    request = urllib.request.Request(
        f"{site.url}/auth/login",
        json.dumps(content).encode(),
        {"Content-Type": "application/json", "User-Agent": user_agent},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200


def _take(page: Page, name: str, *, full_page: bool = False) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.screenshot(path=FOLDER / f"{name}-{scheme}.png", full_page=full_page)


if __name__ == "__main__":
    main()
