"""Submissions and merges at the same time are as if one came after the other, on both databases (ITI TF-2 3.42.4.1.3).

Each race is run by threads on one Store, which share its groups, and by processes that share nothing but the database.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from benchmarks.messages import new_oid, submission
from benchmarks.registries import (
    DEPRECATED,
    METADATA,
    PATIENCE_S,
    Clock,
    Processes,
    Registry,
    Transactions,
    folder_submission,
    into_folder,
    link,
    merge_now,
    new_uuid,
    opened,
    own_id,
    register_now,
    related,
    together,
    valid,
    with_links,
    with_set,
)
from database.connections import Connection, Database
from registry.iti42_register import register as iti42
from registry.iti42_register import register_later
from registry.patients import list_patients
from registry.store import Footprint, Store, Unit
from registry.tables import BY_KIND, association, document_entry, registry_object
from xds.metadata import Association, Folder, Submission, SubmissionSet, has_member
from xds.problems import ErrorCode, Failure, fail
from xds.values import Oid, Sha1, UniqueId
from xds.vocabulary import AssociationType, Status

RPLC, APND, XFRM = AssociationType.RPLC, AssociationType.APND, AssociationType.XFRM
ROUNDS = 30
RACERS = 4
UNKNOWN = "XDSUnknownPatientId"

Order = tuple[Callable[..., Any], tuple[Any, ...]]
#: Carries out the orders at the same time: True, or the Failure, of each.
Race = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def processes(module_database: str, store: Store) -> Iterator[Processes]:
    made = Processes(module_database, RACERS)
    yield made
    made.close()


@pytest.fixture
def registry(store: Store) -> Iterator[Registry]:
    made = Registry(store)
    yield made
    assert_sound(store)


@pytest.fixture(params=["threads", "processes"])
def race(request: pytest.FixtureRequest, store: Store) -> Race:
    if request.param == "processes":
        return request.getfixturevalue("processes").together  # type: ignore[no-any-return]

    def by_threads(*orders: Order) -> list[Any]:
        return together([lambda order=order: order[0](store, *order[1]) for order in orders])  # type: ignore[misc]

    return by_threads


def register(one: Submission) -> Order:
    return register_now, (one,)


def idle() -> Order:
    """An order that changes nothing, for a racer that is not needed."""
    return list_patients, ()


def codes(results: list[Any]) -> list[str]:
    """The code of each result, "" for a success."""
    return [result.problems[0].code if isinstance(result, Failure) else "" for result in results]


_OBJECTS = select(registry_object.c.entry_uuid, registry_object.c.kind, registry_object.c.patient_id)
_OF_KIND = {kind: select(table.c.entry_uuid, table.c.patient_id) for kind, table in BY_KIND.items()}
_ENDS = select(association.c.association_type, association.c.source_object, association.c.target_object)
_STATES = select(document_entry.c.entry_uuid, document_entry.c.status)


def assert_sound(store: Store) -> None:
    """Of the whole database: the list of all objects is right, no end dangles, nothing Approved hangs on something Deprecated."""
    listed = {(kind, uuid, owner) for uuid, kind, owner in store.rows(_OBJECTS, {})}
    there = {(kind, *row) for kind, statement in _OF_KIND.items() for row in store.rows(statement, {})}
    assert listed == there
    known = {uuid for _, uuid, _ in listed}
    states: dict[str, str] = dict(row for row in store.rows(_STATES, {}))
    for kind, source, target in store.rows(_ENDS, {}):
        assert {source, target} <= known
        if kind in (str(APND), str(XFRM)) and states[target] == "Deprecated":
            assert states[source] == "Deprecated", f"{source} is an Approved addendum of the Deprecated {target}"


# --- one of several ---------------------------------------------------------------------------------------------------


def test_of_one_submission_sent_several_times_one_is_stored(registry: Registry, race: Race) -> None:
    """A client that did not wait for its answer and sends the same again."""
    for _ in range(ROUNDS):
        made = own_id(valid(registry.p1), new_uuid())
        results = codes(race(*[register(made)] * RACERS))
        assert sorted(results) == ["", *[METADATA] * 3]
    assert len(registry.found(registry.p1)) == ROUNDS


def test_a_unique_id_of_a_submission_set_is_used_once(registry: Registry, race: Race) -> None:
    """By different messages of different patients, which have nothing else in common (ITI TF-3 4.2.4.1)."""
    for _ in range(ROUNDS):
        same = Oid(new_oid())
        orders = [register(with_set(one, unique_id=same)) for one in (registry.p1, registry.p2) * 2]
        assert sorted(codes(race(*orders))) == ["", *["XDSDuplicateUniqueIdInRegistry"] * 3]
    assert len(registry.of(SubmissionSet)) == ROUNDS


def test_an_entry_uuid_is_used_once(registry: Registry, race: Race) -> None:
    """Of two patients and two classes (ITI TF-3 4.2.3.1.1)."""
    for _ in range(ROUNDS):
        same = new_uuid()
        folder = folder_submission(registry.p2, entry_uuid=same)
        folder = replace(folder, associations=(replace(folder.associations[0], target_object=same),))
        documents = [own_id(valid(one), same) for one in (registry.p1, registry.p2, registry.p1)]
        assert sorted(codes(race(*map(register, (folder, *documents))))) == ["", *[METADATA] * 3]
    assert len(registry.found(registry.p1)) + len(registry.found(registry.p2)) + len(registry.of(Folder)) == ROUNDS


def test_one_hash_of_a_document_survives(registry: Registry, race: Race) -> None:
    """The same DocumentEntry.uniqueId, two contents, two submissions of each (ITI TF-3 4.2.4.1)."""
    for _ in range(ROUNDS):
        same = UniqueId(new_oid())
        hashes = [Sha1(digit * 40) for digit in "abab"]
        patients = (registry.p1, registry.p2, registry.p2, registry.p1)
        made = [valid(one, unique_id=same, hash=each) for one, each in zip(patients, hashes, strict=True)]
        results = codes(race(*map(register, made)))
        assert sorted(results) == ["", "", "XDSNonIdenticalHash", "XDSNonIdenticalHash"]
        found = [one.hash for p in (registry.p1, registry.p2) for one in registry.found(p) if one.unique_id == same]
        assert found == [hashes[results.index("")]] * 2


def test_a_document_is_replaced_once(registry: Registry, race: Race) -> None:
    """ITI TF-2 3.42.4.1.3.5: the others find it Deprecated."""
    for _ in range(ROUNDS):
        old = registry.registered(valid(registry.p1)).entry_uuid
        results = race(*[register(related(valid(registry.p1), RPLC, old)) for _ in range(RACERS)])
        assert sorted(codes(results)) == ["", *[DEPRECATED] * 3]
    replacements = [one.target_object for one in registry.of(Association) if one.association_type == RPLC]
    assert len(replacements) == len(set(replacements)) == ROUNDS


def test_an_addendum_of_a_replaced_document_is_refused_or_deprecated(registry: Registry, race: Race) -> None:
    """Addendum, transformation and addendum of an addendum race the replacement of their parent."""
    seen: set[str] = set()
    for _ in range(ROUNDS):
        mine = registry.new_patient()
        parent = registry.registered(valid(mine)).entry_uuid
        addendum = registry.registered(related(valid(mine), APND, parent)).entry_uuid
        links = [(APND, parent), (XFRM, parent), (APND, addendum)]
        made = [related(valid(mine), kind, target) for kind, target in links]
        replaced, *others = codes(race(register(related(valid(mine), RPLC, parent)), *map(register, made)))
        assert replaced == ""
        assert set(others) <= {"", DEPRECATED}
        seen |= set(others)
        for one, result in zip(made, others, strict=True):
            if result == "":
                assert registry.entry(one).availability_status == Status.DEPRECATED
    assert seen, "nothing raced"


# --- folders ----------------------------------------------------------------------------------------------------------


def test_all_that_is_added_to_a_folder_at_once_is_in_it(registry: Registry, race: Race) -> None:
    """New documents, registered documents, and the replacement of a member, which joins by itself (ITI TF-2 3.42.4.1.3.3.1)."""
    for _ in range(ROUNDS):
        mine = registry.new_patient()
        folder = registry.folder(mine).entry_uuid
        member = registry.registered(into_folder(valid(mine), folder)).entry_uuid
        there = registry.registered(valid(mine)).entry_uuid
        first, second = (into_folder(valid(mine), folder) for _ in range(2))
        old = into_folder(submission(mine, documents=0, registered=True), folder, there)
        replacement = related(valid(mine), RPLC, member)
        assert codes(race(*map(register, (first, second, old, replacement)))) == [""] * 4
        new = [registry.entry(one).entry_uuid for one in (first, second, replacement)]
        members = [one.target_object for one in registry.of(Association, mine) if one.source_object == folder]
        assert sorted(members) == sorted([member, there, *new])


def test_the_last_update_time_is_that_of_the_last_change(registry: Registry, module_database: str) -> None:
    """Two Stores of one database and one clock: no change that comes later says an earlier time (ITI TF-3 4.2.3.4.6)."""
    other, clock = opened(module_database), Clock()
    last: list[str] = []
    lock = threading.Lock()

    def now() -> Any:
        with lock:
            moment = clock()
            last.append(moment.strftime("%Y%m%d%H%M%S"))
            return moment

    try:
        for _ in range(ROUNDS):
            mine = registry.new_patient()
            folder = registry.folder(mine)
            made = [into_folder(valid(mine), folder.entry_uuid) for _ in range(2 * RACERS)]
            stores = (registry.store, other) * RACERS
            together(
                [
                    lambda one=one, store=store: iti42(one, store=store, now=now, new_uuid=new_uuid)  # type: ignore[misc]
                    for one, store in zip(made, stores, strict=True)
                ]
            )
            (found,) = (one for one in registry.of(Folder, mine) if one.entry_uuid == folder.entry_uuid)
            assert found.last_update_time == last[-1]
    finally:
        other.close()


# --- merges -----------------------------------------------------------------------------------------------------------


def test_a_registration_that_races_a_merge_is_the_survivors_or_refused(registry: Registry, race: Race) -> None:
    """ITI TF-2 3.8.4.2: nothing stays with the subsumed patient; replacements and folders of it neither."""
    for _ in range(ROUNDS):
        survivor, subsumed = registry.new_patient(), registry.new_patient()
        folder = registry.folder(subsumed).entry_uuid
        old = registry.registered(into_folder(valid(subsumed), folder)).entry_uuid
        made = [valid(subsumed), into_folder(valid(subsumed), folder), related(valid(subsumed), RPLC, old)]
        merged, *results = codes(race((merge_now, (survivor, subsumed)), *map(register, made)))
        assert merged == ""
        assert set(results) <= {"", UNKNOWN}
        assert registry.everything(subsumed) == []
        assert len(registry.found(survivor)) == 1 + results.count("")
        assert {one.patient_id for one in registry.found(survivor)} == {survivor}


def test_two_patients_are_not_merged_into_each_other(registry: Registry, race: Race) -> None:
    for _ in range(ROUNDS):
        one, two = registry.new_patient(), registry.new_patient()
        registry.registered(valid(one)), registry.registered(valid(two))
        orders = [(merge_now, pair) for pair in ((one, two), (two, one)) * 2]
        assert sorted(codes(race(*orders))) == ["", *[UNKNOWN] * 3]
        assert sorted([len(registry.found(one)), len(registry.found(two))]) == [0, 2]


def test_a_chain_of_merges_at_once_has_one_end(registry: Registry, race: Race) -> None:
    """Each merge names as its survivor one that another merge may be taking away."""
    for _ in range(ROUNDS):
        chain = [registry.new_patient() for _ in range(RACERS + 1)]
        for one in chain:
            registry.registered(valid(one))
        results = codes(race(*[(merge_now, (into, one)) for one, into in itertools.pairwise(chain)]))
        assert set(results) <= {"", UNKNOWN}
        survivors = dict(list_patients(registry.store))
        ends = [one for one in chain if survivors[one] is None]
        assert len(ends) == 1 + results.count(UNKNOWN)
        assert all(survivors[one] in ends for one in chain if one not in ends)
        assert sum(len(registry.found(one)) for one in ends) == len(chain)


def test_what_another_patient_refers_to_is_there_while_it_is_merged(registry: Registry, race: Race) -> None:
    """A Reference (ITI TF-3 4.2.2.1.2) and a uniqueId (4.2.4.1) lead to a document on its way to the survivor."""
    for _ in range(ROUNDS):
        survivor, subsumed = registry.new_patient(), registry.new_patient()
        there = registry.registered(valid(subsumed))
        reference = has_member("SubmissionSet", there.entry_uuid, entry_uuid="r", submission_set_status="Reference")
        referring = with_links(valid(registry.p1), reference)
        lying = valid(registry.p1, unique_id=there.unique_id, hash=Sha1("0" * 40))
        results = race((merge_now, (survivor, subsumed)), register(referring), register(lying), idle())
        assert codes(results)[:3] == ["", "", "XDSNonIdenticalHash"]


class Interrupted(Database):
    """A database in whose next transaction something happens between the first statement and the second."""

    def __init__(self, of: Database) -> None:
        super().__init__(of.engine)
        self.meanwhile: Callable[[], object] | None = None

    @contextmanager
    def transaction(self, keys: Any) -> Iterator[Connection]:
        with super().transaction(keys) as connection:
            rows, database = connection.rows, self

            def then(*arguments: Any) -> Any:
                found = rows(*arguments)
                if found and (meanwhile := database.meanwhile) is not None:
                    database.meanwhile = None
                    meanwhile()
                return found

            connection.rows = then  # type: ignore[method-assign, assignment]
            yield connection


@pytest.mark.parametrize("what", ["reference", "uniqueId"])
def test_a_merge_between_two_looks_hides_nothing(new_postgres_database: Callable[[], str], what: str) -> None:
    """The narrowest place of the race before: on PostgreSQL, where another patient's merge does not wait. On SQLite all wait."""
    url = new_postgres_database()
    ours, theirs = opened(url), opened(url)
    try:
        registry = Registry(ours)
        there = registry.registered(valid(registry.p2))
        survivor = registry.new_patient()
        reference = has_member("SubmissionSet", there.entry_uuid, entry_uuid="r", submission_set_status="Reference")
        ours.database.dispose()
        ours.database = interrupted = Interrupted(ours.database)
        merged: list[bool] = []
        interrupted.meanwhile = lambda: merged.append(merge_now(theirs, survivor, registry.p2))
        if what == "reference":
            assert registry.register(with_links(valid(registry.p1), reference)).succeeded
        else:
            with pytest.raises(Failure) as failure:
                registry.register(valid(registry.p1, unique_id=there.unique_id, hash=Sha1("0" * 40)))
            assert codes([failure.value]) == ["XDSNonIdenticalHash"]
        assert merged == [True], "nothing happened in between"
        assert len(registry.found(survivor)) == 1
        assert_sound(ours)
    finally:
        ours.close()
        theirs.close()


