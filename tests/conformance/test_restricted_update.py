"""ITI-92 Restricted Update Document Set: new versions of DocumentEntries, in what is not fixed (Restricted Metadata Update 3.92).

Numbers in brackets are those of the conformance tests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.messages import new_oid, submission
from benchmarks.registries import (
    Updating,
    combined,
    into_folder,
    new_uuid,
    new_version,
    on_demand_submission,
    opened,
    related,
    together,
    valid,
)
from registry.iti57_update import update
from registry.iti92_restricted_update import restricted_update
from registry.patients import merge_patients
from registry.store import Store
from schemas.attributes import camel_case
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Extra, Folder, Slot, Submission, has_member
from xds.problems import Failure
from xds.queries import FindDocuments
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    Person,
    PidField,
    ReferenceId,
    Sha1,
    Size,
    Text,
    Timestamp,
    UniqueId,
)
from xds.vocabulary import ON_DEMAND, AssociationType, Status

APPROVED, DEPRECATED = str(Status.APPROVED), str(Status.DEPRECATED)
BOTH = (APPROVED, DEPRECATED)
METADATA, VERSION, OPERATION = "XDSRegistryMetadataError", "XDSMetadataVersionError", "XDSMetadataUpdateOperationError"
ANNOTATION, UNMODIFIABLE = "XDSMetadataAnnotationError", "UnmodifiableMetadataError"
IDENTIFIER, OBJECT_TYPE = "XDSMetadataIdentifierError", "XDSObjectTypeError"
RECONCILIATION = "XDSPatientIDReconciliationError"
APND, RPLC = AssociationType.APND, AssociationType.RPLC


class Iti92(Updating):
    """A registry that takes ITI-92."""

    def update(self, *parts: Submission, store: Store | None = None) -> Outcome:
        return restricted_update(
            combined(*parts), store=store or self.store, now=lambda: self.moment, new_uuid=new_uuid
        )

    def document(self, **changes: Any) -> DocumentEntry:
        return self.registered(valid(self.p1, **changes))


@pytest.fixture
def registry(store: Store) -> Iti92:
    return Iti92(store)


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_a_new_version_takes_the_place_of_the_old_one(registry: Iti92) -> None:
    """[T 40000] Section 10: versions as in ITI-57."""
    old = registry.document()
    assert registry.update(new_version(old, title=Text.of("Second"))).succeeded
    first, second = registry.versions(old)
    assert (first.entry_uuid, first.version, first.availability_status) == (old.entry_uuid, "1", DEPRECATED)
    assert (second.logical_id, second.version, second.availability_status) == (old.entry_uuid, "2", APPROVED)
    assert (second.title, first.title) == (Text.of("Second"), old.title)
    assert [one.version for one in registry.ask(FindDocuments(patient_id=registry.p1, status=BOTH))] == ["2"]
    every = registry.ask(FindDocuments(patient_id=registry.p1, status=BOTH, metadata_level=2))
    assert {one.version for one in every} == {"1", "2"}


CHANGES: dict[str, Any] = {
    "author": (),
    "class_code": Code.of("OTHER", "1.2.3.4.8.1", "Other"),
    "comments": Text.of("Corrected"),
    "confidentiality_code": (Code.of("R", "2.16.840.1.113883.5.25", "Restricted"),),
    "creation_time": Timestamp("20250102"),
    "event_code_list": (),
    "extra": Extra(slots=(Slot(name="urn:example:mine", values=("a",)),)),
    "format_code": Code.of("urn:example:format", "1.2.3", "Format"),
    "hash": Sha1("0" * 40),
    "healthcare_facility_type_code": Code.of("PRACTICE", "1.2.3.4.8.2", "Practice"),
    "language_code": LanguageCode("de-CH"),
    "legal_authenticator": Person("^Muster^Max"),
    "mime_type": MimeType("application/pdf"),
    "practice_setting_code": Code.of("SURG", "1.2.3.4.8.3", "Surgery"),
    "reference_id_list": (ReferenceId("a^^^&1.2.3&ISO^urn:ihe:iti:xds:2013:accession"),),
    "service_start_time": Timestamp("20230101"),
    "service_stop_time": Timestamp("20250101"),
    "size": Size("6"),
    "source_patient_info": (PidField("PID-5|Muster^Eva"),),
    "title": Text.of("Another title"),
    "type_code": Code.of("11502-2", "2.16.840.1.113883.6.1", "Laboratory report"),
    "uri": "b.txt",
}


@pytest.mark.parametrize("field", CHANGES)
def test_what_is_not_fixed_may_change(registry: Iti92, field: str) -> None:
    """[T 40001]"""
    old = registry.document()
    assert getattr(old, field) != CHANGES[field]
    registry.update(new_version(old, **{field: CHANGES[field]}))
    assert getattr(registry.latest(old), field) == CHANGES[field]


def test_without_a_logical_id_the_unique_id_says_what_is_updated(registry: Iti92) -> None:
    """Section 10: lid is optional."""
    old = registry.document()
    registry.update(new_version(old, logical_id=None, title=Text.of("Second")))
    registry.update(new_version(old, "2", logical_id=None, title=Text.of("Third")))
    assert [(one.version, one.logical_id) for one in registry.versions(old)] == [
        (number, old.logical_id) for number in ("1", "2", "3")
    ]


def test_a_deprecated_document_stays_deprecated(registry: Iti92) -> None:
    """[T 12319]"""
    old = registry.document()
    registry.registered(related(valid(registry.p1), RPLC, old.entry_uuid))
    assert registry.update(new_version(old, title=Text.of("Second"))).succeeded
    assert [(one.version, one.availability_status) for one in registry.versions(old)] == [
        ("1", DEPRECATED),
        ("2", DEPRECATED),
    ]
    assert [one.title for one in registry.found(registry.p1, DEPRECATED)] == [Text.of("Second")]


def test_the_status_of_the_version_before_may_be_submitted(registry: Iti92) -> None:
    """[T 40001b, 12319] It does not change."""
    old = registry.document()
    assert registry.update(new_version(old, availability_status=APPROVED)).succeeded
    registry.registered(related(valid(registry.p1), RPLC, registry.latest(old).entry_uuid))
    assert registry.update(new_version(old, "2", availability_status=DEPRECATED)).succeeded


def test_memberships_and_relationships_follow_the_new_version(registry: Iti92) -> None:
    """Section 10: propagation as in ITI-57."""
    folder = registry.folder()
    old = registry.registered(into_folder(valid(registry.p1), folder.entry_uuid))
    addendum = registry.registered(related(valid(registry.p1), APND, old.entry_uuid))
    registry.update(new_version(old, member_association_propagation="yes"))
    new = registry.latest(old).entry_uuid
    assert {("HasMember", folder.entry_uuid, new), ("APND", addendum.entry_uuid, new)} <= registry.links(new)


def test_several_entries_are_updated_in_one_request(registry: Iti92) -> None:
    """Section 10: one or more."""
    one, two = registry.document(), registry.document()
    registry.update(new_version(one, name="A"), new_version(two, name="B"))
    assert [registry.latest(each).version for each in (one, two)] == ["2", "2"]


def test_both_kinds_of_update_count_the_same_versions(registry: Iti92) -> None:
    old = registry.document()
    registry.update(new_version(old))
    update(new_version(old, "2"), store=registry.store, now=lambda: registry.moment, new_uuid=new_uuid)
    registry.update(new_version(old, "3"))
    assert [one.version for one in registry.versions(old)] == ["1", "2", "3", "4"]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_folder_is_refused(registry: Iti92) -> None:
    """Section 10: DocumentEntries only."""
    folder, old = registry.folder(), registry.document()
    member = replace(has_member("SubmissionSet", "F", entry_uuid="sf"), previous_version="1")
    request = new_version(old)
    request = replace(request, folders=(replace(folder, entry_uuid="F"),), associations=(*request.associations, member))
    problems = registry.not_updated(request)
    assert (OBJECT_TYPE, "Folder F: ITI-92 updates DocumentEntries only") in problems


def test_a_folders_logical_id_is_refused(registry: Iti92) -> None:
    old, folder = registry.document(), registry.folder()
    assert registry.not_updated(new_version(old, logical_id=folder.logical_id)) == [
        (OBJECT_TYPE, f"DocumentEntry New: {folder.logical_id} is a Folder")
    ]


def test_a_request_without_an_entry_is_refused(registry: Iti92) -> None:
    """Section 10: one or more DocumentEntries."""
    assert registry.not_updated(submission(registry.p1, documents=0, registered=True)) == [
        ("XDSInvalidRequestException", "the request holds no DocumentEntry to be updated")
    ]


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (AssociationType.UPDATE_AVAILABILITY_STATUS, "UpdateAvailabilityStatus"),
        (AssociationType.SUBMIT_ASSOCIATION, "SubmitAssociation"),
        (AssociationType.APND, "APND"),
    ],
)
def test_other_operations_are_refused(registry: Iti92, kind: AssociationType, word: str) -> None:
    """Section 10: no changes of status, no new associations."""
    old, other = registry.document(), registry.document()
    more = Association(
        entry_uuid="More",
        association_type=kind,
        source_object="SubmissionSet",
        target_object=other.entry_uuid,
        original_status=APPROVED if kind == AssociationType.UPDATE_AVAILABILITY_STATUS else None,
        new_status=DEPRECATED if kind == AssociationType.UPDATE_AVAILABILITY_STATUS else None,
    )
    request = new_version(old)
    text = f"{word} to '{other.entry_uuid}' is no membership of an updated DocumentEntry"
    assert registry.not_updated(replace(request, associations=(*request.associations, more))) == [
        (UNMODIFIABLE, f"Association More: {text}")
    ]


def test_a_missing_previous_version_is_refused(registry: Iti92) -> None:
    """[T 40000b]"""
    assert registry.not_updated(new_version(registry.document(), None)) == [
        (VERSION, "Association member-New: PreviousVersion is missing")
    ]


@pytest.mark.parametrize("number", ["0", "2"])
def test_a_stale_previous_version_is_refused(registry: Iti92, number: str) -> None:
    """[T 40000e]"""
    old = registry.document()
    assert registry.not_updated(new_version(old, number)) == [
        (VERSION, f"DocumentEntry New: PreviousVersion {number} is not the latest version 1 of {old.logical_id}")
    ]


def test_what_is_not_registered_is_refused(registry: Iti92) -> None:
    """[T 40000b] By its logicalID, and by its uniqueId."""
    old, nowhere, unknown = registry.document(), new_uuid(), new_oid()
    assert registry.not_updated(new_version(old, logical_id=nowhere)) == [
        (VERSION, f"DocumentEntry New: the logicalID '{nowhere}' is not that of a registered object")
    ]
    assert registry.not_updated(new_version(old, logical_id=None, unique_id=UniqueId(unknown))) == [
        (VERSION, f"DocumentEntry New: no DocumentEntry is registered with its uniqueId '{unknown}'")
    ]


def test_the_entry_uuid_of_a_later_version_is_no_logical_id(registry: Iti92) -> None:
    """[T 40000b] The logicalID is the entryUUID of the first version."""
    old = registry.document()
    registry.update(new_version(old))
    second = registry.latest(old)
    assert registry.not_updated(new_version(second, "2", logical_id=second.entry_uuid)) == [
        (VERSION, f"DocumentEntry New: the logicalID '{second.entry_uuid}' is not that of a registered object")
    ]


def test_a_unique_id_of_two_logical_objects_does_not_say_which(registry: Iti92) -> None:
    """[T 12004] allows both; with the logicalID the update succeeds."""
    old = registry.document()
    registry.register(valid(registry.p1, unique_id=old.unique_id))
    text = f"2 registered DocumentEntries have its uniqueId '{old.unique_id}'; a logicalID must say which"
    assert (IDENTIFIER, f"DocumentEntry New: {text}") in registry.not_updated(new_version(old, logical_id=None))
    assert registry.update(new_version(old)).succeeded


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"previous": "one"}, "PreviousVersion 'one' is not a version number"),
        ({"member_association_propagation": "maybe"}, "AssociationPropagation 'maybe' is neither yes nor no"),
        ({"member_association_propagation": "no"}, "AssociationPropagation no is not for ITI-92"),
        ({"member_submission_set_status": None}, "SubmissionSetStatus '' is not Original"),
        ({"member_submission_set_status": "Reference"}, "SubmissionSetStatus 'Reference' is not Original"),
        ({"member_original_status": APPROVED}, "OriginalStatus belongs to UpdateAvailabilityStatus, not to HasMember"),
    ],
)
def test_a_malformed_annotation_is_refused(registry: Iti92, changes: dict[str, Any], text: str) -> None:
    """Section 10: annotations of the membership."""
    assert registry.not_updated(new_version(registry.document(), **changes)) == [
        (ANNOTATION, f"Association member-New: {text}")
    ]


def test_an_entry_without_its_membership_is_refused(registry: Iti92) -> None:
    request = replace(new_version(registry.document()), associations=())
    assert registry.not_updated(request) == [
        (ANNOTATION, "DocumentEntry New: 0 HasMember associations lead to it from the SubmissionSet; one is right")
    ]


@pytest.mark.parametrize("field", ["class_code", "hash", "mime_type", "patient_id", "size", "type_code"])
def test_a_missing_attribute_is_named(registry: Iti92, field: str) -> None:
    """[T 40000d]"""
    problems = registry.not_updated(new_version(registry.document(), **{field: None}))
    assert (METADATA, f"DocumentEntry New: {camel_case(field)} is missing; it is required") in problems


def test_a_patient_cannot_change(registry: Iti92) -> None:
    """[T 40001b] Nor can another patient's SubmissionSet do it."""
    old = registry.document()
    problem = (
        RECONCILIATION,
        f"DocumentEntry New: patientId '{registry.p2}' is not '{registry.p1}', which cannot change",
    )
    assert registry.not_updated(new_version(old, patient_id=registry.p2)) == [problem]
    of_another = submission(registry.p2, documents=0, registered=True).submission_sets
    assert registry.not_updated(replace(new_version(old), submission_sets=of_another)) == [problem]


