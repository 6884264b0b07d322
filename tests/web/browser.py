"""Debian's chromium, driven by Playwright: what a person does with the pages, and what the browser complains of.

    with chromium() as browser, visit(browser) as context:
        context.new_page().goto(url)

Everything that a page of the context complains of (errors, a policy that was violated) fails the with block at its end.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, ViewportSize, expect, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 20_000  # ms for anything to come about on a loaded machine
PHONE: ViewportSize = {"width": 360, "height": 740}
_REFUSALS = re.compile(  # Chromium's line for each request and each WebSocket that is refused
    r"Failed to load resource: the server responded with a status of [45]\d\d|"
    r"Failed to load resource: net::ERR_INTERNET_DISCONNECTED|"  # and where a test has cut the network
    r"WebSocket connection to '[^']*' failed: HTTP Authentication failed"
)
_TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy violated: ${event.effectiveDirective} ${event.blockedURI}`));
"""


def find_chromium() -> str | None:
    return shutil.which("chromium")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run a browser. Until its end this thread can run no other event loop (Playwright's own is running)."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(ARGUMENTS))
        expect.set_options(timeout=PATIENCE)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """Open a context: one person's browser, with cookies of its own. `options` are those of `Browser.new_context`."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE)
    context.add_init_script(_TELL_VIOLATIONS)
    complaints: list[str] = []
    context.on("page", lambda page: _listen(page, complaints))
    try:
        yield context
    finally:
        context.close()
    assert not complaints, complaints


def _listen(page: Page, complaints: list[str]) -> None:
    def heard(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not _REFUSALS.match(message.text):
            complaints.append(f"{message.type}: {message.text}")

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(f"thrown: {error}"))


def violations(page: Page) -> list[str]:
    """Return what axe-core finds wrong with a page, a line each: rule, what it is about, where."""
    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']]}" for each in found]


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    wider: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return wider