# --- groups -----------------------------------------------------------------------------------------------------------


class Held:
    """The writer of a store, kept busy until it is let go: what comes meanwhile waits, and is one group."""

    def __init__(self, store: Store) -> None:
        self._busy, self._free = threading.Event(), threading.Event()
        store.write_later(Footprint(), self._wait)
        assert self._busy.wait(PATIENCE_S)

    def _wait(self, _: Unit) -> None:
        self._busy.set()
        assert self._free.wait(PATIENCE_S)

    def let_go(self) -> None:
        self._free.set()


@pytest.fixture
def counted(store: Store) -> Transactions:
    """The store's database while it counts its transactions."""
    if not isinstance(store.database, Transactions):
        store.database.dispose()
        store.database = Transactions(store.database)
    counting = store.database
    assert isinstance(counting, Transactions)
    return counting


def footprint() -> Footprint:
    return Footprint(entry_uuids=frozenset({new_uuid()}))


def test_registrations_that_come_together_share_transactions(registry: Registry, counted: Transactions) -> None:
    """Sixteen clients, each of which waits for its answer before it sends the next."""
    patients = [registry.new_patient() for _ in range(16)]
    before = counted.count

    def client(number: int) -> bool:
        return all(register_now(registry.store, valid(patients[number])) for _ in range(10))

    assert together([lambda number=number: client(number) for number in range(16)]) == [True] * 16  # type: ignore[misc]
    assert sum(len(registry.found(one)) for one in patients) == 160
    assert counted.count - before < 160


