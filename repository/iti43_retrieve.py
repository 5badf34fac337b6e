"""ITI-43 Retrieve Document Set, the repository's side (ITI TF-2 3.43.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repository.documents import Documents
from xds.messages import Document, DocumentRequest, Retrieved
from xds.problems import ErrorCode, Failure, Problem

_MEBIBYTE = 1024 * 1024


def retrieve(
    requests: Sequence[DocumentRequest],
    *,
    store: Documents,
    repository_unique_id: str,
    max_memory_bytes: int = 16 * _MEBIBYTE,
) -> Iterator[Retrieved | Problem]:
    """One Retrieved or one Problem for each request, in its order; what is asked twice is read once and answered twice.

    A document is checked before it is yielded. Small ones are given from memory, all together up to `max_memory_bytes`.
    A homeCommunityId means nothing to a repository; it comes back with the request that a Retrieved holds.
    """
    free_bytes = max_memory_bytes
    answers: dict[str, Document | Problem] = {}
    for request in requests:
        unique_id = request.document_unique_id
        if request.repository_unique_id != repository_unique_id:
            yield Problem(
                code=ErrorCode.UNKNOWN_REPOSITORY_ID,
                context=f"document {unique_id}: repository {request.repository_unique_id} is not this one, {repository_unique_id}",
                location=unique_id,
            )
            continue
        if unique_id not in answers:
            small_bytes = min(_MEBIBYTE, free_bytes)
            answers[unique_id] = found = _find(unique_id, store, small_bytes)
            if isinstance(found, Document) and found.size <= small_bytes:
                free_bytes -= found.size
        answer = answers[unique_id]
        yield answer if isinstance(answer, Problem) else Retrieved(request=request, document=answer)


def _find(unique_id: str, store: Documents, max_memory_bytes: int) -> Document | Problem:
    """The checked document, or what is the matter with it. The status of its entry is of no importance here."""
    try:
        document = store.get(unique_id, max_memory_bytes=max_memory_bytes)
    except Failure as failure:
        return failure.problems[0]
    return document or Problem(
        code=ErrorCode.DOCUMENT_UNIQUE_ID_ERROR,
        context=f"document {unique_id} is not in this repository",
        location=unique_id,
    )
