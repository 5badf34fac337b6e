"""ITI-64 Notify XAD-PID Link Change, the registry's side: what moves, what stays, and that it moves whole (XAD-PID Change Management).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.messages import submission
from benchmarks.registries import Registry, dump, into_folder, new_uuid, opened, related, together, valid, with_links
from registry.iti18_stored_query import stored_query
from registry.iti57_update import update
from registry.iti64_link_change import SOURCE_ID, change_link
from registry.patients import feed, merge_patients
from registry.store import Store
from schemas import rim
from xds.metadata import Association, DocumentEntry, Submission, SubmissionSet, has_member
from xds.patients import LinkChanged
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindFolders,
    FindSubmissionSets,
    GetAssociations,
    GetFolderAndContents,
    GetSubmissionSetAndContents,
    StoredQuery,
)
from xds.values import Identifier
from xds.vocabulary import AssociationType, Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
BOTH = (APPROVED, DEPRECATED)
L1, L2 = Identifier("L1^^^&1.2.3.4.5.6&ISO"), Identifier("L2^^^&1.2.3.4.5.6&ISO")
APND, RPLC, HAS_MEMBER = AssociationType.APND, AssociationType.RPLC, AssociationType.HAS_MEMBER


class Linked(Registry):
    """A registry whose patient p1 is L1 at home, until a notification comes."""

    def event(self, **changes: Identifier) -> LinkChanged:
        made = LinkChanged(patient_id=self.p2, source_patient_id=L1, old_patient_id=self.p1, old_source_patient_id=L1)
        return replace(made, **changes)

    def change(self, event: LinkChanged, store: Store | None = None) -> None:
        change_link(event, store=store or self.store, now=lambda: self.moment, new_uuid=new_uuid)

    def unchanged_by(self, event: LinkChanged) -> None:
        before = dump(self.store)
        self.change(event)
        assert dump(self.store) == before

    def not_changed(self, event: LinkChanged) -> list[tuple[str, str]]:
        """The code and text of each problem; and not one row has changed."""
        before = dump(self.store)
        with pytest.raises(Failure) as failure:
            self.change(event)
        assert dump(self.store) == before
        return [(str(problem.code), problem.context) for problem in failure.value.problems]

    def ask(self, query: StoredQuery) -> list[Any]:
        return list(rim.decode_fragments(stored_query(query, store=self.store).fragments))

    def document(self, source: Identifier = L1, patient_id: Identifier | None = None) -> DocumentEntry:
        return self.registered(of_source(patient_id or self.p1, source))

    def moved(self, one: DocumentEntry, patient_id: Identifier | None = None) -> DocumentEntry:
        """The Approved version of the document with p2, or the patient."""
        (found,) = (each for each in self.found(patient_id or self.p2, APPROVED) if each.logical_id == one.logical_id)
        return found

    def links(self, *ends: str) -> set[tuple[str, str, str]]:
        """Type, source and target of the Approved associations that touch one of the objects."""
        found = self.ask(GetAssociations(uuid=ends, metadata_level=2))
        return {(one.association_type.rpartition(":")[2], one.source_object, one.target_object) for one in found}


def of_source(patient_id: Identifier, source: Identifier = L1) -> Submission:
    return valid(patient_id, source_patient_id=source)


@pytest.fixture
def registry(store: Store) -> Linked:
    return Linked(store)


# --- the three cases --------------------------------------------------------------------------------------------------


def test_a_link_change_moves_the_entries_of_the_local_id(registry: Linked) -> None:
    """[T 16101] PID-3 X2 ~ L1, MRG-1 X1 ~ L1: patientId becomes X2."""
    old = registry.document()
    registry.change(registry.event())
    new = registry.moved(old)
    assert (new.patient_id, new.source_patient_id, new.version) == (registry.p2, L1, "2")
    assert new.entry_uuid != old.entry_uuid
    assert replace(new, entry_uuid="", patient_id=None, version=None) == replace(
        old, entry_uuid="", patient_id=None, version=None
    ), "nothing else has changed"


def test_the_old_version_stays_with_the_old_patient_as_deprecated(registry: Linked) -> None:
    """[T 16101b] At Metadata-Level 1 and 2."""
    old = registry.document()
    registry.change(registry.event())
    for level in (1, 2):
        at_old = registry.ask(FindDocuments(patient_id=registry.p1, status=BOTH, metadata_level=level))
        assert [(one.entry_uuid, one.availability_status) for one in at_old] == [(old.entry_uuid, DEPRECATED)]
        at_new = registry.ask(FindDocuments(patient_id=registry.p2, status=BOTH, metadata_level=level))
        assert [(one.version, one.availability_status) for one in at_new] == [("2", APPROVED)]
    assert registry.found(registry.p1, APPROVED) == []


def test_a_merge_over_two_patients_changes_both_ids(registry: Linked) -> None:
    """[T 16102] PID-3 X2 ~ L2, MRG-1 X1 ~ L1."""
    old = registry.document()
    registry.change(registry.event(source_patient_id=L2))
    new = registry.moved(old)
    assert (new.patient_id, new.source_patient_id) == (registry.p2, L2)
    assert [one.source_patient_id for one in registry.found(registry.p1, DEPRECATED)] == [L1]


def test_a_merge_inside_one_patient_changes_the_local_id(registry: Linked) -> None:
    """[T 16103] PID-3 X1 ~ L2, MRG-1 X1 ~ L1: the old version is one like any other, hidden at level 1."""
    old = registry.document()
    registry.change(registry.event(patient_id=registry.p1, source_patient_id=L2))
    assert [(one.version, one.source_patient_id) for one in registry.found(registry.p1)] == [("2", L2)]
    every = registry.ask(FindDocuments(patient_id=registry.p1, status=BOTH, metadata_level=2))
    assert {(one.version, one.source_patient_id, one.availability_status) for one in every} == {
        ("1", L1, DEPRECATED),
        ("2", L2, APPROVED),
    }
    assert {one.logical_id for one in every} == {old.logical_id}


# --- what moves, what stays -------------------------------------------------------------------------------------------


def test_entries_of_another_local_id_or_patient_stay(registry: Linked) -> None:
    """Section 18."""
    old = registry.document()
    other = registry.document(L2)
    of_another = registry.document(L1, registry.p2)
    registry.change(registry.event())
    assert [one.entry_uuid for one in registry.found(registry.p1, APPROVED)] == [other.entry_uuid]
    assert {one.entry_uuid for one in registry.found(registry.p2)} == {
        of_another.entry_uuid,
        registry.moved(old).entry_uuid,
    }


def test_all_entries_move_in_one_submission_of_the_registry(registry: Linked) -> None:
    """Section 18: the SubmissionSet that makes the change is the registry's own; that of the source stays."""
    one, two = registry.document(), registry.document()
    registry.change(registry.event())
    (made,) = registry.ask(FindSubmissionSets(patient_id=registry.p2))
    assert isinstance(made, SubmissionSet)
    assert (made.source_id, made.patient_id) == (SOURCE_ID, registry.p2)
    contents = registry.ask(GetSubmissionSetAndContents(entry_uuid=made.entry_uuid))
    moved = {registry.moved(each).entry_uuid for each in (one, two)}
    assert {each.entry_uuid for each in contents if isinstance(each, DocumentEntry)} == moved
    members = [each for each in contents if isinstance(each, Association)]
    assert [(each.submission_set_status, each.previous_version) for each in members] == [("Original", "1")] * 2
    assert len(registry.ask(FindSubmissionSets(patient_id=registry.p1))) == 2


