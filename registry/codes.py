"""The codes that an affinity domain knows, their TOML file, and the rule that nothing else is submitted (ITI TF-3 4.2.3.1.2).

What has no set of codes here is not checked. Display names are for people and are never compared.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.wording import fault, named, shown
from schemas.attributes import TABLES, Coded, Kind, camel_case
from schemas.rim import kind_of
from xds.metadata import Submission
from xds.problems import Problem
from xds.values import Code, normal

MIME_TYPE = "mimeType"
#: attribute, codingScheme, code, display name. The codingScheme of a MIME type is "".
Entry = tuple[str, str, str, str]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_HEAD = """\
# The codes that this affinity domain knows. An attribute that is left out is not checked.
# [attribute."codingScheme"]
# code = "display name"
"""


def _name(attribute_field: str) -> str:
    """IHE's name of a coded attribute; that of an Association is called as administrators' files call it."""
    return "associationDocumentation" if attribute_field == "documentation" else camel_case(attribute_field)


#: The coded attributes of each class: the field, and its name in IHE's words.
_CODED: Mapping[Kind, tuple[tuple[str, str], ...]] = {
    kind: tuple((one, _name(one)) for one, row in table.items() if isinstance(row, Coded))
    for kind, table in TABLES.items()
}
#: Each coded attribute that can be checked, with the UUID of its classification scheme.
ATTRIBUTES: Mapping[str, str] = {
    _name(one): row.scheme for table in TABLES.values() for one, row in table.items() if isinstance(row, Coded)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """The known codes: attribute -> codingScheme -> code -> display name; and the MIME types, in lower case.

    Made by `Codes.of`, which checks; texts are in Unicode NFC (ITI TF-3 4.2.3.1.7).
    """

    sets: Mapping[str, Mapping[str, Mapping[str, str]]] = field(default_factory=dict)
    mime_types: frozenset[str] = frozenset()

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Codes:
        """From entries in any order; of two for the same code the first gives the display name.

        ValueError for an attribute that is not coded, and for an empty code or codingScheme.
        """
        sets: dict[str, dict[str, dict[str, str]]] = {}
        mime_types: set[str] = set()
        for attribute, scheme, code, display in entries:
            check_attribute(attribute)
            if not code:
                raise ValueError(f"{attribute}: a code of codingScheme {shown(scheme)} is empty")
            if any(_SURROGATE.search(text) for text in (scheme, code, display)):
                raise ValueError(f"{attribute}: {shown(code)} is not Unicode text")
            if attribute == MIME_TYPE:
                mime_types.add(code.lower())
                continue
            if not scheme:
                raise ValueError(f"{attribute}: the code {shown(code)} has no codingScheme")
            known = sets.setdefault(attribute, {}).setdefault(normal(scheme), {})
            known.setdefault(normal(code), " ".join(display.split()))
        return cls(sets=sets, mime_types=frozenset(mime_types))

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that have a set, MIME types first."""
        coded = tuple(one for one in ATTRIBUTES if one in self.sets)
        return (MIME_TYPE, *coded) if self.mime_types else coded

    def entries(self) -> Iterator[Entry]:
        """All of them, as `of` takes them: attributes and MIME types in a fixed order, the rest as it was given."""
        for mime_type in sorted(self.mime_types):
            yield MIME_TYPE, "", mime_type, ""
        for attribute in ATTRIBUTES:
            for scheme, codes in self.sets.get(attribute, {}).items():
                for code, display in codes.items():
                    yield attribute, scheme, code, display

    def merged(self, other: Codes) -> Codes:
        """The codes of both; where both know a code, the display name is this one's."""
        return Codes.of((*self.entries(), *other.entries()))

    def count(self, attribute: str) -> int:
        """How many codes are known for an attribute, in all schemes."""
        if attribute == MIME_TYPE:
            return len(self.mime_types)
        return sum(map(len, self.sets.get(attribute, {}).values()))

    def reason_against(self, attribute: str, code: str, scheme: str = "") -> str | None:
        """Why a code is not one of the attribute's, as the end of a sentence; None when it is, or when there is no set."""
        if attribute == MIME_TYPE:
            return self._reason_against_mime_type(code)
        schemes = self.sets.get(attribute)
        if schemes is None:
            return None
        code, scheme = normal(code), normal(scheme)
        of_scheme = schemes.get(scheme, {})
        if code in of_scheme:
            return None
        elsewhere = [other for other, known in schemes.items() if code in known]
        hint = f"; {shown(code)} is known of codingScheme {', '.join(map(shown, elsewhere[:3]))}" if elsewhere else ""
        return (
            f"{shown(code)} of codingScheme {shown(scheme)} is not known; this affinity domain knows"
            f" {_number(self.count(attribute), 'code')} for {attribute}, {len(of_scheme)} of them of that scheme{hint}"
        )

    def _reason_against_mime_type(self, mime_type: str) -> str | None:
        """Type and subtype have no case, and parameters only describe the same type (RFC 2045 5.1)."""
        lower = mime_type.lower()
        if not self.mime_types or lower in self.mime_types or lower.partition(";")[0].strip() in self.mime_types:
            return None
        return (
            f"{shown(mime_type)} is not known; this affinity domain knows {_number(len(self.mime_types), 'MIME type')}"
        )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def check_attribute(attribute: str) -> None:
    """ValueError, with the name that was probably meant, for an attribute that is not coded."""
    known = (MIME_TYPE, *ATTRIBUTES)
    if attribute not in known:
        near = difflib.get_close_matches(attribute[:100], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
        raise ValueError(f"there is no coded attribute {shown(attribute)}{hint}")


def codes_are_known(submission: Submission, codes: Codes) -> Iterator[Problem]:
    """Each code of each object, and the MIME type, is of the affinity domain's set, where it has one (ITI TF-3 4.2.3.1.2)."""
    for one in submission.objects:
        for attribute_field, attribute in _CODED[kind_of(one)]:
            value = getattr(one, attribute_field)
            for code in value if isinstance(value, tuple) else (value,):
                if isinstance(code, Code) and (reason := codes.reason_against(attribute, code.code, code.scheme)):
                    yield fault(f"{named(one)}: {attribute} {reason}")
    for entry in submission.document_entries:
        if entry.mime_type and (reason := codes.reason_against(MIME_TYPE, entry.mime_type)):
            yield fault(f"{named(entry)}: {MIME_TYPE} {reason}")


# --- the file ---------------------------------------------------------------------------------------------------------


def load(path: Path) -> Codes:
    """The codes of a TOML file. ValueError, with file, attribute and reason, for whatever cannot be used."""
    try:
        return Codes.of(_entries(tomllib.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _entries(content: Mapping[str, object]) -> Iterator[Entry]:
    for attribute, value in content.items():
        check_attribute(attribute)
        if attribute == MIME_TYPE:
            if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
                raise ValueError(f"{MIME_TYPE} is {shown(value)}; it must be a list of MIME types, of one at least")
            yield from ((MIME_TYPE, "", one, "") for one in value)
            continue
        for scheme, codes in _table(value, attribute, "codingSchemes"):
            where = f"{attribute} of codingScheme {shown(scheme)}"
            for code, display in _table(codes, where, "codes"):
                if isinstance(display, dict):
                    raise ValueError(
                        f'{where}: {shown(code)} is a table; write the scheme in quotes, as [{attribute}."1.2.3"]'
                    )
                if not isinstance(display, str):
                    raise ValueError(f"{where}: the display name of {shown(code)} is {shown(display)}; it must be text")
                yield attribute, scheme, code, display


def _table(value: object, where: str, what: str) -> Iterable[tuple[str, object]]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {shown(value)}; it must be a table of {what}")
    if not value:
        raise ValueError(f"{where} has no {what}, so that none would be accepted; leave it out to check nothing")
    return value.items()


def to_toml(codes: Codes) -> str:
    """The file that `load` reads to the same codes."""
    lines = [_HEAD]
    if codes.mime_types:
        lines += [f"{MIME_TYPE} = [", *(f"    {_quoted(one)}," for one in sorted(codes.mime_types)), "]\n"]
    for attribute in ATTRIBUTES:
        for scheme, known in codes.sets.get(attribute, {}).items():
            lines.append(f"[{attribute}.{_quoted(scheme)}]")
            lines += [f"{_key(code)} = {_quoted(display)}" for code, display in known.items()]
            lines.append("")
    return "\n".join(lines)


def _key(code: str) -> str:
    return code if _BARE_KEY.fullmatch(code) else _quoted(code)


def _quoted(text: str) -> str:
    """A basic string of TOML 1.0: JSON's, but that JSON lets DEL stand."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))
