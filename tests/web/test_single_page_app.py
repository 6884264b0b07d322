"""The single-page application of docs/examples.md in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.docs.shell import Shell
from tests.shop import blocks, shop, url
from tests.web.browser import PHONE, overflow, violations
from tests.web.conftest import Visit


@pytest.fixture(scope="module")
def running() -> Iterator[Shell]:
    with shop() as made:
        for block in blocks()[:2]:  # the accounts, the servers
            assert made.run(block) == ""
        yield made


def sign_in(page: Page, password: str = "battery staple") -> None:
    page.get_by_label("User name").fill("bob")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_person_signs_in_sees_the_orders_and_is_told_of_the_end(visitor: Visit, running: Shell) -> None:
    context = visitor(viewport=PHONE)
    page = context.new_page()
    page.goto(url(running))
    assert violations(page) == []
    sign_in(page, "wrong")
    expect(page.get_by_role("status")).to_have_text("The user name or the password is wrong.")
    sign_in(page)
    expect(page.get_by_role("listitem")).to_have_text("a lamp")
    assert violations(page) == []
    assert overflow(page) == 0
    page.reload()
    expect(page.get_by_text("Signed in as bob@example.com")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_a_second_tab_signs_in_and_out_with_the_first(visitor: Visit, running: Shell) -> None:
    context = visitor()
    first, second = context.new_page(), context.new_page()
    for page in (first, second):
        page.goto(url(running))
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    sign_in(first)
    expect(second.get_by_role("listitem")).to_have_text("a lamp")
    second.get_by_role("link", name="My devices").click()
    second.get_by_role("button", name="Sign out", exact=False).first.click()
    expect(second.get_by_role("status")).to_have_text("You are signed out.")
    first.reload()
    expect(first.get_by_role("button", name="Sign in")).to_be_visible()
