"""ITI-44 Patient Identity Feed HL7 V3 over SOAP and HTTP, to a registry with its database (ITI TF-2 3.44)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from xml.sax.saxutils import quoteattr

import pytest
from lxml import etree

from benchmarks.messages import SIMPLE, envelope, submission
from registry.client import client as registry_client
from registry.patients import list_patients
from schemas import rim
from server.compose import Domain, soap_client
from server.config import Config
from server.embedded import serving
from xds.metadata import DocumentEntry
from xds.problems import Failure
from xds.queries import FindDocuments
from xds.values import Identifier

HL7, SOAP, WSA = (
    "urn:hl7-org:v3",
    "http://www.w3.org/2003/05/soap-envelope",
    "http://www.w3.org/2005/08/addressing",
)
NS = {"h": HL7, "s": SOAP, "a": WSA}
ADD, REVISE, RESOLVE = "PRPA_IN201301UV02", "PRPA_IN201302UV02", "PRPA_IN201304UV02"
OURS, SECOND, OTHER = "1.2.3.4", "1.2.3.5", "2.9.9"
Id = tuple[str, str]


def cx(number: str, root: str = OURS) -> str:
    return f"{number}^^^&{root}&ISO"


class Source:
    """A patient identity source in front of a served registry, and a look behind it."""

    def __init__(self, domain: Domain, config: Config) -> None:
        self.store = domain.parts["registry"]
        self.client = registry_client(soap_client(domain.endpoints["registry"], config))
        address = urlsplit(domain.endpoints["registry"])
        assert address.hostname is not None
        self._path = address.path
        self._connection = HTTPConnection(address.hostname, address.port or 80, timeout=20)

    def close(self) -> None:
        self._connection.close()

    def send(self, action: str, body: str) -> tuple[int, etree._Element]:
        request = envelope(action, body.encode())
        self._connection.request("POST", self._path, request, {"Content-Type": f'{SIMPLE}; action="{action}"'})
        response = self._connection.getresponse()
        return response.status, etree.fromstring(response.read())

    def ask(self, interaction: str, body: str) -> etree._Element:
        """The acknowledgement MCCI_IN000002UV01."""
        status, answer = self.send(f"{HL7}:{interaction}", body)
        assert status == 200
        assert answer.findtext("s:Header/a:Action", namespaces=NS) == f"{HL7}:MCCI_IN000002UV01"
        (found,) = answer.findall("s:Body/*", NS)
        assert found.tag == f"{{{HL7}}}MCCI_IN000002UV01"
        return found

    def outcome(self, interaction: str, body: str) -> tuple[str, list[tuple[str, str]]]:
        """acknowledgement/typeCode, and code and text of each detail."""
        acknowledgement = self.ask(interaction, body).find("h:acknowledgement", NS)
        assert acknowledgement is not None
        details = [
            (one.find("h:code", NS).get("code"), one.findtext("h:text", namespaces=NS))  # type: ignore[union-attr]
            for one in acknowledgement.findall("h:acknowledgementDetail[@typeCode='E']", NS)
        ]
        return acknowledgement.find("h:typeCode", NS).get("code"), details  # type: ignore[union-attr, return-value]

    @property
    def patients(self) -> dict[str, str | None]:
        return {str(one): None if into is None else str(into) for one, into in list_patients(self.store)}

    def know(self, *numbers: str) -> None:
        assert self.outcome(ADD, add(*((OURS, number) for number in numbers))) == ("CA", [])

    def submit(self, patient_id: str) -> None:
        assert self.client.register(submission(Identifier(patient_id), registered=True)).succeeded

    def documents(self, patient_id: str) -> list[DocumentEntry]:
        found = self.client.query(FindDocuments(patient_id=Identifier(patient_id))).fragments
        return [one for one in rim.decode_fragments(found) if isinstance(one, DocumentEntry)]


def _config(directory: Path) -> Config:
    config = Config()
    return replace(
        config,
        server=replace(config.server, directory=str(directory), actors="registry"),
        registry=replace(config.registry, assigning_authorities=f"AFF&{OURS},{SECOND}"),
    )


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    config = _config(tmp_path)
    with serving(config) as domain:
        made = Source(domain, config)
        yield made
        made.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """For everything that is refused: p3 was merged into p2; p1 and p4 are known."""
    config = _config(tmp_path_factory.mktemp("standing"))
    with serving(config) as domain:
        made = Source(domain, config)
        for number in ("p1", "p2", "p3", "p4"):
            made.know(number)
        assert made.outcome(RESOLVE, resolve("p2", "p3")) == ("CA", [])
        yield made
        made.close()


STANDING = {cx("p1"): None, cx("p2"): None, cx("p3"): cx("p2"), cx("p4"): None}


def _ids(ids: tuple[Id, ...] | list[Id]) -> str:
    return "".join(f"<h:id root={quoteattr(root)} extension={quoteattr(number)}/>" for root, number in ids)


def interaction(
    name: str, ids: str, *, replaced: str = "", identity: str = '<h:id root="1.2.3.4.600" extension="m1"/>'
) -> str:
    return (
        f'<h:{name} xmlns:h="{HL7}" ITSVersion="XML_1.0">{identity}<h:creationTime value="20240102030405"/>'
        f'<h:interactionId root="2.16.840.1.113883.1.6" extension="{name}"/><h:processingCode code="P"/>'
        '<h:processingModeCode code="T"/><h:acceptAckCode code="AL"/>'
        '<h:receiver typeCode="RCV"><h:device classCode="DEV" determinerCode="INSTANCE"><h:id root="1.2.3.4.700"/>'
        '</h:device></h:receiver><h:sender typeCode="SND"><h:device classCode="DEV" determinerCode="INSTANCE">'
        '<h:id root="1.2.3.4.701" extension="adt"/></h:device></h:sender>'
        f'<h:controlActProcess classCode="CACT" moodCode="EVN"><h:code code="{name.replace("_IN", "_TE")}" '
        'codeSystem="2.16.840.1.113883.1.6"/><h:subject typeCode="SUBJ">'
        '<h:registrationEvent classCode="REG" moodCode="EVN"><h:id nullFlavor="NA"/><h:statusCode code="active"/>'
        f'<h:subject1 typeCode="SBJ"><h:patient classCode="PAT">{ids}<h:statusCode code="active"/>'
        '<h:patientPerson classCode="PSN" determinerCode="INSTANCE"><h:name><h:given>Ann</h:given>'
        '<h:family>Muster</h:family></h:name><h:birthTime value="19700101"/></h:patientPerson>'
        '<h:providerOrganization classCode="ORG" determinerCode="INSTANCE"><h:id root="1.2.3.4"/>'
        "</h:providerOrganization></h:patient></h:subject1>"
        '<h:custodian typeCode="CST"><h:assignedEntity classCode="ASSIGNED"><h:id root="1.2.3.4.702"/>'
        f"</h:assignedEntity></h:custodian>{replaced}</h:registrationEvent></h:subject></h:controlActProcess></h:{name}>"
    )


def add(*ids: Id) -> str:
    return interaction(ADD, _ids(ids))


def replacement(*ids: Id) -> str:
    return (
        '<h:replacementOf typeCode="RPLC"><h:priorRegistration classCode="REG" moodCode="EVN">'
        '<h:statusCode code="obsolete"/><h:subject1 typeCode="SBJ">'
        f'<h:priorRegisteredRole classCode="PAT">{_ids(ids)}</h:priorRegisteredRole>'
        "</h:subject1></h:priorRegistration></h:replacementOf>"
    )


def resolve(surviving: str, subsumed: str) -> str:
    return interaction(RESOLVE, _ids([(OURS, surviving)]), replaced=replacement((OURS, subsumed)))


def attributes(element: etree._Element, path: str) -> dict[str, str]:
    found = element.find(path, NS)
    assert found is not None, path
    return {str(name): str(value) for name, value in found.attrib.items()}


# --- acknowledgements -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (ADD, add((OURS, "p1"))),
        (REVISE, interaction(REVISE, _ids([(OURS, "p1")]))),
        (RESOLVE, resolve("p1", "ghost")),
    ],
)
def test_an_acknowledgement_has_what_the_standard_wants_of_it(standing: Source, name: str, body: str) -> None:
    """ITI TF-2 3.44.4.1.3, MCCI_RM000200UV01: receiver and sender exchanged, the target's own id, nothing to acknowledge again."""
    found = standing.ask(name, body)
    assert found.get("ITSVersion") == "XML_1.0"
    assert [etree.QName(one).localname for one in found] == [
        "id",
        "creationTime",
        "interactionId",
        "processingCode",
        "processingModeCode",
        "acceptAckCode",
        "receiver",
        "sender",
        "acknowledgement",
    ]
    assert attributes(found, "h:interactionId") == {"root": "2.16.840.1.113883.1.6", "extension": "MCCI_IN000002UV01"}
    codes = [attributes(found, f"h:{one}")["code"] for one in ("processingCode", "processingModeCode", "acceptAckCode")]
    assert codes == ["P", "T", "NE"]
    assert attributes(found, "h:receiver") == {"typeCode": "RCV"}
    assert attributes(found, "h:receiver/h:device/h:id") == {"root": "1.2.3.4.701", "extension": "adt"}
    assert attributes(found, "h:sender") == {"typeCode": "SND"}
    assert attributes(found, "h:sender/h:device/h:id") == {"root": "1.2.3.4.700"}
    assert attributes(found, "h:acknowledgement/h:targetMessage/h:id") == {"root": "1.2.3.4.600", "extension": "m1"}
    assert attributes(found, "h:id") != attributes(standing.ask(name, body), "h:id")
    assert len(attributes(found, "h:creationTime")["value"]) == 14
    assert attributes(found, "h:acknowledgement/h:typeCode") == {"code": "CE" if "ghost" in body else "CA"}


