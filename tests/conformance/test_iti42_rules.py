"""ITI-42: every rule that a submission is held to, one by one, with its code and its words; what breaks one is not stored.

ITI TF-2 3.42.4.1, ITI TF-3 4.2 and 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from lxml import etree

from benchmarks.messages import new_oid, patient, submission
from benchmarks.registries import (
    DEPRECATED,
    METADATA,
    UNRESOLVED,
    Registry,
    folder_submission,
    into_folder,
    link,
    new_uuid,
    on_demand_submission,
    opened,
    own_id,
    related,
    valid,
    with_links,
    with_set,
)
from registry.codes import Codes
from registry.patients import merge_patients
from registry.rules import Strictness
from registry.rules_attributes import REQUIRED
from registry.store import Footprint, Store
from schemas import lcm
from schemas.attributes import DOCUMENT_ENTRY, FOLDER, SUBMISSION_SET, Coded, Identified, camel_case
from xds.metadata import (
    Association,
    Author,
    Classification,
    DocumentEntry,
    ExternalIdentifier,
    Extra,
    Folder,
    Slot,
    Submission,
    SubmissionSet,
    Unrecognized,
    has_member,
)
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    LocalizedString,
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
from xds.vocabulary import ON_DEMAND, RELATIONSHIPS, STABLE, AssociationType, Status

HAS_MEMBER, RPLC, XFRM = AssociationType.HAS_MEMBER, AssociationType.RPLC, AssociationType.XFRM
APND, XFRM_RPLC = AssociationType.APND, AssociationType.XFRM_RPLC
SIGNS, IS_SNAPSHOT_OF = AssociationType.SIGNS, AssociationType.IS_SNAPSHOT_OF
DOCUMENTATION = Code.of("a", "1.2", "A")


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    made = opened(module_database)
    yield made
    made.close()


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store)


def only(problems: list[tuple[str, str]], code: str, *words: str) -> None:
    """One problem, of the code, with all of the words."""
    ((found, context),) = problems
    assert found == code, context
    assert [word for word in words if word not in context] == [], context


def among(problems: list[tuple[str, str]], code: str, *words: str) -> None:
    """One of the problems has the code and all of the words."""
    assert [True for found, context in problems if found == code and all(word in context for word in words)], problems


# --- data types: ITI TF-3 Table 4.2.3.1.7-2 ---------------------------------------------------------------------------

BAD_CX = [
    "L7",
    "^^^&1.2.3&ISO",
    "L7^2^^&1.2.3&ISO",
    "L7^^X^&1.2.3&ISO",
    "L7^^^NS&1.2.3&ISO",
    "L7^^^&1.2.3&DNS",
    "L7^^^&1.02.3&ISO",
    "L7^^^&&ISO",
    "L7^^^1.2.3",
    "L7^^^&1.2.3&ISO^PI",
    "L7^^^&1.2.3&ISO&x",
]
BAD_DTM = ["", "202", "20245", "20240101T10", "2024-01-01", "202413", "20240230", "2024010125", "202401011061"]
BAD_DTM += ["20240101101010.5", "20240101101010+0100", "0000", "２０２４"]
BAD_OID = ["1", "3.1", "1.02", "1..2", "1.2.", ".1.2", "1.2.x", "urn:oid:1.2.3", "1." + "2" * 63]
BAD_ENTRY: list[tuple[str, Any]] = [
    *(("source_patient_id", Identifier(one)) for one in BAD_CX),
    *(("creation_time", Timestamp(one)) for one in BAD_DTM if one),
    ("service_start_time", Timestamp("2024010")),
    ("service_stop_time", Timestamp("20241301")),
    *(("repository_unique_id", Oid(one)) for one in BAD_OID),
    ("home_community_id", OidUrn("1.2.3")),
    ("home_community_id", OidUrn("urn:oid:1")),
    ("hash", Sha1("g" * 40)),
    ("hash", Sha1("a" * 39)),
    ("hash", Sha1("a" * 64)),
    ("size", Size("-1")),
    ("size", Size("5.0")),
    ("size", Size("1e3")),
    ("size", Size("9223372036854775808")),
    ("size", Size("٣")),
    ("language_code", LanguageCode("en_US")),
    ("language_code", LanguageCode("abcdefghi")),
    ("language_code", LanguageCode("en-")),
    ("mime_type", MimeType("text")),
    ("mime_type", MimeType("text/")),
    ("legal_authenticator", Person("^^Ann")),
    ("legal_authenticator", Person("7^Muster^^^^^^^1.2.3")),
    ("unique_id", UniqueId("a\tb")),
]


@pytest.mark.parametrize(("field", "value"), BAD_ENTRY)
def test_a_bad_value_of_an_entry_is_refused_by_name(registry: Registry, field: str, value: Any) -> None:
    only(
        registry.refused(valid(registry.p1, **{field: value})),
        METADATA,
        f"DocumentEntry Document0: {camel_case(field)} {str(value)!r} {value.fault}",
    )


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("author", (Author(author_person=Person("^^Ann")),), "authorPerson"),
        ("author", (Author(author_institution=(Organization("^^^^^^^^^1.2.3"),)),), "authorInstitution"),
        ("author", (Author(author_institution=(Organization("North^^^^^^^^^17"),)),), "authorInstitution"),
        ("author", (Author(author_institution=(Organization("North^^^^^1.2.3^^^^17"),)),), "authorInstitution"),
        (
            "author",
            (Author(author_telecommunication=(Telecommunication("^NET^Internet"),)),),
            "authorTelecommunication",
        ),
        ("author", (Author(author_telecommunication=(Telecommunication("^PRN^PH^^41"),)),), "authorTelecommunication"),
        ("reference_id_list", (ReferenceId("17"),), "referenceIdList"),
        ("reference_id_list", (ReferenceId("17^^^&1.2.3&ISO"),), "referenceIdList"),
        ("reference_id_list", (ReferenceId("^^^&1.2.3&ISO^urn:x"),), "referenceIdList"),
        ("reference_id_list", (ReferenceId("17^^^1.2.3^urn:x"),), "referenceIdList"),
        ("reference_id_list", (ReferenceId("17^^^&1.2.3&DNS^urn:x"),), "referenceIdList"),
        ("reference_id_list", (ReferenceId("17^^^^urn:ihe:iti:xds:2013:order"),), "referenceIdList"),
        ("reference_id_list", (ReferenceId("17^^^^urn:ihe:iti:xds:2013:referral"),), "referenceIdList"),
        ("reference_id_list", (ReferenceId("17^^^^urn:ihe:iti:xds:2015:encounterId"),), "referenceIdList"),
        ("source_patient_info", (PidField("PID7|1970"),), "sourcePatientInfo"),
        ("source_patient_info", (PidField("PID-7^1970"),), "sourcePatientInfo"),
        ("source_patient_info", (PidField("PID-7|19700231"),), "sourcePatientInfo PID-7 (birth date) '19700231'"),
        ("source_patient_info", (PidField("PID-7|1970"), PidField("PID-7|1971")), "PID-7 2 times"),
        ("source_patient_info", (PidField("PID-8|F"), PidField("PID-8|M")), "PID-8 2 times"),
    ],
)
def test_a_bad_value_of_many_is_refused_by_name(registry: Registry, field: str, value: Any, name: str) -> None:
    """XCN, XON, XTN, CXi (ITI TF-3 Table 4.2.3.1.7-2); sourcePatientInfo (4.2.3.2.23)."""
    only(registry.refused(valid(registry.p1, **{field: value})), METADATA, "DocumentEntry Document0: ", name)


@pytest.mark.parametrize("cx", BAD_CX)
def test_a_malformed_patient_id_is_refused(registry: Registry, cx: str) -> None:
    made = valid(Identifier(cx))
    among(registry.refused(made), METADATA, "DocumentEntry Document0: patientId", repr(cx))
    among(registry.refused(made), METADATA, "SubmissionSet SubmissionSet: patientId", repr(cx))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("source_id", Oid(one)) for one in BAD_OID),
        *(("unique_id", Oid(one)) for one in BAD_OID),
        ("submission_time", Timestamp("yesterday")),
        ("home_community_id", OidUrn("urn:oid:x")),
        ("intended_recipient", (Recipient("||"),)),
        ("intended_recipient", (Recipient("North|^Muster^Ann|^^Internet^a@b.c|x"),)),
        ("intended_recipient", (Recipient("North|^^Ann"),)),
        ("intended_recipient", (Recipient("||^PRN^PH"),)),
    ],
)
def test_a_bad_value_of_a_submission_set_is_refused_by_name(registry: Registry, field: str, value: Any) -> None:
    only(
        registry.refused(with_set(registry.p1, **{field: value})),
        METADATA,
        f"SubmissionSet SubmissionSet: {camel_case(field)}",
        repr(str(value[0] if isinstance(value, tuple) else value)),
    )


@pytest.mark.parametrize("value", ["folder 7", "urn:uuid:0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817", "1." + "2" * 255])
def test_the_unique_id_of_a_folder_is_an_oid(registry: Registry, value: str) -> None:
    """ITI TF-3 Table 4.2.3.4-1; unlike other OIDs it may have 256 characters."""
    made = folder_submission(registry.p1, unique_id=UniqueId(value))
    among(registry.refused(made), METADATA, "Folder Folder0: uniqueId", value[:100])
    assert registry.register(folder_submission(registry.p1, unique_id=UniqueId(f"{new_oid()}.{'3' * 200}"))).succeeded


GOOD_ENTRY: list[tuple[str, Any]] = [
    *(("creation_time", Timestamp(one)) for one in ("2024", "202402", "20240229", "2024022923", "202402292359")),
    ("creation_time", Timestamp("20161231235960")),
    ("hash", Sha1("DA39A3EE5E6B4B0D3255BFEF95601890AFD80709")),
    ("size", Size("0")),
    ("size", Size("9223372036854775807")),
    ("language_code", LanguageCode("zh-Hant-TW")),
    ("mime_type", MimeType("text/plain; charset=UTF-8")),
    ("source_patient_id", Identifier("L\\T\\7^^^&0.1.2&ISO")),
    ("repository_unique_id", Oid("2.25.0")),
    ("unique_id", UniqueId("urn:uuid:0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817")),
    ("legal_authenticator", Person("7^Muster^Ann^^^Dr^^^&1.2.3&ISO^^^")),
    ("author", (Author(author_telecommunication=(Telecommunication("^^Internet^a@b.c"),)),)),
    ("author", (Author(author_telecommunication=(Telecommunication("^PRN^PH^^41^31^555"),)),)),
    ("author", (Author(author_institution=(Organization("North^^^^^&1.2.3&ISO^^^^17"),)),)),
    ("reference_id_list", (ReferenceId("17^^^&1.2.3&ISO^urn:ihe:iti:xds:2013:order"),)),
    ("reference_id_list", (ReferenceId("1.2.3^^^^urn:ihe:iti:xds:2016:studyInstanceUID"),)),
    ("reference_id_list", (ReferenceId("17^^^NS&1.2.3&ISO^urn:mine"),)),
    ("source_patient_info", (PidField("PID-3|a^^^&1.2&ISO"), PidField("PID-3|b^^^&1.2&ISO"), PidField("PID-7|"))),
    ("service_start_time", Timestamp("20240101")),
    ("title", Text.of("x" * 128)),
    ("comments", Text.of("x" * 1024)),
    ("class_code", Code.of("x" * 256, "y" * 256, "Long")),
]


@pytest.mark.parametrize(("field", "value"), GOOD_ENTRY)
def test_a_value_at_the_edge_of_its_type_is_taken_and_kept(registry: Registry, field: str, value: Any) -> None:
    made = valid(registry.p1, **{field: value})
    if field != "unique_id":
        assert getattr(registry.registered(made), field) == value
    else:
        assert registry.register(made).succeeded


# --- lengths: ITI TF-3 4.2.3, ebRIM 3.0 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("title", Text.of("x" * 129), "title has 129 characters; 128"),
        ("title", Text([LocalizedString("a"), LocalizedString("x" * 129, "de")]), "title has 129 characters; 128"),
        ("comments", Text.of("x" * 1025), "comments has 1025 characters; 1024"),
        ("uri", "x" * 257, "URI"),
        ("source_patient_info", (PidField("PID-5|" + "x" * 251),), "sourcePatientInfo"),
        ("source_patient_id", Identifier("x" * 250 + "^^^&1.2&ISO"), "sourcePatientId"),
        ("legal_authenticator", Person("^" + "x" * 256), "legalAuthenticator"),
        ("author", (Author(author_person=Person("^Muster"), author_role=("x" * 257,)),), "authorRole"),
        ("author", (Author(author_person=Person("^Muster"), author_specialty=("x" * 257,)),), "authorSpecialty"),
        ("class_code", Code.of("x" * 257, "1.2", "A"), "classCode code"),
        ("event_code_list", (Code.of("x", "1" * 257, "A"),), "eventCodeList codingScheme"),
        ("extra", Extra(slots=(Slot(name="urn:mine", values=("x" * 257,)),)), "the slot 'urn:mine'"),
    ],
)
def test_a_value_that_is_too_long_is_refused(registry: Registry, field: str, value: Any, words: str) -> None:
    only(registry.refused(valid(registry.p1, **{field: value})), METADATA, "DocumentEntry Document0", words, "allowed")


def test_a_unique_id_that_is_too_long_is_refused(registry: Registry) -> None:
    """ITI TF-3 4.2.3.2.26."""
    only(registry.refused(valid(registry.p1, unique_id=UniqueId("x" * 257))), METADATA, "uniqueId", "256 characters")


def test_titles_of_sets_and_folders_have_256_characters(registry: Registry) -> None:
    only(registry.refused(with_set(registry.p1, title=Text.of("x" * 257))), METADATA, "SubmissionSet", "257", "256")
    made = folder_submission(registry.p1, title=Text.of("x" * 257))
    only(registry.refused(made), METADATA, "Folder Folder0", "257", "256")
    assert registry.register(folder_submission(registry.p1, title=Text.of("x" * 256))).succeeded


@pytest.mark.parametrize("character", ["x", "ü", "😀"])
def test_the_longest_values_of_any_script_are_stored(registry: Registry, character: str) -> None:
    """No index of the database is too narrow for what the rules allow."""
    registry.patients = "open"
    long = Identifier(character * 240 + "^^^&1.2.3&ISO")
    code = Code.of(character * 256, character * 256, "Long")
    made = valid(long, unique_id=UniqueId(character * 256), class_code=code, confidentiality_code=(code,) * 8)
    assert registry.registered(made).class_code == code


# --- attributes: ITI TF-3 4.2.3, 4.3.1 --------------------------------------------------------------------------------


@pytest.mark.parametrize("field", REQUIRED[Folder])
def test_a_missing_attribute_of_a_folder_is_named(registry: Registry, field: str) -> None:
    """ITI TF-3 Table 4.3.1.3-1."""
    missing: Any = {"code_list": (), "title": Text()}.get(field)
    among(
        registry.refused(folder_submission(registry.p1, **{field: missing})),
        METADATA,
        f"Folder Folder0: {camel_case(field)} is missing",
    )


@pytest.mark.parametrize("field", REQUIRED[Association])
def test_a_missing_attribute_of_an_association_is_named(registry: Registry, field: str) -> None:
    made = with_links(valid(registry.p1), replace(link(RPLC, "Document0", "Document0"), **cast(Any, {field: ""})))
    among(registry.refused(made), METADATA, f"Association link-RPLC: {camel_case(field)} is missing; it is required")


def test_an_object_without_an_id_is_refused(registry: Registry) -> None:
    among(registry.refused(own_id(valid(registry.p1), "")), METADATA, "DocumentEntry without id", "id is missing")


def coded(table: Any, *, many: bool) -> list[tuple[str, str]]:
    return [(name, row.scheme) for name, row in table.items() if isinstance(row, Coded) and row.many is many]


def code_of(scheme: str, code: str = "A", schemes: tuple[str, ...] = ("1.2",), **more: Any) -> Classification:
    slot = Slot(name="codingScheme", values=schemes)
    name = more.pop("name", Text.of("Name"))
    return Classification(scheme=scheme, node_representation=code, slots=(slot,), name=name, **more)


@pytest.mark.parametrize(("field", "scheme"), coded(DOCUMENT_ENTRY, many=False))
def test_a_second_code_of_a_single_one_is_refused(registry: Registry, field: str, scheme: str) -> None:
    """Conformance test 11998a."""
    made = valid(registry.p1, extra=Extra(classifications=(code_of(scheme),)))
    only(registry.refused(made), METADATA, f"DocumentEntry Document0: {camel_case(field)} 'A' is one more than the one")


@pytest.mark.parametrize(("field", "scheme"), [*coded(DOCUMENT_ENTRY, many=False), *coded(DOCUMENT_ENTRY, many=True)])
def test_a_malformed_code_is_refused(registry: Registry, field: str, scheme: str) -> None:
    """ITI TF-3 4.2.3.1.2: a code, one coding scheme, within the object that it is about."""
    name = f"DocumentEntry Document0: {camel_case(field)}"
    for bad, words in (
        (code_of(scheme, code=""), "has no code"),
        (code_of(scheme, schemes=()), "'A' has not exactly one codingScheme"),
        (code_of(scheme, schemes=("",)), "'A' has not exactly one codingScheme"),
        (code_of(scheme, schemes=("1", "2")), "'A' has not exactly one codingScheme"),
        (code_of(scheme, classified_object="SubmissionSet"), "classifies 'SubmissionSet' instead of the object"),
    ):
        only(registry.refused(valid(registry.p1, extra=Extra(classifications=(bad,)))), METADATA, name, words)


def test_a_second_content_type_code_is_refused(registry: Registry) -> None:
    scheme = SUBMISSION_SET["content_type_code"]
    assert isinstance(scheme, Coded)
    made = with_set(registry.p1, extra=Extra(classifications=(code_of(scheme.scheme),)))
    only(registry.refused(made), METADATA, "SubmissionSet SubmissionSet: contentTypeCode 'A' is one more than the one")


@pytest.mark.parametrize("field", [one for one, row in DOCUMENT_ENTRY.items() if isinstance(row, Coded)])
def test_a_code_without_a_display_name_is_refused(registry: Registry, field: str) -> None:
    """ITI TF-3 4.2.3.1.2."""
    row = DOCUMENT_ENTRY[field]
    assert isinstance(row, Coded)
    nameless: Any = Code("A", "1.2")
    made = valid(registry.p1, **{field: (nameless,) if row.many else nameless})
    only(registry.refused(made), METADATA, f"DocumentEntry Document0: {camel_case(field)} 'A' has no display name")


@pytest.mark.parametrize("field", [one for one, row in DOCUMENT_ENTRY.items() if isinstance(row, Identified)])
def test_a_second_identifier_is_refused(registry: Registry, field: str) -> None:
    row = DOCUMENT_ENTRY[field]
    assert isinstance(row, Identified)
    for bad, words in (
        (ExternalIdentifier(scheme=row.scheme, value="x"), "'x' is one more than the one that is allowed"),
        (ExternalIdentifier(scheme=row.scheme, value=""), "has no value"),
        (ExternalIdentifier(scheme=row.scheme, value="x", registry_object="S"), "identifies 'S' instead of the object"),
    ):
        made = valid(registry.p1, extra=Extra(identifiers=(bad,)))
        only(registry.refused(made), METADATA, f"DocumentEntry Document0: {camel_case(field)}", words)


@pytest.mark.parametrize("field", ["patient_id", "unique_id"])
@pytest.mark.parametrize("level", ["error", "warning", "off"])
def test_an_identifier_of_another_object_identifies_nothing(registry: Registry, field: str, level: Any) -> None:
    """Whatever is softened, nothing is kept without patientId and uniqueId."""
    registry.strictness = Strictness({"attributes_have_their_shape": level})
    row = FOLDER[field]
    assert isinstance(row, Identified)
    stray = ExternalIdentifier(scheme=row.scheme, value="x", registry_object="other")
    made = folder_submission(registry.p1, **{field: None}, extra=Extra(identifiers=(stray,)))
    among(registry.refused(made), METADATA, f"Folder Folder0: {camel_case(field)} is missing")


@pytest.mark.parametrize(
    "slot", ["creationTime", "hash", "size", "languageCode", "legalAuthenticator", "repositoryUniqueId", "serviceStartTime",
             "serviceStopTime", "sourcePatientId", "URI", "documentAvailability"]
)  # fmt: skip
def test_two_values_of_a_single_one_are_refused(registry: Registry, slot: str) -> None:
    made = valid(registry.p1, extra=Extra(slots=(Slot(name=slot, values=("1", "2")),)))
    only(registry.refused(made), METADATA, f"DocumentEntry Document0: {slot} has the 2 values '1', '2'; one is allowed")
    made = valid(registry.p1, extra=Extra(slots=(Slot(name=slot, values=("1",)),)))
    only(registry.refused(made), METADATA, f"DocumentEntry Document0: {slot} is there more than once")


@pytest.mark.parametrize(
    ("author", "words"),
    [
        (
            Author(author_role=("Doctor",)),
            "an author has no authorPerson, authorInstitution or authorTelecommunication",
        ),
        (
            Author(
                author_institution=(Organization("North"),),
                extra=(Slot(name="authorPerson", values=("^A", "^B")),),
            ),
            "an author has 2 authorPersons",
        ),
        (
            Author(author_person=Person("^A"), extra=(Slot(name="authorMood", values=("x",)),)),
            "the slot 'authorMood' is no attribute of an author",
        ),
    ],
)
def test_an_author_is_one_person_or_institution(registry: Registry, author: Author, words: str) -> None:
    """ITI TF-3 4.2.3.1.4."""
    only(registry.refused(valid(registry.p1, author=(author,))), METADATA, f"DocumentEntry Document0: {words}")
    only(registry.refused(with_set(registry.p1, author=(author,))), METADATA, f"SubmissionSet SubmissionSet: {words}")


@pytest.mark.parametrize("start, stop", [("2025", "2024"), ("20240102", "202401011200"), ("202402", "20240131")])
def test_service_times_are_in_order(registry: Registry, start: str, stop: str) -> None:
    """ITI TF-3 4.2.3.2.20, in the precision that both have."""
    times = {"service_start_time": Timestamp(start), "service_stop_time": Timestamp(stop)}
    only(registry.refused(valid(registry.p1, **times)), METADATA, repr(start), "is after serviceStopTime", repr(stop))
    equal = {"service_start_time": Timestamp("20240131"), "service_stop_time": Timestamp("202401")}
    assert registry.register(valid(registry.p1, **equal)).succeeded


@pytest.mark.parametrize("make", [valid, with_set, folder_submission])
def test_limited_metadata_is_refused_of_every_class(registry: Registry, make: Callable[..., Submission]) -> None:
    """ITI TF-3 4.2.3.2.33."""
    only(registry.refused(make(registry.p1, limited_metadata=True)), METADATA, "limitedMetadata is not accepted")


def test_an_empty_slot_is_no_value(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.1: a slot without values stands for nothing; what is required is missing then."""
    text = lcm.encode_submission(valid(registry.p1)).replace(b"<rim:Value>en-US</rim:Value>", b"")
    assert b"languageCode" in text
    only(registry.refused(lcm.decode_submission(etree.fromstring(text))), METADATA, "languageCode is missing")


