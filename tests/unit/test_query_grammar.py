"""The parameters of stored queries: their syntax, and the exact error for each wrong one (ITI TF-2 3.18.4.1.2.3, 3.18.4.1.3)."""

from __future__ import annotations

import pytest
from lxml import etree

from schemas.query import decode_query, split_values
from xds.problems import Failure
from xds.queries import FindDocuments, FindSubmissionSets, GetDocuments, ReturnType
from xds.vocabulary import ON_DEMAND, STABLE, Status

FIND_DOCUMENTS = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"
GET_DOCUMENTS = "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4"
PATIENT = ("$XDSDocumentEntryPatientId", "'p100^^^&1.2.3.4&ISO'")
APPROVED = ("$XDSDocumentEntryStatus", f"('{Status.APPROVED}')")


def request(query_id: str, *slots: tuple[str, ...], return_type: str = "LeafClass") -> etree._Element:
    rim = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
    query = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
    root = etree.Element(f"{{{query}}}AdhocQueryRequest")
    etree.SubElement(root, f"{{{query}}}ResponseOption", returnType=return_type)
    adhoc = etree.SubElement(root, f"{{{rim}}}AdhocQuery", id=query_id)
    for name, *values in slots:
        value_list = etree.SubElement(etree.SubElement(adhoc, f"{{{rim}}}Slot", name=name), f"{{{rim}}}ValueList")
        for value in values:
            etree.SubElement(value_list, f"{{{rim}}}Value").text = value
    return root


def refused(element: etree._Element) -> list[tuple[str, str]]:
    with pytest.raises(Failure) as failure:
        decode_query(element)
    return [(problem.code, problem.context) for problem in failure.value.problems]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("'a'", ["a"]),
        ("('a')", ["a"]),
        ("('a','b')", ["a", "b"]),
        (" ( 'a' , 'b' ) ", ["a", "b"]),
        ("'O''Brien'", ["O'Brien"]),
        ("''", [""]),
        ("''''", ["'"]),
        ("('a''','''b')", ["a'", "'b"]),
        ("('a,b','(c)')", ["a,b", "(c)"]),
        ("20240101", ["20240101"]),
        ("(1,2)", ["1", "2"]),
    ],
)
def test_a_value_is_read_as_the_grammar_says(text: str, values: list[str]) -> None:
    assert list(split_values(text)) == values


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "'a", "('a'", "('a' 'b')", "('a',)", "(,'a')", "'a','b'", "'a'b", "()", "('a'))", "-1", "1.5", "٣"],
)
def test_any_other_text_is_refused_with_its_reason(text: str) -> None:
    with pytest.raises(ValueError, match=r"character|no value|closed"):
        list(split_values(text))


def test_the_example_of_the_technical_framework_is_read() -> None:
    query = decode_query(
        request(
            FIND_DOCUMENTS,
            PATIENT,
            APPROVED,
            ("$XDSDocumentEntryTypeCode", "('18842-5^^2.16.840.1.113883.6.1','11488-4^^2.16.840.1.113883.6.1')"),
            ("$XDSDocumentEntryCreationTimeFrom", "20240101"),
            ("$XDSDocumentEntryType", f"('{STABLE}','{ON_DEMAND}')"),
        )
    )
    assert isinstance(query, FindDocuments)
    assert query.patient_id == "p100^^^&1.2.3.4&ISO"
    assert query.status == (Status.APPROVED,)
    assert query.type_code == (("18842-5^^2.16.840.1.113883.6.1", "11488-4^^2.16.840.1.113883.6.1"),)
    assert query.creation_time_from == "20240101"
    assert query.object_type == (STABLE, ON_DEMAND)
    assert query.return_type is ReturnType.LEAF_CLASS


def test_several_values_of_a_slot_are_alternatives_and_repeated_slots_must_all_match() -> None:
    name = "$XDSDocumentEntryConfidentialityCode"
    query = decode_query(
        request(FIND_DOCUMENTS, PATIENT, APPROVED, (name, "('N^^1.2')", "('R^^1.2')"), (name, "('V^^1.2')"))
    )
    assert isinstance(query, FindDocuments)
    assert query.confidentiality_code == (("N^^1.2", "R^^1.2"), ("V^^1.2",))


def test_a_parameter_without_and_semantics_may_be_given_once() -> None:
    name = "$XDSDocumentEntryClassCode"
    assert refused(request(FIND_DOCUMENTS, PATIENT, APPROVED, (name, "('a^^1.2')"), (name, "('b^^1.2')"))) == [
        ("XDSStoredQueryParamNumber", "Parameter $XDSDocumentEntryClassCode is given 2 times; it may be given once")
    ]


def test_an_unknown_query_is_refused() -> None:
    unknown = "urn:uuid:00000000-0000-0000-0000-000000000000"
    assert refused(request(unknown)) == [
        ("XDSUnknownStoredQuery", f"AdhocQuery id '{unknown}' is no stored query that this registry knows")
    ]


