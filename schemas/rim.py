"""ebRIM 3.0 written: registry objects to XML text, by the tables of schemas/attributes.py. Reading is schemas/rim_decode.py.

It is text, because a registry renders an object once and then only joins what it kept; `rim:` is the prefix, and the enclosing
element declares it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, cast

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
    Version,
)
from schemas.rim_decode import decode, decode_fragments, parse_fragment
from xds.metadata import (
    Association,
    Author,
    Classification,
    ExternalIdentifier,
    Folder,
    RegistryObject,
    Slot,
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
    kept = "".join([f"<rim:Value>{escape(value)}</rim:Value>" for value in values])
    of_type = f' slotType="{escape(slot_type)}"' if slot_type else ""
    return f'<rim:Slot name="{escape(name)}"{of_type}><rim:ValueList>{kept}</rim:ValueList></rim:Slot>'


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


class _ChildIds:
    """Ids of the classifications and identifiers inside an object: UUIDs that follow from the object's own.

    They differ from it in the last four digits only, which makes them cheap to write and to compress. The first after the object's own
    is the patientId's (`_patient_identifier`).
    """

    def __init__(self, entry_uuid: str) -> None:
        self._entry_uuid = entry_uuid
        self._number = int(entry_uuid[-4:], 16) if _is_uuid(entry_uuid) else None
        self._count = 1

    def next(self) -> str:
        self._count += 1
        if self._number is None or self._count > _MOST_NEAR:
            return f"{self._entry_uuid}-{self._count}"
        return f"{self._entry_uuid[:-4]}{(self._number + self._count) & 0xFFFF:04x}"


#: So many ids near an object's own are distinct from each other, from it, and from the patientId's.
_MOST_NEAR = 0xFF00


def _is_uuid(text: str) -> bool:
    return re.fullmatch(r"urn:uuid:[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text) is not None


def _classification(child_id: str, owner: str, classification: Classification) -> str:
    content = "".join([_slot(slot.name, slot.values, slot.slot_type) for slot in classification.slots])
    content += _localized("Name", classification.name)
    return (
        f'<rim:Classification id="{escape(child_id)}" objectType="{OBJECT_TYPE_CLASSIFICATION}"'
        f"{_given('classificationScheme', classification.scheme)}{_given('classificationNode', classification.node)}"
        f' classifiedObject="{escape(classification.classified_object or owner)}"'
        f"{_given('nodeRepresentation', classification.node_representation)}"
        + (f">{content}</rim:Classification>" if content else "/>")
    )


def _external_identifier(child_id: str, owner: str, identifier: ExternalIdentifier) -> str:
    return (
        f'<rim:ExternalIdentifier id="{escape(child_id)}" objectType="{OBJECT_TYPE_EXTERNAL_IDENTIFIER}"'
        f' registryObject="{escape(identifier.registry_object or owner)}" identificationScheme="{escape(identifier.scheme)}"'
        f' value="{escape(identifier.value)}">{_localized("Name", identifier.name)}</rim:ExternalIdentifier>'
    )


def _code_classification(scheme: str, code: Code) -> str:
    """All of a coded attribute's classification that is the same in every object: codes come again and again, if they are honest."""
    short = len(code.code) + len(code.scheme) < 256 and len(code.display) < 4 and len(str(code.display)) < 256
    return _kept_code(scheme, code) if short else _code(scheme, code)


@lru_cache(maxsize=8192)
def _kept_code(scheme: str, code: Code) -> str:
    return _code(scheme, code)


def _code(scheme: str, code: Code) -> str:
    return (
        f' classificationScheme="{scheme}" nodeRepresentation="{escape(code.code)}">'
        f"{_slot('codingScheme', (code.scheme,))}{_localized('Name', code.display)}</rim:Classification>"
    )


def _coded(child_id: str, owner: str, common: str) -> str:
    return (
        f'<rim:Classification id="{escape(child_id)}" objectType="{OBJECT_TYPE_CLASSIFICATION}"'
        f' classifiedObject="{escape(owner)}"{common}'
    )


def _author_classification(scheme: str, author: Author) -> Classification:
    slots = []
    for field, row in AUTHOR.items():
        value = getattr(author, field)
        values = value if row.many else (() if value is None else (value,))
        if values:
            slots.append(Slot(name=row.name, values=values))
    return Classification(scheme=scheme, node_representation="", slots=(*slots, *author.extra))


def render(obj: RegistryObject) -> str:
    """What of an object never changes once it is registered, as text: a registry keeps this, and `complete` makes the element of it.

    It is the attributes (`id` first), a `>`, and the children, without status, patientId and Folder.lastUpdateTime.
    """
    kind = kind_of(obj)
    attributes: list[str] = []
    slots: list[str] = []
    texts = {"Name": "", "Description": "", "VersionInfo": ""}
    classifications: list[Classification | str] = []
    identifiers: list[ExternalIdentifier] = []
    if kind in LABELS:
        classifications.append(Classification(node=LABELS[kind]))
    if kind in _FIXED_OBJECT_TYPES:
        attributes.append(_given("objectType", _FIXED_OBJECT_TYPES[kind]))
    for field, row in TABLES[kind].items():
        value: Any = getattr(obj, field)
        if field in _MUTABLE or value is None or value is False or value == ():
            continue
        match row:
            case Attribute("id"):
                attributes.insert(0, _given("id", value))
            case Attribute(name):
                attributes.append(_given(name, value))
            case SlotRow(name, _, many):
                slots.append(_slot(name, value if many else (value,)))
            case Localized(element):
                texts[element] = _localized(element, value)
            case Version():
                texts["VersionInfo"] = f'<rim:VersionInfo versionName="{escape(value)}"/>'
            case Coded(scheme, many):
                classifications += [_code_classification(scheme, code) for code in (value if many else (value,))]
            case Authors(scheme):
                classifications += [_author_classification(scheme, author) for author in value]
            case Marker(node):
                classifications.append(Classification(node=node))
            case Identified(scheme, label, _):
                identifiers.append(ExternalIdentifier(scheme=scheme, value=value, name=Text.of(label)))
    extra = obj.extra
    ids, owner = _ChildIds(obj.entry_uuid), obj.entry_uuid
    return "".join(
        [
            *attributes,
            ">",
            *slots,
            *(_slot(slot.name, slot.values, slot.slot_type) for slot in extra.slots),
            *texts.values(),
            *(
                _coded(ids.next(), owner, one) if isinstance(one, str) else _classification(ids.next(), owner, one)
                for one in (*classifications, *extra.classifications)
            ),
            *(_external_identifier(ids.next(), owner, one) for one in (*identifiers, *extra.identifiers)),
        ]
    )


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