def test_a_slot_name_is_there_once(registry: Registry) -> None:
    """ebRIM 3.0 2.3.1."""
    twice = Extra(slots=(Slot(name="urn:mine", values=("a",)), Slot(name="urn:mine", values=("b",))))
    only(registry.refused(valid(registry.p1, extra=twice)), METADATA, "the slot 'urn:mine' is there 2 times")


@pytest.mark.parametrize("make", [valid, with_set, folder_submission])
def test_a_slot_of_no_urn_is_refused_of_every_class(registry: Registry, make: Callable[..., Submission]) -> None:
    """ITI TF-3 4.2.3.1.6."""
    extra = Extra(slots=(Slot(name="mine", values=("a",)),))
    only(registry.refused(make(registry.p1, extra=extra)), METADATA, "the slot 'mine' is no attribute of IHE")


def test_a_code_outside_the_affinity_domains_set_is_refused(registry: Registry) -> None:
    """ITI TF-3 4.2.3.1.2; only what has a set is checked."""
    registry.codes = Codes.of([("classCode", "1.2.3.4.8.1", "OTHER", "Other")])
    only(registry.refused(valid(registry.p1)), METADATA, "DocumentEntry Document0: classCode 'REPORTS'", "is not known")
    registry.codes = Codes.of([("classCode", "1.2.3.4.8.1", "REPORTS", "Any name")])
    assert registry.register(valid(registry.p1)).succeeded


