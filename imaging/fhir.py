"""A study as FHIR ImagingStudy, in R4 or R5 (hl7.org/fhir/R4/imagingstudy.html, hl7.org/fhir/R5/imagingstudy.html)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from pydicom.dataset import Dataset

from imaging.publication.code_tables import BODY_PARTS, CODING_SCHEMES
from imaging.publication.mapping import first, issuer, text

Release = Literal["R4", "R5"]
RELEASES: tuple[Release, ...] = get_args(Release)
Json = dict[str, object]

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_SNOMED_CT = "http://snomed.info/sct"
#: FHIR's own names of what else is an OID.
_SYSTEMS = {
    "2.16.840.1.113883.6.96": _SNOMED_CT,
    "1.2.840.10008.2.16.4": _DCM,
    "2.16.840.1.113883.6.1": "http://loinc.org",
}


def imaging_study(
    headers: Sequence[Dataset],
    *,
    release: Release = "R4",
    time_zone: str = "UTC",
    patient: Json | None = None,
    retrieve_url: str = "",
    accession_issuer: str = "",
) -> Json:
    """The resource of one study, of which `headers` are all instances without pixels, as JSON holds it.

    `patient` is the Reference that becomes the subject; without one the local Patient ID is named as its identifier. `retrieve_url` is
    the base of DICOMweb; the study's own Endpoint is contained. Times without an offset are those of `time_zone` (IANA). ValueError for
    headers of no study or of several.
    """
    uids = {text(one, "StudyInstanceUID") for one in headers}
    if len(uids) != 1:
        raise ValueError(f"the headers are of {len(uids)} studies: {', '.join(sorted(uids)[:5])}")
    (uid,) = uids
    series: dict[str, list[Dataset]] = {}
    for header in headers:
        series.setdefault(text(header, "SeriesInstanceUID"), []).append(header)
    ordered = sorted(
        series.values(), key=lambda one: (_number(one[0], "SeriesNumber") or 0, text(one[0], "SeriesInstanceUID"))
    )
    modalities = list(dict.fromkeys(text(one[0], "Modality") or "OT" for one in ordered))
    made: Json = {
        "resourceType": "ImagingStudy",
        "contained": [_endpoint(retrieve_url, release)] if retrieve_url else None,
        "identifier": _identifiers(headers, uid, accession_issuer),
        "status": "available",
        "modality": [_modality(one, release) for one in modalities],
        "subject": patient or _subject(headers),
        "started": _started(headers, "Study", time_zone),
        "referrer": _named(first(headers, "ReferringPhysicianName")),
        "endpoint": [{"reference": "#wado-rs"}] if retrieve_url else None,
        "numberOfSeries": len(series),
        "numberOfInstances": len(headers),
        **_procedure(headers, release),
        "description": first(headers, "StudyDescription") or None,
        "series": [_series(one, release, time_zone) for one in ordered],
    }
    return _filled(made)


def _series(headers: Sequence[Dataset], release: Release, time_zone: str) -> Json:
    ordered = sorted(headers, key=lambda one: (_number(one, "InstanceNumber") or 0, text(one, "SOPInstanceUID")))
    body_part = BODY_PARTS.get(first(headers, "BodyPartExamined").upper())
    site = _coding(_SNOMED_CT, body_part) if body_part else None
    laterality = {"L": ("7771000", "Left"), "R": ("24028007", "Right"), "B": ("51440002", "Right and left")}.get(
        first(headers, "Laterality") or first(headers, "ImageLaterality")
    )
    side = _coding(_SNOMED_CT, *laterality) if laterality else None
    r4 = release == "R4"
    return _filled(
        {
            "uid": text(headers[0], "SeriesInstanceUID"),
            "number": _number(headers[0], "SeriesNumber"),
            "modality": _modality(text(headers[0], "Modality") or "OT", release),
            "description": first(headers, "SeriesDescription") or None,
            "numberOfInstances": len(headers),
            "bodySite": site if r4 or site is None else {"concept": {"coding": [site]}},
            "laterality": side if r4 or side is None else {"coding": [side]},
            "started": _started(headers, "Series", time_zone),
            "instance": [_instance(one) for one in ordered],
        }
    )


def _instance(header: Dataset) -> Json:
    return _filled(
        {
            "uid": text(header, "SOPInstanceUID"),
            "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{text(header, 'SOPClassUID')}"},
            "number": _number(header, "InstanceNumber"),
            "title": _title(header) or None,
        }
    )


def _title(header: Dataset) -> str:
    """Of a key object or a report: what its concept name says."""
    names = header.get("ConceptNameCodeSequence") or ()
    return text(names[0], "CodeMeaning") if names else " ".join(map(str, header.get("ImageType") or ()))[:200]


# --- parts ------------------------------------------------------------------------------------------------------------


def _identifiers(headers: Sequence[Dataset], uid: str, accession_issuer: str) -> list[Json]:
    found: list[Json] = [{"use": "official", "system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]
    for header in headers:
        if accession := text(header, "AccessionNumber"):
            oid = issuer(header.get("IssuerOfAccessionNumberSequence")) or accession_issuer
            kind = {"coding": [_coding("http://terminology.hl7.org/CodeSystem/v2-0203", "ACSN", "Accession ID")]}
            one = _filled({"type": kind, "system": f"urn:oid:{oid}" if oid else None, "value": accession})
            if one not in found:
                found.append(one)
    return found


def _subject(headers: Sequence[Dataset]) -> Json:
    local = first(headers, "PatientID")
    oid = next((found for one in headers if (found := issuer(one.get("IssuerOfPatientIDQualifiersSequence")))), "")
    if not local:
        return {"display": "unknown"}
    return {"identifier": _filled({"system": f"urn:oid:{oid}" if oid else None, "value": local})}


def _named(person: str) -> Json | None:
    """A Reference to somebody of whom the name alone is known."""
    parts = [part.strip() for part in person.split("=")[0].split("^")]
    family, given, middle, prefix, suffix = (parts + [""] * 5)[:5]
    name = " ".join(filter(None, (prefix, given, middle, family, suffix)))
    return {"display": name} if name else None


def _procedure(headers: Sequence[Dataset], release: Release) -> Json:
    codes: list[Json] = []
    for header in headers:
        for item in header.get("ProcedureCodeSequence") or ():
            scheme = CODING_SCHEMES.get(text(item, "CodingSchemeDesignator"), "")
            system = _SYSTEMS.get(scheme) or (f"urn:oid:{scheme}" if scheme else None)
            concept: Json = {
                "coding": [
                    _filled(
                        {
                            "system": system,
                            "code": text(item, "CodeValue"),
                            "display": text(item, "CodeMeaning") or None,
                        }
                    )
                ]
            }
            if text(item, "CodeValue") and concept not in codes:
                codes.append(concept)
    if not codes:
        return {}
    return {"procedureCode": codes} if release == "R4" else {"procedure": [{"concept": one} for one in codes]}


def _modality(code: str, release: Release) -> Json:
    coding = _coding(_DCM, code)
    return {"coding": [coding]} if release == "R5" else coding


def _endpoint(retrieve_url: str, release: Release) -> Json:
    kind = _coding("http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "dicom-wado-rs")
    named: Json = {"resourceType": "Endpoint", "id": "wado-rs", "status": "active"}
    if release == "R4":
        return {
            **named,
            "connectionType": kind,
            "payloadType": [{"text": "DICOM"}],
            "payloadMimeType": ["application/dicom"],
            "address": retrieve_url,
        }
    payload = {"type": [{"text": "DICOM"}], "mimeType": ["application/dicom"]}
    return {**named, "connectionType": [{"coding": [kind]}], "payload": [payload], "address": retrieve_url}


def _coding(system: str, code: str, display: str = "") -> Json:
    return _filled({"system": system, "code": code, "display": display or None})


def _started(headers: Sequence[Dataset], level: str, time_zone: str) -> str | None:
    """dateTime of StudyDate and StudyTime, or those of the series: with an offset where there is a time, else a date."""
    for header in headers:
        date, time = text(header, f"{level}Date"), text(header, f"{level}Time").partition(".")[0]
        if len(date) != 8:
            continue
        try:
            if len(time) < 4:
                return datetime.strptime(date, "%Y%m%d").date().isoformat()  # a date has no zone
            moment = datetime.strptime(date + time[:6].ljust(6, "0"), "%Y%m%d%H%M%S")  # comes next
        except ValueError:
            continue
        return moment.replace(tzinfo=_zone(text(header, "TimezoneOffsetFromUTC"), time_zone)).isoformat()
    return None


def _zone(offset: str, time_zone: str) -> timezone | ZoneInfo:
    if len(offset) == 5 and offset[0] in "+-" and offset[1:].isdigit():
        size = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
        if size < timedelta(hours=24):
            return timezone(-size if offset[0] == "-" else size)
    return ZoneInfo(time_zone) if time_zone != "UTC" else UTC


def _number(header: Dataset, keyword: str) -> int | None:
    """FHIR has unsigned integers of 31 bits."""
    try:
        value = int(header.get(keyword, ""))
    except (TypeError, ValueError):
        return None
    return value if 0 <= value < 2**31 else None


def _filled(made: Json) -> Json:
    """Without what has no value: FHIR has no empty ones."""
    return {name: value for name, value in made.items() if value not in (None, "", [], {})}