def test_a_unique_id_cannot_change(registry: Iti92) -> None:
    """[T 40001b]"""
    old, other = registry.document(), new_oid()
    assert registry.not_updated(new_version(old, unique_id=UniqueId(other))) == [
        (IDENTIFIER, f"DocumentEntry New: uniqueId '{other}' is not '{old.unique_id}', which cannot change")
    ]


def test_a_logical_id_cannot_change(registry: Iti92) -> None:
    """[T 40001b] It would be another document's."""
    old, other = registry.document(), registry.document()
    assert registry.not_updated(new_version(old, logical_id=other.logical_id)) == [
        (IDENTIFIER, f"DocumentEntry New: uniqueId '{old.unique_id}' is not '{other.unique_id}', which cannot change")
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("source_patient_id", Identifier("L8^^^&1.2.3.4.5.6&ISO")),
        ("document_availability", "urn:ihe:iti:2010:DocumentAvailability:Offline"),
        ("repository_unique_id", Oid("1.2.3.4.78")),
    ],
)
def test_a_fixed_attribute_cannot_change(registry: Iti92, field: str, value: Any) -> None:
    """[T 40001b]"""
    old = registry.document()
    text = f"{camel_case(field)} '{value}' is not '{getattr(old, field) or ''}', which cannot change"
    assert registry.not_updated(new_version(old, **{field: value})) == [(UNMODIFIABLE, f"DocumentEntry New: {text}")]


