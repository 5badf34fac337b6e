"""From DICOM attributes to XDS metadata: names, times, codes and identifiers (RAD TF-3 4.68.4.1.2.3; defaults are configuration)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from imaging.publication.code_tables import ACQUISITION_MODALITIES, BODY_PARTS, CODING_SCHEMES
from xds.values import Code, Timestamp, escape_hl7

DCM, SNOMED_CT, LOINC = "1.2.840.10008.2.16.4", "2.16.840.1.113883.6.96", "2.16.840.1.113883.6.1"
KOS_FORMAT = Code.of("1.2.840.10008.5.1.4.1.1.88.59", "1.2.840.10008.2.6.1", "Key Object Selection Document")

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagingDefaults:
    """What the affinity domain decides about the metadata of a manifest."""

    class_code: Code = Code.of("IMAGES", "1.3.6.1.4.1.19376.1.2.6.1", "Images")
    type_code: Code = Code.of("18748-4", LOINC, "Diagnostic imaging study")
    content_type_code: Code = Code.of("18748-4", LOINC, "Diagnostic imaging study")
    confidentiality_code: Code = Code.of("N", "2.16.840.1.113883.5.25", "Normal")
    healthcare_facility_type_code: Code = Code.of("22232009", SNOMED_CT, "Hospital")
    practice_setting_code: Code = Code.of("309964003", SNOMED_CT, "Radiology")
    language_code: str = "en-US"
    time_zone: str = "UTC"
    institution: str = ""
    accession_issuer: str = ""
    source_patient_issuer: str = ""
    issuers: Mapping[str, str] = field(default_factory=dict)


def text(dataset: Dataset, keyword: str) -> str:
    """A single value as text, "" where there is none."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()


def first(headers: Iterable[Dataset], keyword: str) -> str:
    """The first value that is not empty."""
    return next((value for header in headers if (value := text(header, keyword))), "")


def readable(value: str, most: int) -> str:
    """At most so many characters of a text; DICOM has some, such as form feeds, that XML has not."""
    return _NOT_XML.sub(" ", value)[:most].strip()


def person_name(name: str) -> str:
    """A DICOM PN as the components of an HL7 v2 XPN: prefix and suffix change places (PS3.5 6.2.1.1, HL7 v2.5 2.A.88)."""
    parts = [*name.split("=")[0].split("^"), "", "", "", "", ""]
    family, given, middle, prefix, suffix = (escape_hl7(part.strip()) for part in parts[:5])
    return "^".join((family, given, middle, suffix, prefix)).rstrip("^")


def sex(value: str) -> str:
    """PID-8 of PatientSex."""
    return value if value in ("M", "F", "O") else "U"


def utc(date: str, time: str, offset: str, zone: str) -> Timestamp | None:
    """DA, TM and TimezoneOffsetFromUTC as DTM in UTC; a date alone keeps its precision and is not shifted. None for what is no date."""
    date, time = date.replace(".", ""), re.sub(r"[^0-9.]", "", time).partition(".")[0]
    if not re.fullmatch(r"[0-9]{8}", date):
        return None
    if len(time) < 2:
        return Timestamp(date) if Timestamp(date).fault is None else None
    try:
        moment = datetime.strptime(date + time.ljust(6, "0")[:6], "%Y%m%d%H%M%S")
        aware = (
            datetime.strptime(moment.isoformat() + offset, "%Y-%m-%dT%H:%M:%S%z")
            if re.fullmatch(r"[+-][0-9]{4}", offset)
            else moment.replace(tzinfo=ZoneInfo(zone))
        )
        converted = aware.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return Timestamp(converted.strftime("%Y%m%d%H%M%S")[: 8 + min(6, len(time) // 2 * 2)])


def code(item: Dataset, header: Dataset) -> Code | None:
    """A code sequence item as a Code; None where its coding scheme has no OID that we know (PS3.3 8)."""
    value = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
    designator, meaning = text(item, "CodingSchemeDesignator"), text(item, "CodeMeaning")
    scheme = text(item, "CodingSchemeUID") or CODING_SCHEMES.get(designator, "")
    if not scheme:
        identified = header.get("CodingSchemeIdentificationSequence") or []
        scheme = next(
            (text(one, "CodingSchemeUID") for one in identified if text(one, "CodingSchemeDesignator") == designator),
            "",
        )
    return Code.of(value, scheme, meaning or value) if value and scheme else None


def event_codes(headers: Iterable[Dataset]) -> tuple[Code, ...]:
    """Each acquisition modality and each anatomic region that occurs, once (XDS-I.b: required if known)."""
    found: dict[str, Code] = {}
    for header in headers:
        modality = text(header, "Modality")
        if modality in ACQUISITION_MODALITIES:
            found.setdefault(modality, Code.of(modality, DCM, ACQUISITION_MODALITIES[modality]))
    for header in headers:
        regions = [one for item in header.get("AnatomicRegionSequence") or [] if (one := code(item, header))]
        body_part = text(header, "BodyPartExamined")
        concept = BODY_PARTS.get(re.sub(r"[ _-]", "", body_part.upper()))
        if not regions and concept:
            regions = [Code.of(concept, SNOMED_CT, body_part.capitalize())]
        for region in regions:
            found.setdefault(region.key, region)
    return tuple(found.values())


def issuer(items: Iterable[Dataset] | None) -> str:
    """The OID in an issuer sequence (UniversalEntityID of type ISO), or ""."""
    for item in items or ():
        if text(item, "UniversalEntityIDType") == "ISO":
            return text(item, "UniversalEntityID")
    return ""
