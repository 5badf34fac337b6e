"""What On-Demand entries are to others: to every stored query, to their snapshots, to peers on the wire (ITI TF-2 3.61, 3.18, 3.43).

What a submission of them must be is in test_iti61_on_demand.py.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from benchmarks.messages import SIMPLE, envelope, submission
from benchmarks.registries import (
    DEPRECATED,
    METADATA,
    UNRESOLVED,
    Registry,
    into_folder,
    link,
    new_uuid,
    on_demand_submission,
    related,
    valid,
    with_links,
)
from registry.client import client
from registry.codes import Codes
from registry.iti18_stored_query import stored_query
from registry.iti57_update import update
from registry.patients import merge_patients
from registry.service import REGISTER, REGISTER_ON_DEMAND
from schemas import lcm, rim
from server.compose import soap_client
from server.config import load
from server.embedded import serving
from xds.metadata import Association, DocumentEntry, Submission, has_member
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindDocumentsByReferenceId,
    FindDocumentsExclude,
    FindDocumentsForMultiplePatients,
    GetAll,
    GetDocuments,
    GetDocumentsAndAssociations,
    GetFolderAndContents,
    GetRelatedDocuments,
    GetSubmissionSetAndContents,
    StoredQuery,
)
from xds.values import Code, Identifier, Person, ReferenceId, Timestamp
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

RPLC, XFRM_RPLC, SNAPSHOT = AssociationType.RPLC, AssociationType.XFRM_RPLC, AssociationType.IS_SNAPSHOT_OF
BOTH = (str(Status.APPROVED), str(Status.DEPRECATED))
REFERENCE = ReferenceId("17^^^&1.2.3&ISO^urn:ihe:iti:xds:2013:order")


def asked(registry: Registry, query: StoredQuery) -> list[DocumentEntry]:
    fragments = stored_query(query, store=registry.store).fragments
    return [one for one in rim.decode_fragments(fragments) if isinstance(one, DocumentEntry)]


def source(registry: Registry, **changes: Any) -> DocumentEntry:
    return registry.registered(on_demand_submission(registry.p1, **changes), on_demand=True)


def status_of(registry: Registry, entry: DocumentEntry) -> str | None:
    (found,) = asked(registry, GetDocuments(entry_uuid=(entry.entry_uuid,)))
    return found.availability_status


# --- queries ----------------------------------------------------------------------------------------------------------

Make = Callable[[Registry, str, dict[str, Any]], StoredQuery]
#: Queries that have $XDSDocumentEntryType: from the registry, a folder, and the types if any are asked for.
WITH_TYPES: dict[str, Make] = {
    "FindDocuments": lambda r, folder, types: FindDocuments(patient_id=r.p1, **types),
    "FindDocumentsByReferenceId": lambda r, folder, types: FindDocumentsByReferenceId(
        patient_id=r.p1, **types, reference_id_list=((REFERENCE,),)
    ),
    "FindDocumentsExclude": lambda r, folder, types: FindDocumentsExclude(patient_id=r.p1, **types),
    "FindDocumentsForMultiplePatients": lambda r, folder, types: FindDocumentsForMultiplePatients(
        patient_id=(r.p1, r.p2), **types
    ),
    "GetAll": lambda r, folder, types: GetAll(patient_id=r.p1, **types),
    "GetFolderAndContents": lambda r, folder, types: GetFolderAndContents(entry_uuid=folder, **types),
}


@pytest.mark.parametrize("name", WITH_TYPES)
def test_a_query_finds_the_kinds_of_entries_that_it_asks_for(registry: Registry, name: str) -> None:
    """Conformance test 15805; where no $XDSDocumentEntryType is given, Stable (ITI TF-2 3.18.4.1.2.3.6.2)."""
    folder = registry.folder().entry_uuid
    stable = registry.registered(into_folder(valid(registry.p1, reference_id_list=(REFERENCE,)), folder))
    made = into_folder(on_demand_submission(registry.p1, reference_id_list=(REFERENCE,)), folder)
    demand = registry.registered(made, on_demand=True)
    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({}, {stable.entry_uuid}),
        ({"object_type": (STABLE,)}, {stable.entry_uuid}),
        ({"object_type": (ON_DEMAND,)}, {demand.entry_uuid}),
        ({"object_type": (ON_DEMAND, STABLE)}, {stable.entry_uuid, demand.entry_uuid}),
    ]
    for types, expected in cases:
        query = WITH_TYPES[name](registry, folder, types)
        assert {one.entry_uuid for one in asked(registry, query)} == expected


def test_the_contents_of_a_submission_set_are_of_the_kinds_asked_for(registry: Registry) -> None:
    """GetSubmissionSetAndContents (ITI TF-2 3.18.4.1.2.3.7.10)."""
    made = on_demand_submission(registry.p1)
    registry.register(made, on_demand=True)
    unique_id = str(made.submission_sets[0].unique_id)
    assert asked(registry, GetSubmissionSetAndContents(unique_id=unique_id)) == []
    (found,) = asked(registry, GetSubmissionSetAndContents(unique_id=unique_id, object_type=(ON_DEMAND,)))
    assert found.object_type == ON_DEMAND


def test_a_get_by_id_gives_an_entry_of_either_kind(registry: Registry) -> None:
    """GetDocuments and GetDocumentsAndAssociations have no $XDSDocumentEntryType."""
    demand = source(registry)
    for query in (
        GetDocuments(entry_uuid=(demand.entry_uuid,)),
        GetDocuments(unique_id=(str(demand.unique_id),)),
        GetDocumentsAndAssociations(entry_uuid=(demand.entry_uuid,)),
    ):
        (found,) = asked(registry, query)
        assert found == demand


def test_creation_times_do_not_filter_but_service_times_do(registry: Registry) -> None:
    """ITI TF-2 3.18.4.1.2.3.7.1: an On-Demand entry has no creationTime."""
    stable = registry.registered(valid(registry.p1))
    demand = source(registry, service_start_time=Timestamp("20240101"), service_stop_time=Timestamp("20241231"))
    common: dict[str, Any] = {"patient_id": registry.p1, "object_type": (STABLE, ON_DEMAND)}
    for created in (
        FindDocuments(**common, creation_time_from=Timestamp("2030")),
        FindDocuments(**common, creation_time_to=Timestamp("1990")),
    ):
        assert [one.entry_uuid for one in asked(registry, created)] == [demand.entry_uuid]
    late = FindDocuments(**common, service_stop_time_from=Timestamp("2025"))
    assert [one.entry_uuid for one in asked(registry, late)] == [stable.entry_uuid]
    early = FindDocuments(**common, service_start_time_from=Timestamp("2024"), service_start_time_to=Timestamp("2025"))
    assert {one.entry_uuid for one in asked(registry, early)} == {stable.entry_uuid, demand.entry_uuid}


def test_a_replaced_on_demand_entry_is_found_as_deprecated_only(registry: Registry) -> None:
    old = source(registry)
    new = registry.registered(related(on_demand_submission(registry.p1), RPLC, old.entry_uuid), on_demand=True)
    for status, expected in ((BOTH[:1], [new.entry_uuid]), (BOTH[1:], [old.entry_uuid])):
        query = FindDocuments(patient_id=registry.p1, object_type=(ON_DEMAND,), status=status)
        assert [one.entry_uuid for one in asked(registry, query)] == expected


# --- what they carry --------------------------------------------------------------------------------------------------


def test_an_on_demand_entry_comes_back_as_it_was_submitted(registry: Registry) -> None:
    """legalAuthenticator is discouraged and not refused; creationTime, hash and size are not made up (ITI TF-3 4.3.1.1)."""
    made = on_demand_submission(
        registry.p1,
        legal_authenticator=Person("7^Muster^Ann^^^^^^&1.2.3&ISO"),
        reference_id_list=(REFERENCE,),
        service_start_time=None,
    )
    found = registry.registered(made, on_demand=True)
    (submitted,) = made.document_entries
    given: dict[str, Any] = {"entry_uuid": "", "logical_id": None, "version": None, "availability_status": None}
    assert replace(found, **given) == replace(submitted, **given)
    text = rim.to_text(found)
    assert [name for name in ("creationTime", "hash", "size") if f'name="{name}"' in text] == []


def test_codes_and_patients_are_judged_as_for_stable_entries(registry: Registry) -> None:
    """ITI TF-2 3.61.4.1.3: the rules of ITI-42."""
    registry.codes = Codes.of([("typeCode", "2.16.840.1.113883.6.1", "1-8", "Other")])
    ((code, context),) = registry.refused(on_demand_submission(registry.p1), on_demand=True)
    assert code == METADATA
    assert "DocumentEntry Document0: typeCode '18842-5'" in context
    registry.codes = None
    stranger = Identifier.of(f"nobody-{registry.p1.identifier}", "1.2.3.4")
    ((code, context),) = registry.refused(on_demand_submission(stranger), on_demand=True)
    assert (code, repr(str(stranger)) in context) == ("XDSUnknownPatientId", True)
    merge_patients(registry.store, surviving=registry.p1, subsumed=registry.p2)
    ((code, context),) = registry.refused(on_demand_submission(registry.p2), on_demand=True)
    assert (code, "has been merged into" in context) == ("XDSUnknownPatientId", True)


def test_a_merge_takes_on_demand_entries_along(registry: Registry) -> None:
    demand = registry.registered(on_demand_submission(registry.p2), on_demand=True)
    merge_patients(registry.store, surviving=registry.p1, subsumed=registry.p2)
    (found,) = asked(registry, FindDocuments(patient_id=registry.p1, object_type=(ON_DEMAND,)))
    assert found == replace(demand, patient_id=registry.p1)


# --- relationships ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RPLC, XFRM_RPLC])
@pytest.mark.parametrize("stable", [True, False], ids=["stable", "on-demand"])
def test_either_kind_of_replacement_deprecates_either_kind_of_entry(
    registry: Registry, kind: AssociationType, stable: bool
) -> None:
    """ITI TF-2 3.61.4.1.3: an On-Demand entry may replace a Stable or an On-Demand one."""
    old = registry.registered(valid(registry.p1)) if stable else source(registry)
    new = registry.registered(related(on_demand_submission(registry.p1), kind, old.entry_uuid), on_demand=True)
    assert (status_of(registry, old), status_of(registry, new)) == (Status.DEPRECATED, Status.APPROVED)


@pytest.mark.parametrize("kind", [RPLC, XFRM_RPLC])
def test_a_stable_entry_replaces_no_on_demand_entry(registry: Registry, kind: AssociationType) -> None:
    demand = source(registry)
    problems = registry.refused(related(valid(registry.p1), kind, demand.entry_uuid))
    assert [code for code, _ in problems] == [METADATA]
    assert f"a Stable entry does not replace the On-Demand entry {demand.entry_uuid!r}" in problems[0][1]
    assert status_of(registry, demand) == Status.APPROVED


def test_a_replacement_between_patients_is_refused(registry: Registry) -> None:
    """Conformance test 11998, for On-Demand entries."""
    old = source(registry)
    made = related(on_demand_submission(registry.p2), RPLC, old.entry_uuid)
    ((code, context),) = registry.refused(made, on_demand=True)
    assert code == "XDSPatientIdDoesNotMatch"
    assert f"targetObject {old.entry_uuid!r} is of patient {str(registry.p1)!r}, not {str(registry.p2)!r}" in context


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_stored_beside_its_source(registry: Registry) -> None:
    """IsSnapshotOf changes no status and no folder (ITI TF-3 4.2.2.2.6)."""
    folder = registry.folder().entry_uuid
    demand = registry.registered(into_folder(on_demand_submission(registry.p1), folder), on_demand=True)
    snapshot = registry.registered(related(valid(registry.p1), SNAPSHOT, demand.entry_uuid))
    assert status_of(registry, demand) == status_of(registry, snapshot) == Status.APPROVED
    members = {one.target_object for one in registry.of(Association) if one.source_object == folder}
    assert members == {demand.entry_uuid}
    (found,) = (one for one in registry.of(Association) if one.association_type == SNAPSHOT)
    assert (found.source_object, found.target_object) == (snapshot.entry_uuid, demand.entry_uuid)
    assert found.availability_status == Status.APPROVED


def test_a_later_snapshot_replaces_the_one_before(registry: Registry) -> None:
    """ITI TF-2 3.43.4.2.3: IsSnapshotOf to the On-Demand entry, and RPLC to the previous snapshot, in one submission."""
    demand = source(registry)
    first = registry.registered(related(valid(registry.p1), SNAPSHOT, demand.entry_uuid))
    made = related(related(valid(registry.p1), SNAPSHOT, demand.entry_uuid), RPLC, first.entry_uuid)
    second = registry.registered(made)
    states = [status_of(registry, one) for one in (demand, first, second)]
    assert states == [Status.APPROVED, Status.DEPRECATED, Status.APPROVED]


def test_the_snapshots_of_an_entry_are_found_from_it_and_it_from_them(registry: Registry) -> None:
    """GetRelatedDocuments (ITI TF-2 3.18.4.1.2.3.7.13)."""
    demand = source(registry)
    snapshot = registry.registered(related(valid(registry.p1), SNAPSHOT, demand.entry_uuid))
    both = {demand.entry_uuid, snapshot.entry_uuid}
    for start in both:
        query = GetRelatedDocuments(
            entry_uuid=start, association_types=(str(SNAPSHOT),), object_type=(STABLE, ON_DEMAND)
        )
        assert {one.entry_uuid for one in asked(registry, query)} == both


def test_a_snapshot_is_of_a_registered_on_demand_entry(registry: Registry) -> None:
    demand, stable = source(registry), registry.registered(valid(registry.p1))
    bad = related(valid(registry.p1), SNAPSHOT, stable.entry_uuid)
    ((code, context),) = registry.refused(bad)
    assert (code, "leads from a Stable entry to an On-Demand entry" in context) == (METADATA, True)
    bad = related(on_demand_submission(registry.p1), SNAPSHOT, stable.entry_uuid)
    ((code, context),) = registry.refused(bad, on_demand=True)
    assert (code, "leads from a Stable entry to an On-Demand entry" in context) == (METADATA, True)
    two = with_links(submission(registry.p1, documents=2, registered=True), link(SNAPSHOT, "Document0", "Document1"))
    ((code, context),) = registry.refused(two)
    assert (code, "'Document1', is not in the registry" in context) == (UNRESOLVED, True)
    other = related(valid(registry.p2), SNAPSHOT, demand.entry_uuid)
    assert [code for code, _ in registry.refused(other)] == ["XDSPatientIdDoesNotMatch"]
    replaced = related(on_demand_submission(registry.p1), RPLC, demand.entry_uuid)
    registry.register(replaced, on_demand=True)
    late = related(valid(registry.p1), SNAPSHOT, demand.entry_uuid)
    assert [code for code, _ in registry.refused(late)] == [DEPRECATED]


def test_a_snapshot_has_no_documentation_code(registry: Registry) -> None:
    """Only RPLC, XFRM, APND and XFRM_RPLC have one (ITI TF-3 4.2.2.2)."""
    made = related(valid(registry.p1), SNAPSHOT, source(registry).entry_uuid, documentation=Code.of("a", "1.2", "A"))
    ((code, context),) = registry.refused(made)
    assert (code, "a IsSnapshotOf association has no documentation code" in context) == (METADATA, True)


def test_a_snapshot_s_source_is_of_the_submission(registry: Registry) -> None:
    demand, stable = source(registry), registry.registered(valid(registry.p1))
    made = with_links(valid(registry.p1), link(SNAPSHOT, stable.entry_uuid, demand.entry_uuid))
    ((code, context),) = registry.refused(made)
    assert (code, f"its source {stable.entry_uuid!r} is no DocumentEntry of the submission" in context) == (
        UNRESOLVED,
        True,
    )


def test_an_on_demand_entry_may_be_referred_to(registry: Registry) -> None:
    """SubmissionSetStatus Reference, of whatever kind and patient (ITI TF-3 4.2.2.1.2)."""
    demand = source(registry)
    reference = has_member("SubmissionSet", demand.entry_uuid, entry_uuid="ref", submission_set_status="Reference")
    assert registry.register(with_links(valid(registry.p2), reference)).succeeded


def test_a_submission_without_entries_is_taken_by_either_transaction(registry: Registry) -> None:
    """A registered On-Demand document put into a folder: nothing in the message is of either kind."""
    folder, demand = registry.folder().entry_uuid, source(registry)
    for on_demand in (True, False):
        made = into_folder(submission(registry.p1, documents=0), folder, demand.entry_uuid)
        assert registry.register(made, on_demand=on_demand).succeeded


# --- metadata update --------------------------------------------------------------------------------------------------


def test_an_update_of_an_on_demand_entry_keeps_its_kind(registry: Registry) -> None:
    """Metadata Update 3.57: a new version has the objectType of the old one, and again no bytes."""
    demand = source(registry)
    made = on_demand_submission(registry.p1, logical_id=demand.entry_uuid, unique_id=demand.unique_id)
    (member,) = made.associations
    made = replace(made, associations=(replace(member, previous_version="1"),))

    def changed(one: Submission) -> Any:
        return update(one, store=registry.store, now=lambda: registry.moment, new_uuid=new_uuid)

    stable = replace(made, document_entries=(replace(made.document_entries[0], object_type=STABLE),))
    with pytest.raises(Failure):
        changed(stable)
    assert changed(made).succeeded
    (found,) = asked(registry, FindDocuments(patient_id=registry.p1, object_type=(ON_DEMAND,)))
    assert (found.object_type, found.version, found.logical_id) == (ON_DEMAND, "2", demand.entry_uuid)


# --- on the wire ------------------------------------------------------------------------------------------------------


def configured(tmp_path: Path, options: str) -> Any:
    path = tmp_path / "xdsi.toml"
    path.write_text(
        f'[server]\nactors = "registry"\ndirectory = "{tmp_path / "data"}"\n'
        f'[registry]\npatients = "open"\noptions = "{options}"\n'
    )
    return load(path, {})


def post(address: str, action: str, made: Submission) -> tuple[int, etree._Element]:
    body = envelope(action, lcm.encode_submission(made))
    request = urllib.request.Request(address, data=body, headers={"Content-Type": f'{SIMPLE}; action="{action}"'})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, etree.fromstring(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, etree.fromstring(error.read())


def test_the_answer_has_its_own_action_and_the_client_gets_it(tmp_path: Path) -> None:
    """ITI TF-2 3.61.4.2.2: urn:ihe:iti:2010:RegisterOnDemandDocumentResponse."""
    config, patient_id = configured(tmp_path, "on-demand"), Identifier.of("ann", "1.2.3.4")
    with serving(config) as domain:
        address = domain.endpoints["registry"]
        status, answer = post(address, REGISTER_ON_DEMAND, on_demand_submission(patient_id))
        assert status == 200
        assert "urn:ihe:iti:2010:RegisterOnDemandDocumentResponse" in [one.text for one in answer[0]]
        (response,) = answer[1]
        assert etree.QName(response).localname == "RegistryResponse"
        assert response.get("status") == "urn:oasis:names:tc:ebxml-regrep:ResponseStatusType:Success"
        remote = client(soap_client(address, config))
        assert remote.register_on_demand(on_demand_submission(patient_id)).succeeded
        for send, made, words in (
            (remote.register, on_demand_submission(patient_id), "is not Stable, which ITI-42 demands"),
            (remote.register_on_demand, valid(patient_id), "is not On-Demand, which ITI-61 demands"),
        ):
            with pytest.raises(Failure) as failure:
                send(made)
            ((code, context),) = (
                (str(one.code), one.context) for one in failure.value.problems if words in one.context
            )
            assert code == METADATA
            assert context.startswith("DocumentEntry Document0: objectType")
        query = FindDocuments(patient_id=patient_id, object_type=(ON_DEMAND,))
        assert len(list(remote.query(query).fragments)) == 2
        assert list(remote.query(FindDocuments(patient_id=patient_id)).fragments) == []


def test_a_registry_without_the_option_does_not_know_the_action(tmp_path: Path) -> None:
    config, patient_id = configured(tmp_path, "multi-patient"), Identifier.of("ann", "1.2.3.4")
    with serving(config) as domain:
        address = domain.endpoints["registry"]
        status, answer = post(address, REGISTER_ON_DEMAND, on_demand_submission(patient_id))
        assert status in (400, 500)
        assert etree.QName(answer[1][0]).localname == "Fault"
        assert post(address, REGISTER, valid(patient_id))[0] == 200
