"""A patient that is merged into another one: what moves, what is refused from then on (ITI TF-2 3.8.4.2, 3.42.4.1.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

import pytest

from benchmarks.messages import new_oid, patient, submission
from benchmarks.racer import Change, new_uuid, submitted
from registry.iti18_stored_query import stored_query
from registry.iti42_register import register
from registry.iti57_update import update
from registry.patients import add_patient, feed, list_patients, merge_patients
from registry.schema import upgrade
from registry.store import Store, open_engine
from schemas import rim
from tests.conformance.test_iti42_register import folder_submission, into_folder
from xds.metadata import Association, DocumentEntry, Folder, ObjectRef, RegistryObject, Submission, SubmissionSet
from xds.patients import LinkChanged, PatientAdded, PatientsMerged
from xds.problems import ErrorCode, Failure
from xds.queries import FindDocuments, FindFolders, FindSubmissionSets, GetAll, StoredQuery
from xds.values import Identifier, Text, UniqueId
from xds.vocabulary import Status

A, B, C, D, STRANGER = (patient(n) for n in range(1, 6))
UNKNOWN = str(ErrorCode.UNKNOWN_PATIENT_ID)
BOTH = tuple(str(status) for status in Status)


def _now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


class Registry:
    """A registry that knows four patients."""

    def __init__(self, database: str) -> None:
        engine = open_engine(database)
        upgrade(engine)
        self.store = Store(engine)
        for one in (A, B, C, D):
            add_patient(self.store, one)

    def register(self, one: Submission, patients: Literal["known", "open"] = "known") -> None:
        assert register(one, store=self.store, now=_now, new_uuid=new_uuid, patients=patients).succeeded

    def refused(self, one: Submission, patients: Literal["known", "open"] = "known") -> list[tuple[str, str]]:
        with pytest.raises(Failure) as failure:
            self.register(one, patients)
        return [(problem.code, problem.context) for problem in failure.value.problems]

    def merge(self, subsumed: Identifier, into: Identifier) -> None:
        merge_patients(self.store, surviving=into, subsumed=subsumed)

    def merge_refused(self, subsumed: Identifier, into: Identifier) -> str:
        """Why; and nothing has changed."""
        before = self.state()
        with pytest.raises(Failure) as failure:
            self.merge(subsumed, into)
        assert self.state() == before
        (problem,) = failure.value.problems
        assert problem.code == UNKNOWN
        return problem.context

    def state(self) -> object:
        return list_patients(self.store), [self.everything(one) for one in (A, B, C, D)]

    def ask(self, query: StoredQuery) -> list[RegistryObject]:
        found = rim.decode_fragments(stored_query(query, store=self.store).fragments)
        return [one for one in found if not isinstance(one, ObjectRef)]

    def everything(self, one: Identifier) -> list[RegistryObject]:
        query = GetAll(patient_id=one, document_entry_status=BOTH, submission_set_status=BOTH, folder_status=BOTH)
        return sorted(self.ask(query), key=lambda each: each.entry_uuid)

    def entries(self, one: Identifier) -> list[DocumentEntry]:
        return [each for each in self.everything(one) if isinstance(each, DocumentEntry)]


@pytest.fixture
def registry(database: str) -> Iterator[Registry]:
    made = Registry(database)
    yield made
    made.store.close()


# --- what moves ---------------------------------------------------------------------------------------------------------


def test_everything_of_the_subsumed_patient_becomes_the_survivors(registry: Registry) -> None:
    """ITI TF-2 3.8.4.2: patientId is the survivor's; all else, and sourcePatientId, is as it was submitted."""
    registry.register(folder_submission(A))
    (folder,) = [one for one in registry.everything(A) if isinstance(one, Folder)]
    registry.register(into_folder(folder.entry_uuid, submission(A, documents=1, registered=True)))
    registry.register(submission(B, registered=True))
    before, own = registry.everything(A), registry.everything(B)
    assert {type(one) for one in before} == {DocumentEntry, SubmissionSet, Folder, Association}
    registry.merge(A, into=B)
    moved = [one if isinstance(one, Association) else replace(one, patient_id=B) for one in before]
    assert registry.everything(B) == sorted([*moved, *own], key=lambda each: each.entry_uuid)
    assert [one.source_patient_id for one in registry.entries(B)] == [Identifier("L7^^^&1.2.3.4.5.6&ISO")] * 2
    assert all(one.source_patient_info for one in registry.entries(B))


