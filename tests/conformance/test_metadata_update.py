"""ITI-57 Update Document Set: versions, statuses, associations; what is refused, and that nothing of it stays (Metadata Update 3.57).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.messages import new_oid
from benchmarks.registries import (
    Updating,
    combined,
    folder_submission,
    into_folder,
    new_uuid,
    new_version,
    only_a_set,
    opened,
    related,
    together,
    valid,
)
from registry.iti57_update import update
from registry.iti62_remove import remove
from registry.patients import merge_patients
from registry.store import Store
from schemas.attributes import camel_case
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, ObjectRef, RegistryObject, Submission, has_member
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindFolders,
    GetAssociations,
    GetDocuments,
    GetFolderAndContents,
    GetSubmissionSetAndContents,
    StoredQuery,
)
from xds.values import Code, Identifier, MimeType, Oid, Sha1, Size, Text, Timestamp, UniqueId
from xds.vocabulary import ON_DEMAND, AssociationType, Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
BOTH = (APPROVED, DEPRECATED)
METADATA, UPDATE = "XDSRegistryMetadataError", "XDSMetadataUpdateError"
OPERATION, VERSION = "XDSMetadataUpdateOperationError", "XDSMetadataVersionError"
RECONCILIATION, UNRESOLVED = "XDSPatientIDReconciliationError", "UnresolvedReferenceException"
DUPLICATE_IN_MESSAGE, INVALID = "XDSRegistryDuplicateUniqueIdInMessage", "XDSInvalidRequestException"
HAS_MEMBER, APND, RPLC = AssociationType.HAS_MEMBER, AssociationType.APND, AssociationType.RPLC
XFRM, SIGNS, IS_SNAPSHOT_OF = AssociationType.XFRM, AssociationType.SIGNS, AssociationType.IS_SNAPSHOT_OF


class Iti57(Updating):
    """A registry that takes ITI-57."""

    def update(self, *parts: Submission, store: Store | None = None) -> Outcome:
        made = combined(*parts)
        return update(made, store=store or self.store, now=lambda: self.moment, new_uuid=new_uuid)

    def association(self, kind: str, source: str, target: str) -> Association:
        (found,) = (
            one
            for one in self.ask(GetAssociations(uuid=(source,), association_status=BOTH, metadata_level=2))
            if (one.association_type, one.source_object, one.target_object) == (kind, source, target)
        )
        assert isinstance(found, Association)
        return found

    def status(self, entry_uuid: str) -> str | None:
        (found,) = self.ask(GetDocuments(entry_uuid=(entry_uuid,), metadata_level=2))
        return found.availability_status

    def document(self) -> DocumentEntry:
        return self.registered(valid(self.p1))

    def document_in_folder(self) -> tuple[DocumentEntry, Folder]:
        folder = self.folder()
        return self.registered(into_folder(valid(self.p1), folder.entry_uuid)), folder

    def with_addendum(self) -> tuple[DocumentEntry, DocumentEntry]:
        document = self.document()
        return document, self.registered(related(valid(self.p1), APND, document.entry_uuid))


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    made = opened(module_database)
    yield made
    made.close()


@pytest.fixture
def registry(store: Store) -> Iti57:
    return Iti57(store)


# --- requests ---------------------------------------------------------------------------------------------------------


def status_change(
    patient_id: Identifier,
    target: str,
    original: str | None = APPROVED,
    new: str | None = DEPRECATED,
    name: str = "Change",
    **changes: Any,
) -> Submission:
    made = Association(
        entry_uuid=name,
        association_type=AssociationType.UPDATE_AVAILABILITY_STATUS,
        source_object="SubmissionSet",
        target_object=target,
        original_status=original,
        new_status=new,
    )
    return replace(only_a_set(patient_id), associations=(replace(made, **changes),))


def new_link(
    patient_id: Identifier, kind: str, source: str, target: str, name: str = "Link", **changes: Any
) -> Submission:
    made = Association(entry_uuid=name, association_type=kind, source_object=source, target_object=target)
    trigger = Association(
        entry_uuid=f"submit-{name}",
        association_type=AssociationType.SUBMIT_ASSOCIATION,
        source_object="SubmissionSet",
        target_object=name,
    )
    return replace(only_a_set(patient_id), associations=(replace(made, **changes), trigger))


# --- versions ---------------------------------------------------------------------------------------------------------


def test_a_new_version_takes_the_place_of_the_old_one(registry: Iti57) -> None:
    """[T 15800, 20000] Table 9.1: version 2, a new entryUUID, the same logicalID, Approved; version 1 Deprecated."""
    old = registry.document()
    assert registry.update(new_version(old, title=Text.of("Second"))).succeeded
    first, second = registry.versions(old)
    assert (first.entry_uuid, first.version, first.availability_status) == (old.entry_uuid, "1", DEPRECATED)
    assert first.title == old.title
    assert (second.logical_id, second.version, second.availability_status) == (old.entry_uuid, "2", APPROVED)
    assert second.entry_uuid not in ("New", old.entry_uuid)
    assert second.title == Text.of("Second")


def test_a_third_version_follows_the_second(registry: Iti57) -> None:
    """[T 15800]"""
    old = registry.document()
    registry.update(new_version(old, title=Text.of("Second")))
    registry.update(new_version(registry.latest(old), "2", title=Text.of("Third")))
    found = registry.versions(old)
    assert [(one.version, one.availability_status) for one in found] == [
        ("1", DEPRECATED),
        ("2", DEPRECATED),
        ("3", APPROVED),
    ]
    assert {one.logical_id for one in found} == {old.logical_id}


def test_old_versions_are_seen_at_level_2_and_hidden_at_level_1(registry: Iti57) -> None:
    """Section 7.4: Metadata-Level 1 knows the latest version only, and any version by its entryUUID."""
    old = registry.document()
    registry.update(new_version(old))
    new = registry.latest(old)

    def found(query: StoredQuery) -> set[str]:
        return {one.entry_uuid for one in registry.ask(query)}

    assert found(FindDocuments(patient_id=registry.p1, status=BOTH)) == {new.entry_uuid}
    both = {old.entry_uuid, new.entry_uuid}
    assert found(FindDocuments(patient_id=registry.p1, status=BOTH, metadata_level=2)) == both
    assert found(FindDocuments(patient_id=registry.p1, status=(DEPRECATED,))) == set()
    by_unique_id = (str(old.unique_id),)
    assert found(GetDocuments(unique_id=by_unique_id)) == {new.entry_uuid}
    assert found(GetDocuments(unique_id=by_unique_id, metadata_level=2)) == both
    assert found(GetDocuments(entry_uuid=(old.entry_uuid,))) == {old.entry_uuid}


CHANGES = {
    "class_code": Code.of("OTHER", "1.2.3.4.8.1", "Other"),
    "comments": Text.of("Corrected"),
    "confidentiality_code": (Code.of("R", "2.16.840.1.113883.5.25", "Restricted"),),
    "creation_time": Timestamp("20250102"),
    "hash": Sha1("0" * 40),
    "mime_type": MimeType("application/pdf"),
    "repository_unique_id": Oid("1.2.3.4.78"),
    "size": Size("6"),
    "source_patient_id": Identifier("L8^^^&1.2.3.4.5.6&ISO"),
    "title": Text.of("Another title"),
    "uri": "b.txt",
}


@pytest.mark.parametrize("field", CHANGES)
def test_every_attribute_that_is_no_identity_may_change(registry: Iti57, field: str) -> None:
    """[T 15801]"""
    old = registry.document()
    assert getattr(old, field) != CHANGES[field]
    registry.update(new_version(old, **{field: CHANGES[field]}))
    assert getattr(registry.latest(old), field) == CHANGES[field]


def test_a_submitted_status_and_version_are_ignored(registry: Iti57) -> None:
    """Table 9.1: the new version is Approved, and its number is the registry's."""
    old = registry.document()
    registry.update(new_version(old, availability_status=DEPRECATED, version="7"))
    assert (registry.latest(old).availability_status, registry.latest(old).version) == (APPROVED, "2")