def test_a_replaced_document_stays_where_it_was(registry: Linked) -> None:
    """It is Deprecated, and a new version would be Approved."""
    old = registry.document()
    replacement = registry.registered(related(of_source(registry.p1), RPLC, old.entry_uuid))
    registry.change(registry.event())
    assert [one.logical_id for one in registry.found(registry.p2)] == [replacement.logical_id]
    assert {one.logical_id for one in registry.found(registry.p1, DEPRECATED)} == {
        old.logical_id,
        replacement.logical_id,
    }


def test_only_the_latest_version_moves(registry: Linked) -> None:
    """After an update by ITI-57."""
    old = registry.document()
    member = has_member("SubmissionSet", "New", entry_uuid="m", submission_set_status="Original")
    request = replace(
        submission(registry.p1, documents=0, registered=True),
        document_entries=(replace(old, entry_uuid="New"),),
        associations=(replace(member, previous_version="1"),),
    )
    update(request, store=registry.store, now=lambda: registry.moment, new_uuid=new_uuid)
    registry.change(registry.event())
    assert [one.version for one in registry.found(registry.p2)] == ["3"]
    assert [one.version for one in registry.found(registry.p1)] == ["2"]


def test_relationships_between_moved_entries_join_their_new_versions(registry: Linked) -> None:
    """Section 18; a relationship to what stays is not carried along."""
    document, stays = registry.document(), registry.document(L2)
    addendum = registry.registered(related(of_source(registry.p1), APND, document.entry_uuid))
    other = registry.registered(related(of_source(registry.p1), APND, stays.entry_uuid))
    registry.change(registry.event())
    new, newer = registry.moved(document).entry_uuid, registry.moved(addendum).entry_uuid
    assert ("APND", newer, new) in registry.links(new)
    assert ("APND", addendum.entry_uuid, document.entry_uuid) in registry.links(document.entry_uuid)
    assert {kind for kind, _, _ in registry.links(registry.moved(other).entry_uuid)} == {"HasMember"}


