"""What a submission must be, as far as the message alone can tell: each rule yields every fault that it finds, with its clause.

`RULES` is the list that iti42_register.py runs. The context of a problem names the object, the attribute, the value and the rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from schemas.attributes import TABLES, Attribute, Authors, Coded, Identified, SlotRow, attribute_of, camel_case
from schemas.rim import kind_of
from xds.metadata import Association, Author, DocumentEntry, Folder, RegistryObject, Submission, SubmissionSet
from xds.problems import ErrorCode, Problem
from xds.values import Code, Value, is_uuid_urn
from xds.vocabulary import RELATIONSHIPS, STABLE, AssociationType

Rule = Callable[[Submission], Iterator[Problem]]

_SHOWN = 120

#: What a registry must be given (ITI TF-3 Tables 4.3.1.1-3, 4.3.1.2-1, 4.3.1.3-1).
REQUIRED: dict[type, tuple[str, ...]] = {
    DocumentEntry: (
        "class_code",
        "confidentiality_code",
        "creation_time",
        "format_code",
        "hash",
        "healthcare_facility_type_code",
        "language_code",
        "mime_type",
        "patient_id",
        "practice_setting_code",
        "repository_unique_id",
        "size",
        "source_patient_id",
        "type_code",
        "unique_id",
    ),
    SubmissionSet: ("content_type_code", "patient_id", "source_id", "submission_time", "unique_id"),
    Folder: ("code_list", "patient_id", "title", "unique_id"),
    Association: ("association_type", "source_object", "target_object"),
}
_MAX_CHARS = {
    (DocumentEntry, "title"): 128,
    (SubmissionSet, "title"): 256,
    (Folder, "title"): 256,
    (DocumentEntry, "comments"): 1024,
    (SubmissionSet, "comments"): 1024,
    (Folder, "comments"): 1024,
}
_UPDATE_SLOTS = ("previous_version", "association_propagation", "original_status", "new_status")


def named(one: RegistryObject) -> str:
    """How a problem calls an object: its class and the id that the submission gave it."""
    return f"{kind_of(one)} {one.entry_uuid or 'without id'}"


def shown(value: object) -> str:
    """A value in a problem, cut to a readable length."""
    text = str(value)
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def fault(context: str, code: ErrorCode = ErrorCode.REGISTRY_METADATA_ERROR) -> Problem:
    return Problem(code=code, context=context)


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


def required_attributes(submission: Submission) -> Iterator[Problem]:
    """ITI TF-3 4.3.1."""
    for one in submission.objects:
        if not one.entry_uuid:
            yield fault(f"{named(one)}: the attribute id is missing")
        misshapen = {attribute for attribute, _ in _misshapen(one)}
        for field in REQUIRED[type(one)]:
            if not getattr(one, field) and camel_case(field) not in misshapen:
                yield fault(f"{named(one)}: {camel_case(field)} is missing; it is required")


def attributes_are_well_formed(submission: Submission) -> Iterator[Problem]:
    """The data types of ITI TF-3 Table 4.2.3.1.7-2, and lengths."""
    for one in submission.objects:
        for attribute, value in _values(one):
            if isinstance(value, Value) and (reason := value.fault):
                yield fault(f"{named(one)}: {attribute} {shown(value)} {reason}")
            elif isinstance(value, str) and len(value) > 256:
                yield fault(f"{named(one)}: {attribute} {shown(value)} has {len(value)} characters; 256 are allowed")
        for (kind, field), most in _MAX_CHARS.items():
            if isinstance(one, kind):
                for string in getattr(one, field):
                    if len(string.value) > most:
                        yield fault(f"{named(one)}: {field} has {len(string.value)} characters; {most} are allowed")


def _values(one: RegistryObject) -> Iterator[tuple[str, Any]]:
    """Every single value of an object with IHE's name of its attribute."""
    for field, row in TABLES[kind_of(one)].items():
        value = getattr(one, field)
        match row:
            case SlotRow() | Attribute() | Identified():
                for each in value if isinstance(value, tuple) else (value,):
                    if each is not None:
                        yield camel_case(field), each
            case Coded():
                for code in value if isinstance(value, tuple) else (value,):
                    if code is not None:
                        yield f"{camel_case(field)} code", code.code
                        yield f"{camel_case(field)} codingScheme", code.scheme
            case Authors():
                for author in value:
                    yield from _author_values(author)
            case _:
                pass