def test_the_submission_set_of_an_update_holds_the_new_version(registry: Iti57) -> None:
    """Table 9.1: SubmissionSet and membership are stored."""
    old = registry.document()
    request = new_version(old)
    registry.update(request)
    query = GetSubmissionSetAndContents(unique_id=str(request.submission_sets[0].unique_id))
    found = registry.ask(query)
    assert [one.entry_uuid for one in found if isinstance(one, DocumentEntry)] == [registry.latest(old).entry_uuid]


def test_instructions_are_not_stored(registry: Iti57) -> None:
    """The triggers UpdateAvailabilityStatus and SubmitAssociation are told to the registry, not kept."""
    document, other = registry.document(), registry.document()
    request = combined(
        new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid),
        status_change(registry.p1, other.entry_uuid),
    )
    registry.update(request)
    (submission_set,) = registry.ask(GetSubmissionSetAndContents(unique_id=str(request.submission_sets[0].unique_id)))
    made = registry.association(APND, other.entry_uuid, document.entry_uuid)
    members = registry.links(submission_set.entry_uuid, status=BOTH)
    assert members == {("HasMember", submission_set.entry_uuid, made.entry_uuid)}
    touching = registry.links(document.entry_uuid, other.entry_uuid, status=BOTH)
    assert {kind for kind, _, _ in touching} == {"HasMember", "APND"}


def test_two_objects_are_updated_in_one_request(registry: Iti57) -> None:
    one, two = registry.document(), registry.document()
    registry.update(new_version(one, name="A"), new_version(two, name="B"))
    assert [registry.latest(each).version for each in (one, two)] == ["2", "2"]


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_has_versions_and_its_members_follow(registry: Iti57) -> None:
    """[T 20000] Table 9.1: Update Folder."""
    document, folder = registry.document_in_folder()
    registry.moment = datetime(2026, 2, 1, tzinfo=UTC)
    registry.update(new_version(folder, title=Text.of("Episode 8")))
    first, second = registry.versions(folder)
    assert (first.availability_status, first.version) == (DEPRECATED, "1")
    assert (second.availability_status, second.version, second.title) == (APPROVED, "2", Text.of("Episode 8"))
    assert (second.unique_id, second.logical_id) == (folder.unique_id, folder.logical_id)
    assert str(second.last_update_time) == "20260201000000"
    contents = registry.ask(GetFolderAndContents(entry_uuid=second.entry_uuid))
    assert [one.entry_uuid for one in contents if isinstance(one, DocumentEntry)] == [document.entry_uuid]


def test_old_versions_of_folders_are_hidden_at_level_1(registry: Iti57) -> None:
    """Section 7.4."""
    folder = registry.folder()
    registry.update(new_version(folder))
    assert [one.version for one in registry.ask(FindFolders(patient_id=registry.p1, status=BOTH))] == ["2"]
    every = registry.ask(FindFolders(patient_id=registry.p1, status=BOTH, metadata_level=2))
    assert {one.version for one in every} == {"1", "2"}


def test_a_folder_that_is_submitted_again_is_no_update(registry: Iti57) -> None:
    """[T 20000b] Its lid is its id, or it has none, or nothing is registered."""
    folder = registry.folder()
    again = new_version(folder, name=folder.entry_uuid)
    assert (
        UPDATE,
        f"Folder {folder.entry_uuid}: it has no logicalID of a registered object: ITI-57 registers nothing new",
    ) in registry.not_updated(again)
    fresh = new_version(folder, logical_id=None, unique_id=UniqueId(new_oid()))
    assert registry.not_updated(fresh) == [
        (UPDATE, "Folder New: it has no logicalID of a registered object: ITI-57 registers nothing new")
    ]


def test_a_folder_with_an_old_previous_version_is_refused(registry: Iti57) -> None:
    """[T 20000c]"""
    folder = registry.folder()
    registry.update(new_version(folder))
    assert registry.not_updated(new_version(folder)) == [
        (VERSION, f"Folder New: PreviousVersion 1 is not the latest version 2 of {folder.logical_id}")
    ]


