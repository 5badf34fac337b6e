"""A registry over a database, submissions to break it with, and processes that change it at the same time: for tests."""

from __future__ import annotations

import itertools
import multiprocessing
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import bindparam, func, select

from benchmarks.messages import new_oid, patient, submission
from database.connections import Connection, Database
from registry.codes import Codes
from registry.iti18_stored_query import stored_query
from registry.iti42_register import register as iti42
from registry.patients import add_patient, merge_patients
from registry.rules import STRICT, Strictness
from registry.rules_registry import Patients
from registry.schema import upgrade
from registry.store import Store, open_engine
from registry.tables import BY_KIND, metadata
from schemas import rim
from xds.messages import Outcome
from xds.metadata import Association, DocumentEntry, Folder, RegistryObject, Submission, has_member
from xds.problems import Failure
from xds.queries import FindDocuments, GetAll, GetAssociations, GetDocuments, GetFolders, StoredQuery
from xds.values import Code, Identifier, Text, UniqueId
from xds.vocabulary import ON_DEMAND, STABLE, AssociationType, Status

T = TypeVar("T")
METADATA = "XDSRegistryMetadataError"
UNRESOLVED = "UnresolvedReferenceException"
DEPRECATED = "XDSRegistryDeprecatedDocumentError"
BOTH = (str(Status.APPROVED), str(Status.DEPRECATED))
#: How long anything here may take before it counts as a deadlock.
PATIENCE_S = 120

_numbers = itertools.count(1000)
_EVERY_ROW = {table.name: select(*table.c) for table in metadata.sorted_tables}
_COUNTS = [select(func.count()).select_from(table) for table in metadata.sorted_tables]
_OF_PATIENT = {
    kind: select(*table.c).where(table.c.patient_id == bindparam("patient")).order_by(table.c.entry_uuid)
    for kind, table in BY_KIND.items()
}


def dump(store: Store) -> dict[str, list[str]]:
    """All rows of all tables, sorted."""
    return {name: sorted(map(repr, store.rows(statement, {}))) for name, statement in _EVERY_ROW.items()}


def new_uuid() -> str:
    return f"urn:uuid:{uuid.uuid4()}"


def opened(url: str) -> Store:
    """A store on the database, whose tables are made where they are missing."""
    engine = open_engine(url)
    upgrade(engine)
    return Store(engine)


