"""One SELECT per stored query, built once for each shape of its parameters (ITI TF-2 3.18.4.1.2.3.7).

Every function gives a statement and the parameters to bind; nothing of a query ever becomes SQL text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, and_, bindparam, exists, or_, select

from registry.tables import association, document_entry, folder, object_value, registry_object, submission_set
from xds.queries import Codes, FindDocuments, FindSubmissionSets
from xds.values import Timestamp, normal

Bound = tuple[Select[Any], dict[str, Any]]

_SINGLE_CODES = (
    "class_code",
    "type_code",
    "format_code",
    "healthcare_facility_type_code",
    "practice_setting_code",
)
_MULTI_CODES = {"event_code_list": "eventCodeList", "confidentiality_code": "confidentialityCode"}
_TIMES = ("creation_time", "service_start_time", "service_stop_time")


def _among(column: Column[Any] | ColumnElement[Any], name: str) -> ColumnElement[bool]:
    return column.in_(bindparam(name, expanding=True))


def _has_value(table: Table, attribute: str, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """That the object has a value of the attribute in the side table that meets the condition."""
    return exists(
        select(object_value.c.value).where(
            object_value.c.patient_id == table.c.patient_id,
            object_value.c.entry_uuid == table.c.entry_uuid,
            object_value.c.attribute == attribute,
            condition,
        )
    )


def _authors(table: Table, count: int) -> ColumnElement[bool]:
    patterns = [object_value.c.value.like(bindparam(f"author_{n}"), escape="\\") for n in range(count)]
    return _has_value(table, "authorPerson", or_(*patterns))


def _bind_authors(patterns: Sequence[str]) -> dict[str, str]:
    # Only % and _ are wildcards; a backslash is a backslash (ITI TF-2 3.18.4.1.2.3.3).
    return {f"author_{n}": normal(pattern).replace("\\", "\\\\") for n, pattern in enumerate(patterns)}


def _columns(table: Table) -> tuple[ColumnElement[Any], ...]:
    return table.c.entry_uuid, table.c.patient_id, table.c.status, table.c.body


def find_documents(query: FindDocuments) -> Bound:
    """The DocumentEntries of a patient."""
    bound: dict[str, Any] = {
        "patient": str(query.patient_id),
        "status": list(query.status),
        "object_type": list(query.object_type),
    }
    codes = tuple(name for name in _SINGLE_CODES if getattr(query, name))
    bound |= {name: [code for group in getattr(query, name) for code in group] for name in codes}
    groups = tuple((name, len(getattr(query, name))) for name in _MULTI_CODES if getattr(query, name))
    for name, _ in groups:
        bound |= {f"{name}_{n}": list(group) for n, group in enumerate(getattr(query, name))}
    times = tuple(
        f"{name}_{side}" for name in _TIMES for side in ("from", "to") if getattr(query, f"{name}_{side}") is not None
    )
    bound |= {name: Timestamp(getattr(query, name)).earliest for name in times}
    bound |= _bind_authors(query.author_person)
    return _find_documents(codes, groups, times, len(query.author_person)), bound


@lru_cache(maxsize=256)
def _find_documents(
    codes: tuple[str, ...], groups: tuple[tuple[str, int], ...], times: tuple[str, ...], authors: int
) -> Select[Any]:
    table = document_entry
    conditions = [
        table.c.patient_id == bindparam("patient"),
        _among(table.c.status, "status"),
        _among(table.c.object_type, "object_type"),
        *(_among(table.c[name], name) for name in codes),
        *(
            _has_value(table, _MULTI_CODES[name], _among(object_value.c.value, f"{name}_{n}"))
            for name, count in groups
            for n in range(count)
        ),
        *(_in_time(table, name) for name in times),
    ]
    if authors:
        conditions.append(_authors(table, authors))
    return select(*_columns(table)).where(and_(*conditions))


def _in_time(table: Table, name: str) -> ColumnElement[bool]:
    """`from <= value < to`. An entry without a service time matches (ITI TF-2 3.18.4.1.2.3.7.1)."""
    field, _, side = name.rpartition("_")
    column = table.c[field]
    inside = column >= bindparam(name) if side == "from" else column < bindparam(name)
    return inside if field == "creation_time" else or_(column.is_(None), inside)


def find_submission_sets(query: FindSubmissionSets) -> Bound:
    """The SubmissionSets of a patient."""
    bound: dict[str, Any] = {"patient": str(query.patient_id), "status": list(query.status)}
    table = submission_set
    conditions = [table.c.patient_id == bindparam("patient"), _among(table.c.status, "status")]
    if query.source_id:
        conditions.append(_among(table.c.source_id, "source_id"))
        bound["source_id"] = list(query.source_id)
    if query.content_type:
        conditions.append(_among(table.c.content_type, "content_type"))
        bound["content_type"] = _flat(query.content_type)
    if query.submission_time_from is not None:
        conditions.append(table.c.submission_time >= bindparam("time_from"))
        bound["time_from"] = query.submission_time_from.earliest
    if query.submission_time_to is not None:
        conditions.append(table.c.submission_time < bindparam("time_to"))
        bound["time_to"] = query.submission_time_to.earliest
    if query.author_person:
        conditions.append(_authors(table, len(query.author_person)))
        bound |= _bind_authors(query.author_person)
    return select(*_columns(table)).where(and_(*conditions)), bound


def _flat(codes: Codes) -> list[str]:
    return [code for group in codes for code in group]


def of_patient(table: Table, patient_id: str, statuses: Sequence[str]) -> Bound:
    """The objects of a class and a patient, by status: for SubmissionSets and Folders."""
    return _of_patient(table), {"patient": str(patient_id), "status": list(statuses)}


@lru_cache(maxsize=8)
def _of_patient(table: Table) -> Select[Any]:
    columns = [*_columns(table), *([table.c.last_update_time] if table is folder else [])]
    return select(*columns).where(table.c.patient_id == bindparam("patient"), _among(table.c.status, "status"))


def by_ids(table: Table, entry_uuids: Sequence[str]) -> Bound:
    """Objects of a class by entryUUID, their patients found by the way."""
    return _by_ids(table), {"ids": list(entry_uuids)}


@lru_cache(maxsize=8)
def _by_ids(table: Table) -> Select[Any]:
    columns = [*_columns(table)]
    if table is folder:
        columns.append(table.c.last_update_time)
    if table is association:
        columns += [table.c.source_object, table.c.target_object, table.c.association_type]
    join = registry_object.join(
        table,
        and_(
            table.c.patient_id == registry_object.c.patient_id,
            table.c.entry_uuid == registry_object.c.entry_uuid,
        ),
    )
    return select(*columns).select_from(join).where(_among(registry_object.c.entry_uuid, "ids"))


def entries_by_unique_ids(unique_ids: Sequence[str]) -> Bound:
    """DocumentEntries by uniqueId; several may share one (ITI TF-2 3.18.4.1.2.3.7.5)."""
    return _entries_by_unique_ids(), {"ids": list(unique_ids)}


@lru_cache(maxsize=1)
def _entries_by_unique_ids() -> Select[Any]:
    table = document_entry
    join = registry_object.join(
        table,
        and_(
            table.c.patient_id == registry_object.c.patient_id,
            table.c.entry_uuid == registry_object.c.entry_uuid,
        ),
    )
    return select(*_columns(table)).select_from(join).where(_among(registry_object.c.unique_id, "ids"))


def associations_from(source: str) -> Bound:
    """The associations of which an object is the source."""
    return _associations("source_object"), {"ids": [source]}


def associations_touching(entry_uuids: Sequence[str], end: str) -> Bound:
    """The associations of which one of the objects is the source or the target, as `end` says."""
    return _associations(end), {"ids": list(entry_uuids)}


@lru_cache(maxsize=2)
def _associations(end: str) -> Select[Any]:
    table = association
    return select(*_columns(table), table.c.source_object, table.c.target_object, table.c.association_type).where(
        _among(table.c[end], "ids")
    )


def filtered_entries(
    entry_uuids: Sequence[str], format_code: Codes, confidentiality_code: Codes, object_type: Sequence[str]
) -> Bound:
    """DocumentEntries by entryUUID, filtered as GetAll and GetSubmissionSetAndContents filter them."""
    bound: dict[str, Any] = {"ids": list(entry_uuids), "object_type": list(object_type)}
    statement = _by_ids(document_entry).where(_among(document_entry.c.object_type, "object_type"))
    if format_code:
        statement = statement.where(_among(document_entry.c.format_code, "format_code"))
        bound["format_code"] = _flat(format_code)
    for n, group in enumerate(confidentiality_code):
        value = _among(object_value.c.value, f"confidentiality_{n}")
        statement = statement.where(_has_value(document_entry, "confidentialityCode", value))
        bound[f"confidentiality_{n}"] = list(group)
    return statement, bound


def submission_set_by_unique_id(unique_id: str) -> Bound:
    """A SubmissionSet by uniqueId."""
    join = registry_object.join(
        submission_set,
        and_(
            submission_set.c.patient_id == registry_object.c.patient_id,
            submission_set.c.entry_uuid == registry_object.c.entry_uuid,
        ),
    )
    statement = select(*_columns(submission_set)).select_from(join)
    return statement.where(registry_object.c.unique_id == bindparam("unique_id")), {"unique_id": unique_id}
