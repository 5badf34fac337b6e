"""ImagingStudy over HTTP: read and searched for, as fhir.resources validates what comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fhir.resources import bundle as r5_bundle
from fhir.resources import capabilitystatement as r5_capabilities
from fhir.resources import imagingstudy as r5_study
from fhir.resources import operationoutcome as r5_outcome
from fhir.resources.R4B import bundle as r4_bundle
from fhir.resources.R4B import capabilitystatement as r4_capabilities
from fhir.resources.R4B import imagingstudy as r4_study
from pydicom.dataset import Dataset

from server.embedded import serving
from tests.conftest import configured
from tests.dicomweb import STUDY, Answer, ask, ct, encoded, read, rejection_note

FHIR = "application/fhir+json"
#: Modality and day of each further study, whose UIDs end in 101, 102 ...
OTHERS = (("CT", "20240131"), ("MR", "20240229"), ("MR", "20240301"))


@pytest.fixture(scope="module")
def fhir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    config = configured(tmp_path_factory.mktemp("fhir"))
    config = replace(config, server=replace(config.server, actors="imaging"))
    with serving(config) as served:
        instances = served.parts["instances"]
        for one in ct(3):
            instances.add_bytes(one)
        for number, (modality, day) in enumerate(OTHERS, 101):
            uid = f"{STUDY}{number}"
            (only,) = ct(1, study_instance_uid=uid, series_instance_uid=f"{uid}.1", accession_number=f"B{number}")
            issued = {"IssuerOfAccessionNumberSequence": [issuer("1.2.3.9")]} if number == 103 else {}
            instances.add_bytes(changed(only, Modality=modality, StudyDate=day, **issued))
        (gone,) = ct(1, study_instance_uid=f"{STUDY}109", series_instance_uid=f"{STUDY}109.1", accession_number="B109")
        instances.add_bytes(gone)
        instances.add_bytes(rejection_note([read(gone)]))
        yield served.endpoints["fhir"]


def issuer(oid: str) -> Dataset:
    item = Dataset()
    item.UniversalEntityID, item.UniversalEntityIDType = oid, "ISO"
    return item


def changed(content: bytes, **attributes: Any) -> bytes:
    dataset = read(content)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return encoded(dataset)


def found(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.text
    r4_bundle.Bundle.model_validate_json(answer.body)
    return [entry["resource"]["id"] for entry in answer.json.get("entry", [])]


@pytest.mark.parametrize(
    ("accept", "validator", "version"),
    [
        ("", r4_study.ImagingStudy, "4.0"),
        (f"{FHIR}; fhirVersion=4.0", r4_study.ImagingStudy, "4.0"),
        (f"{FHIR};fhirVersion=5.0", r5_study.ImagingStudy, "5.0"),
    ],
)
def test_a_study_is_read_in_the_release_that_is_asked_for(fhir: str, accept: str, validator: Any, version: str) -> None:
    answer = ask(f"{fhir}/ImagingStudy/{STUDY}", accept)
    assert answer.headers["content-type"] == f"{FHIR}; fhirVersion={version}"
    read_back = validator.model_validate_json(answer.body)
    assert (read_back.id, read_back.numberOfInstances) == (STUDY, 3)
    endpoint = answer.json["contained"][0]
    assert endpoint["address"] == fhir.replace("/fhir", "/dicomweb")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"_id={STUDY}102", [102]),
        (f"identifier=urn:dicom:uid|urn:oid:{STUDY}101", [101]),
        ("identifier=B103", [103]),
        ("identifier=B109", [109]),
        ("identifier=|B103", [103]),
        # An issuer that the images name is compared; where they name none, any will do.
        ("identifier=urn:oid:1.2.3.9|B103", [103]),
        ("identifier=urn:oid:1.2.3.8|B103", []),
        ("identifier=urn:oid:1.2.3.8|B102", [102]),
        ("identifier=urn:dicom:uid|urn:oid:1.2.3.99", []),
        ("modality=MR", [103, 102]),
        ("modality=http://dicom.nema.org/resources/ontology/DCM|MR,CT&started=2024", [103, 102, 101]),
        ("started=2024-02", [102]),
        ("started=gt2024-02-29&started=2024", [103]),
        ("started=lt2024-02&started=ge2024", [101]),
        ("started=2024-02-28", []),
        ("patient:identifier=MRN7&started=2024", [103, 102, 101]),
        ("patient.identifier=MRN8", []),
    ],
)
def test_studies_are_searched_for(fhir: str, query: str, expected: list[int]) -> None:
    assert found(ask(f"{fhir}/ImagingStudy?{query}")) == [f"{STUDY}{number}" for number in expected]


def test_what_is_rejected_is_not_in_a_study(fhir: str) -> None:
    """As in DICOMweb, the note is."""
    resource = ask(f"{fhir}/ImagingStudy/{STUDY}109").json
    assert resource["numberOfInstances"] == 1
    assert [one["modality"]["code"] for one in resource["series"]] == ["KO"]


def test_pages_follow_one_another_and_end(fhir: str) -> None:
    url: str | None = f"{fhir}/ImagingStudy?_count=2&patient:identifier=MRN7"
    pages = []
    while url is not None:
        answer = ask(url)
        pages.append(found(answer))
        url = next((one["url"] for one in answer.json["link"] if one["relation"] == "next"), None)
    assert [len(page) for page in pages] == [2, 2, 1]
    assert len({uid for page in pages for uid in page}) == 5
    bundle = ask(f"{fhir}/ImagingStudy?_count=1", f"{FHIR}; fhirVersion=5.0")
    assert r5_bundle.Bundle.model_validate_json(bundle.body).entry[0].resource.id


@pytest.mark.parametrize(
    ("path", "accept", "status", "reason"),
    [
        ("/ImagingStudy/1.2.3.99", "", 404, "study 1.2.3.99 is not stored here"),
        ("/ImagingStudy/abc", "", 400, "the Study Instance UID 'abc' is no UID"),
        ("/Patient", "", 404, "there is no such resource"),
        ("/ImagingStudy?nothing=1", "", 400, "there is no parameter 'nothing' here; there are _id, identifier"),
        ("/ImagingStudy?identifier=a&identifier=b", "", 400, "the parameter identifier comes twice"),
        ("/ImagingStudy?identifier=A*", "", 400, "'A*' is no value that can be searched for"),
        ("/ImagingStudy?identifier=x|", "", 400, "'x|' has no value"),
        ("/ImagingStudy?identifier=urn:dicom:uid|abc", "", 400, "identifier: 'abc' is not urn:oid:UID"),
        ("/ImagingStudy?started=2024-02-30", "", 400, "started is '2024-02-30'; it must be a year, month or day"),
        ("/ImagingStudy?started=gt9999", "", 400, "started is 'gt9999'"),
        ("/ImagingStudy?_count=many", "", 400, "_count is 'many'; it must be a whole number"),
        ("/ImagingStudy", "application/fhir+xml", 406, "application/fhir+json"),
        ("/ImagingStudy?_format=xml", "", 406, "_format is 'xml'; json is what there is"),
        ("/ImagingStudy", f"{FHIR}; fhirVersion=3.0", 406, "fhirVersion is '3.0'; 4.0 and 5.0 are what there is"),
    ],
)
def test_what_is_wrong_is_told_as_an_operation_outcome(
    fhir: str, path: str, accept: str, status: int, reason: str
) -> None:
    answer = ask(f"{fhir}{path}", accept)
    assert (answer.status, answer.headers["content-type"]) == (status, FHIR)
    (issue,) = r5_outcome.OperationOutcome.model_validate_json(answer.body).issue
    assert reason in issue.diagnostics


def test_what_it_can_do_is_told(fhir: str) -> None:
    r4_capabilities.CapabilityStatement.model_validate_json(ask(f"{fhir}/metadata").body)
    told = ask(f"{fhir}/metadata", f"{FHIR}; fhirVersion=5.0")
    r5_capabilities.CapabilityStatement.model_validate_json(told.body)
    assert (told.json["fhirVersion"], told.json["rest"][0]["resource"][0]["type"]) == ("5.0.0", "ImagingStudy")