def _author_values(author: Author) -> Iterator[tuple[str, Any]]:
    if author.author_person is not None:
        yield "authorPerson", author.author_person
    for name in ("author_institution", "author_role", "author_specialty", "author_telecommunication"):
        for value in getattr(author, name):
            yield camel_case(name), value


def codes_have_display_names(submission: Submission) -> Iterator[Problem]:
    """A code has a name, whatever it says (ITI TF-3 4.2.3.1.2)."""
    for one in submission.objects:
        for field, row in TABLES[kind_of(one)].items():
            if isinstance(row, Coded):
                value = getattr(one, field)
                for code in value if isinstance(value, tuple) else (value,):
                    if isinstance(code, Code) and not str(code.display):
                        yield fault(f"{named(one)}: {camel_case(field)} {shown(code.code)} has no display name")


def attributes_have_their_shape(submission: Submission) -> Iterator[Problem]:
    """An attribute is there as often, and in the form, that ITI TF-3 4.2.3 says; other slots are named by a URN (4.2.3.1.6)."""
    for one in submission.objects:
        for attribute, reason in _misshapen(one):
            yield fault(f"{named(one)}: {attribute} {reason}")
        for slot in one.extra.slots:
            if not slot.name.startswith("urn:") and attribute_of(kind_of(one), slot.name) is None:
                yield fault(f"{named(one)}: the slot {shown(slot.name)} is no attribute of IHE, and its name no URN")
        names = Counter(slot.name for slot in one.extra.slots if attribute_of(kind_of(one), slot.name) is None)
        for name, count in names.items():
            if count > 1:
                yield fault(f"{named(one)}: the slot {shown(name)} is there {count} times; a name may be used once")


def _misshapen(one: RegistryObject) -> Iterator[tuple[str, str]]:
    """The attributes that stand in `extra`, each with the reason."""
    kind = kind_of(one)
    for slot in one.extra.slots:
        if (attribute := attribute_of(kind, slot.name)) is not None:
            many = f"has the {len(slot.values)} values {', '.join(map(shown, slot.values[:3]))}"
            yield attribute, f"{many}; one is allowed" if len(slot.values) > 1 else "is there more than once"
    for classification in one.extra.classifications:
        if (attribute := attribute_of(kind, classification.scheme or "")) is None:
            continue
        scheme = [slot for slot in classification.slots if slot.name == "codingScheme"]
        if classification.classified_object is not None:
            yield (
                attribute,
                f"classifies {shown(classification.classified_object)} instead of the object that it stands in",
            )
        elif not classification.node_representation:
            yield attribute, "has no code (nodeRepresentation)"
        elif len(scheme) != 1 or len(scheme[0].values) != 1 or not scheme[0].values[0]:
            yield attribute, f"{shown(classification.node_representation)} has not exactly one codingScheme"
        else:
            yield attribute, f"{shown(classification.node_representation)} is one more than the one that is allowed"
    for identifier in one.extra.identifiers:
        if (attribute := attribute_of(kind, identifier.scheme)) is not None:
            reason = (
                f"identifies {shown(identifier.registry_object)} instead of the object that it stands in"
                if identifier.registry_object is not None
                else f"{shown(identifier.value)} is one more than the one that is allowed"
                if identifier.value
                else "has no value"
            )
            yield attribute, reason


def authors_are_somebody(submission: Submission) -> Iterator[Problem]:
    """A person, an institution or a telecommunication address (ITI TF-3 4.2.3.1.4)."""
    for one in submission.objects:
        for author in getattr(one, "author", ()):
            if not (author.author_person or author.author_institution or author.author_telecommunication):
                yield fault(
                    f"{named(one)}: an author has no authorPerson, authorInstitution or authorTelecommunication"
                )
            for slot in author.extra:
                if slot.name == "authorPerson":
                    yield fault(f"{named(one)}: an author has {len(slot.values)} authorPersons; one is allowed")
                elif not slot.name.startswith("urn:"):
                    yield fault(f"{named(one)}: the slot {shown(slot.name)} is no attribute of an author")


