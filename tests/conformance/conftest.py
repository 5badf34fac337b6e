"""What the tests of the registry's transactions share: one registry on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.registries import Registry, opened
from registry.store import Store


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    """The store that all tests of a module share; each has patients of its own."""
    made = opened(module_database)
    yield made
    made.close()


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)