@pytest.mark.parametrize("kind", [FindDocuments, FindSubmissionSets, FindFolders, GetAll])
def test_a_query_for_the_subsumed_patient_finds_nothing(registry: Registry, kind: type) -> None:
    """ITI TF-2 3.18.4.1.3: and one for the survivor finds it."""
    registry.register(folder_submission(A))
    registry.register(submission(A, registered=True))
    before = len(registry.ask(kind(patient_id=A)))
    assert before
    registry.merge(A, into=B)
    assert registry.ask(kind(patient_id=A)) == []
    assert len(registry.ask(kind(patient_id=B))) == before


def test_the_statuses_stay(registry: Registry) -> None:
    registry.register(submission(A, registered=True))
    (old,) = registry.entries(A)
    registry.register(submitted(Change(kind="register", patient=A, relation="RPLC", target=old.entry_uuid)))
    registry.merge(A, into=B)
    statuses = {one.entry_uuid == old.entry_uuid: one.availability_status for one in registry.entries(B)}
    assert statuses == {True: Status.DEPRECATED, False: Status.APPROVED}


def test_a_chain_of_merges_ends_with_the_last(registry: Registry) -> None:
    """The registry-wide view of a chain: every object is the last survivor's, and each merged patient leads to it."""
    for one in (A, B, C):
        registry.register(submission(one, registered=True))
    registry.merge(A, into=B)
    registry.merge(B, into=C)
    registry.merge(C, into=D)
    assert [len(registry.entries(one)) for one in (A, B, C, D)] == [0, 0, 0, 3]
    assert {one.patient_id for one in registry.entries(D)} == {D}
    assert list_patients(registry.store) == [(A, D), (B, D), (C, D), (D, None)]


def test_several_patients_may_be_merged_into_one(registry: Registry) -> None:
    for one in (A, B, C):
        registry.register(submission(one, registered=True))
        registry.merge(one, into=D)
    assert len(registry.entries(D)) == 3


def test_what_the_survivor_had_of_the_same_document_stays_beside_it(registry: Registry) -> None:
    """ITI TF-3 4.2.4.1: a uniqueId may have two entries."""
    made = [submission(one, registered=True) for one in (A, B)]
    unique_id = UniqueId(new_oid())
    for one in made:
        registry.register(replace(one, document_entries=(replace(one.document_entries[0], unique_id=unique_id),)))
    registry.merge(A, into=B)
    assert [one.unique_id for one in registry.entries(B)] == [unique_id] * 2


# --- what the survivor may do afterwards ----------------------------------------------------------------------------------


def test_the_survivor_replaces_a_document_of_the_subsumed(registry: Registry) -> None:
    """ITI TF-2 3.42.4.1.3.5; its folder goes with it (3.42.4.1.3.3.1)."""
    registry.register(folder_submission(A))
    (folder,) = [one for one in registry.everything(A) if isinstance(one, Folder)]
    registry.register(into_folder(folder.entry_uuid, submission(A, registered=True)))
    (old,) = registry.entries(A)
    registry.merge(A, into=B)
    registry.register(submitted(Change(kind="register", patient=B, relation="RPLC", target=old.entry_uuid)))
    (new,) = [one for one in registry.entries(B) if one.availability_status == Status.APPROVED]
    assert new.entry_uuid != old.entry_uuid
    members = [
        one.target_object
        for one in registry.everything(B)
        if isinstance(one, Association) and one.source_object == folder.entry_uuid
    ]
    assert sorted(members) == sorted([old.entry_uuid, new.entry_uuid])


def test_the_survivor_adds_to_folders_and_documents_of_the_subsumed(registry: Registry) -> None:
    registry.register(folder_submission(A))
    registry.register(submission(A, registered=True))
    (folder,) = [one for one in registry.everything(A) if isinstance(one, Folder)]
    (old,) = registry.entries(A)
    registry.merge(A, into=B)
    registry.register(submitted(Change(kind="register", patient=B, folder=folder.entry_uuid)))
    registry.register(submitted(Change(kind="register", patient=B, relation="APND", target=old.entry_uuid)))
    assert len(registry.entries(B)) == 3


def test_the_survivor_updates_a_document_of_the_subsumed(registry: Registry) -> None:
    """ITI TF-2 3.57: patientIds are those of today."""
    registry.register(submission(A, registered=True))
    (old,) = registry.entries(A)
    registry.merge(A, into=B)
    assert update(_update_of(old, B), store=registry.store, now=_now, new_uuid=new_uuid).succeeded
    statuses = {one.version: one.availability_status for one in registry.entries(B)}
    assert statuses["2"] == Status.APPROVED
    assert statuses.get("1", Status.DEPRECATED) == Status.DEPRECATED