def test_the_query_id_is_compared_without_case() -> None:
    assert isinstance(decode_query(request(FIND_DOCUMENTS.upper(), PATIENT, APPROVED)), FindDocuments)


def test_every_missing_required_parameter_is_named() -> None:
    assert refused(request(FIND_DOCUMENTS)) == [
        ("XDSStoredQueryMissingParam", "Parameter $XDSDocumentEntryPatientId is missing"),
        ("XDSStoredQueryMissingParam", "Parameter $XDSDocumentEntryStatus is missing"),
    ]


def test_a_slot_without_values_is_a_missing_parameter() -> None:
    assert refused(request(FIND_DOCUMENTS, (PATIENT[0],), APPROVED))[0][0] == "XDSStoredQueryMissingParam"


def test_a_status_that_is_none_counts_as_missing() -> None:
    assert refused(request(FIND_DOCUMENTS, PATIENT, (APPROVED[0], "('urn:x:Fancy')"))) == [
        ("XDSStoredQueryMissingParam", "Parameter $XDSDocumentEntryStatus is missing")
    ]


def test_an_unknown_object_type_is_ignored() -> None:
    query = decode_query(request(FIND_DOCUMENTS, PATIENT, APPROVED, ("$XDSDocumentEntryType", "('urn:uuid:x')")))
    assert isinstance(query, FindDocuments)
    assert query.object_type == (STABLE,)


def test_two_values_for_a_single_valued_parameter_are_refused() -> None:
    assert refused(request(FIND_DOCUMENTS, (PATIENT[0], "('a^^^&1.2&ISO','b^^^&1.2&ISO')"), APPROVED)) == [
        ("XDSStoredQueryParamNumber", "Parameter $XDSDocumentEntryPatientId has 2 values; it takes one")
    ]


@pytest.mark.parametrize("code", ["a", "a^^", "^^1.2", "a^1.2"])
def test_a_code_without_its_scheme_is_refused(code: str) -> None:
    """Conformance test 11897 of the NIST suite."""
    problem = refused(request(FIND_DOCUMENTS, PATIENT, APPROVED, ("$XDSDocumentEntryClassCode", f"('{code}')")))
    assert problem == [
        ("XDSRegistryError", f"Parameter $XDSDocumentEntryClassCode: {code!r} is not of the form code^^codingScheme")
    ]


def test_a_bad_time_names_parameter_and_value() -> None:
    assert refused(request(FIND_DOCUMENTS, PATIENT, APPROVED, ("$XDSDocumentEntryCreationTimeTo", "'2024-01'"))) == [
        (
            "XDSRegistryError",
            "Parameter $XDSDocumentEntryCreationTimeTo: '2024-01' is not a time of 4, 6, 8, 10, 12 or 14 digits",
        )
    ]


def test_parameters_of_no_known_name_are_ignored() -> None:
    assert decode_query(request(FIND_DOCUMENTS, PATIENT, APPROVED, ("$Other", "nonsense")))


@pytest.mark.parametrize("return_type", ["RegistryObject", "LeafClassWithRepositoryItem", "leafclass", ""])
def test_another_return_type_is_refused(return_type: str) -> None:
    assert refused(request(FIND_DOCUMENTS, PATIENT, APPROVED, return_type=return_type)) == [
        ("XDSRegistryError", f"ResponseOption: returnType {return_type!r} is not ObjectRef or LeafClass")
    ]


def test_exactly_one_of_entry_uuid_and_unique_id_is_needed() -> None:
    uuid, unique = ("$XDSDocumentEntryEntryUUID", "('urn:uuid:1')"), ("$XDSDocumentEntryUniqueId", "('1.2')")
    assert refused(request(GET_DOCUMENTS))[0][0] == "XDSStoredQueryMissingParam"
    assert refused(request(GET_DOCUMENTS, uuid, unique))[0][0] == "XDSStoredQueryParamNumber"
    assert decode_query(request(GET_DOCUMENTS, unique)) == GetDocuments(unique_id=("1.2",))


def test_an_entry_uuid_is_compared_in_lower_case() -> None:
    query = decode_query(request(GET_DOCUMENTS, ("$XDSDocumentEntryEntryUUID", "('URN:UUID:AB')")))
    assert query == GetDocuments(entry_uuid=("urn:uuid:ab",))


def test_the_author_of_a_submission_set_is_one_pattern() -> None:
    slots = (("$XDSSubmissionSetPatientId", PATIENT[1]), ("$XDSSubmissionSetStatus", APPROVED[1]))
    author = ("$XDSSubmissionSetAuthorPerson", "'%Muster%'")
    query = decode_query(request(FindSubmissionSets.query_id, *slots, author))
    assert isinstance(query, FindSubmissionSets)
    assert query.author_person == ("%Muster%",)
