"""ITI-92 Restricted Update Document Set: new versions of DocumentEntries, in what is not fixed (Restricted Metadata Update 3.92)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from registry.codes import Codes
from registry.iti42_register import as_submitted, check_message, with_ids
from registry.iti57_update import UPDATE_RULES, footprint, logical_ids
from registry.rules import STRICT, Strictness
from registry.rules_registry import Patients, look
from registry.rules_update import annotations_are_right, check_submission, previous_version_is_latest, updated_once
from registry.store import Known, Store, Unit
from registry.versions import Update, latest, store_versions
from registry.wording import fault, named, shown
from schemas.attributes import camel_case
from xds.messages import Outcome
from xds.metadata import DocumentEntry, Submission
from xds.problems import ErrorCode, Failure, Problem, errors
from xds.values import Timestamp
from xds.vocabulary import AssociationType

#: What a new version may not change (3.92.4.1.3).
_FIXED = ("object_type", "source_patient_id", "document_availability", "repository_unique_id")
_ANNOTATION, _VERSION = ErrorCode.METADATA_ANNOTATION_ERROR, ErrorCode.METADATA_VERSION_ERROR


def restricted_update(
    submission: Submission,
    *,
    store: Store,
    now: Callable[[], datetime],
    new_uuid: Callable[[], str],
    patients: Patients = "known",
    strictness: Strictness = STRICT,
    codes: Codes | None = None,
) -> Outcome:
    """Stores the new version of each DocumentEntry. Failure with every problem found, and then nothing is changed.

    A new version of a Deprecated entry is Deprecated as well.
    """
    problems = [
        *check_message(submission, strictness=strictness, codes=codes, rules=UPDATE_RULES),
        *_only_entries(submission),
    ]
    if len(submission.submission_sets) != 1:
        raise Failure(problems)
    assigned = with_ids(submission, new_uuid, Timestamp.at(now()))
    logical = logical_ids(submission, assigned)
    submission_set = assigned.submission_sets[0]

    def work(unit: Unit) -> Outcome:
        updates, found = _updates(assigned, logical, unit)
        found += [*check_submission(look(assigned, unit, patients), strictness), *updated_once(updates)]
        for one in updates:
            found += _problems(one, str(submission_set.patient_id or ""), unit)
        found = [*problems, *as_submitted(found, submission, assigned)]
        if errors(found):
            raise Failure(found)
        patient_id = str(submission_set.patient_id)
        store_versions(updates, unit, new_uuid, patient_id=patient_id, keep_status=True)
        unit.add([submission_set, *(one.membership for one in updates)], patient_id=patient_id)
        return Outcome.of(found)

    return store.write(footprint(assigned, logical, store), work, alone=True)


def _only_entries(submission: Submission) -> Iterator[Problem]:
    """Nothing but DocumentEntries and their memberships in the SubmissionSet (3.92.4.1.2)."""
    for folder in submission.folders:
        yield fault(f"{named(folder)}: ITI-92 updates DocumentEntries only", ErrorCode.OBJECT_TYPE_ERROR)
    if not submission.document_entries:
        yield fault("the request holds no DocumentEntry to be updated", ErrorCode.INVALID_REQUEST)
    entries = {one.entry_uuid for one in submission.document_entries}
    for one in submission.associations:
        if one.association_type != AssociationType.HAS_MEMBER or one.target_object not in entries:
            kind = one.association_type.rpartition(":")[2]
            text = f"{kind} to {shown(one.target_object)} is no membership of an updated DocumentEntry"
            yield fault(f"{named(one)}: {text}", ErrorCode.UNMODIFIABLE_METADATA_ERROR)


def _updates(assigned: Submission, logical: Mapping[str, str], unit: Unit) -> tuple[list[Update], list[Problem]]:
    """An update for each entry that has its one membership. Without a logicalID, the uniqueId says what it is a version of."""
    set_uuid = assigned.submission_sets[0].entry_uuid
    updates: list[Update] = []
    problems: list[Problem] = []
    for entry in assigned.document_entries:
        members = [
            one
            for one in assigned.associations
            if one.source_object == set_uuid and one.target_object == entry.entry_uuid
        ]
        if len(members) != 1:
            text = f"{len(members)} HasMember associations lead to it from the SubmissionSet; one is right"
            problems.append(fault(f"{named(entry)}: {text}", _ANNOTATION))
            continue
        problems += _found_by_unique_id(entry, logical.get(entry.entry_uuid), unit)
        old = _old(entry, logical.get(entry.entry_uuid), unit)
        lid = logical.get(entry.entry_uuid) or (old.logical_id if old is not None else "")
        updates.append(Update(new=entry, logical_id=lid, membership=members[0], old=old))
    return updates, problems


def _found_by_unique_id(entry: DocumentEntry, lid: str | None, unit: Unit) -> Iterator[Problem]:
    """Without a logicalID, the uniqueId is that of one logical object: the same document may be registered several times."""
    count = len({one.logical_id for one in _same(entry, unit)})
    if lid is None and count > 1:
        text = (
            f"{count} registered DocumentEntries have its uniqueId {shown(entry.unique_id)}; a logicalID must say which"
        )
        yield fault(f"{named(entry)}: {text}", ErrorCode.METADATA_IDENTIFIER_ERROR)


def _old(entry: DocumentEntry, lid: str | None, unit: Unit) -> Known | None:
    if lid is not None:
        return latest(one for one in unit.versions([lid]) if one.logical_id == lid)
    return latest(_same(entry, unit))


def _same(entry: DocumentEntry, unit: Unit) -> list[Known]:
    same = unit.by_unique_id([str(entry.unique_id)]) if entry.unique_id else []
    return [one for one in same if one.kind == "DocumentEntry"]


def _problems(one: Update, patient_id: str, unit: Unit) -> Iterator[Problem]:
    yield from annotations_are_right(one, _ANNOTATION, _VERSION)
    if one.logical_id:
        yield from previous_version_is_latest(one)
    else:
        text = f"no DocumentEntry is registered with its uniqueId {shown(one.new.unique_id or '')}"
        yield fault(f"{named(one.new)}: {text}", _VERSION)
    if not one.propagates:
        yield fault(f"{named(one.membership)}: AssociationPropagation no is not for ITI-92", _ANNOTATION)
    old, new = one.old, one.new
    if old is None or not isinstance(new, DocumentEntry):
        return
    before = unit.objects([old]).get(old.entry_uuid)
    if not isinstance(before, DocumentEntry):
        yield fault(f"{named(new)}: {one.logical_id} is a {old.kind}", ErrorCode.OBJECT_TYPE_ERROR)
        return
    if new.unique_id != before.unique_id:
        text = f"uniqueId {shown(new.unique_id or '')} is not {shown(before.unique_id)}, which cannot change"
        yield fault(f"{named(new)}: {text}", ErrorCode.METADATA_IDENTIFIER_ERROR)
    if str(new.patient_id or "") != old.patient_id or patient_id != old.patient_id:
        given = new.patient_id if str(new.patient_id or "") != old.patient_id else patient_id
        text = f"patientId {shown(given or '')} is not {shown(old.patient_id)}, which cannot change"
        yield fault(f"{named(new)}: {text}", ErrorCode.PATIENT_ID_RECONCILIATION_ERROR)
    for field in _FIXED:
        given, kept = getattr(new, field), getattr(before, field)
        if given != kept:
            text = f"{camel_case(field)} {shown(given or '')} is not {shown(kept or '')}, which cannot change"
            yield fault(f"{named(new)}: {text}", ErrorCode.UNMODIFIABLE_METADATA_ERROR)
    if new.availability_status not in (None, before.availability_status):
        text = f"availabilityStatus {shown(new.availability_status)} is not that of the version before, which stays"
        yield fault(f"{named(new)}: {text}", ErrorCode.UNMODIFIABLE_METADATA_ERROR)
