"""ITI-42: what associations may lead from and to, in the submission and in the registry, and of which patients and objectTypes.

ITI TF-2 3.42.4.1, ITI TF-3 4.2.2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.messages import submission
from benchmarks.registries import (
    DEPRECATED,
    METADATA,
    UNRESOLVED,
    Registry,
    folder_submission,
    into_folder,
    link,
    on_demand_submission,
    related,
    valid,
    with_links,
    with_set,
)
from registry.patients import merge_patients
from tests.submissions import UUID, among, code_of, deprecated_folder, only, with_folder
from xds.metadata import Association, DocumentEntry, Extra, has_member
from xds.values import Code, Identifier
from xds.vocabulary import RELATIONSHIPS, AssociationType, Status

HAS_MEMBER, RPLC, XFRM = AssociationType.HAS_MEMBER, AssociationType.RPLC, AssociationType.XFRM
APND, XFRM_RPLC = AssociationType.APND, AssociationType.XFRM_RPLC
SIGNS, IS_SNAPSHOT_OF = AssociationType.SIGNS, AssociationType.IS_SNAPSHOT_OF
DOCUMENTATION = Code.of("a", "1.2", "A")


# --- ends: ITI TF-3 4.2.2 ---------------------------------------------------------------------------------------------


def test_an_unknown_association_type_is_refused(registry: Registry) -> None:
    for kind in (
        "urn:ihe:iti:2007:AssociationType:rplc",
        AssociationType.UPDATE_AVAILABILITY_STATUS,
        AssociationType.SUBMIT_ASSOCIATION,
    ):
        made = with_links(valid(registry.p1), link(kind, "Document0", registry.folder().entry_uuid))
        among(registry.refused(made), METADATA, f"associationType {str(kind)!r} is none that ITI-42 knows")


@pytest.mark.parametrize("kind", [HAS_MEMBER, RPLC, APND])
def test_nothing_leads_to_itself(registry: Registry, kind: str) -> None:
    made = with_links(valid(registry.p1), link(kind, "Document0", "Document0"))
    among(registry.refused(made), METADATA, "leads from 'Document0' to itself")


@pytest.mark.parametrize("end", ["Nowhere", f"urn:uuid:{UUID}"])
def test_both_ends_of_an_association_exist(registry: Registry, end: str) -> None:
    """ITI TF-3 4.2.2: a symbol without an object is as unresolved as an unknown UUID."""
    for field, made in (
        ("targetObject", related(valid(registry.p1), APND, end)),
        ("targetObject", with_links(valid(registry.p1), has_member("SubmissionSet", end, entry_uuid="r"))),
        ("sourceObject", into_folder(valid(registry.p1), end)),
    ):
        words = f"{field} {end!r} is neither in the submission nor in the registry"
        among(registry.refused(made), UNRESOLVED, words)


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS))
def test_the_source_of_a_relationship_is_submitted_with_it(registry: Registry, kind: str) -> None:
    """ITI TF-3 4.2.2.2."""
    first, second = (registry.registered(valid(registry.p1)).entry_uuid for _ in range(2))
    made = with_links(valid(registry.p1), link(kind, first, second))
    among(registry.refused(made), UNRESOLVED, f"its source {first!r} is no DocumentEntry of the submission")


@pytest.mark.parametrize("source", ["Folder0", "SubmissionSet", "fd"])
def test_only_a_document_is_the_source_of_a_relationship(registry: Registry, source: str) -> None:
    """ITI TF-3 4.2.2.2."""
    there = registry.registered(valid(registry.p1)).entry_uuid
    made = with_links(with_folder(registry), link(RPLC, source, there))
    among(registry.refused(made), UNRESOLVED, f"its source {source!r} is no DocumentEntry of the submission")


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS))
def test_a_relationship_leads_to_a_document(registry: Registry, kind: AssociationType) -> None:
    made = related(valid(registry.p1), kind, folder := registry.folder().entry_uuid)
    among(registry.refused(made), METADATA, f"its target {folder!r} is a Folder, not a DocumentEntry")


# --- relationships: ITI TF-3 4.2.2.2 ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RPLC, XFRM_RPLC, IS_SNAPSHOT_OF])
def test_what_is_replaced_is_registered_before(registry: Registry, kind: str) -> None:
    """ITI TF-3 4.2.2.2."""
    made = with_links(submission(registry.p1, documents=2, registered=True), link(kind, "Document0", "Document1"))
    only(registry.refused(made), UNRESOLVED, "'Document1', is not in the registry")


@pytest.mark.parametrize("kind", [APND, XFRM, SIGNS])
def test_what_is_appended_to_may_come_in_the_same_submission(registry: Registry, kind: str) -> None:
    made = with_links(submission(registry.p1, documents=2, registered=True), link(kind, "Document0", "Document1"))
    assert registry.register(made).succeeded
    (found,) = (one for one in registry.of(Association) if one.association_type == kind)
    assert (found.source_object, found.target_object) == tuple(registry.entry(made, n).entry_uuid for n in (0, 1))


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS - {IS_SNAPSHOT_OF}))
def test_nothing_is_related_to_a_deprecated_document(registry: Registry, kind: AssociationType) -> None:
    """Conformance tests 11993, 11994."""
    old = registry.registered(valid(registry.p1)).entry_uuid
    registry.register(related(valid(registry.p1), RPLC, old))
    only(registry.refused(related(valid(registry.p1), kind, old)), DEPRECATED, f"targetObject {old!r} is Deprecated")


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS - {IS_SNAPSHOT_OF}))
def test_nothing_is_related_to_a_document_of_another_patient(registry: Registry, kind: AssociationType) -> None:
    """Conformance test 11998."""
    other = registry.registered(valid(registry.p2)).entry_uuid
    only(
        registry.refused(related(valid(registry.p1), kind, other)),
        "XDSPatientIdDoesNotMatch",
        f"targetObject {other!r} is of patient {str(registry.p2)!r}, not {str(registry.p1)!r}",
    )


def test_a_document_is_replaced_once_in_a_submission(registry: Registry) -> None:
    old = registry.registered(valid(registry.p1)).entry_uuid
    made = submission(registry.p1, documents=2, registered=True)
    made = with_links(made, link(RPLC, "Document0", old), link(RPLC, "Document1", old, entry_uuid="second"))
    only(registry.refused(made), DEPRECATED, f"2 associations of the submission replace {old!r}")


@pytest.mark.parametrize("kind", [APND, XFRM, SIGNS])
def test_nothing_is_appended_to_what_the_same_submission_replaces(registry: Registry, kind: AssociationType) -> None:
    """Nothing Approved hangs on something Deprecated, not even for want of an order within a message."""
    old = registry.registered(valid(registry.p1)).entry_uuid
    addendum = registry.registered(related(valid(registry.p1), APND, old)).entry_uuid
    for target in (old, addendum):
        made = submission(registry.p1, documents=2, registered=True)
        made = with_links(made, link(RPLC, "Document0", old), link(kind, "Document1", target))
        only(registry.refused(made), DEPRECATED, f"targetObject {target!r} is deprecated by this submission itself")


def test_a_transformation_is_replaced_but_not_appended_to(registry: Registry) -> None:
    """ITI TF-3 4.2.2.2.3."""
    original = registry.registered(valid(registry.p1)).entry_uuid
    other = registry.registered(related(valid(registry.p1), XFRM, original)).entry_uuid
    only(registry.refused(related(valid(registry.p1), APND, other)), METADATA, repr(other), "is a transformation")
    within = submission(registry.p1, documents=2, registered=True)
    within = with_links(within, link(XFRM, "Document0", original), link(APND, "Document1", "Document0"))
    only(registry.refused(within), METADATA, "'Document0' is a transformation, which is not appended to")
    assert registry.register(related(valid(registry.p1), RPLC, other)).succeeded


def test_a_snapshot_leads_from_stable_to_on_demand(registry: Registry) -> None:
    """ITI TF-3 4.2.2.2.6."""
    stable = registry.registered(valid(registry.p1)).entry_uuid
    only(
        registry.refused(related(valid(registry.p1), IS_SNAPSHOT_OF, stable)),
        METADATA,
        "IsSnapshotOf leads from a Stable",
    )
    source = registry.registered(on_demand_submission(registry.p1), on_demand=True).entry_uuid
    assert registry.register(related(valid(registry.p1), IS_SNAPSHOT_OF, source)).succeeded
    bad = related(on_demand_submission(registry.p1), IS_SNAPSHOT_OF, source)
    only(registry.refused(bad, on_demand=True), METADATA, "IsSnapshotOf leads from a Stable")


@pytest.mark.parametrize("kind", [HAS_MEMBER, SIGNS])
def test_other_associations_have_no_documentation_code(registry: Registry, kind: AssociationType) -> None:
    """Conformance test 12370."""
    target = registry.registered(valid(registry.p1)).entry_uuid
    if kind == HAS_MEMBER:
        made = valid(registry.p1)
        made = replace(made, associations=(replace(made.associations[0], documentation=DOCUMENTATION),))
    else:
        made = related(valid(registry.p1), kind, target, documentation=DOCUMENTATION)
    only(registry.refused(made), METADATA, f"a {kind.rpartition(':')[2]} association has no documentation code")


@pytest.mark.parametrize("kind", [RPLC, XFRM, APND, XFRM_RPLC])
def test_a_relationship_may_be_documented_once(registry: Registry, kind: AssociationType) -> None:
    """ITI TF-3 4.2.2.2."""
    target = registry.registered(valid(registry.p1)).entry_uuid
    second = Extra(classifications=(code_of("urn:uuid:abd807a3-4432-4053-87b4-fd82c643d1f3"),))
    made = related(valid(registry.p1), kind, target, documentation=DOCUMENTATION, extra=second)
    only(registry.refused(made), METADATA, "documentation 'A' is one more than the one that is allowed")
    made = related(valid(registry.p1), kind, target, documentation=DOCUMENTATION)
    assert registry.register(made).succeeded
    (found,) = (one for one in registry.of(Association) if one.association_type == kind)
    assert found.documentation == DOCUMENTATION


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_deprecated_document_is_not_put_into_a_folder(registry: Registry) -> None:
    """ITI TF-2 3.42.4.1.3."""
    folder = registry.folder().entry_uuid
    old = registry.registered(valid(registry.p1)).entry_uuid
    registry.register(related(valid(registry.p1), RPLC, old))
    made = into_folder(submission(registry.p1, documents=0, registered=True), folder, old)
    only(registry.refused(made), DEPRECATED, f"Association fd: targetObject {old!r} is Deprecated")


def test_nothing_is_put_into_a_deprecated_folder(registry: Registry) -> None:
    folder = deprecated_folder(registry)
    only(registry.refused(into_folder(valid(registry.p1), folder)), METADATA, f"sourceObject {folder!r} is Deprecated")


def test_a_folder_and_its_documents_are_of_one_patient(registry: Registry) -> None:
    """Conformance test 12002, either end being registered."""
    folder = registry.folder().entry_uuid
    only(registry.refused(into_folder(valid(registry.p2), folder)), "XDSPatientIdDoesNotMatch", repr(folder))
    there = registry.registered(valid(registry.p1)).entry_uuid
    made = into_folder(folder_submission(registry.p2), "Folder0", there)
    only(registry.refused(made), "XDSPatientIdDoesNotMatch", f"targetObject {there!r} is of patient")


# --- patients: ITI TF-2 3.42.4.1.3 ------------------------------------------------------------------------------------


def test_patients_within_a_submission_are_one(registry: Registry) -> None:
    """Conformance test 11997: SubmissionSet, DocumentEntry and Folder."""
    for made in (
        with_set(registry.p1, patient_id=registry.p2),
        valid(registry.p1, patient_id=registry.p2),
        folder_submission(registry.p1, patient_id=registry.p2),
    ):
        only(registry.refused(made), "XDSPatientIdDoesNotMatch", str(registry.p1), str(registry.p2), "patientId")


def test_an_unknown_patient_is_refused_unless_the_registry_is_open(registry: Registry) -> None:
    """Conformance test 11996."""
    stranger = Identifier.of(f"stranger{registry.p1.identifier}", "1.2.3.4")
    only(registry.refused(valid(stranger)), "XDSUnknownPatientId", repr(str(stranger)), "is not known")
    registry.patients = "open"
    assert registry.register(valid(stranger)).succeeded


def test_a_patient_id_in_another_case_is_another_patient(registry: Registry) -> None:
    other = Identifier(registry.p1.replace("bench", "BENCH"))
    only(registry.refused(valid(other)), "XDSUnknownPatientId", repr(str(other)), "is not known to this registry")


def test_what_a_source_says_of_the_patient_is_not_compared_with_the_feed(registry: Registry) -> None:
    made = valid(registry.p1, source_patient_id=Identifier("nobody^^^&1.9&ISO"))
    assert registry.registered(made).source_patient_id == "nobody^^^&1.9&ISO"


@pytest.mark.parametrize("patients", ["known", "open"])
def test_a_merged_patient_is_refused_whatever_is_submitted_of_it(registry: Registry, patients: Any) -> None:
    """ITI TF-2 3.8.4.2, conformance test 11996: not even an open registry takes it, and not only documents."""
    registry.patients = patients
    merge_patients(registry.store, surviving=registry.p1, subsumed=registry.p2)
    words = f"patient {str(registry.p2)!r} has been merged into {str(registry.p1)!r}"
    for made in (folder_submission(registry.p2), valid(registry.p2)):
        only(registry.refused(made), "XDSUnknownPatientId", words)
    mixed = valid(registry.p1, patient_id=registry.p2)
    among(registry.refused(mixed), "XDSPatientIdDoesNotMatch", str(registry.p2), str(registry.p1))


def test_what_was_of_a_merged_patient_is_replaced_and_filed_as_the_survivor_s(registry: Registry) -> None:
    """ITI TF-2 3.8.4.2; ITI TF-3 4.2.2.2: source and target are compared after the merge."""
    old = registry.registered(valid(registry.p2)).entry_uuid
    folder = registry.folder(registry.p2).entry_uuid
    filed = into_folder(related(valid(registry.p1), RPLC, old), folder)
    problems = registry.refused(filed)
    assert {code for code, _ in problems} == {"XDSPatientIdDoesNotMatch"}
    assert len(problems) == 2
    merge_patients(registry.store, surviving=registry.p1, subsumed=registry.p2)
    new = registry.registered(filed)
    (found,) = (one for one in registry.of(DocumentEntry) if one.entry_uuid == old)
    assert (found.availability_status, found.patient_id) == (Status.DEPRECATED, registry.p1)
    members = {one.target_object for one in registry.of(Association) if one.source_object == folder}
    assert members == {new.entry_uuid}


# --- objectType -------------------------------------------------------------------------------------------------------


def test_a_stable_entry_does_not_replace_an_on_demand_one(registry: Registry) -> None:
    """ITI TF-2 3.61: IsSnapshotOf links what came of it."""
    source = registry.registered(on_demand_submission(registry.p1), on_demand=True)
    made = related(valid(registry.p1), RPLC, source.entry_uuid)
    only(registry.refused(made), METADATA, f"does not replace the On-Demand entry {source.entry_uuid!r}")
