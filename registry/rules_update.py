"""What a request of ITI-57 must be in view of what is registered: versions, new associations, changes of status (Metadata Update 3.57)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from registry.lookup import Known
from registry.rules import DOCUMENTED, Strictness
from registry.rules_registry import (
    Seen,
    ids_are_new,
    patient_is_known,
    patient_is_not_merged_away,
    relations_are_possible,
)
from registry.unit import Unit
from registry.versions import Update, following, latest
from registry.wording import fault, named, shown
from xds.metadata import Association, DocumentEntry, Submission, SubmissionSet
from xds.problems import ErrorCode, Problem
from xds.vocabulary import RELATIONSHIPS, AssociationType, Status

STATUSES = {str(status): status for status in Status}
_OPERATION, _UPDATE = ErrorCode.METADATA_UPDATE_OPERATION_ERROR, ErrorCode.METADATA_UPDATE_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a message asks for, its objects with their ids. The triggers are instructions, and are not stored."""

    submission_set: SubmissionSet
    updates: tuple[Update, ...]
    submitted: tuple[Association, ...]
    statuses: tuple[Association, ...]

    @property
    def patient_id(self) -> str:
        return str(self.submission_set.patient_id or "")

    def superseded(self) -> dict[str, str]:
        """The new entryUUID of each version that is replaced."""
        return {one.old.entry_uuid: one.new.entry_uuid for one in self.updates if one.old is not None}


def check(request: Request, seen: Seen, strictness: Strictness) -> Iterator[Problem]:
    """Every fault of a request that the registry shows."""
    unit = seen.unit
    yield from check_submission(seen, strictness)
    for one in request.updates:
        yield from annotations_are_right(one)
        yield from _version_fits(one)
        yield from _patients_fit(one, request, unit)
    yield from updated_once(request.updates)
    yield from _submitted_once(request.submitted)
    for association in request.submitted:
        yield from _can_be_submitted(association, request, unit)
    for status in request.statuses:
        yield from _status_can_be_changed(status, request, unit)


def check_submission(seen: Seen, strictness: Strictness) -> Iterator[Problem]:
    """What an update must be as any submission: its ids and its SubmissionSet are new, its patient is known."""
    yield from ids_are_new(seen)
    yield from submission_set_is_new(seen.submission.submission_sets[0], seen.unit)
    yield from patient_is_not_merged_away(seen)
    yield from strictness.judged(patient_is_known.__name__, patient_is_known(seen))


def submission_set_is_new(submission_set: SubmissionSet, unit: Unit) -> Iterator[Problem]:
    """Its uniqueId is not registered (ITI TF-3 4.2.4.1)."""
    if submission_set.unique_id and (used := unit.by_unique_id([str(submission_set.unique_id)])):
        text = f"the uniqueId {shown(submission_set.unique_id)} is used by a registered {used[0].kind}"
        yield fault(f"{named(submission_set)}: {text}", ErrorCode.DUPLICATE_UNIQUE_ID_IN_REGISTRY)


def annotations_are_right(
    one: Update, wrong: ErrorCode = _OPERATION, missing: ErrorCode = _OPERATION
) -> Iterator[Problem]:
    """PreviousVersion, AssociationPropagation and SubmissionSetStatus of the membership (3.57.4.1.2)."""
    member, new = one.membership, one.new
    if member.previous_version is None:
        yield fault(f"{named(member)}: PreviousVersion is missing", missing)
    elif _number(member.previous_version) is None:
        yield fault(f"{named(member)}: PreviousVersion {shown(member.previous_version)} is not a version number", wrong)
    if member.association_propagation not in (None, "yes", "no"):
        given = shown(member.association_propagation)
        yield fault(f"{named(member)}: AssociationPropagation {given} is neither yes nor no", wrong)
    if isinstance(new, DocumentEntry) and member.submission_set_status != "Original":
        given = shown(member.submission_set_status or "")
        yield fault(f"{named(member)}: SubmissionSetStatus {given} is not Original", wrong)
    for slot, value in (("OriginalStatus", member.original_status), ("NewStatus", member.new_status)):
        if value is not None:
            yield fault(f"{named(member)}: {slot} belongs to UpdateAvailabilityStatus, not to HasMember", wrong)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 10 else None


def previous_version_is_latest(one: Update) -> Iterator[Problem]:
    """The version that the submitter has seen is the latest one (3.57.4.1.3)."""
    if one.old is None:
        text = f"the logicalID {shown(one.logical_id)} is not that of a registered object"
        yield fault(f"{named(one.new)}: {text}", ErrorCode.METADATA_VERSION_ERROR)
        return
    number = _number(one.membership.previous_version or "")
    if number is not None and number != one.old.version:
        text = f"PreviousVersion {number} is not the latest version {one.old.version} of {one.logical_id}"
        yield fault(f"{named(one.new)}: {text}", ErrorCode.METADATA_VERSION_ERROR)


