"""ITI-44 Patient Identity Feed HL7 V3: real SOAP messages over HTTP, and the acknowledgement of each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from feeds import pixv3
from feeds.adt import Authority
from server.config import Config
from server.http import base_url, bind, in_thread
from server.transport import http_transport
from soap.client import SoapClient
from soap.endpoint import Endpoint
from soap.fault import SoapFault
from soap.operations import Limits, Service
from xds.patients import PatientAdded, PatientEvent, PatientsMerged
from xds.problems import ErrorCode, fail
from xds.transactions import Feed
from xds.values import Identifier

NS = {"h": "urn:hl7-org:v3"}
OURS = (Authority(universal_id="1.2.3.4"),)
ADD, REVISE, RESOLVE = "PRPA_IN201301UV02", "PRPA_IN201302UV02", "PRPA_IN201304UV02"
P100, P200 = Identifier("p100^^^&1.2.3.4&ISO"), Identifier("p200^^^&1.2.3.4&ISO")
Ids = Sequence[tuple[str, str]]
Ask = Callable[[str], etree._Element]


@contextmanager
def served(directory: Path, feed: Feed, authorities: Sequence[Authority] = OURS) -> Iterator[SoapClient]:
    """A client of an endpoint with the three operations."""
    config = Config()
    config = replace(config, server=replace(config.server, host="127.0.0.1", port=0))
    operations = pixv3.operations(
        feed=feed,
        authorities=authorities,
        now=lambda: datetime(2024, 1, 2, 3, 4, 6, tzinfo=UTC),
        new_id=lambda: "0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817",
    )
    service = Service(name="DocumentRegistry", operations=operations, describe=lambda address, file: None)
    listening = bind(config)
    url = base_url(config, listening)
    with ThreadPoolExecutor(2) as executor:
        endpoint = Endpoint(service, address=url, spool_directory=directory, limits=Limits(), executor=executor)
        with in_thread(endpoint, config, listening):
            yield SoapClient(url, http_transport(), directory)


def asked(directory: Path, message: str, feed: Feed, authorities: Sequence[Authority] = OURS) -> etree._Element:
    """The acknowledgement of a message."""
    action = f"urn:hl7-org:v3:{message[1:].split(' ')[0]}"
    with served(directory, feed, authorities) as client, client.call(action, [message.encode()], mtom=False) as reply:
        return reply.body


def identifiers(ids: Ids) -> str:
    return "".join(f'<id root="{root}" extension="{extension}"/>' for root, extension in ids)


def replaced(*ids: tuple[str, str]) -> str:
    return (
        '<replacementOf typeCode="RPLC"><priorRegistration classCode="REG" moodCode="EVN"><statusCode code="obsolete"/>'
        f'<subject1 typeCode="SBJ"><priorRegisteredRole classCode="PAT">{identifiers(ids)}</priorRegisteredRole>'
        "</subject1></priorRegistration></replacementOf>"
    )


def message(interaction: str, ids: Ids = (("1.2.3.4", "p100"),), more: str = "", header_id: str | None = None) -> str:
    request_id = '<id root="1.2.3.4.600" extension="m1"/>' if header_id is None else header_id
    return (
        f'<{interaction} xmlns="urn:hl7-org:v3" ITSVersion="XML_1.0">{request_id}'
        f'<creationTime value="20240102030405"/><interactionId root="2.16.840.1.113883.1.6" extension="{interaction}"/>'
        '<processingCode code="P"/><processingModeCode code="T"/><acceptAckCode code="AL"/>'
        '<receiver typeCode="RCV"><device classCode="DEV" determinerCode="INSTANCE"><id root="1.2.3.4.700"/></device>'
        '</receiver><sender typeCode="SND"><device classCode="DEV" determinerCode="INSTANCE"><id root="1.2.3.4.701"/>'
        '</device></sender><controlActProcess classCode="CACT" moodCode="EVN">'
        f'<code code="{interaction.replace("IN", "TE")}" codeSystem="2.16.840.1.113883.1.6"/><subject typeCode="SUBJ">'
        '<registrationEvent classCode="REG" moodCode="EVN"><id nullFlavor="NA"/><statusCode code="active"/>'
        f'<subject1 typeCode="SBJ"><patient classCode="PAT">{identifiers(ids)}<statusCode code="active"/>'
        '<patientPerson classCode="PSN" determinerCode="INSTANCE"><name><family>Muster</family></name></patientPerson>'
        f"</patient></subject1>{more}</registrationEvent></subject></controlActProcess></{interaction}>"
    )


def outcome(acknowledgement: etree._Element) -> tuple[str | None, list[str], str]:
    """typeCode, the codes of the details, and their text."""
    found = acknowledgement.find("h:acknowledgement", NS)
    assert found is not None
    code = found.find("h:typeCode", NS)
    codes = [one.get("code", "") for one in found.iterfind("h:acknowledgementDetail/h:code", NS)]
    texts = [one.text or "" for one in found.iterfind("h:acknowledgementDetail/h:text", NS)]
    return (None if code is None else code.get("code"), codes, " ".join(texts))


class Refusing:
    """Refuses every event with one code."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __call__(self, event: PatientEvent) -> None:
        raise fail(self.code, "the subsumed patient is <not> known & will not be")


