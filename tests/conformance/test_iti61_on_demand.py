"""ITI-61 Register On-Demand Document Entry: as ITI-42, but for the kind of entries (ITI TF-2 3.61)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.messages import new_oid, submission
from benchmarks.registries import (
    DEPRECATED,
    METADATA,
    UNRESOLVED,
    Registry,
    folder_submission,
    into_folder,
    new_uuid,
    on_demand_submission,
    related,
    valid,
    with_links,
)
from registry.iti18_stored_query import stored_query
from registry.rules_attributes import OF_BYTES, REQUIRED
from schemas.attributes import camel_case
from xds.metadata import Association, DocumentEntry
from xds.queries import FindDocuments
from xds.values import Sha1, Size, Text, Timestamp, UniqueId
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

RPLC, XFRM, APND = AssociationType.RPLC, AssociationType.XFRM, AssociationType.APND
BYTES: dict[str, Any] = {"creation_time": Timestamp("2024"), "hash": Sha1("a" * 40), "size": Size("5")}


def registered(registry: Registry, **changes: Any) -> DocumentEntry:
    return registry.registered(on_demand_submission(registry.p1, **changes), on_demand=True)


def test_an_on_demand_entry_is_registered_and_given_back(registry: Registry) -> None:
    """Conformance test 15805."""
    found = registered(registry)
    assert found.object_type == ON_DEMAND
    assert found.availability_status == Status.APPROVED
    assert (found.creation_time, found.hash, found.size) == (None, None, None)
    assert (found.logical_id, found.version) == (found.entry_uuid, "1")


def test_on_demand_entries_are_found_by_those_who_ask_for_them(registry: Registry) -> None:
    """ITI TF-2 3.18.4.1.2.3.6.2: the default of $XDSDocumentEntryType is Stable. creationTime does not filter what has none."""
    registered(registry)
    for object_type, found in (((STABLE,), 0), ((ON_DEMAND,), 1), ((STABLE, ON_DEMAND), 1)):
        query = FindDocuments(patient_id=registry.p1, object_type=object_type, creation_time_from=Timestamp("2030"))
        assert len(list(stored_query(query, store=registry.store).fragments)) == found
    assert list(stored_query(FindDocuments(patient_id=registry.p1), store=registry.store).fragments) == []


@pytest.mark.parametrize("field", sorted(set(REQUIRED[DocumentEntry]) - set(OF_BYTES)))
def test_all_but_what_describes_bytes_is_required(registry: Registry, field: str) -> None:
    """ITI TF-3 Table 4.3.1.1-3."""
    made = on_demand_submission(registry.p1)
    missing: Any = () if field == "confidentiality_code" else None
    made = replace(made, document_entries=(replace(made.document_entries[0], **{field: missing}),))
    problems = registry.refused(made, on_demand=True)
    assert (METADATA, f"DocumentEntry Document0: {camel_case(field)} is missing; it is required") in problems


@pytest.mark.parametrize("field", OF_BYTES)
def test_what_describes_bytes_is_prohibited(registry: Registry, field: str) -> None:
    """ITI TF-3 Table 4.3.1.1-3."""
    made = on_demand_submission(registry.p1, **{field: BYTES[field]})
    assert registry.refused(made, on_demand=True) == [
        (METADATA, f"DocumentEntry Document0: {camel_case(field)} is given, which an On-Demand entry must not have")
    ]


def test_a_stable_entry_is_refused_alone_and_among_others(registry: Registry) -> None:
    """ITI TF-2 3.61.4.1.2."""
    words = f"objectType {STABLE!r} is not On-Demand, which ITI-61 demands"
    assert registry.refused(valid(registry.p1), on_demand=True) == [(METADATA, f"DocumentEntry Document0: {words}")]
    made = submission(registry.p1, documents=2, registered=True)
    first, second = made.document_entries
    first = replace(first, object_type=ON_DEMAND, creation_time=None, hash=None, size=None)
    mixed = replace(made, document_entries=(first, second))
    assert registry.refused(mixed, on_demand=True) == [(METADATA, f"DocumentEntry Document1: {words}")]
    assert [code for code, _ in registry.refused(mixed)] == [METADATA]


def test_a_unique_id_may_come_again_but_not_of_a_stable_entry(registry: Registry) -> None:
    first = registered(registry)
    assert registered_again(registry, first.unique_id) == 2
    stable = registry.registered(valid(registry.p1))
    made = on_demand_submission(registry.p1, unique_id=stable.unique_id)
    words = f"DocumentEntry Document0: the uniqueId {str(stable.unique_id)!r} is used by an entry of another objectType"
    assert registry.refused(made, on_demand=True) == [(METADATA, words)]


def registered_again(registry: Registry, unique_id: UniqueId | None) -> int:
    """How many entries have the uniqueId after one more was registered."""
    assert registry.register(on_demand_submission(registry.p1, unique_id=unique_id), on_demand=True).succeeded
    return len([one for one in registry.found(registry.p1) if one.unique_id == unique_id])


@pytest.mark.parametrize("stable", [True, False], ids=["stable", "on-demand"])
def test_an_on_demand_entry_replaces_one_of_either_kind(registry: Registry, stable: bool) -> None:
    """ITI TF-2 3.61.4.1.3; the cascade is that of ITI-42."""
    old = registry.registered(valid(registry.p1)) if stable else registered(registry)
    addendum = registry.registered(related(valid(registry.p1), APND, old.entry_uuid))
    made = related(on_demand_submission(registry.p1), RPLC, old.entry_uuid)
    new = registry.registered(made, on_demand=True)
    states = {one.entry_uuid: one.availability_status for one in registry.of(DocumentEntry)}
    assert states[new.entry_uuid] == Status.APPROVED
    assert {states[old.entry_uuid], states[addendum.entry_uuid]} == {str(Status.DEPRECATED)}
    again = related(on_demand_submission(registry.p1), RPLC, old.entry_uuid)
    ((code, context),) = registry.refused(again, on_demand=True)
    assert code == DEPRECATED and old.entry_uuid in context


def test_an_on_demand_entry_enters_folders_and_its_replacement_follows(registry: Registry) -> None:
    folder = registry.folder().entry_uuid
    old = registry.registered(into_folder(on_demand_submission(registry.p1), folder), on_demand=True)
    made = related(on_demand_submission(registry.p1), RPLC, old.entry_uuid)
    new = registry.registered(made, on_demand=True)
    members = {one.target_object for one in registry.of(Association) if one.source_object == folder}
    assert members == {old.entry_uuid, new.entry_uuid}


def test_a_folder_alone_is_registered_with_either_transaction(registry: Registry) -> None:
    assert registry.register(folder_submission(registry.p1), on_demand=True).succeeded


def test_service_times_and_titles_are_as_of_stable_entries(registry: Registry) -> None:
    times = {"service_start_time": Timestamp("2025"), "service_stop_time": Timestamp("2024")}
    ((code, context),) = registry.refused(on_demand_submission(registry.p1, **times), on_demand=True)
    assert code == METADATA and "is after serviceStopTime" in context
    ((code, context),) = registry.refused(on_demand_submission(registry.p1, title=Text.of("x" * 129)), on_demand=True)
    assert code == METADATA and "title has 129 characters" in context


def test_the_errors_are_those_of_iti_42(registry: Registry) -> None:
    """ITI TF-2 3.61.4.2: patients, references, uniqueIds of sets."""
    used = registry.registered(on_demand_submission(registry.p1), on_demand=True)
    for made, expected in (
        (on_demand_submission(registry.p1, patient_id=registry.p2), "XDSPatientIdDoesNotMatch"),
        (related(on_demand_submission(registry.p1), XFRM, new_uuid()), UNRESOLVED),
        (related(on_demand_submission(registry.p2), RPLC, used.entry_uuid), "XDSPatientIdDoesNotMatch"),
        (folder_submission(registry.p1, unique_id=used.unique_id), "XDSDuplicateUniqueIdInRegistry"),
    ):
        assert [code for code, _ in registry.refused(made, on_demand=True)] == [expected]


def test_a_unique_id_twice_in_a_message_is_refused(registry: Registry) -> None:
    made = submission(registry.p1, documents=2, registered=True)
    same = UniqueId(new_oid())
    bare: dict[str, Any] = {"object_type": ON_DEMAND, "creation_time": None, "hash": None, "size": None}
    entries = tuple(replace(one, unique_id=same, **bare) for one in made.document_entries)
    problems = registry.refused(with_links(replace(made, document_entries=entries)), on_demand=True)
    assert [code for code, _ in problems] == ["XDSRegistryDuplicateUniqueIdInMessage"]
