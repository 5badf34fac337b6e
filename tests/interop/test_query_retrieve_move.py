"""C-MOVE and C-GET of what is stored (PS3.4 C.4.2, C.4.3, IHE RAD-16): dcmtk, pynetdicom, Orthanc and this program at the other end."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

from benchmarks import orthanc
from benchmarks.limits import free_port
from tests.dicomweb import SERIES, STUDY, ct, read, rejection_note
from tests.dimse import data_set_bytes, send, source
from tests.interop.test_serving import served, until
from tests.query_retrieve import GET, MOVE, Asked, asked_source, associated, dcmtk, identifier
from tests.unit.test_transcode import file

#: Of each encoding one: their names say which.
SAMPLES = (
    *("CT_small.dcm", "MR_small_implicit.dcm", "image_dfl.dcm", "JPEG2000.dcm", "SC_rgb_rle.dcm", "JPEG-lossy.dcm"),
    *("ExplVR_BigEnd.dcm", "reportsi.dcm"),
)


@pytest.fixture(scope="module")
def destination_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, destination_port: int) -> Iterator[Asked]:
    peers = f"DEST=127.0.0.1:{destination_port},NOBODY=127.0.0.1:{free_port()}"
    with asked_source(tmp_path_factory.mktemp("move"), dimse_peers=peers) as one:
        for name in SAMPLES:
            one.instances.add(file(name))
        # Its File Meta Information does not say how long it is.
        plan = file("rtplan.dcm").read_bytes()
        one.instances.add_bytes(plan[:132] + plan[144:])
        for content in ct(3):
            one.instances.add_bytes(content)
        for content in ct(2, series_instance_uid=f"{STUDY}.2", series_number=2):
            one.instances.add_bytes(content)
        yield one


def studies(names: Sequence[str] = SAMPLES) -> list[str]:
    return sorted({str(pydicom.dcmread(file(name), force=True).StudyInstanceUID) for name in names})


def by_uid(paths: Sequence[Path]) -> dict[str, Path]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True, force=True).SOPInstanceUID): path for path in paths}


def of_even_length(path: Path) -> bytes:
    """The deflated sample lacks the zero that makes its length even (PS3.5 A.5)."""
    content = data_set_bytes(path)
    assert len(content) % 2 == (path.name == "image_dfl.dcm")
    return content + b"\0" * (len(content) % 2)


@contextmanager
def storescp(directory: Path, port: int, *options: str) -> Iterator[Path]:
    """dcmtk's receiver, which writes what comes as it comes, and the directory in which it does."""
    directory.mkdir()
    with (directory / "log").open("w") as log:
        command = ["storescp", "-v", "+B", "-aet", "DEST", "-od", str(directory), *options, str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: listens(port))
        yield directory
    finally:
        process.terminate()
        process.wait(timeout=60)


def listens(port: int) -> bool:
    return "Association Accepted" in dcmtk("echoscu", "-v", "-aec", "DEST", "127.0.0.1", port, check=False)


def move(asked: Asked, *keys: str, to: str = "DEST", check: bool = True) -> str:
    options = [part for key in keys for part in ("-k", key)]
    return dcmtk(*("movescu", "-d", "-S", "-aec", "XDSI", "-aem", to, *options, "127.0.0.1", asked.port), check=check)


