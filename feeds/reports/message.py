"""What an ORU^R01 or an MDM message says of reports (HL7 v2.5 7.3.1, 9.6; RAD TF-2 4.27): values, and nothing of XDS yet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta, timezone, tzinfo
from enum import StrEnum

from feeds.hl7v2 import MAX_SEGMENT_CHARS, Message, Refusal
from feeds.reports import observations
from feeds.reports.fields import (
    Coded,
    Number,
    Segment,
    coded,
    component,
    field,
    interpreter,
    name,
    numbers,
    person_of,
    printable,
)
from feeds.reports.observations import Content
from xds.values import Timestamp, is_oid

EVENTS = {"ORU": ("R01",), "MDM": ("T02", "T04", "T06", "T08", "T10", "T11")}
MAX_OBSERVATIONS = 20_000
_MAX_GROUPS = 100
_MAX_OTHERS = 1000
_FIELDS = 50
_READ = ("PID", "ORC", "OBR", "IPC", "ZDS", "TXA", "OBX")
_FINAL, _NOT_YET, _VOID = (
    ("F", "C", "AU", "LA"),
    ("P", "R", "A", "I", "O", "S", "DI", "DO", "IP", "IN", "PA"),
    ("X", "D"),
)
#: HL7 table 0074 has its own names for some modalities.
_SECTIONS = {"NMR": "MR", "NMS": "NM", "RUS": "US", "OUS": "US", "VUS": "US"}


class Status(StrEnum):
    FINAL = "final"
    PRELIMINARY = "preliminary"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report of a message. Persons are XCN, the patient's name is XPN as they stand in metadata; all else is plain text.

    `number` names the report within `sender`, whatever its version; `replaces` is the one that it names as its predecessor or parent.
    `created` is when the report says it was made, in UTC; None where it does not.
    """

    sender: str
    event: str
    status: Status
    number: str
    replaces: str = ""
    patient_ids: tuple[Number, ...]
    patient_name: str = ""
    birth_date: str = ""
    sex: str = ""
    accessions: tuple[Number, ...] = ()
    placers: tuple[Number, ...] = ()
    fillers: tuple[Number, ...] = ()
    study_uids: tuple[str, ...] = ()
    procedures: tuple[Coded, ...] = ()
    modality: str = ""
    author: str = ""
    legal_authenticator: str = ""
    created: Timestamp | None = None
    sent: Timestamp
    service_start: Timestamp | None = None
    service_stop: Timestamp | None = None
    title: str = ""
    confidentiality: str = ""
    language: str = ""
    content: Content | None = None

    @property
    def time(self) -> Timestamp:
        """When it was made, as far as that is known."""
        return self.created or self.sent


def read(message: Message, *, zone: tzinfo) -> list[Report]:
    """The reports of a message, each with its content or cancelled. Times without an offset are of MSH-7's, else of `zone`.

    An OBR without content is another order of the report before it, or of the first one. Refusal (AE) for what cannot be a report.
    """
    pid, groups = _groups(message)
    reader = _Reader(message, pid, _zone(message, zone))
    reports: list[Report] = []
    orders: list[Report] = []
    for number, group in enumerate(groups, 1):
        one = reader.report(group, number)
        if one.content is None and one.status is not Status.CANCELLED:
            if reports:
                reports[-1] = _with_orders_of(reports[-1], one)
            else:
                orders.append(one)
        else:
            for other in orders:
                one = _with_orders_of(one, other)
            orders = []
            reports.append(one)
    if not reports:
        raise Refusal("AE", "the message has no report: no OBX holds a text or a document", "OBX^1^5^101")
    keys = [one.number for one in reports]
    if len(set(keys)) < len(keys):
        reason = "two reports of the message have the same number: one would replace the other"
        raise Refusal("AE", reason, "OBR^2^3^205")
    return reports


