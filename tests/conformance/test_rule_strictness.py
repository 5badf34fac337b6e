"""What an administrator may soften: each rule as an error, as a warning, and off; and the configuration that says so."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.messages import new_oid, submission
from benchmarks.registries import (
    DEPRECATED,
    METADATA,
    Registry,
    folder_submission,
    into_folder,
    link,
    on_demand_submission,
    opened,
    related,
    valid,
    with_links,
    with_set,
)
from registry import rules, rules_registry
from registry.client import client
from registry.codes import Codes
from registry.iti18_stored_query import stored_query
from registry.patients import add_patient
from registry.rules import Strictness
from registry.store import Footprint, Store
from registry.tunable import RULES
from schemas import rim
from schemas.attributes import DOCUMENT_ENTRY, SUBMISSION_SET, TABLES, Coded, Identified, camel_case
from server.compose import soap_client
from server.config import ConfigError, load
from server.embedded import serving
from xds.messages import Outcome
from xds.metadata import (
    Association,
    Author,
    Classification,
    DocumentEntry,
    ExternalIdentifier,
    Extra,
    RegistryObject,
    Slot,
    Submission,
)
from xds.problems import Failure, Severity
from xds.queries import FindDocuments, GetAll
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
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

RPLC, APND = AssociationType.RPLC, AssociationType.APND
BOTH = (str(Status.APPROVED), str(Status.DEPRECATED))
#: So long, and so random, that no database can put it into an index, compressed or not.
LONG = "".join(random.Random(42).choices("abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789", k=20_000))


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    made = opened(module_database)
    yield made
    made.close()


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


@dataclass(frozen=True)
class Breach:
    """A submission that breaks one rule and no other, made anew for each registration."""

    rule: str
    about: str
    make: Callable[[Registry], Submission]
    words: tuple[str, ...]
    code: str = METADATA
    on_demand: bool = False
    more: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule}-{self.about}"


# --- one rule broken --------------------------------------------------------------------------------------------------


def of_entry(rule: str, about: str, *words: str, **changes: Any) -> Breach:
    """An entry with changed attributes."""
    return Breach(rule, about, lambda it: valid(it.p1, **changes), ("DocumentEntry Document0", *words))


def of_set(rule: str, about: str, *words: str, **changes: Any) -> Breach:
    return Breach(rule, about, lambda it: with_set(it.p1, **changes), ("SubmissionSet SubmissionSet", *words))


def of_folder(rule: str, about: str, *words: str, **changes: Any) -> Breach:
    return Breach(rule, about, lambda it: folder_submission(it.p1, **changes), ("Folder Folder0", *words))


def missing() -> Iterator[Breach]:
    rule = "required_attributes"
    for name, about in (
        ("class_code", "classCode"),
        ("creation_time", "creationTime"),
        ("format_code", "formatCode"),
        ("hash", "hash"),
        ("healthcare_facility_type_code", "healthcareFacilityTypeCode"),
        ("language_code", "languageCode"),
        ("mime_type", "mimeType"),
        ("practice_setting_code", "practiceSettingCode"),
        ("repository_unique_id", "repositoryUniqueId"),
        ("size", "size"),
        ("source_patient_id", "sourcePatientId"),
        ("type_code", "typeCode"),
    ):
        yield of_entry(rule, about, f"{about} is missing", **{name: None})
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
    row = DOCUMENT_ENTRY["class_code"]
    assert isinstance(row, Coded)
    bare = Extra(classifications=(Classification(scheme=row.scheme, node_representation="A"),))
    yield of_entry(rule, "no-scheme", "classCode 'A' has not exactly one codingScheme", class_code=None, extra=bare)
    empty = Extra(classifications=(Classification(scheme=row.scheme, node_representation=""),))
    yield of_entry(rule, "no-code", "classCode has no code", class_code=None, extra=empty)
    second = Classification(
        scheme=row.scheme,
        node_representation="A",
        slots=(Slot(name="codingScheme", values=("1.2",)),),
        name=Text.of("Second"),
    )
    yield of_entry(rule, "two-codes", "classCode 'A' is one more", extra=Extra(classifications=(second,)))
    again = Extra(slots=(Slot(name="hash", values=("0" * 40,)),))
    yield of_entry(rule, "two-slots", "hash is there more than once", extra=again)
    source = SUBMISSION_SET["source_id"]
    assert isinstance(source, Identified)
    identifiers = Extra(identifiers=(ExternalIdentifier(scheme=source.scheme, value="1.9"),))
    yield of_set(rule, "two-identifiers", "sourceId '1.9' is one more", extra=identifiers)


def malformed_times() -> Iterator[Breach]:
    rule = "times_are_well_formed"
    yield of_entry(rule, "creationTime", "creationTime 'yesterday'", creation_time=Timestamp("yesterday"))
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
    rule = "extra_slots_are_named_by_urns"
    mine = Slot(name="mine", values=("a",))
    yield of_entry(rule, "no-urn", "the slot 'mine' is no attribute", extra=Extra(slots=(mine,)))
    yield of_folder(rule, "folder", "the slot 'mine' is no attribute", extra=Extra(slots=(mine,)))
    twice = (Slot(name="urn:mine", values=("a",)), Slot(name="urn:mine", values=("b",)))
    yield of_entry(rule, "twice", "the slot 'urn:mine' is there 2 times", extra=Extra(slots=twice))
    rule = "source_patient_info_is_well_formed"
    born = (PidField("PID-7|19700231"),)
    yield of_entry(rule, "birth-date", "sourcePatientInfo PID-7 (birth date) '19700231'", source_patient_info=born)
    yield of_entry(rule, "form", "sourcePatientInfo 'PID7|1970'", source_patient_info=(PidField("PID7|1970"),))
    twice_born = (PidField("PID-7|1970"), PidField("PID-7|1971"))
    yield of_entry(rule, "twice", "PID-7 2 times", source_patient_info=twice_born)
    yield of_entry(rule, "long", "(birth date) '", source_patient_info=(PidField(f"PID-7|{LONG[:200]}"),))
    rule = "codes_have_display_names"
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


# --- submissions that are wrong as a whole, or beside what is registered -----------------------------------------------


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


def used_unique_id_of_a_set(it: Registry) -> Submission:
    made = valid(it.p1)
    soft(it, {}, made)
    return with_set(it.p1, unique_id=made.submission_sets[0].unique_id)


def unique_id_of_a_set_for_an_entry(it: Registry) -> Submission:
    made = valid(it.p1)
    soft(it, {}, made)
    return valid(it.p1, unique_id=UniqueId(str(made.submission_sets[0].unique_id)))


def used_unique_id_of_an_entry(it: Registry, **changes: Any) -> Submission:
    made = valid(it.p1)
    soft(it, {}, made)
    return valid(it.p1, unique_id=made.document_entries[0].unique_id, **changes)


def unique_id_of_an_on_demand_entry(it: Registry) -> Submission:
    made = on_demand_submission(it.p1)
    soft(it, {}, made, on_demand=True)
    return valid(it.p1, unique_id=made.document_entries[0].unique_id)


def deprecated_entry(it: Registry) -> str:
    made = valid(it.p1)
    soft(it, {}, made)
    old = it.entry(made).entry_uuid
    soft(it, {}, related(valid(it.p1), RPLC, old))
    return old


def deprecated_folder(it: Registry) -> str:
    folder = it.folder().entry_uuid
    footprint = Footprint(entry_uuids=frozenset({folder}))
    it.store.write(footprint, lambda unit: unit.set_status(unit.known([folder])[folder], Status.DEPRECATED))
    return folder


def two_replacements(it: Registry) -> Submission:
    made = valid(it.p1)
    soft(it, {}, made)
    old, both = it.entry(made).entry_uuid, submission(it.p1, documents=2, registered=True)
    return with_links(
        both, link(RPLC, "Document0", old), link(AssociationType.XFRM_RPLC, "Document1", old, entry_uuid="second")
    )


def appended_and_replaced(it: Registry) -> Submission:
    made = valid(it.p1)
    soft(it, {}, made)
    old, both = it.entry(made).entry_uuid, submission(it.p1, documents=2, registered=True)
    return with_links(both, link(RPLC, "Document0", old), link(APND, "Document1", old))


def unknown_patient(it: Registry) -> Submission:
    return valid(Identifier.of(f"stranger-{new_oid()}", "1.2.3.4"))


def other_codes() -> dict[str, Any]:
    return {"codes": Codes.of([("classCode", "1.2.3.4.8.1", "OTHER", "Other")])}


def wholes() -> Iterator[Breach]:
    rule = "something_is_submitted"
    yield Breach(rule, "empty", lambda it: submission(it.p1, documents=0), ("holds no DocumentEntry, no Folder",))
    rule = "on_demand_entries_have_no_bytes"
    for about, value in (("creationTime", Timestamp("2024")), ("hash", Sha1("a" * 40)), ("size", Size("5"))):
        change: dict[str, Any] = {"creation_time" if about == "creationTime" else about: value}
        yield Breach(
            rule,
            about,
            partial(with_bytes, **change),
            (f"DocumentEntry Document0: {about} is given, which an On-Demand entry must not have",),
            on_demand=True,
        )
    rule, code = "unique_ids_are_unique", "XDSRegistryDuplicateUniqueIdInMessage"
    yield Breach(rule, "entries", two_of_one_unique_id, ("is given to 2 objects of the message",), code)
    yield Breach(rule, "classes", set_and_folder_of_one_unique_id, ("is given to 2 objects of the message",), code)
    rule = "members_are_declared"
    original = "0 HasMember associations with SubmissionSetStatus Original"
    yield Breach(rule, "entry", lambda it: without_members(valid(it.p1)), ("DocumentEntry Document0", original))
    once = "it is a member of the SubmissionSet 0 times"
    yield Breach(rule, "folder", lambda it: without_members(folder_submission(it.p1)), ("Folder Folder0", once))
    yield Breach(rule, "membership", undeclared_membership, ("Association fd", "exactly once, not 0 times"))
    rule = "entries_are_of_the_transaction"
    yield Breach(rule, "on-demand", lambda it: on_demand_submission(it.p1), (ON_DEMAND, "is not Stable", "ITI-42"))
    yield Breach(rule, "stable", lambda it: valid(it.p1), (STABLE, "is not On-Demand", "ITI-61"), on_demand=True)
    rule, words = "codes_are_known", ("classCode 'REPORTS'", "is not known")
    yield Breach(rule, "classCode", lambda it: valid(it.p1), words, more=other_codes())
    rule = "patient_identifiers_are_well_formed"
    yield Breach(
        rule,
        "patientId",
        lambda it: folder_submission(Identifier(f"p{new_oid()}^^^Here")),
        ("patientId 'p2.25.", "assigning authority 'Here' is not of the form &OID&ISO"),
        more={"patients": "open"},
    )


def beside() -> Iterator[Breach]:
    rule = "patient_is_known"
    yield Breach(rule, "stranger", unknown_patient, ("stranger-", "is not known"), "XDSUnknownPatientId")
    rule, code = "unique_ids_are_new", "XDSDuplicateUniqueIdInRegistry"
    yield Breach(rule, "set", used_unique_id_of_a_set, ("is used by a registered SubmissionSet",), code)
    used = "is used by a registered Folder"
    yield Breach(rule, "folder", lambda it: folder_submission(it.p1, unique_id=it.folder().unique_id), (used,), code)
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
    yield Breach(rule, "objectType", unique_id_of_an_on_demand_entry, ("an entry of another objectType",))
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


def soft(it: Registry, levels: dict[str, Any], made: Submission, *, on_demand: bool = False, **more: Any) -> Outcome:
    """Registers with the levels and nothing else softened, whatever the registry is set to."""
    before = it.strictness, it.patients, it.codes
    try:
        it.strictness = Strictness(levels)
        for name, value in more.items():
            setattr(it, name, value)
        return it.register(made, on_demand=on_demand)
    finally:
        it.strictness, it.patients, it.codes = before


def compared(objects: Any) -> list[str]:
    """SubmissionSets, entries and folders without what the registry gives them, and how many associations there are."""
    given: dict[str, Any] = {"entry_uuid": "", "logical_id": None, "version": None, "availability_status": None}
    found: list[str] = []
    for one in objects:
        folders = {"last_update_time": None} if rim.kind_of(one) == "Folder" else {}
        found.append("Association" if isinstance(one, Association) else repr(replace(one, **given, **folders)))
    return sorted(found)


def stored(it: Registry, made: Submission, before: list[RegistryObject]) -> list[RegistryObject]:
    """What the registration added to what is registered of the submission's patient."""
    known = {one.entry_uuid for one in before}
    patient_id = made.submission_sets[0].patient_id
    assert patient_id is not None
    return [one for one in it.everything(patient_id) if one.entry_uuid not in known]


