"""Changes that come at the same time are as if one came after the other, and share commits (ITI TF-2 3.42.4.1.3, 3.62.4.1.3)."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import insert, select

from benchmarks import racer
from benchmarks.messages import new_oid, patient, submission
from benchmarks.racer import Change, Outcome, new_uuid
from database.connections import Connection, Database
from registry.iti18_stored_query import stored_query
from registry.iti42_register import register, register_later
from registry.iti62_remove import MAX_OBJECTS, remove
from registry.patients import add_patient, list_patients, merge_patients
from registry.schema import upgrade
from registry.store import Footprint, Store, Unit, open_engine
from registry.tables import association, document_entry, folder, registry_object, submission_set
from registry.tables import patient as patient_table
from schemas import rim
from tests.conformance.test_iti42_register import folder_submission
from xds import messages
from xds.metadata import DocumentEntry, Folder, ObjectRef, RegistryObject, Submission
from xds.problems import ErrorCode, Failure
from xds.queries import FindDocuments, GetAll, GetFolderAndContents
from xds.values import Identifier
from xds.vocabulary import Status

#: Nothing here takes longer, or something waits for what never comes.
SECONDS = 60.0
ROUNDS = 10
ROOT = Path(__file__).parents[2]
BOTH = tuple(str(status) for status in Status)
TABLES = (document_entry, submission_set, folder, association)
_PATIENTS = itertools.count(1)

T = TypeVar("T")
Race = Callable[[Sequence[Change]], list[list[Outcome]]]


class Racer:
    """A process of its own (benchmarks/racer.py)."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, "-m", "benchmarks.racer", url]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        return self._lines.get(timeout=SECONDS).strip()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            assert self.process.wait(SECONDS) == 0
        finally:
            self.process.kill()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


def ran_by_processes(racers: Sequence[Racer], changes: Sequence[Change]) -> list[list[Outcome]]:
    """Each change in a process; nobody begins before all are ready."""
    assert len(changes) <= len(racers)
    working = list(zip(racers, changes, strict=False))
    for one, change in working:
        one.tell(change.line())
    assert [one.answer() for one, _ in working] == ["ready"] * len(working)
    for one, _ in working:
        one.tell("go")
    return [json.loads(one.answer()) for one, _ in working]


def ran_by_threads(store: Store, changes: Sequence[Change]) -> list[list[Outcome]]:
    """Each change in a thread, all of one Store."""
    return at_once([racer.prepared(store, change) for change in changes])


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """What each gives, all begun together."""
    barrier = threading.Barrier(len(works))

    def begin(work: Callable[[], T]) -> T:
        barrier.wait(SECONDS)
        return work()

    with ThreadPoolExecutor(len(works)) as threads:
        futures = [threads.submit(begin, work) for work in works]
        return [future.result(SECONDS) for future in futures]


@pytest.fixture(scope="module")
def store(module_database: str) -> Iterator[Store]:
    engine = open_engine(module_database)
    upgrade(engine)
    made = Store(engine)
    yield made
    made.close()


@pytest.fixture(scope="module")
def racers(module_database: str, store: Store) -> Iterator[list[Racer]]:
    made = [Racer(module_database) for _ in range(3)]
    yield made
    for one in made:
        one.stop()


@pytest.fixture(params=["threads", "processes"])
def race(request: pytest.FixtureRequest, store: Store) -> Race:
    """Makes changes at the same time."""
    if request.param == "threads":
        return lambda changes: ran_by_threads(store, changes)
    processes: list[Racer] = request.getfixturevalue("racers")
    return lambda changes: ran_by_processes(processes, changes)


def new_patient(store: Store) -> Identifier:
    one = patient(next(_PATIENTS))
    assert add_patient(store, one)
    return one


def registered(store: Store, one: Submission) -> list[RegistryObject]:
    """Registers the submission; everything of its patient."""
    assert register(one, store=store, now=datetime.now, new_uuid=new_uuid).succeeded
    patient_id = one.submission_sets[0].patient_id
    assert patient_id is not None
    return everything(store, patient_id)


def everything(store: Store, patient_id: Identifier) -> list[RegistryObject]:
    query = GetAll(patient_id=patient_id, document_entry_status=BOTH, submission_set_status=BOTH, folder_status=BOTH)
    found = rim.decode_fragments(stored_query(query, store=store).fragments)
    return [one for one in found if not isinstance(one, ObjectRef)]