# --- ids: ITI TF-3 4.2.3.1.1 ------------------------------------------------------------------------------------------

_UUID = "0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817"


@pytest.mark.parametrize(
    "entry_uuid",
    [f"urn:uuid:{_UUID.upper()}", f"urn:uuid:{_UUID[:-1]}", f"urn:uuid:{_UUID.replace('-', '')}", f"URN:UUID:{_UUID}"],
)
def test_an_id_that_is_nearly_a_uuid_is_refused(registry: Registry, entry_uuid: str) -> None:
    made = own_id(valid(registry.p1), entry_uuid)
    only(
        registry.refused(made), METADATA, f"DocumentEntry {entry_uuid}: the id is not a UUID of RFC 4122 in lower case"
    )


def test_an_id_given_twice_is_refused(registry: Registry) -> None:
    made = submission(registry.p1, documents=2, registered=True)
    made = replace(made, associations=tuple(replace(one, entry_uuid="same") for one in made.associations))
    among(registry.refused(made), METADATA, "the id 'same' is given to 2 objects")


@pytest.mark.parametrize("kind", [DocumentEntry, SubmissionSet, Folder, Association])
def test_an_id_that_is_registered_is_refused_of_every_class(registry: Registry, kind: type) -> None:
    """Conformance test 15806."""
    registry.registered(into_folder(valid(registry.p1), registry.folder().entry_uuid))
    taken = next(one.entry_uuid for one in registry.everything() if isinstance(one, kind))
    among(
        registry.refused(own_id(valid(registry.p1), taken)),
        METADATA,
        f"DocumentEntry {taken}: the id is registered already, as a {kind.__name__}",
    )


