"""Gateways and a Redis for tests that do their fault themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.servers import Store


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()
