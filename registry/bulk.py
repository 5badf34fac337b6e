"""The bulk path: objects that are known to be right go straight into the tables, many thousands in one transaction.

Nothing is checked and nothing follows from anything: whoever gives the objects has followed the rules of ITI-42 and says how everything
stands in the end. It is for synthetic populations, and for taking over what another registry has checked.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from sqlalchemy import Index, Integer, LargeBinary, SmallInteger, Table, bindparam, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import AddConstraint, CreateIndex, DropConstraint, DropIndex, ExecutableDDLElement

from registry.bodies import Bodies
from registry.rows import identity_of, row_of
from registry.schema import upgrade
from registry.store import Store, open_engine
from registry.tables import BY_KIND, SHORT_STATUS, patient, registry_object
from schemas import rim
from schemas.attributes import Kind
from xds.metadata import Association, RegistryObject
from xds.vocabulary import Status


@dataclass(frozen=True, slots=True)
class Settled:
    """The objects that one submission left in the registry, each as it stands in the end.

    Every object has its `entry_uuid`, `logical_id` and `version`; `availability_status` None is Approved; a Folder has its
    `last_update_time`. Associations are kept with `patient_id`, the SubmissionSet's.
    """

    patient_id: str
    objects: tuple[RegistryObject, ...]


class AlreadyThere(ValueError):
    """An object to be loaded has the id of one that is registered."""


#: Some thousand objects that are made where they are needed: it is sent to another process, and so must be picklable.
Part = Callable[[], Iterable[Settled]]
#: Rows by the name of their table, each in the order of the table's columns.
Batch = Mapping[str, Sequence[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of a load: objects by class, the seconds it took, and how many of them ANALYZE took."""

    counts: dict[Kind, int] = field(default_factory=dict)
    seconds: float = 0.0
    analyze_seconds: float = 0.0


def open_store(url: str) -> Store:
    """The registry at a URL, its tables made or brought up to date. ValueError where it cannot be opened."""
    try:
        engine = open_engine(url)
        upgrade(engine)
        return Store(engine)
    except (SQLAlchemyError, ImportError) as error:
        # Without the URL, which may hold a password.
        raise ValueError(f"the database cannot be opened: {str(error).splitlines()[0]}") from None


def load(
    store: Store, parts: Iterable[Part], *, progress: Callable[[int], None], processes: int | None = None
) -> Loaded:
    """Stores the parts in their order, each in one transaction, and their patients; `progress` is told numbers of DocumentEntries.

    Rows are made in `processes` other processes, as many as there are processors if None is given, and in this one with 0. What has been
    stored when an exception comes stays. AlreadyThere for an id that is registered.
    """
    start = time.perf_counter()
    counts: dict[Kind, int] = dict.fromkeys(BY_KIND, 0)
    with _writer(store) as write, _batches(parts, store.bodies.dictionary, processes) as batches:
        for batch in batches:
            write(batch)
            for kind, table in BY_KIND.items():
                counts[kind] += len(batch[table.name])
            progress(len(batch[BY_KIND["DocumentEntry"].name]))
    stored = time.perf_counter()
    analyze(store)
    end = time.perf_counter()
    return Loaded(counts, end - start, end - stored)


# --- rows -------------------------------------------------------------------------------------------------------------

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    table.name: tuple(column.name for column in table.columns)
    for table in (*BY_KIND.values(), registry_object, patient)
}
_IDENTITY_IN_ORDER = itemgetter(*_COLUMNS[registry_object.name])
_IN_ORDER = {kind: itemgetter(*_COLUMNS[table.name]) for kind, table in BY_KIND.items()}


def rows_of(settled: Iterable[Settled], bodies: Bodies) -> Batch:
    """The rows of all tables."""
    batch: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _COLUMNS}
    of_kind = {kind: batch[table.name] for kind, table in BY_KIND.items()}
    identities = batch[registry_object.name]
    patients: set[str] = set()
    for submitted in settled:
        patients.add(submitted.patient_id)
        for one in submitted.objects:
            kind = rim.kind_of(one)
            owner = submitted.patient_id if isinstance(one, Association) else str(one.patient_id)
            status = SHORT_STATUS[one.availability_status or Status.APPROVED]
            row = row_of(one, patient_id=owner, status=status, body=bodies.blob(rim.render(one)))
            of_kind[kind].append(_IN_ORDER[kind](row))
            identities.append(_IDENTITY_IN_ORDER(identity_of(row, kind)))
    batch[patient.name] = [(one, None) for one in sorted(patients)]
    return batch


@contextmanager
def _batches(parts: Iterable[Part], dictionary: bytes, processes: int | None) -> Iterator[Iterator[Batch]]:
    """The rows of the parts, in their order; the processes are never far ahead of whoever takes them."""
    if processes == 0:
        bodies = Bodies(dictionary)
        yield (rows_of(part(), bodies) for part in parts)
        return
    count = processes or os.cpu_count() or 1
    # Not forked: a fork would share this process's connections.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, initializer=_begin, initargs=(dictionary,)) as pool:
        try:
            yield _ahead(pool, parts, count + 1)
        finally:
            pool.shutdown(cancel_futures=True)


def _ahead(pool: ProcessPoolExecutor, parts: Iterable[Part], most: int) -> Iterator[Batch]:
    waiting: deque[Future[Batch]] = deque()
    for part in parts:
        waiting.append(pool.submit(_make, part))
        if len(waiting) >= most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


_bodies: Bodies


def _begin(dictionary: bytes) -> None:
    """In a new process."""
    global _bodies
    _bodies = Bodies(dictionary)


def _make(part: Part) -> Batch:
    return rows_of(part(), _bodies)


# --- writing ----------------------------------------------------------------------------------------------------------