# --- uniqueId: ITI TF-3 4.2.4.1 ---------------------------------------------------------------------------------------


def test_a_unique_id_of_two_classes_in_a_message_is_refused(registry: Registry) -> None:
    made, folder = valid(registry.p1), folder_submission(registry.p1)
    same = made.submission_sets[0].unique_id
    folders = (replace(folder.folders[0], unique_id=UniqueId(str(same))),)
    made = with_links(replace(made, folders=folders), *folder.associations)
    only(registry.refused(made), "XDSRegistryDuplicateUniqueIdInMessage", repr(str(same)), "2 objects")


def test_a_used_unique_id_of_a_folder_is_refused(registry: Registry) -> None:
    used = registry.folder().unique_id
    only(
        registry.refused(folder_submission(registry.p1, unique_id=used)),
        "XDSDuplicateUniqueIdInRegistry",
        f"Folder Folder0: the uniqueId {str(used)!r} is used by a registered Folder",
    )


def test_a_document_s_unique_id_is_none_for_a_set_or_folder(registry: Registry) -> None:
    used = registry.registered(valid(registry.p1)).unique_id
    for made in (with_set(registry.p1, unique_id=Oid(str(used))), folder_submission(registry.p1, unique_id=used)):
        only(registry.refused(made), "XDSDuplicateUniqueIdInRegistry", repr(str(used)), "a registered DocumentEntry")


