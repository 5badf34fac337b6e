"""What a submission must be as a whole, as far as the message alone can tell; and the list of all such rules.

Each rule yields every fault that it finds. An administrator may soften most of them (`Strictness`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from registry import rules_attributes as attributes
from registry.wording import fault, named, shown
from schemas.attributes import camel_case
from schemas.rim import kind_of
from xds.metadata import Association, DocumentEntry, Folder, Submission, SubmissionSet
from xds.problems import ErrorCode, Problem, Severity
from xds.values import is_uuid_urn
from xds.vocabulary import RELATIONSHIPS, AssociationType

Rule = Callable[[Submission], Iterator[Problem]]
Level = Literal["error", "warning", "off"]

_UPDATE_SLOTS = ("previous_version", "association_propagation", "original_status", "new_status")
#: The associations that may have a documentation code (ITI TF-3 4.2.2.2).
DOCUMENTED = frozenset({AssociationType.RPLC, AssociationType.XFRM, AssociationType.APND, AssociationType.XFRM_RPLC})


def objects_are_recognized(submission: Submission) -> Iterator[Problem]:
    """Only ExtrinsicObjects, labelled RegistryPackages and Associations (ITI TF-3 4.2.1)."""
    for one in submission.unrecognized:
        yield fault(one.reason)


def one_submission_set(submission: Submission) -> Iterator[Problem]:
    """Exactly one (ITI TF-3 4.2.1.4)."""
    if len(submission.submission_sets) != 1:
        yield fault(f"the submission holds {len(submission.submission_sets)} SubmissionSets; it must hold exactly one")


def something_is_submitted(submission: Submission) -> Iterator[Problem]:
    """At least one DocumentEntry, Folder, or membership of a DocumentEntry in a Folder (ITI TF-3 4.2.1.4)."""
    sets = {one.entry_uuid for one in submission.submission_sets}
    others = (one for one in submission.associations if one.source_object not in sets)
    references = (one for one in submission.associations if one.submission_set_status == "Reference")
    if not (submission.document_entries or submission.folders or any(others) or any(references)):
        yield fault("the submission holds no DocumentEntry, no Folder and no Association of either")


def nothing_is_updated(submission: Submission) -> Iterator[Problem]:
    """The semantics of an update belong to ITI-57 (Metadata Update 3.57)."""
    for one in submission.objects:
        if one.logical_id and one.logical_id != one.entry_uuid:
            yield fault(
                f"{named(one)}: logicalID {shown(one.logical_id)} differs from the id; ITI-42 registers new objects only"
            )
    for association in submission.associations:
        for slot in _UPDATE_SLOTS:
            if getattr(association, slot) is not None:
                yield fault(f"{named(association)}: {camel_case(slot)} belongs to Update Document Set, not to ITI-42")


def ids_are_unique(submission: Submission) -> Iterator[Problem]:
    """No id twice in a message, and an id that says it is a UUID is one, in lower case (ITI TF-3 4.2.3.1.1)."""
    for one in submission.objects:
        if one.entry_uuid.lower().startswith("urn:uuid:") and not is_uuid_urn(one.entry_uuid):
            yield fault(f"{named(one)}: the id is not a UUID of RFC 4122 in lower case")
    for entry_uuid, count in Counter(one.entry_uuid for one in submission.objects).items():
        if count > 1 and entry_uuid:
            yield fault(f"the id {shown(entry_uuid)} is given to {count} objects")


def unique_ids_are_unique(submission: Submission) -> Iterator[Problem]:
    """No uniqueId twice in a message (ITI TF-3 Table 4.2.4.1-2)."""
    found = Counter(
        str(one.unique_id) for one in submission.objects if not isinstance(one, Association) and one.unique_id
    )
    for unique_id, count in found.items():
        if count > 1:
            yield fault(
                f"the uniqueId {shown(unique_id)} is given to {count} objects of the message",
                ErrorCode.REGISTRY_DUPLICATE_UNIQUE_ID_IN_MESSAGE,
            )


def members_are_declared(submission: Submission) -> Iterator[Problem]:
    """Each new DocumentEntry, Folder, and membership in a Folder is a member of the SubmissionSet, once (ITI TF-3 4.2.1.4)."""
    sets = {one.entry_uuid for one in submission.submission_sets}
    memberships = Counter(
        one.target_object
        for one in submission.associations
        if one.association_type == AssociationType.HAS_MEMBER and one.source_object in sets
    )
    originals = Counter(
        one.target_object
        for one in submission.associations
        if one.association_type == AssociationType.HAS_MEMBER
        and one.source_object in sets
        and one.submission_set_status == "Original"
    )
    for entry in submission.document_entries:
        if originals[entry.entry_uuid] != 1:
            yield fault(
                f"{named(entry)}: {originals[entry.entry_uuid]} HasMember associations with SubmissionSetStatus Original"
                " lead to it from the SubmissionSet; it takes exactly one"
            )
    for folder in submission.folders:
        if memberships[folder.entry_uuid] != 1:
            yield fault(
                f"{named(folder)}: it is a member of the SubmissionSet {memberships[folder.entry_uuid]} times; once is right"
            )
    for association in submission.associations:
        in_folder = association.association_type == AssociationType.HAS_MEMBER and association.source_object not in sets
        if in_folder and memberships[association.entry_uuid] != 1:
            yield fault(
                f"{named(association)}: a membership in a Folder is itself a member of the SubmissionSet exactly once,"
                f" not {memberships[association.entry_uuid]} times"
            )


def associations_are_legal(submission: Submission) -> Iterator[Problem]:
    """Types, ends, SubmissionSetStatus and documentation of associations (ITI TF-3 4.2.2)."""
    sets = {one.entry_uuid for one in submission.submission_sets}
    entries = {one.entry_uuid for one in submission.document_entries}
    kinds = {one.entry_uuid: kind_of(one) for one in submission.objects}
    for one in submission.associations:
        kind = one.association_type
        if kind and kind != AssociationType.HAS_MEMBER and kind not in RELATIONSHIPS:
            yield fault(f"{named(one)}: associationType {shown(kind)} is none that ITI-42 knows")
        if one.source_object and one.source_object == one.target_object:
            yield fault(f"{named(one)}: it leads from {shown(one.source_object)} to itself")
        if one.target_object in sets:
            yield fault(f"{named(one)}: its target {shown(one.target_object)} is a SubmissionSet, which nothing may be")
        if kind not in DOCUMENTED and one.documentation is not None:
            yield fault(f"{named(one)}: a {_short(kind)} association has no documentation code")
        if kind == AssociationType.HAS_MEMBER:
            yield from _membership(one, kinds)
        if kind in RELATIONSHIPS and one.source_object and one.source_object not in entries:
            yield fault(
                f"{named(one)}: its source {shown(one.source_object)} is no DocumentEntry of the submission",
                ErrorCode.UNRESOLVED_REFERENCE,
            )
        status = one.submission_set_status
        if status is not None and status not in ("Original", "Reference") and one.source_object in sets:
            yield fault(f"{named(one)}: SubmissionSetStatus {shown(status)} is neither Original nor Reference")
        if status == "Original" and is_uuid_urn(one.target_object) and one.target_object not in kinds:
            yield fault(
                f"{named(one)}: SubmissionSetStatus Original leads to {shown(one.target_object)}, which is not submitted"
            )


def _membership(one: Association, kinds: Mapping[str, str]) -> Iterator[Problem]:
    """SubmissionSets hold entries, folders and memberships; folders hold entries (ITI TF-3 4.2.2.1)."""
    source, target = kinds.get(one.source_object), kinds.get(one.target_object)
    if source in ("DocumentEntry", "Association"):
        yield fault(f"{named(one)}: its source {shown(one.source_object)} is a {source}, which has no members")
    if source == "Folder" and target in ("Folder", "Association"):
        yield fault(
            f"{named(one)}: its target {shown(one.target_object)} is a {target}; a Folder holds DocumentEntries"
        )


def _short(association_type: str) -> str:
    return association_type.rpartition(":")[2] or "untyped"


def patients_are_one(submission: Submission) -> Iterator[Problem]:
    """Everything submitted is of one patient (ITI TF-3 4.2.2.1; ITI TF-2 3.42.4.1.3)."""
    holders: Iterable[DocumentEntry | SubmissionSet | Folder] = (
        *submission.submission_sets,
        *submission.document_entries,
        *submission.folders,
    )
    given = [(one, one.patient_id) for one in holders if one.patient_id]
    if not given:
        return
    first, expected = given[0]
    for one, patient_id in given[1:]:
        if patient_id != expected:
            yield fault(
                f"{named(one)}: patientId {shown(patient_id)} differs from {shown(expected)} of {named(first)}",
                ErrorCode.PATIENT_ID_DOES_NOT_MATCH,
            )


#: Rules that keep the registry consistent: they cannot be softened.
ESSENTIAL: tuple[Rule, ...] = (
    objects_are_recognized,
    one_submission_set,
    attributes.objects_are_identified,
    attributes.identifiers_can_be_kept,
    ids_are_unique,
    nothing_is_updated,
    associations_are_legal,
    patients_are_one,
)
#: Rules that an administrator may soften, beside those about values (rules_attributes.VALUE_RULES).
TUNABLE: tuple[Rule, ...] = (
    something_is_submitted,
    attributes.required_attributes,
    attributes.on_demand_entries_have_no_bytes,
    attributes.attributes_have_their_shape,
    attributes.extra_slots_are_named_by_urns,
    attributes.source_patient_info_is_well_formed,
    attributes.codes_have_display_names,
    attributes.authors_are_somebody,
    attributes.service_times_are_in_order,
    attributes.metadata_is_not_limited,
    unique_ids_are_unique,
    members_are_declared,
)
RULES = (*ESSENTIAL, *TUNABLE)


@dataclass(frozen=True, slots=True)
class Strictness:
    """How each rule is taken, by its name: as an error (the default), as a warning, or not at all."""

    levels: Mapping[str, Level] = field(default_factory=dict)

    def judged(self, rule: Rule | str, problems: Iterable[Problem]) -> Iterator[Problem]:
        """The problems of a rule as they count."""
        name = rule if isinstance(rule, str) else rule.__name__
        level = self.levels.get(name, "error")
        if level == "off":
            return
        for problem in problems:
            yield problem if level == "error" else replace(problem, severity=Severity.WARNING)

    def check(self, submission: Submission, rules: Iterable[Rule] = RULES) -> list[Problem]:
        """Every fault of a submission that the message alone shows."""
        found = [problem for rule in rules for problem in self.judged(rule, rule(submission))]
        for name, problem in attributes.values_are_well_formed(submission):
            found += self.judged(name, [problem])
        return found


STRICT = Strictness()
