"""Destinations that are unknown, refuse, end or are not there, requesters that cancel or go, and files that are lost (PS3.4 C.4.2)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from benchmarks.limits import free_port
from imaging.query_retrieve.answers import Tally
from imaging.query_retrieve.sending import grouped, pieces
from tests.dicomweb import STUDY, ct, read
from tests.dimse import send
from tests.interop.test_serving import until
from tests.query_retrieve import FIND, GET, MOVE, Asked, asked_source, associated, dcmtk, find, identifier
from tests.unit.test_transcode import file

Take = Callable[[evt.Event], int]
SLICES = 12


@pytest.fixture(scope="module")
def destination_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def uids() -> list[str]:
    return [str(read(one).SOPInstanceUID) for one in ct(SLICES)]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, destination_port: int) -> Iterator[Asked]:
    directory = tmp_path_factory.mktemp("faults")
    peers = f"DEST=127.0.0.1:{destination_port}"
    with asked_source(directory, dimse_peers=peers, dimse_message_s=10.0) as one:
        for content in ct(SLICES):
            one.instances.add_bytes(content)
        yield one


@contextmanager
def destination(port: int, take: Take, *syntaxes: str) -> Iterator[None]:
    """A Storage SCP that is called DEST, and takes CT images in these syntaxes."""
    ae = AE("DEST")
    ae.add_supported_context(CTImageStorage, list(syntaxes) or [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])
    try:
        yield
    finally:
        server.shutdown()


def move(asked: Asked, to: str = "DEST", study: str = STUDY) -> list[tuple[Dataset, Dataset | None]]:
    """Every answer."""
    with associated(asked.port, MOVE["study"]) as association:
        asked_for = identifier("STUDY", {"StudyInstanceUID": study})
        return list(association.send_c_move(asked_for, to, MOVE["study"]))


def numbers(status: Dataset) -> tuple[int, int, int, int]:
    """Status, completed, failed, with warnings."""
    return (
        status.Status,
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )


def test_an_unknown_destination_is_refused(asked: Asked) -> None:
    ((status, _),) = move(asked, to="ELSEWHERE")
    assert (status.Status, status.ErrorComment) == (0xA801, "ELSEWHERE is unknown here")


def test_a_destination_that_is_not_there_fails_all(asked: Asked, uids: list[str]) -> None:
    ((status, failed),) = move(asked)
    assert numbers(status) == (0xA702, 0, SLICES, 0)
    assert status.ErrorComment == "no association could be made"
    assert failed is not None and list(failed.FailedSOPInstanceUIDList) == uids


def test_a_destination_that_knows_none_of_the_classes_fails_all(asked: Asked, destination_port: int) -> None:
    ae = AE("DEST")
    ae.add_supported_context("1.2.840.10008.1.1")
    server = ae.start_server(("127.0.0.1", destination_port), block=False)
    try:
        ((status, _),) = move(asked)
    finally:
        server.shutdown()
    assert numbers(status) == (0xA702, 0, SLICES, 0)


def test_what_the_destination_refuses_fails_alone(asked: Asked, destination_port: int, uids: list[str]) -> None:
    refused = {uids[3]: 0xA700, uids[7]: 0x0122, uids[8]: 0xB007}
    with destination(destination_port, lambda event: refused.get(event.request.AffectedSOPInstanceUID, 0)):
        *pending, (status, failed) = move(asked)
    assert numbers(status) == (0xB000, SLICES - 3, 2, 1)
    assert failed is not None and list(failed.FailedSOPInstanceUIDList) == [uids[3], uids[7]]
    assert [one.NumberOfRemainingSuboperations for one, _ in pending] == list(range(SLICES - 1, 0, -1))


def test_a_destination_that_ends_in_the_middle_fails_the_rest(
    asked: Asked, destination_port: int, uids: list[str]
) -> None:
    def take(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == uids[4]:
            event.assoc.abort()
        return 0

    with destination(destination_port, take):
        *_, (status, failed) = move(asked)
    assert numbers(status) == (0xB000, 4, SLICES - 4, 0)
    assert failed is not None and list(failed.FailedSOPInstanceUIDList) == uids[4:]


def test_a_destination_that_says_nothing_is_left(tmp_path: Path, destination_port: int) -> None:
    done = threading.Event()

    def take(event: evt.Event) -> int:
        done.wait(60)
        return 0

    peers = f"DEST=127.0.0.1:{destination_port}"
    with asked_source(tmp_path, dimse_peers=peers, dimse_message_s=1.0) as asked:
        for content in ct(3):
            asked.instances.add_bytes(content)
        with destination(destination_port, take):
            ((status, _),) = move(asked)
            done.set()
    assert numbers(status) == (0xA702, 0, 3, 0)


def test_a_move_ends_when_it_is_cancelled(asked: Asked, destination_port: int) -> None:
    """The numbers say what was done and what was not; the association is as good as before."""
    came, cancelled = threading.Event(), threading.Event()

    def take(event: evt.Event) -> int:
        came.set()
        cancelled.wait(60)
        # Long enough for the server to be told.
        threading.Event().wait(0.2)
        return 0

    with destination(destination_port, take), associated(asked.port, MOVE["study"], FIND["study"]) as association:
        asked_for = identifier("STUDY", {"StudyInstanceUID": STUDY})
        answers = association.send_c_move(asked_for, "DEST", MOVE["study"], msg_id=9)
        came.wait(60)
        association.send_c_cancel(9, query_model=MOVE["study"])
        cancelled.set()
        *_, (status, _) = answers
        assert status.Status == 0xFE00
        assert status.NumberOfRemainingSuboperations + status.NumberOfCompletedSuboperations == SLICES
        assert status.NumberOfRemainingSuboperations > 0
        asked_for = identifier("STUDY", {"PatientID": ""})
        assert [one.Status for one, _ in association.send_c_find(asked_for, FIND["study"])] == [0xFF00, 0]


def test_a_requester_may_wait_for_long(tmp_path: Path, destination_port: int) -> None:
    """Longer than an association may say nothing: its requester has said all there is to say."""

    def take(event: evt.Event) -> int:
        threading.Event().wait(2.0)
        return 0

    with asked_source(tmp_path, dimse_peers=f"DEST=127.0.0.1:{destination_port}", dimse_idle_s=1.0) as asked:
        asked.instances.add_bytes(ct(1)[0])
        with destination(destination_port, take), associated(asked.port, MOVE["study"], FIND["study"]) as association:
            asked_for = identifier("STUDY", {"StudyInstanceUID": STUDY})
            *_, (status, _) = association.send_c_move(asked_for, "DEST", MOVE["study"])
            assert numbers(status) == (0, 1, 0, 0)
            assert [one.Status for one, _ in association.send_c_find(asked_for, FIND["study"])] == [0xFF00, 0]


def test_movescu_cancels(asked: Asked, destination_port: int) -> None:
    def take(event: evt.Event) -> int:
        threading.Event().wait(0.1)
        return 0

    with destination(destination_port, take):
        said = dcmtk(
            *("movescu", "-d", "-S", "-aec", "XDSI", "-aem", "DEST", "--cancel", 2, "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", asked.port),
            check=False,
        )
    assert "0xfe00" in said


def test_a_requester_that_goes_ends_its_move(
    asked: Asked, destination_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    came, gone = [], threading.Event()

    def take(event: evt.Event) -> int:
        came.append(1)
        gone.wait(60)
        threading.Event().wait(0.2)
        return 0

    with destination(destination_port, take), caplog.at_level("INFO", logger="xdsi.imaging"):
        with associated(asked.port, MOVE["study"]) as association:
            association.send_c_move(identifier("STUDY", {"StudyInstanceUID": STUDY}), "DEST", MOVE["study"])
            until(lambda: came)
            association.abort()
        gone.set()
        until(lambda: "a request of 'TESTER' was not answered to its end: it ended the association" in caplog.text)
    assert len(came) < SLICES


def test_a_requester_that_goes_ends_its_get(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    def take(event: evt.Event) -> int:
        event.assoc.abort()
        return 0

    given = {"ext_neg": [build_role(CTImageStorage, scp_role=True)], "evt_handlers": [(evt.EVT_C_STORE, take)]}
    with caplog.at_level("INFO", logger="xdsi.imaging"):
        with associated(asked.port, GET["study"], CTImageStorage, **given) as association:
            # It waits for an answer, though it has ended itself.
            association.dimse_timeout = 1
            list(association.send_c_get(identifier("STUDY", {"StudyInstanceUID": STUDY}), GET["study"]))
        until(lambda: "was not answered to its end" in caplog.text)
    assert find(asked.port, "STUDY", {"PatientID": ""})[0].Status == 0


def test_what_nobody_can_decode_fails_where_it_is_not_taken_as_it_is(tmp_path: Path, destination_port: int) -> None:
    """Video, and a destination that takes no video; an image whose file is damaged."""
    video = read(file("JPEG2000.dcm").read_bytes())
    video.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    video.SOPClassUID, video.StudyInstanceUID = CTImageStorage, STUDY
    video.save_as(tmp_path / "video.dcm")
    with asked_source(tmp_path / "here", dimse_peers=f"DEST=127.0.0.1:{destination_port}") as asked:
        for content in ct(3):
            stored, _ = asked.instances.add_bytes(content)
        stored.path.write_bytes(b"damaged")
        asked.instances.add(tmp_path / "video.dcm")
        with destination(destination_port, lambda event: 0):
            *_, (status, failed) = move(asked)
    assert numbers(status) == (0xB000, 2, 2, 0)
    assert failed is not None
    assert set(failed.FailedSOPInstanceUIDList) == {stored.sop_instance_uid, video.SOPInstanceUID}


def test_what_cannot_be_asked_for_is_refused(asked: Asked) -> None:
    for level, keys, comment in (
        ("STUDY", {}, "StudyInstanceUID is missing at STUDY level"),
        ("STUDY", {"StudyInstanceUID": "1.2.*"}, "StudyInstanceUID must be UIDs, without wildcards"),
        ("IMAGE", {"SOPInstanceUID": "1.2.3"}, "StudyInstanceUID is missing at IMAGE level"),
    ):
        with associated(asked.port, MOVE["study"]) as association:
            ((status, _),) = association.send_c_move(identifier(level, keys), "DEST", MOVE["study"])
        assert (status.Status, status.ErrorComment) == (0xA900, comment)


def test_what_is_not_stored_is_moved_without_fault(asked: Asked) -> None:
    ((status, _),) = move(asked, study="1.2.3")
    assert numbers(status) == (0x0000, 0, 0, 0)


def test_images_are_received_as_before(asked: Asked, tmp_path: Path) -> None:
    """The port takes C-STORE of those who propose no role."""
    path = tmp_path / "one.dcm"
    path.write_bytes(ct(1, study_instance_uid="1.2.3.9", series_instance_uid="1.2.3.9.1")[0])
    assert send(asked.port, path).Status == 0


def test_groups_have_no_more_contexts_than_an_association(asked: Asked) -> None:
    """Three for each SOP class, where one syntax of it is stored that is not plain."""
    (one, *_) = asked.instances.of_study(STUDY)
    many = [replace(one, sop_class_uid=f"1.2.{number}", transfer_syntax_uid="1.2.9") for number in range(100)]
    groups = list(grouped([*many, *many[:2]]))
    assert [(len(group), len(contexts)) for group, contexts in groups] == [(42, 126), (42, 126), (18, 54)]


def test_pieces_are_even_and_the_last_is_known(tmp_path: Path) -> None:
    path = tmp_path / "content"
    for content, expected in (
        (b"12345", [(b"12", False), (b"34", False), (b"5\0", True)]),
        (b"1234", [(b"12", False), (b"34", True)]),
        (b"", [(b"", True)]),
    ):
        path.write_bytes(content)
        with path.open("rb") as stream:
            assert list(pieces(stream, 2)) == expected


def test_a_list_of_failures_is_as_long_as_an_attribute_can_be() -> None:
    tally = Tally(remaining=5000)
    for number in range(5000):
        tally.fail(f"1.2.{number:060d}")
    assert tally.identifier is not None
    assert len("\\".join(tally.identifier.FailedSOPInstanceUIDList)) <= 65_534
    assert (tally.remaining, tally.status) == (0, 0xA702)