def test_a_set_s_unique_id_is_none_for_a_document(registry: Registry) -> None:
    """XDSDuplicateUniqueIdInRegistry is never about a DocumentEntry (ITI TF-3 Table 4.2.4.1-2)."""
    made = valid(registry.p1)
    registry.register(made)
    used = UniqueId(str(made.submission_sets[0].unique_id))
    only(registry.refused(valid(registry.p1, unique_id=used)), METADATA, "is used by a registered SubmissionSet")


def test_the_same_unique_id_of_another_patient_has_the_same_bytes(registry: Registry) -> None:
    first = registry.registered(valid(registry.p1))
    other = valid(registry.p2, unique_id=first.unique_id, hash=Sha1("0" * 40))
    only(registry.refused(other), "XDSNonIdenticalHash", repr(str(first.unique_id)), str(first.hash), "0" * 40)
    other = valid(registry.p2, unique_id=first.unique_id, size=Size("6"))
    only(registry.refused(other), "XDSNonIdenticalSize", repr(str(first.unique_id)), "size 5", "'6'")
    assert registry.register(valid(registry.p2, unique_id=first.unique_id, size=Size("05"))).succeeded


# --- structure: ITI TF-3 4.2.1.4 --------------------------------------------------------------------------------------


def test_an_entry_is_a_member_exactly_once_as_original(registry: Registry) -> None:
    made = valid(registry.p1)
    (member,) = made.associations
    words = "HasMember associations with SubmissionSetStatus Original lead to it from the SubmissionSet"
    for count, members in (
        (0, ()),
        (2, (member, replace(member, entry_uuid="again"))),
        (0, (replace(member, submission_set_status=None),)),
        (0, (replace(member, submission_set_status="Reference"),)),
        (0, (replace(member, submission_set_status="original"),)),
    ):
        problems = registry.refused(replace(made, associations=members))
        among(problems, METADATA, f"DocumentEntry Document0: {count} {words}")


def test_a_submission_set_status_is_original_or_reference(registry: Registry) -> None:
    made = valid(registry.p1)
    (member,) = made.associations
    bad = replace(made, associations=(replace(member, submission_set_status="New"),))
    among(registry.refused(bad), METADATA, "SubmissionSetStatus 'New' is neither Original nor Reference")
    two = Extra(slots=(Slot(name="SubmissionSetStatus", values=("Original", "Reference")),))
    bad = replace(made, associations=(replace(member, submission_set_status=None, extra=two),))
    among(registry.refused(bad), METADATA, "SubmissionSetStatus has the 2 values 'Original', 'Reference'")


