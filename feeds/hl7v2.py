"""What every HL7 v2 message has: a header, a character set, and the acknowledgement that answers it (HL7 v2.5 2.9, 2.14)."""

from __future__ import annotations

import codecs
import logging
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from xds.problems import ErrorCode
from xds.values import escape_hl7

_log = logging.getLogger("xdsi.feeds")
SEPARATORS = "|^~\\&"
#: HL7 v2's way of saying that a field is empty (2.5 2.5.3).
NULL = '""'
#: The longest segment of which fields are read one by one.
MAX_SEGMENT_CHARS = 16 * 1024
#: What may be gone when the sender tries again: AR, "system temporarily unable", and not AE.
TEMPORARY = frozenset(
    {
        ErrorCode.REGISTRY_BUSY,
        ErrorCode.REGISTRY_NOT_AVAILABLE,
        ErrorCode.REGISTRY_OUT_OF_RESOURCES,
        ErrorCode.REPOSITORY_BUSY,
        ErrorCode.REPOSITORY_OUT_OF_RESOURCES,
    }
)
_CHARSETS = {"": "", "ASCII": "ascii", "UNICODE UTF-8": "utf-8", "UNICODE": "utf-8", "UTF-8": "utf-8"}


class Refusal(Exception):
    """A message that is not accepted: MSA-1, MSA-3, and where the fault is, as ERR-1 (segment^sequence^field^code)."""

    def __init__(self, code: str, text: str, place: str) -> None:
        super().__init__(text)
        self.code, self.text, self.place = code, text, place


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message whose header is in order. `msh` is a list in which the index is the number of the field; `lines` are its segments.

    `codec` is Python's name of the character set that the message was read in.
    """

    msh: Sequence[str]
    lines: Sequence[str]
    codec: str

    @property
    def event(self) -> str:
        return event_of(self.msh)


def answer(
    content: bytes,
    take: Callable[[Message], str],
    *,
    events: Mapping[str, Sequence[str]],
    transaction: str,
    now: Callable[[], datetime],
    new_control_id: Callable[[], str],
    answered: Callable[[str, str], None] = lambda event, code: None,
    max_segments: int = 300_000,
) -> bytes:
    """The acknowledgement of a message: AA, with the text that `take` returns, or what its Refusal says. The text is logged with AA only.

    `events` are those that are supported, by message type. `answered` is told the event ("A40"; "message" where it is none of these) and
    the code ("AA"). AE is for what the message says, AR for what it is, and for what may go better later (ITI TF-2 3.8.4.1).
    """
    msh = _header(content)
    try:
        text, codec = _decoded(content, msh)
        lines = _lines(text, max_segments)
        msh = _split(lines[0]) if msh else msh
        _check_header(msh, events)
        code, reason, place = "AA", take(Message(msh=msh, lines=lines, codec=codec)), ""
    except Refusal as refusal:
        code, reason, place = refusal.code, refusal.text, refusal.place
    except Exception:
        number = uuid.uuid4()
        _log.exception("incident %s in %s", number, transaction)
        code, reason, place = "AR", f"internal error; the log has it as incident {number}", "MSH^1^9^207"
    event_name = event_of(msh) if any(event_of(msh) in names for names in events.values()) else "message"
    told = f"{code} ({reason})" if code == "AA" and reason else code
    _log.info("%s %s: %s", event_name, _printable(field(msh, 10)), told)
    answered(event_name, code)
    return _acknowledgement(msh, code, reason, place, moment=now(), control_id=new_control_id())


def field(msh: Sequence[str], number: int) -> str:
    return msh[number] if len(msh) > number else ""


def event_of(msh: Sequence[str]) -> str:
    parts = field(msh, 9).split("^")
    return parts[1] if len(parts) > 1 else ""


# --- the message ------------------------------------------------------------------------------------------------------


def _header(content: bytes) -> list[str]:
    """The fields of MSH, before it is known in which character set they are."""
    return _split(re.split(rb"[\r\n]", content.lstrip(b"\r\n"), maxsplit=1)[0][:MAX_SEGMENT_CHARS].decode("latin-1"))


def _decoded(content: bytes, msh: Sequence[str]) -> tuple[str, str]:
    """The text and its codec, of the character set that MSH-18 names; without one, UTF-8 or else Latin-1."""
    named = _charset(msh)
    codec = _codec(named)
    if codec is None:
        raise Refusal("AE", f"the character set {named[:40]} (MSH-18) is not supported", "MSH^1^18^103")
    for one in (codec,) if codec else ("utf-8", "latin-1"):
        try:
            return content.decode(one), one
        except UnicodeDecodeError:
            continue
    raise Refusal("AE", f"the message is not in the character set {named} of MSH-18", "MSH^1^18^102")


def _charset(msh: Sequence[str]) -> str:
    return field(msh, 18).split("~")[0].strip().upper()


def _codec(charset: str) -> str | None:
    """Python's name of a character set of HL7 table 0211; "" where none is named, None for an unknown one."""
    if charset in _CHARSETS:
        return _CHARSETS[charset]
    match = re.fullmatch(r"8859/([0-9]{1,2})", charset)
    try:
        return codecs.lookup(f"iso8859-{match[1]}").name if match else None
    except LookupError:
        return None


