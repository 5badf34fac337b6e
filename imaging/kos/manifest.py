"""What a manifest is: its parts, the titles of its kind, and how values are taken out of a data set."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pydicom.charset import decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
MANIFEST_TITLE = "113030"
# PS3.16 CID 7010; the last one is IHE's, until DICOM gives Manifest with Description a code.
OTHER_MANIFEST_TITLES = {(str(code), "DCM") for code in range(113031, 113036)} | {("MADOTEMP001", "99IHE")}
DESCRIBED = "Manifest with Description"
MANIFEST_TITLES = OTHER_MANIFEST_TITLES | {(MANIFEST_TITLE, "DCM")}
# IHE RAD IOCM: what such a note lists is to be treated as not available.
REJECTION_TITLES = {(code, "DCM") for code in ("113001", "113037", "113038", "113039")}

IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
OWN_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+", re.ASCII)  # PS3.5 9.1
OFFSET = re.compile(r"([+-])([0-9]{2})([0-5][0-9])", re.ASCII)  # PS3.3 C.12.1


class ManifestError(ValueError):
    """A manifest can not be built or read: the text names the instance, the attribute and the rule."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A code of DICOM (PS3.3 8): its value, the designator of its scheme, and what it means."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceReference:
    """One item of ReferencedSOPSequence (0008,1199)."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesReference:
    """One series at one location: an item of ReferencedSeriesSequence (0008,1115).

    `retrieve_ae_title` may be several, parted by a backslash as in DICOM: they are alternatives.
    """

    series_instance_uid: str
    retrieve_ae_title: str
    retrieve_location_uid: str
    retrieve_url: str | None
    instances: tuple[InstanceReference, ...]
    modality: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyReference:
    """One item of CurrentRequestedProcedureEvidenceSequence (0040,A375)."""

    study_instance_uid: str
    series: tuple[SeriesReference, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """The patient as the manifest names it. `issuer` is the OID of the issuer if there is one, else its local name."""

    id: str
    issuer: str
    name: str
    birth_date: str
    sex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a manifest says. Values are DICOM's own text, "" where there is none; `created` is a DICOM DT."""

    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    title: str
    patient: Patient
    accession_number: str
    created: str
    timezone_offset: str
    study_date: str
    study_time: str
    study_description: str
    institution_name: str
    studies: tuple[StudyReference, ...]

    @property
    def instance_count(self) -> int:
        """How many different instances are listed: one that is held at two locations counts once."""
        return len(listed_in(self.studies))


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that a manifest breaks."""

    rule: int
    level: Literal["error", "warning"]
    text: str


def value_of(dataset: Dataset, keyword: str) -> str:
    """The value as text, several joined by a backslash; "" if it is absent or empty.

    Raw values are decoded here and not by pydicom, which warns of each value that breaks its VR: judging them is our part.
    """
    tag = tag_for_keyword(keyword)
    if tag not in dataset:
        return ""
    element = dataset.get_item(tag)
    value = element.value
    if isinstance(value, bytes):
        if value.isascii() and b"\x1b" not in value:
            value = value.decode("ascii")
        else:
            character_set = dataset.original_character_set
            value = decode_bytes(
                value, [character_set] if isinstance(character_set, str) else character_set, set("\\^=")
            )
    if isinstance(value, MultiValue | list):
        value = "\\".join(str(each) for each in value)
    return "" if value is None else str(value).strip("\0 ")


def items_of(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none if it is absent or empty."""
    return list(dataset.get(keyword) or ())


def first_of(headers: Iterable[Dataset], keyword: str) -> str:
    return next((text for header in headers if (text := value_of(header, keyword))), "")


def coded_of(item: Dataset) -> Coded:
    """What an item of a code sequence says."""
    value = first_of_keywords(item, "CodeValue", "LongCodeValue", "URNCodeValue")
    return Coded(value, value_of(item, "CodingSchemeDesignator"), value_of(item, "CodeMeaning"))


def first_of_keywords(dataset: Dataset, *keywords: str) -> str:
    return next((text for keyword in keywords if (text := value_of(dataset, keyword))), "")


def concept_of(dataset: Dataset) -> Coded:
    """The concept name of an object, which is its title, or of a content item."""
    return coded_of((items_of(dataset, "ConceptNameCodeSequence") or [Dataset()])[0])


def title_of(dataset: Dataset) -> tuple[str, str]:
    """Code value and coding scheme of the title."""
    title = concept_of(dataset)
    return title.value, title.scheme


def is_manifest(dataset: Dataset) -> bool:
    """Whether a Key Object Selection is a manifest by its title: what DICOM's code for Manifest with Description will be nobody knows."""
    return title_of(dataset) in MANIFEST_TITLES or is_described(dataset)


def is_described(dataset: Dataset) -> bool:
    """Whether it is one of MADO, by IHE's temporary title or by what a later one means."""
    title = concept_of(dataset)
    return (title.value, title.scheme) == ("MADOTEMP001", "99IHE") or title.meaning.casefold() == DESCRIBED.casefold()


def is_rejection(dataset: Dataset) -> bool:
    """Whether a Key Object Selection is a rejection note by its title."""
    return title_of(dataset) in REJECTION_TITLES


def is_uid(text: str) -> bool:
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def listed_in(studies: Iterable[StudyReference]) -> set[str]:
    return {i.sop_instance_uid for study in studies for series in study.series for i in series.instances}


def studies_of(dataset: Dataset) -> tuple[StudyReference, ...]:
    """The evidence, whatever it is: judging it is for the rules."""
    return tuple(
        StudyReference(
            study_instance_uid=value_of(study, "StudyInstanceUID"),
            series=tuple(map(_series, items_of(study, "ReferencedSeriesSequence"))),
        )
        for study in items_of(dataset, "CurrentRequestedProcedureEvidenceSequence")
    )


def _series(series: Dataset) -> SeriesReference:
    return SeriesReference(
        series_instance_uid=value_of(series, "SeriesInstanceUID"),
        retrieve_ae_title=value_of(series, "RetrieveAETitle"),
        retrieve_location_uid=value_of(series, "RetrieveLocationUID"),
        retrieve_url=value_of(series, "RetrieveURL") or None,
        modality=value_of(series, "Modality") or None,
        instances=tuple(
            InstanceReference(
                sop_class_uid=value_of(instance, "ReferencedSOPClassUID"),
                sop_instance_uid=value_of(instance, "ReferencedSOPInstanceUID"),
            )
            for instance in items_of(series, "ReferencedSOPSequence")
        ),
    )
