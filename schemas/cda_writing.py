"""CDA R2 documents around a text or a PDF: the metadata of a DocumentEntry as a header (HL7 CDA R2 4.2, 4.3.1.1; ITI TF-3 5.2).

`cda.read_header` reads it back. Orders other than accession numbers, practice setting and facility are left out.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

from lxml import etree

from schemas.cda import DCM, NAMESPACE, SCANNED, STUDY
from xds.metadata import Author, DocumentEntry
from xds.values import Code, Identifier, Organization, Person, Timestamp, is_oid, unescape_hl7
from xds.vocabulary import REFERENCE_ACCESSION, REFERENCE_STUDY_INSTANCE_UID

_SD = "urn:ihe:iti:xds-sd:"
_GENDERS = "2.16.840.1.113883.5.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Custodian:
    """Who keeps the document: a name, and an OID."""

    name: str
    oid: str


def write(entry: DocumentEntry, content: bytes, media_type: str, *, custodian: Custodian) -> bytes:
    """A ClinicalDocument in UTF-8 with `content` as its nonXMLBody: text (in UTF-8) as it is, all else in Base64.

    The same entry and content make the same bytes. `entry` has uniqueId (an OID), typeCode, creationTime, confidentialityCode and
    sourcePatientId; its texts hold only what XML can.
    """
    root = etree.fromstring(f'<ClinicalDocument xmlns="{NAMESPACE}"/>')
    _add(root, "typeId", root="2.16.840.1.113883.1.3", extension="POCD_HD000040")
    if entry.format_code is not None and entry.format_code.code.startswith(_SD):
        _add(root, "templateId", root=SCANNED)
    oid, _, extension = str(entry.unique_id).partition("^")
    _add(root, "id", root=oid, extension=extension)
    _add_code(root, "code", entry.type_code)
    if str(entry.title):
        _add(root, "title").text = str(entry.title)
    _add_time(root, "effectiveTime", entry.creation_time)
    for code in entry.confidentiality_code[:1]:
        _add_code(root, "confidentialityCode", code)
    if entry.language_code:
        _add(root, "languageCode", code=entry.language_code)
    _add_patient(root, entry)
    for author in entry.author:
        _add_author(root, author, entry.creation_time)
    keeping = _add(_add(_add(root, "custodian"), "assignedCustodian"), "representedCustodianOrganization")
    _add(keeping, "id", root=custodian.oid)
    _add(keeping, "name").text = custodian.name
    if entry.legal_authenticator:
        signed = _add(root, "legalAuthenticator")
        _add_time(signed, "time", entry.creation_time)
        _add(signed, "signatureCode", code="S")
        _add_assigned(_add(signed, "assignedEntity"), entry.legal_authenticator)
    _add_references(root, entry)
    text = _add(_add(_add(root, "component"), "nonXMLBody"), "text", mediaType=media_type)
    if media_type == "text/plain":
        text.text = content.decode()
    else:
        text.set("representation", "B64")
        text.text = base64.b64encode(content).decode()
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")


def _add_patient(root: etree._Element, entry: DocumentEntry) -> None:
    role = _add(_add(root, "recordTarget"), "patientRole")
    _add_id(role, entry.source_patient_id)
    told = dict(one.split("|", 1) for one in entry.source_patient_info)
    patient = _add(role, "patient")
    if name := told.get("PID-5"):
        _add_name(patient, name.split("^"))
    sex = told.get("PID-8", "")
    gender = {"M": "M", "F": "F", "O": "UN"}.get(sex)
    _add(patient, "administrativeGenderCode", **({"code": gender, "codeSystem": _GENDERS} if gender else _UNKNOWN))
    if birth := told.get("PID-7"):
        _add(patient, "birthTime", value=birth)


def _add_author(root: etree._Element, author: Author, time: Timestamp | None) -> None:
    one = _add(root, "author")
    _add_time(one, "time", time)
    assigned = _add(one, "assignedAuthor")
    _add_assigned(assigned, author.author_person)
    for organization in author.author_institution[:1]:
        _add_organization(assigned, organization)


def _add_assigned(holder: etree._Element, person: Person | None) -> None:
    """id and assignedPerson of an XCN."""
    parts = [*(person or "").split("^"), *[""] * 9]
    authority = [*parts[8].split("&"), "", ""][1]
    _add_id(holder, Identifier(f"{parts[0]}^^^&{authority}&ISO") if parts[0] and authority else None)
    if any(parts[1:6]):
        _add_name(_add(holder, "assignedPerson"), parts[1:6])


def _add_organization(holder: etree._Element, organization: Organization) -> None:
    parts = [*organization.split("^"), *[""] * 10]
    one = _add(holder, "representedOrganization")
    authority, identifier = [*parts[5].split("&"), "", ""][1], unescape_hl7(parts[9])
    if is_oid(identifier):
        _add(one, "id", root=identifier)
    elif identifier and authority:
        _add(one, "id", root=authority, extension=identifier)
    _add(one, "name").text = unescape_hl7(parts[0])


def _add_references(root: etree._Element, entry: DocumentEntry) -> None:
    """The orders by their accession numbers, and the study."""
    for one in entry.reference_id_list:
        if one.type_code == REFERENCE_ACCESSION:
            authority = [*one.split("^")[3].split("&"), "", ""][1]
            order = _add(_add(root, "inFulfillmentOf"), "order")
            _add(order, "id", root=authority, extension=unescape_hl7(one.split("^")[0]))
    service = _add(_add(root, "documentationOf"), "serviceEvent", classCode="ACT")
    for one in entry.reference_id_list:
        if one.type_code == REFERENCE_STUDY_INSTANCE_UID:
            _add(service, "id", root=one.split("^")[0])
    code = _add(service, "code", code=STUDY, codeSystem=DCM, displayName="Study")
    for event in entry.event_code_list:
        _add_code(code, "translation", event)
    if entry.service_start_time or entry.service_stop_time:
        period = _add(service, "effectiveTime")
        _add_time(period, "low", entry.service_start_time)
        if entry.service_stop_time:
            _add_time(period, "high", entry.service_stop_time)


# --- HL7 v3 data types ------------------------------------------------------------------------------------------------

_UNKNOWN = {"nullFlavor": "UNK"}


def _add(holder: etree._Element, name: str, **attributes: str) -> etree._Element:
    """A child; attributes that are "" are left out."""
    return etree.SubElement(
        holder, f"{{{NAMESPACE}}}{name}", {key: str(value) for key, value in attributes.items() if value}
    )


def _add_code(holder: etree._Element, name: str, code: Code | None) -> None:
    if code is None:
        _add(holder, name, **_UNKNOWN)
    else:
        _add(holder, name, code=code.code, codeSystem=code.scheme, displayName=str(code.display))


def _add_time(holder: etree._Element, name: str, time: Timestamp | None) -> None:
    """A TS, in UTC where it has a time of day."""
    value = "" if time is None else f"{time}+0000" if len(time) > 8 else str(time)
    _add(holder, name, **({"value": value} if value else _UNKNOWN))


def _add_id(holder: etree._Element, identifier: Identifier | None) -> None:
    if identifier is None:
        _add(holder, "id", **_UNKNOWN)
    else:
        _add(holder, "id", root=identifier.authority, extension=unescape_hl7(identifier.identifier))


def _add_name(holder: etree._Element, parts: list[str]) -> None:
    """Family, given, further given names, suffix and prefix; the schema leaves their order free."""
    family, given, further, suffix, prefix = [unescape_hl7(part) for part in [*parts, *[""] * 5][:5]]
    name = _add(holder, "name")
    for tag, part in (
        ("prefix", prefix),
        ("given", given),
        ("given", further),
        ("family", family),
        ("suffix", suffix),
    ):
        if part:
            _add(name, tag).text = part
