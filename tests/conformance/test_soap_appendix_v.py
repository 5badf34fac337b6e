"""SOAP 1.2, WS-Addressing and MTOM as ITI TF-2 Appendix V wants them, through the ASGI endpoint: what is accepted, and each fault."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from soap import xop
from soap.client import HttpResponse, SoapClient
from soap.endpoint import Endpoint, Packaging
from soap.fault import SOAP11, SOAP12, WSA, SoapFault
from soap.operations import Call, Limits, Operation, Reply, Service
from xds.messages import Document

NS = {"s": SOAP12, "a": WSA}
ECHO, STORE = "urn:test:Echo", "urn:test:Store"
LIMITS = Limits(
    envelope_bytes=200_000,
    message_bytes=3_000_000,
    document_bytes=2_000_000,
    parts=50,
    part_header_bytes=2_000,
    preamble_bytes=1_000,
    depth=40,
    attributes=20,
    body_idle_s=0.05,
)
PIECE = b"0123456789abcdef" * 4096


def echo(call: Call) -> Reply:
    return Reply(body=[b'<t:EchoResponse xmlns:t="urn:test">', (call.body.text or "").encode(), b"</t:EchoResponse>"])


def store(call: Call) -> Reply:
    """Answers each Document element with its size and SHA-1, and gives the bytes back."""
    found = [xop.resolve(element, call.documents) for element in call.body.iterfind("{urn:test}Document")]
    rows = "".join(
        f'<t:Stored size="{one.size}" sha1="{one.sha1}"><xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include"'
        f' href="cid:back{number}@x"/></t:Stored>'
        for number, one in enumerate(found)
    )
    # The spool ends with the request; what a reply gives back must have bytes of its own.
    kept = [Document.of(one.read(), "application/octet-stream") for one in found]
    body = f'<t:StoreResponse xmlns:t="urn:test">{rows}</t:StoreResponse>'.encode()
    return Reply(body=[body], documents=[(f"back{number}@x", one) for number, one in enumerate(kept)])


def broken(call: Call) -> Reply:
    raise RuntimeError("secret of the house")


def long(call: Call) -> Reply:
    """Two megabytes in pieces; a body of "break" breaks off in the middle."""

    def pieces() -> Iterator[bytes]:
        yield b'<t:LongResponse xmlns:t="urn:test">'
        for number in range(32):
            if number == 20 and call.body.text == "break":
                raise RuntimeError("the disk is gone")
            yield PIECE
        yield b"</t:LongResponse>"

    return Reply(body=pieces())


def operation(name: str, action: str, element: str, answer: Any, *, mtom: bool) -> Operation:
    return Operation(
        name=name,
        action=action,
        element=f"{{urn:test}}{element}",
        reply_action=f"{action}Response",
        mtom=mtom,
        answer=answer,
    )


SERVICE = Service(
    name="Test",
    operations=(
        operation("Test_Echo", ECHO, "Echo", echo, mtom=False),
        operation("Test_Store", STORE, "Store", store, mtom=True),
        operation("Test_Broken", "urn:test:Broken", "Broken", broken, mtom=False),
        operation("Test_Long", "urn:test:Long", "Long", long, mtom=False),
    ),
    describe=lambda address, file: f"<wsdl at='{address}' file='{file}'/>".encode() if file != "none.xsd" else None,
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def root(self) -> etree._Element:
        """The envelope, out of the multipart if need be."""
        if self.headers["content-type"].startswith("multipart/related"):
            return etree.fromstring(self.body.split(b"\r\n\r\n", 1)[1].split(b"\r\n--", 1)[0])
        return etree.fromstring(self.body)

    def text(self, path: str) -> str | None:
        return self.root.findtext(path, None, NS)


class Peer:
    """Calls an endpoint as an ASGI server would."""

    def __init__(self, directory: Path, packaging: Packaging, service: Service = SERVICE) -> None:
        self.executor = ThreadPoolExecutor(2)
        self.sent: list[Any] = []
        self.directory = directory
        self.endpoint = Endpoint(
            service,
            address="http://x/test",
            spool_directory=directory,
            limits=LIMITS,
            executor=self.executor,
            packaging=packaging,
        )

    def request(
        self,
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        query: str = "",
        chunk: int = 0,
        gone: bool = False,
        stalls: bool = False,
        leaves: bool = False,
    ) -> Answer:
        """`gone` leaves within the request, `stalls` never ends it, `leaves` goes when the answer begins."""
        chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)] if chunk else [body]
        events: list[dict[str, Any]] = [{"type": "http.request", "body": one, "more_body": True} for one in chunks]
        if not stalls:
            last = {"type": "http.request", "body": b"", "more_body": False}
            events.append({"type": "http.disconnect"} if gone else last)
        if leaves:
            events.append({"type": "http.disconnect"})
        incoming, sent = iter(events), self.sent
        sent.clear()

        async def receive() -> Any:
            for event in incoming:
                return event
            return await asyncio.Event().wait()

        async def send(event: Any) -> None:
            sent.append(event)
            await asyncio.sleep(0)

        scope = {
            "type": "http",
            "method": method,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
            "query_string": query.encode(),
        }
        asyncio.run(self.endpoint(scope, receive, send))
        if not sent:
            return Answer(0, {}, b"")
        return Answer(
            sent[0]["status"],
            {name.decode(): value.decode() for name, value in sent[0]["headers"]},
            b"".join(event.get("body", b"") for event in sent[1:]),
        )

    def post(self, body: bytes, content_type: str = "application/soap+xml; charset=UTF-8", **more: Any) -> Answer:
        return self.request("POST", body, {"Content-Type": content_type}, **more)


def peers(tmp_path: Path, packaging: Packaging) -> Iterator[Peer]:
    made = Peer(tmp_path, packaging)
    yield made
    made.executor.shutdown()
    assert list(tmp_path.iterdir()) == [], "a spool file was left behind"


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    yield from peers(tmp_path, "lenient")


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Peer]:
    yield from peers(tmp_path, "strict")


def envelope(
    action: str = ECHO,
    body: str = '<t:Echo xmlns:t="urn:test">hello</t:Echo>',
    headers: str = "",
    mid: str = "urn:uuid:1",
) -> bytes:
    return (
        f'<s:Envelope xmlns:s="{SOAP12}" xmlns:a="{WSA}"><s:Header><a:Action s:mustUnderstand="1">{action}</a:Action>'
        f"<a:MessageID>{mid}</a:MessageID>{headers}</s:Header><s:Body>{body}</s:Body></s:Envelope>"
    ).encode()


def store_body(*hrefs: str) -> str:
    documents = "".join(
        f'<t:Document><i:Include xmlns:i="http://www.w3.org/2004/08/xop/include" href="{href}"/></t:Document>'
        for href in hrefs
    )
    return f'<t:Store xmlns:t="urn:test">{documents}</t:Store>'


ROOT_HEADERS = (
    'Content-Type: application/xop+xml; charset=UTF-8; type="application/soap+xml"\r\n'
    "Content-Transfer-Encoding: binary\r\nContent-ID: <root@x>"
)
MTOM = (
    'multipart/related; type="application/xop+xml"; start="<root@x>"; start-info="application/soap+xml"; boundary="b1"'
)


def multipart(
    root: bytes,
    *parts: tuple[str, bytes],
    root_headers: str = ROOT_HEADERS,
    boundary: str = "b1",
    end: bytes = b"--\r\n",
) -> bytes:
    message = f"--{boundary}\r\n{root_headers}\r\n\r\n".encode() + root
    for headers, content in parts:
        message += f"\r\n--{boundary}\r\n{headers}\r\n\r\n".encode() + content
    return message + f"\r\n--{boundary}".encode() + end


def part(content_id: str = "<d@x>", encoding: str = "binary") -> str:
    return f"Content-Type: text/plain\r\nContent-Transfer-Encoding: {encoding}\r\nContent-ID: {content_id}"


def assert_fault(answer: Answer, code: str, subcode: str | None = None, status: int = 400) -> str:
    fault = answer.root.find("s:Body/s:Fault", NS)
    assert fault is not None, answer.body[:500]
    assert answer.status == status
    assert fault.findtext("s:Code/s:Value", None, NS) == f"soap:{code}"
    assert fault.findtext("s:Code/s:Subcode/s:Value", None, NS) == (subcode and f"wsa:{subcode}")
    assert answer.headers["content-type"].startswith("application/soap+xml")
    assert b"Traceback" not in answer.body
    return fault.findtext("s:Reason/s:Text", "", NS)


# --- what is accepted -------------------------------------------------------------------------------------------------


def test_a_simple_request_is_answered_with_action_and_relates_to(peer: Peer) -> None:
    """V.3.4: the answer relates to the MessageID of the request."""
    answer = peer.post(envelope())
    assert answer.status == 200
    assert answer.text("s:Header/a:Action") == f"{ECHO}Response"
    assert answer.text("s:Header/a:RelatesTo") == "urn:uuid:1"
    assert answer.text("s:Body/{urn:test}EchoResponse") == "hello"
    assert answer.root.find("s:Header/a:Action", NS).get(f"{{{SOAP12}}}mustUnderstand") == "1"  # type: ignore[union-attr]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "iso-8859-1"])
def test_a_request_may_be_in_another_encoding(peer: Peer, encoding: str) -> None:
    text = envelope(body='<t:Echo xmlns:t="urn:test">Müller</t:Echo>').decode()
    content = (f'<?xml version="1.0" encoding="{encoding.removesuffix("-le")}"?>' + text).encode(encoding)
    assert peer.post(content, "application/soap+xml").text("s:Body/{urn:test}EchoResponse") == "Müller"


@pytest.mark.parametrize("action", ['; action="urn:wrong"', '; action=""', "; action=None", ""])
def test_the_action_parameter_of_the_content_type_says_nothing(peer: Peer, action: str) -> None:
    assert peer.post(envelope(), f"application/soap+xml; charset=UTF-8{action}").status == 200


@pytest.mark.parametrize(
    "content_type",
    [
        MTOM,
        'multipart/related; boundary=b1; type="application/xop+xml"; start="<root@x>"; start-info="application/soap+xml"',
        "Multipart/Related;BOUNDARY=b1;Start=root@x",
        'multipart/related; boundary="b1"',
        'multipart/related; boundary="b1"; start-info="application/soap+xml; action=\\"urn:x\\""; type="text/xml"',
    ],
)
def test_the_parameters_of_multipart_may_be_in_any_legal_form(peer: Peer, content_type: str) -> None:
    answer = peer.post(multipart(envelope(STORE, store_body("cid:d@x")), (part(), b"Hello")), content_type)
    stored = answer.root.find("s:Body/{urn:test}StoreResponse/{urn:test}Stored", NS)
    assert stored is not None
    assert stored.get("sha1") == "f7ff9e8b7bb2e09b70935a5d785e0cc5d9d0abf0"
    assert answer.headers["content-type"].startswith("multipart/related")
    assert b"\r\n\r\nHello\r\n--" in answer.body
    assert int(answer.headers["content-length"]) == len(answer.body)


@pytest.mark.parametrize(
    ("content_id", "href"),
    [
        ("<d@x>", "cid:d@x"),
        ("d@x", "cid:d@x"),
        ("<d@x>", "cid:d%40x"),
        ("<d@x>", "CID:%3Cd@x%3E"),
        ("<no-at>", "cid:no-at"),
        ("<a%b>", "cid:a%25b"),
    ],
)
def test_a_content_id_is_found_in_every_form(peer: Peer, content_id: str, href: str) -> None:
    answer = peer.post(multipart(envelope(STORE, store_body(href)), (part(content_id), b"x")), MTOM)
    assert answer.root.find(".//{urn:test}Stored", NS) is not None


@pytest.mark.parametrize("chunk", [1, 2, 7, 4096])
def test_the_bytes_of_a_part_are_kept_as_they_are(peer: Peer, chunk: int) -> None:
    content = bytes(range(256)) * 8 + b"\r\n--b\r\n--\r\n\n\r"
    answer = peer.post(multipart(envelope(STORE, store_body("cid:d@x")), (part(), content)), MTOM, chunk=chunk)
    assert b"\r\n\r\n" + content + b"\r\n--" in answer.body


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("base64", base64.encodebytes(b"Hello" * 50)),
        ("quoted-printable", b"=48ello" * 50),
        ("8bit", b"Hello" * 50),
        ("7BIT", b"Hello" * 50),
    ],
)
def test_a_transfer_encoding_is_undone(peer: Peer, encoding: str, content: bytes) -> None:
    answer = peer.post(multipart(envelope(STORE, store_body("cid:d@x")), (part(encoding=encoding), content)), MTOM)
    assert b"Hello" * 50 in answer.body


def test_an_empty_part_is_an_empty_document(peer: Peer) -> None:
    answer = peer.post(multipart(envelope(STORE, store_body("cid:d@x")), (part(), b"")), MTOM)
    assert answer.root.find(".//{urn:test}Stored", NS).get("size") == "0"  # type: ignore[union-attr]


def test_inline_base64_is_accepted_in_multipart(peer: Peer) -> None:
    body = '<t:Store xmlns:t="urn:test"><t:Document>SGVs\n bG8=</t:Document></t:Store>'
    assert b"Hello" in peer.post(multipart(envelope(STORE, body)), MTOM).body


def test_a_plain_request_to_an_mtom_operation_is_answered_plainly(peer: Peer) -> None:
    body = '<t:Store xmlns:t="urn:test"><t:Document>SGVsbG8=</t:Document></t:Store>'
    answer = peer.post(envelope(STORE, body))
    assert answer.headers["content-type"].startswith("application/soap+xml")
    assert answer.text(".//{urn:test}Stored") == "SGVsbG8="


def test_a_large_document_goes_through_a_file(peer: Peer) -> None:
    content = b"0123456789abcdef" * 100_000
    answer = peer.post(multipart(envelope(STORE, store_body("cid:d@x")), (part(), content)), MTOM, chunk=65536)
    assert content in answer.body


def test_preamble_epilogue_and_a_missing_last_line_end_are_no_matter(peer: Peer) -> None:
    message = multipart(envelope(STORE, store_body("cid:d@x")), (part(), b"x"), end=b"--")
    for content in (message, b"preamble\r\n" + message, message + b"\r\nepilogue", b"\r\n" + message):
        assert peer.post(content, MTOM).status == 200


def test_a_security_header_that_must_be_understood_is_accepted(peer: Peer) -> None:
    wsse = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
    assert peer.post(envelope(headers=f'<w:Security xmlns:w="{wsse}" s:mustUnderstand="1"/>')).status == 200


def test_the_wsdl_and_its_schemas_are_served(peer: Peer) -> None:
    assert peer.request("GET", b"", {}, "wsdl").body == b"<wsdl at='http://x/test' file='None'/>"
    assert peer.request("GET", b"", {}, "xsd=rim.xsd").body == b"<wsdl at='http://x/test' file='rim.xsd'/>"
    assert peer.request("GET", b"", {}, "xsd=none.xsd").status == 404
    assert peer.request("GET", b"", {}).status == 404
    assert peer.request("PUT", b"", {}).headers["allow"] == "GET, POST"


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no xml",
        b"<a",
        b"<a/>",
        b"\xff\xfe\x00",
        b"<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope'/>",
    ],
)
def test_what_is_no_envelope_is_the_senders_fault(peer: Peer, body: bytes) -> None:
    assert assert_fault(peer.post(body), "Sender")


def test_two_elements_in_the_body_are_refused(peer: Peer) -> None:
    assert "2 elements" in assert_fault(peer.post(envelope(body="<a/><b/>")), "Sender")
    assert "0 elements" in assert_fault(peer.post(envelope(body="")), "Sender")


def test_two_bodies_are_refused(peer: Peer) -> None:
    assert_fault(peer.post(envelope().replace(b"</s:Body>", b"</s:Body><s:Body><a/></s:Body>")), "Sender")


def test_soap_11_is_a_version_mismatch_with_an_upgrade_header(peer: Peer) -> None:
    """SOAP 1.2 Part 1 5.4.7."""
    answer = peer.post(envelope().replace(SOAP12.encode(), SOAP11.encode()), "text/xml")
    assert_fault(answer, "VersionMismatch", status=500)
    assert answer.root.find("s:Header/s:Upgrade/s:SupportedEnvelope", NS) is not None
    assert answer.text("s:Header/a:Action") == f"{WSA}/soap/fault"


def test_a_header_that_is_not_understood_is_named(peer: Peer) -> None:
    """SOAP 1.2 Part 1 5.4.8."""
    answer = peer.post(envelope(headers='<x:Thing xmlns:x="urn:x" s:mustUnderstand="true"/>'))
    assert_fault(answer, "MustUnderstand", status=500)
    assert answer.root.find("s:Header/s:NotUnderstood", NS).get("qname") == "n:Thing"  # type: ignore[union-attr]
    assert peer.post(envelope(headers='<x:Thing xmlns:x="urn:x" s:mustUnderstand="0"/>')).status == 200


def test_a_missing_action_or_message_id_is_required(peer: Peer) -> None:
    for name in ("Action", "MessageID"):
        text = envelope().decode()
        start, end = text.index(f"<a:{name}"), text.index(f"</a:{name}>") + len(f"</a:{name}>")
        reason = assert_fault(
            peer.post((text[:start] + text[end:]).encode()), "Sender", "MessageAddressingHeaderRequired"
        )
        assert f"wsa:{name}" in reason


def test_a_header_given_twice_is_invalid(peer: Peer) -> None:
    answer = peer.post(envelope(headers="<a:MessageID>urn:uuid:2</a:MessageID>"))
    assert_fault(answer, "Sender", "InvalidAddressingHeader")
    assert answer.text("s:Body/s:Fault/s:Code/s:Subcode/s:Subcode/s:Value") == "wsa:InvalidCardinality"


def test_an_unknown_action_is_not_supported_and_named(peer: Peer) -> None:
    """WS-Addressing SOAP Binding 6.4.3."""
    answer = peer.post(envelope("urn:example:wrong"))
    assert_fault(answer, "Sender", "ActionNotSupported")
    assert answer.text("s:Body/s:Fault/s:Detail/a:ProblemAction/a:Action") == "urn:example:wrong"
    assert answer.text("s:Header/a:RelatesTo") == "urn:uuid:1"


def test_a_body_that_does_not_fit_the_action_is_refused(peer: Peer) -> None:
    assert "demands {urn:test}Echo" in assert_fault(peer.post(envelope(ECHO, store_body())), "Sender")


def test_an_answer_elsewhere_is_not_supported(peer: Peer) -> None:
    answer = peer.post(envelope(headers="<a:ReplyTo><a:Address>http://elsewhere/</a:Address></a:ReplyTo>"))
    assert_fault(answer, "Sender", "InvalidAddressingHeader")
    assert "OnlyAnonymousAddressSupported" in (answer.text("s:Body/s:Fault/s:Code/s:Subcode/s:Subcode/s:Value") or "")


def test_strict_packaging_refuses_the_other_kind(strict: Peer) -> None:
    assert "single XML entity" in assert_fault(strict.post(multipart(envelope()), MTOM), "Sender")
    assert "multipart/related" in assert_fault(strict.post(envelope(STORE, store_body())), "Sender")
    assert strict.post(envelope()).status == 200
    assert strict.post(multipart(envelope(STORE, store_body())), MTOM).status == 200


def test_an_unforeseen_error_is_an_incident_whose_cause_stays_in_the_log(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = peer.post(envelope("urn:test:Broken", '<t:Broken xmlns:t="urn:test"/>'))
    reason = assert_fault(answer, "Receiver", status=500)
    assert b"secret" not in answer.body
    assert reason.rpartition(" ")[2] in caplog.text
    assert "secret of the house" in caplog.text


@pytest.mark.parametrize("content_type", ["", "application/json", "multipart/form-data; boundary=b1", "nonsense"])
def test_another_media_type_is_unsupported(peer: Peer, content_type: str) -> None:
    assert_fault(peer.post(envelope(), content_type), "Sender", status=415)


def test_a_compressed_request_is_unsupported(peer: Peer) -> None:
    answer = peer.request("POST", envelope(), {"Content-Type": "application/soap+xml", "Content-Encoding": "gzip"})
    assert_fault(answer, "Sender", status=415)


def test_a_client_that_leaves_in_the_middle_leaves_nothing_behind(peer: Peer) -> None:
    content = multipart(envelope(STORE, store_body("cid:d@x")), (part(), b"x" * 1_000_000))
    assert peer.post(content[:900_000], MTOM, chunk=65536, gone=True).status == 0


def test_what_is_refused_for_its_packaging_is_not_run(tmp_path: Path) -> None:
    ran: list[Call] = []

    def remember(call: Call) -> Reply:
        ran.append(call)
        return Reply(body=[b"<x/>"])

    one = replace(SERVICE, operations=(operation("Test_Store", STORE, "Store", remember, mtom=True),))
    strict = Peer(tmp_path, "strict", one)
    assert_fault(strict.post(envelope(STORE, store_body())), "Sender")
    assert ran == []
    assert strict.post(multipart(envelope(STORE, store_body())), MTOM).status == 200
    assert len(ran) == 1
    strict.executor.shutdown()


def test_multipart_to_a_simple_operation_is_answered_plainly(peer: Peer) -> None:
    answer = peer.post(multipart(envelope()), MTOM)
    assert answer.headers["content-type"] == "application/soap+xml; charset=UTF-8"
    assert answer.text("s:Body/{urn:test}EchoResponse") == "hello"


def test_a_part_that_nothing_includes_is_no_matter(peer: Peer) -> None:
    assert peer.post(multipart(envelope(STORE, store_body()), (part(), b"x")), MTOM).status == 200


def test_a_missing_or_repeated_part_is_the_senders_fault(peer: Peer) -> None:
    none = peer.post(multipart(envelope(STORE, store_body("cid:none"))), MTOM)
    assert "no part" in assert_fault(none, "Sender")
    twice = peer.post(multipart(envelope(STORE, store_body("cid:d@x", "cid:d@x")), (part(), b"x")), MTOM)
    assert "included twice" in assert_fault(twice, "Sender")
    assert twice.text("s:Header/a:RelatesTo") == "urn:uuid:1"


# --- streams ----------------------------------------------------------------------------------------------------------

LONG = envelope("urn:test:Long", '<t:Long xmlns:t="urn:test"/>')


def test_a_small_answer_is_one_event_of_known_length(peer: Peer) -> None:
    answer = peer.post(envelope())
    assert len(peer.sent) == 2
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_a_long_answer_is_sent_as_it_is_made(peer: Peer) -> None:
    answer = peer.post(LONG)
    assert (answer.text("s:Body/{urn:test}LongResponse") or "").encode() == PIECE * 32
    assert "content-length" not in answer.headers
    assert len(peer.sent) > 4
    assert max(len(event.get("body", b"")) for event in peer.sent) < 1024 * 1024


def test_an_answer_that_breaks_off_is_never_finished(peer: Peer) -> None:
    """The status is out by then; only a connection that ends too early tells the client."""
    with pytest.raises(RuntimeError, match="the disk is gone"):
        peer.post(LONG.replace(b"/></s:Body>", b">break</t:Long></s:Body>"))
    assert peer.sent[0]["status"] == 200
    assert all(event["more_body"] for event in peer.sent[1:])


def test_nothing_is_made_for_a_client_that_is_gone(peer: Peer) -> None:
    peer.post(LONG, leaves=True)
    assert sum(len(event.get("body", b"")) for event in peer.sent) < 32 * len(PIECE)
    assert peer.sent[-1]["more_body"]


def test_a_body_that_stalls_is_given_up(peer: Peer) -> None:
    answer = peer.post(multipart(envelope(STORE, store_body("cid:d@x")), (part(), b"x"))[:-20], MTOM, stalls=True)
    assert "no bytes for the limit of 0.05 s" in assert_fault(answer, "Sender", status=408)


def test_a_declared_length_over_the_limit_is_refused_before_the_body(peer: Peer) -> None:
    headers = {"Content-Type": MTOM, "Content-Length": "3000001"}
    answer = peer.request("POST", b"", headers, stalls=True)
    assert "3000000 bytes" in assert_fault(answer, "Sender", status=413)


def test_an_undeclared_length_over_the_limit_is_refused(peer: Peer) -> None:
    parts = [(part(f"<{number}>"), b"x" * 800_000) for number in range(4)]
    answer = peer.post(multipart(envelope(STORE, store_body()), *parts), MTOM, chunk=65536)
    assert "3000000 bytes" in assert_fault(answer, "Sender", status=413)


def test_a_spool_that_takes_nothing_is_an_incident(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    peer = Peer(tmp_path / "none", "lenient")
    content = multipart(envelope(STORE, store_body("cid:d@x")), (part(), os.urandom(1_500_000)))
    answer = peer.post(content, MTOM, chunk=65536)
    assert "incident" in assert_fault(answer, "Receiver", status=500)
    assert str(tmp_path).encode() not in answer.body
    assert "FileNotFoundError" in caplog.text
    peer.executor.shutdown()


# --- our client -------------------------------------------------------------------------------------------------------


def client(peer: Peer, change: Any = lambda answer: answer) -> SoapClient:
    """A client whose HTTP is the endpoint itself; `change` alters the answers on their way."""

    @dataclass
    class Response:
        status: int
        headers: Mapping[str, str]
        body: bytes

        def chunks(self) -> Iterator[bytes]:
            yield from (self.body[at : at + 1000] for at in range(0, len(self.body), 1000))

    @contextmanager
    def transport(url: str, headers: Mapping[str, str], body: Iterable[bytes]) -> Iterator[HttpResponse]:
        answer = change(peer.request("POST", b"".join(body), headers))
        yield Response(answer.status, answer.headers, answer.body)

    return SoapClient("http://x/test", transport, peer.directory)


def stored(call: SoapClient, *, mtom: bool) -> bytes:
    parts = [("d@x", Document.of(bytes(range(256)) * 1000, "a/b"))]
    body = store_body("cid:d@x").replace("i:", "xop:").replace(":i=", ":xop=").encode()
    with call.call(STORE, [body], parts, mtom=mtom) as received:
        return xop.resolve(received.body[0], received.documents).read()


@pytest.mark.parametrize("mtom", [True, False])
def test_a_document_goes_there_and_back(peer: Peer, mtom: bool) -> None:
    """As parts, and for a peer without MTOM as base64."""
    limits = replace(LIMITS, envelope_bytes=1_000_000)
    peer.endpoint = Endpoint(
        SERVICE, address="x", spool_directory=peer.directory, limits=limits, executor=peer.executor
    )
    assert stored(client(peer), mtom=mtom) == bytes(range(256)) * 1000


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_fault_is_raised_whatever_its_http_status(peer: Peer, status: int) -> None:
    changed = client(peer, lambda answer: replace(answer, status=status))
    with pytest.raises(SoapFault, match="not supported") as caught, changed.call("urn:wrong", [b"<x/>"], mtom=False):
        pass
    assert (caught.value.code, caught.value.subcode) == ("Sender", "ActionNotSupported")
    assert caught.value.problem_action == "urn:wrong"


def echoed(soap: SoapClient) -> str | None:
    with soap.call(ECHO, [b'<t:Echo xmlns:t="urn:test">hello</t:Echo>'], mtom=False) as received:
        return received.body.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda answer: replace(answer, status=502, headers={"content-type": "text/html"}), "HTTP 502"),
        (lambda answer: replace(answer, headers={}), "no SOAP"),
        (lambda answer: replace(answer, body=answer.body[:-5]), "not well-formed"),
        (lambda answer: replace(answer, headers={"content-type": "multipart/related; boundary=b"}), "no boundary|ends"),
        (
            lambda answer: replace(answer, body=answer.body.replace(b"RelatesTo>urn:", b"RelatesTo>other:")),
            "answered another message",
        ),
    ],
)
def test_an_answer_that_is_none_is_the_receivers_fault(peer: Peer, change: Any, reason: str) -> None:
    with pytest.raises(SoapFault, match=reason) as caught:
        echoed(client(peer, change))
    assert caught.value.code == "Receiver"


def test_an_answer_need_not_say_what_it_relates_to(peer: Peer) -> None:
    def silent(answer: Answer) -> Answer:
        return replace(answer, body=answer.body.replace(b"a:RelatesTo", b"a:From"))

    assert echoed(client(peer, silent)) == "hello"
