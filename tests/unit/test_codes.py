"""The affinity domain's codes: what the rule refuses, the file, and code sets as others publish them (ITI TF-3 4.2.3.1.2)."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.messages import patient, submission
from registry.codes import ATTRIBUTES, MIME_TYPE, Codes, codes_are_known, load, to_toml
from registry.codes_import import MAX_BYTES, from_codes_xml, from_file, from_value_set, scheme_of
from schemas.attributes import TABLES, Coded
from tests.counting import calls_of
from xds.metadata import Association, DocumentEntry, Folder, Submission
from xds.values import Code, MimeType
from xds.vocabulary import AssociationType

VECTORS = Path(__file__).parent.parent / "vectors" / "codes"
OTHER = "9.9.9"


def whole() -> Submission:
    """One object of each class, with every coded attribute; each code's name says whose it is."""
    made = submission(patient(1), registered=True)
    folder = Folder(entry_uuid="Folder0", code_list=(Code.of("EP", "1.2.3.4.8.5", "Episode"),))
    link = Association(
        entry_uuid="rel",
        association_type=AssociationType.RPLC,
        source_object="Document0",
        target_object="Document9",
        documentation=Code.of("1", "1.2.3.4.8.6", "Anonymized"),
    )
    return replace(made, folders=(folder,), associations=(*made.associations, link))


#: Where each attribute of `whole` stands: the collection, the field.
PLACES = {
    "classCode": ("document_entries", "class_code"),
    "confidentialityCode": ("document_entries", "confidentiality_code"),
    "eventCodeList": ("document_entries", "event_code_list"),
    "formatCode": ("document_entries", "format_code"),
    "healthcareFacilityTypeCode": ("document_entries", "healthcare_facility_type_code"),
    "practiceSettingCode": ("document_entries", "practice_setting_code"),
    "typeCode": ("document_entries", "type_code"),
    "contentTypeCode": ("submission_sets", "content_type_code"),
    "codeList": ("folders", "code_list"),
    "associationDocumentation": ("associations", "documentation"),
}


def value_of(made: Submission, attribute: str) -> Any:
    collection, field = PLACES[attribute]
    return getattr(getattr(made, collection)[-1], field)


def codes_of(made: Submission, attribute: str) -> tuple[Code, ...]:
    value = value_of(made, attribute)
    return value if isinstance(value, tuple) else (value,)


def knowing(made: Submission) -> Codes:
    """Exactly what the submission uses."""
    coded = [(one, code.scheme, code.code, "any") for one in PLACES for code in codes_of(made, one)]
    return Codes.of([*coded, (MIME_TYPE, "", "text/plain", "")])


def with_code(made: Submission, attribute: str, code: Code) -> Submission:
    collection, field = PLACES[attribute]
    objects = getattr(made, collection)
    many = isinstance(value_of(made, attribute), tuple)
    changed = replace(objects[-1], **{field: (*value_of(made, attribute), code) if many else code})
    return replace(made, **{collection: (*objects[:-1], changed)})


def found(made: Submission, codes: Codes) -> list[str]:
    problems = list(codes_are_known(made, codes))
    assert {problem.code for problem in problems} <= {"XDSRegistryMetadataError"}
    return [problem.context for problem in problems]


# --- the rule ---------------------------------------------------------------------------------------------------------


def test_every_coded_attribute_of_ihe_can_have_a_set() -> None:
    rows = [field for table in TABLES.values() for field, row in table.items() if isinstance(row, Coded)]
    assert len(rows) == len(ATTRIBUTES) == 10
    assert ATTRIBUTES.keys() == PLACES.keys()
    assert sorted(field for _, field in PLACES.values()) == sorted(rows)


def test_a_submission_of_known_codes_is_taken() -> None:
    made = whole()
    assert all(codes_of(made, one) for one in PLACES)
    assert found(made, knowing(made)) == []


def test_nothing_is_checked_where_nothing_is_configured() -> None:
    assert found(whole(), Codes()) == []


@pytest.mark.parametrize("attribute", PLACES)
def test_an_unknown_code_is_refused_in_every_attribute(attribute: str) -> None:
    made = whole()
    codes = knowing(made)
    (context,) = found(with_code(made, attribute, Code.of("NEW", OTHER, "any")), codes)
    assert f"{attribute} 'NEW' of codingScheme '9.9.9' is not known" in context
    assert context.split()[0] in ("DocumentEntry", "SubmissionSet", "Folder", "Association")
    others = {one: known for one, known in codes.sets.items() if one != attribute}
    assert found(with_code(made, attribute, Code.of("NEW", OTHER, "any")), Codes(sets=others)) == []