def _with_orders_of(report: Report, other: Report) -> Report:
    return replace(
        report,
        accessions=tuple(dict.fromkeys((*report.accessions, *other.accessions))),
        placers=tuple(dict.fromkeys((*report.placers, *other.placers))),
        fillers=tuple(dict.fromkeys((*report.fillers, *other.fillers))),
        study_uids=tuple(dict.fromkeys((*report.study_uids, *other.study_uids))),
    )


# --- segments ---------------------------------------------------------------------------------------------------------


class _Group(dict[str, list[Segment]]):
    """The segments of one order, or of one document, by name."""

    def all(self, name: str) -> list[Segment]:
        return self.get(name, [])

    def first(self, name: str) -> Segment:
        return next(iter(self.all(name)), ())


def _groups(message: Message) -> tuple[Segment, list[_Group]]:
    """PID, and the groups; bounded before anything is split."""
    of_orders = field(message.msh, 9).startswith("ORU")
    counts = dict.fromkeys(_READ, 0)
    groups: list[_Group] = [_Group()]
    pid: Segment = ()
    for line in message.lines[1:]:
        name = line[:3]
        if line.startswith("MSH|"):
            raise Refusal("AE", "the frame has a second segment MSH; each message needs one of its own", "MSH^2^0^100")
        if name not in counts or line[3:4] != "|" or (name == "TXA" and of_orders):
            continue
        counts[name] += 1
        most = {"PID": 1, "OBR": _MAX_GROUPS, "OBX": MAX_OBSERVATIONS}.get(name, _MAX_OTHERS)
        if counts[name] > most:
            reason = f"the segment {name} is there more than {most} times" + ("; once is right" if most == 1 else "")
            raise Refusal("AE", reason, f"{name}^{most + 1}^0^100")
        if name != "OBX" and len(line) > MAX_SEGMENT_CHARS:
            reason = f"the segment {name} is longer than the limit of {MAX_SEGMENT_CHARS} characters"
            raise Refusal("AR", reason, f"{name}^1^1^102")
        fields = printable(line).split("|", _FIELDS)
        if name == "PID":
            pid = tuple(fields)
            continue
        group = groups[-1]
        # An order begins with its ORC, or where there is none with its OBR.
        if of_orders and name in ("ORC", "OBR") and (group.all("OBR") or (name == "ORC" and group.all("ORC"))):
            groups.append(group := _Group())
        group.setdefault(name, []).append(fields)
    if not pid:
        raise Refusal("AE", "the segment PID is missing", "PID^1^0^100")
    needed = "OBR" if of_orders else "TXA"
    if not all(group.all(needed) for group in groups):
        raise Refusal("AE", f"the segment {needed} is missing", f"{needed}^1^0^100")
    return pid, groups


def _zone(message: Message, default: tzinfo) -> tzinfo:
    offset = re.search(r"([+-])([0-9]{2})([0-5][0-9])$", field(message.msh, 7))
    if offset is None or int(offset[2]) > 14:
        return default
    size = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    return timezone(-size if offset[1] == "-" else size)