@pytest.mark.parametrize(
    ("identity", "echoed"),
    [
        ('<h:id root="5cd1b1f5-7b33-4c8f-92bd-1b7a8d6a1d33"/>', {"root": "5cd1b1f5-7b33-4c8f-92bd-1b7a8d6a1d33"}),
        (
            '<h:id root="1.2.3" extension="&lt;a&gt; &quot;&amp;&apos;"/>',
            {"root": "1.2.3", "extension": "<a> \"&'"},
        ),
        ('<h:id nullFlavor="NA"/>', {"nullFlavor": "NI"}),
        ("", {"nullFlavor": "NI"}),
    ],
)
def test_the_target_message_has_the_request_s_id_whatever_that_is(
    standing: Source, identity: str, echoed: dict[str, str]
) -> None:
    found = standing.ask(ADD, interaction(ADD, _ids([(OURS, "p1")]), identity=identity))
    assert attributes(found, "h:acknowledgement/h:targetMessage/h:id") == echoed
    assert attributes(found, "h:acknowledgement/h:typeCode") == {"code": "CA"}


def test_another_interaction_is_a_soap_fault(standing: Source) -> None:
    """ITI TF-2 3.44: three interactions; a query of a PIX manager is none of them."""
    name = "PRPA_IN201309UV02"
    status, answer = standing.send(f"{HL7}:{name}", interaction(name, _ids([(OURS, "p9")])))
    assert status in (400, 500)
    assert answer.find("s:Body/s:Fault", NS) is not None
    assert standing.patients == STANDING


