"""What the header of a CDA R2 document says of it, as the metadata of its DocumentEntry (HL7 CDA R2 4.2; ITI TF-3 4.2.3; PS3.20 9).

Nothing is refused: what an element does not say, or says in a form that metadata have no place for, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

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
    escape_hl7,
    is_oid,
)
from xds.vocabulary import REFERENCE_ACCESSION, REFERENCE_STUDY_INSTANCE_UID

NAMESPACE = "urn:hl7-org:v3"
MIME_TYPE = "text/xml"
_V3 = {"v3": NAMESPACE}
FORMATS = "1.3.6.1.4.1.19376.1.2.3"
#: Documents of these templates are reports of an imaging study, which their service event names (PS3.20 9.1).
_IMAGING = frozenset(
    ("1.2.840.10008.9.1", "1.2.840.10008.9.20", "1.2.840.10008.9.21", "2.16.840.1.113883.10.20.22.1.5")
)
SCANNED = "1.3.6.1.4.1.19376.1.2.20"
#: DICOM's code "Study": the service that a report documents is an imaging study.
DCM, STUDY = "1.2.840.10008.2.16.4", "113014"
_SERVICE = "v3:documentationOf/v3:serviceEvent"


def is_cda(root: etree._Element) -> bool:
    """Whether it is a ClinicalDocument."""
    return root.tag == f"{{{NAMESPACE}}}ClinicalDocument"


def read_header(root: etree._Element) -> DocumentEntry:
    """The attributes that a ClinicalDocument has in its header; what only the affinity domain knows is not among them."""
    patient = _patient_id(root)
    start, stop = _service_times(root)
    return DocumentEntry(
        entry_uuid="",
        unique_id=_unique_id(root),
        mime_type=MimeType(MIME_TYPE),
        format_code=_format(root),
        type_code=_code(_first(root, "v3:code")),
        event_code_list=tuple(dict.fromkeys(_event_codes(root))),
        confidentiality_code=tuple(filter(None, [_code(_first(root, "v3:confidentialityCode"))])),
        language_code=_language(root),
        creation_time=_time(_first(root, "v3:effectiveTime")),
        service_start_time=start,
        service_stop_time=stop,
        title=Text.of(title) if (title := _text(_first(root, "v3:title"))) else Text(),
        author=tuple(_authors(root)),
        legal_authenticator=_person(_first(root, "v3:legalAuthenticator/v3:assignedEntity")),
        source_patient_id=patient,
        source_patient_info=tuple(_patient_info(root, patient)),
        reference_id_list=tuple(dict.fromkeys(_references(root))),
    )


def _unique_id(root: etree._Element) -> UniqueId | None:
    """The id as `root` or `root^extension` (ITI TF-3 4.2.3.2.26)."""
    one = _first(root, "v3:id")
    if one is None or not is_oid(one.get("root", "")):
        return None
    extension = one.get("extension", "")
    made = UniqueId(f"{one.get('root')}^{extension}" if extension else one.get("root", ""))
    return None if made.fault else made


def _format(root: etree._Element) -> Code | None:
    templates = _templates(root)
    inside = _first(root, "v3:component/v3:nonXMLBody/v3:text")
    if SCANNED in templates:
        kind = "pdf" if inside is not None and inside.get("mediaType") == "application/pdf" else "text"
        return Code.of(f"urn:ihe:iti:xds-sd:{kind}:2008", FORMATS, f"Scanned document, {kind}")
    if inside is not None:
        # Text with a CDA header around it (RAD TF-3 4.68.4.1.2.3); it has no template of its own.
        wrapped = inside.get("mediaType", "text/plain") == "text/plain" and _is_of_imaging(root)
        return Code.of("urn:ihe:rad:TEXT", FORMATS, "CDA Wrapped Text Report") if wrapped else None
    if templates & _IMAGING:
        name = "urn:ihe:rad:CDA:ImagingReportStructuredHeadings:2013"
        return Code.of(name, FORMATS, "Imaging Report with Structured Headings")
    return None


def _templates(root: etree._Element) -> set[str | None]:
    return {one.get("root") for one in root.iterfind("v3:templateId", _V3)}


def _is_of_imaging(root: etree._Element) -> bool:
    """Whether the service that is documented is a study: a template of imaging reports says so, or the service's code."""
    return bool(_templates(root) & _IMAGING) or any(map(_is_study, root.iterfind(f"{_SERVICE}/v3:code", _V3)))


def _is_study(code: etree._Element) -> bool:
    return (code.get("code"), code.get("codeSystem")) == (STUDY, DCM)


def _event_codes(root: etree._Element) -> Iterator[Code]:
    """What else the service is called: modalities and, where it is called a study before all, whatever stands beside that."""
    for service in root.iterfind(f"{_SERVICE}/v3:code", _V3):
        for code in map(_code, service.iterfind("v3:translation", _V3)):
            if code is not None and (code.scheme == DCM or _is_study(service)):
                yield code


def _language(root: etree._Element) -> LanguageCode | None:
    one = _first(root, "v3:languageCode")
    code = "" if one is None else one.get("code", "")
    return LanguageCode(code) if code else None


