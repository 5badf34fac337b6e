"""The parameters of each stored query: one table, read in both directions (ITI TF-2 3.18.4.1.2.3.7, 3.51.4.1.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from xds.queries import (
    FindDocuments,
    FindDocumentsByReferenceId,
    FindDocumentsByReferenceIdForMultiplePatients,
    FindDocumentsExclude,
    FindDocumentsForMultiplePatients,
    FindFolders,
    FindFoldersForMultiplePatients,
    FindSubmissionSets,
    GetAll,
    GetAssociations,
    GetDocuments,
    GetDocumentsAndAssociations,
    GetFolderAndContents,
    GetFolders,
    GetFoldersForDocument,
    GetRelatedDocuments,
    GetSubmissionSetAndContents,
    GetSubmissionSets,
    StoredQuery,
)

#: How many values one request may list, over all its parameters.
MAX_VALUES = 10_000
#: How many values may be listed of a parameter that is compared value by value: with codes and references of which an object has
#: several, and with the patterns of authors.
MAX_ALTERNATIVES = 256

Syntax = Literal["patient", "text", "pattern", "time", "code", "reference", "uuid", "status", "type", "level"]
#: Syntaxes whose values stay in their AND groups.
GROUPED: frozenset[Syntax] = frozenset({"code", "reference"})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a stored query: the slot's name, the syntax of its values, whether several are OR, repeated slots AND."""

    name: str
    syntax: Syntax
    required: bool = False
    many: bool = False
    and_or: bool = False

    @property
    def most(self) -> int:
        """How many values it takes, over all its slots."""
        if not self.many:
            return 1
        return MAX_ALTERNATIVES if self.and_or or self.syntax == "pattern" else MAX_VALUES


def _code(name: str) -> Parameter:
    return Parameter(name, "code", many=True)


def _codes(name: str) -> Parameter:
    return Parameter(name, "code", many=True, and_or=True)


def _references(name: str, *, required: bool = False) -> Parameter:
    return Parameter(name, "reference", required=required, many=True, and_or=True)


def _statuses(name: str) -> Parameter:
    return Parameter(name, "status", required=True, many=True)


def _patients(name: str) -> Parameter:
    return Parameter(name, "patient", many=True)


def _times(field: str, name: str) -> dict[str, Parameter]:
    return {f"{field}_from": Parameter(f"{name}From", "time"), f"{field}_to": Parameter(f"{name}To", "time")}


def _ids(prefix: str, *, many: bool, logical: bool = False) -> dict[str, Parameter]:
    given = {
        "entry_uuid": Parameter(f"{prefix}EntryUUID", "uuid", many=many),
        "unique_id": Parameter(f"{prefix}UniqueId", "text", many=many),
    }
    return given | ({"logical_id": Parameter(f"{prefix}LogicalID", "uuid", many=many)} if logical else {})


_DE, _SS, _F = "$XDSDocumentEntry", "$XDSSubmissionSet", "$XDSFolder"
_LEVEL = {"metadata_level": Parameter("$MetadataLevel", "level")}
_ASSOCIATION_STATUS = {"association_status": Parameter("$XDSAssociationStatus", "status", many=True)}
_ENTRY_PATIENT = {"patient_id": Parameter(f"{_DE}PatientId", "patient", required=True)}
_ENTRY_TYPE = {"object_type": Parameter(f"{_DE}Type", "type", many=True)}
_ENTRY_FILTER = {
    "format_code": _code(f"{_DE}FormatCode"),
    "confidentiality_code": _codes(f"{_DE}ConfidentialityCode"),
    **_ENTRY_TYPE,
}
_ENTRIES = {
    "status": _statuses(f"{_DE}Status"),
    "class_code": _code(f"{_DE}ClassCode"),
    "type_code": _code(f"{_DE}TypeCode"),
    "practice_setting_code": _code(f"{_DE}PracticeSettingCode"),
    **_times("creation_time", f"{_DE}CreationTime"),
    **_times("service_start_time", f"{_DE}ServiceStartTime"),
    **_times("service_stop_time", f"{_DE}ServiceStopTime"),
    "healthcare_facility_type_code": _code(f"{_DE}HealthcareFacilityTypeCode"),
    "event_code_list": _codes(f"{_DE}EventCodeList"),
    "author_person": Parameter(f"{_DE}AuthorPerson", "pattern", many=True),
    "document_availability": Parameter(f"{_DE}DocumentAvailability", "text", many=True),
    **_ENTRY_FILTER,
    **_LEVEL,
}
_FOLDERS = {
    "status": _statuses(f"{_F}Status"),
    **_times("last_update_time", f"{_F}LastUpdateTime"),
    "code_list": _codes(f"{_F}CodeList"),
    **_LEVEL,
}
_REFERENCE = {"reference_id_list": _references(f"{_DE}ReferenceIdList", required=True)}
_EXCLUDABLE = {
    "class_code": _code(f"{_DE}ClassCode"),
    "type_code": _code(f"{_DE}TypeCode"),
    "practice_setting_code": _code(f"{_DE}PracticeSettingCode"),
    "healthcare_facility_type_code": _code(f"{_DE}HealthcareFacilityTypeCode"),
    "event_code_list": _codes(f"{_DE}EventCodeList"),
    "confidentiality_code": _codes(f"{_DE}ConfidentialityCode"),
    "author_person": Parameter(f"{_DE}AuthorPerson", "pattern", many=True),
    "format_code": _code(f"{_DE}FormatCode"),
    "object_type": Parameter(f"{_DE}Type", "type", many=True),
    "reference_id_list": _references(f"{_DE}ReferenceIdList"),
}
_EXCLUDE = {
    f"{field}_exclude": Parameter(f"{row.name}Exclude", row.syntax, many=True, and_or=row.and_or)
    for field, row in _EXCLUDABLE.items()
}

