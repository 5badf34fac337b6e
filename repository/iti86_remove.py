"""ITI-86 Remove Documents: the bytes of documents go, for good; what the registry knows of them is not touched (ITI TF-2 3.86)."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from repository.catalogue import Stored
from repository.documents import Documents
from repository.holds import Hold, Holds
from repository.tables import State
from xds.messages import DocumentRequest, Outcome
from xds.problems import ErrorCode, Failure, Problem

#: Whoever keeps a record of what was removed listens here; the trail does not depend on how much else is logged.
_audit = logging.getLogger("xdsi.audit")
_audit.setLevel(logging.INFO)
#: Most documents of one request.
MAX_DOCUMENTS = 1000
_DAY_S = 24 * 60 * 60
_MAX_SHOWN_CHARS = 256


def remove(
    requests: Sequence[DocumentRequest],
    *,
    store: Documents,
    holds: Holds,
    repository_unique_id: str,
    retention_days: int = 0,
    now: Callable[[], float] = time.time,
) -> Outcome:
    """Removes all the documents, each named once or several times. Failure with every problem found, and then nothing is removed.

    Nothing is removed within `retention_days` after it was stored; `now` gives seconds since 1970.
    """
    if len(requests) > MAX_DOCUMENTS:
        reason = f"the request names {len(requests)} documents; the limit is {MAX_DOCUMENTS}"
        raise Failure([Problem(code=ErrorCode.REMOVE_DOCUMENTS_ERROR, context=reason)])
    ours = [request for request in requests if request.repository_unique_id == repository_unique_id]
    wanted = list(dict.fromkeys(request.document_unique_id for request in ours))
    found, held = store.states(wanted), holds.of(wanted)
    problems = [*_elsewhere(requests, repository_unique_id)]
    problems += [problem for one in wanted for problem in _hindrances(one, found.get(one, ()), held.get(one))]
    if retention_days:
        stored_after = now() - retention_days * _DAY_S
        problems += [
            _too_young(one, retention_days) for rows in found.values() for one in rows if one.staged_at > stored_after
        ]
    if problems:
        raise Failure(problems)
    store.remove(wanted)
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
    states = {one.state for one in found}
    if State.PENDING in states:
        yield _refused(unique_id, "it is being registered; it can be removed when that has ended")
    if State.QUARANTINED in states:
        yield _refused(
            unique_id,
            "the registry gave no answer to its registration; it can be removed when the sweep has asked again",
        )
    if hold is not None:
        yield _refused(unique_id, f"it is held until {hold.until or 'somebody releases it'}: {hold.reason}")


def _unknown(unique_id: str) -> Problem:
    return Problem(
        code=ErrorCode.DOCUMENT_UNIQUE_ID_ERROR,
        context=f"document {unique_id} is not in this repository",
        location=unique_id,
    )


def _too_young(one: Stored, retention_days: int) -> Problem:
    until = datetime.fromtimestamp(one.staged_at + retention_days * _DAY_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    reason = f"it is kept until {until}, as every document is for {retention_days} days after it was stored"
    return _refused(one.document_unique_id, reason)


def _refused(unique_id: str, reason: str) -> Problem:
    return Problem(code=ErrorCode.REMOVE_DOCUMENTS_ERROR, context=f"document {unique_id}: {reason}", location=unique_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One request of ITI-86 and what became of it, for an audit trail: it holds identifiers of documents, nothing of patients."""

    message_id: str | None
    requests: tuple[DocumentRequest, ...]
    outcome: Outcome

    @property
    def fates(self) -> dict[str, str]:
        """Of each uniqueId what became of the document: `removed`, `kept`, or the code of what is the matter with it.

        `unknown` where something broke that nobody foresaw.
        """
        if self.outcome.succeeded:
            return {one.document_unique_id: "removed" for one in self.requests}
        located = {problem.location: str(problem.code) for problem in self.outcome.problems}
        # An incident has no location, and its code says that the repository itself is at fault.
        broken = any(one.location is None and one.code in _INCIDENTS for one in self.outcome.problems)
        otherwise = "unknown" if broken else "kept"
        return {one.document_unique_id: located.get(one.document_unique_id, otherwise) for one in self.requests}


_INCIDENTS = frozenset({ErrorCode.REPOSITORY_ERROR, ErrorCode.REPOSITORY_BUSY, ErrorCode.REPOSITORY_OUT_OF_RESOURCES})


def log_removal(removal: Removal, *, repository_unique_id: str) -> None:
    """One line in the log `xdsi.audit`, as JSON: what a sender wrote cannot break out of it."""
    fates = removal.fates
    line = {
        "transaction": "ITI-86",
        "repository": repository_unique_id,
        "message": (removal.message_id or "")[:_MAX_SHOWN_CHARS],
        "outcome": removal.outcome.status.rpartition(":")[2],
        "number": len(fates),
        "documents": {name[:_MAX_SHOWN_CHARS]: fate for name, fate in list(fates.items())[:MAX_DOCUMENTS]},
    }
    _audit.info("%s", json.dumps(line))
