"""ITI-86 Remove Documents: the bytes of documents go, for good; what the registry knows of them is not touched (ITI TF-2 3.86)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from repository.documents import Documents, Stored
from repository.holds import Hold, Holds
from repository.tables import State
from xds.messages import DocumentRequest, Outcome
from xds.problems import ErrorCode, Failure, Problem

#: Most documents of one request.
MAX_DOCUMENTS = 1000


def remove(
    requests: Sequence[DocumentRequest], *, store: Documents, holds: Holds, repository_unique_id: str
) -> Outcome:
    """Removes all the documents, each named once or several times. Failure with every problem found, and then nothing is removed."""
    if len(requests) > MAX_DOCUMENTS:
        reason = f"the request names {len(requests)} documents; the limit is {MAX_DOCUMENTS}"
        raise Failure([Problem(code=ErrorCode.REMOVE_DOCUMENTS_ERROR, context=reason)])
    wanted = list(dict.fromkeys(request.document_unique_id for request in requests))
    found, held = store.states(wanted), holds.of(wanted)
    problems = [*_elsewhere(requests, repository_unique_id)]
    problems += [problem for one in wanted for problem in _hindrances(one, found.get(one, ()), held.get(one))]
    if problems:
        raise Failure(problems)
    removed = store.remove(wanted)
    # Somebody else may have been quicker.
    if quicker := [one for one in wanted if one not in removed]:
        raise Failure([_unknown(one) for one in quicker])
    return Outcome()


def _elsewhere(requests: Sequence[DocumentRequest], repository_unique_id: str) -> Iterator[Problem]:
    for request in requests:
        if request.repository_unique_id != repository_unique_id:
            unique_id, other = request.document_unique_id, request.repository_unique_id
            yield Problem(
                code=ErrorCode.UNKNOWN_REPOSITORY_ID,
                context=f"document {unique_id}: repository {other} is not this one, {repository_unique_id}",
                location=unique_id,
            )


def _hindrances(unique_id: str, found: Sequence[Stored], hold: Hold | None) -> Iterator[Problem]:
    """Why a document cannot be removed."""
    if not found:
        yield _unknown(unique_id)
    if any(one.state is not State.AVAILABLE for one in found):
        yield _refused(
            unique_id, "the registration of its submission has not ended; it can be removed when that is known"
        )
    if hold is not None:
        yield _refused(unique_id, f"it is held until {hold.until or 'somebody releases it'}: {hold.reason}")


def _unknown(unique_id: str) -> Problem:
    return Problem(
        code=ErrorCode.DOCUMENT_UNIQUE_ID_ERROR,
        context=f"document {unique_id} is not in this repository",
        location=unique_id,
    )


def _refused(unique_id: str, reason: str) -> Problem:
    return Problem(code=ErrorCode.REMOVE_DOCUMENTS_ERROR, context=f"document {unique_id}: {reason}", location=unique_id)
