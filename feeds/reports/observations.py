"""What a report says: its OBX segments as one text, one PDF or one CDA document (HL7 v2.5 2.7, 2.A.24, 7.4.2)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from feeds.hl7v2 import Refusal
from feeds.reports.fields import Segment, component, field, printable
from schemas import cda
from soap.envelope import parse_document
from soap.fault import SoapFault
from soap.operations import Limits
from xds.metadata import DocumentEntry
from xds.values import unescape_hl7

Kind = Literal["text", "pdf", "cda"]
_TEXTS = ("TX", "FT", "ST", "")
#: Measurements and codes, which become a line of the text.
_VALUES = ("NM", "SN", "CE", "CWE", "CF", "DT", "TM", "TS", "DTM")
_WITHDRAWN = ("D", "W", "X")
#: Observations that say which study it is, and nothing of it (PS3.16, DCM).
_STUDY = ("110180", "113014")
_MAX_TEXT_CHARS = 4 * 1024 * 1024
_MAX_DOCUMENTS = 8
_ESCAPE = re.compile(r"\\([^\\\r\n]{1,200})\\")
_BREAKS = re.compile(r"\\\.br\\|\\X(?:0D|0A)+\\|[ \t]", re.IGNORECASE)
_MARKUP = re.compile(r"\.(br|ce|sp|sk|in|ti|fi|nf)\s*\+?(-?\d{0,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The document, or the text in UTF-8. `header` is what a CDA document says of itself."""

    kind: Kind
    data: bytes
    header: DocumentEntry | None = None


def study_uids(observations: Sequence[Segment]) -> Iterator[str]:
    """The Study Instance UIDs that observations name."""
    for one in observations:
        if component(field(one, 3), 1) in _STUDY:
            yield component(field(one, 5), 1)


def content(observations: Sequence[Segment], *, codec: str) -> Content | None:
    """The content of a report; a CDA document goes before a PDF, and that before text. None where there is none.

    `codec` is that of the message. Refusal (AE) for what cannot be read, several documents of a kind, and a pointer to one.
    """
    told = _in_order(
        [
            (number, one)
            for number, one in enumerate(observations, 1)
            if field(one, 11) not in _WITHDRAWN and component(field(one, 3), 1) not in _STUDY
        ]
    )
    embedded = [(number, one) for number, one in told if field(one, 2) == "ED"]
    if len(embedded) > _MAX_DOCUMENTS:
        reason = f"the report has {len(embedded)} observations of type ED; the limit is {_MAX_DOCUMENTS}"
        raise Refusal("AE", reason, "OBX^1^2^102")
    documents = [_document(one, number, codec) for number, one in embedded]
    for kind in ("cda", "pdf"):
        found = [one for one in documents if one.kind == kind]
        if len(found) > 1:
            reason = f"the report has {len(found)} documents ({kind.upper()}, OBX-5); one is right"
            raise Refusal("AE", reason, "OBX^1^5^102")
        if found:
            return found[0]
    text = _text([one for _, one in told], [one.data.decode() for one in documents], codec)
    if not text and any(field(one, 2) == "RP" for _, one in told):
        raise Refusal(
            "AE", "the report is a pointer (OBX-2 RP), which is not followed: send what it says", "OBX^1^2^103"
        )
    return Content(kind="text", data=text.encode()) if text else None


def _in_order(told: list[tuple[int, Segment]]) -> list[tuple[int, Segment]]:
    """By OBX-1, where that is a different number in each; else as they came."""
    numbers = [int(field(one, 1)) if re.fullmatch(r"[0-9]{1,6}", field(one, 1)) else 0 for _, one in told]
    if 0 in numbers or len(set(numbers)) < len(numbers):
        return told
    return [pair for _, pair in sorted(zip(numbers, told, strict=True), key=lambda one: one[0])]


# --- text -------------------------------------------------------------------------------------------------------------


def _text(told: Sequence[Segment], embedded: list[str], codec: str) -> str:
    """The lines of all observations. Where OBX-3 changes, its name becomes a heading: an impression must not look like a finding."""
    headed = len({component(field(one, 3), 1) for one in told if field(one, 2) in _TEXTS}) > 1
    lines: list[str] = []
    size, heading = 0, ""
    for one in told:
        kind, value = field(one, 2), field(one, 5)
        if kind not in (*_TEXTS, *_VALUES, "ED"):
            continue
        size += len(value) if kind != "ED" else 0
        if size > _MAX_TEXT_CHARS:
            raise Refusal("AE", f"the text is longer than the limit of {_MAX_TEXT_CHARS} characters", "OBX^1^5^102")
        name = component(field(one, 3), 2)
        if kind in _VALUES:
            told_as = (
                component(value, 2) or component(value, 1) if kind in ("CE", "CWE", "CF") else value.replace("^", " ")
            )
            unit = component(field(one, 6), 1)
            lines.append(f"{name}: {formatted(told_as, codec)} {unit}".strip() if told_as else "")
            continue
        if headed and name and name != heading:
            lines.append(f"{name}:")
        heading = name
        lines += [embedded.pop(0)] if kind == "ED" else (formatted(line, codec) for line in value.split("~"))
    return printable("\n".join(lines)).replace("\r\n", "\n").replace("\r", "\n").rstrip()


