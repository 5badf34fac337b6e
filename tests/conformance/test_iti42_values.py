"""ITI-42: what each attribute's value looks like and how long it is; what is malformed is refused by name, and not stored.

ITI TF-3 Table 4.2.3.1.7-2 and 4.2.3.2 to 4.2.3.4, ebRIM 3.0.
"""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.messages import new_oid
from benchmarks.registries import METADATA, Registry, folder_submission, valid, with_set
from schemas.attributes import Kind, camel_case
from tests.submissions import MAKERS, NAMES, among, only
from xds.metadata import Author, Classification, ExternalIdentifier, Extra, Slot
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


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("SubmissionSet", {"author": (Author(author_person=Person("^^Ann")),)}, "authorPerson '^^Ann'"),
        (
            "SubmissionSet",
            {"author": (Author(author_institution=(Organization("^^^^^^^^^1.2"),)),)},
            "authorInstitution",
        ),
        (
            "SubmissionSet",
            {"author": (Author(author_telecommunication=(Telecommunication("^NET^Internet"),)),)},
            "authorTelecommunication '^NET^Internet'",
        ),
        ("SubmissionSet", {"author": (Author(author_person=Person("^" + "x" * 256)),)}, "authorPerson"),
        ("SubmissionSet", {"intended_recipient": (Recipient("x" * 257),)}, "intendedRecipient"),
        ("SubmissionSet", {"patient_id": Identifier("x")}, "patientId 'x' is not of the form"),
        ("SubmissionSet", {"comments": Text.of("x" * 1025)}, "comments has 1025 characters; 1024"),
        ("Folder", {"patient_id": Identifier("x")}, "patientId 'x' is not of the form"),
        ("Folder", {"home_community_id": OidUrn("1.2.3")}, "homeCommunityId '1.2.3' is not urn:oid:"),
        ("Folder", {"comments": Text.of("x" * 1025)}, "comments has 1025 characters; 1024"),
        ("Association", {"home_community_id": OidUrn("urn:oid:x")}, "homeCommunityId 'urn:oid:x' is not urn:oid:"),
        ("Association", {"title": Text.of("x" * 1025)}, "title has 1025 characters; 1024"),
        ("Association", {"extra": Extra(slots=(Slot(name="mine", values=("a",)),))}, "the slot 'mine' is no attribute"),
        ("Association", {"documentation": Code.of("a", "1.2", "x" * 1025)}, "documentation has a display name of 1025"),
        ("Folder", {"extra": Extra(slots=(Slot(name="urn:" + "x" * 253, values=("a",)),))}, "has a name of 257"),
        ("Folder", {"extra": Extra(slots=(Slot(name="urn:x", values=("a" * 257,)),))}, "has a value of 257"),
    ],
)
def test_a_bad_value_of_any_class_is_refused_by_name(
    registry: Registry, kind: Kind, changes: dict[str, Any], words: str
) -> None:
    among(registry.refused(MAKERS[kind](registry, **changes)), METADATA, f"{NAMES[kind]}: ", words)


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


def test_extra_metadata_has_its_lengths_too(registry: Registry) -> None:
    """ebRIM 3.0 2.3: wherever it stands."""
    strange = "urn:uuid:00000000-0000-4000-8000-000000000000"
    for extra, words in (
        (Extra(classifications=(Classification(scheme=strange, node_representation="x" * 257),)), "the classification"),
        (Extra(identifiers=(ExternalIdentifier(scheme=strange, value="x" * 257),)), "the identifier"),
    ):
        made = valid(registry.p1, extra=extra)
        only(registry.refused(made), METADATA, "DocumentEntry Document0: ", words, "has 257 characters; 256 are")
    slot = Slot(name="urn:mine", values=("x" * 257,))
    made = valid(registry.p1, author=(Author(author_person=Person("^Muster"), extra=(slot,)),))
    only(registry.refused(made), METADATA, "the slot 'urn:mine' has a value of 257 characters; 256 are allowed")


def test_a_value_of_any_length_is_told_in_short(registry: Registry) -> None:
    """What is on the wire is hostile: an answer does not repeat all of it."""
    huge = "x" * 100_000
    made = valid(registry.p1, unique_id=UniqueId(huge), uri=huge, extra=Extra(slots=(Slot(name=huge, values=(huge,)),)))
    problems = registry.refused(made)
    assert len(problems) > 3
    assert max(len(context) for _, context in problems) < 500


@pytest.mark.parametrize("character", ["x", "ü", "😀"])
def test_the_longest_values_of_any_script_are_stored(registry: Registry, character: str) -> None:
    """No index of the database is too narrow for what the rules allow."""
    registry.patients = "open"
    long = Identifier(character * 240 + "^^^&1.2.3&ISO")
    code = Code.of(character * 256, character * 256, "Long")
    made = valid(long, unique_id=UniqueId(character * 256), class_code=code, confidentiality_code=(code,) * 8)
    assert registry.registered(made).class_code == code
