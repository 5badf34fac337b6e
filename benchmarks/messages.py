"""The messages that the benchmarks send: submissions of one patient, queries, retrieves, as whole SOAP requests."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from schemas import lcm, query, xdsb
from xds.messages import DocumentRequest
from xds.metadata import Author, DocumentEntry, Submission, SubmissionSet, has_member
from xds.queries import StoredQuery
from xds.values import (
    Code,
    Identifier,
    LanguageCode,
    MimeType,
    Oid,
    Organization,
    Person,
    PidField,
    Sha1,
    Size,
    Text,
    Timestamp,
    UniqueId,
)

SIMPLE = "application/soap+xml; charset=UTF-8"
BOUNDARY = "xdsi-benchmark"
MTOM = f'multipart/related; type="application/xop+xml"; start="<root@x>"; start-info="application/soap+xml"; boundary="{BOUNDARY}"'

_LOINC = "2.16.840.1.113883.6.1"
_ENTRY = DocumentEntry(
    entry_uuid="Document01",
    author=(
        Author(author_person=Person("^Muster^Ann"), author_institution=(Organization("North Clinic^^^^^^^^^1.2.3"),)),
    ),
    class_code=Code.of("REPORTS", "1.2.3.4.8.1", "Reports"),
    confidentiality_code=(Code.of("N", "2.16.840.1.113883.5.25", "Normal"),),
    creation_time=Timestamp("20240102030405"),
    event_code_list=(Code.of("CT", "1.2.840.10008.2.16.4", "Computed Tomography"),),
    format_code=Code.of("urn:ihe:iti:xds:2017:mimeTypeSufficient", "1.3.6.1.4.1.19376.1.2.3", "mimeType Sufficient"),
    healthcare_facility_type_code=Code.of("HOSP", "1.2.3.4.8.2", "Hospital"),
    language_code=LanguageCode("en-US"),
    mime_type=MimeType("text/plain"),
    practice_setting_code=Code.of("GENMED", "1.2.3.4.8.3", "General medicine"),
    service_start_time=Timestamp("20240101"),
    source_patient_id=Identifier("L7^^^&1.2.3.4.5.6&ISO"),
    source_patient_info=(PidField("PID-5|Muster^Ann"), PidField("PID-7|19700101"), PidField("PID-8|F")),
    title=Text.of("Discharge letter"),
    type_code=Code.of("18842-5", _LOINC, "Discharge summary"),
)


def new_oid() -> str:
    """A globally unique OID under 2.25 (ITU-T X.667)."""
    return f"2.25.{uuid.uuid4().int}"


def patient(number: int) -> Identifier:
    return Identifier.of(f"bench{number}", "1.2.3.4")


def submission(patient_id: Identifier, *, documents: int = 1, registered: bool = False) -> Submission:
    """A valid submission of new documents; `registered` adds what a repository would."""
    given = (
        {
            "hash": Sha1("f7ff9e8b7bb2e09b70935a5d785e0cc5d9d0abf0"),
            "size": Size("5"),
            "repository_unique_id": Oid("1.2.3.4.77"),
        }
        if registered
        else {}
    )
    entries = tuple(
        replace(_ENTRY, entry_uuid=f"Document{n}", unique_id=UniqueId(new_oid()), patient_id=patient_id, **given)  # type: ignore[arg-type]
        for n in range(documents)
    )
    submission_set = SubmissionSet(
        entry_uuid="SubmissionSet",
        author=_ENTRY.author,
        content_type_code=Code.of("DIS", "1.2.3.4.8.4", "Discharge"),
        patient_id=patient_id,
        source_id=Oid("1.2.3.4.300"),
        submission_time=Timestamp.at(datetime.now(UTC)),
        unique_id=Oid(new_oid()),
    )
    members = tuple(
        has_member("SubmissionSet", entry.entry_uuid, entry_uuid=f"member{n}", submission_set_status="Original")
        for n, entry in enumerate(entries)
    )
    return Submission(submission_sets=(submission_set,), document_entries=entries, associations=members)


def envelope(action: str, body: bytes) -> bytes:
    return (
        b'<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://www.w3.org/2005/08/addressing"><s:Header>'
        b'<a:Action s:mustUnderstand="1">'
        + action.encode()
        + b"</a:Action><a:MessageID>urn:uuid:"
        + str(uuid.uuid4()).encode()
        + b"</a:MessageID>"
        b"<a:ReplyTo><a:Address>http://www.w3.org/2005/08/addressing/anonymous</a:Address></a:ReplyTo></s:Header>"
        b"<s:Body>" + body + b"</s:Body></s:Envelope>"
    )


def multipart(root: bytes, documents: Iterable[tuple[str, bytes]] = ()) -> bytes:
    """An MTOM message whole in memory; each document with its Content-ID."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"\r\n'
        "Content-Transfer-Encoding: binary\r\nContent-ID: <root@x>\r\n\r\n".encode()
        + root
    ]
    parts += [
        f"--{BOUNDARY}\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n"
        f"Content-ID: <{content_id}>\r\n\r\n".encode()
        + content
        for content_id, content in documents
    ]
    return b"\r\n".join(parts) + f"\r\n--{BOUNDARY}--\r\n".encode()


def register(one: Submission) -> bytes:
    return envelope("urn:ihe:iti:2007:RegisterDocumentSet-b", lcm.encode_submission(one))


def provide(one: Submission, contents: list[bytes]) -> bytes:
    """ITI-41 with each entry's bytes."""
    ids = {entry.entry_uuid: f"d{n}@x" for n, entry in enumerate(one.document_entries)}
    root = envelope("urn:ihe:iti:2007:ProvideAndRegisterDocumentSet-b", xdsb.encode_provide(one, ids))
    return multipart(root, zip(ids.values(), contents, strict=True))


def stored_query(one: StoredQuery) -> bytes:
    return envelope("urn:ihe:iti:2007:RegistryStoredQuery", query.encode_query(one))


def retrieve(requests: list[DocumentRequest]) -> bytes:
    root = envelope("urn:ihe:iti:2007:RetrieveDocumentSet", xdsb.encode_retrieve_request(requests))
    return multipart(root)