# --- what is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patients", ["known", "open"])
def test_a_merged_patient_is_refused_in_new_submissions(registry: Registry, patients: Literal["known", "open"]) -> None:
    """ITI TF-2 3.42.4.1.3: whatever the registry thinks of patients that it has not heard of."""
    registry.merge(A, into=B)
    problems = registry.refused(submission(A, registered=True), patients)
    assert problems == [(UNKNOWN, f"patient {str(A)!r} has been merged into {str(B)!r}")]
    assert registry.everything(A) == registry.everything(B) == []
    registry.register(submission(B, registered=True), patients)


def test_the_feed_does_not_bring_a_merged_patient_back(registry: Registry) -> None:
    """A merge is for good: that the patient is told of again changes nothing."""
    registry.merge(A, into=B)
    assert not add_patient(registry.store, A)
    assert registry.refused(submission(A, registered=True))[0][0] == UNKNOWN
    assert (A, B) in list_patients(registry.store)


def test_an_update_for_a_merged_patient_is_refused(registry: Registry) -> None:
    """ITI TF-2 3.57.4.1.3, 3.8.4.2."""
    registry.register(submission(A, registered=True))
    (old,) = registry.entries(A)
    registry.merge(A, into=B)
    before = registry.state()
    with pytest.raises(Failure) as failure:
        update(_update_of(old, A), store=registry.store, now=_now, new_uuid=new_uuid)
    assert UNKNOWN in [one.code for one in failure.value.problems]
    assert registry.state() == before


def _update_of(old: DocumentEntry, patient_id: Identifier) -> Submission:
    """ITI-57 that changes the title."""
    made = submission(patient_id, registered=True)
    new = replace(
        old,
        entry_uuid="Document0",
        patient_id=patient_id,
        title=Text.of("Another title"),
        availability_status=None,
        version=None,
    )
    link = replace(made.associations[0], previous_version=old.version)
    return replace(made, document_entries=(new,), associations=(link,))


def test_a_patient_is_not_merged_into_itself(registry: Registry) -> None:
    assert registry.merge_refused(A, into=A) == f"patient {str(A)!r} cannot be merged into itself"


def test_a_circle_of_merges_is_refused(registry: Registry) -> None:
    registry.register(submission(A, registered=True))
    registry.merge(A, into=B)
    registry.merge(B, into=C)
    assert registry.merge_refused(C, into=A) == f"the surviving patient {str(A)!r} has been merged into {str(C)!r}"
    assert registry.merge_refused(C, into=B) == f"the surviving patient {str(B)!r} has been merged into {str(C)!r}"
    assert len(registry.entries(C)) == 1


def test_a_merged_patient_is_not_merged_again(registry: Registry) -> None:
    registry.merge(A, into=B)
    for into in (B, C):
        assert (
            registry.merge_refused(A, into=into) == f"the subsumed patient {str(A)!r} has been merged into {str(B)!r}"
        )


def test_nobody_is_merged_with_a_patient_that_is_not_known(registry: Registry) -> None:
    registry.register(submission(A, registered=True))
    reason = f"patient {str(STRANGER)!r} is not known to this registry"
    assert registry.merge_refused(A, into=STRANGER) == f"the surviving {reason}"
    assert registry.merge_refused(STRANGER, into=A) == f"the subsumed {reason}"


@pytest.mark.parametrize("bad", ["a\x00^^^&1.2.3.4&ISO", "a" * 300, "a\ud800^^^&1.2.3.4&ISO", "", "no cx"])
def test_an_id_that_no_database_would_keep_is_refused_as_unknown(registry: Registry, bad: str) -> None:
    """The feed's text is hostile: NUL, half a surrogate pair, and what is too long."""
    assert "patient" in registry.merge_refused(A, into=Identifier(bad))
    assert "patient" in registry.merge_refused(Identifier(bad), into=A)


# --- as the feed tells it -----------------------------------------------------------------------------------------------


def test_what_the_feed_tells_is_done(registry: Registry) -> None:
    links: list[LinkChanged] = []
    take = feed(registry.store, change_link=links.append)
    take(PatientAdded(patient_id=STRANGER))
    registry.register(submission(STRANGER, registered=True))
    take(PatientsMerged(surviving=A, subsumed=STRANGER))
    assert len(registry.entries(A)) == 1
    with pytest.raises(Failure) as failure:
        take(PatientsMerged(surviving=A, subsumed=STRANGER))
    assert failure.value.problems[0].code == UNKNOWN
    assert links == []
