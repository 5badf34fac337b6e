"""Imaging reports of HL7 v2 become documents: over MLLP to a whole domain (RAD TF-2 4.27 and 4.68; RAD TF-3 4.68.4.1.2.3)."""

from __future__ import annotations

import base64
import io
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from imaging.phantom import ct_series
from registry.patients import add_patient
from repository.client import client as repository_client
from schemas import cda, cda_writing
from server.compose import soap_client
from tests.ris import PDF, Site, embedded, mdm, msh, order, oru, pid, reporting, site, text, txa
from xds.messages import DocumentRequest, Retrieved
from xds.metadata import DocumentEntry
from xds.values import Identifier, ReferenceId, UniqueId
from xds.vocabulary import REFERENCE_ACCESSION, REFERENCE_ORDER, REFERENCE_STUDY_INSTANCE_UID

STUDY = "1.2.840.99.1"
ZDS = f"ZDS|{STUDY}^^Application^DICOM"
ACCESSION = ReferenceId.of("A-17", REFERENCE_ACCESSION, "1.2.3.9")
ORDERS = (ReferenceId.of("O77", REFERENCE_ORDER, "1.2.3.77"), ReferenceId.of("F88", REFERENCE_ORDER, "1.2.3.88"))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(reporting(tmp_path_factory.mktemp("reports"))) as made:
        yield made


def body(content: bytes) -> str:
    (found,) = etree.fromstring(content).iterfind(".//{*}nonXMLBody/{*}text")
    return found.text or ""


def test_the_text_of_an_oru_becomes_a_cda_document(here: Site) -> None:
    patient = here.patient()
    assert here.ris.outcome(oru(patient, order(), ZDS, *text("First line", "", "Third &amp; last"))) == ("AA", "", "")
    entry = here.only(patient)
    assert (entry.mime_type, entry.class_code and entry.class_code.code) == ("text/xml", "REPORTS")
    assert entry.format_code is not None and entry.format_code.code == "urn:ihe:rad:TEXT"
    assert entry.type_code is not None and entry.type_code.key == "24627-2^^2.16.840.1.113883.6.1"
    assert (str(entry.title), entry.language_code) == ("CT Chest", "en-US")
    assert entry.author[0].author_person == "1234^Leary^Hans^^^Dr.^^^&1.2.3.12&ISO"
    assert entry.author[0].author_institution == ("NORTH",)
    assert entry.legal_authenticator == entry.author[0].author_person
    assert entry.creation_time == "20260201113000"
    assert (entry.service_start_time, entry.service_stop_time) == ("20260201090000", "20260201091500")
    assert [one.code for one in entry.event_code_list] == ["CT"]
    assert [one.code for one in entry.confidentiality_code] == ["N"]
    assert entry.source_patient_id == f"MRN{patient.identifier}^^^&1.2.3.11&ISO"
    assert entry.source_patient_info == (
        f"PID-3|{entry.source_patient_id}",
        "PID-5|Muster^Eva^^^Dr.",
        "PID-7|19700101",
        "PID-8|F",
    )
    *references, own = entry.reference_id_list
    assert references == [ACCESSION, *ORDERS, ReferenceId.of(STUDY, REFERENCE_STUDY_INSTANCE_UID)]
    assert own.fault is None and own.type_code.startswith("urn:oid:2.25.")
    content = here.bytes_of(entry)
    assert body(content) == "First line\n\nThird &amp; last"


def test_the_document_says_of_itself_what_the_entry_says_of_it(here: Site) -> None:
    """What a consumer reads in the header is what the registry answers, but for what no header has a place for."""
    patient = here.patient()
    here.ris.send(oru(patient, order(), ZDS, *text("Normal.")))
    entry = here.only(patient)
    header = cda.read_header(etree.fromstring(here.bytes_of(entry)))
    assert header.reference_id_list == (ACCESSION, ReferenceId.of(STUDY, REFERENCE_STUDY_INSTANCE_UID))
    for name in (
        *("unique_id", "mime_type", "format_code", "type_code", "title", "language_code", "creation_time"),
        *("service_start_time", "service_stop_time", "author", "legal_authenticator", "confidentiality_code"),
        *("event_code_list", "source_patient_id", "source_patient_info"),
    ):
        assert getattr(header, name) == getattr(entry, name), name


