"""New versions of registered objects, and the associations that follow them (Metadata Update supplement, ITI TF-2 3.57.4.1.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from registry.lookup import Known
from registry.unit import Unit
from xds.metadata import Association, DocumentEntry, Folder
from xds.vocabulary import RELATIONSHIPS, AssociationType, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """An object that takes the place of the latest version of a registered one.

    `new` has its ids; `membership` is the HasMember from the SubmissionSet, which says how. `old` is None where there is none.
    """

    new: DocumentEntry | Folder
    logical_id: str
    membership: Association
    old: Known | None

    @property
    def propagates(self) -> bool:
        """Whether the associations of the old version become the new one's; by default they do."""
        return self.membership.association_propagation != "no"

    def as_version(self) -> DocumentEntry | Folder:
        """The object as it is stored."""
        assert self.old is not None
        return replace(self.new, logical_id=self.logical_id, version=str(self.old.version + 1))


def latest(versions: Iterable[Known]) -> Known | None:
    """The latest of the versions of one logical object."""
    return max(versions, key=lambda one: one.version, default=None)


def bring_back(removed: Mapping[str, Known], unit: Unit) -> None:
    """What was before a removed latest version is the latest one again; its status stays."""
    logical_ids = {one.logical_id for one in removed.values() if one.latest and one.version > 1}
    left: dict[str, list[Known]] = {}
    for one in unit.versions(logical_ids):
        if one.entry_uuid not in removed:
            left.setdefault(one.logical_id, []).append(one)
    for newest in map(latest, left.values()):
        if newest is not None:
            unit.make_latest(newest)


def store_versions(
    updates: Sequence[Update], unit: Unit, new_uuid: Callable[[], str], *, patient_id: str, keep_status: bool = False
) -> None:
    """Each new version is Approved and the old one Deprecated, and what belonged to the old one belongs to the new one as well.

    `keep_status` gives the new version the status of the old one (ITI-92).
    """
    for one in updates:
        assert one.old is not None
        status = Status.APPROVED if one.old.approved or not keep_status else Status.DEPRECATED
        unit.add([one.as_version()], patient_id=patient_id, status=status)
        unit.supersede(one.old)
        unit.set_status(one.old, Status.DEPRECATED)
    patients = {one.logical_id: str(one.new.patient_id) for one in updates}
    for earlier in unit.versions(patients):
        # A link change (ITI-64) leaves a version visible with the patient that it was of, until the object comes back to that patient.
        if earlier.latest and earlier.patient_id == patients[earlier.logical_id]:
            unit.supersede(earlier)
    moved = {one.old.entry_uuid: one.new.entry_uuid for one in updates if one.old is not None and one.propagates}
    unit.add(moved_copies(following(moved, unit), moved, new_uuid), patient_id=patient_id)


def moved_copies(
    associations: Iterable[Association], moved: Mapping[str, str], new_uuid: Callable[[], str]
) -> list[Association]:
    """New associations like those, from and to the new versions of what has moved."""
    copies = []
    for one in associations:
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


def following(entry_uuids: Iterable[str], unit: Unit) -> list[Association]:
    """The Approved associations of objects that go with them: memberships in Folders, and relationships."""
    around = [one for one in unit.touching(entry_uuids) if one.approved]
    kinds = {one.entry_uuid: one.kind for one in unit.known(one.source_object or "" for one in around).values()}
    kept = [
        one
        for one in around
        if one.association_type in RELATIONSHIPS
        or (one.association_type == AssociationType.HAS_MEMBER and kinds.get(one.source_object or "") == "Folder")
    ]
    return [one for one in unit.objects(kept).values() if isinstance(one, Association)]