class Registry:
    """A registry at a time that the test sets, with two patients that nobody else in the database has."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)
        self.p1, self.p2 = self.new_patient(), self.new_patient()
        self.strictness = STRICT
        self.patients: Patients = "known"
        self.codes: Codes | None = None

    def new_patient(self) -> Identifier:
        made = patient(next(_numbers))
        assert add_patient(self.store, made)
        return made

    def register(self, one: Submission, *, on_demand: bool = False) -> Outcome:
        return iti42(
            one,
            store=self.store,
            now=lambda: self.moment,
            new_uuid=new_uuid,
            patients=self.patients,
            strictness=self.strictness,
            codes=self.codes,
            on_demand=on_demand,
        )

    def refused(self, one: Submission, *, on_demand: bool = False) -> list[tuple[str, str]]:
        """The code and text of each problem; and nothing has been stored or changed."""
        before = self.snapshot()
        try:
            self.register(one, on_demand=on_demand)
        except Failure as failure:
            assert self.snapshot() == before, "something was stored of what was refused"
            assert failure.problems, "refused without a reason"
            return [(str(problem.code), problem.context) for problem in failure.problems]
        raise AssertionError("the submission was taken")

    def snapshot(self) -> list[Any]:
        """How many rows there are in all, and the rows of the two patients."""
        counts = [self.store.rows(statement, {}) for statement in _COUNTS]
        rows = [
            self.store.rows(statement, {"patient": str(one)})
            for statement in _OF_PATIENT.values()
            for one in (self.p1, self.p2)
        ]
        return [counts, rows]

    def everything(self, *patients: Identifier) -> list[RegistryObject]:
        """All objects of the patients, p1 and p2 where none is named, as GetAll gives them."""
        found: list[Any] = []
        for one in patients or (self.p1, self.p2):
            query = GetAll(
                patient_id=one,
                document_entry_status=BOTH,
                submission_set_status=BOTH,
                folder_status=BOTH,
                object_type=(STABLE, ON_DEMAND),
            )
            found += rim.decode_fragments(stored_query(query, store=self.store).fragments)
        return found

    def of(self, kind: type[T], *patients: Identifier) -> list[T]:
        return [one for one in self.everything(*patients) if isinstance(one, kind)]

    def entry(self, made: Submission, number: int = 0) -> DocumentEntry:
        """What is registered of an entry of a submission."""
        unique_id, patient_id = made.document_entries[number].unique_id, made.submission_sets[0].patient_id
        assert patient_id is not None
        (found,) = (one for one in self.of(DocumentEntry, patient_id) if one.unique_id == unique_id)
        return found

    def registered(self, made: Submission, *, on_demand: bool = False) -> DocumentEntry:
        """Registers it, and gives its first entry as it is then."""
        assert self.register(made, on_demand=on_demand).succeeded
        return self.entry(made)

    def folder(self, patient_id: Identifier | None = None) -> Folder:
        """A new folder of p1, or of the patient."""
        made = folder_submission(patient_id or self.p1)
        assert self.register(made).succeeded
        (found,) = (one for one in self.of(Folder, patient_id or self.p1) if one.unique_id == made.folders[0].unique_id)
        return found

    def found(self, patient_id: Identifier, *statuses: str) -> list[DocumentEntry]:
        """FindDocuments of the patient."""
        query = FindDocuments(patient_id=patient_id, status=statuses or BOTH, object_type=(STABLE, ON_DEMAND))
        fragments = stored_query(query, store=self.store).fragments
        return [one for one in rim.decode_fragments(fragments) if isinstance(one, DocumentEntry)]


class Updating(Registry):
    """A registry of which metadata is updated, in the manner of the transaction that `update` is."""

    def update(self, *parts: Submission, store: Store | None = None) -> Outcome:
        raise NotImplementedError

    def not_updated(self, *parts: Submission) -> list[tuple[str, str]]:
        """The code and text of each problem; and not one row has changed."""
        before = dump(self.store)
        try:
            self.update(*parts)
        except Failure as failure:
            assert dump(self.store) == before, "something has changed"
            return [(str(problem.code), problem.context) for problem in failure.problems]
        raise AssertionError("the update was taken")

    def ask(self, query: StoredQuery) -> list[Any]:
        return list(rim.decode_fragments(stored_query(query, store=self.store).fragments))

    def versions(self, one: DocumentEntry | Folder) -> list[Any]:
        """All versions of a logical object, oldest first."""
        assert one.logical_id is not None
        query = GetDocuments if isinstance(one, DocumentEntry) else GetFolders
        found = self.ask(query(logical_id=(one.logical_id,), metadata_level=2))
        return sorted(found, key=lambda each: int(each.version))

    def latest(self, one: DocumentEntry | Folder) -> Any:
        return self.versions(one)[-1]

    def links(self, *ends: str, status: tuple[str, ...] = (str(Status.APPROVED),)) -> set[tuple[str, str, str]]:
        """Type, source and target of the associations that touch one of the objects."""
        found = self.ask(GetAssociations(uuid=ends, association_status=status, metadata_level=2))
        return {(one.association_type.rpartition(":")[2], one.source_object, one.target_object) for one in found}


# --- submissions ------------------------------------------------------------------------------------------------------


def valid(patient_id: Identifier, /, **changes: Any) -> Submission:
    """A valid submission of one document, some attributes of its entry changed."""
    made = submission(patient_id, registered=True)
    return replace(made, document_entries=(replace(made.document_entries[0], **changes),))


def on_demand_submission(patient_id: Identifier, /, **changes: Any) -> Submission:
    """A valid submission of ITI-61."""
    bare: dict[str, Any] = {"object_type": ON_DEMAND, "creation_time": None, "hash": None, "size": None}
    return valid(patient_id, **(bare | changes))


def with_set(patient_id: Identifier, /, **changes: Any) -> Submission:
    made = submission(patient_id, registered=True)
    return replace(made, submission_sets=(replace(made.submission_sets[0], **changes),))


def with_links(made: Submission, *links: Association) -> Submission:
    return replace(made, associations=(*made.associations, *links))


def link(kind: str, source: str, target: str, **changes: Any) -> Association:
    made = Association(
        entry_uuid=f"link-{kind[-4:]}", association_type=kind, source_object=source, target_object=target
    )
    return replace(made, **changes)


def related(made: Submission, kind: AssociationType, target: str, **changes: Any) -> Submission:
    """The submission, its first entry related to the target."""
    return with_links(made, link(kind, "Document0", target, **changes))


def folder_submission(patient_id: Identifier, /, **changes: Any) -> Submission:
    """A valid submission of one folder."""
    made = submission(patient_id, documents=0, registered=True)
    folder = Folder(
        entry_uuid="Folder0",
        code_list=(Code.of("EP", "1.2.3", "Episode"),),
        patient_id=patient_id,
        title=Text.of("Episode 7"),
        unique_id=UniqueId(new_oid()),
    )
    return replace(
        made,
        folders=(replace(folder, **changes),),
        associations=(has_member("SubmissionSet", "Folder0", entry_uuid="sf"),),
    )


def into_folder(made: Submission, folder: str, member: str = "Document0") -> Submission:
    """The submission, and in it a membership in the folder."""
    return with_links(
        made,
        has_member(folder, member, entry_uuid="fd"),
        has_member("SubmissionSet", "fd", entry_uuid="sfd"),
    )


def own_id(made: Submission, entry_uuid: str) -> Submission:
    """The submission, its only entry with the id."""
    (entry,), (member, *others) = made.document_entries, made.associations
    return replace(
        made,
        document_entries=(replace(entry, entry_uuid=entry_uuid),),
        associations=(replace(member, target_object=entry_uuid), *others),
    )


def combined(*parts: Submission) -> Submission:
    """One request of all the parts, with the SubmissionSet of the first."""
    return Submission(
        submission_sets=parts[0].submission_sets,
        document_entries=tuple(one for part in parts for one in part.document_entries),
        folders=tuple(one for part in parts for one in part.folders),
        associations=tuple(one for part in parts for one in part.associations),
    )


def only_a_set(patient_id: Identifier | None) -> Submission:
    assert patient_id is not None
    return submission(patient_id, documents=0, registered=True)


def new_version(
    old: DocumentEntry | Folder, /, previous: str | None = "1", name: str = "New", **changes: Any
) -> Submission:
    """An update of the object, some attributes changed; those of the membership are named `member_...`."""
    member = has_member("SubmissionSet", name, entry_uuid=f"member-{name}", submission_set_status="Original")
    of_member = {key.removeprefix("member_"): changes.pop(key) for key in list(changes) if key.startswith("member_")}
    member = replace(member, previous_version=previous, **of_member)
    plain: dict[str, Any] = {"entry_uuid": name, "version": None, "availability_status": None}
    new = replace(old, **(plain | changes))
    made = replace(only_a_set(new.patient_id or old.patient_id), associations=(member,))
    if isinstance(new, Folder):
        return replace(made, folders=(new,))
    return replace(made, document_entries=(new,))


# --- at the same time -------------------------------------------------------------------------------------------------


class Clock:
    """Each look at it is a second later than the one before, whichever thread looks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._moment = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        with self._lock:
            self._moment += timedelta(seconds=1)
            return self._moment


