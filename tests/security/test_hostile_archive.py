"""A PACS behind the source that answers what no PACS should: a small one of the tests' own, for no real one does."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from benchmarks.limits import free_port
from imaging.archive import ArchiveError, Fetched, Search
from imaging.archive.dimse import DimseArchive
from tests.archives import CALLING, Pacs, dimse_archive
from tests.dicomweb import SERIES, STUDY, ct, read
from tests.dimse import send_bytes

FIND, MOVE, GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
IMAGES = [read(content) for content in ct(3)]
UIDS = [str(image.SOPInstanceUID) for image in IMAGES]
Answers = Callable[[evt.Event], Iterator[Any]]


def found(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
    """C-FIND as it should be."""
    for image in IMAGES:
        match = Dataset()
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality"):
            setattr(match, keyword, image[keyword].value)
        yield 0xFF00, match


def changed(**values: Any) -> Dataset:
    """The first image, and in it something else."""
    image = copy.deepcopy(IMAGES[0])
    for keyword, value in values.items():
        setattr(image, keyword, value)
    return image


@contextmanager
def answering(
    directory: Path, *, find: Answers = found, get: Answers | None = None, **settings: float
) -> Iterator[DimseArchive]:
    """An archive before a PACS whose handlers these are."""
    ae = AE("PACS")
    ae.add_supported_context(FIND)
    ae.add_supported_context(GET)
    ae.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    handlers = [(evt.EVT_C_FIND, find), *([(evt.EVT_C_GET, get)] if get else [])]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        pacs = Pacs("hostile", "PACS", server.server_address[1], 0)
        yield dimse_archive(pacs, directory, **{"timeout_s": 10.0, **settings})  # type: ignore[arg-type]
    finally:
        server.shutdown()


def outcomes(archive: DimseArchive) -> list[Fetched | ArchiveError | None]:
    came = archive.fetch(STUDY, SERIES, UIDS)
    return [came.get(uid) for uid in UIDS]


def sending(*images: Dataset, count: int | None = None) -> Answers:
    def get(event: evt.Event) -> Iterator[Any]:
        yield len(images) if count is None else count
        for image in images:
            yield 0xFF00, image

    return get


def said(archive: DimseArchive) -> list[str]:
    return [str(one) if isinstance(one, ArchiveError) else "came" for one in outcomes(archive)]


def test_another_instance_than_was_asked_for_is_not_taken(tmp_path: Path) -> None:
    others = [changed(SOPInstanceUID=f"1.2.3.{number}") for number in range(2)]
    with answering(tmp_path, get=sending(*others, IMAGES[1])) as archive:
        first, second, third = said(archive)
    assert second == "came"
    assert "did not come" in first and "instances came that were not asked for" in first
    assert "did not come" in third
    assert list(tmp_path.iterdir()) == []


def test_an_instance_of_another_study_under_the_uid_is_an_error(tmp_path: Path) -> None:
    with answering(tmp_path, get=sending(changed(StudyInstanceUID="1.2.3.4"), *IMAGES[1:])) as archive:
        first, *others = said(archive)
    assert "another instance came" in first
    assert others == ["came", "came"]
    assert list(tmp_path.iterdir()) == []


def test_instances_without_end_end_the_association(tmp_path: Path) -> None:
    others = [changed(SOPInstanceUID=f"1.2.3.{number}") for number in range(200)]
    with answering(tmp_path, get=sending(*others, *IMAGES)) as archive:
        assert all("did not come: C-GET: it did not answer, or ended the association" in one for one in said(archive))
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_without_end_is_not_kept(tmp_path: Path) -> None:
    endless = changed(PixelData=bytes(1_000_000))
    with answering(tmp_path, get=sending(endless), max_bytes=50_000) as archive:
        assert all("did not come" in one for one in said(archive))
    longer = changed(PixelData=bytes(60_000))
    with answering(tmp_path, get=sending(longer, *IMAGES[1:]), max_bytes=50_000) as archive:
        first, *others = said(archive)
    assert "longer than the limit of 50000 bytes" in first
    assert others == ["came", "came"]
    assert list(tmp_path.iterdir()) == []


def test_a_success_without_instances_is_none(tmp_path: Path) -> None:
    with answering(tmp_path, get=sending(count=0)) as archive:
        assert all("did not come: C-GET: status 0000" in one for one in said(archive))
    with answering(tmp_path, get=sending(IMAGES[0], count=3)) as archive:
        assert [one == "came" for one in said(archive)] == [True, False, False]


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (0xA701, "matches cannot be counted"),
        (0xA702, "sub-operations cannot be performed"),
        (0xA801, "move destination unknown"),
        (0xA900, "identifier does not match the SOP class"),
        (0xC123, "unable to process"),
        (0x0124, "not authorised"),
    ],
)
def test_a_failure_has_its_status_and_what_it_means(status: int, meaning: str, tmp_path: Path) -> None:
    def get(event: evt.Event) -> Iterator[Any]:
        yield 1
        yield status, None

    def find(event: evt.Event) -> Iterator[Any]:
        yield status, None

    with answering(tmp_path, get=get) as archive:
        assert all(f"{status:04X} (" in one and f"{meaning})" in one for one in said(archive))
    with answering(tmp_path, find=find) as archive, pytest.raises(ArchiveError, match=f"IMAGE level.*{status:04X}"):
        archive.fetch(STUDY, SERIES, UIDS)


def test_what_came_before_the_association_broke_is_good(tmp_path: Path) -> None:
    def get(event: evt.Event) -> Iterator[Any]:
        yield 3
        yield 0xFF00, IMAGES[0]
        event.assoc.abort()

    with answering(tmp_path, get=get) as archive:
        assert [one == "came" for one in said(archive)] == [True, False, False]
    assert list(tmp_path.iterdir()) == []


def test_silence_ends(tmp_path: Path) -> None:
    """It is waited as long as `timeout_s` says."""

    over = threading.Event()

    def silent(event: evt.Event) -> Iterator[Any]:
        over.wait(60)
        yield 0xFE00, None

    with answering(tmp_path, find=silent, timeout_s=1.0) as archive:
        with pytest.raises(ArchiveError, match="did not answer"):
            archive.fetch(STUDY, SERIES, UIDS)
        over.set()


def test_an_archive_that_leaves_in_the_midst_of_a_search_is_an_error(tmp_path: Path) -> None:
    """Between the study and its series."""

    def find(event: evt.Event) -> Iterator[Any]:
        yield from found(event)
        if event.identifier.QueryRetrieveLevel == "STUDY":
            event.assoc.abort()

    with answering(tmp_path, find=find) as archive, pytest.raises(ArchiveError, match="PACS@127"):
        archive.search(Search(level="instance", keys={"StudyInstanceUID": STUDY}, most=10))


def test_an_archive_that_offers_no_retrieval_is_an_error_for_each_instance(tmp_path: Path) -> None:
    ae = AE("PACS")
    ae.add_supported_context(FIND)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, found)])
    try:
        archive = dimse_archive(Pacs("finding", "PACS", server.server_address[1], 0), tmp_path, timeout_s=10.0)
        assert all("did not come: PACS@127.0.0.1" in one for one in said(archive))
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    "values",
    [{"StudyInstanceUID": "1.2.3"}, {"SOPInstanceUID": "../../etc/passwd"}, {"SOPInstanceUID": ""}],
    ids=lambda values: " ".join(values.values()) or "empty",
)
def test_a_match_that_belongs_elsewhere_is_an_error(values: dict[str, str], tmp_path: Path) -> None:
    def find(event: evt.Event) -> Iterator[Any]:
        for status, match in found(event):
            assert match is not None
            for keyword, value in values.items():
                match.add_new(keyword, "LO", value)
            yield status, match

    with answering(tmp_path, find=find) as archive, pytest.raises(ArchiveError, match="a match of"):
        archive.search(Search(level="instance", keys={"StudyInstanceUID": STUDY}, most=10))


def test_matches_without_end_are_cancelled(tmp_path: Path) -> None:
    """C-CANCEL is sent, and the rest passed over."""
    seen: list[bool] = []

    def find(event: evt.Event) -> Iterator[Any]:
        for number in range(1_000_000):
            if event.is_cancelled:
                seen.append(True)
                yield 0xFE00, None
                return
            match = Dataset()
            match.StudyInstanceUID = f"1.2.3.{number}"
            yield 0xFF00, match

    with answering(tmp_path, find=find) as archive:
        assert len(archive.search(Search(level="study", keys={}, most=5)).found) == 5
    assert seen == [True]


def test_only_the_archive_delivers_what_is_moved(tmp_path: Path) -> None:
    """Somebody else is refused, and what is of another move is not taken."""
    move_port = free_port()
    statuses = []

    def move(event: evt.Event) -> Iterator[Any]:
        image = IMAGES[0]
        given: dict[str, Any] = {
            "sop_class": image.SOPClassUID,
            "uid": UIDS[0],
            "syntax": image.file_meta.TransferSyntaxUID,
        }
        content = ct(3)[0]
        for calling, called in (("STRANGER", CALLING), ("PACS", "OTHER"), ("PACS", CALLING)):
            given["uid"] = "1.2.3" if (calling, called) == ("PACS", CALLING) else UIDS[0]
            answer = send_bytes(move_port, content, called=called, ae_title=calling, **given)
            statuses.append(answer.get("Status"))
        yield "127.0.0.1", move_port, {"ae_title": CALLING}
        yield 3
        for image in IMAGES:
            yield 0xFF00, image

    ae = AE("PACS")
    ae.add_supported_context(FIND)
    ae.add_supported_context(MOVE)
    ae.add_requested_context(CTImageStorage)
    server = ae.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, found), (evt.EVT_C_MOVE, move)]
    )
    try:
        pacs = Pacs("hostile", "PACS", server.server_address[1], move_port)
        archive = dimse_archive(pacs, tmp_path, "move", timeout_s=10.0)
        assert said(archive) == ["came", "came", "came"]
    finally:
        server.shutdown()
    # Two had no association; the third was answered with a failure.
    assert statuses[:2] == [None, None]
    assert statuses[2] == 0xC000
    assert [path.name for path in tmp_path.iterdir()] == ["move.lock"]
