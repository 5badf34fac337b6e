"""ITI-51 Multi-Patient Stored Query: which queries it takes, what they need, and what they find (ITI TF-2 3.51)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from lxml import etree

from registry.iti18_stored_query import stored_query
from registry.patients import add_patient
from registry.schema import upgrade
from registry.store import Footprint, Store, open_engine
from schemas import rim
from schemas.ns import QUERY, RIM
from schemas.query import decode_query, encode_query
from xds.metadata import DocumentEntry, Folder, ObjectRef
from xds.problems import Failure
from xds.queries import (
    FindDocuments,
    FindDocumentsByReferenceIdForMultiplePatients,
    FindDocumentsForMultiplePatients,
    FindFoldersForMultiplePatients,
    ReturnType,
)
from xds.values import Code, Identifier, ReferenceId, Timestamp, UniqueId
from xds.vocabulary import Status

PATIENTS = tuple(Identifier.of(f"p{number}", "1.2.3.4") for number in range(4))
REFERENCE = "1^^^&1.2&ISO^urn:ihe:iti:xds:2013:accession"
STATUS = ("$XDSDocumentEntryStatus", f"('{Status.APPROVED}')")


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    """Four patients: each has a document and a folder; the first two share codes, and the first has a reference."""
    engine = open_engine(module_database)
    upgrade(engine)
    made = Store(engine)
    for number, patient in enumerate(PATIENTS):
        code = Code.of("A" if number < 2 else "B", "1.2", "")
        ids = [f"urn:uuid:{uuid.uuid4()}" for _ in range(2)]
        entry = DocumentEntry(
            entry_uuid=ids[0],
            patient_id=patient,
            unique_id=UniqueId(f"1.2.{number}"),
            class_code=code,
            healthcare_facility_type_code=code,
            event_code_list=(code,),
            reference_id_list=() if number else (ReferenceId(REFERENCE),),
        )
        folder = Folder(
            entry_uuid=ids[1],
            patient_id=patient,
            unique_id=UniqueId(f"1.3.{number}"),
            code_list=(code,),
            last_update_time=Timestamp("20240101000000"),
        )
        made.write(
            Footprint(),
            lambda unit, objects=(entry, folder), patient=patient: unit.add(objects, patient_id=str(patient)),  # type: ignore[misc]
        )
    yield made
    made.close()


def patients_of(store: Store, query: Any, **options: Any) -> list[int]:
    """Whose objects are found, asked for whole: several patients are allowed here."""
    found = list(rim.decode_fragments(stored_query(query, store=store, **options).fragments))
    as_reference = replace(query, return_type=ReturnType.OBJECT_REF)
    references = list(rim.decode_fragments(stored_query(as_reference, store=store, **options).fragments))
    assert all(isinstance(one, ObjectRef) for one in references)
    assert {one.entry_uuid for one in references} == {one.entry_uuid for one in found}
    return sorted(
        PATIENTS.index(one.patient_id) for one in found if isinstance(one, DocumentEntry | Folder) and one.patient_id
    )


def request(query_id: str, *slots: tuple[str, ...]) -> etree._Element:
    root = etree.Element(f"{{{QUERY}}}AdhocQueryRequest")
    etree.SubElement(root, f"{{{QUERY}}}ResponseOption", returnType="LeafClass")
    adhoc = etree.SubElement(root, f"{{{RIM}}}AdhocQuery", id=query_id)
    for name, *values in slots:
        value_list = etree.SubElement(etree.SubElement(adhoc, f"{{{RIM}}}Slot", name=name), f"{{{RIM}}}ValueList")
        for value in values:
            etree.SubElement(value_list, f"{{{RIM}}}Value").text = value
    return root


def refused(element: etree._Element, *, multi_patient: bool = True) -> list[tuple[str, str]]:
    with pytest.raises(Failure) as failure:
        decode_query(element, multi_patient=multi_patient)
    return [(problem.code, problem.context) for problem in failure.value.problems]


def test_documents_of_several_patients_are_found_together(store: Store) -> None:
    """3.51.4.1.2.3.1; XDSResultNotSinglePatient is not for ITI-51."""
    query = FindDocumentsForMultiplePatients(patient_id=PATIENTS[:3])
    assert patients_of(store, query) == [0, 1, 2]
    assert patients_of(store, replace(query, class_code=(("B^^1.2",),))) == [2]
    assert patients_of(store, replace(query, patient_id=(PATIENTS[3], Identifier.of("nobody", "1.2.3.4")))) == [3]


@pytest.mark.parametrize("attribute", ["class_code", "event_code_list", "healthcare_facility_type_code"])
def test_without_a_patient_all_are_asked(store: Store, attribute: str) -> None:
    query = FindDocumentsForMultiplePatients(**{attribute: (("A^^1.2",),)})  # type: ignore[arg-type]
    assert patients_of(store, query) == [0, 1]


def test_folders_of_several_patients_are_found_together(store: Store) -> None:
    """3.51.4.1.2.3.2."""
    assert patients_of(store, FindFoldersForMultiplePatients(patient_id=PATIENTS[1:3])) == [1, 2]
    assert patients_of(store, FindFoldersForMultiplePatients(code_list=(("B^^1.2",),))) == [2, 3]
    assert patients_of(store, FindFoldersForMultiplePatients(code_list=(("B^^1.2",), ("A^^1.2",)))) == []


def test_documents_of_several_patients_are_found_by_reference(store: Store) -> None:
    query = FindDocumentsByReferenceIdForMultiplePatients(reference_id_list=((REFERENCE,),))
    assert patients_of(store, query) == [0]
    assert patients_of(store, replace(query, patient_id=PATIENTS[1:])) == []


def test_more_patients_than_a_statement_takes_are_asked_at_once(store: Store) -> None:
    many = tuple(Identifier.of(f"p{number}", "1.2.3.4") for number in range(2000))
    assert patients_of(store, FindDocumentsForMultiplePatients(patient_id=many)) == [0, 1, 2, 3]


def test_every_unknown_patient_is_named_where_that_is_an_error(store: Store) -> None:
    add_patient(store, PATIENTS[0])
    query = FindDocumentsForMultiplePatients(patient_id=PATIENTS[:3])
    with pytest.raises(Failure) as failure:
        stored_query(query, store=store, unknown_patient="error")
    assert [(one.code, one.context) for one in failure.value.problems] == [
        ("XDSUnknownPatientId", f"patient {str(one)!r} is not known to this registry") for one in PATIENTS[1:3]
    ]
    assert patients_of(store, replace(query, patient_id=PATIENTS[:1]), unknown_patient="error") == [0]


def test_no_parameter_at_all_is_refused() -> None:
    """Conformance test 12364: an empty set of parameters."""
    query_id = FindDocumentsForMultiplePatients.query_id
    assert refused(request(query_id)) == [
        ("XDSStoredQueryMissingParam", "Parameter $XDSDocumentEntryStatus is missing")
    ]


def test_one_of_the_named_parameters_is_needed() -> None:
    """3.51.4.1.2.3."""
    assert refused(request(FindDocumentsForMultiplePatients.query_id, STATUS)) == [
        (
            "XDSStoredQueryMissingParam",
            "One of the parameters $XDSDocumentEntryPatientId and $XDSDocumentEntryClassCode and"
            " $XDSDocumentEntryEventCodeList and $XDSDocumentEntryHealthcareFacilityTypeCode is required",
        )
    ]
    folders = request(FindFoldersForMultiplePatients.query_id, ("$XDSFolderStatus", STATUS[1]))
    assert refused(folders)[0][0] == "XDSStoredQueryMissingParam"
    code = ("$XDSDocumentEntryClassCode", "('A^^1.2')")
    assert decode_query(request(FindDocumentsForMultiplePatients.query_id, STATUS, code), multi_patient=True)


def test_patients_are_listed_in_parentheses_and_over_several_values() -> None:
    """3.51.5: the example of the technical framework."""
    one, two = (f"('{PATIENTS[n]}')" for n in (0, 1))
    asked = decode_query(
        request(FindDocumentsForMultiplePatients.query_id, ("$XDSDocumentEntryPatientId", one, two), STATUS),
        multi_patient=True,
    )
    assert isinstance(asked, FindDocumentsForMultiplePatients)
    assert asked.patient_id == PATIENTS[:2]


def test_each_transaction_takes_its_own_queries_only() -> None:
    """XDSUnknownStoredQuery for a query of the other one."""
    single = etree.fromstring(encode_query(FindDocuments(patient_id=PATIENTS[0])))
    several = etree.fromstring(encode_query(FindDocumentsForMultiplePatients(patient_id=PATIENTS)))
    assert refused(single)[0] == (
        "XDSUnknownStoredQuery",
        f"AdhocQuery id {FindDocuments.query_id!r} is FindDocuments, a query of ITI-18 and not of ITI-51",
    )
    assert refused(several, multi_patient=False)[0][0] == "XDSUnknownStoredQuery"
    assert isinstance(decode_query(single), FindDocuments)
    assert isinstance(decode_query(several, multi_patient=True), FindDocumentsForMultiplePatients)
