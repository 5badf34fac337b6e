"""A PACS behind this source: what is asked of it, whatever protocol it speaks. Nothing of it is stored here.

An instance is fetched into a file, which goes when nobody has it any more. What an archive answers is as hostile as any message.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from pydicom.dataset import Dataset

from imaging.dicom_json import Json
from imaging.instances import Instance, InstanceError, read_header, row_of
from xds.messages import Document

Level = Literal["study", "series", "instance"]
LEVELS: tuple[Level, ...] = ("study", "series", "instance")
UID_KEYWORDS = {"study": "StudyInstanceUID", "series": "SeriesInstanceUID", "instance": "SOPInstanceUID"}
UID_TAGS = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}


class ArchiveError(OSError):
    """The archive did not answer, or not with what it should have; the text is for the log and names the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archived(Instance):
    """An instance of which the header alone has been asked for."""

    described: Dataset

    def header(self) -> Dataset:
        """As the archive told it."""
        return self.described


class Held:
    """A file that goes when nobody holds this any more."""

    def __init__(self, path: Path) -> None:
        weakref.finalize(self, path.unlink, missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched(Instance):
    """An instance that has come from the archive. Its file is there as long as somebody has the instance, or its document."""

    held: Held

    @property
    def document(self) -> Document:
        """The file as it came."""
        path, held = self.path, self.held

        def opened(_: Held = held) -> BinaryIO:
            return path.open("rb")

        return Document(size=self.size, sha1=self.sha1, mime_type="application/dicom", open=opened)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is looked for: values by keyword, as QIDO-RS has them; `RequestAttributesSequence.` goes before what is of its items.

    `most` matches are enough. `fuzzy`: names need only sound or begin alike, where the archive knows how.
    """

    level: Level
    keys: Mapping[str, str]
    most: int
    fuzzy: bool = False


@dataclass(frozen=True, slots=True)
class Matches:
    """Each match has the UIDs of its level and of those above.

    `literal`: names were compared letter by letter, though asked otherwise. `passed_over`: keys by which nothing was compared.
    """

    found: Sequence[Json]
    literal: bool = False
    passed_over: Sequence[str] = ()


class Archive(Protocol):
    """The studies of a PACS. Every method may be called from several threads at once, and raises ArchiveError, or another OSError."""

    @property
    def batch(self) -> int:
        """How many instances of a series are best fetched together."""

    def fetch(self, study_uid: str, series_uid: str, uids: Sequence[str]) -> Mapping[str, Fetched | ArchiveError]:
        """Instances as the archive has them, by SOP Instance UID. Those that it does not have in this series are left out."""

    def of_study(self, study_uid: str) -> list[Instance]:
        """The instances of a study by series and instance number, each with its header and without a file; none where it has none."""

    def search(self, search: Search) -> Matches:
        """The matches in the archive's own order, the first `search.most` of them."""


def taken(path: Path, *, size: int, sha1: str, wanted: tuple[str, str, str], origin: str) -> Fetched:
    """The instance in a file that came from `origin`, if it is the one that was `wanted` (study, series, instance); else the file goes.

    ArchiveError.
    """
    held = Held(path)
    try:
        found = Fetched(**row_of(read_header(path), size=size, sha1=sha1), path=path, held=held)
        # What an archive has under these UIDs need not be what it sends.
        if (found.study_instance_uid, found.series_instance_uid, found.sop_instance_uid) != wanted:
            raise InstanceError(f"another instance came, {found.sop_instance_uid}")
    except InstanceError as error:
        path.unlink(missing_ok=True)
        raise ArchiveError(f"{origin}: instance {wanted[2]}: {error}") from error
    return found


def text(match: Json, tag: str) -> str:
    """The first value of an attribute of a match; "" for none, or for one that is no text or number."""
    values = match.get(tag, {}).get("Value") or [""]
    return str(values[0]) if isinstance(values[0], str | int) else ""
