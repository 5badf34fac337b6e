"""ITI-57 Update Document Set: versions of documents and folders, and what follows them (Metadata Update 3.57).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from benchmarks.registries import BOTH, combined, folder_submission, new_version, opened, related, together, valid
from registry.iti62_remove import remove
from registry.patients import merge_patients
from registry.store import Store
from tests.updates import APPROVED, DEPRECATED, VERSION, Iti57, new_link, status_change
from xds.metadata import DocumentEntry, ObjectRef, RegistryObject
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindFolders,
    GetDocuments,
    GetFolderAndContents,
    GetSubmissionSetAndContents,
    StoredQuery,
)
from xds.values import Code, Identifier, MimeType, Oid, Sha1, Size, Text, Timestamp
from xds.vocabulary import AssociationType

HAS_MEMBER, APND, RPLC = AssociationType.HAS_MEMBER, AssociationType.APND, AssociationType.RPLC


@pytest.fixture
def registry(store: Store) -> Iti57:
    return Iti57(store)


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


CHANGES: dict[str, Any] = {
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


def test_registering_does_not_disturb_versions(registry: Iti57) -> None:
    """[T 12004] The same document registered again is another logical object, of version 1."""
    document = registry.document()
    registry.update(new_version(document))
    again = valid(registry.p1, unique_id=document.unique_id)
    assert registry.register(again).succeeded
    found: list[RegistryObject] = registry.ask(GetDocuments(unique_id=(str(document.unique_id),)))
    assert sorted(str(one.version) for one in found) == ["1", "2"]
    assert folder_submission(registry.p1).folders


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
            results = together([partial(registry.update, first), partial(registry.update, other, store=second)])
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
