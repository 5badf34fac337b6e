"""The data types of ITI TF-3 Table 4.2.3.1.7-2. A value is the text that was on the wire, and it can say what is wrong with it.

A value never refuses to be made: the rules of the actor that receives it decide whether its `fault` is an error, a warning or
nothing, all faults of a message are told at once, and whatever is stored prints back unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo

_OID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_UUID = re.compile(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DTM = re.compile(r"[0-9]{4}([0-9]{2}){0,5}")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
_MIME_TYPE = re.compile(r"[^\s/;]+/[^\s/;]+(\s*;.*)?")
#: What is no text in XML 1.0 (2.2), and the three control characters that it could hold.
_NO_TEXT = re.compile("[\x00-\x1f\ud800-\udfff\ufffe\uffff]")
_SHA1 = re.compile(r"[0-9A-Fa-f]{40}")
_MAX_IDENTIFIER_CHARS = 256
_EARLIEST = "00000101000000"
_DTM_FIELDS = ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))
_ESCAPES = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_DELIMITERS = {escape[1]: character for character, escape in _ESCAPES.items()}
_ESCAPED = re.compile(r"\\([EFSTR])\\")
_TS = re.compile(r"([0-9]{4}(?:[0-9]{2}){0,5})(?:\.[0-9]+)?([+-][0-9]{4})?")
_TS_FORMS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 10: "%Y%m%d%H", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


def is_oid(text: str, *, max_chars: int = 64) -> bool:
    """Dotted decimal, first arc 0 to 2, at least two arcs, no leading zeros."""
    return len(text) <= max_chars and _OID.fullmatch(text) is not None


def is_uuid_urn(text: str) -> bool:
    """`urn:uuid:` and an RFC 4122 UUID in lower case."""
    return _UUID.fullmatch(text) is not None


def escape_hl7(text: str) -> str:
    """Text as it stands in a component of an HL7 v2 field: the delimiters escaped (HL7 v2.5 2.7)."""
    return "".join(_ESCAPES.get(character, character) for character in text)


def unescape_hl7(text: str) -> str:
    """The text of a component, the escapes of the delimiters undone; others stay as they are (HL7 v2.5 2.7)."""
    return _ESCAPED.sub(lambda found: _DELIMITERS[found[1]], text) if "\\" in text else text


def normal(text: str) -> str:
    """The form in which two strings are compared: Unicode NFC, case kept."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _not_text(text: str) -> str | None:
    return "holds a character that is no text" if _NO_TEXT.search(text) else None


def _authority_fault(authority: str) -> str | None:
    parts = authority.split("&")
    if len(parts) != 3 or parts[0] or parts[2] != "ISO" or not is_oid(parts[1]):
        return f"assigning authority {authority!r} is not of the form &OID&ISO"
    return None


class Value(str):
    """A string of a data type."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        """What is wrong with it, as the end of a sentence; None when nothing is."""
        return None


class Oid(Value):
    """An OID of at most 64 characters."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        return None if is_oid(self) else "is not an OID of at most 64 characters"


class OidUrn(Value):
    """homeCommunityId: `urn:oid:` and an OID."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        good = self.startswith("urn:oid:") and is_oid(self[8:])
        return None if good else "is not urn:oid: followed by an OID"


class UniqueId(Value):
    """DocumentEntry.uniqueId: an OID, OID^extension, a UUID URN or another URI, of at most 256 characters."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        if not self or len(self) > 256:
            return "is not an identifier of 1 to 256 characters"
        if any(ord(character) < 0x20 for character in self):
            return "holds a control character"
        return None


