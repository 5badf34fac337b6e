"""The bulk path and the synthetic population: what it leaves is what the same submissions leave one by one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from registry import bulk
from registry.bodies import Bodies, new_dictionary
from registry.iti18_stored_query import stored_query
from registry.iti42_register import register
from registry.patients import add_patient, list_patients
from registry.schema import upgrade
from registry.store import Store, open_engine
from registry.tables import BY_KIND, registry_object
from schemas import rim
from server.population import History, Part, document_counts, parts, patient
from xds.metadata import Association, DocumentEntry, RegistryObject, SubmissionSet
from xds.queries import FindDocuments, GetAll
from xds.vocabulary import AssociationType, Status

DOCUMENTS, SEED = 300, 7
BOTH = tuple(str(one) for one in Status)
Rows = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    engine = open_engine(database)
    upgrade(engine)
    made = Store(engine)
    yield made
    made.close()


def histories(documents: int = DOCUMENTS, seed: int = SEED) -> list[History]:
    return [one for part in parts(documents, seed) for one in part.histories()]


def objects(documents: int = DOCUMENTS, seed: int = SEED) -> list[RegistryObject]:
    return [one for part in parts(documents, seed) for settled in part() for one in settled.objects]


def rows(store: Store) -> Rows:
    """Everything that the registry has, in no order."""
    tables = (*BY_KIND.values(), registry_object)
    return {table.name: sorted(store.rows(select(*table.columns), {}), key=repr) for table in tables}


def register_all(store: Store, told: list[History]) -> int:
    """By ITI-42, as they came in over the years, by all rules; gives the number of submissions."""
    steps = sorted((step for one in told for step in one.steps), key=lambda step: step.moment)
    for one in told:
        add_patient(store, one.patient_id)
    for step in steps:
        ids = iter([one.entry_uuid for one in step.inherited])
        outcome = register(step.submission, store=store, now=partial(_same, step.moment), new_uuid=partial(next, ids))
        assert outcome.problems == ()
    return len(steps)


def _same(moment: datetime) -> datetime:
    return moment


def test_a_loaded_registry_is_the_one_that_registration_makes(store: Store, tmp_path: Any) -> None:
    """Every row of every table, with effects of replacements and folders (ITI TF-2 3.42.4.1.3)."""
    counted: list[int] = []
    loaded = bulk.load(store, parts(DOCUMENTS, SEED), progress=counted.append, processes=0)
    other = Store(_upgraded(f"sqlite:///{tmp_path / 'registered.sqlite'}"))
    told = histories()
    assert register_all(other, told) > DOCUMENTS / 2
    # What is hard is there.
    assert sum(len(one.deprecated) for one in told) > 10
    assert any(step.inherited for one in told for step in one.steps)
    found, expected = rows(store), rows(other)
    other.close()
    assert {name: len(of) for name, of in found.items()} == {name: len(of) for name, of in expected.items()}
    assert found == expected
    assert sum(counted) == loaded.counts["DocumentEntry"] == DOCUMENTS
    assert sum(loaded.counts.values()) == len(found["registry_object"])
    assert sorted(one for one, _ in list_patients(store)) == sorted(str(one.patient_id) for one in told)


def _upgraded(url: str) -> Any:
    engine = open_engine(url)
    upgrade(engine)
    return engine


def test_queries_answer_of_loaded_and_registered_objects_alike(store: Store, tmp_path: Any) -> None:
    """ITI-18 LeafClass, whole texts."""
    bulk.load(store, parts(DOCUMENTS, SEED), progress=lambda _: None, processes=0)
    other = Store(_upgraded(f"sqlite:///{tmp_path / 'registered.sqlite'}"))
    told = histories()
    register_all(other, told)
    hits = 0
    for one in told:
        everything = GetAll(
            patient_id=one.patient_id, document_entry_status=BOTH, submission_set_status=BOTH, folder_status=BOTH
        )
        for query in (everything, FindDocuments(patient_id=one.patient_id)):
            answers = [sorted(stored_query(query, store=each).fragments) for each in (store, other)]
            assert answers[0] == answers[1]
            hits += len(answers[0])
    other.close()
    assert hits > 2 * DOCUMENTS


def test_rows_made_in_other_processes_are_the_same(store: Store) -> None:
    split = [Part(SEED, first, tuple(itertools.islice(document_counts(SEED), first, first + 3))) for first in (0, 3, 6)]
    bulk.load(store, split, progress=lambda _: None, processes=2)
    bodies = Bodies(new_dictionary())
    expected = [row for part in split for row in bulk.rows_of(part(), bodies)["document_entry"]]
    assert len(expected) > 9
    assert sorted(store.rows(select(*BY_KIND["DocumentEntry"].columns), {}), key=repr) == sorted(expected, key=repr)


def test_a_stored_text_is_the_one_that_is_rendered() -> None:
    bodies, settled = Bodies(new_dictionary()), [one for part in parts(DOCUMENTS, SEED) for one in part()]
    batch = bulk.rows_of(settled, bodies)
    texts = {row[1]: bodies.text(row[6]) for table in BY_KIND.values() for row in batch[table.name]}
    assert {one.entry_uuid: rim.render(one) for settled_ in settled for one in settled_.objects} == texts


def test_what_is_there_is_not_loaded_twice(store: Store) -> None:
    assert bulk.is_empty(store)
    bulk.load(store, parts(50, SEED), progress=lambda _: None, processes=0)
    assert not bulk.is_empty(store)
    before = rows(store)
    with pytest.raises(bulk.AlreadyThere):
        bulk.load(store, parts(50, SEED), progress=lambda _: None, processes=0)
    assert rows(store) == before
    bulk.load(store, parts(50, SEED + 1), progress=lambda _: None, processes=0)
    assert len(rows(store)["document_entry"]) == 100


def test_a_load_does_not_leave_its_settings_behind(store: Store) -> None:
    """Durability is that of every other transaction afterwards."""
    bulk.load(store, parts(20, SEED), progress=lambda _: None, processes=0)
    if store.database.is_sqlite:
        with store.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 16384
    assert bulk.database_bytes(store) > 20_000


def indexes(store: Store) -> list[tuple[Any, ...]]:
    """Every index of a PostgreSQL database, partitions' included, as it says itself how it was made."""
    statement = "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY tablename, indexdef"
    with store.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(statement)]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_an_empty_database_has_all_its_indexes_again_after_a_load(store: Store) -> None:
    """On PostgreSQL they are made when the rows are there; also where ids in the load are not unique, of which nothing stays then."""
    before = indexes(store)
    assert len(before) > 40
    with pytest.raises(bulk.AlreadyThere):
        bulk.load(store, [*parts(20, SEED), *parts(20, SEED)], progress=lambda _: None, processes=0)
    assert (indexes(store), rows(store)["registry_object"]) == (before, [])

    def broken() -> Iterator[bulk.Settled]:
        raise RuntimeError("half of it is enough")

    with pytest.raises(RuntimeError):
        bulk.load(store, [*parts(20, SEED), broken], progress=lambda _: None, processes=0)
    assert indexes(store) == before
    assert len(rows(store)["document_entry"]) == 20