def entries(store: Store, patient_id: Identifier, status: Iterable[str] = BOTH) -> list[DocumentEntry]:
    found = rim.decode_fragments(
        stored_query(FindDocuments(patient_id=patient_id, status=tuple(status)), store=store).fragments
    )
    return [one for one in found if isinstance(one, DocumentEntry)]


def new_entry(store: Store, patient_id: Identifier) -> DocumentEntry:
    """A registered document, alone with its patient's others."""
    made = submission(patient_id, registered=True)
    wanted = made.document_entries[0].unique_id
    (found,) = [one for one in registered(store, made) if isinstance(one, DocumentEntry) and one.unique_id == wanted]
    return found


def assert_sound(store: Store, patient_id: Identifier) -> None:
    """Every object of the patient is where the list of all objects says, and no association leads nowhere."""
    at_home = {
        (uuid, kind): owner
        for uuid, kind, owner in store.rows(
            select(registry_object.c.entry_uuid, registry_object.c.kind, registry_object.c.patient_id), {}
        )
    }
    kinds = ("DocumentEntry", "SubmissionSet", "Folder", "Association")
    for table, kind in zip(TABLES, kinds, strict=True):
        for uuid, owner in store.rows(select(table.c.entry_uuid, table.c.patient_id), {}):
            if owner == patient_id or at_home.get((uuid, kind)) == patient_id:
                assert at_home.get((uuid, kind)) == owner, f"{kind} {uuid}"
    known = {uuid for uuid, _ in at_home}
    for uuid, owner, *ends in store.rows(
        select(
            association.c.entry_uuid,
            association.c.patient_id,
            association.c.source_object,
            association.c.target_object,
        ),
        {},
    ):
        assert owner != patient_id or set(ends) <= known, uuid


def ends_of(outcomes: list[list[Outcome]]) -> list[Outcome]:
    return [one for of_racer in outcomes for one in of_racer]


# --- one of several -----------------------------------------------------------------------------------------------------


def test_of_submissions_with_one_unique_id_one_is_stored(store: Store, race: Race) -> None:
    """ITI TF-3 4.2.4.1: a SubmissionSet.uniqueId is used once."""
    for _ in range(ROUNDS):
        mine = new_patient(store)
        change = Change(kind="register", patient=mine, set_unique_id=new_oid())
        outcomes = ends_of(race([change] * 3))
        assert sorted(outcomes) == [[], ["XDSDuplicateUniqueIdInRegistry"], ["XDSDuplicateUniqueIdInRegistry"]]
        assert len(entries(store, mine)) == 1


def test_of_submissions_of_several_patients_with_one_unique_id_one_is_stored(store: Store, race: Race) -> None:
    """ITI TF-3 4.2.4.1: it is the same rule where nothing else is in common."""
    for _ in range(ROUNDS):
        several, unique_id = [new_patient(store) for _ in range(3)], new_oid()
        outcomes = ends_of(race([Change(kind="register", patient=one, set_unique_id=unique_id) for one in several]))
        assert sorted(outcomes) == [[], ["XDSDuplicateUniqueIdInRegistry"], ["XDSDuplicateUniqueIdInRegistry"]]
        assert sum(len(entries(store, one)) for one in several) == 1


def test_of_submissions_with_one_entry_uuid_one_is_stored(store: Store, race: Race) -> None:
    """ITI TF-3 4.2.3.1.1: an entryUUID stands for one object."""
    for _ in range(ROUNDS):
        several, uuid = [new_patient(store) for _ in range(3)], new_uuid()
        outcomes = ends_of(race([Change(kind="register", patient=one, entry_uuid=uuid) for one in several]))
        assert sorted(outcomes) == [[], ["XDSRegistryMetadataError"], ["XDSRegistryMetadataError"]]
        assert [one.entry_uuid for of in several for one in entries(store, of)] == [uuid]


def test_a_unique_id_of_a_document_stands_for_one_hash(store: Store, race: Race) -> None:
    """ITI TF-3 4.2.4.1: XDSNonIdenticalHash, whoever comes first."""
    for _ in range(ROUNDS):
        several, unique_id = [new_patient(store) for _ in range(3)], new_oid()
        hashes = ["a" * 40, "b" * 40, "c" * 40]
        outcomes = race(
            [
                Change(kind="register", patient=one, unique_id=unique_id, hash=sha1, times=3)
                for one, sha1 in zip(several, hashes, strict=True)
            ]
        )
        stored = {str(one.hash) for of in several for one in entries(store, of)}
        assert len(stored) == 1
        winner = hashes.index(stored.pop())
        for n, of_racer in enumerate(outcomes):
            assert of_racer == [[] if n == winner else ["XDSNonIdenticalHash"]] * 3