class Identifier(Value):
    """CX: `id^^^&OID&ISO`."""

    __slots__ = ()

    @classmethod
    def of(cls, identifier: str, authority: str) -> Identifier:
        """From an identifier and the OID of its assigning authority."""
        return cls(f"{escape_hl7(identifier)}^^^&{authority}&ISO")

    @property
    def identifier(self) -> str:
        return self.split("^", 1)[0]

    @property
    def authority(self) -> str:
        """The OID of the assigning authority, or ""."""
        parts = self.split("^")
        authority = parts[3].split("&") if len(parts) > 3 else []
        return authority[1] if len(authority) > 1 else ""

    @property
    def fault(self) -> str | None:
        parts = self.split("^")
        if len(parts) != 4 or not parts[0] or parts[1] or parts[2]:
            return "is not of the form id^^^&OID&ISO"
        return _not_text(self) or _authority_fault(parts[3])

    @property
    def unkeepable(self) -> str | None:
        """Why no registry could keep it, whatever its form, as the end of a sentence: HL7 v2 can say more than XML can."""
        if len(self) > _MAX_IDENTIFIER_CHARS:
            return f"has {len(self)} characters; {_MAX_IDENTIFIER_CHARS} are allowed"
        return _not_text(self)


class ReferenceId(Value):
    """CXi of referenceIdList: `id^^^&OID&ISO^typeCode`, the authority being optional for identifiers that are unique by themselves."""

    __slots__ = ()

    @classmethod
    def of(cls, identifier: str, type_code: str, authority: str | None = None) -> ReferenceId:
        """`authority` is the OID of the assigning authority, or None."""
        return cls(f"{escape_hl7(identifier)}^^^{f'&{authority}&ISO' if authority else ''}^{type_code}")

    @property
    def type_code(self) -> str:
        parts = self.split("^")
        return parts[4] if len(parts) > 4 else ""

    @property
    def fault(self) -> str | None:
        parts = self.split("^")
        if len(parts) < 5 or not parts[0] or not parts[4]:
            return "is not of the form id^^^authority^typeCode"
        namespace, *rest = parts[3].split("&")
        if parts[3] and (len(rest) != 2 or rest[1] != "ISO" or not is_oid(rest[0])):
            return f"assigning authority {parts[3]!r} of {namespace or 'no namespace'} is not of the form &OID&ISO"
        return None


class Person(Value):
    """XCN: `id^family^given^middle^suffix^prefix^degree^^&OID&ISO`."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        parts = self.split("^")
        if not parts[0] and (len(parts) < 2 or not parts[1]):
            return "has neither an identifier (XCN.1) nor a family name (XCN.2)"
        if len(parts) > 8 and parts[8]:
            return _authority_fault(parts[8])
        return None


class Organization(Value):
    """XON: `name^^^^^&OID&ISO^^^^id`."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        parts = self.split("^")
        if not parts[0]:
            return "has no organization name (XON.1)"
        identifier = parts[9] if len(parts) > 9 else ""
        authority = parts[5] if len(parts) > 5 else ""
        if identifier and not is_oid(identifier) and not authority:
            return f"has the identifier {identifier!r} (XON.10), no OID, without an assigning authority (XON.6)"
        if authority:
            return _authority_fault(authority)
        return None


class Telecommunication(Value):
    """XTN: a telephone number in components 3 to 7 and 12, or `^^Internet^address`."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        parts = [*self.split("^"), *[""] * 12]
        if any((parts[3], parts[6], parts[11])):
            return None
        return "has neither an address (XTN.4) nor a local number (XTN.7) nor an unformatted number (XTN.12)"


class Recipient(Value):
    """intendedRecipient: `XON|XCN|XTN`, at least one of them."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        parts = self.split("|")
        if len(parts) > 3 or not any(parts):
            return "is not of the form organization|person|telecommunication"
        checks = zip((Organization, Person, Telecommunication), parts, strict=False)
        return next((fault for kind, part in checks if part and (fault := kind(part).fault)), None)


