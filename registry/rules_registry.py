"""What a submission must be in view of what is registered already: patients, ids, the ends of associations, codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from registry.lookup import Known
from registry.rules import Strictness
from registry.unit import Unit
from registry.wording import fault, named, shown
from schemas.rim import kind_of
from xds.metadata import Association, DocumentEntry, Folder, RegistryObject, Submission
from xds.problems import ErrorCode, Problem
from xds.vocabulary import ON_DEMAND, RELATIONSHIPS, REPLACEMENTS, STABLE, AssociationType

Patients = Literal["known", "open"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A submission beside what its associations lead to in the registry."""

    submission: Submission
    unit: Unit
    known: Mapping[str, Known]
    submitted: Mapping[str, RegistryObject]
    patients: Patients

    @property
    def patient_id(self) -> str:
        return str(self.submission.submission_sets[0].patient_id or "")

    def entry_type(self, entry_uuid: str) -> str | None:
        """objectType of a DocumentEntry, submitted or registered; None for anything else."""
        one = self.submitted.get(entry_uuid)
        if isinstance(one, DocumentEntry):
            return one.object_type
        known = self.known.get(entry_uuid) if one is None else None
        return known.object_type if known is not None else None


def look(submission: Submission, unit: Unit, patients: Patients) -> Seen:
    """What the rules below judge."""
    submitted = {one.entry_uuid: one for one in submission.objects}
    return Seen(submission, unit, unit.known(ids_to_look_up(submission)), submitted, patients)


def ids_to_look_up(submission: Submission) -> set[str]:
    """The ids of all objects, and of all ends of associations."""
    ids = {one.entry_uuid for one in submission.objects}
    for association in submission.associations:
        ids |= {association.source_object, association.target_object}
    return ids - {""}


def patient_is_not_merged_away(seen: Seen) -> Iterator[Problem]:
    """The patient was not merged into another one (ITI TF-2 3.8.4.2)."""
    into = seen.unit.survivor(seen.patient_id)
    if into != seen.patient_id:
        context = f"patient {shown(seen.patient_id)} has been merged into {shown(into)}"
        yield fault(context, ErrorCode.UNKNOWN_PATIENT_ID)


def patient_is_known(seen: Seen) -> Iterator[Problem]:
    """The patient is one that the Patient Identity Feed has told of (ITI TF-2 3.42.4.1.3)."""
    patient_id = seen.patient_id
    merged = seen.unit.survivor(patient_id) != patient_id
    if seen.patients == "known" and patient_id and not merged and not seen.unit.patient_is_known(patient_id):
        yield fault(f"patient {shown(patient_id)} is not known to this registry", ErrorCode.UNKNOWN_PATIENT_ID)


def ids_are_new(seen: Seen) -> Iterator[Problem]:
    """An id that is a UUID is not registered yet (ITI TF-3 4.2.3.1.1)."""
    for one in seen.submission.objects:
        if one.entry_uuid in seen.known:
            yield fault(f"{named(one)}: the id is registered already, as a {seen.known[one.entry_uuid].kind}")


def unique_ids_are_new(seen: Seen) -> Iterator[Problem]:
    """A uniqueId of a SubmissionSet or Folder is used once; one of a DocumentEntry by no other class (ITI TF-3 4.2.4.1).

    XDSDuplicateUniqueIdInRegistry is never about a DocumentEntry (ITI TF-3 Table 4.2.4.1-2).
    """
    for one in seen.submission.objects:
        if isinstance(one, Association) or one.unique_id is None:
            continue
        for known in seen.unit.by_unique_id([str(one.unique_id)]):
            if not isinstance(one, DocumentEntry) or known.kind != "DocumentEntry":
                context = f"{named(one)}: the uniqueId {shown(one.unique_id)} is used by a registered {known.kind}"
                is_entry = isinstance(one, DocumentEntry)
                yield fault(context) if is_entry else fault(context, ErrorCode.DUPLICATE_UNIQUE_ID_IN_REGISTRY)
                break


def same_unique_id_means_same_bytes(seen: Seen) -> Iterator[Problem]:
    """A DocumentEntry.uniqueId may come again, but only with the same hash and size (ITI TF-3 4.2.4.1)."""
    for entry in seen.submission.document_entries:
        if entry.unique_id is None:
            continue
        for known in seen.unit.by_unique_id([str(entry.unique_id)]):
            # An update may have changed what an older version says of the bytes.
            if known.kind == "DocumentEntry" and known.latest and (problem := _other_bytes(entry, known)):
                yield problem
                break