def test_an_object_type_cannot_change(registry: Iti92) -> None:
    """[T 40001b]"""
    old = registry.document()
    changes: dict[str, Any] = {"object_type": ON_DEMAND, "hash": None, "size": None, "creation_time": None}
    text = f"objectType '{ON_DEMAND}' is not '{old.object_type}', which cannot change"
    assert registry.not_updated(new_version(old, **changes)) == [(UNMODIFIABLE, f"DocumentEntry New: {text}")]
    on_demand = registry.registered(on_demand_submission(registry.p1), on_demand=True)
    assert registry.update(new_version(on_demand, title=Text.of("Second"))).succeeded


@pytest.mark.parametrize("current", [APPROVED, DEPRECATED])
def test_a_status_cannot_change(registry: Iti92, current: str) -> None:
    """[T 40001b]"""
    old = registry.document()
    if current == DEPRECATED:
        registry.registered(related(valid(registry.p1), RPLC, old.entry_uuid))
    other = APPROVED if current == DEPRECATED else DEPRECATED
    text = f"availabilityStatus '{other}' is not that of the version before, which stays"
    assert registry.not_updated(new_version(old, availability_status=other)) == [
        (UNMODIFIABLE, f"DocumentEntry New: {text}")
    ]


def test_one_entry_is_updated_once_in_a_request(registry: Iti92) -> None:
    """[T 40007]"""
    old = registry.document()
    problems = registry.not_updated(new_version(old, name="A"), new_version(old, name="B"))
    assert (OPERATION, f"2 objects of the request update '{old.logical_id}'; one may") in problems