def test_original_does_not_lead_to_what_is_registered(registry: Registry) -> None:
    there = registry.registered(valid(registry.p1)).entry_uuid
    for status in ("Original", None):
        member = has_member("SubmissionSet", there, entry_uuid="old", submission_set_status=status)
        problems = registry.refused(with_links(valid(registry.p1), member))
        among(problems, METADATA, "Association old: SubmissionSetStatus", there)


def test_a_folder_is_a_member_exactly_once(registry: Registry) -> None:
    made = folder_submission(registry.p1)
    (member,) = made.associations
    for count, members in ((0, ()), (2, (member, replace(member, entry_uuid="again")))):
        problems = registry.refused(replace(made, associations=members))
        among(problems, METADATA, f"Folder Folder0: it is a member of the SubmissionSet {count} times")


def test_a_membership_in_a_folder_is_a_member_exactly_once(registry: Registry) -> None:
    made = into_folder(valid(registry.p1), registry.folder().entry_uuid)
    *others, last = made.associations
    words = "Association fd: a membership in a Folder is itself a member of the SubmissionSet exactly once, not"
    only(registry.refused(replace(made, associations=tuple(others))), METADATA, f"{words} 0 times")
    only(registry.refused(with_links(made, replace(last, entry_uuid="again"))), METADATA, f"{words} 2 times")


def test_an_unknown_association_type_is_refused(registry: Registry) -> None:
    for kind in (
        "urn:ihe:iti:2007:AssociationType:rplc",
        AssociationType.UPDATE_AVAILABILITY_STATUS,
        AssociationType.SUBMIT_ASSOCIATION,
    ):
        made = with_links(valid(registry.p1), link(kind, "Document0", registry.folder().entry_uuid))
        among(registry.refused(made), METADATA, f"associationType {str(kind)!r} is none that ITI-42 knows")


@pytest.mark.parametrize("kind", [HAS_MEMBER, RPLC, APND])
def test_nothing_leads_to_itself(registry: Registry, kind: str) -> None:
    made = with_links(valid(registry.p1), link(kind, "Document0", "Document0"))
    among(registry.refused(made), METADATA, "leads from 'Document0' to itself")


def test_a_submission_set_is_no_target(registry: Registry) -> None:
    made = with_links(folder_submission(registry.p1), link(HAS_MEMBER, "Folder0", "SubmissionSet"))
    among(registry.refused(made), METADATA, "its target 'SubmissionSet' is a SubmissionSet, which nothing may be")
    registry.register(valid(registry.p1))
    (there, *_) = (one.entry_uuid for one in registry.of(SubmissionSet))
    made = with_links(valid(registry.p1), has_member("SubmissionSet", there, entry_uuid="old"))
    among(registry.refused(made), METADATA, f"its target {there!r} is a SubmissionSet, which nothing may be")


def test_nothing_is_added_to_a_registered_submission_set(registry: Registry) -> None:
    registry.register(valid(registry.p1))
    (there,) = (one.entry_uuid for one in registry.of(SubmissionSet))
    made = with_links(
        valid(registry.p1),
        has_member(there, "Document0", entry_uuid="late", submission_set_status="Original"),
        has_member("SubmissionSet", "late", entry_uuid="late-member"),
    )
    only(
        registry.refused(made),
        METADATA,
        f"its source {there!r} is a registered SubmissionSet, which cannot be added to",
    )


def test_only_sets_and_folders_have_members(registry: Registry) -> None:
    made = submission(registry.p1, documents=2, registered=True)
    among(
        registry.refused(with_links(made, link(HAS_MEMBER, "Document0", "Document1"))),
        METADATA,
        "its source 'Document0' is a DocumentEntry, which has no members",
    )
    there = registry.registered(valid(registry.p1)).entry_uuid
    among(
        registry.refused(into_folder(valid(registry.p1), there)),
        METADATA,
        f"its source {there!r} is a registered DocumentEntry, which has no members",
    )


def test_a_folder_holds_documents_only(registry: Registry) -> None:
    there = registry.folder().entry_uuid
    made = folder_submission(registry.p1)
    for bad in (into_folder(made, there, "Folder0"), into_folder(made, "Folder0", there)):
        among(registry.refused(bad), METADATA, "Association fd: its target", "a Folder holds DocumentEntries")


@pytest.mark.parametrize("slot", ["previous_version", "association_propagation", "original_status", "new_status"])
def test_an_update_is_not_a_registration(registry: Registry, slot: str) -> None:
    """Conformance tests 21000, 15800c."""
    made = valid(registry.p1)
    made = replace(made, associations=(replace(made.associations[0], **{slot: "1"}),))  # type: ignore[arg-type]
    only(registry.refused(made), METADATA, f"Association member0: {camel_case(slot)} belongs to Update Document Set")


@pytest.mark.parametrize("make", [with_set, folder_submission])
def test_a_logical_id_of_another_object_is_refused(registry: Registry, make: Callable[..., Submission]) -> None:
    made = make(registry.p1, logical_id=f"urn:uuid:{_UUID}")
    only(registry.refused(made), METADATA, f"logicalID 'urn:uuid:{_UUID}' differs from the id")


def test_what_is_refused_for_one_object_is_not_stored_for_the_others(registry: Registry) -> None:
    """Conformance test 12084: everything or nothing (ITI TF-2 3.42.4.1.3)."""
    made = submission(registry.p1, documents=3, registered=True)
    *good, last = made.document_entries
    made = replace(made, document_entries=(*good, replace(last, repository_unique_id=None)))
    only(registry.refused(made), METADATA, "DocumentEntry Document2: repositoryUniqueId is missing")
    assert registry.everything() == []


def test_the_faults_of_message_and_registry_are_told_at_once(registry: Registry) -> None:
    made = related(valid(patient(1), class_code=None), RPLC, new_uuid())
    codes = {code for code, _ in registry.refused(made)}
    assert codes == {METADATA, "XDSUnknownPatientId", UNRESOLVED}


def test_an_unrecognized_object_is_refused_whatever_else_is_there(registry: Registry) -> None:
    """ITI TF-3 4.2.1."""
    stray = Unrecognized(entry_uuid="s", reason="Service s is no object of IHE", xml=b"<a/>")
    only(
        registry.refused(replace(valid(registry.p1), unrecognized=(stray,))), METADATA, "Service s is no object of IHE"
    )


