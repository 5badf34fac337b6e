"""Copies of documents as files, in directories of two hundred and fifty-six each."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from xds.messages import Document
from xds.problems import ErrorCode, Failure, fail

_CHUNK_BYTES = 1024 * 1024


class Place(Protocol):
    """Where copies of documents are kept, each under a name of 32 hex digits that is never used again.

    What fails raises OSError. Every method may be called from several threads and processes at once.
    """

    name: str

    def put(self, documents: Mapping[str, Document]) -> None:
        """Keeps the bytes; they are durable when this returns. A file that a document has may be taken over.

        Failure where a document's bytes are not those of its size and hash. What has been kept when this raises is for `remove`.
        """

    def remove(self, names: Collection[str]) -> None:
        """Removes what there is of these, for good when this returns."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes in their order. FileNotFoundError where there is no such copy."""

    def has(self, name: str) -> bool:
        """Whether there is such a copy, with whatever bytes."""

    def names(self) -> Iterator[str]:
        """Every copy that is there."""

    def path(self, name: str) -> Path | None:
        """The file of a copy, which may be opened and not changed; None where it has none."""


class Files:
    """Copies as files below `directory`. What is received in `staging` is taken over by renaming it."""

    name = "files"

    def __init__(self, directory: Path, staging: Path) -> None:
        self._directory, self._staging = directory, staging
        _make_directory(directory)

    def put(self, documents: Mapping[str, Document]) -> None:
        """As `Place.put`. Names that begin alike share a directory, so that one sync makes all of them durable."""
        parents = {self.path(name).parent for name in documents}
        for parent in parents:
            _make_directory(parent.parent)
            _make_directory(parent)
        for name, document in documents.items():
            self._put(document, name)
        for parent in parents:
            _fsync(parent)

    def remove(self, names: Collection[str]) -> None:
        parents = set()
        for name in names:
            path = self.path(name)
            try:
                path.unlink()
            except FileNotFoundError:
                # Perhaps it was unlinked before a crash, and the power could still bring it back.
                if not path.parent.exists():
                    continue
            parents.add(path.parent)
        for parent in parents:
            _fsync(parent)

    def chunks(self, name: str) -> Iterator[bytes]:
        with self.path(name).open("rb", buffering=0) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def names(self) -> Iterator[str]:
        for first in sorted(self._directory.iterdir()):
            for second in sorted(first.iterdir()):
                yield from sorted(path.name for path in second.iterdir())

    def path(self, name: str) -> Path:
        return self._directory / name[:2] / name[2:4] / name

    def _put(self, document: Document, name: str) -> None:
        """Put the bytes under their final name, whole and synced; the name itself is durable when the directory is synced."""
        target = self.path(name)
        if document.path is not None:
            if document.path.stat().st_size != document.size:
                raise changed(document)
            _fsync(document.path)
            try:
                document.path.rename(target)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        copy = self._staging / name
        try:
            _copy(document, copy)
            copy.rename(target)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise


def changed(document: Document) -> Failure:
    """A document's bytes are not those that were received."""
    return fail(
        ErrorCode.REPOSITORY_ERROR,
        f"a document of {document.size} bytes, SHA-1 {document.sha1}, changed while it was being stored",
    )


def checked(document: Document) -> Iterator[bytes]:
    """The document's bytes. Failure at their end where they are not those of its size and SHA-256."""
    digest, size = sha256(), 0
    for chunk in document.chunks():
        digest.update(chunk)
        size += len(chunk)
        yield chunk
    if (size, digest.hexdigest()) != (document.size, document.sha256):
        raise changed(document)


def _copy(document: Document, target: Path) -> None:
    """The bytes into a new file, synced."""
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        for chunk in checked(document):
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())


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