def test_the_problem_says_what_is_known_and_where_the_code_is() -> None:
    codes = Codes.of(("classCode", "1.2.3", f"C{n}", "") for n in range(12)).merged(
        Codes.of([("classCode", "1.2.4", "D", ""), ("typeCode", "1.2.5", "E", "")])
    )
    made = submission(patient(1))
    unknown, elsewhere = (with_code(made, "classCode", code) for code in (Code("E", "1.2.4"), Code("C7", "1.2.5")))
    assert found(unknown, Codes(sets={"classCode": codes.sets["classCode"]})) == [
        "DocumentEntry Document0: classCode 'E' of codingScheme '1.2.4' is not known;"
        " this affinity domain knows 13 codes for classCode, 1 of them of that scheme"
    ]
    assert found(elsewhere, Codes(sets={"classCode": codes.sets["classCode"]})) == [
        "DocumentEntry Document0: classCode 'C7' of codingScheme '1.2.5' is not known;"
        " this affinity domain knows 13 codes for classCode, 0 of them of that scheme; 'C7' is known of codingScheme '1.2.3'"
    ]


def test_code_and_scheme_are_compared_with_their_case_and_display_names_are_not() -> None:
    """ITI TF-3 4.2.3.1.2, 4.2.3.1.7."""
    codes = Codes.of([("classCode", "1.2.3", "Reports", "Reports")])
    assert codes.reason_against("classCode", "Reports", "1.2.3") is None
    assert codes.reason_against("classCode", "REPORTS", "1.2.3") is not None
    made = with_code(submission(patient(1)), "classCode", Code.of("Reports", "1.2.3", "something else"))
    assert found(made, codes) == []