def test_a_new_version_does_not_take_a_registered_id(registry: Iti92) -> None:
    """[T 15806] for ITI-92: entryUUIDs are new."""
    old, other = registry.document(), registry.document()
    assert registry.not_updated(new_version(old, name=other.entry_uuid)) == [
        (METADATA, f"DocumentEntry {other.entry_uuid}: the id is registered already, as a DocumentEntry")
    ]


def test_a_submission_set_of_an_update_is_new(registry: Iti92) -> None:
    old = registry.document()
    request = new_version(old)
    registry.update(request)
    again = replace(new_version(old, "2"), submission_sets=request.submission_sets)
    used = request.submission_sets[0].unique_id
    text = f"SubmissionSet SubmissionSet: the uniqueId '{used}' is used by a registered SubmissionSet"
    assert registry.not_updated(again) == [("XDSDuplicateUniqueIdInRegistry", text)]


def test_an_update_for_a_merged_patient_is_refused(registry: Iti92) -> None:
    """ITI TF-2 3.8.4.2: the id is no longer used; with the surviving one the update succeeds."""
    old = registry.document()
    merge_patients(registry.store, surviving=registry.p2, subsumed=registry.p1)
    text = f"patient '{registry.p1}' has been merged into '{registry.p2}'"
    assert ("XDSUnknownPatientId", text) in registry.not_updated(new_version(old))
    assert registry.update(new_version(old, patient_id=registry.p2)).succeeded


