"""A browser that keeps no cookies: its user has forbidden them for all sites."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext

from tests.web.browser import ARGUMENTS, PATIENCE, find_chromium

_BLOCK = 2  # Chromium's number for it
_PREFERENCES = {"profile": {"default_content_setting_values": {"cookies": _BLOCK}, "cookie_controls_mode": 1}}


@contextmanager
def without_cookies(browser: Browser) -> Iterator[BrowserContext]:
    """Run a second browser of the same kind, with that setting."""
    with tempfile.TemporaryDirectory(prefix="tg-browser-", ignore_cleanup_errors=True) as directory:
        profile = Path(directory) / "Default"
        profile.mkdir()
        (profile / "Preferences").write_text(json.dumps(_PREFERENCES))
        context = browser.browser_type.launch_persistent_context(
            directory, executable_path=find_chromium(), args=list(ARGUMENTS)
        )
        context.set_default_timeout(PATIENCE)
        try:
            yield context
        finally:
            context.close()