def _lines(text: str, most: int) -> list[str]:
    if (ends := text.count("\r") + text.count("\n")) > most:
        raise Refusal("AR", f"the message has {ends} segments; the limit is {most}", "MSH^1^0^207")
    return [line for line in re.split(r"[\r\n]", text) if line]


def _split(line: str) -> list[str]:
    """MSH as a list in which the index is the number of the field."""
    if not line.startswith("MSH") or len(line) < 4:
        return []
    fields = line.split(line[3], 30)
    return [fields[0], line[3], *fields[1:]]


def _check_header(msh: Sequence[str], events: Mapping[str, Sequence[str]]) -> None:
    if not msh:
        raise Refusal("AR", "the message does not begin with the segment MSH", "MSH^1^1^100")
    if field(msh, 1) + field(msh, 2) != SEPARATORS:
        raise Refusal("AR", f"the separators (MSH-1, MSH-2) are not {SEPARATORS}", "MSH^1^2^102")
    kind, event = field(msh, 9).split("^")[0], event_of(msh)
    if kind not in events:
        known = f"{', '.join(events)} {'is' if len(events) == 1 else 'are'}"
        raise Refusal("AR", f"the message type {kind[:20]!r} is not supported; {known}", "MSH^1^9^200")
    if event not in events[kind]:
        known = f"{', '.join(events[kind])} {'is' if len(events[kind]) == 1 else 'are'}"
        raise Refusal("AR", f"the event {event[:20]!r} is not supported; {known}", "MSH^1^9^201")
    if not field(msh, 10):
        raise Refusal("AE", "the message control id (MSH-10) is missing", "MSH^1^10^101")
    if field(msh, 11).split("^")[0] not in ("P", "T", "D"):
        raise Refusal("AR", f"the processing id {field(msh, 11)[:20]!r} is none of P, T, D", "MSH^1^11^202")
    if not re.fullmatch(r"2(\.\d){0,2}", field(msh, 12).split("^")[0]):
        raise Refusal("AR", f"the version {field(msh, 12)[:20]!r} is not supported; 2.3.1 is", "MSH^1^12^203")


# --- the acknowledgement ----------------------------------------------------------------------------------------------


def _acknowledgement(
    msh: Sequence[str], code: str, reason: str, place: str, *, moment: datetime, control_id: str
) -> bytes:
    """MSH with sender and receiver exchanged, MSA, and ERR where something is wrong."""
    event = event_of(msh)
    header = [
        "MSH",
        SEPARATORS[1:],
        *(_echo(msh, number) for number in (5, 6, 3, 4)),
        moment.astimezone(UTC).strftime("%Y%m%d%H%M%S"),
        "",
        f"ACK^{event}" if re.fullmatch(r"[A-Z][A-Z0-9]{2}", event) else "ACK",
        control_id,
        _echo(msh, 11) or "P",
        _echo(msh, 12) or "2.3.1",
    ]
    msa = ["MSA", _in_its_mode(msh, code), _echo(msh, 10), escape_hl7(_printable(reason, 400))]
    lines = ["|".join(msa).rstrip("|"), *([f"ERR|{place}"] if place else [])]
    charset, codec = _answer_charset(msh, "".join([*header, *lines]))
    if charset:
        header += [*[""] * 5, charset]
    return ("\r".join(["|".join(header), *lines]) + "\r").encode(codec)


def _in_its_mode(msh: Sequence[str], code: str) -> str:
    """MSA-1. Who wants an accept acknowledgement (MSH-15) and no other (MSH-16) gets CA, CE or CR: one answer is all there is (2.9.3)."""
    accept, application = field(msh, 15), field(msh, 16)
    return f"C{code[1:]}" if accept not in ("", NULL, "NE") and application == "NE" else code


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
    return _printable(field(msh, number)).replace("|", "\\F\\")


def _printable(text: str, most: int = 200) -> str:
    """A field that is sent back or logged: without control characters, and not too long."""
    return "".join(character for character in text[:most] if character.isprintable())