@pytest.mark.parametrize("field", ["code_list", "patient_id", "unique_id"])
def test_a_missing_attribute_of_a_folder_is_named(registry: Iti57, field: str) -> None:
    """[T 20000f]"""
    folder = registry.folder()
    problems = registry.not_updated(new_version(folder, **{field: () if field == "code_list" else None}))
    assert (METADATA, f"Folder New: {camel_case(field)} is missing; it is required") in problems


# --- propagation ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("propagation", [None, "yes"])
def test_associations_follow_a_new_version(registry: Iti57, propagation: str | None) -> None:
    """[T 20000d] Section 9.1: memberships in folders and relationships are copied, and the old ones stay."""
    document, folder = registry.document_in_folder()
    addendum = registry.registered(related(valid(registry.p1), APND, document.entry_uuid))
    registry.update(new_version(document, member_association_propagation=propagation))
    new = registry.latest(document).entry_uuid
    expected = {("HasMember", folder.entry_uuid, new), ("APND", addendum.entry_uuid, new)}
    assert expected <= registry.links(new)
    assert len(registry.links(new)) == 3, "beside those, its membership in the SubmissionSet"
    assert {
        ("HasMember", folder.entry_uuid, document.entry_uuid),
        ("APND", addendum.entry_uuid, document.entry_uuid),
    } <= registry.links(document.entry_uuid)


def test_no_association_follows_where_it_is_not_wanted(registry: Iti57) -> None:
    """[T 20000e] AssociationPropagation no."""
    document, folder = registry.document_in_folder()
    registry.registered(related(valid(registry.p1), APND, document.entry_uuid))
    registry.update(new_version(document, member_association_propagation="no"))
    new = registry.latest(document).entry_uuid
    assert {kind for kind, _, _ in registry.links(new, status=BOTH)} == {"HasMember"}
    assert len(registry.links(new, status=BOTH)) == 1
    assert ("HasMember", folder.entry_uuid, document.entry_uuid) in registry.links(document.entry_uuid)


def test_a_deprecated_association_does_not_follow(registry: Iti57) -> None:
    """Section 9.1: every Approved one is copied."""
    document, addendum = registry.with_addendum()
    link = registry.association(APND, addendum.entry_uuid, document.entry_uuid)
    registry.update(status_change(registry.p1, link.entry_uuid))
    registry.update(new_version(document))
    assert {kind for kind, _, _ in registry.links(registry.latest(document).entry_uuid, status=BOTH)} == {"HasMember"}


def test_an_association_between_two_that_are_updated_joins_their_new_versions(registry: Iti57) -> None:
    document, addendum = registry.with_addendum()
    registry.update(new_version(document, name="A"), new_version(addendum, name="B"))
    new, newer = registry.latest(document).entry_uuid, registry.latest(addendum).entry_uuid
    assert {one for one in registry.links(new) if one[0] == "APND"} == {("APND", newer, new)}


def test_replacing_an_updated_document_deprecates_its_addenda(registry: Iti57) -> None:
    """[T 11993, 11994] after an update: the cascade follows the propagated associations."""
    document, addendum = registry.with_addendum()
    registry.update(new_version(document))
    registry.update(new_version(addendum))
    new, newer = registry.latest(document), registry.latest(addendum)
    replacement = registry.registered(related(valid(registry.p1), RPLC, new.entry_uuid))
    assert [registry.status(one.entry_uuid) for one in (new, newer)] == [DEPRECATED, DEPRECATED]
    assert registry.status(replacement.entry_uuid) == APPROVED


def test_a_replacement_joins_the_folders_of_an_updated_document(registry: Iti57) -> None:
    """[T 12327] after an update."""
    document, folder = registry.document_in_folder()
    registry.update(new_version(document))
    replacement = registry.registered(related(valid(registry.p1), RPLC, registry.latest(document).entry_uuid))
    assert ("HasMember", folder.entry_uuid, replacement.entry_uuid) in registry.links(replacement.entry_uuid)


def test_an_old_version_cannot_be_replaced(registry: Iti57) -> None:
    """It is Deprecated (ITI TF-2 3.42.4.1.3)."""
    document = registry.document()
    registry.update(new_version(document))
    problems = registry.refused(related(valid(registry.p1), RPLC, document.entry_uuid))
    assert problems[0][0] == "XDSRegistryDeprecatedDocumentError"


def test_a_replaced_document_is_not_updated(registry: Iti57) -> None:
    """Table 9.1: the latest version is Approved."""
    document = registry.document()
    registry.registered(related(valid(registry.p1), RPLC, document.entry_uuid))
    assert registry.not_updated(new_version(document)) == [
        (UPDATE, f"DocumentEntry New: the latest version of {document.logical_id} is Deprecated")
    ]


# --- refused versions -------------------------------------------------------------------------------------------------


def test_an_unknown_logical_id_is_refused(registry: Iti57) -> None:
    """[T 15800b]"""
    document, nowhere = registry.document(), new_uuid()
    assert registry.not_updated(new_version(document, logical_id=nowhere)) == [
        (VERSION, f"DocumentEntry New: the logicalID '{nowhere}' is not that of a registered object")
    ]


def test_the_entry_uuid_of_a_later_version_is_no_logical_id(registry: Iti57) -> None:
    """[T 15800b] The logicalID is the entryUUID of the first version."""
    document = registry.document()
    registry.update(new_version(document))
    second = registry.latest(document)
    assert registry.not_updated(new_version(second, "2", logical_id=second.entry_uuid)) == [
        (VERSION, f"DocumentEntry New: the logicalID '{second.entry_uuid}' is not that of a registered object")
    ]


@pytest.mark.parametrize("number", ["0", "2", "999999999"])
def test_a_previous_version_that_is_not_the_latest_is_refused(registry: Iti57, number: str) -> None:
    """[T 15800e]"""
    document = registry.document()
    assert registry.not_updated(new_version(document, number)) == [
        (VERSION, f"DocumentEntry New: PreviousVersion {number} is not the latest version 1 of {document.logical_id}")
    ]


