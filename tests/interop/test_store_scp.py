"""Images that come over DIMSE: dcmtk and pynetdicom as the senders (PS3.4 Annex B, IHE RAD-8 and RAD-18)."""

from __future__ import annotations

import importlib.util
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

from imaging.phantom import write_series
from server.embedded import serving
from tests.conftest import configured
from tests.dimse import Source, data_set_bytes, requester, send, send_bytes, source

Tool = Callable[[str, str], str]
QUICK = {**os.environ, "TCP_NODELAY": "1"}

#: One or more of every encoding that pydicom carries an object of: their names say which.
OBJECTS = (
    "CT_small.dcm",
    "ExplVR_BigEnd.dcm",
    "image_dfl.dcm",
    "JPEG-LL.dcm",
    "JPEG-lossy.dcm",
    "JPEG2000.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "color3d_jpeg_baseline.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
    "liver.dcm",
    "reportsi.dcm",
    "rtdose.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
)


def bundled(name: str) -> Path:
    """A file of pydicom's own; nothing is downloaded."""
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"this pydicom does not carry {name}")
    return Path(path)


def heudiconv() -> list[Path]:
    """Real Siemens objects, one of each kind: images, mosaics, structured reports, with private elements."""
    package = importlib.util.find_spec("heudiconv")
    if package is None or package.origin is None:
        pytest.skip("heudiconv, whose test data are real Siemens objects, is not installed")
    found: dict[tuple[str, str], Path] = {}
    for path in sorted((Path(package.origin).parent / "tests/data").rglob("*.dcm")):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        found.setdefault((str(header.get("SOPClassUID")), str(header.get("SeriesDescription"))), path)
    assert found
    return list(found.values())


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Source]:
    with source(tmp_path / "source") as one:
        yield one


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()


def made(folder: Path, slices: int = 3) -> list[Path]:
    folder.mkdir()
    return list(write_series(folder, slices=slices, patient_id="P1", patient_name="A^B", rows=64, columns=64))


def changed(path: Path, **attributes: str | None) -> tuple[bytes, Dataset]:
    """The data set of a file with other attributes, as bytes, and what it was before."""
    dataset = pydicom.dcmread(path)
    before = pydicom.dcmread(path)
    for keyword, value in attributes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    written = io.BytesIO()
    dataset.save_as(written)
    written.seek(0)
    return data_set_bytes_of(written.getvalue()), before