def test_composed_and_decomposed_characters_are_the_same() -> None:
    """Unicode NFC (ITI TF-3 4.2.3.1.7)."""
    composed, decomposed = (unicodedata.normalize(form, "Ärzte") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for known, sent in ((composed, decomposed), (decomposed, composed)):
        assert Codes.of([("classCode", "1.2.3", known, "")]).reason_against("classCode", sent, "1.2.3") is None


@pytest.mark.parametrize("mime_type", ["text/plain", "Text/PLAIN", "text/plain; charset=utf-8", "text/plain;charset=x"])
def test_a_mime_type_has_no_case_and_its_parameters_do_not_matter(mime_type: str) -> None:
    """RFC 2045 5.1."""
    made = submission(patient(1))
    changed = replace(made, document_entries=(replace(made.document_entries[0], mime_type=MimeType(mime_type)),))
    assert found(changed, Codes.of([(MIME_TYPE, "", "text/plain", "")])) == []
    assert found(changed, Codes.of([(MIME_TYPE, "", "text/html", "")])) == [
        f"DocumentEntry Document0: mimeType {mime_type!r} is not known; this affinity domain knows 1 MIME type"
    ]


def test_every_unknown_code_is_told_and_hostile_ones_are_cut() -> None:
    codes = Codes.of([("classCode", "1.2.3", "A", ""), ("eventCodeList", "1.2.3", "A", "")])
    entry = DocumentEntry(
        entry_uuid="Document0",
        class_code=Code("x" * 10_000, "y" * 10_000),
        event_code_list=(Code("B", "1.2.3"), Code("A", "1.2.3"), Code("C", "1.2.3")),
    )
    contexts = found(Submission(document_entries=(entry,)), codes)
    assert len(contexts) == 3
    assert max(map(len, contexts)) < 500
    assert "\n" not in codes.reason_against("classCode", "a\nb", "c\nd")  # type: ignore[operator]


def test_a_large_set_costs_a_submission_nothing(tmp_path: Path) -> None:
    """100,000 codes; a search through them for each entry would be billions of steps."""
    codes = Codes.of(("eventCodeList", f"1.2.{n % 7}", f"C{n}", f"Code {n}") for n in range(100_000))
    events = tuple(Code(f"C{n}", f"1.2.{n % 7}") for n in range(50_000))
    made = Submission(document_entries=(DocumentEntry(entry_uuid="Document0", event_code_list=events),))
    assert found(made, codes) == []
    assert calls_of(lambda: found(made, codes)) < 20 * len(events)
    path = tmp_path / "codes.toml"
    path.write_text(to_toml(codes), encoding="utf-8")
    assert load(path).count("eventCodeList") == 100_000


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_file_is_as_people_write_it(tmp_path: Path) -> None:
    path = tmp_path / "codes.toml"
    path.write_text(
        'mimeType = ["text/plain", "application/PDF"]\n'
        '[classCode."1.2.3.4.8.1"]\nREPORTS = "Reports"\n"a b.c" = "With a dot"\n'
        '[codeList."1.2.3"]\n1 = "One"\n'
    )
    assert load(path) == Codes(
        sets={
            "classCode": {"1.2.3.4.8.1": {"REPORTS": "Reports", "a b.c": "With a dot"}},
            "codeList": {"1.2.3": {"1": "One"}},
        },
        mime_types=frozenset({"text/plain", "application/pdf"}),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[clasCode."1.2"]\nA = "a"', "there is no coded attribute 'clasCode'; did you mean 'classCode'?"),
        ("xyz = 1", "there is no coded attribute 'xyz'; there are mimeType, classCode, "),
        ('mimeType = "text/plain"', "mimeType is 'text/plain'; it must be a list of MIME types"),
        ("mimeType = []", "mimeType is '[]'; it must be a list of MIME types, of one at least"),
        ("mimeType = [1]", "mimeType is '[1]'"),
        ('mimeType = [""]', "mimeType: a code of codingScheme '' is empty"),
        ("classCode = 1", "classCode is '1'; it must be a table of codingSchemes"),
        ("[classCode]", "classCode has no codingSchemes, so that none would be accepted"),
        ('[classCode."1.2"]', "classCode of codingScheme '1.2' has no codes, so that none would be accepted"),
        ('[classCode]\nA = "a"', "classCode of codingScheme 'A' is 'a'; it must be a table of codes"),
        ('[classCode.1.2.3]\nA = "a"', 'is a table; write the scheme in quotes, as [classCode."1.2.3"]'),
        (
            '[classCode."1.2"]\nA = 1',
            "classCode of codingScheme '1.2': the display name of 'A' is '1'; it must be text",
        ),
        ('[classCode."1.2"]\n"" = "a"', "classCode: a code of codingScheme '1.2' is empty"),
        ('[classCode.""]\nA = "a"', "classCode: the code 'A' has no codingScheme"),
        ('[classCode."1.2"]\nA = "a"\nA = "b"', "Cannot overwrite a value"),
        ("[classCode", "at end of document"),
    ],
)
def test_an_error_in_the_file_names_file_attribute_and_reason(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "codes.toml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert words in str(error.value)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "codes.toml"
    with pytest.raises(ValueError, match=r"codes\.toml: No such file"):
        load(path)
    path.write_bytes(b'mimeType = ["\xff"]')
    with pytest.raises(ValueError, match=r"codes\.toml: .*utf-8"):
        load(path)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_ENTRY = st.tuples(st.sampled_from([*ATTRIBUTES, MIME_TYPE]), _TEXT, _TEXT, _TEXT)


@given(st.lists(_ENTRY, max_size=20))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, entries: list[Any]) -> None:
    """Whatever Unicode stands in a code: quotes, control characters, line ends."""
    codes = Codes.of(entries)
    path = tmp_path_factory.getbasetemp() / "codes.toml"
    path.write_bytes(to_toml(codes).encode())
    again = load(path)
    assert again == codes
    assert sorted(again.entries()) == sorted(codes.entries())
    assert Codes.of(codes.entries()) == codes


def test_merging_keeps_the_display_names_that_are_there() -> None:
    first = Codes.of([("classCode", "1.2", "A", "ours"), (MIME_TYPE, "", "text/plain", "")])
    second = Codes.of(
        [("classCode", "1.2", "A", "theirs"), ("classCode", "1.2", "B", "b"), ("typeCode", "1.3", "C", "")]
    )
    both = first.merged(second)
    assert both.sets == {"classCode": {"1.2": {"A": "ours", "B": "b"}}, "typeCode": {"1.3": {"C": ""}}}
    assert both.attributes == (MIME_TYPE, "classCode", "typeCode")
    assert (both.count("classCode"), both.count(MIME_TYPE), both.count("codeList")) == (2, 1, 0)


# --- codes.xml --------------------------------------------------------------------------------------------------------