def of_patient(it: Registry, made: Submission) -> list[RegistryObject]:
    patient_id = made.submission_sets[0].patient_id
    assert patient_id is not None
    return it.everything(patient_id)


# --- each rule at each level ------------------------------------------------------------------------------------------


def test_every_rule_that_can_be_softened_is_broken_here() -> None:
    assert {one.rule for one in BREACHES} == set(RULES)
    assert all(meaning.endswith(".") for meaning in RULES.values())


@pytest.mark.parametrize("breach", BREACHES, ids=str)
def test_a_broken_rule_refuses_or_warns_or_is_silent(registry: Registry, breach: Breach) -> None:
    """Refused by default; with `warning` stored, with the same words; with `off` stored without a word."""
    for name, value in breach.more.items():
        setattr(registry, name, value)
    made = breach.make(registry)
    problems = registry.refused(made, on_demand=breach.on_demand)
    assert {code for code, _ in problems} == {breach.code}, problems
    assert any(all(word in context for word in breach.words) for _, context in problems), problems

    before = of_patient(registry, made)
    outcome = soft(registry, {breach.rule: "warning"}, made, on_demand=breach.on_demand, **breach.more)
    assert outcome.succeeded
    assert [(str(one.code), one.context) for one in outcome.problems] == problems
    assert {one.severity for one in outcome.problems} == {Severity.WARNING}
    added = compared(stored(registry, made, before))
    assert [one for one in compared(made.objects) if one not in added] == []

    again = breach.make(registry)
    before = of_patient(registry, again)
    outcome = soft(registry, {breach.rule: "off"}, again, on_demand=breach.on_demand, **breach.more)
    assert (outcome.succeeded, outcome.problems) == (True, ())
    added = compared(stored(registry, again, before))
    assert [one for one in compared(again.objects) if one not in added] == []


