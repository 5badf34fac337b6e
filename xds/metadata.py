"""The metadata objects of ITI TF-3 4.2.1 and their attributes.

An attribute is IHE's name in snake_case and nothing else. Every object can hold whatever came over the wire: what has no attribute
here, or does not have the shape that its attribute demands, is kept in `extra`, so that it can be reported, relayed and given back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from xds.values import (
    Code,
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
    Text,
    Timestamp,
    UniqueId,
)
from xds.vocabulary import STABLE, AssociationType


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """rim:Slot as it came."""

    name: str
    values: tuple[str, ...]
    slot_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """rim:Classification as it came. `classified_object` is None where it named its parent, as it should."""

    scheme: str | None = None
    node: str | None = None
    node_representation: str | None = None
    classified_object: str | None = None
    slots: tuple[Slot, ...] = ()
    name: Text = Text()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalIdentifier:
    """rim:ExternalIdentifier as it came. `registry_object` is None where it named its parent, as it should."""

    scheme: str
    value: str
    registry_object: str | None = None
    name: Text = Text()


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """What an object carries beyond its attributes: other slots and classifications, and attributes of the wrong shape or too many."""

    slots: tuple[Slot, ...] = ()
    classifications: tuple[Classification, ...] = ()
    identifiers: tuple[ExternalIdentifier, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.slots or self.classifications or self.identifiers)


NOTHING_EXTRA = Extra()


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """ITI TF-3 4.2.3.1.4: one person, device or institution."""

    author_person: Person | None = None
    author_institution: tuple[Organization, ...] = ()
    author_role: tuple[str, ...] = ()
    author_specialty: tuple[str, ...] = ()
    author_telecommunication: tuple[Telecommunication, ...] = ()
    extra: tuple[Slot, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentEntry:
    """ITI TF-3 4.2.3.2. `entry_uuid` is symbolic ("Document01") until the registry assigns a UUID."""

    entry_uuid: str
    author: tuple[Author, ...] = ()
    availability_status: str | None = None
    class_code: Code | None = None
    comments: Text = Text()
    confidentiality_code: tuple[Code, ...] = ()
    creation_time: Timestamp | None = None
    document_availability: str | None = None
    event_code_list: tuple[Code, ...] = ()
    format_code: Code | None = None
    hash: Sha1 | None = None
    healthcare_facility_type_code: Code | None = None
    home_community_id: OidUrn | None = None
    language_code: LanguageCode | None = None
    legal_authenticator: Person | None = None
    limited_metadata: bool = False
    logical_id: str | None = None
    mime_type: MimeType | None = None
    object_type: str = STABLE
    patient_id: Identifier | None = None
    practice_setting_code: Code | None = None
    reference_id_list: tuple[ReferenceId, ...] = ()
    repository_unique_id: Oid | None = None
    service_start_time: Timestamp | None = None
    service_stop_time: Timestamp | None = None
    size: Size | None = None
    source_patient_id: Identifier | None = None
    source_patient_info: tuple[PidField, ...] = ()
    title: Text = Text()
    type_code: Code | None = None
    unique_id: UniqueId | None = None
    uri: str | None = None
    version: str | None = None
    extra: Extra = NOTHING_EXTRA


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmissionSet:
    """ITI TF-3 4.2.3.3."""

    entry_uuid: str
    author: tuple[Author, ...] = ()
    availability_status: str | None = None
    comments: Text = Text()
    content_type_code: Code | None = None
    home_community_id: OidUrn | None = None
    intended_recipient: tuple[Recipient, ...] = ()
    limited_metadata: bool = False
    logical_id: str | None = None
    patient_id: Identifier | None = None
    source_id: Oid | None = None
    submission_time: Timestamp | None = None
    title: Text = Text()
    unique_id: Oid | None = None
    version: str | None = None
    extra: Extra = NOTHING_EXTRA


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """ITI TF-3 4.2.3.4. `last_update_time` is the registry's; what a submission says is overwritten."""

    entry_uuid: str
    availability_status: str | None = None
    code_list: tuple[Code, ...] = ()
    comments: Text = Text()
    home_community_id: OidUrn | None = None
    last_update_time: Timestamp | None = None
    limited_metadata: bool = False
    logical_id: str | None = None
    patient_id: Identifier | None = None
    title: Text = Text()
    unique_id: UniqueId | None = None
    version: str | None = None
    extra: Extra = NOTHING_EXTRA


@dataclass(frozen=True, slots=True, kw_only=True)
class Association:
    """ITI TF-3 4.2.2. Source and target are entryUUIDs, or symbolic ids within a submission.

    `submission_set_status` ("Original" or "Reference") belongs to HasMember from a SubmissionSet to a DocumentEntry only;
    the four after it to updates of metadata (Metadata Update supplement).
    """

    entry_uuid: str
    association_type: str
    source_object: str
    target_object: str
    availability_status: str | None = None
    association_propagation: str | None = None
    documentation: Code | None = None
    home_community_id: OidUrn | None = None
    logical_id: str | None = None
    new_status: str | None = None
    original_status: str | None = None
    previous_version: str | None = None
    submission_set_status: str | None = None
    title: Text = Text()
    comments: Text = Text()
    version: str | None = None
    extra: Extra = NOTHING_EXTRA


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrecognized:
    """An object of a submission that is none of IHE's: `xml` is the whole element, `reason` the end of a sentence about it."""

    entry_uuid: str
    reason: str
    xml: bytes


RegistryObject = DocumentEntry | SubmissionSet | Folder | Association


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """A reference to a registry object, all that an ObjectRef query gives back of it."""

    entry_uuid: str
    home_community_id: OidUrn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """lcm:SubmitObjectsRequest: what is submitted together, and stored together or not at all.

    There is one SubmissionSet in a valid one; the tuple is what came.
    """

    submission_sets: tuple[SubmissionSet, ...] = ()
    document_entries: tuple[DocumentEntry, ...] = ()
    folders: tuple[Folder, ...] = ()
    associations: tuple[Association, ...] = ()
    unrecognized: tuple[Unrecognized, ...] = field(default=())

    @property
    def objects(self) -> tuple[RegistryObject, ...]:
        """Everything recognised, associations last."""
        return (*self.submission_sets, *self.document_entries, *self.folders, *self.associations)


def has_member(source: str, target: str, *, entry_uuid: str, submission_set_status: str | None = None) -> Association:
    """The membership of `target` in the SubmissionSet or Folder `source` (ITI TF-3 4.2.2.1)."""
    return Association(
        entry_uuid=entry_uuid,
        association_type=AssociationType.HAS_MEMBER,
        source_object=source,
        target_object=target,
        submission_set_status=submission_set_status,
    )
