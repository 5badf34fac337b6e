"""What is handed over in a transaction: documents with their bytes, requests for them, and outcomes."""

from __future__ import annotations

import hashlib
import io
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from xds.problems import Problem, Severity, errors
from xds.vocabulary import ResponseStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Bytes of known size that can be read from the start as often as wanted; they are never required to be in memory.

    `size` in bytes; `sha1` 40 and `sha256` 64 lower-case hex digits, or "" where nobody has computed it.
    `path` names a file that the receiver may take over by renaming it; None where the bytes have no file of their own.
    """

    size: int
    sha1: str
    mime_type: str
    open: Callable[[], BinaryIO]
    path: Path | None = None
    sha256: str = ""

    @classmethod
    def of(cls, content: bytes, mime_type: str) -> Document:
        """A document whose bytes are in memory."""
        return cls(
            size=len(content),
            sha1=hashlib.sha1(content, usedforsecurity=False).hexdigest(),
            mime_type=mime_type,
            open=lambda: io.BytesIO(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )

    @classmethod
    def passing(cls, path: Path, *, size: int, sha1: str, mime_type: str, sha256: str = "") -> Document:
        """A document in a file that goes when nobody can open it any more."""

        def opened() -> BinaryIO:
            return path.open("rb")

        weakref.finalize(opened, path.unlink, missing_ok=True)
        return cls(size=size, sha1=sha1, mime_type=mime_type, open=opened, sha256=sha256)

    def measured(self) -> Document:
        """With its size and hashes, computed where nobody has done so."""
        if self.sha1 and self.sha256:
            return self
        sha1, sha256, size = hashlib.sha1(usedforsecurity=False), hashlib.sha256(), 0
        for chunk in self.chunks():
            sha1.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
        return replace(self, sha1=sha1.hexdigest(), sha256=sha256.hexdigest(), size=size)

    def chunks(self, chunk_bytes: int = 512 * 1024) -> Iterator[bytes]:
        """The bytes, in order, in pieces of at most `chunk_bytes`."""
        with self.open() as stream:
            while chunk := stream.read(chunk_bytes):
                yield chunk

    def read(self) -> bytes:
        """All the bytes at once: for small documents."""
        with self.open() as stream:
            return stream.read()


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentRequest:
    """One document asked for in ITI-43 or RAD-69 (ITI TF-2 3.43.4.1.2)."""

    repository_unique_id: str
    document_unique_id: str
    home_community_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieved:
    """One document given back: the request it answers, and its bytes. mimeType is `document.mime_type`."""

    request: DocumentRequest
    document: Document
    new_repository_unique_id: str | None = None
    new_document_unique_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRequest:
    """The instances of one series: DocumentUniqueId is the SOP Instance UID (RAD TF-2 4.69.4.1.2)."""

    series_instance_uid: str
    documents: tuple[DocumentRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest:
    study_instance_uid: str
    series: tuple[SeriesRequest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagingRequest:
    """RetrieveImagingDocumentSetRequest. The transfer syntaxes are in the order of the requester's preference."""

    studies: tuple[StudyRequest, ...]
    transfer_syntax_uids: tuple[str, ...]

    @property
    def documents(self) -> Iterator[tuple[StudyRequest, SeriesRequest, DocumentRequest]]:
        """Every requested instance with its study and series, in the order of the message."""
        for study in self.studies:
            for series in study.series:
                for document in series.documents:
                    yield study, series, document


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """rs:RegistryResponse: a status, and the problems in the order in which they were found."""

    status: ResponseStatus = ResponseStatus.SUCCESS
    problems: tuple[Problem, ...] = ()

    @classmethod
    def of(cls, problems: Iterable[Problem], *, results: int | None = None) -> Outcome:
        """The status that follows from the problems (ITI TF-3 4.2.4.2).

        `results` is the number of documents given back where a transaction knows PartialSuccess, else None.
        """
        problems = tuple(problems)
        if not any(problem.severity is Severity.ERROR for problem in problems):
            return cls(problems=problems)
        status = ResponseStatus.PARTIAL_SUCCESS if results else ResponseStatus.FAILURE
        return cls(status=status, problems=problems)

    @property
    def succeeded(self) -> bool:
        return self.status is ResponseStatus.SUCCESS

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the errors, each once."""
        return tuple(dict.fromkeys(problem.code for problem in errors(self.problems)))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """query:AdhocQueryResponse. `fragments` are complete ebRIM elements as text, with the prefix `rim:` undeclared.

    A registry renders an object once, when it is registered; a response is the concatenation of what was kept.
    `schemas.rim.decode_fragments` makes domain objects of them.
    """

    outcome: Outcome = field(default_factory=Outcome)
    fragments: Iterable[str] = ()
