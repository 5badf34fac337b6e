"""Manifests of IHE MADO beside the classic one, as Key Object Selection and as FHIR document, published by a served domain."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle
from pydicom.dataset import Dataset

from imaging import kos
from imaging.client import client as imaging_client
from imaging.kos.mado import generated_accession
from imaging.kos.manifest import DESCRIBED, Coded, is_described
from imaging.phantom import ct_series
from schemas import rim
from server import publishing
from server.commands.imaging import TRANSFER_SYNTAXES, request_of
from server.compose import Domain, soap_client
from server.config import Config, ConfigError
from server.embedded import serving
from tests.publication import APPROVED, DEPRECATED, Case, source_config, uids
from xds.messages import Retrieved
from xds.metadata import Association, DocumentEntry
from xds.queries import GetAssociations
from xds.vocabulary import AssociationType

KOS_FORMAT = "1.2.840.10008.5.1.4.1.1.88.59^^1.2.840.10008.2.6.1"
FHIR_FORMAT = "urn:ihe:rad:MADO:fhir-manifest:2026^^1.3.6.1.4.1.19376.1.2.7.1"
URL = "https://ids.example.org/dicomweb"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return source_config(
        tmp_path_factory.mktemp("mado"),
        manifests="xds-i, mado-kos, mado-fhir",
        retrieve_url=URL,
        institution="Hospital A",
    )


@pytest.fixture(scope="module")
def domain(config: Config) -> Iterator[Domain]:
    with serving(config) as served:
        yield served


@pytest.fixture
def case(config: Config, domain: Domain) -> Case:
    return Case(config, domain)


def forms(case: Case, *status: str) -> dict[str, DocumentEntry]:
    """The entries by the keys of their documents."""
    found: dict[str, DocumentEntry] = {}
    for entry in case.entries(*status or (APPROVED,)):
        if entry.mime_type != "application/dicom":
            key = "mado-fhir"
        else:
            key = "mado-kos" if kos.read(case.document(entry)).title == "MADOTEMP001" else "manifest"
        assert key not in found
        found[key] = entry
    return found


def bundle_of(case: Case) -> dict[str, list[dict[str, Any]]]:
    """The resources of the document by their types, as a FHIR library reads them; `Bundle` among them."""
    content = case.document(forms(case)["mado-fhir"])
    Bundle.model_validate_json(content)
    bundle = json.loads(content)
    found: dict[str, list[dict[str, Any]]] = {"Bundle": [bundle]}
    for one in bundle["entry"]:
        found.setdefault(one["resource"]["resourceType"], []).append(one["resource"])
    return found


def said(item: Dataset) -> dict[str, str]:
    """What a container says of itself: by the meaning of each name its value."""
    values: dict[str, str] = {}
    for one in item.ContentSequence:
        name = one.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in one else ""
        match one.ValueType:
            case "CODE":
                values[name] = one.ConceptCodeSequence[0].CodeMeaning
            case "NUM":
                measured = one.MeasuredValueSequence[0]
                values[name] = f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
            case "TEXT":
                values[name] = one.TextValue
            case "UIDREF":
                values[name] = one.UID
            case "DATE" | "TIME":
                values[name] = str(one.get("Date") or one.get("Time"))
    return values


def associations(case: Case, entry: DocumentEntry) -> set[tuple[str, str, str]]:
    result = case.ask(GetAssociations(uuid=(entry.entry_uuid,)))
    return {
        (one.association_type, one.source_object, one.target_object)
        for one in rim.decode_fragments(result.fragments)
        if isinstance(one, Association)
    }


# --- as documents of a study ----------------------------------------------------------------------------------------


def test_each_form_is_an_entry_that_leads_to_the_same_study(case: Case) -> None:
    case.arrive()
    case.look()
    found = forms(case)
    assert set(found) == {"manifest", "mado-kos", "mado-fhir"}
    formats = {key: one.format_code.key for key, one in found.items() if one.format_code}
    assert formats == {"manifest": KOS_FORMAT, "mado-kos": KOS_FORMAT, "mado-fhir": FHIR_FORMAT}
    assert found["mado-fhir"].mime_type == "application/fhir+json"
    assert len({one.unique_id for one in found.values()}) == 3
    references = {tuple(sorted(one.reference_id_list)) for one in found.values()}
    assert len(references) == 1
    assert f"{case.study}^^^^urn:ihe:iti:xds:2016:studyInstanceUID" in references.pop()
    assert {one.type_code.key for one in found.values() if one.type_code} == {"18748-4^^2.16.840.1.113883.6.1"}
    assert case.overview().document_unique_id == found["manifest"].unique_id


def test_the_fhir_form_is_a_transformation_of_the_other(case: Case) -> None:
    case.arrive()
    case.look()
    found = forms(case)
    described, document = found["mado-kos"].entry_uuid, found["mado-fhir"].entry_uuid
    assert (AssociationType.XFRM, document, described) in associations(case, found["mado-fhir"])
    (bundle,) = bundle_of(case)["Bundle"]
    assert bundle["identifier"]["value"] == f"urn:oid:{found['mado-kos'].unique_id}"


def test_late_instances_replace_every_form(case: Case) -> None:
    images = case.arrive()
    case.look()
    old = forms(case)
    images += case.arrive(2)
    case.look()
    new = forms(case)
    assert forms(case, DEPRECATED).keys() == new.keys()
    for key, entry in new.items():
        assert (AssociationType.RPLC, entry.entry_uuid, old[key].entry_uuid) in associations(case, entry)
    content = case.document(new["mado-kos"])
    listed = {
        one.sop_instance_uid for study in kos.read(content).studies for two in study.series for one in two.instances
    }
    assert listed == uids(images)
    assert bundle_of(case)["ImagingStudy"][0]["numberOfInstances"] == 5


def test_a_form_that_is_configured_later_is_added_and_one_that_is_no_more_is_withdrawn(case: Case) -> None:
    case.arrive()
    classic = replace(case.publisher, source=replace(case.publisher.source, forms=("xds-i",)))
    classic.look()
    assert forms(case).keys() == {"manifest"}
    first = forms(case)["manifest"]
    case.publisher.publish(case.study)
    assert forms(case).keys() == {"manifest", "mado-kos", "mado-fhir"}
    assert forms(case)["manifest"] == first
    classic.publish(case.study)
    assert forms(case).keys() == {"manifest"}
    assert forms(case, DEPRECATED).keys() == {"mado-kos", "mado-fhir"}
    fhir = replace(case.publisher, source=replace(case.publisher.source, forms=("mado-fhir",)))
    fhir.publish(case.study)
    assert forms(case).keys() == {"mado-fhir"}
    (bundle,) = bundle_of(case)["Bundle"]
    assert bundle["identifier"]["value"] == f"urn:oid:{forms(case)['mado-fhir'].unique_id}"


def test_a_manifest_of_mado_that_is_stored_here_is_listed_in_none(case: Case) -> None:
    images = case.arrive()
    case.look()
    case.store(pydicom.dcmread(io.BytesIO(case.document(forms(case)["mado-kos"]))))
    case.look()
    assert kos.read(case.document(forms(case)["manifest"])).instance_count == len(images)
    assert forms(case, DEPRECATED) == {}


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("manifests", "xds-i, mado", "imaging.manifests names 'mado'; forms are xds-i, mado-kos, mado-fhir"),
        ("manifests", "", "imaging.manifests names nothing"),
        ("mado_title", "113040", "imaging.mado_title is '113040'; it is to be code\\^scheme"),
    ],
)
def test_a_form_that_there_is_not_can_not_be_configured(
    config: Config, case: Case, setting: str, value: str, told: str
) -> None:
    wrong = replace(config, imaging=replace(config.imaging, **{setting: value}))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=told):
        publishing.publisher(wrong, case.instances, case.publications, provide=case.publisher.provide)


# --- as a Key Object Selection --------------------------------------------------------------------------------------


def test_the_image_library_describes_study_series_and_instances(case: Case) -> None:
    images = case.arrive(2)
    case.look()
    dataset = pydicom.dcmread(io.BytesIO(case.document(forms(case)["mado-kos"])))
    (library,) = (one for one in dataset.ContentSequence if one.ValueType == "CONTAINER")
    assert said(library) == {
        "Modality": "Computed Tomography",
        "Target Region": "Entire body",
        "Number of Study Related Series": "1 {series}",
    }
    (group,) = (one for one in library.ContentSequence if one.ValueType == "CONTAINER")
    assert said(group) == {
        "Modality": "Computed Tomography",
        "Series Date": "20260201",
        "Series Time": "091500",
        "Series Description": str(images[0].SeriesDescription),
        "Series Number": "1",
        "Series Instance UID": images[0].SeriesInstanceUID,
        "Target Region": "Entire body",
        "Number of Series Related Instances": "2 {instances}",
    }
    entries = [one for one in group.ContentSequence if one.ValueType == "IMAGE"]
    assert [one.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for one in entries] == [
        one.SOPInstanceUID for one in images
    ]
    assert [said(one) for one in entries] == [{"Instance Number": "1"}, {"Instance Number": "2"}]


def test_the_object_has_what_mado_demands_beyond_xds_i(case: Case) -> None:
    case.arrive()
    case.look()
    dataset = pydicom.dcmread(io.BytesIO(case.document(forms(case)["mado-kos"])))
    others = {
        (one.PatientID, one.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID)
        for one in dataset.OtherPatientIDsSequence
    }
    assert others == {(case.local, "1.2.3.11"), (case.patient.identifier, "1.2.3.10")}
    assert (dataset.AccessionNumber, dataset.InstitutionName, dataset.Manufacturer) == ("A1", "Hospital A", "xdsi")
    assert dataset.ReferencedRequestSequence[0].AccessionNumber == "A1"
    (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
    assert {one.RetrieveURL for one in study.ReferencedSeriesSequence} == {URL}


def test_a_study_without_an_accession_number_gets_one_that_stays_the_same(case: Case) -> None:
    (image,) = ct_series(slices=1, rows=16, columns=16, patient_id=case.local, patient_name="Muster^Eva")
    case.study = image.StudyInstanceUID
    case.store(image)
    case.look()
    entry = forms(case)["mado-kos"]
    dataset = pydicom.dcmread(io.BytesIO(case.document(entry)))
    assert is_described(dataset)
    assert dataset.AccessionNumber == generated_accession(case.study)
    assert len(dataset.AccessionNumber) == 16
    assert dataset.IssuerOfAccessionNumberSequence[0].UniversalEntityID == case.config.imaging.source_id
    assert dataset.ReferencedRequestSequence[0].AccessionNumber == dataset.AccessionNumber
    assert dataset.AccessionNumber in str(entry.reference_id_list)


def test_our_rules_and_dciodvfy_find_nothing_but_what_mado_adds(case: Case, tmp_path: Path) -> None:
    """dciodvfy knows the value types that a Key Object Selection had before MADO; all else of the object it can judge."""
    case.arrive()
    case.look()
    content = case.document(forms(case)["mado-kos"])
    assert [one.rule for one in kos.check(content)] == [4]
    path = tmp_path / "mado.dcm"
    path.write_bytes(content)
    program = Path(sys.executable).parent / "dciodvfy"
    report = subprocess.run([program, path], capture_output=True, text=True, check=False)
    assert "KeyObjectSelectionDocument" in report.stderr
    errors = {line for line in report.stderr.splitlines() if "Error" in line}
    assert errors == {
        f"Error - Unrecognized enumerated value <{kind}> for value 1 of attribute <Value Type>"
        for kind in ("DATE", "NUM", "TIME")
    }


def test_the_images_of_a_manifest_of_mado_are_retrieved(case: Case) -> None:
    images = case.arrive()
    case.look()
    manifest = kos.read(case.document(forms(case)["mado-kos"]))
    retrieve = imaging_client(soap_client(case.domain.endpoints["imaging"], case.config))
    answers = list(retrieve(request_of(manifest, TRANSFER_SYNTAXES)))
    assert {one.request.document_unique_id for one in answers if isinstance(one, Retrieved)} == uids(images)
    assert len(answers) == len(images)


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("code", [("MADOTEMP001", "99IHE"), ("113040", "DCM")])
def test_temporary_codes_and_final_ones_are_written_and_read(case: Case, final: bool, code: tuple[str, str]) -> None:
    case.arrive()
    source = replace(case.publisher.source, forms=("mado-kos",), mado_final=final, mado_title=Coded(*code, DESCRIBED))
    replace(case.publisher, source=source).look()
    content = case.manifest()
    assert kos.read(content).title == code[0]
    assert [one.rule for one in kos.check(content)] == [4]
    codes = {"99IHE", "DCM"} if not final else {"DCM"}
    dataset = pydicom.dcmread(io.BytesIO(content))
    (library,) = (one for one in dataset.ContentSequence if one.ValueType == "CONTAINER")
    (group,) = (one for one in library.ContentSequence if one.ValueType == "CONTAINER")
    named = [one.ConceptNameCodeSequence[0] for one in group.ContentSequence if "ConceptNameCodeSequence" in one]
    assert {one.CodingSchemeDesignator for one in named} == codes


def test_a_description_that_does_not_fit_the_evidence_is_found(case: Case) -> None:
    case.arrive()
    case.look()
    dataset = pydicom.dcmread(io.BytesIO(case.document(forms(case)["mado-kos"])))
    (library,) = (one for one in dataset.ContentSequence if one.ValueType == "CONTAINER")
    (group,) = (one for one in library.ContentSequence if one.ValueType == "CONTAINER")
    for one in group.ContentSequence:
        if one.ValueType == "NUM":
            one.MeasuredValueSequence[0].NumericValue = "7"
    assert [one.text.partition(": ")[2] for one in kos.check(dataset) if one.rule == 17] == [
        "Number of Series Related Instances is '7'; 3 are listed."
    ]


# --- as a FHIR document ---------------------------------------------------------------------------------------------


def test_the_document_is_valid_and_says_where_the_images_are(case: Case) -> None:
    images = case.arrive()
    case.look()
    resources = bundle_of(case)
    (bundle,), (composition,), (study,) = resources["Bundle"], resources["Composition"], resources["ImagingStudy"]
    assert bundle["type"] == "document"
    assert bundle["entry"][0]["resource"] == composition
    assert composition["type"]["coding"][0]["code"] == "18748-4"
    urls = {one["fullUrl"]: one["resource"] for one in bundle["entry"]}
    assert urls[composition["section"][0]["entry"][0]["reference"]] == study
    assert study["identifier"][0] == {
        "use": "official",
        "type": {
            "coding": [
                {
                    "system": "http://dicom.nema.org/resources/ontology/DCM",
                    "code": "110180",
                    "display": "Study Instance UID",
                }
            ]
        },
        "system": "urn:dicom:uid",
        "value": f"urn:oid:{case.study}",
    }
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (1, 3)
    assert {one["uid"] for series in study["series"] for one in series["instance"]} == uids(images)
    for series in study["series"]:
        endpoint = urls[series["endpoint"][0]["reference"]]
        assert (endpoint["address"], endpoint["connectionType"]["code"]) == (URL, "dicom-wado-rs")
        assert endpoint["extension"][0]["valueOid"] == f"urn:oid:{case.config.imaging.location_uid}"
    (order,) = resources["ServiceRequest"]
    assert (order["identifier"][0]["value"], order["identifier"][0]["type"]["coding"][0]["code"]) == ("A1", "ACSN")
    (patient,) = resources["Patient"]
    assert {(one["system"], one["value"]) for one in patient["identifier"]} == {
        ("urn:oid:1.2.3.11", case.local),
        ("urn:oid:1.2.3.10", case.patient.identifier),
    }
    assert (patient["name"][0]["family"], patient["gender"], patient["birthDate"]) == ("Muster", "other", "1970-01-01")


def test_without_an_address_the_endpoint_says_that_there_is_none(case: Case) -> None:
    case.arrive()
    source = replace(case.publisher.source, retrieve_url=None)
    replace(case.publisher, source=source).look()
    (endpoint,) = bundle_of(case)["Endpoint"]
    assert endpoint["address"] == "http://notspecified"
    assert endpoint["_address"]["extension"][0]["valueCode"] == "unknown"
