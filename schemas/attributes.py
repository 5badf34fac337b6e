"""Where each attribute of IHE stands in ebRIM 3.0: one table per class, read in both directions by schemas/rim.py.

ITI TF-3 4.2.3.2 (DocumentEntry), 4.2.3.3 (SubmissionSet), 4.2.3.4 (Folder), 4.2.2 (Association), 4.2.3.1.4 (Author).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from xds import vocabulary
from xds.values import (
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    OidUrn,
    Organization,
    Person,
    PidField,
    Recipient,
    ReferenceId,
    Sha1,
    Size,
    Telecommunication,
    Timestamp,
    UniqueId,
)

Kind = Literal["DocumentEntry", "SubmissionSet", "Folder", "Association"]
Make = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An XML attribute of the element."""

    name: str
    make: Make = str


@dataclass(frozen=True, slots=True)
class SlotRow:
    """A rim:Slot; `many` says whether it may hold several values."""

    name: str
    make: Make = str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Coded:
    """A rim:Classification by a scheme that holds a code; `many` says whether there may be several."""

    scheme: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Authors:
    """rim:Classifications by a scheme, each of which is an author."""

    scheme: str


@dataclass(frozen=True, slots=True)
class Identified:
    """A rim:ExternalIdentifier by a scheme, with its fixed label."""

    scheme: str
    label: str
    make: Make


@dataclass(frozen=True, slots=True)
class Localized:
    """rim:Name or rim:Description."""

    element: Literal["Name", "Description"]


@dataclass(frozen=True, slots=True)
class Marker:
    """A rim:Classification by a node, whose presence is the value."""

    node: str


@dataclass(frozen=True, slots=True)
class Version:
    """rim:VersionInfo/@versionName."""


Row = Attribute | SlotRow | Coded | Authors | Identified | Localized | Marker | Version

_COMMON: dict[str, Row] = {
    "entry_uuid": Attribute("id"),
    "logical_id": Attribute("lid"),
    "home_community_id": Attribute("home", OidUrn),
    "availability_status": Attribute("status"),
    "title": Localized("Name"),
    "comments": Localized("Description"),
    "version": Version(),
}


def _uuid(text: str) -> str:
    return f"urn:uuid:{text}"


DOCUMENT_ENTRY: dict[str, Row] = {
    **_COMMON,
    "mime_type": Attribute("mimeType", MimeType),
    "object_type": Attribute("objectType"),
    "creation_time": SlotRow("creationTime", Timestamp),
    "document_availability": SlotRow("documentAvailability"),
    "hash": SlotRow("hash", Sha1),
    "language_code": SlotRow("languageCode", LanguageCode),
    "legal_authenticator": SlotRow("legalAuthenticator", Person),
    "repository_unique_id": SlotRow("repositoryUniqueId", Oid),
    "service_start_time": SlotRow("serviceStartTime", Timestamp),
    "service_stop_time": SlotRow("serviceStopTime", Timestamp),
    "size": SlotRow("size", Size),
    "source_patient_id": SlotRow("sourcePatientId", Identifier),
    "source_patient_info": SlotRow("sourcePatientInfo", PidField, many=True),
    "uri": SlotRow("URI"),
    "reference_id_list": SlotRow("urn:ihe:iti:xds:2013:referenceIdList", ReferenceId, many=True),
    "author": Authors(_uuid("93606bcf-9494-43ec-9b4e-a7748d1a838d")),
    "class_code": Coded(_uuid("41a5887f-8865-4c09-adf7-e362475b143a")),
    "confidentiality_code": Coded(_uuid("f4f85eac-e6cb-4883-b524-f2705394840f"), many=True),
    "event_code_list": Coded(_uuid("2c6b8cb7-8b2a-4051-b291-b1ae6a575ef4"), many=True),
    "format_code": Coded(_uuid("a09d5840-386c-46f2-b5ad-9c3699a4309d")),
    "healthcare_facility_type_code": Coded(_uuid("f33fb8ac-18af-42cc-ae0e-ed0b0bdb91e1")),
    "practice_setting_code": Coded(_uuid("cccf5598-8b07-4b77-a05e-ae952c785ead")),
    "type_code": Coded(_uuid("f0306f51-975f-434e-a61c-c59651d33983")),
    "limited_metadata": Marker(vocabulary.LIMITED_METADATA_NODES["DocumentEntry"]),
    "unique_id": Identified(_uuid("2e82c1f6-a085-4c72-9da3-8640a32e42ab"), "XDSDocumentEntry.uniqueId", UniqueId),
    "patient_id": Identified(_uuid("58a6f841-87b3-4a3e-92fd-a8ffeff98427"), "XDSDocumentEntry.patientId", Identifier),
}

