"""The content store: bytes in files under names of its own, and a catalogue in SQL of what they are.

A submission is *staged* (every byte durable, every row `pending`), then *committed*, *discarded* or *quarantined* with the verdict of
the registry. The row is written before the file and deleted after it, so that no file is without a row.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Engine, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from repository.tables import State, stored_document
from xds.messages import Document
from xds.problems import ErrorCode, Failure, Problem, fail
from xds.values import UniqueId

_log = logging.getLogger("xdsi.repository")
_MEBIBYTE = 1024 * 1024
_row = stored_document.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The documents of one submission that were not there before: their names in the store."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One row of the catalogue: a document's name in the store, and what is known of it. `staged_at` in seconds since 1970."""

    key: str
    document_unique_id: str
    size: int
    sha1: str
    mime_type: str
    state: State
    staged_at: int


class Documents:
    """Documents by uniqueId. Every method may be called from several threads and processes at once."""

    def __init__(self, engine: Engine, directory: Path, *, now: Callable[[], float] = time.time) -> None:
        """`engine` has the tables of repository.schema; `directory` is the store's alone, on one file system."""
        self.staging = directory / "staging"
        self._content = directory / "content"
        self._engine = engine
        self._now = now
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.staging, self._content):
            _make_directory(path)

    def stage(self, documents: Mapping[str, Document]) -> Staged:
        """Make the documents, keyed by uniqueId, durable; when this returns, `get` gives them already.

        Of each, `size` and `sha1` are known. A file at `path` is taken over. Of a document that is there with the same bytes, the
        stored ones are kept. Failure (XDSNonIdenticalHash, XDSNonIdenticalSize) for each that is there with other bytes.
        Whatever is raised, nothing has been stored.
        """
        present = {
            stored.document_unique_id: stored
            for stored in self._stored(_row.document_unique_id.in_(documents), _row.state == State.AVAILABLE)
        }
        problems = [problem for uid in present for problem in _differences(uid, documents[uid], present[uid])]
        if problems:
            raise Failure(problems)
        # The documents of one submission share a directory, so that one fsync makes all their names durable.
        directory = secrets.token_hex(2)
        new = {
            directory + secrets.token_hex(14): (uid, document)
            for uid, document in documents.items()
            if uid not in present
        }
        staged = Staged(keys=tuple(new))
        if not new:
            return staged
        try:
            self._insert(new)
            parent = self._path(staged.keys[0]).parent
            _make_directory(parent.parent)
            _make_directory(parent)
            for key, (_, document) in new.items():
                self._place(document, key)
            _fsync(parent)
        except BaseException:
            self.discard(staged)
            raise
        return staged

    def commit(self, staged: Staged) -> None:
        """The registry has registered them. Never raises: what can not be marked now is given out all the same and left to the sweep."""
        with _left_to_the_sweep("commit", staged):
            twin = stored_document.alias("twin")
            twins = select(twin.c.key).where(
                twin.c.document_unique_id == _row.document_unique_id, twin.c.state == State.AVAILABLE
            )
            same = twins.where(twin.c.sha1 == _row.sha1, twin.c.size == _row.size)
            with self._engine.begin() as connection:
                chosen = _row.key.in_(staged.keys)
                connection.execute(update(stored_document).where(chosen, ~twins.exists()).values(state=State.AVAILABLE))
                unchanged = chosen & (_row.state != State.AVAILABLE)
                spare = connection.scalars(select(_row.key).where(unchanged, same.exists())).all()
            # Two submissions brought the same document at the same time: one copy is enough. If the bytes differed, the registry
            # should have refused one (ITI TF-3 4.2.4.1), and both are kept.
            if spare:
                self.discard(Staged(keys=tuple(spare)))

    def discard(self, staged: Staged) -> None:
        """The registry has refused them: the bytes go. Never raises: what can not be removed now is left to the sweep."""
        with _left_to_the_sweep("discard", staged):
            for key in staged.keys:
                self._path(key).unlink(missing_ok=True)
            with self._engine.begin() as connection:
                connection.execute(delete(stored_document).where(_row.key.in_(staged.keys)))

    def quarantine(self, staged: Staged) -> None:
        """The source is told of a failure, but the registry may have registered them: they are kept, and not given out."""
        with _left_to_the_sweep("quarantine", staged), self._engine.begin() as connection:
            chosen = _row.key.in_(staged.keys)
            connection.execute(update(stored_document).where(chosen).values(state=State.QUARANTINED))

    def states(self, document_unique_ids: Iterable[str]) -> dict[str, list[Stored]]:
        """What the catalogue has of each document but those that have been removed; nothing for one that is not there."""
        found: dict[str, list[Stored]] = {}
        for some in _slices(list(document_unique_ids)):
            for one in self._stored(_row.document_unique_id.in_(some), _row.state != State.REMOVED):
                found.setdefault(one.document_unique_id, []).append(one)
        return found

    def remove(self, document_unique_ids: Iterable[str]) -> None:
        """From now on `get` knows none of these documents, and their bytes go; what can not be removed now is left to the sweep.

        Failure (XDSDocumentUniqueIdError) naming each that is not available, and then all stay.
        """
        wanted = list(dict.fromkeys(document_unique_ids))
        removed: dict[str, str] = {}
        with self._engine.begin() as connection:
            for some in _slices(wanted):
                chosen = _row.document_unique_id.in_(some) & (_row.state == State.AVAILABLE)
                gone = update(stored_document).where(chosen).values(state=State.REMOVED)
                rows = connection.execute(gone.returning(_row.key, _row.document_unique_id))
                removed |= {row.key: row.document_unique_id for row in rows}
            # Somebody else may have been quicker.
            if missing := set(wanted) - set(removed.values()):
                raise Failure([_not_here(one) for one in wanted if one in missing])
        self.discard(Staged(keys=tuple(removed)))

    def get(self, document_unique_id: str, *, max_memory_bytes: int = _MEBIBYTE) -> Document | None:
        """The document, checked against its size and SHA-1 before a byte is given; None where there is none.

        Up to `max_memory_bytes` it is read once and given from memory, a larger one is read for the check and then streamed.
        Failure (XDSRepositoryError, location the uniqueId) where the bytes are damaged or gone.
        """
        if UniqueId(document_unique_id).fault:
            return None
        row = self._current(document_unique_id)
        if row is None:
            return None
        try:
            return self._checked(row, max_memory_bytes)
        except FileNotFoundError:
            if row.state is State.PENDING:
                # A row is there before its file and after it: the document is being staged, or its twin has just been committed.
                now = self._current(document_unique_id)
                same = now is None or now.key == row.key
                return None if same else self.get(document_unique_id, max_memory_bytes=max_memory_bytes)
            damage = "its file is missing"
        except _DamagedError as error:
            damage = str(error)
        except OSError as error:
            damage = f"its file can not be read ({errno.errorcode.get(error.errno or 0, 'unknown error')})"
        _log.error("document %s: %s", row.key, damage)
        raise fail(
            ErrorCode.REPOSITORY_ERROR,
            f"document {document_unique_id}: {damage}; it is not given out",
            location=document_unique_id,
        )

    def unsettled(self) -> list[Stored]:
        """What waits for the sweep, oldest first. Submissions that are being registered right now are among it."""
        return self._stored(_row.state != State.AVAILABLE)

    def has_bytes(self, stored: Stored) -> bool:
        """Whether it was staged to its end: the row of one that was cut off in the middle may have no file."""
        return self._path(stored.key).exists()

    def clear_staging(self, *, before: float) -> int:
        """Remove the files in `staging` last written before that time (seconds since 1970): of messages nobody finished."""
        removed = 0
        for path in self.staging.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
        return removed

    def _path(self, key: str) -> Path:
        return self._content / key[:2] / key[2:4] / key

    def _insert(self, documents: Mapping[str, tuple[str, Document]]) -> None:
        """A pending row for each, by key."""
        rows = [
            {
                "key": key,
                "document_unique_id": document_unique_id,
                "size": document.size,
                "sha1": document.sha1,
                "mime_type": document.mime_type,
                "state": State.PENDING,
                "staged_at": int(self._now()),
            }
            for key, (document_unique_id, document) in documents.items()
        ]
        with self._engine.begin() as connection:
            connection.execute(insert(stored_document), rows)

    def _stored(self, *conditions: ColumnElement[bool]) -> list[Stored]:
        statement = select(stored_document).where(*conditions).order_by(_row.staged_at)
        with self._engine.connect() as connection:
            return [
                Stored(
                    key=row.key,
                    document_unique_id=row.document_unique_id,
                    size=row.size,
                    sha1=row.sha1,
                    mime_type=row.mime_type,
                    state=State(row.state),
                    staged_at=row.staged_at,
                )
                for row in connection.execute(statement)
            ]

    def _current(self, document_unique_id: str) -> Stored | None:
        """What is given out: the available row, else the pending one, because it may be registered before we hear of it."""
        given = _row.state.in_((State.AVAILABLE, State.PENDING))
        rows = self._stored(_row.document_unique_id == document_unique_id, given)
        available = next((row for row in rows if row.state is State.AVAILABLE), None)
        if available is not None:
            return available
        # Of two that differ the registry will refuse one, and nobody can say yet which.
        return rows[0] if len({(row.size, row.sha1) for row in rows}) == 1 else None

    def _checked(self, row: Stored, max_memory_bytes: int) -> Document:
        path = self._path(row.key)
        size = path.stat().st_size
        if size != row.size:
            raise _DamagedError(f"its file holds {size} bytes, not {row.size}")
        if size <= max_memory_bytes:
            document = Document.of(path.read_bytes(), row.mime_type)
            sha1, size = document.sha1, document.size
        else:
            with path.open("rb") as stream:
                sha1 = hashlib.file_digest(stream, "sha1").hexdigest()
            # Without `path`: nobody may take the stored file over.
            document = Document(size=size, sha1=sha1, mime_type=row.mime_type, open=lambda: path.open("rb"))
        if (size, sha1) != (row.size, row.sha1):
            raise _DamagedError(f"its file has the SHA-1 {sha1}, not {row.sha1}")
        return document

    def _place(self, document: Document, key: str) -> None:
        """Put the bytes under their final name, whole and synced; the name itself is durable when the directory is synced."""
        target = self._path(key)
        if document.path is not None:
            if document.path.stat().st_size != document.size:
                raise _changed(document)
            _fsync(document.path)
            try:
                document.path.rename(target)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        copy = self.staging / key
        try:
            _copy(document, copy)
            copy.rename(target)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise


