"""ITI-42: ids and uniqueIds, what a SubmissionSet and a Folder hold, and that a submission is taken as a whole or not at all.

ITI TF-2 3.42.4.1, ITI TF-3 4.2.1, 4.2.3.1.1 and 4.2.4.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.messages import new_oid, patient, submission
from benchmarks.registries import (
    METADATA,
    UNRESOLVED,
    Registry,
    folder_submission,
    into_folder,
    link,
    new_uuid,
    own_id,
    related,
    valid,
    with_links,
    with_set,
)
from schemas.attributes import camel_case
from tests.submissions import UUID, among, only, with_folder
from xds.metadata import (
    Association,
    DocumentEntry,
    Extra,
    Folder,
    Slot,
    Submission,
    SubmissionSet,
    Unrecognized,
    has_member,
)
from xds.values import Oid, Sha1, Size, UniqueId
from xds.vocabulary import AssociationType

# --- ids: ITI TF-3 4.2.3.1.1 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry_uuid",
    [f"urn:uuid:{UUID.upper()}", f"urn:uuid:{UUID[:-1]}", f"urn:uuid:{UUID.replace('-', '')}", f"URN:UUID:{UUID}"],
)
def test_an_id_that_is_nearly_a_uuid_is_refused(registry: Registry, entry_uuid: str) -> None:
    made = own_id(valid(registry.p1), entry_uuid)
    only(
        registry.refused(made), METADATA, f"DocumentEntry {entry_uuid}: the id is not a UUID of RFC 4122 in lower case"
    )


def test_an_id_given_twice_is_refused(registry: Registry) -> None:
    made = submission(registry.p1, documents=2, registered=True)
    made = replace(made, associations=tuple(replace(one, entry_uuid="same") for one in made.associations))
    among(registry.refused(made), METADATA, "the id 'same' is given to 2 objects")


@pytest.mark.parametrize("kind", [DocumentEntry, SubmissionSet, Folder, Association])
def test_an_id_that_is_registered_is_refused_of_every_class(registry: Registry, kind: type) -> None:
    """Conformance test 15806."""
    registry.registered(into_folder(valid(registry.p1), registry.folder().entry_uuid))
    taken = next(one.entry_uuid for one in registry.everything() if isinstance(one, kind))
    among(
        registry.refused(own_id(valid(registry.p1), taken)),
        METADATA,
        f"DocumentEntry {taken}: the id is registered already, as a {kind.__name__}",
    )


@pytest.mark.parametrize("make", [with_set, folder_submission])
def test_a_logical_id_of_another_object_is_refused(registry: Registry, make: Callable[..., Submission]) -> None:
    made = make(registry.p1, logical_id=f"urn:uuid:{UUID}")
    only(registry.refused(made), METADATA, f"logicalID 'urn:uuid:{UUID}' differs from the id")


# --- uniqueId: ITI TF-3 4.2.4.1 ---------------------------------------------------------------------------------------


def test_a_unique_id_of_two_classes_in_a_message_is_refused(registry: Registry) -> None:
    made, folder = valid(registry.p1), folder_submission(registry.p1)
    same = made.submission_sets[0].unique_id
    folders = (replace(folder.folders[0], unique_id=UniqueId(str(same))),)
    made = with_links(replace(made, folders=folders), *folder.associations)
    only(registry.refused(made), "XDSRegistryDuplicateUniqueIdInMessage", repr(str(same)), "2 objects")


def test_a_used_unique_id_of_a_folder_is_refused(registry: Registry) -> None:
    used = registry.folder().unique_id
    only(
        registry.refused(folder_submission(registry.p1, unique_id=used)),
        "XDSDuplicateUniqueIdInRegistry",
        f"Folder Folder0: the uniqueId {str(used)!r} is used by a registered Folder",
    )


def test_a_document_s_unique_id_is_none_for_a_set_or_folder(registry: Registry) -> None:
    used = registry.registered(valid(registry.p1)).unique_id
    for made in (with_set(registry.p1, unique_id=Oid(str(used))), folder_submission(registry.p1, unique_id=used)):
        only(registry.refused(made), "XDSDuplicateUniqueIdInRegistry", repr(str(used)), "a registered DocumentEntry")


def test_the_same_unique_id_of_another_patient_has_the_same_bytes(registry: Registry) -> None:
    first = registry.registered(valid(registry.p1))
    other = valid(registry.p2, unique_id=first.unique_id, hash=Sha1("0" * 40))
    only(registry.refused(other), "XDSNonIdenticalHash", repr(str(first.unique_id)), str(first.hash), "0" * 40)
    other = valid(registry.p2, unique_id=first.unique_id, size=Size("6"))
    only(registry.refused(other), "XDSNonIdenticalSize", repr(str(first.unique_id)), "size 5", "'6'")
    assert registry.register(valid(registry.p2, unique_id=first.unique_id, size=Size("05"))).succeeded


def test_unique_ids_are_compared_with_their_case(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.7: character by character."""
    one = UniqueId(f"urn:example:a:{new_oid()}")
    other = UniqueId(one.replace(":a:", ":A:"))
    first = registry.registered(valid(registry.p1, unique_id=one))
    second = registry.registered(valid(registry.p1, unique_id=other, hash=Sha1("0" * 40)))
    assert (first.unique_id, second.unique_id) == (one, other)