def test_inside_one_patient_everything_stays_related(registry: Linked) -> None:
    """As after any other update: memberships in folders and relationships, with what does not move too."""
    folder, stays = registry.folder(), registry.document(L2)
    document = registry.registered(
        into_folder(related(of_source(registry.p1), APND, stays.entry_uuid), folder.entry_uuid)
    )
    registry.change(registry.event(patient_id=registry.p1, source_patient_id=L2))
    new = registry.moved(document, registry.p1).entry_uuid
    assert {("HasMember", folder.entry_uuid, new), ("APND", new, stays.entry_uuid)} <= registry.links(new)
    assert [one.version for one in registry.ask(FindFolders(patient_id=registry.p1))] == ["1"]


def test_a_folder_moves_when_all_its_entries_move(registry: Linked) -> None:
    """Section 18."""
    folder = registry.folder()
    documents = [registry.registered(into_folder(of_source(registry.p1), folder.entry_uuid)) for _ in range(2)]
    registry.moment = datetime(2026, 5, 1, tzinfo=UTC)
    registry.change(registry.event())
    (moved,) = registry.ask(FindFolders(patient_id=registry.p2, status=BOTH))
    assert (moved.version, moved.logical_id, moved.patient_id) == ("2", folder.logical_id, registry.p2)
    assert (moved.unique_id, str(moved.last_update_time)) == (folder.unique_id, "20260501000000")
    contents = registry.ask(GetFolderAndContents(entry_uuid=moved.entry_uuid))
    assert {one.entry_uuid for one in contents if isinstance(one, DocumentEntry)} == {
        registry.moved(one).entry_uuid for one in documents
    }
    (left,) = registry.ask(FindFolders(patient_id=registry.p1, status=BOTH))
    assert (left.entry_uuid, left.availability_status) == (folder.entry_uuid, DEPRECATED)


def test_a_folder_stays_with_an_entry_that_stays(registry: Linked) -> None:
    """Section 18: with its remaining members."""
    folder = registry.folder()
    document = registry.registered(into_folder(of_source(registry.p1), folder.entry_uuid))
    stays = registry.registered(into_folder(of_source(registry.p1, L2), folder.entry_uuid))
    registry.change(registry.event())
    assert registry.ask(FindFolders(patient_id=registry.p2, status=BOTH)) == []
    (left,) = registry.ask(FindFolders(patient_id=registry.p1))
    assert (left.entry_uuid, left.version) == (folder.entry_uuid, "1")
    assert ("HasMember", folder.entry_uuid, stays.entry_uuid) in registry.links(stays.entry_uuid)
    assert {source for _, source, _ in registry.links(registry.moved(document).entry_uuid)} == {
        one.entry_uuid for one in registry.ask(FindSubmissionSets(patient_id=registry.p2))
    }