# --- fields -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reader:
    message: Message
    pid: Segment
    zone: tzinfo

    def report(self, group: _Group, number: int) -> Report:
        obr, orc, txa, obx = group.first("OBR"), group.first("ORC"), group.first("TXA"), group.all("OBX")
        placers = numbers(field(obr, 2) or field(orc, 2), field(txa, 14))
        fillers = numbers(field(obr, 3) or field(orc, 3), field(txa, 15))
        accessions = numbers(*(field(one, 1) for one in group.all("IPC"))) or numbers(field(obr, 18))
        named = numbers(field(txa, 12)) or fillers or placers or accessions
        if not named:
            place = "TXA^1^12^101" if txa else f"OBR^{number}^3^101"
            raise Refusal("AE", f"the report has no number ({'TXA-12, ' if txa else ''}OBR-3 or OBR-2)", place)
        status = self._status(group, number)
        author = person_of(field(txa, 9) or field(txa, 10)) if txa else ""
        radiologist = interpreter(field(obr, 32))
        observer = next((one for segment in obx if (one := person_of(field(segment, 16)))), "")
        signed = person_of(field(txa, 22)) if txa else radiologist
        procedures = tuple(coded(field(obr, 4), field(obr, 44)))
        modality = next((one for ipc in group.all("IPC") if (one := component(field(ipc, 5), 1))), "")
        section = component(field(obr, 24), 1)
        wanted = status is not Status.CANCELLED
        return Report(
            sender="|".join(printable(field(self.message.msh, one)) for one in (3, 4)),
            event=self.message.event,
            status=status,
            number=named[0].key,
            replaces=next((one.key for one in numbers(field(txa, 13))), ""),
            patient_ids=numbers(field(self.pid, 3)),
            patient_name=name(field(self.pid, 5)),
            birth_date=(re.findall(r"^[0-9]{8}", field(self.pid, 7)) or [""])[0],
            sex=field(self.pid, 8)[:1],
            accessions=accessions,
            placers=placers,
            fillers=fillers,
            study_uids=tuple(dict.fromkeys(_study_uids(group, obx))),
            procedures=procedures,
            modality=modality or _SECTIONS.get(section, section),
            author=author or radiologist or observer,
            legal_authenticator=signed if status is Status.FINAL else "",
            created=self._created(obr, txa, obx),
            sent=self._time(field(self.message.msh, 7)) or Timestamp("1970"),
            service_start=self._time(field(obr, 7) or field(txa, 4)),
            service_stop=self._time(field(obr, 8)),
            title=next((one.text for one in procedures if one.text), "")
            or component(field(obx[0] if obx else (), 3), 2),
            confidentiality=component(field(txa, 18), 1),
            language=component(field(self.message.msh, 19), 1),
            content=observations.content(obx, codec=self.message.codec) if wanted else None,
        )

    def _time(self, text: str) -> Timestamp | None:
        return Timestamp.of_hl7(text.split("~")[-1].split("^")[0].strip(), self.zone)

    def _created(self, obr: Segment, txa: Segment, obx: Sequence[Segment]) -> Timestamp | None:
        """When this version was made: of a document its last edition (TXA-8), else its origination; of a result OBR-22."""
        told = (field(txa, 8), field(txa, 6)) if txa else (field(obr, 22),)
        found = next((made for one in told if (made := self._time(one))), None)
        times = () if found or txa else tuple(made for one in obx if (made := self._time(field(one, 14))))
        return found or max(times, key=lambda one: one.earliest, default=None)

    def _status(self, group: _Group, number: int) -> Status:
        txa, obr = group.first("TXA"), group.first("OBR")
        if txa:
            code, place = component(field(txa, 17), 1), "TXA^1^17"
            availability = component(field(txa, 19), 1)
            if self.message.event == "T11" or availability in ("CA", "OB"):
                return Status.CANCELLED
            if availability == "UN":
                return Status.PRELIMINARY
        else:
            code, place = component(field(obr, 25), 1), f"OBR^{number}^25"
            told = {component(field(one, 11), 1) for one in group.all("OBX")}
            # Without a status of the whole, one line that is not final makes it preliminary.
            code = code or next((one for one in _NOT_YET if one in told), "F")
        if code in (*_FINAL, ""):
            return Status.FINAL
        if code in _NOT_YET:
            return Status.PRELIMINARY
        if code in _VOID:
            return Status.CANCELLED
        segment, _, number_of_field = place.split("^")
        raise Refusal("AE", f"the status {code[:20]!r} ({segment}-{number_of_field}) is not known", f"{place}^103")


def _study_uids(group: _Group, obx: Sequence[Segment]) -> Iterator[str]:
    """IPC-3, else ZDS-1, else an observation that names the study."""
    told = [component(field(one, 3), 1) for one in group.all("IPC")]
    told = [one for one in told if one] or [component(field(one, 1), 1) for one in group.all("ZDS")]
    told = [one for one in told if one] or list(observations.study_uids(obx))
    for one in told:
        if not is_oid(one):
            raise Refusal("AE", f"the Study Instance UID {one[:80]!r} is no UID", "IPC^1^3^102")
        yield one
