"""HL7 v2 ADT messages to patient events (ITI TF-2 3.8; ITI-64)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import hl7

from feeds import hl7v2
from feeds.hl7v2 import MAX_SEGMENT_CHARS, NULL, SEPARATORS, TEMPORARY, Message, Refusal
from xds.patients import LinkChanged, PatientAdded, PatientEvent, PatientsMerged
from xds.problems import ErrorCode, Failure
from xds.transactions import Feed
from xds.values import Identifier

_ADDED, _REVISED, _MERGED, _LINKED = ("A01", "A04", "A05"), ("A08",), ("A40",), ("A43",)
_EVENTS = (*_ADDED, *_REVISED, *_MERGED, *_LINKED)
#: Of a message only these are read, and to this field; whatever else it holds costs nothing.
_LAST_FIELD = {"PID": 3, "MRG": 1}
#: The library makes objects for each: 32 repetitions of a CX with all its components and subcomponents have fewer.
_MAX_DELIMITERS = 1000
_MAX_REPETITIONS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Who assigns patient ids: a namespace, which may be "", and an OID."""

    universal_id: str
    namespace: str = ""


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

    def take(received: Message) -> str:
        for event in _events(_parsed(received.lines), received.event, authorities):
            _tell(event, feed)
        return ""

    return hl7v2.answer(
        message,
        take,
        events={"ADT": _EVENTS},
        transaction="ITI-8",
        now=now,
        new_control_id=new_control_id,
        answered=answered,
    )


# --- the message ------------------------------------------------------------------------------------------------------


def _parsed(lines: Sequence[str]) -> hl7.Message:
    """MSH, PID and MRG to the last field that is read, each once: the library takes microseconds for each delimiter."""
    kept = [lines[0]]
    for name, last in _LAST_FIELD.items():
        found = [line for line in lines if line[:4] == f"{name}|"]
        if len(found) > 1:
            raise Refusal("AE", f"the segment {name} is there {len(found)} times; once is right", f"{name}^2^0^100")
        kept += ["|".join(line.split("|", last + 1)[: last + 1]) for line in found]
    for line in kept:
        if len(line) > MAX_SEGMENT_CHARS:
            limit = f"is longer than the limit of {MAX_SEGMENT_CHARS} characters"
            raise Refusal("AR", f"the segment {line[:3]} {limit}", f"{line[:3]}^1^1^102")
        if (delimiters := sum(map(line.count, SEPARATORS))) > _MAX_DELIMITERS:
            limit = f"has {delimiters} separators in the fields that are read; the limit is {_MAX_DELIMITERS}"
            raise Refusal("AE", f"the segment {line[:3]} {limit}", f"{line[:3]}^1^1^102")
    if any(line.startswith("MSH|") for line in lines[1:]):
        raise Refusal("AE", "the frame has a second segment MSH; each message needs one of its own", "MSH^2^0^100")
    return hl7.parse("\r".join(kept))


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
    return None if number in ("", NULL) else number


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


# --- the feed ----------------------------------------------------------------------------------------------


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
