"""ITI-86 Remove Documents, the repository's side: all of them or none (supplement Remove Metadata and Documents 3.86)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from repository.documents import Documents
from repository.retention import Retention
from xds.messages import DocumentRequest, Outcome
from xds.problems import ErrorCode, Failure, Problem, fail

_audit = logging.getLogger("xdsi.audit")
#: Most documents that one request may name.
MAX_DOCUMENTS = 1000
_MAX_SHOWN_CHARS = 256


def remove_documents(
    requests: Sequence[DocumentRequest], *, store: Documents, retention: Retention, repository_unique_id: str
) -> Outcome:
    """The documents go for good. Failure with every problem found, and then all of them stay.

    The registry's metadata are not touched. A document is removed once, however often it is named.
    """
    if len(requests) > MAX_DOCUMENTS:
        context = f"the request names {len(requests)} documents; the limit is {MAX_DOCUMENTS}"
        raise fail(ErrorCode.REMOVE_DOCUMENTS_ERROR, context)
    ours = [one.document_unique_id for one in requests if one.repository_unique_id == repository_unique_id]
    wanted = list(dict.fromkeys(ours))
    problems = [*_misdirected(requests, repository_unique_id), *retention.obstacles(wanted)]
    if problems:
        raise Failure(problems)
    store.remove(wanted)
    # What is left of holds that are over.
    retention.forget(wanted)
    return Outcome()


def _misdirected(requests: Sequence[DocumentRequest], repository_unique_id: str) -> Iterator[Problem]:
    for one in requests:
        if one.repository_unique_id != repository_unique_id:
            unique_id = one.document_unique_id
            yield Problem(
                code=ErrorCode.UNKNOWN_REPOSITORY_ID,
                context=f"document {unique_id}: repository {one.repository_unique_id} is not this one, {repository_unique_id}",
                location=unique_id,
            )


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
    line = {
        "transaction": "ITI-86",
        "repository": repository_unique_id,
        "message": (removal.message_id or "")[:_MAX_SHOWN_CHARS],
        "outcome": removal.outcome.status.rpartition(":")[2],
        "number": len(removal.fates),
        "documents": {name[:_MAX_SHOWN_CHARS]: fate for name, fate in list(removal.fates.items())[:MAX_DOCUMENTS]},
    }
    _audit.info("%s", json.dumps(line))
