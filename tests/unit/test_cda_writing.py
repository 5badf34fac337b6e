"""A CDA document around a text or a PDF: to our own reader its header says what the metadata say; its elements stand in HL7's order."""

from __future__ import annotations

import base64
from dataclasses import fields, replace

import pytest
from lxml import etree

from schemas import cda, cda_writing
from schemas.cda_writing import Custodian
from xds.metadata import Author, DocumentEntry
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Organization,
    Person,
    PidField,
    ReferenceId,
    Text,
    Timestamp,
    UniqueId,
)
from xds.vocabulary import REFERENCE_ACCESSION, REFERENCE_ORDER, REFERENCE_STUDY_INSTANCE_UID

PATIENT = Identifier.of("MRN|7", "1.2.3.11")
ENTRY = DocumentEntry(
    entry_uuid="",
    author=(
        Author(
            author_person=Person(r"D\T\7^O\S\Leary^Hans^^Jr.^Dr.^^^&1.2.3.12&ISO"),
            author_institution=(Organization(r"North \T\ Co^^^^^&1.2.3.13&ISO^^^^N\F\1"),),
        ),
        Author(author_institution=(Organization("South^^^^^^^^^1.2.3.14"),)),
    ),
    confidentiality_code=(Code.of("R", "2.16.840.1.113883.5.25", "Restricted"),),
    creation_time=Timestamp("20260201103000"),
    event_code_list=(
        Code.of("CT", "1.2.840.10008.2.16.4", "Computed Tomography"),
        Code.of("51185008", "2.16.840.1.113883.6.96", "Chest"),
    ),
    format_code=Code.of("urn:ihe:rad:TEXT", "1.3.6.1.4.1.19376.1.2.3", "CDA Wrapped Text Report"),
    language_code=LanguageCode("de-AT"),
    legal_authenticator=Person("D8^Chief^^^^^^^&1.2.3.12&ISO"),
    mime_type=MimeType("text/xml"),
    reference_id_list=(
        ReferenceId.of("A^17&", REFERENCE_ACCESSION, "1.2.3.9"),
        ReferenceId.of("A18", REFERENCE_ACCESSION),
        ReferenceId.of("1.2.840.99.1", REFERENCE_STUDY_INSTANCE_UID),
        ReferenceId.of("1.2.840.99.2", REFERENCE_STUDY_INSTANCE_UID),
    ),
    service_start_time=Timestamp("202602010915"),
    service_stop_time=Timestamp("20260201"),
    source_patient_id=PATIENT,
    source_patient_info=(
        PidField(f"PID-3|{PATIENT}"),
        PidField(r"PID-5|Muster\R\^Anna^^^Dr."),
        PidField("PID-7|19700101"),
        PidField("PID-8|O"),
    ),
    title=Text.of('CT <chest> & "more"'),
    type_code=Code.of("24627-2", "2.16.840.1.113883.6.1", "CT Chest"),
    unique_id=UniqueId("2.25.17"),
)
CUSTODIAN = Custodian(name="North", oid="1.2.3.99")
#: The children of a ClinicalDocument in the order of HL7's schema, as far as we write them (CDA R2 4.2).
ORDER = [
    *("typeId", "templateId", "id", "code", "title", "effectiveTime", "confidentialityCode", "languageCode"),
    *("recordTarget", "author", "custodian", "legalAuthenticator", "inFulfillmentOf", "documentationOf", "component"),
]


def written(entry: DocumentEntry, content: bytes = b"text", media_type: str = "text/plain") -> etree._Element:
    return etree.fromstring(cda_writing.write(entry, content, media_type, custodian=CUSTODIAN))


def test_the_reader_reads_what_was_written() -> None:
    read = cda.read_header(written(ENTRY))
    assert {one.name: getattr(read, one.name) for one in fields(read)} == {
        one.name: getattr(ENTRY, one.name) for one in fields(ENTRY)
    }


def test_a_wrapped_pdf_is_a_scanned_document_with_the_same_metadata() -> None:
    scanned = Code.of("urn:ihe:iti:xds-sd:pdf:2008", "1.3.6.1.4.1.19376.1.2.3", "Scanned document, pdf")
    entry = replace(ENTRY, format_code=scanned)
    root = written(entry, b"%PDF-1.7\n\x00\xff", "application/pdf")
    assert cda.read_header(root) == entry
    (text,) = root.iterfind(".//{*}nonXMLBody/{*}text")
    assert (text.get("mediaType"), text.get("representation")) == ("application/pdf", "B64")
    assert base64.b64decode(text.text or "") == b"%PDF-1.7\n\x00\xff"
    assert [one.get("root") for one in root.iterfind("{*}templateId")] == ["1.3.6.1.4.1.19376.1.2.20"]


def test_text_stays_as_it_is() -> None:
    text = "Grüße <b>\n  two  spaces\n\n&amp; \u4e2d\n"
    (found,) = written(ENTRY, text.encode()).iterfind(".//{*}nonXMLBody/{*}text")
    assert (found.text, found.get("mediaType"), found.get("representation")) == (text, "text/plain", None)


def test_the_elements_stand_in_the_order_of_the_schema() -> None:
    root = written(replace(ENTRY, format_code=Code.of("urn:ihe:iti:xds-sd:text:2008", "1.2", "x")))
    names = [etree.QName(one).localname for one in root]
    assert names == sorted(names, key=ORDER.index)
    assert set(names) == set(ORDER)


@pytest.mark.parametrize(
    "entry",
    [
        replace(ENTRY, legal_authenticator=None, reference_id_list=(), event_code_list=()),
        replace(ENTRY, service_start_time=None, service_stop_time=None, title=Text(), language_code=None),
        replace(ENTRY, author=(Author(author_person=Person("^Somebody")),), creation_time=Timestamp("20260201")),
        replace(ENTRY, source_patient_info=(PidField(f"PID-3|{PATIENT}"), PidField("PID-8|U"))),
        replace(ENTRY, service_start_time=None),
    ],
)
def test_what_is_not_known_is_left_out_and_comes_back_so(entry: DocumentEntry) -> None:
    assert cda.read_header(written(entry)) == entry


def test_order_numbers_are_no_accession_numbers() -> None:
    order = ReferenceId.of("F88", REFERENCE_ORDER, "1.2.3.88")
    read = cda.read_header(written(replace(ENTRY, reference_id_list=(order,))))
    assert read.reference_id_list == ()


def test_the_same_report_makes_the_same_bytes() -> None:
    one, other = (cda_writing.write(ENTRY, b"text", "text/plain", custodian=CUSTODIAN) for _ in range(2))
    assert one == other
