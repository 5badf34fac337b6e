"""Reads everything that is stored, and finds what is not as it was stored and what nobody knows of. It changes nothing.

Damage is what `Documents.get` would refuse to give out. An orphan is a copy that no row of the catalogue names: as a row is written before
its copy and deleted after it, only a fault of a disk, a hand, or a catalogue older than its files makes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from repository.catalogue import CATALOGUE, Stored
from repository.documents import Documents
from repository.files import Place
from repository.tables import State

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A document that can not be given out. `fault` is the end of a sentence about it."""

    document_unique_id: str
    key: str
    place: str
    copy: str
    size: int
    fault: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A copy that is no document's."""

    place: str
    copy: str


@dataclass(slots=True, kw_only=True)
class Report:
    """What was found. A copy that several documents share is read once, and `size` counts it once.

    `unsettled` documents wait for their registration or for the sweep, and are not looked at.
    """

    documents: int = 0
    size: int = 0
    unsettled: int = 0
    damaged: list[Damage] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.damaged and not self.orphans


def scrub(store: Documents, *, looked_at: Callable[[Stored], None] = lambda stored: None) -> Report:
    """Looks at everything, while others store and remove. `looked_at` is told of each row.

    OSError where a place can not say what it has.
    """
    report = Report()
    read: tuple[str, str] | None = None
    fault: str | None = None
    for row in store.catalogue.every():
        if row.state in (State.PENDING, State.REMOVED):
            report.unsettled += 1
        else:
            report.documents += 1
            if (row.place, row.copy) != read:
                read, fault = (row.place, row.copy), store.fault_of(row)
                report.size += row.size
            if fault is not None and _is_still_there(store, row):
                report.damaged.append(_damage(row, fault))
        looked_at(row)
    report.orphans += [Orphan(place=CATALOGUE, copy=copy) for copy in store.catalogue.loose_copies()]
    for place in store.places.values():
        report.orphans += _orphans(store, place)
    return report


def _is_still_there(store: Documents, row: Stored) -> bool:
    """Whether it was not being removed while it was read."""
    return [now.state for now in store.catalogue.of_keys([row.key])] == [row.state]


def _damage(row: Stored, fault: str) -> Damage:
    return Damage(
        document_unique_id=row.document_unique_id,
        key=row.key,
        place=row.place,
        copy=row.copy,
        size=row.size,
        fault=fault,
    )


def _orphans(store: Documents, place: Place) -> Iterator[Orphan]:
    for names in _batches(place.names()):
        known = store.catalogue.named_copies(names)
        # What was removed since it was listed is not there any more.
        yield from (Orphan(place=place.name, copy=name) for name in names if name not in known and place.has(name))


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(names)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
