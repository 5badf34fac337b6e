"""A real PACS behind the source: what comes from Orthanc over DICOMweb, and what is made of answers that are none."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.orthanc import Orthanc
from imaging.archive import Archive, ArchiveError, Fetched
from imaging.archive.dicomweb import DicomwebArchive
from imaging.client import client
from server.compose import soap_client
from server.config import Config
from server.demo import real_objects
from server.embedded import serving
from server.transport import http_get
from soap.client import HttpResponse
from tests.conftest import configured
from tests.interop.test_lifecycle_cli import Shell
from tests.unit.test_transcode import file
from xds.messages import DocumentRequest, ImagingRequest, Retrieved, SeriesRequest, StudyRequest
from xds.problems import Problem


@pytest.fixture(scope="module")
def paths(pacs: Orthanc) -> list[Path]:
    """The objects that the PACS has."""
    found = [path for folder in real_objects()[0] for path in sorted(folder.iterdir()) if path.is_file()]
    images = [path for path in found if path.read_bytes()[128:132] == b"DICM"]
    carried = [file(name) for name in ("CT_small.dcm", "JPEG2000.dcm", "MR_small_RLE.dcm", "examples_ybr_color.dcm")]
    for path in (*images, *carried):
        pacs.store(path.read_bytes())
    return [*images, *carried]


@pytest.fixture
def archive(pacs: Orthanc, tmp_path: Path) -> DicomwebArchive:
    return DicomwebArchive(pacs.dicomweb, http_get(), tmp_path)


def fetched(archive: Archive, study: str, series: str, instance: str) -> Fetched | None:
    """One instance; its error is raised."""
    outcome = archive.fetch(study, series, [instance]).get(instance)
    if isinstance(outcome, ArchiveError):
        raise outcome
    return outcome


def uids(path: Path) -> tuple[str, str, str]:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID), str(header.SOPInstanceUID)


def test_an_instance_comes_as_the_archive_has_it(archive: DicomwebArchive, paths: list[Path]) -> None:
    """Bit for bit: the archive keeps the file that it was given."""
    for path in paths:
        found = fetched(archive, *uids(path))
        assert isinstance(found, Fetched)
        content = path.read_bytes()
        assert found.path.read_bytes() == content
        assert (found.size, found.sha1) == (len(content), hashlib.sha1(content).hexdigest())
        assert found.transfer_syntax_uid == pydicom.dcmread(path).file_meta.TransferSyntaxUID


def test_the_headers_of_a_study_are_those_of_its_instances(archive: DicomwebArchive, paths: list[Path]) -> None:
    study, _, _ = uids(paths[0])
    wanted = {uids(path)[2] for path in paths if uids(path)[0] == study}
    headers = [one.header() for one in archive.of_study(study)]
    assert {str(one.SOPInstanceUID) for one in headers} == wanted
    original = pydicom.dcmread(paths[0], stop_before_pixels=True)
    (same,) = [one for one in headers if one.SOPInstanceUID == original.SOPInstanceUID]
    for keyword in ("PatientName", "PatientID", "StudyDate", "Modality", "SeriesNumber", "SOPClassUID"):
        assert same.get(keyword) == original.get(keyword)


def test_what_the_archive_does_not_have_is_none(archive: DicomwebArchive, paths: list[Path], tmp_path: Path) -> None:
    study, series, instance = uids(paths[0])
    assert fetched(archive, study, series, "1.2.3.404") is None
    assert fetched(archive, "1.2.3.404", series, instance) is None
    assert fetched(archive, "../..", series, instance) is None
    assert archive.of_study("1.2.3.404") == archive.of_study("../patients") == []
    assert list(tmp_path.iterdir()) == []


# --- a source that stores nothing -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fronting(pacs: Orthanc, paths: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A domain whose imaging source answers from the PACS."""
    directory = tmp_path_factory.mktemp("fronting")
    config = configured(directory / "data", patients="open")
    config = replace(config, imaging=replace(config.imaging, archive_url=pacs.dicomweb, archive_kept_bytes=0))
    with serving(config) as domain:
        shell = Shell(directory, directory / "data", domain.endpoints)
        shell.environment |= {
            "XDSI_IMAGING_URL": domain.endpoints["imaging"],
            "XDSI__IMAGING__ARCHIVE_URL": pacs.dicomweb,
        }
        yield shell


def test_a_study_of_the_archive_is_published_and_retrieved(fronting: Shell, paths: list[Path]) -> None:
    """RAD-68 and RAD-69; nothing is stored by the source, and what comes is what the archive was given."""
    study, _, _ = uids(paths[0])
    wanted = {uids(path)[2]: path for path in paths if uids(path)[0] == study}
    patient = ("--patient", "p7^^^&1.2.3.4&ISO", "--source-patient", "MRN7^^^&1.2.3.11&ISO")
    (published,) = json.loads(fronting.run("publish", "--study", study, *patient, "--json").stdout)
    assert published["instances"] == len(wanted)
    (listed,) = (one for one in json.loads(fronting.run("studies", "--json").stdout) if one["study"] == study)
    assert (listed["state"], listed["manifest"]) == ("published", published["manifest"])
    assert (listed["instances"], listed["documents"]) == (len(wanted), 1)
    fronting.run("retrieve", published["manifest"], "--out", "manifest")
    (manifest,) = (fronting.directory / "manifest").iterdir()
    fronting.run("retrieve-images", str(manifest), "--out", "images")
    images = {one.stem: one.read_bytes() for one in (fronting.directory / "images").iterdir()}
    assert images == {uid: path.read_bytes() for uid, path in wanted.items()}
    assert list((fronting.directory / "data" / "imaging" / "content").iterdir()) == []
    assert list((fronting.directory / "data" / "imaging" / "staging").iterdir()) == []


