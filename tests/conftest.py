"""What several test modules share: a served domain, real objects, valid submissions, Debian's tools."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings

from benchmarks import orthanc as real_orthanc
from benchmarks import postgres as real_postgres
from benchmarks import seaweed
from registry.schema import upgrade
from registry.store import open_engine
from repository.objects import Service
from server.compose import Domain
from server.config import Config
from server.embedded import serving

# How long an example takes is no property of ours: machines are busy.
settings.register_profile("xdsi", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("xdsi")


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[real_postgres.Cluster]:
    """A PostgreSQL server of the tests' own. What it has stored need not survive a power failure."""
    with real_postgres.serving(fsync="off", synchronous_commit="off", full_page_writes="off") as cluster:
        yield cluster


@pytest.fixture(scope="session")
def object_storage() -> Iterator[Service]:
    """A real S3-compatible service of the tests' own: SeaweedFS."""
    with seaweed.serving() as service:
        yield service


@pytest.fixture(scope="session")
def pacs() -> Iterator[real_orthanc.Orthanc]:
    """A real PACS of the tests' own: Orthanc with DICOMweb."""
    if real_orthanc.program() is None and not os.environ.get("CI"):
        pytest.skip("Orthanc is not installed (Debian: orthanc, orthanc-dicomweb)")
    with real_orthanc.serving() as served:
        yield served


@pytest.fixture(scope="session")
def new_postgres_database(postgres: real_postgres.Cluster) -> Iterator[Callable[[], str]]:
    """Makes databases with the registry's tables, each empty; gives their URLs."""
    server = sa.create_engine(
        sa.make_url(postgres.url()).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT"
    )
    numbers = itertools.count(1)
    with server.connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE with_tables")
    template = open_engine(postgres.url("with_tables"))
    upgrade(template)
    template.dispose()

    def new() -> str:
        name = f"registry_{next(numbers)}"
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE with_tables")
        return postgres.url(name)

    yield new
    server.dispose()


def _database(kind: str, directory: Path, request: pytest.FixtureRequest) -> str:
    if kind == "sqlite":
        return f"sqlite:///{directory / 'registry.sqlite'}"
    new: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return new()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of a registry, on both kinds."""
    return _database(request.param, tmp_path, request)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def module_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `database`, for all tests of a module together."""
    return _database(request.param, tmp_path_factory.mktemp("database"), request)


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
