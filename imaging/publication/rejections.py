"""Rejection notes: Key Object Selections that say which instances are to be treated as not available (RAD-66 of IHE IOCM)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from pydicom.dataset import Dataset

from imaging.instances import Instance, InstanceError, Instances
from imaging.kos.manifest import (
    KEY_OBJECT_SELECTION,
    REJECTION_TITLES,
    is_manifest,
    is_rejection,
    listed_in,
    studies_of,
    title_of,
)
from imaging.publication.publication_rows import Rejection
from imaging.publication.publications import Publications

_log = logging.getLogger("xdsi.imaging")
#: PS3.16 CID 7010.
REASONS = {
    "113001": "Rejected for Quality Reasons",
    "113037": "Rejected for Patient Safety Reasons",
    "113038": "Incorrect Modality Worklist Entry",
    "113039": "Data Retention Policy Expired",
}
#: The reasons by the SOP Instance UIDs of those that are rejected.
Rejected = Callable[[Collection[str]], Mapping[str, str]]


def see_arrivals(instances: Instances, publications: Publications) -> None:
    """Looks at what has come: its studies wait anew, and what a rejection note lists is rejected from now on."""
    while seen := publications.unseen():
        notes = instances.find(one.note for one in seen if one.note)
        rejections = [rejection for note in notes.values() for rejection in _rejections(note)]
        listed = instances.find(one.sop_instance_uid for one in rejections)
        publications.see(seen, rejections, {one.study_instance_uid for one in listed.values()})


def rejected(sop_instance_uids: Collection[str], *, instances: Instances, publications: Publications) -> dict[str, str]:
    """The reasons of those that are rejected, by a note that came this moment even."""
    if publications.has_unseen_notes():
        see_arrivals(instances, publications)
    codes = publications.rejections(sop_instance_uids)
    return {uid: f"{code} {REASONS[code]}" for uid, code in codes.items()}


def to_list(stored: list[Instance], rejected: Rejected) -> list[Instance]:
    """Those of a study that a manifest lists: neither what is rejected, nor manifests, nor rejection notes."""
    refused = rejected([one.sop_instance_uid for one in stored])
    return [one for one in stored if one.sop_instance_uid not in refused and not _is_never_listed(one)]


def is_here(stored: Iterable[Instance]) -> bool:
    """Whether a study, of which so much is stored here, is answered from here and not from an archive behind this source.

    Rejection notes do not make it so: they may be of a study that the archive has.
    """
    return any((header := key_object(one)) is None or title_of(header) not in REJECTION_TITLES for one in stored)


def _is_never_listed(one: Instance) -> bool:
    header = key_object(one)
    return header is not None and (is_manifest(header) or is_rejection(header))


def _rejections(note: Instance) -> Iterator[Rejection]:
    header = key_object(note)
    if header is None or (title := title_of(header)) not in REJECTION_TITLES:
        return
    listed = sorted(listed_in(studies_of(header)) - {note.sop_instance_uid})
    _log.info("rejection note %s (%s) lists %d instances", note.sop_instance_uid, title[0], len(listed))
    for uid in listed:
        # What is no UID is the id of nothing.
        if 0 < len(uid) <= 64:
            yield Rejection(sop_instance_uid=uid, note=note.sop_instance_uid, code=title[0])


def key_object(one: Instance) -> Dataset | None:
    """The header of a Key Object Selection that can be read, its sequences parsed; else None."""
    if one.sop_class_uid != KEY_OBJECT_SELECTION:
        return None
    try:
        header = one.header()
        listed_in(studies_of(header))
        title_of(header)
    except (InstanceError, OSError):
        _log.warning("Key Object Selection %s can not be read: it says nothing", one.sop_instance_uid)
        return None
    except Exception as error:  # pydicom parses sequences when they are asked for, and says in many ways what is wrong
        _log.warning("Key Object Selection %s can not be parsed: %s", one.sop_instance_uid, type(error).__name__)
        return None
    return header
