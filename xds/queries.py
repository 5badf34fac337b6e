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


#: `code^^scheme` alternatives (or CXi ones, for referenceIdList), in groups of which each must match.
Codes = tuple[tuple[str, ...], ...]
APPROVED_ONLY = (str(Status.APPROVED),)
STABLE_ONLY = (STABLE,)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What every query has.

    `metadata_level` 1 knows only the latest version of each logical object, 2 knows all (Metadata Update supplement, 3.18.4.1.2.3.5.1).
    `home_community_id` is the community that is asked, None where it was not named.
    """

    return_type: ReturnType = ReturnType.LEAF_CLASS
    metadata_level: int = 1
    home_community_id: str | None = None


# --- Find: what a patient has -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _DocumentEntries(_Asked):
    """The conditions on DocumentEntries.

    A time range is `from <= value < to`; an entry without a service time matches any, and creationTime is not asked of an On-Demand
    entry, which has none.
    """

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
    document_availability: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDocuments(_DocumentEntries):
    """DocumentEntries of a patient (3.18.4.1.2.3.7.1)."""

    query_id: ClassVar[str] = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"

    patient_id: Identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDocumentsByReferenceId(_DocumentEntries):
    """DocumentEntries of a patient that refer to something, each identifier compared as a whole (3.18.4.1.2.3.7.14)."""

    query_id: ClassVar[str] = "urn:uuid:12941a89-e02e-4be5-967c-ce4bfc8fe492"

    patient_id: Identifier
    reference_id_list: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDocumentsExclude(_DocumentEntries):
    """DocumentEntries of a patient, without those that an `exclude` condition fits.

    A condition and its `exclude` may not both be given. Where `object_type_exclude` is given, `object_type` does not count.
    """

    query_id: ClassVar[str] = "urn:uuid:4308b1df-36de-4bef-8e2e-ba91f593c435"

    patient_id: Identifier
    reference_id_list: Codes = ()
    class_code_exclude: Codes = ()
    type_code_exclude: Codes = ()
    practice_setting_code_exclude: Codes = ()
    healthcare_facility_type_code_exclude: Codes = ()
    event_code_list_exclude: Codes = ()
    confidentiality_code_exclude: Codes = ()
    author_person_exclude: tuple[str, ...] = ()
    format_code_exclude: Codes = ()
    object_type_exclude: tuple[str, ...] = ()
    reference_id_list_exclude: Codes = ()


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
class _Folders(_Asked):
    status: tuple[str, ...] = APPROVED_ONLY
    last_update_time_from: Timestamp | None = None
    last_update_time_to: Timestamp | None = None
    code_list: Codes = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FindFolders(_Folders):
    """Folders of a patient (3.18.4.1.2.3.7.3)."""

    query_id: ClassVar[str] = "urn:uuid:958f3006-baad-4929-a4de-ff1114824431"

    patient_id: Identifier


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
    association_status: tuple[str, ...] = APPROVED_ONLY


# --- Find for multiple patients: ITI-51 -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDocumentsForMultiplePatients(_DocumentEntries):
    """DocumentEntries of several patients, or of all (3.51.4.1.2.3.1).

    At least one of patient_id, class_code, event_code_list and healthcare_facility_type_code must be given.
    """

    query_id: ClassVar[str] = "urn:uuid:3d1bdb10-39a2-11de-89c2-2f44d94eaa9f"

    patient_id: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FindDocumentsByReferenceIdForMultiplePatients(_DocumentEntries):
    """DocumentEntries of several patients, or of all, that refer to something."""

    query_id: ClassVar[str] = "urn:uuid:1191642d-86c4-42d8-b784-f95445f9f0d5"

    patient_id: tuple[Identifier, ...] = ()
    reference_id_list: Codes


@dataclass(frozen=True, slots=True, kw_only=True)
class FindFoldersForMultiplePatients(_Folders):
    """Folders of several patients, or of all (3.51.4.1.2.3.2). At least one of patient_id and code_list must be given."""

    query_id: ClassVar[str] = "urn:uuid:50d3f5ac-39a2-11de-a1ca-b366239e58df"

    patient_id: tuple[Identifier, ...] = ()


# --- Get: objects by their ids, and what belongs to them ---------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDocuments(_Asked):
    """DocumentEntries by entryUUID, by uniqueId, or at level 2 by logicalID: one of the three (3.18.4.1.2.3.7.5)."""

    query_id: ClassVar[str] = "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4"

    entry_uuid: tuple[str, ...] = ()
    unique_id: tuple[str, ...] = ()
    logical_id: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GetFolders(_Asked):
    """Folders by entryUUID, by uniqueId, or at level 2 by logicalID: one of the three (3.18.4.1.2.3.7.6)."""

    query_id: ClassVar[str] = "urn:uuid:5737b14c-8a1a-4539-b659-e03a34a5e1e4"

    entry_uuid: tuple[str, ...] = ()
    unique_id: tuple[str, ...] = ()
    logical_id: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GetAssociations(_Asked):
    """The Associations that one of the objects is an end of (3.18.4.1.2.3.7.7)."""

    query_id: ClassVar[str] = "urn:uuid:a7ae438b-4bc2-4642-93e9-be891f7bb155"

    uuid: tuple[str, ...]
    association_status: tuple[str, ...] = APPROVED_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDocumentsAndAssociations(_Asked):
    """DocumentEntries by entryUUID or by uniqueId, and the Associations that they are an end of (3.18.4.1.2.3.7.8)."""

    query_id: ClassVar[str] = "urn:uuid:bab9529a-4a10-40b3-a01f-f68a615d247a"

    entry_uuid: tuple[str, ...] = ()
    unique_id: tuple[str, ...] = ()
    association_status: tuple[str, ...] = APPROVED_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class GetSubmissionSets(_Asked):
    """The SubmissionSets that DocumentEntries and Folders were submitted in, with the HasMember between (3.18.4.1.2.3.7.9)."""

    query_id: ClassVar[str] = "urn:uuid:51224314-5390-4169-9b91-b1980040715a"

    uuid: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents(_Asked):
    """What is asked of something that has contents, by its entryUUID or its uniqueId: the filters are on its DocumentEntries."""

    entry_uuid: str | None = None
    unique_id: str | None = None
    format_code: Codes = ()
    confidentiality_code: Codes = ()
    object_type: tuple[str, ...] = STABLE_ONLY
    association_status: tuple[str, ...] = APPROVED_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class GetSubmissionSetAndContents(_Contents):
    """A SubmissionSet by entryUUID or by uniqueId, its members, and the associations among what is returned (3.18.4.1.2.3.7.10)."""

    query_id: ClassVar[str] = "urn:uuid:e8e3cb2c-e39c-46b9-99e4-c12f57260b83"


@dataclass(frozen=True, slots=True, kw_only=True)
class GetFolderAndContents(_Contents):
    """A Folder by entryUUID or by uniqueId, its DocumentEntries, and the HasMember between (3.18.4.1.2.3.7.11)."""

    query_id: ClassVar[str] = "urn:uuid:b909a503-523d-4517-8acf-8e5834dfc4c7"


@dataclass(frozen=True, slots=True, kw_only=True)
class GetFoldersForDocument(_Asked):
    """The Folders that a DocumentEntry is in, by its entryUUID or its uniqueId (3.18.4.1.2.3.7.12)."""

    query_id: ClassVar[str] = "urn:uuid:10cae35a-c7f9-4cf5-b61e-fc3278ffb578"

    entry_uuid: str | None = None
    unique_id: str | None = None
    association_status: tuple[str, ...] = APPROVED_ONLY


@dataclass(frozen=True, slots=True, kw_only=True)
class GetRelatedDocuments(_Asked):
    """The DocumentEntries that one is related to, itself, and the Associations between (3.18.4.1.2.3.7.13).

    `association_types` are whole URNs. Where nothing is related, nothing is found.
    """

    query_id: ClassVar[str] = "urn:uuid:d90e5407-b356-4d91-a89f-873917b4b0e6"

    association_types: tuple[str, ...]
    entry_uuid: str | None = None
    unique_id: str | None = None
    object_type: tuple[str, ...] = STABLE_ONLY
    association_status: tuple[str, ...] = APPROVED_ONLY


MultiPatientQuery = (
    FindDocumentsForMultiplePatients | FindDocumentsByReferenceIdForMultiplePatients | FindFoldersForMultiplePatients
)
"""The queries of ITI-51; all others are ITI-18's."""

StoredQuery = (
    FindDocuments
    | FindDocumentsByReferenceId
    | FindDocumentsExclude
    | FindSubmissionSets
    | FindFolders
    | GetAll
    | GetDocuments
    | GetFolders
    | GetAssociations
    | GetDocumentsAndAssociations
    | GetSubmissionSets
    | GetSubmissionSetAndContents
    | GetFolderAndContents
    | GetFoldersForDocument
    | GetRelatedDocuments
    | MultiPatientQuery
)
