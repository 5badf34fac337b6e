"""Manifests: what is built is read back as it was meant, and every rule finds what breaks it (IHE RAD TF-3 4.68)."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from imaging import kos
from tests.counting import calls_of

CT, ECG, SR, SEG = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.9.1.1",
    "1.2.840.10008.5.1.4.1.1.88.33",
    "1.2.840.10008.5.1.4.1.1.66.4",
)
NOW = datetime(2026, 2, 1, 10, 30, tzinfo=timezone(timedelta(hours=1)))


def header(series: int = 1, number: int = 1, **changes: Any) -> Dataset:
    """One instance of study 1.2.3.100."""
    values = {
        "SOPClassUID": CT,
        "SOPInstanceUID": f"1.2.3.100.{series}.{number}",
        "SeriesInstanceUID": f"1.2.3.100.{series}",
        "StudyInstanceUID": "1.2.3.100",
        "SeriesNumber": str(series),
        "InstanceNumber": str(number),
        "PatientName": "Muster^Eva^^Dr",
        "PatientID": "MRN7",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "StudyDate": "20260201",
        "StudyTime": "091500",
        "AccessionNumber": "A123",
    }
    dataset = Dataset()
    for keyword, value in {**values, **changes}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def build(*headers: Dataset, **changes: Any) -> bytes:
    uids = iter(("1.2.3.9.9.1", "1.2.3.9.9"))
    options: dict[str, Any] = {
        "retrieve_ae_title": "PACS1",
        "retrieve_location_uid": "1.2.3.9.1",
        "now": NOW,
        "new_uid": lambda: next(uids),
    }
    return kos.build(headers or (header(1, 1), header(1, 2), header(2, 1)), **{**options, **changes})


def dataset_of(content: bytes) -> Dataset:
    return pydicom.dcmread(io.BytesIO(content))


def as_part10(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Written by pydicom's own writer, in any transfer syntax."""
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    file = io.BytesIO()
    dataset.save_as(file, implicit_vr=transfer_syntax == ImplicitVRLittleEndian, enforce_file_format=True)
    return file.getvalue()


def listed(manifest: kos.Manifest) -> list[tuple[str, str, str, str]]:
    return [
        (study.study_instance_uid, series.series_instance_uid, instance.sop_class_uid, instance.sop_instance_uid)
        for study in manifest.studies
        for series in study.series
        for instance in series.instances
    ]


# --- build


def test_a_manifest_reads_back_as_it_was_meant() -> None:
    manifest = kos.read(build(retrieve_url="https://ids.example.org/dicomweb", institution="Hospital A"))
    assert manifest == kos.Manifest(
        sop_instance_uid="1.2.3.9.9.1",
        series_instance_uid="1.2.3.9.9",
        study_instance_uid="1.2.3.100",
        title="113030",
        patient=kos.Patient(id="MRN7", issuer="", name="Muster^Eva^^Dr", birth_date="19700101", sex="F"),
        accession_number="A123",
        created="20260201103000+0100",
        timezone_offset="+0100",
        study_date="20260201",
        study_time="091500",
        study_description="",
        institution_name="Hospital A",
        studies=(
            kos.StudyReference(
                study_instance_uid="1.2.3.100",
                series=tuple(
                    kos.SeriesReference(
                        series_instance_uid=f"1.2.3.100.{series}",
                        retrieve_ae_title="PACS1",
                        retrieve_location_uid="1.2.3.9.1",
                        retrieve_url="https://ids.example.org/dicomweb",
                        instances=tuple(
                            kos.InstanceReference(sop_class_uid=CT, sop_instance_uid=f"1.2.3.100.{series}.{number}")
                            for number in numbers
                        ),
                    )
                    for series, numbers in ((1, (1, 2)), (2, (1,)))
                ),
            ),
        ),
    )
    assert manifest.instance_count == 3


def test_a_built_manifest_breaks_no_rule() -> None:
    assert kos.check(build(), locations={"1.2.3.9.1"}, images=[header()], strict=True) == []


def test_equal_input_gives_equal_bytes() -> None:
    headers = [header(2, 1), header(1, 10), header(1, 9)]
    assert build(*headers) == build(*reversed(headers))


