"""Storage Commitment Push Model (PS3.4 Annex J, IHE RAD-10): what was asked, and the report that follows."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context

from imaging.phantom import write_series
from imaging.receiving.storage_commitment import STORAGE_COMMITMENT, Peer
from tests.dimse import Source, send, source

WELL_KNOWN = "1.2.840.10008.1.20.1.1"
TRANSACTION = "1.2.3.4.5"
Reports = queue.Queue[tuple[int, Dataset, bool]]


def reference(sop_class: str, uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
    return item


def asking(*references: Dataset, transaction: str | None = TRANSACTION) -> Dataset:
    asked = Dataset()
    if transaction is not None:
        asked.TransactionUID = transaction
    asked.ReferencedSOPSequence = list(references)
    return asked


def uids(items: object) -> list[str]:
    return [str(item.ReferencedSOPInstanceUID) for item in items]  # type: ignore[attr-defined]


@pytest.fixture
def stored(tmp_path: Path) -> list[Path]:
    (tmp_path / "series").mkdir()
    (tmp_path / "source").mkdir()
    return list(write_series(tmp_path / "series", slices=3, patient_id="P1", patient_name="A^B", rows=32, columns=32))


def of(paths: list[Path]) -> list[str]:
    return [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths]


@pytest.fixture
def listening(tmp_path: Path, stored: list[Path]) -> Iterator[Source]:
    with source(tmp_path / "source") as one:
        for path in stored:
            assert send(one.port, path).Status == 0
        yield one


def reporting(reports: Reports) -> list[tuple[evt.EventType, object]]:
    def reported(event: evt.Event) -> tuple[int, None]:
        reports.put((event.request.EventTypeID, event.event_information, event.assoc.is_acceptor))  # type: ignore[union-attr]
        return 0x0000, None

    return [(evt.EVT_N_EVENT_REPORT, reported)]


@contextmanager
def associated(port: int, reports: Reports, *, ae_title: str = "MODALITY") -> Iterator[Association]:
    """A requester that takes reports on its own association."""
    ae = AE(ae_title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
    ae.add_requested_context(STORAGE_COMMITMENT, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, evt_handlers=reporting(reports))  # type: ignore[arg-type]
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def act(association: Association, asked: Dataset, *, action: int = 1, instance: str = WELL_KNOWN) -> Dataset:
    status, _ = association.send_n_action(asked, action, STORAGE_COMMITMENT, instance)
    return status


def test_what_is_stored_is_committed_to_on_the_association_that_stays_open(
    listening: Source, stored: list[Path]
) -> None:
    reports: Reports = queue.Queue()
    with associated(listening.port, reports) as association:
        asked = asking(*(reference(CTImageStorage, uid) for uid in of(stored)))
        assert act(association, asked).Status == 0x0000
        event_type, content, on_a_new_one = reports.get(timeout=60)
    assert (event_type, on_a_new_one) == (1, False)
    assert content.TransactionUID == TRANSACTION
    assert uids(content.ReferencedSOPSequence) == of(stored)
    assert "FailedSOPSequence" not in content


def test_what_is_not_stored_is_named_with_the_reason(listening: Source, stored: list[Path]) -> None:
    """PS3.4 J.3.3: event type 2; failure reasons 0112H, 0119H and 0110H (PS3.3 C.14)."""
    first, second, third = of(stored)
    damaged = listening.instances.find([third])[third].path
    damaged.write_bytes(damaged.read_bytes()[:-1])
    reports: Reports = queue.Queue()
    with associated(listening.port, reports) as association:
        wanted = [(CTImageStorage, first), (CTImageStorage, "1.2.3"), (MRImageStorage, second), (CTImageStorage, third)]
        assert act(association, asking(*(reference(*one) for one in wanted))).Status == 0x0000
        event_type, content, _ = reports.get(timeout=60)
    assert event_type == 2
    assert uids(content.ReferencedSOPSequence) == [first]
    failed = [(str(one.ReferencedSOPInstanceUID), one.FailureReason) for one in content.FailedSOPSequence]
    assert failed == [("1.2.3", 0x0112), (second, 0x0119), (third, 0x0110)]


def test_a_requester_that_has_gone_gets_the_report_on_an_association_of_ours(
    tmp_path: Path, stored: list[Path]
) -> None:
    """With the roles of PS3.4 J.3.3: who asks for the association is the SCP."""
    reports: Reports = queue.Queue()
    ae = AE("MODALITY")
    server = ae.start_server(
        ("127.0.0.1", 0),
        block=False,
        contexts=[build_context(STORAGE_COMMITMENT)],
        evt_handlers=reporting(reports),  # type: ignore[arg-type]
    )
    assert server is not None
    for context in server.contexts:
        context.scu_role, context.scp_role = True, True
    try:
        peer = Peer(host="127.0.0.1", port=server.server_address[1])
        with source(tmp_path / "source", peers={"MODALITY": peer}) as one:
            assert send(one.port, stored[0]).Status == 0
            with associated(one.port, queue.Queue()) as association:
                asked = asking(reference(CTImageStorage, of(stored)[0]))
                assert act(association, asked).Status == 0x0000
            event_type, content, on_a_new_one = reports.get(timeout=60)
        assert (event_type, on_a_new_one) == (1, True)
        assert uids(content.ReferencedSOPSequence) == of(stored[:1])
    finally:
        server.shutdown()


def test_a_requester_that_nobody_knows_and_has_gone_is_told_in_the_log(
    listening: Source, stored: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with associated(listening.port, queue.Queue(), ae_title="STRANGER") as association:
        assert act(association, asking(reference(CTImageStorage, of(stored)[0]))).Status == 0x0000
    for _ in range(600):
        if "imaging.dimse_peers does not say where 'STRANGER' is" in caplog.text:
            return
        listening.scp._commitment._closing.wait(0.1)
    raise AssertionError(caplog.text)


def test_a_requester_whose_connection_broke_leaves_no_place_taken(
    listening: Source, stored: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Of the reports that may wait: one that cannot be given counts no more."""
    commitment = listening.scp._commitment
    with associated(listening.port, queue.Queue()) as association:
        assert act(association, asking(reference(CTImageStorage, of(stored)[0]))).Status == 0x0000
        association.abort()
    for _ in range(600):
        if commitment._waiting == 0:
            break
        commitment._closing.wait(0.1)
    assert (commitment._waiting, commitment._made) == (0, {})


