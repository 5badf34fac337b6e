"""A metadata object as the row of its table: what queries compare, in the form in which they compare it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.columns import json_array
from schemas.attributes import Kind
from xds.metadata import Association, Author, DocumentEntry, Folder, RegistryObject, SubmissionSet
from xds.values import Code, Timestamp, normal

_SINGLE_CODES = (
    "class_code",
    "type_code",
    "format_code",
    "healthcare_facility_type_code",
    "practice_setting_code",
)


def row_of(one: RegistryObject, *, patient_id: str, status: str, body: bytes) -> dict[str, Any]:
    """The row of an object. `status` is "Approved" or "Deprecated"."""
    common: dict[str, Any] = {
        "patient_id": patient_id,
        "entry_uuid": one.entry_uuid,
        "status": status,
        "logical_id": one.logical_id or one.entry_uuid,
        "version": int(one.version or "1"),
        "latest": 1,
        "body": body,
    }
    match one:
        case DocumentEntry():
            return common | _document_entry(one)
        case SubmissionSet():
            return common | {
                "unique_id": _plain(one.unique_id),
                "source_id": _plain(one.source_id),
                "submission_time": _earliest(one.submission_time) or "",
                "content_type_code": _code(one.content_type_code),
                "author_person": _authors(one.author),
            }
        case Folder():
            return common | {
                "unique_id": _plain(one.unique_id),
                "last_update_time": _plain(one.last_update_time),
                "code_list": json_array(code.key for code in one.code_list),
            }
        case Association():
            return common | {
                "association_type": _plain(one.association_type),
                "source_object": _plain(one.source_object),
                "target_object": _plain(one.target_object),
            }


def identity_of(row: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """The row of registry_object for the row of an object. A first version, which most objects are, needs no logicalID there."""
    return {
        "entry_uuid": row["entry_uuid"],
        "kind": kind,
        "patient_id": row["patient_id"],
        "unique_id": row.get("unique_id"),
        "logical_id": None if row["logical_id"] == row["entry_uuid"] else str(row["logical_id"]),
    }


def _document_entry(one: DocumentEntry) -> dict[str, Any]:
    row: dict[str, Any] = {name: _code(getattr(one, name)) for name in _SINGLE_CODES}
    return row | {
        "object_type": _plain(one.object_type),
        "unique_id": _plain(one.unique_id),
        "hash": None if one.hash is None else str(one.hash).lower(),
        "size": _given(one.size),
        "event_code_list": json_array(code.key for code in one.event_code_list),
        "confidentiality_code": json_array(code.key for code in one.confidentiality_code),
        "author_person": _authors(one.author),
        "reference_id_list": json_array(one.reference_id_list),
        "creation_time": _earliest(one.creation_time),
        "service_start_time": _earliest(one.service_start_time),
        "service_stop_time": _earliest(one.service_stop_time),
        "source_patient_id": _given(one.source_patient_id),
        "document_availability": one.document_availability,
    }


def _plain(value: str | None) -> str:
    """The drivers take a str and not its subclasses; what a lenient registry may lack is empty."""
    return "" if value is None else str(value)


def _given(value: str | None) -> str | None:
    return None if value is None else str(value)


def _earliest(time: Timestamp | None) -> str | None:
    return None if time is None else str(time.earliest)


def _code(code: Code | None) -> str:
    return "" if code is None else normal(code.key)


def _authors(authors: tuple[Author, ...]) -> str:
    return json_array(author.author_person for author in authors if author.author_person)
