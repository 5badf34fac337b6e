"""One dataclass per stored query (ITI TF-2 3.18.4.1.2.3.7): its id, and its parameters as typed attributes.

A coded parameter is a tuple of groups: the values of a group are alternatives (OR), and every group must match (AND). A parameter
that knows no AND has at most one group. An attribute left at None or () sets no condition.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from xds.values import Identifier, Timestamp
from xds.vocabulary import STABLE, Status


class ReturnType(StrEnum):
    OBJECT_REF = "ObjectRef"
    LEAF_CLASS = "LeafClass"


#: `code^^scheme` alternatives, in groups of which each must match.
Codes = tuple[tuple[str, ...], ...]
APPROVED_ONLY = (str(Status.APPROVED),)
STABLE_ONLY = (STABLE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    return_type: ReturnType = ReturnType.LEAF_CLASS


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDocuments(_Asked):
    """DocumentEntries of a patient (3.18.4.1.2.3.7.1).

    A time range is `from <= value < to`; an entry without a service time matches any.
    """

    query_id: ClassVar[str] = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"

    patient_id: Identifier
    status: tuple[str, ...] = APPROVED_ONLY
    class_code: Codes = ()
    type_code: Codes = ()
    practice_setting_code: Codes = ()
    creation_time_from: Timestamp | None = None
    creation_time_to: Timestamp | None = None
    service_start_time_from: Timestamp | None = None
    service_start_time_to: Timestamp | None = None
    service_stop_time_from: Timestamp | None = None
    service_stop_time_to: Timestamp | None = None
    healthcare_facility_type_code: Codes = ()
    event_code_list: Codes = ()
    confidentiality_code: Codes = ()
    author_person: tuple[str, ...] = ()
    format_code: Codes = ()
    object_type: tuple[str, ...] = STABLE_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class FindSubmissionSets(_Asked):
    """SubmissionSets of a patient (3.18.4.1.2.3.7.2)."""

    query_id: ClassVar[str] = "urn:uuid:f26abbcb-ac74-4422-8a30-edb644bbc1a9"

    patient_id: Identifier
    status: tuple[str, ...] = APPROVED_ONLY
    source_id: tuple[str, ...] = ()
    submission_time_from: Timestamp | None = None
    submission_time_to: Timestamp | None = None
    author_person: tuple[str, ...] = ()
    content_type: Codes = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GetAll(_Asked):
    """Everything of a patient, with all associations that touch it (3.18.4.1.2.3.7.4)."""

    query_id: ClassVar[str] = "urn:uuid:10b545ea-725c-446d-9b95-8aeb444eddf3"

    patient_id: Identifier
    document_entry_status: tuple[str, ...] = APPROVED_ONLY
    submission_set_status: tuple[str, ...] = APPROVED_ONLY
    folder_status: tuple[str, ...] = APPROVED_ONLY
    format_code: Codes = ()
    confidentiality_code: Codes = ()
    object_type: tuple[str, ...] = STABLE_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDocuments(_Asked):
    """DocumentEntries by entryUUID or by uniqueId, one of the two (3.18.4.1.2.3.7.5)."""

    query_id: ClassVar[str] = "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4"

    entry_uuid: tuple[str, ...] = ()
    unique_id: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GetSubmissionSetAndContents(_Asked):
    """A SubmissionSet by entryUUID or by uniqueId, its members, and the associations among what is returned (3.18.4.1.2.3.7.10)."""

    query_id: ClassVar[str] = "urn:uuid:e8e3cb2c-e39c-46b9-99e4-c12f57260b83"

    entry_uuid: str | None = None
    unique_id: str | None = None
    format_code: Codes = ()
    confidentiality_code: Codes = ()
    object_type: tuple[str, ...] = STABLE_ONLY


StoredQuery = FindDocuments | FindSubmissionSets | GetAll | GetDocuments | GetSubmissionSetAndContents
