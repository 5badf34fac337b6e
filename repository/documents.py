"""The content store: documents by their uniqueId, of which the catalogue knows what they are and a place has the bytes.

A submission is *staged* (every byte durable, every row `pending`), then *committed*, *discarded* or *quarantined* with the verdict of
the registry. The row is written before its copy and deleted after it, so that no copy is without a row. Small documents are in the
catalogue itself: row and bytes are durable with one sync, which many submissions share.

The same bytes are stored once: a document shares the copy of one that is available and has the same SHA-256, after that copy has been read
and found whole.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha1, sha256
from pathlib import Path

from sqlalchemy import Engine

from repository.catalogue import CATALOGUE, Catalogue, CopyGone, Stored
from repository.files import Files, Place, changed, checked
from repository.tables import State
from xds.messages import Document
from xds.problems import ErrorCode, Failure, Problem, fail
from xds.values import UniqueId

_log = logging.getLogger("xdsi.repository")
_MEBIBYTE = 1024 * 1024
#: So many bytes of one submission may go to the catalogue, for they are in memory together.
_MAX_SMALL_BYTES = 8 * _MEBIBYTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """The documents of one submission that were not there before: their names in the store, and their uniqueIds."""

    keys: tuple[str, ...]
    unique_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, rows: Iterable[Stored]) -> Staged:
        rows = list(rows)
        return cls(keys=tuple(row.key for row in rows), unique_ids=tuple(row.document_unique_id for row in rows))


class Documents:
    """Documents by uniqueId. Every method may be called from several threads and processes at once."""

    def __init__(
        self,
        engine: Engine,
        directory: Path,
        *,
        now: Callable[[], float] = time.time,
        place: Place | None = None,
        in_catalogue_bytes: int = 64 * 1024,
        damaged: Callable[[], None] = lambda: None,
    ) -> None:
        """`engine` has the tables of repository.schema; `directory` is the store's alone, on one file system.

        Documents of more than `in_catalogue_bytes` go to `place`; without one to files below `directory`. `damaged` is told of each
        document that was found to be so.
        """
        self.catalogue = Catalogue(engine)
        self.staging = directory / "staging"
        self._now, self._in_catalogue_bytes, self._damaged = now, in_catalogue_bytes, damaged
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.staging.mkdir(mode=0o700, exist_ok=True)
        files = Files(directory / "content", self.staging)
        self._place: Place = place or files
        #: Whatever was configured before: what is in files stays there.
        self.places: dict[str, Place] = {files.name: files, self._place.name: self._place}

    def close(self) -> None:
        """Finishes what waits to be written, and closes the connections."""
        self.catalogue.close()

    def stage(self, documents: Mapping[str, Document]) -> Staged:
        """Make the documents, keyed by uniqueId, durable; when this returns, `get` gives them already.

        Of each, `size` and `sha1` are known. A file at `path` is taken over. Of a document that is there with the same bytes, the
        stored ones are kept. Failure (XDSNonIdenticalHash, XDSNonIdenticalSize) for each that is there with other bytes.
        Whatever is raised, nothing has been stored.
        """
        whole = {unique_id: _measured(document) for unique_id, document in documents.items()}
        try:
            return self._stage(whole, self._copies(whole.values()))
        except CopyGone:
            # Somebody has removed the other document in the meantime.
            return self._stage(whole, {})

    def _stage(self, documents: Mapping[str, Document], copies: Mapping[str, Stored]) -> Staged:
        """As `stage`. `copies` are rows whose copies may be shared, by SHA-256."""
        # The copies of one submission share a directory, so that one sync makes all their names durable.
        directory = secrets.token_hex(2)
        rows: list[Stored] = []
        small: dict[str, bytes] = {}
        large: dict[str, Document] = {}
        free_bytes = _MAX_SMALL_BYTES
        for unique_id, document in documents.items():
            key = directory + secrets.token_hex(14)
            same = copies.get(document.sha256)
            if same is not None and same.size == document.size:
                place, copy = same.place, same.copy
            elif document.size <= min(self._in_catalogue_bytes, free_bytes):
                place, copy = CATALOGUE, key
                free_bytes -= document.size
                small[key] = b"".join(checked(document))
            else:
                place, copy = self._place.name, key
                large[key] = document
            rows.append(self._row(unique_id, document, key=key, place=place, copy=copy))
        new = self.catalogue.add(rows, small, differing=_differing)
        staged = Staged.of(new)
        brought = {row.copy: large[row.copy] for row in new if row.copy in large}
        if brought:
            try:
                self._place.put(brought)
            except BaseException:
                self.discard(staged)
                raise
        return staged

    def _row(self, unique_id: str, document: Document, *, key: str, place: str, copy: str) -> Stored:
        return Stored(
            key=key,
            document_unique_id=unique_id,
            size=document.size,
            sha1=document.sha1,
            sha256=document.sha256,
            mime_type=document.mime_type,
            state=State.PENDING,
            staged_at=int(self._now()),
            place=place,
            copy=copy,
        )

    def _copies(self, documents: Iterable[Document]) -> dict[str, Stored]:
        """Rows whose copies may be shared by these documents, by SHA-256: each was read just now, and is whole."""
        found: dict[str, Stored] = {}
        for row in self.catalogue.of_sha256(document.sha256 for document in documents):
            if row.sha256 is not None and row.sha256 not in found and self.fault_of(row) is None:
                found[row.sha256] = row
        return found

    def commit(self, staged: Staged) -> None:
        """The registry has registered them. Never raises: what can not be marked now is given out all the same and left to the sweep."""
        if not staged.keys:
            return
        with _left_to_the_sweep("commit", staged.keys):
            # Two submissions brought the same document at the same time: one is enough. If the bytes differed, the registry
            # should have refused one (ITI TF-3 4.2.4.1), and both are kept.
            self._let_go(self.catalogue.commit(staged.keys, staged.unique_ids))

    def discard(self, staged: Staged) -> None:
        """The registry has refused them: the bytes go. Never raises: what can not be removed now is left to the sweep."""
        with _left_to_the_sweep("discard", staged.keys):
            self._let_go(staged.keys)

    def _let_go(self, keys: Collection[str]) -> None:
        """Rows that are not available go, and those of their copies that nobody shares."""
        if not keys:
            return
        last = self.catalogue.let_go(keys)
        for name, place in self.places.items():
            if copies := [row.copy for row in last if row.place == name]:
                place.remove(copies)
        self.catalogue.delete([row.key for row in last if row.place in self.places])

    def quarantine(self, staged: Staged) -> None:
        """The source is told of a failure, but the registry may have registered them: they are kept, and not given out."""
        with _left_to_the_sweep("quarantine", staged.keys):
            self.catalogue.quarantine(staged.keys)

    def states(self, document_unique_ids: Iterable[str]) -> dict[str, list[Stored]]:
        """What the catalogue has of each document but those that have been removed; nothing for one that is not there."""
        found: dict[str, list[Stored]] = {}
        for one in self.catalogue.of_unique_ids(document_unique_ids):
            if one.state is not State.REMOVED:
                found.setdefault(one.document_unique_id, []).append(one)
        return found

    def remove(self, document_unique_ids: Iterable[str]) -> None:
        """From now on `get` knows none of these documents, and their bytes go; what can not be removed now is left to the sweep.

        Failure (XDSDocumentUniqueIdError) naming each that is not available, and then all stay.
        """
        wanted = list(dict.fromkeys(document_unique_ids))
        keys = self.catalogue.remove(wanted)
        if wanted and not keys:
            # Somebody else may have been quicker.
            states = self.states(wanted)
            available = {one for one, rows in states.items() if any(row.state is State.AVAILABLE for row in rows)}
            raise Failure([_not_here(one) for one in wanted if one not in available])
        with _left_to_the_sweep("removal", keys):
            self._let_go(keys)

    def get(self, document_unique_id: str, *, max_memory_bytes: int = _MEBIBYTE) -> Document | None:
        """The document, checked against its size and hash before a byte is given; None where there is none.

        Up to `max_memory_bytes` it is read once and given from memory, a larger one is read for the check and then streamed.
        Failure (XDSRepositoryError, location the uniqueId) where the bytes are damaged or gone.
        """
        if UniqueId(document_unique_id).fault:
            return None
        found = self.catalogue.given(document_unique_id)
        while found:
            damage: _DamagedError | None = None
            try:
                document = self._first_whole(found, max_memory_bytes)
            except _DamagedError as error:
                document, damage = None, error
            if document is not None:
                return document
            # A row is there before its copy and after it: the document may have come or gone while we looked.
            now = self.catalogue.given(document_unique_id)
            if [row for row, _ in now] == [row for row, _ in found]:
                if damage is not None:
                    raise self._given_up(damage, document_unique_id) from damage
                return None
            found = now
        return None

    def _first_whole(self, found: Iterable[tuple[Stored, bytes | None]], max_memory_bytes: int) -> Document | None:
        """What is given out: the available row, else a pending one, because it may be registered before we hear of it."""
        pending = []
        for row, content in found:
            if row.state is State.AVAILABLE:
                return self._checked(row, content, max_memory_bytes)
            pending.append((row, content))
        if len({(row.size, row.sha1) for row, _ in pending}) > 1:
            # Of two that differ the registry will refuse one, and nobody can say yet which.
            return None
        for row, content in pending:
            # Of one that is being staged there may be no copy yet, or half of one.
            with suppress(_MissingError):
                return self._checked(row, content, max_memory_bytes)
        return None

    def _given_up(self, damage: _DamagedError, document_unique_id: str) -> Failure:
        _log.error("document %s: %s", damage.key, damage)
        self._damaged()
        return fail(
            ErrorCode.REPOSITORY_ERROR,
            f"document {document_unique_id}: {damage}; it is not given out",
            location=document_unique_id,
        )

    def unsettled(self) -> list[Stored]:
        """What waits for the sweep, oldest first. Submissions that are being registered right now are among it."""
        return self.catalogue.unsettled()

    def has_bytes(self, stored: Stored) -> bool:
        """Whether it was staged to its end: the row of one that was cut off in the middle may have no copy."""
        if stored.place == CATALOGUE:
            return self.catalogue.content(stored.copy) is not None
        return self._place_of(stored).has(stored.copy)

    def fault_of(self, stored: Stored) -> str | None:
        """What is wrong with its copy, which is read whole, as the end of a sentence; None where it is as it was stored."""
        content = self.catalogue.content(stored.copy) if stored.place == CATALOGUE else None
        try:
            for _ in self._verified(stored, content):
                pass
        except _DamagedError as damage:
            return str(damage)
        return None

    def staging_bytes(self) -> int:
        """How much is being received or fetched, or was left behind by messages that nobody finished."""
        total = 0
        for path in self.staging.iterdir():
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def clear_staging(self, *, before: float) -> int:
        """Remove the files in `staging` last written before that time (seconds since 1970): of messages nobody finished."""
        removed = 0
        for path in self.staging.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
        return removed

    def _place_of(self, stored: Stored) -> Place:
        place = self.places.get(stored.place)
        if place is None:
            raise OSError(errno.ENXIO, f"it is kept in {stored.place}, which is not configured")
        return place

    def _verified(self, row: Stored, content: bytes | None) -> Iterator[bytes]:
        """The bytes of its copy, which are `content` where the catalogue keeps it. _DamagedError at their end where they are others."""
        digest, size = (sha1(usedforsecurity=False) if row.sha256 is None else sha256()), 0
        try:
            for chunk in self._chunks(row, content):
                digest.update(chunk)
                size += len(chunk)
                yield chunk
        except FileNotFoundError:
            raise _MissingError("its bytes are missing", row.key) from None
        except OSError as error:
            _log.error("document %s cannot be read: %s", row.key, error)
            name = errno.errorcode.get(error.errno or 0, "unknown error")
            raise _DamagedError(f"its bytes can not be read ({name})", row.key) from error
        if size != row.size:
            raise _DamagedError(f"{size} bytes are kept of it, not {row.size}", row.key)
        if digest.hexdigest() != (row.sha256 or row.sha1):
            raise _DamagedError(f"its bytes have the SHA-{digest.name[3:]} {digest.hexdigest()}", row.key)

    def _chunks(self, row: Stored, content: bytes | None) -> Iterator[bytes]:
        if row.place != CATALOGUE:
            yield from self._place_of(row).chunks(row.copy)
        elif content is None:
            raise FileNotFoundError
        else:
            yield content

    def _checked(self, row: Stored, content: bytes | None, max_memory_bytes: int) -> Document:
        """The document of the row, whole."""
        made = Document(size=row.size, sha1=row.sha1, sha256=row.sha256 or "", mime_type=row.mime_type, open=io.BytesIO)
        if row.size <= max_memory_bytes:
            whole = b"".join(self._verified(row, content))
            return replace(made, open=lambda: io.BytesIO(whole))
        path = None if row.place == CATALOGUE else self._place_of(row).path(row.copy)
        if path is None:
            return self._fetched(row, content)
        for _ in self._verified(row, content):
            pass
        # Not as the `path` of the document: nobody may take the stored file over.
        return replace(made, open=lambda: path.open("rb"))

    def _fetched(self, row: Stored, content: bytes | None) -> Document:
        """The document in a file of its own."""
        path = self.staging / f"{secrets.token_hex(16)}.fetched"
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                for chunk in self._verified(row, content):
                    stream.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Document.passing(path, size=row.size, sha1=row.sha1, sha256=row.sha256 or "", mime_type=row.mime_type)


def _measured(document: Document) -> Document:
    """With its SHA-256. Failure where its bytes are not those of its size and SHA-1."""
    whole = document.measured()
    if (whole.sha1, whole.size) != (document.sha1, document.size):
        raise changed(document)
    return whole


def _not_here(document_unique_id: str) -> Problem:
    return Problem(
        code=ErrorCode.DOCUMENT_UNIQUE_ID_ERROR,
        context=f"document {document_unique_id} is not in this repository",
        location=document_unique_id,
    )


class _DamagedError(Exception):
    """What is wrong with the bytes of the row with the key, as the end of a sentence."""

    def __init__(self, damage: str, key: str) -> None:
        super().__init__(damage)
        self.key = key


class _MissingError(_DamagedError):
    """There are none."""


def _differing(brought: Stored, stored: Stored) -> Failure | None:
    """A uniqueId may come again, but only with the same bytes (ITI TF-3 4.2.4.1)."""
    document = f"document {stored.document_unique_id} is stored with"
    if brought.sha1 == stored.sha1 and stored.sha256 not in (None, brought.sha256):
        return fail(
            ErrorCode.NON_IDENTICAL_HASH,
            f"{document} the SHA-256 {stored.sha256}, and came with {brought.sha256}, whose SHA-1 is the same",
        )
    if brought.sha1 != stored.sha1:
        return fail(ErrorCode.NON_IDENTICAL_HASH, f"{document} the hash {stored.sha1}, and came with {brought.sha1}")
    if brought.size != stored.size:
        return fail(ErrorCode.NON_IDENTICAL_SIZE, f"{document} {stored.size} bytes, and came with {brought.size}")
    return None


@contextmanager
def _left_to_the_sweep(what: str, keys: Collection[str]) -> Iterator[None]:
    """The registry has spoken: a fault of ours can not change its verdict any more, only delay the tidying."""
    try:
        yield
    except Exception:
        _log.exception("%s of %d documents is left to the sweep: %s", what, len(keys), ", ".join(keys))
