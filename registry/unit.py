"""A unit of work: what a transaction of IHE reads of the registry before it changes something, and what it changes.

What is changed waits in the unit until the work has succeeded, and is then written together with that of other units (registry/store.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.sql import Executable

from database.connections import Connection
from database.statements import among, chunks
from registry.bodies import Bodies
from registry.lookup import Beyond, Footprint, Known, Lookup
from registry.rows import identity_of, row_of
from registry.tables import (
    BY_KIND,
    SHORT_STATUS,
    STATUS_URN,
    association,
    document_entry,
    folder,
    patient,
    registry_object,
)
from schemas import rim
from schemas.attributes import Kind
from xds.metadata import Association, ObjectRef, RegistryObject
from xds.vocabulary import AssociationType, Status

# --- statements, each built once --------------------------------------------------------------------------------------

_SUBSUMED = select(patient.c.patient_id).where(patient.c.subsumed_by == bindparam("survivor"))
_NEW_PATIENT = insert(patient)
_SUBSUME = update(patient).where(patient.c.patient_id == bindparam("subsumed"))
_SUBSUME = _SUBSUME.values(subsumed_by=bindparam("survivor"))

_STORED: Mapping[Kind, Select[Any]] = {
    kind: select(
        table.c.entry_uuid,
        table.c.patient_id,
        table.c.status,
        table.c.body,
        *([table.c.last_update_time] if kind == "Folder" else []),
    ).where(among(table.c.patient_id, "patients"), among(table.c.entry_uuid, "values"))
    for kind, table in BY_KIND.items()
}
_SOURCES_OF = select(association.c.source_object).where(
    association.c.patient_id == bindparam("patient"),
    association.c.target_object == bindparam("target"),
    association.c.status == "Approved",
    among(association.c.association_type, "types"),
)
_IS_SOURCE = select(association.c.entry_uuid).where(
    association.c.patient_id == bindparam("patient"),
    association.c.source_object == bindparam("source"),
    association.c.association_type == bindparam("type"),
    association.c.status == "Approved",
)
_TOUCHING = {
    end: select(association.c.entry_uuid).where(among(association.c[end], "values"))
    for end in ("source_object", "target_object")
}
_ENTRIES_OF_SOURCE = select(document_entry.c.entry_uuid).where(
    document_entry.c.patient_id == bindparam("patient"),
    document_entry.c.source_patient_id == bindparam("source_patient"),
    document_entry.c.status == "Approved",
    document_entry.c.latest == 1,
)
_INSERT: Mapping[Kind, Executable] = {kind: insert(table) for kind, table in BY_KIND.items()}
_INSERT_OBJECT = insert(registry_object)


def _here(table: Table) -> ColumnElement[bool]:
    return (table.c.patient_id == bindparam("in_patient")) & (table.c.entry_uuid == bindparam("in_uuid"))


def _change(kind: Kind, **values: object) -> Executable:
    return update(BY_KIND[kind]).where(_here(BY_KIND[kind])).values(**values)


_SET_STATUS: Mapping[Kind, Executable] = {
    kind: _change(kind, status=bindparam("new_status", type_=table.c.status.type)) for kind, table in BY_KIND.items()
}
_SUPERSEDE: Mapping[Kind, Executable] = {kind: _change(kind, latest=0) for kind in BY_KIND}
_MAKE_LATEST: Mapping[Kind, Executable] = {kind: _change(kind, latest=1) for kind in BY_KIND}
_TOUCH = _change("Folder", last_update_time=bindparam("new_time", type_=folder.c.last_update_time.type))
_DELETE: Mapping[Kind, Executable] = {kind: delete(table).where(_here(table)) for kind, table in BY_KIND.items()}
_DELETE_OBJECT = delete(registry_object).where(registry_object.c.entry_uuid == bindparam("in_uuid"))
_REKEY_OBJECTS = [
    update(registry_object)
    .where(registry_object.c.entry_uuid.in_(select(table.c.entry_uuid).where(table.c.patient_id == bindparam("old"))))
    .values(patient_id=bindparam("new"))
    for table in BY_KIND.values()
]
_REKEY = [
    update(table).where(table.c.patient_id == bindparam("old")).values(patient_id=bindparam("new"))
    for table in BY_KIND.values()
]


def _hide_earlier(kind: Kind) -> Executable:
    """Of the versions of a logical object that one patient has, only the newest is a latest one."""
    table = BY_KIND[kind]
    c, other, later = table.c, table.alias(), table.alias()
    several = select(other.c.logical_id).where(other.c.patient_id == bindparam("new"), other.c.version > 1)
    newest = select(func.max(later.c.version)).where(
        later.c.patient_id == bindparam("new"), later.c.logical_id == c.logical_id
    )
    mine = (c.patient_id == bindparam("new")) & (c.latest == 1) & c.logical_id.in_(several)
    return update(table).where(mine & (c.version < newest.scalar_subquery())).values(latest=0)


_HIDE_EARLIER = [_hide_earlier("DocumentEntry"), _hide_earlier("Folder")]

# --- rows -------------------------------------------------------------------------------------------------------------

#: Rows with the statement that writes them.
Rows = list[tuple[Executable, list[Mapping[str, Any]]]]


def rows_of(
    objects: Iterable[RegistryObject], bodies: Bodies, *, patient_id: str, status: Status = Status.APPROVED
) -> Rows:
    """The rows of new objects. Associations are kept with `patient_id`, the SubmissionSet's; everything else with its own.

    They are the most work of a registration, and need nothing of the database: they can be made before it is locked.
    """
    rows: dict[Kind, list[Mapping[str, Any]]] = {}
    identities: list[Mapping[str, Any]] = []
    for one in objects:
        kind = rim.kind_of(one)
        owner = patient_id if isinstance(one, Association) else str(one.patient_id)
        row = row_of(one, patient_id=owner, status=SHORT_STATUS[status], body=bodies.blob(rim.render(one)))
        rows.setdefault(kind, []).append(row)
        identities.append(identity_of(row, kind))
    return [(_INSERT_OBJECT, identities), *((_INSERT[kind], of_kind) for kind, of_kind in rows.items())]


# --- the unit ---------------------------------------------------------------------------------------------------------


class Unit:
    """What one transaction of IHE sees, and what it changes."""

    def __init__(self, connection: Connection, bodies: Bodies, lookup: Lookup, footprint: Footprint) -> None:
        self._connection, self._bodies, self._lookup, self._footprint = connection, bodies, lookup, footprint
        self._waiting: Rows = []

    def take(self) -> Rows:
        """The changes that wait, which are the caller's from now on."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def flush(self) -> None:
        """Writes what waits, so that it is seen. Only for work that has its transaction alone: what is written cannot be taken back."""
        for statement, rows in self.take():
            self._connection.run_many(statement, rows)
        self._lookup = Lookup(self._connection, [])

    # --- what is there ----------------------------------------------------------------------------------------------

    def known(self, entry_uuids: Iterable[str]) -> dict[str, Known]:
        """Registered objects, by entryUUID."""
        return self._lookup.known(entry_uuids)

    def by_unique_id(self, unique_ids: Iterable[str]) -> list[Known]:
        """Registered objects that have one of the uniqueIds, all of which the footprint names."""
        return self._lookup.by_unique_id(unique_ids)

    def versions(self, logical_ids: Iterable[str]) -> list[Known]:
        """All versions of logical objects, oldest first."""
        return sorted(self._lookup.by_logical_id(logical_ids), key=lambda one: one.version)

    def patient_is_known(self, patient_id: str) -> bool:
        """Whether the feed has told of the patient and has not merged it away."""
        try:
            return self._lookup.subsumed_by(patient_id) is None
        except KeyError:
            return False

    def survivor(self, patient_id: str) -> str:
        """The patient that the id stands for today."""
        try:
            return self._lookup.subsumed_by(patient_id) or patient_id
        except KeyError:
            return patient_id

    def related_to(self, target: Known, types: Sequence[str]) -> list[str]:
        """The sources of the Approved associations of these types that lead to the object, within its patient."""
        asked = {"patient": target.patient_id, "target": target.entry_uuid, "types": [str(one) for one in types]}
        return [source for (source,) in self._connection.rows(_SOURCES_OF, asked)]

    def is_source_of(self, source: Known, association_type: str) -> bool:
        """Whether an Approved association of this type begins at the object, within its patient."""
        asked = {"patient": source.patient_id, "source": source.entry_uuid, "type": str(association_type)}
        return bool(self._connection.rows(_IS_SOURCE, asked))

    def folders_of(self, member: Known) -> list[Known]:
        """The Approved folders that an object is a member of."""
        sources = self.known(self.related_to(member, [AssociationType.HAS_MEMBER])).values()
        return [one for one in sources if one.kind == "Folder" and one.approved]

    def touching(self, entry_uuids: Iterable[str]) -> list[Known]:
        """The associations of which one of the objects is an end, whatever their status. Nobody adds or removes one meanwhile."""
        ends, found = set(entry_uuids), set[str]()
        if missing := ends - self._footprint.entry_uuids:
            raise Beyond(entry_uuids=missing)
        for chunk in chunks(ends):
            for statement in _TOUCHING.values():
                found |= {one for (one,) in self._connection.rows(statement, {"values": chunk})}
        return sorted(self.known(found).values(), key=lambda one: one.entry_uuid)

    def entries_of_source(self, patient_id: str, source_patient_id: str) -> list[Known]:
        """The latest, Approved DocumentEntries of a patient that have this sourcePatientId."""
        asked = {"patient": patient_id, "source_patient": source_patient_id}
        rows = self._connection.rows(_ENTRIES_OF_SOURCE, asked)
        return sorted(self.known(one for (one,) in rows).values(), key=lambda one: one.entry_uuid)

    def objects(self, known: Iterable[Known]) -> dict[str, RegistryObject]:
        """Registered objects whole, by entryUUID."""
        by_kind: dict[Kind, list[Known]] = {}
        for one in known:
            self._hold(one)
            by_kind.setdefault(one.kind, []).append(one)
        found: dict[str, RegistryObject] = {}
        for kind, those in by_kind.items():
            patients = sorted({one.patient_id for one in those})
            for chunk in chunks(one.entry_uuid for one in those):
                for row in self._connection.rows(_STORED[kind], {"patients": patients, "values": chunk}):
                    found[row[0]] = self._object(kind, row)
        return found

    def _object(self, kind: Kind, row: Sequence[Any]) -> RegistryObject:
        _, patient_id, status, body, *more = row
        text = rim.complete(
            kind,
            self._bodies.text(body),
            status=STATUS_URN[status],
            patient_id=None if kind == "Association" else patient_id,
            last_update_time=more[0] if kind == "Folder" else None,
        )
        (found,) = rim.decode_fragments([text])
        assert not isinstance(found, ObjectRef)
        return found

    # --- what changes -----------------------------------------------------------------------------------------------

    def add_patient(self, patient_id: str) -> bool:
        """False when it was there."""
        try:
            self._lookup.subsumed_by(patient_id)
        except KeyError:
            self._waiting.append((_NEW_PATIENT, [{"patient_id": patient_id, "subsumed_by": None}]))
            return True
        return False

    def merge_patient(self, subsumed: str, survivor: str) -> None:
        """All that is of one patient becomes the other's, and so does what had been merged into it."""
        earlier = [one for (one,) in self._connection.rows(_SUBSUMED, {"survivor": subsumed})]
        rows: list[Mapping[str, Any]] = [{"subsumed": one, "survivor": survivor} for one in (subsumed, *earlier)]
        self._waiting.append((_SUBSUME, rows))
        for statement in (*_REKEY_OBJECTS, *_REKEY):
            self._waiting.append((statement, [{"old": subsumed, "new": survivor}]))
        # A link change (ITI-64) may have left one version with each of the two.
        for hide in _HIDE_EARLIER:
            self._waiting.append((hide, [{"new": survivor}]))

    def add(self, objects: Iterable[RegistryObject], *, patient_id: str, status: Status = Status.APPROVED) -> None:
        """New objects. Associations are kept with `patient_id`, the SubmissionSet's; everything else with its own."""
        self.insert(rows_of(objects, self._bodies, patient_id=patient_id, status=status))

    def insert(self, rows: Rows) -> None:
        """New objects whose rows have been made before."""
        self._waiting += rows

    def set_status(self, known: Known, status: Status) -> None:
        """Changes availabilityStatus."""
        row = self._place(known) | {"new_status": SHORT_STATUS[status]}
        self._waiting.append((_SET_STATUS[known.kind], [row]))

    def supersede(self, known: Known) -> None:
        """It is no longer the latest version of its logical object."""
        self._waiting.append((_SUPERSEDE[known.kind], [self._place(known)]))

    def make_latest(self, known: Known) -> None:
        """It is the latest version of its logical object again."""
        self._waiting.append((_MAKE_LATEST[known.kind], [self._place(known)]))

    def touch(self, known: Known, moment: str) -> None:
        """Sets a folder's lastUpdateTime."""
        self._waiting.append((_TOUCH, [self._place(known) | {"new_time": moment}]))

    def remove(self, known: Known) -> None:
        """Deletes an object."""
        self._waiting.append((_DELETE[known.kind], [self._place(known)]))
        self._waiting.append((_DELETE_OBJECT, [{"in_uuid": known.entry_uuid}]))

    def _hold(self, known: Known) -> None:
        """Makes sure that no merge moves the object meanwhile, for a change that names the old patient would miss it."""
        if known.patient_id not in self._footprint.patients:
            raise Beyond(patients=[known.patient_id])

    def _place(self, known: Known) -> dict[str, str]:
        self._hold(known)
        return {"in_patient": known.patient_id, "in_uuid": known.entry_uuid}
