"""What can be searched for: studies, series and instances as their headers describe them, in tables of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from sqlalchemy import Connection, Executable, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from imaging import dicom_json
from imaging.tables import described_instance, instance, series, study

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


#: Statements with their values.
Described = list[tuple[Executable, dict[str, Any]]]
_INSERTS: Mapping[str, Mapping[Table, Executable]] = {
    "sqlite": {table: sqlite.insert(table).on_conflict_do_nothing() for table in (study, series, described_instance)},
    "postgresql": {
        table: postgresql.insert(table).on_conflict_do_nothing() for table in (study, series, described_instance)
    },
}


def described(header: Dataset, dialect_name: str) -> Described:
    """The statements, with their values, that describe an instance, its series and its study: to be run with the one that stores it.

    What is known stays: the first instance speaks for its series and study.
    """
    return [(_INSERTS[dialect_name][table], row) for table, row in _rows(header)]


def in_order(described: Iterable[tuple[Executable, dict[str, Any]]]) -> list[tuple[Executable, dict[str, Any]]]:
    """Each row once, in an order that is the same for everybody: who writes several never waits for somebody who waits for them."""
    rows: dict[tuple[str, ...], tuple[Executable, dict[str, Any]]] = {}
    for statement, row in described:
        key = tuple(row.get(f"{level}_instance_uid", "") for level in ("sop", "study", "series"))
        rows.setdefault(key, (statement, row))
    return [rows[key] for key in sorted(rows)]


def undescribed(connection: Connection, most: int) -> list[str]:
    """Some of the instances that are not described: at most so many."""
    known = select(described_instance.c.sop_instance_uid)
    missing = select(instance.c.sop_instance_uid).where(instance.c.sop_instance_uid.not_in(known))
    return list(connection.execute(missing.limit(most)).scalars())


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


def _rows(header: Dataset) -> Iterable[tuple[Table, dict[str, Any]]]:
    def text(keyword: str, most: int = 64) -> str:
        return _text(header, keyword)[:most]

    study_uid, series_uid = text("StudyInstanceUID"), text("SeriesInstanceUID")
    yield (
        study,
        {
            "study_instance_uid": study_uid,
            "patient_name": folded_name(_text(header, "PatientName"))[:324],
            "patient_id": text("PatientID"),
            "issuer_of_patient_id": text("IssuerOfPatientID"),
            "patient_birth_date": date_of(text("PatientBirthDate")),
            "patient_sex": text("PatientSex", 16),
            "study_date": date_of(text("StudyDate")),
            "study_time": time_of(text("StudyTime")),
            "accession_number": text("AccessionNumber"),
            "study_id": text("StudyID"),
            "study_description": text("StudyDescription"),
            "referring_physician_name": folded_name(_text(header, "ReferringPhysicianName"))[:324],
            "attributes": _attributes(header, STUDY_ATTRIBUTES),
        },
    )
    request = _first_item(header, "RequestAttributesSequence")
    yield (
        series,
        {
            "study_instance_uid": study_uid,
            "series_instance_uid": series_uid,
            "modality": text("Modality", 16),
            "series_number": number(header, "SeriesNumber"),
            "series_description": text("SeriesDescription"),
            "body_part_examined": text("BodyPartExamined", 16),
            "performed_procedure_step_start_date": date_of(text("PerformedProcedureStepStartDate")),
            "performed_procedure_step_start_time": time_of(text("PerformedProcedureStepStartTime")),
            "scheduled_procedure_step_id": _text(request, "ScheduledProcedureStepID")[:64],
            "requested_procedure_id": _text(request, "RequestedProcedureID")[:64],
            "attributes": _attributes(header, SERIES_ATTRIBUTES),
        },
    )
    yield (
        described_instance,
        {"sop_instance_uid": text("SOPInstanceUID"), "attributes": _attributes(header, INSTANCE_ATTRIBUTES)},
    )


def number(header: Dataset, keyword: str) -> int:
    """An integer of 32 bits; 0 where there is none."""
    try:
        return max(-(2**31), min(2**31 - 1, int(header.get(keyword) or 0)))
    except Exception:  # readers raise anything on hostile values
        return 0


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        value = dataset.get(keyword)
        text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str("" if value is None else value)
    except Exception:  # as above
        return ""
    # PostgreSQL takes no NUL, with which some pad, and no half of a surrogate pair.
    return text.replace("\0", "").encode("utf-8", "replace").decode().strip()


def _first_item(dataset: Dataset, keyword: str) -> Dataset:
    try:
        item = dataset[keyword][0]
    except Exception:  # it is absent or empty, or readers raise anything on hostile values
        return Dataset()
    return item if isinstance(item, Dataset) else Dataset()


def _attributes(header: Dataset, keywords: Iterable[str]) -> str:
    encoded = dicom_json.encode(header, only=frozenset(map(Tag, keywords)))
    return json.dumps(encoded, separators=(",", ":"))