def _other_bytes(entry: DocumentEntry, known: Known) -> Problem | None:
    unique_id = shown(entry.unique_id)
    if known.object_type != entry.object_type:
        return fault(f"{named(entry)}: the uniqueId {unique_id} is used by an entry of another objectType")
    if entry.object_type != STABLE:
        return None
    if (entry.hash or "").lower() != (known.hash or ""):
        context = f"uniqueId {unique_id} is registered with the hash {known.hash}, not {shown(entry.hash)}"
        return fault(context, ErrorCode.NON_IDENTICAL_HASH)
    if (entry.size or "").lstrip("0") != (known.size or "").lstrip("0"):
        context = f"uniqueId {unique_id} is registered with the size {known.size}, not {shown(entry.size)}"
        return fault(context, ErrorCode.NON_IDENTICAL_SIZE)
    return None


def ends_are_there(seen: Seen) -> Iterator[Problem]:
    """Both ends of an association are in the message or in the registry (ITI TF-3 4.2.2)."""
    for association, attribute, end in _ends(seen.submission):
        if end and end not in seen.submitted and end not in seen.known:
            context = f"{named(association)}: {attribute} {shown(end)} is neither in the submission nor in the registry"
            yield fault(context, ErrorCode.UNRESOLVED_REFERENCE)


def _ends(submission: Submission) -> Iterator[tuple[Association, str, str]]:
    for association in submission.associations:
        yield association, "sourceObject", association.source_object
        yield association, "targetObject", association.target_object


def _registered_ends(seen: Seen) -> Iterator[tuple[Association, str, Known]]:
    """The ends that are in the registry; but a document of any patient, of any status, may be referred to (ITI TF-3 4.2.2.1.2)."""
    for association, attribute, end in _ends(seen.submission):
        if association.submission_set_status == "Reference" and attribute == "targetObject":
            continue
        if end in seen.known and end not in seen.submitted:
            yield association, attribute, seen.known[end]


def ends_are_of_the_patient(seen: Seen) -> Iterator[Problem]:
    """What an association leads to is of the submission's patient (ITI TF-2 3.42.4.1.3)."""
    for association, attribute, known in _registered_ends(seen):
        if known.kind in ("DocumentEntry", "Folder") and known.patient_id != seen.patient_id:
            yield fault(
                f"{named(association)}: {attribute} {shown(known.entry_uuid)} is of patient {shown(known.patient_id)},"
                f" not {shown(seen.patient_id)}",
                ErrorCode.PATIENT_ID_DOES_NOT_MATCH,
            )


def ends_are_approved(seen: Seen) -> Iterator[Problem]:
    """Nothing is related to a Deprecated document or put into a Deprecated folder (ITI TF-2 3.42.4.1.3)."""
    for association, attribute, known in _registered_ends(seen):
        if known.approved:
            continue
        context = f"{named(association)}: {attribute} {shown(known.entry_uuid)} is Deprecated"
        if known.kind == "DocumentEntry":
            yield fault(context, ErrorCode.REGISTRY_DEPRECATED_DOCUMENT_ERROR)
        elif known.kind == "Folder":
            yield fault(context)
    replaced = Counter(
        one.target_object for one in seen.submission.associations if one.association_type in REPLACEMENTS
    )
    for target, count in replaced.items():
        if count > 1:
            context = f"{count} associations of the submission replace {shown(target)}; the first one deprecates it"
            yield fault(context, ErrorCode.REGISTRY_DEPRECATED_DOCUMENT_ERROR)
    others = [one for one in seen.submission.associations if one.association_type in RELATIONSHIPS - REPLACEMENTS]
    gone = {
        each.entry_uuid
        for target in (replaced if any(one.target_object in seen.known for one in others) else ())
        if target in seen.known
        for each in deprecated_with(seen.known[target], seen.unit)
    }
    for one in others:
        if one.target_object in gone:
            context = f"{named(one)}: targetObject {shown(one.target_object)} is deprecated by this submission itself"
            yield fault(context, ErrorCode.REGISTRY_DEPRECATED_DOCUMENT_ERROR)


def deprecated_with(replaced: Known, unit: Unit) -> list[Known]:
    """The replaced entry, and whatever was appended to it or transformed from it, all the way (ITI TF-2 3.42.4.1.3.5)."""
    todo, found = [replaced], dict[str, Known]()
    while todo:
        one = todo.pop()
        if one.entry_uuid not in found and one.kind == "DocumentEntry":
            found[one.entry_uuid] = one
            todo += unit.known(unit.related_to(one, [AssociationType.APND, AssociationType.XFRM])).values()
    return list(found.values())


