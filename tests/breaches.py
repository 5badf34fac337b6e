"""For each rule that can be softened the submissions that break it, and no other rule, with what is said of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from benchmarks.messages import new_oid, submission
from benchmarks.registries import (
    DEPRECATED,
    METADATA,
    Registry,
    folder_submission,
    into_folder,
    link,
    on_demand_submission,
    related,
    valid,
    with_links,
    with_set,
)
from registry.codes import Codes
from registry.rules import Strictness
from schemas.attributes import camel_case
from tests.submissions import code_of, coded, deprecated_folder, identified
from xds.messages import Outcome
from xds.metadata import Author, Classification, ExternalIdentifier, Extra, Slot, Submission
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    OidUrn,
    Organization,
    Person,
    PidField,
    Recipient,
    ReferenceId,
    Sha1,
    Size,
    Telecommunication,
    Text,
    Timestamp,
    UniqueId,
)
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType

RPLC, APND = AssociationType.RPLC, AssociationType.APND
#: So long, and so random, that no database can put it into an index, compressed or not.
LONG = "".join(random.Random(42).choices("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789", k=20_000))


@dataclass(frozen=True)
class Breach:
    """A submission that breaks one rule and no other, made anew for each registration, and how often it is told."""

    rule: str
    about: str
    make: Callable[[Registry], Submission]
    words: tuple[str, ...]
    code: str = METADATA
    on_demand: bool = False
    count: int = 1
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}-{self.about}"


def soft(it: Registry, levels: dict[str, Any], made: Submission, *, on_demand: bool = False) -> Outcome:
    """Registers with the levels and nothing else softened, whatever the registry is set to."""
    before = it.strictness
    try:
        it.strictness = Strictness(levels)
        return it.register(made, on_demand=on_demand)
    finally:
        it.strictness = before


# --- what is wrong with one object ------------------------------------------------------------------------------------


def of_entry(rule: str, about: str, *words: str, **changes: Any) -> Breach:
    """An entry with changed attributes."""
    return Breach(rule, about, lambda it: valid(it.p1, **changes), ("DocumentEntry Document0", *words))


def of_set(rule: str, about: str, *words: str, **changes: Any) -> Breach:
    return Breach(rule, about, lambda it: with_set(it.p1, **changes), ("SubmissionSet SubmissionSet", *words))


def of_folder(rule: str, about: str, *words: str, **changes: Any) -> Breach:
    return Breach(rule, about, lambda it: folder_submission(it.p1, **changes), ("Folder Folder0", *words))


def missing() -> Iterator[Breach]:
    rule = "required_attributes"
    names = "class_code creation_time format_code hash healthcare_facility_type_code language_code mime_type"
    names += " practice_setting_code repository_unique_id size source_patient_id type_code"
    for name in names.split():
        yield of_entry(rule, camel_case(name), f"{camel_case(name)} is missing", **{name: None})
    yield of_entry(rule, "confidentialityCode", "confidentialityCode is missing", confidentiality_code=())
    yield of_set(rule, "contentTypeCode", "contentTypeCode is missing", content_type_code=None)
    yield of_set(rule, "sourceId", "sourceId is missing", source_id=None)
    yield of_set(rule, "submissionTime", "submissionTime is missing", submission_time=None)
    yield of_folder(rule, "title", "title is missing", title=Text())
    yield of_folder(rule, "codeList", "codeList is missing", code_list=())


def misshapen() -> Iterator[Breach]:
    rule = "attributes_have_their_shape"
    two = Extra(slots=(Slot(name="creationTime", values=("2024", LONG[:100])),))
    yield of_entry(rule, "two-values", "creationTime has the 2 values", creation_time=None, extra=two)
    beside = Extra(slots=(Slot(name="languageCode", values=("de", "fr")),))
    yield of_entry(rule, "two-more-values", "languageCode has the 2 values 'de', 'fr'; one is allowed", extra=beside)
    scheme = coded("DocumentEntry", "class_code").scheme
    bare = Extra(classifications=(Classification(scheme=scheme, node_representation="A"),))
    yield of_entry(rule, "no-scheme", "classCode 'A' has not exactly one codingScheme", class_code=None, extra=bare)
    empty = Extra(classifications=(Classification(scheme=scheme, node_representation=""),))
    yield of_entry(rule, "no-code", "classCode has no code", class_code=None, extra=empty)
    yield of_entry(rule, "two-codes", "classCode 'A' is one more", extra=Extra(classifications=(code_of(scheme),)))
    again = Extra(slots=(Slot(name="hash", values=("0" * 40,)),))
    yield of_entry(rule, "two-slots", "hash is there more than once", extra=again)
    source = ExternalIdentifier(scheme=identified("SubmissionSet", "source_id").scheme, value="1.9")
    yield of_set(rule, "two-identifiers", "sourceId '1.9' is one more", extra=Extra(identifiers=(source,)))


def malformed_times() -> Iterator[Breach]:
    rule = "times_are_well_formed"
    yield of_entry(rule, "creationTime", "creationTime 'yesterday'", creation_time=Timestamp("yesterday"))
    yield of_entry(rule, "dotted", "creationTime '31.12.2024'", creation_time=Timestamp("31.12.2024"))
    yield of_entry(rule, "zone", "'20240101+0100'", creation_time=Timestamp("20240101+0100"))
    yield of_entry(rule, "calendar", "'20240230'", service_start_time=Timestamp("20240230"))
    yield of_entry(rule, "short", "'20'", service_stop_time=Timestamp("20"), service_start_time=None)
    yield of_entry(rule, "long", "creationTime '2024", creation_time=Timestamp("2024" + LONG))
    yield of_set(rule, "submissionTime", "submissionTime '2024-01-01'", submission_time=Timestamp("2024-01-01"))
    yield of_set(rule, "long-submissionTime", "submissionTime", submission_time=Timestamp(LONG))


def malformed_identifiers() -> Iterator[Breach]:
    rule = "patient_identifiers_are_well_formed"
    yield of_entry(rule, "sourcePatientId", "sourcePatientId 'L7' is not", source_patient_id=Identifier("L7"))
    yield of_entry(rule, "long", "sourcePatientId", source_patient_id=Identifier(LONG))
    rule = "unique_identifiers_are_well_formed"
    yield of_entry(rule, "repositoryUniqueId", "'here' is not an OID", repository_unique_id=Oid("here"))
    yield of_entry(rule, "long-repositoryUniqueId", "repositoryUniqueId", repository_unique_id=Oid(LONG))
    yield of_entry(rule, "homeCommunityId", "homeCommunityId '1.2'", home_community_id=OidUrn("1.2"))
    # What can be kept of a uniqueId ends at 2048 bytes, whatever the rules.
    yield Breach(
        rule,
        "long-uniqueId",
        lambda it: valid(it.p1, unique_id=UniqueId(new_oid() + LONG[:1900])),
        ("DocumentEntry Document0: uniqueId", "is not an identifier of 1 to 256 characters"),
    )
    yield Breach(
        rule,
        "wide-uniqueId",
        lambda it: valid(it.p1, unique_id=UniqueId(new_oid() + "😀" * 450)),
        ("DocumentEntry Document0: uniqueId", "is not an identifier of 1 to 256 characters"),
    )
    yield of_set(rule, "sourceId", "sourceId 'me' is not an OID", source_id=Oid("me"))
    yield of_set(rule, "long-sourceId", "sourceId", source_id=Oid(LONG))
    yield Breach(
        rule,
        "uniqueId-of-a-set",
        lambda it: with_set(it.p1, unique_id=Oid(f"set-{new_oid()}")),
        ("SubmissionSet SubmissionSet: uniqueId 'set-2.25.", "is not an OID"),
    )
    yield Breach(
        rule,
        "uniqueId-of-a-folder",
        lambda it: folder_submission(it.p1, unique_id=UniqueId(f"folder-{new_oid()}")),
        ("Folder Folder0: uniqueId 'folder-2.25.", "is not an OID"),
    )


def malformed_values() -> Iterator[Breach]:
    rule = "people_and_places_are_well_formed"
    nameless, nowhere = Author(author_person=Person("^^Ann")), Organization("^^^^^^^^^1.2.3")
    yield of_entry(rule, "authorPerson", "authorPerson '^^Ann'", author=(nameless,))
    yield of_entry(rule, "legalAuthenticator", "legalAuthenticator", legal_authenticator=Person("^^" + LONG))
    yield of_entry(rule, "authorInstitution", "authorInstitution", author=(Author(author_institution=(nowhere,)),))
    mute = Author(author_telecommunication=(Telecommunication("^NET^Internet"),))
    yield of_entry(rule, "authorTelecommunication", "authorTelecommunication '^NET^Internet'", author=(mute,))
    yield of_set(rule, "intendedRecipient", "intendedRecipient '||'", intended_recipient=(Recipient("||"),))
    rule = "reference_ids_are_well_formed"
    yield of_entry(rule, "no-type", "referenceIdList '17'", reference_id_list=(ReferenceId("17"),))
    yield of_entry(rule, "long", "referenceIdList", reference_id_list=(ReferenceId(LONG),))
    order = ReferenceId("17^^^^urn:ihe:iti:xds:2013:order")
    yield of_entry(rule, "no-authority", "has no assigning authority", reference_id_list=(order,))
    rule = "content_attributes_are_well_formed"
    yield of_entry(rule, "hash", "hash 'xyz' is not a SHA-1", hash=Sha1("xyz"))
    yield of_entry(rule, "long-hash", "is not a SHA-1", hash=Sha1(LONG))
    yield of_entry(rule, "size", "size '-1' is not a number", size=Size("-1"))
    yield of_entry(rule, "huge-size", "is not a number", size=Size("9" * 5_000))
    yield of_entry(rule, "languageCode", "languageCode 'en_US'", language_code=LanguageCode("en_US"))
    yield of_entry(rule, "mimeType", "mimeType 'text'", mime_type=MimeType("text"))


def long_texts() -> Iterator[Breach]:
    rule = "texts_have_their_length"
    yield of_entry(rule, "title", "title has 20000 characters", title=Text.of(LONG))
    yield of_entry(rule, "little", "title has 200 characters; 128 are allowed", title=Text.of("x" * 200))
    yield of_entry(rule, "comments", "comments has 20000 characters", comments=Text.of(LONG))
    yield of_entry(rule, "uri", "URI", "has 20000 characters", uri=LONG)
    long = Code.of(LONG, "1.2.3", "Long")
    yield of_entry(rule, "class_code", "classCode code", "has 20000 characters", class_code=long)
    yield of_entry(rule, "event_code_list", "eventCodeList code", event_code_list=(long,))
    far = Code.of("A", LONG, "Far")
    yield of_entry(rule, "confidentiality_code", "confidentialityCode codingScheme", confidentiality_code=(far,))
    yield of_entry(rule, "author_person", "authorPerson", author=(Author(author_person=Person("^" + LONG)),))
    role = Author(author_person=Person("^Muster"), author_role=(LONG,))
    yield of_entry(rule, "author_role", "authorRole", author=(role,))
    reference = ReferenceId.of(LONG, "urn:mine", "1.2.3")
    yield of_entry(rule, "reference_id_list", "referenceIdList", reference_id_list=(reference,))
    source = Identifier.of(LONG, "1.2.3")
    yield of_entry(rule, "source_patient_id", "sourcePatientId", source_patient_id=source)
    yield of_entry(rule, "document_availability", "documentAvailability", document_availability="urn:" + LONG)
    yield of_entry(rule, "extra", "the slot 'urn:mine'", extra=Extra(slots=(Slot(name="urn:mine", values=(LONG,)),)))
    named = Extra(slots=(Slot(name=f"urn:{LONG}", values=("a",)),))
    yield of_entry(rule, "slot-name", "has a name of 20004 characters", extra=named)
    labelled = Code.of("A", "1.2", LONG)
    yield of_entry(rule, "display-name", "classCode has a display name of 20000", class_code=labelled)
    noted = Author(author_person=Person("^Muster"), extra=(Slot(name="urn:mine", values=(LONG,)),))
    yield of_entry(rule, "author-slot", "the slot 'urn:mine' has a value of 20000", author=(noted,))
    other = Classification(scheme="urn:uuid:" + "0" * 36, node_representation=LONG)
    yield of_entry(rule, "classification", "the classification", extra=Extra(classifications=(other,)))
    strange = ExternalIdentifier(scheme="urn:uuid:" + "0" * 36, value=LONG)
    yield of_folder(rule, "identifier", "the identifier", extra=Extra(identifiers=(strange,)))
    yield of_set(rule, "title", "title has 20000 characters", title=Text.of(LONG))
    yield of_set(rule, "content_type_code", "contentTypeCode code", content_type_code=long)
    yield of_folder(rule, "title", "title has 20000 characters", title=Text.of(LONG))
    yield of_folder(rule, "code_list", "codeList code", code_list=(long,))


def contents() -> Iterator[Breach]:
    """Rules about values that depend on each other."""
    # ITI TF-3 4.2.3.1.6; that a name is there once, ebRIM 3.0 2.3.1.
    rule = "extra_slots_are_named_by_urns"
    mine, words = Extra(slots=(Slot(name="mine", values=("a",)),)), "the slot 'mine' is no attribute of IHE"
    yield of_entry(rule, "no-urn", words, extra=mine)
    yield of_set(rule, "set", words, extra=mine)
    yield of_folder(rule, "folder", words, extra=mine)
    twice = (Slot(name="urn:mine", values=("a",)), Slot(name="urn:mine", values=("b",)))
    yield of_entry(rule, "twice", "the slot 'urn:mine' is there 2 times", extra=Extra(slots=twice))
    rule = "source_patient_info_is_well_formed"
    born = (PidField("PID-7|19700231"),)
    yield of_entry(rule, "birth-date", "sourcePatientInfo PID-7 (birth date) '19700231'", source_patient_info=born)
    dotted = (PidField("PID-7|31.02.1970"),)
    yield of_entry(rule, "dotted", "sourcePatientInfo PID-7 (birth date) '31.02.1970'", source_patient_info=dotted)
    yield of_entry(rule, "form", "sourcePatientInfo 'PID7|1970'", source_patient_info=(PidField("PID7|1970"),))
    twice_born = (PidField("PID-7|1970"), PidField("PID-7|1971"))
    yield of_entry(rule, "twice", "PID-7 2 times", source_patient_info=twice_born)
    yield of_entry(rule, "long", "(birth date) '", source_patient_info=(PidField(f"PID-7|{LONG[:200]}"),))
    rule = "codes_have_display_names"
    yield of_entry(rule, "classCode", "classCode 'A' has no display name", class_code=Code("A", "1.2"))
    yield of_entry(rule, "typeCode", "typeCode 'A' has no display name", type_code=Code("A", "1.2"))
    yield of_set(rule, "contentTypeCode", "contentTypeCode 'A' has no", content_type_code=Code("A", "1.2"))
    yield of_folder(rule, "codeList", "codeList 'A' has no display name", code_list=(Code("A", "1.2"),))
    rule = "authors_are_somebody"
    yield of_entry(rule, "nobody", "an author has no authorPerson", author=(Author(author_role=("Doctor",)),))
    yield of_set(rule, "nobody-in-a-set", "an author has no authorPerson", author=(Author(author_role=("Doctor",)),))
    moody = Author(author_person=Person("^Muster"), extra=(Slot(name="authorMood", values=("x",)),))
    yield of_entry(rule, "slot", "'authorMood' is no attribute of an author", author=(moody,))
    times = {"service_start_time": Timestamp("2025"), "service_stop_time": Timestamp("2024")}
    yield of_entry("service_times_are_in_order", "later", "'2025' is after serviceStopTime '2024'", **times)
    rule = "metadata_is_not_limited"
    yield of_entry(rule, "entry", "limitedMetadata is not accepted", limited_metadata=True)
    yield of_set(rule, "set", "limitedMetadata is not accepted", limited_metadata=True)
    yield of_folder(rule, "folder", "limitedMetadata is not accepted", limited_metadata=True)


# --- submissions that are wrong as a whole, or beside what is registered ----------------------------------------------


def with_bytes(it: Registry, **changes: Any) -> Submission:
    return on_demand_submission(it.p1, **changes)


def related_to_deprecated(it: Registry, kind: AssociationType) -> Submission:
    return related(valid(it.p1), kind, deprecated_entry(it))


def two_of_one_unique_id(it: Registry) -> Submission:
    made = submission(it.p1, documents=2, registered=True)
    first, second = made.document_entries
    return replace(made, document_entries=(first, replace(second, unique_id=first.unique_id)))


def set_and_folder_of_one_unique_id(it: Registry) -> Submission:
    made = folder_submission(it.p1)
    same = UniqueId(str(made.submission_sets[0].unique_id))
    return replace(made, folders=(replace(made.folders[0], unique_id=same),))


def without_members(made: Submission) -> Submission:
    return replace(made, associations=())


def undeclared_membership(it: Registry) -> Submission:
    made = into_folder(valid(it.p1), it.folder().entry_uuid)
    return replace(made, associations=made.associations[:-1])


def registered(it: Registry) -> Submission:
    """A valid submission, registered whatever the registry is set to."""
    made = valid(it.p1)
    soft(it, {}, made)
    return made


def used_unique_id_of_a_set(it: Registry) -> Submission:
    return with_set(it.p1, unique_id=registered(it).submission_sets[0].unique_id)


def unique_id_of_a_set_for_an_entry(it: Registry) -> Submission:
    return valid(it.p1, unique_id=UniqueId(str(registered(it).submission_sets[0].unique_id)))


def used_unique_id_of_an_entry(it: Registry, **changes: Any) -> Submission:
    return valid(it.p1, unique_id=registered(it).document_entries[0].unique_id, **changes)


def unique_id_of_an_on_demand_entry(it: Registry) -> Submission:
    made = on_demand_submission(it.p1)
    soft(it, {}, made, on_demand=True)
    return valid(it.p1, unique_id=made.document_entries[0].unique_id)


def deprecated_entry(it: Registry) -> str:
    old = it.entry(registered(it)).entry_uuid
    soft(it, {}, related(valid(it.p1), RPLC, old))
    return old


def two_replacements(it: Registry) -> Submission:
    old, both = it.entry(registered(it)).entry_uuid, submission(it.p1, documents=2, registered=True)
    return with_links(
        both, link(RPLC, "Document0", old), link(AssociationType.XFRM_RPLC, "Document1", old, entry_uuid="second")
    )


def appended_and_replaced(it: Registry) -> Submission:
    old, both = it.entry(registered(it)).entry_uuid, submission(it.p1, documents=2, registered=True)
    return with_links(both, link(RPLC, "Document0", old), link(APND, "Document1", old))


def unknown_patient(it: Registry) -> Submission:
    return valid(Identifier.of(f"stranger-{new_oid()}", "1.2.3.4"))


def other_codes() -> dict[str, Any]:
    return {"codes": Codes.of([("classCode", "1.2.3.4.8.1", "OTHER", "Other")])}


def wholes() -> Iterator[Breach]:
    rule = "something_is_submitted"
    yield Breach(rule, "empty", lambda it: submission(it.p1, documents=0), ("holds no DocumentEntry, no Folder",))
    rule = "on_demand_entries_have_no_bytes"
    for name, value in (("creation_time", Timestamp("2024")), ("hash", Sha1("a" * 40)), ("size", Size("5"))):
        given: dict[str, Any] = {name: value}
        words = f"DocumentEntry Document0: {camel_case(name)} is given, which an On-Demand entry must not have"
        yield Breach(rule, camel_case(name), partial(with_bytes, **given), (words,), on_demand=True)
    rule, code = "unique_ids_are_unique", "XDSRegistryDuplicateUniqueIdInMessage"
    yield Breach(rule, "entries", two_of_one_unique_id, ("is given to 2 objects of the message",), code)
    yield Breach(rule, "classes", set_and_folder_of_one_unique_id, ("is given to 2 objects of the message",), code)
    rule = "members_are_declared"
    original = "0 HasMember associations with SubmissionSetStatus Original"
    yield Breach(rule, "entry", lambda it: without_members(valid(it.p1)), ("DocumentEntry Document0", original))
    once = "it is a member of the SubmissionSet 0 times"
    yield Breach(rule, "folder", lambda it: without_members(folder_submission(it.p1)), ("Folder Folder0", once))
    yield Breach(rule, "membership", undeclared_membership, ("Association fd", "exactly once, not 0 times"))
    # ITI TF-2 3.42.4.1.2.
    rule = "entries_are_of_the_transaction"
    not_stable = f"DocumentEntry Document0: objectType {ON_DEMAND!r} is not Stable"
    yield Breach(rule, "on-demand", lambda it: on_demand_submission(it.p1), (not_stable, "ITI-42"))
    yield Breach(rule, "stable", lambda it: valid(it.p1), (STABLE, "is not On-Demand", "ITI-61"), on_demand=True)
    rule, unknown = "codes_are_known", ("classCode 'REPORTS'", "is not known")
    yield Breach(rule, "classCode", lambda it: valid(it.p1), unknown, more=other_codes())
    rule = "patient_identifiers_are_well_formed"
    yield Breach(
        rule,
        "patientId",
        lambda it: folder_submission(Identifier(f"p{new_oid()}^^^Here")),
        ("patientId 'p2.25.", "assigning authority 'Here' is not of the form &OID&ISO"),
        count=2,
        more={"patients": "open"},
    )


def beside() -> Iterator[Breach]:
    rule = "patient_is_known"
    yield Breach(rule, "stranger", unknown_patient, ("stranger-", "is not known"), "XDSUnknownPatientId")
    rule, code = "unique_ids_are_new", "XDSDuplicateUniqueIdInRegistry"
    yield Breach(rule, "set", used_unique_id_of_a_set, ("is used by a registered SubmissionSet",), code)
    used = "is used by a registered Folder"
    yield Breach(rule, "folder", lambda it: folder_submission(it.p1, unique_id=it.folder().unique_id), (used,), code)
    # The code of its own is never about a DocumentEntry (ITI TF-3 Table 4.2.4.1-2).
    yield Breach(rule, "entry", unique_id_of_a_set_for_an_entry, ("is used by a registered SubmissionSet",))
    rule = "same_unique_id_means_same_bytes"
    other_hash, other_size = {"hash": Sha1("0" * 40)}, {"size": Size("6")}
    yield Breach(
        rule,
        "hash",
        lambda it: used_unique_id_of_an_entry(it, **other_hash),
        ("is registered with the hash", "0" * 40),
        "XDSNonIdenticalHash",
    )
    yield Breach(
        rule,
        "size",
        lambda it: used_unique_id_of_an_entry(it, **other_size),
        ("is registered with the size 5, not '6'",),
        "XDSNonIdenticalSize",
    )
    yield Breach(rule, "objectType", unique_id_of_an_on_demand_entry, ("is used by an entry of another objectType",))
    rule, code = "ends_are_approved", DEPRECATED
    for kind in (RPLC, APND):
        yield Breach(
            rule,
            str(kind).rpartition(":")[2],
            partial(related_to_deprecated, kind=kind),
            ("targetObject 'urn:uuid:", "is Deprecated"),
            code,
        )
    yield Breach(
        rule, "folder", lambda it: into_folder(valid(it.p1), deprecated_folder(it)), ("sourceObject", "is Deprecated")
    )
    yield Breach(rule, "twice", two_replacements, ("2 associations of the submission replace",), code)
    yield Breach(rule, "itself", appended_and_replaced, ("is deprecated by this submission itself",), code)


BREACHES = [
    *missing(),
    *misshapen(),
    *malformed_times(),
    *malformed_identifiers(),
    *malformed_values(),
    *long_texts(),
    *contents(),
    *wholes(),
    *beside(),
]
