"""What the attributes of each submitted object must be, as far as the message alone can tell (ITI TF-3 4.2.3, 4.3.1)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from registry.wording import fault, named, shown
from schemas.attributes import TABLES, Attribute, Authors, Coded, Identified, SlotRow, attribute_of, camel_case
from schemas.rim import kind_of
from xds.metadata import Association, Author, DocumentEntry, Folder, RegistryObject, Submission, SubmissionSet
from xds.problems import Problem
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    OidUrn,
    Organization,
    Person,
    Recipient,
    ReferenceId,
    Sha1,
    Size,
    Telecommunication,
    Timestamp,
    UniqueId,
    Value,
    is_oid,
)
from xds.vocabulary import ON_DEMAND

_ENTRY = (
    "class_code",
    "confidentiality_code",
    "format_code",
    "healthcare_facility_type_code",
    "language_code",
    "mime_type",
    "patient_id",
    "practice_setting_code",
    "repository_unique_id",
    "source_patient_id",
    "type_code",
    "unique_id",
)
#: What a Stable entry must have, and an On-Demand entry must not: it has no bytes yet.
OF_BYTES = ("creation_time", "hash", "size")
#: What a registry must be given (ITI TF-3 Tables 4.3.1.1-3, 4.3.1.2-1, 4.3.1.3-1).
REQUIRED: dict[type, tuple[str, ...]] = {
    DocumentEntry: (*_ENTRY, *OF_BYTES),
    SubmissionSet: ("content_type_code", "patient_id", "source_id", "submission_time", "unique_id"),
    Folder: ("code_list", "patient_id", "title", "unique_id"),
    Association: ("association_type", "source_object", "target_object"),
}
_MAX_CHARS: dict[type, dict[str, int]] = {
    DocumentEntry: {"title": 128, "comments": 1024},
    SubmissionSet: {"title": 256, "comments": 1024},
    Folder: {"title": 256, "comments": 1024},
    Association: {"title": 1024, "comments": 1024},
}
#: Without these the registry could not keep an object: they are demanded whatever the strictness.
_INDISPENSABLE = frozenset({"patient_id", "unique_id", "association_type", "source_object", "target_object"})
_KEYS = frozenset({"patientId", "uniqueId"})

#: An entry of an index has some 2,700 bytes on PostgreSQL; it holds one of these values and a UUID. 256 characters always fit.
_MAX_KEY_BYTES = 2048
#: The references that are unique only within their authority (ITI TF-3 Table 4.2.3.2.28-1).
_LOCAL_REFERENCES = frozenset(
    {"urn:ihe:iti:xds:2013:referral", "urn:ihe:iti:xds:2013:order", "urn:ihe:iti:xds:2015:encounterId"}
)


def _required(one: RegistryObject) -> tuple[str, ...]:
    if isinstance(one, DocumentEntry) and one.object_type == ON_DEMAND:
        return _ENTRY
    return REQUIRED[type(one)]


def _missing(submission: Submission) -> Iterator[tuple[str, Problem]]:
    """Each required attribute that is not there, by its name here."""
    for one in submission.objects:
        missing = [field for field in _required(one) if not getattr(one, field)]
        misshapen = {attribute for attribute, _ in _misshapen(one)} if missing else set()
        for field in missing:
            # What has the wrong shape is told once, by its own rule; but that one can be softened.
            if field in _INDISPENSABLE or camel_case(field) not in misshapen:
                yield field, fault(f"{named(one)}: {camel_case(field)} is missing; it is required")


def objects_are_identified(submission: Submission) -> Iterator[Problem]:
    """Every object has an id, one patientId, one uniqueId; every association a type and two ends (ITI TF-3 4.3.1)."""
    for one in submission.objects:
        if not one.entry_uuid:
            yield fault(f"{named(one)}: the attribute id is missing")
        # With two of them nobody could say whose object it is, or which.
        for attribute, reason in _misshapen(one) if one.extra else ():
            if attribute in _KEYS:
                yield fault(f"{named(one)}: {attribute} {reason}")
    yield from (problem for field, problem in _missing(submission) if field in _INDISPENSABLE)


def identifiers_can_be_kept(submission: Submission) -> Iterator[Problem]:
    """patientId and uniqueId are short enough for the keys of the database, whatever length is allowed otherwise."""
    for one in submission.objects:
        for field in () if isinstance(one, Association) else ("patient_id", "unique_id"):
            value = getattr(one, field)
            if value is not None and (size := len(value.encode())) > _MAX_KEY_BYTES:
                yield fault(
                    f"{named(one)}: {camel_case(field)} {shown(value)} has {size} bytes; {_MAX_KEY_BYTES} can be kept"
                )


def required_attributes(submission: Submission) -> Iterator[Problem]:
    """All other required attributes are there (ITI TF-3 4.3.1)."""
    yield from (problem for field, problem in _missing(submission) if field not in _INDISPENSABLE)


def on_demand_entries_have_no_bytes(submission: Submission) -> Iterator[Problem]:
    """An On-Demand entry has no creationTime, hash and size (ITI TF-3 Table 4.3.1.1-3)."""
    for entry in submission.document_entries:
        if entry.object_type == ON_DEMAND:
            for field in OF_BYTES:
                if getattr(entry, field) is not None:
                    yield fault(f"{named(entry)}: {camel_case(field)} is given, which an On-Demand entry must not have")


# --- data types -------------------------------------------------------------------------------------------------------

#: The rules about values (ITI TF-3 Table 4.2.3.1.7-2), each with what it demands and the types that it is about.
VALUE_RULES: dict[str, tuple[str, tuple[type[Value], ...]]] = {
    "times_are_well_formed": ("A time is a DTM: 4 to 14 digits that name a moment of the calendar.", (Timestamp,)),
    "patient_identifiers_are_well_formed": (
        "patientId and sourcePatientId are CX: id^^^&OID&ISO.",
        (Identifier,),
    ),
    "unique_identifiers_are_well_formed": (
        "uniqueId, sourceId, repositoryUniqueId and homeCommunityId are OIDs, or what their data type says.",
        (Oid, OidUrn, UniqueId),
    ),
    "people_and_places_are_well_formed": (
        "Persons are XCN, organizations XON, telecommunication XTN, recipients XON|XCN|XTN.",
        (Person, Organization, Telecommunication, Recipient),
    ),
    "reference_ids_are_well_formed": (
        "Every value of referenceIdList is a CXi: id^^^authority^typeCode. Orders, referrals, encounters have an authority.",
        (ReferenceId,),
    ),
    "content_attributes_are_well_formed": (
        "hash is a SHA-1, size a number of bytes, languageCode of RFC 5646, mimeType a MIME type.",
        (Sha1, Size, LanguageCode, MimeType),
    ),
    "texts_have_their_length": (
        "A value has at most 256 characters; title and comments what ITI TF-3 4.2.3 and ebRIM 3.0 allow.",
        (),
    ),
}
_RULE_OF = {kind: name for name, (_, kinds) in VALUE_RULES.items() for kind in kinds}


def values_are_well_formed(submission: Submission) -> Iterator[tuple[str, Problem]]:
    """Every value that breaks one of the VALUE_RULES, with the name of that rule. One pass, since there are many values."""
    for one in submission.objects:
        for attribute, value in values(one):
            rule = _RULE_OF.get(type(value))
            if rule is not None and (reason := _reason_against(one, attribute, value)):
                yield rule, fault(f"{named(one)}: {attribute} {shown(value)} {reason}")
            elif len(value) > 256:
                context = f"{named(one)}: {attribute} {shown(value)} has {len(value)} characters; 256 are allowed"
                yield "texts_have_their_length", fault(context)
        for field, most in _MAX_CHARS.get(type(one), {}).items():
            for string in getattr(one, field):
                if len(string.value) > most:
                    context = f"{named(one)}: {field} has {len(string.value)} characters; {most} are allowed"
                    yield "texts_have_their_length", fault(context)
        for reason in _overlong(one):
            yield "texts_have_their_length", fault(f"{named(one)}: {reason}")


def _overlong(one: RegistryObject) -> Iterator[str]:
    """What is too long of the texts that are no values of attributes: names of codes, and extra metadata (ebRIM 3.0 2.3)."""
    for field, name in _CODED_FIELDS[kind_of(one)]:
        value = getattr(one, field)
        for code in value if isinstance(value, tuple) else (value,):
            for string in code.display if code is not None else ():
                if len(string.value) > 1024:
                    yield f"{name} has a display name of {len(string.value)} characters; 1024 are allowed"
    slots = [*one.extra.slots, *(slot for author in getattr(one, "author", ()) for slot in author.extra)]
    for slot in slots:
        if len(slot.name) > 256:
            yield f"the slot {shown(slot.name)} has a name of {len(slot.name)} characters; 256 are allowed"
        for text in slot.values:
            if len(text) > 256:
                yield f"the slot {shown(slot.name)} has a value of {len(text)} characters; 256 are allowed"
    if one.extra:
        texts = [("classification", each.node_representation or "") for each in one.extra.classifications]
        texts += [("identifier", each.value) for each in one.extra.identifiers]
        for what, text in texts:
            if len(text) > 256:
                yield f"the {what} {shown(text)} has {len(text)} characters; 256 are allowed"


def _reason_against(one: RegistryObject, attribute: str, value: Value) -> str | None:
    """What is wrong with a value, by itself or where it stands."""
    if reason := value.fault:
        return reason
    if isinstance(value, ReferenceId) and value.type_code in _LOCAL_REFERENCES and not value.split("^")[3]:
        return f"has no assigning authority, which {value.type_code} demands"
    if isinstance(one, Folder) and attribute == "uniqueId" and not is_oid(value, max_chars=256):
        return "is not an OID"
    return None


def source_patient_info_is_well_formed(submission: Submission) -> Iterator[Problem]:
    """Values are PID-n|value; the birth date (PID-7) and sex (PID-8) come once, the former as a DTM (ITI TF-3 4.2.3.2.23)."""
    for entry in submission.document_entries:
        seen: Counter[str] = Counter()
        for value in entry.source_patient_info:
            if reason := value.fault:
                yield fault(f"{named(entry)}: sourcePatientInfo {shown(value)} {reason}")
                continue
            field, _, content = value.partition("|")
            seen[field] += 1
            if field == "PID-7" and content and (reason := Timestamp(content).fault):
                yield fault(f"{named(entry)}: sourcePatientInfo PID-7 (birth date) {shown(content)} {reason}")
        for field in ("PID-7", "PID-8"):
            if seen[field] > 1:
                yield fault(f"{named(entry)}: sourcePatientInfo has {field} {seen[field]} times; once is allowed")


_VALUE_ROWS = {
    kind: [
        (field, camel_case(field), row)
        for field, row in table.items()
        if isinstance(row, SlotRow | Attribute | Identified | Coded | Authors)
    ]
    for kind, table in TABLES.items()
}
_CODED_FIELDS = {
    kind: [(field, name) for field, name, row in rows if isinstance(row, Coded)] for kind, rows in _VALUE_ROWS.items()
}


def values(one: RegistryObject) -> Iterator[tuple[str, Any]]:
    """Every single value of an object with IHE's name of its attribute."""
    for field, name, row in _VALUE_ROWS[kind_of(one)]:
        value = getattr(one, field)
        if value is None or value == ():
            continue
        several = value if isinstance(value, tuple) else (value,)
        if isinstance(row, Coded):
            for code in several:
                yield f"{name} code", code.code
                yield f"{name} codingScheme", code.scheme
        elif isinstance(row, Authors):
            for author in several:
                yield from _author_values(author)
        else:
            for each in several:
                yield name, each