@pytest.mark.parametrize("field", ["class_code", "hash", "mime_type", "patient_id", "repository_unique_id", "size"])
def test_a_missing_attribute_of_an_entry_is_named(registry: Iti57, field: str) -> None:
    """[T 15800d]"""
    problems = registry.not_updated(new_version(registry.document(), **{field: None}))
    assert (METADATA, f"DocumentEntry New: {camel_case(field)} is missing; it is required") in problems


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"previous": None}, "PreviousVersion is missing"),
        ({"previous": ""}, "PreviousVersion '' is not a version number"),
        ({"previous": "one"}, "PreviousVersion 'one' is not a version number"),
        ({"previous": "-1"}, "PreviousVersion '-1' is not a version number"),
        ({"previous": "\u0661"}, "PreviousVersion '\u0661' is not a version number"),
        ({"previous": "1" * 20}, "PreviousVersion '11111111111111111111' is not a version number"),
        ({"member_association_propagation": "maybe"}, "AssociationPropagation 'maybe' is neither yes nor no"),
        ({"member_submission_set_status": None}, "SubmissionSetStatus '' is not Original"),
        ({"member_submission_set_status": "Reference"}, "SubmissionSetStatus 'Reference' is not Original"),
        ({"member_submission_set_status": "Originel"}, "SubmissionSetStatus 'Originel' is not Original"),
        ({"member_original_status": APPROVED}, "OriginalStatus belongs to UpdateAvailabilityStatus, not to HasMember"),
        ({"member_new_status": DEPRECATED}, "NewStatus belongs to UpdateAvailabilityStatus, not to HasMember"),
    ],
)
def test_a_malformed_update_is_refused(registry: Iti57, changes: dict[str, Any], text: str) -> None:
    """[T 20002b]"""
    problems = registry.not_updated(new_version(registry.document(), **changes))
    assert problems == [(OPERATION, f"Association member-New: {text}")]


def test_a_unique_id_cannot_change(registry: Iti57) -> None:
    """Table 9.1: same uniqueId."""
    document, other = registry.document(), new_oid()
    assert registry.not_updated(new_version(document, unique_id=UniqueId(other))) == [
        (UPDATE, f"DocumentEntry New: uniqueId '{other}' is not '{document.unique_id}', which cannot change")
    ]


def test_an_object_type_cannot_change(registry: Iti57) -> None:
    """Table 9.1: same objectType."""
    changes: dict[str, Any] = {"object_type": ON_DEMAND, "hash": None, "size": None, "creation_time": None}
    assert registry.not_updated(new_version(registry.document(), **changes)) == [
        (UPDATE, f"DocumentEntry New: objectType '{ON_DEMAND}' is not that of the version before")
    ]


def test_a_folder_is_no_version_of_a_document(registry: Iti57) -> None:
    document, folder = registry.document(), registry.folder()
    assert registry.not_updated(new_version(folder, logical_id=document.logical_id)) == [
        (UPDATE, f"Folder New: {document.logical_id} is a DocumentEntry")
    ]


def test_one_object_is_updated_once_in_a_request(registry: Iti57) -> None:
    """[T 20007]"""
    document = registry.document()
    problems = registry.not_updated(new_version(document, name="A"), new_version(document, name="B"))
    assert (OPERATION, f"2 objects of the request update '{document.logical_id}'; one may") in problems
    assert {code for code, _ in problems} == {OPERATION, DUPLICATE_IN_MESSAGE}


def test_a_new_version_does_not_take_a_registered_id(registry: Iti57) -> None:
    """[T 15806] for ITI-57: entryUUIDs are new."""
    document, other = registry.document(), registry.document()
    assert registry.not_updated(new_version(document, name=other.entry_uuid)) == [
        (METADATA, f"DocumentEntry {other.entry_uuid}: the id is registered already, as a DocumentEntry")
    ]


@pytest.mark.parametrize("which", ["membership", "link"])
def test_a_new_association_does_not_take_a_registered_id(registry: Iti57, which: str) -> None:
    document, other = registry.document(), registry.document()
    if which == "membership":
        request = new_version(document, member_entry_uuid=other.entry_uuid)
    else:
        request = new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid, name=registry.folder().entry_uuid)
    ((code, text),) = registry.not_updated(request)
    assert code == METADATA
    assert "the id is registered already" in text


def test_a_submission_set_of_an_update_is_new(registry: Iti57) -> None:
    """ITI TF-3 4.2.4.1: its uniqueId is used once."""
    document = registry.document()
    request = new_version(document)
    registry.update(request)
    again = replace(new_version(registry.latest(document), "2"), submission_sets=request.submission_sets)
    used = request.submission_sets[0].unique_id
    assert registry.not_updated(again) == [
        (
            "XDSDuplicateUniqueIdInRegistry",
            f"SubmissionSet SubmissionSet: the uniqueId '{used}' is used by a registered SubmissionSet",
        )
    ]


def test_every_object_is_the_subject_of_one_operation(registry: Iti57) -> None:
    document, other = registry.document(), registry.document()
    request = replace(new_version(document), associations=())
    assert (
        OPERATION,
        "DocumentEntry New: 0 HasMember associations lead to it from the SubmissionSet; one says how it is to be updated",
    ) in registry.not_updated(request)
    link = new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid)
    assert (
        OPERATION,
        "Association Link: 0 SubmitAssociation associations lead to it; one is right",
    ) in registry.not_updated(new_version(document), replace(link, associations=link.associations[:1]))


def test_a_request_that_updates_nothing_is_refused(registry: Iti57) -> None:
    """Section 9.2: XDSInvalidRequestException for what is no update."""
    assert registry.not_updated(only_a_set(registry.p1)) == [
        (INVALID, "the request holds no update, no association and no change of status")
    ]


def test_a_reference_is_no_update(registry: Iti57) -> None:
    """Section 9.2: XDSInvalidRequestException for what is no update."""
    document, other = registry.document(), registry.document()
    link = has_member("SubmissionSet", other.entry_uuid, entry_uuid="Ref", submission_set_status="Reference")
    request = combined(new_version(document), replace(only_a_set(registry.p1), associations=(link,)))
    assert registry.not_updated(request) == [
        (INVALID, f"Association Ref: HasMember to '{other.entry_uuid}' is no operation of ITI-57")
    ]