def test_series_and_instances_are_in_the_order_of_their_numbers() -> None:
    manifest = kos.read(build(header(10, 1), header(2, 10), header(2, 9), header(2, 11, InstanceNumber=None)))
    assert [each[3] for each in listed(manifest)] == [
        "1.2.3.100.2.9",
        "1.2.3.100.2.10",
        "1.2.3.100.2.11",
        "1.2.3.100.10.1",
    ]


def test_an_instance_given_twice_is_listed_once() -> None:
    assert kos.read(build(header(), header())).instance_count == 1


def test_what_is_missing_in_the_images_is_empty_in_the_manifest() -> None:
    """PS3.3: type 2 attributes are present, whatever is known."""
    absent: dict[str, Any] = dict.fromkeys(
        ("PatientBirthDate", "PatientSex", "StudyTime", "AccessionNumber", "PatientName")
    )
    dataset = dataset_of(build(header(**absent)))
    for keyword in (*absent, "StudyID", "ReferringPhysicianName", "ReferencedPerformedProcedureStepSequence"):
        assert keyword in dataset
        assert not dataset[keyword].value
    assert "ReferencedRequestSequence" not in dataset


def test_what_one_image_lacks_another_tells() -> None:
    manifest = kos.read(build(header(1, 1, StudyTime="", PatientSex=""), header(1, 2)))
    assert (manifest.study_time, manifest.patient.sex) == ("091500", "F")


def test_names_of_another_character_set_become_utf8() -> None:
    """PS3.3 C.12.1.1.2: texts are decoded and encoded anew."""
    source = header(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", StudyDescription="Schädel")
    source.file_meta = pydicom.dataset.FileMetaDataset()
    raw = dataset_of(as_part10(source))
    content = build(raw)
    assert "Müller^Jörg".encode() in content
    assert kos.read(content).patient.name == "Müller^Jörg"
    assert kos.read(content).study_description == "Schädel"


def test_value_types_follow_the_class_of_the_instance() -> None:
    """PS3.16 TID 2010 rows 7 to 9."""
    classes = (CT, SEG, ECG, SR, "1.2.3.4")
    content = dataset_of(build(*(header(1, n, SOPClassUID=each) for n, each in enumerate(classes, start=1))))
    assert [each.ValueType for each in content.ContentSequence] == [
        "IMAGE",
        "IMAGE",
        "WAVEFORM",
        "COMPOSITE",
        "COMPOSITE",
    ]


def test_times_are_in_the_time_zone_of_the_images() -> None:
    """PS3.3 C.12.1: one offset holds for all times of an object, StudyTime among them."""
    content = build(header(TimezoneOffsetFromUTC="-0330"), now=datetime(2026, 2, 1, 2, 0, tzinfo=UTC))
    assert kos.read(content).created == "20260131223000-0330"


def test_issuers_are_written_where_the_images_name_none() -> None:
    dataset = dataset_of(build(patient_id_issuer="1.2.3.11", accession_issuer="1.2.3.12"))
    assert dataset.IssuerOfPatientIDQualifiersSequence[0].UniversalEntityID == "1.2.3.11"
    assert dataset.IssuerOfAccessionNumberSequence[0].UniversalEntityID == "1.2.3.12"
    assert dataset.ReferencedRequestSequence[0].IssuerOfAccessionNumberSequence[0].UniversalEntityIDType == "ISO"
    named = header(IssuerOfPatientIDQualifiersSequence=[item(UniversalEntityID="1.2.4", UniversalEntityIDType="ISO")])
    assert kos.read(build(named, patient_id_issuer="1.2.3.11")).patient.issuer == "1.2.4"


def test_each_order_is_a_referenced_request() -> None:
    """PS3.3 C.17.6.2, type 1C; the accession number of the study is empty if there are several."""
    requests = [item(AccessionNumber=number, RequestedProcedureID=f"P{number}") for number in ("A1", "A2", "A1")]
    dataset = dataset_of(build(header(1, 1, RequestAttributesSequence=requests), header(2, 1, AccessionNumber="A3")))
    assert [each.AccessionNumber for each in dataset.ReferencedRequestSequence] == ["A1", "A2", "A3"]
    assert [each.RequestedProcedureID for each in dataset.ReferencedRequestSequence] == ["PA1", "PA2", ""]
    assert dataset.AccessionNumber == ""
    assert not [finding for finding in kos.check(dataset) if finding.rule == 13]


def key_object(title: str, *instances: str) -> Dataset:
    """A key object note on instances of series 1.2.3.100.1."""
    references = [item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID=uid) for uid in instances]
    evidence = item(SeriesInstanceUID="1.2.3.100.1", ReferencedSOPSequence=references)
    return header(
        8,
        int(title),
        SOPClassUID=kos.KEY_OBJECT_SELECTION,
        ConceptNameCodeSequence=[item(CodeValue=title, CodingSchemeDesignator="DCM", CodeMeaning="x")],
        CurrentRequestedProcedureEvidenceSequence=[
            item(StudyInstanceUID="1.2.3.100", ReferencedSeriesSequence=[evidence])
        ],
    )


