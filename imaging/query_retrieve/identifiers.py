"""Identifiers (PS3.4 C.2.2, C.4): at which level something is asked for, below what, and by which values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from xds.values import is_oid

Root = Literal["study", "patient"]
QueryLevel = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]
#: The levels of both models, and what is unique at each.
UNIQUE: dict[QueryLevel, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}
_UID_KEYWORDS = frozenset(UNIQUE.values()) - {"PatientID"}
_LEVELS: tuple[QueryLevel, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
#: Most characters of one value; a list of UIDs may name as many as one retrieval may have.
_MAX_VALUE_CHARACTERS = 16_384
_MAX_LIST_CHARACTERS = 65_535 * 65
_MAX_ELEMENTS = 1000


class WrongIdentifier(ValueError):
    """An identifier that does not fit its SOP class, with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an identifier asks. `above` are the values of the unique keys above its level, one each.

    `keys` are all keywords of the identifier with their values as text, "" for whatever it may be; backslashes part several. The
    attributes of items are named as in "RequestAttributesSequence.RequestedProcedureID".
    """

    level: QueryLevel
    above: dict[str, str]
    keys: dict[str, str]

    @property
    def uids(self) -> list[str]:
        """The values of the unique key of its level."""
        return [one for one in self.keys.get(UNIQUE[self.level], "").split("\\") if one]


def read(identifier: Dataset, root: Root) -> Asked:
    """WrongIdentifier for what is hierarchical in no way: what is unique above the level must be given, and be one."""
    levels = _LEVELS if root == "patient" else _LEVELS[1:]
    given = _text(identifier, "QueryRetrieveLevel").upper()
    level = next((one for one in levels if one == given), None)
    if level is None:
        raise WrongIdentifier(f"QueryRetrieveLevel is {given[:16]!r}, not one of {', '.join(levels)}")
    above = {UNIQUE[one]: _single(identifier, one, level) for one in levels[: levels.index(level)]}
    if len(identifier) > _MAX_ELEMENTS:
        raise WrongIdentifier(f"the identifier has more than {_MAX_ELEMENTS} attributes")
    return Asked(level=level, above=above, keys=dict(_keys(identifier)))


def _single(identifier: Dataset, of: QueryLevel, level: QueryLevel) -> str:
    """The value that is unique above the level."""
    keyword = UNIQUE[of]
    value = _text(identifier, keyword)
    if not value:
        raise WrongIdentifier(f"{keyword} is missing at {level} level")
    if of != "PATIENT" and not is_oid(value):
        raise WrongIdentifier(f"{keyword} must be one UID at {level} level")
    if of == "PATIENT" and set("*?\\") & set(value):
        raise WrongIdentifier(f"{keyword} must be one value at {level} level")
    return value


def _keys(identifier: Dataset) -> Iterator[tuple[str, str]]:
    for tag in identifier.keys():  # noqa: SIM118 - its iterator reads the elements
        if tag.element == 0:
            continue
        keyword = keyword_for_tag(tag) or f"{tag.group:04X}{tag.element:04X}"
        if keyword in ("QueryRetrieveLevel", "SpecificCharacterSet"):
            continue
        items = _items(identifier, keyword)
        if items is None:
            yield keyword, _text(identifier, keyword)
            continue
        yield keyword, ""
        for item in items[:1]:
            yield from ((f"{keyword}.{name}", value) for name, value in _keys_of_item(item))


def _keys_of_item(item: Dataset) -> Iterator[tuple[str, str]]:
    for tag in item.keys():  # noqa: SIM118 - as above
        keyword = keyword_for_tag(tag)
        if keyword and _items(item, keyword) is None:
            yield keyword, _text(item, keyword)


def _items(dataset: Dataset, keyword: str) -> list[Dataset] | None:
    """None for what is no sequence."""
    try:
        element = dataset[keyword]
        return list(element.value or ()) if element.VR == "SQ" else None
    except Exception:  # readers raise anything on hostile values; what it was does not matter to a search
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    """Its values as text."""
    if tag_for_keyword(keyword) is None:
        return ""
    try:
        value = dataset.get(keyword)
        text = "\\".join(map(str, value)) if isinstance(value, MultiValue) else str("" if value is None else value)
    except Exception:  # as above
        raise WrongIdentifier(f"{keyword} cannot be read") from None
    # No database takes half of a surrogate pair.
    text = text.strip(" \0").encode("utf-8", "replace").decode()
    most = _MAX_LIST_CHARACTERS if keyword in _UID_KEYWORDS else _MAX_VALUE_CHARACTERS
    if len(text) > most:
        raise WrongIdentifier(f"{keyword} has more than {most} characters")
    if any(one < " " for one in text):
        raise WrongIdentifier(f"{keyword} has control characters")
    return text
