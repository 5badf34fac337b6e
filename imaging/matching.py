"""What can be searched for, and how values are compared (PS3.4 C.2.2.2, PS3.18 8.3.4.1.1): as conditions of SQL on the index."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, false, or_, select, true

from imaging.archive import Level
from imaging.index import date_of, folded_name, time_of
from imaging.tables import instance, series, study
from xds.values import is_oid

_MAX_WORDS = 20
_MAX_ASTERISKS = 8
_MAX_CODES = 500


class UnusableKey(ValueError):
    """A value by which an attribute cannot be searched for, with the reason."""


@dataclass(frozen=True, slots=True)
class Key:
    """An attribute that can be searched for, and how its values are compared."""

    level: Level
    column: ColumnElement[Any]
    kind: Literal["text", "name", "uid", "date", "time", "integer", "code"] = "text"


_REQUEST = "RequestAttributesSequence"
KEYS = {
    "StudyInstanceUID": Key("study", study.c.study_instance_uid, "uid"),
    "PatientName": Key("study", study.c.patient_name, "name"),
    "PatientID": Key("study", study.c.patient_id),
    "IssuerOfPatientID": Key("study", study.c.issuer_of_patient_id),
    "PatientBirthDate": Key("study", study.c.patient_birth_date, "date"),
    "PatientSex": Key("study", study.c.patient_sex, "code"),
    "StudyDate": Key("study", study.c.study_date, "date"),
    "StudyTime": Key("study", study.c.study_time, "time"),
    "AccessionNumber": Key("study", study.c.accession_number),
    "StudyID": Key("study", study.c.study_id),
    "StudyDescription": Key("study", study.c.study_description),
    "ReferringPhysicianName": Key("study", study.c.referring_physician_name, "name"),
    "ModalitiesInStudy": Key("study", series.c.modality, "code"),
    "SeriesInstanceUID": Key("series", series.c.series_instance_uid, "uid"),
    "Modality": Key("series", series.c.modality, "code"),
    "SeriesNumber": Key("series", series.c.series_number, "integer"),
    "SeriesDescription": Key("series", series.c.series_description),
    "BodyPartExamined": Key("series", series.c.body_part_examined, "code"),
    "PerformedProcedureStepStartDate": Key("series", series.c.performed_procedure_step_start_date, "date"),
    "PerformedProcedureStepStartTime": Key("series", series.c.performed_procedure_step_start_time, "time"),
    f"{_REQUEST}.ScheduledProcedureStepID": Key("series", series.c.scheduled_procedure_step_id),
    f"{_REQUEST}.RequestedProcedureID": Key("series", series.c.requested_procedure_id),
    "SOPClassUID": Key("instance", instance.c.sop_class_uid, "uid"),
    "SOPInstanceUID": Key("instance", instance.c.sop_instance_uid, "uid"),
    "InstanceNumber": Key("instance", instance.c.instance_number, "integer"),
}


def condition(keyword: str, value: str, fuzzy: bool) -> ColumnElement[bool]:
    """Whether an attribute, which is one of KEYS, has the value. UnusableKey for a value that it cannot have."""
    key = KEYS[keyword]
    compare = _fuzzy if fuzzy and key.kind == "name" else _COMPARISONS[key.kind]
    made = compare(keyword, key.column, value.strip())
    if keyword != "ModalitiesInStudy":
        return made
    # It matches where any of the series does (PS3.4 C.2.2.2.2 and table 10.6.1-3 of PS3.18), whatever series is searched for beside it.
    of_study = select(series.c.study_instance_uid).where(made).correlate(None)
    return study.c.study_instance_uid.in_(of_study)


def _text(_: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    if "*" in value or "?" in value:
        return column.like(_pattern(value), escape="/")
    return column == value


def _pattern(value: str) -> str:
    """For LIKE. UnusableKey for so many asterisks that comparing would take long."""
    value = re.sub(r"\*+", "*", value)
    if value.count("*") > _MAX_ASTERISKS:
        raise UnusableKey(f"{value[:40]!r} has more than {_MAX_ASTERISKS} asterisks")
    return re.sub(r"[/%_]", r"/\g<0>", value).replace("*", "%").replace("?", "_")


def _code(_: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Codes have neither commas nor backslashes in them, so that several may be given."""
    return or_(*(_text(_, column, one.strip()) for one in re.split(r"[,\\]", value)[:_MAX_CODES]))


def _name(_: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Any of the groups of a name, or all of them; case counts for nothing (PS3.4 C.2.2.2.1 allows that)."""
    pattern = _pattern(folded_name(value))
    return or_(*(column.like(one, escape="/") for one in (pattern, f"{pattern}=%", f"%={pattern}", f"%={pattern}=%")))


def _fuzzy(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    """Each word is the beginning of a word of the name, whatever the case."""
    words = [word for word in re.split(r"[\s^=,*?]+", folded_name(value)) if word]
    if len(words) > _MAX_WORDS:
        raise UnusableKey(f"{keyword} has more than {_MAX_WORDS} words")
    begins = [
        or_(*(column.like(f"{before}{_pattern(word)}%", escape="/") for before in ("", "%^", "% ", "%=")))
        for word in words
    ]
    return and_(true(), *begins)


def _uid(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    uids = [one.strip() for one in re.split(r"[,\\]", value) if one.strip()]
    for one in uids:
        if not is_oid(one):
            raise UnusableKey(f"{keyword}: {one[:80]!r} is no UID: at most 64 digits and dots, without wildcards")
    return column.in_(uids) if uids else false()


def _date(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    return _range(keyword, column, value, lambda text: (date_of(text), date_of(text)), "YYYYMMDD")


def _time(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    def bounds(text: str) -> tuple[str, str]:
        first = time_of(text)
        digits = re.sub(r"\D", "", text)
        # What is not said of the end may be anything: 10 means until 10:59:59.999999.
        last = digits + "595959999999"[len(digits) :]
        return first, f"{last[:6]}.{last[6:]}" if first else ""

    return _range(keyword, column, value, bounds, "HHMMSS.FFFFFF or its beginning")


def _range(
    keyword: str, column: ColumnElement[Any], value: str, bounds: Callable[[str], tuple[str, str]], form: str
) -> ColumnElement[bool]:
    first, hyphen, last = (one.strip() for one in value.partition("-"))
    first, last = first, last if hyphen else first
    conditions = [column != ""]
    for text, is_end in ((first, False), (last, True)):
        bound = bounds(text)[is_end] if text else ""
        if (text and not bound) or (not first and not last):
            raise UnusableKey(f"{keyword} is {value[:40]!r}; it must be {form}, or a range of them with a hyphen")
        if bound:
            conditions.append(column <= bound if is_end else column >= bound)
    return and_(*conditions)


def _integer(keyword: str, column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    if not re.fullmatch(r"[+-]?\d{1,10}", value, re.ASCII) or abs(int(value)) >= 2**31:
        raise UnusableKey(f"{keyword} is {value[:40]!r}; it must be a whole number of 32 bits, without wildcards")
    return column == int(value)


_COMPARISONS: dict[str, Callable[[str, ColumnElement[Any], str], ColumnElement[bool]]] = {
    "text": _text,
    "name": _name,
    "uid": _uid,
    "date": _date,
    "time": _time,
    "integer": _integer,
    "code": _code,
}
