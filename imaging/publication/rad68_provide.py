"""RAD-68 Provide and Register Imaging Document Set: the metadata of a study's manifests, and their submission (RAD TF-2 4.68)."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import pydicom
from pydicom.dataset import Dataset

from imaging.publication.code_map import CodeMap, fitting
from imaging.publication.mapping import (
    KOS_FORMAT,
    ImagingDefaults,
    code,
    event_codes,
    first,
    issuer,
    person_name,
    readable,
    sex,
    text,
    utc,
)
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
    is_oid,
)
from xds.vocabulary import REFERENCE_ACCESSION, REFERENCE_ORDER, REFERENCE_STUDY_INSTANCE_UID, AssociationType, Status

MIME_TYPE = "application/dicom"


class PublishError(ValueError):
    """A study that cannot be published, with the reason."""


def new_uid() -> str:
    """A UID derived from a UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def new_uuid() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def document_entry(
    content: bytes,
    headers: Sequence[Dataset],
    *,
    patient_id: Identifier,
    defaults: ImagingDefaults,
    source_patient_id: Identifier | None = None,
    codes: CodeMap = CodeMap(),  # noqa: B008  frozen
) -> DocumentEntry:
    """The DocumentEntry of a manifest (`content`, Part 10), as RAD TF-3 4.68.4.1.2.3 maps it.

    `headers` are data sets of the images, one of each series at least. `codes` go before what DICOM says. PublishError where no
    sourcePatientId can be made.
    """
    manifest = pydicom.dcmread(io.BytesIO(content))
    every = [manifest, *headers]
    local_id = source_patient_id or local_patient_id(every, defaults)
    return DocumentEntry(
        entry_uuid=new_uuid(),
        author=_authors(every, defaults),
        class_code=defaults.class_code,
        confidentiality_code=(defaults.confidentiality_code,),
        creation_time=_creation_time(manifest, defaults),
        event_code_list=_event_codes(headers, codes),
        format_code=KOS_FORMAT,
        healthcare_facility_type_code=defaults.healthcare_facility_type_code,
        language_code=LanguageCode(defaults.language_code),
        mime_type=MimeType(MIME_TYPE),
        patient_id=patient_id,
        practice_setting_code=next(fitting(codes.practice_setting_code, headers), defaults.practice_setting_code),
        reference_id_list=tuple(dict.fromkeys(_references(manifest, headers, defaults))),
        service_start_time=utc(
            first(every, "StudyDate"),
            first(every, "StudyTime"),
            first([*headers, manifest], "TimezoneOffsetFromUTC"),
            defaults.time_zone,
        ),
        source_patient_id=local_id,
        source_patient_info=tuple(_patient_info(every, local_id)),
        title=Text.of(_title(every)),
        type_code=next(fitting(codes.type_code, headers), None) or _type_code(headers, defaults),
        unique_id=UniqueId(text(manifest, "SOPInstanceUID")),
    )


def submission_of(
    entries: Sequence[DocumentEntry],
    *,
    source_id: str,
    defaults: ImagingDefaults,
    now: datetime,
    unique_id: str,
    replaces: Mapping[str, str],
    transforms: Mapping[str, str],
) -> Submission:
    """The submission of documents of one study in one SubmissionSet (RAD TF-2 4.68).

    By a document's entryUUID, `replaces` has that of its predecessor, and `transforms` that of the one that it is another form of.
    Every object has an entryUUID of its own.
    """
    first_entry, submission_set_uuid = entries[0], new_uuid()
    submission_set = SubmissionSet(
        entry_uuid=submission_set_uuid,
        author=first_entry.author,
        content_type_code=defaults.content_type_code,
        patient_id=first_entry.patient_id,
        source_id=Oid(source_id),
        submission_time=Timestamp.at(now),
        unique_id=Oid(unique_id),
    )
    members = [
        has_member(submission_set_uuid, one.entry_uuid, entry_uuid=new_uuid(), submission_set_status="Original")
        for one in entries
    ]
    return Submission(
        submission_sets=(submission_set,),
        document_entries=tuple(entries),
        associations=(
            *members,
            *(_relation(AssociationType.RPLC, new, old) for new, old in replaces.items()),
            *(_relation(AssociationType.XFRM, other, one) for other, one in transforms.items()),
        ),
    )


def _relation(kind: AssociationType, source: str, target: str) -> Association:
    return Association(entry_uuid=new_uuid(), association_type=kind, source_object=source, target_object=target)