def test_of_replacements_of_a_document_one_is_stored(store: Store, race: Race) -> None:
    """ITI TF-2 3.42.4.1.3: the others find it Deprecated."""
    for _ in range(ROUNDS):
        mine = new_patient(store)
        old = new_entry(store, mine)
        change = Change(kind="register", patient=mine, relation="RPLC", target=old.entry_uuid)
        outcomes = ends_of(race([change] * 3))
        assert sorted(outcomes) == [[], *[["XDSRegistryDeprecatedDocumentError"]] * 2]
        (new,) = entries(store, mine, [str(Status.APPROVED)])
        assert new.entry_uuid != old.entry_uuid
        assert len(entries(store, mine)) == 2


def test_an_addendum_of_a_replaced_document_is_never_approved(store: Store, race: Race) -> None:
    """ITI TF-2 3.42.4.1.3.5: it is refused, or Deprecated with its parent."""
    for _ in range(ROUNDS):
        mine = new_patient(store)
        old = new_entry(store, mine)
        append = Change(kind="register", patient=mine, relation="APND", target=old.entry_uuid, times=4)
        replacing = Change(kind="register", patient=mine, relation="RPLC", target=old.entry_uuid)
        first, replaced, last = race([append, replacing, append])
        assert replaced == [[]]
        addenda = [*first, *last]
        assert all(one in ([], ["XDSRegistryDeprecatedDocumentError"]) for one in addenda)
        (approved,) = entries(store, mine, [str(Status.APPROVED)])
        assert approved.entry_uuid != old.entry_uuid
        # The document, its replacement, and the addenda that were in time.
        assert len(entries(store, mine)) == 2 + addenda.count([])


# --- folders ------------------------------------------------------------------------------------------------------------


def test_documents_added_to_a_folder_from_many_sides_are_all_members(store: Store, race: Race) -> None:
    """ITI TF-3 4.2.3.4.6: and its lastUpdateTime does not go back."""
    for _ in range(3):
        mine = new_patient(store)
        (made,) = [one for one in registered(store, folder_submission(mine)) if isinstance(one, Folder)]
        change = Change(kind="register", patient=mine, folder=made.entry_uuid, times=5)
        assert ends_of(race([change] * 3)) == [[]] * 15
        query = GetFolderAndContents(entry_uuid=made.entry_uuid)
        found = list(rim.decode_fragments(stored_query(query, store=store).fragments))
        members = {one.entry_uuid for one in found if isinstance(one, DocumentEntry)}
        assert members == {one.entry_uuid for one in entries(store, mine)}
        assert len(members) == 15
        (now,) = [one for one in found if isinstance(one, Folder)]
        assert made.last_update_time is not None and now.last_update_time is not None
        assert now.last_update_time >= made.last_update_time


# --- merges -------------------------------------------------------------------------------------------------------------


def test_what_is_registered_while_its_patient_is_merged_ends_with_the_survivor(store: Store, race: Race) -> None:
    """ITI TF-2 3.8.4.2: what comes before the merge moves, what comes after it is refused."""
    for _ in range(2 * ROUNDS):
        survivor, subsumed = new_patient(store), new_patient(store)
        new_entry(store, subsumed)
        registering = Change(kind="register", patient=subsumed, times=4)
        merging = Change(kind="merge", patient=survivor, subsumed=subsumed)
        first, merged, last = race([registering, merging, registering])
        assert merged == [[]]
        outcomes = [*first, *last]
        assert all(one in ([], ["XDSUnknownPatientId"]) for one in outcomes)
        assert racer.prepared(store, registering)() == [["XDSUnknownPatientId"]] * 4
        assert entries(store, subsumed) == []
        assert len(entries(store, survivor)) == 1 + outcomes.count([])
        assert not [
            row
            for table in TABLES
            for row in store.rows(select(table.c.entry_uuid).where(table.c.patient_id == str(subsumed)), {})
        ]
        assert_sound(store, survivor)


def test_merges_in_a_circle_leave_one_patient(store: Store, race: Race) -> None:
    """ITI TF-2 3.8.4.2: who has been merged away takes part in no other merge."""
    for _ in range(ROUNDS):
        several = [new_patient(store) for _ in range(3)]
        for one in several:
            new_entry(store, one)
        circle = [
            Change(kind="merge", patient=into, subsumed=one)
            for one, into in zip(several, [*several[1:], several[0]], strict=True)
        ]
        outcomes = ends_of(race(circle))
        assert sorted(outcomes) == [[], [], ["XDSUnknownPatientId"]]
        assert sorted(len(entries(store, one)) for one in several) == [0, 0, 3]