def test_an_addition_is_acknowledged_as_the_standard_shows_it(tmp_path: Path) -> None:
    """ITI TF-2 3.44.4.1, MCCI_IN000002UV01: sender and receiver exchanged, targetMessage the request's id, acceptAckCode NE."""
    events: list[PatientEvent] = []
    reply = asked(tmp_path, message(ADD), events.append)
    expected = (
        '<MCCI_IN000002UV01 xmlns="urn:hl7-org:v3" ITSVersion="XML_1.0"><id root="0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817"/>'
        '<creationTime value="20240102030406"/>'
        '<interactionId root="2.16.840.1.113883.1.6" extension="MCCI_IN000002UV01"/>'
        '<processingCode code="P"/><processingModeCode code="T"/><acceptAckCode code="NE"/>'
        '<receiver typeCode="RCV"><device classCode="DEV" determinerCode="INSTANCE"><id root="1.2.3.4.701"/></device>'
        '</receiver><sender typeCode="SND"><device classCode="DEV" determinerCode="INSTANCE"><id root="1.2.3.4.700"/>'
        '</device></sender><acknowledgement><typeCode code="CA"/>'
        '<targetMessage><id root="1.2.3.4.600" extension="m1"/></targetMessage></acknowledgement></MCCI_IN000002UV01>'
    )
    assert etree.tostring(reply, method="c14n2") == etree.tostring(etree.fromstring(expected), method="c14n2")
    assert events == [PatientAdded(patient_id=P100)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([("1.2.3.4", "p100"), ("2.9.9", "x")], [P100]),
        ([("2.9.9", "x")], []),
        ([("1.2.3.4", "p100"), ("1.2.3.4", "p200")], [P100, P200]),
        ([("1.2.3.4", "p100"), ("1.2.3.4", "p100")], [P100]),
        ([("1.2.3.4", " p100 ")], [P100]),
        ([("1.2.3.4", "a^b&amp;c")], [Identifier("a\\S\\b\\T\\c^^^&1.2.3.4&ISO")]),
    ],
)
def test_the_ids_of_our_authority_are_added_and_those_of_others_ignored(
    tmp_path: Path, ids: Ids, expected: list[Identifier]
) -> None:
    """ITI TF-2 3.44.4.1.3: root is the assigning authority, extension the id, escaped as in a CX."""
    events: list[PatientEvent] = []
    assert outcome(asked(tmp_path, message(ADD, ids), events.append)) == ("CA", [], "")
    assert events == [PatientAdded(patient_id=one) for one in expected]


def test_without_configured_authorities_every_oid_is_ours_and_a_uuid_is_nobody_s(tmp_path: Path) -> None:
    """HL7 v3 II: a root is an OID or a UUID."""
    events: list[PatientEvent] = []
    ids = [("2.7.8", "p1"), ("0d3c9b1a-7f52-4a8e-8d0e-6c5b4a392817", "x")]
    assert outcome(asked(tmp_path, message(ADD, ids), events.append, ())) == ("CA", [], "")
    assert events == [PatientAdded(patient_id=Identifier("p1^^^&2.7.8&ISO"))]


@pytest.mark.parametrize("ids", [[("1.2.3.4", "p100")], []])
def test_a_revision_is_accepted_and_tells_nothing(tmp_path: Path, ids: Ids) -> None:
    """ITI TF-2 3.44.4.1.3: the counterpart of A08; its content is no concern of a registry."""
    events: list[PatientEvent] = []
    assert outcome(asked(tmp_path, message(REVISE, ids), events.append)) == ("CA", [], "")
    assert events == []


def test_resolved_duplicates_name_the_surviving_and_the_subsumed_patient(tmp_path: Path) -> None:
    """ITI TF-2 3.44.4.2: patient/id survives, priorRegisteredRole/id is subsumed."""
    events: list[PatientEvent] = []
    sent = message(RESOLVE, [("2.9.9", "x"), ("1.2.3.4", "p100")], replaced(("1.2.3.4", "p200")))
    assert outcome(asked(tmp_path, sent, events.append)) == ("CA", [], "")
    assert events == [PatientsMerged(surviving=P100, subsumed=P200)]


