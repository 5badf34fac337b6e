"""ITI-42: what a registry adds to what it takes, and what follows for what it has: replacements, addenda, folders.

ITI TF-2 3.42.4.1.3, ITI TF-3 4.2.2 and 4.2.3.4.6.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from benchmarks.messages import submission
from benchmarks.registries import (
    Registry,
    folder_submission,
    into_folder,
    link,
    new_uuid,
    on_demand_submission,
    own_id,
    related,
    valid,
    with_links,
)
from registry.iti18_stored_query import stored_query
from registry.store import Footprint
from xds.metadata import Association, DocumentEntry, Extra, Folder, Slot, SubmissionSet, has_member
from xds.queries import FindFolders
from xds.values import Sha1, Size, Timestamp
from xds.vocabulary import EMPTY_SHA1, ON_DEMAND, STABLE, AssociationType, Status

RPLC, XFRM, APND = AssociationType.RPLC, AssociationType.XFRM, AssociationType.APND
XFRM_RPLC, SIGNS = AssociationType.XFRM_RPLC, AssociationType.SIGNS
HAS_MEMBER, IS_SNAPSHOT_OF = AssociationType.HAS_MEMBER, AssociationType.IS_SNAPSHOT_OF


def status(registry: Registry, entry_uuid: str) -> str | None:
    (found,) = (one for one in registry.everything() if one.entry_uuid == entry_uuid)
    return found.availability_status


def members(registry: Registry, folder: Folder) -> set[str]:
    """The entryUUIDs of a folder's members."""
    return {
        one.target_object
        for one in registry.of(Association)
        if one.association_type == HAS_MEMBER and one.source_object == folder.entry_uuid
    }


def updated(registry: Registry, folder: Folder) -> str | None:
    (found,) = (one for one in registry.of(Folder) if one.entry_uuid == folder.entry_uuid)
    return found.last_update_time


# --- what is assigned: ITI TF-3 4.2.3.1.1 -----------------------------------------------------------------------------


def test_every_object_is_approved_and_the_first_version_of_itself(registry: Registry) -> None:
    """Whatever the submission says of status, on every class."""
    made = into_folder(valid(registry.p1), "Folder0")
    folder = folder_submission(registry.p1)
    made = with_links(replace(made, folders=folder.folders), *folder.associations)
    deprecated = str(Status.DEPRECATED)
    made = replace(
        made,
        submission_sets=tuple(replace(one, availability_status=deprecated) for one in made.submission_sets),
        document_entries=tuple(replace(one, availability_status=deprecated) for one in made.document_entries),
        folders=tuple(replace(one, availability_status=deprecated, version="7") for one in made.folders),
        associations=tuple(replace(one, availability_status=deprecated) for one in made.associations),
    )
    registry.register(made)
    found = registry.everything()
    assert {type(one) for one in found} == {SubmissionSet, DocumentEntry, Folder, Association}
    assert len(found) == 7
    for one in found:
        assert one.availability_status == Status.APPROVED
        assert (one.logical_id, one.version) == (one.entry_uuid, "1")


def test_a_symbol_is_one_uuid_wherever_it_stands(registry: Registry) -> None:
    made = into_folder(valid(registry.p1), "Folder0")
    folder = folder_submission(registry.p1)
    registry.register(with_links(replace(made, folders=folder.folders), *folder.associations))
    ids = {one.entry_uuid for one in registry.everything()}
    assert len(ids) == 7
    assert all(one.startswith("urn:uuid:") and one == one.lower() for one in ids)
    ends = {end for one in registry.of(Association) for end in (one.source_object, one.target_object)}
    assert ends < ids


