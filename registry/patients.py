"""The patients that the registry knows, as the Patient Identity Feed keeps them (ITI TF-2 3.8, 3.44)."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from registry.store import Footprint, Store, Unit
from registry.tables import patient
from xds.patients import LinkChanged, PatientAdded, PatientEvent, PatientsMerged
from xds.problems import ErrorCode, fail
from xds.values import Identifier

_ALL = select(patient.c.patient_id, patient.c.subsumed_by).order_by(patient.c.patient_id)


def add_patient(store: Store, patient_id: Identifier) -> bool:
    """Makes a patient known. False when it was; ValueError for an id that is no CX, or has more than 256 characters."""
    fault = patient_id.fault or patient_id.unkeepable
    if fault is not None:
        raise ValueError(f"patient id {str(patient_id)[:256]!r} {fault}")
    footprint = Footprint(patients=frozenset({str(patient_id)}))
    return store.write(footprint, lambda unit: unit.add_patient(str(patient_id)))


def list_patients(store: Store) -> list[tuple[Identifier, Identifier | None]]:
    """Every known patient, with the one that it was merged into if it was."""
    return [
        (Identifier(patient_id), None if subsumed_by is None else Identifier(subsumed_by))
        for patient_id, subsumed_by in store.rows(_ALL, {})
    ]


def merge_patients(store: Store, *, surviving: Identifier, subsumed: Identifier) -> None:
    """Everything of `subsumed` becomes `surviving`'s, for good (ITI TF-2 3.8.4.2).

    Failure (XDSUnknownPatientId) where one of them is not known or was itself merged away, or both are the same; nothing is changed.
    """
    for one in (surviving, subsumed):
        if (reason := one.unkeepable) is not None:
            raise fail(ErrorCode.UNKNOWN_PATIENT_ID, f"patient {str(one)[:256]!r} {reason}")
    footprint = Footprint(patients=frozenset({str(surviving), str(subsumed)}))
    store.write(footprint, lambda unit: _merge(unit, str(surviving), str(subsumed)), alone=True)


def _merge(unit: Unit, surviving: str, subsumed: str) -> None:
    if surviving == subsumed:
        raise fail(ErrorCode.UNKNOWN_PATIENT_ID, f"patient {surviving!r} cannot be merged into itself")
    for role, one in (("surviving", surviving), ("subsumed", subsumed)):
        if unit.patient_is_known(one):
            continue
        into = unit.survivor(one)
        reason = "is not known to this registry" if into == one else f"has been merged into {into!r}"
        raise fail(ErrorCode.UNKNOWN_PATIENT_ID, f"the {role} patient {one!r} {reason}")
    unit.merge_patient(subsumed, surviving)


def feed(store: Store, *, change_link: Callable[[LinkChanged], None]) -> Callable[[PatientEvent], None]:
    """What the registry does with each event of a feed. Failure where it is refused, and then nothing is changed."""

    def take(event: PatientEvent) -> None:
        match event:
            case PatientAdded(patient_id=patient_id):
                try:
                    add_patient(store, patient_id)
                except ValueError as error:
                    raise fail(ErrorCode.REGISTRY_METADATA_ERROR, str(error)) from None
            case PatientsMerged(surviving=surviving, subsumed=subsumed):
                merge_patients(store, surviving=surviving, subsumed=subsumed)
            case LinkChanged():
                change_link(event)

    return take