PARAMETERS: Mapping[type[StoredQuery], Mapping[str, Parameter]] = {
    FindDocuments: {**_ENTRY_PATIENT, **_ENTRIES},
    FindDocumentsByReferenceId: {**_ENTRY_PATIENT, **_ENTRIES, **_REFERENCE},
    FindDocumentsExclude: {**_ENTRY_PATIENT, **_ENTRIES, **_EXCLUDABLE, **_EXCLUDE},
    FindSubmissionSets: {
        "patient_id": Parameter(f"{_SS}PatientId", "patient", required=True),
        "status": _statuses(f"{_SS}Status"),
        "source_id": Parameter(f"{_SS}SourceId", "text", many=True),
        **_times("submission_time", f"{_SS}SubmissionTime"),
        "author_person": Parameter(f"{_SS}AuthorPerson", "pattern"),
        "content_type": _code(f"{_SS}ContentType"),
        **_LEVEL,
    },
    FindFolders: {"patient_id": Parameter(f"{_F}PatientId", "patient", required=True), **_FOLDERS},
    GetAll: {
        "patient_id": Parameter("$patientId", "patient", required=True),
        "document_entry_status": _statuses(f"{_DE}Status"),
        "submission_set_status": _statuses(f"{_SS}Status"),
        "folder_status": _statuses(f"{_F}Status"),
        **_ENTRY_FILTER,
        **_ASSOCIATION_STATUS,
        **_LEVEL,
    },
    FindDocumentsForMultiplePatients: {"patient_id": _patients(f"{_DE}PatientId"), **_ENTRIES},
    FindDocumentsByReferenceIdForMultiplePatients: {
        "patient_id": _patients(f"{_DE}PatientId"),
        **_ENTRIES,
        **_REFERENCE,
    },
    FindFoldersForMultiplePatients: {"patient_id": _patients(f"{_F}PatientId"), **_FOLDERS},
    GetDocuments: {**_ids(_DE, many=True, logical=True), **_LEVEL},
    GetFolders: {**_ids(_F, many=True, logical=True), **_LEVEL},
    GetAssociations: {
        "uuid": Parameter("$uuid", "uuid", required=True, many=True),
        **_ASSOCIATION_STATUS,
        **_LEVEL,
    },
    GetDocumentsAndAssociations: {**_ids(_DE, many=True), **_ASSOCIATION_STATUS, **_LEVEL},
    GetSubmissionSets: {"uuid": Parameter("$uuid", "uuid", required=True, many=True), **_LEVEL},
    GetSubmissionSetAndContents: {**_ids(_SS, many=False), **_ENTRY_FILTER, **_ASSOCIATION_STATUS, **_LEVEL},
    GetFolderAndContents: {**_ids(_F, many=False), **_ENTRY_FILTER, **_ASSOCIATION_STATUS, **_LEVEL},
    GetFoldersForDocument: {**_ids(_DE, many=False), **_ASSOCIATION_STATUS, **_LEVEL},
    GetRelatedDocuments: {
        **_ids(_DE, many=False),
        "association_types": Parameter("$AssociationTypes", "text", required=True, many=True),
        **_ENTRY_TYPE,
        **_ASSOCIATION_STATUS,
        **_LEVEL,
    },
}

#: Attributes of which at least one must be given (ITI TF-2 3.51.4.1.2.3).
AT_LEAST_ONE: Mapping[type[StoredQuery], tuple[str, ...]] = {
    FindDocumentsForMultiplePatients: (
        "patient_id",
        "class_code",
        "event_code_list",
        "healthcare_facility_type_code",
    ),
    FindFoldersForMultiplePatients: ("patient_id", "code_list"),
} | {
    kind: tuple(field for field in ("entry_uuid", "unique_id", "logical_id") if field in table)
    for kind, table in PARAMETERS.items()
    if "entry_uuid" in table
}

#: Attributes of which at most one may be given.
AT_MOST_ONE: Mapping[type[StoredQuery], tuple[tuple[str, ...], ...]] = {
    FindDocumentsExclude: tuple((field, f"{field}_exclude") for field in _EXCLUDABLE),
} | {kind: (given,) for kind, given in AT_LEAST_ONE.items() if "entry_uuid" in given}

#: Attributes that hold a tuple, also where the standard allows a single value.
TUPLES: Mapping[type[StoredQuery], frozenset[str]] = {
    kind: frozenset(field.name for field in fields(kind) if str(field.type).startswith(("tuple", "Codes")))
    for kind in PARAMETERS
}
#: The default of each attribute that has one.
DEFAULTS: Mapping[type[StoredQuery], Mapping[str, object]] = {
    kind: {field.name: field.default for field in fields(kind)} for kind in PARAMETERS
}