def _version_fits(one: Update) -> Iterator[Problem]:
    """It is a version of what it says, in what may not change (3.57.4.1.3)."""
    if not one.logical_id:
        yield fault(
            f"{named(one.new)}: it has no logicalID of a registered object: ITI-57 registers nothing new", _UPDATE
        )
        return
    yield from previous_version_is_latest(one)
    old, new = one.old, one.new
    if old is None:
        return
    if not old.approved:
        yield fault(f"{named(new)}: the latest version of {one.logical_id} is Deprecated", _UPDATE)
    if old.kind != type(new).__name__:
        yield fault(f"{named(new)}: {one.logical_id} is a {old.kind}", _UPDATE)
        return
    if new.unique_id and new.unique_id != old.unique_id:
        yield fault(
            f"{named(new)}: uniqueId {shown(new.unique_id)} is not {shown(old.unique_id)}, which cannot change", _UPDATE
        )
    if isinstance(new, DocumentEntry) and new.object_type != old.object_type:
        yield fault(f"{named(new)}: objectType {shown(new.object_type)} is not that of the version before", _UPDATE)


def _patients_fit(one: Update, request: Request, unit: Unit) -> Iterator[Problem]:
    """A new version is of the SubmissionSet's patient, and no association is left between two patients (3.57.4.1.3)."""
    new, old = one.new, one.old
    code = ErrorCode.PATIENT_ID_RECONCILIATION_ERROR
    if new.patient_id and str(new.patient_id) != request.patient_id:
        text = f"patientId {shown(new.patient_id)} is not {shown(request.patient_id)} of the SubmissionSet"
        yield fault(f"{named(new)}: {text}", code)
    if old is None or not new.patient_id or str(new.patient_id) == old.patient_id or not one.propagates:
        return
    # What is updated in the same request goes to the same patient: its associations lead to the new versions.
    moving = {each.old.entry_uuid for each in request.updates if each.old is not None and each.propagates}
    bound = [
        each for each in following([old.entry_uuid], unit) if not {each.source_object, each.target_object} <= moving
    ]
    if bound:
        text = f"patientId {shown(new.patient_id)} is not {shown(old.patient_id)}, of which {named(bound[0])} binds it to others"
        yield fault(f"{named(new)}: {text}", code)


def updated_once(updates: Sequence[Update]) -> Iterator[Problem]:
    """No logical object is updated twice in a request."""
    for lid, count in Counter(one.logical_id for one in updates if one.logical_id).items():
        if count > 1:
            yield fault(f"{count} objects of the request update {shown(lid)}; one may", _OPERATION)


def _submitted_once(submitted: Sequence[Association]) -> Iterator[Problem]:
    """No two new associations of a request are the same."""
    seen: set[tuple[str, str, str]] = set()
    for one in submitted:
        key = (one.association_type, one.source_object, one.target_object)
        if key in seen:
            text = "the request holds another association of this type between the same ends"
            yield fault(f"{named(one)}: {text}", _UPDATE)
        seen.add(key)


def _can_be_submitted(one: Association, request: Request, unit: Unit) -> Iterator[Problem]:
    """A new association between two Approved objects of the patient, which is not there yet (3.57.4.1.3)."""
    kind = one.association_type
    if kind not in RELATIONSHIPS and kind != AssociationType.HAS_MEMBER:
        yield fault(f"{named(one)}: associationType {shown(kind)} is none that can be submitted")
        return
    if one.documentation is not None and kind not in DOCUMENTED:
        yield fault(f"{named(one)}: a {kind.rpartition(':')[2]} association has no documentation code")
    if one.source_object == one.target_object:
        yield fault(f"{named(one)}: it leads from {shown(one.source_object)} to itself")
    # A new version is of the kind and the objectType of the one that it replaces.
    versions = {each.new.entry_uuid: each.old for each in request.updates if each.old is not None}
    known = {**unit.known([one.source_object, one.target_object]), **versions}
    for attribute, end in (("sourceObject", one.source_object), ("targetObject", one.target_object)):
        yield from _end_is_usable(one, attribute, end, known.get(end), request)
    source, target = known.get(one.source_object), known.get(one.target_object)
    if source is not None and target is not None:
        right = "Folder" if kind == AssociationType.HAS_MEMBER else "DocumentEntry"
        if (source.kind, target.kind) != (right, "DocumentEntry"):
            text = f"it leads from a {source.kind} to a {target.kind}, not from a {right} to a DocumentEntry"
            yield fault(f"{named(one)}: {text}", _UPDATE)
        else:
            yield from relations_are_possible(Seen(Submission(associations=(one,)), unit, known, {}, "open"))
    if _is_there(one, unit):
        yield fault(f"{named(one)}: an Approved association of this type is there between the same ends", _UPDATE)