@pytest.mark.parametrize("encoding", ["Base64", "Hex"])
def test_a_pdf_becomes_a_cda_document_around_it(here: Site, encoding: str) -> None:
    patient = here.patient()
    assert here.ris.outcome(oru(patient, order(), *text("A summary"), embedded(PDF, encoding=encoding)))[0] == "AA"
    entry = here.only(patient)
    assert entry.format_code is not None and entry.format_code.code == "urn:ihe:iti:xds-sd:pdf:2008"
    assert entry.mime_type == "text/xml"
    assert base64.b64decode(body(here.bytes_of(entry))) == PDF


def test_a_pdf_may_stay_as_it_came(tmp_path: Path) -> None:
    with site(reporting(tmp_path, pdf="plain")) as plain:
        patient = plain.patient()
        assert plain.ris.outcome(oru(patient, order(), embedded(PDF)))[0] == "AA"
        entry = plain.only(patient)
        assert entry.format_code is not None and entry.format_code.code == "urn:ihe:rad:PDF"
        assert entry.mime_type == "application/pdf"
        provide_retrieve = repository_client(soap_client(plain.domain.endpoints["repository"], plain.config))
        request = DocumentRequest(
            repository_unique_id=plain.config.repository.unique_id, document_unique_id=str(entry.unique_id)
        )
        (given,) = (
            one.document.read() if isinstance(one, Retrieved) else one for one in provide_retrieve[1]([request])
        )
        assert given == PDF


def own_document(patient: Identifier, **header: object) -> bytes:
    """A CDA document that another system has made."""
    entry = DocumentEntry(
        entry_uuid="",
        unique_id=UniqueId("1.2.3.4.5^R17"),
        source_patient_id=Identifier.of(f"MRN{patient.identifier}", "1.2.3.11"),
    )
    custodian = cda_writing.Custodian(name="South", oid="1.2.3.98")
    return cda_writing.write(replace(entry, **header), b"text", "text/plain", custodian=custodian)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "encoding"), [("^text^xml", "Base64"), ("RIS^TEXT^x-hl7-cda-level-one", "A")])
def test_a_cda_document_stays_byte_for_byte_and_its_header_goes_before_the_message(
    here: Site, kind: str, encoding: str
) -> None:
    patient = here.patient()
    content = own_document(patient, unique_id=UniqueId(f"1.2.3.4.5^{patient.identifier}")).replace(b"\n", b"")
    sent = oru(patient, order(), ZDS, embedded(content, kind, encoding))
    assert here.ris.outcome(sent)[0] == "AA"
    entry = here.only(patient)
    assert here.bytes_of(entry) == content
    assert entry.unique_id == f"1.2.3.4.5^{patient.identifier}"
    assert entry.format_code is not None and entry.format_code.code == "urn:ihe:rad:TEXT"
    # What the header does not say comes from the message.
    assert entry.type_code is not None and entry.type_code.code == "24627-2"
    assert ACCESSION in entry.reference_id_list
    assert here.ris.outcome(sent) == ("AA", "stored already", "")


def test_other_bytes_under_the_id_of_a_cda_document_are_refused_in_the_registry_s_words(here: Site) -> None:
    patient = here.patient()
    first, other = (own_document(patient, unique_id=UniqueId(f"1.2.3.4.6.{n}")) for n in (1, 1))
    other = other.replace(b">text<", b">other<")
    assert here.ris.outcome(oru(patient, order(), embedded(first, "^text^xml")))[0] == "AA"
    code, reason, place = here.ris.outcome(oru(patient, order(status="C"), embedded(other, "^text^xml")))
    assert (code, place) == ("AE", "MSH^1^9^207")
    assert reason.startswith("XDSNonIdenticalHash: ")
    assert here.bytes_of(here.only(patient)) == first


