"""The registry's database as its transactions see it: rows for queries, and units of work that are committed together.

One thread writes. The units of work that have come in while one group was being committed become the next group, which is one
transaction of the database: many clients wait for the disk together. What two units touch in common keeps them apart (`Footprint`), so
that each is as if it were alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine, bindparam, insert, select
from sqlalchemy.sql import Executable

from registry.bodies import Bodies, new_dictionary
from registry.database import Connection, Database, DatabaseLost, Row, open_engine
from registry.lookup import Beyond, Footprint, Known, Lookup
from registry.sql import among, chunks
from registry.tables import registry_object, setting
from registry.unit import Unit
from xds.problems import Failure

__all__ = ["DatabaseLost", "Footprint", "Known", "Store", "Unit", "open_engine"]

T = TypeVar("T")
#: Most units of work in one transaction.
_MAX_GROUP = 48

_DICTIONARY = "body-dictionary"
_SETTING = select(setting.c.value).where(setting.c.name == bindparam("name"))
_NEW_SETTING = insert(setting)
_PATIENTS_OF = select(registry_object.c.patient_id).where(among(registry_object.c.entry_uuid, "values")).distinct()


@dataclass(slots=True)
class _Job(Generic[T]):
    footprint: Footprint
    work: Callable[[Unit], T]
    alone: bool
    future: Future[T]


class Store:
    """The registry's database."""

    def __init__(self, engine: Engine, *, committed: Callable[[int], None] = lambda units: None) -> None:
        """`committed` is told how many units of work each commit held."""
        self.engine = engine
        self._committed = committed
        self.database = Database(engine)
        self.dialect = engine.dialect.name
        self.bodies = Bodies(self._dictionary())
        self._waiting: list[_Job[Any]] = []
        self._arrived = threading.Condition()
        self._writer: threading.Thread | None = None
        self._closed = False

    def _dictionary(self) -> bytes:
        """That of the database; the first process that comes makes it."""
        found = self.database.rows(_SETTING, {"name": _DICTIONARY})
        if not found:
            with self.database.transaction([_DICTIONARY]) as connection:
                found = connection.rows(_SETTING, {"name": _DICTIONARY})
                if not found:
                    made = new_dictionary()
                    connection.run(_NEW_SETTING, {"name": _DICTIONARY, "value": made})
                    found = [(made,)]
        return bytes(found[0][0])

    def close(self) -> None:
        """Finishes what waits to be written, and closes the connections."""
        with self._arrived:
            self._closed = True
            self._arrived.notify()
        if self._writer is not None:
            self._writer.join()
        self.database.dispose()

    def rows(self, statement: Executable, parameters: Mapping[str, Any]) -> list[Row]:
        """The answer to one SELECT, in AUTOCOMMIT. The statement should be one that is used again: its text is kept."""
        return self.database.rows(statement, parameters)

    def patients_of(self, entry_uuids: Iterable[str]) -> set[str]:
        """The patients of registered objects, as they are now."""
        return {one for chunk in chunks(entry_uuids) for (one,) in self.rows(_PATIENTS_OF, {"values": chunk})}

    def write(self, footprint: Footprint, work: Callable[[Unit], T], *, alone: bool = False) -> T:
        """Runs a unit of work, and comes back when it is durable. What it raises has stored nothing.

        `footprint` names what the work reads and changes: no other work with a part of it runs at the same time. `work` may be run
        several times, so it must change nothing but its Unit. `alone` gives it a transaction of its own, in which it may flush.
        """
        return self.write_later(footprint, work, alone=alone).result()

    def write_later(self, footprint: Footprint, work: Callable[[Unit], T], *, alone: bool = False) -> Future[T]:
        """As `write`, without waiting: the result is there when the work is durable."""
        job = _Job(footprint, work, alone, Future())
        with self._arrived:
            if self._closed:
                raise RuntimeError("the registry's database is closed")
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_groups, name="xdsi-registry-writer", daemon=True)
                self._writer.start()
            self._waiting.append(job)
            self._arrived.notify()
        return job.future

    def _write_groups(self) -> None:
        """The writer's life."""
        while self._waits():
            if group := self._next_group():
                self._run(group)

    def _waits(self) -> bool:
        """Whether there is work; comes back when there is, or when the store is closed."""
        with self._arrived:
            while not self._waiting and not self._closed:
                self._arrived.wait()
            return bool(self._waiting)

    def _next_group(self) -> list[_Job[Any]]:
        """The oldest waiting work, and whatever after it has nothing to do with it."""
        with self._arrived:
            group: list[_Job[Any]] = []
            taken: set[str] = set()
            left: list[_Job[Any]] = []
            for job in self._waiting:
                apart = not group or not (job.alone or group[0].alone or job.footprint.touches(taken))
                if apart and len(group) < _MAX_GROUP:
                    group.append(job)
                else:
                    left.append(job)
                # What comes later and touches what waits must wait too.
                taken |= job.footprint.keys
            self._waiting = left
        # From here on nobody can cancel it.
        return [job for job in group if job.future.set_running_or_notify_cancel()]

    def _run(self, group: list[_Job[Any]]) -> None:
        """Writes the group, and tells each of it how it went."""
        try:
            results = self._transact(group)
        except BaseException as error:
            # Of whatever kind it is: a writer that ended here would leave everybody waiting.
            if len(group) == 1 and isinstance(error, Beyond):
                group[0].footprint = group[0].footprint.with_also(error)
                self._run(group)
            elif len(group) == 1 or isinstance(error, DatabaseLost):
                for job in group:
                    job.future.set_exception(error)
            else:
                # One of them is at fault: each is tried alone.
                for job in group:
                    self._run([job])
            return
        self._committed(len(group))
        for job, (result, failure) in zip(group, results, strict=True):
            if failure is not None:
                job.future.set_exception(failure)
            else:
                job.future.set_result(result)

    def _transact(self, group: list[_Job[Any]]) -> list[tuple[Any, Failure | None]]:
        """One transaction: for each of the group what came of it, all of which is durable when this returns."""
        results: list[tuple[Any, Failure | None]] = []
        with self.database.transaction(key for job in group for key in job.footprint.keys) as connection:
            lookup = Lookup(connection, [job.footprint for job in group])
            units: list[Unit] = []
            for job in group:
                unit = Unit(connection, self.bodies, lookup, job.footprint)
                try:
                    results.append((job.work(unit), None))
                    units.append(unit)
                except Failure as failure:
                    if job.alone:
                        raise
                    # It has written nothing: what a unit changes waits in it until here.
                    results.append((None, failure))
            _flush(connection, units)
        return results


def _flush(connection: Connection, units: Iterable[Unit]) -> None:
    """What the units have waiting, table by table, with as few statements as there are kinds of them."""
    waiting: dict[Executable, list[Mapping[str, Any]]] = {}
    for unit in units:
        for statement, rows in unit.take():
            waiting.setdefault(statement, []).extend(rows)
    for statement, rows in waiting.items():
        connection.run_many(statement, rows)