@pytest.mark.parametrize(
    ("sent", "code", "words"),
    [
        (message(ADD, []), "102", "patient/id is missing"),
        (message(ADD, [("1.2.3.4", "")]), "102", "is not of the form"),
        (message(ADD, [("1.2.3.4", str(number)) for number in range(40)]), "102", "limit is 32"),
        (message(ADD).replace("registrationEvent", "otherEvent"), "102", "0 registrationEvents"),
        (message(RESOLVE), "102", "0 replacementOf"),
        (message(RESOLVE, more=replaced(("1.2.3.4", "p200")) * 2), "102", "2 replacementOf"),
        (message(RESOLVE, more=replaced()), "102", "priorRegisteredRole/id is missing"),
        (message(RESOLVE, more=replaced(("2.9.9", "p200"))), "204", "0 identifiers of this affinity domain"),
        (message(RESOLVE, [("2.9.9", "x")], replaced(("1.2.3.4", "p200"))), "204", "patient/id has 0 identifiers"),
        (message(RESOLVE, more=replaced(("1.2.3.4", "p200"), ("1.2.3.4", "p300"))), "102", "2 identifiers"),
    ],
)
def test_a_message_without_what_it_must_have_is_an_error_of_content(
    tmp_path: Path, sent: str, code: str, words: str
) -> None:
    """HL7 v3 AcknowledgementType CE, with an AcknowledgementDetail."""
    events: list[PatientEvent] = []
    kind, codes, text = outcome(asked(tmp_path, sent, events.append))
    assert (kind, codes, events) == ("CE", [code], [])
    assert words in text


@pytest.mark.parametrize(
    ("problem", "kind", "code"),
    [
        (ErrorCode.UNKNOWN_PATIENT_ID, "CE", "204"),
        (ErrorCode.REGISTRY_METADATA_ERROR, "CE", "102"),
        (ErrorCode.REGISTRY_BUSY, "CR", "207"),
        (ErrorCode.REGISTRY_ERROR, "CR", "207"),
        ("A code of somebody's", "CE", "207"),
    ],
)
def test_a_refusal_of_the_registry_is_told_with_its_reason(tmp_path: Path, problem: str, kind: str, code: str) -> None:
    sent = message(RESOLVE, more=replaced(("1.2.3.4", "p200")))
    assert outcome(asked(tmp_path, sent, Refusing(problem))) == (
        kind,
        [code],
        "the subsumed patient is <not> known & will not be",
    )


def test_what_nobody_foresaw_is_an_incident_that_only_the_log_explains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: PatientEvent) -> None:
        raise RuntimeError("secret of the house")

    kind, codes, text = outcome(asked(tmp_path, message(ADD), broken))
    assert (kind, codes) == ("CR", ["207"])
    assert "incident" in text and "secret" not in text
    incident = next(record for record in caplog.records if record.exc_info)
    assert text.rsplit(" ", 1)[1] in incident.getMessage()
    assert "secret of the house" in str(incident.exc_info)


@pytest.mark.parametrize(
    ("header_id", "expected"),
    [
        ("", {"nullFlavor": "NI"}),
        ("<id/>", {"nullFlavor": "NI"}),
        ('<id root="1.2.3"/>', {"root": "1.2.3"}),
        ('<id root="1.2.3" extension="&quot;&lt;&amp;"/>', {"root": "1.2.3", "extension": '"<&'}),
    ],
)
def test_the_acknowledged_message_is_named_as_it_named_itself(
    tmp_path: Path, header_id: str, expected: dict[str, str]
) -> None:
    events: list[PatientEvent] = []
    reply = asked(tmp_path, message(ADD, header_id=header_id), events.append)
    found = reply.find("h:acknowledgement/h:targetMessage/h:id", NS)
    assert found is not None
    assert {str(name): found.get(name) for name in found.keys()} == expected  # noqa: SIM118 - an element's


def test_an_interaction_that_a_registry_does_not_know_is_a_fault(tmp_path: Path) -> None:
    """ITI TF-2 3.44: three interactions; a query (ITI-45) is none of them."""
    events: list[PatientEvent] = []
    with pytest.raises(SoapFault) as caught:
        asked(tmp_path, message("PRPA_IN201309UV02"), events.append)
    assert (caught.value.code, events) == ("Sender", [])


def test_an_action_with_another_interaction_in_its_body_is_a_fault(tmp_path: Path) -> None:
    events: list[PatientEvent] = []
    body = [message(RESOLVE, more=replaced(("1.2.3.4", "p200"))).encode()]
    with (
        served(tmp_path, events.append) as client,
        pytest.raises(SoapFault),
        client.call(f"urn:hl7-org:v3:{ADD}", body, mtom=False),
    ):
        pass
    assert events == []


def test_the_log_has_message_ids_and_outcomes_and_nothing_of_the_patient(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "xdsi.feeds")
    events: list[PatientEvent] = []
    asked(tmp_path, message(ADD), events.append)
    told = [record.getMessage() for record in caplog.records if record.name == "xdsi.feeds"]
    assert told == ["PRPA_IN201301UV02 1.2.3.4.600/m1: CA"]
    assert not any(word in " ".join(told) for word in ("p100", "Muster"))