def test_earlier_manifests_and_rejected_instances_are_left_out_and_key_images_stay() -> None:
    rejection = key_object("113037", "1.2.3.100.1.2")
    manifest = kos.read(build(header(1, 1), header(1, 2), rejection, key_object("113030"), key_object("113000")))
    assert [each[3] for each in listed(manifest)] == ["1.2.3.100.1.1", "1.2.3.100.8.113000"]


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ([key_object("113030")], "no instance to list"),
        ([header(), header(1, 2, StudyInstanceUID="1.2.3.101")], r"1\.2\.3\.100\.1\.2: StudyInstanceUID differs"),
        ([header(), header(1, 2, PatientName="Muster^Adam")], r"1\.2\.3\.100\.1\.2: PatientName differs"),
        ([header(), header(1, 2, PatientID="MRN8")], "PatientID differs"),
        ([header(), header(1, 2, PatientBirthDate="19700102")], "PatientBirthDate differs"),
        ([header(), header(1, 2, PatientSex="M")], "PatientSex differs"),
        ([header(SOPClassUID=None)], "'1.2.3.100.1.1': SOPClassUID ''"),
        ([header(SeriesInstanceUID=None)], "SeriesInstanceUID ''"),
        ([header(), header(2, 1, SOPInstanceUID="1.2.3.100.1.1")], "comes in two series"),
        ([header(SeriesInstanceUID="1.2.3.9.9")], "rule 9"),
        ([header(SOPInstanceUID="1.2.3.9.9.1")], "rule 3"),
    ],
)
def test_what_no_manifest_can_list_is_refused_by_name(headers: list[Dataset], text: str) -> None:
    with pytest.raises(kos.ManifestError, match=text):
        build(*headers)


def test_names_that_differ_in_trailing_delimiters_only_are_equal() -> None:
    """PS3.5 6.2.1."""
    assert kos.read(build(header(), header(1, 2, PatientName="Muster^Eva^^Dr^"))).instance_count == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"retrieve_ae_title": ""},
        {"retrieve_ae_title": "SEVENTEEN_LETTERS"},
        {"retrieve_location_uid": ""},
        {"retrieve_location_uid": "1.2.03"},
        {"retrieve_url": "https://a b"},
        {"patient_id_issuer": "Hospital"},
        {"now": datetime(2026, 2, 1)},
        {"new_uid": lambda: "x"},
    ],
)
def test_what_would_make_an_invalid_manifest_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(kos.ManifestError):
        build(**changes)


def test_the_cost_of_a_manifest_grows_with_its_instances_and_no_faster() -> None:
    headers = [header(n % 4, n) for n in range(2000)]
    assert calls_of(lambda: build(*headers)) < 4.5 * calls_of(lambda: build(*headers[:500]))
    assert kos.read(build(*headers)).instance_count == 2000


# --- read


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name
)
def test_a_manifest_is_read_in_each_transfer_syntax(syntax: str) -> None:
    content = as_part10(dataset_of(build()), syntax)
    assert kos.read(content) == kos.read(io.BytesIO(content)) == kos.read(build())


def test_sequences_of_undefined_length_are_read() -> None:
    dataset = dataset_of(build())
    dataset["CurrentRequestedProcedureEvidenceSequence"].is_undefined_length = True
    assert kos.read(as_part10(dataset)) == kos.read(build())


def edited(edit: Callable[[Dataset], object]) -> bytes:
    dataset = dataset_of(build())
    edit(dataset)
    return as_part10(dataset)