class Timestamp(Value):
    """DTM: `YYYY[MM[DD[hh[mm[ss]]]]]`, in UTC."""

    __slots__ = ()

    @classmethod
    def at(cls, moment: datetime) -> Timestamp:
        """From an aware datetime, to the second."""
        return cls(moment.astimezone(UTC).strftime("%Y%m%d%H%M%S"))

    @classmethod
    def of_hl7(cls, text: str, zone: tzinfo | None = None) -> Timestamp | None:
        """A TS of HL7 v2 or v3 in UTC; None for what is none.

        Where it has no offset it is of `zone`. Without that, and without a time of day, it is taken as it is.
        """
        found = _TS.fullmatch(text)
        made = None if found is None else cls(found[1])
        if found is None or made is None or made.fault:
            return None
        digits, offset = found[1], found[2]
        if len(digits) < 10:
            return made
        if offset is not None:
            size = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
            if size >= timedelta(hours=24):
                return None
            zone = timezone(-size if offset[0] == "-" else size)
        if zone is None:
            return made
        form = _TS_FORMS[len(digits)] if len(digits) > 10 else _TS_FORMS[12]
        try:
            moment = datetime.strptime(digits, _TS_FORMS[len(digits)]).replace(tzinfo=zone)
            return cls(moment.astimezone(UTC).strftime(form))
        except (ValueError, OverflowError):
            return None

    @property
    def earliest(self) -> str:
        """14 digits: the first moment of the period that it names, for comparison. 2024 is 20240101000000."""
        return self + _EARLIEST[len(self) :]

    @property
    def fault(self) -> str | None:
        if _DTM.fullmatch(self) is None:
            return "is not a time of 4, 6, 8, 10, 12 or 14 digits"
        digits = self.earliest
        try:
            # Second 60 is a leap second, which datetime does not know.
            year, month, day, hour, minute, second = (int(digits[start:end]) for start, end in _DTM_FIELDS)
            datetime(year, month, day, hour, minute, 59 if second == 60 else second)
        except ValueError:
            return "is not a moment of the calendar"
        return None


class LanguageCode(Value):
    """RFC 5646."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        return None if _LANGUAGE.fullmatch(self) else "is not a language tag of RFC 5646"


class MimeType(Value):
    __slots__ = ()

    @property
    def fault(self) -> str | None:
        return None if _MIME_TYPE.fullmatch(self) else "is not a MIME type"


class Sha1(Value):
    """DocumentEntry.hash: SHA-1 in 40 hexadecimal digits of either case."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        return None if _SHA1.fullmatch(self) else "is not a SHA-1 of 40 hexadecimal digits"


class Size(Value):
    """DocumentEntry.size: bytes, in decimal digits."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        good = self.isascii() and self.isdigit() and len(self) <= 19 and int(self) < 2**63
        return None if good else "is not a number of bytes from 0 to 2^63-1"


class PidField(Value):
    """One value of sourcePatientInfo: `PID-n|value`."""

    __slots__ = ()

    @property
    def fault(self) -> str | None:
        return None if re.match(r"PID-[0-9]{1,2}\|", self) else "is not of the form PID-n|value"


@dataclass(frozen=True, slots=True)
class LocalizedString:
    """One text in one language (ebRIM 3.0 2.2.1). None where the attribute was not given."""

    value: str
    lang: str | None = None
    charset: str | None = None


class Text(tuple[LocalizedString, ...]):
    """Name or Description: the same text in one or more languages. IHE reads the first; all are kept and given back."""

    __slots__ = ()

    @classmethod
    def of(cls, text: str, lang: str | None = None) -> Text:
        return cls((LocalizedString(text, lang),))

    def __str__(self) -> str:
        return self[0].value if self else ""


@dataclass(frozen=True, slots=True)
class Code:
    """A coded value: code and coding scheme are its identity, the display name is for people only (ITI TF-3 4.2.3.1.2)."""

    code: str
    scheme: str
    display: Text = Text()

    @classmethod
    def of(cls, code: str, scheme: str, display: str) -> Code:
        return cls(code, scheme, Text.of(display))

    @property
    def key(self) -> str:
        """`code^^scheme`, the form of a stored query's parameter."""
        return f"{self.code}^^{self.scheme}"
