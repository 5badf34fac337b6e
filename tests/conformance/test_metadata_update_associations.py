"""ITI-57 Update Document Set: changes of status, new associations, and both beside a new version (Metadata Update 3.57).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.registries import METADATA, UNRESOLVED, new_uuid, new_version, valid
from registry.store import Store
from tests.updates import APPROVED, DEPRECATED, OPERATION, RECONCILIATION, UPDATE, Iti57, new_link, status_change
from xds.metadata import DocumentEntry, Folder
from xds.queries import FindFolders, GetFolderAndContents
from xds.values import Code
from xds.vocabulary import AssociationType

HAS_MEMBER, APND, RPLC = AssociationType.HAS_MEMBER, AssociationType.APND, AssociationType.RPLC
XFRM, SIGNS, IS_SNAPSHOT_OF = AssociationType.XFRM, AssociationType.SIGNS, AssociationType.IS_SNAPSHOT_OF


@pytest.fixture
def registry(store: Store) -> Iti57:
    return Iti57(store)


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
