"""What a unit of work must not share with others, and what it asks of the registry first: objects by their ids, and patients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.sql import Executable

from database.connections import Connection
from database.statements import among, chunks
from registry.tables import BY_KIND, patient, registry_object
from schemas.attributes import Kind


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a unit of work looks at or changes: no two units with a part in common run at the same time."""

    entry_uuids: frozenset[str] = frozenset()
    unique_ids: frozenset[str] = frozenset()
    patients: frozenset[str] = frozenset()

    @cached_property
    def keys(self) -> frozenset[str]:
        """All of it, in one namespace."""
        return frozenset(
            [
                *(f"entry {one}" for one in self.entry_uuids),
                *(f"unique {one}" for one in self.unique_ids),
                *(f"patient {one}" for one in self.patients),
            ]
        )

    def with_also(self, beyond: Beyond) -> Footprint:
        """This, and what was found to be missing."""
        return Footprint(
            entry_uuids=self.entry_uuids | beyond.entry_uuids,
            unique_ids=self.unique_ids,
            patients=self.patients | beyond.patients,
        )


class Beyond(Exception):
    """A unit of work came upon what its footprint should have named: it is to be run again with that as well.

    Objects that a merge has moved since the footprint was made are of another patient than it names.
    """

    def __init__(self, *, entry_uuids: Iterable[str] = (), patients: Iterable[str] = ()) -> None:
        self.entry_uuids, self.patients = frozenset(entry_uuids), frozenset(patients)
        super().__init__(f"{len(self.entry_uuids)} objects and {len(self.patients)} patients more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a transaction must know of an object that is registered already. `status` is "Approved" or "Deprecated"."""

    entry_uuid: str
    kind: Kind
    patient_id: str
    status: str
    logical_id: str
    version: int
    latest: bool
    unique_id: str | None = None
    object_type: str | None = None
    hash: str | None = None
    size: str | None = None
    association_type: str | None = None
    source_object: str | None = None
    target_object: str | None = None

    @property
    def approved(self) -> bool:
        return self.status == "Approved"


# --- statements, each built once --------------------------------------------------------------------------------------

_OBJECT = registry_object.c
_IDENTITY = (_OBJECT.entry_uuid, _OBJECT.kind, _OBJECT.patient_id, _OBJECT.unique_id)
_BY_ENTRY_UUID = select(*_IDENTITY).where(among(_OBJECT.entry_uuid, "values"))
_BY_UNIQUE_ID = select(*_IDENTITY).where(among(_OBJECT.unique_id, "values"))
_BY_LOGICAL_ID = select(*_IDENTITY).where(
    among(_OBJECT.logical_id, "values") | (_OBJECT.logical_id.is_(None) & among(_OBJECT.entry_uuid, "values"))
)
_PATIENTS = select(patient.c.patient_id, patient.c.subsumed_by).where(among(patient.c.patient_id, "values"))

_MORE: Mapping[Kind, tuple[str, ...]] = {
    "DocumentEntry": ("object_type", "hash", "size"),
    "SubmissionSet": (),
    "Folder": (),
    "Association": ("association_type", "source_object", "target_object"),
}


def _details(kind: Kind) -> Select[Any]:
    c = BY_KIND[kind].c
    columns = [c.entry_uuid, c.status, c.logical_id, c.version, c.latest, *(c[name] for name in _MORE[kind])]
    return select(*columns).where(among(c.patient_id, "patients"), among(c.entry_uuid, "values"))


_DETAILS: Mapping[Kind, Select[Any]] = {kind: _details(kind) for kind in BY_KIND}


# --- looking ----------------------------------------------------------------------------------------------------------


class Lookup:
    """What several units of work ask first, asked for all of them at once: objects by id and by uniqueId, and patients."""

    def __init__(self, connection: Connection, footprints: Sequence[Footprint]) -> None:
        self._connection = connection
        self._entry_uuids = frozenset().union(*(one.entry_uuids for one in footprints))
        self._unique_ids = frozenset().union(*(one.unique_ids for one in footprints))
        self._patients = frozenset().union(*(one.patients for one in footprints))
        found = [
            *self._identities(_BY_ENTRY_UUID, self._entry_uuids),
            *self._identities(_BY_UNIQUE_ID, self._unique_ids),
        ]
        self._known = {one.entry_uuid: one for one in self._complete(found)}
        self._by_unique_id: dict[str, list[Known]] = {}
        for one in self._known.values():
            self._by_unique_id.setdefault(one.unique_id or "", []).append(one)
        self._subsumed_by = self._look_up_patients(self._patients)

    def _identities(self, statement: Executable, values: Iterable[str]) -> Iterator[tuple[Any, ...]]:
        for chunk in chunks(values):
            yield from self._connection.rows(statement, {"values": chunk})

    def _complete(self, identities: Iterable[tuple[Any, ...]]) -> Iterator[Known]:
        """The objects that the rows of registry_object stand for."""
        rows = {row[0]: row for row in identities}
        while rows:
            found: set[str] = set()
            for one in self._details(rows):
                found.add(one.entry_uuid)
                yield one
            # What a merge has moved to another patient between the two looks is looked up again, under that patient.
            again = self._identities(_BY_ENTRY_UUID, rows.keys() - found)
            rows = {row[0]: row for row in again if row[2] != rows[row[0]][2]}

    def _details(self, rows: Mapping[str, tuple[Any, ...]]) -> Iterator[Known]:
        """The objects that are still of the patients that the rows say."""
        by_kind: dict[Kind, list[str]] = {}
        for uuid, row in rows.items():
            by_kind.setdefault(row[1], []).append(uuid)
        for kind, uuids in by_kind.items():
            for chunk in chunks(uuids):
                patients = sorted({rows[one][2] for one in chunk})
                for details in self._connection.rows(_DETAILS[kind], {"patients": patients, "values": chunk}):
                    uuid, status, logical_id, version, latest, *more = details
                    yield Known(
                        entry_uuid=uuid,
                        kind=kind,
                        patient_id=rows[uuid][2],
                        unique_id=rows[uuid][3],
                        status=status,
                        logical_id=logical_id,
                        version=version,
                        latest=bool(latest),
                        **dict(zip(_MORE[kind], more, strict=True)),
                    )

    def _look_up_patients(self, patients: Iterable[str]) -> dict[str, str | None]:
        return dict(row for chunk in chunks(patients) for row in self._connection.rows(_PATIENTS, {"values": chunk}))

    def known(self, entry_uuids: Iterable[str]) -> dict[str, Known]:
        """Registered objects, by entryUUID."""
        wanted = set(entry_uuids)
        found = {one: self._known[one] for one in wanted if one in self._known}
        if missing := wanted - self._entry_uuids - found.keys():
            found |= {one.entry_uuid: one for one in self._complete(self._identities(_BY_ENTRY_UUID, missing))}
        return found

    def by_unique_id(self, unique_ids: Iterable[str]) -> list[Known]:
        """Registered objects that have one of the uniqueIds, all of which the footprint names."""
        return [known for one in set(unique_ids) & self._unique_ids for known in self._by_unique_id.get(one, [])]

    def by_logical_id(self, logical_ids: Iterable[str]) -> list[Known]:
        """All versions of the logical objects."""
        return list(self._complete(self._identities(_BY_LOGICAL_ID, logical_ids)))

    def subsumed_by(self, patient_id: str) -> str | None:
        """What a patient was merged into; None where it is its own. KeyError for a patient that no feed has told of."""
        if patient_id not in self._patients:
            return self._look_up_patients([patient_id])[patient_id]
        return self._subsumed_by[patient_id]