def test_an_interaction_under_another_s_action_is_a_soap_fault(standing: Source) -> None:
    status, answer = standing.send(f"{HL7}:{REVISE}", add((OURS, "p9")))
    assert status in (400, 500)
    assert answer.find("s:Body/s:Fault", NS) is not None
    assert standing.patients == STANDING


# --- add and revise ---------------------------------------------------------------------------------------------------


def test_only_after_it_is_added_a_patient_can_have_documents(source: Source) -> None:
    """ITI TF-2 3.44.4.1.3."""
    with pytest.raises(Failure, match="XDSUnknownPatientId"):
        source.submit(cx("p1"))
    assert source.outcome(ADD, add((OURS, "p1"))) == ("CA", [])
    source.submit(cx("p1"))
    assert [one.patient_id for one in source.documents(cx("p1"))] == [cx("p1")]


@pytest.mark.parametrize(
    ("ids", "known"),
    [
        ([(OTHER, "x"), (OURS, "y"), ("1.2.3.4.9", "z")], [cx("y")]),
        ([(OURS, "x"), (OURS, "y"), (SECOND, "x")], [cx("x"), cx("y"), cx("x", SECOND)]),
        ([(OURS, "x"), (OURS, "x")], [cx("x")]),
        ([(OTHER, "x")], []),
        ([("5cd1b1f5-7b33-4c8f-92bd-1b7a8d6a1d33", "x")], []),
        ([(OURS, "jürgen")], [cx("jürgen")]),
        ([(OURS, "a&b|c^d~e\\f")], [cx("a\\T\\b\\F\\c\\S\\d\\R\\e\\E\\f")]),
        ([(OURS, " x ")], [cx("x")]),
    ],
)
def test_the_ids_of_our_authorities_are_kept_and_others_ignored(
    source: Source, ids: list[Id], known: list[str]
) -> None:
    assert source.outcome(ADD, add(*ids)) == ("CA", [])
    assert source.patients == dict.fromkeys(known)


