"""ITI-42 Register Document Set-b: what a registry refuses, what it takes, and what follows (ITI TF-2 3.42, ITI TF-3 4.1 to 4.3)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.messages import new_oid, patient, submission
from registry.iti18_stored_query import stored_query
from registry.iti42_register import register as iti42
from registry.patients import add_patient
from registry.rules_attributes import REQUIRED
from registry.schema import upgrade
from registry.store import Store, open_engine
from schemas import rim
from schemas.attributes import camel_case
from xds.messages import Outcome
from xds.metadata import (
    Association,
    Classification,
    DocumentEntry,
    Extra,
    Folder,
    Slot,
    Submission,
    Unrecognized,
    has_member,
)
from xds.problems import Failure
from xds.queries import FindDocuments, GetAll, GetDocuments
from xds.values import Code, Identifier, Sha1, Size, Text, Timestamp, UniqueId
from xds.vocabulary import ON_DEMAND, AssociationType, Status

P1, P2 = patient(1), patient(2)
METADATA = "XDSRegistryMetadataError"


class Registry:
    """A registry over a database of its own, at a time that the test sets."""

    def __init__(self, database: str) -> None:
        engine = open_engine(database)
        upgrade(engine)
        self.store = Store(engine)
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)
        for one in (P1, P2):
            add_patient(self.store, one)

    def register(self, one: Submission) -> Outcome:
        return iti42(one, store=self.store, now=lambda: self.moment, new_uuid=lambda: f"urn:uuid:{uuid.uuid4()}")

    def refused(self, one: Submission) -> list[tuple[str, str]]:
        """The problems; and nothing has been stored."""
        before = self.everything()
        with pytest.raises(Failure) as failure:
            self.register(one)
        assert self.everything() == before
        return [(problem.code, problem.context) for problem in failure.value.problems]

    def everything(self) -> list[Any]:
        both = (str(Status.APPROVED), str(Status.DEPRECATED))
        found: list[Any] = []
        for one in (P1, P2):
            query = GetAll(patient_id=one, document_entry_status=both, submission_set_status=both, folder_status=both)
            found += rim.decode_fragments(stored_query(query, store=self.store).fragments)
        return found

    def of(self, kind: type) -> list[Any]:
        return [one for one in self.everything() if isinstance(one, kind)]

    def entry(self, unique_id: str | None) -> DocumentEntry:
        found = stored_query(GetDocuments(unique_id=(str(unique_id),)), store=self.store).fragments
        (one,) = rim.decode_fragments(found)
        assert isinstance(one, DocumentEntry)
        return one


@pytest.fixture
def registry(database: str) -> Iterator[Registry]:
    made = Registry(database)
    yield made
    made.store.close()


def valid(**changes: Any) -> Submission:
    """A valid submission of one document, some attributes of its entry changed."""
    made = submission(P1, registered=True)
    return replace(made, document_entries=(replace(made.document_entries[0], **changes),))


def with_set(**changes: Any) -> Submission:
    made = submission(P1, registered=True)
    return replace(made, submission_sets=(replace(made.submission_sets[0], **changes),))


def relation(kind: AssociationType, target: str, **changes: Any) -> Submission:
    made = valid(**changes)
    link = Association(entry_uuid="rel", association_type=kind, source_object="Document0", target_object=target)
    return replace(made, associations=(*made.associations, link))


def folder_submission(patient_id: Identifier = P1, **changes: Any) -> Submission:
    made = submission(patient_id, documents=0, registered=True)
    folder = Folder(
        entry_uuid="Folder0",
        code_list=(Code.of("EP", "1.2.3", "Episode"),),
        patient_id=patient_id,
        title=Text.of("Episode 7"),
        unique_id=UniqueId(new_oid()),
    )
    return replace(
        made,
        folders=(replace(folder, **changes),),
        associations=(has_member("SubmissionSet", "Folder0", entry_uuid="sf"),),
    )


def into_folder(folder: str, made: Submission | None = None) -> Submission:
    made = made or valid()
    member = has_member(folder, "Document0", entry_uuid="fd")
    link = has_member("SubmissionSet", "fd", entry_uuid="sfd")
    return replace(made, associations=(*made.associations, member, link))


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_a_valid_submission_is_stored_and_found(registry: Registry) -> None:
    made = valid()
    assert registry.register(made).succeeded
    found = registry.entry(made.document_entries[0].unique_id)
    assert found.availability_status == Status.APPROVED
    assert found.entry_uuid.startswith("urn:uuid:")
    assert (found.logical_id, found.version) == (found.entry_uuid, "1")
    assert found.patient_id == P1


def test_symbolic_ids_become_uuids_in_every_reference(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.1."""
    registry.register(valid())
    (member,) = registry.of(Association)
    entry = registry.of(DocumentEntry)[0]
    assert member.target_object == entry.entry_uuid
    assert member.source_object not in ("SubmissionSet", entry.entry_uuid)


