"""What the tests of the rules of submissions share: one of each class of object, its XML, and what a refusal says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lxml import etree

from benchmarks.registries import Registry, folder_submission, into_folder, related, valid, with_links, with_set
from registry.store import Footprint
from schemas import lcm
from schemas.attributes import TABLES, Coded, Identified, Kind
from xds.metadata import Classification, Slot, Submission
from xds.values import Text
from xds.vocabulary import AssociationType, Status

#: Well formed, and of no object.
UUID = "0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817"


def only(problems: list[tuple[str, str]], code: str, *words: str) -> None:
    """One problem, of the code, with all of the words."""
    ((found, context),) = problems
    assert found == code, context
    assert [word for word in words if word not in context] == [], context


def among(problems: list[tuple[str, str]], code: str, *words: str) -> None:
    """One of the problems has the code and all of the words."""
    assert [True for found, context in problems if found == code and all(word in context for word in words)], problems


def xml(made: Submission) -> etree._Element:
    return etree.fromstring(lcm.encode_submission(made))


def read(element: etree._Element) -> Submission:
    """As a server reads it: from bytes."""
    return lcm.decode_submission(etree.fromstring(etree.tostring(element)))


def with_folder(registry: Registry) -> Submission:
    """A submission of every class of object: a document in a folder."""
    made, folder = valid(registry.p1), folder_submission(registry.p1)
    made = with_links(replace(made, folders=folder.folders), *folder.associations)
    return into_folder(made, "Folder0")


def replacement(registry: Registry, **changes: Any) -> Submission:
    """A document that replaces a registered one, its association changed."""
    target = registry.registered(valid(registry.p1)).entry_uuid
    return related(valid(registry.p1), AssociationType.RPLC, target, **changes)


def deprecated_folder(registry: Registry) -> str:
    """Only Metadata Update deprecates a folder; here the database is told so."""
    folder = registry.folder().entry_uuid
    footprint = Footprint(entry_uuids=frozenset({folder}))
    registry.store.write(footprint, lambda unit: unit.set_status(unit.known([folder])[folder], Status.DEPRECATED))
    return folder


#: For each class of object a valid submission, some attributes of the object changed; and what a problem calls the object.
MAKERS: dict[Kind, Callable[..., Submission]] = {
    "DocumentEntry": lambda registry, **changes: valid(registry.p1, **changes),
    "SubmissionSet": lambda registry, **changes: with_set(registry.p1, **changes),
    "Folder": lambda registry, **changes: folder_submission(registry.p1, **changes),
    "Association": replacement,
}
NAMES: dict[Kind, str] = {
    "DocumentEntry": "DocumentEntry Document0",
    "SubmissionSet": "SubmissionSet SubmissionSet",
    "Folder": "Folder Folder0",
    "Association": "Association link-RPLC",
}


def coded(kind: Kind, field: str) -> Coded:
    row = TABLES[kind][field]
    assert isinstance(row, Coded)
    return row


def identified(kind: Kind, field: str) -> Identified:
    row = TABLES[kind][field]
    assert isinstance(row, Identified)
    return row


def code_of(scheme: str, code: str = "A", schemes: tuple[str, ...] = ("1.2",), **changes: Any) -> Classification:
    """A code with a display name as the wire has it, well formed or not."""
    slot = Slot(name="codingScheme", values=schemes)
    made = Classification(scheme=scheme, node_representation=code, slots=(slot,), name=Text.of("Name"))
    return replace(made, **changes)
