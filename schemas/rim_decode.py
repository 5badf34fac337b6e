"""ebRIM 3.0 read: elements to registry objects, by the tables of schemas/attributes.py.

Decoding is total: what does not fit an attribute goes to the object's `extra`, for the rules to judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
)
from schemas.ns import RIM
from xds.metadata import (
    NOTHING_EXTRA,
    Association,
    Author,
    Classification,
    DocumentEntry,
    ExternalIdentifier,
    Extra,
    Folder,
    ObjectRef,
    RegistryObject,
    Slot,
    SubmissionSet,
    Unrecognized,
)
from xds.values import Code, LocalizedString, OidUrn, Text
from xds.vocabulary import ON_DEMAND, STABLE

_CLASSES: Mapping[Kind, type] = {
    "DocumentEntry": DocumentEntry,
    "SubmissionSet": SubmissionSet,
    "Folder": Folder,
    "Association": Association,
}
_SLOT, _VALUE_LIST, _VALUE = f"{{{RIM}}}Slot", f"{{{RIM}}}ValueList", f"{{{RIM}}}Value"
_CLASSIFICATION, _EXTERNAL_IDENTIFIER = f"{{{RIM}}}Classification", f"{{{RIM}}}ExternalIdentifier"
_NAME, _LOCALIZED = f"{{{RIM}}}Name", f"{{{RIM}}}LocalizedString"
_VERSION_INFO = f"{{{RIM}}}VersionInfo"
_NO_TEXT = Text()
_XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


def parse_fragment(fragment: str) -> etree._Element:
    """A `rim:` element as text, whose prefix nobody has declared, as an element."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    return etree.fromstring(f'<r xmlns:rim="{RIM}">{fragment}</r>'.encode(), parser)[0]


def decode_fragments(fragments: Iterable[str]) -> Iterator[RegistryObject | ObjectRef]:
    """The objects of a QueryResult. What is none of IHE's is left out."""
    for fragment in fragments:
        found = decode(parse_fragment(fragment))
        if not isinstance(found, Unrecognized):
            yield found


def decode(element: etree._Element) -> RegistryObject | ObjectRef | Unrecognized:
    """An object of a RegistryObjectList."""
    local = etree.QName(element).localname
    if local == "Identifiable":
        # A peer that knows no substitution groups names the type instead: rim:ExtrinsicObjectType, rim:AssociationType1.
        local = element.get(_XSI_TYPE, "").rpartition(":")[2].removesuffix("1").removesuffix("Type")
    entry_uuid = element.get("id", "")
    if local == "ObjectRef":
        home = element.get("home")
        return ObjectRef(entry_uuid=entry_uuid, home_community_id=None if home is None else OidUrn(home))
    if local == "Association":
        return _object("Association", element)
    if local == "ExtrinsicObject":
        object_type = element.get("objectType", "")
        if object_type in (STABLE, ON_DEMAND):
            return _object("DocumentEntry", element)
        return _unrecognized(element, f"has objectType {object_type!r}, which is neither Stable nor On-Demand")
    if local == "RegistryPackage":
        nodes = {child.get("classificationNode") for child in element.iterchildren(_CLASSIFICATION)}
        kinds = [kind for kind, node in LABELS.items() if node in nodes]
        if len(kinds) == 1:
            return _object(kinds[0], element)
        which = "both a SubmissionSet and a Folder" if kinds else "neither a SubmissionSet nor a Folder"
        return _unrecognized(element, f"is classified as {which}")
    return _unrecognized(element, "is no object that a submission of IHE XDS may hold")


def _unrecognized(element: etree._Element, reason: str) -> Unrecognized:
    name = f"{etree.QName(element).localname} {element.get('id', 'without id')}"
    return Unrecognized(
        entry_uuid=element.get("id", ""), reason=f"{name} {reason}", xml=etree.tostring(element, with_tail=False)
    )


class _Rows:
    """One class's table, by what is found in the XML."""

    def __init__(self, kind: Kind) -> None:
        table = TABLES[kind]
        self.attributes = {f: row for f, row in table.items() if isinstance(row, Attribute)}
        self.slots = {row.name: (f, row) for f, row in table.items() if isinstance(row, SlotRow)}
        self.codes = {row.scheme: (f, row.many) for f, row in table.items() if isinstance(row, Coded)}
        self.authors = {row.scheme: f for f, row in table.items() if isinstance(row, Authors)}
        self.identifiers = {row.scheme: (f, row) for f, row in table.items() if isinstance(row, Identified)}
        self.markers = {row.node: f for f, row in table.items() if isinstance(row, Marker)}
        self.texts = {f"{{{RIM}}}{row.element}": f for f, row in table.items() if isinstance(row, Localized)}
        self.label = LABELS.get(kind)


_ROWS: Mapping[Kind, _Rows] = {kind: _Rows(kind) for kind in TABLES}


