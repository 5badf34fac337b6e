"""C-FIND: the matches of an identifier among what is stored (PS3.4 C.4.1), compared as QIDO-RS compares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from sqlalchemy import ColumnElement, Engine, func, select

from imaging import searching
from imaging.archive import LEVELS, Level
from imaging.dicom_json import Json
from imaging.matching import KEYS, UnusableKey, condition
from imaging.publication.rejections import Rejected
from imaging.query_retrieve.identifiers import UNIQUE, Asked, QueryLevel, WrongIdentifier
from imaging.tables import study

_INDEX_LEVELS: dict[QueryLevel, Level] = {
    "PATIENT": "study",
    "STUDY": "study",
    "SERIES": "series",
    "IMAGE": "instance",
}
_OF_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
#: They are said of every match, and not compared.
_SAID = frozenset({"SpecificCharacterSet", "RetrieveAETitle", "InstanceAvailability"})


#: Most values that a list is compared with: each is a parameter of the statement, of which databases take some ten thousand.
_MAX_LISTED = 10_000


@dataclass(frozen=True, slots=True)
class Matches:
    """`count` matches, each made when its turn comes.

    `more`: there are more than these. `partial`: some of what was asked for is neither compared nor known here.
    """

    found: Iterator[Dataset]
    count: int
    more: bool
    partial: bool


def find(asked: Asked, *, reading: Engine, rejected: Rejected, most: int, ae_title: str) -> Matches:
    """The first `most` matches, which are to be retrieved from `ae_title`. WrongIdentifier for what cannot be compared.

    `reading` has the index, and reads in AUTOCOMMIT.
    """
    level = _INDEX_LEVELS[asked.level]
    compared = {keyword: value for keyword, value in asked.keys.items() if _is_compared(keyword, value, asked.level)}
    for keyword, value in compared.items():
        if value.count("\\") >= _MAX_LISTED:
            raise WrongIdentifier(f"{keyword} has more than {_MAX_LISTED} values")
    # What is above is one value that has no wildcards.
    try:
        conditions = [condition(keyword, value, False) for keyword, value in (asked.above | compared).items()]
    except UnusableKey as error:
        raise WrongIdentifier(str(error)) from None
    rejected(())  # notes that came this moment count too
    statement = searching.matches(level, _one_of_each_patient(conditions) if asked.level == "PATIENT" else conditions)
    with reading.connect() as connection:
        rows = connection.execute(statement.limit(most + 1)).all()
        more, rows = len(rows) > most, rows[:most]
        counts = searching.counts(connection.execute, rows)
    known = _known(asked.level)
    asked_for = [keyword for keyword in asked.keys if "." not in keyword]
    told = [keyword for keyword in asked_for if keyword in known]
    partial = len(told) < len(asked_for) or any(
        _narrows(keyword, value) and keyword not in compared for keyword, value in asked.keys.items()
    )
    told = list(dict.fromkeys([*told, *asked.above, UNIQUE[asked.level]]))
    found = (_told(asked.level, told, searching.attributes(level, row, counts), ae_title) for row in rows)
    return Matches(found, len(rows), more, partial)


def _known(level: QueryLevel) -> frozenset[str]:
    if level == "PATIENT":
        return frozenset(_OF_PATIENT) | _SAID
    return frozenset(searching.ANSWERED[_INDEX_LEVELS[level]]) | _SAID


def _narrows(keyword: str, value: str) -> bool:
    """Whether it asks for less than everything: asterisks alone do not, whatever the attribute."""
    return bool(value.strip("* ")) and keyword not in _SAID


def _is_compared(keyword: str, value: str, level: QueryLevel) -> bool:
    key = KEYS.get(keyword)
    if key is None or not _narrows(keyword, value):
        return False
    if level == "PATIENT":
        return keyword in _OF_PATIENT
    return LEVELS.index(key.level) <= LEVELS.index(_INDEX_LEVELS[level])


def _one_of_each_patient(conditions: Sequence[ColumnElement[bool]]) -> list[ColumnElement[bool]]:
    """One study of each patient of whom any fits."""
    fitting = select(func.max(study.c.study_instance_uid)).where(*conditions)
    grouped = fitting.group_by(study.c.patient_id, study.c.issuer_of_patient_id).correlate(None)
    return [study.c.study_instance_uid.in_(grouped)]


def _told(level: QueryLevel, keywords: Sequence[str], match: Json, ae_title: str) -> Dataset:
    """A match with what was asked for."""
    chosen = {keyword: match.get(f"{tag_for_keyword(keyword):08X}") for keyword in keywords if keyword not in _SAID}
    answer = Dataset()
    if not json.dumps(chosen, ensure_ascii=False).isascii():
        answer.SpecificCharacterSet = "ISO_IR 192"
    answer.QueryRetrieveLevel = level
    answer.RetrieveAETitle = ae_title
    if "InstanceAvailability" in keywords:
        answer.InstanceAvailability = "ONLINE"
    for keyword, attribute in chosen.items():
        answer.update(_element(keyword, attribute))
    return answer


def _element(keyword: str, attribute: Any) -> Dataset:
    """One attribute; empty where there is none, or none that can be written."""
    tag = tag_for_keyword(keyword)
    assert tag is not None
    vr = dictionary_VR(tag)
    told = Dataset()
    told.add_new(tag, vr, [] if vr == "SQ" else None)
    if attribute is not None:
        # Of what a modality wrote pydicom says in many ways that it is no such value.
        with suppress(Exception):
            told = Dataset.from_json({f"{tag:08X}": attribute})
    return told