def members_are_possible(seen: Seen) -> Iterator[Problem]:
    """Nothing is added to a registered SubmissionSet; only folders hold registered documents, or a Reference (ITI TF-3 4.2.2.1)."""
    sets = {one.entry_uuid for one in seen.submission.submission_sets}
    for one in seen.submission.associations:
        if one.association_type != AssociationType.HAS_MEMBER:
            continue
        source = seen.known.get(one.source_object) if one.source_object not in seen.submitted else None
        target = seen.known.get(one.target_object) if one.target_object not in seen.submitted else None
        if source is not None and source.kind != "Folder":
            what = "cannot be added to" if source.kind == "SubmissionSet" else "has no members"
            yield fault(
                f"{named(one)}: its source {shown(one.source_object)} is a registered {source.kind}, which {what}"
            )
        if target is not None and target.kind == "SubmissionSet":
            yield fault(f"{named(one)}: its target {shown(one.target_object)} is a SubmissionSet, which nothing may be")
        elif one.source_object in sets:
            if target is not None and target.kind == "DocumentEntry" and one.submission_set_status != "Reference":
                yield fault(
                    f"{named(one)}: SubmissionSetStatus {shown(one.submission_set_status or '')} leads to the registered"
                    f" DocumentEntry {shown(one.target_object)}; Reference is right"
                )
        elif target is not None and target.kind != "DocumentEntry":
            yield _not_in_a_folder(one, target.kind)
        elif source is not None and isinstance(there := seen.submitted.get(one.target_object), Folder | Association):
            yield _not_in_a_folder(one, kind_of(there))


def _not_in_a_folder(one: Association, kind: str) -> Problem:
    return fault(f"{named(one)}: its target {shown(one.target_object)} is a {kind}; a Folder holds DocumentEntries")


def relations_are_possible(seen: Seen) -> Iterator[Problem]:
    """What is replaced or snapshot is registered, relations lead to documents of the right kind (ITI TF-3 4.2.2.2)."""
    transformations = _transformations(seen)
    for one in seen.submission.associations:
        kind, target = one.association_type, one.target_object
        if kind not in RELATIONSHIPS:
            continue
        if kind in (*REPLACEMENTS, AssociationType.IS_SNAPSHOT_OF) and target in seen.submitted:
            context = f"{named(one)}: what it replaces, {shown(target)}, is not in the registry"
            yield fault(context, ErrorCode.UNRESOLVED_REFERENCE)
            continue
        there = seen.submitted.get(target)
        other = kind_of(there) if there is not None else getattr(seen.known.get(target), "kind", "DocumentEntry")
        if other != "DocumentEntry":
            yield fault(f"{named(one)}: its target {shown(target)} is a {other}, not a DocumentEntry")
            continue
        yield from _types_fit(one, seen)
        if kind == AssociationType.APND and target in transformations:
            yield fault(f"{named(one)}: its target {shown(target)} is a transformation, which is not appended to")


def _types_fit(one: Association, seen: Seen) -> Iterator[Problem]:
    source, target = seen.entry_type(one.source_object), seen.entry_type(one.target_object)
    if source is None or target is None:
        return
    if one.association_type == AssociationType.IS_SNAPSHOT_OF and (source, target) != (STABLE, ON_DEMAND):
        yield fault(f"{named(one)}: IsSnapshotOf leads from a Stable entry to an On-Demand entry, and nowhere else")
    if one.association_type in REPLACEMENTS and source == STABLE and target == ON_DEMAND:
        yield fault(
            f"{named(one)}: a Stable entry does not replace the On-Demand entry {shown(one.target_object)};"
            " IsSnapshotOf links them"
        )


def _transformations(seen: Seen) -> set[str]:
    """Of the documents that are appended to those that are transformations, which may only be replaced (ITI TF-3 4.2.2.2.3).

    Each is looked at once, however many associations lead to it.
    """
    associations = seen.submission.associations
    appended = {one.target_object for one in associations if one.association_type == AssociationType.APND}
    found = {one.source_object for one in associations if one.association_type == AssociationType.XFRM}
    for target in appended - found:
        known = seen.known.get(target)
        if known is not None and known.kind == "DocumentEntry" and seen.unit.is_source_of(known, AssociationType.XFRM):
            found.add(target)
    return found


RegistryRule = Callable[[Seen], Iterator[Problem]]
#: Rules that keep the registry consistent: they cannot be softened.
ESSENTIAL: tuple[RegistryRule, ...] = (
    patient_is_not_merged_away,
    ids_are_new,
    ends_are_there,
    ends_are_of_the_patient,
    members_are_possible,
    relations_are_possible,
)
#: Rules that an administrator may soften.
TUNABLE: tuple[RegistryRule, ...] = (
    patient_is_known,
    unique_ids_are_new,
    same_unique_id_means_same_bytes,
    ends_are_approved,
)
RULES = (*ESSENTIAL, *TUNABLE)


def check(seen: Seen, strictness: Strictness) -> list[Problem]:
    """Every fault of a submission that the registry shows."""
    return [problem for rule in RULES for problem in strictness.judged(rule.__name__, rule(seen))]
