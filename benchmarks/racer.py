"""One of several processes that change a registry at the same time: each with its own Store, each told on stdin what to do and when.

python -m benchmarks.racer URL

A line of stdin is a change (`Change`) in JSON; the answer is "ready". The line "go" then carries it out; the answer is its outcomes.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from benchmarks.messages import new_oid, submission
from registry.iti42_register import register
from registry.iti62_remove import remove
from registry.patients import merge_patients
from registry.store import Store, open_engine
from xds.metadata import Association, ObjectRef, Submission, has_member
from xds.problems import Failure
from xds.values import Identifier, Oid, Sha1, UniqueId
from xds.vocabulary import AssociationType

#: The error codes of a refusal; empty where the change was made.
Outcome = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What to do, `times` times: submit a document, merge a patient into `patient`, or remove objects.

    What is None is new each time. A submission may relate its document to a `target`, put it into a `folder`, refer to a `reference`.
    """

    kind: Literal["register", "merge", "remove"]
    patient: str = ""
    times: int = 1
    set_unique_id: str | None = None
    entry_uuid: str | None = None
    unique_id: str | None = None
    hash: str | None = None
    relation: Literal["RPLC", "APND"] | None = None
    target: str = ""
    folder: str | None = None
    reference: str | None = None
    subsumed: str = ""
    removed: tuple[str, ...] = ()

    def line(self) -> str:
        return json.dumps(asdict(self))


def prepared(store: Store, change: Change) -> Callable[[], list[Outcome]]:
    """The change, ready to be made."""
    steps = [_step(store, change) for _ in range(change.times)]
    return lambda: [_outcome(step) for step in steps]


def _step(store: Store, change: Change) -> Callable[[], object]:
    if change.kind == "merge":
        surviving, subsumed = Identifier(change.patient), Identifier(change.subsumed)
        return lambda: merge_patients(store, surviving=surviving, subsumed=subsumed)
    if change.kind == "remove":
        refs = [ObjectRef(entry_uuid=one) for one in change.removed]
        return lambda: remove(refs, store=store)
    made = submitted(change)
    return lambda: register(made, store=store, now=lambda: datetime.now(UTC), new_uuid=new_uuid)


def new_uuid() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def submitted(change: Change) -> Submission:
    """The submission that a change asks for."""
    made = submission(Identifier(change.patient), registered=True)
    own = change.entry_uuid or "Document0"
    entry = replace(made.document_entries[0], entry_uuid=own, unique_id=UniqueId(change.unique_id or new_oid()))
    if change.hash is not None:
        entry = replace(entry, hash=Sha1(change.hash))
    links = [replace(made.associations[0], target_object=own)]
    if change.relation is not None:
        kind = AssociationType[change.relation]
        links.append(
            Association(entry_uuid="rel", association_type=kind, source_object=own, target_object=change.target)
        )
    if change.folder is not None:
        links.append(has_member(change.folder, own, entry_uuid="fd"))
        links.append(has_member("SubmissionSet", "fd", entry_uuid="sfd"))
    if change.reference is not None:
        links.append(has_member("SubmissionSet", change.reference, entry_uuid="ref", submission_set_status="Reference"))
    one = replace(made.submission_sets[0], unique_id=Oid(change.set_unique_id or new_oid()))
    return replace(made, submission_sets=(one,), document_entries=(entry,), associations=tuple(links))


def _outcome(step: Callable[[], object]) -> Outcome:
    try:
        step()
    except Failure as failure:
        return [str(problem.code) for problem in failure.problems]
    return []


def main(url: str) -> None:
    """Reads changes until stdin ends."""
    store = Store(open_engine(url))
    change: Callable[[], list[Outcome]] | None = None
    for line in sys.stdin:
        if line.strip() == "go":
            if change is None:
                raise SystemExit("go, but nothing to do")
            print(json.dumps(change()), flush=True)
        else:
            fields = json.loads(line)
            change = prepared(store, Change(**fields | {"removed": tuple(fields["removed"])}))
            print("ready", flush=True)
    store.close()


if __name__ == "__main__":
    main(sys.argv[1])
