"""ITI-64 beside everything else that happens to a document: merges, updates, further moves, failures (XPID 3.64).

What a link change does by itself is in test_link_change.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from benchmarks.registries import Registry, dump, new_uuid, opened, together, valid
from registry import rules
from registry.iti18_stored_query import stored_query
from registry.iti57_update import update
from registry.iti64_link_change import change_link
from registry.patients import merge_patients
from registry.rules import STRICT
from registry.store import Store
from schemas import rim
from xds.metadata import Association, DocumentEntry, Submission, SubmissionSet, has_member
from xds.patients import LinkChanged
from xds.problems import ErrorCode, Failure, fail
from xds.queries import GetDocuments, ReturnType, StoredQuery
from xds.values import Identifier, Oid, Text
from xds.vocabulary import Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
L1 = Identifier("L1^^^&1.2.3.4.5.6&ISO")


class Linked(Registry):
    """A registry that takes ITI-64. `p1` is the old XAD-PID, `p2` the new one, unless a test says otherwise."""

    def event(self, **changes: Identifier) -> LinkChanged:
        made = LinkChanged(patient_id=self.p2, source_patient_id=L1, old_patient_id=self.p1, old_source_patient_id=L1)
        return replace(made, **changes)

    def change(self, *, by: Callable[[], str] = new_uuid, **changes: Identifier) -> None:
        change_link(self.event(**changes), store=self.store, now=lambda: self.moment, new_uuid=by)

    def refused_change(self, **changes: Any) -> list[tuple[str, str]]:
        """The code and text of each problem; and not one row has changed."""
        before = dump(self.store)
        with pytest.raises(Failure) as failure:
            self.change(**changes)
        assert dump(self.store) == before
        return [(str(one.code), one.context) for one in failure.value.problems]

    def document(self) -> DocumentEntry:
        return self.registered(valid(self.p1, source_patient_id=L1))

    def ask(self, query: StoredQuery) -> list[Any]:
        return list(rim.decode_fragments(stored_query(query, store=self.store).fragments))

    def listed(self, patient_id: Identifier) -> list[tuple[str | None, str | None]]:
        """Version and status of what the patient has at Metadata-Level 1, sorted."""
        return sorted((one.version or "", one.availability_status) for one in self.found(patient_id))

    def moved(self, old: DocumentEntry, to: Identifier | None = None) -> DocumentEntry:
        """The Approved version of a logical object that its new patient, p2, has now."""
        (found,) = (one for one in self.found(to or self.p2, APPROVED) if one.logical_id == old.logical_id)
        return found


@pytest.fixture
def registry(store: Store) -> Linked:
    return Linked(store)


# --- the registry's own submission ------------------------------------------------------------------------------------


def test_what_is_made_keeps_the_rules_of_a_submission(registry: Linked) -> None:
    """ITI TF-3 4.2: as if somebody else had submitted it."""
    registry.document()
    registry.change()
    made = Submission(
        submission_sets=tuple(registry.of(SubmissionSet, registry.p2)),
        document_entries=tuple(registry.of(DocumentEntry, registry.p2)),
        associations=tuple(registry.of(Association, registry.p2)),
    )
    assert (len(made.submission_sets), len(made.document_entries), len(made.associations)) == (1, 1, 1)
    kept = [rule for rule in rules.RULES if rule is not rules.nothing_is_updated]
    assert STRICT.check(made, kept) == []


def test_the_source_id_can_be_given(registry: Linked) -> None:
    registry.document()
    change_link(
        registry.event(), store=registry.store, now=lambda: registry.moment, new_uuid=new_uuid, source_id=Oid("1.2.3.9")
    )
    assert [one.source_id for one in registry.of(SubmissionSet, registry.p2)] == ["1.2.3.9"]


# --- versions ---------------------------------------------------------------------------------------------------------


def new_title(old: DocumentEntry, previous: str, patient_id: Identifier | None = None) -> Submission:
    """A request of ITI-57; for another patient, where one is given."""
    owner = patient_id or old.patient_id
    assert owner is not None
    member = has_member("SubmissionSet", "New", entry_uuid="member", submission_set_status="Original")
    changes: dict[str, Any] = {"version": None, "availability_status": None, "patient_id": owner}
    new = replace(old, entry_uuid="New", title=Text.of("Corrected"), **changes)
    return replace(valid(owner), document_entries=(new,), associations=(replace(member, previous_version=previous),))


def updating(registry: Linked, request: Submission, store: Store | None = None) -> None:
    made = update(request, store=store or registry.store, now=lambda: registry.moment, new_uuid=new_uuid)
    assert made.succeeded


def test_a_moved_entry_can_be_updated(registry: Linked) -> None:
    """ITI-57 after ITI-64: the moved version is the latest one of its logical object."""
    old = registry.document()
    registry.change()
    updating(registry, new_title(registry.moved(old), "2"))
    assert registry.listed(registry.p2) == [("3", APPROVED)]
    assert registry.listed(registry.p1) == [("1", DEPRECATED)]


def test_an_entry_that_an_update_brings_back_is_listed_once(registry: Linked) -> None:
    """[T 21002] after ITI-64: at Metadata-Level 1 the patient has the latest version, and not what it was before it left."""
    old = registry.document()
    registry.change()
    updating(registry, new_title(registry.moved(old), "2", registry.p1))
    assert registry.listed(registry.p1) == [("3", APPROVED)]
    assert registry.listed(registry.p2) == []


def test_an_entry_moves_on_to_a_third_patient_and_back(registry: Linked) -> None:
    """Each patient lists at Metadata-Level 1 what it had of it last."""
    third, old = registry.new_patient(), registry.document()
    registry.change()
    registry.change(patient_id=third, old_patient_id=registry.p2)
    assert [registry.listed(one) for one in (registry.p1, registry.p2, third)] == [
        [("1", DEPRECATED)],
        [("2", DEPRECATED)],
        [("3", APPROVED)],
    ]
    registry.change(patient_id=registry.p2, old_patient_id=third)
    assert [registry.listed(one) for one in (registry.p1, registry.p2, third)] == [
        [("1", DEPRECATED)],
        [("4", APPROVED)],
        [("3", DEPRECATED)],
    ]
    assert registry.moved(old).logical_id == old.entry_uuid


def test_the_versions_together_are_of_two_patients(registry: Linked) -> None:
    """[T 21002, 21003] say the same of ITI-57: by logicalID all are found as ObjectRefs, and refused as LeafClass."""
    old = registry.document()
    registry.change()
    query = GetDocuments(logical_id=(str(old.logical_id),), metadata_level=2)
    found = registry.ask(replace(query, return_type=ReturnType.OBJECT_REF))
    assert {one.entry_uuid for one in found} == {old.entry_uuid, registry.moved(old).entry_uuid}
    with pytest.raises(Failure, match="XDSResultNotSinglePatient"):
        registry.ask(query)


# --- merges and updates --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stores", [1, 2])
def test_a_link_change_and_an_update_are_one_after_the_other(
    registry: Linked, module_database: str, stores: int
) -> None:
    """Either the update comes first and its version moves, or it is too late: no logical object has two latest versions."""
    second = opened(module_database) if stores == 2 else registry.store
    try:
        for _ in range(5):
            old = registry.document()
            request = new_title(old, "1")
            actions: list[Callable[[], None]] = [registry.change, partial(updating, registry, request, store=second)]
            moved, changed = together(actions)
            assert moved is None
            new = registry.moved(old)
            if isinstance(changed, Failure):
                assert "XDSMetadataVersionError" in str(changed)
                assert new.version == "2"
            else:
                assert (new.version, new.title) == ("3", Text.of("Corrected"))
            assert registry.found(registry.p1, APPROVED) == []
    finally:
        if stores == 2:
            second.close()


def test_a_link_change_of_an_old_patient_that_was_merged_moves_from_the_surviving_one(registry: Linked) -> None:
    """ITI TF-2 3.8.4.2: what was the subsumed patient's is the surviving one's, by whichever id a source still calls it."""
    third, old = registry.new_patient(), registry.document()
    merge_patients(registry.store, surviving=third, subsumed=registry.p1)
    registry.change()
    assert registry.listed(third) == [("1", DEPRECATED)]
    assert registry.listed(registry.p2) == [("2", APPROVED)]
    assert registry.moved(old).patient_id == registry.p2


def test_a_link_change_that_tells_what_a_merge_has_told_already_changes_nothing(registry: Linked) -> None:
    registry.document()
    merge_patients(registry.store, surviving=registry.p2, subsumed=registry.p1)
    before = dump(registry.store)
    registry.change()
    assert dump(registry.store) == before


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [1, 2, 3, 5, 7])
def test_all_entries_move_or_none(registry: Linked, made: int) -> None:
    """However far it has come when it fails."""
    for _ in range(3):
        registry.document()
    left = iter(range(made - 1))

    def fails() -> str:
        if next(left, None) is None:
            raise fail(ErrorCode.REGISTRY_ERROR, "no more ids")
        return new_uuid()

    assert registry.refused_change(by=fails) == [("XDSRegistryError", "no more ids")]
    assert registry.listed(registry.p1) == [("1", APPROVED)] * 3


@pytest.mark.parametrize("swapped", [False, True])
def test_a_merge_after_a_link_change_shows_the_newest_version_only(registry: Linked, swapped: bool) -> None:
    """What a link change left with each of two patients is one object's versions when they are one patient (ITI TF-2 3.8.4.2)."""
    registry.document()
    registry.change()
    surviving, subsumed = (registry.p1, registry.p2) if swapped else (registry.p2, registry.p1)
    merge_patients(registry.store, surviving=surviving, subsumed=subsumed)
    assert registry.listed(surviving) == [("2", APPROVED)]