def test_codes_xml_is_read_with_its_authorities() -> None:
    imported = from_codes_xml((VECTORS / "codes.xml").read_bytes())
    assert imported.codes == Codes(
        sets={
            "contentTypeCode": {"1.2.3.4.8.4": {"VISIT": "Visit"}},
            "classCode": {
                "1.2.3.4.8.1": {"REPORTS": "Reports", "IMAGES": "Images & films"},
                "2.16.840.1.113883.6.1": {"34133-9": "Summarization of episode note"},
            },
            "confidentialityCode": {"2.16.840.1.113883.5.25": {"N": "Normal"}},
            "codeList": {"1.2.3.4.8.5": {"EPISODE": "Episode"}},
            "associationDocumentation": {"1.2.3.4.8.6": {"1": "Anonymized"}},
        },
        mime_types=frozenset({"application/pdf", "text/plain"}),
    )
    assert imported.authorities == ("1.2.3.4.5.6", "1.2.3.4.5.7")
    assert imported.unused == (
        "classCode: 'LOST' of codingScheme '' is not complete",
        "CodeType 'favouriteColour': no coded attribute",
    )
    assert from_file((VECTORS / "codes.xml").read_bytes(), "typeCode") == imported


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_codes_xml_may_be_in_another_encoding(encoding: str) -> None:
    name = encoding.removesuffix("-sig")
    text = (
        f'<?xml version="1.0" encoding="{name}"?><Codes><CodeType name="classCode">'
        '<Code code="Ä" display="Ä" codingScheme="1.2"/></CodeType></Codes>'
    )
    assert from_codes_xml(text.encode(encoding)).codes.sets == {"classCode": {"1.2": {"Ä": "Ä"}}}


# --- FHIR -------------------------------------------------------------------------------------------------------------


def read(name: str, attribute: str) -> Codes:
    return from_value_set((VECTORS / name).read_bytes(), attribute)


def resource(**content: Any) -> bytes:
    return json.dumps({"resourceType": "ValueSet", "url": "http://example.org/vs", **content}).encode()


@pytest.mark.parametrize("name", ["valueset-compose.json", "valueset-compose.xml"])
def test_a_value_set_that_lists_its_codes_is_read_in_both_formats(name: str) -> None:
    assert read(name, "classCode").sets == {
        "classCode": {
            "1.2.3.4.8.1": {"REPORTS": "Reports", "IMAGES": "Images"},
            "2.16.840.1.113883.6.1": {"34133-9": "Summarization of episode note"},
            "http://example.org/fhir/CodeSystem/own": {"OWN": ""},
        }
    }


def test_an_expansion_goes_before_the_definition_and_headings_are_left_out() -> None:
    assert read("valueset-expansion.json", "practiceSettingCode").sets == {
        "practiceSettingCode": {"2.16.840.1.113883.6.96": {"394802001": "General medicine", "394579002": "Cardiology"}}
    }


def test_a_code_system_is_read_with_the_codes_below_codes_under_its_oid() -> None:
    assert read("codesystem.xml", "healthcareFacilityTypeCode").sets == {
        "healthcareFacilityTypeCode": {"1.2.3.4.8.2": {"HOSP": "Hospital", "WARD": "Ward"}}
    }
    assert read("codesystem.json", "confidentialityCode").sets == {
        "confidentialityCode": {"2.16.840.1.113883.5.25": {"N": "normal", "R": "restricted"}}
    }


def test_mime_types_may_come_as_a_value_set() -> None:
    data = resource(compose={"include": [{"system": "urn:ietf:bcp:13", "concept": [{"code": "image/PNG"}]}]})
    assert from_value_set(data, MIME_TYPE) == Codes(mime_types=frozenset({"image/png"}))