def test_every_encoding_comes_byte_for_byte(asked: Asked, destination_port: int, tmp_path: Path) -> None:
    """Our own Storage SCP takes each as it is."""
    (tmp_path / "there").mkdir()
    with source(tmp_path / "there", port=destination_port, ae_title="DEST") as there:
        move(asked, "QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + "\\".join(studies()))
        stored = there.instances.find(by_uid([file(name) for name in SAMPLES]))
        for uid, path in by_uid([file(name) for name in SAMPLES]).items():
            here = asked.instances.find([uid])[uid]
            assert stored[uid].transfer_syntax_uid == here.transfer_syntax_uid
            assert data_set_bytes(stored[uid].path) == of_even_length(path), path


def test_storescp_takes_them_byte_for_byte(asked: Asked, destination_port: int, tmp_path: Path) -> None:
    with storescp(tmp_path / "there", destination_port, "+xa") as there:
        move(asked, "QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + "\\".join(studies()))
        came = by_uid([path for path in there.iterdir() if path.name != "log"])
    wanted = by_uid([file(name) for name in SAMPLES])
    assert came.keys() == wanted.keys()
    for uid, path in wanted.items():
        assert data_set_bytes(came[uid]) == of_even_length(path), path


def test_a_file_whose_header_does_not_say_its_length_is_sent(
    asked: Asked, destination_port: int, tmp_path: Path
) -> None:
    with storescp(tmp_path / "there", destination_port) as there:
        move(asked, "QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + "\\".join(studies(["rtplan.dcm"])))
        (came,) = by_uid([path for path in there.iterdir() if path.name != "log"]).values()
        assert data_set_bytes(came) == data_set_bytes(file("rtplan.dcm"))


@pytest.mark.parametrize(
    ("name", "option", "syntax"),
    [
        ("JPEG2000.dcm", "+xi", ImplicitVRLittleEndian),
        ("SC_rgb_rle.dcm", "+xe", ExplicitVRLittleEndian),
        ("image_dfl.dcm", "+xi", ImplicitVRLittleEndian),
        ("ExplVR_BigEnd.dcm", "+xi", ImplicitVRLittleEndian),
    ],
)
def test_what_is_not_taken_as_it_is_stored_is_re_encoded(
    asked: Asked, destination_port: int, tmp_path: Path, name: str, option: str, syntax: str
) -> None:
    with storescp(tmp_path / "there", destination_port, option) as there:
        move(asked, "QueryRetrieveLevel=STUDY", "StudyInstanceUID=" + "\\".join(studies([name])))
        came = by_uid([path for path in there.iterdir() if path.name != "log"])
    for uid, path in by_uid([file(name)]).items():
        dataset, wanted = pydicom.dcmread(came[uid]), pydicom.dcmread(path)
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert np.array_equal(dataset.pixel_array, wanted.pixel_array)


@pytest.mark.parametrize(
    ("keys", "count"),
    [
        (["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}"], 5),
        (["QueryRetrieveLevel=SERIES", f"StudyInstanceUID={STUDY}", f"SeriesInstanceUID={SERIES}"], 3),
        (["QueryRetrieveLevel=SERIES", f"StudyInstanceUID={STUDY}", f"SeriesInstanceUID={SERIES}\\{STUDY}.2"], 5),
        (["QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.3", f"SeriesInstanceUID={SERIES}"], 0),
    ],
    ids=str,
)
def test_studies_and_series_are_moved_with_their_numbers(
    asked: Asked, destination_port: int, tmp_path: Path, keys: list[str], count: int
) -> None:
    with storescp(tmp_path / "there", destination_port) as there:
        said = move(asked, *keys)
        assert len(list(there.iterdir())) - 1 == count
    last = said[said.index("Received Final Move Response") :]
    assert "DIMSE Status" in last and "0x0000" in last
    assert f"Completed Suboperations       : {count}" in last
    assert "Failed Suboperations          : 0" in last


def test_each_image_says_who_asked_for_it_and_how(asked: Asked, destination_port: int) -> None:
    """PS3.7 9.1.1.1.3, 9.1.1.1.4; at IMAGE level, with a list of UIDs, by both roots."""
    came = []

    def take(event: evt.Event) -> int:
        request = event.request
        came.append((request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID))
        return 0xB000

    uids = [str(read(content).SOPInstanceUID) for content in ct(3)[:2]]
    for root in ("study", "patient"):
        keys = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SOPInstanceUID": "\\".join(uids)}
        asked_for = identifier("IMAGE", keys | ({"PatientID": "MRN7"} if root == "patient" else {}))
        with taking(destination_port, take), associated(asked.port, MOVE[root]) as association:
            statuses = [one for one, _ in association.send_c_move(asked_for, "DEST", MOVE[root], msg_id=4711)]
        assert [one.Status for one in statuses] == [0xFF00, 0xB000]
        assert (statuses[0].NumberOfRemainingSuboperations, statuses[0].NumberOfWarningSuboperations) == (1, 1)
        assert "NumberOfRemainingSuboperations" not in statuses[1]
        assert statuses[1].NumberOfWarningSuboperations == 2
        assert came == [("TESTER", 4711)] * 2
        came.clear()


@contextmanager
def taking(port: int, take: object) -> Iterator[None]:
    """A Storage SCP that is called DEST, and takes CT images."""
    ae = AE("DEST")
    ae.add_supported_context(pydicom.uid.CTImageStorage)
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, take)])  # type: ignore[list-item]
    try:
        yield
    finally:
        server.shutdown()