# --- the SubmissionSet: ITI TF-3 4.2.1.4 ------------------------------------------------------------------------------


def test_an_entry_is_a_member_exactly_once_as_original(registry: Registry) -> None:
    made = valid(registry.p1)
    (member,) = made.associations
    words = "HasMember associations with SubmissionSetStatus Original lead to it from the SubmissionSet"
    for count, members in (
        (0, ()),
        (2, (member, replace(member, entry_uuid="again"))),
        (0, (replace(member, submission_set_status=None),)),
        (0, (replace(member, submission_set_status="Reference"),)),
        (0, (replace(member, submission_set_status="original"),)),
    ):
        problems = registry.refused(replace(made, associations=members))
        among(problems, METADATA, f"DocumentEntry Document0: {count} {words}")


def test_a_submission_set_status_is_original_or_reference(registry: Registry) -> None:
    made = valid(registry.p1)
    (member,) = made.associations
    bad = replace(made, associations=(replace(member, submission_set_status="New"),))
    among(registry.refused(bad), METADATA, "SubmissionSetStatus 'New' is neither Original nor Reference")
    two = Extra(slots=(Slot(name="SubmissionSetStatus", values=("Original", "Reference")),))
    bad = replace(made, associations=(replace(member, submission_set_status=None, extra=two),))
    among(registry.refused(bad), METADATA, "SubmissionSetStatus has the 2 values 'Original', 'Reference'")


def test_original_does_not_lead_to_what_is_registered(registry: Registry) -> None:
    there = registry.registered(valid(registry.p1)).entry_uuid
    for status in ("Original", None):
        member = has_member("SubmissionSet", there, entry_uuid="old", submission_set_status=status)
        problems = registry.refused(with_links(valid(registry.p1), member))
        among(problems, METADATA, "Association old: SubmissionSetStatus", there)


def test_two_sets_are_refused_even_where_each_is_complete(registry: Registry) -> None:
    made, other = valid(registry.p1), with_set(registry.p1, entry_uuid="Set2", unique_id=Oid(new_oid()))
    both = replace(made, submission_sets=(*made.submission_sets, *other.submission_sets))
    among(registry.refused(both), METADATA, "the submission holds 2 SubmissionSets; it must hold exactly one")


def test_a_set_that_holds_only_a_registered_folder_submits_nothing(registry: Registry) -> None:
    """ITI TF-3 4.2.1.4: at least a document, a folder, or a membership in one."""
    there = registry.folder().entry_uuid
    made = with_links(submission(registry.p1, documents=0), has_member("SubmissionSet", there, entry_uuid="m"))
    only(registry.refused(made), METADATA, "holds no DocumentEntry, no Folder and no Association")


def test_a_set_that_holds_only_a_reference_submits_it(registry: Registry) -> None:
    """ITI TF-3 4.2.1.4: a document by reference."""
    there = registry.registered(valid(registry.p2)).entry_uuid
    reference = has_member("SubmissionSet", there, entry_uuid="m", submission_set_status="Reference")
    assert registry.register(with_links(submission(registry.p1, documents=0), reference)).succeeded
    gone = replace(reference, target_object=new_uuid())
    only(
        registry.refused(with_links(submission(registry.p1, documents=0), gone)),
        UNRESOLVED,
        f"Association m: targetObject {gone.target_object!r} is neither in the submission nor in the registry",
    )


def test_a_submission_set_is_no_target(registry: Registry) -> None:
    made = with_links(folder_submission(registry.p1), link(AssociationType.HAS_MEMBER, "Folder0", "SubmissionSet"))
    among(registry.refused(made), METADATA, "its target 'SubmissionSet' is a SubmissionSet, which nothing may be")
    registry.register(valid(registry.p1))
    (there,) = (one.entry_uuid for one in registry.of(SubmissionSet))
    for status in (None, "Reference"):
        member = has_member("SubmissionSet", there, entry_uuid="old", submission_set_status=status)
        made = with_links(valid(registry.p1), member)
        among(registry.refused(made), METADATA, f"its target {there!r} is a SubmissionSet, which nothing may be")