def test_a_submitted_uuid_stays_and_its_logical_id_may_be_the_same(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.1."""
    own = new_uuid()
    made = own_id(valid(registry.p1, logical_id=own), own)
    assert registry.registered(made).entry_uuid == own


def test_extra_metadata_comes_back_from_every_class(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.6; conformance test 12379: it never causes a warning here, since it is kept."""
    extra = Extra(slots=(Slot(name="urn:example:mine", values=("<a> & 'b'", "")),))
    made = into_folder(valid(registry.p1, extra=extra), "Folder0")
    folder = folder_submission(registry.p1, extra=extra)
    made = replace(
        made,
        folders=folder.folders,
        submission_sets=(replace(made.submission_sets[0], extra=extra),),
        associations=tuple(replace(one, extra=extra) for one in (*made.associations, *folder.associations)),
    )
    outcome = registry.register(made)
    assert outcome.succeeded and outcome.problems == ()
    found = registry.everything()
    assert len(found) == 7
    assert {one.extra for one in found} == {extra}


def test_an_entry_without_bytes_yet_is_taken(registry: Registry) -> None:
    """Delayed Document Assembly: size 0 and the SHA-1 of nothing (ITI TF-3 4.2.3.2.13)."""
    found = registry.registered(valid(registry.p1, size=Size("0"), hash=Sha1(EMPTY_SHA1)))
    assert (found.size, found.hash) == ("0", EMPTY_SHA1)


def test_the_same_document_may_come_again_at_another_time(registry: Registry) -> None:
    """Conformance test 12004: the hash in the other case is the same hash."""
    first = registry.registered(valid(registry.p1))
    again = valid(registry.p1, unique_id=first.unique_id, hash=Sha1(str(first.hash).upper()))
    assert registry.register(again).succeeded
    both = [one for one in registry.found(registry.p1) if one.unique_id == first.unique_id]
    assert len(both) == 2
    assert len({one.entry_uuid for one in both}) == 2


def test_a_replacement_may_have_the_unique_id_of_the_same_bytes(registry: Registry) -> None:
    first = registry.registered(valid(registry.p1))
    assert registry.register(related(valid(registry.p1, unique_id=first.unique_id), RPLC, first.entry_uuid)).succeeded
    assert [one.availability_status for one in registry.found(registry.p1)].count(str(Status.DEPRECATED)) == 1


# --- references: ITI TF-3 4.2.2.1.2 -----------------------------------------------------------------------------------


def test_a_reference_leads_to_any_document_of_any_patient_and_status(registry: Registry) -> None:
    old = registry.registered(valid(registry.p2)).entry_uuid
    registry.register(related(valid(registry.p2), RPLC, old))
    made = submission(registry.p1, documents=0, registered=True)
    reference = has_member("SubmissionSet", old, entry_uuid="r", submission_set_status="Reference")
    assert registry.register(with_links(made, reference)).succeeded
    (found,) = (one for one in registry.of(Association, registry.p1) if one.target_object == old)
    assert found.submission_set_status == "Reference"
    assert status(registry, old) == Status.DEPRECATED


# --- replacements: ITI TF-2 3.42.4.1.3.5 ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RPLC, XFRM_RPLC])
def test_a_replacement_deprecates_its_target_and_all_that_hangs_on_it(
    registry: Registry, kind: AssociationType
) -> None:
    """Conformance tests 11992 to 11995, 12022: addenda and transformations, and theirs, all the way."""
    original = registry.registered(valid(registry.p1)).entry_uuid
    addendum = registry.registered(related(valid(registry.p1), APND, original)).entry_uuid
    second = registry.registered(related(valid(registry.p1), APND, addendum)).entry_uuid
    other = registry.registered(related(valid(registry.p1), XFRM, second)).entry_uuid
    third = registry.registered(related(valid(registry.p1), XFRM, other)).entry_uuid
    signature = registry.registered(related(valid(registry.p1), SIGNS, original)).entry_uuid
    bystander = registry.registered(valid(registry.p1)).entry_uuid
    new = registry.registered(related(valid(registry.p1), kind, original)).entry_uuid
    for gone in (original, addendum, second, other, third):
        assert status(registry, gone) == Status.DEPRECATED
    for stays in (signature, bystander, new):
        assert status(registry, stays) == Status.APPROVED
    assert {one.entry_uuid for one in registry.found(registry.p1, str(Status.APPROVED))} == {signature, bystander, new}
    assert {one.availability_status for one in registry.of(Association)} == {str(Status.APPROVED)}


def test_a_ring_of_addenda_is_deprecated_once_round(registry: Registry) -> None:
    """Within a submission two documents may be appended to each other."""
    made = submission(registry.p1, documents=2, registered=True)
    ring = (link(APND, "Document0", "Document1"), link(APND, "Document1", "Document0", entry_uuid="back"))
    registry.register(with_links(made, *ring))
    first, second = (registry.entry(made, number).entry_uuid for number in (0, 1))
    registry.register(related(valid(registry.p1), RPLC, first))
    assert {status(registry, first), status(registry, second)} == {Status.DEPRECATED}


@pytest.mark.parametrize("kind", [APND, XFRM, SIGNS])
def test_other_relationships_change_nothing(registry: Registry, kind: AssociationType) -> None:
    """Neither status nor folders (ITI TF-3 4.2.2.2)."""
    folder = registry.folder()
    original = registry.registered(into_folder(valid(registry.p1), folder.entry_uuid))
    before = updated(registry, folder)
    registry.moment = datetime(2026, 7, 1, tzinfo=UTC)
    registry.register(related(valid(registry.p1), kind, original.entry_uuid))
    assert status(registry, original.entry_uuid) == Status.APPROVED
    assert members(registry, folder) == {original.entry_uuid}
    assert updated(registry, folder) == before


def test_a_snapshot_deprecates_nothing_but_the_snapshot_that_it_replaces(registry: Registry) -> None:
    """ITI TF-2 3.43.4.2.3: IsSnapshotOf to the On-Demand entry, RPLC to the previous snapshot."""
    source = registry.registered(on_demand_submission(registry.p1), on_demand=True).entry_uuid
    first = registry.registered(related(valid(registry.p1), IS_SNAPSHOT_OF, source)).entry_uuid
    made = related(valid(registry.p1), IS_SNAPSHOT_OF, source)
    second = registry.registered(with_links(made, link(RPLC, "Document0", first))).entry_uuid
    assert status(registry, source) == Status.APPROVED
    assert (status(registry, first), status(registry, second)) == (Status.DEPRECATED, Status.APPROVED)
    stable = {one.entry_uuid for one in registry.found(registry.p1, str(Status.APPROVED)) if one.object_type == STABLE}
    assert stable == {second}


def test_several_documents_are_replaced_by_one_submission(registry: Registry) -> None:
    old = [registry.registered(valid(registry.p1)).entry_uuid for _ in range(3)]
    made = submission(registry.p1, documents=2, registered=True)
    links = [
        link(RPLC, source, target, entry_uuid=f"r{number}")
        for number, (source, target) in enumerate(zip(("Document0", "Document0", "Document1"), old, strict=True))
    ]
    assert registry.register(with_links(made, *links)).succeeded
    assert {status(registry, one) for one in old} == {Status.DEPRECATED}


# --- folders: ITI TF-3 4.2.3.4.6, ITI TF-2 3.42.4.1.3.3.1 -------------------------------------------------------------


@pytest.mark.parametrize("kind", [RPLC, XFRM_RPLC])
def test_a_replacement_joins_every_approved_folder_of_what_it_replaces(
    registry: Registry, kind: AssociationType
) -> None:
    """Conformance test 12327: membership, its own membership in the SubmissionSet, and lastUpdateTime."""
    first, second, third = (registry.folder() for _ in range(3))
    made = into_folder(valid(registry.p1), first.entry_uuid)
    more = (
        has_member(second.entry_uuid, "Document0", entry_uuid="fd2"),
        has_member("SubmissionSet", "fd2", entry_uuid="sfd2"),
    )
    old = registry.registered(with_links(made, *more)).entry_uuid
    registry.moment = datetime(2026, 6, 1, 7, 8, 9, tzinfo=UTC)
    replacement = related(valid(registry.p1), kind, old)
    new = registry.registered(replacement).entry_uuid
    for folder in (first, second):
        assert members(registry, folder) == {old, new}
        assert updated(registry, folder) == "20260601070809"
    assert members(registry, third) == set()
    assert updated(registry, third) == "20260101000000"
    associations = registry.of(Association)
    folders = {first.entry_uuid, second.entry_uuid}
    joined = {one.entry_uuid for one in associations if one.source_object in folders and one.target_object == new}
    assert len(joined) == 2
    (own,) = (one for one in registry.of(SubmissionSet) if one.unique_id == replacement.submission_sets[0].unique_id)
    assert joined <= {one.target_object for one in associations if one.source_object == own.entry_uuid}


def test_a_replacement_does_not_join_a_deprecated_folder(registry: Registry) -> None:
    """Only Metadata Update deprecates a folder; here the database is told so."""
    folder = registry.folder()
    old = registry.registered(into_folder(valid(registry.p1), folder.entry_uuid)).entry_uuid
    footprint = Footprint(entry_uuids=frozenset({folder.entry_uuid}))
    registry.store.write(
        footprint,
        lambda unit: unit.set_status(unit.known([folder.entry_uuid])[folder.entry_uuid], Status.DEPRECATED),
    )
    registry.register(related(valid(registry.p1), RPLC, old))
    assert members(registry, folder) == {old}


def test_a_replacement_that_says_its_folder_itself_joins_it_once(registry: Registry) -> None:
    folder = registry.folder()
    old = registry.registered(into_folder(valid(registry.p1), folder.entry_uuid)).entry_uuid
    registry.register(into_folder(related(valid(registry.p1), RPLC, old), folder.entry_uuid))
    joined = [one for one in registry.of(Association) if one.source_object == folder.entry_uuid]
    assert len(joined) == 2


def test_one_replacement_of_two_documents_of_a_folder_joins_it_once(registry: Registry) -> None:
    folder = registry.folder()
    old = [registry.registered(into_folder(valid(registry.p1), folder.entry_uuid)).entry_uuid for _ in range(2)]
    links = [link(RPLC, "Document0", one, entry_uuid=f"r{number}") for number, one in enumerate(old)]
    new = registry.registered(with_links(valid(registry.p1), *links)).entry_uuid
    joined = [one.target_object for one in registry.of(Association) if one.source_object == folder.entry_uuid]
    assert sorted(joined) == sorted([*old, new])


def test_the_last_update_time_has_14_digits_in_utc(registry: Registry) -> None:
    """Conformance test 12323; whatever was submitted."""
    registry.moment = datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))
    registry.register(folder_submission(registry.p1, last_update_time=Timestamp("2030")))
    (found,) = registry.of(Folder)
    assert found.last_update_time == "20251231233000"


