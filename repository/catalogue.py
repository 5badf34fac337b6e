"""The catalogue: what is known of each stored document, and the bytes of the small ones.

A *copy* is bytes in a place; the rows of several documents may name one. Whatever changes rows is written in groups
(`database/writing.py`), and locks the uniqueIds and copies that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from sqlalchemy import Engine, and_, bindparam, delete, func, insert, or_, select, update

from database.connections import Connection, Database, Row
from database.statements import among, chunks
from database.writing import Job, Writer
from repository.tables import State, small_copy, stored_document
from xds.problems import Failure

T = TypeVar("T")
#: The place of bytes that the catalogue itself keeps.
CATALOGUE = "catalogue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One row of the catalogue: a document's name in the store, and what is known of it. `staged_at` in seconds since 1970.

    `place` and `copy` say where its bytes are. `sha256` is None of documents that were stored before it was kept.
    """

    key: str
    document_unique_id: str
    size: int
    sha1: str
    sha256: str | None
    mime_type: str
    state: State
    staged_at: int
    place: str
    copy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How many documents of a state are in a place, and their bytes. A copy that several share counts for each."""

    state: State
    place: str
    documents: int
    size: int


class CopyGone(Exception):
    """A copy that was to be shared has gone in the meantime."""


@dataclass(frozen=True, slots=True)
class _Keys:
    keys: frozenset[str]


# --- statements, each built once --------------------------------------------------------------------------------------

_row = stored_document.c
_COLUMNS = tuple(stored_document.columns)
_BY_UNIQUE_ID = select(*_COLUMNS).where(among(_row.document_unique_id, "values"))
_BY_KEY = select(*_COLUMNS).where(among(_row.key, "values"))
_AVAILABLE_BY_SHA256 = select(*_COLUMNS).where(among(_row.sha256, "values"), _row.state == State.AVAILABLE.value)
_AVAILABLE_OF_COPY = select(_row.copy).where(among(_row.copy, "values"), _row.state == State.AVAILABLE.value)
_ALL_OF_COPY = select(_row.key, _row.copy).where(among(_row.copy, "values"))
_GIVEN = (
    select(*_COLUMNS, small_copy.c.content)
    .select_from(stored_document.outerjoin(small_copy, small_copy.c.copy == _row.copy))
    .where(
        _row.document_unique_id == bindparam("unique_id"),
        or_(_row.state == State.AVAILABLE.value, _row.state == State.PENDING.value),
    )
)
_UNSETTLED = select(*_COLUMNS).where(_row.state != State.AVAILABLE.value).order_by(_row.staged_at)
_PAGE = (
    select(*_COLUMNS)
    .where(or_(_row.copy > bindparam("copy"), and_(_row.copy == bindparam("copy"), _row.key > bindparam("key"))))
    .order_by(_row.copy, _row.key)
    .limit(bindparam("most"))
)
_COUNTS = select(_row.state, _row.place, func.count(), func.coalesce(func.sum(_row.size), 0)).group_by(
    _row.state, _row.place
)
_COPIES = select(_row.copy).where(among(_row.copy, "values")).distinct()
_CONTENT = select(small_copy.c.content).where(small_copy.c.copy == bindparam("copy"))
_LOOSE = (
    select(small_copy.c.copy)
    .where(~select(_row.key).where(_row.copy == small_copy.c.copy).exists())
    .order_by(small_copy.c.copy)
)

_INSERT = insert(stored_document)
_INSERT_CONTENT = insert(small_copy)
_twin = stored_document.alias("twin")
_TWINS = select(_twin.c.key).where(
    _twin.c.document_unique_id == _row.document_unique_id, _twin.c.state == State.AVAILABLE.value
)
_COMMIT = (
    update(stored_document)
    .where(among(_row.key, "values"), _row.state != State.REMOVED.value, ~_TWINS.exists())
    .values(state=State.AVAILABLE.value)
)
_SPARE = select(_row.key).where(
    among(_row.key, "values"),
    _row.state != State.AVAILABLE.value,
    _TWINS.where(_twin.c.sha1 == _row.sha1, _twin.c.size == _row.size).exists(),
)
_MARK = (
    update(stored_document)
    .where(among(_row.key, "values"), _row.state != State.AVAILABLE.value)
    .values(state=bindparam("new_state"))
)
_REMOVE = (
    update(stored_document)
    .where(among(_row.key, "values"), _row.state == State.AVAILABLE.value)
    .values(state=State.REMOVED.value)
)
_DELETE = delete(stored_document).where(among(_row.key, "values"))
_DELETE_CONTENT = delete(small_copy).where(among(small_copy.c.copy, "values"))


class Catalogue:
    """The repository's database. Every method may be called from several threads and processes at once."""

    def __init__(self, engine: Engine) -> None:
        """`engine` has the tables of repository.schema."""
        self.database = Database(engine)
        self._writer: Writer[_Keys] = Writer("xdsi-repository-writer", self._transact)

    def close(self) -> None:
        """Finishes what waits to be written, and closes the connections."""
        self._writer.close()
        self.database.dispose()

    # --- reading ------------------------------------------------------------------------------------------------------

    def of_unique_ids(self, document_unique_ids: Iterable[str]) -> list[Stored]:
        """Every row of these documents, whatever its state."""
        return self._all(_BY_UNIQUE_ID, document_unique_ids)

    def of_keys(self, keys: Iterable[str]) -> list[Stored]:
        """The rows with these names."""
        return self._all(_BY_KEY, keys)

    def of_sha256(self, hashes: Iterable[str]) -> list[Stored]:
        """Every available document with one of these hashes."""
        return self._all(_AVAILABLE_BY_SHA256, hashes)

    def given(self, document_unique_id: str) -> list[tuple[Stored, bytes | None]]:
        """The rows of a document that is available or pending, the available one first, and the bytes where the catalogue keeps them."""
        rows = self.database.rows(_GIVEN, {"unique_id": document_unique_id})
        found = [(_stored(row[:-1]), None if row[-1] is None else bytes(row[-1])) for row in rows]
        return sorted(found, key=lambda one: (one[0].state is not State.AVAILABLE, one[0].staged_at))

    def content(self, copy: str) -> bytes | None:
        """The bytes of a copy that the catalogue keeps."""
        rows = self.database.rows(_CONTENT, {"copy": copy})
        return bytes(rows[0][0]) if rows else None

    def unsettled(self) -> list[Stored]:
        """Every row that is not available, the oldest first."""
        return [_stored(row) for row in self.database.rows(_UNSETTLED, {})]

    def every(self, page: int = 500) -> Iterator[Stored]:
        """All rows, those of one copy together, page by page; what is added or deleted meanwhile may be among them or not."""
        copy = key = ""
        while rows := [_stored(row) for row in self.database.rows(_PAGE, {"copy": copy, "key": key, "most": page})]:
            yield from rows
            copy, key = rows[-1].copy, rows[-1].key

    def counts(self) -> list[Count]:
        """All documents, by state and place."""
        return [
            Count(state=State(state), place=place, documents=int(documents), size=int(size))
            for state, place, documents, size in self.database.rows(_COUNTS, {})
        ]

    def named_copies(self, copies: Iterable[str]) -> set[str]:
        """Those of the copies that a row names."""
        return {copy for chunk in chunks(copies) for (copy,) in self.database.rows(_COPIES, {"values": chunk})}

    def loose_copies(self) -> list[str]:
        """Copies in the catalogue that no row names: there should be none."""
        return [copy for (copy,) in self.database.rows(_LOOSE, {})]

    def _all(self, statement: Any, values: Iterable[str]) -> list[Stored]:
        return [_stored(row) for chunk in chunks(values) for row in self.database.rows(statement, {"values": chunk})]

    # --- writing ------------------------------------------------------------------------------------------------------

    def add(
        self,
        rows: Sequence[Stored],
        contents: Mapping[str, bytes],
        *,
        differing: Callable[[Stored, Stored], Failure | None],
    ) -> list[Stored]:
        """Makes the rows durable, and the bytes by copy; gives back those that are new.

        One whose document is available already is left out, or else refused with what `differing` says of it and the one that is there.
        CopyGone where a row names a copy in `contents` neither nor of its own, which no available row names any more.
        """
        shared = {row.copy for row in rows if row.copy != row.key}

        def work(connection: Connection) -> list[Stored]:
            present = _rows(connection, _BY_UNIQUE_ID, [row.document_unique_id for row in rows])
            known = {row.document_unique_id: row for row in present if row.state is State.AVAILABLE}
            pairs = [(row, known[row.document_unique_id]) for row in rows if row.document_unique_id in known]
            refusals = [refusal for pair in pairs if (refusal := differing(*pair)) is not None]
            if refusals:
                raise Failure([problem for refusal in refusals for problem in refusal.problems])
            if shared - {copy for (copy,) in _some(connection, _AVAILABLE_OF_COPY, shared)}:
                raise CopyGone
            new = [row for row in rows if row.document_unique_id not in known]
            connection.run_many(_INSERT, [{**asdict(row), "state": row.state.value} for row in new])
            kept = [{"copy": row.copy, "content": contents[row.copy]} for row in new if row.copy in contents]
            connection.run_many(_INSERT_CONTENT, kept)
            return new

        return self._write(work, unique_ids=[row.document_unique_id for row in rows], copies=shared)

    def commit(self, keys: Collection[str], unique_ids: Collection[str]) -> list[str]:
        """Makes the rows available. One whose document is available already stays, and comes back where that one has the same bytes."""

        def work(connection: Connection) -> list[str]:
            if sum(connection.run(_COMMIT, {"values": chunk}) for chunk in chunks(keys)) == len(keys):
                return []
            return [key for (key,) in _some(connection, _SPARE, keys)]

        # What is forgotten of this, the sweep finds out again.
        return self._write(work, unique_ids=unique_ids, durable=False)

    def quarantine(self, keys: Collection[str]) -> None:
        """Gives out none of these rows any more, but for those that are available."""

        def work(connection: Connection) -> None:
            for chunk in chunks(keys):
                connection.run(_MARK, {"values": chunk, "new_state": State.QUARANTINED.value})

        self._write(work)

    def remove(self, document_unique_ids: Collection[str]) -> list[str]:
        """Marks the available rows of these documents as removed: their keys. None is where one of the documents has none."""

        def work(connection: Connection) -> list[str]:
            rows = _rows(connection, _BY_UNIQUE_ID, document_unique_ids)
            going = {row.document_unique_id: row.key for row in rows if row.state is State.AVAILABLE}
            if len(going) < len(set(document_unique_ids)):
                return []
            for chunk in chunks(going.values()):
                connection.run(_REMOVE, {"values": chunk})
            return list(going.values())

        return self._write(work, unique_ids=document_unique_ids)

    def let_go(self, keys: Collection[str]) -> list[Stored]:
        """Lets these rows go, but for those that are available, and what they have in the catalogue with them.

        Those come back whose copies are elsewhere and nobody else's: they are marked as removed, and stay until `delete`.
        """
        copies = {row.copy for row in self._all(_BY_KEY, keys)}

        def work(connection: Connection) -> list[Stored]:
            rows = [row for row in _rows(connection, _BY_KEY, keys) if row.state is not State.AVAILABLE]
            leaving = {row.key for row in rows}
            needed = {copy for key, copy in _some(connection, _ALL_OF_COPY, copies) if key not in leaving}
            last = [row for row in rows if row.copy not in needed]
            outside = [row for row in last if row.place != CATALOGUE]
            for chunk in chunks(row.copy for row in last if row.place == CATALOGUE):
                connection.run(_DELETE_CONTENT, {"values": chunk})
            for chunk in chunks(leaving - {row.key for row in outside}):
                connection.run(_DELETE, {"values": chunk})
            for chunk in chunks(row.key for row in outside):
                connection.run(_MARK, {"values": chunk, "new_state": State.REMOVED.value})
            return outside

        # What is forgotten of this, the sweep does again.
        return self._write(work, copies=copies, durable=False)

    def delete(self, keys: Collection[str]) -> None:
        """Deletes rows whose copies are gone."""

        def work(connection: Connection) -> None:
            for chunk in chunks(keys):
                connection.run(_DELETE, {"values": chunk})

        self._write(work, durable=False)

    def _write(
        self,
        work: Callable[[Connection], T],
        *,
        unique_ids: Iterable[str] = (),
        copies: Iterable[str] = (),
        durable: bool = True,
    ) -> T:
        keys = frozenset([*(f"document {one}" for one in unique_ids), *(f"copy {one}" for one in copies)])
        return self._writer.put(Job(footprint=_Keys(keys), work=work, durable=durable)).result()

    def _transact(self, group: Sequence[Job[_Keys, Any]]) -> list[tuple[Any, Failure | None]]:
        keys = [key for job in group for key in job.footprint.keys]
        results: list[tuple[Any, Failure | None]] = []
        with self.database.transaction(keys, durable=any(job.durable for job in group)) as connection:
            for job in group:
                try:
                    results.append((job.work(connection), None))
                except Failure as failure:
                    # Whatever refuses does so before it writes.
                    results.append((None, failure))
        return results


def _stored(row: Row) -> Stored:
    key, unique_id, size, sha1, sha256, mime_type, state, staged_at, place, copy = row
    return Stored(
        key=key,
        document_unique_id=unique_id,
        size=size,
        sha1=sha1,
        sha256=sha256,
        mime_type=mime_type,
        state=State(state),
        staged_at=staged_at,
        place=place,
        copy=copy,
    )


def _some(connection: Connection, statement: Any, values: Iterable[str]) -> Iterator[Row]:
    for chunk in chunks(values):
        yield from connection.rows(statement, {"values": chunk})


def _rows(connection: Connection, statement: Any, values: Iterable[str]) -> list[Stored]:
    return [_stored(row) for row in _some(connection, statement, values)]