# --- references: ITI TF-3 4.2.2 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["Nowhere", f"urn:uuid:{_UUID}"])
def test_both_ends_of_an_association_exist(registry: Registry, end: str) -> None:
    """ITI TF-3 4.2.2: a symbol without an object is as unresolved as an unknown UUID."""
    for field, made in (
        ("targetObject", related(valid(registry.p1), APND, end)),
        ("targetObject", with_links(valid(registry.p1), has_member("SubmissionSet", end, entry_uuid="r"))),
        ("sourceObject", into_folder(valid(registry.p1), end)),
    ):
        words = f"{field} {end!r} is neither in the submission nor in the registry"
        among(registry.refused(made), UNRESOLVED, words)


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS))
def test_the_source_of_a_relationship_is_submitted_with_it(registry: Registry, kind: str) -> None:
    """ITI TF-3 4.2.2.2."""
    first, second = (registry.registered(valid(registry.p1)).entry_uuid for _ in range(2))
    made = with_links(valid(registry.p1), link(kind, first, second))
    among(registry.refused(made), UNRESOLVED, f"its source {first!r} is no DocumentEntry of the submission")


@pytest.mark.parametrize("kind", [RPLC, XFRM_RPLC, IS_SNAPSHOT_OF])
def test_what_is_replaced_is_registered_before(registry: Registry, kind: str) -> None:
    """ITI TF-3 4.2.2.2."""
    made = with_links(submission(registry.p1, documents=2, registered=True), link(kind, "Document0", "Document1"))
    only(registry.refused(made), UNRESOLVED, "'Document1', is not in the registry")


@pytest.mark.parametrize("kind", [APND, XFRM, SIGNS])
def test_what_is_appended_to_may_come_in_the_same_submission(registry: Registry, kind: str) -> None:
    made = with_links(submission(registry.p1, documents=2, registered=True), link(kind, "Document0", "Document1"))
    assert registry.register(made).succeeded
    (found,) = (one for one in registry.of(Association) if one.association_type == kind)
    assert (found.source_object, found.target_object) == tuple(registry.entry(made, n).entry_uuid for n in (0, 1))


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS))
def test_a_relationship_leads_to_a_document(registry: Registry, kind: AssociationType) -> None:
    made = related(valid(registry.p1), kind, folder := registry.folder().entry_uuid)
    among(registry.refused(made), METADATA, f"its target {folder!r} is a Folder, not a DocumentEntry")


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS - {IS_SNAPSHOT_OF}))
def test_nothing_is_related_to_a_deprecated_document(registry: Registry, kind: AssociationType) -> None:
    """Conformance tests 11993, 11994."""
    old = registry.registered(valid(registry.p1)).entry_uuid
    registry.register(related(valid(registry.p1), RPLC, old))
    only(registry.refused(related(valid(registry.p1), kind, old)), DEPRECATED, f"targetObject {old!r} is Deprecated")


@pytest.mark.parametrize("kind", sorted(RELATIONSHIPS - {IS_SNAPSHOT_OF}))
def test_nothing_is_related_to_a_document_of_another_patient(registry: Registry, kind: AssociationType) -> None:
    """Conformance test 11998."""
    other = registry.registered(valid(registry.p2)).entry_uuid
    only(
        registry.refused(related(valid(registry.p1), kind, other)),
        "XDSPatientIdDoesNotMatch",
        f"targetObject {other!r} is of patient {str(registry.p2)!r}, not {str(registry.p1)!r}",
    )


def test_a_document_is_replaced_once_in_a_submission(registry: Registry) -> None:
    old = registry.registered(valid(registry.p1)).entry_uuid
    made = submission(registry.p1, documents=2, registered=True)
    made = with_links(made, link(RPLC, "Document0", old), link(RPLC, "Document1", old, entry_uuid="second"))
    only(registry.refused(made), DEPRECATED, f"2 associations of the submission replace {old!r}")


@pytest.mark.parametrize("kind", [APND, XFRM, SIGNS])
def test_nothing_is_appended_to_what_the_same_submission_replaces(registry: Registry, kind: AssociationType) -> None:
    """Nothing Approved hangs on something Deprecated, not even for want of an order within a message."""
    old = registry.registered(valid(registry.p1)).entry_uuid
    addendum = registry.registered(related(valid(registry.p1), APND, old)).entry_uuid
    for target in (old, addendum):
        made = submission(registry.p1, documents=2, registered=True)
        made = with_links(made, link(RPLC, "Document0", old), link(kind, "Document1", target))
        only(registry.refused(made), DEPRECATED, f"targetObject {target!r} is deprecated by this submission itself")


def test_a_transformation_is_replaced_but_not_appended_to(registry: Registry) -> None:
    """ITI TF-3 4.2.2.2.3."""
    original = registry.registered(valid(registry.p1)).entry_uuid
    other = registry.registered(related(valid(registry.p1), XFRM, original)).entry_uuid
    only(registry.refused(related(valid(registry.p1), APND, other)), METADATA, repr(other), "is a transformation")
    within = submission(registry.p1, documents=2, registered=True)
    within = with_links(within, link(XFRM, "Document0", original), link(APND, "Document1", "Document0"))
    only(registry.refused(within), METADATA, "'Document0' is a transformation, which is not appended to")
    assert registry.register(related(valid(registry.p1), RPLC, other)).succeeded


def test_a_snapshot_leads_from_stable_to_on_demand(registry: Registry) -> None:
    """ITI TF-3 4.2.2.2.6."""
    stable = registry.registered(valid(registry.p1)).entry_uuid
    only(
        registry.refused(related(valid(registry.p1), IS_SNAPSHOT_OF, stable)),
        METADATA,
        "IsSnapshotOf leads from a Stable",
    )
    source = registry.registered(on_demand_submission(registry.p1), on_demand=True).entry_uuid
    assert registry.register(related(valid(registry.p1), IS_SNAPSHOT_OF, source)).succeeded
    bad = related(on_demand_submission(registry.p1), IS_SNAPSHOT_OF, source)
    only(registry.refused(bad, on_demand=True), METADATA, "IsSnapshotOf leads from a Stable")