def test_a_submitted_uuid_is_kept(registry: Registry) -> None:
    own = f"urn:uuid:{uuid.uuid4()}"
    made = valid(entry_uuid=own)
    registry.register(replace(made, associations=(replace(made.associations[0], target_object=own),)))
    assert registry.of(DocumentEntry)[0].entry_uuid == own


def test_a_submitted_status_is_ignored(registry: Registry) -> None:
    made = valid(availability_status="urn:oasis:names:tc:ebxml-regrep:StatusType:Deprecated")
    registry.register(made)
    assert registry.of(DocumentEntry)[0].availability_status == Status.APPROVED


def test_extra_metadata_is_stored_and_given_back(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.6."""
    extra = Extra(slots=(Slot(name="urn:example:mine", values=("a & b", "c")),))
    registry.register(valid(extra=extra))
    assert registry.of(DocumentEntry)[0].extra == extra


def test_the_same_document_may_be_registered_again(registry: Registry) -> None:
    """Conformance test 12004: same uniqueId, hash and size make a second entry."""
    made = valid()
    registry.register(made)
    registry.register(
        valid(unique_id=made.document_entries[0].unique_id, hash=Sha1(str(made.document_entries[0].hash).upper()))
    )
    assert len(registry.of(DocumentEntry)) == 2


def test_several_documents_are_registered_together(registry: Registry) -> None:
    registry.register(submission(P1, documents=3, registered=True))
    assert len(registry.of(DocumentEntry)) == 3


def test_a_reference_to_another_patients_document_is_taken(registry: Registry) -> None:
    """ITI TF-3 4.2.2.1.2: a Reference may lead to a document of any patient."""
    registry.register(valid())
    target = registry.of(DocumentEntry)[0].entry_uuid
    made = submission(P2, registered=True)
    link = has_member("SubmissionSet", target, entry_uuid="ref", submission_set_status="Reference")
    assert registry.register(replace(made, associations=(*made.associations, link))).succeeded


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", REQUIRED[DocumentEntry])
def test_a_missing_attribute_of_an_entry_is_named(registry: Registry, field: str) -> None:
    """Conformance tests 11998a, 12084; ITI TF-3 Table 4.3.1.1-3."""
    missing = () if field == "confidentiality_code" else None
    problems = registry.refused(valid(**{field: missing}))
    assert (METADATA, f"DocumentEntry Document0: {camel_case(field)} is missing; it is required") in problems


@pytest.mark.parametrize("field", ["content_type_code", "patient_id", "source_id", "submission_time", "unique_id"])
def test_a_missing_attribute_of_a_submission_set_is_named(registry: Registry, field: str) -> None:
    problems = registry.refused(with_set(**{field: None}))
    assert (METADATA, f"SubmissionSet SubmissionSet: {camel_case(field)} is missing; it is required") in problems


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("creation_time", Timestamp("20240230"), "creationTime '20240230' is not a moment of the calendar"),
        ("hash", Sha1("xyz"), "hash 'xyz' is not a SHA-1 of 40 hexadecimal digits"),
        ("size", Size("-1"), "size '-1' is not a number of bytes from 0 to 2^63-1"),
        ("source_patient_id", Identifier("L7"), "sourcePatientId 'L7' is not of the form id^^^&OID&ISO"),
        ("title", Text.of("x" * 129), "title has 129 characters; 128 are allowed"),
    ],
)
def test_a_bad_value_is_told_with_object_attribute_value_and_rule(
    registry: Registry, field: str, value: Any, reason: str
) -> None:
    assert registry.refused(valid(**{field: value})) == [(METADATA, f"DocumentEntry Document0: {reason}")]


def test_all_faults_are_told_at_once(registry: Registry) -> None:
    made = valid(class_code=None, creation_time=Timestamp("x"), language_code=None)
    assert len(registry.refused(made)) == 3


def test_two_values_of_a_single_valued_slot_are_refused(registry: Registry) -> None:
    extra = Extra(slots=(Slot(name="creationTime", values=("2024", "2025")),))
    assert registry.refused(valid(creation_time=None, extra=extra)) == [
        (METADATA, "DocumentEntry Document0: creationTime has the 2 values '2024', '2025'; one is allowed")
    ]


def test_a_code_without_a_coding_scheme_is_refused(registry: Registry) -> None:
    bad = Classification(scheme="urn:uuid:41a5887f-8865-4c09-adf7-e362475b143a", node_representation="A")
    assert registry.refused(valid(class_code=None, extra=Extra(classifications=(bad,)))) == [
        (METADATA, "DocumentEntry Document0: classCode 'A' has not exactly one codingScheme")
    ]


def test_a_slot_that_is_neither_ihes_nor_a_urn_is_refused(registry: Registry) -> None:
    extra = Extra(slots=(Slot(name="mine", values=("a",)),))
    assert registry.refused(valid(extra=extra))[0][1].startswith(
        "DocumentEntry Document0: the slot 'mine' is no attribute"
    )


def test_an_unknown_patient_is_refused(registry: Registry) -> None:
    """Conformance test 11996; ITI TF-2 3.42.4.1.3."""
    problems = registry.refused(submission(patient(99), registered=True))
    assert problems == [("XDSUnknownPatientId", "patient 'bench99^^^&1.2.3.4&ISO' is not known to this registry")]


def test_patients_that_differ_within_a_submission_are_refused(registry: Registry) -> None:
    """Conformance test 11997."""
    assert registry.refused(valid(patient_id=P2))[0][0] == "XDSPatientIdDoesNotMatch"


def test_no_submission_set_or_two_are_refused(registry: Registry) -> None:
    made = valid()
    assert "holds 0 SubmissionSets" in registry.refused(replace(made, submission_sets=()))[0][1]
    twice = (*made.submission_sets, replace(made.submission_sets[0], entry_uuid="other", unique_id=new_oid()))
    assert "holds 2 SubmissionSets" in registry.refused(replace(made, submission_sets=twice))[0][1]


def test_an_empty_submission_is_refused(registry: Registry) -> None:
    problems = registry.refused(submission(P1, documents=0, registered=True))
    assert "no DocumentEntry, no Folder" in problems[0][1]


def test_an_entry_without_its_membership_is_refused(registry: Registry) -> None:
    problems = registry.refused(replace(valid(), associations=()))
    assert "0 HasMember associations with SubmissionSetStatus Original" in problems[0][1]


def test_a_reference_to_nothing_is_unresolved(registry: Registry) -> None:
    made = valid()
    link = has_member("SubmissionSet", f"urn:uuid:{uuid.uuid4()}", entry_uuid="r", submission_set_status="Reference")
    assert (
        registry.refused(replace(made, associations=(*made.associations, link)))[0][0] == "UnresolvedReferenceException"
    )
    assert (
        registry.refused(relation(AssociationType.RPLC, f"urn:uuid:{uuid.uuid4()}"))[0][0]
        == "UnresolvedReferenceException"
    )


def test_the_same_unique_id_with_other_bytes_is_refused(registry: Registry) -> None:
    """ITI TF-3 Table 4.2.4.1-2."""
    made = valid()
    registry.register(made)
    unique_id = made.document_entries[0].unique_id
    assert registry.refused(valid(unique_id=unique_id, hash=Sha1("0" * 40)))[0][0] == "XDSNonIdenticalHash"
    assert registry.refused(valid(unique_id=unique_id, size=Size("6")))[0][0] == "XDSNonIdenticalSize"


def test_a_used_unique_id_of_a_submission_set_is_refused(registry: Registry) -> None:
    made = valid()
    registry.register(made)
    problems = registry.refused(with_set(unique_id=made.submission_sets[0].unique_id))
    assert problems[0][0] == "XDSDuplicateUniqueIdInRegistry"


def test_a_unique_id_twice_in_a_message_is_refused(registry: Registry) -> None:
    made = submission(P1, documents=2, registered=True)
    first, second = made.document_entries
    twice = replace(made, document_entries=(first, replace(second, unique_id=first.unique_id)))
    assert registry.refused(twice)[0][0] == "XDSRegistryDuplicateUniqueIdInMessage"


def test_a_registered_entry_uuid_is_refused(registry: Registry) -> None:
    """Conformance test 15806."""
    registry.register(valid())
    own = registry.of(DocumentEntry)[0].entry_uuid
    made = valid(entry_uuid=own)
    made = replace(made, associations=(replace(made.associations[0], target_object=own),))
    assert registry.refused(made) == [
        (METADATA, f"DocumentEntry {own}: the id is registered already, as a DocumentEntry")
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"object_type": ON_DEMAND}, "is not Stable"),
        ({"limited_metadata": True}, "limitedMetadata is not accepted"),
        ({"logical_id": "urn:uuid:0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817"}, "ITI-42 registers new objects only"),
        ({"entry_uuid": "urn:uuid:ABC"}, "is not a UUID of RFC 4122"),
        (
            {"service_start_time": Timestamp("2025"), "service_stop_time": Timestamp("20240101")},
            "is after serviceStopTime",
        ),
    ],
)
def test_what_belongs_elsewhere_is_refused(registry: Registry, change: dict[str, Any], words: str) -> None:
    assert any(words in context for _, context in registry.refused(valid(**change)))


def test_an_object_that_is_none_of_ihes_is_refused(registry: Registry) -> None:
    other = Unrecognized(
        entry_uuid="p", reason="Person p is no object that a submission of IHE XDS may hold", xml=b"<a/>"
    )
    assert registry.refused(replace(valid(), unrecognized=(other,)))[0] == (METADATA, other.reason)


def test_documentation_on_a_membership_is_refused(registry: Registry) -> None:
    """Conformance test 12370."""
    made = valid()
    documented = replace(made.associations[0], documentation=Code.of("a", "1.2", "A"))
    assert "has no documentation code" in registry.refused(replace(made, associations=(documented,)))[0][1]


# --- life cycle -------------------------------------------------------------------------------------------------------


def test_a_replacement_deprecates_what_it_replaces_and_what_hangs_on_it(registry: Registry) -> None:
    """Conformance tests 11992 to 11995; ITI TF-2 3.42.4.1.3.5."""
    registry.register(valid())
    original = registry.of(DocumentEntry)[0]
    registry.register(relation(AssociationType.APND, original.entry_uuid))
    (addendum,) = (one for one in registry.of(DocumentEntry) if one.entry_uuid != original.entry_uuid)
    registry.register(relation(AssociationType.XFRM, addendum.entry_uuid))
    registry.register(relation(AssociationType.RPLC, original.entry_uuid))
    states = [one.availability_status for one in registry.of(DocumentEntry)]
    assert states.count(Status.DEPRECATED) == 3
    approved = stored_query(FindDocuments(patient_id=P1), store=registry.store)
    assert len(list(approved.fragments)) == 1
    for kind in (AssociationType.RPLC, AssociationType.APND, AssociationType.XFRM):
        problems = registry.refused(relation(kind, original.entry_uuid))
        assert problems[0][0] == "XDSRegistryDeprecatedDocumentError"


def test_a_relationship_between_patients_is_refused(registry: Registry) -> None:
    """Conformance test 11998."""
    registry.register(valid())
    original = registry.of(DocumentEntry)[0]
    made = submission(P2, registered=True)
    link = Association(
        entry_uuid="r",
        association_type=AssociationType.RPLC,
        source_object="Document0",
        target_object=original.entry_uuid,
    )
    assert registry.refused(replace(made, associations=(*made.associations, link)))[0][0] == "XDSPatientIdDoesNotMatch"


def test_a_folder_gets_its_last_update_time_from_the_registry(registry: Registry) -> None:
    """Conformance test 12323; ITI TF-3 4.2.3.4.6."""
    registry.register(folder_submission(last_update_time=Timestamp("19990101")))
    assert registry.of(Folder)[0].last_update_time == "20260101000000"


def test_a_document_added_to_a_folder_moves_its_last_update_time(registry: Registry) -> None:
    """Conformance test 12001."""
    registry.register(folder_submission())
    registry.moment = datetime(2026, 5, 1, tzinfo=UTC)
    registry.register(into_folder(registry.of(Folder)[0].entry_uuid))
    assert registry.of(Folder)[0].last_update_time == "20260501000000"


def test_a_document_of_another_patient_does_not_enter_a_folder(registry: Registry) -> None:
    """Conformance test 12002."""
    registry.register(folder_submission(P2))
    problems = registry.refused(into_folder(registry.of(Folder)[0].entry_uuid))
    assert problems[0][0] == "XDSPatientIdDoesNotMatch"


def test_a_replacement_joins_the_folders_of_what_it_replaces(registry: Registry) -> None:
    """Conformance test 12327; ITI TF-2 3.42.4.1.3.3.1."""
    registry.register(folder_submission())
    folder = registry.of(Folder)[0].entry_uuid
    registry.register(into_folder(folder))
    original = registry.of(DocumentEntry)[0]
    registry.moment = datetime(2026, 6, 1, tzinfo=UTC)
    registry.register(relation(AssociationType.RPLC, original.entry_uuid))
    members = {one.target_object for one in registry.of(Association) if one.source_object == folder}
    assert members == {one.entry_uuid for one in registry.of(DocumentEntry)}
    assert registry.of(Folder)[0].last_update_time == "20260601000000"


def test_two_registrations_of_one_submission_set_at_once_store_one(registry: Registry) -> None:
    """The checks are repeated inside the transaction that writes."""
    from concurrent.futures import ThreadPoolExecutor

    made = valid()

    def attempt(_: int) -> bool:
        try:
            return registry.register(made).succeeded
        except Failure:
            return False

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, range(8)))
    assert outcomes.count(True) == 1
    assert len(registry.of(DocumentEntry)) == 1
