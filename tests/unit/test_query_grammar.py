"""The parameters of stored queries: their syntax, and the exact error for each wrong one (ITI TF-2 3.18.4.1.2.3, 3.18.4.1.3)."""

from __future__ import annotations

import pytest
from lxml import etree

from schemas.query import MAX_VALUE_CHARS, decode_query, split_values
from schemas.query_parameters import AT_LEAST_ONE, AT_MOST_ONE, MAX_ALTERNATIVES, MAX_VALUES, PARAMETERS
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindDocumentsByReferenceId,
    FindDocumentsExclude,
    FindSubmissionSets,
    GetAll,
    GetAssociations,
    GetDocuments,
    GetFolders,
    GetRelatedDocuments,
    GetSubmissionSetAndContents,
    ReturnType,
    StoredQuery,
)
from xds.values import Identifier
from xds.vocabulary import ON_DEMAND, STABLE, Status

FIND_DOCUMENTS = "urn:uuid:14d4debf-8f97-4251-9a74-a90016b0af0d"
GET_DOCUMENTS = "urn:uuid:5c4f972b-d56b-40ac-a5fc-c8ca9b40b9d4"
PATIENT = ("$XDSDocumentEntryPatientId", "'p100^^^&1.2.3.4&ISO'")
APPROVED = ("$XDSDocumentEntryStatus", f"('{Status.APPROVED}')")


def request(
    query_id: str, *slots: tuple[str, ...], return_type: str = "LeafClass", **adhoc_query: str
) -> etree._Element:
    rim = "urn:oasis:names:tc:ebxml-regrep:xsd:rim:3.0"
    query = "urn:oasis:names:tc:ebxml-regrep:xsd:query:3.0"
    root = etree.Element(f"{{{query}}}AdhocQueryRequest")
    etree.SubElement(root, f"{{{query}}}ResponseOption", returnType=return_type)
    adhoc = etree.SubElement(root, f"{{{rim}}}AdhocQuery", {"id": query_id} | adhoc_query)
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


# --- what each query needs --------------------------------------------------------------------------------------------

TEXTS = {
    "patient": "'p100^^^&1.2.3.4&ISO'",
    "status": f"('{Status.APPROVED}')",
    "uuid": "('urn:uuid:1')",
    "text": "('1.2')",
    "reference": "('1^^^&1.2&ISO^urn:ihe:iti:xds:2013:accession')",
}
SINGLE_PATIENT = [kind for kind in PARAMETERS if not kind.__name__.endswith("MultiplePatients")]
BY_ID = [kind for kind in SINGLE_PATIENT if "entry_uuid" in PARAMETERS[kind]]


def required(kind: type[StoredQuery]) -> list[tuple[str, ...]]:
    """A slot for each required parameter of a query."""
    return [(row.name, TEXTS[row.syntax]) for row in PARAMETERS[kind].values() if row.required]


@pytest.mark.parametrize("kind", SINGLE_PATIENT)
def test_each_required_parameter_is_missed_by_its_name(kind: type[StoredQuery]) -> None:
    """XDSStoredQueryMissingParam (3.18.4.1.3)."""
    slots = required(kind)
    ids = [(PARAMETERS[kind]["entry_uuid"].name, "'urn:uuid:1'")] if kind in BY_ID else []
    assert type(decode_query(request(kind.query_id, *slots, *ids))) is kind
    for missing in slots:
        assert refused(request(kind.query_id, *(one for one in slots if one != missing), *ids)) == [
            ("XDSStoredQueryMissingParam", f"Parameter {missing[0]} is missing")
        ]


@pytest.mark.parametrize("kind", BY_ID)
def test_a_get_query_takes_exactly_one_kind_of_id(kind: type[StoredQuery]) -> None:
    """Table 3.18.4.1.2.3.7: neither is a missing parameter, both are too many."""
    slots = required(kind)
    by_uuid, by_unique_id = (PARAMETERS[kind][field] for field in ("entry_uuid", "unique_id"))
    assert [code for code, _ in refused(request(kind.query_id, *slots))] == ["XDSStoredQueryMissingParam"]
    both = refused(request(kind.query_id, *slots, (by_uuid.name, "'urn:uuid:1'"), (by_unique_id.name, "'1.2'")))
    assert both == [
        (
            "XDSStoredQueryParamNumber",
            f"Parameters {by_uuid.name} and {by_unique_id.name} exclude each other; both are given",
        )
    ]
    if not by_uuid.many:
        for row in (by_uuid, by_unique_id):
            assert refused(request(kind.query_id, *slots, (row.name, "('1','2')"))) == [
                ("XDSStoredQueryParamNumber", f"Parameter {row.name} has 2 values; it takes one")
            ]


