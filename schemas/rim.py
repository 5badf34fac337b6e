"""ebRIM 3.0 written: registry objects to XML text, by the tables of schemas/attributes.py. Reading is schemas/rim_decode.py.

It is text, because a registry renders an object once and then only joins what it kept; `rim:` is the prefix, and the enclosing
element declares it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import cast

from lxml import etree

from schemas.attributes import (
    AUTHOR,
    LABELS,
    TABLES,
    Attribute,
    Authors,
    Coded,
    Identified,
    Kind,
    Localized,
    Marker,
    SlotRow,
)
from schemas.rim_decode import decode, decode_fragments, parse_fragment
from xds.metadata import (
    Association,
    Author,
    Classification,
    Folder,
    RegistryObject,
)
from xds.values import Code, Text
from xds.vocabulary import (
    OBJECT_TYPE_ASSOCIATION,
    OBJECT_TYPE_CLASSIFICATION,
    OBJECT_TYPE_EXTERNAL_IDENTIFIER,
    OBJECT_TYPE_REGISTRY_PACKAGE,
)

_ELEMENTS: Mapping[Kind, str] = {
    "DocumentEntry": "ExtrinsicObject",
    "SubmissionSet": "RegistryPackage",
    "Folder": "RegistryPackage",
    "Association": "Association",
}
_FIXED_OBJECT_TYPES: Mapping[Kind, str] = {
    "SubmissionSet": OBJECT_TYPE_REGISTRY_PACKAGE,
    "Folder": OBJECT_TYPE_REGISTRY_PACKAGE,
    "Association": OBJECT_TYPE_ASSOCIATION,
}
__all__ = ["complete", "decode", "decode_fragments", "encode", "escape", "kind_of", "object_ref", "render", "to_text"]

#: What a registry may change after registration, and therefore keeps in columns instead of the rendered text.
_MUTABLE = ("availability_status", "patient_id", "last_update_time")


def kind_of(obj: RegistryObject) -> Kind:
    """The IHE class of an object, by name."""
    return cast(Kind, type(obj).__name__)


# --- text -------------------------------------------------------------------------------------------------------------

_SPECIAL = re.compile(r"[&<>\"\x00-\x1f\x7f\ufffe\uffff]")
_ESCAPES = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "\t": "&#9;",
    "\n": "&#10;",
    "\r": "&#13;",
    "\x7f": "\x7f",
}


def escape(text: str) -> str:
    """Text as it stands in an attribute or an element. ValueError for a character that XML 1.0 cannot hold."""
    return text if _SPECIAL.search(text) is None else _SPECIAL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    try:
        return _ESCAPES[match.group()]
    except KeyError:
        raise ValueError(f"character U+{ord(match.group()):04X} cannot be written in XML") from None


def _slot(name: str, values: Iterable[str], slot_type: str | None = None) -> str:
    of_type = f' slotType="{escape(slot_type)}"' if slot_type else ""
    return f'<rim:Slot name="{escape(name)}"{of_type}><rim:ValueList>{_values(values)}</rim:ValueList></rim:Slot>'


def _values(values: Iterable[str]) -> str:
    return "".join([f"<rim:Value>{escape(value)}</rim:Value>" for value in values])


def _localized(element: str, text: Text) -> str:
    strings = "".join(
        [
            f"<rim:LocalizedString{_given('xml:lang', string.lang)}{_given('charset', string.charset)}"
            f' value="{escape(string.value)}"/>'
            for string in text
        ]
    )
    return f"<rim:{element}>{strings}</rim:{element}>" if strings else ""


def _given(name: str, value: str | None) -> str:
    return f' {name}="{escape(value)}"' if value is not None else ""


class _Children:
    """The classifications and identifiers inside an object. Their ids are UUIDs that follow from the object's own.

    They differ from it in the last four digits only, which makes them cheap to write and to compress. The first after the object's own
    is the patientId's (`_patient_identifier`).
    """

    def __init__(self, entry_uuid: str) -> None:
        self._owner = escape(entry_uuid)
        self._number = int(entry_uuid[-4:], 16) if _is_uuid(entry_uuid) else None
        self._count = 1

    def _next_id(self) -> str:
        self._count += 1
        if self._number is None or self._count > _MOST_NEAR:
            return f"{self._owner}-{self._count}"
        return f"{self._owner[:-4]}{(self._number + self._count) & 0xFFFF:04x}"

    def classification(self, rest: str, classified: str | None = None) -> str:
        """`rest` is all but id, objectType and the object that is classified: the owner, where `classified` is None."""
        owner = self._owner if classified is None else escape(classified)
        return (
            f'<rim:Classification id="{self._next_id()}" objectType="{OBJECT_TYPE_CLASSIFICATION}"'
            f' classifiedObject="{owner}"{rest}'
        )

    def identifier(self, rest: str, identified: str | None = None) -> str:
        """`rest` is all but id, objectType and the object that is identified: the owner, where `identified` is None."""
        owner = self._owner if identified is None else escape(identified)
        return (
            f'<rim:ExternalIdentifier id="{self._next_id()}" objectType="{OBJECT_TYPE_EXTERNAL_IDENTIFIER}"'
            f' registryObject="{owner}"{rest}'
        )


#: So many ids near an object's own are distinct from each other, from it, and from the patientId's.
_MOST_NEAR = 0xFF00


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"urn:uuid:[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text) is not None


def _classification(one: Classification) -> str:
    content = "".join([_slot(slot.name, slot.values, slot.slot_type) for slot in one.slots])
    content += _localized("Name", one.name)
    return (
        f"{_given('classificationScheme', one.scheme)}{_given('classificationNode', one.node)}"
        f"{_given('nodeRepresentation', one.node_representation)}"
        + (f">{content}</rim:Classification>" if content else "/>")
    )


def _identifier(scheme: str, value: str, name: Text) -> str:
    return f' identificationScheme="{escape(scheme)}" value="{escape(value)}">{_localized("Name", name)}</rim:ExternalIdentifier>'


def _code(scheme: str, code: Code) -> str:
    """What is the same in every object: codes come again and again, if they are honest."""
    short = len(code.code) + len(code.scheme) < 256 and len(code.display) < 4 and len(str(code.display)) < 256
    return _kept_code(scheme, code) if short else _new_code(scheme, code)


@lru_cache(maxsize=8192)
def _kept_code(scheme: str, code: Code) -> str:
    return _new_code(scheme, code)


def _new_code(scheme: str, code: Code) -> str:
    return (
        f' classificationScheme="{scheme}" nodeRepresentation="{escape(code.code)}">'
        f"{_slot('codingScheme', (code.scheme,))}{_localized('Name', code.display)}</rim:Classification>"
    )


def _author(scheme: str, author: Author) -> str:
    slots = []
    for field, row in AUTHOR.items():
        value = getattr(author, field)
        values = value if row.many else (() if value is None else (value,))
        if values:
            slots.append(_slot(row.name, values))
    slots += [_slot(slot.name, slot.values, slot.slot_type) for slot in author.extra]
    end = f">{''.join(slots)}</rim:Classification>" if slots else "/>"
    return f' classificationScheme="{scheme}" nodeRepresentation=""{end}'


class _Rows:
    """One class's table, by how a row is written. What a registry may change later is left out."""

    def __init__(self, kind: Kind) -> None:
        rows = {field: row for field, row in TABLES[kind].items() if field not in _MUTABLE}
        fixed = _FIXED_OBJECT_TYPES.get(kind)
        self.object_type = _given("objectType", fixed)
        self.attributes = [(f, row.name) for f, row in rows.items() if isinstance(row, Attribute) and row.name != "id"]
        self.slots = [
            (f, f'<rim:Slot name="{row.name}"><rim:ValueList>', row.many)
            for f, row in rows.items()
            if isinstance(row, SlotRow)
        ]
        self.texts = [(f, row.element) for f, row in rows.items() if isinstance(row, Localized)]
        self.label = _classification(Classification(node=LABELS[kind])) if kind in LABELS else ""
        self.authors = [(f, row.scheme) for f, row in rows.items() if isinstance(row, Authors)]
        self.codes = [(f, row.scheme, row.many) for f, row in rows.items() if isinstance(row, Coded)]
        self.markers = [
            (f, _classification(Classification(node=row.node))) for f, row in rows.items() if isinstance(row, Marker)
        ]
        self.identifiers = [
            (f, row.scheme, Text.of(row.label)) for f, row in rows.items() if isinstance(row, Identified)
        ]