def service_times_are_in_order(submission: Submission) -> Iterator[Problem]:
    """serviceStartTime is not after serviceStopTime, compared in the precision that both have (ITI TF-3 4.2.3.2.20)."""
    for entry in submission.document_entries:
        start, stop = entry.service_start_time, entry.service_stop_time
        if start and stop:
            common = min(len(start), len(stop))
            if start[:common] > stop[:common]:
                yield fault(f"{named(entry)}: serviceStartTime {shown(start)} is after serviceStopTime {shown(stop)}")


def entries_are_stable(submission: Submission) -> Iterator[Problem]:
    """On-Demand DocumentEntries are registered with ITI-61 (ITI TF-2 3.42.4.1.2)."""
    for entry in submission.document_entries:
        if entry.object_type != STABLE:
            yield fault(f"{named(entry)}: objectType {shown(entry.object_type)} is not Stable, which ITI-42 demands")


def metadata_is_not_limited(submission: Submission) -> Iterator[Problem]:
    """limitedMetadata is for recipients that claim it (ITI TF-3 4.2.3.2.33)."""
    for one in submission.objects:
        if getattr(one, "limited_metadata", False):
            yield fault(f"{named(one)}: limitedMetadata is not accepted by a Document Registry")


def nothing_is_updated(submission: Submission) -> Iterator[Problem]:
    """The semantics of an update belong to ITI-57 (Metadata Update 3.57)."""
    for one in submission.objects:
        if one.logical_id and one.logical_id != one.entry_uuid:
            yield fault(
                f"{named(one)}: logicalID {shown(one.logical_id)} differs from the id; ITI-42 registers new objects only"
            )
    for association in submission.associations:
        for field in _UPDATE_SLOTS:
            if getattr(association, field) is not None:
                yield fault(f"{named(association)}: {camel_case(field)} belongs to Update Document Set, not to ITI-42")


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
    submitted = {one.entry_uuid for one in submission.objects}
    for one in submission.associations:
        kind = one.association_type
        if kind and kind != AssociationType.HAS_MEMBER and kind not in RELATIONSHIPS:
            yield fault(f"{named(one)}: associationType {shown(kind)} is none that ITI-42 knows")
        if one.source_object and one.source_object == one.target_object:
            yield fault(f"{named(one)}: it leads from {shown(one.source_object)} to itself")
        if one.target_object in sets:
            yield fault(f"{named(one)}: its target {shown(one.target_object)} is a SubmissionSet, which nothing may be")
        if kind == AssociationType.HAS_MEMBER and one.documentation is not None:
            yield fault(f"{named(one)}: a HasMember association has no documentation code")
        if kind in RELATIONSHIPS and one.source_object and one.source_object not in entries:
            yield fault(
                f"{named(one)}: its source {shown(one.source_object)} is no DocumentEntry of the submission",
                ErrorCode.UNRESOLVED_REFERENCE,
            )
        status = one.submission_set_status
        if status is not None and status not in ("Original", "Reference") and one.source_object in sets:
            yield fault(f"{named(one)}: SubmissionSetStatus {shown(status)} is neither Original nor Reference")
        if status == "Original" and is_uuid_urn(one.target_object) and one.target_object not in submitted:
            yield fault(
                f"{named(one)}: SubmissionSetStatus Original leads to {shown(one.target_object)}, which is not submitted"
            )


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


RULES: tuple[Rule, ...] = (
    objects_are_recognized,
    one_submission_set,
    something_is_submitted,
    required_attributes,
    attributes_have_their_shape,
    attributes_are_well_formed,
    codes_have_display_names,
    authors_are_somebody,
    service_times_are_in_order,
    entries_are_stable,
    metadata_is_not_limited,
    nothing_is_updated,
    ids_are_unique,
    unique_ids_are_unique,
    members_are_declared,
    associations_are_legal,
    patients_are_one,
)


def check(submission: Submission, rules: Iterable[Rule] = RULES) -> list[Problem]:
    """Every fault of a submission that the message alone shows."""
    return [problem for rule in rules for problem in rule(submission)]
