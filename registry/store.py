"""Rows and units of work: the only place where metadata objects become rows and come back.

Reads are single statements in AUTOCOMMIT. A write is one transaction that excludes every other write from its first statement on, so
that what it has checked is still so when it commits.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.sql import Executable

from registry.tables import BY_KIND, association, document_entry, folder, object_value, patient, registry_object
from schemas import rim
from schemas.attributes import Kind
from xds.metadata import Association, DocumentEntry, Folder, RegistryObject, SubmissionSet
from xds.values import Timestamp, normal
from xds.vocabulary import AssociationType, Status

_CHUNK = 500


def open_engine(url: str) -> Engine:
    """An engine for the registry's database. SQLite is set up for durable commits: WAL, synchronous=FULL."""
    engine = create_engine(url, pool_size=8, max_overflow=8)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    # The driver must not begin transactions of its own: a write begins with IMMEDIATE.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "case_sensitive_like=ON",
        "cache_size=-65536",
    ):
        connection.execute(f"PRAGMA {pragma}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a submission must know of an object that is registered already."""

    entry_uuid: str
    kind: Kind
    patient_id: str
    status: str
    object_type: str | None = None
    hash: str | None = None
    size: str | None = None
    unique_id: str | None = None


class Store:
    """The registry's database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        # SQLite has one writer; waiting here is fairer than its busy handler.
        self._writing = threading.Lock()

    def rows(self, statement: Executable, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """The answer to one SELECT."""
        with self._reading.connect() as connection:
            return connection.execute(statement, parameters).all()

    @contextmanager
    def write(self) -> Iterator[Unit]:
        """A unit of work: committed at its end, rolled back when it is left by an exception."""
        with self._writing, self.engine.begin() as connection:
            if self.engine.dialect.name == "sqlite":
                # The write lock is taken before the first look, so that no check can be overtaken.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield Unit(connection)


class Unit:
    """One transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    # --- what is there ----------------------------------------------------------------------------------------------

    def known(self, entry_uuids: Iterable[str]) -> dict[str, Known]:
        """Registered objects, by entryUUID."""
        found: dict[str, Known] = {}
        wanted = sorted(set(entry_uuids))
        for start in range(0, len(wanted), _CHUNK):
            statement = select(registry_object).where(registry_object.c.entry_uuid.in_(wanted[start : start + _CHUNK]))
            for row in self._connection.execute(statement):
                found[row.entry_uuid] = self._known(row)
        return found

    def _known(self, row: Any) -> Known:
        table = BY_KIND[row.kind]
        here = (table.c.patient_id == row.patient_id) & (table.c.entry_uuid == row.entry_uuid)
        details = self._connection.execute(select(table).where(here)).one()
        entry = row.kind == "DocumentEntry"
        return Known(
            entry_uuid=row.entry_uuid,
            kind=row.kind,
            patient_id=row.patient_id,
            status=details.status,
            unique_id=row.unique_id,
            object_type=details.object_type if entry else None,
            hash=details.hash if entry else None,
            size=details.size if entry else None,
        )

    def by_unique_id(self, unique_ids: Iterable[str]) -> list[Known]:
        """Registered objects that have one of the uniqueIds."""
        wanted = sorted(set(unique_ids))
        return [
            self._known(row)
            for start in range(0, len(wanted), _CHUNK)
            for row in self._connection.execute(
                select(registry_object).where(registry_object.c.unique_id.in_(wanted[start : start + _CHUNK]))
            ).all()
        ]

    def patient_is_known(self, patient_id: str) -> bool:
        """Whether the feed has told of the patient and has not merged it away."""
        statement = select(patient.c.subsumed_by).where(patient.c.patient_id == patient_id)
        row = self._connection.execute(statement).one_or_none()
        return row is not None and row.subsumed_by is None

    def related_to(self, entry_uuid: str, types: Sequence[str]) -> list[str]:
        """Sources of the Approved associations of these types to an object."""
        statement = select(association.c.source_object).where(
            association.c.target_object == entry_uuid,
            association.c.association_type.in_(types),
            association.c.status == Status.APPROVED,
        )
        return list(self._connection.execute(statement).scalars())

    def folders_of(self, entry_uuid: str) -> list[Known]:
        """Approved folders that an object is a member of."""
        sources = self.related_to(entry_uuid, [AssociationType.HAS_MEMBER])
        return [one for one in self.known(sources).values() if one.kind == "Folder" and one.status == Status.APPROVED]

    # --- what changes -----------------------------------------------------------------------------------------------

    def add_patient(self, patient_id: str) -> bool:
        """False when it was there."""
        if self._connection.execute(select(patient.c.patient_id).where(patient.c.patient_id == patient_id)).first():
            return False
        self._connection.execute(insert(patient).values(patient_id=patient_id))
        return True

    def add(self, objects: Iterable[RegistryObject], *, patient_id: str) -> None:
        """New objects. `patient_id` is the SubmissionSet's: associations are kept with it."""
        rows: dict[Kind, list[dict[str, Any]]] = {}
        identities: list[dict[str, Any]] = []
        values: list[dict[str, Any]] = []
        for one in objects:
            kind, row = rim.kind_of(one), _row(one, patient_id)
            rows.setdefault(kind, []).append(row)
            identities.append(
                {
                    "entry_uuid": row["entry_uuid"],
                    "kind": kind,
                    "patient_id": row["patient_id"],
                    "unique_id": row.get("unique_id"),
                }
            )
            values += [
                {
                    "patient_id": row["patient_id"],
                    "entry_uuid": row["entry_uuid"],
                    "attribute": attribute,
                    "value": value,
                }
                for attribute, value in sorted(_values(one))
            ]
        self._connection.execute(insert(registry_object), identities)
        for kind, of_kind in rows.items():
            self._connection.execute(insert(BY_KIND[kind]), of_kind)
        if values:
            self._connection.execute(insert(object_value), values)

    def deprecate(self, entry_uuid: str) -> None:
        """Sets a DocumentEntry to Deprecated."""
        here = document_entry.c.entry_uuid == entry_uuid
        owner = select(registry_object.c.patient_id).where(registry_object.c.entry_uuid == entry_uuid).scalar_subquery()
        statement = update(document_entry).where(document_entry.c.patient_id == owner, here)
        self._connection.execute(statement.values(status=str(Status.DEPRECATED)))

    def touch(self, folder_uuid: str, moment: str) -> None:
        """Sets a folder's lastUpdateTime."""
        owner = (
            select(registry_object.c.patient_id).where(registry_object.c.entry_uuid == folder_uuid).scalar_subquery()
        )
        statement = update(folder).where(folder.c.patient_id == owner, folder.c.entry_uuid == folder_uuid)
        self._connection.execute(statement.values(last_update_time=moment))


def _earliest(time: Timestamp | None) -> str | None:
    return None if time is None else time.earliest


def _row(one: RegistryObject, patient_id: str) -> dict[str, Any]:
    common: dict[str, Any] = {
        "entry_uuid": one.entry_uuid,
        "status": str(Status.APPROVED),
        "body": rim.render(one),
        "patient_id": patient_id if isinstance(one, Association) else str(one.patient_id),
    }
    match one:
        case DocumentEntry():
            codes = {
                name: code.key if (code := getattr(one, name)) else ""
                for name in (
                    "class_code",
                    "type_code",
                    "format_code",
                    "healthcare_facility_type_code",
                    "practice_setting_code",
                )
            }
            return (
                common
                | codes
                | {
                    "object_type": one.object_type,
                    "unique_id": one.unique_id,
                    "hash": one.hash and one.hash.lower(),
                    "size": one.size,
                    "creation_time": _earliest(one.creation_time),
                    "service_start_time": _earliest(one.service_start_time),
                    "service_stop_time": _earliest(one.service_stop_time),
                }
            )
        case SubmissionSet():
            return common | {
                "unique_id": one.unique_id,
                "source_id": one.source_id,
                "submission_time": _earliest(one.submission_time),
                "content_type": one.content_type_code.key if one.content_type_code else "",
            }
        case Folder():
            return common | {"unique_id": one.unique_id, "last_update_time": one.last_update_time}
        case Association():
            return common | {
                "association_type": one.association_type,
                "source_object": one.source_object,
                "target_object": one.target_object,
            }


def _values(one: RegistryObject) -> set[tuple[str, str]]:
    """Attribute and value of what an object may have several of, for the side table."""
    values: set[tuple[str, str]] = set()
    if isinstance(one, DocumentEntry):
        values |= {("eventCodeList", code.key) for code in one.event_code_list}
        values |= {("confidentialityCode", code.key) for code in one.confidentiality_code}
    if isinstance(one, DocumentEntry | SubmissionSet):
        values |= {("authorPerson", normal(author.author_person)) for author in one.author if author.author_person}
    return values
