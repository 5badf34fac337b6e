"""The stored DICOM instances: files that are kept bit for bit, and an index of what they are."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError

from imaging import index
from imaging.tables import instance
from xds.messages import Document
from xds.values import is_oid

# What a modality wrote is kept and given back as it is, whatever limits of its VR it breaks: reading judges nothing.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_CHUNK_BYTES = 1024 * 1024
_CHUNK_UIDS = 500


class InstanceError(ValueError):
    """A file that cannot be stored, with the reason: it is no DICOM, lacks an identifier, or contradicts a stored instance."""


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


class Instances:
    """The index and the files. Every method may be called from several threads at once."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        """`engine` has the tables of imaging.schema; `directory` is the store's alone, on one file system."""
        self.staging = directory / "staging"
        self._content = directory / "content"
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        for path in (directory, self.staging, self._content):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def reading(self) -> Engine:
        """The database, for statements that read the index, each by itself."""
        return self._reading

    def add(self, source: Path) -> tuple[Instance, bool]:
        """Stores a copy of a Part-10 file, durably; and whether it is new. The same bytes may come again, and change nothing.

        InstanceError for what is no DICOM instance, and for an instance whose SOP Instance UID is stored with other bytes.
        """
        part = self.staging / f"{secrets.token_hex(16)}.part"
        try:
            with source.open("rb") as stream:
                size, sha1 = _copy(stream, part)
            header = read_header(part)
            return self._keep(part, header, size=size, sha1=sha1)
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

    def _keep(self, part: Path, header: Dataset, *, size: int, sha1: str) -> tuple[Instance, bool]:
        row = row_of(header, size=size, sha1=sha1)
        known = self._known(row["sop_instance_uid"], sha1)
        if known is not None:
            return known, False
        described = index.described(header, self._engine.dialect.name)
        key = secrets.token_hex(16)
        target = self._path(key)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        part.rename(target)
        _fsync_directory(target.parent)
        _fsync_directory(self._content)
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(instance).values(**row, key=key))
                for statement, values in described:
                    connection.execute(statement, values)
        except IntegrityError:
            # Another thread has stored the same instance in the meantime.
            target.unlink()
            known = self._known(row["sop_instance_uid"], sha1)
            if known is None:
                raise
            return known, False
        except BaseException:
            target.unlink()
            raise
        return Instance(**row, path=target), True

    def _known(self, sop_instance_uid: str, sha1: str) -> Instance | None:
        known = next(iter(self.find([sop_instance_uid]).values()), None)
        if known is not None and known.sha1 != sha1:
            raise InstanceError(
                f"SOP Instance {sop_instance_uid} is stored with other bytes (SHA-1 {known.sha1}, not {sha1})"
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
        while True:
            with self._reading.connect() as connection:
                missing = index.undescribed(connection, _CHUNK_UIDS)
            if not missing:
                return
            for stored in self.find(missing).values():
                described = index.described(_header_or_row(stored), self._engine.dialect.name)
                with self._engine.begin() as connection:
                    for statement, values in described:
                        connection.execute(statement, values)

    def _instance(self, row: object) -> Instance:
        values = dict(row)  # type: ignore[call-overload]
        return Instance(path=self._path(values.pop("key")), **values)

    def _path(self, key: str) -> Path:
        return self._content / key[:2] / f"{key}.dcm"


def read_header(path: Path) -> Dataset:
    """A Part-10 file without its pixel data. InstanceError for what is none."""
    try:
        with path.open("rb") as stream:
            return pydicom.dcmread(stream, stop_before_pixels=True)
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
    """Size and SHA-1 of what was copied; the copy is on disk."""
    digest, size = hashlib.sha1(usedforsecurity=False), 0
    with target.open("xb") as file:
        for chunk in _chunks(stream):
            digest.update(chunk)
            file.write(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size, digest.hexdigest()


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK_BYTES):
        yield chunk


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
