"""ITI-57 Update Document Set: new versions that are refused, and that nothing of them stays (Metadata Update 3.57).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.messages import new_oid
from benchmarks.registries import METADATA, combined, new_uuid, new_version, only_a_set, related, valid
from registry.patients import merge_patients
from registry.store import Store
from schemas.attributes import camel_case
from tests.updates import (
    APPROVED,
    DEPRECATED,
    DUPLICATE_IN_MESSAGE,
    INVALID,
    OPERATION,
    RECONCILIATION,
    UPDATE,
    VERSION,
    Iti57,
    new_link,
)
from xds.metadata import has_member
from xds.values import Identifier, Text, UniqueId
from xds.vocabulary import ON_DEMAND, AssociationType

HAS_MEMBER, APND, RPLC = AssociationType.HAS_MEMBER, AssociationType.APND, AssociationType.RPLC


@pytest.fixture
def registry(store: Store) -> Iti57:
    return Iti57(store)


# --- which object it is a version of ----------------------------------------------------------------------------------


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


def test_a_folder_with_an_old_previous_version_is_refused(registry: Iti57) -> None:
    """[T 20000c]"""
    folder = registry.folder()
    registry.update(new_version(folder))
    assert registry.not_updated(new_version(folder)) == [
        (VERSION, f"Folder New: PreviousVersion 1 is not the latest version 2 of {folder.logical_id}")
    ]


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


def test_a_folder_is_no_version_of_a_document(registry: Iti57) -> None:
    document, folder = registry.document(), registry.folder()
    assert registry.not_updated(new_version(folder, logical_id=document.logical_id)) == [
        (UPDATE, f"Folder New: {document.logical_id} is a DocumentEntry")
    ]


def test_a_replaced_document_is_not_updated(registry: Iti57) -> None:
    """Table 9.1: the latest version is Approved."""
    document = registry.document()
    registry.registered(related(valid(registry.p1), RPLC, document.entry_uuid))
    assert registry.not_updated(new_version(document)) == [
        (UPDATE, f"DocumentEntry New: the latest version of {document.logical_id} is Deprecated")
    ]


# --- what it says of the object ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["class_code", "hash", "mime_type", "patient_id", "repository_unique_id", "size"])
def test_a_missing_attribute_of_an_entry_is_named(registry: Iti57, field: str) -> None:
    """[T 15800d]"""
    missing: Any = None
    problems = registry.not_updated(new_version(registry.document(), **{field: missing}))
    assert (METADATA, f"DocumentEntry New: {camel_case(field)} is missing; it is required") in problems


@pytest.mark.parametrize("field", ["code_list", "patient_id", "unique_id"])
def test_a_missing_attribute_of_a_folder_is_named(registry: Iti57, field: str) -> None:
    """[T 20000f]"""
    missing: Any = () if field == "code_list" else None
    problems = registry.not_updated(new_version(registry.folder(), **{field: missing}))
    assert (METADATA, f"Folder New: {camel_case(field)} is missing; it is required") in problems


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


# --- the request ------------------------------------------------------------------------------------------------------


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
