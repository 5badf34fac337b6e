"""WS-Addressing headers and SOAP faults, read and written (WS-Addressing 1.0 SOAP Binding, ITI TF-2 Appendix V.3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from lxml import etree

from soap import addressing, fault
from soap.addressing import ANONYMOUS, read
from soap.client import read_fault
from soap.fault import SOAP12, WSA, Code, NotUnderstood, SoapFault

ACTION = '<a:Action s:mustUnderstand="1">urn:x:Do</a:Action>'
ID = "<a:MessageID>urn:uuid:1</a:MessageID>"
NS = {"s": SOAP12, "a": WSA}


def blocks(text: str) -> Sequence[etree._Element]:
    return list(
        etree.fromstring(f'<h xmlns:s="{SOAP12}" xmlns:a="{WSA}" xmlns:soap="{SOAP12}" xmlns:wsa="{WSA}">{text}</h>')
    )


def refusal(text: str) -> SoapFault:
    with pytest.raises(SoapFault) as caught:
        read(blocks(text))
    return caught.value


@pytest.mark.parametrize(
    "more",
    [
        "",
        f"<a:ReplyTo><a:Address>{ANONYMOUS}</a:Address></a:ReplyTo>",
        f"<a:ReplyTo><a:Address> {ANONYMOUS}\n</a:Address><a:ReferenceParameters/></a:ReplyTo>",
        f"<a:FaultTo><a:Address>{ANONYMOUS}</a:Address></a:FaultTo><a:To>http://x/</a:To>",
        '<a:RelatesTo>urn:uuid:0</a:RelatesTo><a:RelatesTo RelationshipType="urn:y">urn:uuid:9</a:RelatesTo>',
        '<x:Trace xmlns:x="urn:x"/>',
        '<x:Trace xmlns:x="urn:x" s:mustUnderstand="false"/>',
        f'<x:Trace xmlns:x="urn:x" s:mustUnderstand="1" s:role="{SOAP12}/role/none"/>',
        '<x:Trace xmlns:x="urn:x" s:mustUnderstand="1" s:role="urn:some:intermediary"/>',
    ],
)
def test_a_request_says_its_action_and_message_id(more: str) -> None:
    found = read(blocks(ACTION + ID + more))
    assert (found.action, found.message_id) == ("urn:x:Do", "urn:uuid:1")


def test_a_message_id_may_lack_its_urn() -> None:
    assert read(blocks(ACTION + "<a:MessageID>uuid:1-2</a:MessageID>")).message_id == "uuid:1-2"


def test_white_space_around_an_action_is_no_matter() -> None:
    assert read(blocks("<a:Action>\n urn:x:Do </a:Action>" + ID)).action == "urn:x:Do"


@pytest.mark.parametrize("text", ["", ID, ACTION, "<a:Action> </a:Action>" + ID, ACTION + "<a:MessageID/>"])
def test_what_is_missing_is_required(text: str) -> None:
    """WS-Addressing SOAP Binding 6.4.2."""
    assert refusal(text).subcode == "MessageAddressingHeaderRequired"


@pytest.mark.parametrize("name", ["Action", "MessageID", "To", "ReplyTo", "FaultTo", "From"])
def test_a_header_given_twice_is_named(name: str) -> None:
    """WS-Addressing SOAP Binding 6.4.1."""
    given = refusal(ACTION + ID + f"<a:{name}/>" * 2)
    assert (given.subcode, given.subsubcode) == ("InvalidAddressingHeader", "InvalidCardinality")
    assert f"wsa:{name}" in given.reason


@pytest.mark.parametrize("name", ["ReplyTo", "FaultTo"])
@pytest.mark.parametrize("address", ["<a:Address>http://elsewhere/</a:Address>", "<a:Address/>", ""])
def test_an_answer_goes_only_where_the_request_came_from(name: str, address: str) -> None:
    """WS-Addressing SOAP Binding 6.4.1.7."""
    given = refusal(ACTION + ID + f"<a:{name}>{address}</a:{name}>")
    assert given.subsubcode == "OnlyAnonymousAddressSupported"


@pytest.mark.parametrize("role", ["", f"{SOAP12}/role/next", f"{SOAP12}/role/ultimateReceiver"])
def test_a_header_for_us_that_must_be_understood_is_refused(role: str) -> None:
    """SOAP 1.2 Part 1 2.4, 5.2.3."""
    given = refusal(ACTION + ID + f'<x:T xmlns:x="urn:x" s:mustUnderstand=" true " s:role="{role}"/>')
    assert (given.code, given.not_understood) == ("MustUnderstand", (NotUnderstood("urn:x", "T"),))


def test_what_must_be_understood_comes_before_what_is_required() -> None:
    assert refusal('<x:T xmlns:x="urn:x" s:mustUnderstand="1"/>').code == "MustUnderstand"


def test_the_headers_of_a_request_can_be_read() -> None:
    found = read(blocks(addressing.request_headers("urn:x:A&B", "http://x/?a=1&b=2", "urn:uuid:7")))
    assert (found.action, found.message_id) == ("urn:x:A&B", "urn:uuid:7")


def test_an_answer_relates_to_its_request() -> None:
    action, message_id, relates_to = blocks(addressing.reply_headers("urn:x:R", "urn:uuid:<1>"))
    assert (action.text, action.get(f"{{{SOAP12}}}mustUnderstand")) == ("urn:x:R", "1")
    assert (message_id.text or "").startswith("urn:uuid:")
    assert relates_to.text == "urn:uuid:<1>"
    assert len(blocks(addressing.reply_headers("urn:x:R", None))) == 2


FAULTS = [
    SoapFault("Sender", "plain"),
    SoapFault("Sender", "a < b & c", subcode="ActionNotSupported", problem_action="urn:<x>"),
    SoapFault("Sender", "x", subcode="InvalidAddressingHeader", subsubcode="InvalidCardinality"),
    SoapFault("Receiver", "x"),
    SoapFault("MustUnderstand", "x", not_understood=(NotUnderstood("urn:x&y", "T"), NotUnderstood("", "U"))),
    SoapFault("VersionMismatch", "x"),
]


@pytest.mark.parametrize("given", FAULTS, ids=str)
def test_a_fault_survives_the_wire(given: SoapFault) -> None:
    """SOAP 1.2 Part 1 5.4: Code, Reason, Detail in this order; the values are QNames whose prefixes are declared."""
    (element,) = blocks(fault.body(given))
    names = [etree.QName(child).localname for child in element]
    assert names == ["Code", "Reason"] + (["Detail"] if given.problem_action else [])
    for value in element.iter(f"{{{SOAP12}}}Value"):
        assert (value.text or "").partition(":")[0] in value.nsmap
    read_back = read_fault(element, 500)
    assert (read_back.code, read_back.reason) == (given.code, given.reason)
    assert (read_back.subcode, read_back.problem_action) == (given.subcode, given.problem_action)


@pytest.mark.parametrize("given", FAULTS, ids=str)
def test_each_name_in_a_header_of_a_fault_can_be_resolved(given: SoapFault) -> None:
    """SOAP 1.2 Part 1 5.4.7, 5.4.8."""
    named = []
    for header in blocks(fault.headers(given)):
        element = header[0] if len(header) else header
        prefix, _, local = element.get("qname", "").rpartition(":")
        named.append(NotUnderstood(element.nsmap[prefix] if prefix else "", local))
    expected = (NotUnderstood(SOAP12, "Envelope"),) if given.code == "VersionMismatch" else given.not_understood
    assert tuple(named) == expected


def test_a_reason_holds_no_character_that_xml_does_not() -> None:
    (element,) = blocks(fault.body(SoapFault("Sender", "a\x00b\x1b\ud800\uffffc\t")))
    assert read_fault(element, 400).reason == "a\ufffdb\ufffd\ufffd\ufffdc"


@pytest.mark.parametrize(
    ("code", "status", "action"),
    [
        ("Sender", 400, f"{WSA}/fault"),
        ("Receiver", 500, f"{WSA}/fault"),
        ("MustUnderstand", 500, f"{WSA}/soap/fault"),
        ("VersionMismatch", 500, f"{WSA}/soap/fault"),
    ],
)
def test_each_code_has_its_status_and_action(code: Code, status: int, action: str) -> None:
    """SOAP 1.2 Part 2 table 20; WS-Addressing SOAP Binding 6."""
    assert (SoapFault(code, "x").http_status, fault.action(SoapFault(code, "x"))) == (status, action)