def test_what_waits_is_one_transaction(registry: Registry, counted: Transactions) -> None:
    patients = [registry.new_patient() for _ in range(20)]
    made = [valid(one) for one in patients]
    held = Held(registry.store)
    before = counted.count
    later = [later_registered(registry, one) for one in made]
    held.let_go()
    assert [future.result(PATIENCE_S).succeeded for future in later] == [True] * 20
    assert counted.count - before == 1


def later_registered(registry: Registry, one: Submission) -> Any:
    return register_later(one, store=registry.store, now=lambda: registry.moment, new_uuid=new_uuid)


def test_what_is_refused_in_a_group_does_not_touch_the_others(registry: Registry, counted: Transactions) -> None:
    """One transaction for the good and the bad, and only the good is stored."""
    patients = [registry.new_patient() for _ in range(9)]
    made = [valid(one) if number % 3 else related(valid(one), RPLC, new_uuid()) for number, one in enumerate(patients)]
    held = Held(registry.store)
    before = counted.count
    later = [later_registered(registry, one) for one in made]
    held.let_go()
    results = [future.exception(PATIENCE_S) or future.result() for future in later]
    assert [isinstance(one, Failure) for one in results] == [number % 3 == 0 for number in range(9)]
    assert counted.count - before == 1
    assert [len(registry.everything(one)) for one in patients] == [0 if number % 3 == 0 else 3 for number in range(9)]