def test_a_cda_document_of_another_patient_is_refused(here: Site) -> None:
    patient, other = here.patient(), here.patient()
    content = own_document(other, unique_id=UniqueId("1.2.3.4.7"))
    code, reason, place = here.ris.outcome(oru(patient, order(), embedded(content, "^text^xml")))
    assert (code, place) == ("AE", "PID^1^3^204")
    assert f"is of patient MRN{other.identifier}" in reason
    assert here.entries(patient) == []


def test_the_document_of_an_mdm_is_registered(here: Site) -> None:
    patient = here.patient()
    assert here.ris.outcome(mdm("T02", patient, txa("D1"), *text("Dictated", "and signed")))[0] == "AA"
    entry = here.only(patient)
    assert body(here.bytes_of(entry)) == "Dictated\nand signed"
    assert entry.author[0].author_person == "1234^Leary^Hans^^^Dr.^^^&1.2.3.12&ISO"
    assert entry.legal_authenticator == "8^Chief^Ida^^^^^^&1.2.3.12&ISO"
    assert (entry.creation_time, entry.service_start_time) == ("20260201113000", "20260201100000")
    assert entry.reference_id_list[:2] == ORDERS


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        (["IPC|A-18^RIS^1.2.3.19^ISO|RP1||SPS1|CT", ZDS], ["A-18^^^&1.2.3.19&ISO", STUDY]),
        (["IPC|A-19|RP1|1.2.840.99.7^RIS|SPS1|CT", ZDS], ["A-19^^^&1.2.3.9&ISO", "1.2.840.99.7"]),
        (["OBX|9|HD|110180^Study Instance UID^DCM||1.2.840.99.8||||||F"], ["A-17^^^&1.2.3.9&ISO", "1.2.840.99.8"]),
        (["OBX|9|ST|113014^Study^DCM||1.2.840.99.9||||||F"], ["A-17^^^&1.2.3.9&ISO", "1.2.840.99.9"]),
    ],
)
def test_accession_number_and_study_are_found_wherever_they_stand(
    here: Site, segments: list[str], expected: list[str]
) -> None:
    """IPC before OBR-18, IPC before ZDS before an observation; what has no issuer has that of the manifests."""
    patient = here.patient()
    assert here.ris.outcome(oru(patient, order(), *segments, *text("Normal.")))[0] == "AA"
    entry = here.only(patient)
    told = {one.type_code: one.rpartition("^")[0] for one in entry.reference_id_list}
    assert [told[REFERENCE_ACCESSION], told[REFERENCE_STUDY_INSTANCE_UID].split("^")[0]] == expected
    assert body(here.bytes_of(entry)) == "Normal."


def test_a_report_and_the_manifest_of_its_images_are_found_together(here: Site) -> None:
    """RAD TF-3 4.68.4.1.2.3: what both entries have in common in referenceIdList."""
    patient = here.patient()
    study = f"1.2.840.99.5.{patient.identifier[1:]}"
    for dataset in ct_series(
        slices=2,
        rows=16,
        columns=16,
        patient_id=f"MRN{patient.identifier}",
        accession_number="A-17",
        patient_name="Muster^Eva",
        study_instance_uid=study,
    ):
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        here.domain.parts["instances"].add_bytes(file.getvalue())
    here.domain.parts["publisher"].publish(study, patient_id=str(patient))
    assert here.ris.outcome(oru(patient, order(), f"ZDS|{study}", *text("Normal.")))[0] == "AA"
    for reference in (ReferenceId.of(study, REFERENCE_STUDY_INSTANCE_UID), ACCESSION):
        assert {one.mime_type for one in here.referring(patient, reference)} == {"application/dicom", "text/xml"}


