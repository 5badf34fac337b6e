"""ITI-42 Register Document Set-b: a submission is checked, given its ids, and stored with all its effects, or refused (ITI TF-2 3.42)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Literal

from registry.rules import RULES, Rule, check, fault, named, shown
from registry.store import Known, Store, Unit
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, RegistryObject, Submission, SubmissionSet, has_member
from xds.problems import ErrorCode, Failure, Problem, errors
from xds.values import Timestamp
from xds.vocabulary import RELATIONSHIPS, REPLACEMENTS, STABLE, AssociationType, Status


def register(
    submission: Submission,
    *,
    store: Store,
    now: Callable[[], datetime],
    new_uuid: Callable[[], str],
    patients: Literal["open", "known"] = "known",
    rules: Iterable[Rule] = RULES,
) -> Outcome:
    """Stores the submission whole. Failure with every problem found, and then nothing is stored.

    `patients`: "known" demands a patient that the feed has told of, "open" takes any well-formed id. `new_uuid` gives `urn:uuid:` ids.
    """
    problems = check(submission, rules)
    if not submission.submission_sets:
        raise Failure(problems)
    moment = Timestamp.at(now())
    assigned = _with_ids(submission, new_uuid, moment)
    with store.write() as unit:
        known = unit.known(_ids_to_look_up(assigned))
        problems += _problems_with_registry(assigned, unit, known, patients)
        if errors(problems):
            raise Failure(problems)
        _store(assigned, unit, known, new_uuid, moment)
    return Outcome.of(problems)


# --- ids --------------------------------------------------------------------------------------------------------------


def _with_ids(submission: Submission, new_uuid: Callable[[], str], moment: Timestamp) -> Submission:
    """Symbolic ids become UUIDs, the same symbol the same UUID; each object begins as version 1 of itself (ITI TF-3 4.2.3.1.1)."""
    uuids = {one.entry_uuid: one.entry_uuid for one in submission.objects if one.entry_uuid.startswith("urn:uuid:")}
    for one in submission.objects:
        if one.entry_uuid not in uuids:
            uuids[one.entry_uuid] = new_uuid()

    def assigned(one: RegistryObject) -> RegistryObject:
        uuid = uuids[one.entry_uuid]
        changes: dict[str, object] = {"entry_uuid": uuid, "logical_id": uuid, "version": "1"}
        if isinstance(one, Association):
            changes["source_object"] = uuids.get(one.source_object, one.source_object)
            changes["target_object"] = uuids.get(one.target_object, one.target_object)
        if isinstance(one, Folder):
            changes["last_update_time"] = moment
        return replace(one, **changes)  # type: ignore[arg-type]

    objects = [assigned(one) for one in submission.objects]
    return Submission(
        submission_sets=tuple(one for one in objects if isinstance(one, SubmissionSet)),
        document_entries=tuple(one for one in objects if isinstance(one, DocumentEntry)),
        folders=tuple(one for one in objects if isinstance(one, Folder)),
        associations=tuple(one for one in objects if isinstance(one, Association)),
    )


def _ids_to_look_up(submission: Submission) -> set[str]:
    ids = {one.entry_uuid for one in submission.objects}
    for association in submission.associations:
        ids |= {association.source_object, association.target_object}
    return ids


# --- rules that need the registry -------------------------------------------------------------------------------------


def _problems_with_registry(
    submission: Submission, unit: Unit, known: dict[str, Known], patients: str
) -> Iterator[Problem]:
    patient_id = submission.submission_sets[0].patient_id
    if patients == "known" and patient_id and not patient_id.fault and not unit.patient_is_known(patient_id):
        # ITI TF-2 3.42.4.1.3: the id is one that the Patient Identity Feed has told of.
        yield fault(f"patient {shown(patient_id)} is not known to this registry", ErrorCode.UNKNOWN_PATIENT_ID)
    for one in submission.objects:
        if one.entry_uuid in known:
            yield fault(f"{named(one)}: the id is registered already, as a {known[one.entry_uuid].kind}")
    yield from _unique_ids(submission, unit)
    submitted = {one.entry_uuid: one for one in submission.objects}
    for association in submission.associations:
        yield from _ends(association, submitted, known, patient_id or "")


def _unique_ids(submission: Submission, unit: Unit) -> Iterator[Problem]:
    """A DocumentEntry.uniqueId may come again, but only with the same bytes; any other is used once (ITI TF-3 4.2.4.1)."""
    holders: list[SubmissionSet | DocumentEntry | Folder] = [
        one for one in submission.objects if not isinstance(one, Association) and one.unique_id is not None
    ]
    registered: dict[str, list[Known]] = {}
    for known in unit.by_unique_id(str(one.unique_id) for one in holders):
        registered.setdefault(known.unique_id or "", []).append(known)
    for one in holders:
        for known in registered.get(str(one.unique_id), []):
            if not isinstance(one, DocumentEntry) or known.kind != "DocumentEntry":
                yield fault(
                    f"{named(one)}: the uniqueId {shown(one.unique_id)} is used by a registered {known.kind}",
                    ErrorCode.DUPLICATE_UNIQUE_ID_IN_REGISTRY,
                )
                break
            if problem := _other_bytes(one, known):
                yield problem
                break


def _other_bytes(entry: DocumentEntry, known: Known) -> Problem | None:
    if known.object_type != entry.object_type:
        return fault(f"{named(entry)}: the uniqueId {shown(entry.unique_id)} is used by an entry of another objectType")
    if entry.object_type != STABLE:
        return None
    if (entry.hash or "").lower() != known.hash:
        context = f"uniqueId {shown(entry.unique_id)} is registered with the hash {known.hash}, not {shown(entry.hash)}"
        return fault(context, ErrorCode.NON_IDENTICAL_HASH)
    if entry.size != known.size:
        context = f"uniqueId {shown(entry.unique_id)} is registered with the size {known.size}, not {shown(entry.size)}"
        return fault(context, ErrorCode.NON_IDENTICAL_SIZE)
    return None


def _ends(
    association: Association, submitted: dict[str, RegistryObject], known: dict[str, Known], patient_id: str
) -> Iterator[Problem]:
    """Both ends are in the message or in the registry; a registered one is of the patient, and Approved (ITI TF-3 4.2.2)."""
    for attribute, end in (("sourceObject", association.source_object), ("targetObject", association.target_object)):
        if end not in submitted and end not in known:
            if end:
                context = (
                    f"{named(association)}: {attribute} {shown(end)} is neither in the submission nor in the registry"
                )
                yield fault(context, ErrorCode.UNRESOLVED_REFERENCE)
            continue
        registered = known.get(end) if end not in submitted else None
        if registered is None:
            continue
        if association.submission_set_status == "Reference" and attribute == "targetObject":
            # A document of any patient, of any status, may be referred to (ITI TF-3 4.2.2.1.2).
            continue
        if registered.kind in ("DocumentEntry", "Folder") and registered.patient_id != patient_id:
            yield fault(
                f"{named(association)}: {attribute} {shown(end)} is of patient {shown(registered.patient_id)}, not {shown(patient_id)}",
                ErrorCode.PATIENT_ID_DOES_NOT_MATCH,
            )
        if registered.kind == "DocumentEntry" and registered.status != Status.APPROVED:
            yield fault(
                f"{named(association)}: {attribute} {shown(end)} is Deprecated",
                ErrorCode.REGISTRY_DEPRECATED_DOCUMENT_ERROR,
            )
        if registered.kind == "SubmissionSet":
            yield fault(
                f"{named(association)}: {attribute} {shown(end)} is a registered SubmissionSet, which cannot be added to"
            )
    kind = association.association_type
    if kind in (*REPLACEMENTS, AssociationType.IS_SNAPSHOT_OF) and association.target_object in submitted:
        context = f"{named(association)}: what it replaces, {shown(association.target_object)}, is not in the registry"
        yield fault(context, ErrorCode.UNRESOLVED_REFERENCE)
    target = known.get(association.target_object)
    if kind in RELATIONSHIPS and target is not None and target.kind != "DocumentEntry":
        yield fault(
            f"{named(association)}: its target {shown(association.target_object)} is a {target.kind}, not a DocumentEntry"
        )


# --- effects ----------------------------------------------------------------------------------------------------------


def _store(
    submission: Submission, unit: Unit, known: dict[str, Known], new_uuid: Callable[[], str], moment: Timestamp
) -> None:
    submission_set = submission.submission_sets[0]
    added: list[Association] = []
    for association in submission.associations:
        if association.association_type in REPLACEMENTS:
            _deprecate(association.target_object, unit)
            added += _inherit_folders(association, submission, unit, submission_set.entry_uuid, new_uuid, moment)
        source = known.get(association.source_object)
        if (
            association.association_type == AssociationType.HAS_MEMBER
            and source is not None
            and source.kind == "Folder"
        ):
            # ITI TF-3 4.2.3.4.6: adding a document moves the folder's lastUpdateTime.
            unit.touch(association.source_object, moment)
    unit.add([*submission.objects, *added], patient_id=str(submission_set.patient_id))


def _deprecate(entry_uuid: str, unit: Unit) -> None:
    """The replaced entry, and whatever was appended to it or transformed from it, all the way (ITI TF-2 3.42.4.1.3.5)."""
    todo, done = [entry_uuid], set[str]()
    while todo:
        one = todo.pop()
        if one not in done:
            done.add(one)
            unit.deprecate(one)
            todo += unit.related_to(one, [AssociationType.APND, AssociationType.XFRM])


def _inherit_folders(
    replacement: Association,
    submission: Submission,
    unit: Unit,
    set_uuid: str,
    new_uuid: Callable[[], str],
    moment: Timestamp,
) -> Iterator[Association]:
    """The replacement joins the folders of what it replaces, unless the submission says so itself (ITI TF-2 3.42.4.1.3.3.1)."""
    new = replacement.source_object
    said = {one.source_object for one in submission.associations if one.target_object == new}
    for folder in unit.folders_of(replacement.target_object):
        if folder.entry_uuid in said:
            continue
        member = has_member(folder.entry_uuid, new, entry_uuid=new_uuid())
        link = has_member(set_uuid, member.entry_uuid, entry_uuid=new_uuid())
        for one in (member, link):
            yield replace(one, logical_id=one.entry_uuid, version="1")
        unit.touch(folder.entry_uuid, moment)