def test_a_registered_document_is_put_into_a_registered_folder(registry: Registry) -> None:
    """Conformance test 12326: a submission of nothing but the membership."""
    folder, there = registry.folder(), registry.registered(valid(registry.p1)).entry_uuid
    registry.moment = datetime(2026, 8, 1, tzinfo=UTC)
    made = into_folder(submission(registry.p1, documents=0, registered=True), folder.entry_uuid, there)
    assert registry.register(made).succeeded
    assert members(registry, folder) == {there}
    assert updated(registry, folder) == "20260801000000"


def test_a_folder_and_its_documents_come_in_one_submission(registry: Registry) -> None:
    """Conformance test 12000, with a document that is registered already."""
    there = registry.registered(valid(registry.p1)).entry_uuid
    folder = folder_submission(registry.p1)
    made = into_folder(replace(valid(registry.p1), folders=folder.folders), "Folder0")
    more = (
        *folder.associations,
        has_member("Folder0", there, entry_uuid="fd2"),
        has_member("SubmissionSet", "fd2", entry_uuid="sfd2"),
    )
    made = with_links(made, *more)
    new = registry.registered(made).entry_uuid
    (found,) = registry.of(Folder)
    assert members(registry, found) == {there, new}


def test_some_senders_say_original_of_a_folder(registry: Registry) -> None:
    """SubmissionSetStatus is defined for documents only; elsewhere it means nothing (ITI TF-3 4.2.2.1.2)."""
    made = folder_submission(registry.p1)
    (member,) = made.associations
    made = replace(made, associations=(replace(member, submission_set_status="Original"),))
    assert registry.register(made).succeeded