def test_nothing_is_added_to_a_registered_submission_set(registry: Registry) -> None:
    registry.register(valid(registry.p1))
    (there,) = (one.entry_uuid for one in registry.of(SubmissionSet))
    made = with_links(
        valid(registry.p1),
        has_member(there, "Document0", entry_uuid="late", submission_set_status="Original"),
        has_member("SubmissionSet", "late", entry_uuid="late-member"),
    )
    only(
        registry.refused(made),
        METADATA,
        f"its source {there!r} is a registered SubmissionSet, which cannot be added to",
    )


# --- memberships ------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_member_exactly_once(registry: Registry) -> None:
    made = folder_submission(registry.p1)
    (member,) = made.associations
    for count, members in ((0, ()), (2, (member, replace(member, entry_uuid="again")))):
        problems = registry.refused(replace(made, associations=members))
        among(problems, METADATA, f"Folder Folder0: it is a member of the SubmissionSet {count} times")


def test_a_membership_in_a_folder_is_a_member_exactly_once(registry: Registry) -> None:
    made = into_folder(valid(registry.p1), registry.folder().entry_uuid)
    *others, last = made.associations
    words = "Association fd: a membership in a Folder is itself a member of the SubmissionSet exactly once, not"
    only(registry.refused(replace(made, associations=tuple(others))), METADATA, f"{words} 0 times")
    only(registry.refused(with_links(made, replace(last, entry_uuid="again"))), METADATA, f"{words} 2 times")


def test_only_sets_and_folders_have_members(registry: Registry) -> None:
    made = submission(registry.p1, documents=2, registered=True)
    among(
        registry.refused(with_links(made, link(AssociationType.HAS_MEMBER, "Document0", "Document1"))),
        METADATA,
        "its source 'Document0' is a DocumentEntry, which has no members",
    )
    there = registry.registered(valid(registry.p1)).entry_uuid
    among(
        registry.refused(into_folder(valid(registry.p1), there)),
        METADATA,
        f"its source {there!r} is a registered DocumentEntry, which has no members",
    )
    made = with_links(with_folder(registry), has_member("sf", "Document0", entry_uuid="m"))
    among(registry.refused(made), METADATA, "Association m: its source 'sf' is a Association, which has no members")


def test_a_folder_holds_documents_only(registry: Registry) -> None:
    there = registry.folder().entry_uuid
    made = folder_submission(registry.p1)
    for bad in (into_folder(made, there, "Folder0"), into_folder(made, "Folder0", there)):
        among(registry.refused(bad), METADATA, "Association fd: its target", "a Folder holds DocumentEntries")


# --- the whole: ITI TF-2 3.42.4.1.3 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", ["previous_version", "association_propagation", "original_status", "new_status"])
def test_an_update_is_not_a_registration(registry: Registry, slot: str) -> None:
    """Conformance tests 21000, 15800c."""
    made = valid(registry.p1)
    made = replace(made, associations=(replace(made.associations[0], **{slot: "1"}),))  # type: ignore[arg-type]
    only(registry.refused(made), METADATA, f"Association member0: {camel_case(slot)} belongs to Update Document Set")


def test_what_is_refused_for_one_object_is_not_stored_for_the_others(registry: Registry) -> None:
    """Conformance test 12084: everything or nothing (ITI TF-2 3.42.4.1.3)."""
    made = submission(registry.p1, documents=3, registered=True)
    *good, last = made.document_entries
    made = replace(made, document_entries=(*good, replace(last, repository_unique_id=None)))
    only(registry.refused(made), METADATA, "DocumentEntry Document2: repositoryUniqueId is missing")
    assert registry.everything() == []


def test_the_faults_of_message_and_registry_are_told_at_once(registry: Registry) -> None:
    made = related(valid(patient(1), class_code=None), AssociationType.RPLC, new_uuid())
    codes = {code for code, _ in registry.refused(made)}
    assert codes == {METADATA, "XDSUnknownPatientId", UNRESOLVED}


def test_an_unrecognized_object_is_refused_whatever_else_is_there(registry: Registry) -> None:
    """ITI TF-3 4.2.1."""
    stray = Unrecognized(entry_uuid="s", reason="Service s is no object of IHE", xml=b"<a/>")
    only(
        registry.refused(replace(valid(registry.p1), unrecognized=(stray,))), METADATA, "Service s is no object of IHE"
    )
