"""The metadata of a manifest, row by row of RAD TF-3 4.68.4.1.2.3: a study with every attribute, and what happens without them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from imaging import kos
from imaging.publication.code_map import CodeMap, read
from imaging.publication.mapping import ImagingDefaults, person_name, sex, utc
from imaging.publication.rad68_provide import PublishError, document_entry, submission_of
from registry.rules import STRICT
from xds.metadata import DocumentEntry
from xds.values import Identifier

NOW = datetime(2026, 2, 1, 9, 30, tzinfo=UTC)
PATIENT = Identifier("PAT1^^^&1.2.3.10&ISO")


def issuer(oid: str) -> list[Dataset]:
    item = Dataset()
    item.UniversalEntityID, item.UniversalEntityIDType = oid, "ISO"
    return [item]


def image(**values: object) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.100.1.1"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.100", "1.2.3.100.1"
    made.Modality, made.BodyPartExamined = "CT", "CHEST"
    made.StudyDate, made.StudyTime, made.TimezoneOffsetFromUTC = "20260201", "091500", "+0100"
    made.StudyDescription, made.InstitutionName = "CT Chest", "Hospital A"
    made.AccessionNumber, made.IssuerOfAccessionNumberSequence = "A123", issuer("1.2.3.12")
    made.PatientName, made.PatientID = "Muster^Eva^^Dr", "MRN7"
    made.IssuerOfPatientIDQualifiersSequence = issuer("1.2.3.11")
    made.PatientBirthDate, made.PatientSex = "19700101", "F"
    for keyword, value in values.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def entry_of(
    *images: Dataset, defaults: ImagingDefaults | None = None, codes: CodeMap | None = None, **more: Identifier
) -> DocumentEntry:
    manifest = kos.build(
        images,
        retrieve_ae_title="PACS1",
        retrieve_location_uid="1.2.3.9.1",
        now=NOW,
        new_uid=iter(["1.2.3.99.1", "1.2.3.99"]).__next__,
    )
    used = defaults or ImagingDefaults()
    entry = document_entry(manifest, images, patient_id=PATIENT, defaults=used, codes=codes or CodeMap(), **more)
    submission = submission_of(
        [entry], source_id="1.2.3.30", defaults=used, now=NOW, unique_id="1.2.3.30.500", replaces={}, transforms={}
    )
    # What only a repository can add is all that the registry's rules miss.
    assert {problem.context.split(": ")[1].split()[0] for problem in STRICT.check(submission)} == {
        "hash",
        "size",
        "repositoryUniqueId",
    }
    return submission.document_entries[0]


def test_a_study_with_every_attribute_gives_the_metadata_of_the_example() -> None:
    entry = entry_of(image())
    assert entry.creation_time == "20260201093000"
    assert entry.service_start_time == "20260201081500"
    assert entry.source_patient_id == "MRN7^^^&1.2.3.11&ISO"
    assert entry.source_patient_info == (
        "PID-3|MRN7^^^&1.2.3.11&ISO",
        "PID-5|Muster^Eva^^^Dr",
        "PID-7|19700101",
        "PID-8|F",
    )
    assert entry.reference_id_list == (
        "A123^^^&1.2.3.12&ISO^urn:ihe:iti:xds:2013:accession",
        "1.2.3.100^^^^urn:ihe:iti:xds:2016:studyInstanceUID",
    )
    assert (str(entry.title), entry.mime_type, entry.unique_id) == ("CT Chest", "application/dicom", "1.2.3.99.1")
    assert entry.author[0].author_institution == ("Hospital A",)
    assert entry.patient_id == PATIENT
    assert entry.format_code and entry.format_code.key == "1.2.840.10008.5.1.4.1.1.88.59^^1.2.840.10008.2.6.1"
    assert entry.class_code and entry.class_code.key == "IMAGES^^1.3.6.1.4.1.19376.1.2.6.1"
    assert entry.type_code and entry.type_code.key == "18748-4^^2.16.840.1.113883.6.1"
    codes = {(code.key, str(code.display)) for code in entry.event_code_list}
    assert codes == {("CT^^1.2.840.10008.2.16.4", "Computed Tomography"), ("43799004^^2.16.840.1.113883.6.96", "Chest")}


def test_each_acquisition_modality_is_an_event_code_and_others_are_none() -> None:
    series = [
        image(
            Modality=modality,
            SeriesInstanceUID=f"1.2.3.100.{n}",
            SOPInstanceUID=f"1.2.3.100.{n}.1",
            BodyPartExamined="NOWHERE",
        )
        for n, modality in enumerate(("PT", "CT", "SR", "CT"), 1)
    ]
    assert [code.code for code in entry_of(*series).event_code_list] == ["PT", "CT"]


def test_the_performed_procedure_is_the_type_code() -> None:
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "24627-2", "LN", "Chest CT"
    entry = entry_of(image(ProcedureCodeSequence=[procedure]))
    assert entry.type_code and entry.type_code.key == "24627-2^^2.16.840.1.113883.6.1"


CODE_MAP = """
[[type_code]]
modality = "MR"
code = { code = "T-MR", scheme = "1.2.3", display = "MR" }
[[type_code]]
modality = "CT"
body_part = "chest"
code = { code = "T-CT-CHEST", scheme = "1.2.3", display = "CT of the chest" }
[[type_code]]
modality = "CT"
code = { code = "T-CT", scheme = "1.2.3", display = "CT" }
[[practice_setting_code]]
procedure = "CTCH1"
procedure_scheme = "99HOSP"
code = { code = "PULMO", scheme = "1.2.3", display = "Pulmonology" }
[[event_code_list]]
body_part = "CHEST"
code = { code = "E-CHEST", scheme = "1.2.3", display = "Chest" }
[[event_code_list]]
modality = "CT"
code = { code = "CT", scheme = "1.2.840.10008.2.16.4", display = "said by DICOM" }
"""


def test_codes_of_the_affinity_domain_go_before_what_dicom_says(tmp_path: Path) -> None:
    (tmp_path / "codes.toml").write_text(CODE_MAP)
    codes = read(tmp_path / "codes.toml")
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "CTCH1", "99HOSP", "CT Chest"
    entry = entry_of(image(ProcedureCodeSequence=[procedure]), codes=codes)
    assert entry.type_code and entry.type_code.code == "T-CT-CHEST"
    assert entry.practice_setting_code and entry.practice_setting_code.code == "PULMO"
    assert [(one.code, str(one.display)) for one in entry.event_code_list] == [
        ("CT", "Computed Tomography"),
        ("43799004", "Chest"),
        ("E-CHEST", "Chest"),
    ]
    other = entry_of(image(BodyPartExamined="HEAD"), codes=codes)
    assert other.type_code and other.type_code.code == "T-CT"
    assert other.practice_setting_code == ImagingDefaults().practice_setting_code


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[[class_code]]", "there is no 'class_code'"),
        ("type_code = 1", r"type_code is written as \[\[type_code\]\]"),
        ('[[type_code]]\nmodalty = "CT"', "type_code 1 has 'modalty'"),
        ("[[type_code]]", "type_code 1: one or more of modality"),
        ('[[type_code]]\nmodality = "CT"\ncode = "CT"', "type_code 1: code is"),
        ('[[type_code]]\nmodality = "CT"\ncode = { code = "1", scheme = "LN", display = "x" }', "'LN' is no OID"),
    ],
)
def test_a_map_of_codes_that_can_not_be_used_names_the_entry(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "codes.toml").write_text(content)
    with pytest.raises(ValueError, match=reason):
        read(tmp_path / "codes.toml")


def test_without_an_issuer_the_configuration_says_who_assigns_patient_ids() -> None:
    headers = image(IssuerOfPatientIDQualifiersSequence=None)
    with pytest.raises(PublishError, match=r"imaging\.source_patient_issuer"):
        entry_of(headers)
    defaults = ImagingDefaults(source_patient_issuer="1.2.3.77")
    assert entry_of(headers, defaults=defaults).source_patient_id == "MRN7^^^&1.2.3.77&ISO"


def test_without_a_patient_id_the_publisher_says_it() -> None:
    headers = image(PatientID=None)
    with pytest.raises(PublishError, match=r"no Patient ID \(0010,0020\)"):
        entry_of(headers)
    own = Identifier("X1^^^&1.2.3.11&ISO")
    assert entry_of(headers, source_patient_id=own).source_patient_id == own


@pytest.mark.parametrize(
    ("date", "time", "offset", "zone", "expected"),
    [
        ("20260201", "091500", "+0100", "UTC", "20260201081500"),
        ("20260201", "091500.123456", "-0500", "UTC", "20260201141500"),
        ("20260201", "0915", "", "Europe/Zurich", "202602010815"),
        ("20260201", "", "+0100", "UTC", "20260201"),
        ("20260201", "09", "", "UTC", "2026020109"),
        ("2026.02.01", "09:15", "", "UTC", "202602010915"),
        ("", "0915", "", "UTC", None),
        ("20260231", "0915", "", "UTC", None),
    ],
)
def test_dates_and_times_become_utc(date: str, time: str, offset: str, zone: str, expected: str | None) -> None:
    assert utc(date, time, offset, zone) == expected


def test_prefix_and_suffix_of_a_name_change_places() -> None:
    """PS3.5 6.2.1.1 against HL7 v2.5 2.A.88."""
    assert person_name("Adams^John^Robert^Rev.^B.A.") == "Adams^John^Robert^B.A.^Rev."
    assert person_name("Yamada^Tarou=\u5c71\u7530^\u592a\u90ce") == "Yamada^Tarou"
    assert person_name("O&M|x") == "O\\T\\M\\F\\x"
    assert [sex(value) for value in ("M", "F", "O", "", "X")] == ["M", "F", "O", "U", "U"]
