"""Fields of HL7 v2 segments and their data types: text, identifiers, codes, persons (HL7 v2.5 2.A)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feeds.hl7v2 import NULL, Refusal
from xds.values import is_oid, unescape_hl7

Segment = Sequence[str]
"""The fields of a segment; the index is the number of the field."""

_MAX_REPETITIONS = 32
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """An EI or CX without its escapes. Who has given the number is a namespace or an OID, or both; "" is none.

    A universal id that is no OID is part of the namespace, `namespace&id&type`.
    """

    identifier: str
    namespace: str = ""
    authority: str = ""
    kind: str = ""

    @property
    def key(self) -> str:
        return "^".join((self.identifier, self.namespace, self.authority))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coded:
    """A CE: the code, its text, and the coding system's name in HL7 table 0396."""

    code: str
    text: str = ""
    system: str = ""


def field(segment: Segment, number: int) -> str:
    """The field as it came, "" where there is none or it is the null of HL7 v2."""
    value = segment[number] if len(segment) > number else ""
    return "" if value == NULL else value


def component(value: str, number: int) -> str:
    """One component, counted from 1, of the first repetition of a field, its escapes undone."""
    parts = value.split("~", 1)[0].split("^", number)
    return plain(parts[number - 1]) if len(parts) >= number else ""


def plain(value: str) -> str:
    """A component without escapes and without white space around it."""
    return unescape_hl7(value.strip()) if value.strip() != NULL else ""


def printable(text: str) -> str:
    """What XML can hold of a text: other characters become U+FFFD."""
    return _NO_XML.sub("\ufffd", text)


def numbers(*values: str) -> tuple[Number, ...]:
    """Each EI or CX of the repetitions of fields, once."""
    found: dict[Number, None] = {}
    for value in values:
        repetitions = value.split("~", _MAX_REPETITIONS)
        if len(repetitions) > _MAX_REPETITIONS:
            reason = f"a field of identifiers has more than the limit of {_MAX_REPETITIONS} repetitions"
            raise Refusal("AE", reason, "PID^1^3^102")
        for one in repetitions:
            if made := number(one):
                found[made] = None
    return tuple(found)


def number(value: str) -> Number | None:
    """EI (id^namespace^OID^ISO), or CX (id^^^namespace&OID&ISO^type)."""
    parts = [*value.split("^"), "", "", "", "", ""]
    if not (identifier := plain(parts[0])):
        return None
    if "&" in parts[3] or (parts[3] and not (parts[1] or parts[2])):
        namespace, authority, scheme = [*parts[3].split("&"), "", ""][:3]
    else:
        namespace, authority, scheme = parts[1], parts[2], parts[3]
    namespace, authority, scheme = plain(namespace), plain(authority), plain(scheme)
    if authority and not (is_oid(authority) and scheme in ("", "ISO")):
        namespace, authority = f"{namespace}&{authority}&{scheme}", ""
    return Number(identifier=identifier, namespace=namespace, authority=authority, kind=plain(parts[4]))


def coded(*values: str) -> Iterator[Coded]:
    """The codes of a CE, and its alternates."""
    for value in values:
        parts = [plain(one) for one in [*value.split("~", 1)[0].split("^"), *[""] * 6][:6]]
        for code, text, system in (parts[:3], parts[3:]):
            if code:
                yield Coded(code=code, text=text, system=system)


def name(xpn: str) -> str:
    """Family, given, further given names, suffix and prefix, as in PID-5 of sourcePatientInfo."""
    parts = [*xpn.split("~", 1)[0].split("^"), *[""] * 5][:5]
    return "^".join([parts[0].split("&")[0], *parts[1:]]).rstrip("^ ")


def interpreter(ndl: str) -> str:
    """XCN of OBR-32, whose first component is a name in subcomponents; some senders write an XCN."""
    value = ndl.split("~", 1)[0]
    called, _, rest = value.partition("^")
    if "&" not in called and rest and not re.match(r"[0-9]{8}", rest) and rest.strip("^"):
        return person_of(value)
    parts = [*called.split("&"), *[""] * 10]
    return person(parts[:6], parts[9])


def person_of(xcn: str) -> str:
    parts = [*xcn.split("~", 1)[0].split("^"), *[""] * 9]
    return person(parts[:6], [*parts[8].split("&"), ""][1])


def person(parts: Sequence[str], authority: str) -> str:
    """id, family, given, further given names, suffix and prefix as XCN; the id's authority where it is an OID."""
    told = ["" if (one := part.split("&")[0].strip()) == NULL else one for part in parts]
    if not (told[0] or told[1]):
        return ""
    qualified = f"&{authority}&ISO" if told[0] and is_oid(authority) else ""
    return "^".join([*told, "", "", qualified]).rstrip("^")
