"""The watched folder: what is taken, what is refused, and what is left alone."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from imaging import schema
from imaging.instances import Instances
from imaging.phantom import write_series
from imaging.receiving.drop_folder import DropFolder, Seen
from server.embedded import serving
from tests.conftest import configured


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Instances]:
    engine = schema.connect(f"sqlite:///{tmp_path / 'imaging.sqlite'}")
    schema.upgrade(engine)
    one = Instances(engine, tmp_path / "imaging")
    yield one
    one.close()


@pytest.fixture
def folder(tmp_path: Path, instances: Instances) -> DropFolder:
    return DropFolder(tmp_path / "drop", instances)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    (tmp_path / "series").mkdir()
    return list(write_series(tmp_path / "series", slices=4, patient_id="P1", patient_name="A^B", rows=32, columns=32))


@pytest.fixture
def drop(tmp_path: Path, folder: DropFolder) -> Path:
    return tmp_path / "drop"


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def uid(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def test_a_file_is_taken_at_the_second_look_and_removed(
    folder: DropFolder, drop: Path, instances: Instances, series: list[Path]
) -> None:
    (drop / "ward" / "today").mkdir(parents=True)
    for path in series:
        shutil.copy(path, drop / "ward" / "today")
    assert folder.look() == Seen(waiting=4)
    assert folder.look() == Seen(added=4)
    assert files(drop) == []
    found = instances.find(map(uid, series))
    assert [found[uid(path)].path.read_bytes() for path in series] == [path.read_bytes() for path in series]
    assert folder.look() == Seen()


def test_a_file_that_still_grows_is_waited_for(
    folder: DropFolder, drop: Path, instances: Instances, series: list[Path]
) -> None:
    content = series[0].read_bytes()
    with (drop / "growing.dcm").open("wb") as growing:
        for piece in (content[:1000], content[1000:1500], content[1500:]):
            growing.write(piece)
            growing.flush()
            assert folder.look() == Seen(waiting=1)
    assert folder.look() == Seen(added=1)
    assert instances.find([uid(series[0])])[uid(series[0])].path.read_bytes() == content


def test_a_file_that_was_replaced_by_one_of_the_same_size_is_waited_for(
    folder: DropFolder, drop: Path, instances: Instances, series: list[Path]
) -> None:
    shutil.copy2(series[0], drop / "one.dcm")
    assert folder.look() == Seen(waiting=1)
    shutil.copy2(series[1], drop / "new")
    os.utime(drop / "new", ns=(0, (drop / "one.dcm").stat().st_mtime_ns))
    (drop / "new").rename(drop / "one.dcm")
    assert folder.look() == Seen(waiting=1)
    assert folder.look() == Seen(added=1)
    assert list(instances.find(map(uid, series))) == [uid(series[1])]


def test_the_same_instance_again_is_removed_and_another_one_of_its_uid_refused(
    folder: DropFolder, drop: Path, instances: Instances, series: list[Path]
) -> None:
    instances.add(series[0])
    shutil.copy(series[0], drop / "again.dcm")
    changed = bytearray(series[0].read_bytes())
    changed[-1] ^= 1
    (drop / "changed.dcm").write_bytes(changed)
    folder.look()
    assert folder.look() == Seen(known=1, refused=1)
    assert files(drop) == ["refused/changed.dcm", "refused/changed.dcm.txt"]
    assert (drop / "refused/changed.dcm").read_bytes() == changed
    assert "is stored with other bytes" in (drop / "refused/changed.dcm.txt").read_text()


def test_what_is_no_dicom_is_refused_with_the_reason_and_no_refused_file_is_lost(
    folder: DropFolder, drop: Path, instances: Instances
) -> None:
    for number in range(3):
        (drop / str(number)).mkdir()
        (drop / str(number) / "scan.txt").write_text(f"no DICOM {number}")
    folder.look()
    assert folder.look() == Seen(refused=3)
    assert folder.look() == folder.look() == Seen()
    texts = sorted((drop / "refused").glob("*.txt.txt"))
    assert sorted(text.read_text() for text in texts) == [
        f"{number}/scan.txt: it is no DICOM file (no DICM prefix after 128 bytes)\n" for number in range(3)
    ]
    assert sorted(text.with_suffix("").read_text() for text in texts) == [f"no DICOM {n}" for n in range(3)]
    assert instances.studies() == []


def test_links_and_what_is_no_file_are_left_alone(
    folder: DropFolder, drop: Path, instances: Instances, series: list[Path], tmp_path: Path
) -> None:
    (drop / "link.dcm").symlink_to(series[0])
    (drop / "elsewhere").symlink_to(tmp_path / "series")
    (drop / "around").symlink_to(drop)
    os.mkfifo(drop / "pipe")
    assert folder.look() == folder.look() == Seen()
    assert instances.studies() == []
    assert all(path.exists() for path in series)


def test_a_folder_that_becomes_a_link_between_look_and_reading_is_not_followed(
    folder: DropFolder, drop: Path, instances: Instances, series: list[Path], tmp_path: Path
) -> None:
    """The descriptor is taken folder by folder."""
    (drop / "ward").symlink_to(tmp_path / "series")
    assert folder._take(drop / "ward" / series[0].name) == ""
    assert instances.studies() == []
    assert series[0].exists()


def test_what_cannot_be_stored_for_want_of_room_stays_and_is_taken_later(
    folder: DropFolder, drop: Path, instances: Instances, series: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(series[0], drop)
    folder.look()
    fsync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert folder.look() == Seen()
    assert files(drop) == [series[0].name]
    monkeypatch.setattr(os, "fsync", fsync)
    assert folder.look() == Seen(added=1)
    assert files(drop) == []


def test_files_that_come_together_share_commits(
    drop: Path, folder: DropFolder, instances: Instances, tmp_path: Path
) -> None:
    """Counted at the writer: what has come in while one group was committed becomes the next one."""
    (tmp_path / "many").mkdir()
    paths = list(write_series(tmp_path / "many", slices=24, patient_id="P1", patient_name="A^B", rows=32, columns=32))
    groups: list[int] = []
    transact = instances._writer._transact
    entered, go_on = threading.Event(), threading.Event()

    def counted(group):  # type: ignore[no-untyped-def]
        groups.append(len(group))
        if not entered.is_set():
            # The first commit takes until all the others wait.
            entered.set()
            go_on.wait(60)
        return transact(group)

    instances._writer._transact = counted
    with_threads = [threading.Thread(target=instances.add, args=(path,)) for path in paths]
    for thread in with_threads:
        thread.start()
    for _ in range(6000):
        if entered.is_set() and groups[0] + len(instances._writer._waiting) == len(paths):
            break
        go_on.wait(0.01)
    go_on.set()
    for thread in with_threads:
        thread.join(60)
    assert (len(groups), sum(groups)) == (2, len(paths))


def test_the_server_takes_what_is_dropped(tmp_path: Path, series: list[Path]) -> None:
    config = configured(tmp_path / "domain")
    config = replace(
        config, imaging=replace(config.imaging, drop_directory=str(tmp_path / "inbox"), drop_interval_s=0.02)
    )
    with serving(config) as domain:
        for path in series:
            shutil.move(path, tmp_path / "inbox")
        waiting = threading.Event()
        for _ in range(3000):
            if not files(tmp_path / "inbox"):
                break
            waiting.wait(0.02)
        (study,) = domain.parts["instances"].studies()
        assert study.instances == 4