def test_several_studies_and_several_locations_of_a_series_are_read() -> None:
    def edit(dataset: Dataset) -> None:
        (study,) = dataset.CurrentRequestedProcedureEvidenceSequence
        elsewhere = item(
            SeriesInstanceUID="1.2.3.100.1",
            RetrieveAETitle=["PACS2", "PACS3"],
            RetrieveLocationUID="1.2.3.9.2",
            ReferencedSOPSequence=list(study.ReferencedSeriesSequence[0].ReferencedSOPSequence),
        )
        study.ReferencedSeriesSequence.append(elsewhere)
        other = item(
            SeriesInstanceUID="1.2.3.200.1",
            Modality="CT",
            ReferencedSOPSequence=[item(ReferencedSOPClassUID=CT, ReferencedSOPInstanceUID="1.2.3.200.1.1")],
        )
        dataset.CurrentRequestedProcedureEvidenceSequence.append(
            item(StudyInstanceUID="1.2.3.200", ReferencedSeriesSequence=[other])
        )

    manifest = kos.read(edited(edit))
    first, second = manifest.studies
    assert [series.retrieve_ae_title for series in first.series] == ["PACS1", "PACS1", "PACS2\\PACS3"]
    assert second.series[0].modality == "CT"
    assert manifest.instance_count == 4
    assert len(listed(manifest)) == 6


def test_a_tree_of_composites_and_unknown_content_items_is_read() -> None:
    def edit(dataset: Dataset) -> None:
        for content in dataset.ContentSequence:
            content.ValueType = "COMPOSITE"
        library = item(RelationshipType="CONTAINS", ValueType="CONTAINER", ContentSequence=[dataset.ContentSequence[0]])
        dataset.ContentSequence = [*dataset.ContentSequence[1:], library, item(ValueType="TEXT", TextValue="x")]

    assert kos.read(edited(edit)) == kos.read(build())
    assert kos.check(edited(edit), strict=True) == []


def test_the_manifest_with_description_of_mado_is_read() -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ConceptNameCodeSequence[0].CodeValue = "MADOTEMP001"
        dataset.ConceptNameCodeSequence[0].CodingSchemeDesignator = "99IHE"

    assert kos.read(edited(edit)).title == "MADOTEMP001"
    found = [(finding.rule, finding.level) for finding in kos.check(edited(edit))]
    # It promises a description, and has none.
    assert found == [(4, "warning"), (17, "warning")]


@pytest.mark.parametrize("at", [0, 100, 140, 300, 400, -1, -150])
def test_a_manifest_cut_short_is_refused(at: int) -> None:
    with pytest.raises(kos.ManifestError):
        kos.read(build()[:at])


def test_a_deflated_manifest_cut_short_is_refused() -> None:
    with pytest.raises(kos.ManifestError, match=r"cut short|parsed"):
        kos.read(as_part10(dataset_of(build()), DeflatedExplicitVRLittleEndian)[:-40])


def test_other_transfer_syntaxes_are_refused() -> None:
    with pytest.raises(kos.ManifestError, match=r"1\.2\.840\.10008\.1\.2\.2"):
        kos.read(build().replace(ExplicitVRLittleEndian.encode(), ExplicitVRBigEndian.encode(), 1))


def test_a_manifest_of_more_than_max_bytes_is_refused() -> None:
    content = build()
    assert kos.read(content, max_bytes=len(content)) == kos.read(content)
    for source in (content, io.BytesIO(content)):
        with pytest.raises(kos.ManifestError, match="max_bytes"):
            kos.read(source, max_bytes=len(content) - 1)


def test_a_manifest_that_inflates_to_more_than_max_bytes_is_refused() -> None:
    deflated = as_part10(dataset_of(build()), DeflatedExplicitVRLittleEndian)
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(bytes(50_000_000)) + deflater.flush()
    meta = deflated[: 144 + int.from_bytes(deflated[140:144], "little")]
    with pytest.raises(kos.ManifestError, match="inflates to more than 100000 bytes"):
        kos.read(meta + bomb, max_bytes=100_000)


def test_sequences_nested_without_end_are_refused() -> None:
    nested = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    with pytest.raises(kos.ManifestError, match="RecursionError"):
        kos.read(build() + nested)


# --- check


