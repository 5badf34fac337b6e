"""The tests of the content store and of scrubbing, with the copies in a real Ceph (Debian: see torture/ceph.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from repository.objects import Service
from tests.unit.test_documents import *  # noqa: F403
from tests.unit.test_scrub import *  # noqa: F403
from torture import ceph


@pytest.fixture(scope="module")
def object_storage() -> Iterator[Service]:
    if (absent := ceph.missing()) and not os.environ.get("CI"):
        pytest.skip(f"not installed: {', '.join(absent)}")
    with ceph.serving() as service:
        yield service


@pytest.fixture(params=["objects"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)