@pytest.mark.parametrize(
    ("system", "scheme"),
    [
        ("urn:oid:1.2.3", "1.2.3"),
        ("URN:OID:1.2.3", "1.2.3"),
        ("urn:oid:banana", "urn:oid:banana"),
        ("http://loinc.org", "2.16.840.1.113883.6.1"),
        ("http://snomed.info/sct", "2.16.840.1.113883.6.96"),
        ("http://dicom.nema.org/resources/ontology/DCM", "1.2.840.10008.2.16.4"),
        ("http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "2.16.840.1.113883.5.25"),
        ("http://hl7.org/fhir/v3/Confidentiality", "2.16.840.1.113883.5.25"),
        ("http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode", "1.3.6.1.4.1.19376.1.2.3"),
        ("http://example.org/other", "http://example.org/other"),
    ],
)
def test_a_system_of_fhir_becomes_an_oid_where_one_is_known(system: str, scheme: str) -> None:
    assert scheme_of(system) == scheme


FILTER = {"system": "http://loinc.org", "filter": [{"property": "parent", "op": "=", "value": "LP1"}]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (resource(compose={"include": [FILTER]}), "ValueSet 'http://example.org/vs': the codes of 'http://loinc.org'"),
        (resource(compose={"include": [FILTER]}), "pass the filter 'parent = LP1'; only a terminology server"),
        (
            resource(compose={"include": [{"valueSet": ["http://example.org/a"]}]}),
            "imports the value set 'http://example.org/a'",
        ),
        (
            resource(compose={"include": [{"system": "http://loinc.org"}]}),
            "has all codes of 'http://loinc.org' and does not list them; import that CodeSystem",
        ),
        (
            resource(compose={"include": [{"system": "urn:oid:1.2", "concept": [{"code": "A"}]}], "exclude": [FILTER]}),
            "pass the filter",
        ),
        (
            resource(expansion={"total": 2000, "contains": [{"system": "urn:oid:1.2", "code": "A"}]}),
            "the expansion holds 1 of 2000 codes",
        ),
        (
            resource(
                expansion={
                    "extension": [
                        {"url": "http://hl7.org/fhir/StructureDefinition/valueset-toocostly", "valueBoolean": True}
                    ],
                    "contains": [{"system": "urn:oid:1.2", "code": "A"}],
                }
            ),
            "not complete (valueset-toocostly)",
        ),
        (resource(), "ValueSet 'http://example.org/vs' holds no codes"),
        (resource(compose={"include": [{"concept": [{"code": "A"}]}]}), "the code 'A' has no codingScheme"),
        (resource(compose={"include": [{"system": "x", "concept": [{}]}]}), "a code of codingScheme 'x' is empty"),
        (
            resource(compose={"include": [{"system": "x", "concept": [{"code": "\ud800"}]}]}),
            "is not Unicode text",
        ),
        (
            resource(resourceType="CodeSystem", content="not-present"),
            "CodeSystem 'http://example.org/vs' does not hold its codes: its content is 'not-present'",
        ),
        (resource(resourceType="Patient"), "'Patient' is neither Codes (of codes.xml) nor a FHIR ValueSet"),
        (b"<html/>", "'html' is neither"),
        (b"[]", "the JSON is a list"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"{", "the file is not JSON"),
        (b"", "neither JSON nor XML that can be read"),
        (b"<a>", "not well-formed"),
        (b"<!DOCTYPE ValueSet><ValueSet/>", "document type declaration"),
        ("<!DOCTYPE ValueSet><ValueSet/>".encode("utf-16"), "document type declaration"),
        (b"<a>" * 200 + b"</a>" * 200, "nested deeper"),
        (b"<r>" + b"<a/>" * 2_000_001 + b"</r>", "more than the limit of 2000000 tags"),
        (b" " * (MAX_BYTES + 1), "larger than the limit of 67108864 bytes"),
    ],
    ids=lambda one: one if isinstance(one, str) else "file",
)
def test_what_cannot_be_read_completely_is_refused_with_the_reason(data: bytes, words: str) -> None:
    with pytest.raises(ValueError) as error:
        from_value_set(data, "classCode")
    assert words in str(error.value)


def test_everything_but_codes_xml_needs_to_be_told_its_attribute() -> None:
    data = (VECTORS / "valueset-compose.json").read_bytes()
    with pytest.raises(ValueError, match="a ValueSet does not say which attribute its codes are for"):
        from_file(data)
    with pytest.raises(ValueError, match="no coded attribute 'class_code'; did you mean 'classCode'"):
        from_file(data, "class_code")
    with pytest.raises(ValueError, match="the root is 'ValueSet', not Codes"):
        from_codes_xml(data)
    assert from_file(data, "typeCode").codes.attributes == ("typeCode",)


def test_entities_and_files_are_never_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("SECRET")
    text = f'<!DOCTYPE Codes [<!ENTITY e SYSTEM "{secret.as_uri()}">]><Codes><CodeType name="classCode">&e;</CodeType></Codes>'
    for encoding in ("utf-8", "utf-16"):
        with pytest.raises(ValueError, match="document type declaration"):
            from_file(text.encode(encoding))


def test_a_set_that_is_nested_very_deeply_is_read() -> None:
    """JSON of moderate depth is no reason to fail; the walk does not recurse."""
    inner: dict[str, Any] = {"code": "C0"}
    for n in range(1, 200):
        inner = {"code": f"C{n}", "concept": [inner]}
    data = json.dumps(
        {"resourceType": "CodeSystem", "url": "urn:oid:1.2", "content": "complete", "concept": [inner]}
    ).encode()
    assert from_value_set(data, "typeCode").count("typeCode") == 200