def test_a_reference_to_a_document_that_is_merged_meanwhile_is_taken(store: Store, race: Race) -> None:
    """ITI TF-3 4.2.2.1.2: a Reference leads to a document of any patient, which is there all the time."""
    for _ in range(2 * ROUNDS):
        survivor, subsumed, third = (new_patient(store) for _ in range(3))
        target = new_entry(store, subsumed)
        referring = Change(kind="register", patient=third, reference=target.entry_uuid, times=4)
        merging = Change(kind="merge", patient=survivor, subsumed=subsumed)
        assert race([referring, merging, referring]) == [[[]] * 4, [[]], [[]] * 4]


def test_a_unique_id_stands_for_one_hash_while_its_document_is_merged(store: Store, race: Race) -> None:
    """ITI TF-3 4.2.4.1: the registered document is seen wherever it is on its way."""
    for _ in range(2 * ROUNDS):
        survivor, subsumed, third = (new_patient(store) for _ in range(3))
        there = new_entry(store, subsumed)
        other = Change(kind="register", patient=third, unique_id=there.unique_id, hash="b" * 40, times=4)
        merging = Change(kind="merge", patient=survivor, subsumed=subsumed)
        refused = [["XDSNonIdenticalHash"]] * 4
        assert race([other, merging, other]) == [refused, [[]], refused]


# --- removal ------------------------------------------------------------------------------------------------------------


def test_what_is_referred_to_is_not_removed_and_what_is_removed_not_referred_to(store: Store, race: Race) -> None:
    """ITI TF-2 3.62.4.1.3: the removal is refused, or the reference is."""
    for _ in range(ROUNDS):
        mine, other = new_patient(store), new_patient(store)
        made = registered(store, submission(mine, registered=True))
        (target,) = [one for one in made if isinstance(one, DocumentEntry)]
        removing = Change(kind="remove", removed=tuple(one.entry_uuid for one in made))
        referring = Change(kind="register", patient=other, reference=target.entry_uuid)
        removed, first, last = ends_of(race([removing, referring, referring]))
        if removed:
            assert set(removed) == {"ReferencesExistException"}
            assert [] in (first, last)
            assert len(entries(store, mine)) == 1
        else:
            assert entries(store, mine) == []
            assert first == last == ["UnresolvedReferenceException"]
        assert_sound(store, other)


# --- groups -------------------------------------------------------------------------------------------------------------


class Counting(Database):
    """Counts its transactions, and waits before each commit as a slow disk would."""

    def __init__(self, database: Database, *, wait: float = 0.0) -> None:
        super().__init__(database.engine)
        self.count, self._wait = 0, wait

    @contextlib.contextmanager
    def transaction(self, keys: Iterable[str]) -> Iterator[Connection]:
        self.count += 1
        with super().transaction(keys) as connection:
            yield connection
            threading.Event().wait(self._wait)


def later(store: Store, one: Submission) -> Future[messages.Outcome]:
    """Registers the submission, without waiting."""
    return register_later(one, store=store, now=datetime.now, new_uuid=new_uuid)


class Held:
    """Keeps the writer of a store busy, so that all that comes meanwhile waits for the next group."""

    def __init__(self, store: Store) -> None:
        self._begun, self._go = threading.Event(), threading.Event()
        self._future = store.write_later(Footprint(entry_uuids=frozenset({new_uuid()})), self._work)
        assert self._begun.wait(SECONDS)

    def _work(self, _: Unit) -> None:
        self._begun.set()
        assert self._go.wait(SECONDS)

    def release(self) -> None:
        self._go.set()
        self._future.result(SECONDS)


@pytest.fixture
def own(database: str) -> Iterator[Store]:
    """A store of a test's own, which counts its transactions."""
    engine = open_engine(database)
    upgrade(engine)
    made = Store(engine)
    made.database.dispose()
    made.database = Counting(made.database)
    yield made
    made.close()


def counted(store: Store) -> int:
    assert isinstance(store.database, Counting)
    return store.database.count


def test_registrations_that_come_together_share_transactions(own: Store) -> None:
    patients = [new_patient(own) for _ in range(16)]
    before = counted(own)
    changes = [Change(kind="register", patient=one, times=10) for one in patients]
    assert ends_of(ran_by_threads(own, changes)) == [[]] * 160
    assert counted(own) - before < 160
    assert [len(entries(own, one)) for one in patients] == [10] * 16


