"""Gateways of each setting for the run, and a Redis of its own for a test that does its fault itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.servers import Store
from tests.chaos.world import LENIENT, WAITING, World, world


@pytest.fixture(scope="package")
def plain() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture(scope="package")
def waiting() -> Iterator[World]:
    """Gateways whose revocations wait for a replica."""
    with world(WAITING) as made:
        yield made


@pytest.fixture(scope="package")
def lenient() -> Iterator[World]:
    """Gateways that let recent tokens pass an outage."""
    with world(LENIENT) as made:
        yield made


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()
