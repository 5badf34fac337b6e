"""ITI-64 Notify XAD-PID Link Change, the registry's side: entries of a local patient id move to another patient, as new versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from registry.store import Footprint, Known, Store, Unit
from registry.versions import following
from registry.wording import shown
from xds.metadata import Association, DocumentEntry, RegistryObject, SubmissionSet, has_member
from xds.patients import LinkChanged
from xds.problems import ErrorCode, fail
from xds.values import Code, Identifier, Oid, Text, Timestamp
from xds.vocabulary import RELATIONSHIPS, Status

#: What the registry's own submissions say of themselves.
SOURCE_ID = Oid("1.3.6.1.4.1.21367.13.4")
_CONTENT_TYPE = Code.of("link-change", "1.3.6.1.4.1.21367.100.1", "XAD-PID link change")


def change_link(
    event: LinkChanged,
    *,
    store: Store,
    now: Callable[[], datetime],
    new_uuid: Callable[[], str],
    source_id: Oid = SOURCE_ID,
) -> None:
    """Moves what is of `old_patient_id` and `old_source_patient_id`: a new version for the new patient, the old one Deprecated.

    Failure (XDSUnknownPatientId) where the new patient is not known; nothing is changed then, and nothing where there is nothing to move.
    """
    patients = frozenset({str(event.patient_id), str(event.old_patient_id)})

    def work(unit: Unit) -> None:
        _check(event, unit)
        moving = unit.entries_of_source(str(event.old_patient_id), str(event.old_source_patient_id))
        same = (event.patient_id, event.source_patient_id) == (event.old_patient_id, event.old_source_patient_id)
        if moving and not same:
            _move(moving, event, unit, new_uuid, Timestamp.at(now()), source_id)

    store.write(Footprint(patients=patients), work, alone=True)


def _check(event: LinkChanged, unit: Unit) -> None:
    patient_id = str(event.patient_id)
    if unit.survivor(patient_id) != patient_id:
        text = f"patient {shown(patient_id)} has been merged into {shown(unit.survivor(patient_id))}"
        raise fail(ErrorCode.UNKNOWN_PATIENT_ID, text)
    if not unit.patient_is_known(patient_id):
        raise fail(ErrorCode.UNKNOWN_PATIENT_ID, f"patient {shown(patient_id)} is not known to this registry")


def _move(
    moving: Sequence[Known],
    event: LinkChanged,
    unit: Unit,
    new_uuid: Callable[[], str],
    moment: Timestamp,
    source_id: Oid,
) -> None:
    """One submission of the registry's own: the new versions, and the relations between those that move together."""
    submission_set = _submission_set(event.patient_id, new_uuid, moment, source_id)
    made: list[RegistryObject] = [submission_set]
    moved: dict[str, str] = {}
    entries = unit.objects(moving)
    for known in moving:
        entry = entries[known.entry_uuid]
        assert isinstance(entry, DocumentEntry)
        uuid = moved[known.entry_uuid] = new_uuid()
        made.append(
            replace(
                entry,
                entry_uuid=uuid,
                version=str(known.version + 1),
                patient_id=event.patient_id,
                source_patient_id=event.source_patient_id,
            )
        )
        made.append(_link(submission_set.entry_uuid, uuid, new_uuid, previous_version=str(known.version)))
        # The old version stays visible with the old patient, as Deprecated; only where that is the same patient is it superseded.
        unit.set_status(known, Status.DEPRECATED)
        if event.patient_id == event.old_patient_id:
            unit.supersede(known)
    made += _relations(moved, event, unit, new_uuid)
    unit.add(made, patient_id=str(event.patient_id))


def _relations(moved: dict[str, str], event: LinkChanged, unit: Unit, new_uuid: Callable[[], str]) -> list[Association]:
    """Relationships between two that move; within one patient, memberships and other relationships too."""
    stays = event.patient_id == event.old_patient_id
    copies = []
    for one in following(moved, unit):
        both = one.source_object in moved and one.target_object in moved
        if stays or (both and one.association_type in RELATIONSHIPS):
            uuid = new_uuid()
            copies.append(
                replace(
                    one,
                    entry_uuid=uuid,
                    logical_id=uuid,
                    version="1",
                    source_object=moved.get(one.source_object, one.source_object),
                    target_object=moved.get(one.target_object, one.target_object),
                )
            )
    return copies


def _submission_set(
    patient_id: Identifier, new_uuid: Callable[[], str], moment: Timestamp, source_id: Oid
) -> SubmissionSet:
    uuid = new_uuid()
    return SubmissionSet(
        entry_uuid=uuid,
        logical_id=uuid,
        version="1",
        content_type_code=_CONTENT_TYPE,
        patient_id=patient_id,
        source_id=source_id,
        submission_time=moment,
        title=Text.of("XAD-PID link change"),
        unique_id=Oid(f"2.25.{int(new_uuid()[9:].replace('-', ''), 16)}"),
    )


def _link(source: str, target: str, new_uuid: Callable[[], str], *, previous_version: str) -> Association:
    uuid = new_uuid()
    member = has_member(source, target, entry_uuid=uuid, submission_set_status="Original")
    return replace(member, logical_id=uuid, version="1", previous_version=previous_version)