def test_what_waits_together_is_one_transaction(own: Store) -> None:
    patients = [new_patient(own) for _ in range(16)]
    held = Held(own)
    before = counted(own)
    futures = [later(own, submission(one, registered=True)) for one in patients]
    held.release()
    assert all(one.result(SECONDS).succeeded for one in futures)
    assert counted(own) - before == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_more_is_registered_than_a_slow_disk_commits(own: Store) -> None:
    """Commits of 25 ms: no more than 40 a second if each registration had its own."""
    wait = 0.025
    own.database = Counting(own.database, wait=wait)
    patients = [new_patient(own) for _ in range(16)]
    changes = [Change(kind="register", patient=one, times=5) for one in patients]
    before = counted(own)
    assert ends_of(ran_by_threads(own, changes)) == [[]] * 80
    assert 2 * (counted(own) - before) < 80
    assert sum(len(entries(own, one)) for one in patients) == 80


def test_a_refusal_leaves_the_others_of_its_group_alone(own: Store) -> None:
    """One transaction for all: what is refused has no part in it."""
    patients, stranger = [new_patient(own) for _ in range(8)], patient(10**6)
    held = Held(own)
    before = counted(own)
    futures = [later(own, submission(one, registered=True)) for one in [*patients[:4], stranger, *patients[4:]]]
    held.release()
    with pytest.raises(Failure) as failure:
        futures.pop(4).result(SECONDS)
    assert failure.value.problems[0].code == ErrorCode.UNKNOWN_PATIENT_ID
    assert all(one.result(SECONDS).succeeded for one in futures)
    assert counted(own) - before == 1
    assert [len(entries(own, one)) for one in patients] == [1] * 8
    assert entries(own, stranger) == []


@pytest.mark.parametrize("error", [ValueError("not foreseen"), SystemExit(1)], ids=["ValueError", "SystemExit"])
def test_what_nobody_foresaw_fails_one_work_alone(own: Store, error: BaseException) -> None:
    """And the writer goes on."""
    patients = [new_patient(own) for _ in range(8)]

    def work(unit: Unit) -> None:
        unit.add_patient("never^^^&1.2.3.4&ISO")
        raise error

    held = Held(own)
    futures = [later(own, submission(one, registered=True)) for one in patients[:4]]
    broken = own.write_later(Footprint(patients=frozenset({"never^^^&1.2.3.4&ISO"})), work)
    futures += [later(own, submission(one, registered=True)) for one in patients[4:]]
    held.release()
    assert broken.exception(SECONDS) is error
    assert all(one.result(SECONDS).succeeded for one in futures)
    assert [len(entries(own, one)) for one in patients] == [1] * 8
    assert "never^^^&1.2.3.4&ISO" not in {str(one) for one, _ in list_patients(own)}
    assert later(own, submission(patients[0], registered=True)).result(SECONDS).succeeded


def test_what_the_database_refuses_fails_one_work_alone(own: Store) -> None:
    """Such as a key that is there already, which shows only when the group is written."""
    patients = [new_patient(own) for _ in range(4)]
    taken = str(patients[0])

    def work(unit: Unit) -> None:
        # Its footprint does not name the patient, so the unit does not see that it is there; then it says that it is not.
        unit.insert([(insert(patient_table), [{"patient_id": taken, "subsumed_by": None}])])

    held = Held(own)
    broken = own.write_later(Footprint(), work)
    futures = [later(own, submission(one, registered=True)) for one in patients]
    held.release()
    assert isinstance(broken.exception(SECONDS), own.engine.dialect.loaded_dbapi.IntegrityError)
    assert all(one.result(SECONDS).succeeded for one in futures)


def test_works_with_something_in_common_are_in_the_order_in_which_they_came(own: Store) -> None:
    """So the last of several replacements of one another is the one that stays."""
    mine = new_patient(own)
    done: list[int] = []
    footprint = Footprint(patients=frozenset({str(mine)}))
    held = Held(own)
    futures = [
        own.write_later(footprint, lambda _, n=n: done.append(n), alone=n % 3 == 0)  # type: ignore[misc]
        for n in range(20)
    ]
    held.release()
    for one in futures:
        one.result(SECONDS)
    assert done == list(range(20))