@pytest.mark.parametrize("breach", [one for one in BREACHES if one.rule != "patient_is_known"], ids=str)
def test_what_was_stored_in_spite_of_a_rule_can_be_searched_and_replaced(registry: Registry, breach: Breach) -> None:
    """A softened rule leaves a registry that still answers."""
    for name, value in breach.more.items():
        setattr(registry, name, value)
    made = breach.make(registry)
    before = of_patient(registry, made)
    soft(registry, {breach.rule: "off"}, made, on_demand=breach.on_demand, **breach.more)
    patient_id = made.submission_sets[0].patient_id
    assert patient_id is not None
    times: dict[str, Any] = {"creation_time_from": Timestamp("1900"), "service_start_time_to": Timestamp("2100")}
    query = FindDocuments(patient_id=patient_id, status=BOTH, object_type=(STABLE, ON_DEMAND), **times)
    list(stored_query(query, store=registry.store).fragments)
    everything = [one for one in stored(registry, made, before) if isinstance(one, DocumentEntry)]
    for entry in everything:
        if entry.object_type == STABLE and entry.availability_status == Status.APPROVED:
            levels = {"patient_identifiers_are_well_formed": "off", "codes_are_known": "off"}
            assert soft(registry, levels, related(valid(patient_id), RPLC, entry.entry_uuid), **breach.more).succeeded
            (now,) = (one for one in of_patient(registry, made) if one.entry_uuid == entry.entry_uuid)
            assert isinstance(now, DocumentEntry)
            assert now.availability_status == Status.DEPRECATED