def test_an_old_version_that_was_left_behind_is_not_approved_again(registry: Linked) -> None:
    """[T 15802b] It is not the latest version of its logical object."""
    old = registry.document()
    registry.change(registry.event())
    status = Association(
        entry_uuid="Change",
        association_type=AssociationType.UPDATE_AVAILABILITY_STATUS,
        source_object="SubmissionSet",
        target_object=old.entry_uuid,
        original_status=DEPRECATED,
        new_status=APPROVED,
    )
    request = with_links(submission(registry.p1, documents=0, registered=True), status)
    before = dump(registry.store)
    with pytest.raises(Failure) as failure:
        update(request, store=registry.store, now=lambda: registry.moment, new_uuid=new_uuid)
    text = f"Association Change: '{old.entry_uuid}' is not the latest version of {old.logical_id}"
    assert [str(one) for one in failure.value.problems] == [f"XDSMetadataUpdateError: {text}"]
    assert dump(registry.store) == before


# --- again, and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["link change", "merge over two", "merge inside one"])
def test_a_repeated_notification_changes_nothing(registry: Linked, case: str) -> None:
    """Section 18: and is no error."""
    registry.document()
    event = {
        "link change": registry.event(),
        "merge over two": registry.event(source_patient_id=L2),
        "merge inside one": registry.event(patient_id=registry.p1, source_patient_id=L2),
    }[case]
    before = dump(registry.store)
    registry.change(event)
    assert dump(registry.store) != before
    registry.unchanged_by(event)


def test_a_notification_about_nothing_changes_nothing(registry: Linked) -> None:
    """No entry has the local id, the old patient is unknown, or old and new are the same."""
    registry.document(L2)
    registry.unchanged_by(registry.event())
    registry.unchanged_by(registry.event(old_patient_id=Identifier.of("nobody", "1.2.3.4")))
    registry.unchanged_by(registry.event(patient_id=registry.p1, source_patient_id=L2, old_source_patient_id=L2))


def test_what_has_moved_can_move_back(registry: Linked) -> None:
    """The first patient has the latest version then, and not the first one beside it."""
    old = registry.document()
    registry.change(registry.event())
    registry.change(registry.event(patient_id=registry.p1, old_patient_id=registry.p2))
    assert [(one.version, one.availability_status) for one in registry.found(registry.p1)] == [("3", APPROVED)]
    assert [(one.version, one.availability_status) for one in registry.found(registry.p2)] == [("2", DEPRECATED)]
    assert registry.moved(old, registry.p1).logical_id == old.logical_id


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_new_patient_that_is_not_known_is_refused(registry: Linked) -> None:
    """Section 18: by the feed of the registry, too; nothing moves."""
    registry.document()
    nobody = Identifier.of("nobody", "1.2.3.4")
    problem = ("XDSUnknownPatientId", f"patient '{nobody}' is not known to this registry")
    assert registry.not_changed(registry.event(patient_id=nobody)) == [problem]
    take = feed(registry.store, change_link=registry.change)
    with pytest.raises(Failure) as failure:
        take(registry.event(patient_id=nobody))
    assert failure.value.problems[0].code == "XDSUnknownPatientId"


def test_a_new_patient_that_was_merged_away_is_refused(registry: Linked) -> None:
    """ITI TF-2 3.8.4.2."""
    registry.document()
    survivor = registry.new_patient()
    merge_patients(registry.store, surviving=survivor, subsumed=registry.p2)
    text = f"patient '{registry.p2}' has been merged into '{survivor}'"
    assert registry.not_changed(registry.event()) == [("XDSUnknownPatientId", text)]


# --- at the same time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stores", [1, 2])
def test_of_two_notifications_at_once_one_moves_the_entries(
    registry: Linked, module_database: str, stores: int
) -> None:
    """Each entry has one Approved version afterwards."""
    second = opened(module_database) if stores == 2 else registry.store
    third = registry.new_patient()
    try:
        documents = [registry.document() for _ in range(3)]
        work = [
            lambda: registry.change(registry.event()),
            lambda: registry.change(registry.event(patient_id=third), second),
        ]
        assert together(work) == [None, None]
        approved = [*registry.found(registry.p2, APPROVED), *registry.found(third, APPROVED)]
        assert sorted(str(one.logical_id) for one in approved) == sorted(str(one.logical_id) for one in documents)
        assert len({one.patient_id for one in approved}) == 1
        assert {one.version for one in approved} == {"2"}
    finally:
        if stores == 2:
            second.close()