def test_a_store_that_is_closed_finishes_what_waits(database: str) -> None:
    engine = open_engine(database)
    upgrade(engine)
    made = Store(engine)
    patients = [new_patient(made) for _ in range(8)]
    held = Held(made)
    futures = [later(made, submission(one, registered=True)) for one in patients]
    closing = threading.Thread(target=made.close)
    closing.start()
    held.release()
    closing.join(SECONDS)
    assert not closing.is_alive()
    assert all(one.done() and one.result().succeeded for one in futures)
    with pytest.raises(RuntimeError, match="closed"):
        made.write(Footprint(), lambda _: None)
    again = Store(open_engine(database))
    assert [len(entries(again, one)) for one in patients] == [1] * 8
    again.close()


# --- what a work finds to be of another patient than when it began ----------------------------------------------------


class Overtaken(Store):
    """Just when it has been asked whose some objects are, the next thing happens."""

    happens: Callable[[], None] | None = None

    def patients_of(self, entry_uuids: Iterable[str]) -> set[str]:
        found = super().patients_of(entry_uuids)
        if self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return found


def test_a_removal_excludes_changes_of_the_patient_that_its_objects_are_of_by_now(database: str) -> None:
    """A merge overtakes it: it then must hold what is the survivor's, as if it had come after the merge."""
    engine = open_engine(database)
    upgrade(engine)
    store = Overtaken(engine)
    store.database.dispose()
    seen: list[frozenset[str]] = []

    class Watched(Counting):
        @contextlib.contextmanager
        def transaction(self, keys: Iterable[str]) -> Iterator[Connection]:
            seen.append(frozenset(keys))
            with super().transaction(seen[-1]) as connection:
                yield connection

    store.database = Watched(store.database)
    subsumed, survivor = new_patient(store), new_patient(store)
    made = registered(store, submission(subsumed, registered=True))

    def merge() -> None:
        merge_patients(store, surviving=survivor, subsumed=subsumed)

    store.happens = merge
    assert remove([ObjectRef(entry_uuid=one.entry_uuid) for one in made], store=store).succeeded
    assert (subsumed, survivor) in list_patients(store)
    assert f"patient {survivor}" in seen[-1]
    assert everything(store, survivor) == []
    assert_sound(store, survivor)
    store.close()


def test_of_removals_of_the_last_references_one_leaves_the_document_connected(store: Store, race: Race) -> None:
    """ITI TF-2 3.62.4.1.3: nothing that stays may be left without an association, though each of two would leave the other's."""
    for _ in range(ROUNDS):
        mine, others = new_patient(store), [new_patient(store) for _ in range(2)]
        made = registered(store, submission(mine, registered=True))
        (target,) = [one for one in made if isinstance(one, DocumentEntry)]
        references = []
        for one in others:
            change = Change(kind="register", patient=one, reference=target.entry_uuid)
            found = registered(store, racer.submitted(change))
            references += [each for each in found if getattr(each, "target_object", None) == target.entry_uuid]
        rest = [ObjectRef(entry_uuid=one.entry_uuid) for one in made if one is not target]
        assert remove(rest, store=store).succeeded
        own = [one for one in references if one.entry_uuid not in {each.entry_uuid for each in rest}]
        assert len(own) == 2
        outcomes = ends_of(race([Change(kind="remove", removed=(one.entry_uuid,)) for one in own]))
        assert sorted(outcomes) == [[], ["XDSUnreferencedObjectException"]]


def test_more_can_be_held_than_postgresql_has_locks(database: str) -> None:
    """It has some thousand for all processes together; one ITI-62 may name ten thousand objects, and 64 works are one group."""
    engine = open_engine(database)
    upgrade(engine)
    one, other = Store(engine), Store(open_engine(database))
    refs = [ObjectRef(entry_uuid=new_uuid()) for _ in range(MAX_OBJECTS)]
    with pytest.raises(Failure) as failure:
        remove(refs, store=one)
    assert {each.code for each in failure.value.problems} == {ErrorCode.UNRESOLVED_REFERENCE}
    many = Footprint(entry_uuids=frozenset(new_uuid() for _ in range(50_000)))
    few = Footprint(entry_uuids=frozenset([min(many.entry_uuids)]))
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def large(_: Unit) -> None:
        begun.set()
        assert go.wait(SECONDS)
        assert not done.is_set()

    future = one.write_later(many, large)
    assert begun.wait(SECONDS)
    small = other.write_later(few, lambda _: done.set())
    with pytest.raises(TimeoutError):
        small.result(0.05)
    go.set()
    future.result(SECONDS)
    small.result(SECONDS)
    assert done.is_set()
    one.close()
    other.close()