def test_every_query_that_needs_one_of_several_parameters_says_so() -> None:
    assert len(BY_ID) == 7
    assert set(BY_ID) < set(AT_LEAST_ONE)
    assert {*BY_ID, FindDocumentsExclude} == set(AT_MOST_ONE)


@pytest.mark.parametrize("one", [pair[0] for pair in AT_MOST_ONE[FindDocumentsExclude]])
def test_a_parameter_and_its_exclusion_exclude_each_other(one: str) -> None:
    row, twin = PARAMETERS[FindDocumentsExclude][one], PARAMETERS[FindDocumentsExclude][f"{one}_exclude"]
    assert twin.name == f"{row.name}Exclude"
    value = {"type": f"('{STABLE}')", "code": "('a^^1.2')"}.get(row.syntax, TEXTS["text"])
    given = [PATIENT, APPROVED, (row.name, value)]
    assert decode_query(request(FindDocumentsExclude.query_id, *given))
    assert [code for code, _ in refused(request(FindDocumentsExclude.query_id, *given, (twin.name, value)))] == [
        "XDSStoredQueryParamNumber"
    ]


def test_references_are_read_in_their_groups() -> None:
    """3.18.4.1.2.3.7.14: $XDSDocumentEntryReferenceIdList knows AND."""
    name, value = "$XDSDocumentEntryReferenceIdList", "1^^^&1.2&ISO^urn:ihe:iti:xds:2013:accession"
    slots = (PATIENT, APPROVED, (name, f"('{value}')"), (name, f"('{value}','x')"))
    query = decode_query(request(FindDocumentsByReferenceId.query_id, *slots))
    assert isinstance(query, FindDocumentsByReferenceId)
    assert query.reference_id_list == ((value,), (value, "x"))


def test_a_single_value_may_stand_in_parentheses() -> None:
    """Lenient: both forms are in use for parameters of one value."""
    for value in ("'urn:uuid:AB'", "('urn:uuid:AB')", " ( 'urn:uuid:AB' ) "):
        query = decode_query(request(GetSubmissionSetAndContents.query_id, ("$XDSSubmissionSetEntryUUID", value)))
        assert query == GetSubmissionSetAndContents(entry_uuid="urn:uuid:ab")


def test_the_types_of_associations_are_whole_urns() -> None:
    rplc = "urn:ihe:iti:2007:AssociationType:RPLC"
    slots = (("$AssociationTypes", f"('{rplc}')"), ("$XDSDocumentEntryUniqueId", "'1.2'"))
    query = decode_query(request(GetRelatedDocuments.query_id, *slots))
    assert query == GetRelatedDocuments(unique_id="1.2", association_types=(rplc,))


def test_get_all_has_a_patient_parameter_of_its_own() -> None:
    """3.18.4.1.2.3.7.4: $patientId."""
    query = decode_query(request(GetAll.query_id, *required(GetAll)))
    assert query == GetAll(patient_id=Identifier("p100^^^&1.2.3.4&ISO"))
    assert ("$patientId", PATIENT[1]) in required(GetAll)


# --- Metadata Update, homeCommunityId ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "level"), [("1", 1), ("2", 2), ("'2'", 2)])
def test_the_metadata_level_is_a_number(text: str, level: int) -> None:
    assert decode_query(request(FIND_DOCUMENTS, PATIENT, APPROVED)).metadata_level == 1
    assert decode_query(request(FIND_DOCUMENTS, PATIENT, APPROVED, ("$MetadataLevel", text))).metadata_level == level


@pytest.mark.parametrize("text", ["0", "3", "02", "-1", "two", "''"])
def test_any_other_metadata_level_is_refused(text: str) -> None:
    assert [code for code, _ in refused(request(FIND_DOCUMENTS, PATIENT, APPROVED, ("$MetadataLevel", text)))] == [
        "XDSRegistryError"
    ]


