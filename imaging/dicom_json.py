"""Data sets as DICOM JSON (PS3.18 Annex F): always UTF-8, whatever a value holds; what is large becomes a BulkDataURI."""

from __future__ import annotations

import base64
from collections.abc import Callable, Container, Iterable
from math import isfinite
from typing import Any

from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

Json = dict[str, Any]
#: What is at this place of a data set, for its BulkDataURI: "7FE00010", or "00400275/1/00400007" with items counted from 1.
BulkUri = Callable[[str], str]

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"})
_MAX_DEPTH = 16
#: Binary values of more bytes are bulk data.
INLINE_BYTES = 1024
#: Other values of more bytes are bulk data too, where the data set was read so that they are still on disk.
_MAX_TEXT_BYTES = 64 * 1024
_CHARACTER_SET = "00080005"


def encode(dataset: Dataset, bulk_uri: BulkUri | None = None, *, only: Container[BaseTag] | None = None) -> Json:
    """The data set, or some of its attributes. Values that cannot be read are left empty.

    Without `bulk_uri` binary values of more than INLINE_BYTES are left out.
    """
    tags = [tag for tag in dataset.keys() if only is None or tag in only]  # noqa: SIM118 - its iterator reads the elements
    encoded = _encode(dataset, tags, bulk_uri, "", 0)
    if encoded:
        encoded[_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return dict(sorted(encoded.items()))


def texts(vr: str, values: Iterable[object]) -> Json:
    """One attribute with these values; none where there are none."""
    kept = list(values)
    return {"vr": vr, "Value": kept} if kept else {"vr": vr}


def _encode(dataset: Dataset, tags: Iterable[BaseTag], bulk_uri: BulkUri | None, prefix: str, depth: int) -> Json:
    encoded: Json = {}
    for tag in tags:
        # Group lengths have no place in JSON (PS3.18 F.2.2), nor has group 2.
        if tag.element == 0 or tag.group == 2:
            continue
        name = f"{tag.group:04X}{tag.element:04X}"
        if attribute := _attribute(dataset, tag, bulk_uri, prefix + name, depth):
            encoded[name] = attribute
    return encoded


def _attribute(dataset: Dataset, tag: BaseTag, bulk_uri: BulkUri | None, place: str, depth: int) -> Json:
    raw = dataset.get_item(tag)
    if isinstance(raw, RawDataElement) and raw.value is None and _is_bulk(_vr(raw), raw.length):
        # pydicom has left it on disk, because it is large.
        return _bulk(_vr(raw), bulk_uri, place)
    try:
        element = dataset[tag]
        vr = str(element.VR)
        if vr == "SQ":
            if depth >= _MAX_DEPTH:
                return {"vr": "SQ"}
            items = enumerate(element, 1)
            return texts(
                "SQ", [_encode(item, item.keys(), bulk_uri, f"{place}/{number}/", depth + 1) for number, item in items]
            )
        return _value(element, vr, bulk_uri, place)
    except Exception:
        # Readers raise anything on hostile values; the rest of the data set is good.
        return {"vr": _vr(raw)}


def _is_bulk(vr: str, length: int) -> bool:
    return length > 0 and vr != "SQ" and (vr in _BINARY or length > _MAX_TEXT_BYTES)


def _vr(raw: RawDataElement | DataElement) -> str:
    vr = str(raw.VR or "")
    if isinstance(raw, RawDataElement) and not vr:
        try:
            vr = str(convert_raw_data_element(raw._replace(value=b"", length=0)).VR)
        except Exception:  # a tag that nobody knows
            vr = "UN"
    return vr[:2] if len(vr) == 2 else "OW" if "OW" in vr else "UN"


def _bulk(vr: str, bulk_uri: BulkUri | None, place: str) -> Json:
    return {} if bulk_uri is None else {"vr": vr, "BulkDataURI": bulk_uri(place)}


def _value(element: DataElement, vr: str, bulk_uri: BulkUri | None, place: str) -> Json:
    if vr in _BINARY or isinstance(element.value, bytes):
        content = element.value or b""
        vr = vr if vr in _BINARY else "UN"
        if len(content) > INLINE_BYTES:
            return _bulk(vr, bulk_uri, place)
        return {"vr": vr, "InlineBinary": base64.b64encode(content).decode()} if content else {"vr": vr}
    vr = vr[:2]
    if element.is_empty:
        return {"vr": vr}
    values = element.value if element.VM > 1 else [element.value]
    return texts(vr, [_one(value, vr) for value in values])


def _one(value: Any, vr: str) -> object:
    if value is None or value == "":
        return None
    if vr == "PN":
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), str(value).split("="), strict=False)
        return {name: text for name, text in groups if text}
    if vr == "AT":
        return f"{int(value):08X}"
    if vr in _NUMBERS:
        return _number(value, vr)
    return str(value).rstrip(" \0") or None  # padding is no part of a value (PS3.5 6.2)


def _number(value: Any, vr: str) -> object:
    """A JSON number; text where there is none for it (PS3.18 F.2.3)."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not isfinite(number):
        return str(value)
    if vr in ("DS", "FD", "FL"):
        return number
    return int(value) if number.is_integer() else str(value)