_TABLES = (*BY_KIND.values(), registry_object)
_POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_INSERT = {table.name: str(insert(table).compile(dialect=sqlite.dialect(paramstyle="qmark"))) for table in _TABLES}
_NEW_PATIENT = "INSERT INTO patient (patient_id, subsumed_by) VALUES ({0}, {0}) ON CONFLICT DO NOTHING"
_INSERT[patient.name] = _NEW_PATIENT.format("?")
#: A checkpoint of SQLite's write-ahead log after so many pages: pages of indexes that change often are then copied less often.
_CHECKPOINT_PAGES = 65_536


@contextmanager
def _writer(store: Store) -> Iterator[Callable[[Batch], None]]:
    """What writes a batch in one transaction, over one connection that nobody has afterwards."""
    indexes_later = not store.database.is_sqlite and is_empty(store)
    fairy = store.engine.raw_connection()
    driver: Any = fairy.driver_connection
    try:
        if store.database.is_sqlite:
            _prepare_sqlite(driver)
            yield lambda batch: _write_sqlite(driver, batch)
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        elif indexes_later:
            with _without_indexes(driver, store.engine.dialect.dbapi.IntegrityError):  # type: ignore[union-attr]
                yield lambda batch: _write_postgresql(driver, batch)
        else:
            yield lambda batch: _write_postgresql(driver, batch)
    except Exception as error:
        if isinstance(error, store.engine.dialect.dbapi.IntegrityError):  # type: ignore[union-attr]
            raise AlreadyThere(str(error).splitlines()[0]) from error
        raise
    finally:
        driver.rollback()
        fairy.invalidate()


def _prepare_sqlite(driver: Any) -> None:
    """A quarter of the memory for the indexes. Lost power may take the last transactions, but never half of one."""
    kibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4 // 1024
    for pragma in (f"cache_size=-{kibibytes}", "synchronous=NORMAL", f"wal_autocheckpoint={_CHECKPOINT_PAGES}"):
        driver.execute(f"PRAGMA {pragma}")


def _write_sqlite(driver: Any, batch: Batch) -> None:
    driver.execute("BEGIN IMMEDIATE")
    for name, rows in batch.items():
        driver.executemany(_INSERT[name], rows)
    driver.execute("COMMIT")


def _write_postgresql(driver: Any, batch: Batch) -> None:
    with driver.cursor() as cursor:
        for name, rows in batch.items():
            if name == patient.name:
                cursor.executemany(_NEW_PATIENT.format("%s"), rows)
                continue
            columns = ", ".join(_COLUMNS[name])
            with cursor.copy(f"COPY {name} ({columns}) FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(_TYPES[name])
                for row in rows:
                    copy.write_row(row)
    driver.commit()


@contextmanager
def _without_indexes(driver: Any, integrity_error: type[Exception]) -> Iterator[None]:
    """The tables, which are empty, have none in the meantime.

    An index is built of what is there many times faster than it is kept while keys come in no order. Where the objects do not have
    ids of their own the tables are emptied again.
    """
    driver.rollback()
    for drop in _ddl(DropIndex, DropConstraint):
        driver.execute(drop)
    driver.commit()
    try:
        yield
    finally:
        driver.rollback()
        driver.execute("SET maintenance_work_mem = '1GB'")
        add = _ddl(CreateIndex, AddConstraint)
        try:
            for one in add:
                driver.execute(one)
        except integrity_error:
            driver.rollback()
            driver.execute(f"TRUNCATE {', '.join(table.name for table in _TABLES)}")
            for one in add:
                driver.execute(one)
            driver.commit()
            raise
        driver.commit()


def _ddl(of_index: Callable[[Index], ExecutableDDLElement], of_key: Callable[[Any], ExecutableDDLElement]) -> list[str]:
    """A statement for each index and each primary key of the tables of objects."""
    statements = [of_key(table.primary_key) for table in _TABLES]
    statements += [
        of_index(index) for table in _TABLES for index in sorted(table.indexes, key=lambda one: one.name or "")
    ]
    return [str(one.compile(dialect=_POSTGRESQL)) for one in statements]


def _types(table: Table) -> list[str]:
    """The columns' types as PostgreSQL's binary COPY wants them told."""
    names = {SmallInteger: "int2", Integer: "int4", LargeBinary: "bytea"}
    return [names.get(type(column.type), "text") for column in table.columns]


_TYPES = {table.name: _types(table) for table in _TABLES}

# --- what a load leaves behind ----------------------------------------------------------------------------------------


def analyze(store: Store) -> None:
    """Tells the database's planner what the tables hold. On PostgreSQL readers would else have to do what VACUUM does now."""
    fairy = store.engine.raw_connection()
    driver: Any = fairy.driver_connection
    try:
        if store.database.is_sqlite:
            # So many rows of an index are looked at: reading all of a large one takes minutes and says the same.
            driver.execute("PRAGMA analysis_limit=10000")
            driver.execute("ANALYZE")
        else:
            driver.autocommit = True
            driver.execute(f"VACUUM (ANALYZE) {', '.join(_COLUMNS)}")
    finally:
        fairy.invalidate()


_ANY = select(registry_object.c.entry_uuid).limit(bindparam("most", type_=Integer))


def is_empty(store: Store) -> bool:
    """Whether the registry has no objects."""
    return not store.rows(_ANY, {"most": 1})


def database_bytes(store: Store) -> int:
    """What the tables and indexes of the database take on the disk."""
    fairy = store.engine.raw_connection()
    driver: Any = fairy.driver_connection
    try:
        if store.database.is_sqlite:
            pages, size = (driver.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
            return int(pages * size)
        return int(driver.execute("SELECT pg_database_size(current_database())").fetchone()[0])
    finally:
        driver.rollback()
        fairy.close()