def test_all_faults_are_told_at_once_and_nothing_is_stored(registry: Iti57) -> None:
    """[T 12084] for ITI-57: one good update and two bad ones."""
    one, two, three = registry.document(), registry.document(), registry.document()
    problems = registry.not_updated(
        new_version(one, name="A"),
        new_version(two, "7", name="B"),
        new_version(three, name="C", title=Text.of("x" * 129)),
    )
    assert sorted(code for code, _ in problems) == [VERSION, METADATA]


# --- patients ---------------------------------------------------------------------------------------------------------


def test_an_object_that_nothing_binds_may_change_its_patient(registry: Iti57) -> None:
    """[T 21002, 21003] Then the two versions together are of two patients."""
    document, folder = registry.document(), registry.folder()
    assert registry.update(new_version(document, patient_id=registry.p2)).succeeded
    assert registry.update(new_version(folder, patient_id=registry.p2)).succeeded
    assert [one.version for one in registry.found(registry.p2)] == ["2"]
    assert registry.found(registry.p2)[0].patient_id == registry.p2
    assert [one.patient_id for one in registry.ask(FindFolders(patient_id=registry.p2))] == [registry.p2]
    assert document.logical_id is not None
    with pytest.raises(Failure) as failure:
        registry.versions(document)
    assert failure.value.problems[0].code == "XDSResultNotSinglePatient"


def test_a_patient_that_is_not_the_submission_sets_is_refused(registry: Iti57) -> None:
    """[T 20100a]"""
    request = new_version(registry.document(), patient_id=registry.p2)
    request = replace(request, submission_sets=only_a_set(registry.p1).submission_sets)
    assert registry.not_updated(request) == [
        (
            RECONCILIATION,
            f"DocumentEntry New: patientId '{registry.p2}' is not '{registry.p1}' of the SubmissionSet",
        )
    ]


def test_a_document_that_is_bound_does_not_change_its_patient(registry: Iti57) -> None:
    """[T 20100b] The membership that would follow would join two patients."""
    document, folder = registry.document_in_folder()
    member = registry.association(HAS_MEMBER, folder.entry_uuid, document.entry_uuid)
    text = (
        f"patientId '{registry.p2}' is not '{registry.p1}', of which Association {member.entry_uuid} binds it to others"
    )
    assert registry.not_updated(new_version(document, patient_id=registry.p2)) == [
        (RECONCILIATION, f"DocumentEntry New: {text}")
    ]


def test_a_bound_document_changes_its_patient_without_its_associations(registry: Iti57) -> None:
    document, _ = registry.document_in_folder()
    assert registry.update(new_version(document, patient_id=registry.p2, member_association_propagation="no")).succeeded
    assert [one.version for one in registry.found(registry.p2)] == ["2"]


def test_what_is_bound_together_changes_its_patient_together(registry: Iti57) -> None:
    """No association is left between two patients."""
    document, folder = registry.document_in_folder()
    registry.update(
        new_version(document, name="D", patient_id=registry.p2), new_version(folder, name="F", patient_id=registry.p2)
    )
    (moved,) = registry.ask(FindFolders(patient_id=registry.p2))
    contents = registry.ask(GetFolderAndContents(entry_uuid=moved.entry_uuid))
    assert [one.unique_id for one in contents if isinstance(one, DocumentEntry)] == [document.unique_id]


def test_an_unknown_patient_is_refused(registry: Iti57) -> None:
    """[T 11996] for ITI-57."""
    nobody = Identifier.of("nobody", "1.2.3.4")
    assert registry.not_updated(new_version(registry.document(), patient_id=nobody)) == [
        ("XDSUnknownPatientId", f"patient '{nobody}' is not known to this registry")
    ]


def test_an_update_for_a_merged_patient_is_refused(registry: Iti57) -> None:
    """ITI TF-2 3.8.4.2: the id is no longer used; with the surviving one the update succeeds."""
    document = registry.document()
    merge_patients(registry.store, surviving=registry.p2, subsumed=registry.p1)
    assert registry.not_updated(new_version(document))[0] == (
        "XDSUnknownPatientId",
        f"patient '{registry.p1}' has been merged into '{registry.p2}'",
    )
    assert registry.update(new_version(document, patient_id=registry.p2)).succeeded
    assert [one.version for one in registry.found(registry.p2)] == ["2"]


def test_versions_of_a_merged_patient_stay_versions(registry: Iti57) -> None:
    document = registry.document()
    registry.update(new_version(document))
    merge_patients(registry.store, surviving=registry.p2, subsumed=registry.p1)
    registry.update(new_version(registry.latest(document), "2"))
    assert [(one.version, one.patient_id) for one in registry.versions(document)] == [
        ("1", registry.p2),
        ("2", registry.p2),
        ("3", registry.p2),
    ]


# --- statuses ---------------------------------------------------------------------------------------------------------


def test_a_document_is_deprecated_and_approved_again(registry: Iti57) -> None:
    """[T 15802] Table 9.1: both ways."""
    document = registry.document()
    registry.update(status_change(registry.p1, document.entry_uuid))
    assert registry.found(registry.p1, APPROVED) == []
    assert [one.version for one in registry.found(registry.p1, DEPRECATED)] == ["1"], "a change of status is no version"
    registry.update(status_change(registry.p1, document.entry_uuid, DEPRECATED, APPROVED))
    assert [one.entry_uuid for one in registry.found(registry.p1, APPROVED)] == [document.entry_uuid]


