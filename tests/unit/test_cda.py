"""The header of CDA documents as metadata: an imaging report, a scanned letter, and documents that say little or nonsense."""

from __future__ import annotations

import pytest
from lxml import etree

from schemas import cda
from xds.metadata import DocumentEntry

REPORT = """<ClinicalDocument xmlns="urn:hl7-org:v3">
  <typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/>
  <templateId root="1.2.840.10008.9.1"/>
  <id root="1.2.3.4.5" extension="R17"/>
  <code code="24627-2" codeSystem="2.16.840.1.113883.6.1" displayName="CT Chest"/>
  <title>CT of the
     chest</title>
  <effectiveTime value="20260201103000.123+0100"/>
  <confidentialityCode code="R" codeSystem="2.16.840.1.113883.5.25"/>
  <languageCode code="de-AT"/>
  <recordTarget><patientRole>
    <id root="1.2.3.11" extension="MRN7"/>
    <patient>
      <name><prefix>Dr.</prefix><given>Anna</given><given>Maria</given><family>Muster</family></name>
      <administrativeGenderCode code="F" codeSystem="2.16.840.1.113883.5.1"/>
      <birthTime value="19700101"/>
    </patient>
  </patientRole></recordTarget>
  <author><time value="20260201"/><assignedAuthor>
    <id root="1.2.3.12" extension="D7"/>
    <assignedPerson><name><given>Hans</given><family>O^Leary</family></name></assignedPerson>
    <representedOrganization><id root="1.2.3.13"/><name>Radiology &amp; Co</name></representedOrganization>
  </assignedAuthor></author>
  <legalAuthenticator><time value="20260201"/><signatureCode code="S"/><assignedEntity>
    <id root="1.2.3.12" extension="D8"/><assignedPerson><name>Chief</name></assignedPerson>
  </assignedEntity></legalAuthenticator>
  <inFulfillmentOf><order><id root="1.2.3.9" extension="A-17"/></order></inFulfillmentOf>
  <documentationOf><serviceEvent>
    <id root="1.2.840.99.1"/>
    <effectiveTime><low value="202602010915-0330"/><high value="20260201"/></effectiveTime>
  </serviceEvent></documentationOf>
  <component><structuredBody/></component>
</ClinicalDocument>"""
SCANNED = """<ClinicalDocument xmlns="urn:hl7-org:v3">
  <templateId root="1.3.6.1.4.1.19376.1.2.20"/><id root="1.2.3.4.6"/>
  <component><nonXMLBody><text mediaType="{}" representation="B64">AAAA</text></nonXMLBody></component>
</ClinicalDocument>"""


def read(text: str) -> DocumentEntry:
    return cda.read_header(etree.fromstring(text))


def test_the_header_of_an_imaging_report_is_its_metadata() -> None:
    entry = read(REPORT)
    assert entry.unique_id == "1.2.3.4.5^R17"
    assert entry.mime_type == "text/xml"
    assert entry.type_code is not None and entry.type_code.key == "24627-2^^2.16.840.1.113883.6.1"
    assert str(entry.type_code.display) == "CT Chest"
    assert [one.code for one in entry.confidentiality_code] == ["R"]
    assert entry.format_code is not None
    assert entry.format_code.code == "urn:ihe:rad:CDA:ImagingReportStructuredHeadings:2013"
    assert (entry.language_code, str(entry.title)) == ("de-AT", "CT of the chest")
    assert entry.creation_time == "20260201093000"
    assert (entry.service_start_time, entry.service_stop_time) == ("202602011245", "20260201")
    assert entry.source_patient_id == "MRN7^^^&1.2.3.11&ISO"
    assert entry.source_patient_info == (
        "PID-3|MRN7^^^&1.2.3.11&ISO",
        "PID-5|Muster^Anna Maria^^^Dr.",
        "PID-7|19700101",
        "PID-8|F",
    )
    (author,) = entry.author
    assert author.author_person == r"D7^O\S\Leary^Hans^^^^^^&1.2.3.12&ISO"
    assert author.author_institution == (r"Radiology \T\ Co^^^^^^^^^1.2.3.13",)
    assert entry.legal_authenticator == "D8^Chief^^^^^^^&1.2.3.12&ISO"
    assert entry.reference_id_list == (
        "A-17^^^&1.2.3.9&ISO^urn:ihe:iti:xds:2013:accession",
        "1.2.840.99.1^^^^urn:ihe:iti:xds:2016:studyInstanceUID",
    )
    for value in (
        author.author_person,
        *author.author_institution,
        entry.legal_authenticator,
        *entry.reference_id_list,
    ):
        assert value is not None and value.fault is None


@pytest.mark.parametrize(("media_type", "kind"), [("application/pdf", "pdf"), ("text/plain", "text")])
def test_a_scanned_document_has_the_format_of_what_is_in_it(media_type: str, kind: str) -> None:
    entry = read(SCANNED.format(media_type))
    assert entry.format_code is not None and entry.format_code.code == f"urn:ihe:iti:xds-sd:{kind}:2008"
    assert entry.unique_id == "1.2.3.4.6"


@pytest.mark.parametrize(
    "inside",
    [
        "",
        "<id/><code/><title/><effectiveTime/><author><assignedAuthor/></author>",
        '<id root="no oid"/><code code="1" codeSystem="x"/><effectiveTime value="yesterday"/><languageCode/>',
        '<effectiveTime value="20261399"/><recordTarget><patientRole><id extension="7"/><patient/></patientRole></recordTarget>',
        '<effectiveTime value="20260101000000+9900"/><legalAuthenticator><assignedEntity/></legalAuthenticator>',
        "<inFulfillmentOf><order><id/></order></inFulfillmentOf><documentationOf><serviceEvent/></documentationOf>",
    ],
)
def test_what_a_header_does_not_say_is_left_out(inside: str) -> None:
    entry = read(f'<ClinicalDocument xmlns="urn:hl7-org:v3">{inside}</ClinicalDocument>')
    assert entry == DocumentEntry(entry_uuid="", mime_type=entry.mime_type)
    assert entry.mime_type == "text/xml"


def test_only_a_clinical_document_of_hl7_is_one() -> None:
    assert cda.is_cda(etree.fromstring(REPORT))
    assert not cda.is_cda(etree.fromstring("<ClinicalDocument/>"))