_ROWS: Mapping[Kind, _Rows] = {kind: _Rows(kind) for kind in TABLES}


def render(obj: RegistryObject) -> str:
    """What of an object never changes once it is registered, as text: a registry keeps this, and `complete` makes the element of it.

    It is the attributes (`id` first), a `>`, and the children, without status, patientId and Folder.lastUpdateTime.
    """
    rows = _ROWS[kind_of(obj)]
    parts = [f' id="{escape(obj.entry_uuid)}"', rows.object_type]
    parts += [_given(name, getattr(obj, field)) for field, name in rows.attributes]
    parts.append(">")
    for field, head, many in rows.slots:
        value = getattr(obj, field)
        if value is not None and value != ():
            parts.append(f"{head}{_values(value if many else (value,))}</rim:ValueList></rim:Slot>")
    parts += [_slot(slot.name, slot.values, slot.slot_type) for slot in obj.extra.slots]
    parts += [_localized(element, getattr(obj, field)) for field, element in rows.texts]
    if obj.version is not None:
        parts.append(f'<rim:VersionInfo versionName="{escape(obj.version)}"/>')
    parts += _children(obj, rows)
    return "".join(parts)


def _children(obj: RegistryObject, rows: _Rows) -> Iterator[str]:
    """The classifications and identifiers."""
    children = _Children(obj.entry_uuid)
    if rows.label:
        yield children.classification(rows.label)
    for field, scheme in rows.authors:
        for author in getattr(obj, field):
            yield children.classification(_author(scheme, author))
    for field, scheme, many in rows.codes:
        value = getattr(obj, field)
        if value is not None:
            for code in value if many else (value,):
                yield children.classification(_code(scheme, code))
    for field, marker in rows.markers:
        if getattr(obj, field):
            yield children.classification(marker)
    for classification in obj.extra.classifications:
        yield children.classification(_classification(classification), classification.classified_object)
    for field, scheme, label in rows.identifiers:
        value = getattr(obj, field)
        if value is not None:
            yield children.identifier(_identifier(scheme, value, label))
    for one in obj.extra.identifiers:
        yield children.identifier(_identifier(one.scheme, one.value, one.name), one.registry_object)


