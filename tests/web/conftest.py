"""One browser for the pages' tests, a context for each test, and what they visit.

The browser ends with this package: while it runs, no other event loop can run in its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.clients.backend import echo_backend
from tests.e2e.harness import Gateway, Site, route
from tests.redis_server import RedisServer
from tests.web.browser import chromium, find_chromium, visit
from tests.web.sites import Demo, demo

Visit = Callable[..., BrowserContext]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip("needs chromium on PATH")
    with chromium() as made:
        yield made


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visit]:
    """Make contexts for a test: `visitor(color_scheme="dark")`. What their pages complain of fails the test."""
    with ExitStack() as contexts:

        def make(**options: Any) -> BrowserContext:
            return contexts.enter_context(visit(browser, **options))

        yield make


@pytest.fixture(scope="package")
def demo_site() -> Iterator[Demo]:
    """The demo as it is."""
    with demo() as made:
        yield made


@pytest.fixture(scope="package")
def brief_demo() -> Iterator[Demo]:
    """The demo with tokens that live for 3 seconds."""
    with demo("3s") as made:
        yield made


@pytest.fixture(scope="package")
def account_site(shared_redis: RedisServer) -> Iterator[Gateway]:
    """A gateway on a real Redis, whose users are those of the harness; its page is at `/auth/account`."""
    with (
        echo_backend() as backend,
        Site(shared_redis.url, "web") as site,
        site.serve(routes=[route("/api/", backend.url)]) as made,
    ):
        yield made
