"""ITI-57 Update Document Set: new versions, changes of status, new associations, all of a request or nothing (Metadata Update 3.57)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from registry import rules
from registry.codes import Codes
from registry.iti42_register import as_submitted, check_message, with_ids
from registry.rules import STRICT, Strictness
from registry.rules_registry import Patients, ids_to_look_up, look
from registry.rules_update import STATUSES, Request, check
from registry.store import Footprint, Known, Store, Unit
from registry.versions import Update, latest, store_versions
from registry.wording import fault, named, shown
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, Submission, SubmissionSet, has_member
from xds.problems import ErrorCode, Failure, Problem, errors
from xds.values import Timestamp
from xds.vocabulary import AssociationType

#: What a message of ITI-57 is held to of the rules of a submission: its associations and its patients have rules of their own.
UPDATE_RULES = tuple(
    rule
    for rule in rules.RULES
    if rule
    not in (
        rules.something_is_submitted,
        rules.nothing_is_updated,
        rules.members_are_declared,
        rules.associations_are_legal,
        rules.patients_are_one,
    )
)


def update(
    submission: Submission,
    *,
    store: Store,
    now: Callable[[], datetime],
    new_uuid: Callable[[], str],
    patients: Patients = "known",
    strictness: Strictness = STRICT,
    codes: Codes | None = None,
) -> Outcome:
    """Carries out the whole request: first the new versions, then the new associations, then the statuses.

    Failure with every problem found, and then nothing is changed.
    """
    problems = check_message(submission, strictness=strictness, codes=codes, rules=UPDATE_RULES)
    if len(submission.submission_sets) != 1:
        raise Failure(problems)
    moment = Timestamp.at(now())
    assigned = with_ids(submission, new_uuid, moment)
    logical = logical_ids(submission, assigned)

    def work(unit: Unit) -> Outcome:
        request, found = _read(assigned, logical, unit)
        found += check(request, look(assigned, unit, patients), strictness)
        found = [*problems, *as_submitted(found, submission, assigned)]
        if errors(found):
            raise Failure(found)
        _store(request, unit, new_uuid, moment)
        return Outcome.of(found)

    return store.write(footprint(assigned, logical, store), work, alone=True)


def versioned(submission: Submission) -> tuple[DocumentEntry | Folder, ...]:
    """The objects that have versions."""
    return (*submission.document_entries, *submission.folders)


def logical_ids(submission: Submission, assigned: Submission) -> dict[str, str]:
    """The logicalID that each object was submitted with, by its assigned id; only where it is another than the object's own."""
    pairs = zip(versioned(submission), versioned(assigned), strict=True)
    return {new.entry_uuid: one.logical_id for one, new in pairs if one.logical_id and one.logical_id != one.entry_uuid}


def footprint(assigned: Submission, logical: Mapping[str, str], store: Store) -> Footprint:
    """What an update looks at: everything that it names, and the patients of all that."""
    ids = ids_to_look_up(assigned) | set(logical.values())
    patients = store.patients_of(ids) | {str(one.patient_id) for one in assigned.submission_sets if one.patient_id}
    patients |= {str(one.patient_id) for one in versioned(assigned) if one.patient_id}
    unique_ids = [one.unique_id for one in assigned.objects if not isinstance(one, Association)]
    return Footprint(
        entry_uuids=frozenset(map(str, ids)),
        unique_ids=frozenset(str(one) for one in unique_ids if one),
        patients=frozenset(patients),
    )


# --- what is asked ----------------------------------------------------------------------------------------------------


def _read(assigned: Submission, logical: Mapping[str, str], unit: Unit) -> tuple[Request, list[Problem]]:
    """The operations of a message; what is none of them is a problem."""
    submission_set = assigned.submission_sets[0]
    objects = {one.entry_uuid: one for one in versioned(assigned)}
    associations = {one.entry_uuid: one for one in assigned.associations}
    versions: dict[str, list[Known]] = {}
    for known in unit.versions(set(logical.values())):
        versions.setdefault(known.logical_id, []).append(known)
    problems: list[Problem] = []
    updates: list[Update] = []
    submitted: list[Association] = []
    statuses: list[Association] = []
    for one in assigned.associations:
        if one.source_object != submission_set.entry_uuid:
            continue
        target = objects.get(one.target_object)
        if one.association_type == AssociationType.HAS_MEMBER and target is not None:
            lid = logical.get(target.entry_uuid, "")
            updates.append(Update(new=target, logical_id=lid, membership=one, old=latest(versions.get(lid, []))))
        elif one.association_type == AssociationType.UPDATE_AVAILABILITY_STATUS:
            statuses.append(one)
        elif one.association_type == AssociationType.SUBMIT_ASSOCIATION and one.target_object in associations:
            submitted.append(associations[one.target_object])
        else:
            what = f"{named(one)}: {one.association_type.rpartition(':')[2]} to {shown(one.target_object)}"
            problems.append(fault(f"{what} is no operation of ITI-57", ErrorCode.INVALID_REQUEST))
    problems += _not_asked_for(assigned, updates, submitted, submission_set)
    request = Request(
        submission_set=submission_set, updates=tuple(updates), submitted=tuple(submitted), statuses=tuple(statuses)
    )
    if not (updates or submitted or statuses):
        text = "the request holds no update, no association and no change of status"
        problems.append(fault(text, ErrorCode.INVALID_REQUEST))
    return request, problems


def _not_asked_for(
    assigned: Submission, updates: Sequence[Update], submitted: Sequence[Association], submission_set: SubmissionSet
) -> Iterator[Problem]:
    """Every object of the message is the subject of one operation."""
    updated = Counter(one.new.entry_uuid for one in updates)
    for one in versioned(assigned):
        if updated[one.entry_uuid] != 1:
            count = updated[one.entry_uuid]
            text = f"{count} HasMember associations lead to it from the SubmissionSet; one says how it is to be updated"
            yield fault(f"{named(one)}: {text}", ErrorCode.METADATA_UPDATE_OPERATION_ERROR)
    linked = Counter(one.entry_uuid for one in submitted)
    for association in assigned.associations:
        if association.source_object != submission_set.entry_uuid and linked[association.entry_uuid] != 1:
            yield fault(
                f"{named(association)}: {linked[association.entry_uuid]} SubmitAssociation associations lead to it; one is right",
                ErrorCode.METADATA_UPDATE_OPERATION_ERROR,
            )


# --- effects ----------------------------------------------------------------------------------------------------------


def _store(request: Request, unit: Unit, new_uuid: Callable[[], str], moment: Timestamp) -> None:
    """In their order: versions, associations, statuses; each step sees the one before."""
    store_versions(request.updates, unit, new_uuid, patient_id=request.patient_id)
    links = [one.membership for one in request.updates]
    for association in request.submitted:
        # What is submitted belongs to the SubmissionSet; the instruction itself is not kept.
        uuid = new_uuid()
        link = has_member(request.submission_set.entry_uuid, association.entry_uuid, entry_uuid=uuid)
        links.append(replace(link, logical_id=uuid, version="1"))
    unit.add([request.submission_set, *links, *request.submitted], patient_id=request.patient_id)
    unit.flush()
    members = (one for one in request.submitted if one.association_type == AssociationType.HAS_MEMBER)
    for folder in unit.known({one.source_object for one in members}).values():
        unit.touch(folder, moment)
    superseded = request.superseded()
    for status in request.statuses:
        target = superseded.get(status.target_object, status.target_object)
        unit.set_status(unit.known([target])[target], STATUSES[status.new_status or ""])
        unit.flush()