@pytest.mark.parametrize(
    ("asked", "more", "status", "comment"),
    [
        (asking(reference(CTImageStorage, "1.2")), {"action": 2}, 0x0123, "Action Type 2 is not 1"),
        (
            asking(reference(CTImageStorage, "1.2")),
            {"instance": "1.2.3"},
            0x0112,
            "not the well-known SOP Instance of storage commitment",
        ),
        (
            asking(reference(CTImageStorage, "1.2"), transaction=None),
            {},
            0x0115,
            "Transaction UID (0008,1195) is missing or no UID",
        ),
        (asking(), {}, 0x0115, "Referenced SOP Sequence (0008,1199) is missing or empty"),
        (asking(Dataset()), {}, 0x0115, "a reference has no SOP Class UID or no SOP Instance UID"),
    ],
    ids=["action", "instance", "transaction", "no references", "empty reference"],
)
def test_a_request_that_is_wrong_is_refused_and_gets_no_report(
    listening: Source, stored: list[Path], asked: Dataset, more: dict[str, object], status: int, comment: str
) -> None:
    """PS3.7 10.1.4.1.10. The one after it is answered, and its report is the first."""
    reports: Reports = queue.Queue()
    with associated(listening.port, reports) as association:
        answer = act(association, asked, **more)  # type: ignore[arg-type]
        assert answer.Status == status
        assert answer.ErrorComment == comment
        right = asking(reference(CTImageStorage, of(stored)[0]), transaction="1.2.9")
        assert act(association, right).Status == 0x0000
        assert reports.get(timeout=60)[1].TransactionUID == "1.2.9"
    assert reports.empty()