def _slices(ids: list[str]) -> Iterator[list[str]]:
    """In lists that one statement can take."""
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


def _not_here(document_unique_id: str) -> Problem:
    return Problem(
        code=ErrorCode.DOCUMENT_UNIQUE_ID_ERROR,
        context=f"document {document_unique_id} is not in this repository",
        location=document_unique_id,
    )


class _DamagedError(Exception):
    """What is wrong with a stored file, as the end of a sentence."""


def _differences(document_unique_id: str, document: Document, row: Stored) -> Iterator[Problem]:
    # A uniqueId may come again, but only with the same bytes (ITI TF-3 4.2.4.1).
    if document.sha1 != row.sha1:
        yield Problem(
            code=ErrorCode.NON_IDENTICAL_HASH,
            context=f"document {document_unique_id} is stored with the hash {row.sha1}, and came with {document.sha1}",
        )
    elif document.size != row.size:
        yield Problem(
            code=ErrorCode.NON_IDENTICAL_SIZE,
            context=f"document {document_unique_id} is stored with {row.size} bytes, and came with {document.size}",
        )


def _changed(document: Document) -> Failure:
    return fail(
        ErrorCode.REPOSITORY_ERROR,
        f"a document of {document.size} bytes, SHA-1 {document.sha1}, changed while it was being stored",
    )


def _copy(document: Document, target: Path) -> None:
    """The bytes into a new file, synced; Failure where they are not those of the document's size and hash."""
    digest, size = hashlib.sha1(usedforsecurity=False), 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        for chunk in document.chunks():
            stream.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    if (size, digest.hexdigest()) != (document.size, document.sha1):
        raise _changed(document)


def _make_directory(path: Path) -> None:
    """A directory whose name is durable."""
    if not path.is_dir():
        path.mkdir(mode=0o700, exist_ok=True)
        _fsync(path.parent)


def _fsync(path: Path) -> None:
    """Wait until a file's bytes, or a directory's names, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _left_to_the_sweep(what: str, staged: Staged) -> Iterator[None]:
    """The registry has spoken: a fault of ours can not change its verdict any more, only delay the tidying."""
    try:
        yield
    except (OSError, SQLAlchemyError):
        _log.exception("%s of %d documents is left to the sweep: %s", what, len(staged.keys), ", ".join(staged.keys))