def data_set_bytes_of(content: bytes) -> bytes:
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_echoscu_is_answered_by_the_whole_server(tmp_path: Path, tool: Tool) -> None:
    """C-ECHO (PS3.4 Annex A), the configuration's port, and RAD-69's index behind it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = configured(tmp_path / "domain")
    config = replace(config, imaging=replace(config.imaging, dimse_port=port))
    (path, *_) = made(tmp_path / "series")
    with serving(config) as domain:
        subprocess.run([tool("echoscu", "dcmtk"), "127.0.0.1", str(port)], check=True, timeout=60)
        subprocess.run([tool("storescu", "dcmtk"), "127.0.0.1", str(port), path], check=True, timeout=60, env=QUICK)
        (study,) = domain.parts["instances"].studies()
        assert (study.instances, study.patient_id) == (1, "P1")
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=60):
        pass


def test_others_are_listened_to_only_where_it_is_said_that_nothing_is_secure(tmp_path: Path) -> None:
    toml = f'[server]\ndirectory = "{tmp_path}"\nport = 0\n[imaging]\ndimse_port = 11112\ndimse_host = "0.0.0.0"\n'
    (tmp_path / "x.toml").write_text(toml)
    command = [sys.executable, "-m", "server.cli", "serve", "--config", str(tmp_path / "x.toml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "imaging.dimse_host is '0.0.0.0', which others can reach" in done.stderr


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", OBJECTS)
def test_a_data_set_is_kept_bit_for_bit_in_its_transfer_syntax(listening: Source, name: str) -> None:
    path = bundled(name)
    header = pydicom.dcmread(path, stop_before_pixels=True)
    with path.open("rb") as file:
        file.seek(132)
        has_group_length = file.read(4) == b"\x02\x00\x00\x00"
    assert has_group_length
    status = send(listening.port, path)
    (kept,) = listening.instances.find([header.SOPInstanceUID]).values()
    assert status.Status == 0x0000
    assert data_set_bytes(kept.path) == data_set_bytes(path)
    assert kept.transfer_syntax_uid == header.file_meta.TransferSyntaxUID
    stored = pydicom.dcmread(kept.path, stop_before_pixels=True)
    assert stored.file_meta.SourceApplicationEntityTitle == "TESTER"
    assert stored.file_meta.MediaStorageSOPClassUID == header.SOPClassUID
    assert kept.size == kept.path.stat().st_size
    assert listening.left_over == []


@pytest.mark.filterwarnings("default")
def test_real_objects_of_a_scanner_are_kept_bit_for_bit(listening: Source) -> None:
    for path in heudiconv():
        status = send(listening.port, path)
        uid = pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID
        assert status.Status == 0x0000, (path.name, status)
        assert data_set_bytes(listening.instances.find([uid])[uid].path) == data_set_bytes(path)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("name", "proposing"),
    [
        ("CT_small.dcm", "-xe"),
        ("MR_small_implicit.dcm", "-xi"),
        ("JPEG-LL.dcm", "-xs"),
        ("JPEG2000.dcm", "-xw"),
        ("MR_small_RLE.dcm", "-xr"),
        ("image_dfl.dcm", "-xd"),
    ],
)
def test_what_storescu_sends_in_an_encoding_is_stored_in_it(
    listening: Source, tool: Tool, name: str, proposing: str
) -> None:
    path = bundled(name)
    subprocess.run(
        [tool("storescu", "dcmtk"), proposing, "127.0.0.1", str(listening.port), path],
        check=True,
        timeout=60,
        env=QUICK,
    )
    sent = pydicom.dcmread(path)
    (kept,) = listening.instances.find([sent.SOPInstanceUID]).values()
    received = pydicom.dcmread(kept.path)
    assert received.file_meta.TransferSyntaxUID == sent.file_meta.TransferSyntaxUID
    # dcmtk writes the elements anew, and leaves out what pads the data set.
    for dataset in (received, sent):
        if "DataSetTrailingPadding" in dataset:
            del dataset.DataSetTrailingPadding
    assert received == sent


def test_several_associations_at_once_store_everything(listening: Source, tool: Tool, tmp_path: Path) -> None:
    storescu = tool("storescu", "dcmtk")
    folders = [tmp_path / f"series-{number}" for number in range(4)]
    paths = [path for folder in folders for path in made(folder, slices=12)]

    def sent(folder: Path) -> int:
        return subprocess.run(
            [storescu, "+sd", "127.0.0.1", str(listening.port), folder], timeout=120, env=QUICK
        ).returncode

    with ThreadPoolExecutor(4) as executor:
        assert list(executor.map(sent, folders)) == [0, 0, 0, 0]
    uids = {pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID: path for path in paths}
    found = listening.instances.find(uids)
    assert found.keys() == uids.keys()
    assert all(pydicom.dcmread(found[uid].path) == pydicom.dcmread(path) for uid, path in uids.items())
    assert listening.left_over == []


def test_the_same_instance_from_several_at_once_is_stored_once(listening: Source, tmp_path: Path) -> None:
    """The file meta information differs, by the AE title of the sender; the data set does not."""
    (path, *_) = made(tmp_path / "series")
    with ThreadPoolExecutor(6) as executor:
        answers = list(executor.map(lambda n: send(listening.port, path, ae_title=f"CT{n}"), range(6)))
    assert [answer.Status for answer in answers] == [0] * 6
    assert listening.files == 1


def test_what_was_stored_is_there_after_a_restart_and_may_come_again(tmp_path: Path) -> None:
    (path, *_) = made(tmp_path / "series")
    uid = pydicom.dcmread(path).SOPInstanceUID
    with source(tmp_path / "source") as one:
        assert send(one.port, path).Status == 0
    (tmp_path / "source/imaging/staging/dimse/0123.part").write_bytes(b"of a process that was ended")
    with source(tmp_path / "source") as one:
        assert one.left_over == []
        assert data_set_bytes(one.instances.find([uid])[uid].path) == data_set_bytes(path)
        assert send(one.port, path, ae_title="OTHER").Status == 0
        assert one.files == 1


def test_private_and_unknown_sop_classes_are_stored_unless_that_is_forbidden(tmp_path: Path) -> None:
    (path, *_) = made(tmp_path / "series")
    for sop_class in ("1.3.12.2.1107.5.9.1", "1.2.840.10008.5.1.4.1.1.9999"):
        content, _ = changed(path, SOPClassUID=sop_class, SOPInstanceUID=generate_uid())
        uid = pydicom.dcmread(io.BytesIO(content), force=True).SOPInstanceUID
        sending = {"sop_class": sop_class, "uid": uid, "syntax": ExplicitVRLittleEndian}
        with source(tmp_path / "source", unknown=False) as strict:
            assert send_bytes(strict.port, content, **sending) == Dataset()
            assert strict.files == 0
            assert send(strict.port, path).Status == 0
        with source(tmp_path / "source") as lenient:
            assert send_bytes(lenient.port, content, **sending).Status == 0
            assert data_set_bytes(lenient.instances.find([uid])[uid].path) == content
        (tmp_path / "source").rename(tmp_path / f"source-{uid}")
        (tmp_path / "source").mkdir()


def test_a_service_that_is_not_offered_is_no_storage(listening: Source) -> None:
    """Query/Retrieve and worklist contexts are refused: they are known, and not for C-STORE."""
    for uid in ("1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.31", "1.2.840.10008.1.3.10"):
        association = requester((uid, ExplicitVRLittleEndian)).associate("127.0.0.1", listening.port)
        assert association.accepted_contexts == []
        association.abort()


@pytest.mark.parametrize(
    ("attributes", "command", "status", "comment"),
    [
        ({"StudyInstanceUID": None}, {}, 0xC000, "StudyInstanceUID is missing"),
        ({"SeriesInstanceUID": "1.2.x"}, {}, 0xC000, "SeriesInstanceUID '1.2.x' is no UID"),
        ({"SOPClassUID": None}, {}, 0xC000, "SOPClassUID is missing"),
        ({"SOPClassUID": MRImageStorage}, {}, 0xA900, "SOPClassUID of data set and command differ"),
        ({}, {"uid": "1.2.3.4"}, 0xA900, "SOPInstanceUID of data set and command differ"),
        (
            {},
            {"context_class": MRImageStorage},
            0xA900,
            "the SOP class is not that of the presentation context",
        ),
    ],
    ids=lambda value: "" if isinstance(value, int | str) else "-".join(value),
)
def test_what_is_wrong_is_said_with_status_and_comment(
    listening: Source,
    tmp_path: Path,
    attributes: dict[str, str | None],
    command: dict[str, str],
    status: int,
    comment: str,
) -> None:
    """PS3.4 B.2.3, table B.2-1, and Error Comment (0000,0902)."""
    (path, *_) = made(tmp_path / "series")
    content, before = changed(path, **attributes)
    sending = {"sop_class": CTImageStorage, "uid": before.SOPInstanceUID, "syntax": ExplicitVRLittleEndian, **command}
    answer = send_bytes(listening.port, content, **sending)
    assert (answer.Status, answer.ErrorComment) == (status, comment)
    assert (listening.files, listening.left_over) == (0, [])


@pytest.mark.filterwarnings("ignore")
def test_bytes_that_are_no_data_set_are_refused(listening: Source) -> None:
    sending = {"sop_class": CTImageStorage, "uid": "1.2.3", "syntax": ExplicitVRLittleEndian}
    answer = send_bytes(listening.port, os.urandom(5000), **sending)
    assert answer.Status == 0xC000
    assert answer.ErrorComment
    assert (listening.files, listening.left_over) == (0, [])


def test_a_deflated_bomb_is_refused_before_it_is_inflated(listening: Source) -> None:
    squeezing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(16 * 1024 * 1024)
    bomb = b"".join(squeezing.compress(block) for _ in range(40)) + squeezing.flush()
    sending = {"sop_class": CTImageStorage, "uid": "1.2.3", "syntax": DeflatedExplicitVRLittleEndian}
    answer = send_bytes(listening.port, bomb, **sending)
    assert (answer.Status, answer.ErrorComment) == (0xC000, "it does not inflate to at most 536870912 bytes")


def test_the_same_uid_with_another_data_set_is_refused_and_nothing_changes(listening: Source, tmp_path: Path) -> None:
    (path, *_) = made(tmp_path / "series")
    assert send(listening.port, path).Status == 0
    content, before = changed(path, SeriesDescription="changed")
    sending = {"sop_class": CTImageStorage, "uid": before.SOPInstanceUID}
    answer = send_bytes(listening.port, content, syntax=ExplicitVRLittleEndian, **sending)
    assert (answer.Status, answer.ErrorComment) == (0xC000, "the SOP Instance UID is stored with another data set")
    squeezing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = squeezing.compress(data_set_bytes(path)) + squeezing.flush()
    answer = send_bytes(listening.port, deflated, syntax=DeflatedExplicitVRLittleEndian, **sending)
    assert (answer.Status, answer.ErrorComment) == (0xC000, "the SOP Instance UID is stored in another transfer syntax")
    (kept,) = listening.instances.find([before.SOPInstanceUID]).values()
    assert data_set_bytes(kept.path) == data_set_bytes(path)
    assert (listening.files, listening.left_over) == (1, [])


def test_an_object_beyond_the_limit_is_refused_and_the_next_one_stored(tmp_path: Path) -> None:
    small, big = made(tmp_path / "series")[:2]
    big_content, before = changed(big, ImageComments="x" * 10_000)
    limit = len(data_set_bytes(small)) + 1000
    with source(tmp_path / "source", object_bytes=limit) as one:
        sending = {"sop_class": CTImageStorage, "uid": before.SOPInstanceUID, "syntax": ExplicitVRLittleEndian}
        answer = send_bytes(one.port, big_content, **sending)
        assert answer.Status == 0xA700
        assert answer.ErrorComment == f"the data set is longer than the limit of {limit} bytes"[:64]
        assert send(one.port, small).Status == 0
        # Of one that does not end nobody waits for the end.
        assert send_bytes(one.port, bytes(1024 * 1024), **sending) == Dataset()
        assert (one.files, one.left_over) == (1, [])


def test_a_full_disk_is_out_of_resources(listening: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system says so when the file is made durable; nothing is stored, and the next one is."""
    (path, *_) = made(tmp_path / "series")
    fsync = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = send(listening.port, path)
    assert (answer.Status, answer.ErrorComment) == (0xA700, "No space left on device")
    assert (listening.files, listening.left_over) == (0, [])
    monkeypatch.setattr(os, "fsync", fsync)
    assert send(listening.port, path).Status == 0