def _author_values(author: Author) -> Iterator[tuple[str, Any]]:
    if author.author_person is not None:
        yield "authorPerson", author.author_person
    for name in ("author_institution", "author_role", "author_specialty", "author_telecommunication"):
        for value in getattr(author, name):
            yield camel_case(name), value


# --- codes, shapes, authors -------------------------------------------------------------------------------------------


def codes_have_display_names(submission: Submission) -> Iterator[Problem]:
    """A code has a name, whatever it says (ITI TF-3 4.2.3.1.2)."""
    for one in submission.objects:
        for field, name, row in _VALUE_ROWS[kind_of(one)]:
            if isinstance(row, Coded):
                value = getattr(one, field)
                for code in value if isinstance(value, tuple) else (value,):
                    if isinstance(code, Code) and not str(code.display):
                        yield fault(f"{named(one)}: {name} {shown(code.code)} has no display name")


def attributes_have_their_shape(submission: Submission) -> Iterator[Problem]:
    """An attribute is there as often, and in the form, that ITI TF-3 4.2.3 says."""
    for one in submission.objects:
        for attribute, reason in _misshapen(one) if one.extra else ():
            if attribute not in _KEYS:
                yield fault(f"{named(one)}: {attribute} {reason}")


def extra_slots_are_named_by_urns(submission: Submission) -> Iterator[Problem]:
    """A slot that is no attribute of IHE is named by a URN, and is there once (ITI TF-3 4.2.3.1.6)."""
    for one in submission.objects:
        if not one.extra:
            continue
        extra = [slot.name for slot in one.extra.slots if attribute_of(kind_of(one), slot.name) is None]
        for name, count in Counter(extra).items():
            if not name.startswith("urn:"):
                yield fault(f"{named(one)}: the slot {shown(name)} is no attribute of IHE, and its name no URN")
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
    """An author has a person, an institution or a telecommunication address (ITI TF-3 4.2.3.1.4)."""
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


def metadata_is_not_limited(submission: Submission) -> Iterator[Problem]:
    """limitedMetadata is for recipients that claim it, not for a registry (ITI TF-3 4.2.3.2.33)."""
    for one in submission.objects:
        if getattr(one, "limited_metadata", False):
            yield fault(f"{named(one)}: limitedMetadata is not accepted by a Document Registry")