def withdrawal(
    entry_uuids: Iterable[str],
    *,
    patient_id: Identifier,
    source_id: str,
    defaults: ImagingDefaults,
    now: datetime,
    unique_id: str,
) -> Submission:
    """The message of ITI-57 that deprecates entries without a successor (Metadata Update 3.57)."""
    submission_set = SubmissionSet(
        entry_uuid=new_uuid(),
        author=_authors([], defaults),
        content_type_code=defaults.content_type_code,
        patient_id=patient_id,
        source_id=Oid(source_id),
        submission_time=Timestamp.at(now),
        unique_id=Oid(unique_id),
    )
    statuses = (
        Association(
            entry_uuid=new_uuid(),
            association_type=AssociationType.UPDATE_AVAILABILITY_STATUS,
            source_object=submission_set.entry_uuid,
            target_object=entry_uuid,
            original_status=str(Status.APPROVED),
            new_status=str(Status.DEPRECATED),
        )
        for entry_uuid in entry_uuids
    )
    return Submission(submission_sets=(submission_set,), associations=tuple(statuses))


def _creation_time(manifest: Dataset, defaults: ImagingDefaults) -> Timestamp | None:
    date = first([manifest], "InstanceCreationDate") or text(manifest, "ContentDate")
    time = first([manifest], "InstanceCreationTime") or text(manifest, "ContentTime")
    return utc(date, time, text(manifest, "TimezoneOffsetFromUTC"), defaults.time_zone)


def local_patient_id(headers: Sequence[Dataset], defaults: ImagingDefaults) -> Identifier:
    """The images' own Patient ID and who assigns it. PublishError where they do not say, and the configuration neither."""
    local = first(headers, "PatientID")
    if not local:
        raise PublishError("the images have no Patient ID (0010,0020): give the source patient id")
    authority = next((oid for one in headers if (oid := issuer(one.get("IssuerOfPatientIDQualifiersSequence")))), "")
    authority = (
        authority or defaults.issuers.get(first(headers, "IssuerOfPatientID"), "") or defaults.source_patient_issuer
    )
    if not is_oid(authority):
        raise PublishError(
            f"the issuer of Patient ID {local!r} has no OID: give the source patient id, or configure imaging.source_patient_issuer"
        )
    return Identifier.of(local, authority)


def _authors(headers: Sequence[Dataset], defaults: ImagingDefaults) -> tuple[Author, ...]:
    institution = first(headers, "InstitutionName") or defaults.institution
    person = person_name(first(headers, "PerformingPhysicianName"))
    if not (institution or person):
        # No person is known: the creating device stands for one (RAD leaves this to the domain).
        person = escape_hl7(first(headers, "ManufacturerModelName") or "Imaging Document Source")
    return (
        Author(
            author_person=Person(f"^{person}") if person else None,
            author_institution=(Organization(escape_hl7(institution)),) if institution else (),
        ),
    )


def _patient_info(headers: Sequence[Dataset], local_id: Identifier) -> Iterator[PidField]:
    yield PidField(f"PID-3|{local_id}")
    if name := person_name(first(headers, "PatientName")):
        yield PidField(f"PID-5|{name}")
    if birth_date := first(headers, "PatientBirthDate"):
        yield PidField(f"PID-7|{birth_date}")
    yield PidField(f"PID-8|{sex(first(headers, 'PatientSex'))}")


def _references(manifest: Dataset, headers: Sequence[Dataset], defaults: ImagingDefaults) -> Iterator[ReferenceId]:
    """Accession numbers and orders of the study and of each request, and the study itself (ITI TF-3 4.2.3.2.28)."""
    for header in (manifest, *headers):
        requests = [*(header.get("ReferencedRequestSequence") or ()), *(header.get("RequestAttributesSequence") or ())]
        for holder in (header, *requests):
            if accession := text(holder, "AccessionNumber"):
                oid = issuer(holder.get("IssuerOfAccessionNumberSequence")) or defaults.accession_issuer or None
                yield ReferenceId.of(accession, REFERENCE_ACCESSION, oid)
            for number, sequence in (
                ("PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence"),
                ("FillerOrderNumberImagingServiceRequest", "OrderFillerIdentifierSequence"),
            ):
                if (order := text(holder, number)) and (oid := issuer(holder.get(sequence)) or None):
                    yield ReferenceId.of(order, REFERENCE_ORDER, oid)
    yield ReferenceId.of(text(manifest, "StudyInstanceUID"), REFERENCE_STUDY_INSTANCE_UID)


def _title(headers: Sequence[Dataset]) -> str:
    return readable(first(headers, "StudyDescription"), 128) or "Imaging manifest"


def _event_codes(headers: Sequence[Dataset], codes: CodeMap) -> tuple[Code, ...]:
    """What DICOM says, and what the affinity domain adds, each code once."""
    found: dict[str, Code] = {}
    for one in (*event_codes(headers), *fitting(codes.event_code_list, headers)):
        found.setdefault(one.key, one)
    return tuple(found.values())


def _type_code(headers: Sequence[Dataset], defaults: ImagingDefaults) -> Code:
    procedures = (item for header in headers for item in header.get("ProcedureCodeSequence") or ())
    return next((found for item in procedures if (found := code(item, headers[0]))), defaults.type_code)