def test_a_folder_and_an_association_change_their_status(registry: Iti57) -> None:
    """[T 15802, 20001]"""
    document, folder = registry.document_in_folder()
    member = registry.association(HAS_MEMBER, folder.entry_uuid, document.entry_uuid)
    registry.update(status_change(registry.p1, folder.entry_uuid))
    registry.update(status_change(registry.p1, member.entry_uuid))
    assert registry.ask(FindFolders(patient_id=registry.p1)) == []
    assert ("HasMember", folder.entry_uuid, document.entry_uuid) not in registry.links(document.entry_uuid)
    registry.update(status_change(registry.p1, folder.entry_uuid, DEPRECATED, APPROVED))
    registry.update(status_change(registry.p1, member.entry_uuid, DEPRECATED, APPROVED))
    assert [one.entry_uuid for one in registry.ask(FindFolders(patient_id=registry.p1))] == [folder.entry_uuid]
    assert ("HasMember", folder.entry_uuid, document.entry_uuid) in registry.links(document.entry_uuid)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"original": None}, "OriginalStatus is missing"),
        ({"new": None}, "NewStatus is missing"),
        ({"original": "Approved"}, "OriginalStatus 'Approved' is neither Approved nor Deprecated"),
        ({"new": "urn:x:Submitted"}, "NewStatus 'urn:x:Submitted' is neither Approved nor Deprecated"),
        ({"new": APPROVED}, f"OriginalStatus and NewStatus are both '{APPROVED}'"),
        (
            {"previous_version": "1"},
            "PreviousVersion belongs to HasMember, not to UpdateAvailabilityStatus",
        ),
    ],
)
def test_a_malformed_change_of_status_is_refused(registry: Iti57, changes: dict[str, Any], text: str) -> None:
    """[T 20002]"""
    problems = registry.not_updated(status_change(registry.p1, registry.document().entry_uuid, **changes))
    assert problems == [(OPERATION, f"Association Change: {text}")]


def test_an_original_status_that_is_not_the_current_one_is_refused(registry: Iti57) -> None:
    """[T 20003, 20004]"""
    document = registry.document()
    problems = registry.not_updated(status_change(registry.p1, document.entry_uuid, DEPRECATED, APPROVED))
    text = f"OriginalStatus '{DEPRECATED}' is not the status of '{document.entry_uuid}', {APPROVED}"
    assert problems == [(UPDATE, f"Association Change: {text}")]


def test_an_old_version_keeps_its_status(registry: Iti57) -> None:
    """[T 15802b]"""
    document = registry.document()
    registry.update(new_version(document))
    problems = registry.not_updated(status_change(registry.p1, document.entry_uuid, DEPRECATED, APPROVED))
    text = f"'{document.entry_uuid}' is not the latest version of {document.logical_id}"
    assert problems == [(UPDATE, f"Association Change: {text}")]


def test_a_submission_set_and_its_memberships_keep_their_status(registry: Iti57) -> None:
    """[T 21001]"""
    document = registry.document()
    ((_, set_uuid, _),) = registry.links(document.entry_uuid)
    member = registry.association(HAS_MEMBER, set_uuid, document.entry_uuid).entry_uuid
    assert registry.not_updated(status_change(registry.p1, set_uuid)) == [
        (UPDATE, f"Association Change: '{set_uuid}' is a SubmissionSet, whose status cannot change")
    ]
    assert registry.not_updated(status_change(registry.p1, member)) == [
        (UPDATE, f"Association Change: '{member}' is a membership in a SubmissionSet, whose status cannot change")
    ]


def test_the_status_of_nothing_cannot_change(registry: Iti57) -> None:
    nowhere = new_uuid()
    assert registry.not_updated(status_change(registry.p1, nowhere)) == [
        (UNRESOLVED, f"Association Change: its target '{nowhere}' is not registered")
    ]


@pytest.mark.parametrize("which", ["document", "association"])
def test_the_status_of_another_patients_object_cannot_change(registry: Iti57, which: str) -> None:
    """[T 20100a/b] for a change of status."""
    document, folder = registry.document_in_folder()
    target = document.entry_uuid
    if which == "association":
        target = registry.association(HAS_MEMBER, folder.entry_uuid, document.entry_uuid).entry_uuid
    assert registry.not_updated(status_change(registry.p2, target)) == [
        (RECONCILIATION, f"Association Change: '{target}' is of patient '{registry.p1}', not '{registry.p2}'")
    ]


# --- associations -----------------------------------------------------------------------------------------------------


def test_an_association_is_submitted_and_later_deprecated(registry: Iti57) -> None:
    """[T 20001, 20005]"""
    document, other = registry.document(), registry.document()
    request = new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid)
    registry.update(request)
    made = registry.association(APND, other.entry_uuid, document.entry_uuid)
    assert (made.availability_status, made.version, made.logical_id) == (APPROVED, "1", made.entry_uuid)
    sets = {source for kind, source, target in registry.links(made.entry_uuid) if target == made.entry_uuid}
    assert len(sets) == 1, "it is a member of the SubmissionSet that brought it"
    registry.update(status_change(registry.p1, made.entry_uuid))
    assert registry.association(APND, other.entry_uuid, document.entry_uuid).availability_status == DEPRECATED


def test_a_deprecated_association_may_be_submitted_anew(registry: Iti57) -> None:
    """Table 9.1: no Approved duplicate."""
    document, addendum = registry.with_addendum()
    old = registry.association(APND, addendum.entry_uuid, document.entry_uuid)
    registry.update(status_change(registry.p1, old.entry_uuid))
    assert registry.update(new_link(registry.p1, APND, addendum.entry_uuid, document.entry_uuid)).succeeded


def test_a_document_is_put_into_a_folder(registry: Iti57) -> None:
    """Table 9.1: Folder to DocumentEntry; the folder's lastUpdateTime moves (ITI TF-3 4.2.3.4.6)."""
    document, folder = registry.document(), registry.folder()
    registry.moment = datetime(2026, 3, 1, tzinfo=UTC)
    registry.update(new_link(registry.p1, HAS_MEMBER, folder.entry_uuid, document.entry_uuid))
    contents = registry.ask(GetFolderAndContents(entry_uuid=folder.entry_uuid))
    assert [one.entry_uuid for one in contents if isinstance(one, DocumentEntry)] == [document.entry_uuid]
    assert [str(one.last_update_time) for one in contents if isinstance(one, Folder)] == ["20260301000000"]


@pytest.mark.parametrize("kind", ["urn:example:mine", str(AssociationType.UPDATE_AVAILABILITY_STATUS), ""])
def test_an_association_of_no_known_type_is_refused(registry: Iti57, kind: str) -> None:
    """[T 20001]"""
    document, other = registry.document(), registry.document()
    problems = registry.not_updated(new_link(registry.p1, kind, other.entry_uuid, document.entry_uuid))
    assert (METADATA, f"Association Link: associationType '{kind}' is none that can be submitted") in problems