def test_one_bad_update_refuses_the_good_ones(registry: Iti92) -> None:
    """All of a request or nothing."""
    one, two = registry.document(), registry.document()
    problems = registry.not_updated(new_version(one, name="A"), new_version(two, "5", name="B"))
    assert [code for code, _ in problems] == [VERSION]


@pytest.mark.parametrize("stores", [1, 2])
def test_of_updates_that_race_exactly_one_succeeds(registry: Iti92, module_database: str, stores: int) -> None:
    """One names the logicalID, the other the uniqueId only."""
    second = opened(module_database) if stores == 2 else registry.store
    try:
        for _ in range(5):
            old = registry.document()
            first, other = new_version(old), new_version(old, logical_id=None)
            results = together(
                [lambda one=first: registry.update(one), lambda one=other: registry.update(one, store=second)]
            )
            (refused,) = (one for one in results if isinstance(one, Failure))
            assert [problem.code for problem in refused.problems] == [VERSION]
            assert [one.version for one in registry.versions(old)] == ["1", "2"]
    finally:
        if stores == 2:
            second.close()


def test_folders_are_left_alone(registry: Iti92) -> None:
    """The folder of an updated document has no new version."""
    folder = registry.folder()
    old = registry.registered(into_folder(valid(registry.p1), folder.entry_uuid))
    registry.update(new_version(old))
    assert [(one.entry_uuid, one.version) for one in registry.of(Folder, registry.p1)] == [(folder.entry_uuid, "1")]