def complete(
    kind: Kind, body: str, *, status: str | None, patient_id: str | None, last_update_time: str | None = None
) -> str:
    """The whole `rim:` element of an object, from what `render` gave and what may have changed since."""
    element = _ELEMENTS[kind]
    if last_update_time is not None:
        attributes, _, children = body.partition(">")
        body = f"{attributes}>{_slot('lastUpdateTime', (last_update_time,))}{children}"
    patient = "" if patient_id is None else _patient_identifier(kind, body[5 : body.index('"', 5)], patient_id)
    state = "" if status is None else f' status="{status}"'
    return f"<rim:{element}{state}{body}{patient}</rim:{element}>"


_NEXT_DIGIT = dict(zip("0123456789abcdef", "123456789abcdef0", strict=True))


def _patient_identifier(kind: Kind, owner: str, patient_id: str) -> str:
    # The last digit of the owner's own UUID changes: unique within the object, and cheap to make for every answer.
    uuid = owner.startswith("urn:uuid:") and owner[-1] in _NEXT_DIGIT
    child_id = owner[:-1] + _NEXT_DIGIT[owner[-1]] if uuid else f"{owner}-patient"
    return (
        f'<rim:ExternalIdentifier id="{child_id}" objectType="{OBJECT_TYPE_EXTERNAL_IDENTIFIER}" registryObject="{owner}"'
        f"{_patient_value(kind, patient_id)}"
    )


@lru_cache(maxsize=1024)
def _patient_value(kind: Kind, patient_id: str) -> str:
    """All of the identifier that is the same in every object of the patient."""
    row = cast(Identified, TABLES[kind]["patient_id"])
    return (
        f' identificationScheme="{row.scheme}" value="{escape(patient_id)}">'
        f'<rim:Name><rim:LocalizedString value="{row.label}"/></rim:Name></rim:ExternalIdentifier>'
    )


def to_text(obj: RegistryObject) -> str:
    """An object as a whole `rim:` element."""
    return complete(
        kind_of(obj),
        render(obj),
        status=obj.availability_status and escape(obj.availability_status),
        patient_id=None if isinstance(obj, Association) else obj.patient_id,
        last_update_time=obj.last_update_time if isinstance(obj, Folder) else None,
    )


def object_ref(entry_uuid: str, home_community_id: str | None = None) -> str:
    """A `rim:ObjectRef`."""
    return f"<rim:ObjectRef{_given('id', entry_uuid)}{_given('home', home_community_id)}/>"


def encode(obj: RegistryObject) -> etree._Element:
    """An object as an element."""
    return parse_fragment(to_text(obj))
