"""ITI-64 Notify XAD-PID Link Change, the registry's side: entries of a local patient id move to another patient, as new versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from registry.store import Footprint, Known, Store, Unit
from registry.versions import following, moved_copies
from registry.wording import shown
from xds.metadata import Association, DocumentEntry, Folder, RegistryObject, SubmissionSet, has_member
from xds.patients import LinkChanged
from xds.problems import ErrorCode, fail
from xds.values import Code, Identifier, Oid, Text, Timestamp
from xds.vocabulary import Status

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

    An old patient that was merged into another one stands for that one.

    Failure (XDSUnknownPatientId) where the new patient is not known; nothing is changed then, and nothing where there is nothing to move.
    """
    patients = frozenset({str(event.patient_id), str(event.old_patient_id)})

    def work(unit: Unit) -> None:
        _check(event, unit)
        # What was of a patient that has been merged is the surviving one's.
        current = replace(event, old_patient_id=Identifier(unit.survivor(str(event.old_patient_id))))
        moving = unit.entries_of_source(str(current.old_patient_id), str(event.old_source_patient_id))
        same = (event.patient_id, event.source_patient_id) == (current.old_patient_id, event.old_source_patient_id)
        if moving and not same:
            _move(moving, current, unit, new_uuid, Timestamp.at(now()), source_id)

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
    stays = event.patient_id == event.old_patient_id
    folders = [] if stays else _emptied_folders(moving, event, unit)
    objects = unit.objects([*moving, *folders])
    moved: dict[str, str] = {}
    for known in (*moving, *folders):
        uuid = moved[known.entry_uuid] = new_uuid()
        made.append(_new_version(objects[known.entry_uuid], known, uuid, event, moment))
        made.append(_link(submission_set.entry_uuid, uuid, new_uuid, of=objects[known.entry_uuid], known=known))
        unit.set_status(known, Status.DEPRECATED)
    # An old version stays visible with another patient, as Deprecated; only where the patient is the same is it superseded.
    for known in unit.versions({one.logical_id for one in (*moving, *folders)}):
        if known.latest and known.patient_id == str(event.patient_id):
            unit.supersede(known)
    made += _relations(moved, stays, unit, new_uuid)
    unit.add(made, patient_id=str(event.patient_id))


def _emptied_folders(moving: Sequence[Known], event: LinkChanged, unit: Unit) -> list[Known]:
    """The Approved folders of the old patient of which every Approved entry moves: they move too."""
    entries = {one.entry_uuid for one in moving}
    sources = unit.known(one.source_object for one in following(entries, unit)).values()
    folders = [one for one in sources if one.kind == "Folder" and one.approved]
    found = []
    for folder in sorted(folders, key=lambda one: one.entry_uuid):
        members = unit.known(one.target_object for one in following([folder.entry_uuid], unit)).values()
        staying = [one for one in members if one.approved and one.entry_uuid not in entries]
        if folder.patient_id == str(event.old_patient_id) and not staying:
            found.append(folder)
    return found


def _new_version(
    before: RegistryObject, known: Known, uuid: str, event: LinkChanged, moment: Timestamp
) -> DocumentEntry | Folder:
    number = str(known.version + 1)
    if isinstance(before, Folder):
        return replace(before, entry_uuid=uuid, version=number, patient_id=event.patient_id, last_update_time=moment)
    assert isinstance(before, DocumentEntry)
    return replace(
        before,
        entry_uuid=uuid,
        version=number,
        patient_id=event.patient_id,
        source_patient_id=event.source_patient_id,
    )


def _relations(moved: dict[str, str], stays: bool, unit: Unit, new_uuid: Callable[[], str]) -> list[Association]:
    """Relationships and memberships between two that move; where the patient stays, those with others too."""
    kept = [
        one for one in following(moved, unit) if stays or (one.source_object in moved and one.target_object in moved)
    ]
    return moved_copies(kept, moved, new_uuid)


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


def _link(source: str, target: str, new_uuid: Callable[[], str], *, of: RegistryObject, known: Known) -> Association:
    """The membership of a new version. Only that of a DocumentEntry has a SubmissionSetStatus."""
    uuid = new_uuid()
    status = "Original" if isinstance(of, DocumentEntry) else None
    member = has_member(source, target, entry_uuid=uuid, submission_set_status=status)
    return replace(member, logical_id=uuid, version="1", previous_version=str(known.version))
