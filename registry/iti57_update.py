"""ITI-57 Update Document Set: new versions, changes of status, new associations, all of a request or nothing (Metadata Update 3.57)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from registry import rules
from registry.codes import Codes, codes_are_known
from registry.iti42_register import as_submitted, with_ids
from registry.rules import STRICT, Strictness
from registry.rules_registry import Patients, ids_to_look_up
from registry.store import Footprint, Known, Store, Unit
from registry.versions import Update, following, latest, store_versions
from registry.wording import fault, named, shown
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, Submission, SubmissionSet, has_member
from xds.problems import ErrorCode, Failure, Problem, errors
from xds.values import Timestamp
from xds.vocabulary import RELATIONSHIPS, AssociationType, Status

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
_STATUSES = {str(status): status for status in Status}
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
    problems = check_message(submission, strictness, codes)
    if len(submission.submission_sets) != 1:
        raise Failure(problems)
    moment = Timestamp.at(now())
    assigned = with_ids(submission, new_uuid, moment)
    logical = logical_ids(submission, assigned)

    def work(unit: Unit) -> Outcome:
        request, found = _read(assigned, logical, unit)
        found += _problems(request, unit, patients, strictness)
        found = [*problems, *as_submitted(found, submission, assigned)]
        if errors(found):
            raise Failure(found)
        _store(request, unit, new_uuid, moment)
        return Outcome.of(found)

    return store.write(footprint(assigned, logical, store), work, alone=True)


def check_message(submission: Submission, strictness: Strictness, codes: Codes | None) -> list[Problem]:
    """Every fault that the message alone shows."""
    problems = strictness.check(submission, UPDATE_RULES)
    if codes is not None:
        problems += strictness.judged("codes_are_known", codes_are_known(submission, codes))
    return problems


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
            problems.append(fault(f"{what} is no operation of ITI-57", _OPERATION))
    problems += _not_asked_for(assigned, updates, submitted, submission_set)
    request = Request(
        submission_set=submission_set, updates=tuple(updates), submitted=tuple(submitted), statuses=tuple(statuses)
    )
    if not (updates or submitted or statuses):
        problems.append(fault("the request holds no update, no association and no change of status", _UPDATE))
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
            yield fault(f"{named(one)}: {text}", _OPERATION)
    linked = Counter(one.entry_uuid for one in submitted)
    for association in assigned.associations:
        if association.source_object != submission_set.entry_uuid and linked[association.entry_uuid] != 1:
            yield fault(
                f"{named(association)}: {linked[association.entry_uuid]} SubmitAssociation associations lead to it; one is right",
                _OPERATION,
            )


# --- rules ------------------------------------------------------------------------------------------------------------


def _problems(request: Request, unit: Unit, patients: Patients, strictness: Strictness) -> Iterator[Problem]:
    yield from submission_set_is_new(request.submission_set, unit)
    yield from patient_is_usable(request.patient_id, unit, patients, strictness)
    for one in request.updates:
        yield from annotations_are_right(one)
        yield from _version_fits(one)
        yield from _patients_fit(one, request, unit)
    yield from updated_once(request.updates)
    for association in request.submitted:
        yield from _can_be_submitted(association, request, unit)
    for status in request.statuses:
        yield from _status_can_be_changed(status, request, unit)


def submission_set_is_new(submission_set: SubmissionSet, unit: Unit) -> Iterator[Problem]:
    """Neither its id nor its uniqueId is registered (ITI TF-3 4.2.4.1)."""
    if submission_set.entry_uuid in unit.known([submission_set.entry_uuid]):
        yield fault(f"{named(submission_set)}: the id is registered already")
    if submission_set.unique_id and (used := unit.by_unique_id([str(submission_set.unique_id)])):
        text = f"the uniqueId {shown(submission_set.unique_id)} is used by a registered {used[0].kind}"
        yield fault(f"{named(submission_set)}: {text}", ErrorCode.DUPLICATE_UNIQUE_ID_IN_REGISTRY)


def patient_is_usable(patient_id: str, unit: Unit, patients: Patients, strictness: Strictness) -> Iterator[Problem]:
    """The patient is known, and was not merged into another one."""
    into = unit.survivor(patient_id)
    if into != patient_id:
        yield fault(f"patient {shown(patient_id)} has been merged into {shown(into)}", ErrorCode.UNKNOWN_PATIENT_ID)
    elif patients == "known" and patient_id and not unit.patient_is_known(patient_id):
        problem = fault(f"patient {shown(patient_id)} is not known to this registry", ErrorCode.UNKNOWN_PATIENT_ID)
        yield from strictness.judged("patient_is_known", [problem])


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
    if bound := following([old.entry_uuid], unit):
        text = f"patientId {shown(new.patient_id)} is not {shown(old.patient_id)}, of which {named(bound[0])} binds it to others"
        yield fault(f"{named(new)}: {text}", code)


def updated_once(updates: Sequence[Update]) -> Iterator[Problem]:
    """No logical object is updated twice in a request."""
    for lid, count in Counter(one.logical_id for one in updates if one.logical_id).items():
        if count > 1:
            yield fault(f"{count} objects of the request update {shown(lid)}; one may", _OPERATION)


def _can_be_submitted(one: Association, request: Request, unit: Unit) -> Iterator[Problem]:
    """A new association between two Approved objects of the patient, which is not there yet (3.57.4.1.3)."""
    kind = one.association_type
    if kind not in RELATIONSHIPS and kind != AssociationType.HAS_MEMBER:
        yield fault(f"{named(one)}: associationType {shown(kind)} is none that can be submitted")
        return
    if one.documentation is not None and kind == AssociationType.HAS_MEMBER:
        yield fault(f"{named(one)}: a HasMember association has no documentation code")
    kinds: list[str | None] = []
    for attribute, end in (("sourceObject", one.source_object), ("targetObject", one.target_object)):
        new = next((each.new for each in request.updates if each.new.entry_uuid == end), None)
        known = unit.known([end]).get(end)
        kinds.append(type(new).__name__ if new is not None else None if known is None else known.kind)
        yield from _is_not_propagated(one, end, request)
        if new is not None or known is None:
            if new is None:
                text = f"{attribute} {shown(end)} is neither in the request nor in the registry"
                yield fault(f"{named(one)}: {text}", ErrorCode.UNRESOLVED_REFERENCE)
            continue
        if known.kind in ("DocumentEntry", "Folder") and not known.approved:
            yield fault(f"{named(one)}: {attribute} {shown(end)} is Deprecated", _UPDATE)
        if known.kind in ("DocumentEntry", "Folder") and known.patient_id != request.patient_id:
            text = f"{attribute} {shown(end)} is of patient {shown(known.patient_id)}, not {shown(request.patient_id)}"
            yield fault(f"{named(one)}: {text}", ErrorCode.PATIENT_ID_RECONCILIATION_ERROR)
    right = ("Folder", "DocumentEntry") if kind == AssociationType.HAS_MEMBER else ("DocumentEntry", "DocumentEntry")
    if None not in kinds and tuple(kinds) != right:
        text = f"it leads from a {kinds[0]} to a {kinds[1]}, not from a {right[0]} to a {right[1]}"
        yield fault(f"{named(one)}: {text}", _UPDATE)
    if _is_there(one, unit):
        yield fault(f"{named(one)}: an Approved association of this type is there between the same ends", _UPDATE)


def _is_not_propagated(one: Association, end: str, request: Request) -> Iterator[Problem]:
    for each in request.updates:
        ends = {each.new.entry_uuid, each.old.entry_uuid if each.old is not None else ""}
        if each.propagates and end in ends:
            text = f"{shown(end)} is updated in the same request, which already propagates its associations"
            yield fault(f"{named(one)}: {text}", _OPERATION)


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
        if value not in _STATUSES:
            well_formed = False
            reason = "is missing" if value is None else f"{shown(value)} is neither Approved nor Deprecated"
            yield fault(f"{named(one)}: {slot} {reason}", _OPERATION)
    if well_formed and one.original_status == one.new_status:
        yield fault(f"{named(one)}: OriginalStatus and NewStatus are both {shown(one.new_status)}", _OPERATION)
    current = _status_target(one, request, unit)
    if isinstance(current, Problem):
        yield current
    elif well_formed and _STATUSES[one.original_status or ""] is not current:
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
    elif known.patient_id != request.patient_id:
        text = f"{shown(target)} is of patient {shown(known.patient_id)}, not {shown(request.patient_id)}"
        return fault(f"{named(one)}: {text}", ErrorCode.PATIENT_ID_RECONCILIATION_ERROR)
    if not known.latest:
        return fault(f"{named(one)}: {shown(target)} is not the latest version of {known.logical_id}", _UPDATE)
    return Status.APPROVED if known.approved else Status.DEPRECATED


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
        unit.set_status(unit.known([target])[target], _STATUSES[status.new_status or ""])
        unit.flush()