SUBMISSION_SET: dict[str, Row] = {
    **_COMMON,
    "intended_recipient": SlotRow("intendedRecipient", Recipient, many=True),
    "submission_time": SlotRow("submissionTime", Timestamp),
    "author": Authors(_uuid("a7058bb9-b4e4-4307-ba5b-e3f0ab85e12d")),
    "content_type_code": Coded(_uuid("aa543740-bdda-424e-8c96-df4873be8500")),
    "limited_metadata": Marker(vocabulary.LIMITED_METADATA_NODES["SubmissionSet"]),
    "source_id": Identified(_uuid("554ac39e-e3fe-47fe-b233-965d2a147832"), "XDSSubmissionSet.sourceId", Oid),
    "unique_id": Identified(_uuid("96fdda7c-d067-4183-912e-bf5ee74998a8"), "XDSSubmissionSet.uniqueId", Oid),
    "patient_id": Identified(_uuid("6b5aea1a-874d-4603-a4bc-96a0a7b38446"), "XDSSubmissionSet.patientId", Identifier),
}

FOLDER: dict[str, Row] = {
    **_COMMON,
    "last_update_time": SlotRow("lastUpdateTime", Timestamp),
    "code_list": Coded(_uuid("1ba97051-7806-41a8-a48b-8fce7af683c5"), many=True),
    "limited_metadata": Marker(vocabulary.LIMITED_METADATA_NODES["Folder"]),
    "unique_id": Identified(_uuid("75df8f67-9973-4fbe-a900-df66cefecc5a"), "XDSFolder.uniqueId", UniqueId),
    "patient_id": Identified(_uuid("f64ffdf0-4b97-4e06-b79f-a52b38ec2f8a"), "XDSFolder.patientId", Identifier),
}

ASSOCIATION: dict[str, Row] = {
    **_COMMON,
    "association_type": Attribute("associationType"),
    "source_object": Attribute("sourceObject"),
    "target_object": Attribute("targetObject"),
    "submission_set_status": SlotRow("SubmissionSetStatus"),
    "previous_version": SlotRow("PreviousVersion"),
    "association_propagation": SlotRow("AssociationPropagation"),
    "original_status": SlotRow("OriginalStatus"),
    "new_status": SlotRow("NewStatus"),
    "documentation": Coded(vocabulary.ASSOCIATION_DOCUMENTATION),
}

AUTHOR: dict[str, SlotRow] = {
    "author_person": SlotRow("authorPerson", Person),
    "author_institution": SlotRow("authorInstitution", Organization, many=True),
    "author_role": SlotRow("authorRole", many=True),
    "author_specialty": SlotRow("authorSpecialty", many=True),
    "author_telecommunication": SlotRow("authorTelecommunication", Telecommunication, many=True),
}

TABLES: Mapping[Kind, dict[str, Row]] = {
    "DocumentEntry": DOCUMENT_ENTRY,
    "SubmissionSet": SUBMISSION_SET,
    "Folder": FOLDER,
    "Association": ASSOCIATION,
}

#: The classification node that says what a RegistryPackage is.
LABELS: Mapping[Kind, str] = {"SubmissionSet": vocabulary.SUBMISSION_SET_NODE, "Folder": vocabulary.FOLDER_NODE}


def attribute_of(kind: Kind, name_or_scheme: str) -> str | None:
    """IHE's name of the attribute that stands under a slot name or a scheme, or None: `classCode` for its scheme's UUID."""
    for field, row in TABLES[kind].items():
        if isinstance(row, SlotRow) and row.name == name_or_scheme:
            return row.name.rpartition(":")[2]
        if isinstance(row, Coded | Authors | Identified) and row.scheme == name_or_scheme:
            return camel_case(field)
    return None


def camel_case(field: str) -> str:
    """`class_code` as IHE writes it: `classCode`."""
    if field in ("uri", "entry_uuid", "logical_id"):
        return {"uri": "URI", "entry_uuid": "entryUUID", "logical_id": "logicalID"}[field]
    head, *rest = field.split("_")
    return head + "".join(word.capitalize() for word in rest)