def test_each_order_with_content_is_a_report_and_others_are_orders_of_the_one_before(here: Site) -> None:
    patient = here.patient()
    sent = oru(
        patient,
        order("F1", accession="A1"),
        *text("Chest"),
        order("F2", accession="A2"),
        order("F3", accession="A3"),
        *text("Abdomen"),
    )
    assert here.ris.outcome(sent)[0] == "AA"
    accessions = {
        body(here.bytes_of(one)): [
            ref.split("^")[0] for ref in one.reference_id_list if ref.type_code == REFERENCE_ACCESSION
        ]
        for one in here.entries(patient)
    }
    assert accessions == {"Chest": ["A1", "A2"], "Abdomen": ["A3"]}


@pytest.mark.parametrize(
    ("charset", "codec"), [("8859/1", "latin-1"), ("UNICODE UTF-8", "utf-8"), ("", "utf-8"), ("", "latin-1")]
)
def test_text_arrives_in_the_sender_s_character_set(here: Site, charset: str, codec: str) -> None:
    patient = here.patient()
    head = msh("ORU^R01", charset=charset)
    assert here.ris.outcome(oru(patient, order(), *text("Gef\xe4\xdfe \xb5"), head=head).encode(codec))[0] == "AA"
    assert body(here.bytes_of(here.only(patient))) == "Gef\xe4\xdfe \xb5"


def test_escapes_of_text_are_done(here: Site) -> None:
    """HL7 v2.5 2.7; what is unknown stays as it is."""
    patient = here.patient()
    line = r"a\.br\b\F\\S\\T\\R\\E\c\H\bold\N\\X0D0A\d\.sp2\e\Zx1\\.in+4\f\.ce\g\XC3A4\ \?\ 50\ ~next"
    assert here.ris.outcome(oru(patient, order(), f"OBX|1|FT|1^Report||{line}||||||F"))[0] == "AA"
    assert body(here.bytes_of(here.only(patient))) == "a\nb|^&~\\cbold\nd\n\nef\ng\xe4 \\?\\ 50\\ \nnext"


def test_findings_and_impression_keep_their_names_and_measurements_become_lines(here: Site) -> None:
    patient = here.patient()
    observations = (
        "OBX|3|FT|19005-8^Impression^LN||Stable.||||||F",
        "OBX|1|FT|59776-5^Findings^LN||A nodule.||||||F",
        "OBX|2|NM|21889-1^Size^LN||8|mm^mm^UCUM|||||F",
        "OBX|4|FT|59776-5^Findings^LN||Withdrawn.||||||D",
    )
    assert here.ris.outcome(oru(patient, order(), *observations))[0] == "AA"
    assert body(here.bytes_of(here.only(patient))) == "Findings:\nA nodule.\nSize: 8 mm\nImpression:\nStable."


def test_patients_are_found_by_the_patient_map_too(tmp_path: Path) -> None:
    """As for the images: PID-3 has a local id only."""
    (tmp_path / "patients.csv").write_text("MRN7,P7^^^&1.2.3.10&ISO\n")
    config = reporting(tmp_path)
    config = replace(config, imaging=replace(config.imaging, patient_map=str(tmp_path / "patients.csv")))
    with site(config) as mapped:
        patient = Identifier.of("P7", "1.2.3.10")
        sent = oru(patient, order(), *text("Normal.")).replace(
            pid(patient), "PID|1||12^^^^SS~MRN7^^^HOSP^MR||Muster^Eva"
        )
        code, reason, place = mapped.ris.outcome(sent)
        assert (code, place) == ("AE", "PID^1^3^204")
        assert reason.startswith("XDSUnknownPatientId: ")
        add_patient(mapped.domain.parts["registry"], patient)
        assert mapped.ris.outcome(sent)[0] == "AA"
        assert mapped.only(patient).source_patient_id == "MRN7^^^&1.2.3.11&ISO"
        code, reason, place = mapped.ris.outcome(sent.replace("MRN7", "MRN8"))
        assert (code, place) == ("AE", "PID^1^3^204")
        assert "no patient id of this affinity domain is known for MRN8" in reason
        # The message does not say who the patient is here; the document does, and means somebody else.
        stated = own_document(
            patient, unique_id=UniqueId("1.2.3.4.8"), source_patient_id=Identifier.of("P8", "1.2.3.10")
        )
        code, reason, place = mapped.ris.outcome(sent.replace(text("Normal.")[0], embedded(stated, "^text^xml")))
        assert (code, place) == ("AE", "PID^1^3^204")
        assert "the CDA document is of patient P8" in reason