def test_everything_at_once_is_stored_where_everything_is_off(registry: Registry) -> None:
    """No attribute is there that need not be, and every text is far too long."""
    bare = DocumentEntry(entry_uuid="Document0", patient_id=registry.p1, unique_id=UniqueId(new_oid()))
    made = valid(registry.p1)
    made = replace(
        made,
        submission_sets=(
            replace(made.submission_sets[0], content_type_code=None, source_id=None, submission_time=None, author=()),
        ),
        document_entries=(bare, replace(bare, entry_uuid="Document1", creation_time=Timestamp(LONG), uri=LONG)),
    )
    off: dict[str, Any] = dict.fromkeys(RULES, "off")
    assert len(registry.refused(made)) > 30
    outcome = soft(registry, off, made)
    assert (outcome.succeeded, outcome.problems) == (True, ())
    assert len(registry.of(DocumentEntry)) == 2
    warned = soft(registry, dict.fromkeys(RULES, "warning"), valid(registry.p1, class_code=None, size=Size("x")))
    assert (warned.succeeded, len(warned.problems)) == (True, 2)


def test_an_error_beside_a_warning_refuses_and_tells_both(registry: Registry) -> None:
    registry.strictness = Strictness({"times_are_well_formed": "warning"})
    made = valid(registry.p1, creation_time=Timestamp("x"), size=Size("y"))
    before = registry.snapshot()
    with pytest.raises(Failure) as failure:
        registry.register(made)
    assert registry.snapshot() == before
    told = {one.severity: one.context for one in failure.value.problems}
    assert "creationTime 'x'" in told[Severity.WARNING]
    assert "size 'y'" in told[Severity.ERROR]
    assert len(failure.value.problems) == 2


