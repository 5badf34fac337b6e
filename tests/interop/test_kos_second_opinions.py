"""What others say of our manifests: dicom3tools' dciodvfy, highdicom, and DCMTK's dsrdump."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import highdicom
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from imaging import kos
from imaging.phantom import ct_series

BUNDLED = Path(pydicom.__file__).parent / "data" / "test_files"
# One object of each kind that differs for a manifest: images, multi-frame, segmentation, report, waveform.
NAMES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "examples_ybr_color.dcm",
    "liver_1frame.dcm",
    "reportsi.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
)


def phantom() -> list[Dataset]:
    return [
        dataset
        for number in (1, 2)
        for dataset in ct_series(
            slices=4,
            rows=32,
            columns=32,
            patient_id="P1",
            patient_name="Müster^Eva",
            accession_number="A1",
            study_instance_uid="1.2.3.100",
            series_number=number,
        )
    ]


def heudiconv(folder: str) -> list[Dataset]:
    package = importlib.util.find_spec("heudiconv")
    if package is None or not package.submodule_search_locations:
        _missing("heudiconv, whose test data are real Siemens objects,")
    root = Path((package.submodule_search_locations or [""])[0])
    return [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(root.glob(f"tests/data/{folder}"))]


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed, and in CI it has to be")
    pytest.skip(f"{what} is not installed")


def build(headers: list[Dataset]) -> bytes:
    return kos.build(
        headers,
        retrieve_ae_title="PACS1",
        retrieve_location_uid="1.2.3.9.1",
        retrieve_url="https://ids.example.org/dicomweb",
        now=datetime(2026, 2, 1, 9, 30, tzinfo=UTC),
        new_uid=lambda: str(generate_uid(prefix=None)),
        institution="Hospital A",
        accession_issuer="1.2.3.12",
        patient_id_issuer="1.2.3.11",
    )


def triplets(dataset: Dataset) -> set[tuple[str, str, str, str]]:
    return {
        (study.StudyInstanceUID, series.SeriesInstanceUID, sop.ReferencedSOPClassUID, sop.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    }


def dciodvfy(content: bytes, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "manifest.dcm").write_bytes(content)
    program = Path(sys.executable).parent / "dciodvfy"
    return subprocess.run([program, folder / "manifest.dcm"], capture_output=True, text=True, check=False)


def assert_valid(content: bytes, folder: Path) -> None:
    """dciodvfy: rc 1 and a line with Error if the object breaks its IOD."""
    report = dciodvfy(content, folder)
    assert report.returncode == 0, report.stderr
    assert "KeyObjectSelectionDocument" in report.stderr
    assert "Error" not in report.stderr
    assert [finding for finding in kos.check(content) if finding.level == "error"] == []


def test_dciodvfy_finds_no_error_in_the_manifest_of_a_phantom(tmp_path: Path) -> None:
    assert_valid(build(phantom()), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_dciodvfy_finds_no_error_in_manifests_of_pydicoms_test_files(name: str, tmp_path: Path) -> None:
    assert_valid(build([pydicom.dcmread(BUNDLED / name, stop_before_pixels=True)]), tmp_path)


@pytest.mark.parametrize("name", ["rtplan.dcm", "rtdose.dcm"])
def test_dciodvfy_finds_but_the_invented_uids_in_manifests_of_radiotherapy_files(name: str, tmp_path: Path) -> None:
    """Their own UIDs start with arcs that ISO never gave; a manifest has to name them all the same."""
    headers = pydicom.dcmread(BUNDLED / name, stop_before_pixels=True)
    errors = [line for line in dciodvfy(build([headers]), tmp_path).stderr.splitlines() if "Error" in line]
    assert errors
    assert all("Illegal root for UID uses non-existent ISO arc" in line for line in errors)


@pytest.mark.parametrize("folder", ["b0dwiForFmap/*.dcm", "Phoenix/*/*.dcm"])
def test_dciodvfy_finds_no_error_in_manifests_of_real_siemens_objects(folder: str, tmp_path: Path) -> None:
    headers = heudiconv(folder)
    content = build(headers)
    assert kos.read(content).instance_count == len(headers) > 1
    assert_valid(content, tmp_path)


def test_dciodvfy_finds_an_error_where_there_is_one(tmp_path: Path) -> None:
    """The tests above can fail."""
    dataset = pydicom.dcmread(io.BytesIO(build(phantom())))
    del dataset.ContentDate
    file = io.BytesIO()
    dataset.save_as(file)
    with pytest.raises(AssertionError, match="ContentDate"):
        assert_valid(file.getvalue(), tmp_path)


def theirs(images: list[Dataset]) -> Dataset:
    return highdicom.ko.KeyObjectSelectionDocument(
        evidence=images,
        content=highdicom.ko.KeyObjectSelection(document_title=codes.DCM.Manifest, referenced_objects=images),
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="xdsi",
    )


def test_highdicom_refers_to_the_same_instances() -> None:
    images = phantom()
    ours, other = pydicom.dcmread(io.BytesIO(build(images))), theirs(images)
    assert triplets(ours) == triplets(other)
    assert len(triplets(ours)) == 8
    assert [item.ValueType for item in ours.ContentSequence] == ["IMAGE"] * 8
    for keyword in (
        "SOPClassUID",
        "Modality",
        "ValueType",
        "PatientName",
        "PatientID",
        "StudyInstanceUID",
    ):
        assert ours[keyword].value == other[keyword].value, keyword
    (our_template,), (other_template,) = ours.ContentTemplateSequence, other.ContentTemplateSequence
    assert our_template.TemplateIdentifier == other_template.TemplateIdentifier == "2010"


def test_a_manifest_of_highdicom_is_read_and_lacks_but_its_locations() -> None:
    images = phantom()
    document = theirs(images)
    file = io.BytesIO()
    document.save_as(file, enforce_file_format=True)
    manifest = kos.read(file.getvalue())
    assert manifest.instance_count == 8
    assert manifest.patient.name == "Müster^Eva"
    assert {finding.rule for finding in kos.check(file.getvalue()) if finding.level == "error"} == {6}


def test_highdicom_reads_ours(tmp_path: Path) -> None:
    """Its reader wants every reference to resolve to study, series and instance."""
    images = phantom()
    document = highdicom.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(io.BytesIO(build(images))))
    assert document.content.get_observer_contexts() == []
    assert len(document.content.get_references()) == 8
    for image in images:
        expected = (image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID)
        assert document.resolve_reference(image.SOPInstanceUID) == expected


def test_dsrdump_reads_ours(tmp_path: Path) -> None:
    program = shutil.which("dsrdump")
    if program is None:
        _missing("dsrdump (DCMTK)")
    path = tmp_path / "manifest.dcm"
    path.write_bytes(build([*phantom()]))
    report = subprocess.run([str(program), path], capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stderr
    assert report.stdout.startswith("Key Object Selection Document")
    assert report.stdout.count("<contains IMAGE:=(CT image,)>") == 8
    assert not [line for line in report.stderr.splitlines() if line.startswith(("E:", "F:"))]