# --- the population ---------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_population_in_any_size() -> None:
    small, large = objects(100), objects(200)
    assert objects(100) == small
    assert Counter(type(one) for one in large)[DocumentEntry] == 200
    # All patients but the last one, whose documents were cut off to make the number, are the same.
    complete = {str(one.patient_id) for one in histories(100)[:-1]}
    by_patient = [[one for one in of if getattr(one, "patient_id", None) in complete] for of in (small, large)]
    assert len(by_patient[0]) > 50
    assert sorted(by_patient[0], key=repr) == sorted(by_patient[1], key=repr)
    other = {one.entry_uuid for one in objects(100, SEED + 1)}
    assert other.isdisjoint(one.entry_uuid for one in large)
    assert {patient(1, n) for n in range(100)}.isdisjoint(patient(2, n) for n in range(100))


def test_a_population_is_skewed_as_one_is() -> None:
    counts = list(itertools.islice(document_counts(SEED), 20_000))
    assert 17 < sum(counts) / len(counts) < 23
    assert sorted(counts)[len(counts) // 2] < 12
    assert 200 < max(counts) <= 1000
    made = objects(3000)
    entries = [one for one in made if isinstance(one, DocumentEntry)]
    of_type = Counter(one.association_type for one in made if isinstance(one, Association))
    assert 0.03 < of_type[AssociationType.RPLC] / len(entries) < 0.07
    assert of_type[AssociationType.APND] > 10
    deprecated = [one for one in entries if one.availability_status == Status.DEPRECATED]
    assert len(deprecated) >= of_type[AssociationType.RPLC]
    folders = Counter(type(one).__name__ for one in made)["Folder"]
    assert 0.03 < folders / len(entries) < 0.07
    assert 1.2 < len(entries) / sum(isinstance(one, SubmissionSet) for one in made) < 2
    types = Counter(one.type_code.code for one in entries if one.type_code).most_common()
    assert types[0][1] > 10 * types[-1][1]
    times = sorted(str(one.creation_time) for one in entries)
    assert times[0] < "2017" < "2025" < times[-1]


def test_documents_of_a_patient_do_not_lie_together() -> None:
    """Else a benchmark's patients would be read with a few pages each, which no real registry's are."""
    (part,) = parts(2000, SEED)
    owners = [one.patient_id for one in part()]
    apart = sum(a != b for a, b in itertools.pairwise(owners))
    assert apart > 0.8 * len(owners)
