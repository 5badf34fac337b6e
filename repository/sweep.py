"""Settles the documents of submissions whose registration was never heard of: after a crash, a lost answer, a fault while tidying.

The rule: bytes that the registry has registered are never lost, and only it can say so.

* It has an entry of this uniqueId in this repository with this hash and size: the document becomes available.
* It answers that it has none, and the document is older than any registration can last: the bytes go.
* Somebody has removed the document: the bytes go.
* It does not answer, or the document is younger: everything stays as it is.

A row without bytes is never made available, whatever the registry says: its submission was cut off before it could be registered, and
what the registry has is of the same submission sent once more.

A young document that is pending is not even asked for: its registration may be under way, and who has begun it settles it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from repository.catalogue import Stored
from repository.documents import Documents, Staged
from repository.tables import State
from schemas import rim
from xds.metadata import DocumentEntry
from xds.problems import ErrorCode, Failure, fail
from xds.queries import GetDocuments
from xds.transactions import Query

_log = logging.getLogger("xdsi.repository")
#: No message takes longer to arrive.
_LONGEST_MESSAGE_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """How many documents became available, were removed, and wait for the next sweep."""

    committed: int = 0
    discarded: int = 0
    left: int = 0


def sweep(
    *,
    store: Documents,
    query: Query,
    repository_unique_id: str,
    now: Callable[[], float],
    began: float,
    grace_s: float = 3600.0,
) -> Swept:
    """Settle what can be settled. To be called at start-up, and now and then while the service runs, in one process or in several.

    `grace_s` is the time within which a registration has ended one way or the other; `now` gives seconds since 1970. `began`, in the
    same, is when this server was started: a part that was received since then may be of a message whose other parts still come.
    """
    before = now() - grace_s
    store.clear_staging(before=max(min(before, began), before - _LONGEST_MESSAGE_S))
    unsettled = store.unsettled()
    committed = discarded = 0
    for one in unsettled:
        if one.state is State.REMOVED:
            store.discard(Staged.of([one]))
            discarded += 1
            continue
        if one.state is State.PENDING and one.staged_at >= before:
            continue
        try:
            registered = _is_registered(one, query, repository_unique_id)
        except Failure as failure:
            # Perhaps it does not like this uniqueId; the others are no worse for it.
            _log.error("the registry does not say whether it has document %s: %s", one.key, failure)
            continue
        except Exception:
            _log.exception("the registry can not be asked: %d documents wait for the next sweep", len(unsettled))
            break
        if registered and store.has_bytes(one):
            store.commit(Staged.of([one]))
            committed += 1
        elif one.staged_at < before:
            store.discard(Staged.of([one]))
            discarded += 1
    swept = Swept(committed=committed, discarded=discarded, left=len(unsettled) - committed - discarded)
    if committed or discarded:
        _log.warning("swept: %d available, %d removed, %d left", swept.committed, swept.discarded, swept.left)
    return swept


def _is_registered(one: Stored, query: Query, repository_unique_id: str) -> bool:
    """Failure, or whatever the query raises, where the registry does not answer."""
    result = query(GetDocuments(unique_id=(one.document_unique_id,)))
    if not result.outcome.succeeded:
        raise fail(ErrorCode.REGISTRY_ERROR, "; ".join(str(problem) for problem in result.outcome.problems))
    return any(
        isinstance(entry, DocumentEntry)
        and entry.unique_id == one.document_unique_id
        and entry.repository_unique_id == repository_unique_id
        and (entry.hash or "").lower() == one.sha1
        and entry.size == str(one.size)
        for entry in rim.decode_fragments(result.fragments)
    )
