"""What several test modules share: a served domain, real objects, valid submissions, Debian's tools."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from server.compose import Domain
from server.config import Config
from server.embedded import serving


def configured(directory: Path, *, patients: str = "known") -> Config:
    config = Config()
    return replace(
        config,
        server=replace(config.server, directory=str(directory)),
        registry=replace(config.registry, patients=patients),
    )


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return configured(tmp_path_factory.mktemp("domain"), patients="open")


@pytest.fixture(scope="session")
def domain(config: Config) -> Iterator[Domain]:
    """All actors over real HTTP; any well-formed patient id is taken."""
    with serving(config) as served:
        yield served


@pytest.fixture
def tool() -> object:
    """Finds a program of Debian's; skips where it is missing, except in continuous integration, which installs it."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if path is None:
            reason = f"{name} is not installed (Debian: apt-get install {package})"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        return path

    return find