@pytest.mark.parametrize("error", [ValueError("a mistake"), fail(ErrorCode.REGISTRY_ERROR, "refused")])
def test_an_exception_in_a_group_is_its_owners_alone(registry: Registry, error: Exception) -> None:
    """A mistake of ours, after the work has changed something: its changes go, those of the others stay."""
    patients = [registry.new_patient() for _ in range(4)]
    strangers = [replace_id(one) for one in patients]
    held = Held(registry.store)

    def bad(unit: Unit) -> None:
        unit.add_patient(strangers[0])
        raise error

    later = [
        later_registered(registry, valid(patients[0])),
        registry.store.write_later(footprint(), bad),
        registry.store.write_later(footprint(), lambda unit: unit.add_patient(strangers[1])),
        later_registered(registry, valid(patients[1])),
    ]
    held.let_go()
    assert later[1].exception(PATIENCE_S) is error
    assert later[0].result(PATIENCE_S).succeeded and later[3].result(PATIENCE_S).succeeded
    assert later[2].result(PATIENCE_S) is True
    known = {str(one) for one, _ in list_patients(registry.store)}
    assert strangers[1] in known and strangers[0] not in known
    assert len(registry.found(patients[0])) == len(registry.found(patients[1])) == 1


def replace_id(one: Any) -> str:
    return f"stranger-{one}"