def formatted(text: str, codec: str) -> str:
    """TX and FT with their escapes done: delimiters, hexadecimal data, line breaks and spaces; highlighting is left out (2.7)."""
    return _ESCAPE.sub(lambda found: _escaped(found[1], codec, found[0]), text)


def _escaped(sequence: str, codec: str, as_it_came: str) -> str:
    if (delimiter := unescape_hl7(as_it_came)) != as_it_came:
        return delimiter
    if sequence[0] in "XZCM" and sequence[1:].isalnum():
        # Other character sets and what a site has made up (C, M, Z) say nothing to us.
        return _hexadecimal(sequence[1:], codec, as_it_came) if sequence[0] == "X" else ""
    if sequence in ("H", "N"):
        return ""
    markup = _MARKUP.fullmatch(sequence)
    if markup is None:
        return as_it_came
    many = min(max(int(markup[2] or 1) if markup[2] != "-" else 1, 0), 10)
    return {"br": "\n", "ce": "\n", "sp": "\n" * many, "sk": " " * many}.get(markup[1], "")


def _hexadecimal(digits: str, codec: str, as_it_came: str) -> str:
    try:
        return bytes.fromhex(digits).decode(codec)
    except ValueError:
        return as_it_came


# --- documents --------------------------------------------------------------------------------------------------------


def _document(one: Segment, number: int, codec: str) -> Content:
    """Encapsulated data: source application, type, subtype, encoding and data (2.A.24)."""
    place = f"OBX^{number}^5"
    parts = field(one, 5).split("^")
    if len(parts) != 5 or not parts[4]:
        reason = f"OBX-5 of type ED has {len(parts)} components; source^type^subtype^encoding^data are right"
        raise Refusal("AE", reason, f"{place}^102")
    kind, subtype, encoding, data = (part.strip() for part in parts[1:])
    content = _decoded(data, encoding, place, codec)
    said = f"{kind}/{subtype}".lower()
    if b"%PDF-" in content[:1024]:
        return Content(kind="pdf", data=content)
    if "pdf" in said:
        raise Refusal("AE", f"OBX-5 is said to be {said[:80]}, and has not the beginning of a PDF", f"{place}^102")
    if "xml" in said or "cda" in said or b"ClinicalDocument" in content[: 64 * 1024]:
        return _cda(content, place)
    if kind.upper() in ("TEXT", "TX", "FT") and subtype.lower() in ("", "plain"):
        if len(content) > _MAX_TEXT_CHARS:
            raise Refusal("AE", f"the text is longer than the limit of {_MAX_TEXT_CHARS} bytes", f"{place}^102")
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        return Content(kind="text", data=printable(text).encode())
    raise Refusal("AE", f"OBX-5 is {said[:80]!r}; text, PDF and CDA are supported", f"{place}^103")


def _decoded(data: str, encoding: str, place: str, codec: str) -> bytes:
    try:
        if encoding.lower() == "base64":
            text = _BREAKS.sub("", data) if re.search(r"[\\ \t]", data) else data
            content = base64.b64decode(text, validate=True)
            if len(text) != (len(content) + 2) // 3 * 4:
                raise ValueError("something follows its end")
            return content
        if encoding.lower() == "hex":
            return bytes.fromhex(_BREAKS.sub("", data))
        if encoding.upper() in ("A", ""):
            return formatted(data, codec).encode(codec)
    except (ValueError, binascii.Error) as error:
        raise Refusal("AE", f"OBX-5 is not {encoding[:20]} as it says: {error}", f"{place}^102") from None
    raise Refusal("AE", f"the encoding {encoding[:20]!r} in OBX-5 is none of A, Hex, Base64", f"{place}^103")


def _cda(content: bytes, place: str) -> Content:
    try:
        root = parse_document(content, limits=Limits(envelope_bytes=max(len(content), 1)))
    except SoapFault as fault:
        raise Refusal("AE", f"OBX-5 cannot be read as CDA: {fault.reason}", f"{place}^102") from None
    if not cda.is_cda(root):
        raise Refusal("AE", f"OBX-5 is XML, but no ClinicalDocument of {cda.NAMESPACE}", f"{place}^103")
    return Content(kind="cda", data=content, header=cda.read_header(root))