def test_a_known_patient_is_added_again_without_effect(standing: Source) -> None:
    assert standing.outcome(ADD, add((OURS, "p1"))) == ("CA", [])
    assert standing.outcome(ADD, add((OURS, "p3"))) == ("CA", [])
    assert standing.patients == STANDING


def test_a_revision_is_acknowledged_and_ignored(standing: Source) -> None:
    """ITI TF-2 3.44.4.1.3: of a revision nothing concerns a registry, not even an empty one."""
    for ids in (_ids([(OURS, "p9")]), "", _ids([(OTHER, "x")])):
        assert standing.outcome(REVISE, interaction(REVISE, ids)) == ("CA", [])
    assert standing.patients == STANDING


# --- merge ------------------------------------------------------------------------------------------------------------


def test_after_duplicates_are_resolved_the_survivor_has_both_patients_documents(source: Source) -> None:
    """ITI TF-2 3.44.4.2.3: as ADT^A40."""
    source.know("p1")
    source.know("p2")
    source.submit(cx("p1"))
    source.submit(cx("p2"))
    assert source.outcome(RESOLVE, resolve("p1", "p2")) == ("CA", [])
    assert source.patients == {cx("p1"): None, cx("p2"): cx("p1")}
    assert [one.patient_id for one in source.documents(cx("p1"))] == [cx("p1")] * 2
    assert source.documents(cx("p2")) == []
    with pytest.raises(Failure, match="XDSUnknownPatientId"):
        source.submit(cx("p2"))


def test_ids_of_others_beside_ours_do_not_disturb_a_merge(source: Source) -> None:
    source.know("p1")
    source.know("p2")
    body = interaction(
        RESOLVE, _ids([(OTHER, "x"), (OURS, "p1")]), replaced=replacement((OURS, "p2"), ("1.2.3.4.9", "y"))
    )
    assert source.outcome(RESOLVE, body) == ("CA", [])
    assert source.patients == {cx("p1"): None, cx("p2"): cx("p1")}


ONE = _ids([(OURS, "p1")])


@pytest.mark.parametrize(
    ("name", "body", "code", "words"),
    [
        (RESOLVE, resolve("p1", "ghost"), "204", "the subsumed patient"),
        (RESOLVE, resolve("ghost", "p1"), "204", "the surviving patient"),
        (RESOLVE, resolve("p1", "p1"), "204", "into itself"),
        (RESOLVE, resolve("p1", "p3"), "204", "has been merged into"),
        (RESOLVE, resolve("p3", "p1"), "204", "has been merged into"),
        (RESOLVE, interaction(RESOLVE, ONE, replaced=replacement((OTHER, "p4"))), "204", "0 identifiers"),
        (RESOLVE, interaction(RESOLVE, _ids([(OTHER, "p1")]), replaced=replacement((OURS, "p4"))), "204", "0 identif"),
        (RESOLVE, interaction(RESOLVE, ONE, replaced=replacement((OURS, "p4"), (OURS, "p2"))), "102", "2 identifiers"),
        (
            RESOLVE,
            interaction(RESOLVE, _ids([(OURS, "p1"), (OURS, "p2")]), replaced=replacement((OURS, "p4"))),
            "102",
            "2 id",
        ),
        (RESOLVE, interaction(RESOLVE, ONE), "102", "0 replacementOf"),
        (RESOLVE, interaction(RESOLVE, ONE, replaced=replacement((OURS, "p4")) * 2), "102", "2 replacementOf"),
        (RESOLVE, interaction(RESOLVE, ONE, replaced=replacement()), "102", "priorRegisteredRole/id is missing"),
        (ADD, interaction(ADD, ""), "102", "patient/id is missing"),
        (ADD, interaction(ADD, '<h:id nullFlavor="UNK"/>'), "102", "patient/id is missing"),
        (ADD, add(*((OURS, f"x{n}") for n in range(33))), "102", "33 times"),
        (ADD, add((OURS, "")), "102", "is not of the form"),
        (ADD, add((OURS, "p9"), (OURS, "x" * 250)), "102", "256"),
        (ADD, add((OURS, "p9"), (OURS, "a\tb")), "102", "no text"),
        (ADD, f'<h:{ADD} xmlns:h="{HL7}"/>', "102", "0 registrationEvents"),
        (
            ADD,
            add((OURS, "p9")).replace("<h:subject ", "<h:subject><h:registrationEvent/></h:subject><h:subject "),
            "102",
            "2 registrationEvents",
        ),
    ],
)
def test_what_is_refused_is_ce_with_its_error_code_and_changes_nothing(
    standing: Source, name: str, body: str, code: str, words: str
) -> None:
    """HL7 table 0357: 204 unknown key identifier, 102 what is missing or wrong. All ids of a message become known, or none."""
    type_code, details = standing.outcome(name, body)
    assert type_code == "CE"
    assert [one for one, _ in details] == [code]
    assert words in details[0][1]
    assert standing.patients == STANDING