def test_a_duplicate_of_an_approved_association_is_refused(registry: Iti57) -> None:
    """[T 20008]"""
    document, addendum = registry.with_addendum()
    problems = registry.not_updated(new_link(registry.p1, APND, addendum.entry_uuid, document.entry_uuid))
    assert problems == [
        (UPDATE, "Association Link: an Approved association of this type is there between the same ends")
    ]


def test_the_same_association_twice_in_a_request_is_refused(registry: Iti57) -> None:
    """[T 20008] within a request."""
    document, other = registry.document(), registry.document()
    problems = registry.not_updated(
        new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid, name="A"),
        new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid, name="B"),
    )
    assert problems == [
        (UPDATE, "Association B: the request holds another association of this type between the same ends")
    ]


@pytest.mark.parametrize("end", ["sourceObject", "targetObject"])
def test_a_deprecated_end_is_refused(registry: Iti57, end: str) -> None:
    """[T 21004]"""
    gone, other = registry.document(), registry.document()
    registry.update(status_change(registry.p1, gone.entry_uuid))
    ends = (gone.entry_uuid, other.entry_uuid) if end == "sourceObject" else (other.entry_uuid, gone.entry_uuid)
    assert registry.not_updated(new_link(registry.p1, APND, *ends)) == [
        (UPDATE, f"Association Link: {end} '{gone.entry_uuid}' is Deprecated")
    ]


def test_an_end_that_is_nowhere_is_refused(registry: Iti57) -> None:
    """Table 9.1: both ends exist."""
    document, nowhere = registry.document(), new_uuid()
    assert registry.not_updated(new_link(registry.p1, APND, nowhere, document.entry_uuid)) == [
        (UNRESOLVED, f"Association Link: sourceObject '{nowhere}' is neither in the request nor in the registry")
    ]


def test_an_end_of_another_patient_is_refused(registry: Iti57) -> None:
    """[T 20100a/b]"""
    document, other = registry.document(), registry.registered(valid(registry.p2))
    text = f"targetObject '{other.entry_uuid}' is of patient '{registry.p2}', not '{registry.p1}'"
    assert registry.not_updated(new_link(registry.p1, APND, document.entry_uuid, other.entry_uuid)) == [
        (RECONCILIATION, f"Association Link: {text}")
    ]


def test_an_association_joins_what_it_may_join(registry: Iti57) -> None:
    """Table 9.1: Folder to DocumentEntry, or a relationship of two DocumentEntries; never a SubmissionSet."""
    document, folder = registry.document(), registry.folder()
    ((_, set_uuid, _),) = registry.links(document.entry_uuid)

    def text(kind: str, source: str, target: str) -> str:
        ((code, context),) = registry.not_updated(new_link(registry.p1, kind, source, target))
        assert code == UPDATE
        return context

    wrong = "Association Link: it leads from a {} to a {}, not from a {} to a DocumentEntry"
    assert text(APND, folder.entry_uuid, document.entry_uuid) == wrong.format(
        "Folder", "DocumentEntry", "DocumentEntry"
    )
    assert text(HAS_MEMBER, document.entry_uuid, folder.entry_uuid) == wrong.format("DocumentEntry", "Folder", "Folder")
    assert "from a Folder to a SubmissionSet" in text(HAS_MEMBER, folder.entry_uuid, set_uuid)
    other = registry.document()
    assert "from a SubmissionSet to a DocumentEntry" in text(HAS_MEMBER, set_uuid, other.entry_uuid)


def test_an_association_does_not_lead_to_its_own_source(registry: Iti57) -> None:
    """metadata 7.1, rule 10."""
    uuid = registry.document().entry_uuid
    assert registry.not_updated(new_link(registry.p1, APND, uuid, uuid)) == [
        (METADATA, f"Association Link: it leads from '{uuid}' to itself")
    ]


@pytest.mark.parametrize(
    ("kind", "allowed"), [(APND, True), (XFRM, True), (RPLC, True), (SIGNS, False), (HAS_MEMBER, False)]
)
def test_some_associations_are_documented(registry: Iti57, kind: AssociationType, allowed: bool) -> None:
    """[T 12370] for ITI-57."""
    document = registry.document()
    source = registry.folder().entry_uuid if kind == HAS_MEMBER else registry.document().entry_uuid
    request = new_link(registry.p1, kind, source, document.entry_uuid, documentation=Code.of("a", "1.2", "A"))
    if allowed:
        assert registry.update(request).succeeded
        assert registry.association(kind, source, document.entry_uuid).documentation == Code.of("a", "1.2", "A")
    else:
        short = kind.rpartition(":")[2]
        assert registry.not_updated(request) == [
            (METADATA, f"Association Link: a {short} association has no documentation code")
        ]


def test_a_snapshot_is_of_an_on_demand_entry(registry: Iti57) -> None:
    """metadata 7.2: IsSnapshotOf leads from a Stable entry to an On-Demand one."""
    document, other = registry.document(), registry.document()
    ((code, text),) = registry.not_updated(new_link(registry.p1, IS_SNAPSHOT_OF, document.entry_uuid, other.entry_uuid))
    assert code == METADATA
    assert "IsSnapshotOf leads from a Stable entry to an On-Demand entry" in text


# --- combined ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["old", "new"])
def test_an_update_and_a_change_of_status_of_one_object(registry: Iti57, target: str) -> None:
    """[T 20003, 20004] The new version is Deprecated then; named by its new id, or by that of the version it replaces."""
    document = registry.document()
    changed = document.entry_uuid if target == "old" else "New"
    registry.update(new_version(document), status_change(registry.p1, changed))
    assert [(one.version, one.availability_status) for one in registry.versions(document)] == [
        ("1", DEPRECATED),
        ("2", DEPRECATED),
    ]
    assert [one.version for one in registry.found(registry.p1, DEPRECATED)] == ["2"]


def test_a_folder_is_updated_and_deprecated_in_one_request(registry: Iti57) -> None:
    """[T 20004]"""
    folder = registry.folder()
    registry.update(new_version(folder), status_change(registry.p1, folder.entry_uuid))
    assert [one.availability_status for one in registry.versions(folder)] == [DEPRECATED, DEPRECATED]