def _authors(root: etree._Element) -> Iterator[Author]:
    for assigned in root.iterfind("v3:author/v3:assignedAuthor", _V3):
        institution = _organization(_first(assigned, "v3:representedOrganization"))
        person = _person(assigned)
        if person is not None or institution is not None:
            yield Author(author_person=person, author_institution=() if institution is None else (institution,))


def _person(assigned: etree._Element | None) -> Person | None:
    """XCN of somebody who is assigned something: the first id and the name."""
    if assigned is None:
        return None
    identifier, authority = _ii(_first(assigned, "v3:id"))
    family, given, suffix, prefix = _name(_first(assigned, "v3:assignedPerson/v3:name"))
    if not (family or (identifier and authority)):
        return None
    parts = [escape_hl7(identifier) if authority else "", family, given, "", suffix, prefix, "", ""]
    parts.append(f"&{authority}&ISO" if identifier and authority else "")
    return Person("^".join(parts).rstrip("^"))


def _organization(one: etree._Element | None) -> Organization | None:
    if one is None or not (name := _text(_first(one, "v3:name"))):
        return None
    identifier, authority = _ii(_first(one, "v3:id"))
    if is_oid(authority) and not identifier:
        return Organization(f"{escape_hl7(name)}^^^^^^^^^{authority}")
    if is_oid(authority):
        return Organization(f"{escape_hl7(name)}^^^^^&{authority}&ISO^^^^{escape_hl7(identifier)}")
    return Organization(escape_hl7(name))


def _patient_id(root: etree._Element) -> Identifier | None:
    for one in root.iterfind("v3:recordTarget/v3:patientRole/v3:id", _V3):
        identifier, authority = _ii(one)
        if identifier and authority:
            return Identifier.of(identifier, authority)
    return None


def _patient_info(root: etree._Element, patient_id: Identifier | None) -> Iterator[PidField]:
    patient = _first(root, "v3:recordTarget/v3:patientRole/v3:patient")
    if patient_id is not None:
        yield PidField(f"PID-3|{patient_id}")
    if patient is None:
        return
    family, given, suffix, prefix = _name(_first(patient, "v3:name"))
    if name := "^".join((family, given, "", suffix, prefix)).rstrip("^"):
        yield PidField(f"PID-5|{name}")
    birth = _first(patient, "v3:birthTime")
    if birth is not None and re.fullmatch(r"\d{8}\d*.*", birth.get("value", "")):
        yield PidField(f"PID-7|{birth.get('value', '')[:8]}")
    gender = _first(patient, "v3:administrativeGenderCode")
    if gender is not None:
        code = gender.get("code", "")
        yield PidField(f"PID-8|{code if code in ('M', 'F') else 'O' if code == 'UN' else 'U'}")


def _references(root: etree._Element) -> Iterator[ReferenceId]:
    """Accession numbers of the orders, and of an imaging report its study (ITI TF-3 4.2.3.2.28)."""
    for one in root.iterfind("v3:inFulfillmentOf/v3:order/v3:id", _V3):
        number, authority = _ii(one)
        if number:
            yield ReferenceId.of(number, REFERENCE_ACCESSION, authority or None)
    if _is_of_imaging(root):
        for one in root.iterfind(f"{_SERVICE}/v3:id", _V3):
            if is_oid(one.get("root", "")) and not one.get("extension"):
                yield ReferenceId.of(one.get("root", ""), REFERENCE_STUDY_INSTANCE_UID)


def _service_times(root: etree._Element) -> tuple[Timestamp | None, Timestamp | None]:
    one = _first(root, f"{_SERVICE}/v3:effectiveTime")
    if one is None:
        return None, None
    if one.get("value"):
        return _time(one), None
    return _time(_first(one, "v3:low")), _time(_first(one, "v3:high"))


# --- HL7 v3 data types ------------------------------------------------------------------------------------------------


def _first(holder: etree._Element, path: str) -> etree._Element | None:
    return holder.find(path, _V3)


def _text(one: etree._Element | None) -> str:
    """The text below an element, its white space joined."""
    return "" if one is None else " ".join("".join(map(str, one.itertext())).split())


def _code(one: etree._Element | None) -> Code | None:
    """A CE with its code system, an OID."""
    if one is None or not one.get("code") or not is_oid(one.get("codeSystem", "")):
        return None
    return Code.of(one.get("code", ""), one.get("codeSystem", ""), one.get("displayName") or str(one.get("code")))


def _ii(one: etree._Element | None) -> tuple[str, str]:
    """Extension and root of an II, the root only where it is an OID."""
    if one is None:
        return "", ""
    root = one.get("root", "")
    return one.get("extension", ""), root if is_oid(root) else ""


def _name(one: etree._Element | None) -> tuple[str, str, str, str]:
    """Family, given, suffix and prefix of a PN; one without parts is a family name."""
    if one is None:
        return "", "", "", ""

    def parts(tag: str) -> str:
        return escape_hl7(" ".join(filter(None, map(_text, one.iterfind(f"v3:{tag}", _V3)))))

    family = parts("family") or ("" if parts("given") else escape_hl7(_text(one)))
    return family, parts("given"), parts("suffix"), parts("prefix")


def _time(one: etree._Element | None) -> Timestamp | None:
    """A TS in UTC; one without a time, or without an offset, is taken as it is."""
    return None if one is None else Timestamp.of_hl7(one.get("value", ""))
