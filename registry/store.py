"""The registry's database as its transactions see it: rows for queries, and units of work that are committed together.

Units of work that have come in while one group was being committed become the next group (`database/writing.py`). What two units touch in
common keeps them apart (`Footprint`), so that each is as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Engine, bindparam, insert, select
from sqlalchemy.sql import Executable

from database.connections import Connection, Database, DatabaseLost, Row, open_engine
from database.statements import among, chunks
from database.writing import Committed, Job, Writer
from registry.bodies import Bodies, new_dictionary
from registry.lookup import Beyond, Footprint, Known, Lookup
from registry.tables import registry_object, setting
from registry.unit import Unit
from xds.problems import Failure

__all__ = ["DatabaseLost", "Footprint", "Known", "Store", "Unit", "open_engine"]

T = TypeVar("T")

_DICTIONARY = "body-dictionary"
_SETTING = select(setting.c.value).where(setting.c.name == bindparam("name"))
_NEW_SETTING = insert(setting)
_PATIENTS_OF = select(registry_object.c.patient_id).where(among(registry_object.c.entry_uuid, "values")).distinct()


class Store:
    """The registry's database."""

    def __init__(self, engine: Engine, *, committed: Committed = lambda units, waiting: None) -> None:
        """`committed` is told how many units of work each commit held, and how many wait."""
        self.engine = engine
        self.database = Database(engine)
        self.dialect = engine.dialect.name
        self.bodies = Bodies(self._dictionary())
        self._writer: Writer[Footprint] = Writer(
            "xdsi-registry-writer", self._transact, again=_with_what_it_lacked, committed=committed
        )

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
        self._writer.close()
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
        return self._writer.put(Job(footprint=footprint, work=work, alone=alone))

    def _transact(self, group: Sequence[Job[Footprint, Any]]) -> list[tuple[Any, Failure | None]]:
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


def _with_what_it_lacked(job: Job[Footprint, Any], error: BaseException) -> bool:
    """Whether the unit of work came upon what its footprint lacks; from now on it has it."""
    if not isinstance(error, Beyond):
        return False
    job.footprint = job.footprint.with_also(error)
    return True


def _flush(connection: Connection, units: Iterable[Unit]) -> None:
    """What the units have waiting, table by table, with as few statements as there are kinds of them."""
    waiting: dict[Executable, list[Mapping[str, Any]]] = {}
    for unit in units:
        for statement, rows in unit.take():
            waiting.setdefault(statement, []).extend(rows)
    for statement, rows in waiting.items():
        connection.run_many(statement, rows)