@pytest.mark.parametrize(
    ("kind", "name"), [(GetDocuments, "$XDSDocumentEntryLogicalID"), (GetFolders, "$XDSFolderLogicalID")]
)
def test_a_logical_id_is_for_level_2(kind: type[StoredQuery], name: str) -> None:
    logical, level = (name, "('urn:uuid:1')"), ("$MetadataLevel", "2")
    assert refused(request(kind.query_id, logical)) == [
        ("XDSRegistryError", f"Parameter {name} needs $MetadataLevel 2")
    ]
    query = decode_query(request(kind.query_id, logical, level))
    assert isinstance(query, GetDocuments | GetFolders)
    assert query.logical_id == ("urn:uuid:1",)
    both = request(kind.query_id, logical, level, (name.replace("LogicalID", "UniqueId"), "('1.2')"))
    assert [code for code, _ in refused(both)] == ["XDSStoredQueryParamNumber"]


def test_associations_are_asked_for_by_status() -> None:
    uuid = ("$uuid", "('urn:uuid:1')")
    query = decode_query(request(GetAssociations.query_id, uuid))
    assert isinstance(query, GetAssociations)
    assert query.association_status == (Status.APPROVED,)
    both = ("$XDSAssociationStatus", f"('{Status.APPROVED}','{Status.DEPRECATED}')")
    query = decode_query(request(GetAssociations.query_id, uuid, both))
    assert isinstance(query, GetAssociations)
    assert query.association_status == (Status.APPROVED, Status.DEPRECATED)


def test_the_community_that_is_asked_is_kept() -> None:
    """3.18.4.1.2.3.8: the attribute home; others of the request are ignored."""
    named = request(FIND_DOCUMENTS, PATIENT, APPROVED, home="urn:oid:1.2.3")
    named.set("startIndex", "5")
    named.set("maxResults", "1")
    assert decode_query(named).home_community_id == "urn:oid:1.2.3"
    assert decode_query(request(FIND_DOCUMENTS, PATIENT, APPROVED, home=" ")).home_community_id is None


# --- bounds -----------------------------------------------------------------------------------------------------------


def listed(values: int, form: str = "'{}'") -> str:
    return "(" + ",".join(form.format(n) for n in range(values)) + ")"


def test_a_request_lists_so_many_values_and_no_more() -> None:
    name = "$XDSDocumentEntryUniqueId"
    query = decode_query(request(GET_DOCUMENTS, (name, listed(MAX_VALUES))))
    assert isinstance(query, GetDocuments)
    assert len(query.unique_id) == MAX_VALUES
    problems = refused(request(GET_DOCUMENTS, (name, listed(MAX_VALUES + 1))))
    assert {code for code, _ in problems} == {"XDSStoredQueryParamNumber"}
    assert f"Parameter {name} has {MAX_VALUES + 1} values; the limit is {MAX_VALUES}" in [text for _, text in problems]


def test_the_limit_holds_over_all_parameters() -> None:
    half = listed(MAX_VALUES // 2, "'{}^^1.2'")
    slots = [(f"$XDSDocumentEntry{name}Code", half) for name in ("Class", "Type")]
    assert refused(request(FIND_DOCUMENTS, PATIENT, APPROVED, *slots)) == [
        ("XDSStoredQueryParamNumber", f"FindDocuments lists {MAX_VALUES + 2} values; the limit is {MAX_VALUES}")
    ]


@pytest.mark.parametrize("name", ["EventCodeList", "ConfidentialityCode", "AuthorPerson"])
def test_what_is_compared_value_by_value_has_a_limit_of_its_own(name: str) -> None:
    for slots in ([MAX_ALTERNATIVES + 1], [MAX_ALTERNATIVES, 1]):
        given = [(f"$XDSDocumentEntry{name}", listed(count, "'{}^^1.2'")) for count in slots]
        assert {code for code, _ in refused(request(FIND_DOCUMENTS, PATIENT, APPROVED, *given))} == {
            "XDSStoredQueryParamNumber"
        }


def test_a_value_has_a_limit() -> None:
    value = "x" * (MAX_VALUE_CHARS + 1)
    (problem,) = refused(request(GET_DOCUMENTS, ("$XDSDocumentEntryUniqueId", f"('{value}')")))
    assert problem[0] == "XDSRegistryError"
    assert problem[1].endswith(f"has {MAX_VALUE_CHARS + 1} characters; the limit is {MAX_VALUE_CHARS}")