@pytest.mark.parametrize("field_name", ["patient_id", "unique_id"])
def test_what_the_registry_cannot_keep_is_refused_whatever_is_off(registry: Registry, field_name: str) -> None:
    """Identifiers are keys: they are there, and short enough for the index of either database."""
    registry.strictness = Strictness(dict.fromkeys(RULES, "off"))
    registry.patients = "open"
    too_long = {"patient_id": Identifier(LONG), "unique_id": UniqueId(LONG)}[field_name]
    for value, words in ((None, "is missing; it is required"), (too_long, "has 20000 bytes; 2048 can be kept")):
        made = folder_submission(registry.p1, **{field_name: value})
        assert any(words in context for _, context in registry.refused(made))


@pytest.mark.parametrize("field_name", ["patient_id", "unique_id"])
@pytest.mark.parametrize("make", [valid, with_set, folder_submission])
def test_a_second_key_is_refused_whatever_is_off(
    registry: Registry, make: Callable[..., Submission], field_name: str
) -> None:
    """Else an answer would say that the object is of another patient than the one it is found for."""
    registry.strictness = Strictness(dict.fromkeys(RULES, "off"))
    kind = {valid: "DocumentEntry", with_set: "SubmissionSet", folder_submission: "Folder"}[make]
    row = TABLES[kind][field_name]  # type: ignore[index]
    assert isinstance(row, Identified)
    second = ExternalIdentifier(scheme=row.scheme, value="other^^^&1.2&ISO")
    ((code, context),) = registry.refused(make(registry.p1, extra=Extra(identifiers=(second,))))
    assert code == METADATA
    assert context.startswith(f"{kind} ")
    assert f"{camel_case(field_name)} 'other^^^&1.2&ISO' is one more than the one that is allowed" in context


def test_the_longest_identifiers_that_can_be_kept_are_kept(registry: Registry) -> None:
    registry.strictness = Strictness(dict.fromkeys(RULES, "off"))
    registry.patients = "open"
    patient_id = Identifier(LONG[:2048])
    made = folder_submission(patient_id, unique_id=UniqueId(LONG[-2048:]))
    assert registry.register(made).succeeded
    assert len(registry.everything(patient_id)) == 3


# --- the configuration ------------------------------------------------------------------------------------------------


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "xdsi.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_can_be_set_for_each_domain(tmp_path: Path, rule: str) -> None:
    path = written(tmp_path, f'[strictness]\n{rule} = "warning"\n[domains.north.strictness]\n{rule} = "off"\n')
    config = load(path, {})
    assert getattr(config.strictness, rule) == "warning"
    (north,) = config.domains
    assert getattr(north.strictness, rule) == "off"
    others = [name for name in RULES if name != rule]
    assert {getattr(one, name) for one in (config.strictness, north.strictness) for name in others} <= {"error"}
    assert getattr(load(None, {f"XDSI__STRICTNESS__{rule.upper()}": "off"}).strictness, rule) == "off"


def test_a_domain_inherits_no_strictness(tmp_path: Path) -> None:
    path = written(tmp_path, '[strictness]\npatient_is_known = "off"\n[domains.north]\npatients = "known"\n')
    (north,) = load(path, {}).domains
    assert north.strictness.patient_is_known == "error"


ESSENTIAL = [one.__name__ for one in (*rules.ESSENTIAL, *rules_registry.ESSENTIAL)]