def test_only_those_may_call_who_are_named_and_by_the_right_title(tmp_path: Path) -> None:
    """PS3.8 table 9-21: result 1, source 1, reason 3 and 7."""
    (path, *_) = made(tmp_path / "series")
    with source(tmp_path / "source", called="ARCHIVE", calling=frozenset({"CT1", "MR1"})) as one:
        assert send(one.port, path, called="ARCHIVE", ae_title="CT1").Status == 0
        for called, calling, reason in (("ARCHIVE", "CT2", 3), ("OTHER", "CT1", 7)):
            association = requester((CTImageStorage, ExplicitVRLittleEndian), ae_title=calling).associate(
                "127.0.0.1", one.port, ae_title=called
            )
            assert association.is_rejected
            answer = association.acceptor.primitive
            assert answer is not None
            assert (answer.result, answer.result_source, answer.diagnostic) == (1, 1, reason)


def test_an_association_too_many_is_told_to_come_later(tmp_path: Path) -> None:
    """PS3.8 table 9-21: rejected-transient, local-limit-exceeded."""
    asking = requester((CTImageStorage, ExplicitVRLittleEndian))
    with source(tmp_path / "source", associations=2) as one:
        first, second = (asking.associate("127.0.0.1", one.port) for _ in range(2))
        third = asking.associate("127.0.0.1", one.port)
        assert (first.is_established, second.is_established, third.is_rejected) == (True, True, True)
        answer = third.acceptor.primitive
        assert answer is not None
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)
        first.release()
        second.release()


