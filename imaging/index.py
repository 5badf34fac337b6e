"""What can be searched for: studies, series and instances as their headers describe them, in tables of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from sqlalchemy import Executable, Table
from sqlalchemy.dialects import postgresql, sqlite

from imaging import dicom_json
from imaging.tables import described_instance, series, study

STUDY_ATTRIBUTES = (
    *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC"),
    *("StudyDescription", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyID", "InstitutionName", "PatientAge"),
)
SERIES_ATTRIBUTES = (
    *("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "BodyPartExamined", "Laterality"),
    *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", "RequestAttributesSequence"),
    *("SeriesDate", "SeriesTime", "Manufacturer", "StationName", "ProtocolName", "TimezoneOffsetFromUTC"),
)
INSTANCE_ATTRIBUTES = (
    *("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns", "BitsAllocated"),
    *("ImageType", "ContentDate", "ContentTime", "AcquisitionNumber", "TimezoneOffsetFromUTC"),
)
_OF_STUDY, _OF_SERIES, _OF_INSTANCE = (
    frozenset(map(Tag, keywords)) for keywords in (STUDY_ATTRIBUTES, SERIES_ATTRIBUTES, INSTANCE_ATTRIBUTES)
)

#: Statements with their values.
Described = list[tuple[Executable, dict[str, Any]]]
_INSERTS: Mapping[str, Mapping[Table, Executable]] = {
    "sqlite": {table: sqlite.insert(table).on_conflict_do_nothing() for table in (study, series, described_instance)},
    "postgresql": {
        table: postgresql.insert(table).on_conflict_do_nothing() for table in (study, series, described_instance)
    },
}


def described(header: Dataset, dialect_name: str, *, series_is_known: bool = False) -> Described:
    """The statements, with their values, that describe an instance, its series and its study: to be run with the one that stores it.

    What is known stays: the first instance speaks for its series and study. Where they are described, `series_is_known`, nothing is
    said of them again.
    """
    rows = [] if series_is_known else [(study, _study_row(header)), (series, _series_row(header))]
    rows.append((described_instance, _instance_row(header)))
    return [(_INSERTS[dialect_name][table], row) for table, row in rows]


def in_order(described: Iterable[tuple[Executable, dict[str, Any]]]) -> list[tuple[Executable, dict[str, Any]]]:
    """Each row once, in an order that is the same for everybody: who writes several never waits for somebody who waits for them."""
    rows: dict[tuple[str, ...], tuple[Executable, dict[str, Any]]] = {}
    for statement, row in described:
        key = tuple(row.get(f"{level}_instance_uid", "") for level in ("sop", "study", "series"))
        rows.setdefault(key, (statement, row))
    return [rows[key] for key in sorted(rows)]


def folded_name(value: object) -> str:
    """A person's name for matching: no case, no empty components at the end of a group."""
    groups = (
        "^".join(component.strip() for component in group.split("^")).rstrip("^")
        for group in str(value or "").split("=")
    )
    return "=".join(groups).rstrip("=").casefold()


def time_of(text: str) -> str:
    """A TM as HHMMSS.FFFFFF; "" for none (PS3.5 6.2, and the colons of older objects)."""
    found = re.fullmatch(r"(\d\d):?(\d\d)?:?(\d\d)?(?:\.(\d{1,6}))?", text.strip())
    if found is None:
        return ""
    hours, minutes, seconds, fraction = found.groups("")
    return f"{hours}{minutes or '00'}{seconds or '00'}.{fraction:0<6}"


def date_of(text: str) -> str:
    """A DA as YYYYMMDD; "" for none (PS3.5 6.2, and the dots of older objects)."""
    digits = text.strip().replace(".", "")
    return digits if re.fullmatch(r"\d{8}", digits, re.ASCII) else ""


def _study_row(header: Dataset) -> dict[str, Any]:
    return {
        "study_instance_uid": _text(header, "StudyInstanceUID"),
        "patient_name": folded_name(_text(header, "PatientName", 1000))[:324],
        "patient_id": _text(header, "PatientID"),
        "issuer_of_patient_id": _text(header, "IssuerOfPatientID"),
        "patient_birth_date": date_of(_text(header, "PatientBirthDate")),
        "patient_sex": _text(header, "PatientSex", 16),
        "study_date": date_of(_text(header, "StudyDate")),
        "study_time": time_of(_text(header, "StudyTime")),
        "accession_number": _text(header, "AccessionNumber"),
        "study_id": _text(header, "StudyID"),
        "study_description": _text(header, "StudyDescription"),
        "referring_physician_name": folded_name(_text(header, "ReferringPhysicianName", 1000))[:324],
        "attributes": _attributes(header, _OF_STUDY),
    }


def _series_row(header: Dataset) -> dict[str, Any]:
    request = _first_item(header, "RequestAttributesSequence")
    return {
        "study_instance_uid": _text(header, "StudyInstanceUID"),
        "series_instance_uid": _text(header, "SeriesInstanceUID"),
        "modality": _text(header, "Modality", 16),
        "series_number": number(header, "SeriesNumber"),
        "series_description": _text(header, "SeriesDescription"),
        "body_part_examined": _text(header, "BodyPartExamined", 16),
        "performed_procedure_step_start_date": date_of(_text(header, "PerformedProcedureStepStartDate")),
        "performed_procedure_step_start_time": time_of(_text(header, "PerformedProcedureStepStartTime")),
        "scheduled_procedure_step_id": _text(request, "ScheduledProcedureStepID"),
        "requested_procedure_id": _text(request, "RequestedProcedureID"),
        "attributes": _attributes(header, _OF_SERIES),
    }


def _instance_row(header: Dataset) -> dict[str, Any]:
    return {"sop_instance_uid": _text(header, "SOPInstanceUID"), "attributes": _attributes(header, _OF_INSTANCE)}


def number(header: Dataset, keyword: str) -> int:
    """An integer of 32 bits; 0 where there is none."""
    try:
        return max(-(2**31), min(2**31 - 1, int(header.get(keyword) or 0)))
    except Exception:  # readers raise anything on hostile values
        return 0


def _text(dataset: Dataset, keyword: str, most: int = 64) -> str:
    """Its values as text, so many characters at most."""
    try:
        value = dataset.get(keyword)
        text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str("" if value is None else value)
    except Exception:  # as above
        return ""
    # PostgreSQL takes no NUL, with which some pad, and no half of a surrogate pair.
    return text.replace("\0", "").encode("utf-8", "replace").decode().strip()[:most]


def _first_item(dataset: Dataset, keyword: str) -> Dataset:
    try:
        item = dataset[keyword][0]
    except Exception:  # it is absent or empty, or readers raise anything on hostile values
        return Dataset()
    return item if isinstance(item, Dataset) else Dataset()


def _attributes(header: Dataset, tags: frozenset[BaseTag]) -> str:
    encoded = dicom_json.encode(header, only=tags)
    return json.dumps(encoded, separators=(",", ":"))