def test_what_the_database_refuses_is_its_owners_alone(registry: Registry) -> None:
    """An error of the database when the group is written: each is tried alone, and one is at fault."""
    patients = [registry.new_patient() for _ in range(3)]
    held = Held(registry.store)
    twice = f"twice-{registry.p1}"

    def bad(unit: Unit) -> None:
        unit.add_patient(twice)
        unit.add_patient(twice)

    later = [later_registered(registry, valid(one)) for one in patients[:2]]
    broken = registry.store.write_later(footprint(), bad)
    later.append(later_registered(registry, valid(patients[2])))
    held.let_go()
    assert type(broken.exception(PATIENCE_S)).__name__ in ("IntegrityError", "UniqueViolation")
    assert [future.result(PATIENCE_S).succeeded for future in later] == [True] * 3
    assert [len(registry.found(one)) for one in patients] == [1, 1, 1]
    assert twice not in {str(one) for one, _ in list_patients(registry.store)}


class Statements(Database):
    """A database that counts the statements of its transactions."""

    def __init__(self, of: Database) -> None:
        super().__init__(of.engine)
        self.count = 0

    @contextmanager
    def transaction(self, keys: Any) -> Iterator[Connection]:
        with super().transaction(keys) as connection:
            rows = connection.rows

            def counted(*arguments: Any) -> Any:
                self.count += 1
                return rows(*arguments)

            connection.rows = counted  # type: ignore[method-assign, assignment]
            yield connection


