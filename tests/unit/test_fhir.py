"""ImagingStudy of real studies and of made ones, as fhir.resources validates it, in R4 and R5."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from fhir.resources import imagingstudy as r5
from fhir.resources.R4B import imagingstudy as r4
from pydicom.dataset import Dataset

from imaging.fhir import RELEASES, Release, imaging_study
from server.demo import real_objects

VALIDATORS: dict[str, Any] = {"R4": r4.ImagingStudy, "R5": r5.ImagingStudy}


def real_studies() -> Iterator[list[Dataset]]:
    """Of whatever pydicom and the demo's package carry."""
    carried = Path(pydicom.__file__).parent / "data" / "test_files"
    studies: dict[str, list[Dataset]] = defaultdict(list)
    for folder in (carried, *real_objects()[0]):
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in (".dcm", ".IMA", ""):
                try:
                    header = pydicom.dcmread(path, stop_before_pixels=True)
                except Exception:  # some are broken on purpose
                    continue
                if header.get("StudyInstanceUID") and header.get("SeriesInstanceUID") and header.get("SOPInstanceUID"):
                    studies[str(header.StudyInstanceUID)].append(header)
    yield from studies.values()


def valid(made: dict[str, object], release: Release) -> dict[str, Any]:
    """As a FHIR library reads it and writes it again."""
    read = VALIDATORS[release].model_validate_json(json.dumps(made))
    again: dict[str, Any] = json.loads(read.model_dump_json())
    return again


@pytest.mark.parametrize("release", RELEASES)
def test_each_real_study_is_a_valid_imaging_study(release: Release) -> None:
    studies = list(real_studies())
    assert len(studies) > 20
    for headers in studies:
        made = imaging_study(headers, release=release, retrieve_url="https://images.example/dicomweb")
        again = valid(made, release)
        assert again["numberOfInstances"] == len(headers)
        assert again["numberOfInstances"] == sum(one["numberOfInstances"] for one in again["series"])
        uids = {one["uid"] for series in again["series"] for one in series["instance"]}
        assert uids == {str(one.SOPInstanceUID) for one in headers}


def study() -> list[Dataset]:
    made = []
    for series, number, modality in ((2, 1, "CT"), (2, 2, "CT"), (1, 1, "MR")):
        one = Dataset()
        one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", f"1.2.3.{series}"
        one.SOPInstanceUID, one.SOPClassUID = f"1.2.3.{series}.{number}", "1.2.840.10008.5.1.4.1.1.2"
        one.SeriesNumber, one.InstanceNumber, one.Modality = series, number, modality
        one.PatientID, one.AccessionNumber, one.StudyDescription = "MRN7", "A-17", "Chest"
        one.StudyDate, one.StudyTime, one.TimezoneOffsetFromUTC = "20260201", "091501.5", "-0330"
        one.BodyPartExamined, one.ReferringPhysicianName = "CHEST", "Muster^Hans^^Dr."
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "77477000", "SCT", "Computed tomography"
        one.ProcedureCodeSequence = [code]
        made.append(one)
    return made


def test_r4_says_what_the_headers_say() -> None:
    made = imaging_study(study(), retrieve_url="https://images.example/dicomweb", accession_issuer="1.2.9")
    assert valid(made, "R4")
    identifier = made["identifier"]
    assert isinstance(identifier, list)
    assert identifier[0] == {"use": "official", "system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}
    assert (identifier[1]["system"], identifier[1]["value"]) == ("urn:oid:1.2.9", "A-17")
    assert made["started"] == "2026-02-01T09:15:01-03:30"
    assert made["modality"] == [
        {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "MR"},
        {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
    ]
    assert made["referrer"] == {"display": "Dr. Hans Muster"}
    assert made["procedureCode"] == [
        {"coding": [{"system": "http://snomed.info/sct", "code": "77477000", "display": "Computed tomography"}]}
    ]
    series = made["series"]
    assert isinstance(series, list)
    assert [(one["number"], one["numberOfInstances"], one["uid"]) for one in series] == [
        (1, 1, "1.2.3.1"),
        (2, 2, "1.2.3.2"),
    ]
    assert series[1]["bodySite"] == {"system": "http://snomed.info/sct", "code": "43799004"}
    assert series[1]["instance"][0] == {
        "uid": "1.2.3.2.1",
        "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"},
        "number": 1,
    }


def test_r5_has_concepts_where_r4_has_codings() -> None:
    made = imaging_study(study(), release="R5", retrieve_url="https://images.example/dicomweb")
    assert valid(made, "R5")
    assert made["modality"] == [
        {"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": code}]} for code in ("MR", "CT")
    ]
    assert "procedureCode" not in made and made["procedure"]


def test_a_time_without_an_offset_is_of_the_zone_that_is_given() -> None:
    headers = study()
    for one in headers:
        del one.TimezoneOffsetFromUTC
    assert imaging_study(headers, time_zone="Europe/Vienna")["started"] == "2026-02-01T09:15:01+01:00"
    assert imaging_study(headers)["started"] == "2026-02-01T09:15:01+00:00"
    for one in headers:
        one.StudyTime = ""
    assert imaging_study(headers)["started"] == "2026-02-01"


def test_the_patient_of_the_affinity_domain_may_be_the_subject() -> None:
    assert imaging_study(study())["subject"] == {"identifier": {"value": "MRN7"}}
    assert imaging_study(study(), patient={"reference": "Patient/7"})["subject"] == {"reference": "Patient/7"}


def test_headers_of_several_studies_are_no_study() -> None:
    headers = study()
    headers[0].StudyInstanceUID = "1.2.4"
    with pytest.raises(ValueError, match=r"of 2 studies: 1\.2\.3, 1\.2\.4"):
        imaging_study(headers)