@pytest.mark.parametrize("kind", [HAS_MEMBER, SIGNS])
def test_other_associations_have_no_documentation_code(registry: Registry, kind: AssociationType) -> None:
    """Conformance test 12370."""
    target = registry.registered(valid(registry.p1)).entry_uuid
    if kind == HAS_MEMBER:
        made = valid(registry.p1)
        made = replace(made, associations=(replace(made.associations[0], documentation=DOCUMENTATION),))
    else:
        made = related(valid(registry.p1), kind, target, documentation=DOCUMENTATION)
    only(registry.refused(made), METADATA, f"a {kind.rpartition(':')[2]} association has no documentation code")


@pytest.mark.parametrize("kind", [RPLC, XFRM, APND, XFRM_RPLC])
def test_a_relationship_may_be_documented_once(registry: Registry, kind: AssociationType) -> None:
    """ITI TF-3 4.2.2.2."""
    target = registry.registered(valid(registry.p1)).entry_uuid
    second = Extra(classifications=(code_of("urn:uuid:abd807a3-4432-4053-87b4-fd82c643d1f3"),))
    made = related(valid(registry.p1), kind, target, documentation=DOCUMENTATION, extra=second)
    only(registry.refused(made), METADATA, "documentation 'A' is one more than the one that is allowed")
    made = related(valid(registry.p1), kind, target, documentation=DOCUMENTATION)
    assert registry.register(made).succeeded
    (found,) = (one for one in registry.of(Association) if one.association_type == kind)
    assert found.documentation == DOCUMENTATION


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_deprecated_document_is_not_put_into_a_folder(registry: Registry) -> None:
    """ITI TF-2 3.42.4.1.3."""
    folder = registry.folder().entry_uuid
    old = registry.registered(valid(registry.p1)).entry_uuid
    registry.register(related(valid(registry.p1), RPLC, old))
    made = into_folder(submission(registry.p1, documents=0, registered=True), folder, old)
    only(registry.refused(made), DEPRECATED, f"Association fd: targetObject {old!r} is Deprecated")


def test_nothing_is_put_into_a_deprecated_folder(registry: Registry) -> None:
    """Only Metadata Update deprecates a folder; here the database is told so."""
    folder = registry.folder().entry_uuid
    footprint = Footprint(entry_uuids=frozenset({folder}))
    registry.store.write(footprint, lambda unit: unit.set_status(unit.known([folder])[folder], Status.DEPRECATED))
    only(registry.refused(into_folder(valid(registry.p1), folder)), METADATA, f"sourceObject {folder!r} is Deprecated")


def test_a_folder_and_its_documents_are_of_one_patient(registry: Registry) -> None:
    """Conformance test 12002, either end being registered."""
    folder = registry.folder().entry_uuid
    only(registry.refused(into_folder(valid(registry.p2), folder)), "XDSPatientIdDoesNotMatch", repr(folder))
    there = registry.registered(valid(registry.p1)).entry_uuid
    made = into_folder(folder_submission(registry.p2), "Folder0", there)
    only(registry.refused(made), "XDSPatientIdDoesNotMatch", f"targetObject {there!r} is of patient")


# --- patients: ITI TF-2 3.42.4.1.3 ------------------------------------------------------------------------------------


def test_patients_within_a_submission_are_one(registry: Registry) -> None:
    """Conformance test 11997: SubmissionSet, DocumentEntry and Folder."""
    for made in (
        with_set(registry.p1, patient_id=registry.p2),
        valid(registry.p1, patient_id=registry.p2),
        folder_submission(registry.p1, patient_id=registry.p2),
    ):
        only(registry.refused(made), "XDSPatientIdDoesNotMatch", str(registry.p1), str(registry.p2), "patientId")


def test_an_unknown_patient_is_refused_unless_the_registry_is_open(registry: Registry) -> None:
    """Conformance test 11996."""
    stranger = Identifier.of(f"stranger{registry.p1.identifier}", "1.2.3.4")
    only(registry.refused(valid(stranger)), "XDSUnknownPatientId", repr(str(stranger)), "is not known")
    registry.patients = "open"
    assert registry.register(valid(stranger)).succeeded


@pytest.mark.parametrize("patients", ["known", "open"])
def test_a_patient_that_was_merged_away_is_refused(registry: Registry, patients: Any) -> None:
    """ITI TF-2 3.8.4.2: not even an open registry takes it."""
    registry.patients = patients
    merge_patients(registry.store, surviving=registry.p1, subsumed=registry.p2)
    words = f"patient {str(registry.p2)!r} has been merged into {str(registry.p1)!r}"
    only(registry.refused(valid(registry.p2)), "XDSUnknownPatientId", words)


def test_what_a_source_says_of_the_patient_is_not_compared_with_the_feed(registry: Registry) -> None:
    made = valid(registry.p1, source_patient_id=Identifier("nobody^^^&1.9&ISO"))
    assert registry.registered(made).source_patient_id == "nobody^^^&1.9&ISO"


# --- objectType -------------------------------------------------------------------------------------------------------


def test_an_on_demand_entry_is_refused_by_iti_42(registry: Registry) -> None:
    """ITI TF-2 3.42.4.1.2."""
    made = on_demand_submission(registry.p1)
    only(registry.refused(made), METADATA, f"DocumentEntry Document0: objectType {ON_DEMAND!r} is not Stable")


def test_a_stable_entry_does_not_replace_an_on_demand_one(registry: Registry) -> None:
    """ITI TF-2 3.61: IsSnapshotOf links what came of it."""
    source = registry.registered(on_demand_submission(registry.p1), on_demand=True)
    made = related(valid(registry.p1), RPLC, source.entry_uuid)
    only(registry.refused(made), METADATA, f"does not replace the On-Demand entry {source.entry_uuid!r}")


def test_a_stable_entry_does_not_share_its_unique_id_with_an_on_demand_one(registry: Registry) -> None:
    source = registry.registered(on_demand_submission(registry.p1), on_demand=True)
    made = valid(registry.p1, unique_id=source.unique_id)
    only(registry.refused(made), METADATA, "is used by an entry of another objectType")
    assert made.document_entries[0].object_type == STABLE
