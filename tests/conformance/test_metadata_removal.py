"""ITI-62 Remove Metadata: what goes together, what is refused, and that nothing goes then (Remove Metadata and Documents 3.62).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree
from sqlalchemy import select

from benchmarks.messages import submission
from benchmarks.registries import (
    Registry,
    dump,
    folder_submission,
    into_folder,
    new_uuid,
    opened,
    related,
    together,
    valid,
    with_links,
)
from registry.iti18_stored_query import stored_query
from registry.iti57_update import update
from registry.iti62_remove import MAX_OBJECTS, remove
from registry.patients import merge_patients
from registry.store import Store
from registry.tables import BY_KIND, registry_object
from schemas import lcm, rim
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, ObjectRef, Submission, has_member
from xds.problems import Failure
from xds.queries import GetAssociations, GetDocuments
from xds.vocabulary import AssociationType, Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
EXISTS, UNREFERENCED, UNRESOLVED = (
    "ReferencesExistException",
    "XDSUnreferencedObjectException",
    "UnresolvedReferenceException",
)
APND, RPLC, HAS_MEMBER = AssociationType.APND, AssociationType.RPLC, AssociationType.HAS_MEMBER
_IDS = select(registry_object.c.entry_uuid)
_OF_KIND = {kind: select(table.c.entry_uuid) for kind, table in BY_KIND.items()}


class Removing(Registry):
    """A registry that takes ITI-62, and says which objects each submission brought."""

    def ids(self) -> set[str]:
        return {uuid for (uuid,) in self.store.rows(_IDS, {})}

    def brought(self, made: Submission) -> set[str]:
        """Registers it, and gives the ids of all objects that it made."""
        before = self.ids()
        assert self.register(made).succeeded
        return self.ids() - before

    def of_kind(self, kind: type, ids: Iterable[str]) -> set[str]:
        everything = {uuid for (uuid,) in self.store.rows(_OF_KIND[kind.__name__], {})}
        return everything & set(ids)

    def document(self, ids: Iterable[str]) -> str:
        (found,) = self.of_kind(DocumentEntry, ids)
        return found

    def folder_of(self, ids: Iterable[str]) -> str:
        (found,) = self.of_kind(Folder, ids)
        return found

    def set_of(self, ids: Iterable[str]) -> str:
        links = self.of_kind(Association, ids)
        (found,) = set(ids) - links - self.of_kind(DocumentEntry, ids) - self.of_kind(Folder, ids)
        return found

    def link(self, kind: str, source: str, target: str) -> str:
        query = GetAssociations(uuid=(source,), association_status=(APPROVED, DEPRECATED), metadata_level=2)
        found = [
            one
            for one in rim.decode_fragments(stored_query(query, store=self.store).fragments)
            if isinstance(one, Association)
        ]
        (uuid,) = (
            one.entry_uuid
            for one in found
            if (one.association_type, one.source_object, one.target_object) == (kind, source, target)
        )
        return uuid

    def remove(self, ids: Iterable[str]) -> Outcome:
        return remove([ObjectRef(entry_uuid=one) for one in ids], store=self.store)

    def removed(self, ids: Iterable[str]) -> None:
        """Removes the objects: they are gone from every table, and everything else is as it was."""
        wanted, before = set(ids), dump(self.store)
        assert wanted <= self.ids()
        assert self.remove(wanted).succeeded
        after = dump(self.store)
        gone = {table: set(rows) - set(after[table]) for table, rows in before.items()}
        assert all(set(after[table]) <= set(rows) for table, rows in before.items()), "a row is new or has changed"
        assert len(gone.pop("registry_object")) == len(wanted)
        assert sum(map(len, gone.values())) == len(wanted)
        assert self.ids().isdisjoint(wanted)

    def not_removed(self, ids: Iterable[str]) -> list[tuple[str, str]]:
        """The code and text of each problem; and not one row has changed."""
        before = dump(self.store)
        with pytest.raises(Failure) as failure:
            self.remove(ids)
        assert dump(self.store) == before
        return [(str(problem.code), problem.context) for problem in failure.value.problems]


@pytest.fixture
def registry(store: Store) -> Removing:
    return Removing(store)


def referenced(kind: str, uuid: str, by: str) -> tuple[str, str]:
    text = f"{kind} {uuid} is still referenced by the Association {by}, which is not removed"
    return EXISTS, text


def unreferenced(association: str, uuid: str) -> tuple[str, str]:
    return UNREFERENCED, f"without the Association {association}, nothing refers to {uuid}, which is not removed"


# --- unknown ----------------------------------------------------------------------------------------------------------


def test_an_unknown_id_is_refused(registry: Removing) -> None:
    """[T 30000] And the known ones stay."""
    ids, nowhere = registry.brought(valid(registry.p1)), new_uuid()
    assert registry.not_removed([*ids, nowhere]) == [(UNRESOLVED, f"ObjectRef '{nowhere}' is not registered")]


def test_what_is_no_id_is_refused(registry: Removing) -> None:
    """[T 30000]"""
    assert registry.not_removed(["Document01"]) == [
        (UNRESOLVED, "ObjectRef 'Document01' is not a UUID of RFC 4122 in lower case")
    ]


def test_what_has_been_removed_is_unknown(registry: Removing) -> None:
    """[T 30000]"""
    ids = registry.brought(valid(registry.p1))
    registry.remove(ids)
    assert {code for code, _ in registry.not_removed(ids)} == {UNRESOLVED}


@pytest.mark.parametrize(
    "children", ["", "<rim:ObjectRefList/>", "<rim:AdhocQuery id='urn:uuid:x'/><rim:ObjectRefList/>"]
)
def test_an_empty_list_and_a_query_are_refused(children: str) -> None:
    """Section 11: XDSRegistryMetadataError."""
    message = (
        '<lcm:RemoveObjectsRequest xmlns:lcm="urn:oasis:names:tc:ebxml-regrep:xsd:lcm:3.0"'
        f' xmlns:rim="urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0">{children}</lcm:RemoveObjectsRequest>'
    )
    with pytest.raises(Failure) as failure:
        lcm.decode_remove(etree.fromstring(message))
    (problem,) = failure.value.problems
    assert problem.code == "XDSRegistryMetadataError"
    assert ("rim:AdhocQuery" if "Adhoc" in children else "rim:ObjectRefList") in problem.context


def test_too_many_ids_are_refused(registry: Removing) -> None:
    ids = [new_uuid() for _ in range(MAX_OBJECTS + 1)]
    text = f"the request names {MAX_OBJECTS + 1} objects; the limit is {MAX_OBJECTS}"
    assert registry.not_removed(ids) == [("XDSRegistryMetadataError", text)]


# --- a submission -----------------------------------------------------------------------------------------------------


def test_a_submission_set_with_its_document_is_removed(registry: Removing) -> None:
    """[T 30001] SubmissionSet, DocumentEntry and the HasMember between."""
    other = registry.brought(valid(registry.p1))
    ids = registry.brought(valid(registry.p1))
    unique_ids = tuple(str(one.unique_id) for one in registry.of(DocumentEntry, registry.p1))
    assert len(unique_ids) == 2
    registry.removed(ids)
    left = list(rim.decode_fragments(stored_query(GetDocuments(unique_id=unique_ids), store=registry.store).fragments))
    assert [one.entry_uuid for one in left] == [registry.document(other)]


def test_an_id_named_twice_is_removed_once(registry: Removing) -> None:
    ids = registry.brought(valid(registry.p1))
    assert registry.remove([*ids, *ids]).succeeded
    assert registry.ids().isdisjoint(ids)


def test_a_submission_set_alone_is_refused(registry: Removing) -> None:
    """[T 30001] Its memberships are left."""
    ids = registry.brought(valid(registry.p1))
    set_uuid, document = registry.set_of(ids), registry.document(ids)
    member = registry.link(HAS_MEMBER, set_uuid, document)
    assert registry.not_removed([set_uuid]) == [referenced("SubmissionSet", set_uuid, member)]


def test_a_document_alone_is_refused(registry: Removing) -> None:
    """[T 30001]"""
    ids = registry.brought(valid(registry.p1))
    set_uuid, document = registry.set_of(ids), registry.document(ids)
    member = registry.link(HAS_MEMBER, set_uuid, document)
    assert registry.not_removed([document]) == [referenced("DocumentEntry", document, member)]


def test_a_document_and_its_membership_without_the_submission_set_are_refused(registry: Removing) -> None:
    """[T 30001] The SubmissionSet would have nothing."""
    ids = registry.brought(valid(registry.p1))
    set_uuid, document = registry.set_of(ids), registry.document(ids)
    member = registry.link(HAS_MEMBER, set_uuid, document)
    assert registry.not_removed([document, member]) == [unreferenced(member, set_uuid)]


def test_a_membership_alone_is_refused(registry: Removing) -> None:
    """[T 30001] Both ends would have nothing."""
    ids = registry.brought(valid(registry.p1))
    set_uuid, document = registry.set_of(ids), registry.document(ids)
    member = registry.link(HAS_MEMBER, set_uuid, document)
    assert registry.not_removed([member]) == [unreferenced(member, set_uuid), unreferenced(member, document)]


def test_one_document_of_two_is_removed(registry: Removing) -> None:
    """Step 3: the SubmissionSet has the other one."""
    ids = registry.brought(submission(registry.p1, documents=2, registered=True))
    set_uuid = registry.set_of(ids)
    first, second = sorted(registry.of_kind(DocumentEntry, ids))
    registry.removed([first, registry.link(HAS_MEMBER, set_uuid, first)])
    assert {set_uuid, second} <= registry.ids()


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_removed_with_its_submission_set(registry: Removing) -> None:
    """[T 30002]"""
    ids = registry.brought(folder_submission(registry.p1))
    set_uuid, folder = registry.set_of(ids), registry.folder_of(ids)
    member = registry.link(HAS_MEMBER, set_uuid, folder)
    assert registry.not_removed([set_uuid]) == [referenced("SubmissionSet", set_uuid, member)]
    assert registry.not_removed([folder]) == [referenced("Folder", folder, member)]
    assert registry.not_removed([folder, member]) == [unreferenced(member, set_uuid)]
    registry.removed(ids)


def test_a_document_leaves_a_folder(registry: Removing) -> None:
    """[T 30003] The Folder's HasMember, and the SubmissionSet's HasMember of that; Folder and document stay."""
    folder = registry.folder_of(registry.brought(folder_submission(registry.p1)))
    ids = registry.brought(into_folder(valid(registry.p1), folder))
    set_uuid, document = registry.set_of(ids), registry.document(ids)
    member = registry.link(HAS_MEMBER, folder, document)
    of_set = registry.link(HAS_MEMBER, set_uuid, member)
    assert registry.not_removed([member]) == [referenced("Association", member, of_set)]
    assert registry.not_removed([of_set]) == [unreferenced(of_set, member)]
    registry.removed([member, of_set])
    assert {folder, document, set_uuid} <= registry.ids()


def test_a_folder_with_a_document_in_it_is_refused(registry: Removing) -> None:
    """[T 30002, 30003]"""
    folders = registry.brought(folder_submission(registry.p1))
    folder = registry.folder_of(folders)
    document = registry.document(registry.brought(into_folder(valid(registry.p1), folder)))
    member = registry.link(HAS_MEMBER, folder, document)
    assert registry.not_removed(folders) == [referenced("Folder", folder, member)]


# --- relationships ----------------------------------------------------------------------------------------------------


def test_an_original_with_an_addendum_is_refused(registry: Removing) -> None:
    """[T 30004]"""
    ids = registry.brought(valid(registry.p1))
    document = registry.document(ids)
    addendum = registry.document(registry.brought(related(valid(registry.p1), APND, document)))
    link = registry.link(APND, addendum, document)
    assert registry.not_removed(ids) == [referenced("DocumentEntry", document, link)]
    registry.removed([*ids, link])
    assert [one.entry_uuid for one in registry.found(registry.p1)] == [addendum]


def test_an_addendum_is_removed_with_its_association(registry: Removing) -> None:
    """[T 30004] Then the original can go."""
    ids = registry.brought(valid(registry.p1))
    addenda = registry.brought(related(valid(registry.p1), APND, registry.document(ids)))
    link = registry.link(APND, registry.document(addenda), registry.document(ids))
    assert link in addenda
    assert registry.not_removed(addenda - {link}) == [referenced("DocumentEntry", registry.document(addenda), link)]
    registry.removed(addenda)
    registry.removed(ids)


def test_a_replacement_without_its_association_is_refused(registry: Removing) -> None:
    """[T 30005]"""
    document = registry.document(registry.brought(valid(registry.p1)))
    ids = registry.brought(related(valid(registry.p1), RPLC, document))
    link = registry.link(RPLC, registry.document(ids), document)
    assert registry.not_removed(ids - {link}) == [referenced("DocumentEntry", registry.document(ids), link)]


def test_a_replaced_original_is_removed_with_the_association(registry: Removing) -> None:
    """[T 30005] The replacement stays."""
    ids = registry.brought(valid(registry.p1))
    replacement = registry.brought(related(valid(registry.p1), RPLC, registry.document(ids)))
    link = registry.link(RPLC, registry.document(replacement), registry.document(ids))
    registry.removed({*ids, link})
    assert [one.entry_uuid for one in registry.found(registry.p1)] == [registry.document(replacement)]


def test_removing_a_replacement_does_not_approve_what_it_replaced(registry: Removing) -> None:
    """[T 30006] Section 11: the old document stays Deprecated."""
    document = registry.document(registry.brought(valid(registry.p1)))
    registry.removed(registry.brought(related(valid(registry.p1), RPLC, document)))
    assert [(one.entry_uuid, one.availability_status) for one in registry.found(registry.p1)] == [
        (document, DEPRECATED)
    ]


def test_everything_is_removed_at_once(registry: Removing) -> None:
    """[T 30007] Documents, a folder, an addendum, a replacement with what it propagated; in any order of the ids."""
    before = dump(registry.store)
    folder = registry.brought(folder_submission(registry.p1))
    first = registry.brought(into_folder(valid(registry.p1), registry.folder_of(folder)))
    addendum = registry.brought(related(valid(registry.p1), APND, registry.document(first)))
    replacement = registry.brought(related(valid(registry.p1), RPLC, registry.document(first)))
    registry.removed(folder | first | addendum | replacement)
    assert dump(registry.store) == before


def test_a_part_of_everything_is_refused(registry: Removing) -> None:
    """[T 30008] Whichever object is left out, as long as something refers to it or needs it."""
    folder = registry.brought(folder_submission(registry.p1))
    ids = folder | registry.brought(into_folder(valid(registry.p1), registry.folder_of(folder)))
    for left_out in ids:
        assert registry.not_removed(ids - {left_out})


# --- references, versions, patients -----------------------------------------------------------------------------------


def test_a_reference_of_another_patients_submission_set_counts(registry: Removing) -> None:
    """Step 2: whoever refers."""
    ids = registry.brought(valid(registry.p1))
    document = registry.document(ids)
    reference = has_member("SubmissionSet", document, entry_uuid="ref", submission_set_status="Reference")
    others = registry.brought(with_links(valid(registry.p2), reference))
    link = registry.link(HAS_MEMBER, registry.set_of(others), document)
    assert registry.not_removed(ids) == [referenced("DocumentEntry", document, link)]
    registry.removed([link])
    registry.removed(ids)


def test_all_versions_are_removed_together(registry: Removing) -> None:
    """A logical object leaves nothing behind."""
    before = dump(registry.store)
    ids = registry.brought(valid(registry.p1))
    (old,) = registry.of(DocumentEntry, registry.p1)
    member = has_member("SubmissionSet", "New", entry_uuid="m", submission_set_status="Original")
    request = replace(
        submission(registry.p1, documents=0, registered=True),
        document_entries=(replace(old, entry_uuid="New"),),
        associations=(replace(member, previous_version="1"),),
    )
    known = registry.ids()
    update(request, store=registry.store, now=lambda: registry.moment, new_uuid=new_uuid)
    registry.removed(ids | (registry.ids() - known))
    assert dump(registry.store) == before


def test_what_a_merge_has_moved_is_removed(registry: Removing) -> None:
    ids = registry.brought(valid(registry.p1))
    merge_patients(registry.store, surviving=registry.p2, subsumed=registry.p1)
    registry.removed(ids)
    assert registry.found(registry.p2) == []


def test_an_id_and_a_unique_id_may_come_again_after_removal(registry: Removing) -> None:
    made = valid(registry.p1)
    registry.removed(registry.brought(made))
    assert registry.register(made).succeeded


@pytest.mark.parametrize("stores", [1, 2])
def test_a_removal_and_a_new_addendum_race(registry: Removing, module_database: str, stores: int) -> None:
    """One of them is refused: no association is left that leads nowhere."""
    second = opened(module_database) if stores == 2 else registry.store
    other = Removing(second) if stores == 2 else registry
    try:
        for _ in range(5):
            ids = registry.brought(valid(registry.p1))
            document = registry.document(ids)
            addendum = related(valid(registry.p1), APND, document)
            work: list[Any] = [lambda ids=ids: registry.remove(ids), lambda one=addendum: other.register(one)]
            results = together(work)
            (refused,) = (one for one in results if isinstance(one, Failure))
            assert {str(problem.code) for problem in refused.problems} in ({EXISTS}, {UNRESOLVED})
            assert (document in registry.ids()) == isinstance(results[0], Failure)
    finally:
        if stores == 2:
            second.close()
