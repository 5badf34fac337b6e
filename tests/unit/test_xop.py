"""From a binary element to its bytes: xop:Include and inline base64 (XOP 1.0 3.2, RFC 2392)."""

from __future__ import annotations

import base64

import pytest

from soap.envelope import parse_document
from soap.fault import SoapFault
from soap.xop import check_references, normalize, resolve
from xds.messages import Document

PART = Document.of(b"bytes", "application/dicom")


def including(href: str) -> str:
    return f'<i:Include xmlns:i="http://www.w3.org/2004/08/xop/include" href="{href}"/>'


def document(content: str, *names: str) -> Document:
    return resolve(parse_document(f"<Document>{content}</Document>".encode()), dict.fromkeys(names, PART))


@pytest.mark.parametrize(
    ("href", "identifier"),
    [
        ("cid:a@x", "a@x"),
        ("cid:a%40x", "a@x"),
        ("CID:a@x", "a@x"),
        ("cid:%3Ca@x%3E", "a@x"),
        ("cid:<a@x>", "a@x"),
        (" cid:a@x\n", "a@x"),
        ("cid:plain", "plain"),
        ("cid:a+b", "a+b"),
        ("cid:a%2540x", "a%40x"),
        ("cid:urn:uuid:1", "urn:uuid:1"),
        ("cid:http%3A%2F%2Ftempuri.org%2F1", "http://tempuri.org/1"),
    ],
)
def test_a_reference_is_decoded_once(href: str, identifier: str) -> None:
    assert normalize(href) == identifier


def test_an_include_gives_the_part() -> None:
    assert document(including("cid:a@x"), "a@x", "b@x") is PART


def test_a_content_id_that_is_itself_percent_encoded_is_found() -> None:
    """Some peers write the same encoded text in the href and in the Content-ID."""
    assert document(including("cid:http%3A%2F%2Fx"), "http%3A%2F%2Fx") is PART


def test_white_space_around_an_include_is_no_company() -> None:
    """Indented by a peer that prints its XML prettily."""
    assert document(f"\n  {including('cid:a')}\n", "a") is PART


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100_000])
def test_inline_base64_gives_its_bytes(size: int) -> None:
    content = bytes(index % 256 for index in range(size))
    inline = document(base64.encodebytes(content).decode())
    assert (inline.read(), inline.size) == (content, size)


def test_an_empty_element_is_an_empty_document() -> None:
    assert document("").size == 0


def test_a_missing_part_is_named() -> None:
    with pytest.raises(SoapFault, match=r"cid:none@x.*no part of that Content-ID"):
        document(including("cid:none@x"), "a@x")


def test_an_include_without_href_is_refused() -> None:
    with pytest.raises(SoapFault, match="only cid:"):
        document('<i:Include xmlns:i="http://www.w3.org/2004/08/xop/include"/>', "a")


def test_references_in_two_spellings_are_one_part_included_twice() -> None:
    body = parse_document(f"<r><a>{including('cid:a@x')}</a><b>{including('cid:a%40x')}</b></r>".encode())
    with pytest.raises(SoapFault, match="included twice"):
        check_references(body, {"a@x": PART})


def test_each_part_once_is_well() -> None:
    body = parse_document(f"<r><a>{including('cid:a')}</a><b>{including('cid:b')}</b></r>".encode())
    check_references(body, {"a": PART, "b": PART})
