"""The manifest of IHE MADO as a FHIR R4 document: a Bundle of Composition, ImagingStudy, and what these refer to (MADO rev. 1.1).

The URLs of MADO's extensions are those of its build in progress, and may change with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset

from imaging.fhir import Json, imaging_study
from imaging.kos.manifest import KEY_OBJECT_SELECTION, concept_of, items_of
from imaging.publication.mapping import first, issuer, text
from xds.values import Identifier

_DCM, _LOINC = "http://dicom.nema.org/resources/ontology/DCM", "http://loinc.org"
_KINDS = "http://terminology.hl7.org/CodeSystem/v2-0203"
_EXTENSION = "https://profiles.ihe.net/RAD/MADO/StructureDefinition/"
_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
_GENDERS = {"M": "male", "F": "female", "O": "other"}
_MANIFEST: Json = {"coding": [{"system": _LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a document says beside what the headers do. `identifier` is an OID, `retrieve_url` the base of DICOMweb or ""."""

    identifier: str
    patient_id: Identifier
    local_id: Identifier
    retrieve_url: str
    retrieve_location_uid: str
    institution: str
    confidentiality: str
    language: str
    time_zone: str
    accession_issuer: str
    now: datetime


def document(headers: Sequence[Dataset], about: About) -> Json:
    """The Bundle of a study, of which `headers` are all instances without pixels, as JSON holds it."""
    entries: list[Json] = []

    def add(resource: Json) -> Json:
        """Its Reference."""
        url = f"urn:uuid:{uuid.uuid4()}"
        entries.append({"fullUrl": url, "resource": _filled(resource)})
        return {"reference": url}

    composition: Json = {"resourceType": "Composition"}
    entries.append({"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": composition})
    patient = add(_patient(headers, about))
    device = add(
        {
            "resourceType": "Device",
            "manufacturer": "xdsi",
            "deviceName": [{"name": "xdsi", "type": "manufacturer-name"}],
        }
    )
    name = first(headers, "InstitutionName") or about.institution
    organization = add({"resourceType": "Organization", "name": name}) if name else None
    endpoint = add(_endpoint(about))
    orders = [add({**one, "subject": patient}) for one in _orders(headers, about.accession_issuer)]
    study = add(_study(headers, about, patient, endpoint, orders))
    title = first(headers, "StudyDescription") or "Imaging manifest"
    composition |= _filled(
        {
            "language": about.language,
            "status": "final",
            "type": _MANIFEST,
            "subject": patient,
            "date": about.now.isoformat(timespec="seconds"),
            "author": [one for one in (device, organization) if one],
            "title": title,
            "confidentiality": about.confidentiality,
            "custodian": organization,
            "section": [{"title": title, "code": _MANIFEST, "entry": [study]}],
        }
    )
    return {
        "resourceType": "Bundle",
        "identifier": {"system": "urn:ietf:rfc:3986", "value": f"urn:oid:{about.identifier}"},
        "type": "document",
        "timestamp": about.now.isoformat(timespec="seconds"),
        "entry": entries,
    }


def _study(headers: Sequence[Dataset], about: About, patient: Json, endpoint: Json, orders: Sequence[Json]) -> Json:
    made = imaging_study(
        headers,
        time_zone=about.time_zone,
        patient=patient,
        accession_issuer=about.accession_issuer,
    )
    by_uid = {text(one, "SOPInstanceUID"): one for one in headers}
    uid = {"coding": [{"system": _DCM, "code": "110180", "display": "Study Instance UID"}]}
    identifiers, series = _list(made["identifier"]), _list(made["series"])
    procedures = [{**one, "text": _display(one)} for one in _list(made.get("procedureCode"))]
    return {
        **made,
        "identifier": [{**one, "type": uid} if one.get("system") == "urn:dicom:uid" else one for one in identifiers],
        "basedOn": list(orders),
        "endpoint": [endpoint],
        "procedureCode": procedures,
        "series": [
            {
                **one,
                "endpoint": [endpoint],
                "instance": [_extended(each, by_uid[str(each["uid"])]) for each in _list(one["instance"])],
            }
            for one in series
        ],
    }


