"""What is made of a report: its document, the DocumentEntry, and the submission of both (RAD TF-3 4.68.4.1.2.3; ITI TF-3 4.2.3)."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Literal

from feeds.adt import Authority
from feeds.hl7v2 import Refusal
from feeds.reports.fields import component
from feeds.reports.message import Report
from schemas import cda, cda_writing
from xds.metadata import Association, Author, DocumentEntry, Submission, SubmissionSet, has_member
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    Organization,
    Person,
    PidField,
    ReferenceId,
    Text,
    Timestamp,
    UniqueId,
    escape_hl7,
)
from xds.vocabulary import (
    REFERENCE_ACCESSION,
    REFERENCE_ORDER,
    REFERENCE_STUDY_INSTANCE_UID,
    AssociationType,
    Status,
)

#: The type of the reference that all versions of a report have in common; its identifier is made of sender and number.
REFERENCE_REPORT = "urn:oid:2.25.181532905962414163938211349352034519373"
PDF, TEXT = "application/pdf", "text/plain"
_NAMES = uuid.UUID("8892ab5e-6b3a-4f8e-9a41-53f1f2a9f10d")
_LOINC = "2.16.840.1.113883.6.1"
_LOINC_NAMES = ("LN", "LOINC", _LOINC)
_CONFIDENTIALITY = "2.16.840.1.113883.5.25"
_NORMAL, _RESTRICTED, _VERY = ("N", "Normal"), ("R", "Restricted"), ("V", "Very restricted")
#: HL7 table 0272, whose codes have had one letter and two.
_LEVELS = {"U": _NORMAL, "UC": _NORMAL, "R": _RESTRICTED, "RE": _RESTRICTED, "V": _VERY, "VR": _VERY}
#: CX.5 of ids that `source_patient_issuer` may have assigned: other kinds (SS, DL) are others' numbers.
_PATIENT_IDS = ("", "MR", "PI", "PT", "PN")
_MAX_TITLE_CHARS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """What the affinity domain's own rules say of a report; None where they say nothing."""

    type_code: Code | None = None
    practice_setting_code: Code | None = None
    event_code_list: tuple[Code, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the affinity domain decides about reports. Issuers are OIDs, or ""; `modalities` are the names of DICOM's codes."""

    authorities: tuple[Authority, ...]
    source_id: str
    source_patient_issuer: str = ""
    accession_issuer: str = ""
    placer_issuer: str = ""
    filler_issuer: str = ""
    filler_is_accession: bool = False
    institution: str = ""
    language_code: str = "en-US"
    pdf: Literal["cda", "plain"] = "cda"
    modalities: Mapping[str, str]
    codes: Callable[[Report], Codes]
    class_code: Code = Code.of("REPORTS", "1.3.6.1.4.1.19376.1.2.6.1", "Reports")
    type_code: Code
    content_type_code: Code
    confidentiality_code: Code
    healthcare_facility_type_code: Code
    practice_setting_code: Code


# --- patients ---------------------------------------------------------------------------------------------------------


def patients(report: Report, settings: Settings) -> tuple[list[Identifier], list[Identifier]]:
    """The patient's ids of this affinity domain, and those of others, each with its authority, in the order of PID-3."""
    ours: dict[Identifier, None] = {}
    others: dict[Identifier, None] = {}
    oids = {one.universal_id for one in settings.authorities}
    for one in report.patient_ids:
        named = [
            known.universal_id for known in settings.authorities if known.namespace and known.namespace == one.namespace
        ]
        authority = one.authority or next(iter(named), "")
        if not authority and one.kind in _PATIENT_IDS and "&" not in one.namespace:
            authority = settings.source_patient_issuer
        if authority:
            (ours if authority in oids else others)[Identifier.of(one.identifier, authority)] = None
    return list(ours), list(others)


# --- ids --------------------------------------------------------------------------------------------------------------


def reference(report: Report, number: str) -> ReferenceId:
    """What all versions of a report have in common, by one of its numbers."""
    made = uuid.uuid5(_NAMES, json.dumps(["report", report.sender, number]))
    return ReferenceId.of(f"2.25.{made.int}", REFERENCE_REPORT)


def derived_oid(*parts: object) -> str:
    """A UID of what it is made of: the same parts give the same one (PS3.5 B.2, with a UUID of version 5)."""
    return f"2.25.{uuid.uuid5(_NAMES, json.dumps(parts, default=str)).int}"


def version_oid(report: Report, patient_id: Identifier, settings: Settings) -> str:
    """The uniqueId of the document: messages that say the same of the same report have the same one, whenever they are sent."""
    assert report.content is not None
    said = {
        one.name: getattr(report, one.name) for one in fields(report) if one.name not in ("content", "sent", "event")
    }
    content = report.content.kind, sha256(report.content.data).hexdigest(), settings.pdf
    return derived_oid("version", patient_id, sorted(said.items()), content)


def own_id(report: Report) -> UniqueId | None:
    """The uniqueId that a CDA document brings; None where the document has the one that follows from what is said."""
    header = None if report.content is None else report.content.header
    return None if header is None else header.unique_id


# --- the entry --------------------------------------------------------------------------------------------------------


def document(
    report: Report, patient_id: Identifier, source_patient_id: Identifier, settings: Settings
) -> tuple[DocumentEntry, bytes]:
    """The DocumentEntry and the bytes: a PDF or a CDA document as it came, or a CDA document around a PDF or a text.

    Refusal (AE) where a CDA document is of another patient than the message.
    """
    content = report.content
    assert content is not None
    entry = _entry(report, patient_id, source_patient_id, settings)
    if content.header is not None:
        return _completed(entry, content.header, report, settings), content.data
    if content.kind == "pdf" and settings.pdf == "plain":
        format_code = Code.of("urn:ihe:rad:PDF", cda.FORMATS, "PDF Report")
        return replace(entry, mime_type=MimeType(PDF), format_code=format_code), content.data
    custodian = cda_writing.Custodian(name=settings.institution or "Imaging reports", oid=settings.source_id)
    if content.kind == "pdf":
        entry = replace(entry, format_code=Code.of("urn:ihe:iti:xds-sd:pdf:2008", cda.FORMATS, "Scanned document, pdf"))
    media_type = PDF if content.kind == "pdf" else TEXT
    return entry, cda_writing.write(entry, content.data, media_type, custodian=custodian)


def _entry(report: Report, patient_id: Identifier, source_patient_id: Identifier, settings: Settings) -> DocumentEntry:
    codes = settings.codes(report)
    level = _LEVELS.get(report.confidentiality)
    language = report.language if re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*", report.language) else ""
    return DocumentEntry(
        entry_uuid="Report",
        author=(_author(report, settings),),
        class_code=settings.class_code,
        confidentiality_code=(
            Code.of(level[0], _CONFIDENTIALITY, level[1]) if level else settings.confidentiality_code,
        ),
        creation_time=report.time,
        event_code_list=tuple(_event_codes(report, codes, settings)),
        format_code=Code.of("urn:ihe:rad:TEXT", cda.FORMATS, "CDA Wrapped Text Report"),
        healthcare_facility_type_code=settings.healthcare_facility_type_code,
        language_code=LanguageCode(language or settings.language_code),
        legal_authenticator=Person(report.legal_authenticator) if report.legal_authenticator else None,
        mime_type=MimeType(cda.MIME_TYPE),
        patient_id=patient_id,
        practice_setting_code=codes.practice_setting_code or settings.practice_setting_code,
        reference_id_list=tuple(dict.fromkeys(_references(report, settings))),
        service_start_time=report.service_start,
        service_stop_time=report.service_stop,
        source_patient_id=source_patient_id,
        source_patient_info=tuple(_patient_info(report, source_patient_id)),
        title=Text.of((" ".join(report.title.split()) or "Imaging report")[:_MAX_TITLE_CHARS]),
        type_code=codes.type_code or _type_code(report) or settings.type_code,
        unique_id=UniqueId(version_oid(report, patient_id, settings)),
    )


def _completed(entry: DocumentEntry, header: DocumentEntry, report: Report, settings: Settings) -> DocumentEntry:
    """What the document says of itself goes before the message; what leads to it is of both."""
    ours, others = patients(report, settings)
    stated = header.source_patient_id
    known = dict.fromkeys(filter(None, (*ours, *others, entry.patient_id)))
    if stated is not None and stated not in known and stated.authority in {one.authority for one in known}:
        reason = f"the CDA document is of patient {stated}, the message of {', '.join(known)}"
        raise Refusal("AE", reason[:300], "PID^1^3^204")
    told = {
        one.name: value for one in fields(header) if (value := getattr(header, one.name)) and one.name != "entry_uuid"
    }
    references = tuple(dict.fromkeys((*entry.reference_id_list, *header.reference_id_list)))
    events = {one.key: one for one in (*header.event_code_list, *entry.event_code_list)}
    unknown = (
        None if header.format_code else Code.of("urn:ihe:iti:xds:2017:mimeTypeSufficient", cda.FORMATS, "By mimeType")
    )
    completed = replace(replace(entry, format_code=unknown), **told)
    return replace(completed, reference_id_list=references, event_code_list=tuple(events.values()))


def _author(report: Report, settings: Settings) -> Author:
    """The radiologist; where none is named, the sender stands for one."""
    application, _, facility = report.sender.partition("|")
    institution = settings.institution or component(facility, 1)
    person = report.author or ("" if institution else f"^{escape_hl7(component(application, 1) or 'Reporting system')}")
    return Author(
        author_person=Person(person) if person else None,
        author_institution=(Organization(escape_hl7(institution)),) if institution else (),
    )


def _event_codes(report: Report, codes: Codes, settings: Settings) -> Iterator[Code]:
    if report.modality in settings.modalities:
        yield Code.of(report.modality, cda.DCM, settings.modalities[report.modality])
    yield from (one for one in codes.event_code_list if one.code != report.modality)


def _type_code(report: Report) -> Code | None:
    """The procedure's, where the sender says it in LOINC."""
    found = (one for one in report.procedures if one.system.upper() in _LOINC_NAMES)
    return next((Code.of(one.code, _LOINC, one.text or one.code) for one in found), None)


def _references(report: Report, settings: Settings) -> Iterator[ReferenceId]:
    """As those of the manifests: accession numbers, the orders whose issuer is known, the studies; and the report's own."""
    accessions = report.accessions or (report.fillers if settings.filler_is_accession else ())
    for one in accessions:
        yield ReferenceId.of(one.identifier, REFERENCE_ACCESSION, one.authority or settings.accession_issuer or None)
    for number, issuer in (
        *((one, settings.placer_issuer) for one in report.placers),
        *((one, settings.filler_issuer) for one in report.fillers),
    ):
        if authority := number.authority or issuer:
            yield ReferenceId.of(number.identifier, REFERENCE_ORDER, authority)
    for uid in report.study_uids:
        yield ReferenceId.of(uid, REFERENCE_STUDY_INSTANCE_UID)
    yield reference(report, report.number)


def _patient_info(report: Report, source_patient_id: Identifier) -> Iterator[PidField]:
    yield PidField(f"PID-3|{source_patient_id}")
    if report.patient_name:
        yield PidField(f"PID-5|{report.patient_name}")
    if report.birth_date:
        yield PidField(f"PID-7|{report.birth_date}")
    yield PidField(f"PID-8|{report.sex if report.sex in ('M', 'F', 'O') else 'U'}")


# --- submissions ------------------------------------------------------------------------------------------------------


def submission(
    entry: DocumentEntry,
    *,
    settings: Settings,
    now: Timestamp,
    targets: Sequence[str] = (),
    relation: str = AssociationType.RPLC,
) -> Submission:
    """The submission of a document, whose uniqueId follows from the document's. `targets` are the entryUUIDs that it relates to."""
    submission_set = _submission_set(entry, settings, now, derived_oid("submission", entry.unique_id, entry.patient_id))
    member = has_member("SubmissionSet", entry.entry_uuid, entry_uuid="Member", submission_set_status="Original")
    related = (
        Association(
            entry_uuid=f"Relation{number}",
            association_type=relation,
            source_object=entry.entry_uuid,
            target_object=target,
        )
        for number, target in enumerate(targets)
    )
    return Submission(submission_sets=(submission_set,), document_entries=(entry,), associations=(member, *related))


def withdrawal(entry: DocumentEntry, *, settings: Settings, now: Timestamp) -> Submission:
    """The message of ITI-57 that deprecates a registered entry (Metadata Update 3.57)."""
    status = Association(
        entry_uuid="Status",
        association_type=AssociationType.UPDATE_AVAILABILITY_STATUS,
        source_object="SubmissionSet",
        target_object=entry.entry_uuid,
        original_status=str(Status.APPROVED),
        new_status=str(Status.DEPRECATED),
    )
    submission_set = _submission_set(entry, settings, now, f"2.25.{uuid.uuid4().int}")
    return Submission(submission_sets=(submission_set,), associations=(status,))


def _submission_set(entry: DocumentEntry, settings: Settings, now: Timestamp, unique_id: str) -> SubmissionSet:
    return SubmissionSet(
        entry_uuid="SubmissionSet",
        author=entry.author,
        content_type_code=settings.content_type_code,
        patient_id=entry.patient_id,
        source_id=Oid(settings.source_id),
        submission_time=now,
        unique_id=Oid(unique_id),
    )
