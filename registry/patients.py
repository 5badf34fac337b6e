"""The patients that the registry knows (ITI TF-2 3.8, 3.44: what the feeds keep up to date)."""

from __future__ import annotations

from sqlalchemy import select

from registry.store import Store
from registry.tables import patient
from xds.values import Identifier


def add_patient(store: Store, patient_id: Identifier) -> bool:
    """Makes a patient known. False when it was; ValueError for an id that is no CX."""
    if (fault := patient_id.fault) is not None:
        raise ValueError(f"patient id {str(patient_id)!r} {fault}")
    with store.write() as unit:
        return unit.add_patient(patient_id)


def list_patients(store: Store) -> list[tuple[Identifier, Identifier | None]]:
    """Every known patient, with the one that it was merged into if it was."""
    statement = select(patient.c.patient_id, patient.c.subsumed_by).order_by(patient.c.patient_id)
    return [
        (Identifier(row.patient_id), None if row.subsumed_by is None else Identifier(row.subsumed_by))
        for row in store.rows(statement, {})
    ]