def _extended(instance: Json, header: Dataset) -> Json:
    """An instance with the number of its frames, and with the title of a key object."""
    extensions: list[Json] = []
    frames = text(header, "NumberOfFrames")
    if frames.isascii() and frames.isdigit() and 0 < int(frames) < 2**31:
        extensions.append({"url": f"{_EXTENSION}number-of-frames", "valuePositiveInt": int(frames)})
    if text(header, "SOPClassUID") == KEY_OBJECT_SELECTION and (title := concept_of(header)).value:
        coding: Json = {
            "system": _DCM if title.scheme == "DCM" else None,
            "code": title.value,
            "display": title.meaning,
        }
        extensions.append({"url": f"{_EXTENSION}ko-document-title", "valueCoding": _filled(coding)})
    return {"extension": extensions, **instance} if extensions else instance


def _endpoint(about: About) -> Json:
    """One for all series: they are at one place."""
    absent = [{"url": _ABSENT, "valueCode": "unknown"}]
    oid = f"urn:oid:{about.retrieve_location_uid}"
    return {
        "resourceType": "Endpoint",
        "extension": [{"url": f"{_EXTENSION}retrieve-location-uid", "valueOid": oid}],
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
            "code": "dicom-wado-rs",
        },
        "payloadType": [{"text": "DICOM"}],
        "payloadMimeType": ["application/dicom"],
        "address": about.retrieve_url or "http://notspecified",
        "_address": None if about.retrieve_url else {"extension": absent},
    }


def _patient(headers: Sequence[Dataset], about: About) -> Json:
    parts = [*(part.strip() for part in first(headers, "PatientName").split("=")[0].split("^")), *[""] * 5]
    name: Json = {
        "family": parts[0],
        "given": list(filter(None, parts[1:3])),
        "prefix": list(filter(None, parts[3:4])),
        "suffix": list(filter(None, parts[4:5])),
    }
    return {
        "resourceType": "Patient",
        "identifier": [
            {"system": f"urn:oid:{one.authority}", "value": one.identifier}
            for one in dict.fromkeys((about.local_id, about.patient_id))
        ],
        "name": [_filled(name)] if any(parts) else None,
        "gender": _GENDERS.get(first(headers, "PatientSex"), "unknown"),
        "birthDate": _date(first(headers, "PatientBirthDate")),
    }


def _orders(headers: Sequence[Dataset], accession_issuer: str) -> list[Json]:
    """A ServiceRequest for each accession number, with the orders that come with it."""
    found: dict[tuple[str, str], Json] = {}
    for header in headers:
        for source in items_of(header, "RequestAttributesSequence") or [header]:
            accession = first((source, header), "AccessionNumber")
            placer, filler = (
                first((source, header), f"{kind}OrderNumberImagingServiceRequest") for kind in ("Placer", "Filler")
            )
            if not (accession or placer) or (accession, placer) in found:
                continue
            oid = _oid((source, header), "IssuerOfAccessionNumberSequence") or accession_issuer
            numbers = (
                _number(accession, oid, "ACSN", {"system": _DCM, "code": "121022", "display": "Accession Number"}),
                _number(placer, _oid((source, header), "OrderPlacerIdentifierSequence"), "PLAC"),
                _number(filler, _oid((source, header), "OrderFillerIdentifierSequence"), "FILL"),
            )
            found[accession, placer] = {
                "resourceType": "ServiceRequest",
                "identifier": [one for one in numbers if one],
                "status": "unknown",
                "intent": "order",
            }
    return list(found.values())


def _number(value: str, oid: str, kind: str, *also: Json) -> Json | None:
    kinds: Json = {"coding": [{"system": _KINDS, "code": kind}, *also]}
    return _filled({"type": kinds, "system": f"urn:oid:{oid}" if oid else None, "value": value}) if value else None


def _oid(holders: Sequence[Dataset], keyword: str) -> str:
    return next((oid for one in holders if (oid := issuer(one.get(keyword)))), "")


def _date(value: str) -> str | None:
    try:
        return datetime.strptime(value, "%Y%m%d").date().isoformat()  # a date has no zone
    except ValueError:
        return None


def _display(concept: Mapping[str, object]) -> str:
    return next((str(one.get("display") or one["code"]) for one in _list(concept.get("coding"))), "")


def _list(value: object) -> list[Json]:
    return list(value) if isinstance(value, list) else []


def _filled(made: Json) -> Json:
    """Without what has no value: FHIR has no empty ones."""
    return {name: value for name, value in made.items() if value not in (None, "", [], {})}
