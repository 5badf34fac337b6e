"""ITI-43 Retrieve Document Set, the repository's side (ITI TF-2 3.43.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from repository.documents import Documents
from xds.messages import Document, DocumentRequest, Retrieved
from xds.problems import ErrorCode, Failure, Problem

_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """A document that was made for one retrieval, its own uniqueId, and the repository that keeps it, None where nobody does."""

    document: Document
    new_document_unique_id: str
    new_repository_unique_id: str | None = None


OnDemand = Callable[[str], Assembled | None]
"""Makes the document of an On-Demand entry, by the entry's uniqueId; None where that is none. Failure where it cannot be made."""


def retrieve(
    requests: Sequence[DocumentRequest],
    *,
    store: Documents,
    repository_unique_id: str,
    max_memory_bytes: int = 16 * _MEBIBYTE,
    on_demand: OnDemand | None = None,
    max_on_demand: int = 20,
) -> Iterator[Retrieved | Problem]:
    """One Retrieved or one Problem for each request, in its order; what is asked twice is read once and answered twice.

    A document is checked before it is yielded. Small ones are given from memory, all together up to `max_memory_bytes`.
    A homeCommunityId means nothing to a repository; it comes back with the request that a Retrieved holds.
    What is not stored is assembled `on_demand`, up to `max_on_demand` documents for one message.
    """
    free_bytes = max_memory_bytes
    make = None if on_demand is None else _Making(on_demand, max_on_demand)
    answers: dict[str, Document | Assembled | Problem] = {}
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
            found: Document | Assembled | Problem | None = _stored(unique_id, store, small_bytes)
            if isinstance(found, Document) and found.size <= small_bytes:
                free_bytes -= found.size
            if found is None and make is not None:
                found = make(unique_id)
            answers[unique_id] = found or Problem(
                code=ErrorCode.DOCUMENT_UNIQUE_ID_ERROR,
                context=f"document {unique_id} is not in this repository",
                location=unique_id,
            )
        yield _answer(request, answers[unique_id])


def _stored(unique_id: str, store: Documents, max_memory_bytes: int) -> Document | Problem | None:
    """The checked document, or what is the matter with it. The status of its entry is of no importance here."""
    try:
        return store.get(unique_id, max_memory_bytes=max_memory_bytes)
    except Failure as failure:
        return failure.problems[0]


class _Making:
    """Makes the documents of On-Demand entries for one message."""

    def __init__(self, on_demand: OnDemand, limit: int) -> None:
        self._on_demand, self._limit = on_demand, limit
        self._made = 0
        self._silent: Problem | None = None

    def __call__(self, unique_id: str) -> Assembled | Problem | None:
        """The document, or why it was not made; None where there is no such On-Demand entry."""
        if self._silent is not None:
            # A registry that has not answered is not waited for again and again.
            return replace(self._silent, location=unique_id)
        if self._made == self._limit:
            context = f"document {unique_id} is not stored, and one message may ask for no more than {self._limit} made on demand"
            return Problem(code=ErrorCode.REPOSITORY_ERROR, context=context, location=unique_id)
        try:
            made = self._on_demand(unique_id)
            self._made += made is not None
        except Failure as failure:
            self._made += 1
            problem = replace(failure.problems[0], location=unique_id)
            if problem.code == ErrorCode.REGISTRY_NOT_AVAILABLE:
                self._silent = problem
            return problem
        return made


def _answer(request: DocumentRequest, found: Document | Assembled | Problem) -> Retrieved | Problem:
    if isinstance(found, Problem):
        return found
    if isinstance(found, Document):
        return Retrieved(request=request, document=found)
    return Retrieved(
        request=request,
        document=found.document,
        new_repository_unique_id=found.new_repository_unique_id,
        new_document_unique_id=found.new_document_unique_id,
    )