def test_a_message_of_many_associations_does_not_hold_the_writer_up(database: str) -> None:
    """However many addenda of one document a message holds, the others that wait to write wait for as many statements."""
    store = opened(database)
    try:
        registry = Registry(store)
        store.database.dispose()
        store.database = counting = Statements(store.database)
        counts = []
        for number in (2, 400):
            target = registry.registered(valid(registry.p1)).entry_uuid
            links = [link(APND, "Document0", target, entry_uuid=f"a{n}") for n in range(number)]
            before = counting.count
            assert registry.register(with_links(valid(registry.p1), *links)).succeeded
            counts.append(counting.count - before)
        assert counts[0] > 0
        assert counts[1] - counts[0] <= 2, "the lists of ids are looked up in a few parts, and nothing one by one"
    finally:
        store.close()


def test_work_of_one_patient_is_done_in_the_order_in_which_it_came(registry: Registry) -> None:
    """A document, its replacement, and the replacement of that, none of which waits for the one before."""
    ids = [new_uuid() for _ in range(5)]
    made = [own_id(valid(registry.p1), ids[0])]
    for old, new in itertools.pairwise(ids):
        one = own_id(valid(registry.p1), new)
        relation = Association(entry_uuid="rel", association_type=RPLC, source_object=new, target_object=old)
        made.append(with_links(one, relation))
    held = Held(registry.store)
    later = [later_registered(registry, one) for one in made]
    held.let_go()
    assert [future.result(PATIENCE_S).succeeded for future in later] == [True] * 5
    assert [one.entry_uuid for one in registry.found(registry.p1, str(Status.APPROVED))] == [ids[-1]]


def test_a_registry_that_closes_finishes_what_waits(database: str) -> None:
    store = opened(database)
    registry = Registry(store)
    held = Held(store)
    later = [later_registered(registry, valid(registry.p1)) for _ in range(5)]
    held.let_go()
    store.close()
    assert [future.result(PATIENCE_S).succeeded for future in later] == [True] * 5
    with pytest.raises(RuntimeError, match="closed"):
        registry.register(valid(registry.p1))
    again = Registry(opened(database))
    assert len(again.found(registry.p1)) == 5
    again.store.close()