def findings(edit: Callable[[Dataset], object], **options: Any) -> set[tuple[int, str]]:
    """Rules broken by a manifest that was good before `edit`, checked as a data set and as bytes."""
    dataset = dataset_of(build())
    edit(dataset)
    found: set[tuple[int, str]] = {(finding.rule, finding.level) for finding in kos.check(dataset, **options)}
    with pydicom.config.disable_value_validation():
        content = as_part10(dataset)
    assert {(finding.rule, finding.level) for finding in kos.check(content, **options)} == found
    return found


def series_of(dataset: Dataset) -> Dataset:
    series: Dataset = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    return series


def put(dataset: Dataset, keyword: str, value: object) -> None:
    with pydicom.config.disable_value_validation():
        setattr(dataset, keyword, value)


def list_manifest_itself(dataset: Dataset) -> None:
    series_of(dataset).ReferencedSOPSequence[0].ReferencedSOPInstanceUID = dataset.SOPInstanceUID


@pytest.mark.parametrize("content", [b"", b"x" * 200, build()[:-7], build()[128:], build().replace(b"DICM", b"DICN")])
def test_rule_1_a_manifest_is_part_10(content: bytes) -> None:
    assert [(finding.rule, finding.level) for finding in kos.check(content)] == [(1, "error")]
    with pytest.raises(kos.ManifestError):
        kos.read(content)


@pytest.mark.parametrize(("keyword", "value"), [("SOPClassUID", CT), ("Modality", "CT"), ("Modality", "")])
def test_rule_2_a_manifest_is_a_key_object_selection(keyword: str, value: str) -> None:
    assert findings(lambda dataset: put(dataset, keyword, value)) == {(2, "error")}
    with pytest.raises(kos.ManifestError, match="rule 2"):
        kos.read(edited(lambda dataset: put(dataset, keyword, value)))


def test_rule_3_a_manifest_is_no_evidence_of_itself() -> None:
    assert findings(list_manifest_itself) == {(3, "error"), (10, "warning")}


def test_rule_4_the_title_is_one_of_a_manifest() -> None:
    def title(code: str, scheme: str = "DCM") -> set[tuple[int, str]]:
        def edit(dataset: Dataset) -> None:
            dataset.ConceptNameCodeSequence = [item(CodeValue=code, CodingSchemeDesignator=scheme, CodeMeaning="x")]

        return findings(edit)

    assert title("113030") == set()
    assert title("113032") == {(4, "warning")}
    assert title("113000") == title("113030", "99X") == {(4, "error")}
    assert findings(lambda dataset: dataset.pop("ConceptNameCodeSequence")) == {(4, "error")}


@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("CurrentRequestedProcedureEvidenceSequence"),
        lambda d: put(d, "CurrentRequestedProcedureEvidenceSequence", []),
        lambda d: put(d.CurrentRequestedProcedureEvidenceSequence[0], "ReferencedSeriesSequence", []),
        lambda d: put(series_of(d), "ReferencedSOPSequence", []),
        lambda d: series_of(d).pop("ReferencedSOPSequence"),
        lambda d: put(series_of(d), "SeriesInstanceUID", "1.2.03"),
        lambda d: put(d.CurrentRequestedProcedureEvidenceSequence[0], "StudyInstanceUID", "3.1"),
        lambda d: put(series_of(d).ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", "1." + "2" * 63),
        lambda d: put(series_of(d).ReferencedSOPSequence[0], "ReferencedSOPClassUID", "CT"),
        lambda d: series_of(d).ReferencedSOPSequence[0].pop("ReferencedSOPClassUID"),
    ],
)
def test_rule_5_what_is_listed_can_be_named(edit: Callable[[Dataset], object]) -> None:
    assert (5, "error") in findings(edit)
    with pydicom.config.disable_value_validation(), pytest.raises(kos.ManifestError, match="rule 5"):
        kos.read(edited(edit))


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"])
def test_rule_5_the_manifest_can_be_named(keyword: str) -> None:
    assert (5, "error") in findings(lambda dataset: put(dataset, keyword, "1.2.x"))
    with pydicom.config.disable_value_validation(), pytest.raises(kos.ManifestError, match="rule 5"):
        kos.read(edited(lambda dataset: put(dataset, keyword, "1.2.x")))