def test_an_accept_acknowledgement_is_given_to_who_wants_no_other(here: Site) -> None:
    """HL7 v2.5 2.9.3, MSH-15 and MSH-16."""
    patient = here.patient()
    head = "MSH|^~\\&|RIS|NORTH|XDSI|AFF|20260201||ORU^R01|M7|P|2.5.1|||AL|NE"
    assert here.ris.outcome(oru(patient, order(), *text("Normal."), head=head)) == ("CA", "", "")
    assert here.ris.outcome(oru(patient, order(), head=head))[0] == "CE"
    assert here.ris.outcome(oru(patient, order(), *text("Normal."), head=head.replace("|NE", "|AL")))[0] == "AA"


def test_the_message_is_counted(here: Site) -> None:
    patient = here.patient()
    here.ris.send(oru(patient, order(), *text("Normal.")))
    address = here.domain.endpoints["registry"].removesuffix("/registry")
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        counts = answer.read().decode()
    assert 'xdsi_hl7v2_messages_total{code="AA",event="R01"}' in counts


def test_when_it_was_sent_is_the_time_of_a_report_that_says_none(here: Site) -> None:
    patient = here.patient()
    sent = oru(patient, order(at=""), *text("Normal."), head=msh("ORU^R01", at="20260201120000+0200"))
    assert here.ris.outcome(sent)[0] == "AA"
    assert here.only(patient).creation_time == "20260201100000"
    assert (
        here.ris.outcome(sent.replace("20260201120000", "20260201120100").replace("|M1|", "|M2|"))[1]
        == "stored already"
    )


def test_the_affinity_domain_s_own_codes_go_before_those_of_the_sender(tmp_path: Path) -> None:
    """The file of the manifests serves; what asks for a body part fits no report."""
    (tmp_path / "codes.toml").write_text(
        '[[type_code]]\nbody_part = "CHEST"\ncode = { code = "none", scheme = "1.2.3", display = "none" }\n'
        '[[type_code]]\nmodality = "CT"\nprocedure = "24627-2"\ncode = { code = "T1", scheme = "1.2.3", display = "CT" }\n'
        '[[event_code_list]]\nmodality = "CT"\ncode = { code = "E1", scheme = "1.2.3", display = "Event" }\n'
        '[[practice_setting_code]]\nmodality = "MR"\ncode = { code = "none", scheme = "1.2.3", display = "none" }\n'
    )
    with site(reporting(tmp_path, code_map=str(tmp_path / "codes.toml"))) as coded:
        patient = coded.patient()
        assert coded.ris.outcome(oru(patient, order(), *text("Normal.")))[0] == "AA"
        entry = coded.only(patient)
        assert entry.type_code is not None and entry.type_code.code == "T1"
        assert [one.code for one in entry.event_code_list] == ["CT", "E1"]
        assert entry.practice_setting_code is not None and entry.practice_setting_code.code == "309964003"


def test_without_other_words_the_filler_order_number_may_be_the_accession_number(tmp_path: Path) -> None:
    with site(reporting(tmp_path, filler_is_accession=True)) as filling:
        patient = filling.patient()
        assert filling.ris.outcome(oru(patient, order(accession=""), *text("Normal.")))[0] == "AA"
        first = filling.only(patient).reference_id_list[0]
        assert first == ReferenceId.of("F88", REFERENCE_ACCESSION, "1.2.3.88")
