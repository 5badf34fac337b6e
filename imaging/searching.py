"""Searches of the index, whoever asks: the matches of a level, what they are, and what is counted of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select

from imaging import dicom_json
from imaging.archive import Level
from imaging.index import INSTANCE_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES
from imaging.publication import publication_tables
from imaging.tables import described_instance, instance, series, study

_CHUNK_UIDS = 500
_NOT_REJECTED = instance.c.sop_instance_uid.not_in(select(publication_tables.rejected.c.sop_instance_uid))
_OF_STUDY = (
    *(*STUDY_ATTRIBUTES, "SpecificCharacterSet", "InstanceAvailability"),
    *("ModalitiesInStudy", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances"),
)
_OF_SERIES = (*_OF_STUDY, *SERIES_ATTRIBUTES, "NumberOfSeriesRelatedInstances")
#: The keywords of what a match of each level may have.
ANSWERED: dict[Level, Sequence[str]] = {
    "study": _OF_STUDY,
    "series": _OF_SERIES,
    "instance": (*_OF_SERIES, *INSTANCE_ATTRIBUTES, "AvailableTransferSyntaxUID"),
}


def matches(level: Level, conditions: Sequence[ColumnElement[bool]]) -> Select[Any]:
    """The statement that finds the studies, series or instances for which all conditions hold, in an order that is always the same."""
    conditions = list(conditions)
    columns: list[ColumnElement[Any]] = [study.c.study_instance_uid, study.c.attributes.label("study_attributes")]
    source: Any = study
    # In each order the first column is that of an index, so that not everything is sorted for a page. The newest study is the first.
    order: list[ColumnElement[Any]] = [study.c.study_date.desc(), study.c.study_instance_uid.desc()]
    if level != "study":
        source = study.join(series, series.c.study_instance_uid == study.c.study_instance_uid)
        columns += [series.c.series_instance_uid, series.c.attributes.label("series_attributes")]
        order = [series.c.study_instance_uid, series.c.series_number, series.c.series_instance_uid]
    if level == "instance":
        same = and_(
            instance.c.study_instance_uid == series.c.study_instance_uid,
            instance.c.series_instance_uid == series.c.series_instance_uid,
        )
        of_it = described_instance.c.sop_instance_uid == instance.c.sop_instance_uid
        source = source.join(instance, same).join(described_instance, of_it)
        columns += [instance.c.sop_instance_uid, instance.c.transfer_syntax_uid]
        columns.append(described_instance.c.attributes.label("instance_attributes"))
        order = [instance.c.study_instance_uid, instance.c.series_number, instance.c.series_instance_uid]
        order += [instance.c.instance_number, instance.c.sop_instance_uid]
        conditions.append(_NOT_REJECTED)
    return select(*columns).select_from(source).where(*conditions).order_by(*order)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of the studies and series of an answer: modalities, how many series, how many instances (by study, series)."""

    modalities: dict[str, list[str]]
    series: dict[str, int]
    instances: dict[tuple[str, str], int]
    of_studies: dict[str, int]


def counts(execute: Callable[[Select[Any]], Any], rows: Sequence[Any]) -> Counts:
    """What is counted of these matches. What is rejected does not count."""
    counts = Counts({}, {}, {}, {})
    uids = list(dict.fromkeys(row.study_instance_uid for row in rows))
    for start in range(0, len(uids), _CHUNK_UIDS):
        some = uids[start : start + _CHUNK_UIDS]
        by_study = series.c.study_instance_uid.in_(some)
        for uid, modality in execute(select(series.c.study_instance_uid, series.c.modality).where(by_study)):
            counts.series[uid] = counts.series.get(uid, 0) + 1
            known = counts.modalities.setdefault(uid, [])
            if modality and modality not in known:
                known.append(modality)
        keys = (instance.c.study_instance_uid, instance.c.series_instance_uid)
        counted = select(*keys, func.count()).where(keys[0].in_(some), _NOT_REJECTED).group_by(*keys)
        for uid, series_uid, number in execute(counted):
            counts.instances[uid, series_uid] = number
            counts.of_studies[uid] = counts.of_studies.get(uid, 0) + number
    return counts


def attributes(level: Level, row: Any, counts: Counts) -> dicom_json.Json:
    """One match: its own attributes, those of what it belongs to, and what was counted."""
    uid = row.study_instance_uid
    found = dict(json.loads(row.study_attributes))
    found["00080061"] = dicom_json.texts("CS", sorted(counts.modalities.get(uid, [])))
    found["00201206"] = dicom_json.texts("IS", [counts.series.get(uid, 0)])
    found["00201208"] = dicom_json.texts("IS", [counts.of_studies.get(uid, 0)])
    if level != "study":
        found |= json.loads(row.series_attributes)
        found["00201209"] = dicom_json.texts("IS", [counts.instances.get((uid, row.series_instance_uid), 0)])
    if level == "instance":
        found |= json.loads(row.instance_attributes)
        found["00083002"] = dicom_json.texts("UI", [row.transfer_syntax_uid])
    found["00080056"] = dicom_json.texts("CS", ["ONLINE"])
    return found
