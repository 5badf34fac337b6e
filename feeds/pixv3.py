"""ITI-44 Patient Identity Feed HL7 V3: three interactions to patient events, each answered with MCCI_IN000002UV01 (ITI TF-2 3.44)."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from lxml import etree

from feeds.adt import Authority
from feeds.hl7v2 import TEMPORARY
from soap.operations import Call, Operation, Reply
from xds.patients import PatientAdded, PatientEvent, PatientsMerged
from xds.problems import ErrorCode, Failure, Problem, fail
from xds.transactions import Feed
from xds.values import Identifier, is_oid

_log = logging.getLogger("xdsi.feeds")
HL7 = "urn:hl7-org:v3"
ACKNOWLEDGEMENT = "MCCI_IN000002UV01"
_INTERACTIONS = "2.16.840.1.113883.1.6"
#: HL7 table 0357, whose codes acknowledgements share with HL7 v2.
_ERROR_CODES = "2.16.840.1.113883.5.1100"
_ADD, _REVISE, _RESOLVE = "PRPA_IN201301UV02", "PRPA_IN201302UV02", "PRPA_IN201304UV02"
_MAX_IDS = 32
_MAX_TEXT_CHARS = 1000
_Q = f"{{{HL7}}}"
_EVENT = f"{_Q}controlActProcess/{_Q}subject/{_Q}registrationEvent"
_PATIENT_ID = f"{_Q}subject1/{_Q}patient/{_Q}id"
_PRIOR_ID = f"{_Q}replacementOf/{_Q}priorRegistration/{_Q}subject1/{_Q}priorRegisteredRole/{_Q}id"


@dataclass(frozen=True, slots=True, kw_only=True)
class _InstanceIdentifier:
    """II: `root`, an OID, and `extension`."""

    root: str
    extension: str

    def __str__(self) -> str:
        return f"{self.root[:80]} / {self.extension[:80]}"


def operations(
    *,
    feed: Feed,
    authorities: Sequence[Authority],
    now: Callable[[], datetime],
    new_id: Callable[[], str],
) -> tuple[Operation, ...]:
    """The three interactions as operations of a SOAP service. Without `authorities` every patient id with an OID is one of ours."""

    def answer(call: Call) -> Reply:
        problems: tuple[Problem, ...] = ()
        try:
            for event in events(call.body, authorities):
                feed(event)
        except Failure as failure:
            problems = failure.problems
        except Exception:
            number = uuid.uuid4()
            _log.exception("incident %s in ITI-44", number)
            context = f"internal error; the log has it as incident {number}"
            problems = (Problem(code=ErrorCode.REGISTRY_ERROR, context=context),)
        _log.info("%s %s: %s", etree.QName(call.body).localname, _message_id(call.body), _type_code(problems))
        return Reply(body=[acknowledgement(call.body, problems, moment=now(), new_id=new_id())])

    return tuple(
        Operation(
            name=f"DocumentRegistry_{interaction}",
            transaction="ITI-44",
            action=f"{HL7}:{interaction}",
            element=f"{_Q}{interaction}",
            reply_action=f"{HL7}:{ACKNOWLEDGEMENT}",
            mtom=False,
            answer=answer,
        )
        for interaction in (_ADD, _REVISE, _RESOLVE)
    )


# --- the message ------------------------------------------------------------------------------------------------------


def events(message: etree._Element, authorities: Sequence[Authority]) -> Iterator[PatientEvent]:
    """What an interaction tells. Failure for one that lacks what it must have."""
    interaction = etree.QName(message).localname
    if interaction == _REVISE:
        # Nothing of it concerns a registry (ITI TF-2 3.44.4.1.3).
        return
    registrations = message.findall(_EVENT)
    if len(registrations) != 1:
        raise _wrong(f"{interaction} has {len(registrations)} registrationEvents; it must have one")
    ours = _of_domain(_ids(registrations[0], _PATIENT_ID, "patient/id"), authorities)
    if interaction == _ADD:
        yield from (PatientAdded(patient_id=one) for one in ours)
        return
    replaced = registrations[0].findall(f"{_Q}replacementOf")
    if len(replaced) != 1:
        raise _wrong(f"{interaction} has {len(replaced)} replacementOf; it must have one")
    prior = _of_domain(_ids(registrations[0], _PRIOR_ID, "priorRegisteredRole/id"), authorities)
    yield PatientsMerged(surviving=_one(ours, "patient/id"), subsumed=_one(prior, "priorRegisteredRole/id"))


def _wrong(context: str) -> Failure:
    return fail(ErrorCode.REGISTRY_METADATA_ERROR, context)


def _ids(registration: etree._Element, path: str, name: str) -> list[_InstanceIdentifier]:
    found = [
        _InstanceIdentifier(root=one.get("root", "").strip(), extension=one.get("extension", "").strip())
        for one in registration.iterfind(path)
        if one.get("nullFlavor") is None
    ]
    if not found:
        raise _wrong(f"{name} is missing")
    if len(found) > _MAX_IDS:
        raise _wrong(f"{name} is there {len(found)} times; the limit is {_MAX_IDS}")
    return found


def _of_domain(ids: Sequence[_InstanceIdentifier], authorities: Sequence[Authority]) -> list[Identifier]:
    """The identifiers of this affinity domain, each once; those of others say nothing here."""
    known = {one.universal_id for one in authorities}
    found: dict[Identifier, None] = {}
    for one in ids:
        # The root of an II may be a UUID: that is nobody's patient id here.
        if one.root not in known if known else not is_oid(one.root):
            continue
        identifier = Identifier.of(one.extension, one.root)
        if (fault := identifier.unkeepable or identifier.fault) is not None:
            raise _wrong(f"the patient id {one} {fault}")
        found[identifier] = None
    return list(found)


def _one(ids: Sequence[Identifier], name: str) -> Identifier:
    if len(ids) != 1:
        text = f"{name} has {len(ids)} identifiers of this affinity domain; one is right"
        raise fail(ErrorCode.UNKNOWN_PATIENT_ID if not ids else ErrorCode.REGISTRY_METADATA_ERROR, text)
    return ids[0]


# --- the acknowledgement ----------------------------------------------------------------------------------------------


def acknowledgement(message: etree._Element, problems: Sequence[Problem], *, moment: datetime, new_id: str) -> bytes:
    """MCCI_IN000002UV01: CA, or CE with a detail for each problem; CR for an internal error. `new_id` is a UUID without prefix."""
    code = _type_code(problems)
    details = "".join(
        f'<acknowledgementDetail typeCode="E"><code code="{_error_code(one)}" codeSystem="{_ERROR_CODES}"/>'
        f"<text>{escape(one.context[:_MAX_TEXT_CHARS])}</text></acknowledgementDetail>"
        for one in problems
    )
    text = (
        f'<{ACKNOWLEDGEMENT} xmlns="{HL7}" ITSVersion="XML_1.0"><id root="{new_id}"/>'
        f'<creationTime value="{moment.astimezone(UTC).strftime("%Y%m%d%H%M%S")}"/>'
        f'<interactionId root="{_INTERACTIONS}" extension="{ACKNOWLEDGEMENT}"/>'
        f'<processingCode code={quoteattr(_code(message, "processingCode") or "P")}/><processingModeCode code="T"/>'
        f'<acceptAckCode code="NE"/>{_device(message, "sender", "receiver", "RCV")}'
        f'{_device(message, "receiver", "sender", "SND")}<acknowledgement><typeCode code="{code}"/>'
        f"<targetMessage>{_instance_identifier(message.find(f'{_Q}id'))}</targetMessage>{details}</acknowledgement>"
        f"</{ACKNOWLEDGEMENT}>"
    )
    return text.encode()


def _type_code(problems: Sequence[Problem]) -> str:
    if not problems:
        return "CA"
    rejected = {ErrorCode.REGISTRY_ERROR, *TEMPORARY}
    return "CR" if any(one.code in rejected for one in problems) else "CE"


def _error_code(problem: Problem) -> str:
    return {"XDSUnknownPatientId": "204", "XDSRegistryMetadataError": "102"}.get(problem.code, "207")


def _message_id(message: etree._Element) -> str:
    """The request's id for the log: two words, without what would break a line."""
    found = message.find(f"{_Q}id")
    given = "" if found is None else f"{found.get('root', '')[:64]}/{found.get('extension', '')[:64]}"
    return "".join(character for character in given if character.isprintable())


def _code(message: etree._Element, name: str) -> str:
    found = message.find(f"{_Q}{name}")
    return "" if found is None else found.get("code", "")


def _instance_identifier(element: etree._Element | None) -> str:
    if element is None:
        return '<id nullFlavor="NI"/>'
    given = "".join(
        f" {name}={quoteattr(value)}" for name in ("root", "extension") if (value := element.get(name)) is not None
    )
    return f"<id{given}/>" if given else '<id nullFlavor="NI"/>'


def _device(message: etree._Element, theirs: str, ours: str, type_code: str) -> str:
    """The other side of the request as this side of the answer."""
    identifier = _instance_identifier(message.find(f"{_Q}{theirs}/{_Q}device/{_Q}id"))
    return (
        f'<{ours} typeCode="{type_code}"><device classCode="DEV" determinerCode="INSTANCE">{identifier}'
        f"</device></{ours}>"
    )