@pytest.mark.parametrize("section", ["strictness", "domains.north.strictness"])
@pytest.mark.parametrize("name", ["times_are_wellformed", "no_such_rule", *ESSENTIAL])
def test_an_unknown_or_essential_rule_is_refused_with_file_and_key(tmp_path: Path, section: str, name: str) -> None:
    """Rules that keep the registry consistent have no key."""
    path = written(tmp_path, f'[{section}]\n{name} = "off"\n')
    with pytest.raises(ConfigError) as error:
        load(path, {})
    assert str(path) in str(error.value)
    assert f"there is no key strictness.{name}" in str(error.value)
    assert ("domains.north" in str(error.value)) is section.startswith("domains")


@pytest.mark.parametrize("section", ["strictness", "domains.north.strictness"])
@pytest.mark.parametrize(
    ("level", "words"), [('"warn"', "'warn'; it must be one of"), ("false", "False; it must be of")]
)
def test_an_unknown_level_is_refused_with_file_and_key(tmp_path: Path, section: str, level: str, words: str) -> None:
    path = written(tmp_path, f"[{section}]\npatient_is_known = {level}\n")
    with pytest.raises(ConfigError) as error:
        load(path, {})
    assert str(path) in str(error.value)
    assert f"strictness.patient_is_known is {words}" in str(error.value)


def test_a_misspelt_rule_is_told_what_was_meant(tmp_path: Path) -> None:
    path = written(tmp_path, '[strictness]\ntimes_are_wellformed = "off"\n')
    with pytest.raises(ConfigError, match="did you mean 'times_are_well_formed'"):
        load(path, {})


def test_a_wrong_birth_date_is_told_over_the_wire_as_each_domain_wants(tmp_path: Path) -> None:
    """The administrators' example: PID-7 of sourcePatientInfo (ITI TF-3 4.2.3.2.23), in three domains of one process."""
    rule = "source_patient_info_is_well_formed"
    path = written(
        tmp_path,
        f'[server]\nactors = "registry"\ndirectory = "{tmp_path / "data"}"\n[registry]\npatients = "open"\n'
        f'[domains.north]\npatients = "open"\n[domains.north.strictness]\n{rule} = "warning"\n'
        f'[domains.south]\npatients = "open"\n[domains.south.strictness]\n{rule} = "off"\n',
    )
    patient_id, words = Identifier.of("ann", "1.2.3.4"), "sourcePatientInfo PID-7 (birth date) '19700231'"
    made = valid(patient_id, source_patient_info=(PidField("PID-5|Muster^Ann"), PidField("PID-7|19700231")))
    config = load(path, {})
    with serving(config) as domain:

        def at(name: str) -> Any:
            return client(soap_client(domain.endpoints[name], config))

        with pytest.raises(Failure) as failure:
            at("registry").register(made)
        ((context, severity),) = ((one.context, one.severity) for one in failure.value.problems)
        assert words in context
        assert severity is Severity.ERROR
        warned = at("north/registry").register(made)
        assert warned.succeeded
        assert [(one.context, one.severity) for one in warned.problems] == [(context, Severity.WARNING)]
        silent = at("south/registry").register(made)
        assert (silent.succeeded, silent.problems) == (True, ())
        for name, count in (("registry", 0), ("north/registry", 1), ("south/registry", 1)):
            found = at(name).query(FindDocuments(patient_id=patient_id, status=BOTH)).fragments
            entries = [one for one in rim.decode_fragments(found) if isinstance(one, DocumentEntry)]
            assert len(entries) == count
            assert all(one.source_patient_info == made.document_entries[0].source_patient_info for one in entries)


def test_an_unknown_patient_may_be_let_in_by_strictness_alone(registry: Registry) -> None:
    """As `patients = "open"` would, but with a word about it; the feed may tell of the patient later."""
    made = unknown_patient(registry)
    patient_id = made.submission_sets[0].patient_id
    assert patient_id is not None
    outcome = soft(registry, {"patient_is_known": "warning"}, made)
    assert [(str(one.code), one.severity) for one in outcome.problems] == [("XDSUnknownPatientId", Severity.WARNING)]
    assert add_patient(registry.store, patient_id)
    assert soft(registry, {}, valid(patient_id)).problems == ()
    query = GetAll(patient_id=patient_id, document_entry_status=BOTH, submission_set_status=BOTH, folder_status=BOTH)
    assert len(list(stored_query(query, store=registry.store).fragments)) == 6