def together(actions: Sequence[Callable[[], T]]) -> list[T | Failure]:
    """What each action gives when all begin at once, or the Failure that refused it. TimeoutError where one hangs."""
    barrier = threading.Barrier(len(actions))
    futures: list[Future[T | Failure]] = [Future() for _ in actions]

    def run(action: Callable[[], T], future: Future[T | Failure]) -> None:
        try:
            barrier.wait(PATIENCE_S)
            future.set_result(action())
        except Failure as failure:
            future.set_result(failure)
        except BaseException as error:
            future.set_exception(error)

    for action, future in zip(actions, futures, strict=True):
        # One that hangs must not keep the test from ending.
        threading.Thread(target=run, args=(action, future), daemon=True).start()
    return [future.result(PATIENCE_S) for future in futures]


class Transactions(Database):
    """A database that counts its transactions."""

    def __init__(self, of: Database) -> None:
        super().__init__(of.engine)
        self.count = 0

    @contextmanager
    def transaction(self, keys: Any) -> Iterator[Connection]:
        self.count += 1
        with super().transaction(keys) as connection:
            yield connection


def _serve(url: str, orders: Any) -> None:
    """A process of its own: does what it is told, one thing after another, and says how each went."""
    store = Store(open_engine(url))
    orders.send("ready")
    while (order := orders.recv()) is not None:
        action, arguments = order
        try:
            orders.send(("done", action(store, *arguments)))
        except Failure as failure:
            orders.send(("refused", failure.problems))
        except Exception as error:
            orders.send(("broken", f"{type(error).__name__}: {error}"))
    store.close()


def register_now(store: Store, one: Submission, strictness: Strictness = STRICT) -> bool:
    """ITI-42 by the clock of this machine."""
    return iti42(one, store=store, now=lambda: datetime.now(UTC), new_uuid=new_uuid, strictness=strictness).succeeded


def merge_now(store: Store, surviving: Identifier, subsumed: Identifier) -> bool:
    merge_patients(store, surviving=surviving, subsumed=subsumed)
    return True


class Processes:
    """Several processes, each with a store of its own on the same database, that do things at the same time."""

    def __init__(self, url: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        pairs = [context.Pipe() for _ in range(count)]
        self._ends = [ours for ours, _ in pairs]
        self._processes = [
            context.Process(target=_serve, args=(url, theirs), daemon=True, name="registry") for _, theirs in pairs
        ]
        for process in self._processes:
            process.start()
        for _, theirs in pairs:
            theirs.close()
        assert [self._answer(end) for end in self._ends] == ["ready"] * count

    @staticmethod
    def _answer(end: Any) -> Any:
        if not end.poll(PATIENCE_S):
            raise TimeoutError("a process does not answer: it waits for another one")
        return end.recv()

    def together(self, *orders: tuple[Callable[..., Any], tuple[Any, ...]]) -> list[Any]:
        """One order for each process; what each gave, or a Failure. RuntimeError for any other exception."""
        assert len(orders) == len(self._ends)
        for end, order in zip(self._ends, orders, strict=True):
            end.send(order)
        results: list[Any] = []
        for kind, result in [self._answer(end) for end in self._ends]:
            if kind == "broken":
                raise RuntimeError(result)
            results.append(Failure(result) if kind == "refused" else result)
        return results

    def close(self) -> None:
        for end in self._ends:
            end.send(None)
        for process, end in zip(self._processes, self._ends, strict=True):
            process.join(PATIENCE_S)
            end.close()
            process.close()