def test_a_manifest_is_shown_as_a_picture(fronting: Shell, paths: list[Path]) -> None:
    study, _, _ = uids(file("examples_ybr_color.dcm"))
    patient = ("--patient", "p8^^^&1.2.3.4&ISO", "--source-patient", "MRN8^^^&1.2.3.11&ISO")
    (published,) = json.loads(fronting.run("publish", "--study", study, *patient, "--json").stdout)
    fronting.run("retrieve", published["manifest"], "--out", "shown")
    done = fronting.run("show", "shown/document-1.dcm", "--out", "sheet.png", "--tile-px", "64")
    assert done.stdout == "sheet.png: 1 of 1 instance\n"
    with Image.open(fronting.directory / "sheet.png") as picture:
        # Thirty frames of 64 pixels, six in a row.
        assert picture.width >= 6 * 64
        assert len(set(picture.convert("L").tobytes())) > 50


def test_what_the_archive_has_is_re_encoded_too(fronting: Shell, paths: list[Path]) -> None:
    study, series, instance = uids(file("JPEG2000.dcm"))
    asked = ImagingRequest(
        studies=(
            StudyRequest(
                study_instance_uid=study,
                series=(
                    SeriesRequest(
                        series_instance_uid=series,
                        documents=tuple(
                            DocumentRequest(repository_unique_id=Config().imaging.location_uid, document_unique_id=uid)
                            for uid in (instance, "1.2.3.404")
                        ),
                    ),
                ),
            ),
        ),
        transfer_syntax_uids=(str(ExplicitVRLittleEndian),),
    )
    url = fronting.environment["XDSI_IMAGING_URL"]
    config = configured(fronting.directory / "client")
    answers = client(soap_client(url, config))(asked)
    given, unknown = (one.document.read() if isinstance(one, Retrieved) else one for one in answers)
    assert isinstance(given, bytes) and isinstance(unknown, Problem)
    found = pydicom.dcmread(io.BytesIO(given))
    assert found.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (found.pixel_array == pydicom.dcmread(file("JPEG2000.dcm")).pixel_array).all()
    assert unknown.code == "XDSDocumentUniqueIdError"


def test_an_archive_that_is_away_is_an_error(tmp_path: Path) -> None:
    archive = DicomwebArchive("http://127.0.0.1:9/dicom-web", http_get(), tmp_path)
    with pytest.raises(OSError, match="no answer from"):
        fetched(archive, "1.2", "1.3", "1.4")
    with pytest.raises(OSError, match="no answer from"):
        archive.of_study("1.2")


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def chunks(self) -> Iterator[bytes]:
        yield self.body


def answering(status: int, content_type: str, body: bytes, directory: Path) -> DicomwebArchive:
    @contextmanager
    def get(url: str, headers: Mapping[str, str]) -> Iterator[HttpResponse]:
        yield Answer(status, {"content-type": content_type}, body)

    return DicomwebArchive("http://pacs.example", get, directory, max_bytes=10_000, max_metadata_bytes=1000)


MULTIPART = "multipart/related; boundary=b"
OTHER = file("MR_small.dcm").read_bytes()


@pytest.mark.parametrize(
    ("status", "content_type", "body", "reason"),
    [
        (500, "text/html", b"<html>", "HTTP 500, Content-Type 'text/html'"),
        (200, "text/html", b"<html>", "HTTP 200, Content-Type 'text/html'"),
        (200, "multipart/related", b"", "the boundary has 0 characters"),
        (200, MULTIPART, b"--b--\r\n", "no instance in the answer"),
        (200, MULTIPART, b"--b\r\n\r\nno DICOM\r\n--b--\r\n", "no DICOM file"),
        (200, MULTIPART, b"--b\r\n\r\n" + b"x" * 20_000, "more than 10000 bytes"),
        (200, MULTIPART, b"--b\r\n\r\ncut off", "ends before its closing boundary"),
        (200, MULTIPART, b"--b\r\n\r\n" + OTHER[:9000] + b"\r\n--b--\r\n", "another instance came"),
    ],
)
def test_an_answer_that_is_no_instance_is_an_error_and_leaves_nothing(
    status: int, content_type: str, body: bytes, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(ArchiveError, match=reason):
        fetched(answering(status, content_type, body, tmp_path), "1.2", "1.3", "1.4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<html>", "is no application"),
        (b'[{"00100010": 7}]', "is no application"),
        (b"[" + b" " * 2000, "more than 1000"),
    ],
)
def test_an_answer_that_is_no_metadata_is_an_error(body: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=reason):
        answering(200, "application/dicom+json", body, tmp_path).of_study("1.2")
