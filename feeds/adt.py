"""HL7 v2 ADT messages to patient events, and the acknowledgement of each (ITI TF-2 3.8; ITI-64)."""

from __future__ import annotations

import codecs
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import hl7

from xds.patients import LinkChanged, PatientAdded, PatientEvent, PatientsMerged
from xds.problems import ErrorCode, Failure
from xds.transactions import Feed
from xds.values import Identifier, escape_hl7

_log = logging.getLogger("xdsi.feeds")
_ADDED, _REVISED, _MERGED, _LINKED = ("A01", "A04", "A05"), ("A08",), ("A40",), ("A43",)
_EVENTS = (*_ADDED, *_REVISED, *_MERGED, *_LINKED)
#: Of a message only these are read, and to this field; whatever else it holds costs nothing.
_LAST_FIELD = {"PID": 3, "MRG": 1}
_MAX_SEGMENT_CHARS = 16 * 1024
#: The library makes objects for each: 32 repetitions of a CX with all its components and subcomponents have fewer.
_MAX_DELIMITERS = 1000
_MAX_REPETITIONS = 32
_SEPARATORS = "|^~\\&"
#: HL7 v2's way of saying that a field is empty (2.5 2.5.3).
_NULL = '""'
#: What may be gone when the sender tries again: AR, "system temporarily unable", and not AE.
TEMPORARY = frozenset({ErrorCode.REGISTRY_BUSY, ErrorCode.REGISTRY_NOT_AVAILABLE, ErrorCode.REGISTRY_OUT_OF_RESOURCES})
_CHARSETS = {"": "", "ASCII": "ascii", "UNICODE UTF-8": "utf-8", "UNICODE": "utf-8", "UTF-8": "utf-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Who assigns patient ids: a namespace, which may be "", and an OID."""

    universal_id: str
    namespace: str = ""


class Refusal(Exception):
    """A message that is not accepted: MSA-1, MSA-3, and where the fault is, as ERR-1 (segment^sequence^field^code)."""

    def __init__(self, code: str, text: str, place: str) -> None:
        super().__init__(text)
        self.code, self.text, self.place = code, text, place


def answer(
    message: bytes,
    *,
    feed: Feed,
    authorities: Sequence[Authority],
    now: Callable[[], datetime],
    new_control_id: Callable[[], str],
    answered: Callable[[str, str], None] = lambda event, code: None,
) -> bytes:
    """The acknowledgement of a message, which has been told to the feed if it says AA.

    `answered` is told the event ("A40"; "message" where it is none of ours) and the code ("AA").
    Without `authorities` every patient id with an OID is one of ours. AE is for what the message says, AR for what it is (3.8.4.1).
    """
    msh = _header(message)
    try:
        text = _decoded(message, msh)
        lines = [line for line in re.split(r"[\r\n]", text) if line]
        msh = _split(lines[0]) if msh else msh
        _check_header(msh)
        for event in _events(_parsed(lines), _event_of(msh), authorities):
            _tell(event, feed)
        code, reason, place = "AA", "", ""
    except Refusal as refusal:
        code, reason, place = refusal.code, refusal.text, refusal.place
    except Exception:
        number = uuid.uuid4()
        _log.exception("incident %s in ITI-8", number)
        code, reason, place = "AR", f"internal error; the log has it as incident {number}", "MSH^1^9^207"
    event_name = _event_of(msh) if _event_of(msh) in _EVENTS else "message"
    _log.info("%s %s: %s", event_name, _printable(_field(msh, 10)), code)
    answered(event_name, code)
    return _acknowledgement(msh, code, reason, place, moment=now(), control_id=new_control_id())


# --- the message ------------------------------------------------------------------------------------------------------


def _header(message: bytes) -> list[str]:
    """The fields of MSH, before it is known in which character set they are."""
    return _split(re.split(rb"[\r\n]", message.lstrip(b"\r\n"), maxsplit=1)[0][:_MAX_SEGMENT_CHARS].decode("latin-1"))


def _decoded(message: bytes, msh: Sequence[str]) -> str:
    """The text, in the character set that MSH-18 names; without one, in UTF-8 or else Latin-1."""
    named = _charset(msh)
    codec = _codec(named)
    if codec is None:
        raise Refusal("AE", f"the character set {named[:40]} (MSH-18) is not supported", "MSH^1^18^103")
    for one in (codec,) if codec else ("utf-8", "latin-1"):
        try:
            return message.decode(one)
        except UnicodeDecodeError:
            continue
    raise Refusal("AE", f"the message is not in the character set {named} of MSH-18", "MSH^1^18^102")


def _charset(msh: Sequence[str]) -> str:
    return _field(msh, 18).split("~")[0].strip().upper()


def _codec(charset: str) -> str | None:
    """Python's name of a character set of HL7 table 0211; "" where none is named, None for an unknown one."""
    if charset in _CHARSETS:
        return _CHARSETS[charset]
    match = re.fullmatch(r"8859/([0-9]{1,2})", charset)
    try:
        return codecs.lookup(f"iso8859-{match[1]}").name if match else None
    except LookupError:
        return None


def _split(line: str) -> list[str]:
    """MSH as a list in which the index is the number of the field."""
    if not line.startswith("MSH") or len(line) < 4:
        return []
    fields = line.split(line[3], 30)
    return [fields[0], line[3], *fields[1:]]


def _field(msh: Sequence[str], number: int) -> str:
    return msh[number] if len(msh) > number else ""


def _parsed(lines: Sequence[str]) -> hl7.Message:
    """MSH, PID and MRG to the last field that is read, each once: the library takes microseconds for each delimiter."""
    kept = [lines[0]]
    for name, last in _LAST_FIELD.items():
        found = [line for line in lines if line[:4] == f"{name}|"]
        if len(found) > 1:
            raise Refusal("AE", f"the segment {name} is there {len(found)} times; once is right", f"{name}^2^0^100")
        kept += ["|".join(line.split("|", last + 1)[: last + 1]) for line in found]
    for line in kept:
        if len(line) > _MAX_SEGMENT_CHARS:
            limit = f"is longer than the limit of {_MAX_SEGMENT_CHARS} characters"
            raise Refusal("AR", f"the segment {line[:3]} {limit}", f"{line[:3]}^1^1^102")
        if (delimiters := sum(map(line.count, _SEPARATORS))) > _MAX_DELIMITERS:
            limit = f"has {delimiters} separators in the fields that are read; the limit is {_MAX_DELIMITERS}"
            raise Refusal("AE", f"the segment {line[:3]} {limit}", f"{line[:3]}^1^1^102")
    if any(line.startswith("MSH|") for line in lines[1:]):
        raise Refusal("AE", "the frame has a second segment MSH; each message needs one of its own", "MSH^2^0^100")
    return hl7.parse("\r".join(kept))


def _event_of(msh: Sequence[str]) -> str:
    parts = _field(msh, 9).split("^")
    return parts[1] if len(parts) > 1 else ""


def _check_header(msh: Sequence[str]) -> None:
    if not msh:
        raise Refusal("AR", "the message does not begin with the segment MSH", "MSH^1^1^100")
    if _field(msh, 1) + _field(msh, 2) != _SEPARATORS:
        raise Refusal("AR", f"the separators (MSH-1, MSH-2) are not {_SEPARATORS}", "MSH^1^2^102")
    kind, event = _field(msh, 9).split("^")[0], _event_of(msh)
    if kind != "ADT":
        raise Refusal("AR", f"the message type {kind[:20]!r} is not supported; ADT is", "MSH^1^9^200")
    if event not in _EVENTS:
        raise Refusal("AR", f"the event {event[:20]!r} is not supported; {', '.join(_EVENTS)} are", "MSH^1^9^201")
    if not _field(msh, 10):
        raise Refusal("AE", "the message control id (MSH-10) is missing", "MSH^1^10^101")
    if _field(msh, 11).split("^")[0] not in ("P", "T", "D"):
        raise Refusal("AR", f"the processing id {_field(msh, 11)[:20]!r} is none of P, T, D", "MSH^1^11^202")
    if not re.fullmatch(r"2(\.\d){0,2}", _field(msh, 12).split("^")[0]):
        raise Refusal("AR", f"the version {_field(msh, 12)[:20]!r} is not supported; 2.3.1 is", "MSH^1^12^203")


# --- events -----------------------------------------------------------------------------------------------------------


def _events(message: hl7.Message, event: str, authorities: Sequence[Authority]) -> Iterator[PatientEvent]:
    pid = _segment(message, "PID")
    if event in _REVISED:
        return
    ours, others = _identifiers(pid, 3, "PID", authorities)
    if event in _ADDED:
        yield from (PatientAdded(patient_id=one) for one in ours)
        return
    if event in _LINKED and not authorities:
        reason = (
            "no assigning authority is configured: a local patient id cannot be told from one of this affinity domain"
        )
        raise Refusal("AE", reason, "PID^1^3^204")
    mrg = _segment(message, "MRG")
    prior, prior_others = _identifiers(mrg, 1, "MRG", authorities)
    surviving, subsumed = _one(ours, "PID", 3), _one(prior, "MRG", 1)
    if event in _MERGED:
        yield PatientsMerged(surviving=surviving, subsumed=subsumed)
        return
    yield LinkChanged(
        patient_id=surviving,
        source_patient_id=_one(others, "PID", 3, "of a local authority"),
        old_patient_id=subsumed,
        old_source_patient_id=_one(prior_others, "MRG", 1, "of a local authority"),
    )


def _segment(message: hl7.Message, name: str) -> hl7.Segment:
    for segment in message:
        if str(segment[0]) == name:
            return segment
    raise Refusal("AE", f"the segment {name} is missing", f"{name}^1^0^100")


def _one(ids: Sequence[Identifier], segment: str, field: int, kind: str = "of this affinity domain") -> Identifier:
    place = f"{segment}^1^{field}"
    if not ids:
        raise Refusal("AE", f"{segment}-{field} has no identifier {kind}", f"{place}^204")
    if len(ids) > 1:
        raise Refusal("AE", f"{segment}-{field} has {len(ids)} identifiers {kind}; one is right", f"{place}^102")
    return ids[0]


def _identifiers(
    segment: hl7.Segment, field: int, name: str, authorities: Sequence[Authority]
) -> tuple[list[Identifier], list[Identifier]]:
    """The identifiers of this affinity domain, and those of others, each once."""
    text = str(segment[field]) if len(segment) > field else ""
    repetitions = text.split("~")
    if all(_number(one) is None for one in repetitions):
        raise Refusal("AE", f"{name}-{field} is missing", f"{name}^1^{field}^101")
    if len(repetitions) > _MAX_REPETITIONS:
        reason = f"{name}-{field} has {len(repetitions)} repetitions; the limit is {_MAX_REPETITIONS}"
        raise Refusal("AE", reason, f"{name}^1^{field}^102")
    ours: dict[Identifier, None] = {}
    others: dict[Identifier, None] = {}
    for repetition in filter(None, repetitions):
        identifier, is_ours = _identifier(repetition, f"{name}-{field}", f"{name}^1^{field}", authorities)
        if identifier is not None:
            (ours if is_ours else others)[identifier] = None
    return list(ours), list(others)


def _number(cx: str) -> str | None:
    """CX.1; None where there is none."""
    number = cx.split("^", 1)[0].strip()
    return None if number in ("", _NULL) else number


def _identifier(cx: str, field: str, place: str, authorities: Sequence[Authority]) -> tuple[Identifier | None, bool]:
    """A CX as `id^^^&OID&ISO`, and whether it is of this domain. What authority 4 leaves out is filled in (3.8.4.1.3)."""
    number = _number(cx)
    if number is None:
        return None, False
    namespace, universal_id, kind = [*[*cx.split("^"), "", "", ""][3].split("&"), "", ""][:3]
    if not namespace and not universal_id:
        if not authorities:
            raise Refusal(
                "AE", f"{field} {number[:40]} has no assigning authority, and none is configured", f"{place}^101"
            )
        universal_id, known = authorities[0].universal_id, True
    elif not universal_id:
        match = [one.universal_id for one in authorities if one.namespace and one.namespace == namespace]
        if not match:
            return None, False
        universal_id, known = match[0], True
    else:
        if kind not in ("", "ISO"):
            return None, False
        known = not authorities or any(one.universal_id == universal_id for one in authorities)
    identifier = Identifier(f"{number}^^^&{universal_id}&ISO")
    if (fault := identifier.unkeepable or identifier.fault) is not None:
        if not known:
            return None, False
        raise Refusal("AE", f"{field} {str(identifier)[:80]} {fault}", f"{place}^102")
    return identifier, known


# --- the acknowledgement ----------------------------------------------------------------------------------------------


def _tell(event: PatientEvent, feed: Feed) -> None:
    """Refusal where the feed refuses it."""
    try:
        feed(event)
    except Failure as failure:
        codes = {one.code for one in failure.problems}
        reason = "; ".join(one.context for one in failure.problems)
        field = _refused_field(event, reason)
        if codes & {ErrorCode.UNKNOWN_PATIENT_ID, ErrorCode.PATIENT_ID_RECONCILIATION_ERROR}:
            raise Refusal("AE", reason, f"{field}^204") from None
        if ErrorCode.REGISTRY_METADATA_ERROR in codes:
            raise Refusal("AE", reason, f"{field}^102") from None
        raise Refusal("AR" if codes & TEMPORARY else "AE", reason, f"{field}^207") from None


def _refused_field(event: PatientEvent, reason: str) -> str:
    """The field at fault: of a merge, that of the id which the reason names first."""
    if isinstance(event, PatientsMerged):
        surviving, subsumed = _position(event.surviving, reason), _position(event.subsumed, reason)
        if surviving < 0 or 0 <= subsumed < surviving:
            return "MRG^1^1"
    return "PID^1^3"


def _position(identifier: Identifier, reason: str) -> int:
    """Where a text names an id, plainly or as Python quotes it; -1 where it does not."""
    return max(reason.find(identifier), reason.find(repr(str(identifier))))


def _acknowledgement(
    msh: Sequence[str], code: str, reason: str, place: str, *, moment: datetime, control_id: str
) -> bytes:
    """MSH with sender and receiver exchanged, MSA, and ERR where something is wrong."""
    event = _event_of(msh)
    header = [
        "MSH",
        _SEPARATORS[1:],
        *(_echo(msh, number) for number in (5, 6, 3, 4)),
        moment.astimezone(UTC).strftime("%Y%m%d%H%M%S"),
        "",
        f"ACK^{event}" if re.fullmatch(r"[A-Z][A-Z0-9]{2}", event) else "ACK",
        control_id,
        _echo(msh, 11) or "P",
        _echo(msh, 12) or "2.3.1",
    ]
    msa = ["MSA", code, _echo(msh, 10), escape_hl7(_printable(reason, 400))]
    lines = ["|".join(msa).rstrip("|"), *([f"ERR|{place}"] if place else [])]
    charset, codec = _answer_charset(msh, "".join([*header, *lines]))
    if charset:
        header += [*[""] * 5, charset]
    return ("\r".join(["|".join(header), *lines]) + "\r").encode(codec)


def _answer_charset(msh: Sequence[str], text: str) -> tuple[str, str]:
    """MSH-18 and its codec: nothing for ASCII, else the sender's own character set if it has every character, else UTF-8."""
    if text.isascii():
        return "", "ascii"
    charset = _charset(msh)
    if codec := _codec(charset):
        try:
            text.encode(codec)
        except UnicodeEncodeError:
            pass
        else:
            return charset, codec
    return "UNICODE UTF-8", "utf-8"


def _echo(msh: Sequence[str], number: int) -> str:
    """A field that goes back as it came; only a sender with other separators than ours can have our own in it."""
    return _printable(_field(msh, number)).replace("|", "\\F\\")


def _printable(text: str, most: int = 200) -> str:
    """A field that is sent back or logged: without control characters, and not too long."""
    return "".join(character for character in text[:most] if character.isprintable())