def test_a_large_image_is_never_in_memory(tmp_path: Path, destination_port: int) -> None:
    mebibyte = 1024 * 1024
    large = read(ct(1)[0])
    large.NumberOfFrames, large.Rows, large.Columns = 32, 1024, 1024
    large.PixelData = bytes(64 * mebibyte)
    large.save_as(tmp_path / "large.dcm")
    with asked_source(tmp_path / "here", dimse_peers=f"DEST=127.0.0.1:{destination_port}") as asked:
        asked.instances.add(tmp_path / "large.dcm")
        tracemalloc.start()
        try:
            with storescp(tmp_path / "there", destination_port):
                move(asked, "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
            dcmtk(
                *("getscu", "-S", "-aec", "XDSI", "+B", "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY"),
                *("-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", asked.port),
            )
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    came = [path for path in (*tmp_path.iterdir(), *(tmp_path / "there").iterdir()) if "2.25." in path.name]
    assert [data_set_bytes(path) == data_set_bytes(tmp_path / "large.dcm") for path in came] == [True, True]
    assert peak < 12 * mebibyte


def test_patients_are_moved_whole(asked: Asked, destination_port: int, tmp_path: Path) -> None:
    with storescp(tmp_path / "there", destination_port) as there:
        dcmtk(
            *("movescu", "-P", "-aec", "XDSI", "-aem", "DEST", "-k", "QueryRetrieveLevel=PATIENT"),
            *("-k", "PatientID=MRN7", "127.0.0.1", asked.port),
        )
        assert len(list(there.iterdir())) - 1 == 5


@pytest.mark.parametrize(
    ("name", "option"), [("JPEG2000.dcm", "+xw"), ("SC_rgb_rle.dcm", "+xr"), ("CT_small.dcm", "+xe")]
)
def test_getscu_gets_them_byte_for_byte(asked: Asked, tmp_path: Path, name: str, option: str) -> None:
    (wanted,) = by_uid([file(name)]).items()
    dcmtk(
        *("getscu", "-S", "-aec", "XDSI", "+B", option, "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={studies([name])[0]}", "127.0.0.1", asked.port),
    )
    came = by_uid(list(tmp_path.iterdir()))
    assert data_set_bytes(came[wanted[0]]) == data_set_bytes(wanted[1])


def test_getscu_gets_what_it_can_read(asked: Asked, tmp_path: Path) -> None:
    """Nothing compressed is proposed."""
    dcmtk(
        *("getscu", "-S", "-aec", "XDSI", "-xi", "-od", tmp_path, "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={studies(['JPEG2000.dcm'])[0]}", "127.0.0.1", asked.port),
    )
    (uid,) = by_uid([file("JPEG2000.dcm")])
    came = pydicom.dcmread(by_uid(list(tmp_path.iterdir()))[uid])
    assert came.file_meta.TransferSyntaxUID in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    assert np.array_equal(came.pixel_array, pydicom.dcmread(file("JPEG2000.dcm")).pixel_array)


def test_an_image_that_the_requester_has_no_context_for_fails_alone(asked: Asked) -> None:
    """The others come; the identifier of the last answer says which did not."""
    names = ["CT_small.dcm", "SC_rgb_rle.dcm"]
    asked_for = identifier("STUDY", {"StudyInstanceUID": "\\".join(studies(names))})
    came: list[str] = []

    def take(event: evt.Event) -> int:
        came.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    uids = list(by_uid([file(one) for one in names]))
    given = {"ext_neg": [role(pydicom.uid.CTImageStorage)], "evt_handlers": [(evt.EVT_C_STORE, take)]}
    with associated(asked.port, GET["study"], pydicom.uid.CTImageStorage, **given) as association:
        *_, (status, failed) = association.send_c_get(asked_for, GET["study"])
    assert (status.Status, status.NumberOfCompletedSuboperations, status.NumberOfFailedSuboperations) == (0xB000, 1, 1)
    assert failed is not None and failed.FailedSOPInstanceUIDList == uids[1]
    assert came == uids[:1]


def role(sop_class: str) -> object:
    return build_role(sop_class, scp_role=True)  # type: ignore[arg-type]


def test_what_is_rejected_is_not_sent(tmp_path: Path, destination_port: int) -> None:
    with asked_source(tmp_path / "here", dimse_peers=f"DEST=127.0.0.1:{destination_port}") as asked:
        images = ct(3)
        for one in images:
            asked.instances.add_bytes(one)
        note = asked.instances.add_bytes(rejection_note([read(images[1])]))[0]
        with storescp(tmp_path / "there", destination_port) as there:
            move(asked, "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
            came = set(by_uid([path for path in there.iterdir() if path.name != "log"]))
    expected = {str(read(images[number]).SOPInstanceUID) for number in (0, 2)}
    assert came == expected | {note.sop_instance_uid}


def test_orthanc_sends_to_us_what_movescu_asks_it_for(tmp_path: Path) -> None:
    """A real archive as the source, our Storage SCP as the destination."""
    (tmp_path / "here").mkdir()
    with source(tmp_path / "here") as here, orthanc.serving({"here": ["XDSI", "127.0.0.1", here.port]}) as pacs:
        for content in ct(3):
            pacs.store(content)
        dcmtk(
            *("movescu", "-S", "-aec", pacs.ae_title, "-aem", "XDSI", "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", pacs.port),
        )
        assert len(here.instances.of_study(STUDY)) == 3


def test_orthanc_finds_here_and_fetches(tmp_path: Path) -> None:
    """A real archive as the one who asks, and as the destination."""
    port, there = free_port(), {}
    with orthanc.serving({"here": ["XDSI", "127.0.0.1", port]}) as pacs:
        there = f"{pacs.ae_title}=127.0.0.1:{pacs.port}"
        with asked_source(tmp_path, dimse_port=port, dimse_peers=there) as asked:
            for content in ct(3):
                asked.instances.add_bytes(content)
            query = posted(
                f"{pacs.base}/modalities/here/query", {"Level": "Study", "Query": {"PatientName": "muster*"}}
            )
            answers = json.load(urllib.request.urlopen(f"{pacs.base}/queries/{query['ID']}/answers?expand", timeout=60))
            assert [one["0020,000d"]["Value"] for one in answers] == [STUDY]
            posted(f"{pacs.base}/queries/{query['ID']}/retrieve", {"TargetAet": pacs.ae_title, "Synchronous": True})
            assert len(json.load(urllib.request.urlopen(f"{pacs.base}/instances", timeout=60))) == 3


def posted(url: str, content: object) -> dict[str, str]:
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def test_every_process_answers_on_the_shared_port(tmp_path: Path, destination_port: int) -> None:
    toml = "[imaging]\ndimse_port = {}\nquery_retrieve = true\ndimse_peers = 'DEST=127.0.0.1:{}'\n"
    port = free_port()
    made = toml.format(port, destination_port)
    paths = []
    for number, content in enumerate(ct(3)):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(content)
    with served(tmp_path, made, "--workers", "2", "--actors", "imaging") as (_, endpoints):
        until(lambda: (tmp_path / "log").read_text().count("Started server") == 2)
        assert [send(port, path).Status for path in paths] == [0] * 3
        asked = Asked(port, None, endpoints["dicomweb"])  # type: ignore[arg-type]
        with storescp(tmp_path / "there", destination_port) as there:
            for _ in range(4):
                move(asked, "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
            assert len(list(there.iterdir())) - 1 == 3
