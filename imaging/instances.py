"""The stored DICOM instances: files that are kept bit for bit, and an index of what they are."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from sqlalchemy import Engine, bindparam, delete, insert, select

from database.connections import Connection, Database, DatabaseLost, DatabaseUnreachable
from database.writing import Job, Writer
from imaging import index
from imaging.index import Described
from imaging.part10 import inflates_within, is_deflated, same_data_set
from imaging.tables import instance, undescribed
from xds.messages import Document
from xds.problems import Failure
from xds.values import is_oid

# What a modality wrote is kept and given back as it is, whatever limits of its VR it breaks: reading judges nothing.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_CHUNK_BYTES = 1024 * 1024
_CHUNK_UIDS = 500
#: An element longer than this, in bytes, is passed over when a header is read: nothing that is looked at is as long.
_MAX_HEADER_ELEMENT = 1024 * 1024
#: Of so many series it is remembered that they are described.
_MAX_SERIES = 10_000
#: Most bytes of a deflated data set.
_MAX_INFLATED = 512 * 1024 * 1024


class InstanceError(ValueError):
    """A file that cannot be stored, with the reason: it is no DICOM, lacks an identifier, or contradicts a stored instance."""


class DifferentInstance(InstanceError):
    """Another instance is stored under the same SOP Instance UID. `short` says so without UIDs."""

    def __init__(self, text: str, short: str) -> None:
        super().__init__(text)
        self.short = short


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One stored instance. `size` in bytes, of the whole Part-10 file; `path` is its file."""

    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    patient_id: str
    series_number: int
    instance_number: int
    size: int
    sha1: str
    path: Path

    @property
    def document(self) -> Document:
        """The file as it was stored."""
        path = self.path
        return Document(size=self.size, sha1=self.sha1, mime_type="application/dicom", open=lambda: path.open("rb"))

    def header(self) -> Dataset:
        """Its data set without pixel data. InstanceError or OSError where the file can not be read."""
        return read_header(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is stored of one study."""

    study_instance_uid: str
    patient_id: str
    modalities: tuple[str, ...]
    series: int
    instances: int
    size: int


@dataclass(frozen=True, slots=True)
class _Keeping:
    """What a job of the writer touches: the instance, the directory that its file was put into, and what describes it for searches."""

    sop_instance_uid: str
    directory: Path
    described: Described

    @property
    def keys(self) -> frozenset[str]:
        return frozenset([self.sop_instance_uid])


_COLUMNS = tuple(instance.columns)
_OF_UID = select(*_COLUMNS).where(instance.c.sop_instance_uid == bindparam("uid"))
_INSERT = insert(instance)
_DESCRIBED = delete(undescribed).where(undescribed.c.sop_instance_uid == bindparam("uid"))


class Instances:
    """The index and the files. Every method may be called from several threads at once.

    What is stored at the same time becomes durable together: one commit, and one sync of each directory.
    """

    def __init__(self, engine: Engine, directory: Path) -> None:
        """`engine` has the tables of imaging.schema; `directory` is the store's alone, on one file system."""
        self.staging = directory / "staging"
        self._content = directory / "content"
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._database = Database(engine)
        self._writer: Writer[_Keeping] = Writer("xdsi-imaging-writer", self._transact)
        #: Directories of the content whose own names are known to be on disk. The writer's alone.
        self._lasting: set[Path] = set()
        #: Study and series UIDs of series that are described, for good.
        self._series: set[tuple[str, str]] = set()
        for path in (directory, self.staging, self._content):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def reading(self) -> Engine:
        """The database, for statements that read the index, each by itself."""
        return self._reading

    def close(self) -> None:
        """Finishes what waits to be written, and closes the connections."""
        self._writer.close()
        self._database.dispose()

    def add(self, source: Path) -> tuple[Instance, bool]:
        """Stores a copy of a Part-10 file, durably; and whether it is new. The same data set may come again, and changes nothing.

        InstanceError for what is no DICOM instance, and for an instance whose SOP Instance UID is stored with another data set.
        """
        with source.open("rb") as stream:
            return self.add_stream(stream)

    def add_stream(self, stream: BinaryIO) -> tuple[Instance, bool]:
        """The same for what can be read of an open file."""
        part = self.staging / f"{secrets.token_hex(16)}.part"
        try:
            size, sha1 = _copy(stream, part)
            return self.take(part, read_header(part), size=size, sha1=sha1)
        finally:
            part.unlink(missing_ok=True)

    def add_bytes(self, content: bytes) -> tuple[Instance, bool]:
        """The same for a Part-10 file in memory."""
        part = self.staging / f"{secrets.token_hex(16)}.given"
        try:
            part.write_bytes(content)
            return self.add(part)
        finally:
            part.unlink(missing_ok=True)

    def take(self, part: Path, header: Dataset, *, size: int, sha1: str) -> tuple[Instance, bool]:
        """The same for a file below `staging` that nobody else changes: it is moved, and need not be on disk yet.

        `header` is what `read_header` says of it, `size` (bytes) and `sha1` are those of the whole file.
        """
        row = row_of(header, size=size, sha1=sha1)
        known = self._known(row, part)
        if known is not None:
            return known, False
        of_series = row["study_instance_uid"], row["series_instance_uid"]
        described = index.described(header, self._engine.dialect.name, series_is_known=of_series in self._series)
        key = secrets.token_hex(16)
        target = self._path(key)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part.rename(target)
        stored = False
        try:
            _fsync(target)
            stored = self._write({**row, "key": key}, described, target.parent)
            if stored:
                if len(self._series) >= _MAX_SERIES:
                    self._series.clear()
                self._series.add(of_series)
                return Instance(**row, path=target), True
            # Another thread has stored the same instance in the meantime.
            known = self._known(row, target)
            assert known is not None
            return known, False
        except DatabaseLost as error:
            # The row may be there, and then it needs the file.
            stored = not isinstance(error, DatabaseUnreachable)
            raise
        finally:
            if not stored:
                target.unlink()

    def _write(self, row: dict[str, Any], described: Described, directory: Path) -> bool:
        """Makes the row durable, and the name of its file; whether there was none of this instance."""

        def work(connection: Connection) -> bool:
            if connection.rows(_OF_UID, {"uid": row["sop_instance_uid"]}):
                return False
            connection.run(_INSERT, row)
            return True

        footprint = _Keeping(row["sop_instance_uid"], directory, described)
        return self._writer.put(Job(footprint=footprint, work=work)).result()

    def _transact(self, group: Sequence[Job[_Keeping, Any]]) -> list[tuple[Any, Failure | None]]:
        directories = {job.footprint.directory for job in group}
        for directory in chain(directories, [self._content] if directories - self._lasting else []):
            _fsync(directory)
        self._lasting |= directories
        keys = [key for job in group for key in job.footprint.keys]
        with self._database.transaction(keys) as connection:
            for statement, values in index.in_order(chain.from_iterable(job.footprint.described for job in group)):
                connection.run(statement, values)
            return [(job.work(connection), None) for job in group]

    def _known(self, row: dict[str, Any], file: Path) -> Instance | None:
        """The stored instance, if it has the same data set in the same encoding as the file."""
        found = self._database.rows(_OF_UID, {"uid": row["sop_instance_uid"]})
        if not found:
            return None
        known = self._instance({column.name: value for column, value in zip(_COLUMNS, found[0], strict=True)})
        if known.sha1 == row["sha1"]:
            return known
        uid, syntax = known.sop_instance_uid, row["transfer_syntax_uid"]
        if known.transfer_syntax_uid != syntax:
            raise DifferentInstance(
                f"SOP Instance {uid} is stored in another encoding:"
                f" transfer syntax {known.transfer_syntax_uid}, not {syntax}",
                "the SOP Instance UID is stored in another transfer syntax",
            )
        # The file meta information is the sender's, and may differ from one transmission to the next.
        if not same_data_set(known.path, file):
            raise DifferentInstance(
                f"SOP Instance {uid} is stored with other bytes in its data set"
                f" (SHA-1 of the file {known.sha1}, not {row['sha1']})",
                "the SOP Instance UID is stored with another data set",
            )
        return known

    def find(self, sop_instance_uids: Iterable[str]) -> dict[str, Instance]:
        """Stored instances by SOP Instance UID."""
        wanted = list(dict.fromkeys(sop_instance_uids))
        found: dict[str, Instance] = {}
        with self._reading.connect() as connection:
            for start in range(0, len(wanted), _CHUNK_UIDS):
                chosen = instance.c.sop_instance_uid.in_(wanted[start : start + _CHUNK_UIDS])
                for row in connection.execute(select(instance).where(chosen)):
                    found[row.sop_instance_uid] = self._instance(row._mapping)
        return found

    def of_study(self, study_instance_uid: str) -> list[Instance]:
        """The instances of a study, by series and instance number."""
        statement = select(instance).where(instance.c.study_instance_uid == study_instance_uid)
        ordered = statement.order_by(
            instance.c.series_number,
            instance.c.series_instance_uid,
            instance.c.instance_number,
            instance.c.sop_instance_uid,
        )
        with self._reading.connect() as connection:
            return [self._instance(row._mapping) for row in connection.execute(ordered)]

    def headers(self, instances: Sequence[Instance]) -> list[Dataset]:
        """The data sets of stored instances without pixel data."""
        return [one.header() for one in instances]

    def studies(self) -> list[Study]:
        """What is stored, study by study."""
        with self._reading.connect() as connection:
            uids = list(connection.execute(select(instance.c.study_instance_uid).distinct()).scalars())
        return [_summary(uid, self.of_study(uid)) for uid in sorted(uids)]

    def complete_index(self) -> None:
        """Describes the instances that were stored before there was an index of studies and series, from their files."""
        while missing := self._undescribed():
            found = self.find(missing)
            for uid in missing:
                described = (
                    [] if uid not in found else index.described(_header_or_row(found[uid]), self._engine.dialect.name)
                )
                with self._database.transaction([uid]) as connection:
                    for statement, values in described:
                        connection.run(statement, values)
                    connection.run(_DESCRIBED, {"uid": uid})

    def _undescribed(self) -> list[str]:
        with self._reading.connect() as connection:
            return list(connection.execute(select(undescribed.c.sop_instance_uid).limit(_CHUNK_UIDS)).scalars())

    def _instance(self, row: object) -> Instance:
        values = dict(row)  # type: ignore[call-overload]
        return Instance(path=self._path(values.pop("key")), **values)

    def _path(self, key: str) -> Path:
        return self._content / key[:2] / f"{key}.dcm"


def read_header(path: Path) -> Dataset:
    """A Part-10 file without its pixel data. InstanceError for what is none."""
    # It is inflated as a whole, whatever is read of it.
    if is_deflated(path) and not inflates_within(path, _MAX_INFLATED):
        raise InstanceError(f"it does not inflate to at most {_MAX_INFLATED} bytes")
    try:
        with path.open("rb") as stream:
            return pydicom.dcmread(stream, stop_before_pixels=True, defer_size=_MAX_HEADER_ELEMENT)
    except InvalidDicomError:
        raise InstanceError("it is no DICOM file (no DICM prefix after 128 bytes)") from None
    except Exception as error:
        # pydicom says what it could not read in many kinds of exceptions.
        raise InstanceError(f"it cannot be read as DICOM: {type(error).__name__}") from None


def _header_or_row(stored: Instance) -> Dataset:
    """The header of a stored instance; what its row knows, where its file is lost or damaged."""
    try:
        header = read_header(stored.path)
        if header.get("SOPInstanceUID") == stored.sop_instance_uid:
            return header
    except (InstanceError, OSError):
        pass
    header = Dataset()
    header.SOPInstanceUID, header.SOPClassUID = stored.sop_instance_uid, stored.sop_class_uid
    header.StudyInstanceUID, header.SeriesInstanceUID = stored.study_instance_uid, stored.series_instance_uid
    header.Modality, header.PatientID = stored.modality, stored.patient_id
    header.SeriesNumber, header.InstanceNumber = stored.series_number, stored.instance_number
    return header


def row_of(header: Dataset, *, size: int, sha1: str) -> dict[str, Any]:
    def uid(keyword: str) -> str:
        value = str(header.get(keyword, "") or "").strip()
        if not is_oid(value):
            raise InstanceError(f"{keyword} {value[:80]!r} is no UID" if value else f"{keyword} is missing")
        return value

    def number(keyword: str) -> int:
        try:
            return max(-(2**31), min(2**31 - 1, int(header.get(keyword) or 0)))
        except (TypeError, ValueError):
            return 0

    meta = getattr(header, "file_meta", Dataset())
    return {
        "sop_instance_uid": uid("SOPInstanceUID"),
        "study_instance_uid": uid("StudyInstanceUID"),
        "series_instance_uid": uid("SeriesInstanceUID"),
        "sop_class_uid": uid("SOPClassUID"),
        "transfer_syntax_uid": str(meta.get("TransferSyntaxUID", "1.2.840.10008.1.2")),
        "modality": str(header.get("Modality", "") or "")[:16],
        "patient_id": str(header.get("PatientID", "") or "")[:64],
        "series_number": number("SeriesNumber"),
        "instance_number": number("InstanceNumber"),
        "size": size,
        "sha1": sha1,
    }


def _summary(uid: str, instances: Sequence[Instance]) -> Study:
    return Study(
        study_instance_uid=uid,
        patient_id=next((one.patient_id for one in instances if one.patient_id), ""),
        modalities=tuple(dict.fromkeys(one.modality for one in instances)),
        series=len({one.series_instance_uid for one in instances}),
        instances=len(instances),
        size=sum(one.size for one in instances),
    )


def _copy(stream: BinaryIO, target: Path) -> tuple[int, str]:
    """Size and SHA-1 of what was copied."""
    digest, size = hashlib.sha1(usedforsecurity=False), 0
    with target.open("xb") as file:
        for chunk in _chunks(stream):
            digest.update(chunk)
            file.write(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _fsync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
