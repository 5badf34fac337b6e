"""Hostile messages (XML, XOP, multipart): each is refused with a fault that names what is wrong, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from soap.envelope import parse, parse_document
from soap.fault import SOAP12, WSA, SoapFault
from soap.multipart import parse_content_type
from soap.operations import Limits
from soap.receiving import Receiver
from soap.spool import Spool
from soap.xop import check_references, normalize, resolve
from tests.counting import calls_of
from xds.messages import Document

LIMITS = Limits(
    envelope_bytes=100_000,
    message_bytes=1_000_000,
    document_bytes=500_000,
    parts=20,
    part_header_bytes=1_000,
    depth=50,
    attributes=20,
)
ENTITY = '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
LAUGHS = (
    '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>'
)


def envelope(inside: str = "<a/>", before: str = "") -> str:
    return f'{before}<s:Envelope xmlns:s="{SOAP12}" xmlns:a="{WSA}"><s:Body>{inside}</s:Body></s:Envelope>'


def refusal(action: Callable[[], object]) -> SoapFault:
    with pytest.raises(SoapFault) as caught:
        action()
    return caught.value


@pytest.mark.parametrize(
    "before", [ENTITY, LAUGHS, "<!DOCTYPE x>", "<?xml version='1.0'?><!-- c --><?p i?>\n <!DOCTYPE x>"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig"])
def test_a_document_type_declaration_is_refused_in_every_encoding(before: str, encoding: str) -> None:
    """SOAP 1.2 Part 1 5: a message must not contain one."""
    content = envelope("<a>&e;</a>" if "ENTITY e" in before else "<a/>", before).encode(encoding)
    assert "document type declaration" in refusal(lambda: parse(content)).reason


def test_a_comment_that_speaks_of_a_doctype_is_none() -> None:
    assert parse(envelope("<a/>", "<!-- <!DOCTYPE x> -->").encode()).body.tag == "a"


def test_an_undeclared_entity_is_not_well_formed() -> None:
    assert "not well-formed" in refusal(lambda: parse(envelope("<a>&nbsp;</a>").encode())).reason


def test_nesting_is_bounded() -> None:
    fault = refusal(lambda: parse(envelope("<a>" * 60 + "</a>" * 60).encode(), limits=LIMITS))
    assert (fault.http_status, "50 elements" in fault.reason) == (413, True)
    assert refusal(lambda: parse(envelope("<a>" * 9000 + "</a>" * 9000).encode())).code == "Sender"


def test_attributes_are_bounded() -> None:
    many = " ".join(f'a{number}="1"' for number in range(21))
    assert "20 attributes" in refusal(lambda: parse(envelope(f"<a {many}/>").encode(), limits=LIMITS)).reason


def test_namespaces_are_bounded() -> None:
    many = " ".join(f'xmlns:n{number}="u"' for number in range(30))
    assert (
        "namespaces" in refusal(lambda: parse(envelope(f"<a {many}/>").encode(), limits=Limits(namespaces=20))).reason
    )


def test_an_envelope_is_bounded() -> None:
    assert refusal(lambda: parse(b" " * 100_001, limits=LIMITS)).http_status == 413


@pytest.mark.parametrize("charset", ["utf-7", "utf-32", "ebcdic-cp-us", "no-such", "rot13"])
def test_encodings_that_only_attackers_use_are_refused(charset: str) -> None:
    assert refusal(lambda: parse(envelope().encode(), charset=charset)).http_status == 415
    declared = f"<?xml version='1.0' encoding='{charset}'?>"
    assert refusal(lambda: parse(envelope(before=declared).encode())).http_status == 415


def test_a_declaration_that_contradicts_the_content_type_is_refused() -> None:
    declared = "<?xml version='1.0' encoding='iso-8859-1'?>"
    assert "declares the encoding" in refusal(lambda: parse(envelope(before=declared).encode(), charset="utf-8")).reason


def test_a_processing_instruction_or_schema_location_fetches_nothing() -> None:
    before = '<?xml-stylesheet href="http://127.0.0.1:9/x.xsl"?>'
    inside = '<a xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:schemaLocation="u http://127.0.0.1:9/x.xsd"/>'
    assert parse(envelope(inside, before).encode()).body.tag == "a"


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "http://127.0.0.1/x",
        "https://x",
        "ftp://x",
        "gopher://x",
        "/etc/passwd",
        "cid:",
        "",
        "cid%3Ad@x",
        "data:,x",
    ],
)
def test_an_include_of_anything_but_a_part_is_never_fetched(href: str) -> None:
    assert "only cid:" in refusal(lambda: normalize(href)).reason


def include(href: str) -> str:
    return f'<xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="{href}"/>'


@pytest.mark.parametrize(
    "content",
    [
        f"{include('cid:d')} x",
        f"x{include('cid:d')}",
        f"{include('cid:d')}<b/>",
        include("cid:d") * 2,
        "<b/>",
        include("cid:none"),
    ],
)
def test_an_include_with_company_or_without_a_part_is_refused(content: str) -> None:
    element = parse_document(f"<D>{content}</D>".encode())
    assert refusal(lambda: resolve(element, {"d": Document.of(b"x", "text/plain")})).code == "Sender"


def test_one_part_may_be_included_once() -> None:
    body = parse_document(f"<r><a>{include('cid:d')}</a><b>{include('cid:d')}</b></r>".encode())
    fault = refusal(lambda: check_references(body, {"d": Document.of(b"x", "text/plain")}))
    assert "included twice" in fault.reason


@pytest.mark.parametrize("text", ["SGVsbG8", "SG$sbG8=", "====", "Hällo"])
def test_inline_text_that_is_no_base64_is_refused(text: str) -> None:
    assert "base64" in refusal(lambda: resolve(parse_document(f"<D>{text}</D>".encode()), {})).reason


MTOM = 'multipart/related; start="<r>"; boundary="b"'
ROOT = b"--b\r\nContent-Type: application/xop+xml\r\nContent-ID: <r>\r\n\r\n" + envelope().encode()


def receive(content: bytes, spool: Spool, content_type: str = MTOM) -> Receiver:
    receiver = Receiver(content_type, spool, LIMITS)
    for at in range(0, len(content), 5000):
        receiver.receive_data(content[at : at + 5000])
    receiver.envelope()
    return receiver


PART = b"\r\n--b\r\nContent-ID: <d>\r\n\r\n"
HOSTILE = {
    "truncated": (ROOT + PART + b"x", 400, "ends before its closing boundary"),
    "no boundary at all": (b"x" * 70_000, 413, "no boundary within"),
    "too many parts": (
        ROOT + b"".join(b"\r\n--b\r\nContent-ID: <%d>\r\n\r\n" % n for n in range(30)) + b"\r\n--b--",
        413,
        "20 parts",
    ),
    "endless headers": (ROOT + b"\r\n--b\r\nX: " + b"x" * 5000, 413, "longer than 1000 bytes"),
    "a header without colon": (ROOT + b"\r\n--b\r\nnonsense\r\n\r\n\r\n--b--", 400, "without a colon"),
    "two content ids": (ROOT + PART + b"x" + PART + b"y\r\n--b--", 400, "two parts have the Content-ID"),
    "a header twice": (ROOT + b"\r\n--b\r\nContent-ID: <d>\r\nContent-ID: <e>\r\n\r\n\r\n--b--", 400, "twice"),
    "a document too large": (ROOT + PART + b"x" * 600_000 + b"\r\n--b--", 413, "500000 bytes"),
    "a message too large": (
        ROOT + b"".join(PART.replace(b"<d>", b"<%d>" % n) + b"x" * 400_000 for n in range(3)),
        413,
        "1000000 bytes",
    ),
    "a root too large": (ROOT + b" " * 200_000 + b"\r\n--b--", 413, "100000 bytes"),
    "false base64": (
        ROOT + b"\r\n--b\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <d>\r\n\r\n$$$$\r\n--b--",
        400,
        "base64",
    ),
    "an unknown transfer encoding": (
        ROOT + b"\r\n--b\r\nContent-Transfer-Encoding: x-gzip\r\n\r\n\r\n--b--",
        400,
        "unknown",
    ),
    "text after a boundary": (ROOT + b"\r\n--bx\r\n\r\n\r\n--b--", 400, "followed by other text"),
    "no root": (ROOT.replace(b"<r>", b"<other>") + b"\r\n--b--", 400, "no part has the Content-ID"),
    "a root of another type": (ROOT.replace(b"application/xop+xml", b"image/png") + b"\r\n--b--", 415, "image/png"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_multipart_is_refused_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    content, status, reason = HOSTILE[name]
    with Spool(tmp_path, memory_bytes=1000) as spool:
        fault = refusal(lambda: receive(content, spool))
    assert reason in fault.reason
    assert fault.http_status == status
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content_type", ["multipart/related", 'multipart/related; boundary=""', f"multipart/related; boundary={'b' * 201}"]
)
def test_a_boundary_is_needed_and_bounded(content_type: str, tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert "boundary" in refusal(lambda: receive(ROOT, spool, content_type)).reason


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related;" + " " * 600_000 + "=",
        "multipart/related; boundary=b;" + "a" * 600_000,
        "multipart/related; boundary=b" + ';x="' * 150_000,
        'multipart/related; boundary=b; x="' + "\\" * 600_000,
    ],
)
def test_a_content_type_is_read_in_linear_time(content_type: str) -> None:
    """A fraction of a second, of whatever machine; an expression that tries each place again would take many minutes."""
    started = time.process_time()
    parse_content_type(content_type)
    assert time.process_time() - started < 30


def test_many_near_boundaries_cost_linear_time(tmp_path: Path) -> None:
    """A body full of beginnings of boundaries must not make the reader slow."""

    def cost(beginnings: int) -> int:
        with Spool(tmp_path) as spool:
            return calls_of(lambda: receive(ROOT + PART + b"\r\n--" * beginnings + b"\r\n--b--", spool))

    assert cost(80_000) < 4.5 * cost(20_000)