@pytest.mark.parametrize("keyword", ["RetrieveAETitle", "RetrieveLocationUID"])
def test_rule_6_each_series_says_where_it_is(keyword: str) -> None:
    assert findings(lambda dataset: put(series_of(dataset), keyword, "")) == {(6, "error")}
    assert findings(lambda dataset: series_of(dataset).pop(keyword)) == {(6, "error")}


def test_rule_7_the_location_is_a_known_source() -> None:
    assert findings(lambda dataset: None, locations={"1.2.3.9.2"}) == {(7, "warning")}
    assert findings(lambda dataset: None, locations={"1.2.3.9.1"}) == set()


def test_rule_8_a_manifest_is_in_a_study_that_it_lists() -> None:
    assert findings(lambda dataset: put(dataset, "StudyInstanceUID", "1.2.3.101")) == {(8, "error")}


def test_rule_9_a_manifest_is_in_a_series_of_its_own_or_of_other_key_objects() -> None:
    assert findings(lambda dataset: put(dataset, "SeriesInstanceUID", "1.2.3.100.1")) == {(9, "error")}

    def among_key_objects(dataset: Dataset) -> None:
        dataset.SeriesInstanceUID = "1.2.3.100.1"
        for reference in series_of(dataset).ReferencedSOPSequence:
            reference.ReferencedSOPClassUID = kos.KEY_OBJECT_SELECTION

    assert findings(among_key_objects) == set()


def test_rule_10_the_tree_and_the_evidence_list_the_same_instances() -> None:
    def edit(dataset: Dataset) -> None:
        del dataset.ContentSequence[0]

    assert findings(edit) == {(10, "warning")}
    assert findings(edit, strict=True) == {(10, "error")}


def test_rule_11_the_template_is_the_one_of_key_object_selections() -> None:
    assert findings(lambda dataset: dataset.pop("ContentTemplateSequence")) == {(11, "warning")}


@pytest.mark.parametrize(
    ("keyword", "value", "level"),
    [
        ("PatientName", "Muster^Adam", "error"),
        ("PatientBirthDate", "19700102", "error"),
        ("PatientSex", "M", "error"),
        ("PatientID", "MRN8", "warning"),
    ],
)
def test_rule_12_the_patient_is_the_one_of_the_images(keyword: str, value: str, level: str) -> None:
    assert findings(lambda dataset: put(dataset, keyword, value), images=[header()]) == {(12, level)}


def test_rule_13_there_is_an_accession_number() -> None:
    def edit(dataset: Dataset) -> None:
        del dataset.ReferencedRequestSequence
        dataset.AccessionNumber = ""

    assert findings(edit) == {(13, "warning")}


GOOD_ENTRY = {
    "unique_id": "1.2.3.9.9.1",
    "mime_type": "application/dicom",
    "format_code": "1.2.840.10008.5.1.4.1.1.88.59",
    "format_code_scheme": "1.2.840.10008.2.6.1",
    "source_patient_id": "MRN7^^^&1.2.3.11&ISO",
}


@pytest.mark.parametrize("attribute", GOOD_ENTRY)
def test_rule_14_the_document_entry_is_of_this_manifest(attribute: str) -> None:
    manifest = kos.read(build())
    assert list(kos.check_document_entry(manifest, **GOOD_ENTRY)) == []
    (finding,) = kos.check_document_entry(manifest, **{**GOOD_ENTRY, attribute: "other"})
    assert (finding.rule, finding.level) == (14, "error")


def test_rule_15_a_manifest_does_not_refer_to_itself() -> None:
    def edit(dataset: Dataset) -> None:
        reference = dataset.ContentSequence[0].ReferencedSOPSequence[0]
        reference.ReferencedSOPInstanceUID = dataset.SOPInstanceUID

    assert findings(edit) == {(10, "warning"), (15, "error")}


@pytest.mark.parametrize("offset", ["", "0100", "+1401", "-1201", "+01:00"])
def test_rule_16_times_have_an_offset(offset: str) -> None:
    assert findings(lambda dataset: put(dataset, "TimezoneOffsetFromUTC", offset)) == {(16, "warning")}


@pytest.mark.parametrize("offset", ["+0000", "-1200", "+1400", "+0545"])
def test_rule_16_offsets_from_minus_12_to_plus_14_hours_are_good(offset: str) -> None:
    assert findings(lambda dataset: put(dataset, "TimezoneOffsetFromUTC", offset)) == set()