def store_request(port: int, part: bytes) -> socket.socket:
    """A connection on which a C-STORE has begun and stops in its data set."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    sender = requester((CTImageStorage, ExplicitVRLittleEndian))
    association = sender.associate("127.0.0.1", port)
    association.abort()
    connection.sendall(associate_request())
    assert connection.recv(1) == b"\x02"
    command = Dataset()
    command.AffectedSOPClassUID = CTImageStorage
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 1, 1, 0, 1
    command.AffectedSOPInstanceUID = "1.2.3"
    from pynetdicom.dsutils import encode

    encoded = encode(command, True, True)
    assert encoded is not None
    connection.sendall(p_data(3, encoded) + p_data(0, part))
    return connection


def p_data(control: int, content: bytes) -> bytes:
    value = struct.pack(">LBB", len(content) + 2, 1, control) + content
    return struct.pack(">BBL", 4, 0, len(value)) + value


def associate_request() -> bytes:
    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    context = item(
        0x20,
        b"\x01\x00\x00\x00" + item(0x30, CTImageStorage.encode()) + item(0x40, ExplicitVRLittleEndian.encode()),
    )
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4"))
    body = struct.pack(">HH16s16s32x", 1, 0, b"XDSI".ljust(16), b"RAW".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BBL", 1, 0, len(body)) + body


def closed(connection: socket.socket) -> bool:
    """Whether the peer ends the connection; reads until it does."""
    connection.settimeout(60)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def gone(one: Source) -> bool:
    """Waits until nothing is on its way any more."""
    waiting = threading.Event()
    for _ in range(1200):
        if not one.left_over:
            return True
        waiting.wait(0.05)
    return False


def test_a_sender_that_goes_in_the_middle_leaves_nothing(listening: Source) -> None:
    connection = store_request(listening.port, bytes(10_000))
    connection.close()
    assert gone(listening)
    assert listening.files == 0


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">BBL", 1, 0, 0xFFFFFFFF),
        struct.pack(">BBL", 4, 0, 4) + b"\x00\x00\x00\x00",
        associate_request() + struct.pack(">BBL", 4, 0, 0xFFFFFFF0),
        associate_request() + p_data(3, b"\x00\x00\x00\x01\x02\x00\x00\x00\xff\xff"),
        associate_request() + p_data(3, os.urandom(300)),
        associate_request() + p_data(0, b"a data set without a command"),
        associate_request() + b"".join(p_data(1, bytes(16_000)) for _ in range(5)),
        associate_request() + struct.pack(">BBL", 4, 0, 6) + struct.pack(">LBB", 2000, 1, 3),
        associate_request() + struct.pack(">BBL", 4, 0, 5) + struct.pack(">LB", 1, 1),
    ],
    ids=["http", "4-GB-request", "data-first", "4-GB-pdu", "unknown", "noise", "no-command", "long", "short", "empty"],
)
def test_what_is_no_dicom_ends_its_connection_and_no_other(listening: Source, tmp_path: Path, sent: bytes) -> None:
    (path, *_) = made(tmp_path / "series")
    with socket.create_connection(("127.0.0.1", listening.port), timeout=60) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert closed(connection)
    assert send(listening.port, path).Status == 0
    assert listening.left_over == []


def test_a_pdu_that_does_not_come_ends_the_connection(tmp_path: Path) -> None:
    with (
        source(tmp_path / "source", message_s=0.3) as one,
        socket.create_connection(("127.0.0.1", one.port), timeout=60) as connection,
    ):
        connection.sendall(associate_request() + struct.pack(">BBL", 4, 0, 1000))
        assert closed(connection)


def test_closing_ends_associations_and_what_had_come_in_part(tmp_path: Path) -> None:
    with source(tmp_path / "source") as one:
        connection = store_request(one.port, bytes(10_000))
    with connection:
        assert closed(connection)
    assert one.left_over == []
