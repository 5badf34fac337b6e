"""On-Demand documents: who asks for one gets what is assembled at that moment, and, if so configured, a snapshot of it is registered.

The rules of ITI-43 for On-Demand entries, and of the option Persistence of Retrieved Documents (supplement On-Demand Documents, 3.43).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from repository.iti43_retrieve import Assembled
from schemas import rim
from xds.messages import Document, QueryResult
from xds.metadata import Association, DocumentEntry, Submission, SubmissionSet, has_member
from xds.problems import ErrorCode, Failure, fail
from xds.queries import GetDocuments, GetRelatedDocuments
from xds.transactions import Provide, Query
from xds.values import MimeType, Oid, Timestamp, UniqueId
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

_log = logging.getLogger("xdsi.repository")
#: So often a snapshot is submitted when somebody else has registered another one meanwhile.
_ATTEMPTS = 3

Assemble = Callable[[str], Document | None]
"""Makes the document of a uniqueId, new each time; None where it cannot make any of that uniqueId. Failure where it failed."""


def on_demand(
    unique_id: str,
    *,
    assemble: Assemble,
    query: Query,
    provide: Provide | None,
    repository_unique_id: str,
    now: Callable[[], datetime],
    new_oid: Callable[[], str],
    mime_type: str = "",
) -> Assembled | None:
    """The document of an On-Demand entry of this repository; None where the registry has no such entry.

    With `provide`, the ITI-41 of this repository, the document is stored under its new uniqueId and registered before it is given
    out. `mime_type` is what is assembled, "" for the mimeType of the entry.

    Failure XDSRegistryNotAvailable where the registry cannot be asked, XDSDocumentUniqueIdError where the entry is Deprecated or the
    document cannot be made, XDSRepositoryError where assembling failed or the snapshot could not be registered.
    """
    entry = _entry(unique_id, query, repository_unique_id)
    if entry is None:
        return None
    made = assemble(unique_id)
    if made is None:
        raise fail(
            ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, f"document {unique_id} cannot be assembled: it is not known there"
        )
    document = replace(made, mime_type=mime_type or str(entry.mime_type or made.mime_type))
    if provide is None:
        return Assembled(document=document, new_document_unique_id=new_oid())
    for attempt in range(1, _ATTEMPTS + 1):
        new_id = new_oid()
        snapshot = _snapshot(entry, new_id, document.mime_type, query, repository_unique_id, now, new_oid)
        try:
            # Without its path the file cannot be taken over, and lasts for the answer and for another attempt.
            provide(snapshot, {"Snapshot": replace(document, path=None)})
        except Failure as failure:
            raced = any(one.code == ErrorCode.REGISTRY_DEPRECATED_DOCUMENT_ERROR for one in failure.problems)
            if raced and attempt < _ATTEMPTS:
                continue
            _log.warning("a snapshot was not registered: %s", ", ".join(str(one.code) for one in failure.problems))
            context = f"document {unique_id} was assembled, but its snapshot could not be registered: {failure}"
            raise fail(ErrorCode.REPOSITORY_ERROR, context) from None
        return Assembled(
            document=document, new_document_unique_id=new_id, new_repository_unique_id=repository_unique_id
        )
    raise AssertionError("the last attempt returns or raises")


def _entry(unique_id: str, query: Query, repository_unique_id: str) -> DocumentEntry | None:
    """The On-Demand entry of this uniqueId in this repository. Several may have it: the Approved one counts."""
    entries = [
        one
        for one in _found(query, GetDocuments(unique_id=(unique_id,)))
        if one.object_type == ON_DEMAND and one.repository_unique_id == repository_unique_id
    ]
    if not entries:
        return None
    for one in entries:
        if one.availability_status == Status.APPROVED:
            return one
    raise fail(
        ErrorCode.DOCUMENT_UNIQUE_ID_ERROR, f"document {unique_id} is not assembled: its On-Demand entry is Deprecated"
    )


def _found(query: Query, asked: GetDocuments | GetRelatedDocuments) -> list[DocumentEntry]:
    """The DocumentEntries of an answer. Failure XDSRegistryNotAvailable where there is none."""
    try:
        result: QueryResult = query(asked)
    except Failure as failure:
        raise _unavailable(failure) from None
    except Exception as error:
        _log.exception("the registry cannot be asked for an On-Demand entry")
        raise _unavailable(None) from error
    if not result.outcome.succeeded:
        raise _unavailable(Failure(result.outcome.problems))
    return [one for one in rim.decode_fragments(result.fragments) if isinstance(one, DocumentEntry)]


def _unavailable(failure: Failure | None) -> Failure:
    said = f": {failure}" if failure is not None else ""
    return fail(ErrorCode.REGISTRY_NOT_AVAILABLE, f"the registry cannot be asked for the On-Demand entry{said}")


def _snapshot(
    entry: DocumentEntry,
    new_id: str,
    mime_type: str,
    query: Query,
    repository_unique_id: str,
    now: Callable[[], datetime],
    new_oid: Callable[[], str],
) -> Submission:
    """A submission of the assembled document as a Stable entry, in place of the snapshot before it."""
    moment = Timestamp.at(now())
    stable = replace(
        entry,
        entry_uuid="Snapshot",
        availability_status=None,
        creation_time=moment,
        home_community_id=None,
        logical_id=None,
        mime_type=MimeType(mime_type),
        object_type=STABLE,
        unique_id=UniqueId(new_id),
        version=None,
    )
    submission_set = SubmissionSet(
        entry_uuid="SubmissionSet",
        author=entry.author,
        content_type_code=entry.type_code,
        patient_id=entry.patient_id,
        source_id=Oid(repository_unique_id),
        submission_time=moment,
        unique_id=Oid(new_oid()),
    )
    related = [(AssociationType.IS_SNAPSHOT_OF, entry.entry_uuid)]
    related += [(AssociationType.RPLC, one.entry_uuid) for one in _snapshots(entry, query)]
    return Submission(
        submission_sets=(submission_set,),
        document_entries=(stable,),
        associations=(
            has_member("SubmissionSet", "Snapshot", entry_uuid="Member", submission_set_status="Original"),
            *(
                Association(
                    entry_uuid=f"Relation{n}", association_type=kind, source_object="Snapshot", target_object=target
                )
                for n, (kind, target) in enumerate(related)
            ),
        ),
    )


def _snapshots(entry: DocumentEntry, query: Query) -> list[DocumentEntry]:
    """The Approved snapshots of an On-Demand entry."""
    asked = GetRelatedDocuments(
        entry_uuid=entry.entry_uuid,
        association_types=(str(AssociationType.IS_SNAPSHOT_OF),),
        object_type=(STABLE, ON_DEMAND),
    )
    return [
        one for one in _found(query, asked) if one.object_type == STABLE and one.availability_status == Status.APPROVED
    ]
