"""SOAP 1.2 envelopes as elements, in the encodings that peers use (SOAP 1.2 Part 1 5)."""

from __future__ import annotations

import codecs

import pytest

from soap.envelope import parse, parse_document
from soap.fault import SOAP11, SOAP12, SoapFault
from soap.operations import Limits

TEXT = "Müller"


def envelope(inside: str = f"<b>{TEXT}</b>", header: str = "", namespace: str = SOAP12, before: str = "") -> str:
    return f'{before}<e:Envelope xmlns:e="{namespace}">{header}<e:Body>{inside}</e:Body></e:Envelope>'


def declared(encoding: str) -> str:
    return f'<?xml version="1.0" encoding="{encoding}"?>'


def refusal(content: str | bytes, charset: str | None = None, limits: Limits | None = None) -> SoapFault:
    with pytest.raises(SoapFault) as caught:
        parse(content.encode() if isinstance(content, str) else content, charset=charset, limits=limits)
    return caught.value


def test_headers_and_the_one_child_of_the_body() -> None:
    parsed = parse(envelope("<b/>", "<e:Header><h1/><!-- c --><h2/></e:Header>").encode())
    assert [one.tag for one in parsed.headers] == ["h1", "h2"]
    assert parsed.body.tag == "b"


def test_a_header_need_not_be_there() -> None:
    assert parse(envelope().encode()).headers == ()


def test_comments_and_processing_instructions_vanish_and_leave_the_text_whole() -> None:
    body = parse(envelope("<b>one<!-- c --><?p i?>two</b>").encode()).body
    assert (body.text, len(body)) == ("onetwo", 0)


@pytest.mark.parametrize(
    ("content", "charset"),
    [
        (envelope().encode(), None),
        (envelope().encode(), "UTF-8"),
        (envelope().encode(), "us-ascii"),
        (envelope().encode("utf-8-sig"), "utf-8"),
        (envelope(before=declared("UTF-8")).encode(), "utf8"),
        (envelope(before=declared("utf-8")).encode("utf-8-sig"), None),
        (envelope(before=declared("iso-8859-1")).encode("latin-1"), None),
        (envelope().encode("latin-1"), "iso-8859-1"),
        (envelope(before=declared("ISO-8859-1")).encode("latin-1"), "ISO-8859-1"),
        (envelope(before=declared("UTF-16")).encode("utf-16"), None),
        (envelope().encode("utf-16"), "utf-16"),
        (envelope().encode("utf-16-le"), None),
        (envelope().encode("utf-16-be"), None),
        (envelope().encode("utf-16-be"), "utf-16"),
        (envelope().encode("utf-16-le"), "utf-16le"),
        (codecs.BOM_UTF16_BE + envelope(before=declared("UTF-16")).encode("utf-16-be"), "UTF-16"),
    ],
)
def test_the_text_is_the_same_in_every_encoding(content: bytes, charset: str | None) -> None:
    assert parse(content, charset=charset).body.text == TEXT


@pytest.mark.parametrize(
    ("content", "charset"),
    [
        (envelope(before=declared("iso-8859-1")).encode(), "utf-8"),
        (envelope(before=declared("utf-8")).encode("utf-16"), None),
        (envelope(before=declared("utf-16")).encode(), "utf-8"),
        (envelope(before=declared("iso-8859-1")).encode("utf-8-sig"), None),
        (envelope().encode("utf-8-sig"), "utf-16"),
        (envelope().encode("utf-16"), "utf-8"),
    ],
)
def test_mark_charset_and_declaration_must_not_contradict_each_other(content: bytes, charset: str | None) -> None:
    fault = refusal(content, charset)
    assert (fault.code, fault.http_status) == ("Sender", 400)


def test_bytes_that_are_not_in_the_encoding_they_claim_are_refused() -> None:
    assert "well-formed" in refusal(b"<a>\xff</a>").reason
    assert "from byte" in refusal(b"<\x00a\x00>\x00\x00\xd8", "utf-16-le").reason


@pytest.mark.parametrize("namespace", [SOAP11, "urn:x"])
def test_an_envelope_of_another_version_is_a_version_mismatch(namespace: str) -> None:
    """SOAP 1.2 Part 1 5.4.7."""
    assert refusal(envelope(namespace=namespace)).code == "VersionMismatch"


@pytest.mark.parametrize(
    "content",
    [
        envelope(inside=""),
        envelope(inside="text only"),
        envelope(inside="<a/><b/>"),
        envelope(header="<e:Header/><e:Header/>"),
        envelope(header="<e:Body><a/></e:Body>"),
        envelope(header="<x/>"),
        envelope().replace("</e:Body>", "</e:Body><e:Header/>"),
        envelope().replace("</e:Body>", "</e:Body><x/>"),
        f'<e:Envelope xmlns:e="{SOAP12}"/>',
        "<Envelope><Body><a/></Body></Envelope>".replace("Envelope", "Envelop"),
        "",
        "text",
        "<a>",
        envelope() + envelope(),
    ],
)
def test_what_is_no_envelope_is_the_senders_fault(content: str) -> None:
    fault = refusal(content)
    assert (fault.code, fault.http_status) == ("Sender", 400)


@pytest.mark.parametrize("misc", [" ", "\n", "<!---->", "<?p i?>", "<!-- -->\r\n\t"])
def test_what_stands_before_the_root_is_read_in_linear_time(misc: str) -> None:
    """A hundred thousand of anything; a prolog that is tried in every partition takes longer than the world exists."""
    assert parse(("<?xml version='1.0'?>" + misc * 100_000 + envelope("<b/>")).encode()).body.tag == "b"
    assert "document type" in refusal("<?xml version='1.0'?>" + misc * 100_000 + "<!DOCTYPE b>" + envelope()).reason


def test_a_short_text_can_not_become_a_large_tree() -> None:
    fault = refusal(envelope("<b/>" * 100), limits=Limits(tags=50))
    assert (fault.http_status, "50 tags" in fault.reason) == (413, True)


def test_a_document_is_any_root() -> None:
    assert parse_document(b"<any/>").tag == "any"


@pytest.mark.parametrize(("depth", "attributes", "refused"), [(50, 20, False), (51, 20, True), (50, 21, True)])
def test_depth_and_attributes_may_be_as_many_as_the_limit_says(depth: int, attributes: int, refused: bool) -> None:
    many = " ".join(f'a{number}="1"' for number in range(attributes))
    content = ("<a>" * (depth - 1) + f"<b {many}/>" + "</a>" * (depth - 1)).encode()
    limits = Limits(depth=50, attributes=20)
    if refused:
        with pytest.raises(SoapFault, match="limit of"):
            parse_document(content, limits=limits)
    else:
        assert parse_document(content, limits=limits).tag == "a"