def _object(kind: Kind, element: etree._Element) -> RegistryObject:
    rows = _ROWS[kind]
    owner = element.get("id", "")
    found: dict[str, Any] = {}
    extra_slots: list[Slot] = []
    extra_classifications: list[Classification] = []
    extra_identifiers: list[ExternalIdentifier] = []
    for field, attribute in rows.attributes.items():
        given = element.get(attribute.name)
        if given is not None:
            found[field] = attribute.make(given)
    # What XML may lack, the object may not: the rules report the empty string.
    for required in (
        "entry_uuid",
        *(("association_type", "source_object", "target_object") if kind == "Association" else ()),
    ):
        found.setdefault(required, "")
    for child in element:
        if child.tag == _SLOT:
            if not _keep_slot(rows.slots, child.get("name", ""), _values(child), found):
                extra_slots.append(_read_slot(child))
        elif child.tag == _CLASSIFICATION:
            if not _keep_code(rows, child, owner, found):
                classification = _read_classification(child, owner)
                if not _keep_classification(rows, classification, found):
                    extra_classifications.append(classification)
        elif child.tag == _EXTERNAL_IDENTIFIER:
            identifier = _read_identifier(child, owner)
            if not _keep_identifier(rows, identifier, found):
                extra_identifiers.append(identifier)
        elif child.tag in rows.texts:
            found[rows.texts[child.tag]] = _read_text(child)
        elif child.tag == _VERSION_INFO:
            found["version"] = child.get("versionName")
    if extra_slots or extra_classifications or extra_identifiers:
        found["extra"] = Extra(
            slots=tuple(extra_slots),
            classifications=tuple(extra_classifications),
            identifiers=tuple(extra_identifiers),
        )
    else:
        found["extra"] = NOTHING_EXTRA
    return cast(RegistryObject, _CLASSES[kind](**found))


def _content(element: etree._Element) -> str:
    return "".join(cast(Iterable[str], element.itertext())) if len(element) else element.text or ""


def _values(slot: etree._Element) -> tuple[str, ...]:
    # Plain iteration: a path costs as much as the rest of the slot, and there are many slots.
    return tuple(
        [
            _content(value)
            for value_list in slot
            if value_list.tag == _VALUE_LIST
            for value in value_list
            if value.tag == _VALUE
        ]
    )


def _read_slot(element: etree._Element) -> Slot:
    return Slot(name=element.get("name", ""), values=_values(element), slot_type=element.get("slotType"))


def _read_text(element: etree._Element | None) -> Text:
    if element is None:
        return Text()
    return Text(
        [
            LocalizedString(string.get("value", ""), string.get(_XML_LANG), string.get("charset"))
            for string in element
            if string.tag == _LOCALIZED
        ]
    )


def _read_classification(element: etree._Element, owner: str) -> Classification:
    classified_object = element.get("classifiedObject", owner)
    slots: list[Slot] = []
    name = _NO_TEXT
    for child in element:
        if child.tag == _SLOT:
            slots.append(_read_slot(child))
        elif child.tag == _NAME:
            name = _read_text(child)
    return Classification(
        scheme=element.get("classificationScheme"),
        node=element.get("classificationNode"),
        node_representation=element.get("nodeRepresentation"),
        classified_object=None if classified_object == owner else classified_object,
        slots=tuple(slots),
        name=name,
    )


def _read_identifier(element: etree._Element, owner: str) -> ExternalIdentifier:
    registry_object = element.get("registryObject", owner)
    return ExternalIdentifier(
        scheme=element.get("identificationScheme", ""),
        value=element.get("value", ""),
        registry_object=None if registry_object == owner else registry_object,
        name=_read_text(element.find(_NAME)),
    )


def _keep_slot(
    rows: Mapping[str, tuple[str, SlotRow]], name: str, values: tuple[str, ...], found: dict[str, Any]
) -> bool:
    """Whether the slot is an attribute that was not there yet, with a fitting number of values. An empty ValueList is no value."""
    if name not in rows:
        return False
    field, row = rows[name]
    if not values:
        return True
    if field in found or (len(values) > 1 and not row.many):
        return False
    found[field] = tuple([row.make(value) for value in values]) if row.many else row.make(values[0])
    return True


def _keep_code(rows: _Rows, element: etree._Element, owner: str, found: dict[str, Any]) -> bool:
    """Whether the classification is a coded attribute that was not there yet, of its owner, in the shape of one."""
    row = rows.codes.get(element.get("classificationScheme", ""))
    if row is None or element.get("classifiedObject", owner) != owner:
        return False
    field, many = row
    code = _code(element) if many or field not in found else None
    if code is None:
        return False
    found[field] = (*found.get(field, ()), code) if many else code
    return True


def _code(classification: etree._Element) -> Code | None:
    """The code, if the classification has the shape of one: a code and exactly one coding scheme (ITI TF-3 4.2.3.1.2)."""
    code, scheme, name = classification.get("nodeRepresentation"), "", _NO_TEXT
    for child in classification:
        if child.tag == _SLOT:
            values = _values(child)
            if scheme or child.get("name") != "codingScheme" or len(values) != 1 or not values[0]:
                return None
            scheme = values[0]
        elif child.tag == _NAME:
            name = _read_text(child)
    return Code(code, scheme, name) if code and scheme else None


def _keep_classification(rows: _Rows, classification: Classification, found: dict[str, Any]) -> bool:
    """Whether it says what the object is, or is an author of it."""
    if classification.node is not None and classification.scheme is None:
        if classification.node in rows.markers:
            found[rows.markers[classification.node]] = True
        return classification.node in rows.markers or classification.node == rows.label
    field = rows.authors.get(classification.scheme or "")
    if field is None or classification.classified_object is not None:
        return False
    found[field] = (*found.get(field, ()), _author(classification))
    return True


_AUTHOR_SLOTS = {row.name: (field, row) for field, row in AUTHOR.items()}


def _author(classification: Classification) -> Author:
    found: dict[str, Any] = {}
    extra = tuple(slot for slot in classification.slots if not _keep_slot(_AUTHOR_SLOTS, slot.name, slot.values, found))
    return Author(**found, extra=extra)


def _keep_identifier(rows: _Rows, identifier: ExternalIdentifier, found: dict[str, Any]) -> bool:
    if identifier.scheme not in rows.identifiers or identifier.registry_object is not None:
        return False
    field, row = rows.identifiers[identifier.scheme]
    if field in found or not identifier.value:
        return False
    found[field] = row.make(identifier.value)
    return True