def _end_is_usable(
    one: Association, attribute: str, end: str, known: Known | None, request: Request
) -> Iterator[Problem]:
    """The end is there and Approved when the association's turn comes, of the patient, and has no associations propagated to it."""
    replacing = [each for each in request.updates if end in (each.new.entry_uuid, each.old and each.old.entry_uuid)]
    for each in replacing:
        if each.propagates:
            text = f"{shown(end)} is updated in the same request, which already propagates its associations"
            yield fault(f"{named(one)}: {text}", _OPERATION)
        elif end != each.new.entry_uuid:
            text = f"{attribute} {shown(end)} is replaced by a new version in the same request"
            yield fault(f"{named(one)}: {text}", _UPDATE)
    if replacing:
        return
    if known is None:
        text = f"{attribute} {shown(end)} is neither in the request nor in the registry"
        yield fault(f"{named(one)}: {text}", ErrorCode.UNRESOLVED_REFERENCE)
    elif known.kind in ("DocumentEntry", "Folder"):
        if not known.approved:
            yield fault(f"{named(one)}: {attribute} {shown(end)} is Deprecated", _UPDATE)
        if known.patient_id != request.patient_id:
            text = f"{attribute} {shown(end)} is of patient {shown(known.patient_id)}, not {shown(request.patient_id)}"
            yield fault(f"{named(one)}: {text}", ErrorCode.PATIENT_ID_RECONCILIATION_ERROR)


def _is_there(one: Association, unit: Unit) -> bool:
    return any(
        known.approved
        and (known.association_type, known.source_object, known.target_object)
        == (one.association_type, one.source_object, one.target_object)
        for known in unit.touching([one.source_object])
    )


def _status_can_be_changed(one: Association, request: Request, unit: Unit) -> Iterator[Problem]:
    """OriginalStatus is what the target has, NewStatus another; the target is a latest version, or an association (3.57.4.1.3)."""
    if one.previous_version is not None:
        yield fault(f"{named(one)}: PreviousVersion belongs to HasMember, not to UpdateAvailabilityStatus", _OPERATION)
    well_formed = True
    for slot, value in (("OriginalStatus", one.original_status), ("NewStatus", one.new_status)):
        if value not in STATUSES:
            well_formed = False
            reason = "is missing" if value is None else f"{shown(value)} is neither Approved nor Deprecated"
            yield fault(f"{named(one)}: {slot} {reason}", _OPERATION)
    if well_formed and one.original_status == one.new_status:
        yield fault(f"{named(one)}: OriginalStatus and NewStatus are both {shown(one.new_status)}", _OPERATION)
    current = _status_target(one, request, unit)
    if isinstance(current, Problem):
        yield current
    elif well_formed and STATUSES[one.original_status or ""] is not current:
        text = f"OriginalStatus {shown(one.original_status)} is not the status of {shown(one.target_object)}, {current}"
        yield fault(f"{named(one)}: {text}", _UPDATE)


def _status_target(one: Association, request: Request, unit: Unit) -> Status | Problem:
    """The status that the target has when its turn comes: what the request makes new is Approved."""
    target = one.target_object
    made = {each.new.entry_uuid for each in request.updates} | {each.entry_uuid for each in request.submitted}
    if target in made or target in request.superseded():
        return Status.APPROVED
    known = unit.known([target]).get(target)
    if known is None:
        return fault(f"{named(one)}: its target {shown(target)} is not registered", ErrorCode.UNRESOLVED_REFERENCE)
    if known.kind == "SubmissionSet":
        return fault(f"{named(one)}: {shown(target)} is a SubmissionSet, whose status cannot change", _UPDATE)
    if known.kind == "Association":
        source = unit.known([known.source_object or ""]).get(known.source_object or "")
        if source is not None and source.kind == "SubmissionSet":
            return fault(
                f"{named(one)}: {shown(target)} is a membership in a SubmissionSet, whose status cannot change", _UPDATE
            )
    if known.patient_id != request.patient_id:
        text = f"{shown(target)} is of patient {shown(known.patient_id)}, not {shown(request.patient_id)}"
        return fault(f"{named(one)}: {text}", ErrorCode.PATIENT_ID_RECONCILIATION_ERROR)
    newest = latest(unit.versions([known.logical_id]))
    if newest is not None and newest.entry_uuid != target:
        return fault(f"{named(one)}: {shown(target)} is not the latest version of {known.logical_id}", _UPDATE)
    return Status.APPROVED if known.approved else Status.DEPRECATED
