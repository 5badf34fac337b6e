"""The rules that an administrator may soften: each as an error, as a warning, and not at all (docs: [strictness]).

A softened rule only ever lets more in: what comes in is stored, found, given back and lived with on both databases.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.registries import BOTH, Registry, related, valid
from registry.iti18_stored_query import stored_query
from registry.patients import add_patient
from registry.rules import Strictness
from registry.tunable import RULES
from schemas import rim
from tests.breaches import BREACHES, Breach, soft, unknown_patient
from xds.metadata import Association, DocumentEntry, RegistryObject, Submission
from xds.problems import Failure, Severity
from xds.queries import FindDocuments, GetAll
from xds.values import PidField, Size, Timestamp
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status


def compared(objects: Any) -> list[str]:
    """SubmissionSets, entries and folders without what the registry gives them, and how many associations there are."""
    given: dict[str, Any] = {"entry_uuid": "", "logical_id": None, "version": None, "availability_status": None}
    found: list[str] = []
    for one in objects:
        folders = {"last_update_time": None} if rim.kind_of(one) == "Folder" else {}
        found.append("Association" if isinstance(one, Association) else repr(replace(one, **given, **folders)))
    return sorted(found)


def of_patient(it: Registry, made: Submission) -> list[RegistryObject]:
    """What is registered of the submission's patient."""
    patient_id = made.submission_sets[0].patient_id
    assert patient_id is not None
    return it.everything(patient_id)


def stored(it: Registry, made: Submission, before: list[RegistryObject]) -> list[RegistryObject]:
    """What the registration added to what was registered before."""
    known = {one.entry_uuid for one in before}
    return [one for one in of_patient(it, made) if one.entry_uuid not in known]


def broken(it: Registry, breach: Breach) -> Submission:
    """The submission, and the registry as it has to be."""
    for name, value in breach.more.items():
        setattr(it, name, value)
    return breach.make(it)


def test_every_rule_that_can_be_softened_is_broken_here() -> None:
    assert {one.rule for one in BREACHES} == set(RULES)
    assert all(meaning.endswith(".") for meaning in RULES.values())


@pytest.mark.parametrize("breach", BREACHES, ids=str)
def test_a_broken_rule_refuses_or_warns_or_is_silent(registry: Registry, breach: Breach) -> None:
    """Refused by default; with `warning` stored, with the same words; with `off` stored without a word."""
    made = broken(registry, breach)
    problems = registry.refused(made, on_demand=breach.on_demand)
    assert [code for code, _ in problems] == [breach.code] * breach.count, problems
    assert all(word in context for _, context in problems for word in breach.words), problems

    before = of_patient(registry, made)
    outcome = soft(registry, {breach.rule: "warning"}, made, on_demand=breach.on_demand)
    assert outcome.succeeded
    assert [(str(one.code), one.context) for one in outcome.problems] == problems
    assert {one.severity for one in outcome.problems} == {Severity.WARNING}
    added = compared(stored(registry, made, before))
    assert [one for one in compared(made.objects) if one not in added] == []

    again = breach.make(registry)
    before = of_patient(registry, again)
    outcome = soft(registry, {breach.rule: "off"}, again, on_demand=breach.on_demand)
    assert (outcome.succeeded, outcome.problems) == (True, ())
    added = compared(stored(registry, again, before))
    assert [one for one in compared(again.objects) if one not in added] == []


@pytest.mark.parametrize("breach", BREACHES, ids=str)
def test_one_softened_rule_softens_no_other(registry: Registry, breach: Breach) -> None:
    """Every other rule off, it is refused as before; every rule a warning, it is stored with the same words."""
    made = broken(registry, breach)
    problems = registry.refused(made, on_demand=breach.on_demand)
    registry.strictness = Strictness({name: "off" for name in RULES if name != breach.rule})
    assert registry.refused(made, on_demand=breach.on_demand) == problems
    outcome = soft(registry, dict.fromkeys(RULES, "warning"), made, on_demand=breach.on_demand)
    assert outcome.succeeded
    assert [(str(one.code), one.context) for one in outcome.problems] == problems


@pytest.mark.parametrize("breach", [one for one in BREACHES if one.rule != "patient_is_known"], ids=str)
def test_what_was_stored_in_spite_of_a_rule_can_be_searched_and_replaced(registry: Registry, breach: Breach) -> None:
    """A softened rule leaves a registry that still answers."""
    made = broken(registry, breach)
    before = of_patient(registry, made)
    soft(registry, {breach.rule: "off"}, made, on_demand=breach.on_demand)
    patient_id = made.submission_sets[0].patient_id
    assert patient_id is not None
    times: dict[str, Any] = {"creation_time_from": Timestamp("1900"), "service_start_time_to": Timestamp("2100")}
    query = FindDocuments(patient_id=patient_id, status=BOTH, object_type=(STABLE, ON_DEMAND), **times)
    list(stored_query(query, store=registry.store).fragments)
    everything = [one for one in stored(registry, made, before) if isinstance(one, DocumentEntry)]
    for entry in everything:
        if entry.object_type == STABLE and entry.availability_status == Status.APPROVED:
            levels = {"patient_identifiers_are_well_formed": "off", "codes_are_known": "off"}
            assert soft(registry, levels, related(valid(patient_id), AssociationType.RPLC, entry.entry_uuid)).succeeded
            (now,) = (one for one in of_patient(registry, made) if one.entry_uuid == entry.entry_uuid)
            assert isinstance(now, DocumentEntry)
            assert now.availability_status == Status.DEPRECATED


def test_an_error_beside_a_warning_refuses_and_tells_both(registry: Registry) -> None:
    registry.strictness = Strictness({"times_are_well_formed": "warning"})
    made = valid(registry.p1, creation_time=Timestamp("x"), size=Size("y"))
    before = registry.snapshot()
    with pytest.raises(Failure) as failure:
        registry.register(made)
    assert registry.snapshot() == before
    told = {one.severity: one.context for one in failure.value.problems}
    assert "creationTime 'x'" in told[Severity.WARNING]
    assert "size 'y'" in told[Severity.ERROR]
    assert len(failure.value.problems) == 2


def test_a_wrong_birth_date_is_the_administrators_example(registry: Registry) -> None:
    """sourcePatientInfo PID-7 (ITI TF-3 4.2.3.2.23): warned of, and given back as it came."""
    registry.strictness = Strictness({"source_patient_info_is_well_formed": "warning"})
    info = (PidField("PID-5|Muster^Ann"), PidField("PID-7|19702302"))
    made = valid(registry.p1, source_patient_info=info)
    (problem,) = registry.register(made).problems
    assert problem.context == (
        "DocumentEntry Document0: sourcePatientInfo PID-7 (birth date) '19702302' is not a moment of the calendar"
    )
    assert registry.entry(made).source_patient_info == info


def test_an_unknown_patient_may_be_let_in_by_strictness_alone(registry: Registry) -> None:
    """As `patients = "open"` would, but with a word about it; the feed may tell of the patient later."""
    made = unknown_patient(registry)
    patient_id = made.submission_sets[0].patient_id
    assert patient_id is not None
    outcome = soft(registry, {"patient_is_known": "warning"}, made)
    assert [(str(one.code), one.severity) for one in outcome.problems] == [("XDSUnknownPatientId", Severity.WARNING)]
    assert add_patient(registry.store, patient_id)
    assert soft(registry, {}, valid(patient_id)).problems == ()
    query = GetAll(patient_id=patient_id, document_entry_status=BOTH, submission_set_status=BOTH, folder_status=BOTH)
    assert len(list(stored_query(query, store=registry.store).fragments)) == 6
