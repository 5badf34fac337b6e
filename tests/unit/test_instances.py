"""The index of instances on both databases: stored once, also by several at a time, and there after a restart."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from pydicom.data import get_testdata_file

from database.connections import Connection
from imaging import part10, schema
from imaging.instances import DifferentInstance, InstanceError, Instances
from imaging.phantom import write_series
from imaging.receiving.ingest import load


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'imaging.sqlite'}"
    new: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return without_tables(new())


def without_tables(given: str) -> str:
    """What other actors have in a database is no concern of ours."""
    engine = sa.create_engine(sa.make_url(given).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE")
        connection.exec_driver_sql("CREATE SCHEMA public")
    engine.dispose()
    return given


@contextmanager
def opened(url: str, directory: Path) -> Iterator[Instances]:
    engine = schema.connect(url)
    schema.upgrade(engine)
    instances = Instances(engine, directory / "imaging")
    try:
        yield instances
    finally:
        instances.close()


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    (tmp_path / "series").mkdir()
    return list(write_series(tmp_path / "series", slices=20, patient_id="P1", patient_name="A^B", rows=32, columns=32))


def files(directory: Path) -> int:
    return sum(1 for path in (directory / "imaging").rglob("*") if path.is_file())


def test_what_is_stored_is_there_when_the_database_is_opened_again(
    url: str, tmp_path: Path, series: list[Path]
) -> None:
    with opened(url, tmp_path) as instances:
        report = load(series, instances=instances)
        assert (len(report.added), report.known, report.refused) == (20, (), ())
    with opened(url, tmp_path) as instances:
        again = load(series, instances=instances)
        assert again.added == ()
        # In the order of the files, whichever thread stored them.
        assert again.known == report.added
        assert [one.path.read_bytes() for one in again.known] == [path.read_bytes() for path in series]
    assert files(tmp_path) == 20


def test_a_file_and_its_name_are_on_disk_before_its_row_is_written(
    url: str, tmp_path: Path, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", noted)
    with opened(url, tmp_path) as instances:
        before: list[list[Path]] = []
        run = Connection.run

        def inserted(self: Connection, statement: Any, parameters: Any) -> int:
            before.append(list(synced))
            return run(self, statement, parameters)

        monkeypatch.setattr(Connection, "run", inserted)
        stored, _ = instances.add(series[0])
        # Of its study, its series, what is told of it, and itself.
        assert before == [before[0]] * 4
        file, *names = before[0]
        assert file == stored.path
        assert {*names} == {stored.path.parent, stored.path.parent.parent}


def test_of_different_data_sets_at_once_one_is_stored_and_the_others_refused(
    url: str, tmp_path: Path, series: list[Path]
) -> None:
    contents = []
    for number in range(8):
        content = bytearray(series[0].read_bytes())
        content[-1] = number
        contents.append(bytes(content))

    with opened(url, tmp_path) as instances:

        def add(content: bytes) -> bool:
            try:
                return instances.add_bytes(content)[1]
            except DifferentInstance:
                return False

        with ThreadPoolExecutor(8) as executor:
            stored = list(executor.map(add, contents))
        ((kept,),) = [instances.of_study(study.study_instance_uid) for study in instances.studies()]
        assert stored.count(True) == 1
        assert kept.path.read_bytes() == contents[stored.index(True)]
    assert files(tmp_path) == 1


def test_the_same_data_set_with_another_file_meta_information_is_the_same_instance(
    url: str, tmp_path: Path, series: list[Path]
) -> None:
    content = series[0].read_bytes()
    with series[0].open("rb") as file:
        offset = part10.data_set_offset(file)
    with opened(url, tmp_path) as instances:
        stored, _ = instances.add(series[0])
        header = part10.header(
            sop_class_uid=stored.sop_class_uid,
            sop_instance_uid=stored.sop_instance_uid,
            transfer_syntax_uid=stored.transfer_syntax_uid,
            source="OTHER",
        )
        assert header != content[:offset]
        assert instances.add_bytes(header + content[offset:]) == (stored, False)
    assert files(tmp_path) == 1


@pytest.mark.parametrize("group_length", [True, False])
def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path: Path, group_length: bool) -> None:
    """However it comes: 640 MiB of nothing, in less than a megabyte; with and without the length of its own header."""
    whole = Path(str(get_testdata_file("image_dfl.dcm", download=False))).read_bytes()
    head = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    if not group_length:
        head = head[:132] + head[144:]
    squeezing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(16 * 1024 * 1024)
    body = b"".join(squeezing.compress(block) for _ in range(40)) + squeezing.flush()
    (tmp_path / "bomb.dcm").write_bytes(head + body)
    with opened(f"sqlite:///{tmp_path / 'imaging.sqlite'}", tmp_path) as instances:
        with pytest.raises(InstanceError, match=r"^it does not inflate to at most 536870912 bytes$"):
            instances.add(tmp_path / "bomb.dcm")
        assert instances.studies() == []