# --- hostile contents -------------------------------------------------------------------------------------------------


def test_very_many_ids_are_refused_with_the_limit(standing: Source) -> None:
    type_code, details = standing.outcome(ADD, add(*((OURS, f"x{n}") for n in range(20_000))))
    assert type_code == "CE"
    assert details == [("102", "patient/id is there 20000 times; the limit is 32")]
    assert standing.patients == STANDING


@pytest.mark.parametrize("inserted", ["\n", "\t", "\r", "\r\nMSA|AA|forged"])
def test_white_space_that_controls_is_no_part_of_an_id(standing: Source, inserted: str) -> None:
    """XML 1.0 3.3.3: written as character references it comes through."""
    written = "".join(f"&#{ord(character)};" if character < " " else character for character in inserted)
    body = interaction(ADD, f'<h:id root="{OURS}" extension="a{written}b"/>')
    type_code, details = standing.outcome(ADD, body)
    assert (type_code, [code for code, _ in details]) == ("CE", ["102"])
    assert standing.patients == STANDING


@pytest.mark.parametrize("reference", ["&#0;", "&#1;", "&#xFFFE;", "&#xD800;", "&undeclared;"])
def test_characters_that_xml_does_not_have_are_a_fault(standing: Source, reference: str) -> None:
    body = interaction(ADD, f'<h:id root="{OURS}" extension="a{reference}b"/>')
    status, answer = standing.send(f"{HL7}:{ADD}", body)
    assert status == 400
    assert answer.find("s:Body/s:Fault", NS) is not None
    assert standing.patients == STANDING


def test_a_long_id_comes_back_shortened(standing: Source) -> None:
    """An answer must not grow with what it refuses."""
    type_code, details = standing.outcome(ADD, add((OURS, "x" * 200_000)))
    assert (type_code, [code for code, _ in details]) == ("CE", ["102"])
    assert len(details[0][1]) <= 1000
    type_code, details = standing.outcome(RESOLVE, resolve("y" * 200_000, "x" * 200_000))
    assert (type_code, len(details[0][1]) <= 1000) == ("CE", True)
    assert standing.patients == STANDING


def test_markup_in_an_id_is_text_in_the_acknowledgement(standing: Source) -> None:
    type_code, details = standing.outcome(RESOLVE, resolve("p1", "</h:text><evil/>]]>&"))
    assert type_code == "CE"
    assert details[0][0] == "204"
    assert "</h:text><evil/>]]>" in details[0][1]


def test_an_id_of_the_message_cannot_make_the_log_lie(standing: Source, caplog: pytest.LogCaptureFixture) -> None:
    """House rule 7; and one request is one line."""
    caplog.set_level(logging.DEBUG)
    identity = f'<h:id root="1.2.3" extension="m1&#10;{"z" * 5000}"/>'
    standing.ask(ADD, interaction(ADD, _ids([(OURS, "p1")]), identity=identity))
    standing.ask(RESOLVE, resolve("p1", "ghost"))
    lines = [record.getMessage() for record in caplog.records if record.name == "xdsi.feeds"]
    assert [line.split()[0] for line in lines] == [ADD, RESOLVE]
    assert [line.split()[-1] for line in lines] == ["CA", "CE"]
    assert all("\n" not in line and len(line) < 250 for line in lines)
    told = "\n".join(record.getMessage() for record in caplog.records)
    assert not any(word in told for word in ("p1^", "ghost", "Muster", "19700101"))


def test_control_characters_in_the_message_id_do_not_spoil_the_acknowledgement(standing: Source) -> None:
    identity = '<h:id root="1.2.3" extension="m&#10;1&#9;&#x85;&#x2028;"/>'
    found = standing.ask(ADD, interaction(ADD, _ids([(OURS, "p1")]), identity=identity))
    assert attributes(found, "h:acknowledgement/h:targetMessage/h:id")["extension"] == "m\n1\t\x85\u2028"
