"""ITI-41 Provide and Register Document Set-b, the repository's side: match, measure, store, register, settle (ITI TF-2 3.41.4.1.3)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from repository.documents import Documents, Staged
from repository.trouble import is_full
from xds.messages import Document, Outcome
from xds.metadata import DocumentEntry, Submission
from xds.problems import ErrorCode, Failure, Problem, fail
from xds.transactions import Register
from xds.values import Oid, Sha1, Size
from xds.vocabulary import ResponseStatus

_log = logging.getLogger("xdsi.repository")
_OWN_SLOTS = {"hash", "size", "repositoryUniqueId"}
#: What a registry says of itself and not of the submission: it may have registered it all the same, or be about to.
_NO_VERDICT = {
    ErrorCode.REGISTRY_ERROR,
    ErrorCode.REGISTRY_BUSY,
    ErrorCode.REGISTRY_OUT_OF_RESOURCES,
    ErrorCode.REGISTRY_NOT_AVAILABLE,
}


def provide_and_register(
    submission: Submission,
    documents: Mapping[str, Document],
    *,
    store: Documents,
    register: Register,
    repository_unique_id: str,
) -> Outcome:
    """Store the documents, keyed by the id of their DocumentEntry, and register the submission: all of it or nothing.

    hash, size and repositoryUniqueId become the repository's own, everything else goes to the registry as it came, and the registry's
    problems come back as they are. Failure with all the problems that were found when it is refused, and then nothing is stored.

    An entry whose uniqueId is missing or unusable can not be stored. It is sent to the registry nevertheless: that refuses it, and
    tells what else is wrong with the submission.
    """
    with _room_for(documents):
        documents = {document_id: document.measured() for document_id, document in documents.items()}
    problems = [*_matching(submission, documents), *_consistency(submission, documents)]
    if problems:
        raise Failure(problems)
    staged = _stage(submission, documents, store)
    outcome = _register(_completed(submission, documents, repository_unique_id), staged, store, register)
    unstored = [entry.entry_uuid for entry in submission.document_entries if not _storable(entry)]
    if unstored:
        raise fail(
            ErrorCode.REPOSITORY_ERROR,
            f"the registry has registered DocumentEntry {', '.join(unstored)} without a usable uniqueId: it can not be retrieved",
        )
    return outcome


def _storable(entry: DocumentEntry) -> bool:
    return entry.unique_id is not None and entry.unique_id.fault is None


def _matching(submission: Submission, documents: Mapping[str, Document]) -> Iterator[Problem]:
    """Each DocumentEntry has its Document and each Document its DocumentEntry (ITI TF-2 3.41.4.1.2)."""
    entries = Counter(entry.entry_uuid for entry in submission.document_entries)
    for entry_id, count in entries.items():
        if entry_id not in documents:
            yield Problem(
                code=ErrorCode.MISSING_DOCUMENT,
                context=f"DocumentEntry {entry_id}: the message holds no Document with this id",
            )
        if count > 1:
            yield Problem(
                code=ErrorCode.REPOSITORY_METADATA_ERROR,
                context=f"DocumentEntry {entry_id}: {count} entries have this id, so that no Document belongs to one of them",
            )
    # What is no object of IHE's is for the registry to judge; its Document is not without metadata.
    known = entries.keys() | {one.entry_uuid for one in submission.unrecognized}
    for document_id in documents.keys() - known:
        yield Problem(
            code=ErrorCode.MISSING_DOCUMENT_METADATA,
            context=f"Document {document_id}: the message holds no DocumentEntry with this id",
        )


def _consistency(submission: Submission, documents: Mapping[str, Document]) -> Iterator[Problem]:
    """What the source says about size and hash is true, and no two documents have one uniqueId."""
    unique_ids = Counter(entry.unique_id for entry in submission.document_entries if entry.unique_id)
    for unique_id, count in unique_ids.items():
        if count > 1:
            yield Problem(
                code=ErrorCode.REPOSITORY_DUPLICATE_UNIQUE_ID_IN_MESSAGE,
                context=f"DocumentEntry.uniqueId {unique_id}: {count} entries of the submission have it",
            )
    for entry in submission.document_entries:
        document = documents.get(entry.entry_uuid)
        if document is None:
            continue
        for attribute, right in (("hash", document.sha1), ("size", str(document.size))):
            for value in _submitted(entry, attribute):
                # 40 digits of either case; a number of bytes, perhaps with zeros before it.
                given = value.lower() if attribute == "hash" else value.lstrip("0") or "0"
                if given != right:
                    yield Problem(
                        code=ErrorCode.REPOSITORY_METADATA_ERROR,
                        context=f"DocumentEntry {entry.entry_uuid}: {attribute} is {value!r}, its document has {right}",
                    )


def _submitted(entry: DocumentEntry, attribute: str) -> Iterator[str]:
    """What the source wrote as hash or size, misshapen slots included."""
    value = entry.hash if attribute == "hash" else entry.size
    if value is not None:
        yield value.strip()
    for slot in entry.extra.slots:
        if slot.name == attribute:
            yield from (value.strip() for value in slot.values)


def _completed(submission: Submission, documents: Mapping[str, Document], repository_unique_id: str) -> Submission:
    """The submission with our own hash, size and repositoryUniqueId, and nothing else changed."""
    return replace(
        submission,
        document_entries=tuple(
            replace(
                entry,
                hash=Sha1(documents[entry.entry_uuid].sha1),
                size=Size(documents[entry.entry_uuid].size),
                repository_unique_id=Oid(repository_unique_id),
                extra=replace(
                    entry.extra, slots=tuple(slot for slot in entry.extra.slots if slot.name not in _OWN_SLOTS)
                ),
            )
            for entry in submission.document_entries
        ),
    )


def _stage(submission: Submission, documents: Mapping[str, Document], store: Documents) -> Staged:
    """Make the bytes durable, before the registry hears of them: whoever finds the entry must be able to retrieve the document."""
    storable: dict[str, Document] = {}
    for entry in submission.document_entries:
        if entry.unique_id is not None and _storable(entry):
            document = documents[entry.entry_uuid]
            # The mimeType of the metadata, to the letter, is what ITI-43 gives back; that of the MIME part means nothing.
            mime_type = document.mime_type if entry.mime_type is None else str(entry.mime_type)
            storable[str(entry.unique_id)] = replace(document, mime_type=mime_type)
    with _room_for(storable):
        return store.stage(storable)


@contextmanager
def _room_for(documents: Mapping[str, Document]) -> Iterator[None]:
    """Failure (XDSRepositoryOutOfResources) where there is no room for the documents, be it their bytes or their rows."""
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        _log.error("no space for %d documents", len(documents))
        raise fail(
            ErrorCode.REPOSITORY_OUT_OF_RESOURCES, f"no space is left to store {len(documents)} documents"
        ) from error


def _register(submission: Submission, staged: Staged, store: Documents, register: Register) -> Outcome:
    """Ask the registry, and settle the documents by its verdict."""
    try:
        outcome = register(submission)
    except Failure as failure:
        _refused(failure.problems, staged, store)
        raise
    except Exception as error:
        # Perhaps it was registered, and only the answer was lost. The source hears of a failure, so that the documents are not
        # given out; they are kept until the sweep has asked the registry.
        incident = uuid4()
        _log.exception("incident %s: no verdict of the registry on %d documents", incident, len(staged.keys))
        store.quarantine(staged)
        raise fail(
            ErrorCode.REGISTRY_NOT_AVAILABLE, f"the registry gave no answer to the registration (incident {incident})"
        ) from error
    if outcome.status is ResponseStatus.SUCCESS:
        store.commit(staged)
        return outcome
    if outcome.status is ResponseStatus.FAILURE:
        _refused(outcome.problems, staged, store)
    else:
        # ITI-42 knows no PartialSuccess: what of it has been registered only the sweep can find out.
        store.quarantine(staged)
    raise Failure(
        outcome.problems
        or (
            Problem(
                code=ErrorCode.REPOSITORY_ERROR, context="the registry has refused the submission without a reason"
            ),
        )
    )


def _refused(problems: Iterable[Problem], staged: Staged, store: Documents) -> None:
    """The bytes go, unless the registry may have registered them: then the sweep asks it again."""
    if any(problem.code in _NO_VERDICT for problem in problems):
        store.quarantine(staged)
    else:
        store.discard(staged)