def test_what_a_request_makes_new_is_approved_when_its_status_changes(registry: Iti57) -> None:
    """[T 20003] OriginalStatus Deprecated is wrong for it."""
    document = registry.document()
    text = f"OriginalStatus '{DEPRECATED}' is not the status of '{document.entry_uuid}', {APPROVED}"
    assert registry.not_updated(
        new_version(document), status_change(registry.p1, document.entry_uuid, DEPRECATED, APPROVED)
    ) == [(UPDATE, f"Association Change: {text}")]


def test_an_association_is_submitted_and_deprecated_in_one_request(registry: Iti57) -> None:
    """[T 20005]"""
    document, other = registry.document(), registry.document()
    registry.update(
        new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid), status_change(registry.p1, "Link")
    )
    assert registry.association(APND, other.entry_uuid, document.entry_uuid).availability_status == DEPRECATED


def test_an_update_without_propagation_and_an_association_of_the_new_version(registry: Iti57) -> None:
    """[T 20006]"""
    document, other = registry.document(), registry.document()
    registry.update(
        new_version(document, member_association_propagation="no"),
        new_link(registry.p1, APND, other.entry_uuid, "New"),
    )
    new = registry.latest(document).entry_uuid
    assert ("APND", other.entry_uuid, new) in registry.links(new)


@pytest.mark.parametrize("propagation", [None, "yes"])
@pytest.mark.parametrize("end", ["old", "new"])
def test_an_update_with_propagation_and_an_association_of_the_same_object_is_refused(
    registry: Iti57, propagation: str | None, end: str
) -> None:
    """[T 20006]"""
    document, other = registry.document(), registry.document()
    target = document.entry_uuid if end == "old" else "New"
    text = f"'{target}' is updated in the same request, which already propagates its associations"
    assert registry.not_updated(
        new_version(document, member_association_propagation=propagation),
        new_link(registry.p1, APND, other.entry_uuid, target),
    ) == [(OPERATION, f"Association Link: {text}")]


def test_an_association_of_the_version_that_the_request_replaces_is_refused(registry: Iti57) -> None:
    """[T 21004] Versions come first, so the end is Deprecated when the association comes."""
    document, other = registry.document(), registry.document()
    text = f"targetObject '{document.entry_uuid}' is replaced by a new version in the same request"
    assert registry.not_updated(
        new_version(document, member_association_propagation="no"),
        new_link(registry.p1, APND, other.entry_uuid, document.entry_uuid),
    ) == [(UPDATE, f"Association Link: {text}")]


def test_one_wrong_operation_refuses_them_all(registry: Iti57) -> None:
    """[T 20003-20008] One transaction: no PartialSuccess."""
    document, other, third = registry.document(), registry.document(), registry.document()
    problems = registry.not_updated(
        new_version(document),
        new_link(registry.p1, APND, other.entry_uuid, third.entry_uuid),
        status_change(registry.p1, third.entry_uuid, DEPRECATED, APPROVED),
    )
    assert [code for code, _ in problems] == [UPDATE]


# --- at the same time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stores", [1, 2])
def test_of_updates_that_race_exactly_one_succeeds(registry: Iti57, module_database: str, stores: int) -> None:
    """Same PreviousVersion, by two threads of one process and of two: the other one is told that it came too late."""
    second = opened(module_database) if stores == 2 else registry.store
    try:
        for _ in range(5):
            document = registry.document()
            first = new_version(document, title=Text.of("A"))
            other = new_version(document, title=Text.of("B"))
            results = together(
                [lambda first=first: registry.update(first), lambda other=other: registry.update(other, store=second)]
            )
            (refused,) = (one for one in results if isinstance(one, Failure))
            assert [str(problem) for problem in refused.problems] == [
                f"{VERSION}: DocumentEntry New: PreviousVersion 1 is not the latest version 2 of {document.logical_id}"
            ]
            assert [one.version for one in registry.versions(document)] == ["1", "2"]
    finally:
        if stores == 2:
            second.close()


# --- removed versions -------------------------------------------------------------------------------------------------


def test_when_the_latest_version_is_removed_the_one_before_is_the_latest(registry: Iti57) -> None:
    """Section 7.4: at level 1 a logical object has a latest version as long as it has any; it stays Deprecated."""
    document = registry.document()
    registry.update(new_version(document))
    new = registry.latest(document)
    ((_, set_uuid, _),) = registry.links(new.entry_uuid)
    member = registry.association(HAS_MEMBER, set_uuid, new.entry_uuid)
    refs = [ObjectRef(entry_uuid=one) for one in (new.entry_uuid, set_uuid, member.entry_uuid)]
    remove(refs, store=registry.store)
    assert [(one.version, one.availability_status) for one in registry.found(registry.p1)] == [("1", DEPRECATED)]
    registry.update(status_change(registry.p1, document.entry_uuid, DEPRECATED, APPROVED))
    registry.update(new_version(document))
    assert [one.version for one in registry.versions(document)] == ["1", "2"]


def test_when_an_old_version_is_removed_the_latest_stays(registry: Iti57) -> None:
    document = registry.document()
    ((_, set_uuid, _),) = registry.links(document.entry_uuid)
    member = registry.association(HAS_MEMBER, set_uuid, document.entry_uuid)
    registry.update(new_version(document))
    refs = [ObjectRef(entry_uuid=one) for one in (document.entry_uuid, set_uuid, member.entry_uuid)]
    remove(refs, store=registry.store)
    assert [one.version for one in registry.versions(document)] == ["2"]
    registry.update(new_version(registry.latest(document), "2"))
    assert [one.version for one in registry.versions(document)] == ["2", "3"]


def test_registering_does_not_disturb_versions(registry: Iti57) -> None:
    """[T 12004] The same document registered again is another logical object, of version 1."""
    document = registry.document()
    registry.update(new_version(document))
    again = valid(registry.p1, unique_id=document.unique_id)
    assert registry.register(again).succeeded
    found: list[RegistryObject] = registry.ask(GetDocuments(unique_id=(str(document.unique_id),)))
    assert sorted(str(one.version) for one in found) == ["1", "2"]
    assert folder_submission(registry.p1).folders