def test_folders_are_found_by_the_time_that_the_registry_gave(registry: Registry) -> None:
    """ITI TF-3 4.2.3.4.6: $XDSFolderLastUpdateTimeFrom and To."""
    folder = registry.folder()
    registry.moment = datetime(2026, 9, 1, tzinfo=UTC)
    registry.register(into_folder(valid(registry.p1), folder.entry_uuid))
    for since, found in (("20260901", 1), ("20260902", 0)):
        query = FindFolders(patient_id=registry.p1, last_update_time_from=Timestamp(since))
        assert len(list(stored_query(query, store=registry.store).fragments)) == found


# --- everything or nothing --------------------------------------------------------------------------------------------


def test_a_refused_replacement_deprecates_nothing(registry: Registry) -> None:
    """ITI TF-2 3.42.4.1.3.3: nothing of it is left, neither status nor lastUpdateTime."""
    folder = registry.folder()
    old = registry.registered(into_folder(valid(registry.p1), folder.entry_uuid)).entry_uuid
    registry.moment = datetime(2026, 9, 1, tzinfo=UTC)
    made = with_links(related(valid(registry.p1), RPLC, old), link(APND, "Document0", new_uuid()))
    registry.refused(made)
    assert status(registry, old) == Status.APPROVED
    assert updated(registry, folder) == "20260101000000"


def test_a_large_submission_is_stored_whole(registry: Registry) -> None:
    """Many objects in one message do not run out of locks or of parameters."""
    made = submission(registry.p1, documents=3000, registered=True)
    assert registry.register(made).succeeded
    assert len(registry.of(Association)) == 3000
    assert {one.object_type for one in registry.of(DocumentEntry)} == {STABLE} != {ON_DEMAND}
